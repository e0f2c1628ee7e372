"""Families of katas about text: letters, pieces, words, lists of words, ciphers.

In:  pieces.  Out: FAMILIES.
"""

from codeweft.tasks.katas.inputs import SENTENCE, TEXT, WORDS
from codeweft.tasks.katas.pieces import LENGTHS, Family, Kata, Level, Piece, one, plural, several, turning

SETS = (
    "aeiou", "abc", "xyz", "st", "lmn", "rst", "nop", "aei", "ou", "de", "mn", "tr", "acl", "eis", "dot", "lu", "ra",
    "in", "ace", "sol", "mud", "ti", "no", "cs", "ore",
)  # fmt: skip
MARKS = ("-", "*", "_", "#", "+", "!")
ENDINGS = ("!", "?", "-", "...", "s", "ed", "ing", "ly")


def _listed(chars: str) -> str:
    return f"{', '.join(chars[:-1])} or {chars[-1]}"


def _of(chars: str) -> Piece:
    return Piece(f"one of the letters {_listed(chars)}", f'c in "{chars}"', f'"{chars}".includes(c)', tuple(chars))


OTHERS = (
    Piece("a digit", "c.isdigit()", "/[0-9]/.test(c)", ("4",)),
    Piece("a capital letter", "c.isupper()", "/[A-Z]/.test(c)", ("M",)),
    Piece("a small letter", "c.islower()", "/[a-z]/.test(c)"),
    Piece("a letter", "c.isalpha()", "/[A-Za-z]/.test(c)"),
    Piece("a space", 'c == " "', 'c === " "', (" ",)),
)
SORTS = (*map(_of, SETS), *OTHERS)


# --- letters ----------------------------------------------------------------------------------------------------------


def _count(sort: Piece) -> Kata:
    says = f"Return how many characters of the text are {sort.says}."
    python = f"sum(1 for c in text if {sort.python})"
    return one(TEXT, says, python, f"[...text].filter(c => {sort.javascript}).length", sort)


def _remove(sort: Piece) -> Kata:
    says = f"Return the text without each character that is {sort.says}."
    python = f'"".join(c for c in text if not ({sort.python}))'
    return one(TEXT, says, python, f'[...text].filter(c => !({sort.javascript})).join("")', sort)


def _replace(sort: Piece, mark: str) -> Kata:
    says = f'Return the text with "{mark}" in the place of each character that is {sort.says}.'
    python = f'"".join("{mark}" if {sort.python} else c for c in text)'
    return one(TEXT, says, python, f'[...text].map(c => {sort.javascript} ? "{mark}" : c).join("")', sort)


def _two_sorts(first: Piece, second: Piece, mark: str) -> Kata:
    says = (
        f'Return the text with "{mark}" in the place of each character that is {first.says}, and with each other '
        f"character that is {second.says} twice."
    )
    python = f'"".join("{mark}" if {first.python} else c * 2 if {second.python} else c for c in text)'
    javascript = f'[...text].map(c => {first.javascript} ? "{mark}" : {second.javascript} ? c + c : c).join("")'
    return one(TEXT, says, python, javascript, first, second)


def _compare_counts(first: Piece, second: Piece, factor: int, more: int) -> Kata:
    return several(
        TEXT,
        f"Let a be the number of characters that are {first.says} and b the number of those that are {second.says}. "
        f"Return {factor} times a minus b plus {more}, or 0 if that is negative.",
        (f"a = sum(1 for c in text if {first.python})", f"b = sum(1 for c in text if {second.python})",
         f"return max({factor} * a - b + {more}, 0)"),
        (f"const a = [...text].filter(c => {first.javascript}).length;",
         f"const b = [...text].filter(c => {second.javascript}).length;",
         f"return Math.max({factor} * a - b + {more}, 0);"),
        first, second,
    )  # fmt: skip


def _after(sort: Piece, mark: str, limit: int) -> Kata:
    return several(
        TEXT,
        f'Return the text with "{mark}" after each character that is {sort.says}, but after the first {limit} of '
        "these only.",
        ('result, seen = "", 0', "for c in text:", "    result += c", f"    if {sort.python} and seen < {limit}:",
         f'        result, seen = result + "{mark}", seen + 1', "return result"),
        ('let result = "", seen = 0;', "for (const c of text) {", "  result += c;",
         f"  if ({sort.javascript} && seen < {limit}) {{", f'    result += "{mark}";', "    seen += 1;", "  }", "}",
         "return result;"),
        sort,
    )  # fmt: skip


# --- pieces of a text -------------------------------------------------------------------------------------------------

