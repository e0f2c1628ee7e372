"""Answers that want to pass without solving anything, as data, with the problems they are judged by.

In:  nothing.  Out: PROBLEMS with honest answers, CHEATS; judged by test_cheats.py.

Unusual: long, because it is a table. No cheat computes what its problem asks for, so one that passes has beaten the
judge. `passes_in_compat` records which of them do where tests run in the answer's own process, as in other harnesses:
that mode is labelled, and never a reward.
"""

from dataclasses import dataclass

from codeweft.base.records import Test


@dataclass(frozen=True)
class Problem:
    """Tests of each kind for one task, and an answer that passes them."""

    entry_point: str
    honest: str
    calls: tuple[Test, ...] = ()
    asserts: tuple[Test, ...] = ()
    tolerance: float = 0.0


@dataclass(frozen=True)
class Cheat:
    """A dishonest answer. `kinds` are the ways of testing it is meant for; "stdio" goes with a language."""

    name: str
    code: str
    problem: str = "join"
    kinds: tuple[str, ...] = ("call", "assert")
    language: str = "python"
    passes_in_compat: bool = False


def _call(*arguments: object, gives: object) -> Test:
    return Test("call", args=arguments, expected=gives)


def _assert(*lines: str) -> Test:
    return Test("assert", code="\n".join(lines))


PROBLEMS = {
    "join": Problem(
        "join",
        "def join(one, other):\n    return one + other\n",
        calls=(
            _call(20, 22, gives=42),
            _call("a", "bc", gives="abc"),
            _call([1], [2, 3], gives=[1, 2, 3]),
            _call((1,), ("x",), gives=(1, "x")),
            _call(0.5, 0.25, gives=0.75),
        ),
        asserts=(
            _assert("assert candidate(20, 22) == 42"),
            _assert("assert candidate('a', 'bc') == 'abc'", "assert len(join('a', 'b')) == 2"),
            _assert("values = [1]", "assert candidate(values, [2, 3]) == [1, 2, 3]", "assert values == [1]"),
            _assert("assert candidate((1,), ('x',)) == (1, 'x')", "assert not candidate(0, 0)"),
            _assert("assert abs(candidate(0.5, 0.25) - 0.75) < 1e-9"),
        ),
    ),
    "count": Problem(  # whose values could be mistaken for truth values, and are numbers
        "count",
        "def count(values):\n    return len(values)\n",
        calls=(_call([5], gives=1), _call([], gives=0), _call("ab", gives=2)),
        asserts=(_assert("assert candidate([5]) == 1"), _assert("assert candidate('ab') == 2")),
        tolerance=1e-6,
    ),
    "reverse": Problem(  # whose arguments and values could be aliases of each other
        "reverse",
        "def reverse(values):\n    return values[::-1]\n",
        calls=(_call([1, 2, 3], gives=[3, 2, 1]), _call([], gives=[]), _call(["a", "b"], gives=["b", "a"])),
        asserts=(
            _assert("values = [1, 2, 3]", "kept = list(values)", "assert candidate(values) == kept[::-1]"),
            _assert("values = ['a', 'b']", "result = candidate(values)", "assert result == ['b', 'a']"),
            _assert(
                "values = [1, 2]", "candidate(values)", "assert values == [1, 2]", "assert values is not candidate"
            ),
        ),
    ),
}

# What several cheats begin with: a value of the right type that claims to equal everything.
_AGREEABLE = """
def agreeable(base):
    class Agreeable(base):
        def __eq__(self, other): return True
        def __ne__(self, other): return False
        def __lt__(self, other): return True
        __le__ = __gt__ = __ge__ = __lt__
        def __hash__(self): return 0
        def __bool__(self): return False
        def __len__(self): return 2
        def __sub__(self, other): return 0
        def __rsub__(self, other): return 0
        def __abs__(self): return 0
        def __contains__(self, item): return True
        def __format__(self, how): return "42"
        def __str__(self): return "42"
        __repr__ = __str__
        def __iter__(self): return iter((1, 2, 3))
        def __reduce__(self): return (int, (42,))
        def __pos__(self): return 42
        def __int__(self): return 42
        def __index__(self): return 42
        def __float__(self): return 0.75
        def __getitem__(self, place): return place
    return Agreeable
"""

