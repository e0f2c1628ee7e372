"""Hostile programs as data: what each tries, what has to happen instead, and which mechanism sees to that.

In:  nothing.  Out: PROGRAMS, run by test_hostile.py and never outside a sandbox.

Unusual: long, because it is a table. The numbers up to 62 are those of the published list that the sandbox was designed
against (three pairs of them are one program there), from 101 on they are our own. Programs print `LEAK: ...` where a
protection failed and otherwise what they saw; they never print what they could read, change nothing outside even where
they could (a call that would do harm gets arguments with which it cannot succeed), and stop by themselves at a few
times the limit that should have stopped them.

`@MARK@` is a number that names a program's processes, so that survivors are found; `@FILE@`, `@PID@`, `@PORT@` and
`@ABSTRACT@` are canaries outside the box: a file anybody may write, a process of the same user, listening sockets.
"""

from dataclasses import dataclass, replace

from codeweft.sandbox.config import Limits

SMALL = Limits(
    cpu_seconds=0.3, wall_seconds=3.0, memory_mib=96, tasks=24, disk_mib=8, shared_mib=4, inodes=256, file_mib=8,
    open_files=64, stdout_bytes=65536, stderr_bytes=16384,
)  # fmt: skip
SHORT = replace(SMALL, wall_seconds=0.6)  # for what sleeps instead of computing
ROOMY = replace(SMALL, cpu_seconds=2.0, wall_seconds=6.0, memory_mib=512, open_files=1024, tasks=40)  # for node, gcc

STOPPED = ("time_limit",)
TOO_BIG = ("memory_limit",)
FAILED = ("runtime_error",)
# a program may catch what the kernel refuses, die of it, or be ended by the watchdog first
HELD = ("ok", "runtime_error", "memory_limit", "time_limit")


@dataclass(frozen=True)
class Hostile:
    """One program: `statuses` are the verdicts that may come out.

    `says` is a pattern that stdout must contain, `because` words that the verdict's detail must.
    """

    number: int
    name: str
    stopped_by: str
    code: str
    statuses: tuple[str, ...] = ("ok",)
    says: str = ""
    because: str = ""
    exit_code: int | None = None
    language: str = "python"
    limits: Limits = SMALL
    stdin: bytes = b""
    repeats: int = 1
    slow: bool = False  # burns the clock for longer than the quick tests may


# What every Python program begins with. The first lines are a belt: without a pid namespace nothing is tried at all.
PREAMBLE = """\
import ctypes, errno, os, resource, signal, socket, struct, sys, time
if os.getpid() > 99:
    print("LEAK: no pid namespace")
    os._exit(99)
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(15, b"@MARK@", 0, 0, 0)
FORBIDDEN = (errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EAFNOSUPPORT)

def name_of(error):
    return errno.errorcode.get(error.errno, str(error.errno)) if isinstance(error, OSError) else type(error).__name__

def attempt(what, action):
    try:
        action()
    except (OSError, ValueError) as error:
        print(what, name_of(error), flush=True)
    else:
        print("LEAK:", what, flush=True)

def refused(what, numbers, *arguments):
    number = numbers[os.uname().machine != "x86_64"] if isinstance(numbers, tuple) else numbers
    if number is None:
        return
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *[ctypes.c_long(argument) for argument in arguments])
    code = ctypes.get_errno()
    if result == 0 and what.startswith("clone"):
        os._exit(0)
    if result >= 0 or code not in FORBIDDEN:
        print("LEAK:", what, "reached the kernel:", errno.errorcode.get(code, result), flush=True)
    else:
        print(what, errno.errorcode[code], flush=True)

def until(what, limit, action):
    for count in range(limit):
        try:
            action(count)
        except (OSError, MemoryError, RuntimeError, ValueError) as error:
            print(what, "stopped at", count, name_of(error), flush=True)
            return
    print("LEAK:", what, "reached", limit, flush=True)

def put(path, data):
    os.write(os.open(path, os.O_WRONLY), data)

def idle_child(_=0):
    if os.fork() == 0:
        time.sleep(60)
        os._exit(0)

"""

PROCESSES = (
    Hostile(1, "counted fork bomb", "RLIMIT_NPROC inside the user namespace", """
until("forks", 100, idle_child)
""", says="forks stopped at", repeats=3),
    Hostile(101, "fork bomb that doubles", "RLIMIT_NPROC; the end of the pid namespace", """
while True:
    try:
        os.fork()
    except OSError:
        pass
""", statuses=STOPPED, repeats=3),
    Hostile(2, "thread bomb", "RLIMIT_NPROC", """
import threading
until("threads", 100, lambda _: threading.Thread(target=time.sleep, args=(60,), daemon=True).start())
""", says="threads stopped at"),
    Hostile(35, "zombies that nobody waits for", "RLIMIT_NPROC", """
def zombie(_):
    if os.fork() == 0:
        os._exit(0)
until("zombies", 200, zombie)
""", says="zombies stopped at"),
    Hostile(102, "threads that fork", "RLIMIT_NPROC counts threads and processes together", """
import threading
count = 0
def grow():
    global count
    for _ in range(50):
        try:
            idle_child()
            count += 1
        except OSError:
            return
for _ in range(20):
    try:
        threading.Thread(target=grow, daemon=True).start()
    except RuntimeError:
        break
time.sleep(0.2)
print("LEAK: 60 processes" if count > 60 else f"held at {count}")
""", says="held at"),
    Hostile(103, "a tree that grows again when killed", "kill(-1) by pid 1; the end of the namespace", """
def grow(*_):
    for _ in range(2):
        try:
            if os.fork() == 0:
                os.setsid()
        except OSError:
            return
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGCHLD, signal.SIGCONT, signal.SIGXCPU):
    signal.signal(number, grow)
grow()
while True:
    try:
        os.kill(-1, signal.SIGTERM)
    except OSError:
        pass
""", statuses=STOPPED, repeats=3),
    Hostile(26, "daemon that outlives its parent", "pid 1's exit ends the namespace", """
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        for descriptor in range(3):
            os.close(descriptor)
        time.sleep(60)
    os._exit(0)
print("left a daemon")
""", says="left a daemon", repeats=3),
    Hostile(104, "daemon under a subreaper, all signals blocked", "the end of the pid namespace", """
libc.prctl(36, 1, 0, 0, 0)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
idle_child()
print("left a daemon")
""", says="left a daemon"),
    Hostile(60, "shell with a background child", "the end of the pid namespace", """
os.execv("/bin/sh", ["sh", "-c", "sleep 60.@MARK@ & echo shell"])
""", says="shell"),
    Hostile(59, "kills its own group, then ends well", "the group is the program's own", """
signal.signal(signal.SIGTERM, signal.SIG_IGN)
os.killpg(0, signal.SIGTERM)
print("killed the group", flush=True)
os.killpg(0, signal.SIGKILL)
""", statuses=FAILED, says="killed the group", exit_code=-9),
    Hostile(21, "signals to pid 1, to the parent, to all", "pid namespace, Landlock's signal scope", """
for number in range(1, 65):
    for victim in (1, os.getppid()):
        try:
            os.kill(victim, number)
        except OSError:
            pass
try:
    os.kill(-1, signal.SIGKILL)
except OSError as error:
    print(name_of(error))
time.sleep(0.1)
print("still watched")
""", says="still watched"),
    Hostile(61, "kill a process of the same user outside", "pid namespace, Landlock's signal scope", """
for number in (0, signal.SIGTERM, signal.SIGKILL):
    attempt("kill", lambda: os.kill(@PID@, number))
attempt("pidfd", lambda: os.pidfd_open(@PID@))
attempt("group", lambda: os.killpg(@PID@, 9))
""", says="kill ESRCH|kill EPERM"),
    Hostile(58, "stops itself", "the clock of the supervisor", """
os.kill(os.getpid(), signal.SIGSTOP)
""", statuses=STOPPED, limits=SHORT),
    Hostile(105, "flood of orphans for pid 1 to reap", "the limit on processor seconds", """
while True:
    try:
        if os.fork() == 0:
            try:
                os.fork()
            finally:
                os._exit(0)
        os.wait()
    except OSError:
        pass
""", statuses=STOPPED),
    Hostile(106, "limits and priority of pid 1 changed", "seccomp on prlimit64; pid 1 is another's", """
for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE, resource.RLIMIT_STACK):
    attempt("prlimit of pid 1", lambda: resource.prlimit(1, kind, (0, 0)))
time.sleep(0.1)
print("still watched")
""", says="still watched"),
    Hostile(107, "pid 1 starved of processor time", "it only watches; the supervisor's clock is another process", """
for action in (
    lambda: os.setpriority(os.PRIO_PROCESS, 1, 19),
    lambda: os.sched_setscheduler(1, os.SCHED_IDLE, os.sched_param(0)),
    lambda: os.setpriority(os.PRIO_USER, os.getuid(), 19),
):
    try:
        action()
    except OSError as error:
        print(name_of(error))
while True:
    pass
""", statuses=STOPPED),
    Hostile(108, "processor seconds spread over children", "the watchdog's sum over the tree", """
def burn(seconds):
    while time.process_time() < seconds:
        pass
for _ in range(6):
    if os.fork() == 0:
        burn(0.4)
        os._exit(0)
for _ in range(6):
    os.wait()
print("LEAK: more than two processor seconds")
""", statuses=STOPPED, because="processor time", limits=replace(SMALL, wall_seconds=20)),
    Hostile(166, "processor seconds of processes whose name is no text", "the watchdog reads bytes", """
libc.prctl(15, b"\\xff\\n)@MARK@", 0, 0, 0)
for _ in range(6):
    if os.fork() == 0:
        while time.process_time() < 0.4:
            pass
        os._exit(0)
for _ in range(6):
    os.wait()
print("LEAK: more than two processor seconds")
""", statuses=STOPPED, because="processor time", limits=replace(SMALL, wall_seconds=20)),
    Hostile(168, "processor seconds of children that nobody waits for", "an account that does not need waiting", """
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
for _ in range(100):
    if os.fork() == 0:
        while time.process_time() < 0.02:
            pass
        os._exit(0)
    try:
        os.wait()
    except OSError:
        pass
print("LEAK: two processor seconds")
""", statuses=STOPPED, because="processor time", limits=replace(SMALL, wall_seconds=20)),
    Hostile(109, "processor seconds hidden in children that are gone", "pid 1's own account of reaped children", """
for _ in range(100):
    child = os.fork()
    if child == 0:
        if os.fork() == 0:
            while time.process_time() < 0.02:
                pass
        os._exit(0)
    os.waitpid(child, 0)
    time.sleep(0.02)
print("LEAK: two processor seconds")
""", statuses=STOPPED, because="processor time", limits=replace(SMALL, wall_seconds=20)),
)  # fmt: skip