FEW = (1, 3, 5, 8, 9)
PARTS = (
    *(Piece(f"the first {plural(k, 'character')}", f"text[:{k}]", f"text.slice(0, {k})", (k,)) for k in FEW),
    *(Piece(f"the last {plural(k, 'character')}", f"text[-{k}:]", f"text.slice(-{k})", (k,)) for k in FEW),
    *(Piece(f"all but the first {plural(k, 'character')}", f"text[{k}:]", f"text.slice({k})", (k,)) for k in FEW),
    *(Piece(f"all but the last {plural(k, 'character')}", f"text[:-{k}]", f"text.slice(0, -{k})", (k,)) for k in FEW),
    Piece("the text backwards", "text[::-1]", '[...text].reverse().join("")'),
    Piece("the text in capitals", "text.upper()", "text.toUpperCase()"),
)  # fmt: skip


def _part(part: Piece) -> Kata:
    return one(TEXT, f"Return {part.says}, as far as there are so many.", part.python, part.javascript, part)


def _part_and(part: Piece, ending: str) -> Kata:
    says = f'Return {part.says}, as far as there are so many, and "{ending}" after it.'
    return one(TEXT, says, f'{part.python} + "{ending}"', f'{part.javascript} + "{ending}"', part)


def _two_parts(first: Piece, second: Piece) -> Kata:
    says = f"Return {first.says}, followed by {second.says}, as far as there are so many."
    javascript = f"{first.javascript} + {second.javascript}"
    return one(TEXT, says, f"{first.python} + {second.python}", javascript, first, second)


def _parts_by_length(size: int, first: Piece, second: Piece) -> Kata:
    return several(
        TEXT,
        f"If the text has more than {size} characters, return {first.says}; otherwise return {second.says}, as far as "
        "there are so many.",
        (f"if len(text) > {size}:", f"    return {first.python}", f"return {second.python}"),
        (f"if (text.length > {size}) return {first.javascript};", f"return {second.javascript};"),
        first, second, turning(size),
    )  # fmt: skip


def _split_at(mark: str, first: Piece, second: Piece) -> Kata:
    def inside(code: str, name: str) -> str:
        return code.replace("text", name)

    python = f'{inside(first.python, "left")} + "{mark}" + {inside(second.python, "right")}'
    javascript = f'{inside(first.javascript, "left")} + "{mark}" + {inside(second.javascript, "right")}'
    says = (
        "Cut the text at its middle; the second half is longer if the length is odd. Return "
        f"{_part_of(first, 'first')}, "
        f'"{mark}", and {_part_of(second, "second")}.'
    )
    return several(
        TEXT, says, ("middle = len(text) // 2", "left, right = text[:middle], text[middle:]", f"return {python}"),
        ("const middle = Math.floor(text.length / 2);",
         "const [left, right] = [text.slice(0, middle), text.slice(middle)];", f"return {javascript};"),
        first, second,
    )  # fmt: skip


def _part_of(part: Piece, half: str) -> str:
    if "the text" in part.says:
        return part.says.replace("the text", f"the {half} half")
    return f"{part.says} of the {half} half"


# --- words ------------------------------------------------------------------------------------------------------------

WORD_CHANGES = (
    Piece("{} backwards", "w[::-1]", '[...w].reverse().join("")'),
    Piece("{} in capitals", "w.upper()", "w.toUpperCase()"),
    Piece("{} with its first letter at its end", "w[1:] + w[:1]", "w.slice(1) + w.slice(0, 1)"),
    Piece("{} with its last letter at its beginning", "w[-1:] + w[:-1]", "w.slice(-1) + w.slice(0, -1)"),
    Piece("{} written twice", "w + w", "w + w"),
    *(Piece(f"the first {k} letters of {{}}", f"w[:{k}]", f"w.slice(0, {k})", (k,)) for k in range(2, 5)),
    *(Piece(f"the last {k} letters of {{}}", f"w[-{k}:]", f"w.slice(-{k})", (k,)) for k in range(2, 5)),
    *(Piece(f"{{}} without its first {k} letters", f"w[{k}:]", f"w.slice({k})", (k,)) for k in range(2, 4)),
    *(Piece(f'{{}} with "{end}" after it', f'w + "{end}"', f'w + "{end}"') for end in ENDINGS),
    *(Piece(f'{{}} with "{start}" before it', f'"{start}" + w', f'"{start}" + w') for start in ("un", "re", "#", "@")),
)  # fmt: skip
WORD_TESTS = (
    *(Piece(size.says, size.py("len(w)"), size.js("w.length"), size.hot) for size in LENGTHS),
    *(Piece(f"begins with {c}", f'w[0] == "{c}"', f'w[0] === "{c}"', (c,)) for c in "aestlrcom"),
    *(Piece(f"ends with {c}", f'w[-1] == "{c}"', f'w[w.length - 1] === "{c}"', (c,)) for c in "aestlrnd"),
    *(Piece(f"contains the letter {c}", f'"{c}" in w', f'w.includes("{c}")', (c,)) for c in "aeioustrl"),
    Piece("reads the same backwards", "w == w[::-1]", 'w === [...w].reverse().join("")', (1, 2)),
)  # fmt: skip
JOINTS = ("-", ", ", "/", "")
JS_SPLIT = 'text.split(" ").filter(w => w)'
SPACED = "The text is words with single spaces between them."