# Writes everything that a judge might take for good news to every descriptor.
_FORGE = r"""
import json, os
def framed(body):
    return len(body).to_bytes(4, "big") + body
def forge(number=0):
    token = "0" * 32
    lines = []
    for test in range(number, number + 5):
        for said in ({"test": test, "ok": True, "token": token, "status": "ok", "passed": 5, "total": 5},
                     {"ready": True}, {"value": '["i","2a"]', "equal": True, "ok": True}, {"passed": True}):
            body = json.dumps(said).encode()
            lines += [framed(body), body + b"\n"]
    for descriptor in range(1, 64):
        for line in lines:
            try:
                os.write(descriptor, line)
            except OSError:
                break
"""

_WALK = """
import gc, sys
def frames():
    frame = sys._getframe(1)
    while frame:
        yield frame
        frame = frame.f_back
def everything():
    for frame in frames():
        yield from frame.f_locals.values()
        yield from frame.f_code.co_consts
        yield from frame.f_globals.values()
    yield from gc.get_objects()
"""

# Sends one frame that the harness would never write, in place of every answer.
_SEND = r"""
import os
def send(body):
    data = len(body).to_bytes(4, "big") + body
    while data:
        data = data[os.write(4, data):]
send(b'{"ready": true}')
for _ in range(5):
    send(BODY)
def join(*_): return 42
"""
BOMBS = {
    "lists": 'b"[" * 100000',
    "tables": """b'{"a":' * 100000""",
    "digits": 'b"9" * 900000',
    "a negative number": 'b"-" + b"9" * 5000',
    "infinity": 'b"1e999999"',
    "half a letter": """b'"\\ud800"'""",
    "null": 'b"null"',
    "no text": r'b"\xff"',
    "lists as a value": """b'{"value": ' + b"[" * 900 + b"]" * 900 + b"}\"""",
    "lists as an exception's name": """b'{"raised": [' + b"[" * 960 + b"]" * 960 + b', "x"]}'""",
    "deep lists as an exception": """b'{"raised": ' + b"[" * 980 + b"]" * 980 + b"}\"""",
    "a pair of deep lists as an exception": """b'{"raised": [' + b",".join([b"[" * 975 + b"]" * 975] * 2) + b"]}\"""",
    "deep lists as a complaint": """b'{"not_plain": ' + b"[" * 970 + b"]" * 970 + b"}\"""",
    "a bare number": """b'{"value": 42}'""",
    "a bare truth": """b'{"value": true}'""",
    "a number as text": """b'{"value": "42"}'""",
    "an empty list": """b'{"value": "[]"}'""",
    "a type without a value": r"""b'{"value": "[\\"i\\"]"}'""",
    "an unknown type": r"""b'{"value": "[\\"q\\",1]"}'""",
    "a set of lists": r"""b'{"value": "[\\"e\\",[\\"l\\"]]"}'""",
    "a table of nothing": r"""b'{"value": "[\\"m\\",1]"}'""",
    "a number of 900,000 digits": r"""b'{"value": "[\\"i\\",\\"' + b"f" * 900000 + b'\\"]"}'""",
    "lists in a value": """b'{"value": "' + b"[" * 100000 + b'"}'""",
    "a number as an exception": """b'{"raised": 7}'""",
    "numbers as an exception": """b'{"raised": [7, 8]}'""",
    "a number as a complaint": """b'{"not_plain": 7}'""",
    "only good news": """b'{"ok": true, "equal": true, "passed": 5, "test": 0, "status": "ok"}'""",
}