MEMORY = (
    Hostile(3, "private memory", "RLIMIT_DATA", """
held = []
until("MiB/4", 100, lambda _: held.append(bytearray(b"x") * (4 << 20)))
""", statuses=HELD, repeats=3),
    Hostile(4, "shared anonymous mappings", "seccomp on mmap", """
import mmap
held = []
def take(_):
    held.append(mmap.mmap(-1, 4 << 20))
    held[-1].write(b"x" * (4 << 20))
until("MiB/4", 60, take)
""", statuses=HELD),
    Hostile(110, "shared mappings of /dev/zero", "they are counted, or /dev/zero cannot be mapped shared", """
import mmap
held = []
try:
    zero = os.open("/dev/zero", os.O_RDWR)
except OSError as error:
    print(name_of(error))
    sys.exit()
def take(_):
    held.append(mmap.mmap(zero, 4 << 20))
    held[-1].write(b"x" * (4 << 20))
until("MiB/4", 60, take)
""", statuses=HELD),
    Hostile(111, "mappings that count as a stack", "the watchdog's sum of private memory", """
import mmap
held = []
def take(_):
    held.append(mmap.mmap(-1, 4 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x100))
    held[-1].write(b"x" * (4 << 20))
    time.sleep(0.01)
until("MiB/4", 60, take)
""", statuses=HELD),
    Hostile(5, "memory files", "seccomp on memfd_create", """
held = []
def take(_):
    held.append(os.memfd_create("hoard"))
    os.write(held[-1], b"x" * (4 << 20))
until("MiB/4", 60, take)
refused("memfd_secret", 447, 0)
""", statuses=HELD, says="stopped at 0"),
    Hostile(6, "many children with a little memory each", "the watchdog's sum over the tree", """
for _ in range(10):
    if os.fork() == 0:
        held = bytearray(b"x") * (30 << 20)
        time.sleep(60)
        os._exit(0)
time.sleep(60)
""", statuses=TOO_BIG, repeats=3),
    Hostile(165, "memory of processes whose name is no text", "the watchdog reads bytes", """
libc.prctl(15, b"\\xff)@MARK@", 0, 0, 0)
for _ in range(10):
    if os.fork() == 0:
        held = bytearray(b"x") * (30 << 20)
        time.sleep(60)
        os._exit(0)
time.sleep(60)
""", statuses=TOO_BIG),
    Hostile(167, "memory of processes whose main thread has ended", "the watchdog looks at threads", """
import threading
def hold():
    time.sleep(0.5)
    held = bytearray(b"x") * (30 << 20)
    time.sleep(60)
for _ in range(8):
    if os.fork() == 0:
        threading.Thread(target=hold).start()
        time.sleep(0.1)
        libc.syscall(60 if os.uname().machine == "x86_64" else 93, 0)
time.sleep(2)
resident = 0
for path in __import__("glob").glob("/proc/[0-9]*/task/*/statm"):
    resident += int(open(path).read().split()[1]) * 4096 >> 20
print(f"LEAK: {resident} MiB")
""", statuses=TOO_BIG, limits=replace(SMALL, wall_seconds=20)),
    Hostile(112, "memory in processes, files and pages at once", "the watchdog counts files in memory too", """
for _ in range(3):
    if os.fork() == 0:
        held = bytearray(b"x") * (22 << 20)
        time.sleep(60)
for folder in ("/tmp", "/box", "/dev/shm"):
    try:
        with open(folder + "/filler", "wb") as file:
            while True:
                file.write(b"x" * 65536)
                file.flush()
    except OSError:
        pass
print("filled", flush=True)
time.sleep(60)
""", statuses=TOO_BIG, limits=replace(SMALL, memory_mib=80)),
    Hostile(113, "memory in the buffers of local sockets", "RLIMIT_NOFILE times the largest buffer", """
pairs = []
def take(_):
    one, other = socket.socketpair()
    one.setblocking(False)
    pairs.append((one, other))
    try:
        while True:
            one.send(b"x" * 65536)
    except BlockingIOError:
        pass
until("pairs", 400, take)
""", says="EMFILE"),
    Hostile(163, "memory that a child is thought to have inherited", "the watchdog subtracts what is shared only", """
code = "import time; held = bytearray(b'x') * (8 << 20); time.sleep(60)"
for _ in range(20):
    if os.fork() == 0:
        os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", code, "@MARK@"])
time.sleep(1.5)
total = 0
for process in os.listdir("/proc"):
    if process.isdigit() and process != "1":
        resident, shared = open(f"/proc/{process}/statm").read().split()[1:3]
        total += (int(resident) - int(shared)) * 4096 >> 20
print(f"LEAK: {total} MiB in {len(os.listdir('/proc'))} entries" if total > 150 else f"held at {total}")
""", statuses=TOO_BIG, limits=replace(SMALL, cpu_seconds=3, wall_seconds=20)),
    Hostile(164, "memory in socket buffers of many processes", "the watchdog counts what waits in sockets", """
reading, writing = os.pipe()
for _ in range(20):
    if os.fork() == 0:
        pairs, sent = [], 0
        try:
            while True:
                pairs.append(socket.socketpair())
                for one in pairs[-1]:
                    one.setblocking(False)
                    try:
                        while True:
                            sent += one.send(b"x" * 65536)
                    except BlockingIOError:
                        pass
        except OSError:
            os.write(writing, b"%8d" % (sent >> 10))
            time.sleep(60)
total = sum(int(os.read(reading, 8)) for _ in range(20)) >> 10
time.sleep(0.3)  # the watchdog looks, it does not account: what is held for some looks must not stay unseen
print(f"LEAK: {total} MiB" if total > 230 else f"held at {total}")
""", statuses=HELD, limits=replace(SMALL, memory_mib=192)),
    Hostile(52, "large pipes", "the kernel's limit on a user's pipe pages", """
import fcntl
held = []
def take(_):
    held.append(os.pipe())
    fcntl.fcntl(held[-1][1], 1031, 1 << 20)
    os.set_blocking(held[-1][1], False)
    os.write(held[-1][1], b"x" * (1 << 20))
until("pipes of 1 MiB", 100, take)
""", says="stopped at"),
    Hostile(114, "locked and huge pages", "RLIMIT_MEMLOCK 0, no capability", """
for what, call in (("mlockall", lambda: libc.mlockall(3)), ("mlock", lambda: libc.mlock(id(0), 1 << 20))):
    print(what, "LEAK: locked" if call() == 0 else errno.errorcode[ctypes.get_errno()])
""", says="mlockall E"),
    Hostile(115, "threads with large stacks", "RLIMIT_DATA", """
import threading
threading.stack_size(64 << 20)
until("stacks", 20, lambda _: threading.Thread(target=time.sleep, args=(60,), daemon=True).start())
""", says="stacks stopped at"),
    Hostile(44, "runaway recursion", "the interpreter's limit", """
def deeper(): return deeper()
deeper()
""", statuses=FAILED, exit_code=1),
    Hostile(116, "runaway recursion without the usual limit", "RLIMIT_STACK, RLIMIT_DATA, processor seconds", """
sys.setrecursionlimit(1 << 30)
class Deeper:
    def __repr__(self): return repr(self)
def deeper(): return deeper() + 1
try:
    deeper()
except MemoryError:
    print("MemoryError")
repr(Deeper())
""", statuses=("runtime_error", "memory_limit", "time_limit")),
    Hostile(117, "wants to be the first victim of the kernel", "only itself is offered", """
try:
    put("/proc/self/oom_score_adj", b"1000")
except OSError as error:
    print(name_of(error))
attempt("protect itself", lambda: put("/proc/self/oom_score_adj", b"-1000"))
attempt("offer pid 1", lambda: put("/proc/1/oom_score_adj", b"1000"))
""", says="protect itself E"),
)  # fmt: skip

