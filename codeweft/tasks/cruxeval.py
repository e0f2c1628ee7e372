"""CRUXEval: what a short function gives for an input, or an input for what it gives, with and without reasoning.

In:  cruxeval.jsonl.  Out: four tasks. I asks for an input, O for the output (DeepSeek-Coder-V2's text swaps the names).
Source: DeepSeek-Coder-V2 Table 8 (with reasoning); DeepSeek-V2 App. G (base models: direct, two examples).

Unusual: no answer runs in our process. An output is compared as a literal; an input goes into the sandbox beside the
benchmark's own function, and what comes out is compared outside. Both may hold only what their grammar below allows, so
that no answer can define objects that equal everything, end the program, read files or call `f` for its own output.
"""

import ast
import re
import warnings
from collections.abc import Collection, Iterator
from typing import Any, Literal

from codeweft.base.errors import ConfigError, InputError
from codeweft.base.records import Problem, Test
from codeweft.sandbox.config import Limits, Submission
from codeweft.tasks.config import TaskOptions
from codeweft.tasks.extraction import code_blocks
from codeweft.tasks.files import read_records
from codeweft.tasks.task import Answer, Ask, Data, Files, Room, Style, Task

Wanted = Literal["input", "output"]
DATA = Data(
    ("cruxeval.jsonl", "cruxeval/cruxeval.jsonl", "data/cruxeval.jsonl"),
    "https://raw.githubusercontent.com/facebookresearch/cruxeval/190faf16d175b5847b0af05d937872b1fb395942/data/"
    "cruxeval.jsonl",
    "8368b81047dc5014e4caf5a2f97604eff7644e0ecd7415e3ceeb184bbc2e0c96",
    "MIT",
)
ENTRY = "codeweft_answer"
LIMITS = Limits(cpu_seconds=1.0)  # the references need some milliseconds
LONGEST = 20_000  # characters of an answer that are looked at
CONSTRUCTORS = ("set", "frozenset", "dict", "list", "tuple", "bytes", "bytearray")
# the reference inputs need these; what they make is still plain data or a function of plain data
BUILTINS = (*CONSTRUCTORS, "range", "str", "int", "float", "len", "chr", "ord", "sorted", "reversed")
SHOTS = {"direct": 2, "cot": 1}
TOKENS = {"direct": 256, "cot": 1024}
TOLD = {
    "output": "You see a Python function and an assertion about what it gives for an input. Replace the two question "
    "marks by the value it gives: a literal, without calling anything, and the very value that running it would give.",
    "input": "You see a Python function and an assertion whose input is missing. Replace the two question marks by any "
    "arguments for which the assertion holds.",
}
SHAPE = {
    "direct": "Write the whole assertion between [ANSWER] and [/ANSWER] and nothing else.",
    "cot": "First think step by step between [THOUGHT] and [/THOUGHT], then write the whole assertion between "
    "[ANSWER] and [/ANSWER].",
}
# function, input, output, how one finds the output, how one finds an input
WORKED = (
    (
        "def f(words):\n    kept = [word for word in words if len(word) > 2]\n    return '-'.join(reversed(kept))",
        "['sun', 'up', 'moon']",
        "'moon-sun'",
        "Words of more than two letters are kept: 'sun' and 'moon', but not 'up'. They are joined by hyphens from the "
        "last to the first, which gives 'moon-sun'.",
        "The result is made of the kept words from the last to the first, joined by hyphens. So 'sun' came before "
        "'moon'. Both are longer than two letters and are kept; a shorter word such as 'up' may stand between them.",
    ),
    (
        "def f(n, step):\n    seen = {}\n    while n > 0:\n        seen[n] = n % step\n        n -= step\n"
        "    return seen",
        "7, 3",
        "{7: 1, 4: 1, 1: 1}",
        "n is 7 at first, and step is 3. 7 % 3 is 1, then n is 4. 4 % 3 is 1, then n is 1. 1 % 3 is 1, then n is -2 "
        "and the loop ends. So seen is {7: 1, 4: 1, 1: 1}.",
        "The keys are the values of n in turn: 7, 4 and 1. So n begins with 7 and falls by 3 each time, and step is 3. "
        "The values are then 7 % 3, 4 % 3 and 1 % 3, each of them 1, as they should be.",
    ),
)


# --- reading and asking --------------------------------------------------------------------------------------------


def loader(wanted: Wanted, way: str, name: str) -> Any:
    """How a task reads the file."""

    def load(files: Files, options: TaskOptions) -> Iterator[Problem]:
        shots = SHOTS[way] if options.shots < 0 else options.shots
        if shots > len(WORKED):
            raise ConfigError(f"CRUXEval has {len(WORKED)} worked examples, not {shots}.", "Ask for fewer shots.")
        for place, record in read_records(files.path(DATA), ("code", "input", "output", "id")):
            code, given, output = record["code"], record["input"], record["output"]
            try:
                ast.literal_eval(output)
            except (ValueError, SyntaxError) as error:
                raise InputError(f"{place}: the output is no literal.", "Fetch the file again.") from error
            yield Problem(
                record["id"], name, language="python", prompt=stated(code, given, output, wanted), entry_point="f",
                reference=given if wanted == "input" else output,
                facts={"code": code, "output": output, "wanted": wanted, "way": way, "shots": shots},
            )  # fmt: skip

    return load


