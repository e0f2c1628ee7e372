"""The command line as a person meets it: help is quick, mistakes are told in a line, exit codes mean something."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from codeweft.cli import all_commands, main, model_commands, sandbox_commands
from codeweft.stages import BY_NAME

COMMANDS = [
    *all_commands(),
    *(f"sandbox {name}" for name in sandbox_commands()),
    *(f"model {name}" for name in model_commands()),
]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "codeweft", *words], capture_output=True, text=True, check=False)


def seconds_of(*words: str) -> float:
    """Processor seconds of the quickest of three starts: wall time would be that of whatever else runs here."""
    best = float("inf")
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        finished = run(*words)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert finished.returncode == 0, finished.stderr
        assert finished.stdout
        if best < 0.3:
            break
    return best


@pytest.mark.parametrize("command", COMMANDS)
def test_help_takes_under_three_tenths_of_a_second(command: str):
    assert seconds_of(*command.split(), "--help") < 0.3


def test_alone_it_prints_the_stage_table(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 0
    shown = capsys.readouterr().out
    for stage in BY_NAME:
        assert f"  {stage} " in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_parsing_needs_the_standard_library_alone(command: str):
    code = (
        "import sys; from codeweft.cli import main\n"
        "try:\n    main([*sys.argv[1:], '--help'])\n"
        "except SystemExit:\n    pass\n"
        "ours = {'torch', 'numpy', 'pyarrow', 'rich', 'tokenizers', 'safetensors', 'daft', 'fastapi', 'pydantic'}\n"
        "assert not ours & set(sys.modules), ours & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, *command.split()], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["pretran"], 2, "There is no command pretran. Did you mean pretrain?"),
        (["run", "toyy"], 1, "There is no recipe toyy. Did you mean toy?"),
        (["run", "toy", "--tokens.fim_rat=1"], 1, "[tokens] fim_rat: no such setting. Did you mean fim_rate?"),
        (["run", "toy", "--tokns.fim_rate=1"], 2, "there is no section tokns. Did you mean tokens?"),
        (["run", "toy", "--sources=x"], 2, "--sources=x is not understood. Did you mean --source?"),
        (["run", "toy", "--source", "/no/such/folder"], 1, "there is no /no/such/folder"),
        (["run"], 2, "the following arguments are required: recipe"),
        (["run", "toy", "--from", "report", "--to", "corpus"], 2, "comes after"),
        (["tokens", "--run", "/no/such/run"], 1, "has no recipe.toml. Name a recipe"),
        (["serve", "--model", "/no/such/model"], 1, "/no/such/model"),
        (["complete", "/no/such/file.py:3", "--model", "/no/such/model"], 1, "/no/such"),
        (["why", "/no/such/run", "a.py"], 1, "/no/such/run"),
    ],
)
def test_a_mistake_is_one_clear_sentence(
    words: list[str],
    code: int,
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    assert main(words) == code
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert len(shown.splitlines()) <= 2
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_recipe_typo_touches_no_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "toy", "--pretrain.schedule.stepps=3"]) == 1
    assert not (tmp_path / "runs").exists()


def test_doctor_finds_this_machine_sound():
    finished = run("doctor")
    assert finished.returncode == 0, finished.stdout
    assert "torch" in finished.stdout
