"""Families of katas about one or two numbers: formulas, cases, digits, recurrences, loops, ranges.

In:  pieces.  Out: FAMILIES.
"""

from dataclasses import replace

from codeweft.tasks.katas.inputs import COUNT, NATURAL, NUMBER, PAIR, SMALL
from codeweft.tasks.katas.pieces import (
    BENT_CHANGES,
    CHANGES,
    CONDITIONS,
    DIGITS,
    LIMITS,
    MODULI,
    NEAR_ZERO,
    PLAIN_CHANGES,
    PRODUCTS,
    RELATIONS,
    RESIDUES,
    SIZES,
    STEADY_CHANGES,
    SUMS,
    TWO,
    Family,
    Kata,
    Level,
    Piece,
    one,
    several,
)

# --- formulas ---------------------------------------------------------------------------------------------------------


def _formula(change: Piece) -> Kata:
    return one(NUMBER, f"Return {change.said('n')}.", change.py("n"), change.js("n"), change)


def _formula_of_formula(first: Piece, second: Piece) -> Kata:
    says = f"Return {second.said(first.said('n'))}."
    return one(NUMBER, says, second.py(first.py("n")), second.js(first.js("n")), first, second)


def _formulas_joined(first: Piece, second: Piece, join: Piece) -> Kata:
    says = f"Return {join.said(first.said('n'), second.said('n'))}."
    python, javascript = join.py(first.py("n"), second.py("n")), join.js(first.js("n"), second.js("n"))
    return one(NUMBER, says, python, javascript, first, second)


def _formula_in_steps(first: Piece, second: Piece, join: Piece) -> Kata:
    return several(
        NUMBER,
        f"Let r be {first.said('n')}. Return {join.said('r', second.said('n'))}.",
        (f"r = {first.py('n')}", f"return {join.py('r', second.py('n'))}"),
        (f"const r = {first.js('n')};", f"return {join.js('r', second.js('n'))};"),
        first, second,
    )  # fmt: skip


def _formula_in_more_steps(first: Piece, second: Piece, third: Piece, join: Piece) -> Kata:
    return several(
        NUMBER,
        f"Let r be {first.said('n')}, and s be {second.said('r')}. Return {join.said('s', third.said('n'))}.",
        (f"r = {first.py('n')}", f"s = {second.py('r')}", f"return {join.py('s', third.py('n'))}"),
        (f"const r = {first.js('n')};", f"const s = {second.js('r')};", f"return {join.js('s', third.js('n'))};"),
        first, second, third,
    )  # fmt: skip


# --- cases ------------------------------------------------------------------------------------------------------------


def _whether(condition: Piece) -> Kata:
    return one(NUMBER, f"Return whether n is {condition.says}.", condition.py("n"), condition.js("n"), condition)


def _if(condition: Piece, change: Piece) -> Kata:
    says = f"If n is {condition.says}, return {change.said('n')}; otherwise return n."
    python = f"{change.py('n')} if {condition.py('n')} else n"
    return one(NUMBER, says, python, f"{condition.js('n')} ? {change.js('n')} : n", condition, change)


def _if_else(condition: Piece, first: Piece, second: Piece) -> Kata:
    says = f"If n is {condition.says}, return {first.said('n')}; otherwise return {second.said('n')}."
    python = f"{first.py('n')} if {condition.py('n')} else {second.py('n')}"
    javascript = f"{condition.js('n')} ? {first.js('n')} : {second.js('n')}"
    return one(NUMBER, says, python, javascript, condition, first, second)


def _three_cases(size: Piece, residue: Piece, first: Piece, second: Piece, third: Piece) -> Kata:
    return several(
        NUMBER,
        f"If n is {size.says}, return {first.said('n')}. Otherwise, if n is {residue.says}, return "
        f"{second.said('n')}. In all other cases return {third.said('n')}.",
        (f"if {size.py('n')}:", f"    return {first.py('n')}",
         f"return {second.py('n')} if {residue.py('n')} else {third.py('n')}"),
        (f"if ({size.js('n')}) return {first.js('n')};",
         f"return {residue.js('n')} ? {second.js('n')} : {third.js('n')};"),
        size, residue, first, second, third,
    )  # fmt: skip


