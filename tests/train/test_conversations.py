"""Which tokens of a conversation are trained on, against the text itself and transformers; packing."""

import copy
import dataclasses
from pathlib import Path

import numpy as np
import pytest
import tiny_model
from hypothesis import given
from hypothesis import strategies as st

from codeweft.base.records import Conversation
from codeweft.tokenizer.load import FILES, Tokenizer
from codeweft.train.conversations import Sample, pack, render_all, rendered, row_of

# a template that marks generations, as transformers needs it to make a mask of its own
MARKED = (
    "{{ bos_token }}{% for message in messages %}{{ '<' + message['role'] + '>' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)
TALK = Conversation(
    "a",
    (
        {"role": "system", "content": "Answer with code."},
        {"role": "user", "content": "Add two numbers."},
        {"role": "assistant", "content": "```python\ndef add(a, b):\n    return a + b\n```"},
        {"role": "user", "content": "And <｜end▁of▁sentence｜> three?"},
        {"role": "assistant", "content": "  return a + b + c"},
    ),
    "mine",
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return tiny_model.make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


def with_template(tokenizer: Tokenizer, template: str) -> Tokenizer:
    other = copy.copy(tokenizer)
    other.chat_template = template
    return other


def test_the_trained_tokens_are_the_answers_and_the_token_that_ends_each(tokenizer: Tokenizer):
    sample = rendered(tokenizer, TALK)
    end = tokenizer.decode([tokenizer.end])
    trained = tokenizer.decode([token for token, one in zip(sample.tokens, sample.trained, strict=True) if one])
    answers = [each["content"] for each in TALK.messages if each["role"] == "assistant"]
    assert trained == "".join(f" {answer}{end}" for answer in answers)
    others = tokenizer.decode([token for token, one in zip(sample.tokens, sample.trained, strict=True) if not one])
    assert not any(answer in others for answer in answers)
    # what a message says is no special token, so only the two answers end
    assert sample.tokens.count(tokenizer.end) == 2


def test_the_mask_is_that_of_transformers_where_a_template_marks_generations(tokenizer: Tokenizer, tmp_path: Path):
    transformers = pytest.importorskip("transformers")
    theirs = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(tokenizer.folder / FILES[0]), bos_token="<｜begin▁of▁sentence｜>",
        eos_token="<｜end▁of▁sentence｜>",
    )  # fmt: skip
    plain = Conversation("b", tuple(m for m in TALK.messages if "three" not in m["content"])[:3], "mine")
    expected = theirs.apply_chat_template(
        list(plain.messages), chat_template=MARKED, tokenize=True, return_dict=True, return_assistant_tokens_mask=True
    )
    unmarked = MARKED.replace("{% generation %}", "").replace("{% endgeneration %}", "")
    ours = rendered(with_template(tokenizer, unmarked), plain)
    assert list(ours.tokens) == list(expected["input_ids"])
    assert [int(one) for one in ours.trained] == list(expected["assistant_masks"])


def test_a_template_that_shows_no_answer_leaves_nothing_to_train_on(tokenizer: Tokenizer):
    silent = with_template(tokenizer, "{{ messages[0]['content'] }}")
    assert rendered(silent, TALK) is None
    assert render_all(silent, [TALK], 1000, "cut").unanswered == 1


def test_a_conversation_that_is_too_long_loses_whole_turns_or_goes(tokenizer: Tokenizer):
    whole = rendered(tokenizer, TALK)
    first = rendered(tokenizer, dataclasses.replace(TALK, messages=TALK.messages[:3]))
    cut = render_all(tokenizer, [TALK], len(whole.tokens) - 1, "cut")
    assert cut.samples == [first]
    assert (cut.cut, cut.dropped) == (1, 0)
    dropped = render_all(tokenizer, [TALK], len(whole.tokens) - 1, "drop")
    assert (dropped.samples, dropped.cut, dropped.dropped) == ([], 0, 1)
    short = render_all(tokenizer, [TALK], len(first.tokens) - 1, "cut")
    assert (short.samples, short.dropped) == ([], 1)
    assert render_all(tokenizer, [TALK], len(whole.tokens), "drop").samples == [whole]


@given(sizes=st.lists(st.integers(1, 20), max_size=60))
def test_packing_keeps_every_sample_once_and_no_row_overflows(sizes: list[int]):
    rows = pack([Sample((0,) * size, (True,) * size) for size in sizes], 20)
    assert sorted(number for row in rows for number in row) == list(range(len(sizes)))
    assert all(sum(sizes[number] for number in row) <= 20 for row in rows)
    # no two rows would fit into one: best fit never opens a row while another has room
    filled = sorted(sum(sizes[number] for number in row) for row in rows)
    assert len(filled) < 2 or filled[0] + filled[1] > 20


def test_a_row_asks_for_the_next_token_of_the_same_sample_only():
    row = row_of([Sample((1, 2, 3), (False, True, True)), Sample((4, 5), (True, True))], 8, padding=0)
    assert row.tokens.tolist() == [1, 2, 3, 4, 5, 0, 0, 0]
    wanted = np.flatnonzero(row.weights).tolist()
    assert [(row.tokens[i], row.targets[i]) for i in wanted] == [(1, 2), (2, 3), (4, 5)]
    assert row.documents.tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
