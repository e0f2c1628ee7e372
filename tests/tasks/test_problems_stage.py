"""The stage problems: what it writes, what it leaves out and why, and files that come back as they were."""

import io
import json
import math
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeweft.base.errors import InputError
from codeweft.base.records import Conversation, Problem
from codeweft.base.records import Test as Check
from codeweft.base.runs import Run
from codeweft.sandbox.client import judge_all
from codeweft.sandbox.config import SandboxConfig
from codeweft.sandbox.plain import equal
from codeweft.source import ngrams
from codeweft.tasks import problems as stage
from codeweft.tasks.katas.task import grade
from codeweft.tasks.mathematics import grade as grade_mathematics
from codeweft.tasks.problem_files import (
    read_conversations,
    read_problems,
    write_conversations,
    write_problems,
)
from codeweft.tasks.problems_settings import ProblemsConfig

FEW = {"katas": 60, "katas_held_out": 12, "katas_unseen": 8}
TEN = "the quick brown fox jumps over one very lazy dog"
NINE = "the quick brown fox jumps over one very lazy cat"


def made(folder: Path, corpus: tuple[str, ...] = (), **changes: Any) -> Run:
    """The finished stage in a folder, after a corpus of some texts."""
    (folder / "corpus").mkdir(parents=True)
    hashes = sorted(set(ngrams.hashed(list(corpus))[0].tolist()))
    with (folder / "corpus" / ngrams.INDEX).open("wb") as file:
        np.save(file, np.array(hashes, dtype="<u8"))
    (folder / "problems").mkdir()
    work = Run("problems", folder / "problems", 1, {"corpus": folder / "corpus"})
    work.counts["headline"] = stage.run(ProblemsConfig(**(FEW | changes)), work)
    return work


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def written(path: Path, *records: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(each) + "\n" for each in records))
    return str(path)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return made(tmp_path_factory.mktemp("plain"))


# --- what is written --------------------------------------------------------------------------------------------------


def test_the_agreed_files_are_written_and_counted(plain: Run):
    assert set(plain.outputs) == {
        "train.jsonl", "visible.jsonl", "held-out.jsonl", "conversations/train.jsonl", "conversations/held-out.jsonl",
        "dropped.jsonl",
    }  # fmt: skip
    train, held_out = (list(read_problems(plain.folder / f"{name}.jsonl")) for name in ("train", "held-out"))
    talk = list(read_conversations(plain.folder / "conversations" / "train.jsonl"))
    assert plain.counts["headline"] == {"problems": 60, "conversations": len(talk)}
    assert 20 <= len(talk) <= 40, "half of the katas are answered"
    assert {each.split for each in train} == {"train"}
    assert {each.split for each in held_out} == {"held-out"}
    assert sum(each.facts["unseen_family"] for each in held_out) == 8
    assert not {each.facts["behaviour"] for each in train} & {each.facts["behaviour"] for each in held_out}
    assert len({each.id for each in train + held_out}) == 80


def test_visible_problems_are_the_same_without_what_judges_an_answer(plain: Run):
    train, visible = (list(read_problems(plain.folder / f"{name}.jsonl")) for name in ("train", "visible"))
    for whole, seen in zip(train, visible, strict=True):
        assert (seen.id, seen.prompt, seen.tests_visible) == (whole.id, whole.prompt, whole.tests_visible)
        assert (seen.tests_hidden, seen.reference) == ((), "")
        assert whole.tests_hidden
        assert whole.reference


def test_answers_in_conversations_pass_the_hidden_tests(plain: Run):
    problems = {
        each.id: each for name in ("train", "held-out") for each in read_problems(plain.folder / f"{name}.jsonl")
    }
    answers = []
    for name in ("train", "held-out"):
        for talk in list(read_conversations(plain.folder / "conversations" / f"{name}.jsonl"))[:6]:
            asked, answered = talk.messages
            assert asked["content"] == problems[talk.id].prompt
            answers.append(grade(problems[talk.id], "chat", answered["content"]).submission)
    assert {each.status for each in judge_all(SandboxConfig(), [each for each in answers if each])} == {"ok"}


def test_the_same_seed_gives_the_same_bytes(plain: Run, tmp_path: Path):
    assert made(tmp_path).outputs == plain.outputs


# --- what is left out -------------------------------------------------------------------------------------------------


def own(name: str, prompt: str, split: str = "train", **more: Any) -> dict[str, Any]:
    return {"id": name, "task": "own", "prompt": prompt, "reference": "", "split": split} | more