def _both_one_or_none(size: Piece, residue: Piece, first: Piece, second: Piece, third: Piece) -> Kata:
    return several(
        NUMBER,
        f"If n is {size.says} and also {residue.says}, return {first.said('n')}. If only one of the two holds, "
        f"return {second.said('n')}. If none holds, return {third.said('n')}.",
        (f"if {size.py('n')} and {residue.py('n')}:", f"    return {first.py('n')}",
         f"if {size.py('n')} or {residue.py('n')}:", f"    return {second.py('n')}", f"return {third.py('n')}"),
        (f"if (({size.js('n')}) && {residue.js('n')}) return {first.js('n')};",
         f"if (({size.js('n')}) || {residue.js('n')}) return {second.js('n')};", f"return {third.js('n')};"),
        size, residue, first, second, third,
    )  # fmt: skip


# --- two numbers ------------------------------------------------------------------------------------------------------


def _pair(two: Piece) -> Kata:
    return one(PAIR, f"Return {two.said('a', 'b')}.", two.py("a", "b"), two.js("a", "b"))


def _pair_changed(two: Piece, change: Piece) -> Kata:
    says = f"Return {change.said(two.said('a', 'b'))}."
    return one(PAIR, says, change.py(two.py("a", "b")), change.js(two.js("a", "b")), change, NEAR_ZERO)


def _pair_of_changes(two: Piece, first: Piece, second: Piece) -> Kata:
    says = f"Return {two.said(first.said('a'), second.said('b'))}."
    python, javascript = two.py(first.py("a"), second.py("b")), two.js(first.js("a"), second.js("b"))
    return one(PAIR, says, python, javascript, first, second)


def _pair_by_case(condition: Piece, first: Piece, second: Piece) -> Kata:
    return one(
        PAIR,
        f"If a is {condition.says}, return {first.said('a', 'b')}; otherwise return {second.said('a', 'b')}.",
        f"{first.py('a', 'b')} if {condition.py('a')} else {second.py('a', 'b')}",
        f"{condition.js('a')} ? {first.js('a', 'b')} : {second.js('a', 'b')}",
        condition,
    )


def _pair_compared(relation: Piece, change: Piece, first: Piece, second: Piece) -> Kata:
    found = several(
        PAIR,
        f"If {relation.said(change.said('a'), 'b')}, return {first.said('a', 'b')}; otherwise return "
        f"{second.said('a', 'b')}.",
        (f"if {relation.py(change.py('a'), 'b')}:", f"    return {first.py('a', 'b')}",
         f"return {second.py('a', 'b')}"),
        (f"if ({relation.js(change.js('a'), 'b')}) return {first.js('a', 'b')};", f"return {second.js('a', 'b')};"),
        change,
    )  # fmt: skip
    turns = (*(x for x in change.hot if isinstance(x, int)), 2, -3, 7)[-4:]
    return replace(found, edges=tuple((x, change.at(x) + beside) for x in turns for beside in (-1, 0, 1)))


# --- digits -----------------------------------------------------------------------------------------------------------
# "digit" reads like a number here: d in both languages

JS_DIGITS = "[...String(n)].map(Number)"


def _digit_count(condition: Piece) -> Kata:
    says = f"Return how many decimal digits of n are {condition.says}."
    python = f"sum(1 for d in str(n) if {condition.py('int(d)')})"
    return one(NATURAL, says, python, f"{JS_DIGITS}.filter(d => {condition.js('d')}).length", condition)


def _digit_sum(condition: Piece) -> Kata:
    says = f"Return the sum of the decimal digits of n that are {condition.says}."
    python = f"sum(int(d) for d in str(n) if {condition.py('int(d)')})"
    javascript = f"{JS_DIGITS}.filter(d => {condition.js('d')}).reduce((sum, d) => sum + d, 0)"
    return one(NATURAL, says, python, javascript, condition)


