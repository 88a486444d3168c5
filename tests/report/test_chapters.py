"""Chapters stand in the page, in its contents and among the exported figures."""

from collections.abc import Callable
from pathlib import Path

import pytest

from deltaproof.experiments.table import Table
from deltaproof.records.store import write_json
from deltaproof.report import chapters, export
from deltaproof.report.chapter import Chapter
from deltaproof.report.drawing.svg import Drawing
from deltaproof.report.figure import Figure, Panel
from deltaproof.report.grid import grid
from deltaproof.report.page import page
from deltaproof.report.study import Study


def _invented(study: Study) -> Chapter | None:
    found = study.studies.get("invented")
    if found is None:
        return None
    table = grid("Slopes & heights", ("Method", "Slope"), [["full", str(found["slope"])]])
    figure = Figure("hills", "Hills", "Higher is steeper.", (Panel("", "A hill.", Drawing(312, 100)),), table)
    return Chapter("terrain", "Terrain <of> methods", (f"the slope is {found['slope']}",), (figure, table), ("a note",))


@pytest.fixture
def with_invented_chapter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chapters, "MAKERS", (_invented,))


@pytest.mark.usefixtures("with_invented_chapter")
def test_a_chapter_is_drawn_from_its_study_and_listed_in_the_contents(table_of: Callable[..., Table]) -> None:
    table = table_of()
    assert "terrain" not in page(table)
    write_json(Path(table.folder) / "studies" / "invented.json", {"slope": 0.25})
    text = page(table)
    assert '<a href="#terrain">Terrain &lt;of&gt; methods</a>' in text
    assert "the slope is 0.25" in text
    assert "Slopes &amp; heights" in text
    assert "a note" in text


@pytest.mark.usefixtures("with_invented_chapter")
def test_figures_of_chapters_are_exported(table_of: Callable[..., Table], tmp_path: Path) -> None:
    table = table_of()
    write_json(Path(table.folder) / "studies" / "invented.json", {"slope": 0.25})
    files = export(table, tmp_path / "export", ("svg",))
    assert "hills.svg" in {path.name for path in files}