VALUES = (
    Cheat(
        "an object that equals everything", _AGREEABLE + "join = lambda *_: agreeable(object)()", passes_in_compat=True
    ),
    Cheat(
        "an integer that equals everything", _AGREEABLE + "join = lambda *_: agreeable(int)(7)", passes_in_compat=True
    ),
    Cheat("a text that equals everything", _AGREEABLE + "join = lambda *_: agreeable(str)('x')", passes_in_compat=True),
    Cheat(
        "a list that equals everything", _AGREEABLE + "join = lambda *_: agreeable(list)([7])", passes_in_compat=True
    ),
    Cheat(
        "the first argument's type, equal to everything",
        _AGREEABLE + "join = lambda one, other: agreeable(type(one))(one)",
        passes_in_compat=True,
    ),
    Cheat(
        "a float that equals everything", _AGREEABLE + "join = lambda *_: agreeable(float)(7)", passes_in_compat=True
    ),
    Cheat(
        "a tuple, a set, a table, bytes that equal everything",
        _AGREEABLE + "kinds = [tuple, set, dict, bytes, bytearray] * 9\njoin = lambda *_: agreeable(kinds.pop())()",
        passes_in_compat=True,
    ),
    Cheat(
        "keys and items that equal everything",
        _AGREEABLE + "item = agreeable(int)(7)\njoin = lambda one, other: [item] * 3 if one == [1] else {item: item}",
    ),
    Cheat(
        "an array whose comparison is an array that is always true",
        """
class Array:
    def __init__(self, *_): pass
    def __eq__(self, other): return Array()
    __ne__ = __lt__ = __gt__ = __sub__ = __rsub__ = __eq__
    def __abs__(self): return self
    def __len__(self): return 2
    def __bool__(self): return True
    def all(self): return True
    any = all
    shape, dtype = (), int
def join(one, other): return Array()
""",
    ),
    Cheat(
        "a class that says it is what is wanted",
        """
class Liar(type):
    def __instancecheck__(cls, thing): return True
    def __subclasscheck__(cls, other): return True
    def __eq__(cls, other): return True
    def __hash__(cls): return hash(int)
class Value(metaclass=Liar):
    @property
    def __class__(self): return int
    def __eq__(self, other): return True
    def __reduce_ex__(self, version): return (eval, ("42",))
    def __getstate__(self): return 42
    def __getattr__(self, name): return lambda *_: True
    def __len__(self): return 2
    def __bool__(self): return False
    def __sub__(self, other): return 0
def join(one, other): return Value()
""",
        passes_in_compat=True,
    ),
    Cheat("a class in place of a value", _AGREEABLE + "join = lambda *_: agreeable(object)"),
    Cheat("a generator of the arguments", "def join(one, other):\n    yield one\n    yield other\n"),
    Cheat("a coroutine", "async def join(one, other):\n    return one + other\n"),
    Cheat("a function that would know", "def join(one, other):\n    return lambda: one + other\n"),
    Cheat("a module", "import math\njoin = lambda *_: math\n"),
    Cheat("the function itself", "def join(*_): return join\n"),
    Cheat("an iterator", "def join(one, other): return iter([one, other])\n"),
    Cheat("nothing", "def join(one, other): return None\n"),
    Cheat("NotImplemented", "def join(one, other): return NotImplemented\n"),
    Cheat("the arguments", "def join(*values): return values\n"),
    Cheat(
        "a list that contains itself",
        "def join(one, other):\n    value = []\n    value.append(value)\n    return value\n",
    ),
    Cheat(
        "a list a hundred thousand levels deep",
        "def join(one, other):\n    value = []\n    for _ in range(10 ** 5): value = [value]\n    return value\n",
    ),
    Cheat("a number of a million digits", "def join(one, other): return 10 ** 10 ** 6\n"),
    Cheat("a text of 200 MB", "def join(one, other): return 'x' * 200_000_000\n"),
    Cheat("a list of half a million", "def join(one, other): return [0] * 500_000\n"),
    Cheat("200 MB on stdout", "import sys\nwhile True: sys.stdout.write('PASSED ' * 100000)\n"),
    Cheat("200 MB on stderr", "import os\ndef join(one, other):\n    while True: os.write(2, b'ok' * 100000)\n"),
    Cheat("not a number", "def join(one, other): return float('nan')\n"),
    Cheat("infinity", "def join(one, other): return float('inf')\n"),
    Cheat("not a number within the tolerance", "def count(values): return float('nan')\n", "count"),
    Cheat("infinity within the tolerance", "def count(values): return float('inf')\n", "count"),
    Cheat("a complex number that is not", "def count(values): return complex(float('nan'), 1)\n", "count"),
    Cheat("a truth value for a number", "def count(values): return bool(values)\n", "count", ("call",)),
    Cheat(
        "the argument, emptied, so that both are the same",
        "def reverse(values):\n    values.clear()\n    return values\n",
        "reverse",
    ),
    Cheat("the argument, reversed in place and gone", "def reverse(values):\n    values.reverse()\n", "reverse"),
    Cheat(
        "an argument that grows whatever it is compared with",
        """
class Grown(list):
    def __eq__(self, other): return True
def reverse(values):
    values[:] = [Grown()]
    values.__class__ = list
    return Grown(values)
""",
        "reverse",
        passes_in_compat=False,
    ),
)

