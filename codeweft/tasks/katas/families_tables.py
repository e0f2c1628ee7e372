"""Families of katas about tables, tallies, groups, grids, intervals and texts that have to be taken apart.

In:  pieces.  Out: FAMILIES.
"""

from codeweft.tasks.katas.inputs import GRID, SPANS, TABLE, WORDS, assignments, fields
from codeweft.tasks.katas.pieces import (
    CHANGES,
    CONDITIONS,
    KEY_CHANGES,
    PLAIN_CHANGES,
    RESIDUES,
    SIZES,
    TWO,
    Family,
    Kata,
    Level,
    Piece,
    one,
    plural,
    several,
    turning,
)

ENDS = ("smallest", "largest")
JS_ENTRIES = "Object.entries(table)"


# --- tables -----------------------------------------------------------------------------------------------------------


def _keys(condition: Piece) -> Kata:
    says = f"The table maps names to numbers. Return the sorted list of the names whose number is {condition.says}."
    python = f"sorted(k for k, v in table.items() if {condition.py('v')})"
    return one(TABLE, says, python, f"Object.keys(table).filter(k => {condition.js('table[k]')}).sort()", condition)


def _values_changed(change: Piece) -> Kata:
    says = f"The table maps names to numbers. Return the table with {change.said('v')} in the place of each number v."
    python = f"{{k: {change.py('v')} for k, v in table.items()}}"
    javascript = f"Object.fromEntries({JS_ENTRIES}.map(([k, v]) => [k, {change.js('v')}]))"
    return one(TABLE, says, python, javascript, change)


def _entries_kept(condition: Piece, change: Piece) -> Kata:
    python = f"{{k: {change.py('v')} for k, v in table.items() if {condition.py('v')}}}"
    kept = f"{JS_ENTRIES}.filter(([k, v]) => {condition.js('v')})"
    javascript = f"Object.fromEntries({kept}.map(([k, v]) => [k, {change.js('v')}]))"
    says = (
        f"The table maps names to numbers. Keep the entries whose number v is {condition.says} and replace v by "
        f"{change.said('v')}. Return the new table."
    )
    return one(TABLE, says, python, javascript, condition, change)


def _total_by_name(size: int, change: Piece) -> Kata:
    python = f"sum(v if len(k) > {size} else {change.py('v')} for k, v in table.items())"
    javascript = f"{JS_ENTRIES}.reduce((sum, [k, v]) => sum + (k.length > {size} ? v : {change.js('v')}), 0)"
    says = (
        f"The table maps names to numbers. Add up v for each name of more than {size} letters and {change.said('v')} "
        "for each other name, where v is its number. Return the sum."
    )
    return one(TABLE, says, python, javascript, change)


def _best_name(condition: Piece, change: Piece, end: str) -> Kata:
    best, sign = ("max", ">") if end == "largest" else ("min", "<")
    return several(
        TABLE,
        f"The table maps names to numbers. Of the names whose number v is {condition.says}, return the one with the "
        f"{end} {change.said('v')}, the first in the alphabet of several; return \"\" if there is none.",
        (f"kept = sorted(k for k, v in table.items() if {condition.py('v')})",
         f"return {best}(kept, key=lambda k: {change.py('table[k]')}, default=\"\")"),
        (f"const kept = Object.keys(table).filter(k => {condition.js('table[k]')}).sort();",
         f"const value = k => {change.js('table[k]')};",
         f"return kept.reduce((best, k) => best === \"\" || value(k) {sign} value(best) ? k : best, \"\");"),
        condition, change,
    )  # fmt: skip


# --- tallies and groups -----------------------------------------------------------------------------------------------