def stated(code: str, given: str, output: str, wanted: Wanted) -> str:
    """The function and the assertion with the question marks."""
    assertion = f"f(??) == {output}" if wanted == "input" else f"f({given}) == ??"
    return f"[PYTHON]\n{code}\nassert {assertion}\n[/PYTHON]\n"


def ask(problem: Problem, style: Style, room: Room) -> Ask:
    """The same text for base and chat models; worked examples that do not fit are left out."""
    wanted, way = problem.facts["wanted"], problem.facts["way"]
    opened = "[THOUGHT]\n" if way == "cot" else "[ANSWER]\n"
    text = ""
    for shots in range(problem.facts["shots"], -1, -1):
        shown = "".join(_shown(number, wanted, way) for number in range(shots))
        text = f"{TOLD[wanted]} {SHAPE[way]}\n\n{shown}{problem.prompt}{opened}"
        if room.count(text) <= room.tokens:
            break
    if style == "chat":
        return Ask(messages=({"role": "user", "content": text},), stop=("[/ANSWER]",), max_tokens=TOKENS[way])
    return Ask(text, stop=("[/ANSWER]", "[PYTHON]"), max_tokens=TOKENS[way])


def _shown(number: int, wanted: Wanted, way: str) -> str:
    code, given, output, of_output, of_input = WORKED[number]
    thought = of_input if wanted == "input" else of_output
    reasoning = f"[THOUGHT]\n{thought}\n[/THOUGHT]\n" if way == "cot" else ""
    return f"{stated(code, given, output, wanted)}{reasoning}[ANSWER]\nassert f({given}) == {output}\n[/ANSWER]\n\n"


# --- finding the answer --------------------------------------------------------------------------------------------


def passages(text: str) -> Iterator[str]:
    """The parts of a text that may be its answer, the likeliest first.

    Between tags alone where there are any. Else the blocks, sentences that say what the answer is, equations, quoted
    code, the last line: lines of a reasoning that never came to its end should not count.
    """
    before, closed, _ = text.partition("[/ANSWER]")
    tagged = [part.split("[/ANSWER]")[0] for part in text.split("[ANSWER]")[1:]]
    if tagged or closed:
        text = tagged[-1] if tagged else before
        lines = text.split("\n")
    else:
        lines = [line for line in text.split("\n") if re.search(r"==|\b(?:answer|output|result|input)\b", line, re.I)]
    blocks = [piece for block in reversed(code_blocks(text)) for piece in (block, *reversed(block.split("\n")))]
    yield from (*blocks, text)
    for line in reversed(lines):
        yield from (line, line.rpartition(" is ")[2], line.partition(":")[2])
    yield from reversed(re.findall(r"`([^`\n]+)`", text))
    yield text.strip().rpartition("\n")[2]


def sources(passage: str) -> Iterator[str]:
    """A passage as Python may read it: without bold and quoting signs and the word assert, then without a full stop."""
    bare = re.sub(r"^assert\b", "", passage.strip().strip("*`").strip()).strip()
    if bare:
        yield bare
        yield re.sub(r"[.;*`\s]+$", "", bare)


def parsed(source: str) -> ast.expr | None:
    """The expression that a source is, or None."""
    try:
        with warnings.catch_warnings(action="ignore"):  # an answer may spell an escape that there is not
            return ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None


