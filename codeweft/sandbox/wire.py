"""The JSON that the sandbox's service and its clients exchange, and SandboxFusion's beside it.

In:  Submission, Verdict, Program and Ran, or decoded JSON.  Out: the other of the two; WireError names the wrong field.

Unusual: the values of `call` tests travel in the typed form of plain.py, because JSON knows no tuples, sets, bytes or
nan; who writes a request by hand may give plain JSON instead (without `typed`).
"""

import base64
import dataclasses
import typing
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from codeweft.base.records import Status, Test, Verdict
from codeweft.sandbox.config import COMPILING, Limits, Mode, Program, Ran, Submission
from codeweft.sandbox.plain import decode, encode
from codeweft.sandbox.shape import (
    LONGEST_NAME,
    Field,
    Json,
    WireError,
    anything,
    choice,
    flag,
    number,
    of_dataclass,
    several,
    table,
    text,
)

SHORTEST_SECONDS, LONGEST_SECONDS = 0.01, 3600.0  # that a time limit may be asked for
MOST_MEBIBYTES = 1 << 20  # that a memory limit may be asked for
KILLED = -9  # exit code told of a program that was ended for want of memory or for its output
BASE64 = r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"


# --- submissions and verdicts --------------------------------------------------------------------------------------


def _test(typed: bool, **values: Any) -> Test:
    if typed:
        values |= {"args": tuple(decode(item) for item in values["args"])}
        values |= {"expected": None if values["expected"] is None else decode(values["expected"])}
    test = Test(**values)
    if test.kind == "stdio":
        text().read(test.expected, "expected of a stdio test")
    if test.kind == "call":
        encode((test.args, test.expected))  # PlainError here and not in the judge
    if test.kind == "assert" and not test.code:
        raise ValueError("an assert test needs code")
    return test


TEST = table(
    {
        "kind": choice("stdio", "call", "assert"),
        "stdin": text().otherwise("").told("What a stdio test writes to the program."),
        "args": several(anything()).otherwise([]).told("What a call test calls the entry point with."),
        "expected": anything().otherwise(None).told("A stdio test's output, or what a call returns."),
        "code": text().otherwise("").told("What an assert test runs."),
        "typed": flag().otherwise(False).told("Whether args and expected say the type of each value (plain.py)."),
    },
    _test,
)
LIMITS = of_dataclass(Limits)
SUBMISSION = table(
    {
        "language": text(1),
        "code": text(),
        "tests": several(TEST, 1),
        "entry_point": text().otherwise("").told("The function that call and assert tests call."),
        "setup": text().otherwise("").told("Trusted code that the tests need beside the answer."),
        "mode": choice(*typing.get_args(Mode)).or_null().told("null: stdio for stdio tests, split for the others."),
        "limits": LIMITS.or_null().told("Of each run; null: the language's."),
        "tolerance": number(0).otherwise(0.0).told("The largest difference of two numbers that count as equal."),
        "allclose": several(number(0)).otherwise(()).told("For each call test, the tolerance of NumPy's allclose."),
        "stop_early": flag().otherwise(True).told("Whether the first failed test ends the judging."),
    },
    Submission,
)
JUDGE_REQUEST = table({"submissions": several(SUBMISSION, 1)})
VERDICT = of_dataclass(Verdict, others=True)  # a newer service may say more
JUDGE_RESPONSE = table({"verdicts": several(VERDICT)}, others=True)


def submission_to_json(submission: Submission) -> Json:
    """A submission as `POST /judge` takes it; PlainError where a test holds what is not plain data."""
    values = {field.name: getattr(submission, field.name) for field in dataclasses.fields(Submission)}
    limits = None if submission.limits is None else dataclasses.asdict(submission.limits)
    return values | {"limits": limits, "tests": [_test_to_json(test) for test in submission.tests]}


def _test_to_json(test: Test) -> Json:
    typed = test.kind == "call"
    return {
        "kind": test.kind,
        "stdin": test.stdin,
        "args": [encode(item) if typed else item for item in test.args],
        "expected": encode(test.expected) if typed else test.expected,
        "code": test.code,
        "typed": typed,
    }


