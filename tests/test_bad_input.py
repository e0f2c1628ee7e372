"""What is wrong is told in one sentence that names it, with exit code 1, and what is merely odd is passed over.

Commands run in this process, so that an exception that is not ours fails the test by itself.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import tiny_model
import torch
from dulwich import porcelain
from safetensors.torch import load_file, save_file
from tiny_code import make_recipe, make_source

from codeweft.base.artifacts import read_manifest
from codeweft.base.processes import LAST_WORD_SECONDS
from codeweft.cli import main
from codeweft.corpus import build

STAGES = ("corpus", "problems", "tokenizer", "tokens", "pretrain")
Told = Callable[..., str]


def make_run(folder: Path, source: Path, *stages: str) -> Path:
    recipe = make_recipe(folder.with_suffix(".toml"), source)
    for stage in stages:
        assert main([stage, "--run", str(folder), "--recipe", str(recipe)]) == 0, stage
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has come as far as a model."""
    folder = tmp_path_factory.mktemp("finished")
    return make_run(folder / "run", make_source(folder / "code"), *STAGES)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another run, whose tokenizer learned from other text."""
    folder = tmp_path_factory.mktemp("other")
    return make_run(folder / "run", make_source(folder / "code", seed=2), "corpus", "tokenizer")


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Told:
    """Runs a command that must fail; returns the one or two lines that it ended with."""

    def run(*words: object) -> str:
        capsys.readouterr()
        assert main(list(map(str, words))) == 1
        last = capsys.readouterr().err.split("codeweft: ")[-1]
        assert 0 < last.count("\n") <= 2
        assert last.rstrip().endswith((".", "?"))
        return last

    return run


def recipe_for(folder: Path, source: Path) -> Path:
    return make_recipe(folder / "tiny.toml", source)


def flip(path: Path) -> None:
    """One bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


# --- sources -------------------------------------------------------------------------------------------------------


def test_what_is_odd_in_a_tree_is_passed_over_and_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = make_source(tmp_path / "code") / "a"
    (folder / "loop").symlink_to(folder)
    (folder / "here").symlink_to(folder / "there")
    (folder / "there").symlink_to(folder / "here")
    os.mkfifo(folder / "pipe.py")
    monkeypatch.chdir(folder)  # a socket's path must be short
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.py")
    (folder / "latin.py").write_bytes(b"caf\xe9 = 1\n" * 9)
    (folder / "wide.py").write_bytes("\n".join(f"café_{n} = naïve({n})" for n in range(40)).encode("utf-16"))
    (folder / "half.py").write_bytes(("wide = 1\n" * 9).encode("utf-16")[:-1])
    (folder / "wider.py").write_bytes(("wider = 1\n" * 9).encode("utf-32"))
    (folder / "unmarked.py").write_bytes(("unmarked = 1\n" * 9).encode("utf-16-le"))
    (folder / os.fsdecode(b"odd\xff name.py")).write_text("def odd():\n    return 'a name that is not UTF-8'\n")
    with (folder / "line.js").open("wb") as file:
        file.truncate(200_000_000)  # a hole: a line of that length for whoever reads it
    run = make_run(tmp_path / "run", tmp_path / "code", "corpus")
    counts = json.loads((run / "corpus" / "funnel.json").read_text())
    assert counts["passed_over"] == {"pipe, socket or device": 2, "symbolic link": 3}
    dropped = {row["path"]: (row["reason"], row["detail"]) for row in pq.read_table(run / "corpus/dropped").to_pylist()}
    assert dropped == {
        "latin.py": ("encoding", "3"),
        "half.py": ("encoding", "162"),
        "wider.py": ("binary", "2"),
        "unmarked.py": ("binary", "1"),
        "line.js": ("size", "200000000"),
    }
    kept = {row["path"]: row["text"] for row in pq.read_table(run / "corpus/documents").to_pylist()}
    assert kept["wide.py"].startswith("café_0 = naïve(0)\n")
    assert "odd\N{REPLACEMENT CHARACTER} name.py" in kept


