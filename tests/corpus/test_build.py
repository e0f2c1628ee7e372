"""The stage corpus as a whole, on a small tree of repositories made for the purpose."""

import json
import tracemalloc
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from codeweft.base.errors import InputError, UserError
from codeweft.base.records import Document, Dropped, schema
from codeweft.base.runs import Run
from codeweft.corpus import build
from codeweft.corpus.config import CorpusConfig
from codeweft.corpus.entries import Entry, Listing
from codeweft.corpus.why import explain, sentence
from codeweft.source.ngrams import INDEX, hashed, open_index

REPOSITORIES = 12


def module(chance: np.random.Generator, lines: int = 40) -> str:
    words = [f"name{number}" for number in range(300)]
    return "".join("{} = {}({}, {})\n".format(*chance.choice(words, 4)) for _ in range(lines))


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    chance = np.random.default_rng(1)
    root = tmp_path_factory.mktemp("tree") / "projects"
    for number in range(REPOSITORIES):
        folder = root / f"r{number:02d}"
        folder.mkdir(parents=True)
        for at in range(3):
            (folder / f"m{at}.py").write_text(module(chance))
    (root / "r00" / "long.js").write_text("x" * 5000)
    (root / "r00" / "data.json").write_text('{"letters": "few"}')
    (root / "r01" / "icon.bin").write_bytes(b"\0\1\2")
    (root / "r01" / "latin.py").write_bytes(b"caf\xe9 = 1\n")
    (root / "r02" / "exact.py").write_text((root / "r03" / "m0.py").read_text())
    near = (root / "r04" / "m0.py").read_text()
    (root / "r05" / "near.py").write_text(near + "extra = 1\n")
    (root / "r06" / "notes.unheard").write_text("what is this")
    return root


def config(tree: Path) -> CorpusConfig:
    return CorpusConfig(code=(str(tree),), math=(), text=(), part_megabytes=0.02)


def corpus(folder: Path, settings: CorpusConfig, workers: int = 1, resumed: bool = False) -> Run:
    stage = Run("corpus", folder / "corpus", 1, {}, resumed, workers)
    stage.folder.mkdir(parents=True, exist_ok=True)
    build.run(settings, stage)
    return stage