def exchange(question: str, answer: str = "Yes.") -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def test_problems_that_share_ten_words_with_a_held_out_one_are_dropped_and_those_that_share_nine_are_not(
    tmp_path: Path,
):
    file = written(
        tmp_path / "own.jsonl",
        own("held", f"Say: {TEN}!", "held-out"),
        own("alike", f"Now {TEN.upper()}, please."),
        own("nine", f"Now {NINE}, please."),
        own("solution", "Something else.", reference=f"# {TEN}"),
    )
    work = made(tmp_path / "run", problems=(file,))
    kept = {each["id"] for each in lines(work.folder / "train.jsonl") if each["task"] == "own"}
    assert kept == {"nine"}
    dropped = {each["id"]: each for each in lines(work.folder / "dropped.jsonl")}
    assert set(dropped) == {"alike", "solution"}
    assert {each["known_from"] for each in dropped.values()} == {"held"}
    assert work.counts["dropped"] == {"own": 2}


def test_a_short_held_out_question_is_looked_for_as_a_whole(tmp_path: Path):
    file = written(
        tmp_path / "own.jsonl",
        own("held", "Reverse a linked list.", "held-out"),
        own("alike", "reverse a LINKED list"),
        own("longer", "Reverse a linked list in place."),
    )
    work = made(tmp_path / "run", problems=(file,))
    assert [each["id"] for each in lines(work.folder / "dropped.jsonl")] == ["alike"]


def test_benchmark_files_and_folders_shut_out_katas_problems_and_conversations(tmp_path: Path, plain: Run):
    kata = next(each for each in read_problems(plain.folder / "train.jsonl") if each.reference.count(" ") > 14)
    answered = {each["id"] for each in lines(plain.folder / "conversations" / "train.jsonl")}
    (tmp_path / "bench").mkdir()
    written(tmp_path / "bench" / "a.jsonl", {"task_id": 7, "nested": {"solutions": ["x", kata.reference]}})
    written(tmp_path / "bench" / "b.jsonl", {"question": TEN})
    told = {"role": "system", "content": TEN}
    chats = written(tmp_path / "chats.jsonl", *({"messages": [told, *exchange(text)]} for text in (TEN, NINE)))
    work = made(tmp_path / "run", evaluation=(str(tmp_path / "bench"),), conversations=(chats,), held_out_fraction=0)
    dropped = {each["id"]: each["known_from"] for each in lines(work.folder / "dropped.jsonl")}
    wanted = {kata.id: f"{tmp_path}/bench/a.jsonl, line 1", "chats-0": f"{tmp_path}/bench/b.jsonl, line 1"}
    assert dropped.items() >= wanted.items()
    kept = {each["id"] for each in lines(work.folder / "conversations" / "train.jsonl")}
    assert "chats-1" in kept
    assert kata.id not in kept
    assert kept - {"chats-1"} == answered - set(dropped)


def test_katas_of_one_family_do_not_shut_each_other_out_though_they_share_most_words(plain: Run):
    train, held_out = (list(read_problems(plain.folder / f"{name}.jsonl")) for name in ("train", "held-out"))
    known = ngrams.hashed([each.facts["statement"] for each in held_out])[0]
    shared = sum(bool(set(ngrams.hashed([each.facts["statement"]])[0]) & set(known)) for each in train)
    assert shared > 5, "else this test says nothing"
    assert lines(plain.folder / "dropped.jsonl") == []


def test_a_kata_that_does_what_a_held_out_one_does_is_dropped_whatever_it_says(tmp_path: Path, plain: Run):
    held = next(iter(read_problems(plain.folder / "held-out.jsonl")))
    facts = {**held.facts, "statement": "Told otherwise."}
    disguised = own("copy", "?", task="katas", entry_point="f", facts=facts, reference="def f(): pass")
    work = made(tmp_path / "run", problems=(written(tmp_path / "own.jsonl", disguised),))
    dropped = lines(work.folder / "dropped.jsonl")
    assert {(each["id"], each["known_from"]) for each in dropped} == {("copy", held.id)}


def test_held_out_problems_that_the_corpus_holds_are_marked(tmp_path: Path):
    file = written(tmp_path / "own.jsonl", own("seen", f"Say {TEN}.", "held-out"), own("new", NINE, "held-out"))
    plain = made(tmp_path / "plain")
    katas = [each for each in read_problems(plain.folder / "held-out.jsonl") if each.reference.count(" ") > 14]
    corpus = (f"Once, {TEN}, twice.", katas[0].reference, katas[1].facts["statement"] * 2)
    work = made(tmp_path / "run", corpus=corpus, problems=(file,))
    marked = {each["id"] for each in lines(work.folder / "held-out.jsonl") if each.get("facts", {}).get("in_corpus")}
    assert marked == {"seen", katas[0].id}
    assert work.counts["held_out_in_corpus"] == 2


