"""The seccomp filter refuses what it must and nothing else: run through a small interpreter here, and by the kernel.

The numbers below were taken from the kernel's headers, independently of the table under test.
"""

import ctypes
import errno
import json
import mmap
import os
import platform
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from codeweft.sandbox.seccomp import Filter, assemble, install

MACHINES = ("x86_64", "aarch64")
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
FOREIGN = {"i386": 0x40000003, "arm": 0x40000028, "riscv64": 0xC00000F3, "big-endian arm": 0x000000B7}
X32 = 0x40000000
ALLOW, KILL = "allow", "kill"

# name, number on x86_64, number on aarch64 (- where it does not exist)
ORDINARY = """
read 0 63; write 1 64; open 2 -; close 3 57; stat 4 -; fstat 5 80; lstat 6 -; poll 7 -; lseek 8 62; mprotect 10 226;
munmap 11 215; brk 12 214; rt_sigaction 13 134; rt_sigprocmask 14 135; rt_sigreturn 15 139; pread64 17 67; pwrite64
18 68; readv 19 65; writev 20 66; access 21 -; pipe 22 -; select 23 -; sched_yield 24 124; mremap 25 216; msync 26
227; mincore 27 232; madvise 28 233; shmat 30 196; shmctl 31 195; dup 32 23; dup2 33 -; pause 34 -; nanosleep 35
101; getitimer 36 102; alarm 37 -; setitimer 38 103; getpid 39 172; sendfile 40 71; connect 42 203; accept 43 202;
sendto 44 206; recvfrom 45 207; sendmsg 46 211; recvmsg 47 212; shutdown 48 210; bind 49 200; listen 50 201;
getsockname 51 204; getpeername 52 205; getsockopt 55 209; fork 57 -; vfork 58 -; execve 59 221; exit 60 93; wait4
61 260; kill 62 129; uname 63 160; fcntl 72 25; flock 73 32; fsync 74 82; fdatasync 75 83; truncate 76 45; ftruncate
77 46; getdents 78 -; getcwd 79 17; chdir 80 49; fchdir 81 50; rename 82 -; mkdir 83 -; rmdir 84 -; creat 85 -; link
86 -; unlink 87 -; symlink 88 -; readlink 89 -; chmod 90 -; fchmod 91 52; chown 92 -; fchown 93 55; umask 95 166;
gettimeofday 96 169; getrlimit 97 163; getrusage 98 165; sysinfo 99 179; times 100 153; getuid 102 174; getgid 104
176; setuid 105 146; setgid 106 144; geteuid 107 175; getegid 108 177; setpgid 109 154; getppid 110 173; getpgrp 111
-; setsid 112 157; getgroups 115 158; setgroups 116 159; setresuid 117 147; getresuid 118 148; setresgid 119 149;
getpgid 121 155; getsid 124 156; capget 125 90; capset 126 91; rt_sigpending 127 136; rt_sigtimedwait 128 137;
rt_sigqueueinfo 129 138; rt_sigsuspend 130 133; sigaltstack 131 132; utime 132 -; mknod 133 -; personality 135 92;
statfs 137 43; fstatfs 138 44; getpriority 140 141; setpriority 141 140; sched_setparam 142 118; sched_getparam 143
121; sched_setscheduler 144 119; sched_getscheduler 145 120; mlock 149 228; munlock 150 229; mlockall 151 230; prctl
157 167; arch_prctl 158 -; setrlimit 160 164; sync 162 81; gettid 186 178; readahead 187 213; setxattr 188 5;
getxattr 191 8; listxattr 194 11; removexattr 197 14; tkill 200 130; time 201 -; futex 202 98; sched_setaffinity 203
122; sched_getaffinity 204 123; io_setup 206 0; io_submit 209 2; epoll_create 213 -; getdents64 217 61;
set_tid_address 218 96; restart_syscall 219 128; fadvise64 221 223; timer_create 222 107; timer_settime 223 110;
timer_gettime 224 108; timer_getoverrun 225 109; timer_delete 226 111; clock_gettime 228 113; clock_getres 229 114;
clock_nanosleep 230 115; exit_group 231 94; epoll_wait 232 -; epoll_ctl 233 21; tgkill 234 131; utimes 235 -; mbind
237 235; set_mempolicy 238 237; get_mempolicy 239 236; waitid 247 95; inotify_init 253 -; inotify_add_watch 254 27;
openat 257 56; mkdirat 258 34; mknodat 259 33; fchownat 260 54; newfstatat 262 79; unlinkat 263 35; renameat 264 38;
linkat 265 37; symlinkat 266 36; readlinkat 267 78; fchmodat 268 53; faccessat 269 48; pselect6 270 72; ppoll 271
73; set_robust_list 273 99; get_robust_list 274 100; splice 275 76; tee 276 77; sync_file_range 277 84; utimensat
280 88; epoll_pwait 281 22; signalfd 282 -; timerfd_create 283 85; eventfd 284 -; fallocate 285 47; timerfd_settime
286 86; timerfd_gettime 287 87; accept4 288 242; signalfd4 289 74; eventfd2 290 19; epoll_create1 291 20; dup3 292
24; pipe2 293 59; inotify_init1 294 26; preadv 295 69; pwritev 296 70; recvmmsg 299 243;
name_to_handle_at 303 264; syncfs 306 267; sendmmsg 307 269; getcpu 309 168; sched_setattr 314 274; sched_getattr
315 275; renameat2 316 276; seccomp 317 277; getrandom 318 278; execveat 322 281; membarrier 324 283; mlock2 325
284; copy_file_range 326 285; preadv2 327 286; pwritev2 328 287; pkey_mprotect 329 288; pkey_alloc 330 289; statx
332 291; rseq 334 293; pidfd_send_signal 424 424; pidfd_open 434 434; close_range 436 436; openat2 437 437;
faccessat2 439 439; epoll_pwait2 441 441; landlock_create_ruleset 444 444; landlock_add_rule 445 445;
landlock_restrict_self 446 446; futex_waitv 449 449
"""
REFUSED = """
unshare 272 97; setns 308 268; mount 165 40; umount2 166 39; pivot_root 155 41; chroot 161 51; fsopen 430 430;
fsconfig 431 431; fsmount 432 432; fspick 433 433; move_mount 429 429; open_tree 428 428; mount_setattr 442 442;
open_tree_attr 467 467; ptrace 101 117; process_vm_readv 310 270; process_vm_writev 311 271; kcmp 312 272;
pidfd_getfd 438 438; process_madvise 440 440; bpf 321 280; perf_event_open 298 241; userfaultfd 323 282; add_key 248
217; request_key 249 218; keyctl 250 219; create_module 174 -; init_module 175 105; finit_module 313 273;
delete_module 176 106; query_module 178 -; get_kernel_syms 177 -; kexec_load 246 104; kexec_file_load 320 294;
reboot 169 142; swapon 167 224; swapoff 168 225; settimeofday 164 170; clock_settime 227 112; clock_adjtime 305 266;
adjtimex 159 171; syslog 103 116; acct 163 89; quotactl 179 60; quotactl_fd 443 443; iopl 172 -; ioperm 173 -;
open_by_handle_at 304 265; fanotify_init 300 262; shmget 29 194; msgget 68 186; semget 64 190; mq_open 240 180;
migrate_pages 256 238; move_pages 279 239; vmsplice 278 75
"""
ABSENT = """
clone3 435 435; io_uring_setup 425 425; io_uring_enter 426 426; io_uring_register 427 427; memfd_create 319 279;
memfd_secret 447 447
"""
CHECKED = """
socket 41 198; socketpair 53 199; clone 56 220; ioctl 16 29; mmap 9 222; setsockopt 54 208; prlimit64 302 261
"""


