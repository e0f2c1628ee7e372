"""A Python program in a box runs as `python FILE` would run it: output, exit, threads, files, imports."""

import json
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest
from sandbox.opened import SMALL, Opened, opened

from codeweft.base.errors import UserError
from codeweft.sandbox.config import Program

ROOMY = replace(SMALL, cpu_seconds=8.0, wall_seconds=60.0, memory_mib=512, open_files=256)


@pytest.fixture(scope="module")
def box() -> Iterator[Opened]:
    with opened() as sandbox:
        yield sandbox


# --- output and exit -----------------------------------------------------------------------------------------------


def test_a_run_reports_output_time_and_memory(box: Opened):
    ran = box.python(
        "import sys\nprint(sum(map(int, input().split())))\nprint('aside', file=sys.stderr)", stdin=b"20 22"
    )
    assert (ran.status, ran.exit_code, ran.stdout, ran.stderr, ran.detail) == ("ok", 0, b"42\n", b"aside\n", "")
    assert 0 < ran.cpu_seconds < SMALL.cpu_seconds
    assert 0 < ran.wall_seconds < SMALL.wall
    assert 1 << 20 < ran.peak_bytes < SMALL.memory_mib << 20
    assert (ran.tier, ran.compiled) == ("namespaces", None)


@pytest.mark.parametrize(
    ("code", "exit_code", "stdout", "stderr"),
    [
        ("import sys; sys.exit()", 0, "", ""),
        ("import sys; sys.exit(None)", 0, "", ""),
        ("import sys; sys.exit(7)", 7, "", ""),
        ("import sys; sys.exit(-1)", 255, "", ""),
        ("import sys; sys.exit(256)", 0, "", ""),
        ("import sys; sys.exit(True)", 1, "", ""),
        ("import sys; sys.exit('what is wrong: é')", 1, "", "what is wrong: é\n"),
        ("import sys; sys.exit([1])", 1, "", "[1]\n"),
        ("raise SystemExit(3)", 3, "", ""),
        ("exit(4)", 4, "", ""),
        ("print('a'); import os; os._exit(5)", 5, "", ""),
        ("print('a', flush=True); import os; os._exit(5)", 5, "a\n", ""),
        ("class Mine(SystemExit): code = 6\nraise Mine", 6, "", ""),
        ("class Mine(SystemExit):\n    code = property(lambda self: 1 / 0)\nraise Mine", 1, "", ""),
        ("class Mine(int):\n    def __and__(self, other): return 'no'\nraise SystemExit(Mine(3))", 3, "", ""),
        ("class I:\n    __class__ = int\n    def __str__(self): return 'me'\nraise SystemExit(I())", 1, "", "me\n"),
        ("class Mine:\n    def __str__(self): return 1 / 0\nraise SystemExit(Mine())", 1, "", ""),
        ("import sys; sys.stdout = None", 0, "", ""),
        ("import io, sys; print('a'); sys.stdout = io.StringIO(); print('b')", 0, "a\n", ""),
        ("out = open(1, 'w', closefd=False); out.write('kept')", 0, "kept", ""),
        ("class End:\n    def __del__(self): print('end')\nend = End()", 0, "end\n", ""),
        ("import os; os.close(1); os.close(2)", 0, "", ""),
    ],
)  # fmt: skip
def test_every_way_to_end_gives_the_exit_code_and_output_of_an_interpreter(
    box: Opened, code: str, exit_code: int, stdout: str, stderr: str
):
    ran = box.python(code)
    assert (ran.exit_code, ran.stdout.decode(), ran.stderr.decode()) == (exit_code, stdout, stderr)
    assert ran.status == ("runtime_error" if exit_code else "ok")
    assert bool(ran.detail) == bool(exit_code)


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGKILL, signal.SIGTERM])
def test_a_signal_is_told_by_its_number(box: Opened, number: signal.Signals):
    ran = box.python(f"import os; os.kill(os.getpid(), {int(number)})")
    assert (ran.status, ran.exit_code) == ("runtime_error", -number)
    assert f"signal {int(number)}" in ran.detail


def test_an_interrupt_is_the_exception_that_it_is_elsewhere(box: Opened):
    code = "import signal\ntry:\n    signal.raise_signal(signal.SIGINT)\nexcept KeyboardInterrupt:\n    print('caught')"
    assert box.says(code) == "caught\n"


