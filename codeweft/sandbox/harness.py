"""What runs in a program's own process when it is Python: a script, functions called from outside, or tests.

In:  a file of /box; for functions and tests, frames on descriptor 3 and answers on descriptor 4.
Out: an exit code. Values cross as plain data; nothing that this process says decides a verdict by itself.

Unusual: in `inputs` and `calls`, the answer's code lives here and no expected value ever does. In `tests`, the tests
live here and the answer's function is a stand-in that asks the supervisor, which asks the other box. In `together` both
live here, as in other harnesses: such a verdict is called compat and proves little.
"""

import atexit
import builtins
import gc
import json
import marshal
import os
import random
import sys
import threading
import traceback
import types
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from codeweft.sandbox import plain

ASKED, ANSWERED = 3, 4  # descriptors
HEADER = 4  # bytes of a frame's length
DOES_NOT_COMPILE = 121  # exit code of a script that is no Python
MODULES = ("box", "cell", "harness", "kernel", "landlock", "plain", "seccomp", "watch")
OWN = ("codeweft", "codeweft.sandbox", *(f"codeweft.sandbox.{name}" for name in MODULES))
MESSAGE = 300  # characters of an exception's message that are passed on


def run(argv: list[str], kind: str, folder: str) -> int:
    """Do what a step of this kind asks; returns the exit code of the process."""
    sys.path.insert(0, folder)
    random.seed()  # every fork of the warm interpreter would draw the same numbers
    gc.enable()
    if kind == "script":
        return run_script(argv)
    ways = {"inputs": answer_inputs, "calls": answer_calls, "tests": run_tests, "together": run_together}
    return ways[kind](argv)


def run_script(argv: list[str]) -> int:
    """The file argv[0] as `python FILE ARGUMENTS` would run it."""
    sys.argv = list(argv)
    main = types.ModuleType("__main__")
    main.__dict__.update(__file__=argv[0], __builtins__=builtins)
    sys.modules["__main__"] = main
    forget_the_sandbox()
    try:
        code = compile(read_file(argv[0]), argv[0], "exec", dont_inherit=True)
    except (SyntaxError, ValueError, RecursionError, OverflowError) as error:
        traceback.print_exception(error, limit=0)
        return DOES_NOT_COMPILE
    return finished(lambda: exec(code, main.__dict__), main.__dict__)


def read_file(path: str) -> bytes:
    """A file's bytes, without a file object, whose making touches many pages."""
    descriptor = os.open(path, os.O_RDONLY)
    content = b""
    while piece := os.read(descriptor, 1 << 16):
        content += piece
    os.close(descriptor)
    return content


def finished(program: Callable[[], object], names: dict[str, Any]) -> int:
    """Run to the end as an interpreter does: uncaught exceptions, threads, exit functions, buffers, destructors."""
    code = 0
    try:
        program()
    except SystemExit as error:
        code = exit_code(error)
    except BaseException as error:  # whatever it is, it is the program's own
        show(error)
        code = 1
    threading._shutdown()  # ty: ignore[missing-attribute]
    atexit._run_exitfuncs()
    lost = flush()
    if threading.active_count() == 1:  # an interpreter that ends stops all other threads before this
        for name in [name for name in names if name != "__builtins__"]:
            names[name] = None  # files that were not closed are written now, and destructors run
        lost = flush() or lost
    return code or lost


def flush() -> int:
    """Write out what streams hold back; not 0 where that was not possible."""
    lost = 0
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except BaseException:  # the program's own stream, or one whose descriptor it closed
            lost = 120
    return lost


def show(error: BaseException) -> None:
    """The traceback from the program's own first line on."""
    try:
        place = _TRACEBACK(error)  # a hostile exception may have replaced the attribute
        for _ in range(2):  # this file's two frames
            place = place.tb_next if place and place.tb_next else place
        traceback.print_exception(type(error), error, place)
    except BaseException:  # a hostile exception's own methods
        with suppress(OSError):
            os.write(2, b"an exception that cannot be shown\n")


_TRACEBACK: Callable[[BaseException], Any] = vars(BaseException)["__traceback__"].__get__


def exit_code(error: SystemExit) -> int:
    """The exit code that SystemExit means."""
    with suppress(BaseException):  # a hostile object's own methods
        code: Any = error.code
        if code is None:
            return 0
        if issubclass(type(code), int):
            return int.__and__(code, 0xFF)
        print(code, file=sys.stderr)  # noqa: T201
    return 1


def forget_the_sandbox() -> None:
    """Take this package out of sight of the program that runs in this process."""
    for name in OWN:  # by name: looking through all modules would copy the pages of all their names
        sys.modules.pop(name, None)


