"""Small wrong changes of a Python function, to ask whether tests notice them.

In:  source text.  Out: mutants, each with the operator that made it.

Unusual: a mutant may loop for ever, so every `while` of it counts its rounds and gives up.
"""

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

ROUNDS = 2000  # of all loops of one call
COMPARISONS: dict[type, tuple[type, ...]] = {
    ast.Lt: (ast.LtE, ast.Gt), ast.LtE: (ast.Lt, ast.GtE), ast.Gt: (ast.GtE, ast.Lt), ast.GtE: (ast.Gt, ast.LtE),
    ast.Eq: (ast.NotEq,), ast.NotEq: (ast.Eq,), ast.In: (ast.NotIn,), ast.NotIn: (ast.In,),
}  # fmt: skip
ARITHMETIC: dict[type, tuple[type, ...]] = {
    ast.Add: (ast.Sub,), ast.Sub: (ast.Add,), ast.Mult: (ast.Add,), ast.FloorDiv: (ast.Mult,), ast.Mod: (ast.FloorDiv,),
}  # fmt: skip
NAMES = {
    "min": ("max",), "max": ("min",), "sum": ("len",), "any": ("all",), "all": ("any",), "abs": ("int",),
    "sorted": ("list",), "len": ("sum",), "upper": ("lower",), "isdigit": ("isalpha",), "isalpha": ("isdigit",),
    "isupper": ("islower",), "islower": ("isupper",), "append": ("remove",),
}  # fmt: skip
Edit = Callable[[Any], Iterator[tuple[str, Any]]]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A changed function and what was changed."""

    operator: str
    code: str


class RoundsExceededError(Exception):
    """A mutant's loops went on for too long."""


def mutants(code: str) -> list[Mutant]:
    """All functions that differ from this one by one change, each text once.

    >>> [mutant.code.split("return ")[1] for mutant in mutants("def f(n):\\n    return n < 3")]
    ['n <= 3', 'n > 3', 'n < 4', 'n < 2']
    """
    tree, found = ast.parse(code), {ast.unparse(ast.parse(code)): ""}
    for place, node in enumerate(ast.walk(tree)):
        for edit in EDITS.get(type(node), ()):
            for operator, changed in edit(copy.deepcopy(node)):
                new = copy.deepcopy(tree)
                old = next(each for number, each in enumerate(ast.walk(new)) if number == place)
                found.setdefault(ast.unparse(ast.fix_missing_locations(_Exchange(old, changed).visit(new))), operator)
    return [Mutant(operator, text) for text, operator in found.items() if operator]


def guarded(code: str) -> str:
    """The same functions with a limit to the rounds of their loops, and the error of that limit in their namespace."""
    tree = ast.parse(code)
    for node in list(ast.walk(tree)):
        if isinstance(node, ast.FunctionDef):
            node.body.insert(0, ast.parse("codeweft_rounds = 0").body[0])
        if isinstance(node, ast.While):
            check = f"if codeweft_rounds > {ROUNDS}:\n    raise RoundsExceededError"
            node.body[:0] = ast.parse(f"codeweft_rounds += 1\n{check}").body
    return ast.unparse(ast.fix_missing_locations(tree))


class _Exchange(ast.NodeTransformer):
    """Puts one node in the place of another."""

    def __init__(self, old: ast.AST, new: Any) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> Any:
        return self.new if node is self.old else self.generic_visit(node)


# --- the operators ----------------------------------------------------------------------------------------------------


def _comparisons(node: ast.Compare) -> Iterator[tuple[str, Any]]:
    for place, each in enumerate(node.ops):
        for other in COMPARISONS.get(type(each), ()):
            ops = [*node.ops[:place], other(), *node.ops[place + 1 :]]
            yield "another comparison", ast.Compare(node.left, ops, node.comparators)


def _arithmetic(node: Any) -> Iterator[tuple[str, Any]]:
    for other in ARITHMETIC.get(type(node.op), ()):
        changed = copy.copy(node)
        changed.op = other()
        yield "another arithmetic operator", changed