# --- word problems and conversations ----------------------------------------------------------------------------------


def test_word_problems_become_problems_and_worked_answers_that_the_benchmark_grades_as_right(tmp_path: Path):
    records = [
        {
            "question": f"Ann has {n} eggs and buys 7 more. How many?",
            "answer": f"{n}+7=<<{n}+7={n + 7}>>{n + 7}\n#### {n + 7}",
        }
        for n in range(200)
    ]
    work = made(tmp_path / "run", gsm8k=(written(tmp_path / "sums.jsonl", *records),), held_out_fraction=0.2)
    train, held_out = ([each for each in read_problems(work.folder / f"{name}.jsonl") if each.task == "gsm8k"]
                       for name in ("train", "held-out"))  # fmt: skip
    assert 20 < len(held_out) < 60
    assert len(train) + len(held_out) == 200
    talk = {each.id: each for each in read_conversations(work.folder / "conversations" / "train.jsonl")}
    for each in train:
        question, answer = talk[each.id].messages
        assert question["content"].startswith(each.prompt)
        assert "<<" not in answer["content"]
        assert grade_mathematics(each, "chat", answer["content"]).score == 1
        assert grade_mathematics(each, "chat", answer["content"].replace(each.reference, "1000000")).score == 0
    seen = [each for each in read_problems(work.folder / "visible.jsonl") if each.task == "gsm8k"]
    assert all("solution" not in each.facts and not each.reference for each in seen)


@pytest.mark.slow
def test_gsm8k_training_problems_known_from_its_test_file_are_found(shared_data: Path, tmp_path: Path):
    """Against a plain set of word tuples over both files."""
    source, bench = shared_data / "eval" / "gsm8k" / "train.jsonl", shared_data / "eval" / "gsm8k" / "test.jsonl"
    work = made(tmp_path, gsm8k=(str(source),), evaluation=(str(bench),), held_out_fraction=0, katas=1)

    def grams(text: str) -> set[tuple[str, ...]]:
        words = ngrams.words(text)
        return {tuple(words[at : at + 10]) for at in range(len(words) - 9)}

    known = set().union(*(grams(value) for record in lines(bench) for value in record.values()))
    records = lines(source)
    wanted = set()
    for number, record in enumerate(records):
        worked = re.sub(r"<<.*?>>", "", record["answer"].rpartition("####")[0]).strip()
        if known & (grams(record["question"]) | grams(worked)):
            wanted.add(f"train-{number}")
    dropped = {each["id"] for each in lines(work.folder / "dropped.jsonl") if each["what"] == "gsm8k"}
    assert dropped == wanted
    assert len(records) == 7473
    assert work.counts["train"]["gsm8k"] == 7473 - len(wanted)


def test_questions_that_are_asked_twice_stay_on_one_side(tmp_path: Path):
    talk = [
        {"id": f"{n}-{again}", "messages": exchange(f"Question {n}?", str(again))}
        for n in range(60)
        for again in range(2)
    ]
    work = made(tmp_path / "run", conversations=(written(tmp_path / "talk.jsonl", *talk),), held_out_fraction=0.3)
    sides = {}
    for name in ("train", "held-out"):
        for each in read_conversations(work.folder / "conversations" / f"{name}.jsonl"):
            if each.source == "talk":
                sides.setdefault(each.id.split("-")[0], set()).add(name)
    assert len(sides) == 60
    assert all(len(side) == 1 for side in sides.values())
    assert {"train"} in sides.values()
    assert {"held-out"} in sides.values()


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("section", "line", "said"),
    [
        ("problems", '{"id": "a", "task": "t", "promt": "x"}', "no field promt"),
        ("problems", '{"id": "a", "task": "t", "prompt": 3}', "prompt is no text"),
        ("problems", '{"id": "a"}', "field task is missing"),
        ("problems", '{"id": "a", "task": "t", "split": "test"}', "neither train nor held-out"),
        ("problems", '{"id": "a", "task": "t", "tests_hidden": [{"kind": "unit"}]}', r"tests_hidden\[0\] is no test"),
        ("problems", '{"id": "a", "task": "t", "tests_hidden": [{"kind": "stdio"}]}', "expects is no text"),
        ("problems", '{"id": "a", "task": "t", "tests_hidden": [{"kind": "call", "args": [["?"]], "typed": true}]}',
         "not its kind"),
        ("problems", '{"id": "a", "task": "t"', "no JSON"),
        ("gsm8k", '{"question": "?", "answer": "4"}', "does not end with ####"),
        ("gsm8k", '{"question": "?"}', "field answer is missing"),
        ("conversations", '{"messages": []}', "no list of messages"),
        ("conversations", '{"messages": [{"role": "robot", "content": "x"}]}', "'robot' is no role"),
        ("conversations", '{"messages": [{"role": "user", "content": "x"}]}', "not the assistant's"),
    ],
)  # fmt: skip
def test_malformed_lines_are_named_by_file_and_line(tmp_path: Path, section: str, line: str, said: str):
    first = {
        "problems": '{"id": "0", "task": "t"}', "gsm8k": '{"question": "?", "answer": "#### 4"}',
        "conversations": '{"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]}',
    }[section]  # fmt: skip
    file = tmp_path / "mine.jsonl"
    file.write_text(f"{first}\n\n{line}\n")
    with pytest.raises(InputError, match=said) as caught:
        made(tmp_path / "run", **{section: (str(file),), "katas": 1})
    assert f"{file}, line 3" in caught.value.message