# --- frames --------------------------------------------------------------------------------------------------------


class Channel:
    """Length-prefixed messages over two descriptors; writing takes as many calls as the pipe needs."""

    def __init__(self, asked: int = ASKED, answered: int = ANSWERED) -> None:
        self.incoming, self.outgoing = os.fdopen(asked, "rb", buffering=1 << 16), answered

    def body(self) -> bytes | None:
        """The body of the next frame, or None at the end."""
        header = self.incoming.read(HEADER)
        if len(header) < HEADER:
            return None
        return self.incoming.read(int.from_bytes(header, "big"))

    def receive(self) -> dict[str, Any] | None:
        """The next frame's JSON, or None at the end."""
        body = self.body()
        return None if body is None else json.loads(body)

    def send(self, message: dict[str, Any]) -> None:
        """Write one frame."""
        data = frame(message)
        while data:
            data = data[os.write(self.outgoing, data) :]


def frame(message: dict[str, Any]) -> bytes:
    """A message with its length before it."""
    return framed(packed(message))


def framed(body: bytes) -> bytes:
    """The body of a frame with its length before it."""
    return len(body).to_bytes(HEADER, "big") + body


def packed(message: dict[str, Any]) -> bytes:
    """A message as JSON."""
    return _JSON(message).encode()


_JSON = json.JSONEncoder(separators=(",", ":")).encode


def described(error: BaseException) -> list[str]:
    """An exception's class and message, as far as they can be had."""
    try:
        return [type(error).__name__[:80], str(error)[:MESSAGE]]
    except BaseException:  # a hostile exception's own methods
        return ["Exception", ""]


# --- the answer's side ---------------------------------------------------------------------------------------------


def answer_inputs(argv: list[str]) -> int:
    """Load the code in argv[0], then call its function argv[1] with all inputs, which are there from the beginning."""
    path, name = argv
    channel = Channel()
    namespace = _loaded(path, channel)
    if namespace is None:
        return 1
    while (body := channel.body()) is not None:
        given = marshal.loads(body)
        arguments = plain.loads(given) if type(given) is str else given
        channel.send(_called(namespace, name, arguments, {}))
    return 0


def answer_calls(argv: list[str]) -> int:
    """Load the code in argv[0], then call its functions as frames say until they end."""
    channel = Channel()
    namespace = _loaded(argv[0], channel)
    if namespace is None:
        return 1
    while (asked := channel.receive()) is not None:
        arguments, named = plain.loads(asked["args"])
        channel.send(_called(namespace, asked["name"], arguments, named, asked["args"]))
    return 0


def _loaded(path: str, channel: Channel) -> dict[str, Any] | None:
    """The names that a file of code defines, as the module `solution`; None where it fails, which is told."""
    module = types.ModuleType("solution")
    module.__file__ = path
    sys.modules["solution"] = module
    forget_the_sandbox()
    try:
        code = compile(read_file(path), path, "exec", dont_inherit=True)
        exec(code, module.__dict__)
    except BaseException as error:  # whatever it is, it is the program's own
        kind = "uncompilable" if isinstance(error, SyntaxError) else "raised"
        channel.send({kind: described(error)})
        return None
    channel.send({"ready": True})
    return module.__dict__


def _called(names: dict[str, Any], name: str, given: Any, named: dict[str, Any], before: str = "") -> dict[str, Any]:
    """One call's answer: the value, or what was raised; the arguments where they are not any more what `before` says.

    An empty `before`: what becomes of the arguments does not count.
    """
    try:
        value = names[name](*given, **named)
    except BaseException as error:  # whatever it is, it is the program's own
        return {"raised": described(error)}
    try:
        answer = {"value": plain.dumps(value)}
        if before and (after := plain.dumps((given, named))) != before:
            answer["args"] = after
        return answer
    except plain.PlainError as error:
        return {"not_plain": str(error)}
    except RecursionError:
        return {"not_plain": "The value is nested too deep."}


# --- the tests' side -----------------------------------------------------------------------------------------------


class CandidateError(Exception):
    """The answer raised an exception that is none of Python's own."""


class Unanswerable(Exception):
    """A test gave the answer something that is not plain data, or the answer gave such a thing back."""


class Unaskable(Unanswerable):
    """A test gave the answer something of a type that cannot be sent: no answer can pass it."""


