"""The chapter on shipping: sizes against scores, what was dropped, merges and gates, from the studies' JSON alone."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import planted_compression as plant
import pytest
from page_reader import Page
from synthetic_experiment import Experiment, build

from deltaproof.evidence import evidence
from deltaproof.evidence.over_tasks import over_tasks
from deltaproof.experiments.table import Table
from deltaproof.records.record import Predictions
from deltaproof.records.store import Store, write_json, write_predictions
from deltaproof.report.chapters.shipping import shipping
from deltaproof.report.page import page
from deltaproof.report.study import Study

METHODS = {"methods": ("full", "lora", "bitfit"), "skills": (0.95, 0.8, 0.7)}
DENSITIES = ("0.05", "0.2", "0.5")


def put(table: Table, **studies: object) -> Study:
    for name, found in studies.items():
        write_json(Path(table.folder) / "studies" / f"{name}.json", found)
    return Study(table)


def test_a_run_without_these_studies_has_no_chapter(table_of: Callable[..., Table]) -> None:
    assert shipping(Study(table_of(**METHODS))) is None


def test_each_block_is_drawn_and_the_lead_names_the_smallest_density_that_is_as_good(
    table_of: Callable[..., Table],
) -> None:
    merges = plant.merging(plant.merge("a", True), plant.merge("b", False))
    study = put(table_of(**METHODS), compression=plant.compression(), merging=merges, gates=plant.gates())
    chapter = shipping(study)
    assert chapter is not None
    assert [figure.name for figure in chapter.figures] == ["compression-sizes", "compression-dropped", "merges"]
    assert chapter.lead[0].startswith(
        "Compressed to density 0.05, 47 times smaller than fp16 in the compressed tensors"
    )
    assert "At no density is lora shown to be as good" in chapter.lead[1]
    assert chapter.lead[2] == "Of 1 export or check, 0 passed every gate."
    sizes = chapter.figures[0]
    assert [panel.heading for panel in sizes.panels] == ["full", "lora"]
    assert "90.0 as tuned, 50.0 base, tuned head" in sizes.panels[0].description
    row = sizes.data.sections[0].rows[1]
    assert [cell.text for cell in row[:5]] == ["0.2", "118 kB", "30.6 ×", "17.0 ×", "34.0 ×"]


def test_the_page_holds_the_chapter_with_every_word_escaped(table_of: Callable[..., Table]) -> None:
    study = put(table_of(**METHODS), compression=plant.compression(), gates=plant.gates())
    text = page(study.table)
    Page(text)
    assert '<a href="#ship-it">Ship it</a>' in text
    assert "<b>lost</b>" not in text
    assert "&lt;b&gt;lost&lt;/b&gt;" in text
    assert "factors &amp; gains" in text
    for word in ("does not arise", "fails", "holds", "at most 0.0001", "Retained, %", "STC"):
        assert word in text


def test_the_curve_between_base_and_tuned_is_drawn_along_the_change_and_clean_against_shifted(
    table_of: Callable[..., Table],
) -> None:
    study = put(table_of(**METHODS), interpolation=plant.interpolation())
    chapter = shipping(study)
    assert chapter is not None
    [figure] = chapter.figures
    assert [panel.heading for panel in figure.panels] == [
        "full, seed 0: along the change", "full, seed 0: clean against shifted"
    ]  # fmt: skip
    assert "validation from 50.0 at alpha 0 to 90.0 at alpha 1" in figure.panels[0].description
    rows = figure.data.sections[0].rows
    assert [row[1].detail for row in rows if row[1].detail] == [
        "best on validation",
        "best here, none lost on validation",
    ]
    text = page(study.table)
    Page(text)
    assert "shift &lt;1&gt;" in text


def test_merges_without_a_look_at_the_test_rows_show_validation(table_of: Callable[..., Table]) -> None:
    study = put(table_of(**METHODS), merging=plant.merging(plant.merge("a", True, test=None)))
    chapter = shipping(study)
    assert chapter is not None
    assert chapter.figures[0].panels[0].heading == "ties of sst2 & subj (validation)"


@pytest.mark.parametrize(
    ("verdicts", "n_seeds", "expected"),
    [
        ({"full": ("worse", "equivalent", "equivalent")}, 3, "supported"),
        ({"full": ("worse", "worse", "worse")}, 3, "contradicted"),
        ({"full": ("worse", "cannot tell", "cannot tell")}, 3, "cannot tell"),
        ({"full": ("equivalent", "equivalent", "equivalent")}, 1, "cannot tell"),
        ({"full": ("better", "better", "better"), "lora": ("worse", "worse", "worse")}, 3, "cannot tell"),
    ],
)
def test_the_claim_of_small_files_follows_the_intervals(
    table_of: Callable[..., Table], verdicts: dict[str, tuple[str, ...]], n_seeds: int, expected: str
) -> None:
    by_density = {label: dict(zip(DENSITIES, found, strict=True)) for label, found in verdicts.items()}
    table = table_of(**METHODS)
    put(table, compression=plant.compression(by_density, n_seeds))
    found = evidence(table.folder, table)
    assert found.claim("Small").verdict == expected
    assert found.claim("Larger").verdict == "not applicable"
    assert found.claim("Merges").because == "not measured"
    assert "What ComPEFT claims" in found.to_text()


def test_runs_that_compressed_nothing_are_not_asked_of_it(table_of: Callable[..., Table]) -> None:
    table = table_of(**METHODS)
    assert evidence(table.folder, table).compressing == ()


def answers(store: Store, key: str, share_right: float) -> None:
    """As many right answers as asked for, the same rows right where two merges share them."""
    n = 240
    targets = np.zeros((n, 1))
    right = np.arange(n) < share_right * n
    outputs = np.where(right[:, None], [[0.9, 0.05, 0.05]], [[0.05, 0.9, 0.05]])
    write_predictions(store.predictions_path(key), Predictions([f"r{at}" for at in range(n)], None, targets, outputs))


def test_merges_of_compressed_experts_are_paired_with_those_of_the_same_uncompressed_ones(
    table_of: Callable[..., Table],
) -> None:
    table = table_of(**METHODS)
    store = Store(table.folder)
    for key, share in (("a", 0.7), ("b", 0.8)):
        answers(store, key, share)
    other = plant.merge("c", False, how="linear")
    put(table, merging=plant.merging(plant.merge("a", True), plant.merge("b", False), other))
    claim = evidence(table.folder, table).claim("Merges")
    assert len(claim.findings) == 1
    assert claim.findings[0].value is not None
    assert claim.findings[0].value.mean == pytest.approx(-0.1)
    assert "files 15.0 times smaller" in claim.findings[0].because
    assert claim.verdict == "cannot tell"  # one seed


def suite_of(tmp_path: Path, studies: dict[str, dict[str, object]]) -> dict[str, object]:
    for task, found in studies.items():
        for name, study in found.items():
            write_json(tmp_path / task / "studies" / f"{name}.json", study)
    return {"tasks": [{"name": task, "title": task, "result": {"unit": "fraction"}} for task in studies]}


def test_over_tasks_the_tasks_are_the_units(tmp_path: Path) -> None:
    by_task = {f"t{at}": {"compression": plant.compression(shift=0.002 * (at - 2.5))} for at in range(6)}
    found = over_tasks(tmp_path, suite_of(tmp_path, by_task))
    assert found is not None
    verdicts = {(row["method"], row["density"]): row["verdict"] for row in found["rows"]}
    assert {density: verdicts["lora", density] for density in DENSITIES} == dict.fromkeys(DENSITIES, "worse")
    row = found["rows"][0]
    assert row["difference"]["mean"] == pytest.approx(-0.002)
    assert row["difference"]["n"] == 6
    by_name = {claim["name"]: claim for claim in found["claims"]}
    assert by_name["Small"]["verdict"] == "cannot tell"  # full keeps its score, lora does not
    assert by_name["Larger"]["verdict"] == "not applicable"
    assert over_tasks(tmp_path, {"tasks": []}) is None


def test_two_tasks_say_nothing_of_others(tmp_path: Path) -> None:
    by_task = {f"t{at}": {"compression": plant.compression()} for at in range(2)}
    found = over_tasks(tmp_path, suite_of(tmp_path, by_task))
    assert found is not None
    assert {row["verdict"] for row in found["rows"]} == {"cannot tell"}


def test_a_composition_for_a_task_that_was_not_compressed_is_found_all_the_same(tmp_path: Path) -> None:
    pair = [plant.merge("a", True, chosen_on="examples"), plant.merge("b", False, chosen_on="examples")]
    build(tmp_path / "held", Experiment(methods=("full", "lora"), skills=(0.9, 0.8)))
    for key, share in (("a", 0.7), ("b", 0.8)):
        answers(Store(tmp_path / "held"), key, share)
    by_task = {"t0": {"compression": plant.compression()}, "held": {"merging": plant.merging(*pair)}}
    found = over_tasks(tmp_path, suite_of(tmp_path, by_task))
    assert found is not None
    claim = next(claim for claim in found["claims"] if claim["name"] == "Composes")
    assert claim["verdict"] == "cannot tell"
    assert "held −10.0 points" in claim["because"]
    assert found["tasks"] == ["t0"]