def _digit_sum_changed(condition: Piece, change: Piece) -> Kata:
    python = f"sum({change.py('int(d)')} for d in str(n) if {condition.py('int(d)')})"
    javascript = f"{JS_DIGITS}.filter(d => {condition.js('d')}).reduce((sum, d) => sum + {change.js('d')}, 0)"
    says = f"For each decimal digit d of n that is {condition.says}, take {change.said('d')}; return the sum of these."
    return one(NATURAL, says, python, javascript, condition, change)


def _digits_kept(condition: Piece, change: Piece) -> Kata:
    return several(
        NATURAL,
        f"Remove the decimal digits of n that are {condition.says}, and let r be the number that the others form in "
        f"their order (0 if there are none). Return {change.said('r')}.",
        (f'kept = "".join(d for d in str(n) if not ({condition.py("int(d)")}))',
         "r = int(kept) if kept else 0", f"return {change.py('r')}"),
        (f"const r = Number([...String(n)].filter(d => !({condition.js('Number(d)')})).join(''));",
         f"return {change.js('r')};"),
        condition, change,
    )  # fmt: skip


def _digits_weighed(condition: Piece, first: Piece, second: Piece) -> Kata:
    return several(
        NATURAL,
        f"Go through the decimal digits d of n from left to right, starting with a total of 0. If d is "
        f"{condition.says}, add {first.said('d')} to the total; otherwise subtract {second.said('d')}. Return the "
        "total.",
        ("total = 0", "for d in map(int, str(n)):",
         f"    total += {first.py('d')} if {condition.py('d')} else -({second.py('d')})", "return total"),
        ("let total = 0;", f"for (const d of {JS_DIGITS}) {{",
         f"  total += {condition.js('d')} ? {first.js('d')} : -({second.js('d')});", "}", "return total;"),
        condition, first, second,
    )  # fmt: skip


# --- recurrences ------------------------------------------------------------------------------------------------------


def _recurrence(start: int, change: Piece) -> Kata:
    return several(
        SMALL,
        f"The value for 0 is {start}. Each later value is {change.said('the value before it')}. Return the value for "
        "n.",
        ("if n == 0:", f"    return {start}", f"return {change.py('solve(n - 1)')}"),
        (f"if (n === 0) return {start};", f"return {change.js('solve(n - 1)')};"),
    )


def _recurrence_with_n(start: int, factor: int, change: Piece) -> Kata:
    step = change.said("n")
    return several(
        SMALL,
        f"The value for 0 is {start}. The value for n is {factor} times the value for n - 1, plus "
        f"{f'({step})' if ' ' in step else step}. Return the value for n.",
        ("if n == 0:", f"    return {start}", f"return {factor} * solve(n - 1) + {_summand(change.py('n'))}"),
        (f"if (n === 0) return {start};", f"return {factor} * solve(n - 1) + {_summand(change.js('n'))};"),
    )


def _summand(expression: str) -> str:
    return f"({expression})" if " " in expression and not expression.startswith("Math") else expression


def _recurrence_of_two(zero: int, first: int, near: int, far: int) -> Kata:
    return several(
        SMALL,
        f"The value for 0 is {zero} and for 1 is {first}. Each later value is {near} times the one before it plus "
        f"{far} times the one before that. Return the value for n.",
        ("if n < 2:", f"    return {first} if n == 1 else {zero}",
         f"return {near} * solve(n - 1) + {far} * solve(n - 2)"),
        (f"if (n < 2) return n === 1 ? {first} : {zero};", f"return {near} * solve(n - 1) + {far} * solve(n - 2);"),
    )  # fmt: skip


def _recurrence_by_case(start: int, residue: Piece, first: Piece, second: Piece) -> Kata:
    return several(
        SMALL,
        f"The value for 0 is {start}. If n is {residue.says}, its value is {first.said('the value for n - 1')}; for "
        f"other n above 0 it is {second.said('the value for n - 1')}. Return the value for n.",
        ("if n == 0:", f"    return {start}", "before = solve(n - 1)",
         f"return {first.py('before')} if {residue.py('n')} else {second.py('before')}"),
        (f"if (n === 0) return {start};", "const before = solve(n - 1);",
         f"return {residue.js('n')} ? {first.js('before')} : {second.js('before')};"),
    )  # fmt: skip