WORD_KEYS = (
    *(Piece(f"its first {k} letters", f"w[:{k}]", f"w.slice(0, {k})") for k in range(1, 4)),
    *(Piece(f"its last {k} letters", f"w[-{k}:]", f"w.slice(-{k})") for k in range(1, 4)),
    Piece("its number of letters as a text", "str(len(w))", "String(w.length)"),
    Piece("the word itself", "w", "w"),
    Piece("the word backwards", "w[::-1]", '[...w].reverse().join("")'),
    Piece("the word in capitals", "w.upper()", "w.toUpperCase()"),
    *(Piece(f'its first letter and "{mark}"', f'w[0] + "{mark}"', f'w[0] + "{mark}"') for mark in "-*!:"),
)  # fmt: skip
WORD_LIMITS = tuple(
    Piece(f"{name} than {k} letters", f"len(w) {sign} {k}", f"w.length {sign} {k}", (k,))
    for k in range(2, 7)
    for name, sign in (("more", ">"), ("fewer", "<"))
)


def _tally(key: Piece, start: int) -> Kata:
    more = f" plus {start}" if start else ""
    return several(
        WORDS,
        f"Give each word a key: {key.says}. Return a table from each key to the number of its words{more}.",
        ("counts = {}", "for w in words:", f"    k = {key.python}", f"    counts[k] = counts.get(k, {start}) + 1",
         "return counts"),
        ("const counts = {};", "for (const w of words) {", f"  const k = {key.javascript};",
         f"  counts[k] = (counts[k] ?? {start}) + 1;", "}", "return counts;"),
        key,
    )  # fmt: skip


def _tally_lengths(key: Piece, limit: Piece, factor: int) -> Kata:
    return several(
        WORDS,
        f"Give each word of {limit.says} a key: {key.says}. Return a table from each key to {factor} times the number "
        "of letters of all its words.",
        ("sums = {}", "for w in words:", f"    if {limit.python}:", f"        k = {key.python}",
         f"        sums[k] = sums.get(k, 0) + {factor} * len(w)", "return sums"),
        ("const sums = {};", "for (const w of words) {", f"  const k = {key.javascript};",
         f"  if ({limit.javascript}) sums[k] = (sums[k] ?? 0) + {factor} * w.length;", "}", "return sums;"),
        key, limit,
    )  # fmt: skip


def _often(key: Piece, least: int, limit: Piece) -> Kata:
    return several(
        WORDS,
        f"Give each word of {limit.says} a key: {key.says}. Return the sorted list of the keys that come up at least "
        f"{least} times, each once.",
        (f"keys = [{key.python} for w in words if {limit.python}]",
         f"return sorted({{k for k in keys if keys.count(k) >= {least}}})"),
        (f"const keys = words.filter(w => {limit.javascript}).map(w => {key.javascript});",
         f"const often = keys.filter(k => keys.filter(other => other === k).length >= {least});",
         "return [...new Set(often)].sort();"),
        key, limit,
    )  # fmt: skip


def _group(key: Piece, limit: Piece) -> Kata:
    return several(
        WORDS,
        f"Give each word of {limit.says} a key: {key.says}. Return a table from each key to the list of its words, in "
        "their order.",
        ("groups = {}", "for w in words:", f"    if {limit.python}:",
         f"        groups.setdefault({key.python}, []).append(w)", "return groups"),
        ("const groups = {};", "for (const w of words) {", f"  const k = {key.javascript};",
         f"  if ({limit.javascript}) (groups[k] ??= []).push(w);", "}", "return groups;"),
        key, limit,
    )  # fmt: skip


GROUP_VALUES = (
    Piece("the letter count of the longest of its words", "max(map(len, g))", "Math.max(...g.map(w => w.length))"),
    Piece("the letter count of the shortest of its words", "min(map(len, g))", "Math.min(...g.map(w => w.length))"),
    Piece("the first of its words", "g[0]", "g[0]"),
    Piece("the last of its words", "g[-1]", "g[g.length - 1]"),
    Piece("its words with a + between them", '"+".join(g)', 'g.join("+")'),
    Piece("its words with nothing between them", '"".join(g)', 'g.join("")'),
    Piece("its words, sorted", "sorted(g)", "[...g].sort()"),
)  # fmt: skip