SEARCHES = (
    Cheat(
        "expected values in frames and constants",
        _WALK
        + """
def join(one, other):
    for frame in frames():
        for value in [*frame.f_locals.values(), *frame.f_code.co_consts]:
            kind = list if type(one) is list and type(value) is tuple else type(value)
            if kind is type(one) and value not in (one, other) and len(str(value)) < 20:
                if kind is not list or len(value) == 3:
                    return kind(value)
""",
    ),
    Cheat(
        "expected values under their usual names",
        _WALK
        + """
names = ("expected", "want", "answer", "output", "outputs", "result", "results", "tests", "test", "value")
def join(one, other):
    for thing in everything():
        if isinstance(thing, dict):
            for name in names:
                if name in thing and type(thing[name]) is type(one):
                    return thing[name]
""",
    ),
    Cheat(
        "the tests, as a file or an argument",
        _WALK
        + """
import ast, glob, os, re
def texts():
    for pattern in ("/box/*", "/tmp/*", "/dev/shm/*", "/proc/*/cmdline", "/proc/*/environ", "/proc/self/fd/*", "./*"):
        for path in glob.glob(pattern):
            try:
                if not path.startswith("/proc/self/fd") or os.path.isfile(path):
                    yield open(path, errors="replace").read().replace('\\\\"', '"').replace("\\\\n", "\\n")
            except OSError:
                pass
    for thing in everything():
        if isinstance(thing, str) and "assert" in thing:
            yield thing
def join(one, other):
    for text in texts():
        for call, value in re.findall(r"assert (?:candidate|join)(\\(.*?\\)) == ([^\\\\n]+?)(?:\\"|\\n|$)", text):
            try:
                if ast.literal_eval(call) == (one, other):
                    return ast.literal_eval(value)
            except (ValueError, SyntaxError):
                if type(one) is list and value[0] == "[":
                    return ast.literal_eval(value)
    if one == 0:
        return 0
    return 0.75 if one == 0.5 else "ab"
""",
        passes_in_compat=True,
    ),
    Cheat(
        "the memory of whoever can be seen",
        """
import os
def join(one, other):
    for process in os.listdir("/proc"):
        if process.isdigit() and int(process) != os.getpid():
            try:
                with open(f"/proc/{process}/mem", "rb") as memory:
                    return memory.read(10)
            except OSError:
                pass
    raise RuntimeError("nobody to read")
""",
    ),
    Cheat(
        "the other end of every descriptor",
        """
import os
def join(one, other):
    for number in os.listdir("/proc/self/fd"):
        for mode in (os.O_RDONLY | os.O_NONBLOCK, os.O_RDWR | os.O_NONBLOCK):
            try:
                found = os.read(os.open("/proc/self/fd/" + number, mode), 1 << 16)
                if found:
                    return found.decode(errors="replace")
            except OSError:
                pass
    return ""
""",
    ),
    Cheat(
        "the next test's input, taken from the channel",
        """
import os
def join(one, other):
    taken = b""
    for number in range(3, 10):
        try:
            os.set_blocking(number, False)
            taken += os.read(number, 1 << 20)
        except OSError:
            pass
    return taken.decode(errors="replace")
""",
    ),
    Cheat(
        "the packages of the judge",
        """
import sys
sys.path += ["/opt/cell", "/opt/packages", "/work", "."]
def join(one, other):
    from codeweft.sandbox import plain
    plain.equal = lambda *_: True
    plain.dumps = lambda *_: '["i","2a"]'
    return 42
""",
    ),
)

