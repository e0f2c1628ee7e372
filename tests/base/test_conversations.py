"""Conversations of every shape that people keep, and what is refused."""

import json
from pathlib import Path

import pytest

from codeweft.base.conversations import conversation_of, read_written
from codeweft.base.errors import InputError

ASKED, SAID = {"role": "user", "content": "Add 1 and 2."}, {"role": "assistant", "content": "3"}


def test_the_three_shapes_of_one_exchange_give_the_same_messages():
    shapes = (
        {"messages": [ASKED, SAID]},
        {"conversations": [{"from": "human", "value": "Add 1 and 2."}, {"from": "gpt", "value": "3"}]},
        {"instruction": "Add 1 and 2.", "output": "3"},
        {"instruction": "Add 1 and 2.", "input": "", "output": "3"},
    )
    found = [conversation_of(shape, "here", "name", "source") for shape in shapes]
    assert all(each.messages == (ASKED, SAID) for each in found)
    assert {(each.id, each.source) for each in found} == {("name", "source")}


def test_an_alpaca_input_and_system_text_become_part_of_what_is_asked():
    record = {"system": "Be brief.", "instruction": "Sum.", "input": "[1, 2]", "output": "3", "id": 7, "source": "mine"}
    talk = conversation_of(record, "here", "name", "source")
    assert talk.messages[:2] == (
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Sum.\n\n[1, 2]"},
    )
    assert (talk.id, talk.source) == ("7", "mine")


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({}, "none of messages"),
        ({"messages": "hello"}, "no list of messages"),
        ({"messages": [{"role": "robot", "content": "x"}]}, "'robot' is no role; there are system, user, assistant"),
        ({"messages": [{"role": "user", "content": 3}]}, "a message has no content"),
        ({"messages": [SAID, ASKED]}, "the last message is not the assistant's"),
        ({"conversations": [{"from": "tool", "value": "x"}]}, "'tool' is no role"),
        ({"instruction": "Do.", "output": ""}, "instruction or output is empty"),
        ({"instruction": "Do.", "output": ["x"]}, "output is no text"),
    ],
)
def test_what_is_no_conversation_is_named_with_its_place(record: dict, words: str):
    with pytest.raises(InputError, match=rf"file, line 3: .*{words}"):
        conversation_of(record, "file, line 3", "name", "source")


def test_a_line_that_is_no_json_is_named(tmp_path: Path):
    path = tmp_path / "talk.jsonl"
    path.write_text(json.dumps({"messages": [ASKED, SAID]}) + "\n{half", encoding="utf-8")
    with pytest.raises(InputError, match=r"talk.jsonl, line 2"):
        list(read_written(path))