def test_a_file_that_is_too_large_takes_nothing_of_the_limit(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    source = make_source(tmp_path / "code")
    (source / "a" / "large.py").write_bytes(b"x = 1\n" * 400_000)
    run, recipe = tmp_path / "run", recipe_for(tmp_path, source)
    assert main(["corpus", "--run", str(run), "--recipe", str(recipe), "--corpus.code_megabytes=0.5"]) == 0
    assert main(["why", str(run), "large.py"]) == 0
    assert capsys.readouterr().out.strip().endswith("dropped by the rule size = 2400000")


@pytest.mark.slow
def test_a_line_of_200_megabytes_that_is_let_in_is_dropped_by_a_rule_in_bounded_memory(tmp_path: Path):
    source = make_source(tmp_path / "code")
    with (source / "a" / "line.js").open("wb") as file:
        for _ in range(200):
            file.write(b"x = 1; " * 142_857 + b";")
    recipe = recipe_for(tmp_path, source)
    command = [sys.executable, "-m", "codeweft", "corpus", "--run", str(tmp_path / "run"), "--recipe", str(recipe)]
    limits = ["--corpus.file_megabytes=300", "--corpus.code_megabytes=0"]
    assert subprocess.run([*command, *limits], check=False, timeout=120).returncode == 0
    (dropped,) = pq.read_table(tmp_path / "run/corpus/dropped", columns=["path", "reason", "detail"]).to_pylist()
    assert dropped == {"path": "line.js", "reason": "average_line_length", "detail": "2e+08"}
    manifest = read_manifest(tmp_path / "run" / "corpus")
    assert manifest is not None
    assert manifest.peak_rss_bytes < 3e9


def test_a_line_of_rows_that_is_too_long_is_dropped_unread(tmp_path: Path):
    rows = [json.dumps({"text": f"first = {n}\nsecond = {n * n}\n" * 4, "path": f"{n}.py"}) for n in range(6)]
    long = '{"text": "' + "x" * 3_000_000
    (tmp_path / "rows.jsonl").write_text("\n".join([*rows[:3], long, *rows[3:], long]))
    run = make_run(tmp_path / "run", tmp_path / "rows.jsonl", "corpus")
    dropped = {row["path"]: row["detail"] for row in pq.read_table(run / "corpus/dropped").to_pylist()}
    assert {name: detail for name, detail in dropped.items() if name.startswith("line")} == {
        "line 4": str(len(long) + 1),
        "line 8": str(len(long)),
    }
    assert sum(map(len, (dropped, pq.read_table(run / "corpus/documents").to_pylist()))) == 8


def test_half_a_surrogate_pair_in_a_row_is_replaced(tmp_path: Path):
    rows = [{"text": f"value_{n} = {n}\n" * 9, "path": "\ud800.py", "repository": f"r\udc00{n}"} for n in range(3)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run = make_run(tmp_path / "run", tmp_path / "rows.jsonl", "corpus")
    documents = pq.read_table(run / "corpus/documents", columns=["path"])["path"].to_pylist()
    assert documents
    assert set(documents) <= {f"?.py#{number}" for number in (1, 2, 3)}


@pytest.mark.parametrize("call", ["scandir", "lstat"])
def test_a_folder_that_cannot_be_read_is_named(
    call: str, tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
):  # fmt: skip
    source = make_source(tmp_path / "code")
    (source / "b" / "closed").mkdir()
    (source / "b" / "closed" / "x.py").write_text("x = 1\n")
    closed, theirs = source / "b" / "closed", getattr(os, call)

    def refuse(path: Any = ".", *rest: Any, **more: Any) -> Any:
        # the superuser may read everything, so the system's refusal is played here
        if Path(path) == (closed if call == "scandir" else closed / "x.py"):
            raise PermissionError(13, "Permission denied", str(path))
        return theirs(path, *rest, **more)

    with monkeypatch.context() as patched:
        patched.setattr(os, call, refuse)
        words = told("corpus", "--run", tmp_path / "run", "--recipe", recipe_for(tmp_path, source))
    assert words.startswith(f"The folder {closed} cannot be read: Permission denied. Make it readable")
    make_run(tmp_path / "run", source, "corpus")


def test_sources_that_are_no_sources_are_named(tmp_path: Path, told: Told):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    os.mkfifo(tmp_path / "pipe")
    for name, words in (("loop", "Too many levels of symbolic links"), ("pipe", "cannot be read")):
        source = tmp_path / name
        assert words in told("corpus", "--run", tmp_path / "run", "--recipe", recipe_for(tmp_path, source))
    assert f"there is no {tmp_path / 'loop'}" in told("run", "toy", "--source", tmp_path / "loop", "--out", tmp_path)
    odd = os.fsdecode(b"odd\xff")
    assert "cannot be written into a recipe" in told("run", "toy", f"--corpus.code={odd}", "--out", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def git(folder: Path) -> None:
    porcelain.init(str(folder)).close()
    porcelain.add(str(folder), [str(path) for path in sorted(folder.rglob("*.py"))])
    porcelain.commit(str(folder), message=b"first", author=b"A <a@b.c>", committer=b"A <a@b.c>")


def blob_of(folder: Path, name: str) -> Path:
    """The loose object that holds a file, named as git does it: by the SHA-1 of its header and bytes."""
    data = (folder / name).read_bytes()
    digest = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    return folder / ".git" / "objects" / digest[:2] / digest[2:]


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "missing", "commit"])
def test_a_broken_object_of_a_git_repository_is_named_and_a_mended_one_read(damage: str, tmp_path: Path, told: Told):
    source = make_source(tmp_path / "code")
    git(source)
    path = blob_of(source, "b/m1.py")
    if damage == "commit":
        head = (source / ".git" / "refs" / "heads" / "master").read_text().strip()
        path = source / ".git" / "objects" / head[:2] / head[2:]
    whole = path.read_bytes()
    path.chmod(0o644)
    path.unlink()
    if damage in ("cut", "commit"):
        path.write_bytes(whole[:-20])
    elif damage == "flipped":
        path.write_bytes(whole)
        flip(path)
    elif damage == "empty":
        path.write_bytes(b"")
    words = told("corpus", "--run", tmp_path / "run", "--recipe", recipe_for(tmp_path, source))
    assert words.startswith(f"The git repository {source} has no commit, or objects are missing or damaged")
    assert ("at HEAD" if damage == "commit" else "at b/m1.py") in words
    assert "git fsck" in words
    path.write_bytes(whole)
    make_run(tmp_path / "run", source, "corpus")


# --- what earlier stages left --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("damaged", "damage", "reader"),
    [
        ("corpus/documents/part-00000.parquet", cut, "tokenizer"),
        ("corpus/documents/part-00000.parquet", flip, "tokens"),
        ("tokenizer/tokenizer.json", cut, "tokens"),
        ("tokens/index.parquet", flip, "pretrain"),
        ("tokens/train-00000.bin", cut, "pretrain"),
        ("tokens/train-00000.bin", flip, "pretrain"),
        ("tokens/held-out-00000.bin", Path.unlink, "pretrain"),
        ("tokens/mixture.json", cut, "pretrain"),
        ("pretrain/model/model.safetensors", flip, "evaluate"),
        ("pretrain/model/config.json", cut, "evaluate"),
    ],
)
def test_a_damaged_file_of_an_earlier_stage_is_named_before_any_work(
    damaged: str, damage: Callable[[Path], object], reader: str, copy: Path, told: Told
):
    damage(copy / damaged)
    words = told(reader, "--run", copy, "--restart")
    assert words.startswith(f"{copy / damaged} is not what the stage {damaged.split('/')[0]} wrote there")
    assert f"codeweft {damaged.split('/')[0]} --run {copy} --verify" in words