def _constants(node: ast.Constant) -> Iterator[tuple[str, Any]]:
    if isinstance(node.value, bool) or node.value is None:
        return
    if isinstance(node.value, int):
        yield "constant off by one", ast.Constant(node.value + 1)
        yield "constant off by one", ast.Constant(node.value - 1)
    elif isinstance(node.value, str):
        yield "another text", ast.Constant(node.value[:-1] if node.value else "q")


def _logic(node: ast.BoolOp) -> Iterator[tuple[str, Any]]:
    yield "and for or", ast.BoolOp(ast.Or() if isinstance(node.op, ast.And) else ast.And(), node.values)
    for place in range(len(node.values)):
        left = node.values[:place] + node.values[place + 1 :]
        yield "one condition less", left[0] if len(left) == 1 else ast.BoolOp(node.op, left)


def _negation(node: ast.UnaryOp) -> Iterator[tuple[str, Any]]:
    if isinstance(node.op, ast.Not | ast.USub):
        yield "negation removed", node.operand


def _slices(node: ast.Slice) -> Iterator[tuple[str, Any]]:
    for part in ("lower", "upper", "step"):
        if getattr(node, part) is not None:
            changed = copy.copy(node)
            setattr(changed, part, None)
            yield f"slice without {part}", changed


def _choices(node: ast.IfExp) -> Iterator[tuple[str, Any]]:
    yield "branches swapped", ast.IfExp(node.test, node.orelse, node.body)
    yield "only the first branch", node.body
    yield "only the second branch", node.orelse


def _branches(node: ast.If) -> Iterator[tuple[str, Any]]:
    yield "condition negated", ast.If(ast.UnaryOp(ast.Not(), node.test), node.body, node.orelse)
    yield "branch always taken", ast.If(ast.Constant(True), node.body, node.orelse)
    yield "branch never taken", ast.If(ast.Constant(False), node.body, node.orelse)


def _statements(node: Any) -> Iterator[tuple[str, Any]]:
    for place in range(len(node.body)):
        if len(node.body) == 1 and isinstance(node, ast.FunctionDef):
            continue
        changed = copy.copy(node)
        changed.body = [*node.body[:place], ast.Pass(), *node.body[place + 1 :]]
        yield "statement dropped", changed


def _filters(node: ast.comprehension) -> Iterator[tuple[str, Any]]:
    if node.ifs:
        yield "filter dropped", ast.comprehension(node.target, node.iter, [], node.is_async)
        negated = [ast.UnaryOp(ast.Not(), node.ifs[0]), *node.ifs[1:]]
        yield "filter negated", ast.comprehension(node.target, node.iter, negated, node.is_async)


def _calls(node: ast.Call) -> Iterator[tuple[str, Any]]:
    name = getattr(node.func, "id", getattr(node.func, "attr", ""))
    for other in NAMES.get(name, ()):
        changed = copy.deepcopy(node)
        if isinstance(changed.func, ast.Name):
            changed.func.id = other
        elif isinstance(changed.func, ast.Attribute):
            changed.func.attr = other
        # the order of a set of texts is another one in each process
        if not (name == "sorted" and (node.keywords or isinstance(node.args[0], ast.SetComp))):
            yield f"{other} for {name}", changed
    for place in range(len(node.keywords)):
        keywords = node.keywords[:place] + node.keywords[place + 1 :]
        yield "named argument dropped", ast.Call(node.func, node.args, keywords)
    if len(node.args) == 2 and name in ("min", "max", "get"):
        yield "only the first argument", node.args[0] if name != "get" else ast.Call(node.func, node.args[:1], [])


def _subscripts(node: ast.Subscript) -> Iterator[tuple[str, Any]]:
    if isinstance(node.slice, ast.Slice):
        yield "slice removed", node.value


EDITS: dict[type, tuple[Edit, ...]] = {
    ast.Compare: (_comparisons,), ast.BinOp: (_arithmetic,), ast.AugAssign: (_arithmetic,), ast.Constant: (_constants,),
    ast.BoolOp: (_logic,), ast.UnaryOp: (_negation,), ast.Slice: (_slices,), ast.Subscript: (_subscripts,),
    ast.IfExp: (_choices,), ast.If: (_branches, _statements), ast.For: (_statements,), ast.While: (_statements,),
    ast.FunctionDef: (_statements,), ast.comprehension: (_filters,), ast.Call: (_calls,),
}  # fmt: skip
