"""A tokenizer in the words of llama.cpp: the keys that a GGUF file holds of it.

In:  a tokenizer folder, the model's number of ids.  Out: keys and values.
Source: llama.cpp's own conversion of DeepSeek-V2 (conversion/base.py), 2026.
Unusual: llama.cpp knows pre-tokenizers by name, not by pattern. `deepseek-llm` is the published one's, which ours is;
a folder with other patterns is refused instead of being cut differently there.
"""

import json
from pathlib import Path
from typing import Any

from codeweft.base.errors import ModelError
from codeweft.tokenizer import special
from codeweft.tokenizer.load import FILES, load_tokenizer
from codeweft.tokenizer.pretokenizer import pre_tokenizer

PRETOKENIZER = "deepseek-llm"
NORMAL, CONTROL, USER_DEFINED, UNUSED = 1, 3, 4, 5  # kinds of tokens


def llama_vocabulary(folder: Path, ids: int) -> dict[str, Any]:
    """Keys under `tokenizer.`; ModelError where llama.cpp would read other ids out of a text."""
    tokenizer = load_tokenizer(folder)
    source = json.loads((folder / FILES[0]).read_text(encoding="utf-8"))
    if _patterns(source.get("pre_tokenizer")) != _patterns(json.loads(pre_tokenizer().__getstate__())):
        raise ModelError(
            f"{folder / FILES[0]} cuts text by patterns that llama.cpp has no name for.",
            "Only the published pre-tokenizer can be exported.",
        )
    if tokenizer.size > ids:
        raise ModelError(f"{folder}: the tokenizer has {tokenizer.size} ids, the model {ids}.", "Use its own.")
    texts, kinds = [f"[PAD{number}]" for number in range(ids)], [UNUSED] * ids
    for text, number in source["model"]["vocab"].items():
        texts[number], kinds[number] = text, NORMAL
    for token in source["added_tokens"]:
        control = special.is_control(token["content"], token["special"])
        texts[token["id"]], kinds[token["id"]] = token["content"], CONTROL if control else USER_DEFINED
    merges = [each if isinstance(each, str) else " ".join(each) for each in source["model"]["merges"]]
    keys: dict[str, Any] = {
        "ggml.model": "gpt2",
        "ggml.pre": PRETOKENIZER,
        "ggml.tokens": texts,
        "ggml.token_type": kinds,
        "ggml.merges": merges,
        "ggml.bos_token_id": tokenizer.begin,
        "ggml.eos_token_id": tokenizer.end,
        "ggml.padding_token_id": tokenizer.end,
        "ggml.add_bos_token": bool(tokenizer.config.get("add_bos_token", True)),
        "ggml.add_eos_token": False,
    }
    for key, text in (("pre", special.FIM_BEGIN), ("suf", special.FIM_HOLE), ("mid", special.FIM_END)):
        if text in tokenizer.control:
            keys[f"ggml.fim_{key}_token_id"] = tokenizer.control[text]
    if tokenizer.chat_template is not None:
        keys["chat_template"] = tokenizer.chat_template
    return {f"tokenizer.{key}": value for key, value in keys.items()}


def _patterns(section: Any) -> list[Any]:
    """What of a pre-tokenizer decides where text is cut."""
    steps = section["pretokenizers"] if section and section.get("type") == "Sequence" else [section or {}]
    keys = ("type", "pattern", "behavior", "invert", "individual_digits", "add_prefix_space", "use_regex")
    return [{key: step[key] for key in keys if key in step} for step in steps]