def submission_from_json(value: Any, place: str = "") -> Submission:
    """The submission that `submission_to_json` wrote, or that a person wrote in its shape."""
    return SUBMISSION.read(value, place)


def verdict_to_json(verdict: Verdict) -> Json:
    """A verdict as the service answers it."""
    return dataclasses.asdict(verdict)


def verdict_from_json(value: Any, place: str = "") -> Verdict:
    """The verdict that `verdict_to_json` wrote; fields of a newer service are passed over."""
    return VERDICT.read(value, place)


# --- SandboxFusion -------------------------------------------------------------------------------------------------


def _file_name(name: str, place: str) -> str:
    path = PurePosixPath(text(1).read(name, place))
    if path.is_absolute() or ".." in path.parts or "\0" in name or not path.name:
        raise WireError(place, f"{name[:LONGEST_NAME]!r} is not a path below the program's folder")
    return str(path)


def _files() -> Field:
    """Contents in base64 by path; a file without contents is passed over, as SandboxFusion does."""

    def read(value: Any, place: str) -> dict[str, bytes]:
        if not isinstance(value, dict):
            raise WireError(place, "must be a table of paths and contents in base64")
        files = {}
        for name, content in value.items():
            path = _file_name(name, place)
            if content is None:
                continue
            try:
                files[path] = base64.b64decode(content, validate=True)
            except (ValueError, TypeError) as error:
                raise WireError(place, f"the contents of {name[:LONGEST_NAME]!r} are not base64") from error
        return files

    contents: Json = {"anyOf": [{"type": "string", "pattern": BASE64}, {"type": "null"}]}
    name: Json = {"pattern": r"^[^/.\x00][^/\x00]*(?:/[^/.\x00][^/\x00]*)*$"}
    return Field(read, {"type": "object", "additionalProperties": contents, "propertyNames": name})


def _nothing_to_fetch(value: Any, place: str) -> tuple[str, ...]:
    if value != []:
        raise WireError(place, "this service gives no files back; leave it empty and print what you need")
    return ()


def _memory(value: Any, place: str) -> int:
    return -1 if value == -1 and value is not True else number(1, MOST_MEBIBYTES, whole=True).read(value, place)


SECONDS = number(SHORTEST_SECONDS, LONGEST_SECONDS)
FUSION_REQUEST = table(
    {
        "code": text(),
        "language": text(1),
        "stdin": text().or_null(),
        "compile_timeout": SECONDS.otherwise(10.0).told("Processor seconds; by the clock twice that and two more."),
        "run_timeout": SECONDS.otherwise(10.0).told("Processor seconds; by the clock twice that and two more."),
        "memory_limit_MB": Field(
            _memory,
            {"anyOf": [{"const": -1}, {"type": "integer", "minimum": 1, "maximum": MOST_MEBIBYTES}]},
        )
        .otherwise(-1)
        .told("MiB; -1: the language's."),
        "files": _files().otherwise({}).told("Files beside the program: base64 by path."),
        "fetch_files": Field(_nothing_to_fetch, {"type": "array", "maxItems": 0}).otherwise([]).told("Only empty."),
        "args": several(text()).otherwise([]).told("The program's arguments."),
    }
)


def program_from_fusion(body: Any, limits_of: Callable[[str], Limits] = lambda _: Limits()) -> Program:
    """The program of a `POST /run_code`; `limits_of` knows what a language needs where the body does not say it."""
    asked = FUSION_REQUEST.read(body, "")
    limits = dataclasses.replace(limits_of(asked["language"]), cpu_seconds=asked["run_timeout"], wall_seconds=0)
    if asked["memory_limit_MB"] > 0:
        limits = dataclasses.replace(limits, memory_mib=asked["memory_limit_MB"])
    return Program(
        language=asked["language"],
        code=asked["code"],
        stdin=(asked["stdin"] or "").encode(),
        arguments=tuple(asked["args"]),
        files=dict(asked["files"]),
        limits=limits,
        compile_limits=dataclasses.replace(COMPILING, cpu_seconds=asked["compile_timeout"], wall_seconds=0),
    )