def _words_changed(change: Piece) -> Kata:
    says = f"{SPACED} Return it with {change.said('w')} in the place of each word w."
    python = f'" ".join({change.python} for w in text.split())'
    return one(SENTENCE, says, python, f'{JS_SPLIT}.map(w => {change.javascript}).join(" ")', change)


def _words_counted(test: Piece) -> Kata:
    says = f"{SPACED} Return the number of words w such that w {test.says}."
    python = f"sum(1 for w in text.split() if {test.python})"
    return one(SENTENCE, says, python, f"{JS_SPLIT}.filter(w => {test.javascript}).length", test)


def _words_kept(test: Piece, joint: str) -> Kata:
    says = f'{SPACED} Take each word that {test.says} and return these with "{joint}" between them.'
    python = f'"{joint}".join(w for w in text.split() if {test.python})'
    return one(SENTENCE, says, python, f'{JS_SPLIT}.filter(w => {test.javascript}).join("{joint}")', test)


def _some_words_changed(test: Piece, change: Piece) -> Kata:
    says = f"{SPACED} Return it with {change.said('w')} in the place of each word w that {test.says}."
    python = f'" ".join({change.python} if {test.python} else w for w in text.split())'
    javascript = f'{JS_SPLIT}.map(w => {test.javascript} ? {change.javascript} : w).join(" ")'
    return one(SENTENCE, says, python, javascript, test, change)


def _words_either(test: Piece, first: Piece, second: Piece, joint: str) -> Kata:
    return several(
        SENTENCE,
        f"{SPACED} Take {first.said('w')} for each word w that {test.says}, and {second.said('w')} for each other "
        f'w. Return them in reverse order with "{joint}" between them.',
        (f"parts = [{first.python} if {test.python} else {second.python} for w in text.split()]",
         f'return "{joint}".join(parts[::-1])'),
        (f"const parts = {JS_SPLIT}.map(w => {test.javascript} ? {first.javascript} : {second.javascript});",
         f'return parts.reverse().join("{joint}");'),
        test, first, second,
    )  # fmt: skip


# --- lists of words ---------------------------------------------------------------------------------------------------


def _list_kept(test: Piece) -> Kata:
    says = f"Return the list of the words w such that w {test.says}, in their order."
    return one(WORDS, says, f"[w for w in words if {test.python}]", f"words.filter(w => {test.javascript})", test)


def _list_changed(test: Piece, change: Piece) -> Kata:
    says = f"Return the list of {change.said('w')} for each word w that {test.says}."
    python = f"[{change.python} for w in words if {test.python}]"
    return one(WORDS, says, python, f"words.filter(w => {test.javascript}).map(w => {change.javascript})", test, change)


def _list_lengths(test: Piece, factor: int) -> Kata:
    says = f"Return the sum of the lengths of all words; that of each word that {test.says} counts {factor} times."
    python = f"sum(len(w) * {factor} if {test.python} else len(w) for w in words)"
    javascript = f"words.reduce((sum, w) => sum + ({test.javascript} ? w.length * {factor} : w.length), 0)"
    return one(WORDS, says, python, javascript, test)


def _longest(test: Piece, change: Piece, default: str) -> Kata:
    return several(
        WORDS,
        f"Let w be the longest word that {test.says}, the first one of several. Return {change.said('w')}, "
        f'or "{default}" if there is no such word.',
        (f"kept = [w for w in words if {test.python}]", "if not kept:", f'    return "{default}"',
         "w = max(kept, key=len)", f"return {change.python}"),
        (f"const kept = words.filter(w => {test.javascript});", f'if (!kept.length) return "{default}";',
         "const w = kept.reduce((best, w) => w.length > best.length ? w : best);", f"return {change.javascript};"),
        test, change,
    )  # fmt: skip


def _words_sorted(test: Piece, change: Piece, k: int) -> Kata:
    return several(
        WORDS,
        f"Take each word that {test.says}. Sort these by length, those of one length as in a dictionary. "
        f"Return the list of {change.said('w')} for the first {k} of them (fewer if there are fewer).",
        (f"kept = sorted((w for w in words if {test.python}), key=lambda w: (len(w), w))",
         f"return [{change.python} for w in kept[:{k}]]"),
        (f"const kept = words.filter(w => {test.javascript});",
         "kept.sort((a, b) => a.length - b.length || (a < b ? -1 : a > b ? 1 : 0));",
         f"return kept.slice(0, {k}).map(w => {change.javascript});"),
        test, change,
    )  # fmt: skip


