"""Cut documents join to the original, in the order of the paper, by cuts of the right granularity."""

from collections.abc import Sequence

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


def sides(tokenizer: Tokenizer, prompt: tuple[int, ...]) -> tuple[str, str]:
    """Prefix and suffix of a prompt, found by its sentinels."""
    hole = prompt.index(tokenizer.fim_hole)
    assert prompt[:2] == (tokenizer.begin, tokenizer.fim_begin)
    assert prompt[-1] == tokenizer.fim_end
    return tokenizer.decode(prompt[2:hole]), tokenizer.decode(prompt[hole + 1 : -1])


ANY_TEXT = st.text(st.sampled_from("ab =(\t日ß🙂\n\r\x0c\N{REPLACEMENT CHARACTER}"), max_size=60)


@settings(max_examples=300)
@given(ANY_TEXT, ANY_TEXT, st.integers(fim.SENTINELS, 70))
def test_a_fitting_prompt_fits_and_holds_text_from_both_sides_of_the_hole(
    tokenizer: Tokenizer, prefix: str, suffix: str, length: int
):
    prompt = fim.fitting_prompt(tokenizer, prefix, suffix, length)
    assert len(prompt) <= length
    before, after = sides(tokenizer, prompt)
    assert prefix.endswith(before)
    assert suffix.startswith(after)
    whole = tuple(fim.infill_prompt(tokenizer, prefix, suffix))
    if len(whole) <= length:
        assert prompt == whole


def numbered(count: int) -> str:
    """Lines that cost the same alone and joined: each begins with a letter and ends the token before it."""
    return "".join(f"value{number:04d}\n" for number in range(count))


@pytest.mark.parametrize(
    ("before", "after"), [(400, 400), (400, 3), (400, 0), (3, 400), (0, 400), (8, 400), (400, 8), (3, 3)]
)
@pytest.mark.parametrize("length", [40, 101, 260])
def test_whole_lines_are_left_out_farthest_first_and_three_quarters_are_the_prefixs(
    tokenizer: Tokenizer, before: int, after: int, length: int
):
    """Against counting: every line costs the same, so the numbers of lines follow from three divisions."""
    prefix, suffix = numbered(before), numbered(after)
    cost = len(tokenizer.encode(numbered(1)))
    assert len(tokenizer.encode(numbered(400))) == 400 * cost
    room = length - 4
    if (before + after) * cost <= room:
        expected = before, after
    else:
        quarter = min(after, room // 4 // cost)
        kept_before = min(before, room // cost - quarter)
        expected = kept_before, min(after, room // cost - kept_before)
    got = sides(tokenizer, fim.fitting_prompt(tokenizer, prefix, suffix, length))
    assert tuple(text.count("\n") for text in got) == expected
    assert prefix.endswith(got[0])
    assert suffix.startswith(got[1])
    assert all(text == "" or (text.startswith("value") and text.endswith("\n")) for text in got)


@pytest.mark.parametrize("length", [12, 60, 200])
def test_of_a_line_longer_than_the_room_the_longest_part_beside_the_hole_is_kept(tokenizer: Tokenizer, length: int):
    prefix, suffix = "日ab" * 5000 + "LEFT", "RIGHT" + "cdß" * 5000
    before, after = sides(tokenizer, fim.fitting_prompt(tokenizer, prefix, suffix, length))
    assert prefix.endswith(before)
    assert suffix.startswith(after)
    assert before
    longer = fim.infill_prompt(tokenizer, prefix[-len(before) - 2 :], suffix[: len(after) + 2])
    assert len(longer) > length
    assert len(tokenizer.encode(before)) > 0.7 * (length - 4)


class DearJoints:
    """A tokenizer in which a line costs two tokens more beside another line than alone."""

    begin, end, fim_begin, fim_hole, fim_end = range(1, 6)

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        return [ord(letter) for letter in text] + [0, 0] * text.count("\n", 0, -1)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [self.encode(text) for text in texts]


@pytest.mark.parametrize("length", range(4, 120, 7))
def test_lines_that_need_more_tokens_joined_than_alone_still_fit(length: int):
    prompt = fim.fitting_prompt(DearJoints(), "abcd\n" * 50, "efgh\n" * 50, length)
    hole = prompt.index(DearJoints.fim_hole)
    assert len(prompt) <= length
    assert hole - 2 > 0.5 * (length - 4) - len("abcd\n")  # at most a line less than half of the room


def test_a_prompt_keeps_no_text_where_there_is_no_room(tokenizer: Tokenizer):
    prompt = fim.fitting_prompt(tokenizer, "a = 1\n", "b = 2\n", fim.SENTINELS)
    assert prompt == tuple(fim.infill_prompt(tokenizer, "", ""))


@given(st.text(alphabet="ab\n", max_size=80), st.integers(1, 20))
def test_segments_are_whole_lines_that_join_to_the_text(text: str, length: int):
    found = fim.segments(text, length)
    assert "".join(found) == text
    assert all(len(each) <= length or each.count("\n", 0, -1) == 0 for each in found)
    assert all(each.endswith("\n") for each in found[:-1])