def numbers(text: str, machine: str) -> dict[str, int]:
    found = {}
    for entry in text.replace("\n", " ").split(";"):
        name, *both = entry.split()
        number = both[MACHINES.index(machine)]
        if number != "-":
            found[name] = int(number)
    return found


def decide(program: bytes, number: int, arguments: tuple[int, ...] = (), audit: int = AUDIT["x86_64"]) -> tuple:
    """Interpret classic BPF as the kernel's manual defines it; the decision, and how many instructions it took."""
    filled = [argument & 0xFFFFFFFFFFFFFFFF for argument in arguments] + [0] * (6 - len(arguments))
    data = struct.pack("<IIQ6Q", number & 0xFFFFFFFF, audit, 0, *filled)
    instructions = list(struct.iter_unpack("<HBBI", program))
    at = accumulator = steps = 0
    while True:
        code, yes, no, value = instructions[at]
        at += 1
        steps += 1
        if code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
            assert value % 4 == 0
            assert value + 4 <= len(data)
            accumulator = struct.unpack_from("<I", data, value)[0]
        elif code == 0x54:  # BPF_ALU | BPF_AND | BPF_K
            accumulator &= value
        elif code == 0x06:  # BPF_RET | BPF_K
            return meaning(value), steps
        else:
            compared = {
                0x15: accumulator == value,
                0x25: accumulator > value,
                0x35: accumulator >= value,
                0x45: bool(accumulator & value),
            }
            at += yes if compared[code] else no