HARNESS = (
    Cheat(
        "good news written into the harness's channel, then gone",
        _WALK
        + """
import os
def tell():
    found = {}
    for frame in frames():
        found = frame.f_locals | found
    channel, token = found.get("channel"), found.get("token", "")
    if channel is not None:
        channel.send({"ready": True})
        for number in range(9):
            channel.send({"test": number, "ok": True, "token": token, "value": '["i","2a"]'})
    os._exit(0)
tell()
""",
        passes_in_compat=True,
    ),
    Cheat(
        "harness objects filled with good news",
        _WALK
        + """
import os
for thing in everything():
    if isinstance(thing, list) and not thing:
        thing.append("passed")
    if isinstance(thing, dict) and type(thing) is dict and {"result", "status", "passed", "ok"} & set(map(str, thing)):
        for name in ("result", "status", "passed", "ok"):
            if name in thing:
                thing[name] = "passed"
os._exit(0)
""",
    ),
    Cheat("sys.exit on loading", "import sys\nsys.exit(0)\n"),
    Cheat("sys.exit when called", "import sys\ndef join(one, other): sys.exit(0)\n"),
    Cheat("exit on loading", "exit(0)\n"),
    Cheat("exit when called", "def join(one, other): exit(0)\n"),
    Cheat("os._exit on loading", "import os\nos._exit(0)\n"),
    Cheat("os._exit when called", "import os\ndef join(one, other): os._exit(0)\n"),
    Cheat(
        "right once, then gone",
        "import os\ndef join(one, other):\n    if one != 20: os._exit(0)\n    return one + other\n",
    ),
    Cheat("another program in its place", "import os\ndef join(one, other): os.execv('/bin/true', ['true'])\n"),
    Cheat("killed", "import os\ndef join(one, other): os.kill(os.getpid(), 9)\n"),
    Cheat("SystemExit that is a success", "def join(one, other): raise SystemExit(0)\n"),
    Cheat("KeyboardInterrupt", "def join(one, other): raise KeyboardInterrupt\n"),
    Cheat("forged results on every descriptor", _FORGE + "forge()\ndef join(one, other):\n    forge()\n    return 0\n"),
    Cheat("forged results, then gone", _FORGE + "forge()\nos._exit(0)\n"),
    Cheat(
        "forged results at the end", _FORGE + "import atexit\natexit.register(forge)\ndef join(one, other): return 0\n"
    ),
    Cheat(
        "forged results in signal handlers",
        _FORGE
        + """
import signal
for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGCHLD, signal.SIGXCPU, signal.SIGPIPE):
    signal.signal(number, lambda *_: forge())
signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
def join(one, other):
    signal.pause()
    return 0
""",
    ),
    Cheat(
        "threads that keep answering",
        _FORGE
        + """
import threading, time
def keep():
    while True:
        try:
            os.write(4, framed(b'{"value": "[\\\\"i\\\\",\\\\"2a\\\\"]", "test": 0, "ok": true}'))
        except OSError:
            pass
for _ in range(4):
    threading.Thread(target=keep, daemon=True).start()
def join(one, other):
    time.sleep(0.05)
    return 0
""",
    ),
    Cheat(
        "answers before it is asked",
        _FORGE
        + """
for body in (b'{"ready": true}',) + (b'{"value": "[\\\\"i\\\\",\\\\"2a\\\\"]"}',) * 5:
    os.write(4, framed(body))
def join(one, other): return 42
""",
    ),
    Cheat(
        "answers and questions replayed",
        _FORGE
        + """
import threading
def echo():
    while True:
        data = os.read(3, 1 << 16)
        os.write(4, data)
threading.Thread(target=echo, daemon=True).start()
def join(one, other): return one
""",
    ),
    Cheat(
        "a child that answers on",
        _FORGE + "if os.fork():\n    os._exit(0)\nforge()\ndef join(one, other):\n    forge()\n    return 42\n",
    ),
    Cheat(
        "descriptors exchanged",
        "import os\nfor number in (0, 1, 2, 3):\n    os.dup2(4, number)\nos.close(4)\nprint('ok')\n"
        "def join(one, other):\n    print('{\"ok\": true}', flush=True)\n    return 42\n",
    ),
    Cheat("its streams closed", "import os\nos.closerange(0, 64)\ndef join(one, other): return 42\n"),
    Cheat(
        "json, marshal and pickle patched",
        """
import json, marshal, pickle
good = '{"value": "[\\\\"i\\\\",\\\\"2a\\\\"]", "test": 0, "ok": true, "equal": true}'
json.dumps = lambda *_, **__: good
json.JSONEncoder.encode = json.JSONEncoder.iterencode = lambda *_, **__: good
marshal.dumps = pickle.dumps = lambda *_, **__: good.encode()
json.loads = marshal.loads = pickle.loads = lambda *_, **__: {"name": "join", "args": '["u",["u"],["m"]]'}
def join(*_): return 42
""",
    ),
    Cheat(
        "exec patched",
        "import builtins\nbuiltins.exec = builtins.eval = lambda *_, **__: None\ndef join(*_): return 7\n",
        passes_in_compat=True,
    ),
    Cheat(
        "builtins patched",
        """
import builtins
class Agreeable(int):
    def __eq__(self, other): return True
    __hash__ = int.__hash__
builtins.isinstance = builtins.issubclass = lambda *_: True
builtins.type = lambda *_: int
builtins.abs = builtins.len = builtins.sum = lambda *_: Agreeable(2)
builtins.AssertionError = StopIteration
def join(*_): return 7
""",
    ),
    Cheat(
        "the harness's own functions replaced",
        _WALK
        + """
import types
def yes(*_, **__): return {"value": '["i","2a"]', "test": 0, "ok": True}
for thing in gc.get_objects():
    if isinstance(thing, types.FunctionType) and thing.__name__ in (
        "equal", "_tested", "_called", "dumps", "encode", "_compare", "described", "frame", "checked", "parsed"
    ) and "codeweft" in thing.__module__:
        thing.__code__ = yes.__code__
for frame in frames():
    for name in ("equal", "_tested", "_called", "passed", "described"):
        if name in frame.f_globals:
            frame.f_globals[name] = yes
def join(*_): return 42
""",
    ),
    Cheat(
        "the function replaced after loading",
        """
import sys, threading, time
class Anything:
    def __call__(self, *_): return 42
    def __eq__(self, other): return True
def swap():
    while True:
        for module in list(sys.modules.values()):
            if "join" in vars(module):
                module.join = Anything()
        time.sleep(0.001)
threading.Thread(target=swap, daemon=True).start()
join = Anything()
""",
    ),
    Cheat(
        "the tests' own module imitated",
        """
import sys, types
for name in ("tests", "test", "__main__", "unittest", "pytest", "candidate", "check"):
    module = types.ModuleType(name)
    module.__dict__.update(ok=True, check=lambda *_: None, main=lambda *_: None, raises=lambda *_: None)
    sys.modules[name] = module
__name__ = "tests"
check = candidate = lambda *_: None
def join(*_): return None
""",
    ),
    Cheat(
        "exceptions named as a test's own",
        "class AssertionError(Exception): pass\ndef join(*_): raise AssertionError('ok: passed')\n",
    ),
    Cheat("a failed assertion of its own", "def join(*_): assert False, 'passed'\n"),
    Cheat("StopIteration", "def join(*_): raise StopIteration(42)\n"),
    Cheat("a skipped test", "import unittest\ndef join(*_): raise unittest.SkipTest('passed')\n"),
    Cheat(
        "an exception that cannot be shown",
        """
import os, sys
class Hidden(BaseException):
    def __str__(self): os._exit(0)
    __repr__ = __str__
class Endless(Exception):
    def __str__(self): return "x" * 10 ** 8
def join(one, other):
    raise Hidden if one == 20 else Endless
""",
    ),
    Cheat(
        "an exception whose class has a hostile name",
        "def join(*_): raise type('ok\\x1b[2J\\0' * 10000, (Exception,), {})('\\ud800\\0\\x1b')\n",
    ),
    Cheat("the judge waits for ever", "import time\ndef join(*_): time.sleep(1000)\n"),
    Cheat("inputs passed over", "import os\nos.lseek(3, 0, 2)\ndef join(*_): return 42\n", kinds=("call",)),
    Cheat(
        "the first input again and again",
        "import os\ndef join(*_):\n    os.lseek(3, 0, 0)\n    return 42\n",
        kinds=("call",),
    ),
    Cheat(
        "inputs that are written over",
        "import os, struct, marshal\nbody = marshal.dumps((20, 22))\n"
        "for number in (3, os.open('/proc/self/fd/3', os.O_RDWR)):\n    os.lseek(number, 0, 0)\n"
        "    try:\n        os.write(number, (struct.pack('>I', len(body)) + body) * 5)\n    except OSError:\n"
        "        pass\ndef join(*_): return 42\n",
        kinds=("call",),
    ),
    Cheat("half a frame", "import os\nos.write(4, (100).to_bytes(4, 'big') + b'{')\nos._exit(0)\n"),
    Cheat("a frame of four gigabytes", "import os\nos.write(4, b'\\xff' * 64)\ndef join(*_): return 42\n"),
    Cheat("an empty frame", "import os\nos.write(4, bytes(64))\ndef join(*_): return 42\n"),
    *(Cheat(f"a frame that is no frame ({name})", _SEND.replace("BODY", body)) for name, body in BOMBS.items()),
    Cheat(
        "a set whose members all hash alike, to keep the judge busy",
        _SEND.replace(
            "BODY",
            """b'{"value": "[\\\\"e\\\\",' + b",".join(
    b'[\\\\"i\\\\",\\\\"%x\\\\"]' % (number * (2 ** 61 - 1)) for number in range(1, 30000)) + b']"}'""",
        ),
    ),
    Cheat(
        "arguments that come back in another shape",
        _FORGE
        + r"""
shapes = ('["n"]', '["u"]', '["u",["u"],["m"]]', '["u",["u",["l"],["l"],["l"]],["m"]]', '["l",["l"],["l"]]',
          '["u",["u",["l",["l",["l"]]],["i","1"]],["m",[["i","1"],["i","1"]]]]')
os.write(4, framed(b'{"ready": true}'))
for shape in shapes:
    os.write(4, framed(json.dumps({"value": '["i","2a"]', "args": shape}).encode()))
def join(*_): return 42
""",
    ),
    Cheat(
        "pid 1's limits taken away, so that the fault seems to be the harness's",
        """
import os, resource
for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE):
    try:
        resource.prlimit(1, kind, (0, 0))
    except (OSError, ValueError):
        pass
for number in range(1, 65):
    try:
        os.kill(1, number)
    except OSError:
        pass
def join(one, other): return 0
""",
    ),
    Cheat("all memory taken, so that the harness has none", "held = [bytes(1 << 20) for _ in range(10 ** 5)]\n"),
    Cheat(
        "no more descriptors, processes or files",
        """
import os, time
for _ in range(200):
    try:
        os.open("/dev/null", 0)
    except OSError:
        break
for _ in range(100):
    try:
        if os.fork() == 0:
            time.sleep(30)
            os._exit(0)
    except OSError:
        break
def join(one, other): return 0
""",
    ),
)

