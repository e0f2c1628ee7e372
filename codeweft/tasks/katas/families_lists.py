"""Families of katas about one list of numbers: changed, filtered, summed up, compared with their neighbours.

In:  pieces.  Out: FAMILIES.
"""

from collections.abc import Callable

from codeweft.tasks.katas.inputs import NUMBERS
from codeweft.tasks.katas.pieces import (
    BENT_CHANGES,
    CHANGES,
    CONDITIONS,
    NEAR_ZERO,
    PAIRED,
    PLAIN_CHANGES,
    RELATIONS,
    RESIDUES,
    SIZES,
    TWO,
    Family,
    Kata,
    Level,
    Piece,
    one,
    several,
)

Joint = Callable[[Piece, Piece], Piece]
ENDS = ("smallest", "largest")


def _list(says: str, python: str, javascript: str, *pieces: Piece) -> Kata:
    return one(NUMBERS, says, python, javascript, *pieces)


def _lines(says: str, python: tuple[str, ...], javascript: tuple[str, ...], *pieces: Piece) -> Kata:
    return several(NUMBERS, says, python, javascript, *pieces)


# --- every number changed ---------------------------------------------------------------------------------------------


def _map(change: Piece) -> Kata:
    says = f"Return the list of {change.said('x')} for each number x."
    return _list(says, f"[{change.py()} for x in numbers]", f"numbers.map(x => {change.js()})", change)


def _map_some(condition: Piece, change: Piece) -> Kata:
    says = f"Replace each number x that is {condition.says} by {change.said('x')}. Return the new list."
    python = f"[{change.py()} if {condition.py()} else x for x in numbers]"
    return _list(says, python, f"numbers.map(x => {condition.js()} ? {change.js()} : x)", condition, change)


def _map_either(condition: Piece, first: Piece, second: Piece) -> Kata:
    says = (
        f"Replace each number x that is {condition.says} by {first.said('x')} and each other x by {second.said('x')}. "
    )
    python = f"[{first.py()} if {condition.py()} else {second.py()} for x in numbers]"
    javascript = f"numbers.map(x => {condition.js()} ? {first.js()} : {second.js()})"
    return _list(says + "Return the new list.", python, javascript, condition, first, second)


def _map_by_place(first: Piece, second: Piece) -> Kata:
    says = (
        f"Replace each number x at an even index (the first has index 0) by {first.said('x')} and each other x by "
        f"{second.said('x')}. Return the new list."
    )
    python = f"[{first.py()} if i % 2 == 0 else {second.py()} for i, x in enumerate(numbers)]"
    javascript = f"numbers.map((x, i) => i % 2 === 0 ? {first.js()} : {second.js()})"
    return _list(says, python, javascript, first, second)


def _map_by_place_kept(first: Piece, second: Piece, condition: Piece) -> Kata:
    return _lines(
        f"Replace each number x at an even index (the first has index 0) by {first.said('x')} and each other x by "
        f"{second.said('x')}. Return the new numbers that are {condition.says}.",
        (f"new = [{first.py()} if i % 2 == 0 else {second.py()} for i, x in enumerate(numbers)]",
         f"return [x for x in new if {condition.py()}]"),
        (f"const changed = numbers.map((x, i) => i % 2 === 0 ? {first.js()} : {second.js()});",
         f"return changed.filter(x => {condition.js()});"),
        first, second, condition,
    )  # fmt: skip


# --- some numbers kept ------------------------------------------------------------------------------------------------


def _keep(condition: Piece) -> Kata:
    says = f"Return the numbers that are {condition.says}, in their order."
    return _list(says, f"[x for x in numbers if {condition.py()}]", f"numbers.filter(x => {condition.js()})", condition)


def _keep_changed(condition: Piece, change: Piece) -> Kata:
    says = f"For each number x that is {condition.says}, take {change.said('x')}. Return the list of these."
    python = f"[{change.py()} for x in numbers if {condition.py()}]"
    return _list(says, python, f"numbers.filter(x => {condition.js()}).map(x => {change.js()})", condition, change)


def _keep_two(size: Piece, residue: Piece, joint: Joint) -> Kata:
    wanted = joint(size, residue)
    says = f"Return the numbers that are {wanted.says}, in their order."
    return _list(says, f"[x for x in numbers if {wanted.py()}]", f"numbers.filter(x => {wanted.js()})", wanted)


