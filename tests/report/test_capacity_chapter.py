"""The chapter on capacity in the page: every kind of run gives a sound one, and what is missing is named."""

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
import synthetic_studies as planted
from page_reader import Page

from deltaproof.records.store import read_json, write_json
from deltaproof.report import page
from deltaproof.report.chapters.capacity import NAMES
from deltaproof.report.chapters.capacity import capacity as chapter
from deltaproof.report.study import Study

EVIL = "lora<script>alert(1)</script>\"'&<img src=x onerror=alert(2)>"
USUAL = ("full", "lora", "bitfit", "prefix", "head")
RUNS = {
    "usual": ({"methods": USUAL}, NAMES, {}),
    "one method": ({"methods": ("lora",)}, NAMES[1:], {}),
    "full alone": ({"methods": ("full",)}, NAMES, {}),
    "nothing that changes a matrix": ({"methods": ("bitfit", "prefix", "head")}, NAMES[1:], {}),
    "regression": ({"kind": "regression", "labels": None, "methods": USUAL}, NAMES, {"metric": "rmse"}),
    "fourteen methods": (
        {"methods": ("full", *(f"lora(rank={2**n}, roles=['query', 'value'])" for n in range(11)), "bitfit", "head")},
        NAMES,
        {"n_layers": 12},
    ),
    "deep": ({"methods": ("full", "lora")}, NAMES, {"n_layers": 32}),
    "spectra alone": ({"methods": USUAL}, ("spectra",), {}),
}


def studied(table_of, fields, only=NAMES, options=None):
    table = table_of(**fields)
    study = Study(table)
    planted.build_studies(study.store, only, **(options or {}))
    return Study(table)


def change(study, name, **fields):
    place = Path(study.table.folder) / "studies" / f"{name}.json"
    write_json(place, {**read_json(place), **fields})


@pytest.mark.parametrize(("fields", "only", "options"), RUNS.values(), ids=RUNS)
def test_every_kind_of_run_gives_a_sound_chapter(table_of, fields, only, options):
    study = studied(table_of, fields, only, options)
    text = page(study.table)
    read = Page(text)
    assert read.problems == []
    assert "capacity" in {section["id"] for section in read.all("section")}
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert not re.search(r"\b(nan|None|inf)\b", read.text)
    assert not re.search(r'="[^"]*\b(nan|inf)\b', text)
    assert len(text) < 2_500_000
    for drawing in chapter(study).figures:
        ElementTree.fromstring(drawing.svg)
        assert drawing.data.sections[0].rows
        assert all(len(panel.description) > 40 for panel in drawing.panels)
        assert len(drawing.caption) > 80


def test_the_usual_chapter_has_every_figure_in_reading_order(table_of):
    found = chapter(studied(table_of, {"methods": USUAL}))
    assert [figure.name for figure in found.figures] == [
        "truncated-and-trained", "singular-values", "change-sizes", "ranks-over-noise", "intruders", "captured-energy",
        "shared-directions", "increments", "displacement", "layers-moved", "local-slopes",
        "along-the-change", "learning-and-forgetting",
    ]  # fmt: skip


def test_without_studies_there_is_no_chapter(table_of):
    study = Study(table_of())
    assert chapter(study) is None
    assert 'href="#capacity"' not in page(study.table)


def test_the_lead_says_what_was_found_in_the_words_of_the_terminal(table_of):
    lead = chapter(studied(table_of, {"methods": USUAL})).lead
    assert lead[0] == (
        "Rank 8 keeps 100 % of the update's energy and loses 0.5 points (−1.5 to +0.5) of accuracy: expressivity does "
        "not bind."
    )
    assert lead[1].startswith("LoRA trained at rank 8 loses 2.5 points (−3.5 to −1.5) of accuracy against the cut")
    assert "Full fine-tuning changed the weights by 3 % of their norm" in lead[2]
    assert "3 of 200 under lora" in lead[3]
    # the loosest planted bound is reached to 10^-8 at most
    assert "at least 10⁸ times as far as they did, under full fine-tuning as under" in lead[4]
    assert lead[5].startswith("Of what the base knew, head (+0.1")
    assert "and full (+0.5" in lead[5]