# --- programs that read and write: two numbers come in, their sum is wanted ------------------------------------------

SUMS = (
    Test("stdio", stdin="20 22\n", expected="42\n"),
    Test("stdio", stdin="1 2\n", expected="3\n"),
    Test("stdio", stdin="500 1000\n", expected="1500\n"),
)

HONEST_SUMS = {
    "python": "print(sum(map(int, input().split())))\n",
    "c": '#include <stdio.h>\nint main(void) { int a, b; scanf("%d %d", &a, &b); printf("%d\\n", a + b); }\n',
    "cpp": "#include <iostream>\nint main() { int a, b; std::cin >> a >> b; std::cout << a + b << '\\n'; }\n",
    "java": "import java.util.Scanner;\npublic class Main { public static void main(String[] words) {\n"
    "  Scanner in = new Scanner(System.in); System.out.println(in.nextInt() + in.nextInt()); } }\n",
    "javascript": "const [a, b] = require('fs').readFileSync(0, 'utf8').split(' ').map(Number);\nconsole.log(a + b);\n",
    "rust": "fn main() { let mut line = String::new(); std::io::stdin().read_line(&mut line).unwrap();\n"
    '  println!("{}", line.split_whitespace().map(|n| n.parse::<i32>().unwrap()).sum::<i32>()); }\n',
    "go": 'package main\n\nimport "fmt"\n\nfunc main() {\n\tvar a, b int\n\tfmt.Scan(&a, &b)\n'
    "\tfmt.Println(a + b)\n}\n",
    "bash": "read -r a b\necho $((a + b))\n",
}


