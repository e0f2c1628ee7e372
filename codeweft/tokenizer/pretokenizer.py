"""How text is cut into pieces before byte pairs are merged: merges never cross a piece's border.

In:  nothing.  Out: the pre-tokenizer and the byte alphabet of the published tokenizer.
Source: DeepSeek-LLM §2.1 (digits one by one, newlines, punctuation and CJK kept apart), which DeepSeek-Coder-V2 §2
takes over; the exact patterns are those of the published tokenizer.

Unusual: five patterns are applied one after the other, each to the pieces that the ones before left. Every line end is
a piece of its own; a word or a run of punctuation takes at most one white-space character in front of it.
"""

from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, Digits, PreTokenizer, Sequence, Split

LINE_END = "[\r\n]"
# The letters of scripts that use upper and lower case.
LETTERS = (
    "A-Za-z"
    "\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba\u01bc-\u01bf\u01c4-\u0293\u0295-\u02af\u0370-\u0373\u0376"
    "\u0377\u037b-\u037d\u037f\u0386\u0388-\u038a\u038c\u038e-\u03a1\u03a3-\u03f5\u03f7-\u0481\u048a-\u052f"
    "\u0531-\u0556\u10a0-\u10c5\u13a0-\u13f5\u13f8-\u13fd\u1c90-\u1cba\u1cbd-\u1cbf\u1d00-\u1d2b\u1d6b-\u1d77"
    "\u1d79-\u1d9a\u1e00-\u1f15\u1f18-\u1f1d\u1f20-\u1f45\u1f48-\u1f4d\u1f50-\u1f57\u1f59\u1f5b\u1f5d"
    "\u1f5f-\u1f7d\u1f80-\u1fb4\u1fb6-\u1fbc\u1fbe\u1fc2-\u1fc4\u1fc6-\u1fcc\u1fd0-\u1fd3\u1fd6-\u1fdb"
    "\u1fe0-\u1fec\u1ff2-\u1ff4\u1ff6-\u1ffc\u2102\u2107\u210a-\u2113\u2115\u2119-\u211d\u2124\u2126\u2128"
    "\u212a-\u212d\u212f-\u2134\u2139\u213c-\u213f\u2145-\u2149\u214e\u2183\u2184\u2c00-\u2c7b\u2c7e-\u2ce4"
    "\u2ceb-\u2cee\u2cf2\u2cf3\ua640-\ua66d\ua680-\ua69b\ua722-\ua76f\ua771-\ua787\ua78b-\ua78e\uab70-\uabbf"
    "\ufb00-\ufb06\ufb13-\ufb17\uff21-\uff3a\uff41-\uff5a\U00010400-\U0001044f\U000104b0-\U000104d3"
    "\U000104d8-\U000104fb\U00010c80-\U00010cb2\U00010cc0-\U00010cf2\U000118a0-\U000118df"
    "\U0001e900-\U0001e943"
)
WORD = rf"\s?[{LETTERS}]+"
PUNCTUATION = "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+"
TRAILING_SPACE = r"\s+$"
CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
PATTERNS = (LINE_END, WORD, PUNCTUATION, TRAILING_SPACE, CJK)

# Bytes that occur in no UTF-8 text; the published vocabulary has no symbol for them, which leaves 243.
ABSENT_BYTES = frozenset({0xC0, 0xC1, *range(0xF5, 0x100)})


def pre_tokenizer() -> PreTokenizer:
    """The published sequence: the patterns, single digits, then bytes as printable characters.

    >>> [piece for piece, _ in pre_tokenizer().pre_tokenize_str("    if x1:")]
    ['ĠĠĠ', 'Ġif', 'Ġx', '1', ':']
    """
    splits = [Split(Regex(pattern), behavior="isolated", invert=False) for pattern in PATTERNS]
    spelled = ByteLevel(add_prefix_space=False, trim_offsets=True, use_regex=False)
    return Sequence([*splits, Digits(individual_digits=True), spelled])


def byte_symbols() -> dict[int, str]:
    """The printable character that stands for each byte: the byte's own where it has one, else one after U+00FF.

    >>> byte_symbols()[ord("a")], byte_symbols()[ord(" ")], byte_symbols()[ord("\\n")]
    ('a', 'Ġ', 'Ċ')
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + place) for place, byte in enumerate(hidden)}


def alphabet() -> list[str]:
    """The symbols of the 243 bytes that UTF-8 uses, in byte order."""
    return [symbol for byte, symbol in sorted(byte_symbols().items()) if byte not in ABSENT_BYTES]