def test_doubled_names_and_missing_files_are_refused(tmp_path: Path):
    file = written(tmp_path / "own.jsonl", own("a", "x"), own("a", "y"))
    with pytest.raises(InputError, match="Two problems are named a"):
        made(tmp_path / "run", problems=(file,))
    with pytest.raises(InputError, match="is no file"):
        stage.inputs(ProblemsConfig(gsm8k=(str(tmp_path / "none.jsonl"),)))
    with pytest.raises(InputError, match=r"holds no \.jsonl"):
        stage.inputs(ProblemsConfig(evaluation=(str(tmp_path / "run"),)))


def test_inputs_change_with_the_content_of_the_files(tmp_path: Path):
    config = ProblemsConfig(problems=(written(tmp_path / "own.jsonl", own("a", "x")),))
    before = stage.inputs(config)
    written(tmp_path / "own.jsonl", own("a", "y"))
    assert before.keys() == stage.inputs(config).keys()
    assert before != stage.inputs(config)


# --- files ------------------------------------------------------------------------------------------------------------

LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.binary()
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.sets(st.integers() | st.text())
        | st.dictionaries(st.text() | st.integers(), inner)
    ),
    max_leaves=8,
)


def again(problems: list[Problem], path: Path) -> Iterator[Problem]:
    with path.open("wb") as file:
        write_problems(file, problems)
    return read_problems(path)


@settings(max_examples=25, deadline=None)
@given(st.lists(VALUES, max_size=3), VALUES, st.text(st.characters()))
def test_problems_come_back_exactly(
    tmp_path_factory: pytest.TempPathFactory, args: list[Any], expected: Any, text: str
):
    tests = (Check("call", args=tuple(args), expected=expected), Check("stdio", stdin=text, expected=text))
    asked = Problem(
        *("a", "t", "f", "python", "1", "train", text, "f"),
        tests_visible=tests[:1],
        tests_hidden=(*tests, Check("assert", code="x" + text)),
        reference=text,
        limits={"cpu_seconds": 2.5},
        facts={"list": [1, {"b": None}]},
    )
    [back] = again([asked], tmp_path_factory.mktemp("back") / "p.jsonl")
    [first] = back.tests_visible
    assert equal(first.args, asked.tests_visible[0].args)
    assert equal(first.expected, expected)
    assert back.tests_hidden[1:] == (*tests[1:], Check("assert", code="x" + text))
    bare = {"tests_visible": (), "tests_hidden": ()}
    assert replace(back, **bare) == replace(asked, **bare)


def test_nothing_but_what_json_lacks_is_typed(tmp_path: Path):
    tests = tuple(
        Check("call", args=(value,), expected=value) for value in ([1, {"a": None}], (1,), {1}, math.nan, {1: 2})
    )
    list(again([Problem("a", "t", tests_hidden=tests)], tmp_path / "p.jsonl"))
    [line] = lines(tmp_path / "p.jsonl")
    assert [bool(test.get("typed")) for test in line["tests_hidden"]] == [False, True, True, True, True]


def test_conversations_come_back_exactly(tmp_path: Path):
    talk = Conversation(
        "a", ({"role": "user", "content": "ü\u2028\n"}, {"role": "assistant", "content": "\ud800"}), "s"
    )
    file = io.BytesIO()
    assert write_conversations(file, [talk, talk]) == 2
    kept = tmp_path / "talk.jsonl"
    kept.write_bytes(file.getvalue())
    assert list(read_conversations(kept)) == [talk, talk]
