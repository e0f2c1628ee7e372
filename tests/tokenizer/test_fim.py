"""Cut documents join to the original, in the order of the paper, by cuts of the right granularity."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeweft.tokenizer import fim
from codeweft.tokenizer.load import Tokenizer

SOURCE = "import os\n\n\ndef f(a, b):\n    if a:\n        return os.sep\n    return b\n"


@given(st.text(), st.sampled_from(["characters", "lines", "syntax"]), st.integers(0, 2**32))
def test_the_three_parts_join_to_the_text(text: str, granularity: str, seed: int):
    found = fim.cut(text, "Python", granularity, np.random.default_rng(seed))
    assert found.prefix + found.middle + found.suffix == text


@given(st.text("ab\n\r", min_size=1), st.integers(0, 2**32))
def test_line_cuts_fall_on_line_starts_and_hold_a_line(text: str, seed: int):
    found = fim.cut(text, "Python", "lines", np.random.default_rng(seed))
    assert found.middle
    for before in (found.prefix, found.prefix + found.middle):
        assert before in {"", text} or before.endswith("\n")


def test_character_cuts_reach_every_pair_of_borders_equally():
    """Two independent uniform borders: unequal pairs come twice as often as equal ones."""
    random = np.random.default_rng(0)
    counts = np.zeros((4, 4))
    for _ in range(16_000):
        counts[fim.cut_at_characters("abc", random)] += 1
    upper = counts[np.triu_indices(4, 1)]
    assert abs(upper - 2000).max() < 250
    assert abs(np.diag(counts) - 1000).max() < 200
    assert counts[np.tril_indices(4, -1)].sum() == 0


def test_syntax_cuts_hold_whole_nodes():
    import ast

    nodes = {
        ast.get_source_segment(SOURCE, node)
        for node in ast.walk(ast.parse(SOURCE))
        if isinstance(node, ast.stmt | ast.expr)
    }
    middles = {fim.cut(SOURCE, "Python", "syntax", np.random.default_rng(seed)).middle for seed in range(300)}
    assert {"return os.sep", "os.sep", "import os", "if a:\n        return os.sep"} <= middles & nodes


def test_a_language_without_a_grammar_is_cut_at_lines_and_says_so():
    found = fim.cut("a\nb\nc\n", "INTERCAL", "syntax", np.random.default_rng(0))
    assert found.granularity == "lines"
    assert fim.cut(SOURCE, "Python", "syntax", np.random.default_rng(0)).granularity == "syntax"


def test_documents_and_prompts_have_the_published_order(tokenizer: Tokenizer):
    prompt = fim.infill_prompt(tokenizer, "a = ", "\nprint(a)\n")
    written = "<｜begin▁of▁sentence｜><｜fim▁begin｜>a = <｜fim▁hole｜>\nprint(a)\n<｜fim▁end｜>"
    assert tokenizer.decode(prompt, skip_special=False) == written
    parts = [tokenizer.encode(part) for part in ("a = ", "1", "\nprint(a)\n")]
    document = fim.infill_document(tokenizer, *parts)
    assert document == [*prompt, *parts[1], tokenizer.end]
    assert fim.plain_document(tokenizer, parts[0]) == [tokenizer.begin, *parts[0], tokenizer.end]


@pytest.mark.parametrize("text", ["<｜fim▁hole｜>", "x<｜end▁of▁sentence｜>"])
@settings(max_examples=10)
@given(st.booleans())
def test_a_prompt_cannot_be_forged(tokenizer: Tokenizer, text: str, before: bool):
    prompt = fim.infill_prompt(tokenizer, *((text, "") if before else ("", text)))
    assert sum(number in tokenizer.control.values() for number in prompt) == 4


@given(st.text(alphabet="ab\n", max_size=80), st.integers(1, 20))
def test_segments_are_whole_lines_that_join_to_the_text(text: str, length: int):
    found = fim.segments(text, length)
    assert "".join(found) == text
    assert all(len(each) <= length or each.count("\n", 0, -1) == 0 for each in found)
    assert all(each.endswith("\n") for each in found[:-1])