def _keep_places(condition: Piece, step: int, change: Piece) -> Kata:
    says = (
        f"Of every {step}th number, beginning with the first, keep those that are {condition.says}. Return the list "
        f"of {change.said('x')} for each x that was kept."
    )
    python = f"[{change.py()} for x in numbers[::{step}] if {condition.py()}]"
    javascript = f"numbers.filter((x, i) => i % {step} === 0 && ({condition.js()})).map(x => {change.js()})"
    return _list(says, python, javascript, condition, change)


def _keep_after(relation: Piece, change: Piece, condition: Piece) -> Kata:
    says = (
        f"Return each number b that has a number a directly before it such that {relation.said('b', change.said('a'))} "
        f"and b is {condition.says}, in their order."
    )
    python = f"[b for a, b in zip(numbers, numbers[1:]) if {relation.py('b', change.py('a'))} and {condition.py('b')}]"
    test = f"{relation.js('b', change.js('numbers[i - 1]'))} && ({condition.js('b')})"
    return _list(says, python, f"numbers.filter((b, i) => i > 0 && {test})", change, condition)


# --- one number out of many -------------------------------------------------------------------------------------------


def _sum_changed(change: Piece) -> Kata:
    says = f"Return {change.said('the sum of all numbers')}."
    return _list(says, change.py("sum(numbers)"), change.js("numbers.reduce((sum, x) => sum + x, 0)"), change)


def _how_many(condition: Piece) -> Kata:
    says = f"Return how many of the numbers are {condition.says}."
    python = f"sum(1 for x in numbers if {condition.py()})"
    return _list(says, python, f"numbers.filter(x => {condition.js()}).length", condition)


def _sum_of_changes(condition: Piece, change: Piece) -> Kata:
    says = f"For each number x that is {condition.says}, take {change.said('x')}. Return the sum of these."
    python = f"sum({change.py()} for x in numbers if {condition.py()})"
    javascript = f"numbers.filter(x => {condition.js()}).reduce((sum, x) => sum + {_summand(change.js())}, 0)"
    return _list(says, python, javascript, condition, change)


def _summand(expression: str) -> str:
    return f"({expression})" if " " in expression else expression


def _balance(condition: Piece, first: Piece, second: Piece) -> Kata:
    return _lines(
        f"Start with a total of 0. For each number x that is {condition.says}, add {first.said('x')} to it; for each "
        f"other x, subtract {second.said('x')} from it. Return the total.",
        ("total = 0", "for x in numbers:", f"    if {condition.py()}:", f"        total += {first.py()}",
         "    else:", f"        total -= {second.py()}", "return total"),
        ("let total = 0;", "for (const x of numbers) {", f"  if ({condition.js()}) total += {first.js()};",
         f"  else total -= {second.js()};", "}", "return total;"),
        condition, first, second,
    )  # fmt: skip


def _extreme(size: Piece, residue: Piece, joint: Joint, end: str, change: Piece) -> Kata:
    wanted, best = joint(size, residue), "max" if end == "largest" else "min"
    return _lines(
        f"Take {change.said('x')} for each number x that is {wanted.says}. Return the {end} of these, or 0 if there "
        "are none.",
        (f"values = [{change.py()} for x in numbers if {wanted.py()}]", f"return {best}(values) if values else 0"),
        (f"const values = numbers.filter(x => {wanted.js()}).map(x => {change.js()});",
         f"return values.length ? Math.{best}(...values) : 0;"),
        wanted, change,
    )  # fmt: skip


# --- neighbours -------------------------------------------------------------------------------------------------------


def _neighbours(two: Piece) -> Kata:
    says = f"Return the list of {two.said('a', 'b')} for each number a and the number b that follows it."
    python = f"[{two.py('a', 'b')} for a, b in zip(numbers, numbers[1:])]"
    return _list(says, python, f"numbers.slice(1).map((b, i) => {two.js('numbers[i]', 'b')})")


def _neighbours_changed(two: Piece, change: Piece) -> Kata:
    value = change.said(two.said("a", "b"))
    says = f"Return the list of {value}, for each number a and the number b that follows it."
    python = f"[{change.py(two.py('a', 'b'))} for a, b in zip(numbers, numbers[1:])]"
    return _list(
        says, python, f"numbers.slice(1).map((b, i) => {change.js(two.js('numbers[i]', 'b'))})", change, NEAR_ZERO
    )