@pytest.mark.parametrize(
    ("code", "shown", "hidden"),
    [
        ("def f():\n    return 1 / 0\nf()", 'File "main.py", line 2, in f\n    return 1 / 0', "harness"),
        ("raise ValueError('ünïcode')", "ValueError: ünïcode", "harness"),
        (
            "try:\n    1 / 0\nexcept ZeroDivisionError:\n    {}['a']",
            "During handling of the above exception",
            "harness",
        ),
        ("exec('def f(:')", 'File "<string>", line 1', "harness"),
        ("import second", 'File "/box/second.py", line 1', "harness"),
        ("def f(): f()\nf()", "[Previous line repeated", "harness"),
        ("raise BaseException", "BaseException", "harness"),
        ("raise ExceptionGroup('two', [ValueError(1), KeyError(2)])", "ValueError: 1", "harness"),
        ("import atexit\natexit.register(lambda: 1 / 0)", "ZeroDivisionError", "harness"),
        ("import threading\nthreading.Thread(target=lambda: 1 / 0).start()", "ZeroDivisionError", "harness"),
    ],
)
def test_a_traceback_begins_in_the_program(box: Opened, code: str, shown: str, hidden: str):
    ran = box.python(code, files={"second.py": b"1 / 0"})
    text = ran.stderr.decode()
    assert shown in text
    assert hidden not in text
    aside = "atexit" in code or "threading" in code  # such errors are told and change nothing
    assert (ran.status, ran.exit_code) == (("ok", 0) if aside else ("runtime_error", 1))


@pytest.mark.parametrize(
    "code",
    [
        "class E(Exception):\n    def __str__(self): raise self\nraise E",
        "class E(Exception):\n    __traceback__ = property(lambda self: 1 / 0)\nraise E",
        "class E(Exception):\n    __cause__ = property(lambda self: 1 / 0)\nraise E",
        "class M(type):\n    __name__ = property(lambda self: 1 / 0)\nclass E(Exception, metaclass=M): pass\nraise E",
        "import sys; sys.stderr = None\nraise ValueError",
        "import sys\nsys.excepthook = None\nsys.stderr.close()\nraise ValueError",
        "import os\nos.close(2)\nraise ValueError",
    ],
)
def test_an_exception_that_cannot_be_shown_is_still_an_error(box: Opened, code: str):
    ran = box.python(code)
    assert (ran.status, ran.exit_code) == ("runtime_error", 1)
    assert b"harness" not in ran.stderr


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def f(:", "SyntaxError: invalid syntax"),
        ("print(1)\n  print(2)", "IndentationError: unexpected indent"),
        ("if 1:\n\tx = 1\n        y = 2", "TabError"),
        ("x = '\0'", "null bytes"),
        ("return 1", "SyntaxError: 'return' outside function"),
        ("# coding: no-such-coding\n", "SyntaxError: unknown encoding"),
        ("print('\ud800' + )", "SyntaxError"),
        ("(" * 300, "SyntaxError: too many nested parentheses"),
        ("a" + ".b" * 20000, "RecursionError"),
    ],
)
def test_what_does_not_compile_is_told_as_such(box: Opened, code: str, says: str):
    ran = box.python(code)
    assert (ran.status, ran.exit_code, ran.stdout) == ("compile_error", 1, b"")
    assert says in ran.stderr.decode()
    assert says in ran.detail
    assert b"harness" not in ran.stderr
    assert "121" not in ran.detail  # the number by which we know it


# --- as an interpreter would ---------------------------------------------------------------------------------------


def test_it_is_the_main_program_with_its_arguments(box: Opened):
    code = (
        "import json, os, sys\n"
        "print(json.dumps([__name__, sys.argv, os.path.abspath(__file__), os.getcwd(), sys.path[0],"
        " __import__('__main__').__dict__ is globals(), __spec__ is None, 'x' in globals(), sys.flags.optimize]))"
    )
    said = json.loads(box.says(code, arguments=("one", "zwei drei", "ü", "")))
    argv = ["main.py", "one", "zwei drei", "ü", ""]
    assert said == ["__main__", argv, "/box/main.py", "/box", "/box", True, True, False, 0]


def test_input_is_read_line_by_line_to_its_end(box: Opened):
    code = (
        "import sys\nfirst = input('prompt: ')\nsecond = sys.stdin.readline()\nrest = sys.stdin.read()\n"
        "print(repr((first, second, rest)))\ntry:\n    input()\nexcept EOFError:\n    print('end')"
    )
    assert box.says(code, stdin="é1\nzwei\n\x00\n3".encode()) == "prompt: ('é1', 'zwei\\n', '\\x00\\n3')\nend\n"
    assert box.says("print(repr(open(0).read()))") == "''\n"
    large = b"x" * (1 << 20) + b"\n"
    assert box.says("import sys; print(len(sys.stdin.read()))", stdin=large) == f"{len(large)}\n"


def test_threads_and_exit_functions_come_to_their_end(box: Opened):
    code = (
        "import atexit, threading, time\nfrom concurrent.futures import ThreadPoolExecutor\n"
        "atexit.register(print, 'last')\n"
        "threading.Thread(target=lambda: (time.sleep(0.1), print('thread'))).start()\n"
        "threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "ThreadPoolExecutor(1).submit(lambda: (time.sleep(0.2), print('pool')))\nprint('main')"
    )
    assert box.says(code) == "main\nthread\npool\nlast\n"