FILES = (
    Hostile(7, "fill /box and /tmp", "the size of the tmpfs", """
for folder in ("/box", "/tmp"):
    files = [open(f"{folder}/{number}", "wb", buffering=0) for number in range(4)]
    until(folder, 400, lambda count: files[count % 4].write(b"x" * 65536) == 65536 or os.write(-1, b""))
""", says="stopped at"),
    Hostile(10, "fill /dev/shm", "the size of the tmpfs", """
file = open("/dev/shm/filler", "wb", buffering=0)
until("/dev/shm", 150, lambda _: file.write(b"x" * 65536) == 65536 or os.write(-1, b""))
""", says="/dev/shm stopped at"),
    Hostile(8, "a file of a terabyte", "RLIMIT_FSIZE", """
with open("/tmp/large", "wb") as file:
    attempt("truncate", lambda: os.truncate(file.fileno(), 1 << 40))
    attempt("allocate", lambda: os.posix_fallocate(file.fileno(), 0, 1 << 40))
""", says="truncate EFBIG"),
    Hostile(118, "sparse files mapped and written", "the size of the tmpfs", """
import mmap
parts = []
for number in range(4):
    part = open(f"/tmp/{number}", "w+b")
    part.truncate(6 << 20)
    parts.append(mmap.mmap(part.fileno(), 6 << 20))
for part in parts:
    for place in range(0, 6 << 20, 4096):
        part[place] = 1
print("LEAK: wrote three times the size")
""", statuses=FAILED, exit_code=-7),
    Hostile(9, "inode exhaustion", "nr_inodes of the tmpfs", """
for folder in ("/box", "/tmp", "/dev/shm"):
    until(folder, 1000, lambda count: os.close(os.open(f"{folder}/{count}", os.O_CREAT | os.O_WRONLY)))
""", says="ENOSPC"),
    Hostile(43, "5000 folders deep", "nr_inodes; a box ends by unmounting, not by removing files", """
os.chdir("/tmp")
def deeper(_):
    os.mkdir("d")
    os.chdir("d")
until("depth", 5000, deeper)
""", says="ENOSPC"),
    Hostile(119, "a million symbolic and hard links", "nr_inodes", """
open("/tmp/one", "w").close()
until("symbolic", 1000000, lambda count: os.symlink("x" * 50, f"/box/{count}"))
until("hard", 1000000, lambda count: os.link("/tmp/one", f"/tmp/{count}"))
""", says="symbolic stopped.*hard stopped"),
    Hostile(25, "symbolic link out of the box", "nothing of the host is shared for writing", """
for number, target in enumerate(("@FILE@", "/usr/lib/x", "/proc/1/root@FILE@", "../../../../@FILE@", "/etc/passwd")):
    os.symlink(target, f"/box/link{number}")
    attempt(target, lambda: open(f"/box/link{number}", "r+b"))
    attempt("append", lambda: open(f"/box/link{number}", "ab"))
"""),
    Hostile(34, "delete its own folder", "a tmpfs of its own", """
import shutil
for folder in ("/box", "/etc", "/dev", "/tmp"):
    shutil.rmtree(folder, ignore_errors=True)
print(os.path.exists("/usr"), os.path.exists("/box"))
""", says="True True"),
    Hostile(24, "write to the system", "read-only mounts, no capabilities", """
for path in ("/usr/x", "/etc/x", "/x", "/opt/x", "/lib/x", "/bin/x", "/dev/x", "/proc/x", "/home/x", "/root/x",
             "/var/x", "/run/x", "/sys/x"):
    attempt(path, lambda: os.open(path, os.O_CREAT | os.O_WRONLY))
for path in ("/proc/sysrq-trigger", "/proc/sys/kernel/hostname", "/proc/sys/kernel/core_pattern", "/etc/passwd",
             "/proc/sys/vm/drop_caches", "/proc/sys/fs/file-max", "/proc/sys/user/max_user_namespaces", "/proc/1/mem",
             "/usr/bin/env", "/proc/kcore", "/proc/kmsg", "/dev/mem", "/dev/kmsg", "/dev/kvm", "/dev/fuse"):
    attempt(path, lambda: os.open(path, os.O_WRONLY))
attempt("hostname", lambda: socket.sethostname("taken"))
""", says="/usr/x E"),
    Hostile(56, "poison the packages of the next program", "read-only mounts", """
import sysconfig
for folder in {*sys.path, os.path.dirname(os.__file__), *sysconfig.get_paths().values()}:
    if os.path.isdir(folder) and not folder.startswith(("/box", "/tmp")) and folder:
        for name in ("sitecustomize.py", "json.py", "__pycache__/json.cpython-311.pyc", "poison.pth"):
            attempt("write", lambda: open(os.path.join(folder, name), "wb"))
        attempt("replace", lambda: os.rename(os.path.join(folder, "json"), os.path.join(folder, "j")))
""", says="write E"),
    Hostile(120, "start-up files for later programs", "a fresh /tmp and /box for each run", """
home = os.path.expanduser("~")
line = "import os; os.write(1, b'LEAK: started by an earlier program')\\n"
for name in ("usercustomize.py", "sitecustomize.py", "json.py", "os.py", ".pythonrc.py", "__init__.py", "harness.py"):
    for folder in (home, "/box", "/tmp", home + "/.local/lib/python3.11/site-packages"):
        try:
            os.makedirs(folder, exist_ok=True)
            with open(f"{folder}/{name}", "w") as file:
                file.write(line)
        except OSError as error:
            print(name, name_of(error))
attempt("ld.so.preload", lambda: open("/etc/ld.so.preload", "w"))
os.environ.update(LD_PRELOAD="/tmp/evil.so", PYTHONPATH="/tmp", PYTHONSTARTUP="/tmp/.pythonrc.py", BASH_ENV="/tmp/x")
"""),
    Hostile(55, "leftovers everywhere", "fresh mounts, ipc and pid namespace for each run", """
for folder in ("/box", "/tmp", "/dev/shm"):
    os.makedirs(folder + "/left/over", exist_ok=True)
    for name in ("/left/file", "/.hidden", "/lock"):
        with open(folder + name, "w") as file:
            file.write("left over")
    os.mkfifo(folder + "/fifo")
os.chmod("/tmp", 0o500)
os.umask(0o777)
idle_child()
listener = socket.socket(socket.AF_UNIX)
listener.bind("\\0left-over")
listener.listen()
"""),
    Hostile(50, "System V leftovers", "seccomp, ipc namespace", """
refused("shmget", (29, 194), 1234, 4096, 0o1666)
refused("semget", (64, 190), 1234, 1, 0o1666)
refused("msgget", (68, 186), 1234, 0o1666)
refused("mq_open", (240, 180), 0, 0, 0, 0)
""", says="shmget EPERM"),
    Hostile(121, "first in, first out without another end", "the clock of the supervisor", """
os.mkfifo("/tmp/fifo")
open("/tmp/fifo")
""", statuses=STOPPED, limits=SHORT),
    Hostile(122, "a pipe filled with nobody reading", "the clock of the supervisor", """
reading, writing = os.pipe()
while True:
    os.write(writing, b"x" * 65536)
""", statuses=STOPPED, limits=SHORT),
    Hostile(51, "descriptor exhaustion", "RLIMIT_NOFILE", """
held = []
until("descriptors", 2000, lambda _: held.append(os.open("/dev/null", os.O_RDONLY)))
""", says="EMFILE"),
    Hostile(123, "watches until there are none", "RLIMIT_NOFILE; they end with the process", """
until("inotify", 2000, lambda _: libc.inotify_init() >= 0 or os.close(-1))
until("epoll", 2000, lambda _: libc.epoll_create1(0) >= 0 or os.close(-1))
until("eventfd", 2000, lambda _: libc.eventfd(0, 0) >= 0 or os.close(-1))
""", says="inotify stopped"),
    Hostile(124, "locks on shared read-only files", "locks end with the process", """
import fcntl
held = [open(path) for path in ("/usr/bin/env", "/etc/passwd", os.__file__)]
for file in held:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        print(name_of(error))
print("locked")
"""),
    Hostile(42, "device nodes, hard link to su", "no CAP_MKNOD, nodev, separate mounts", """
import stat
attempt("block device", lambda: os.mknod("/box/disk", stat.S_IFBLK | 0o600, os.makedev(254, 0)))
attempt("character device", lambda: os.mknod("/box/mem", stat.S_IFCHR | 0o600, os.makedev(1, 1)))
attempt("link to su", lambda: os.link("/usr/bin/su", "/box/su"))
attempt("link to passwd", lambda: os.link("/etc/passwd", "/box/passwd"))
""", says="block device EPERM.*link to passwd E"),
    Hostile(39, "su, and a set-uid file of its own", "nosuid, no_new_privs, a map of one user", """
import shutil, subprocess
before = os.getresuid()
shutil.copy("/usr/bin/id", "/box/id")
os.chmod("/box/id", 0o6755)
out = subprocess.run(["/box/id", "-u"], capture_output=True, text=True).stdout
print("LEAK: uid" if out.strip() == "0" else "uid unchanged")
try:
    code = subprocess.run(["su", "-c", "true"], stdin=subprocess.DEVNULL, capture_output=True).returncode
    print("LEAK: su" if code == 0 else "su refused")
except OSError as error:
    print(name_of(error))
print("LEAK: no_new_privs unset" if libc.prctl(39, 0, 0, 0, 0) != 1 else "no_new_privs")
""", says="uid unchanged"),
    Hostile(125, "links into other processes", "only its own pid namespace is in /proc; pid 1 is not dumpable", """
for process in os.listdir("/proc"):
    if process.isdigit() and int(process) != os.getpid():
        for name in ("root/etc/shadow", "root@FILE@", "cwd", "root", "fd", "fdinfo", "map_files", "exe"):
            path = f"/proc/{process}/{name}"
            attempt(name, lambda: os.listdir(path) if name in ("cwd", "root", "fd", "map_files") else open(path))
for path in ("/proc/self/root/../../etc/shadow", "/proc/self/cwd/../../root/.bashrc", "/proc/thread-self/root@FILE@"):
    attempt("self", lambda: open(path))
""", says="root E"),
    Hostile(126, "its own descriptors opened again for writing", "stdin is the run's own copy", """
for number in (0, 1, 2):
    for mode in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
        try:
            descriptor = os.open(f"/proc/self/fd/{number}", mode)
            if number == 0:
                os.write(descriptor, b"LEAK: stdin of another run")
        except OSError as error:
            print(number, name_of(error))
for number in range(3):
    target = os.readlink(f"/proc/self/fd/{number}")
    private = target[:1] != "/" or target.startswith(("/dev/null", "/memfd:"))
    print("private" if private else "LEAK: stream is a file of the host")
""", stdin=b"own", says="private"),
)  # fmt: skip