def _group_values(key: Piece, value: Piece, least: int) -> Kata:
    return several(
        WORDS,
        f"Give each word a key: {key.says}. Return a table from each key of at least {plural(least, 'word')} to "
        f"{value.says}.",
        ("groups = {}", "for w in words:", f"    groups.setdefault({key.python}, []).append(w)",
         f"return {{k: {value.python} for k, g in groups.items() if len(g) >= {least}}}"),
        ("const groups = {};", f"for (const w of words) (groups[{key.javascript}] ??= []).push(w);",
         f"const kept = Object.entries(groups).filter(([k, g]) => g.length >= {least});",
         f"return Object.fromEntries(kept.map(([k, g]) => [k, {value.javascript}]));"),
        key,
    )  # fmt: skip


# --- grids ------------------------------------------------------------------------------------------------------------

LINES = (
    Piece("the sum", "sum(row)", "row.reduce((sum, x) => sum + x, 0)"),
    Piece("the largest number", "max(row)", "Math.max(...row)"),
    Piece("the smallest number", "min(row)", "Math.min(...row)"),
    Piece("the first number", "row[0]", "row[0]"),
    Piece("the last number", "row[-1]", "row[row.length - 1]"),
)  # fmt: skip
JS_COLUMNS = "grid[0].map((_, i) => grid.map(line => line[i]))"


def _rows(line: Piece, change: Piece) -> Kata:
    says = f"Return a list: for each row of the grid, {change.said(f'{line.says} of the row')}."
    python, javascript = f"[{change.py(line.python)} for row in grid]", f"grid.map(row => {change.js(line.javascript)})"
    return one(GRID, says, python, javascript, change)


def _columns(line: Piece, change: Piece) -> Kata:
    says = f"Return a list: for each column of the grid, {change.said(f'{line.says} of the column')}."
    python = f"[{change.py(line.python)} for row in zip(*grid)]"
    return one(GRID, says, python, f"{JS_COLUMNS}.map(row => {change.js(line.javascript)})", change)


def _cells_counted(condition: Piece) -> Kata:
    says = f"Return how many numbers in the grid are {condition.says}."
    python = f"sum(1 for row in grid for x in row if {condition.py()})"
    return one(GRID, says, python, f"grid.flat().filter(x => {condition.js()}).length", condition)


def _cells_changed(condition: Piece, change: Piece) -> Kata:
    says = f"Return the grid with {change.said('x')} in the place of each number x that is {condition.says}."
    python = f"[[{change.py()} if {condition.py()} else x for x in row] for row in grid]"
    javascript = f"grid.map(row => row.map(x => {condition.js()} ? {change.js()} : x))"
    return one(GRID, says, python, javascript, condition, change)


def _rows_kept(line: Piece, condition: Piece, change: Piece) -> Kata:
    says = (
        f"Keep the rows of the grid of which {line.says} is {condition.says}. Return the list of these rows, with "
        f"{change.said('x')} in the place of each number x."
    )
    python = f"[[{change.py()} for x in row] for row in grid if {condition.py(line.python)}]"
    javascript = f"grid.filter(row => {condition.js(line.javascript)}).map(row => row.map(x => {change.js()}))"
    return one(GRID, says, python, javascript, condition, change)


def _transposed(line: Piece, condition: Piece, other: Piece) -> Kata:
    return several(
        GRID,
        f"Keep the columns of the grid of which {line.says} is {condition.says}. Return the sum of "
        f"{other.says} of each kept column (0 if none is kept).",
        (f"kept = [row for row in zip(*grid) if {condition.py(line.python)}]",
         f"return sum({other.python} for row in kept)"),
        (f"const kept = {JS_COLUMNS}.filter(row => {condition.js(line.javascript)});",
         f"return kept.map(row => {other.javascript}).reduce((total, x) => total + x, 0);"),
        condition,
    )  # fmt: skip


# --- intervals --------------------------------------------------------------------------------------------------------

SPANNED = "Each span is a pair of a start and an end, both included."


def _spans_measured(two: Piece) -> Kata:
    says = f"{SPANNED} Return the list of {two.said('b', 'a')} for each span with start a and end b."
    return one(SPANS, says, f"[{two.py('b', 'a')} for a, b in spans]", f"spans.map(([a, b]) => {two.js('b', 'a')})")


