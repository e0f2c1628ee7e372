"""Families of katas about a list of numbers as a sequence: cut, put in order, walked through, searched.

In:  pieces.  Out: FAMILIES.
"""

from codeweft.tasks.katas.inputs import NUMBERS
from codeweft.tasks.katas.pieces import (
    CAPS,
    CHANGES,
    CONDITIONS,
    MODULI,
    PLAIN_CHANGES,
    RESIDUES,
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

SHORT = range(1, 6)
LONG = (2, 4, 6, 7)  # other lengths than those of families_text, where the same cuts are made of texts
ENDS = ("smallest", "largest")


def _list(says: str, python: str, javascript: str, *pieces: Piece) -> Kata:
    return one(NUMBERS, says, python, javascript, *pieces)


def _lines(says: str, python: tuple[str, ...], javascript: tuple[str, ...], *pieces: Piece) -> Kata:
    return several(NUMBERS, says, python, javascript, *pieces)


def _summand(expression: str) -> str:
    return f"({expression})" if " " in expression else expression


# --- pieces of the list -----------------------------------------------------------------------------------------------

CUTS = (
    *(Piece(f"the list without its first {plural(k, 'number')}", f"numbers[{k}:]",
    f"numbers.slice({k})") for k in LONG),
    *(Piece(f"the first {plural(k, 'number')} of the list", f"numbers[:{k}]", f"numbers.slice(0, {k})") for k in LONG),
    *(Piece(f"the list without its last {plural(k, 'number')}", f"numbers[:-{k}]",
    f"numbers.slice(0, -{k})") for k in LONG),
    *(Piece(f"the last {plural(k, 'number')} of the list", f"numbers[-{k}:]", f"numbers.slice(-{k})") for k in LONG),
    *(Piece(f"every {k}{'rd' if k == 3 else 'nd' if k == 2 else 'th'} number of the list, beginning with the first",
            f"numbers[::{k}]", f"numbers.filter((x, i) => i % {k} === 0)") for k in range(2, 6)),
    Piece("every number but the first and the last", "numbers[1:-1]", "numbers.slice(1, -1)"),
)  # fmt: skip


def _cut(cut: Piece) -> Kata:
    return _list(f"Return {cut.says}; take as much as there is if the list is too short.", cut.python, cut.javascript)


def _cut_two(first: Piece, second: Piece) -> Kata:
    says = f"Return a list: {first.says}, followed by {second.says}. Take as much as there is."
    return _list(says, f"{first.python} + {second.python}", f"[...{first.javascript}, ...{second.javascript}]")


def _cut_changed(cut: Piece, change: Piece) -> Kata:
    says = f"Take {cut.says}, as much as there is. Return the list of {change.said('x')} for each x in it."
    python = f"[{change.py()} for x in {cut.python}]"
    return _list(says, python, f"{cut.javascript}.map(x => {change.js()})", change)


def _cuts_compared(first: Piece, second: Piece, two: Piece) -> Kata:
    total = "{}.reduce((sum, x) => sum + x, 0)"
    return _lines(
        f"Let a be the sum of {first.says} and b the sum of {second.says} (of as many as there are). Return "
        f"{two.said('a', 'b')}.",
        (f"a = sum({first.python})", f"b = sum({second.python})", f"return {two.py('a', 'b')}"),
        (f"const a = {total.format(first.javascript)};", f"const b = {total.format(second.javascript)};",
         f"return {two.js('a', 'b')};"),
    )  # fmt: skip


def _cut_if_long(size: int, first: Piece, second: Piece) -> Kata:
    return _lines(
        f"If there are more than {size} numbers, return {first.says}; otherwise return {second.says}. Take as much as "
        "there is.",
        (f"if len(numbers) > {size}:", f"    return {first.python}", f"return {second.python}"),
        (f"if (numbers.length > {size}) return {first.javascript};", f"return {second.javascript};"),
    )  # fmt: skip


# --- order ------------------------------------------------------------------------------------------------------------

BY_SIZE = "sort((a, b) => a - b)"


def _sorted_cut(k: int, end: str) -> Kata:
    up = end == "smallest"
    says = f"Return the {end} {plural(k, 'number')} (fewer if there are fewer), sorted, the {end} first."
    python = f"sorted(numbers)[:{k}]" if up else f"sorted(numbers, reverse=True)[:{k}]"
    by = BY_SIZE if up else "sort((a, b) => b - a)"
    return _list(says, python, f"[...numbers].{by}.slice(0, {k})")


def _sorted_by(change: Piece) -> Kata:
    says = f"Return the numbers x sorted by {change.said('x')}, the smallest first; equal ones stay in their order."
    javascript = f"[...numbers].sort((a, b) => {change.js('a')} - {_summand(change.js('b'))})"
    return _list(says, f"sorted(numbers, key=lambda x: {change.py()})", javascript, change)


def _sorted_kept(condition: Piece, k: int, end: str) -> Kata:
    up = end == "smallest"
    says = (
        f"Of the numbers that are {condition.says}, return the {k} {end} (fewer if there are fewer), sorted, the "
        f"{end} first."
    )
    kept, by = f"x for x in numbers if {condition.py()}", BY_SIZE if up else "sort((a, b) => b - a)"
    python = f"sorted({kept})[:{k}]" if up else f"sorted(({kept}), reverse=True)[:{k}]"
    return _list(says, python, f"numbers.filter(x => {condition.js()}).{by}.slice(0, {k})", condition)


def _sorted_parts(condition: Piece, change: Piece) -> Kata:
    return _lines(
        f"Return first the numbers that are {condition.says}, sorted, the smallest first; then {change.said('x')} for "
        "each other number x, in their order.",
        (f"first = sorted(x for x in numbers if {condition.py()})",
         f"return first + [{change.py()} for x in numbers if not ({condition.py()})]"),
        (f"const first = numbers.filter(x => {condition.js()}).{BY_SIZE};",
         f"return [...first, ...numbers.filter(x => !({condition.js()})).map(x => {change.js()})];"),
        condition, change,
    )  # fmt: skip


def _unique_ranked(change: Piece, condition: Piece, k: int) -> Kata:
    return _lines(
        f"Collect {change.said('x')} for each number x that is {condition.says}, each value once. Return the {k} "
        "largest of these (fewer if there are fewer), the smallest first.",
        (f"values = {{{change.py()} for x in numbers if {condition.py()}}}", f"return sorted(values)[-{k}:]"),
        (f"const values = new Set(numbers.filter(x => {condition.js()}).map(x => {change.js()}));",
         f"return [...values].{BY_SIZE}.slice(-{k});"),
        change, condition,
    )  # fmt: skip


# --- one after the other ----------------------------------------------------------------------------------------------


def _running(start: int, two: Piece) -> Kata:
    return _lines(
        f"Start with a = {start}. For each number b, in order, set a to {two.said('a', 'b')}. Return the last a.",
        (f"a = {start}", "for b in numbers:", f"    a = {two.py('a', 'b')}", "return a"),
        (f"let a = {start};", f"for (const b of numbers) a = {two.js('a', 'b')};", "return a;"),
    )


def _running_kept(start: int, condition: Piece, two: Piece) -> Kata:
    return _lines(
        f"Start with a = {start}. For each number b that is {condition.says}, in order, set a to "
        f"{two.said('a', 'b')}. Return the list of all these a, without the first {start}.",
        (f"a, found = {start}, []", "for b in numbers:", f"    if {condition.py('b')}:",
         f"        a = {two.py('a', 'b')}", "        found.append(a)", "return found"),
        (f"let a = {start};", "const found = [];", "for (const b of numbers) {",
         f"  if (!({condition.js('b')})) continue;",
         f"  a = {two.js('a', 'b')};", "  found.push(a);", "}", "return found;"),
        condition,
    )  # fmt: skip


def _running_capped(start: int, cap: Piece, change: Piece) -> Kata:
    return _lines(
        f"Start with a total of {start}. For each number x, in order, add {change.said('x')} to the total and then "
        f"replace the total by {cap.said('it')}. Return the last total.",
        (f"total = {start}", "for x in numbers:", f"    total += {change.py()}", f"    total = {cap.py('total')}",
         "return total"),
        (f"let total = {start};", "for (const x of numbers) {", f"  total += {change.js()};",
         f"  total = {cap.js('total')};", "}", "return total;"),
        cap, change,
    )  # fmt: skip


def _running_reset(condition: Piece, change: Piece, end: str) -> Kata:
    best = "max" if end == "largest" else "min"
    return _lines(
        f"Start with a total of 0. For each number x, in order: if x is {condition.says}, set the total to 0; "
        f"otherwise add {change.said('x')} to it. Return the {end} total on the way, the 0 at the start included.",
        ("total = best = 0", "for x in numbers:",
         f"    total = 0 if {condition.py()} else total + {_summand(change.py())}",
         f"    best = {best}(best, total)", "return best"),
        ("let total = 0, best = 0;", "for (const x of numbers) {",
         f"  total = {condition.js()} ? 0 : total + {_summand(change.js())};", f"  best = Math.{best}(best, total);",
         "}",
         "return best;"),
        condition, change,
    )  # fmt: skip


# --- searching --------------------------------------------------------------------------------------------------------


def _first(condition: Piece, default: int) -> Kata:
    says = f"Return the first number that is {condition.says}, or {default} if there is none."
    python = f"next((x for x in numbers if {condition.py()}), {default})"
    return _list(says, python, f"numbers.find(x => {condition.js()}) ?? {default}", condition)


def _first_place(condition: Piece, change: Piece) -> Kata:
    says = (
        f"Return the index (from 0) of the first number x for which {change.said('x')} is {condition.says}, or -1 "
        f"if there is none."
    )
    python = f"next((i for i, x in enumerate(numbers) if {condition.py(change.py())}), -1)"
    return _list(says, python, f"numbers.findIndex(x => {condition.js(change.js())})", condition, change)


def _last(condition: Piece, default: int) -> Kata:
    says = f"Return the last number that is {condition.says}, or {default} if there is none."
    python = f"next((x for x in numbers[::-1] if {condition.py()}), {default})"
    return _list(says, python, f"[...numbers].reverse().find(x => {condition.js()}) ?? {default}", condition)


def _quantified(condition: Piece, least: int) -> Kata:
    says = f"Return whether at least {least} of the numbers are {condition.says}."
    python = f"sum(1 for x in numbers if {condition.py()}) >= {least}"
    return _list(says, python, f"numbers.filter(x => {condition.js()}).length >= {least}", condition)


def _until(condition: Piece, change: Piece, default: int) -> Kata:
    return _lines(
        f"Return the list of {change.said('x')} for each number x before the first one that is {condition.says}. If "
        f"none is, return [{default}].",
        ("found = []", "for x in numbers:", f"    if {condition.py()}:", "        return found",
         f"    found.append({change.py()})", f"return [{default}]"),
        ("const found = [];", "for (const x of numbers) {", f"  if ({condition.js()}) return found;",
         f"  found.push({change.js()});", "}", f"return [{default}];"),
        condition, change,
    )  # fmt: skip


def _nearest(target: int, condition: Piece, default: int) -> Kata:
    return _lines(
        f"Of the numbers that are {condition.says}, return the one nearest to {target}; of several equally near ones "
        f"the smallest. If there is none, return {default}.",
        (f"kept = [x for x in numbers if {condition.py()}]",
         f"return min(kept, key=lambda x: (abs(x - {target}), x), default={default})"),
        (f"const kept = numbers.filter(x => {condition.js()});",
         f"kept.sort((a, b) => Math.abs(a - {target}) - Math.abs(b - {target}) || a - b);",
         f"return kept.length ? kept[0] : {default};"),
        condition, turning(target),
    )  # fmt: skip


KEYS = (
    *MODULI,
    *(Piece(f"the distance of {{}} from {k}", f"abs(x - {k})", f"Math.abs(x - {k})", (k,)) for k in range(1, 13)),
)
STEPS = tuple(two for two in TWO if "product" not in two.says and "times" not in two.says)
FAMILIES = (
    Family("cuts", ("pick", "build"), (
        Level(1, (CUTS,), _cut),
        Level(2, (CUTS, CUTS), _cut_two),
        Level(3, (CUTS, PLAIN_CHANGES), _cut_changed),
        Level(4, (CUTS, CUTS, TWO), _cuts_compared),
        Level(5, (range(2, 7), CUTS, CUTS), _cut_if_long),
    )),
    Family("orders", ("pick", "change"), (
        Level(1, (range(1, 7), ENDS), _sorted_cut),
        Level(2, (KEYS,), _sorted_by),
        Level(3, (CONDITIONS, SHORT, ENDS), _sorted_kept),
        Level(4, (CONDITIONS, CHANGES), _sorted_parts),
        Level(5, (CHANGES, CONDITIONS, range(2, 5)), _unique_ranked),
    )),
    Family("running", ("compute", "score"), (
        Level(2, (range(0, 6), STEPS), _running),
        Level(3, (range(0, 6), CONDITIONS, STEPS), _running_kept),
        Level(4, (range(0, 6), CAPS, CHANGES), _running_capped),
        Level(5, (CONDITIONS, CHANGES, ENDS), _running_reset),
    )),
    Family("searches", ("pick", "solve"), (
        Level(1, (CONDITIONS, range(0, 3)), _first),
        Level(2, (CONDITIONS, range(-1, 2)), _last),
        Level(2, (CONDITIONS, range(2, 6)), _quantified),
        Level(3, (RESIDUES, CHANGES), _first_place),
        Level(4, (CONDITIONS, CHANGES, range(-1, 3)), _until),
        Level(5, (range(0, 13), CONDITIONS, range(-1, 2)), _nearest),
    )),
)  # fmt: skip
