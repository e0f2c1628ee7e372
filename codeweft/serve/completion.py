"""Fill in a place of a file: the text before and after it, as much as fits the model's window, and the middle.

In:  an engine and two texts, or `FILE:LINE[:COLUMN]` and a model folder.  Out: the middle's text.
Source: DeepSeek-Coder-V2 §3.1 (prefix, suffix, middle).
"""

import re
from pathlib import Path
from typing import Any

from codeweft.base.errors import InputError, ModelError, UserError
from codeweft.base.sizes import bytes_of
from codeweft.engine.engine import Engine
from codeweft.engine.request import Completion, Request
from codeweft.model.folder import fim_trained
from codeweft.serve.config import CompleteConfig
from codeweft.tokenizer.fim import SENTINELS, fitting_prompt

LEAST_ROOM = 8  # tokens of text around a place; with fewer a completion says nothing


def complete_place(place: str, model: Path, **settings: Any) -> dict[str, Any]:
    """`codeweft complete`: the completion at FILE:LINE[:COLUMN] as facts {text, file, line, column, tokens, finish}.

    settings: fields of CompleteConfig. The place is read before the model, so that a mistyped one costs no waiting.
    """
    path, line, column = parse_place(place)
    config = CompleteConfig(**settings)
    prefix, suffix = split_at(path, line, column)
    engine = Engine.load(model, rows=1, memory=bytes_of(config.memory) if config.memory else None)
    completion = infill(engine, prefix, suffix, config)
    facts = {"text": completion.text, "file": str(path), "line": line, "column": column}
    return facts | {"tokens": len(completion.tokens), "finish": completion.finish}


def parse_place(place: str) -> tuple[Path, int, int | None]:
    """Split FILE:LINE[:COLUMN].

    >>> parse_place("src/a.py:12:5")[1:]
    (12, 5)
    """
    match = re.fullmatch(r"(.+?):(\d+)(?::(\d+))?", place)
    if match is None:
        raise UserError(f"{place} is not a place in a file.", "Write FILE:LINE or FILE:LINE:COLUMN, counted from 1.")
    return Path(match[1]), int(match[2]), int(match[3]) if match[3] else None


def split_at(path: Path, line: int, column: int | None) -> tuple[str, str]:
    """The file's text before and after the place; InputError when there is no such file, line or column."""
    try:
        text = path.read_bytes().decode("utf-8")
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}.", "Give a path from this folder.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", "Give a text file.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}).", "Convert it first.") from error
    lines = re.findall(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+\Z|\Z", text)
    if text and not text.endswith(("\r", "\n")):
        lines.pop()  # the empty match behind a last line without an end
    if not 1 <= line <= len(lines):
        raise InputError(f"{path} has no line {line}.", f"Its lines go from 1 to {len(lines)}.")
    content = lines[line - 1].rstrip("\r\n")
    if column is not None and not 1 <= column <= len(content) + 1:
        raise InputError(f"{path}:{line} has no column {column}.", f"Its columns go from 1 to {len(content) + 1}.")
    start = sum(map(len, lines[: line - 1])) + (len(content) if column is None else column - 1)
    return text[:start], text[start:]


def infill(engine: Engine, prefix: str, suffix: str, config: CompleteConfig) -> Completion:
    """Generate the middle between two texts of any length."""
    require_fim(engine, config.assume_fim, "--assume-fim")
    length = engine.max_length - config.max_tokens
    if length < SENTINELS + LEAST_ROOM:
        raise UserError(
            f"The model's window leaves {max(length - SENTINELS, 0)} tokens for the text around the place.",
            "Ask for fewer tokens.",
        )
    prompt = fitting_prompt(engine.tokenizer, prefix, suffix, length)
    request = Request(
        prompt,
        max_tokens=config.max_tokens,
        temperature=config.temperature,
        stop_line=config.lines == 1,
        seed=config.seed,
    )
    [completion] = engine.generate([request])
    if config.lines <= 1:
        return completion
    text = "".join(completion.text.splitlines(keepends=True)[: config.lines]).rstrip("\r\n")
    return Completion(text, completion.tokens, completion.logprob, completion.finish)


def require_fim(engine: Engine, assume: bool, option: str) -> None:
    """ModelError for a model that was not trained to infill, unless told to assume it; `option` is how to tell."""
    if assume or fim_trained(engine.model.config):
        return
    rate = engine.model.config.fim_rate
    raise ModelError(
        f"This model was not trained to infill ({'no fim_rate' if rate is None else 'fim_rate 0'} in config.json).",
        f"Use a base model such as DeepSeek-Coder-V2-Lite-Base, or {option}.",
    )