def test_the_advice_mends_the_run(copy: Path, told: Told):
    flip(copy / "tokens" / "train-00000.bin")
    told("pretrain", "--run", copy, "--pretrain.schedule.steps=1")
    assert main(["tokens", "--run", str(copy), "--verify"]) == 0
    assert main(["pretrain", "--run", str(copy), "--pretrain.schedule.steps=1"]) == 0


def test_a_damaged_part_of_an_unfinished_corpus_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    source = make_source(tmp_path / "code")
    whole = read_manifest(make_run(tmp_path / "whole", source, "corpus") / "corpus")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(build, "_split", stop)
        assert main(["corpus", "--run", str(tmp_path / "run"), "--recipe", str(recipe_for(tmp_path, source))]) == 130
    cut(tmp_path / "run" / "corpus" / "staging" / "part-00000.parquet")
    made = read_manifest(make_run(tmp_path / "run", source, "corpus") / "corpus")
    assert "is damaged" in capsys.readouterr().err
    assert whole is not None
    assert made is not None
    assert whole.outputs == made.outputs


def test_a_damaged_checkpoint_is_named(copy: Path, told: Told):
    (copy / "pretrain" / "manifest.json").unlink()  # what a stage that was cut off looks like
    flip(copy / "pretrain" / "checkpoints" / "step-00000002" / "state.safetensors")
    words = told("pretrain", "--run", copy)
    assert "step-00000002 is damaged" in words
    shutil.rmtree(copy / "pretrain" / "checkpoints" / "step-00000002")  # as it advises
    assert main(["pretrain", "--run", str(copy)]) == 0


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_number_that_is_none_in_a_tensor_is_named(value: float, copy: Path, told: Told):
    path = copy / "pretrain" / "model" / "model.safetensors"
    tensors = load_file(path)
    name = "model.layers.1.mlp.experts.3.up_proj.weight"
    tensors[name][0, 0] = value
    save_file(tensors, path)
    place = copy / "code.py"
    place.write_text("def f():\n")
    words = told("complete", f"{place}:1", "--model", path.parent)
    assert f"{path}: {name} holds values that are not finite" in words


