"""Families of katas that nobody trains on: runs, nested lists, brackets, machines, two lists, walks.

In:  pieces.  Out: FAMILIES.
"""

from codeweft.tasks.katas.inputs import BRACKETS, LISTS, MACHINE, NESTED, RUNS, WALK
from codeweft.tasks.katas.pieces import (
    BENT_CHANGES,
    CAPS,
    CHANGES,
    CONDITIONS,
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
    turning,
)

# --- runs of one letter -----------------------------------------------------------------------------------------------

RUN = "A run is one letter again and again, as long as it goes on."
PY_RUNS = ("runs = []", "for c in text:", "    if runs and runs[-1][0] == c:", "        runs[-1] += c", "    else:",
           "        runs.append(c)")  # fmt: skip
JS_RUNS = "const runs = text.match(/(.)\\1*/g) ?? [];"
RUN_SIZES = tuple(
    Piece(says, f"len(r) {sign} {k}", f"r.length {sign} {k}", (k,))
    for k in range(1, 5)
    for says, sign in ((f"longer than {k}", ">"), (f"shorter than {k + 1}", "<="))
)
RUN_FORMS = (
    *(
        Piece(f'its letter, "{mark}" and its length', f'r[0] + "{mark}" + str(len(r))', f'r[0] + "{mark}" + r.length')
        for mark in ":=-"
    ),
    Piece("its length and its letter", "str(len(r)) + r[0]", "r.length + r[0]"),
    Piece("its letter in capitals", "r[0].upper()", "r[0].toUpperCase()"),
    *(Piece(f"its first {k} letters", f"r[:{k}]", f"r.slice(0, {k})") for k in range(1, 4)),
    Piece("its letters and a !", 'r + "!"', 'r + "!"'),
)  # fmt: skip


def _runs(says: str, python: str, javascript: str, *pieces: Piece) -> Kata:
    return several(RUNS, f"{RUN} {says}", (*PY_RUNS, f"return {python}"), (JS_RUNS, f"return {javascript};"), *pieces)


def _run_count(size: Piece) -> Kata:
    says = f"Return how many runs of the text are {size.says}."
    return _runs(says, f"sum(1 for r in runs if {size.python})", f"runs.filter(r => {size.javascript}).length", size)


def _run_texts(form: Piece, joint: str) -> Kata:
    python = f'"{joint}".join({form.python} for r in runs)'
    says = f'For each run of the text write {form.says}. Return these, joined with "{joint}".'
    return _runs(says, python, f'runs.map(r => {form.javascript}).join("{joint}")', turning(2, 3))


def _runs_kept(size: Piece, form: Piece, joint: str) -> Kata:
    python = f'"{joint}".join({form.python} for r in runs if {size.python})'
    javascript = f'runs.filter(r => {size.javascript}).map(r => {form.javascript}).join("{joint}")'
    says = f'For each run of the text that is {size.says}, write {form.says}. Return these, joined with "{joint}".'
    return _runs(says, python, javascript, size)


# --- nested lists -----------------------------------------------------------------------------------------------------

DEEP = "The items are numbers and lists of such items."


def _nested_sum(condition: Piece, change: Piece) -> Kata:
    return several(
        NESTED,
        f"{DEEP} Return the sum of {change.said('x')} for each number x, at any depth, that is {condition.says}.",
        ("total = 0", "for x in items:", "    if isinstance(x, list):", "        total += solve(x)",
         f"    elif {condition.py()}:", f"        total += {change.py()}", "return total"),
        ("let total = 0;", "for (const x of items) {", "  if (Array.isArray(x)) total += solve(x);",
         f"  else if ({condition.js()}) total += {change.js()};", "}", "return total;"),
        condition, change,
    )  # fmt: skip


def _nested_flat(condition: Piece) -> Kata:
    return several(
        NESTED,
        f"{DEEP} Return one list of all numbers, at any depth, that are {condition.says}, from left to right.",
        ("found = []", "for x in items:", "    if isinstance(x, list):", "        found += solve(x)",
         f"    elif {condition.py()}:", "        found.append(x)", "return found"),
        ("const found = [];", "for (const x of items) {", "  if (Array.isArray(x)) found.push(...solve(x));",
         f"  else if ({condition.js()}) found.push(x);", "}", "return found;"),
        condition,
    )  # fmt: skip


