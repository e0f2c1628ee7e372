"""Texts survive encoding, nothing in them becomes a special token unasked, and transformers finds the same ids."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from codeweft.base.errors import InputError, ModelError
from codeweft.tokenizer import special
from codeweft.tokenizer.load import FILES, Tokenizer, load_tokenizer

# Pieces that tokenizers stumble over, mixed with anything at all.
ODD = [
    *special.ORDER,
    "<|EOT|>",
    "\r\n",
    "\0",
    " " * 70,
    "\t",
    "中文",
    "한국어",
    "ü",
    "𝔘𝔫𝔦",
    "\u2028",
    "12.5e-3",
    "def f(x):\n",
    "▁",
    "｜",
]
TEXTS = st.lists(st.one_of(st.sampled_from(ODD), st.text(max_size=8)), max_size=12).map("".join)
quick = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(scope="module")
def theirs(trained: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(trained)


@given(TEXTS)
@example("<｜fim▁begin｜>" * 3)
@quick
def test_any_text_comes_back_and_uses_ordinary_ids_only(tokenizer: Tokenizer, text: str):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not set(ids) & set(tokenizer.control.values())
    assert tokenizer.encode_batch([text, "x"])[0] == ids


@given(TEXTS)
@quick
def test_any_text_comes_back_with_special_tokens_matched(tokenizer: Tokenizer, text: str):
    ids = tokenizer.encode(text, special=True)
    assert tokenizer.decode(ids, skip_special=False) == text
    found = sum(text.count(content) for content in special.ORDER)
    assert sum(number in tokenizer.control.values() for number in ids) == found


@given(TEXTS)
@quick
def test_transformers_gives_the_same_ids_and_texts(tokenizer: Tokenizer, theirs: Any, text: str):
    ids = tokenizer.encode(text, special=True)
    assert theirs.encode(text, add_special_tokens=False) == ids
    assert theirs.encode(text) == [tokenizer.begin, *ids]
    assert theirs.decode(ids, skip_special_tokens=False) == text
    for content in special.ORDER:
        text = text.replace(content, "")
    assert theirs.encode(text, add_special_tokens=False) == tokenizer.encode(text)


@given(st.lists(st.integers(0, 10_000), max_size=30))
@quick
def test_transformers_decodes_any_ids_as_we_do(tokenizer: Tokenizer, theirs: Any, numbers: list[int]):
    ids = [number % tokenizer.begin for number in numbers]
    assert tokenizer.decode(ids) == theirs.decode(ids)


def test_special_tokens_stand_last_in_the_published_order(tokenizer: Tokenizer):
    base = tokenizer.size - 5
    ids = (tokenizer.begin, tokenizer.end, tokenizer.fim_hole, tokenizer.fim_begin, tokenizer.fim_end)
    assert ids == tuple(range(base, base + 5))
    assert [number - 100_000 for number in special.PUBLISHED_IDS.values()] == [number - base for number in ids]
    assert special.FIM_BEGIN.encode().hex(" ") == "3c ef bd 9c 66 69 6d e2 96 81 62 65 67 69 6e ef bd 9c 3e"


def test_transformers_knows_begin_end_and_padding(tokenizer: Tokenizer, theirs: Any):
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id) == (
        tokenizer.begin, tokenizer.end, tokenizer.end,
    )  # fmt: skip
    assert len(theirs) == tokenizer.size


def test_infilling_tokens_are_left_out_by_us_and_kept_by_transformers(tokenizer: Tokenizer, theirs: Any):
    ids = [tokenizer.begin, tokenizer.fim_begin, *tokenizer.encode("a"), tokenizer.fim_end, tokenizer.end]
    assert tokenizer.decode(ids) == "a"
    assert theirs.decode(ids, skip_special_tokens=True) == f"{special.FIM_BEGIN}a{special.FIM_END}"


def test_transformers_loads_it_from_a_model_folder_too(tokenizer: Tokenizer, tmp_path: Path):
    from transformers import AutoTokenizer

    for name in FILES:
        shutil.copy(tokenizer.folder / name, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "deepseek_v2"}))
    text = "    return 12 + naïve  # 中文\r\n"
    theirs: Any = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.encode(text) == [tokenizer.begin, *tokenizer.encode(text)]


def test_half_a_surrogate_pair_is_refused_with_its_place(tokenizer: Tokenizer):
    with pytest.raises(InputError, match=r"U\+D83D\) at character 2"):
        tokenizer.encode("a \ud83d b")
    with pytest.raises(InputError, match="surrogate"):
        tokenizer.encode_batch(["fine", "\udc00"])


def test_half_a_character_decodes_to_the_replacement_sign(tokenizer: Tokenizer):
    ids = tokenizer.encode("é")
    assert len(ids) == 2
    assert tokenizer.decode(ids[:1]) == "\N{REPLACEMENT CHARACTER}"


def altered(folder: Path, to: Path, change: Any) -> Path:
    """A copy of a tokenizer folder whose tokenizer.json was changed."""
    for name in FILES:
        shutil.copy(folder / name, to)
    source = json.loads((to / FILES[0]).read_text("utf-8"))
    change(source)
    (to / FILES[0]).write_text(json.dumps(source), "utf-8")
    return to


def test_added_letters_of_a_published_tokenizer_are_text(trained: Path, tmp_path: Path):
    """The published list of added tokens goes on with mere letters, which must survive a round trip as letters."""

    def add_letters(source: dict[str, Any]) -> None:
        first = max(token["id"] for token in source["added_tokens"]) + 1
        model = source["added_tokens"][-1]
        source["added_tokens"] += [
            model | {"id": first + place, "content": letter} for place, letter in enumerate("üø")
        ]

    tokenizer = load_tokenizer(altered(trained, tmp_path, add_letters))
    text = "Führer <｜fim▁hole｜> smørrebrød"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert ids.count(tokenizer.size - 2) == 1
    assert ids.count(tokenizer.size - 1) == 2
    assert tokenizer.fim_hole not in ids
    assert tokenizer.fim_hole in tokenizer.encode(text, special=True)


def test_a_tokenizer_without_infilling_tokens_says_so(trained: Path, tmp_path: Path):
    def drop(source: dict[str, Any]) -> None:
        source["added_tokens"] = [token for token in source["added_tokens"] if "fim" not in token["content"]]

    tokenizer = load_tokenizer(altered(trained, tmp_path, drop))
    assert tokenizer.begin
    with pytest.raises(ModelError, match="infilling needs"):
        _ = tokenizer.fim_begin


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"model": {"type": "BPE"}, "decoder": {"type": "ByteLevel"}}', '{"model": 1}', "\xff"]
)
def test_a_damaged_file_is_a_model_error(trained: Path, tmp_path: Path, content: str):
    shutil.copy(trained / FILES[1], tmp_path)
    (tmp_path / FILES[0]).write_bytes(content.encode("latin-1"))
    with pytest.raises(ModelError, match="damaged"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("value", [5, {"text": "x"}, "\ud800", ["<s>"]])
def test_a_begin_token_that_is_no_text_is_a_model_error(trained: Path, tmp_path: Path, value: Any):
    shutil.copy(trained / FILES[0], tmp_path)
    (tmp_path / FILES[1]).write_text(json.dumps({"bos_token": value}))
    with pytest.raises(ModelError, match=r"tokenizer_config\.json: bos_token is no text"):
        _ = load_tokenizer(tmp_path).begin


def test_a_tokenizer_of_another_kind_is_refused(trained: Path, tmp_path: Path):
    with pytest.raises(ModelError, match="no byte-level BPE"):
        load_tokenizer(altered(trained, tmp_path, lambda source: source["model"].update(type="Unigram")))


def test_a_missing_file_names_itself(trained: Path, tmp_path: Path):
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        load_tokenizer(tmp_path / "nowhere")
    shutil.copy(trained / FILES[0], tmp_path)
    with pytest.raises(ModelError, match=r"no tokenizer_config\.json"):
        load_tokenizer(tmp_path)
