"""Write a line of text as a comment of a language.

In:  a text and a language's name.  Out: the comment, or None where the language has none (JSON) or none is known.
Source: DeepSeek-Coder §2.2 puts a comment with the file's path before each file; its form there is unpublished.
"""

from codeweft.source.languages import language


def line_comment(text: str, name: str) -> str | None:
    """One line holding `text` as a comment; block marks serve where a language has no line comment.

    >>> line_comment("a.py", "Python"), line_comment("a.css", "CSS"), line_comment("a.json", "JSON")
    ('# a.py', '/* a.css */', None)
    """
    row = language(name)
    if row is None or "\n" in text:
        return None
    if row.line_comment:
        return f"{row.line_comment} {text}"
    if row.block_comment and row.block_comment[1] not in text:
        return f"{row.block_comment[0]} {text} {row.block_comment[1]}"
    return None
