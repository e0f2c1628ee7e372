"""`codeweft evaluate --model` as people run it: what is wrong is told in time, what is interrupted goes on.

Four problems in HumanEval's file format; a server that answers each rightly but the last one.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from engine.test_remote import piece, refusing, send, served, stream
from tiny_model import make_folder
from tiny_server import serve

from codeweft.base.runs import held
from codeweft.cli import main
from codeweft.engine import remote
from codeweft.engine.engine import Engine
from codeweft.serve.config import ServeConfig

COUNT = 4


def records() -> list[dict[str, Any]]:
    return [
        {
            "task_id": f"HumanEval/{number}",
            "prompt": f'def add_{number}(n):\n    """n + {number}"""\n',
            "entry_point": f"add_{number}",
            "canonical_solution": f"    return n + {number}\n",
            "test": f"def check(f):\n    assert f(2) == {2 + number}",
        }
        for number in range(COUNT)
    ]


def write_lines(path: Path, lines: list[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_lines(tmp_path / "data" / "HumanEval.jsonl", records())
    return tmp_path / "data"


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """Right bodies but for the last problem."""
    bodies = [{"task_id": f"HumanEval/{n}", "completion": f"    return n + {min(n, 2)}\n"} for n in range(COUNT)]
    return write_lines(tmp_path / "answers.jsonl", bodies)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.01)
    monkeypatch.chdir(tmp_path)


def words(model: Any, data: Path, *more: str) -> list[str]:
    given = ["evaluate", "--model", str(model), "--tasks", "human-eval", "--eval-data", str(data), "--out", "out"]
    return [*given, "--style", "base", "--sandbox.cells=1", *more]


Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*given: Any) -> tuple[int, str, str]:
        code = main(list(map(str, given)))
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return command


def body_of(asked: dict[str, Any]) -> str:
    number = int(re.findall(r"def add_(\d)", asked["prompt"])[-1])
    return f"    return n + {min(number, 2)}\n"


def right(handler: BaseHTTPRequestHandler, asked: dict[str, Any]) -> None:
    stream(handler, piece(body_of(asked)), piece("", "stop"), "[DONE]")


def results() -> bytes:
    return Path("out/results.json").read_bytes()


def samples() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("out/samples.jsonl").read_text().splitlines()]


# --- what is wrong is told before anything is asked -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (lambda rows: [*rows[:2], '{"task_id": "HumanEval/2", "prom'], r"HumanEval\.jsonl.*line 3"),
        (lambda rows: [rows[0], {k: v for k, v in rows[1].items() if k != "test"}], r"HumanEval\.jsonl.*line 2.*test"),
        (lambda rows: [rows[0], rows[1], rows[0]], r"HumanEval/0"),
        (lambda rows: [rows[0], "[]"], r"HumanEval\.jsonl.*line 2"),
        (lambda rows: [], r"HumanEval has no problem.*its file"),
    ],
)
def test_a_bad_file_of_problems_is_named_and_nobody_is_asked(run: Run, tmp_path: Path, lines: Callable, told: str):
    write_lines(tmp_path / "data" / "HumanEval.jsonl", lines(records()))
    with served(right) as script:
        code, _, err = run(*words(script.url, tmp_path / "data"))
    assert code == 1
    assert re.search(told, err), err
    assert len(err.splitlines()) <= 3
    assert script.bodies == []


def test_a_bad_line_of_answers_is_named(run: Run, data: Path, tmp_path: Path):
    for lines, told in (
        (['{"task_id": "HumanEval/0", "completion": "x"}', "{"], "line 2"),
        (['{"completion": "x"}'], "line 1"),
        (['{"task_id": "HumanEval/0"}'], "line 1"),
    ):
        code, _, err = run(*words(write_lines(tmp_path / "a.jsonl", lines), data))
        assert code == 1
        assert told in err
        assert "a.jsonl" in err


def test_an_unknown_benchmark_gets_the_nearest_name(run: Run, data: Path, answers: Path):
    given = words(answers, data)
    given[given.index("human-eval")] = "human-evil"
    code, _, err = run(*given)
    assert code in (1, 2)
    assert "human-eval" in err.replace("human-evil", "")


def test_a_missing_file_says_which_and_where_from(run: Run, answers: Path, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    code, _, err = run(*words(answers, tmp_path / "empty"))
    assert code == 1
    assert "HumanEval.jsonl" in err
    assert "https://" in err
    assert "--eval-data DIR, or fetch it with --download" in err


def test_a_model_that_is_nowhere_is_one_sentence(run: Run, data: Path):
    for model in ("nowhere", "nowhere.jsonl"):
        code, _, err = run(*words(model, data))
        assert code == 1
        assert "nowhere" in err
        assert len(err.splitlines()) <= 3


# --- servers that fail ------------------------------------------------------------------------------------------------


def hang_up(handler: BaseHTTPRequestHandler, asked: dict[str, Any]) -> None:
    """Half a stream."""
    stream(handler, piece(body_of(asked)[:6]))


def half_json(handler: BaseHTTPRequestHandler, asked: dict[str, Any]) -> None:
    send(handler, b'{"choices": [{"text": "    ret')


@pytest.mark.parametrize(
    "failures",
    [[refusing(429)], [refusing(429, Retry_After="0")], [refusing(503)] * 2, [hang_up], [half_json, hang_up]],
    ids=["429", "retry_after", "503", "half_a_stream", "half_json"],
)
def test_a_server_that_stumbles_gives_the_results_of_one_that_does_not(
    run: Run, data: Path, failures: list[Any], tmp_path: Path
):
    with served(right) as script:
        assert run(*words(script.url, data))[0] == 0
        undisturbed = samples()
    with served(*failures, right) as script:
        given = words(script.url, data)
        given[given.index("out")] = "again"
        assert run(*given)[0] == 0
    again = [json.loads(line) for line in Path("again/samples.jsonl").read_text().splitlines()]
    assert [each["text"] for each in again] == [each["text"] for each in undisturbed]
    assert [each["verdict"] for each in again] == [each["verdict"] for each in undisturbed]
    assert len(script.bodies) == COUNT + len(failures)


def test_a_server_that_is_not_there_is_one_sentence_and_a_rerun_goes_on(run: Run, data: Path, monkeypatch: Any):
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.001)
    with served(right) as script:
        pass
    code, _, err = run(*words(script.url, data, "--url-model", "tiny"))
    assert code == 1
    assert script.url in err
    assert len(err.splitlines()) <= 4


def test_what_was_answered_before_a_failure_is_not_asked_again(run: Run, data: Path):
    """The third question is refused for good; the rerun asks for two."""
    with served(right, right, refusing(400, "broken"), right) as script:
        code, _, err = run(*words(script.url, data, "--concurrency", "1"))
        assert code == 1
        assert "broken" in err
        before = len(script.bodies)
        # the same server, mended: other URLs are other models
        code, out, _ = run(*words(script.url, data, "--concurrency", "1"))
    assert code == 0
    assert before == 3
    assert len(script.bodies) - before <= 2
    assert "75.0 %" in out


def test_a_model_that_never_stops_is_ended_by_its_tokens_and_that_is_kept(run: Run, data: Path):
    def endless(handler: BaseHTTPRequestHandler, asked: dict[str, Any]) -> None:
        assert asked["max_tokens"] == 7
        stream(handler, piece(body_of(asked) + "    # and on"), piece("", "length"), "[DONE]")

    with served(endless) as script:
        assert run(*words(script.url, data, "--evaluate.max_tokens=7"))[0] == 0
    assert {sample["finish"] for sample in samples()} == {"length"}


def test_an_empty_answer_is_wrong_and_not_an_error(run: Run, data: Path):
    with served(lambda handler, asked: stream(handler, piece("", "stop"), "[DONE]")) as script:
        code, out, _ = run(*words(script.url, data))
    assert code == 0
    assert " 0.0 %" in out


# --- folders: resumed, refused, taken as they are ---------------------------------------------------------------------


def test_a_finished_evaluation_is_taken_as_it_is_and_other_settings_are_not_mixed_in(
    run: Run, data: Path, answers: Path
):
    code, out, _ = run(*words(answers, data))
    assert code == 0
    assert "75.0 %" in out
    before, stored = results(), samples()
    code, again, err = run(*words(answers, data))
    assert (code, again) == (0, out)
    assert "nothing changed" in err
    assert (results(), samples()) == (before, stored)
    code, found, _ = run(*words(answers, data, "--replay", stored[0]["id"]))
    assert code == 0
    assert found.count("the same") == 3
    assert stored[0]["text"].strip() in found


def test_a_second_process_is_refused_with_the_owner_s_name(run: Run, data: Path, answers: Path):
    owner = (
        "import sys, time\nfrom pathlib import Path\nfrom codeweft.base.runs import held\n"
        "with held(Path('out')):\n    print('held', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", owner], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        code, _, err = run(*words(answers, data))
        process.kill()
    assert code == 1
    assert str(process.pid) in err
    with held(Path("out")):
        pass


def test_comparing_two_folders_and_what_is_none(run: Run, data: Path, answers: Path, tmp_path: Path):
    assert run(*words(answers, data))[0] == 0
    better = [{"task_id": f"HumanEval/{n}", "completion": f"    return n + {n}\n"} for n in range(COUNT)]
    given = words(write_lines(tmp_path / "better.jsonl", better), data)
    given[given.index("out")] = "better"
    assert run(*given)[0] == 0
    code, out, _ = run("compare", "out", "better")
    assert code == 0
    assert "human-eval" in out
    code, _, err = run("compare", "out", "nowhere")
    assert code == 1
    assert "nowhere" in err


def started(given: list[str], tmp_path: Path) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "codeweft", *given],
        cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def held_back(gate: threading.Event, after: int) -> Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]:
    """Answers, but all after the first few wait for the gate."""
    count = iter(range(1000))

    def reply(handler: BaseHTTPRequestHandler, asked: dict[str, Any]) -> None:
        if next(count) >= after:
            gate.wait(60)
        right(handler, asked)

    return reply


def journal_lines(tmp_path: Path) -> int:
    return sum(len(path.read_text().splitlines()) - 1 for path in (tmp_path / "out").rglob("*.jsonl"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("after", [0, 1, 3])
def test_interrupted_anywhere_it_goes_on_to_the_same_bytes(
    run: Run, data: Path, tmp_path: Path, kind: signal.Signals, after: int
):
    gate = threading.Event()
    with served(held_back(gate, after)) as script:
        given = words(script.url, data, "--concurrency", "1")
        with started(given, tmp_path) as process:
            until = time.monotonic() + 60
            while time.monotonic() < until and (len(script.bodies) <= after or journal_lines(tmp_path) < after):
                time.sleep(0.05)
            process.send_signal(kind)
            _, err = process.communicate(timeout=60)
        assert process.returncode == (130 if kind == signal.SIGINT else -signal.SIGKILL)
        assert "Traceback" not in err
        gate.set()
        asked = len(script.bodies)
        assert run(*given)[0] == 0
        assert len(script.bodies) - asked <= COUNT - after
        resumed = results(), samples()
        assert run(*given, "--restart")[0] == 0
        assert (results(), samples()) == resumed


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("model"), max_position_embeddings=1024)


@pytest.fixture
def own_server(folder: Path) -> Iterator[str]:
    for each in serve(Engine.load(folder, rows=4), ServeConfig(port=0, name="tiny")):
        yield f"{each.url}/v1"


@pytest.mark.slow
def test_our_own_server_gives_the_texts_of_the_engine_in_the_process(
    run: Run, data: Path, folder: Path, own_server: str
):
    assert run(*words(folder, data, "--evaluate.max_tokens=12"))[0] == 0
    local = [sample["text"] for sample in samples()]
    given = words(own_server, data, "--evaluate.max_tokens=12")
    given[given.index("out")] = "served"
    assert run(*given)[0] == 0
    remote_texts = [json.loads(line)["text"] for line in Path("served/samples.jsonl").read_text().splitlines()]
    assert remote_texts == local


@pytest.mark.slow
def test_a_chat_template_used_on_a_base_model_is_said(run: Run, data: Path, folder: Path):
    given = words(folder, data, "--evaluate.max_tokens=4")
    given[given.index("base")] = "chat"
    code, out, err = run(*given)
    assert "chat" in out + err
    assert code in (0, 1)
    if code == 0:
        assert "warning" in json.loads(results())["human-eval"]