def _spans_with(point: int) -> Kata:
    says = f"{SPANNED} Return the spans that contain {point}, in their order."
    python = f"[[a, b] for a, b in spans if a <= {point} <= b]"
    javascript = f"spans.filter(([a, b]) => a <= {point} && {point} <= b)"
    return one(SPANS, says, python, javascript, turning(point))


def _spans_kept(length: Piece, place: Piece) -> Kata:
    says = f"{SPANNED} Return the spans whose end minus start is {length.says} and whose start is {place.says}."
    python = f"[[a, b] for a, b in spans if {length.py('b - a')} and {place.py('a')}]"
    javascript = f"spans.filter(([a, b]) => ({length.js('b - a')}) && ({place.js('a')}))"
    return one(SPANS, says, python, javascript, place)


def _spans_clipped(low: int, width: int) -> Kata:
    high = low + width
    return several(
        SPANS,
        f"{SPANNED} Cut away what lies below {low} or above {high}, and return the list of the spans of which at least "
        "one number is left, in their order.",
        (f"cut = [[max(a, {low}), min(b, {high})] for a, b in spans]", "return [[a, b] for a, b in cut if a <= b]"),
        (f"const cut = spans.map(([a, b]) => [Math.max(a, {low}), Math.min(b, {high})]);",
         "return cut.filter(([a, b]) => a <= b);"),
        turning(low, high),
    )  # fmt: skip


def _spans_merged(gap: int, length: Piece) -> Kata:
    return several(
        SPANS,
        f"{SPANNED} Go through the spans sorted by start; join one to the span before it if it starts at most {gap} "
        f"after that one's end. Return the joined spans whose end minus start is {length.says}.",
        ("merged = []", "for a, b in sorted(spans):", f"    if merged and a - merged[-1][1] <= {gap}:",
         "        merged[-1][1] = max(merged[-1][1], b)", "    else:", "        merged.append([a, b])",
         f"return [[a, b] for a, b in merged if {length.py('b - a')}]"),
        ("const merged = [];", "for (const [a, b] of [...spans].sort((p, q) => p[0] - q[0] || p[1] - q[1])) {",
         "  const last = merged[merged.length - 1];",
         f"  if (last && a - last[1] <= {gap}) last[1] = Math.max(last[1], b);", "  else merged.push([a, b]);", "}",
         f"return merged.filter(([a, b]) => {length.js('b - a')});"),
    )  # fmt: skip


# --- texts to take apart ----------------------------------------------------------------------------------------------

SEPARATORS = (",", ";", "|", ":", "/")


def _fields_changed(separator: str, change: Piece) -> Kata:
    says = (
        f'The text is whole numbers with "{separator}" between them. Return the list of {change.said("x")} for each '
        f"number x."
    )
    python = f'[{change.py("int(s)")} for s in text.split("{separator}")]'
    javascript = f'text.split("{separator}").map(Number).map(x => {change.js()})'
    return one(fields(separator), says, python, javascript, change)


def _fields_sum(separator: str, condition: Piece) -> Kata:
    says = (
        f'The text is whole numbers with "{separator}" between them. Return the sum of those that are {condition.says}.'
    )
    python = f'sum(int(s) for s in text.split("{separator}") if {condition.py("int(s)")})'
    javascript = f'text.split("{separator}").map(Number).filter(x => {condition.js()}).reduce((sum, x) => sum + x, 0)'
    return one(fields(separator), says, python, javascript, condition)


def _fields_joined(separator: str, joint: str, condition: Piece, change: Piece) -> Kata:
    return several(
        fields(separator),
        f'The text is whole numbers with "{separator}" between them. For each number x that is {condition.says}, take '
        f'{change.said("x")}. Return these as a text with "{joint}" between them.',
        (f'found = [{change.py()} for x in map(int, text.split("{separator}")) if {condition.py()}]',
         f'return "{joint}".join(map(str, found))'),
        (f'const found = text.split("{separator}").map(Number).filter(x => {condition.js()});',
         f'return found.map(x => {change.js()}).join("{joint}");'),
        condition, change,
    )  # fmt: skip