# --- loops ------------------------------------------------------------------------------------------------------------


def _subtract_until(step: int, limit: int) -> Kata:
    return several(
        COUNT,
        f"Subtract {step} from n again and again until the result is at most {limit}. Return the result.",
        (f"while n > {limit}:", f"    n -= {step}", "return n"),
        (f"while (n > {limit}) n -= {step};", "return n;"),
    )


def _count_halvings(divisor: int, limit: int, more: int) -> Kata:
    return several(
        COUNT,
        f"As long as n is greater than {limit}, divide it by {divisor}, rounding down. Return {more} plus the number "
        "of divisions.",
        (f"steps = {more}", f"while n > {limit}:", f"    n //= {divisor}", "    steps += 1", "return steps"),
        (f"let steps = {more};", f"while (n > {limit}) {{", f"  n = Math.floor(n / {divisor});", "  steps += 1;", "}",
         "return steps;"),
    )  # fmt: skip


def _steps_by_case(divisor: int, step: int, limit: int) -> Kata:
    return several(
        COUNT,
        f"As long as n is greater than {limit}: if it is divisible by {divisor}, divide it by {divisor}, otherwise "
        f"subtract {step}. Return how many steps that takes.",
        ("steps = 0", f"while n > {limit}:",
         f"    n = n // {divisor} if n % {divisor} == 0 else n - {step}", "    steps += 1", "return steps"),
        ("let steps = 0;", f"while (n > {limit}) {{", f"  n = n % {divisor} === 0 ? n / {divisor} : n - {step};",
         "  steps += 1;", "}", "return steps;"),
    )  # fmt: skip


def _path_by_case(divisor: int, step: int, limit: int, change: Piece) -> Kata:
    return several(
        COUNT,
        f"As long as n is greater than {limit}: note {change.said('n')}; then, if n is divisible by {divisor}, divide "
        f"it by {divisor}, otherwise subtract {step}. Return the list of notes.",
        ("notes = []", f"while n > {limit}:", f"    notes.append({change.py('n')})",
         f"    n = n // {divisor} if n % {divisor} == 0 else n - {step}", "return notes"),
        ("const notes = [];", f"while (n > {limit}) {{", f"  notes.push({change.js('n')});",
         f"  n = n % {divisor} === 0 ? n / {divisor} : n - {step};", "}", "return notes;"),
        change,
    )  # fmt: skip


# --- ranges -----------------------------------------------------------------------------------------------------------

JS_RANGE = "Array.from({ length: n }, (_, i) => i + 1)"


def _range_changed(change: Piece) -> Kata:
    says = f"Return the list of {change.said('i')} for i from 1 to n."
    javascript = f"Array.from({{ length: n }}, (_, i) => {change.js('i + 1')})"
    return one(SMALL, says, f"[{change.py('i')} for i in range(1, n + 1)]", javascript, change)


def _range_kept(condition: Piece, change: Piece) -> Kata:
    says = f"For each i from 1 to n that is {condition.says}, take {change.said('i')}. Return the list of these."
    python = f"[{change.py('i')} for i in range(1, n + 1) if {condition.py('i')}]"
    javascript = f"{JS_RANGE}.filter(i => {condition.js('i')}).map(i => {change.js('i')})"
    return one(SMALL, says, python, javascript, condition, change)


def _range_sum(condition: Piece, change: Piece, other: Piece) -> Kata:
    python = f"sum({change.py('i')} if {condition.py('i')} else {other.py('i')} for i in range(1, n + 1))"
    javascript = f"{JS_RANGE}.reduce((sum, i) => sum + ({condition.js('i')} ? {change.js('i')} : {other.js('i')}), 0)"
    says = (
        f"For each i from 1 to n take {change.said('i')} if i is {condition.says}, else {other.said('i')}. "
        "Return the sum of these."
    )
    return one(SMALL, says, python, javascript, condition, change, other)


