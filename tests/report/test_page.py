"""The page: self-contained, escaped, the same for the same run, and truthful about what is missing."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest

from codeweft.base.artifacts import digest_file
from codeweft.base.runs import Run
from codeweft.report.collect import collect
from codeweft.report.config import ReportConfig
from codeweft.report.page import funnel_rows, language_rows, render, run

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Reader(HTMLParser):
    """Collects tags, attributes and text, and fails on tags that do not nest."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def read(folder: Path) -> Reader:
    return Reader(render(collect(folder), ReportConfig()))


def test_nothing_on_the_page_points_outside_it(run_folder: Path):
    reader = read(run_folder)
    for tag, attributes in reader.tags:
        assert tag not in {"script", "link", "iframe", "object", "embed", "base"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "xlink:href"}:
                assert (value or "").startswith(("#", "data:"))
    style = "".join(re.findall(r"<style.*?</style>", render(collect(run_folder), ReportConfig()), re.DOTALL))
    assert "@import" not in style
    assert "url(http" not in style


def test_text_from_files_is_shown_and_never_run(run_folder: Path):
    page = render(collect(run_folder), ReportConfig())
    assert "<script" not in page
    assert "<script>alert('&')</script>" in Reader(page).text


def test_ids_are_unique_and_every_reference_is_met(run_folder: Path):
    ids = [attributes["id"] for _, attributes in read(run_folder).tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    page = render(collect(run_folder), ReportConfig())
    referred = re.findall(r'(?:url\(#|href="#|aria-labelledby=")([\w-]+)', page)
    assert set(referred) <= set(ids)


def test_every_figure_has_a_title_and_every_table_a_head(run_folder: Path):
    reader = read(run_folder)
    figures = [attributes for tag, attributes in reader.tags if tag == "svg"]
    assert len(figures) == 9
    assert all(attributes["role"] == "img" for attributes in figures)
    tables = sum(tag == "table" for tag, _ in reader.tags)
    assert tables == sum(tag == "thead" for tag, _ in reader.tags) >= 7


def test_the_same_run_gives_the_same_page(run_folder: Path):
    facts = collect(run_folder)
    assert render(facts, ReportConfig()) == render(facts, ReportConfig())


@pytest.mark.parametrize(
    ("stages", "absent"),
    [
        ((), "No stage of this run is finished."),
        (("corpus",), "The stage tokens has not run."),
        (("corpus", "tokenizer", "tokens"), "No training stage has run."),
        (("corpus", "tokenizer", "tokens", "pretrain"), "The stage evaluate has not run."),
    ],
)
def test_a_run_that_stopped_early_says_what_has_not_run(
    bare_folder: Callable[..., Path], stages: tuple[str, ...], absent: str
):
    text = read(bare_folder(*stages)).text
    assert absent in text
    assert "Not run:" in text


def test_an_aligned_model_s_score_stands_beside_that_of_the_pretrained_one(run_folder: Path):
    """Fine-tuning trades plain text for answers: the one figure alone would hide what pretraining came to."""
    facts = collect(run_folder)
    assert "after pretrain" not in Reader(render(facts, ReportConfig())).text
    facts.manifests["evaluate"].counts["model"] = "grpo"
    assert "after pretrain: 1.420" in Reader(render(facts, ReportConfig())).text


def test_scores_stand_beside_their_baselines_with_intervals(run_folder: Path):
    text = read(run_folder).text
    assert "Infilled lines exactly right 200 18.0 % 16.2 % to 19.8 % higher Most similar line copied 200 11.0 %" in text
    assert "3 of 10 are exactly right" in text


def test_a_model_that_cannot_infill_is_shown_as_not_measured_with_the_reason(run_folder: Path):
    facts = collect(run_folder)
    facts.results["fim_exact_match"] |= {"score": None, "ci95": None, "reason": "It was never taught."}
    text = Reader(render(facts, ReportConfig())).text
    assert "Infilled lines exactly right 200 not measured" in text
    assert "It was never taught." in text


def test_dropped_and_kept_documents_add_up_to_all_that_were_read(run_folder: Path):
    rows = funnel_rows(collect(run_folder).funnel)
    assert sum(row["documents"] for row in rows) == 157
    assert sum(row["share"] for row in rows) == pytest.approx(1)
    text = read(run_folder).text
    assert "read 157 766.6 KiB 100.0 %" in text
    assert "Steps that dropped nothing: html." in text


def test_languages_beyond_those_shown_are_summed_up_by_kind(run_folder: Path):
    rows = language_rows(collect(run_folder).funnel, 2)
    named = [(row["language"], row["kind"], row["documents"]) for row in rows]
    assert named[:2] == [("Python", "code", 70), ("English", "text", 20)]
    assert named[2:] == [("2 other", "code", 18), ("1 other", "math", 9)]
    assert sum(row["share"] for row in rows) == pytest.approx(1)


def test_the_stage_writes_the_page_beside_the_stages_and_records_its_digest(run_folder: Path):
    (run_folder / "report").mkdir()
    work = Run("report", run_folder / "report", seed=1, inputs={})
    headline = run(ReportConfig(), work)
    page = run_folder / "report.html"
    assert work.outputs["../report.html"] == digest_file(page)
    assert headline["bytes"] == page.stat().st_size < 1_000_000