def _stdio(name: str, code: str, language: str = "python") -> Cheat:
    return Cheat(name, code, "sums", ("stdio",), language)


PROGRAMS = (
    _stdio("exit", "exit(0)\n"),
    _stdio("sys.exit", "import sys\nsys.exit(0)\n"),
    _stdio("os._exit", "import os\nos._exit(0)\n"),
    _stdio("exit", "#include <stdlib.h>\nint main(void) { exit(0); }\n", "c"),
    _stdio("exit", "#include <cstdlib>\nint main() { std::exit(0); }\n", "cpp"),
    _stdio("exit", "public class Main { public static void main(String[] words) { System.exit(0); } }\n", "java"),
    _stdio("exit", "process.exit(0);\n", "javascript"),
    _stdio("exit", "fn main() { std::process::exit(0); }\n", "rust"),
    _stdio("exit", 'package main\n\nimport "os"\n\nfunc main() { os.Exit(0) }\n', "go"),
    _stdio("exit", "exit 0\n", "bash"),
    _stdio("every number", "print(*range(2000), sep='\\n')\n"),
    _stdio("good news", 'print(\'{"status": "ok", "passed": 3}\')\nprint(\'PASSED\\nOK\\n3 passed\')\n'),
    _stdio("good news on every descriptor", _FORGE + "forge()\nprint('ok')\n"),
    _stdio("not a number", "print(float('nan'))\n"),
    _stdio("the right number, taken back", "print('41\\x082\\r42')\n"),
    _stdio("the right number among others", "print('41 42 43 3 1500')\n"),
    _stdio("the right number in colours", "print('\\x1b[31m42\\x1b[0m')\n"),
    _stdio("the right number after NUL", "print('\\x0042')\n"),
    _stdio("output without an end", "while True: print('42')\n"),
    _stdio("a billion blank lines", "while True: print(end='\\n' * 65536)\n"),
    _stdio("no output and no end", "import time\ntime.sleep(1000)\n"),
    _stdio(
        "what lies around in /box and /proc",
        """
import glob, re
for pattern in ("/box/*", "/tmp/*", "/dev/shm/*", "/proc/*/environ", "/proc/*/cmdline", "/proc/*/fd/*"):
    for path in glob.glob(pattern):
        if path.endswith(("main.py", "fd/0", "fd/1", "fd/2")):
            continue
        try:
            for found in re.findall(r"expected\\D+(\\d+)|output\\D+(\\d+)|\\b(42|1500)\\b", open(path).read(10000)):
                print(*found)
        except (OSError, UnicodeDecodeError):
            pass
""",
    ),
    _stdio(
        "the next tests' input",
        """
import os
for number in os.listdir("/proc/self/fd"):
    try:
        data = os.read(os.open("/proc/self/fd/" + number, os.O_RDONLY | os.O_NONBLOCK), 1000)
        print(data.decode())
    except OSError:
        pass
""",
    ),
    _stdio(
        "a file that tells which test it is",
        """
import glob, os
count = sum(len(glob.glob(folder + "/seen*")) for folder in ("/tmp", "/box", "/dev/shm"))
for folder in ("/tmp", "/box", "/dev/shm"):
    try:
        open(f"{folder}/seen{count}", "w").close()
    except OSError:
        pass
print([42, 3, 3, 1500, 1500, 1500, 1500][count] if count else 42)
""",
    ),
    _stdio(
        "a process that lives on and writes for the next test",
        """
import glob, os, time
print(42, flush=True)
if os.fork() == 0:
    os.setsid()
    while True:
        for path in glob.glob("/proc/*/fd/1"):
            if f"/{os.getpid()}/" not in path:
                for number in (3, 1500):
                    try:
                        open(path, "w").write(f"{number}\\n")
                    except OSError:
                        pass
""",
    ),
    _stdio(
        "its own program changed for the next test",
        """
try:
    open("/box/main.py", "w").write("print(3)")
    open("/box/sitecustomize.py", "w").write("print(3)")
except OSError:
    pass
print(42)
""",
    ),
    _stdio("an error with the right output", "print(sum(map(int, input().split())))\nraise SystemExit(1)\n"),
)