@pytest.fixture(scope="module")
def finished(tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    corpus(folder, config(tree))
    return folder


def rows(folder: Path, name: str) -> list[dict]:
    return [row for path in sorted((folder / "corpus" / name).iterdir()) for row in pq.read_table(path).to_pylist()]


def test_each_planted_file_is_dropped_for_its_reason(finished: Path):
    reasons = {row["repository"][-3:] + "/" + row["path"]: row["reason"] for row in rows(finished, "dropped")}
    copies = [name for name, reason in reasons.items() if reason == "exact_duplicate"]
    assert copies in (["r02/exact.py"], ["r03/m0.py"])  # whichever has the larger id
    assert reasons == {
        copies[0]: "exact_duplicate",
        "r04/m0.py": "near_duplicate",  # near.py is longer by a line and stays
        "r00/long.js": "average_line_length",
        "r00/data.json": "data_length",
        "r01/icon.bin": "binary",
        "r01/latin.py": "encoding",
        "r06/notes.unheard": "language",
    }


def test_the_funnel_adds_up_to_the_files_on_disk(finished: Path, tree: Path):
    counts = json.loads((finished / "corpus" / "funnel.json").read_text())
    files = [path for path in tree.rglob("*") if path.is_file()]
    assert counts["input"] == {"documents": len(files), "bytes": sum(path.stat().st_size for path in files)}
    for key in ("documents", "bytes"):
        assert sum(step[f"{key}_dropped"] for step in counts["steps"]) + counts["kept"][key] == counts["input"][key]
        assert sum(row[f"{key}_in"] for row in counts["languages"]) == counts["input"][key]
    assert sum(step["share_dropped"] for step in counts["steps"]) + counts["kept"]["share"] == pytest.approx(1)
    assert counts["kept"]["documents"] == len(rows(finished, "documents"))


def test_files_have_the_schemas_of_the_contract_and_ids_are_unique(finished: Path):
    for name, record in (("documents", Document), ("dropped", Dropped)):
        for path in (finished / "corpus" / name).iterdir():
            assert pq.read_schema(path) == schema(record)
    ids = [row["id"] for name in ("documents", "dropped") for row in rows(finished, name)]
    assert len(ids) == len(set(ids))
    assert all(row["bytes"] == len(row["text"].encode()) for row in rows(finished, "documents"))


def test_the_split_is_by_repository(finished: Path):
    splits = {(row["repository"], row["split"]) for row in rows(finished, "documents")}
    held = {repository for repository, split in splits if split == "held-out"}
    assert len(splits) == REPOSITORIES
    assert 1 <= len(held) < REPOSITORIES / 2


def test_reading_begins_long_before_the_list_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A million files that are not there, listed one by one; reading is broken off at the third part."""
    listed = 0

    def entries() -> Iterator[Entry]:
        nonlocal listed
        for number in range(1_000_000):
            listed += 1
            yield Entry("code", "s", "r", f"{number}.py", 60, "file", str(tmp_path / f"{number}.py"))

    seen: list[int] = []

    def read(part: list[Entry], path: Path, _: CorpusConfig) -> int:
        seen.append(listed)
        if len(seen) == 3:
            raise KeyboardInterrupt
        return len(part)

    monkeypatch.setattr(build, "list_sources", lambda *_: Listing(entries()))
    monkeypatch.setattr(build, "read_part", read)
    with pytest.raises(KeyboardInterrupt):
        corpus(tmp_path, replace(config(tmp_path), code_megabytes=0.0, part_megabytes=4.0))
    assert seen == [build.PART_FILES + 1, 2 * build.PART_FILES + 1, 3 * build.PART_FILES + 1]


@pytest.mark.parametrize("limit", [0.0, 0.5])
def test_the_memory_that_listing_takes_does_not_grow_with_the_number_of_files(tmp_path: Path, limit: float):
    stage = Run("corpus", tmp_path, 1, {})
    settings = replace(config(tmp_path), code_megabytes=limit, part_megabytes=0.1)

    def peak(files: int) -> int:
        entries = (
            Entry("code", "s", f"r{number % 50}", f"{number}.py", 1000, "file", f"/where/{number}.py")
            for number in range(files)
        )
        tracemalloc.start()
        parts = build._into_parts(build._under_limits(entries, settings, stage, {}), settings)
        count = sum(map(len, parts))
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == (min(files, 500) if limit else files)
        return highest

    few, many = peak(800), peak(4_800)
    assert many < few + 400_000  # held as a whole, 4,000 more entries would take some 2 MB


def test_many_tiny_files_are_read_in_small_parts_and_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = tmp_path / "source"
    for number in range(1200):
        path = source / f"r{number % 7}" / f"{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"the_value_called_{number} = {number}\n" if number % 3 else "")
    monkeypatch.setattr(build, "PART_FILES", 150)
    settings = replace(config(source), part_megabytes=4.0, near_duplicates=False)
    corpus(tmp_path / "run", settings)
    assert len(list((tmp_path / "run" / "corpus" / "documents").iterdir())) == 8
    found = {row["path"] for row in rows(tmp_path / "run", "documents")}
    assert found == {f"{number}.py" for number in range(1200) if number % 3}
    assert [row["reason"] for row in rows(tmp_path / "run", "dropped")] == ["empty"] * 400


def test_a_reader_that_the_system_kills_is_told(tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def killed(*_: object) -> None:
        raise BrokenProcessPool

    monkeypatch.setattr("concurrent.futures.ProcessPoolExecutor.submit", killed)
    with pytest.raises(UserError, match="most likely for want of memory") as caught:
        corpus(tmp_path, config(tree), workers=2)
    assert "--run.workers=1" in caught.value.next_step


def everything(folder: Path) -> dict[str, bytes]:
    found = (path for path in sorted((folder / "corpus").rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def test_two_workers_write_the_same_bytes_as_one(
    finished: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(build, "PARTS_FOR_PROCESSES", 1)
    corpus(tmp_path, config(tree), workers=2)
    assert everything(tmp_path) == everything(finished)


def test_the_index_holds_the_ngrams_of_what_is_trained_on_and_of_nothing_held_out(finished: Path):
    index = open_index(finished / "corpus" / INDEX)
    grams: dict[str, set[int]] = {"train": set(), "held-out": set()}
    for row in rows(finished, "documents"):
        grams[row["split"]] |= set(hashed([row["text"]])[0].tolist())
    assert set(index.hashes.tolist()) == grams["train"]
    assert len(grams["held-out"] - grams["train"]) > 100


def test_the_index_is_an_output_of_the_stage_unless_it_is_not_wanted(tree: Path, tmp_path: Path):
    settings = config(tree)
    assert INDEX in corpus(tmp_path / "with", settings).outputs
    without = corpus(tmp_path / "without", replace(settings, ngrams=False))
    assert INDEX not in without.outputs
    assert not (without.folder / INDEX).exists()


def test_a_stage_that_was_cut_off_goes_on_from_its_finished_parts(
    finished: Path, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(build, "_split", cut)
        with pytest.raises(KeyboardInterrupt):
            corpus(tmp_path, config(tree))
    left = sorted((tmp_path / "corpus" / "staging").iterdir())
    assert len(left) > 2
    left[1].unlink()
    times = {path: path.stat().st_mtime_ns for path in left if path != left[1]}
    with monkeypatch.context() as patched:
        patched.setattr(build, "_split", cut)
        with pytest.raises(KeyboardInterrupt):
            corpus(tmp_path, config(tree), resumed=True)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    corpus(tmp_path, config(tree), resumed=True)
    assert everything(tmp_path) == everything(finished)


def test_nothing_left_names_the_rule_that_dropped_most(tmp_path: Path):
    source = tmp_path / "source"
    source.mkdir()
    for number in range(3):
        (source / f"{number}.js").write_text("x" * 2000)
    (source / "a.json").write_text("[]")
    with pytest.raises(InputError, match="of 4 files the rule `average_line_length` dropped 3"):
        corpus(tmp_path / "run", config(source))


def test_one_repository_alone_is_split_by_file_and_says_so(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    corpus(tmp_path, config(tree / "r07"))
    documents = rows(tmp_path, "documents")
    assert sorted(row["split"] for row in documents) == ["held-out", "train", "train"]
    assert "too few repositories" in capsys.readouterr().err
    assert json.loads((tmp_path / "corpus" / "funnel.json").read_text())["held_out_by_document"] == ["code"]


def test_a_limit_is_told_and_recorded(tree: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    corpus(tmp_path, replace(config(tree), code_megabytes=0.02))
    assert "code_megabytes = 0.02 lets in" in capsys.readouterr().err
    limits = json.loads((tmp_path / "corpus" / "funnel.json").read_text())["limits"]["code"]
    assert 0 < limits["read"]["bytes"] <= 20_000 < limits["offered"]["bytes"]


def test_why_tells_the_fate_of_a_file_by_id_path_and_end_of_path(finished: Path, tree: Path):
    (kept,) = explain(finished, "r08/m1.py")
    assert kept["kept"]
    assert kept["split"] in ("train", "held-out")
    assert explain(finished, kept["id"]) == [kept]
    assert explain(finished, kept["id"][:10]) == [kept]
    assert explain(finished, str(tree / "r08" / "m1.py")) == [kept]
    assert len(explain(finished, "m1.py")) == REPOSITORIES
    (dropped,) = explain(finished, "long.js")
    assert (dropped["reason"], dropped["detail"]) == ("average_line_length", "5000")
    assert sentence(dropped).endswith("dropped by the rule average_line_length = 5000")


def test_why_names_the_document_that_was_kept_instead(finished: Path):
    fates = [*explain(finished, "r02/exact.py"), *explain(finished, "r03/m0.py")]
    dropped = next(fate for fate in fates if not fate["kept"])
    kept = next(fate for fate in fates if fate["kept"])
    assert dropped["kept_path"] == f"{kept['repository']}/{kept['path']}"
    assert dropped["kept_path"] in sentence(dropped)


def test_why_offers_near_names_for_an_unknown_one(finished: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"Did you mean .*projects/r00/long\.js"):
        explain(finished, "lonk.js")
    with pytest.raises(InputError, match="codeweft corpus --run"):
        explain(tmp_path, "a.py")