READING = (
    Hostile(19, "read outside the box", "a root that contains nothing else", """
for path in ("/etc/shadow", "/root/.bashrc", "/root/.ssh", "/home", "/var/log", "/var/run", "/run", "/boot", "/sys",
             "/../../../etc/shadow", "/mnt", "/srv", "/media", "/.dockerenv", "/dev/vda", "/dev/sda", "/proc/kcore",
             "/etc/sudoers", "/etc/hosts", "/etc/ssh"):
    if not os.path.isdir(path) or os.listdir(path):
        attempt(path, lambda: open(path).close() if not os.path.isdir(path) else os.listdir(path))
attempt("the canary", lambda: open("@FILE@"))
attempt("shadow through a descriptor", lambda: os.open("../../../../etc/shadow", os.O_RDONLY, dir_fd=os.open("/", 0)))
""", says="/etc/shadow E"),
    Hostile(20, "environment, maps and memory of the parent", "pid namespace, PR_SET_DUMPABLE 0", """
for process in ("1", str(os.getppid()), "@PID@"):
    for name in ("environ", "maps", "mem", "auxv", "syscall", "stack", "smaps", "pagemap", "io"):
        attempt(f"{name} of {process}", lambda: open(f"/proc/{process}/{name}", "rb").read(1))
others = [name for name in os.listdir("/proc") if name.isdigit() and int(name) not in (1, os.getpid(), os.getppid())]
print("LEAK: other processes" if others else "alone")
environment = open("/proc/self/environ", "rb").read() + "".join(map(str, os.environ.items())).encode()
print("LEAK: environment" if "_".join(("CODEWEFT", "CANARY")).encode() in environment else "clean environment")
""", says="environ of 1 E.*alone.*clean environment"),
    Hostile(62, "read a process of the same user outside", "pid namespace, Landlock", """
for name in ("status", "cmdline", "environ", "fd"):
    attempt(name, lambda: os.stat("/proc/@PID@/" + name))
"""),
    Hostile(22, "trace the parent and its own children", "seccomp on ptrace", """
for request in (0, 16, 0x4206):
    refused("ptrace", (101, 117), request, 1, 0, 0)
refused("process_vm_readv", (310, 270), 1, 0, 0, 0, 0, 0)
refused("process_vm_writev", (311, 271), 1, 0, 0, 0, 0, 0)
refused("kcmp", (312, 272), os.getpid(), 1, 0, 0, 0)
refused("pidfd_getfd", 438, os.pidfd_open(1), 0, 0)
refused("process_madvise", 440, 0, 0, 0, 0, 0)
attempt("read a child through memory", lambda: open("/proc/1/mem", "rb"))
""", says="ptrace EPERM"),
    Hostile(23, "write the memory of pid 1", "PR_SET_DUMPABLE 0", """
for mode in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
    attempt("/proc/1/mem", lambda: os.open("/proc/1/mem", mode))
for name in ("comm", "clear_refs", "coredump_filter", "timerslack_ns", "loginuid", "setgroups", "uid_map", "attr/exec"):
    attempt(name, lambda: put(f"/proc/1/{name}", b"0"))
""", says="/proc/1/mem E"),
    Hostile(36, "its own memory written", "nobody else's", """
buffer = ctypes.create_string_buffer(b"before")
try:
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(ctypes.addressof(buffer))
        memory.write(b"after!")
except OSError as error:
    print(name_of(error))
print(buffer.value)
"""),
    Hostile(33, "secrets of the warm interpreter", "it is exec'd fresh and never reads a program", """
import gc
wanted = "".join(("CODEWEFT_", "CANARY"))
found, things = set(), []
for thing in gc.get_objects():
    if isinstance(thing, dict) and thing is not globals():
        for key, value in list(thing.items()):
            if wanted in str(key)[:1000] or isinstance(value, (str, bytes)) and wanted in str(value)[:1000]:
                found.add("environment")
    if isinstance(thing, socket.socket):
        things.append(thing)
frame = sys._getframe()
while frame:
    if frame.f_globals is not globals():
        things += [*frame.f_locals.values(), *frame.f_code.co_consts]
    frame = frame.f_back
for thing in things:
    if isinstance(thing, (str, bytes)) and wanted in str(thing)[:10000]:
        found.add("secret in a frame")
    if hasattr(thing, "fileno"):
        try:
            if thing.fileno() > 2 and os.fstat(thing.fileno()):
                found.add("open descriptor")
        except (OSError, ValueError):
            pass
print("LEAK: " + ", ".join(found) if found else "nothing found")
""", says="nothing found"),
    Hostile(127, "a way back into the sandbox's own modules", "they are forgotten before the program starts", """
import gc, types
names = [name for name in sys.modules if "codeweft" in name]
held = [thing.__name__ for thing in gc.get_objects() if isinstance(thing, types.ModuleType)]
held = [name for name in held if "codeweft" in name]
open_ones = [name for name in os.listdir("/proc/self/fd") if int(name) > 2]
print("modules", names, held)
for name in open_ones:
    try:
        print("LEAK: descriptor " + os.readlink("/proc/self/fd/" + name))
    except OSError:
        pass
"""),
    Hostile(128, "who the machine is", "uts namespace; no addresses, no interfaces", """
print("LEAK: host name" if socket.gethostname() == "@HOST@" else "another name")
routes = open("/proc/net/route").read().splitlines()[1:]
print("LEAK: routes" if routes else "no routes")
sockets = open("/proc/net/unix").read()
print("LEAK: sockets of the host" if "@ABSTRACT@" in sockets else "no sockets of the host")
""", says="no routes.*no sockets of the host"),
)  # fmt: skip