# --- what does not fit together ------------------------------------------------------------------------------------


@pytest.mark.parametrize("files", [("tokenizer.json",), ("tokenizer.json", "tokenizer_config.json", "manifest.json")])
def test_the_tokenizer_of_another_run_is_refused_before_training(
    files: tuple[str, ...], copy: Path, other: Path, told: Told
):
    for name in files:
        shutil.copy(other / "tokenizer" / name, copy / "tokenizer" / name)
    words = told("pretrain", "--run", copy, "--restart")
    if "manifest.json" in files:
        assert words.startswith(f"tokens in {copy} was made from another tokenizer than is there now")
    else:
        assert words.startswith(f"{copy}/tokenizer/tokenizer.json is not what the stage tokenizer wrote there")


def test_tokens_of_another_tokenizer_are_refused_before_training(copy: Path, tmp_path: Path, told: Told):
    again = Path(shutil.copytree(copy, tmp_path / "again"))
    assert main(["tokenizer", "--run", str(again), "--tokenizer.vocabulary=350"]) == 0
    shutil.rmtree(copy / "tokenizer")
    shutil.copytree(again / "tokenizer", copy / "tokenizer")
    words = told("pretrain", "--run", copy, "--restart")
    assert words.startswith(f"tokens in {copy} was made from another tokenizer than is there now. Run `codeweft tokens")


def test_a_model_to_go_on_from_with_another_tokenizer_is_refused(copy: Path, tmp_path: Path, told: Told):
    model = tiny_model.make_folder(tmp_path / "model")
    words = told("pretrain", "--run", copy, f"--pretrain.init={model}")
    assert words.startswith(f"{model} was trained with another tokenizer than {copy / 'tokenizer'}")


@pytest.mark.parametrize(("wanted", "started"), [(8, None), (8, "4"), (4, "8")])
def test_a_recipe_for_another_number_of_processes_is_refused_before_anything_is_written(
    wanted: int, started: str | None, tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
):
    if started is not None:
        monkeypatch.setenv("WORLD_SIZE", started)
    said = told("pretrain", "--recipe", "toy", "--run", tmp_path / "run", f"--run.processes={wanted}")
    assert f"run.processes = {wanted}" in said
    assert f"the number started (WORLD_SIZE) is {started or 1}" in said
    assert f"torchrun --nproc-per-node {wanted} -m codeweft -- pretrain" in said
    if started is None:
        assert f"run.processes = {wanted}" in told("run", "toy", "--out", tmp_path / "run", f"--run.processes={wanted}")
    assert not (tmp_path / "run").exists()


def test_what_works_alone_is_refused_to_several_processes(tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert "codeweft run works alone, but 8 processes were started" in told("run", "toy", "--out", tmp_path / "run")
    for stage in ("corpus", "evaluate", "report"):
        said = told(stage, "--recipe", "toy", "--run", tmp_path / "run", "--run.processes=8")
        assert f"The stage {stage} works alone, but 8 processes were started" in said
    monkeypatch.setenv("WORLD_SIZE", "many")
    assert "WORLD_SIZE is many" in told("pretrain", "--recipe", "toy", "--run", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_recipe_for_several_processes_makes_its_corpus_with_one(copy: Path):
    assert main(["corpus", "--run", str(copy), "--run.processes=8"]) == 0


def test_an_error_of_another_process_is_told_after_the_first_had_time_to_tell_it(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
):
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1")):
        monkeypatch.setenv(name, value)
    waits: list[float] = []
    monkeypatch.setattr("codeweft.base.processes.time.sleep", waits.append)
    assert "has no recipe.toml" in told("pretrain", "--run", tmp_path)
    monkeypatch.setenv("RANK", "0")
    assert "has no recipe.toml" in told("pretrain", "--run", tmp_path)
    assert waits == [LAST_WORD_SECONDS]


def test_one_process_of_torchrun_is_as_good_as_none(copy: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert main(["corpus", "--run", str(copy)]) == 0


def test_a_sequence_beyond_the_stream_or_the_window_is_refused(copy: Path, told: Told):
    tokens = read_manifest(copy / "tokens")
    assert tokens is not None
    words = told("pretrain", "--run", copy, "--pretrain.schedule.sequence=2000")
    assert words.startswith("The held-out tokens (")
    assert "raise tokens.held_out_tokens" in words
    words = told("pretrain", "--run", copy, "--pretrain.schedule.sequence=4096")
    assert "schedule.sequence = 4096 is longer than model.max_position_embeddings = 2048. Shorten the one" in words