def test_files_beside_the_program_are_there_and_folders_are_writable(box: Opened):
    code = (
        "import second, package.inner, os\nprint(second.value, package.inner.value, open('data/in.bin', 'rb').read())\n"
        "for folder in ('/box', '/tmp', '/dev/shm'):\n    open(folder + '/new', 'w').write('x')\n"
        "print(os.environ['HOME'], sorted(os.listdir()))"
    )
    files = {"second.py": b"value = 5", "package/inner.py": b"value = 6", "data/in.bin": b"\x00\xff"}
    said = box.says(code, files=files)
    assert said.startswith("5 6 b'\\x00\\xff'\n/tmp ['__pycache__', 'data', 'main.py', 'new',") or said.startswith(
        "5 6 b'\\x00\\xff'\n/tmp ['data', 'main.py', 'new',"
    )


@pytest.mark.parametrize("name", ["../up", "/tmp/absolute", "a/../../up", "", ".", "a\0b", "a/"])
def test_a_file_that_is_not_below_the_programs_folder_is_refused_by_name(box: Opened, name: str):
    with pytest.raises(UserError, match="is not a path below the program's folder"):
        box.python("print(1)", files={name: b"x"})


def test_an_argument_that_no_program_can_be_given_is_refused(box: Opened):
    with pytest.raises(UserError, match="argument"):
        box.python("print(1)", arguments=("a\0b",))


PICKLING = """
import copy, dataclasses, enum, pickle, typing
@dataclasses.dataclass(frozen=True)
class Point:
    x: int
    y: "typing.ClassVar[int]" = 3
class Colour(enum.Enum):
    RED = 1
class Pair(typing.NamedTuple):
    a: Point
    b: Colour
whole = Pair(Point(5), Colour.RED)
assert pickle.loads(pickle.dumps(whole)) == whole == copy.deepcopy(whole)
assert typing.get_type_hints(Point)["x"] is int
assert Point.__module__ == "__main__"
x: int = 3
print(whole, __annotations__)
"""


def test_classes_of_the_program_can_be_pickled(box: Opened):
    assert box.says(PICKLING).endswith("{'x': <class 'int'>}\n")


PROCESSES = """
import multiprocessing, os, subprocess, sys
def square(number):
    return number * number
if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    with multiprocessing.Pool(2) as pool:
        print(pool.map(square, range(4)))
    queue = multiprocessing.Queue()
    process = multiprocessing.Process(target=queue.put, args=("from a child",))
    process.start()
    print(queue.get())
    process.join()
    for python in (sys.executable, "python3"):
        print(subprocess.run([python, "-c", "print(input() * 2)"], input=b"ab", capture_output=True).stdout)
    print(os.popen("echo shell").read())
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_other_processes_can_be_started(box: Opened, method: str):
    said = box.says(PROCESSES, limits=ROOMY, arguments=(method,))
    assert said == "[0, 1, 4, 9]\nfrom a child\nb'abab\\n'\nb'abab\\n'\nshell\n\n"


def test_coroutines_run(box: Opened):
    code = "import asyncio\nasync def f():\n    await asyncio.sleep(0.01)\n    print('done')\nasyncio.run(f())"
    assert box.says(code) == "done\n"


def test_the_packages_of_this_environment_can_be_imported_where_that_is_asked_for(box: Opened):
    code = "import numpy\nprint(int(numpy.arange(5).sum()))"
    assert box.says(code, limits=ROOMY) == "10\n"
    with opened(packages=False) as without:
        ran = without.python(code, limits=ROOMY)
        assert (ran.status, b"No module named 'numpy'" in ran.stderr) == ("runtime_error", True)


def test_this_package_is_out_of_sight(box: Opened):
    ran = box.python("import codeweft")
    assert b"ModuleNotFoundError: No module named 'codeweft'" in ran.stderr
    assert box.says("import sys; print([name for name in sys.modules if 'codeweft' in name])") == "[]\n"


def test_every_run_has_the_same_order_of_hashes_and_other_random_numbers(box: Opened):
    code = "import os, random, tempfile, uuid\nprint(hash('a'), set('abcdef'))\n"
    code += "print(random.random(), uuid.uuid4(), os.urandom(4), tempfile.mktemp())"
    (order, chance), (again, other) = (box.says(code).splitlines() for _ in range(2))
    assert order == again
    assert not set(chance.split()) & set(other.split())
    with opened() as second:
        assert second.says(code).splitlines()[0] == order


def test_it_is_the_interpreter_that_runs_the_tests(box: Opened):
    assert box.says("import sys; print(sys.version)").strip() == sys.version.replace("\n", "\n")


def test_an_unknown_language_is_an_error_that_names_the_nearest(box: Opened):
    with pytest.raises(UserError, match=r"pythn.*Did you mean python\?"):
        box.run(Program("pythn", ""))