class StandIn:
    """What tests call in the answer's place."""

    def __init__(self, channel: Channel, name: str) -> None:
        self.__name__, self._channel = name, channel
        self.raised: BaseException | None = None

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        """Ask the other box."""
        try:
            text = plain.dumps((arguments, named))
        except plain.NoDataError as error:
            raise Unaskable(str(error)) from error
        except plain.PlainError as error:
            raise Unanswerable(str(error)) from error
        self._channel.send({"call": self.__name__, "args": text})
        answer = self._channel.receive()
        if answer is None:
            os._exit(0)  # the answer's box is gone: the supervisor knows why
        if "raised" in answer:
            self.raised = revived(*answer["raised"])
            raise self.raised
        if "not_plain" in answer:
            self.raised = Unanswerable(answer["not_plain"])
            raise self.raised
        if "args" in answer:
            changed, changed_named = plain.loads(answer["args"])
            for original, new in zip(arguments, changed, strict=False):
                take_over(original, new)
            for key, original in named.items():
                take_over(original, changed_named[key])
        return plain.loads(answer["value"])


def revived(name: str, message: str) -> BaseException:
    """An exception of Python's own by its name; CandidateError for any other."""
    found = getattr(builtins, name, None)
    if isinstance(found, type) and issubclass(found, Exception):
        try:
            return found(message)
        except TypeError:  # UnicodeDecodeError and the like want more
            return CandidateError(f"{name}: {message}")
    return CandidateError(f"{name}: {message}")


def take_over(original: Any, new: Any) -> None:
    """Change a mutable value into a new one in place, nested ones as well where their shapes allow."""
    if type(original) is not type(new):
        return
    if isinstance(original, list):
        for one, other in zip(original, new, strict=False):
            take_over(one, other)
        same = [one if _alike(one, other) else other for one, other in zip(original, new, strict=False)]
        original[:] = same + new[len(original) :]
    elif isinstance(original, dict):
        kept = {key: original[key] for key in new if key in original}
        for key, value in kept.items():
            take_over(value, new[key])
        merged = {key: kept[key] if key in kept and _alike(kept[key], value) else value for key, value in new.items()}
        original.clear()
        original.update(merged)
    elif isinstance(original, tuple):
        for one, other in zip(original, new, strict=False):
            take_over(one, other)
    elif isinstance(original, set):
        original.clear()
        original.update(new)
    elif isinstance(original, bytearray):
        original[:] = new


def _alike(one: Any, other: Any) -> bool:
    return type(one) is type(other) and isinstance(one, (list, dict, set, bytearray))


def run_tests(argv: list[str]) -> int:
    """Run trusted tests, argv[1], after their set-up, argv[0], against a stand-in for the function argv[2]."""
    setup, tests, entry_point = argv
    channel = Channel()
    stand_in = StandIn(channel, entry_point)
    namespace: dict[str, Any] = {"__name__": "tests"}
    try:
        exec(compile(Path(setup).read_bytes(), "setup", "exec", dont_inherit=True), namespace)
    except BaseException as error:  # a fault of the data set, told as such
        channel.send({"broken": described(error)})
        return 1
    namespace |= {entry_point: stand_in, "candidate": stand_in}
    for number, code in enumerate(json.loads(Path(tests).read_bytes())):
        channel.send(_tested(number, code, namespace, stand_in))
    return 0


def _tested(number: int, code: str, namespace: dict[str, Any], stand_in: StandIn) -> dict[str, Any]:
    stand_in.raised = None
    try:
        compiled = compile(code, "test", "exec", dont_inherit=True)
    except (SyntaxError, ValueError) as error:
        return {"test": number, "ok": False, "unusable": f"The test does not compile: {error}"}
    try:
        exec(compiled, namespace)
    except Unaskable as error:
        return {"test": number, "ok": False, "unusable": str(error)}
    except Unanswerable as error:
        return {"test": number, "ok": False, "not_plain": str(error)}
    except BaseException as error:  # a failed assertion and everything else that a test may raise
        return {"test": number, "ok": False, "error": described(error), "candidate": error is stand_in.raised}
    return {"test": number, "ok": True}


def run_together(argv: list[str]) -> int:
    """The code, argv[0], and the tests, argv[1], in one process; the token, argv[2], ends each test that passed.

    `candidate` is the function argv[3], as in `run_tests`.
    """
    code, tests, token, entry_point = argv
    channel = Channel()
    namespace = _loaded(code, channel)
    if namespace is None:
        return 1
    namespace.setdefault("candidate", namespace.get(entry_point))
    for number, text in enumerate(json.loads(Path(tests).read_bytes())):
        try:
            exec(compile(text, "test", "exec", dont_inherit=True), namespace)
        except BaseException as error:  # a failed assertion and everything else
            channel.send({"test": number, "ok": False, "error": described(error), "candidate": False})
        else:
            channel.send({"test": number, "ok": True, "token": token})
    return 0