def _neighbours_counted(two: Piece, condition: Piece) -> Kata:
    says = f"Return for how many numbers a and the number b directly after a {two.said('a', 'b')} is {condition.says}."
    python = f"sum(1 for a, b in zip(numbers, numbers[1:]) if {condition.py(two.py('a', 'b'))})"
    javascript = f"numbers.slice(1).filter((b, i) => {condition.js(two.js('numbers[i]', 'b'))}).length"
    return _list(says, python, javascript, condition, NEAR_ZERO)


def _neighbours_kept(two: Piece, condition: Piece, relation: Piece) -> Kata:
    python = (
        f"[{two.py('a', 'b')} for a, b in zip(numbers, numbers[1:]) if {relation.py('a', 'b')} or {condition.py('b')}]"
    )
    return _lines(
        f"Look at each number a and the number b that follows it. Where {relation.said('a', 'b')} or b is "
        f"{condition.says}, take {two.said('a', 'b')}. Return the list of these.",
        (f"return {python}",),
        ("const found = [];", "for (let i = 1; i < numbers.length; i++) {",
         "  const [a, b] = [numbers[i - 1], numbers[i]];",
         f"  if ({relation.js('a', 'b')} || ({condition.js('b')})) found.push({two.js('a', 'b')});", "}",
         "return found;"),
        condition,
    )  # fmt: skip


def _longest_stretch(two: Piece, condition: Piece) -> Kata:
    return _lines(
        f"Return how many numbers the longest stretch has in which, for each number a and the next one b, "
        f"{two.said('a', 'b')} is {condition.says}. A single number is a stretch of 1; an empty list has 0.",
        ("best = size = min(len(numbers), 1)", "for a, b in zip(numbers, numbers[1:]):",
         f"    size = size + 1 if {condition.py(two.py('a', 'b'))} else 1", "    best = max(best, size)",
         "return best"),
        ("let size = Math.min(numbers.length, 1), best = size;", "numbers.slice(1).forEach((b, i) => {",
         f"  size = {condition.js(two.js('numbers[i]', 'b'))} ? size + 1 : 1;", "  best = Math.max(best, size);", "});",
         "return best;"),
        condition, NEAR_ZERO,
    )  # fmt: skip


FAMILIES = (
    Family("list-maps", ("change", "build"), (
        Level(1, (CHANGES,), _map),
        Level(2, (CONDITIONS, PLAIN_CHANGES), _map_some),
        Level(3, (CONDITIONS, CHANGES, CHANGES), _map_either),
        Level(4, (CHANGES, CHANGES), _map_by_place),
        Level(5, (CHANGES, CHANGES, CONDITIONS), _map_by_place_kept),
    )),
    Family("list-filters", ("pick", "build"), (
        Level(1, (CONDITIONS,), _keep),
        Level(2, (CONDITIONS, PLAIN_CHANGES), _keep_changed),
        Level(3, (SIZES, RESIDUES, PAIRED), _keep_two),
        Level(4, (CONDITIONS, range(4, 6), CHANGES), _keep_places),
        Level(5, (RELATIONS[:2], CHANGES, CONDITIONS), _keep_after),
    )),
    Family("list-totals", ("compute", "score"), (
        Level(1, (PLAIN_CHANGES,), _sum_changed),
        Level(2, (CONDITIONS,), _how_many),
        Level(3, (CONDITIONS, CHANGES), _sum_of_changes),
        Level(4, (CONDITIONS, CHANGES, CHANGES), _balance),
        Level(5, (SIZES, RESIDUES, PAIRED, ENDS, CHANGES), _extreme),
    )),
    Family("neighbours", ("build", "compute"), (
        Level(2, (TWO,), _neighbours),
        Level(3, (TWO, BENT_CHANGES), _neighbours_changed),
        Level(3, (TWO, CONDITIONS), _neighbours_counted),
        Level(4, (TWO, CONDITIONS, RELATIONS[:2]), _neighbours_kept),
        Level(5, (TWO, CONDITIONS), _longest_stretch),
    )),
)  # fmt: skip
