"""The filter rules at their edges, as DeepSeek-Coder-V2 §2 words them: exceeding and less than drop, equality keeps."""

import time
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from codeweft.corpus.config import CorpusConfig
from codeweft.corpus.rules import alphabetic_share, broken, visible_characters

DEFAULT = CorpusConfig()


def verdict(text: str, language: str = "Python", kind: str = "code") -> tuple[str, str] | None:
    return broken(text, kind, language, DEFAULT)


def test_an_average_of_100_characters_a_line_is_kept_and_more_dropped():
    line = "a" * 100
    assert verdict(f"{line}\n{line}\n") is None
    assert verdict(f"{line}\n{line}b\n") == ("average_line_length", "100.5")


def test_a_line_of_1000_characters_is_kept_and_of_1001_dropped():
    short = "ab\n" * 40
    assert verdict(short + "a" * 1000) is None
    assert verdict(short + "a" * 1001) == ("maximum_line_length", "1001")


def test_a_quarter_of_letters_is_kept_and_less_dropped():
    assert verdict("a123") is None
    assert verdict("a1234") == ("alphabetic_share", "0.2")
    assert verdict("é123") is None  # letters of any script count
    assert verdict("²1234") == ("alphabetic_share", "0")  # a superscript digit is no letter


@given(st.text(min_size=1))
def test_letters_are_counted_as_the_reference_counts_them(text: str):
    dropped = sum(map(str.isalpha, text)) < 0.25 * len(text)  # the expression in StarCoder's filtering.py
    assert (alphabetic_share(text, DEFAULT) is not None) == dropped


def test_an_xml_header_counts_when_it_begins_and_ends_within_100_characters_and_not_for_xslt():
    header = '<?xml version="1.0"?><a>text</a>'
    assert len("<?xml version=") == 14
    assert verdict("a\n" * 43 + header, "Java") == ("xml_header", "86")
    assert verdict("a\n" * 44 + header, "Java") is None  # cut at character 100, as the reference cuts
    assert verdict(header, "XML") == ("xml_header", "0")
    assert verdict(header, "XSLT") is None


def filled(letter: str, length: int) -> str:
    return (f"{letter * 49}\n" * (length // 50 + 1))[:length]


def page(visible: int, whole: int) -> str:
    html = f"<p>{filled('v', visible)}</p><!--{filled('c', whole - visible - len('<p></p><!---->'))}-->"
    assert len(html) == whole
    return html


def test_html_needs_a_fifth_and_100_characters_of_visible_text():
    assert verdict(page(200, 1000), "HTML") is None
    assert verdict(page(199, 1000), "HTML") == ("html_visible_text", "0.199")
    assert verdict(page(100, 200), "HTML") is None
    assert verdict(page(99, 200), "HTML") == ("html_visible_text", "0.495")


def test_scripts_styles_comments_and_tags_are_not_visible():
    html = "<html><style>p{}</style><body class=x>Hé<script>if (a<b) {}</script> &lt;<!-- no --><b>!</b></body></html>"
    assert visible_characters(html) == len("Hé <!")
    assert visible_characters("<![foo[x") == 0  # what the end of the file breaks off is not visible
    assert visible_characters(
        "a<br/><a title='>' b=\"'>\" c=don't>b</a >< c<1<script/>d<?x?><!---->e<!-->f<SCRIPT >g"
    ) == len("ab< c<1def")


class Visible(HTMLParser):
    """The standard library's parser, adding up what is text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.hidden = False
        self.characters = 0
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.hidden = tag in ("script", "style")

    def handle_endtag(self, tag: str) -> None:
        self.hidden = False

    def handle_data(self, data: str) -> None:
        self.characters += 0 if self.hidden else len(data)


VALUES = st.text("ab1 >'&/=<\n", max_size=6)
ATTRIBUTES = st.one_of(st.just(""), st.just(" checked"), VALUES.map(' x="{}"'.format), st.just(" y=1"))
TEXTS = st.lists(
    st.sampled_from(["word", " ", "é", "&amp;", "&#65;", "1 > 2", "\n", "&copy", "don't", '"']), max_size=5
)
LEAVES = st.one_of(
    TEXTS.map("".join),
    st.sampled_from(
        ["<br>", "<hr/>", "<!-- <p> > -->", "<!DOCTYPE html>", "<?pi?>", "<script>if (a<b) x='</p>'</script>"]
    ),
    st.sampled_from(["<style>p > q {}</style>", "<STYLE a='1'>x</STYLE>"]),
)
DOCUMENTS = st.recursive(
    LEAVES,
    lambda inner: st.tuples(st.sampled_from(["p", "div", "H1", "a-b"]), ATTRIBUTES, st.lists(inner, max_size=4)).map(
        lambda parts: f"<{parts[0]}{parts[1]}>{''.join(parts[2])}</{parts[0]}>"
    ),
    max_leaves=12,
)


@settings(deadline=None)
@given(DOCUMENTS)
def test_visible_text_of_closed_markup_is_what_the_standard_library_finds(document: str):
    assert visible_characters(document) == Visible(document).characters


@pytest.mark.parametrize(
    "piece",
    ["<a\n", "<a b='\n", '<a b="\n', "<a b= \n", "<!--\n", "<!\n", "<?\n", "</\n", "<script>\n", "<a " + "b " * 50],
)
def test_a_megabyte_of_unclosed_markup_is_read_in_a_moment(piece: str):
    began = time.process_time()
    visible_characters(piece * (1_000_000 // len(piece)))
    visible_characters(piece * (1_000_000 // len(piece)) + ">")
    assert time.process_time() - began < 2


@pytest.mark.parametrize("language", ["JSON", "YAML"])
def test_data_files_are_kept_from_50_to_5000_characters(language: str):
    def text(length: int) -> str:
        return ("key: value\n" * 500)[:length]

    assert verdict(text(50), language) is None
    assert verdict(text(5000), language) is None
    assert verdict(text(49), language) == ("data_length", "49")
    assert verdict(text(5001), language) == ("data_length", "5001")
    assert verdict(text(5001), "Python") is None


def test_prose_and_mathematics_are_spared_the_rules_about_lines():
    paragraph = "word " * 400
    assert verdict(paragraph, "Markdown") is not None
    assert verdict(paragraph, "Text", "text") is None
    assert verdict("1 + 1 = 2", "Text", "math") is None
    assert verdict("1 + 1 = 2", "Text", "text") == ("alphabetic_share", "0")


@pytest.mark.parametrize("kind", ["code", "math", "text"])
def test_white_space_alone_is_dropped_as_empty(kind: str):
    assert verdict(" \n\t\n", kind=kind) == ("empty", "4")
    assert verdict("", kind=kind) == ("empty", "0")