# --- ciphers ----------------------------------------------------------------------------------------------------------

SMALL_PY, SMALL_JS = '"a" <= c <= "z"', "/[a-z]/.test(c)"
ONWARD = "onward in the alphabet, with a after z"


def _shifted(step: str) -> tuple[str, str]:
    return (
        f"chr((ord(c) - 97 + {step}) % 26 + 97)",
        f"String.fromCharCode((c.charCodeAt(0) - 97 + {step}) % 26 + 97)",
    )


def _shift(step: int) -> Kata:
    python, javascript = _shifted(str(step))
    return one(
        TEXT, f"Return the text with each small letter moved {plural(step, 'place')} {ONWARD}.",
        f'"".join({python} if {SMALL_PY} else c for c in text)',
        f'[...text].map(c => {SMALL_JS} ? {javascript} : c).join("")',
    )  # fmt: skip


def _shift_some(step: int, chars: str) -> Kata:
    sort = _of(chars)
    python, javascript = _shifted(str(step))
    return one(
        TEXT, f"Return the text with each character that is {sort.says} moved {plural(step, 'place')} {ONWARD}.",
        f'"".join({python} if {sort.python} else c for c in text)',
        f'[...text].map(c => {sort.javascript} ? {javascript} : c).join("")', sort,
    )  # fmt: skip


def _shift_others(step: int, chars: str, mark: str) -> Kata:
    sort = _of(chars)
    python, javascript = _shifted(str(step))
    return one(
        TEXT,
        f'Return the text with "{mark}" in the place of each character that is {sort.says}, and each other small '
        f"letter moved {plural(step, 'place')} {ONWARD}.",
        f'"".join("{mark}" if {sort.python} else {python} if {SMALL_PY} else c for c in text)',
        f'[...text].map(c => {sort.javascript} ? "{mark}" : {SMALL_JS} ? {javascript} : c).join("")', sort,
    )  # fmt: skip


def _shift_by_place(first: int, second: int, period: int) -> Kata:
    step_python = f"({first} if i % {period} == 0 else {second})"
    step_javascript = f"(i % {period} === 0 ? {first} : {second})"
    return one(
        TEXT,
        f"Return the text with each small letter moved {ONWARD}: {plural(first, 'place')} if its index (from 0) is "
        f"divisible by {period}, else {plural(second, 'place')}.",
        f'"".join({_shifted(step_python)[0]} if {SMALL_PY} else c for i, c in enumerate(text))',
        f'[...text].map((c, i) => {SMALL_JS} ? {_shifted(step_javascript)[1]} : c).join("")',
    )  # fmt: skip


SIZES = range(2, 12, 2)
FAMILIES = (
    Family("letters", ("change", "count"), (
        Level(1, (SORTS,), _count),
        Level(1, (SORTS,), _remove),
        Level(2, (SORTS, MARKS), _replace),
        Level(3, (SORTS, SORTS[:10], MARKS), _two_sorts),
        Level(4, (SORTS, SORTS, range(2, 5), range(1, 6)), _compare_counts),
        Level(5, (SORTS, MARKS, range(2, 6)), _after),
    )),
    Family("text-parts", ("pick", "build"), (
        Level(1, (PARTS,), _part),
        Level(2, (PARTS, ENDINGS), _part_and),
        Level(3, (PARTS, PARTS), _two_parts),
        Level(4, (SIZES, PARTS, PARTS), _parts_by_length),
        Level(5, (MARKS, PARTS, PARTS), _split_at),
    )),
    Family("sentences", ("change", "build"), (
        Level(1, (WORD_CHANGES,), _words_changed),
        Level(2, (WORD_TESTS,), _words_counted),
        Level(3, (WORD_TESTS, JOINTS), _words_kept),
        Level(4, (WORD_TESTS, WORD_CHANGES), _some_words_changed),
        Level(5, (WORD_TESTS, WORD_CHANGES, WORD_CHANGES, JOINTS), _words_either),
    )),
    Family("word-lists", ("pick", "score"), (
        Level(1, (WORD_TESTS,), _list_kept),
        Level(2, (WORD_TESTS, WORD_CHANGES), _list_changed),
        Level(3, (WORD_TESTS, range(2, 6)), _list_lengths),
        Level(4, (WORD_TESTS, WORD_CHANGES, ("none", "-", "")), _longest),
        Level(5, (WORD_TESTS, WORD_CHANGES, range(2, 5)), _words_sorted),
    )),
    Family("ciphers", ("change", "solve"), (
        Level(2, (range(1, 26),), _shift),
        Level(3, (range(1, 26), SETS), _shift_some),
        Level(4, (range(1, 26), SETS, MARKS), _shift_others),
        Level(5, (range(1, 26), range(1, 26), range(2, 5)), _shift_by_place),
    )),
)  # fmt: skip