def _parsed(separator: str, equals: str, change: Piece) -> Kata:
    return several(
        assignments(separator, equals),
        f'The text is parts like name{equals}7 with "{separator}" between them. Return a table from each name to '
        f"{change.said('v')}, where v is its number.",
        (f'parts = [part.split("{equals}") for part in text.split("{separator}")]',
         f"return {{k: {change.py('int(v)')} for k, v in parts}}"),
        (f'const parts = text.split("{separator}").map(part => part.split("{equals}"));',
         f"return Object.fromEntries(parts.map(([k, v]) => [k, {change.js('Number(v)')}]));"),
        change,
    )  # fmt: skip


def _parsed_kept(separator: str, equals: str, condition: Piece, limit: int) -> Kata:
    return several(
        assignments(separator, equals),
        f'The text is parts like name{equals}7 with "{separator}" between them. Return the sorted list of the names of '
        f"more than {limit} letters whose number is {condition.says}.",
        (f'parts = [part.split("{equals}") for part in text.split("{separator}")]',
         f"return sorted(k for k, v in parts if len(k) > {limit} and {condition.py('int(v)')})"),
        (f'const parts = text.split("{separator}").map(part => part.split("{equals}"));',
         f"const kept = parts.filter(([k, v]) => k.length > {limit} && ({condition.js('Number(v)')}));",
         "return kept.map(([k]) => k).sort();"),
        condition,
    )  # fmt: skip


GAPS = tuple(two for two in TWO if "product" not in two.says)
FAMILIES = (
    Family("tables", ("pick", "build"), (
        Level(1, (CONDITIONS,), _keys),
        Level(2, (CHANGES,), _values_changed),
        Level(3, (CONDITIONS, CHANGES), _entries_kept),
        Level(4, (range(3, 4), CHANGES), _total_by_name),
        Level(5, (CONDITIONS, KEY_CHANGES, ENDS), _best_name),
    )),
    Family("tallies", ("count", "build"), (
        Level(2, (WORD_KEYS, range(0, 4)), _tally),
        Level(3, (WORD_KEYS, WORD_LIMITS, range(2, 6)), _tally_lengths),
        Level(4, (WORD_KEYS, range(2, 4), WORD_LIMITS), _often),
    )),
    Family("groups", ("build", "solve"), (
        Level(3, (WORD_KEYS, WORD_LIMITS), _group),
        Level(5, (WORD_KEYS, GROUP_VALUES, range(1, 4)), _group_values),
    )),
    Family("grids", ("compute", "build"), (
        Level(1, (CONDITIONS,), _cells_counted),
        Level(2, (LINES, PLAIN_CHANGES), _rows),
        Level(3, (LINES, CHANGES), _columns),
        Level(3, (CONDITIONS, PLAIN_CHANGES), _cells_changed),
        Level(4, (LINES, CONDITIONS, PLAIN_CHANGES), _rows_kept),
        Level(5, (LINES, CONDITIONS, LINES), _transposed),
    )),
    Family("spans", ("pick", "solve"), (
        Level(1, (GAPS,), _spans_measured),
        Level(2, (range(-10, 21),), _spans_with),
        Level(3, (SIZES, RESIDUES), _spans_kept),
        Level(4, (range(-9, 10), range(3, 15)), _spans_clipped),
        Level(5, (range(0, 7), SIZES + RESIDUES), _spans_merged),
    )),
    Family("parsing", ("solve", "build"), (
        Level(2, (SEPARATORS, PLAIN_CHANGES), _fields_changed),
        Level(2, (SEPARATORS, CONDITIONS), _fields_sum),
        Level(3, (SEPARATORS, ("-", " ", "+"), CONDITIONS, CHANGES), _fields_joined),
        Level(4, (SEPARATORS[:3], ("=", ":", "->"), CHANGES), _parsed),
        Level(5, (SEPARATORS[:3], ("=", ":", "->"), CONDITIONS, range(3, 4)), _parsed_kept),
    )),
)  # fmt: skip
