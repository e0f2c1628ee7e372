"""Text to ids and back, with any byte-level BPE tokenizer in a Hugging Face folder.

In:  a folder with `tokenizer.json` and `tokenizer_config.json`.  Out: a `Tokenizer`.
Source: the published tokenizer's special tokens (DeepSeek-Coder-V2 §3.1 and its README).

Unusual: two encoders are made from the one file. The plain one has no control tokens to match, so a text that spells
one of them becomes ordinary ids and comes back as it was; the other matches them, for templates and tests. Decoding
joins the bytes of the tokens, so added tokens that are mere letters come back as those letters.
"""

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import tokenizers

from codeweft.base.artifacts import digest_bytes
from codeweft.base.errors import InputError, ModelError
from codeweft.tokenizer import special as names
from codeweft.tokenizer.pretokenizer import byte_symbols

FILES = ("tokenizer.json", "tokenizer_config.json")  # what a model folder copies
TEMPLATE_FILE = "chat_template.jinja"  # where newer folders keep the template


class Tokenizer:
    """Encodes and decodes; never adds begin or end by itself. Made by `load_tokenizer`."""

    def __init__(self, folder: Path, source: dict[str, Any], config: dict[str, Any], digest: str) -> None:
        self.folder = folder
        self.digest = digest  # of tokenizer.json: equal digests mean equal ids
        self.config = config
        added = source["added_tokens"]
        self.control = {
            token["content"]: token["id"] for token in added if names.is_control(token["content"], token["special"])
        }
        self._full = _encoder(source)
        self._plain = _encoder(_without_control(source))
        self._bytes = _token_bytes(source)

    @property
    def size(self) -> int:
        """Number of ids; all are below it."""
        return len(self._bytes)

    @cached_property
    def longest(self) -> int:
        """Bytes of the longest token; a text has at least its bytes divided by this many tokens."""
        return max(map(len, self._bytes))

    def encode(self, text: str, *, special: bool = False) -> list[int]:
        """Ids of a text. Special-token text stays plain text unless `special`. InputError for half a surrogate pair."""
        encoder = self._full if special else self._plain
        return encoder.encode(_checked(text), add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Ids of many texts, plain."""
        encodings = self._plain.encode_batch_fast([_checked(text) for text in texts], add_special_tokens=False)
        return [encoding.ids for encoding in encodings]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Text of ids, control tokens left out unless asked for; bytes that are no UTF-8 become U+FFFD."""
        skipped = self._control_ids if skip_special else frozenset()
        data = b"".join(self._bytes[number] for number in ids if number not in skipped)
        return data.decode("utf-8", errors="replace")

    @cached_property
    def _control_ids(self) -> frozenset[int]:
        return frozenset(self.control.values())

    @cached_property
    def begin(self) -> int:
        """Id of the token that opens a document."""
        return self._id(self._configured("bos_token") or names.BEGIN, "opens a document")

    @cached_property
    def end(self) -> int:
        """Id of the token that closes a document or an answer."""
        return self._id(self._configured("eos_token") or names.END, "closes a document")

    @cached_property
    def fim_begin(self) -> int:
        """Id before an infilling prefix; ModelError where the tokenizer has none."""
        return self._id(names.FIM_BEGIN, "infilling needs")

    @cached_property
    def fim_hole(self) -> int:
        """Id between an infilling prefix and suffix; ModelError where the tokenizer has none."""
        return self._id(names.FIM_HOLE, "infilling needs")

    @cached_property
    def fim_end(self) -> int:
        """Id after an infilling suffix; ModelError where the tokenizer has none."""
        return self._id(names.FIM_END, "infilling needs")

    @cached_property
    def chat_template(self) -> str | None:
        """The folder's chat template (Jinja); None for a tokenizer without one."""
        file = self.folder / TEMPLATE_FILE
        if file.is_file():
            return file.read_text("utf-8")
        template = self.config.get("chat_template")
        if isinstance(template, list):  # several by name
            template = {entry["name"]: entry["template"] for entry in template}.get("default")
        return template

    def special_texts(self) -> dict[str, str]:
        """The texts of bos_token, eos_token, ... that `tokenizer_config.json` names."""
        keys = ("bos_token", "eos_token", "pad_token", "unk_token")
        return {key: text for key in keys if (text := self._configured(key)) is not None}

    def _configured(self, key: str) -> str | None:
        value = self.config.get(key)
        text = value.get("content") if isinstance(value, dict) else value
        if value is not None and (not isinstance(text, str) or text != text.encode("utf-8", "replace").decode()):
            raise ModelError(f"{self.folder / FILES[1]}: {key} is no text.", "Fetch or make the folder again.")
        return text

    def _id(self, content: str, purpose: str) -> int:
        number = self._full.token_to_id(content)
        if number is None:
            raise ModelError(
                f"The tokenizer in {self.folder} has no token {content}, which {purpose}.",
                "Use the folder of a DeepSeek-Coder-V2 model, or one that codeweft made.",
            )
        return number


def load_tokenizer(folder: Path) -> Tokenizer:
    """Load the tokenizer of a folder; ModelError when its files are missing, damaged or of another kind."""
    source, digest = _read(folder / FILES[0])
    config, _ = _read(folder / FILES[1])
    try:
        if source.get("model", {}).get("type") != "BPE" or "ByteLevel" not in json.dumps(source.get("decoder")):
            raise ModelError(
                f"{folder / FILES[0]} is no byte-level BPE tokenizer.",
                "codeweft reads that kind alone; choose another model.",
            )
        return Tokenizer(folder, source, config, digest)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        raise ModelError(f"{folder / FILES[0]} is damaged: {error}.", "Fetch or make the folder again.") from error


def _read(path: Path) -> tuple[dict[str, Any], str]:
    try:
        data = path.read_bytes()
        value = json.loads(data)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ModelError(
            f"There is no {path.name} in {path.parent}.",
            "Give a model or tokenizer folder, or run the stage tokenizer first.",
        ) from error
    except ValueError as error:
        raise ModelError(f"{path} is damaged: {error}.", "Fetch or make the folder again.") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is damaged: it holds no table.", "Fetch or make the folder again.")
    return value, digest_bytes(data)


def _encoder(source: dict[str, Any]) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(json.dumps(source, ensure_ascii=False))
    except Exception as error:  # the library raises nothing narrower
        raise ValueError(error) from error


def _without_control(source: dict[str, Any]) -> dict[str, Any]:
    """The same tokenizer, with control tokens moved into the vocabulary, where they keep their ids and match nothing.

    No merge leads to them, so text cannot become them.
    """
    added = source["added_tokens"]
    moved = {token["content"]: token["id"] for token in added if names.is_control(token["content"], token["special"])}
    model = source["model"] | {"vocab": source["model"]["vocab"] | moved, "ignore_merges": False}
    kept = [token for token in added if token["content"] not in moved]
    return source | {"model": model, "added_tokens": kept, "post_processor": None}


def _token_bytes(source: dict[str, Any]) -> list[bytes]:
    """The bytes of every id; an id that is not in use has none."""
    byte_of = {symbol: byte for byte, symbol in byte_symbols().items()}
    vocabulary, added = source["model"]["vocab"], {token["id"]: token["content"] for token in source["added_tokens"]}
    table = [b""] * (max([*vocabulary.values(), *added]) + 1)
    for token, number in vocabulary.items():
        table[number] = bytes(byte_of[letter] for letter in token) if number not in added else b""
    for number, content in added.items():
        table[number] = content.encode("utf-8")
    return table


def _checked(text: str) -> str:
    """The text itself; InputError where it has half a surrogate pair, which no UTF-8 file can hold."""
    if text.isascii():
        return text
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"The text has half a surrogate pair (U+{ord(text[error.start]):04X}) at character {error.start}.",
            "Decode it with errors='replace' before it comes here.",
        ) from error
    return text
