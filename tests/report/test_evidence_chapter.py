"""The chapter on evidence: first of all chapters, its badges readable without colour, its words escaped."""

from collections.abc import Callable
from pathlib import Path

import planted_studies as plant
import pytest
from page_reader import Page

from deltaproof.experiments.table import Table
from deltaproof.report import chapters
from deltaproof.report.chapters import all_chapters
from deltaproof.report.chapters.evidence import evidence_chapter
from deltaproof.report.page import page
from deltaproof.report.study import Study

pytestmark = pytest.mark.usefixtures("alone")
METHODS = {"methods": plant.LABELS, "skills": (0.95, 0.7, 0.7)}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted studies hold what verdicts need, not all that other chapters draw."""
    assert chapters.MAKERS[0] is evidence_chapter, "the answer comes before what it rests on"
    monkeypatch.setattr(chapters, "MAKERS", (evidence_chapter,))


def test_a_run_without_studies_has_no_such_chapter(table_of: Callable[..., Table]) -> None:
    assert "evidence" not in [chapter.name for chapter in all_chapters(Study(table_of(**METHODS)))]


def test_the_chapter_leads_with_the_advice(table_of: Callable[..., Table]) -> None:
    table = table_of(**METHODS)
    plant.write(Path(table.folder), expressivity=plant.expressivity(optimisation="worse"))
    chapter = all_chapters(Study(table))[0]
    assert chapter.name == "evidence"
    assert chapter.lead[0].startswith("Stay with full fine-tuning")
    assert "what LoRA lacks is training" in chapter.lead[0]


def test_every_claim_stands_in_the_page_with_sign_and_word_and_the_command_for_what_is_missing(
    table_of: Callable[..., Table],
) -> None:
    table = table_of(**METHODS)
    plant.write(Path(table.folder), expressivity=plant.expressivity(), displacement=plant.displacement({"full": -6.0}))
    text = page(table)
    read = Page(text)
    assert not read.problems
    assert '<a href="#evidence">' in text
    for badge in ('class="badge supported"', 'class="badge contradicted"', 'class="badge cannot-tell"'):
        assert badge in text
    for words in ("✓ supported", "✗ contradicted", "? cannot tell", "deltaproof scale plan.toml --rank"):
        assert words in read.text
    for name in ("T1", "T2", "T3", "T4", "T5", "Without Regret", "Learns less", "Forgets less", "Intruders"):
        assert name in read.text


def test_commands_name_the_run_folder_without_where_it_lies(table_of: Callable[..., Table]) -> None:
    table = table_of(**METHODS)
    plant.write(Path(table.folder), expressivity=plant.expressivity())
    text = page(table)
    assert f"deltaproof attack {Path(table.folder).name} --perturbations all" in text
    assert str(Path(table.folder).parent) not in text


def test_names_of_methods_are_escaped(table_of: Callable[..., Table]) -> None:
    methods = ("full", "lora", "<img src=x>")
    table = table_of(methods=methods, skills=(0.95, 0.9, 0.7))
    plant.write(Path(table.folder), displacement=plant.displacement(dict.fromkeys(methods, -6.0)))
    text = page(table)
    assert "<img" not in text
    assert "&lt;img src=x&gt;" in text
