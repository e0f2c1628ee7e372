"""The special tokens of DeepSeek-Coder-V2, code point by code point.

In:  nothing.  Out: their texts, the order in which our own tokenizers append them, and how to know one.
Source: the published tokenizer (begin 100000, end 100001, fim hole 100002, fim begin 100003, fim end 100004).

Unusual: the bars are U+FF5C and the low line is U+2581; ASCII look-alikes are ordinary text. As published, the three
infilling tokens are not flagged "special", so that other programs' skip_special_tokens leaves them in the text; our
own decoding leaves them out. The published chat format is plain text, so it needs no tokens of its own.
"""

import re

BEGIN = "<｜begin▁of▁sentence｜>"
END = "<｜end▁of▁sentence｜>"  # also the padding token
FIM_HOLE = "<｜fim▁hole｜>"
FIM_BEGIN = "<｜fim▁begin｜>"
FIM_END = "<｜fim▁end｜>"

# The published order; each token's id is the number of ordinary tokens plus its place here.
ORDER = (BEGIN, END, FIM_HOLE, FIM_BEGIN, FIM_END)
FLAGGED = frozenset({BEGIN, END})  # those that the published file calls special
PUBLISHED_IDS = dict(zip(ORDER, range(100_000, 100_005), strict=True))

_CONTROL = re.compile(r"<[|｜][^|｜<>]+[|｜]>")


def is_control(content: str, flagged: bool) -> bool:
    """Whether an added token steers the model, so that text must never turn into it unasked.

    A published tokenizer may also hold added tokens that are mere letters; those are text.

    >>> is_control("<｜fim▁hole｜>", False), is_control("ü", False), is_control("<|EOT|>", False)
    (True, False, True)
    """
    return flagged or _CONTROL.fullmatch(content) is not None