def _nested_weighed(factor: int, change: Piece) -> Kata:
    return several(
        NESTED,
        f"{DEEP} The value of a list is the sum of {change.said('x')} for each number x in it and of {factor} times "
        "the value of each list in it. Return the value of the whole list.",
        ("total = 0", "for x in items:", f"    total += {factor} * solve(x) if isinstance(x, list) else {change.py()}",
         "return total"),
        ("let total = 0;", f"for (const x of items) total += Array.isArray(x) ? {factor} * solve(x) : {change.js()};",
         "return total;"),
        change,
    )  # fmt: skip


def _nested_changed(condition: Piece, change: Piece) -> Kata:
    return several(
        NESTED,
        f"{DEEP} Return the same nested lists with {change.said('x')} in the place of each number x that is "
        f"{condition.says}.",
        (f"return [solve(x) if isinstance(x, list) else {change.py()} if {condition.py()} else x for x in items]",),
        (f"return items.map(x => Array.isArray(x) ? solve(x) : {condition.js()} ? {change.js()} : x);",),
        condition, change,
    )  # fmt: skip


# --- brackets ---------------------------------------------------------------------------------------------------------

HELD = "The text is letters in balanced ( and ). A letter's depth is the number of pairs around it."


def _bracket_count(depth: Piece, letters: str) -> Kata:
    which = f'that are in "{letters}"' if letters else "of any kind"
    inside = f' and c in "{letters}"' if letters else ""
    there = f' && "{letters}".includes(c)' if letters else ""
    return several(
        BRACKETS,
        f"{HELD} Return how many letters {which} have a depth {depth.says}.",
        ("depth = found = 0", "for c in text:", '    depth += (c == "(") - (c == ")")',
         f'    found += c not in "()" and {depth.py("depth")}{inside}', "return found"),
        ("let depth = 0, found = 0;", "for (const c of text) {", '  depth += (c === "(") - (c === ")");',
         f'  if (!"()".includes(c) && {depth.js("depth")}{there}) found += 1;', "}", "return found;"),
        turning(*letters),
    )  # fmt: skip


def _bracket_letters(depth: Piece, mark: str) -> Kata:
    return several(
        BRACKETS,
        f'{HELD} Return the letters in their order, without brackets, with "{mark}" for each letter of a depth '
        f"{depth.says}.",
        ('depth, found = 0, ""', "for c in text:", '    depth += (c == "(") - (c == ")")', '    if c not in "()":',
         f'        found += "{mark}" if {depth.py("depth")} else c', "return found"),
        ('let depth = 0, found = "";', "for (const c of text) {", '  depth += (c === "(") - (c === ")");',
         f'  if (!"()".includes(c)) found += {depth.js("depth")} ? "{mark}" : c;', "}", "return found;"),
    )  # fmt: skip


def _bracket_score(change: Piece, letters: str) -> Kata:
    return several(
        BRACKETS,
        f'{HELD} Let d be the depth of a letter. Return the sum of {change.said("d")} for each letter in "{letters}".',
        ("depth = total = 0", "for c in text:", '    depth += (c == "(") - (c == ")")', f'    if c in "{letters}":',
         f"        total += {change.py('depth')}", "return total"),
        ("let depth = 0, total = 0;", "for (const c of text) {", '  depth += (c === "(") - (c === ")");',
         f'  if ("{letters}".includes(c)) total += {change.js("depth")};', "}", "return total;"),
        turning(*letters),
    )  # fmt: skip


# --- machines ---------------------------------------------------------------------------------------------------------

STEPS = "The text is steps such as +3, -2 or *4 with single spaces between them."
PY_STEP = '{0} + k if op == "+" else {0} - k if op == "-" else {0} * k'
JS_STEP = 'op === "+" ? {0} + k : op === "-" ? {0} - k : {0} * k'