def _range_pairs(two: Piece, condition: Piece) -> Kata:
    says = (
        f"Return how many pairs (a, b) with 1 <= a <= b <= n there are for which {two.said('a', 'b')} is "
        f"{condition.says}."
    )
    value, javascript = two.py("a", "b"), two.js("a", "b")
    return several(
        SMALL, says,
        ("pairs = 0", "for a in range(1, n + 1):", "    for b in range(a, n + 1):",
         f"        pairs += {condition.py(value)}", "return pairs"),
        ("let pairs = 0;", "for (let a = 1; a <= n; a++) {", "  for (let b = a; b <= n; b++) {",
         f"    if ({condition.js(javascript)}) pairs += 1;", "  }", "}", "return pairs;"),
    )  # fmt: skip


FORMS = tuple(piece for piece in BENT_CHANGES if piece.says != "the square of {}")
FAMILIES = (
    Family("formulas", ("compute", "solve"), (
        Level(1, (CHANGES,), _formula),
        Level(2, (PLAIN_CHANGES, BENT_CHANGES), _formula_of_formula),
        Level(3, (BENT_CHANGES, CHANGES, TWO), _formulas_joined),
        Level(4, (BENT_CHANGES, BENT_CHANGES, TWO), _formula_in_steps),
        Level(5, (PLAIN_CHANGES, FORMS, BENT_CHANGES, TWO), _formula_in_more_steps),
    )),
    Family("cases", ("change", "solve"), (
        Level(1, (CONDITIONS,), _whether),
        Level(2, (CONDITIONS, PLAIN_CHANGES), _if),
        Level(3, (CONDITIONS, CHANGES, CHANGES), _if_else),
        Level(4, (SIZES, RESIDUES, CHANGES, CHANGES, CHANGES), _three_cases),
        Level(5, (SIZES, RESIDUES, STEADY_CHANGES, STEADY_CHANGES, STEADY_CHANGES), _both_one_or_none),
    )),
    Family("pairs", ("compute", "score"), (
        Level(1, (TWO,), _pair),
        Level(2, (TWO, CHANGES), _pair_changed),
        Level(3, (TWO, CHANGES, CHANGES), _pair_of_changes),
        Level(4, (CONDITIONS, TWO, TWO), _pair_by_case),
        Level(5, (RELATIONS, CHANGES, TWO, TWO), _pair_compared),
    )),
    Family("digits", ("count", "score"), (
        Level(2, (DIGITS,), _digit_count),
        Level(2, (DIGITS,), _digit_sum),
        Level(3, (DIGITS, PLAIN_CHANGES), _digit_sum_changed),
        Level(4, (DIGITS, BENT_CHANGES), _digits_kept),
        Level(5, (DIGITS, CHANGES, CHANGES), _digits_weighed),
    )),
    Family("recurrences", ("solve", "compute"), (
        Level(2, (range(0, 12), PRODUCTS[:2] + SUMS), _recurrence),
        Level(3, (range(0, 8), range(2, 5), PLAIN_CHANGES), _recurrence_with_n),
        Level(4, (range(0, 5), range(1, 6), range(2, 5), range(2, 5)), _recurrence_of_two),
        Level(5, (range(1, 9), RESIDUES[:6], SUMS + PRODUCTS[:2], SUMS + PRODUCTS[:3]), _recurrence_by_case),
    )),
    Family("loops", ("count", "solve"), (
        Level(2, (range(3, 15), range(0, 12)), _subtract_until),
        Level(3, (range(2, 6), range(0, 9), range(1, 7)), _count_halvings),
        Level(4, (range(2, 8), range(1, 8), range(0, 9)), _steps_by_case),
        Level(5, (range(2, 8), range(1, 8), range(0, 9), PLAIN_CHANGES), _path_by_case),
    )),
    Family("ranges", ("build", "compute"), (
        Level(1, (PLAIN_CHANGES,), _range_changed),
        Level(2, (MODULI,), _range_changed),
        Level(3, (RESIDUES, PLAIN_CHANGES), _range_kept),
        Level(4, (RESIDUES, PLAIN_CHANGES, PLAIN_CHANGES), _range_sum),
        Level(5, (TWO, RESIDUES + LIMITS), _range_pairs),
    )),
)  # fmt: skip
