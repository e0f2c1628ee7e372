"""Chat messages to ids by the checkpoint's own template, without letting a message forge a special token.

In:  messages `{role, content}` and a tokenizer.  Out: the rendered text, or ids.
Source: the chat format of DeepSeek-Coder-V2's README; no space after the last `Assistant:`, or the model goes astray.

Unusual: the template is code from a model folder, so it runs in jinja2's immutable sandbox. Before rendering,
special-token text inside messages is exchanged for private characters; what the template writes itself becomes special
tokens, and the rest, messages restored, is encoded as plain text.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from codeweft.base.errors import ModelError
from codeweft.tokenizer.load import Tokenizer

# The published template, to the letter.
TEMPLATE = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{{ bos_token }}"
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ 'User: ' + message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ 'Assistant: ' + message['content'] + eos_token }}"
    "{% elif message['role'] == 'system' %}{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

Message = Mapping[str, Any]
PRIVATE = (0xF0000, 0xFFFFD)  # characters that Unicode leaves to whoever needs them


def render(tokenizer: Tokenizer, messages: Sequence[Message], *, generate: bool = True) -> str:
    """The text of a conversation; with `generate`, it ends where the assistant's next answer begins."""
    return _render(tokenizer, list(messages), generate)


def encode_chat(tokenizer: Tokenizer, messages: Sequence[Message], *, generate: bool = True) -> list[int]:
    """The ids of a conversation: special tokens where the template writes them, plain text everywhere else."""
    names = list(tokenizer.control)
    masks = _masks(names, json.dumps([messages, tokenizer.chat_template], ensure_ascii=False))
    text = _render(tokenizer, _replaced(list(messages), masks), generate)
    unmask = {mask: name for name, mask in masks.items()}
    ids: list[int] = []
    for piece in re.split(f"({_any_of(names)})", text):
        if piece in tokenizer.control:
            ids.append(tokenizer.control[piece])
        elif piece:
            ids += tokenizer.encode(_replaced(piece, unmask))
    return ids


def _masks(names: Sequence[str], used: str) -> dict[str, str]:
    """One private character for each special token, none of them used anywhere in the conversation."""
    free = (chr(code) for code in range(*PRIVATE) if chr(code) not in used)
    return {name: next(free) for name in names}


def _any_of(texts: Iterable[str]) -> str:
    """A pattern for the longest of the texts; for no texts, one that matches nothing."""
    return "|".join(map(re.escape, sorted(texts, key=len, reverse=True))) or "(?!)"


def _replaced(value: Any, by: Mapping[str, str]) -> Any:
    """The value with every key of `by` replaced inside its strings, nested ones included."""
    if isinstance(value, str):
        return re.sub(_any_of(by), lambda match: by[match[0]], value)
    if isinstance(value, Mapping):
        return {key: _replaced(item, by) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_replaced(item, by) for item in value]
    return value


def _render(tokenizer: Tokenizer, messages: list[Message], generate: bool) -> str:
    if tokenizer.chat_template is None:
        raise ModelError(
            f"The tokenizer in {tokenizer.folder} has no chat template: this is a base model.",
            "Use its Instruct version, or complete text instead.",
        )
    try:
        return _template(tokenizer.chat_template).render(
            messages=messages, add_generation_prompt=generate, **tokenizer.special_texts()
        )
    except (jinja2.TemplateError, TypeError, OverflowError) as error:
        raise ModelError(
            f"The chat template of {tokenizer.folder} refuses this conversation: {error}.",
            "Check the roles and contents of the messages.",
        ) from error


@lru_cache(maxsize=8)
def _template(text: str) -> jinja2.Template:
    """The compiled template; compiling one takes longer than rendering a hundred conversations."""
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    environment.filters["tojson"] = _to_json
    return environment.from_string(text, globals={"raise_exception": _refuse})


def _to_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> None:
    raise jinja2.TemplateError(message)