KERNEL = (
    Hostile(37, "set the clock", "seccomp, no capability", """
attempt("clock", lambda: time.clock_settime(time.CLOCK_REALTIME, time.time()))
refused("settimeofday", (164, 170), 0, 0)
refused("clock_settime", (227, 112), 0, 0)
refused("adjtimex", (159, 171), 1)
refused("clock_adjtime", (305, 266), 0, 1)
""", says="clock EPERM"),
    Hostile(38, "mounts and namespaces", "seccomp, no capability", """
refused("mount", (165, 40), 1, 1, 1, 0, 0)
refused("umount2", (166, 39), 1, 2)
refused("pivot_root", (155, 41), 1, 1)
refused("chroot", (161, 51), 1)
for flag in (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000, 0x80):
    refused("unshare", (272, 97), flag)
refused("setns", (308, 268), os.open("/proc/self/ns/user", os.O_RDONLY), 0)
refused("setns of pid 1", (308, 268), os.pidfd_open(1), 0x20000)
""", says="mount EPERM.*unshare EPERM.*setns EPERM"),
    Hostile(129, "mounts by the newer calls", "seccomp, no capability", """
for name, number in (("open_tree", 428), ("move_mount", 429), ("fsopen", 430), ("fsconfig", 431), ("fsmount", 432),
                     ("fspick", 433), ("mount_setattr", 442), ("open_tree_attr", 467)):
    refused(name, number, -1, 1, 0, 0, 0)
""", says="fsopen EPERM"),
    Hostile(130, "namespaces through clone and clone3", "seccomp: flags of clone, no clone3", """
for flag in (0x00020000, 0x10000000, 0x10020000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x02000000):
    refused("clone", (56, 220), flag | signal.SIGCHLD, 0, 0, 0, 0)
arguments = ctypes.create_string_buffer(struct.pack("<11Q", 0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0))
refused("clone3", 435, ctypes.addressof(arguments), 88)
""", says="clone EPERM.*clone3 ENOSYS"),
    Hostile(49, "wide doors into the kernel", "seccomp", """
refused("io_uring_setup", 425, 4, 0)
refused("bpf", (321, 280), 0, 0, 0)
refused("perf_event_open", (298, 241), 0, 0, -1, -1, 0)
refused("userfaultfd", (323, 282), 0)
refused("fanotify_init", (300, 262), 0, 0)
refused("open_by_handle_at", (304, 265), -1, 0, 0)
""", says="io_uring_setup ENOSYS.*bpf EPERM"),
    Hostile(131, "the kernel's key rings", "seccomp", """
refused("add_key", (248, 217), 0, 0, 0, 0, -2)
refused("request_key", (249, 218), 0, 0, 0, -2)
refused("keyctl", (250, 219), 0, -3, 1)
""", says="add_key EPERM.*keyctl EPERM"),
    Hostile(132, "modules, another kernel, swap, restart", "seccomp, no capability", """
refused("init_module", (175, 105), 1, 1, 1)
refused("finit_module", (313, 273), -1, 1, 0)
refused("delete_module", (176, 106), 1, 0)
refused("kexec_load", (246, 104), 0, 0, 0, -1)
refused("kexec_file_load", (320, 294), -1, -1, 0, 0, -1)
refused("reboot", (169, 142), 0, 0, 0, 0)
refused("swapon", (167, 224), 1, 0)
refused("acct", (163, 89), 1)
refused("quotactl", (179, 60), 0, 0, 0, 0)
refused("syslog", (103, 116), 10, 0, 0)
refused("iopl", (172, None), 3)
refused("ioperm", (173, None), 0, 1, 1)
""", says="init_module EPERM.*reboot EPERM"),
    Hostile(133, "calls under x32 numbers and through the 32-bit gate", "seccomp: other numbers, another machine", """
if os.uname().machine == "x86_64":
    for name, number in (("mount", 165), ("unshare", 272), ("ptrace", 521), ("getpid", 39), ("process_vm_readv", 539)):
        refused("x32 " + name, 0x40000000 | number, 0, 0, 0, 0, 0)
    import mmap
    page = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
    # push rbx; mov eax, getpid; int 0x80; pop rbx; ret
    page.write(b"\\x53\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\x5b\\xc3")
    place = ctypes.addressof(ctypes.c_char.from_buffer(page))
    child = os.fork()
    if child == 0:
        result = ctypes.CFUNCTYPE(ctypes.c_int)(place)()
        print("LEAK: the 32-bit gate answered" if result > 0 else "no 32-bit gate", flush=True)
        os._exit(0)
    print("ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""),
    Hostile(40, "become another user", "no capability, a map of one user", """
for what, action in (
    ("setuid", lambda: os.setuid(0)), ("setgid", lambda: os.setgid(0)), ("setgroups", lambda: os.setgroups([0])),
    ("setresuid", lambda: os.setresuid(0, 0, 0)), ("setreuid", lambda: os.setreuid(1, 1)),
    ("chown", lambda: (os.mkdir("/box/own"), os.chown("/box/own", 0, 0))),
    ("uid_map", lambda: put("/proc/self/uid_map", b"0 0 1\\n")),
    ("setgroups file", lambda: put("/proc/self/setgroups", b"allow")),
):
    attempt(what, action)
capabilities = [line.split()[1] for line in open("/proc/self/status") if line.startswith("Cap")]
print("LEAK: capabilities" if any(int(value, 16) for value in capabilities[:5]) else "no capabilities")
print("LEAK: root" if os.geteuid() == 0 else "not root")
""", says="setuid E.*no capabilities.*not root"),
    Hostile(134, "capabilities taken back", "empty bounding and ambient sets", """
for capability in (0, 1, 6, 7, 12, 18, 19, 21):
    attempt("ambient", lambda: libc.prctl(47, 2, capability, 0, 0) == 0 or os.close(-1))
header = ctypes.create_string_buffer(struct.pack("<Ii", 0x20080522, 0))
wanted = ctypes.create_string_buffer(struct.pack("<6I", *[0xFFFFFFFF] * 6))
print("LEAK: capset" if libc.capset(header, wanted) == 0 else "capset refused")
libc.prctl(8, 1, 0, 0, 0)
print("LEAK: securebits" if libc.prctl(28, 1, 0, 0, 0) == 0 else "securebits refused")
""", says="capset refused"),
    Hostile(41, "raise its limits", "hard limits", """
for name in ("CPU", "FSIZE", "DATA", "NPROC", "NOFILE", "CORE", "MEMLOCK", "MSGQUEUE", "STACK"):
    kind = getattr(resource, "RLIMIT_" + name, 12)
    soft, hard = resource.getrlimit(kind)
    if hard == resource.RLIM_INFINITY:
        print("LEAK: no limit", name)
    attempt(name, lambda: resource.setrlimit(kind, (hard + 1, hard + 1)))
    attempt(name, lambda: resource.setrlimit(kind, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)))
""", says="CPU ValueError"),
    Hostile(53, "priority and real time", "no capability, RLIMIT_NICE", """
attempt("nice", lambda: os.nice(-5))
attempt("real time", lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)))
attempt("round robin", lambda: os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(99)))
refused("ioprio_set", (251, 30), 1, 0, 1 << 13)
""", says="nice EPERM|nice EACCES"),
    Hostile(54, "type into the terminal", "setsid, seccomp on TIOCSTI, no terminal", """
