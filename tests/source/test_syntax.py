"""Syntax nodes: against Python's own parser, and in every grammar."""

import ast
import sys

import pytest

from codeweft.base.errors import UserError
from codeweft.source import syntax
from codeweft.source.comments import line_comment

SOURCE = '''"""Grüße, 世界 🎉."""
def größe(wert, *rest):
    text = "naïve – 🎉"
    return [text + str(x) for x in rest if x > wert]

class Ätna(object):
    höhe = 3357
'''


def offset(line: int, column: int) -> int:
    """Characters before a place that `ast` gives in lines and UTF-8 bytes."""
    lines = SOURCE.splitlines(keepends=True)
    return sum(map(len, lines[: line - 1])) + len(lines[line - 1].encode()[:column].decode())


def test_every_statement_and_expression_of_pythons_own_parser_is_a_node_in_characters():
    spans = set(syntax.node_spans(SOURCE, "Python") or [])
    nodes = [node for node in ast.walk(ast.parse(SOURCE)) if isinstance(node, ast.stmt | ast.expr)]
    assert len(nodes) > 15
    for node in nodes:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        span = offset(node.lineno, node.col_offset), offset(node.end_lineno, node.end_col_offset)
        assert span in spans, ast.unparse(node)


def test_spans_are_sorted_unique_and_inside_the_text():
    spans = syntax.node_spans(SOURCE, "Python") or []
    assert spans == sorted(set(spans))
    assert all(0 <= start < end <= len(SOURCE) for start, end in spans)


@pytest.mark.parametrize("language", sorted(syntax.GRAMMARS))
def test_each_grammar_reads_its_languages_line_comment_as_a_comment(language: str):
    comment = line_comment("src/größe.x", language)
    parser = syntax.parser(language)
    assert comment is not None
    assert parser is not None
    text = ("<?php\n" if language == "PHP" else "") + comment + "\n"
    kinds = [child.type for child in parser.parse(text.encode()).root_node.children]
    assert any("comment" in kind for kind in kinds), kinds


def test_broken_text_still_has_nodes_and_empty_text_has_none():
    assert syntax.node_spans("def f(:\n  return ((1", "Python")
    assert syntax.node_spans("", "Python") == []


def test_a_language_without_a_grammar_gives_none():
    assert syntax.node_spans("x", "APL") is None


def test_without_tree_sitter_the_person_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch):
    syntax.parser.cache_clear()
    monkeypatch.setitem(sys.modules, "tree_sitter", None)
    with pytest.raises(UserError, match=r"pip install 'codeweft\[curate\]'"):
        syntax.parser("Python")
    syntax.parser.cache_clear()


def test_languages_without_comments_and_texts_that_would_end_one_give_none():
    assert line_comment("a", "JSON") is None
    assert line_comment("a */ b", "CSS") is None
    assert line_comment("a\nb", "Python") is None
    assert line_comment("a", "No such language") is None
