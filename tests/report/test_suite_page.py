"""The page over several tasks, from invented results: what stands where, and what must not."""

import subprocess
import sys

import planted_compression as plant
import pytest
from page_reader import Page
from synthetic_robustness import robustness_study

from deltaproof.evidence.over_tasks import over_tasks
from deltaproof.experiments.suite_text import suite_text
from deltaproof.records.store import write_json
from deltaproof.report.suite import SuiteResult
from deltaproof.report.suite_page import sentences, suite_page
from deltaproof.report.suite_tables import adversarial, results


def method(name, mean, verdict=None, difference=None):
    reach = None if difference is None else 0.01
    return {
        "name": name, "status": "done", "mean": mean, "low": mean and mean - 0.02, "high": mean and mean + 0.02,
        "verdict": verdict, "difference": difference, "difference_low": reach and difference - reach,
        "difference_high": reach and difference + reach,
    }  # fmt: skip


def entry(name, category, scores, metric="accuracy", **fields):
    rows = [
        method(label, mean, *(("worse", mean - scores["full"]) if label != "full" and mean is not None else ()))
        for label, mean in scores.items()
    ]
    result = {
        "metric": metric, "unit": "fraction" if metric == "accuracy" else "", "reference": "full", "margin": 0.02,
        "recommended": "full", "methods": rows, "baselines": [], "folder": name, "source": f"hub:{name}", "seeds": 3,
        "data": {"rows": {"train": 70, "validation": 10, "test": 20}}, "trials": 4, "max_length": 48,
        "model": {"name": "m", "n_parameters": 10}, "measured_seconds": 5.0, "versions": {},
    }  # fmt: skip
    return {
        "name": name, "title": name.upper(), "category": category, "note": "", "source": name, "status": "done",
        "reason": "", "estimated_seconds": 4.0, "result": result, "adversarial": [], "study_errors": {}, **fields,
    }  # fmt: skip


def document(*tasks, **fields):
    return {
        "format": 1, "title": "Tasks", "about": [], "created": "2026-01-02T00:00:00", "finished": "2026-01-02T01:00:00",
        "studies": [], "paper_reference_values": None, "tasks": list(tasks), **fields,
    }  # fmt: skip


TWO = (
    entry("sst2", "classification", {"full": 0.90, "lora": 0.86}),
    entry("cola", "classification", {"full": 0.50, "lora": 0.30}, metric="mcc"),
    entry("boolq", "reasoning", {"full": 0.70, "lora": None}),
)


def test_an_average_is_the_mean_of_a_category_and_none_where_a_method_lacks_a_task():
    suite = SuiteResult(document(*TWO))
    assert suite.average("full", "classification") == pytest.approx(0.70)
    assert suite.average("lora", "classification") == pytest.approx(0.58)
    assert suite.average("lora", "reasoning") is None


def test_errors_without_an_upper_bound_are_not_averaged():
    suite = SuiteResult(document(TWO[0], entry("stsb", "classification", {"full": 0.5}, metric="rmse")))
    assert suite.average("full", "classification") is None


def test_columns_are_grouped_by_category_and_the_paper_has_a_row_for_each_method():
    grid = results(SuiteResult(document(*TWO, paper_reference_values={"sst2": {"lora": "88.8"}})))
    assert grid.columns[1:4] == ("SST2, accuracy", "COLA, Matthews correlation", "Average")
    assert grid.groups == (("", 1), ("classification", 3), ("reasoning", 2))
    assert sum(width for _, width in grid.groups) == len(grid.columns)
    measured, paper = grid.sections
    assert [(cell.text, cell.tone, cell.sign) for cell in measured.rows[1][:4]] == [
        ("lora", "", ""), ("86.0", "worse", "▼"), ("30.0", "worse", "▼"), ("58.0", "", ""),
    ]  # fmt: skip
    assert [[cell.text for cell in row] for row in paper.rows] == [
        ["full", "", "", "", "", ""],
        ["lora", "88.8", "", "", "", ""],
    ]


def test_adversarial_sets_stand_beside_clean_scores_with_their_size_and_the_drop():
    made = [one for one in robustness_study(("full", "lora"))["sets"] if one["kind"] == "adversarial"]
    task = entry("sst2", "classification", {"full": 0.90, "lora": 0.86}, adversarial=made)
    values = {"sst2": {"full": "94"}, "sst2/shifted.jsonl": {"full": "51"}}
    grid = adversarial(SuiteResult(document(task, paper_reference_values=values)))
    assert grid.groups[1] == ("SST2: shifted.jsonl, 60 rows", 3)
    clean, perturbed, drop = (float(cell.text.replace("−", "-")) for cell in grid.sections[0].rows[0][1:])
    assert clean - perturbed == pytest.approx(drop, abs=0.11)
    assert [cell.text for cell in grid.sections[1].rows[0]] == ["full", "94", "51", ""]
    assert adversarial(SuiteResult(document(*TWO))) is None


def test_sentences_count_verdicts_by_category():
    assert sentences(SuiteResult(document(*TWO))) == ["classification, lora against full: worse on 2 of 2 tasks."]


def test_everything_given_is_escaped():
    odd = "<script>alert(1)</script>"
    failed = {**entry("rte", odd, {"full": 0.5}), "result": None, "status": "failed", "reason": odd, "title": odd}
    named = {**TWO[0], "title": odd, "note": odd, "study_errors": {odd: odd}}
    page = suite_page(document(named, failed, title=odd, about=[odd], paper_reference_values={"sst2": {"full": odd}}))
    assert "<script" not in page
    assert page.count("&lt;script&gt;") > 8


def test_a_suite_without_any_result_still_has_a_page():
    failed = {**entry("rte", "reasoning", {"full": 0.5}), "result": None, "status": "failed", "reason": "no data"}
    page = suite_page(document(failed, finished=None))
    assert "no data" in page
    assert "Not finished" in page


def test_the_page_needs_no_torch():
    code = (
        "import sys; import deltaproof.report.suite_page, deltaproof.experiments.suite_document, "
        "deltaproof.experiments.suite_text; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr


def test_compressed_updates_stand_on_the_page_with_the_verdict_over_tasks_and_the_claims(tmp_path):
    made = document(*TWO)
    for at, task in enumerate(made["tasks"]):
        study = plant.compression(shift=0.002 * at)
        write_json(tmp_path / task["name"] / "studies" / "compression.json", study)
    made["compression"] = over_tasks(tmp_path, made)
    assert made["compression"]["tasks"] == ["sst2", "boolq"]  # scores that are no fractions are not averaged
    text = suite_page(made)
    Page(text)
    for words in ('<a href="#compression">', "What compressed updates retain", "8 to 50 times smaller at little loss"):
        assert words in text
    assert "compressed updates, over" in suite_text(made)
    assert 'id="compression-over-tasks"' in text
    alone = {**made, "tasks": made["tasks"][:1]}
    alone["compression"] = over_tasks(tmp_path, alone)
    assert 'id="compression-over-tasks"' not in suite_page(alone)  # one task has no interval over tasks