def is_call(node: ast.expr) -> bool:
    """Whether an expression calls f."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "f"


def said_output(source: str) -> ast.expr | None:
    """The output that a source names: alone, or on one side of an equation with f."""
    node = parsed(source)
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], ast.Eq):
        return node.left if is_call(node.comparators[0]) and not is_call(node.left) else node.comparators[0]
    return node


def said_input(source: str) -> ast.expr | None:
    """The call of f that a source names: alone, on a side of an equation, or as bare arguments."""
    node = parsed(source)
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and isinstance(node.ops[0], ast.Eq):
        return next((side for side in (node.left, node.comparators[0]) if is_call(side)), None)
    if node is None or not is_call(node):
        node = parsed(f"f({source}\n)")
    return node if node is not None and is_call(node) else None


# --- what an answer may hold ---------------------------------------------------------------------------------------

CONTAINERS = (ast.List, ast.Tuple, ast.Set, ast.Dict, ast.Constant, ast.Starred)
OPERATIONS = (ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.IfExp)
PARTS = (ast.operator, ast.unaryop, ast.boolop, ast.cmpop, ast.expr_context, ast.keyword, ast.arguments, ast.arg)


def refused(node: ast.AST, names: Collection[str], rich: bool) -> str:
    """What in an expression is not allowed, or nothing.

    Literals, operators and the constructors of plain data are; `rich` adds slices, lambdas, and methods without an
    underscore. Names are those given and a lambda's own.
    """
    if isinstance(node, ast.Lambda) and rich:
        spec = node.args
        own = [*spec.posonlyargs, *spec.args, *spec.kwonlyargs, *filter(None, (spec.vararg, spec.kwarg))]
        names = {*names, *(each.arg for each in own)} - {"f"}
    elif isinstance(node, ast.Name):
        return "" if node.id in names else f"the name {node.id}"
    elif isinstance(node, ast.Attribute) and rich:
        if node.attr.startswith("_"):
            return f"the attribute {node.attr}"
    elif isinstance(node, ast.Call):
        if not rich and not isinstance(node.func, ast.Name):
            return "a call of a method"
    elif not isinstance(node, (*CONTAINERS, *OPERATIONS, *PARTS, *((ast.Subscript, ast.Slice) if rich else ()))):
        return f"a {type(node).__name__}"
    return next(filter(None, (refused(child, names, rich) for child in ast.iter_child_nodes(node))), "")


# --- grading -------------------------------------------------------------------------------------------------------


def grade_output(problem: Problem, style: Style, text: str) -> Answer:
    """A literal is compared by Python's equality; another allowed expression is evaluated in the sandbox, without f."""
    source, why = _found(text, said_output, CONSTRUCTORS, rich=False)
    if not source:
        return Answer("", 0.0, detail=why)
    expected = ast.literal_eval(problem.facts["output"])
    try:
        value = ast.literal_eval(source)
    except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
        return Answer(source, submission=_submission("", source, expected), vote=source)
    return Answer(source, float(bool(value == expected)), vote=source)


def grade_input(problem: Problem, style: Style, text: str) -> Answer:
    """The sandbox calls the benchmark's function with the arguments; what it gives is compared outside."""
    code = problem.facts["code"]
    source, why = _found(text, said_input, {*BUILTINS, *_own_names(code)}, rich=True)
    if not source:
        return Answer("", 0.0, detail=why)
    expected = ast.literal_eval(problem.facts["output"])
    return Answer(source, submission=_submission(code, source, expected), vote=source)


def _found(text: str, said: Any, names: Collection[str], rich: bool) -> tuple[str, str]:
    """The first allowed expression in a text, or nothing and why."""
    why = ""
    for passage in passages(text[-LONGEST:]):
        for source in sources(passage):
            node = said(source)
            if node is None:
                continue
            try:
                parts = [*node.args, *node.keywords] if rich else [node]
                fault = next(filter(None, (refused(part, names, rich) for part in parts)), "")
                if not fault:
                    return ast.unparse(node), ""
            except RecursionError:
                fault = "too deep a nesting"
            except ValueError:
                fault = "too long a number"
            why = why or f"the answer holds {fault}."
    return "", why or "there is no expression in the answer."


def _own_names(code: str) -> set[str]:
    """What the benchmark's code defines beside f; a reference input uses one."""
    tops = [node for node in ast.parse(code).body if isinstance(node, ast.Assign)]
    return {target.id for node in tops for target in node.targets if isinstance(target, ast.Name)} - {"f"}


def _submission(code: str, expression: str, expected: object) -> Submission:
    program = f"{code}\n\n\ndef {ENTRY}():\n    return {expression}\n"
    return Submission("python", program, (Test("call", expected=expected),), ENTRY, limits=LIMITS)


# --- the tasks -----------------------------------------------------------------------------------------------------


def task(name: str, title: str, wanted: Wanted, way: str) -> Task:
    """One of the four."""
    what = "An input for a given output" if wanted == "input" else "The output for a given input"
    how = "one worked example with its reasoning" if way == "cot" else "two worked examples, without reasoning"
    graded = (
        "arguments run with the function in the sandbox, the value is compared outside"
        if wanted == "input"
        else "compared as a literal, without calling anything"
    )
    return Task(
        name, title, "code understanding", ("chat", "base") if way == "cot" else ("base", "chat"), (DATA,),
        f"{what}, 800 functions; {how} (functions of our own in the official form of tags); {graded}.",
        loader(wanted, way, name), ask, grade_input if wanted == "input" else grade_output, columns=(name,),
    )  # fmt: skip


TASKS = (
    task("cruxeval-i", "CRUXEval-I", "input", "direct"),
    task("cruxeval-o", "CRUXEval-O", "output", "direct"),
    task("cruxeval-i-cot", "CRUXEval-I-COT", "input", "cot"),
    task("cruxeval-o-cot", "CRUXEval-O-COT", "output", "cot"),
)