def _machine(start: int, change: Piece) -> Kata:
    return several(
        MACHINE,
        f"{STEPS} Start with a = {start} and do them one after the other: each adds to a, subtracts from it or "
        f"multiplies it. Return {change.said('a')} at the end.",
        (f"a = {start}", "for step in text.split():", "    op, k = step[0], int(step[1:])",
         f"    a = {PY_STEP.format('a')}",
         f"return {change.py('a')}"),
        (f"let a = {start};", 'for (const step of text.split(" ")) {',
         "  const op = step[0], k = Number(step.slice(1));",
         f"  a = {JS_STEP.format('a')};", "}", f"return {change.js('a')};"),
        change,
    )  # fmt: skip


def _machine_guarded(start: int, condition: Piece, cap: Piece) -> Kata:
    return several(
        MACHINE,
        f"{STEPS} Start with a = {start}. For each step whose number is {condition.says}, in order, add it to a, "
        f"subtract it or multiply a by it, and then replace a by {cap.said('a')}. Return the last a.",
        (f"a = {start}", "for step in text.split():", "    op, k = step[0], int(step[1:])",
         f"    if {condition.py('k')}:",
         f"        b = {PY_STEP.format('a')}", f"        a = {cap.py('b')}", "return a"),
        (f"let a = {start};", 'for (const step of text.split(" ")) {',
         "  const op = step[0], k = Number(step.slice(1));",
         f"  if (!({condition.js('k')})) continue;", f"  const b = {JS_STEP.format('a')};", f"  a = {cap.js('b')};",
         "}",
         "return a;"),
        condition, cap,
    )  # fmt: skip


# --- two lists --------------------------------------------------------------------------------------------------------


def _zipped(two: Piece) -> Kata:
    says = (
        f"Return the list of {two.said('a', 'b')} for the numbers a of the first and b of the second list at each "
        f"index that both have."
    )
    python = f"[{two.py('a', 'b')} for a, b in zip(first, second)]"
    javascript = f"first.slice(0, second.length).map((a, i) => {two.js('a', 'second[i]')})"
    return one(LISTS, says, python, javascript)


def _only_first(change: Piece, condition: Piece) -> Kata:
    says = (
        f"Return the numbers x of the first list that are {condition.says} and for which {change.said('x')} is not in "
        "the second list."
    )
    python = f"[x for x in first if {condition.py()} and {change.py()} not in second]"
    javascript = f"first.filter(x => ({condition.js()}) && !second.includes({change.js()}))"
    return one(LISTS, says, python, javascript, change, condition)


def _zipped_chosen(relation: Piece, left: Piece, right: Piece) -> Kata:
    python = f"[{left.py('a')} if {relation.py('a', 'b')} else {right.py('b')} for a, b in zip(first, second)]"
    says = (
        f"For the numbers a of the first and b of the second list at each index that both have: take {left.said('a')} "
        f"if {relation.said('a', 'b')}, else {right.said('b')}. Return the list of these."
    )
    javascript = (
        f"first.slice(0, second.length).map((a, i) => {relation.js('a', 'second[i]')} ? {left.js('a')} : "
        f"{right.js('second[i]')})"
    )
    return one(LISTS, says, python, javascript, left, right)


def _interleaved(condition: Piece, change: Piece) -> Kata:
    return several(
        LISTS,
        "Take in turn a number of the first and one of the second list, as long as both have one, and then append "
        f"what is left of the longer one. Return {change.said('x')} for each x of this list that is {condition.says}.",
        ("mixed = [x for two in zip(first, second) for x in two]", "size = len(mixed) // 2",
         "mixed += first[size:] + second[size:]", f"return [{change.py()} for x in mixed if {condition.py()}]"),
        ("const size = Math.min(first.length, second.length);",
         "const mixed = first.slice(0, size).flatMap((x, i) => [x, second[i]]);",
         "mixed.push(...first.slice(size), ...second.slice(size));",
         f"return mixed.filter(x => {condition.js()}).map(x => {change.js()});"),
        condition, change,
    )  # fmt: skip


# --- walks ------------------------------------------------------------------------------------------------------------