def test_studies_that_were_not_made_are_named_with_what_makes_them(table_of):
    notes = " ".join(chapter(studied(table_of, {"methods": USUAL}, ("path",))).notes)
    assert "Not asked yet: “Does a low rank bind?”, “What are the updates made of?”" in notes
    assert "“What was forgotten?”; `deltaproof capacity` asks models kept with `--keep all`" in notes
    assert "“What lies along the change?”" not in notes


def test_without_full_fine_tuning_the_truncation_test_says_that_it_needs_it(table_of):
    notes = " ".join(chapter(studied(table_of, {"methods": ("lora", "head")}, NAMES[1:])).notes)
    assert "needs a fully tuned model, and there is no `full` among the methods" in notes


def test_a_study_that_could_not_be_made_gives_its_reason_without_the_models_folder(table_of):
    study = studied(table_of, {"methods": USUAL, "model": "/home/somebody/models/mine"})
    reason = "a language model's output layer must be in the checkpoint, `/home/somebody/models/mine` has none"
    change(study, "forgetting", applicable=False, reason=reason)
    found = chapter(Study(study.table))
    assert "What was forgotten? Not answered: A language model's output layer" in " ".join(found.notes)
    assert "`mine` has none" in " ".join(found.notes)
    assert "learning-and-forgetting" not in {figure.name for figure in found.figures}
    assert "/home/somebody" not in " ".join(found.notes)


def test_methods_that_a_study_leaves_out_are_named(table_of):
    found = chapter(studied(table_of, {"methods": USUAL}))
    notes = " ".join(found.notes)
    assert "bitfit (26 biases and norms changed, no matrix of a layer did)" in notes
    assert "prefix (no change of weights that the base has)" in notes
    captions = {figure.name: figure.caption for figure in found.figures}
    assert "Without a line: prefix (not a change of weights)" in captions["along-the-change"]
    assert "Not measured: prefix" in captions["learning-and-forgetting"]


def test_runs_that_no_study_looked_at_are_counted(table_of):
    study = studied(table_of, {"methods": USUAL})
    assert "final runs; the others" not in " ".join(chapter(study).notes)
    for name in NAMES:
        change(study, name, inputs={"keys": [study.table.row("full").keys[0]]})
    assert "looked at 1 of 15 final runs" in " ".join(chapter(Study(study.table)).notes)


def test_names_in_studies_cannot_become_markup(table_of):
    study = studied(table_of, {"methods": ("full", EVIL), "skills": (0.9, 0.5)})
    change(study, "path", left_out={EVIL: EVIL})
    text = page(study.table)
    assert "<script" not in text
    assert "<img" not in text
    assert Page(text).problems == []
    for figure in chapter(Study(study.table)).figures:
        ElementTree.fromstring(figure.svg)


def test_a_method_that_the_table_no_longer_has_is_still_drawn(table_of):
    study = studied(table_of, {"methods": ("full", "lora")})
    spectra = study.studies["spectra"]
    change(study, "spectra", methods=[*spectra["methods"], planted.spectra("dora", 2)])
    assert "dora" in page(study.table)


def test_numbers_that_could_not_be_measured_leave_gaps(table_of):
    study = studied(table_of, {"methods": USUAL})
    path, moved = study.studies["path"], study.studies["displacement"]
    path["methods"][0] |= {"loss": [None] * 5, "loss_low": [None] * 5, "loss_high": [None] * 5, "score": [None] * 5}
    for method in moved["methods"]:
        method["slopes"], method["bound"] = None, None
        method["layers"] = [None, *method["layers"][1:]]
    change(study, "path", methods=path["methods"])
    change(study, "displacement", methods=moved["methods"])
    read = Page(page(study.table))
    assert not re.search(r"\b(nan|None|inf)\b", read.text)
    figure = next(figure for figure in chapter(Study(study.table)).figures if figure.name == "displacement")
    assert [panel.heading for panel in figure.panels] == ["Measured"]


def test_the_chapter_and_its_words_need_no_torch():
    code = (
        "import sys, deltaproof.report.chapters.capacity, deltaproof.studies.capacity_text; "
        "print([name for name in ('torch', 'transformers', 'peft') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"