import fcntl
for number in (0, 1, 2):
    attempt("TIOCSTI", lambda: fcntl.ioctl(number, 0x5412, b"x"))
    attempt("TIOCLINUX", lambda: fcntl.ioctl(number, 0x541C, b"\\3"))
for path in ("/dev/tty", "/dev/console", "/dev/tty0", "/dev/ptmx", "/dev/pts/0"):
    attempt(path, lambda: os.open(path, os.O_RDWR | os.O_NOCTTY))
""", says="TIOCSTI E"),
    Hostile(135, "devices that should not be there", "a /dev of five", """
allowed = {"null", "zero", "full", "random", "urandom", "shm", "fd", "stdin", "stdout", "stderr", "core", "pts", "ptmx",
           "tty", "console"}
print("LEAK: devices" if set(os.listdir("/dev")) - allowed else "few devices")
import stat
for name in os.listdir("/dev"):
    try:
        mode = os.stat("/dev/" + name).st_mode
    except OSError:
        continue
    if stat.S_ISBLK(mode):
        print("LEAK: block device")
""", says="few devices"),
    Hostile(136, "a filter of its own that denies everything", "the report comes from pid 1", """
filter = ctypes.create_string_buffer(struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000))
program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", 1, ctypes.addressof(filter)))
print("own filter", libc.prctl(22, 2, program, 0, 0), flush=True)
killing = ctypes.create_string_buffer(struct.pack("<HBBI", 0x06, 0, 0, 0x80000000))
program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", 1, ctypes.addressof(killing)))
libc.prctl(22, 2, program, 0, 0)
print("LEAK: alive after a filter that kills")
""", statuses=FAILED, exit_code=-31),
)  # fmt: skip

NETWORK = (
    Hostile(16, "connect to a port of the host", "network namespace, seccomp", """