WALKED = "The moves N, S, E and W go up, down, right and left"


def _walk(x: int, y: int, step: int) -> Kata:
    return several(
        WALK,
        f"{WALKED} by {step}. Start at x = {x}, y = {y} (up is larger y). Return the last position as [x, y].",
        (f'x = {x} + {step} * (moves.count("E") - moves.count("W"))',
         f'y = {y} + {step} * (moves.count("N") - moves.count("S"))', "return [x, y]"),
        ('const count = c => moves.split(c).length - 1;', f'const x = {x} + {step} * (count("E") - count("W"));',
         f'const y = {y} + {step} * (count("N") - count("S"));', "return [x, y];"),
    )  # fmt: skip


def _walk_walled(width: int, height: int, step: int) -> Kata:
    return several(
        WALK,
        f"{WALKED} by {step}. Start at x = 0, y = 0 (up is larger y); x stays between 0 and {width}, y between 0 and "
        f"{height}, because a move beyond ends there. Return [x, y].",
        ("x = y = 0", "for m in moves:", f'    x += {step} * ((m == "E") - (m == "W"))',
         f'    y += {step} * ((m == "N") - (m == "S"))',
         f"    x, y = min(max(x, 0), {width}), min(max(y, 0), {height})", "return [x, y]"),
        ("let x = 0, y = 0;", "for (const m of moves) {", f'  x += {step} * ((m === "E") - (m === "W"));',
         f'  y += {step} * ((m === "N") - (m === "S"));', f"  x = Math.min(Math.max(x, 0), {width});",
         f"  y = Math.min(Math.max(y, 0), {height});", "}", "return [x, y];"),
    )  # fmt: skip


DEPTHS = tuple(
    Piece(f"{says} {k}", f"x {python} {k}", f"x {javascript} {k}")
    for k in range(0, 4)
    for says, python, javascript in (("above", ">", ">"), ("of exactly", "==", "==="), ("other than", "!=", "!=="))
)
LETTERS = ("a", "b", "abc", "ce", "de", "bd", "ae", "cd", "be", "ad")
FAMILIES = (
    Family("runs", ("count", "solve"), (
        Level(2, (RUN_SIZES,), _run_count),
        Level(3, (RUN_FORMS, ("", " ", ",", "/")), _run_texts),
        Level(4, (RUN_SIZES, RUN_FORMS, ("", " ", ",", "/")), _runs_kept),
    ), trained=False),
    Family("nested-lists", ("solve", "compute"), (
        Level(3, (CONDITIONS,), _nested_flat),
        Level(3, (range(2, 6), PLAIN_CHANGES), _nested_weighed),
        Level(4, (CONDITIONS, PLAIN_CHANGES), _nested_sum),
        Level(5, (CONDITIONS, CHANGES), _nested_changed),
    ), trained=False),
    Family("brackets", ("count", "solve"), (
        Level(3, (DEPTHS, ("", *LETTERS)), _bracket_count),
        Level(4, (DEPTHS, ("-", "*", "#", "_")), _bracket_letters),
        Level(5, (PLAIN_CHANGES, LETTERS), _bracket_score),
    ), trained=False),
    Family("machines", ("compute", "solve"), (
        Level(3, (range(0, 10), PLAIN_CHANGES), _machine),
        Level(5, (range(0, 6), RESIDUES + SIZES, CAPS), _machine_guarded),
    ), trained=False),
    Family("two-lists", ("build", "pick"), (
        Level(1, (TWO,), _zipped),
        Level(2, (PLAIN_CHANGES, CONDITIONS), _only_first),
        Level(4, (RELATIONS[:2], CHANGES, BENT_CHANGES), _zipped_chosen),
        Level(5, (CONDITIONS, CHANGES), _interleaved),
    ), trained=False),
    Family("walks", ("solve", "compute"), (
        Level(2, (range(-4, 5), range(-4, 5), range(2, 5)), _walk),
        Level(4, (range(1, 8), range(1, 8), range(2, 5)), _walk_walled),
    ), trained=False),
)  # fmt: skip