def meaning(value: int) -> str:
    action, data = value & 0xFFFF0000, value & 0xFFFF
    if action == 0x00050000:
        return errno.errorcode[data] if data else "ignored"
    return {0x7FFF0000: ALLOW, 0x80000000: KILL}[action]


@pytest.fixture(params=MACHINES)
def machine(request: pytest.FixtureRequest) -> str:
    return request.param


def outcome(machine: str, name: str, *arguments: int, **allowed: bool) -> str:
    """What the filter for a machine decides on a call by name."""
    every = {
        key: value for text in (ORDINARY, REFUSED, ABSENT, CHECKED) for key, value in numbers(text, machine).items()
    }
    return decide(assemble(machine, **allowed), every[name], arguments, AUDIT[machine])[0]


def test_every_call_of_the_policy_is_refused_and_every_other_is_allowed(machine: str):
    """All numbers of the newest kernel, so that nothing is refused by mistake either."""
    program = assemble(machine)
    expected = dict.fromkeys(range(470), ALLOW)
    expected |= dict.fromkeys(numbers(REFUSED, machine).values(), "EPERM")
    expected |= dict.fromkeys(numbers(ABSENT, machine).values(), "ENOSYS")
    checked = set(numbers(CHECKED, machine).values())
    for number, decision in expected.items():
        if number not in checked:
            assert (number, decide(program, number, (), AUDIT[machine])[0]) == (number, decision)


def test_ordinary_calls_pass_in_few_instructions(machine: str):
    ordinary = numbers(ORDINARY, machine)
    assert len(ordinary) >= 190
    for allowed in ({}, {"network": True}, {"shared_memory": True}, {"local_sockets": False}):
        program = assemble(machine, **allowed)
        for name, number in ordinary.items():
            decision, steps = decide(program, number, (-1,) * 6, AUDIT[machine])
            assert (name, decision) == (name, ALLOW)
            assert steps <= 16, name


def test_the_numbers_are_those_of_this_machines_headers():
    machine = platform.machine()
    if machine not in MACHINES or not shutil.which("cc"):
        pytest.skip("toolchain: no C compiler, or no table for this machine")
    macros = subprocess.run(
        ["cc", "-E", "-dM", "-x", "c", "-"],
        input="#include <asm/unistd.h>\n",
        capture_output=True,
        text=True,
        check=False,
    )
    if macros.returncode:
        pytest.skip("toolchain: no kernel headers")
    lines = [line.split() for line in macros.stdout.splitlines()]
    defined = {line[1].removeprefix("__NR_"): int(line[2]) for line in lines if len(line) == 3 and line[2].isdigit()}
    for text in (ORDINARY, REFUSED, ABSENT, CHECKED):
        for name, number in numbers(text, machine).items():
            assert defined.get(name, number) == number, name


def test_foreign_machines_are_killed_whatever_the_call(machine: str):
    program = assemble(machine)
    others = {name: audit for name, audit in AUDIT.items() if name != machine} | FOREIGN
    for audit in others.values():
        assert {decide(program, number, (), audit)[0] for number in (0, 1, 39, 222, X32, 0xFFFFFFFF)} == {KILL}


