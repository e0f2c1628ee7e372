"""docs/paper-map.md is true: its functions and tests exist, and no cited equation is left out."""

import ast
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = [
    [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]
    for line in (ROOT / "docs" / "paper-map.md").read_text(encoding="utf-8").splitlines()
    if line.startswith("|") and not line.startswith(("| ---", "| equation"))
]


def documented(tree: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    """Dotted name and docstring of every function and class, nested ones included."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            name = f"{prefix}.{node.name}"
            yield name, ast.get_docstring(node) or ""
            yield from documented(node, name)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[1] if len(row) > 1 else str(row))
def test_the_function_and_the_test_of_a_row_exist(row: list[str]):
    assert len(row) == 3
    found = pkgutil.resolve_name(row[1])
    assert (getattr(found, "__doc__", None) or "").strip(), f"{row[1]} says nothing"
    path, _, name = row[2].partition("::")
    tests = {node.name for node in ast.parse((ROOT / path).read_text(encoding="utf-8")).body if hasattr(node, "name")}
    assert name in tests, row[2]


def test_every_function_that_cites_an_equation_has_a_row():
    listed = {row[1] for row in ROWS}
    for path in sorted((ROOT / "codeweft").rglob("*.py")):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for name, text in documented(ast.parse(path.read_text(encoding="utf-8")), module):
            if re.search(r"\beq\. \d", text):
                assert name in listed, f"{name} cites an equation"
