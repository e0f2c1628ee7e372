"""Conversations out of the shapes that people keep them in.

In:  a JSON object: `messages`, ShareGPT's `conversations`, or Alpaca's `instruction`, `input`, `output`.
Out: a Conversation of system, user and assistant turns that ends with an answer.

Unusual: an object is checked whole before anything is made of it; a role that is not known is never guessed at.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from codeweft.base.errors import InputError
from codeweft.base.records import Conversation

MEND = "Mend that line (docs/problems.md has the fields)."
ROLES = ("system", "user", "assistant")
SHAREGPT_ROLES = {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}
SHAPES = "messages, conversations (ShareGPT), or instruction and output (Alpaca)"


def conversation_of(record: Mapping[str, Any], place: str, name: str, source: str) -> Conversation:
    """The conversation that a JSON object holds; `name` and `source` stand in for an id and a source it lacks.

    InputError at `place` where there are no messages, an unknown role, no text, or no answer at the end.

    >>> talk = conversation_of({"instruction": "Add.", "input": "1 2", "output": "3"}, "a.json", "a-0", "a")
    >>> [each["content"] for each in talk.messages]
    ['Add.\\n\\n1 2', '3']
    """
    if "messages" in record:
        messages = _messages(record["messages"], place, "messages", "role", "content", {role: role for role in ROLES})
    elif "conversations" in record:
        messages = _messages(record["conversations"], place, "conversations", "from", "value", SHAREGPT_ROLES)
    elif "instruction" in record:
        messages = _alpaca(record, place)
    else:
        raise InputError(f"{place}: there is none of {SHAPES}.", MEND)
    if messages[-1]["role"] != "assistant":
        raise InputError(f"{place}: the last message is not the assistant's.", MEND)
    return Conversation(str(record.get("id", name)), messages, str(record.get("source", source)))


def _messages(
    given: Any, place: str, what: str, role: str, content: str, roles: Mapping[str, str]
) -> tuple[dict[str, str], ...]:
    if not isinstance(given, list) or not given:
        raise InputError(f"{place}: {what} is no list of messages.", MEND)
    for each in given:
        if not isinstance(each, dict) or not isinstance(each.get(content), str):
            raise InputError(f"{place}: a message has no {content}.", MEND)
        if each.get(role) not in roles:
            raise InputError(f"{place}: {each.get(role)!r} is no role; there are {', '.join(roles)}.", MEND)
    return tuple({"role": roles[each[role]], "content": each[content]} for each in given)


def _alpaca(record: Mapping[str, Any], place: str) -> tuple[dict[str, str], ...]:
    texts = {name: record.get(name) or "" for name in ("system", "instruction", "input", "output")}
    for name, text in texts.items():
        if not isinstance(text, str):
            raise InputError(f"{place}: {name} is no text.", MEND)
    if not texts["instruction"] or not texts["output"]:
        raise InputError(f"{place}: instruction or output is empty.", MEND)
    system = ({"role": "system", "content": texts["system"]},) if texts["system"] else ()
    asked = "\n\n".join(filter(None, (texts["instruction"], texts["input"])))
    return (*system, {"role": "user", "content": asked}, {"role": "assistant", "content": texts["output"]})


def read_written(path: Path) -> Iterator[Conversation]:
    """The conversations that the stage problems wrote to `path`, one JSON object a line.

    InputError names the line of what that stage does not write.
    """
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                record = json.loads(line)
            except ValueError as error:
                raise InputError(f"{path}, line {number}: no JSON.", "Run the stage problems again.") from error
            yield conversation_of(record, f"{path}, line {number}", f"{path.stem}-{number - 1}", path.stem)