def test_x32_and_calls_newer_than_the_table_do_not_exist(machine: str):
    program = assemble(machine)
    newer = (470, 512, 520, 521, 547, 1000, X32, X32 | 1, X32 | 41, X32 | 521, 0x7FFFFFFF, 0xFFFFFFFF)
    assert {decide(program, number, (), AUDIT[machine])[0] for number in newer} == {"ENOSYS"}


def test_only_local_sockets_can_be_made_unless_the_network_is_allowed(machine: str):
    internet = {int(socket.AF_INET), int(socket.AF_INET6)}
    for family in [*range(60), -1, 1 << 31]:
        refused = "EAFNOSUPPORT"
        local = ALLOW if family == 1 else refused
        assert outcome(machine, "socket", family, 1) == local
        assert outcome(machine, "socketpair", family, 1) == local
        assert outcome(machine, "socketpair", family, 1, network=True) == local
        assert outcome(machine, "socket", family, 1, network=True) == (ALLOW if family in internet else local)
        assert outcome(machine, "socket", family, 1, local_sockets=False) == refused
        assert outcome(machine, "socketpair", family, 1, local_sockets=False) == local


def test_the_unused_half_of_an_argument_hides_nothing(machine: str):
    """The kernel drops the upper 32 bits of an int: a filter that compared all 64 would be fooled."""
    above = 0xDEAD << 32
    assert outcome(machine, "socket", above | 40) == "EAFNOSUPPORT"
    assert outcome(machine, "socket", above | 1) == ALLOW
    assert outcome(machine, "ioctl", 0, above | 0x5412) == "EPERM"
    assert outcome(machine, "clone", above | 0x10000000) == "EPERM"
    assert outcome(machine, "mmap", 0, 4096, 3, above | 0x21) == "ENOMEM"
    assert outcome(machine, "setsockopt", 3, above | 1, above | 7) == "ignored"


def test_clone_makes_processes_and_threads_but_no_namespaces(machine: str):
    fork, vfork, thread = 0x01200011, 0x4111, 0x003D0F00
    for ordinary in (fork, vfork, thread, 0x11, 0x80):
        assert outcome(machine, "clone", ordinary) == ALLOW
        for namespace in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
            assert outcome(machine, "clone", ordinary | namespace) == "EPERM"


def test_nothing_can_be_typed_into_a_terminal_and_other_ioctls_pass(machine: str):
    assert outcome(machine, "ioctl", 0, 0x5412) == "EPERM"
    assert outcome(machine, "ioctl", 0, 0x541C) == "EPERM"
    for request in (0x5401, 0x5411, 0x5413, 0x541B, 0x541D, 0x5421, 0x5451, 0):
        assert outcome(machine, "ioctl", 0x5412, request, 0x5412) == ALLOW


def test_memory_that_no_limit_counts_is_refused_unless_something_counts_it(machine: str):
    shared, private, anonymous, fixed, populate = 1, 2, 0x20, 0x10, 0x8000
    for more in (0, fixed, populate, 0x4000, 0x40000):
        assert outcome(machine, "mmap", 0, 4096, 3, shared | anonymous | more) == "ENOMEM"
        assert outcome(machine, "mmap", 0, 4096, 3, 3 | anonymous | more) == "ENOMEM"  # MAP_SHARED_VALIDATE
        assert outcome(machine, "mmap", 0, 4096, 3, private | anonymous | more) == ALLOW
        assert outcome(machine, "mmap", 0, 4096, 3, shared | more) == ALLOW
        assert outcome(machine, "mmap", 0, 4096, 3, shared | anonymous | more, shared_memory=True) == ALLOW
    assert outcome(machine, "memfd_create", shared_memory=True) == ALLOW
    assert outcome(machine, "memfd_secret", shared_memory=True) == "ENOSYS"
    assert outcome(machine, "shmget", shared_memory=True) == "EPERM"