def program_to_fusion(program: Program) -> Json:
    """A program as SandboxFusion takes it; it has one time limit, and no word for tasks, disk or output.

    WireError where its stdin is no text: SandboxFusion's is.
    """
    try:
        stdin = program.stdin.decode()
    except UnicodeDecodeError as error:
        raise WireError("stdin", "is not UTF-8, and SandboxFusion takes nothing else") from error
    body: Json = {"language": program.language, "code": program.code, "stdin": stdin}
    if program.compile_limits is not None:
        body["compile_timeout"] = program.compile_limits.cpu_seconds
    if program.limits is not None:
        body |= {"run_timeout": program.limits.cpu_seconds, "memory_limit_MB": program.limits.memory_mib}
    if program.arguments:
        body["args"] = list(program.arguments)
    return body | {"files": {name: base64.b64encode(held).decode() for name, held in program.files.items()}}


def ran_to_fusion(ran: Ran) -> Json:
    """What a run did, as SandboxFusion answers; `SandboxError` where the program cannot be blamed."""
    compiled = None if ran.compiled is None else _command(ran.compiled)
    ours = ran.status in ("harness_error", "unsupported", "refused")
    status = "SandboxError" if ours else "Success" if ran.status == "ok" else "Failed"
    return {
        "status": status,
        "message": "" if ran.status == "ok" else f"{ran.status}: {ran.detail}" if ran.detail else ran.status,
        "compile_result": compiled or (_command(ran) if ran.status == "compile_error" else None),
        "run_result": None if ours or ran.status == "compile_error" else _command(ran),
        "executor_pod_name": None,
        "files": {},
    }


def _command(ran: Ran) -> Json:
    timed_out = ran.status == "time_limit"
    code = ran.exit_code
    if ran.status != "ok" and code in (0, None):  # a limit can end a program whose own exit code says nothing of it
        code = KILLED
    return {
        "status": "TimeLimitExceeded" if timed_out else "Error" if ran.status == "harness_error" else "Finished",
        "execution_time": round(ran.wall_seconds, 6),
        "return_code": None if timed_out else code,
        "stdout": ran.stdout.decode("utf-8", "replace"),
        "stderr": ran.stderr.decode("utf-8", "replace"),
    }


_COMMAND = table(
    {
        "status": choice("Finished", "Error", "TimeLimitExceeded"),
        "execution_time": number(0).or_null(),
        "return_code": number(-(2**31), 2**32, whole=True).or_null(),
        "stdout": text(halves=True).or_null(),  # what an untrusted program wrote must not make its answer void
        "stderr": text(halves=True).or_null(),
    },
    others=True,
)
FUSION_RESPONSE = table(
    {
        "status": choice("Success", "Failed", "SandboxError"),
        "message": text().otherwise(""),
        "compile_result": _COMMAND.or_null(),
        "run_result": _COMMAND.or_null(),
        "executor_pod_name": text().or_null(),
        "files": table({}, others=True).otherwise({}),
    },
    others=True,
)


def ran_from_fusion(value: Any) -> Ran:
    """What a SandboxFusion says of a run. It tells no processor time, so the clock's stands there, and no memory."""
    answer = FUSION_RESPONSE.read(value, "")
    compiled, run = answer["compile_result"], answer["run_result"]
    if answer["status"] == "SandboxError" or not (compiled or run):
        return _ran("harness_error", run or compiled or {}, answer["message"])
    compilation = None if compiled is None else _ran(_status(compiled), compiled)
    if compilation is not None and (run is None or compilation.status != "ok"):
        detail = "the compilation took too long" if compilation.status == "time_limit" else ""
        return dataclasses.replace(compilation, status="compile_error", detail=detail, compiled=compilation)
    assert run is not None
    return dataclasses.replace(_ran(_status(run), run, answer["message"]), compiled=compilation)


def _status(command: Json) -> Status:
    if command["status"] == "TimeLimitExceeded":
        return "time_limit"
    if command["status"] == "Error":
        return "harness_error"
    return "ok" if command["return_code"] == 0 else "runtime_error"


def _ran(status: Status, command: Json, detail: str = "") -> Ran:
    seconds = command.get("execution_time") or 0.0
    stdout, stderr = ((command.get(name) or "").encode("utf-8", "replace") for name in ("stdout", "stderr"))
    return Ran(status, command.get("return_code"), stdout, stderr, seconds, seconds, 0, "remote", detail)