for family, kind, address in (
    (socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", @PORT@)), (socket.AF_INET6, socket.SOCK_STREAM, ("::1", @PORT@)),
    (socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", @PORT@)), (socket.AF_INET6, socket.SOCK_DGRAM, ("::1", @PORT@)),
):
    attempt("connect", lambda: socket.socket(family, kind).connect(address))
attempt("listen", lambda: socket.create_server(("127.0.0.1", 0)))
""", says="connect EAFNOSUPPORT|connect E"),
    Hostile(17, "sockets that are in no namespace", "seccomp on socket", """
for name, family, kind in (
    ("vsock", 40, 1), ("netlink", 16, 3), ("packet", 17, 3), ("inet", 2, 1), ("inet6", 10, 1), ("raw", 2, 3),
    ("alg", 38, 5), ("xdp", 44, 3), ("bluetooth", 31, 3), ("can", 29, 3), ("tipc", 30, 1), ("kcm", 41, 2),
    ("qipcrtr", 42, 2), ("key", 15, 3), ("rds", 21, 5), ("nfc", 39, 5), ("smc", 43, 1), ("mctp", 45, 2),
):
    attempt(name, lambda: socket.socket(family, kind))
    attempt(name + " pair", lambda: socket.socketpair(family, kind))
""", says="vsock EAFNOSUPPORT.*netlink EAFNOSUPPORT"),
    Hostile(18, "an abstract socket of the host", "network namespace, Landlock's scope", """
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
    attempt("abstract", lambda: socket.socket(socket.AF_UNIX, kind).connect("\\0@ABSTRACT@"))
for path in ("/run/docker.sock", "/var/run/docker.sock", "/run/dbus/system_bus_socket", "/run/systemd/private"):
    attempt(path, lambda: socket.socket(socket.AF_UNIX).connect(path))
""", says="abstract ECONNREFUSED|abstract EPERM"),
    Hostile(137, "names looked up", "seccomp, no resolver in the box", """
import urllib.request
attempt("getaddrinfo", lambda: socket.getaddrinfo("example.invalid", 80))
attempt("urlopen", lambda: urllib.request.urlopen("http://127.0.0.1:@PORT@/", timeout=1))
""", says="getaddrinfo"),
)  # fmt: skip

CLOCK = (
    Hostile(13, "infinite loop", "processor seconds", """
while True:
    pass
""", statuses=STOPPED),
    Hostile(15, "all signals ignored", "processor seconds, the kill of pid 1", """
for number in range(1, 65):
    try:
        signal.signal(number, signal.SIG_IGN)
    except (OSError, ValueError):
        pass
while True:
    pass
""", statuses=STOPPED, repeats=3),
    Hostile(48, "a large number in one call", "processor seconds", """
print(len(str(pow(3, 10 ** 8))))
""", statuses=("time_limit", "runtime_error", "memory_limit")),
    Hostile(14, "sleeps for ever", "the clock of the supervisor", """
time.sleep(1000)
""", statuses=STOPPED, limits=SHORT),
    Hostile(27, "closes its streams, then loops", "the end is pid 1's exit, not the end of the output", """
for descriptor in range(3):
    os.close(descriptor)
while True:
    pass
""", statuses=STOPPED),
    Hostile(138, "a storm of signals", "processor seconds", """
signal.signal(signal.SIGUSR1, lambda *_: None)
parent = os.getpid()
for _ in range(4):
    if os.fork() == 0:
        while True:
            os.kill(parent, signal.SIGUSR1)
while True:
    pass
""", statuses=STOPPED),
    Hostile(139, "timers every microsecond", "processor seconds", """
signal.signal(signal.SIGALRM, lambda *_: None)
signal.signal(signal.SIGPROF, lambda *_: None)
signal.signal(signal.SIGVTALRM, lambda *_: None)
for which in (signal.ITIMER_REAL, signal.ITIMER_PROF, signal.ITIMER_VIRTUAL):
    signal.setitimer(which, 1e-6, 1e-6)
while True:
    pass
""", statuses=STOPPED),
    Hostile(140, "an alarm that wakes a sleeper for ever", "the clock of the supervisor", """
signal.signal(signal.SIGALRM, lambda *_: signal.alarm(1))
signal.alarm(1)
while True:
    time.sleep(10)
""", statuses=STOPPED, limits=SHORT),
    Hostile(141, "timers until there are none", "RLIMIT_SIGPENDING; they end with the process", """
place = ctypes.c_long()
until("timers", 200000, lambda _: libc.timer_create(1, None, ctypes.byref(place)) == 0 or os.close(-1))
""", statuses=HELD),
    Hostile(142, "exit handlers and finalizers that never end", "processor seconds", """
import atexit
class Undead:
    def __del__(self):
        global again
        again = Undead()
again = Undead()
@atexit.register
def stay():
    while True:
        again.__del__()
""", statuses=STOPPED),
    Hostile(143, "copies without end inside the kernel", "processor seconds; a kill ends the call", """
source, target = os.open("/dev/urandom", os.O_RDONLY), os.open("/dev/null", os.O_WRONLY)
reading, writing = os.pipe()
with open("/tmp/some", "w+b") as file:
    file.write(b"x" * (1 << 20))
    file.flush()
    while True:
        try:
            os.sendfile(target, source, None, 1 << 30)
        except OSError:
            pass
        os.sendfile(target, file.fileno(), 0, 1 << 20)
        os.splice(file.fileno(), writing, 65536, offset_src=0)
        os.splice(reading, target, 65536)
""", statuses=STOPPED),
    Hostile(144, "a regular expression that never ends", "processor seconds", """
import re
re.match("(a*)*b", "a" * 40)
""", statuses=STOPPED),
)  # fmt: skip

OUTPUT = (
    Hostile(11, "endless output", "the supervisor's cap", """
while True:
    os.write(1, b"x" * 65536)
""", statuses=("output_limit",), repeats=3),
    Hostile(12, "endless complaints", "the supervisor's cap", """
while True:
    os.write(2, b"x" * 65536)
""", statuses=("output_limit",)),
    Hostile(145, "200 MB without a line's end", "the supervisor's cap", """
for _ in range(200):
    sys.stdout.write("x" * (1 << 20))
""", statuses=("output_limit",)),
    Hostile(57, "output that is no text", "bytes stay bytes", """
sys.stdout.buffer.write(bytes(range(256)) + b"\\xff\\xfe\\xed\\xa0\\x80\\0\\0")
""", says="\x00\x01"),
    Hostile(146, "terminal escapes in the error", "what is told to people holds no control characters", """
raise ValueError("\\x1b]0;taken\\x07\\x1b[2J\\0\\x9b31m red")
""", statuses=FAILED, exit_code=1),
    Hostile(31, "prints that all tests passed", "verdicts do not come from the program", """
print('{"status": "ok", "passed": 1, "total": 1}\\nPASS\\nOK\\n1 passed')
raise SystemExit(3)
""", statuses=FAILED, exit_code=3),
    Hostile(32, "a forged report on every descriptor", "the report's pipe is only pid 1's", """
report = b'{"exit": 0, "cpu": 0.0, "wall": 0.0, "peak": 0, "why": ""}'
for number in range(3, 1024):
    for forged in (report, b"ready", b"open"):
        try:
            os.write(number, forged)
            print("LEAK: wrote to descriptor", number)
        except OSError:
            pass
os._exit(4)
""", statuses=FAILED, exit_code=4),
    Hostile(147, "every descriptor closed and taken again", "the report's pipe is only pid 1's", """
os.closerange(0, 1024)
reading, writing = os.pipe()
for number in range(3, 60):
    os.dup2(writing, number)
os._exit(5)
""", statuses=FAILED, exit_code=5),
    Hostile(29, "ends before its work", "an exit code of 0 is the end of a program, not a pass", """
sys.exit(0)
"""),
    Hostile(30, "ends at once", "an exit code of 0 is the end of a program, not a pass", """
os._exit(0)
"""),
    Hostile(28, "4 MB of arguments", "the kernel", """
attempt("exec", lambda: os.execv("/bin/true", ["true", *["x" * 100000] * 40]))
""", says="exec E2BIG"),
    Hostile(148, "a huge environment", "the kernel", """
attempt("exec", lambda: os.execve("/bin/true", ["true"], {f"NAME{number}": "x" * 100000 for number in range(40)}))
for number in range(100):
    os.environ[f"NAME{number}"] = "x" * 10000
""", says="exec E2BIG"),
    Hostile(45, "segmentation fault", "the exit status says so", """
ctypes.string_at(0)
""", statuses=FAILED, exit_code=-11),
    Hostile(46, "abort, wanting a core", "RLIMIT_CORE 0", """
libc.prctl(4, 1, 0, 0, 0)
attempt("core", lambda: resource.setrlimit(resource.RLIMIT_CORE, (1 << 20, 1 << 20)))
if os.fork() == 0:
    os.abort()
status = os.wait()[1]
print("LEAK: core" if os.WCOREDUMP(status) or os.path.exists("core") else "no core", flush=True)
os.abort()
""", statuses=FAILED, says="no core", exit_code=-6),
    Hostile(47, "reads past the end of its input", "the end of the input is the end", """
print(len(sys.stdin.read()), repr(sys.stdin.read()), repr(os.read(0, 1)))
""", stdin=b"20 22", says="5 '' b''"),
)  # fmt: skip

POISON = (
    Hostile(149, "the interpreter poisoned for the next program", "each program has its own copy of it", """
import builtins, gc, json, site, threading
class Liar:
    def __getattr__(self, name):
        return lambda *_, **__: "LEAK: poisoned"
builtins.len = builtins.open = builtins.poisoned = lambda *_, **__: "LEAK: poisoned"
json.dumps = json.loads = lambda *_, **__: '"LEAK: poisoned"'
for name in ("json", "os", "re", "site", "sitecustomize", "poisoned", "socket"):
    sys.modules[name] = Liar()
sys.path.insert(0, "/tmp")
sys.meta_path.insert(0, Liar())
sys.setrecursionlimit(50)
sys.settrace(lambda *_: None)
threading.setprofile(lambda *_: None)
gc.unfreeze()
gc.disable()
""", statuses=("ok", "runtime_error")),
    Hostile(150, "constants of the interpreter overwritten in memory", "each program has its own copy of memory", """
class Head(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ssize_t), ("kind", ctypes.c_void_p), ("size", ctypes.c_ssize_t),
                ("digit", ctypes.c_uint32)]
Head.from_address(id(7)).digit = 8
print(7)
""", statuses=("ok", "runtime_error")),
)  # fmt: skip

OTHER_LANGUAGES = (
    Hostile(151, "fork bomb in the shell", "RLIMIT_NPROC, processor seconds", """
printf '@MARK@' > /proc/self/comm
bomb() { bomb | bomb & }
bomb
wait
sleep 60
""", statuses=("time_limit", "runtime_error", "output_limit"), language="bash", limits=replace(SMALL, wall_seconds=2)),
    Hostile(152, "the shell reaches out", "network and pid namespaces, a root that contains nothing else", """
head -c 0 /etc/shadow && echo LEAK: shadow
head -c 0 /proc/1/environ && echo LEAK: environ
head -c 1 /proc/1/mem && echo LEAK: mem
head -c 0 @FILE@ && echo LEAK: canary
(exec 3<>/dev/tcp/127.0.0.1/@PORT@) && echo LEAK: tcp
(exec 3<>/dev/udp/127.0.0.1/53) && echo LEAK: udp
kill -9 @PID@ && echo LEAK: kill
: > /usr/x && echo LEAK: usr
ulimit -u unlimited && echo LEAK: processes
ulimit -t unlimited && echo LEAK: seconds
mount -t tmpfs none /tmp && echo LEAK: mount
unshare -r true && echo LEAK: unshare
[ "$CODEWEFT_CANARY" ] && echo LEAK: environment
[ $$ -lt 99 ] && trap '' TERM && kill -TERM -1
echo tried
""", says="tried", language="bash"),
    Hostile(153, "runaway recursion in C", "RLIMIT_STACK", """
#include <sys/prctl.h>
int deeper(int depth) { volatile char frame[1024]; frame[0] = depth; return deeper(depth + 1) + frame[0]; }
int main(void) { prctl(PR_SET_NAME, "@MARK@"); return deeper(0); }
""", statuses=FAILED, exit_code=-11, language="c", limits=ROOMY),
    Hostile(154, "fork bomb in C", "RLIMIT_NPROC, processor seconds", """
#include <sys/prctl.h>
#include <unistd.h>
int main(void) { prctl(PR_SET_NAME, "@MARK@"); for (;;) { fork(); setsid(); } }
""", statuses=STOPPED, language="c"),
    Hostile(155, "memory in C, past every allocator", "RLIMIT_DATA, the watchdog", """
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
int main(void) {
  prctl(PR_SET_NAME, "@MARK@");
  int flags[] = {MAP_PRIVATE | MAP_ANONYMOUS, MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN, MAP_SHARED | MAP_ANONYMOUS};
  for (int kind = 0; kind < 3; kind++)
    for (int count = 0; count < 60; count++) {
      char *place = mmap(0, 4 << 20, PROT_READ | PROT_WRITE, flags[kind], -1, 0);
      if (place == MAP_FAILED) { printf("kind %d stopped at %d\\n", kind, count); break; }
      memset(place, 1, 4 << 20);
      if (count == 59) printf("LEAK: kind %d\\n", kind);
    }
}
""", statuses=HELD, language="c"),
    Hostile(156, "calls made without a library", "seccomp", """
#include <errno.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
static void refused(const char *name, long number, long a, long b, long c) {
  errno = 0;
  long result = syscall(number, a, b, c, 0, 0, 0);
  if (result >= 0 || (errno != EPERM && errno != ENOSYS)) printf("LEAK: %s %ld %d\\n", name, result, errno);
  else printf("%s refused\\n", name);
}
int main(void) {
  prctl(PR_SET_NAME, "@MARK@");
  refused("mount", SYS_mount, 1, 1, 1);
  refused("unshare", SYS_unshare, 0x10000000, 0, 0);
  refused("ptrace", SYS_ptrace, 0, 0, 0);
  refused("bpf", SYS_bpf, 0, 0, 0);
  refused("with bits above the number", SYS_unshare | 0xdeadbeefUL << 32, 0x10000000, 0, 0);
  refused("with bits above the flags", SYS_unshare, 0x10000000UL | 0x1UL << 32, 0, 0);
}
""", says="mount refused", language="c"),
    Hostile(157, "what the compiler is made to read", "the compiler runs in the box too", """
#include "@FILE@"
int main(void) { return 0; }
""", statuses=("compile_error",), language="c"),
    Hostile(158, "files built into the program", "the compiler runs in the box too", """
__asm__(".section .rodata\\n.global taken\\ntaken: .incbin \\"@FILE@\\"\\n");
extern const char taken[];
#include <stdio.h>
int main(void) { return puts(taken); }
""", statuses=("compile_error",), language="c"),
    Hostile(159, "a source without an end", "limits of the compilation", """
#include "/dev/zero"
int main(void) { return 0; }
""", statuses=("compile_error", "time_limit", "memory_limit"), language="c"),
    Hostile(160, "templates without an end", "limits of the compilation", """
template <int depth> struct Tree { Tree<depth * 2> left; Tree<depth * 2 + 1> right; };
template <long a, long b> struct Pair { static const long value = Pair<a + 1, b>::value + Pair<a, b + 1>::value; };
int main() { return Pair<0, 0>::value; }
""", statuses=("compile_error", "time_limit", "memory_limit"), language="cpp"),
    Hostile(161, "memory in node", "the watchdog, node's own heap limit", """
process.title = "@MARK@";
const held = [];
for (;;) held.push(Buffer.alloc(1 << 22, 1));
""", statuses=("memory_limit", "runtime_error", "time_limit"), language="javascript", limits=ROOMY),
    Hostile(162, "node reaches out", "network and pid namespaces, a root that contains nothing else", """
process.title = "@MARK@";
const fs = require("fs"), net = require("net"), children = require("child_process");
for (const path of ["/etc/shadow", "/proc/1/environ", "/proc/1/mem", "@FILE@", "/root/.bashrc"])
  try { fs.closeSync(fs.openSync(path)); console.log("LEAK: " + path); } catch (error) { console.log(error.code); }
try { process.kill(@PID@, "SIGKILL"); console.log("LEAK: kill"); } catch (error) { console.log(error.code); }
if (process.env.CODEWEFT_CANARY) console.log("LEAK: environment");
const child = children.spawn("sleep", ["60.@MARK@"], { detached: true, stdio: "ignore" });
child.on("error", () => {});
child.unref();
const socket = net.connect(@PORT@, "127.0.0.1", () => console.log("LEAK: connected"));
socket.on("error", error => { console.log(error.code); process.exit(0); });
""", says="ENOENT", language="javascript", limits=ROOMY),
)  # fmt: skip

PROGRAMS = (
    *PROCESSES, *MEMORY, *FILES, *READING, *KERNEL, *NETWORK, *CLOCK, *OUTPUT, *POISON, *OTHER_LANGUAGES,
)  # fmt: skip