def test_a_process_may_set_its_own_limits_and_no_others(machine: str):
    assert outcome(machine, "prlimit64", 0, 7) == ALLOW
    assert outcome(machine, "prlimit64", 1, 7) == "EPERM"


def test_socket_buffers_cannot_be_enlarged_and_other_options_can_be_set(machine: str):
    assert outcome(machine, "setsockopt", 3, 1, 7) == "ignored"
    for level, option in ((1, 8), (1, 2), (6, 7), (0, 7), (7, 1)):
        assert outcome(machine, "setsockopt", 3, level, option) == ALLOW


def test_other_machines_are_refused_by_name():
    for name in ("riscv64", "i686", "aarch64_be", ""):
        with pytest.raises(ValueError, match=f"for {name}:.*x86_64 and aarch64"):
            assemble(name)


# --- the same by the kernel ----------------------------------------------------------------------------------------


def filtered(action: Callable[[], Any], **allowed: bool) -> Any:
    """What an action returns in a forked child that installed the filter; minus the signal where one killed it."""
    if platform.machine() != "x86_64":
        pytest.skip("toolchain: the numbers tried are those of x86_64")
    prepared = Filter(assemble("x86_64", **allowed))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.close(reading)
            prepared.install()
            os.write(writing, json.dumps(action()).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as file:
        answer = file.read()
    _, status = os.waitpid(child, 0)
    return json.loads(answer) if answer else os.waitstatus_to_exitcode(status)


def call(number: int, *arguments: int) -> str:
    """A raw system call: its error by name, or ok."""
    libc = ctypes.CDLL(None, use_errno=True)
    result = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    return "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()]


def test_the_kernel_refuses_every_call_of_the_policy():
    """Arguments are zeros, which get EFAULT or EINVAL from the kernel itself at worst: nothing is changed by trying."""
    refused, absent = numbers(REFUSED, "x86_64"), numbers(ABSENT, "x86_64")
    every = refused | absent
    answers = filtered(lambda: {name: call(number, 0, 0, 0, 0, 0, 0) for name, number in every.items()})
    assert answers == dict.fromkeys(refused, "EPERM") | dict.fromkeys(absent, "ENOSYS")


def test_the_kernel_refuses_by_argument():
    map_failed_flags = mmap.MAP_SHARED | mmap.MAP_ANONYMOUS
    tries = {
        "vsock": (41, 40, 1, 0),
        "internet": (41, 2, 1, 0),
        "netlink": (41, 16, 3, 0),
        "local": (41, 1, 1, 0),
        "new user namespace": (56, 0x10000011, 0, 0, 0, 0),
        "typing": (16, 0, 0x5412, 0),
        "console": (16, 0, 0x541C, 0),
        "shared memory": (9, 0, 4096, 3, map_failed_flags, -1, 0),
        "private memory": (9, 0, 4096, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0),
        "x32 getpid": (X32 | 39,),
        "newer": (470,),
    }
    answers = filtered(lambda: {name: call(*arguments) for name, arguments in tries.items()})
    assert answers == {
        "vsock": "EAFNOSUPPORT",
        "internet": "EAFNOSUPPORT",
        "netlink": "EAFNOSUPPORT",
        "local": "ok",
        "new user namespace": "EPERM",
        "typing": "EPERM",
        "console": "EPERM",
        "shared memory": "ENOMEM",
        "private memory": answers["private memory"],  # an address, read as a result of 32 bits
        "x32 getpid": "ENOSYS",
        "newer": "ENOSYS",
    }


def test_the_kernel_allows_what_was_asked_for():
    def action() -> list[str]:
        socket.socket(socket.AF_INET).close()
        mmap.mmap(-1, 4096).close()
        return [call(319, 0, 0), call(41, 40, 1, 0)]

    # memfd_create comes as far as reading its null name
    assert filtered(action, network=True, shared_memory=True) == ["EFAULT", "EAFNOSUPPORT"]


def test_a_socket_buffer_stays_as_it_was():
    def action() -> bool:
        with socket.socket(socket.AF_UNIX) as one:
            before = one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2048)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
            after = one.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            return before == after and one.getsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED) == 1

    assert filtered(action) is True