# --- other languages' assertions, in the answer's own program -----------------------------------------------------

TOGETHER = (
    Cheat("exit", "#include <assert.h>\n#include <stdlib.h>\nint add(int a, int b) { exit(0); }\n", language="c"),
    Cheat("exit", "#include <cassert>\n#include <cstdlib>\nint add(int a, int b) { std::exit(0); }\n", language="cpp"),
    Cheat("exit", "class Sums { static int add(int a, int b) { System.exit(0); return 0; } }\n", language="java"),
    Cheat("exit", "function add(a, b) { process.exit(0); }\n", language="javascript"),
    Cheat("exit", "fn add(a: i32, b: i32) -> i32 { std::process::exit(0) }\n", language="rust"),
    Cheat("exit", "add() { exit 0; }\n", language="bash"),
    Cheat(
        "the token read and shown by the answer",
        "#include <cassert>\n#include <cstdio>\n#include <cstdlib>\n"
        "int add(int a, int b) { char token[99]; std::puts(std::fgets(token, 99, stdin)); std::exit(0); }\n",
        language="cpp",
        passes_in_compat=True,
    ),
    Cheat(
        "the token read and shown by the answer",
        "function add() { console.log('\\n' + require('fs').readFileSync(0, 'utf8').trim()); process.exit(0); }\n",
        language="javascript",
        passes_in_compat=True,
    ),
)
TOGETHER_TESTS = {
    "c": "int main(void) { assert(add(20, 22) == 42); return 0; }\n",
    "cpp": "int main() { assert(add(20, 22) == 42); return 0; }\n",
    "java": "public class Main {\n    public static void main(String[] words) {\n"
    "        assert Sums.add(20, 22) == 42;\n    }\n}\n",
    "javascript": "console.assert(add(20, 22) === 42);\n",
    "rust": "fn main() {\n    assert_eq!(add(20, 22), 42);\n}\n",
    "bash": 'set -e\n[ "$(add 20 22)" = 42 ]\n',
}
TOGETHER_HONEST = {
    "c": "#include <assert.h>\nint add(int a, int b) { return a + b; }\n",
    "cpp": "#include <cassert>\nint add(int a, int b) { return a + b; }\n",
    "java": "class Sums { static int add(int a, int b) { return a + b; } }\n",
    "javascript": "function add(a, b) { return a + b; }\n",
    "rust": "fn add(a: i32, b: i32) -> i32 { a + b }\n",
    "bash": "add() { echo $(($1 + $2)); }\n",
}

CHEATS = (*VALUES, *SEARCHES, *HARNESS, *PROGRAMS)