def interrupt_128() -> int:
    """Call getpid by the 32-bit door (int 0x80), which would reach another table of numbers."""
    code = mmap.mmap(-1, 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=7)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    function = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    return function()


def test_the_door_for_32_bit_programs_kills():
    child = os.fork()
    if child == 0:
        os._exit(0 if platform.machine() == "x86_64" and interrupt_128() == os.getpid() else 1)
    if os.waitpid(child, 0)[1]:
        pytest.skip("toolchain: this kernel has no door for 32-bit programs")
    assert filtered(interrupt_128) == -signal.SIGSYS


def test_threads_children_and_new_programs_inherit_the_filter():
    def action() -> list[str]:
        answers: list[str] = []
        thread = threading.Thread(target=lambda: answers.append(call(272, 0)))
        thread.start()
        thread.join()
        script = "import ctypes; l = ctypes.CDLL(None, use_errno=True); print(l.unshare(0), ctypes.get_errno())"
        answers.append(
            subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        )
        return [*answers, Path("/proc/self/status").read_text()]

    in_thread, in_program, status = filtered(action)
    assert in_thread == "EPERM"
    assert in_program == f"-1 {errno.EPERM}\n"
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status


def test_a_broken_program_is_told_with_the_step():
    child = os.fork()
    if child == 0:
        code = 1
        try:
            install(struct.pack("=HBBI", 0x15, 9, 9, 0))
        except OSError as error:
            code = 0 if error.errno == errno.EINVAL and "PR_SET_SECCOMP" in str(error) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# --- ordinary programs ---------------------------------------------------------------------------------------------

BUSY_PYTHON = """
import asyncio, concurrent.futures, multiprocessing, os, socket, subprocess, tempfile, threading
results = []
threads = [threading.Thread(target=results.append, args=(i,)) for i in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
assert sorted(results) == list(range(8))
with tempfile.TemporaryDirectory() as folder:
    open(folder + "/a", "w").write("x"); os.rename(folder + "/a", folder + "/b")
async def main():
    process = await asyncio.create_subprocess_exec("/bin/echo", "hi", stdout=subprocess.PIPE)
    return (await process.communicate())[0]
assert asyncio.run(main()) == b"hi\\n"
with concurrent.futures.ThreadPoolExecutor(2) as pool:
    assert list(pool.map(abs, [-1, -2])) == [1, 2]
ours, theirs = multiprocessing.get_context("fork").Pipe()
process = multiprocessing.get_context("fork").Process(target=theirs.send, args=([40, 2],)); process.start()
print(sum(ours.recv())); process.join()
"""
PROGRAMS = {
    "python": ([sys.executable, "-I", "-c", BUSY_PYTHON], "42\n"),
    "sh": (["sh", "-c", "(echo 40; echo 2) | { read a; read b; echo $((a + b)); } & wait"], "42\n"),
    "perl": (["perl", "-e", "print eval { my $x = `echo 42`; $x }"], "42\n"),
    "node": (["node", "-e", 'console.log(+require("child_process").execSync("echo 40") + 2)'], "42\n"),
    "cc": (["sh", "-c", "cc -O1 -x c -o $0 - -lm && $0", "@"], "42\n"),
}
C_PROGRAM = '#include <math.h>\n#include <stdio.h>\nint main(int c, char **v) { printf("%g\\n", sqrt(1763 + c)); }\n'


@pytest.mark.parametrize("name", PROGRAMS)
def test_ordinary_programs_run(name: str, tmp_path: Path):
    if not shutil.which(name):
        pytest.skip(f"toolchain: no {name}")
    if platform.machine() not in MACHINES:
        pytest.skip("toolchain: no table for this machine")
    command, expected = PROGRAMS[name]
    command = [str(tmp_path / "program") if word == "@" else word for word in command]
    ended = subprocess.run(
        command, input=C_PROGRAM, capture_output=True, text=True, check=False, timeout=60,
        preexec_fn=Filter(assemble(platform.machine())).install,
    )  # fmt: skip
    assert (ended.stdout, ended.stderr, ended.returncode) == (expected, "", 0)
