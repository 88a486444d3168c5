"""The chapter on robustness: planted numbers stand where the data say, every verdict in words, gaps leave no traces."""

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from marks import elements, lines, marks, texts
from page_reader import Page
from synthetic_robustness import robustness_study

from deltaproof.records.store import write_json
from deltaproof.report import export
from deltaproof.report.chapters.robustness import robustness
from deltaproof.report.estimates import Estimate
from deltaproof.report.figures import (
    robustness_checkpoints,
    robustness_curves,
    robustness_differences,
    robustness_map,
    robustness_scatter,
)
from deltaproof.report.page import page
from deltaproof.report.robustness_searches import searches
from deltaproof.report.robustness_sets import CATEGORIES, groups, methods
from deltaproof.report.robustness_tables import answer, contrast_sets, every_set, half_width, own_sets
from deltaproof.report.study import Study

EVIL = "<script>alert(1)</script>\"'&"
FOUR = ("full", "lora", "ia3", "head")
FOURTEEN = ("full", *(f"lora(rank={2**n}, roles=['query', 'value'])" for n in range(12)), "head")


def reach(mean: float, half: float = 0.02) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def planted(names=("full", "lora"), strengths=(0.1, 0.2, 0.3)):
    """One perturbation that costs `full` ten points per tenth of strength and every other method twice that."""
    sets = []
    for strength in strengths:
        drops = {name: strength * (1 if name == names[0] else 2) for name in names}
        sets.append({
            "name": "char_swap", "kind": "perturbation", "promise": "keeps label", "question": None,
            "strength": strength, "unit": "share of words", "summary": "Swaps letters.", "n_examples": 100,
            "n_reached": 98, "n_draws": 1, "file": None,
            "methods": [
                {"label": name, "clean": reach(0.9), "perturbed": reach(0.9 - drop), "drop": reach(drop),
                 "relative": reach((0.9 - drop) / 0.9), "attack_success": reach(drop), "flip_rate": reach(drop)}
                for name, drop in drops.items()
            ],
            "against_reference": [
                {"label": name, "drop_difference": {**reach(drops[name] - strength), "p": 0.01, "p_holm": 0.02},
                 "verdict": "more fragile",
                 "matched": {"n_examples": 80, "method": reach(2 * strength), "reference": reach(strength),
                             "difference": reach(strength)}}
                for name in names[1:]
            ],
        })  # fmt: skip
    middle = sets[1] if len(sets) > 1 else sets[0]
    return {
        "format": 1, "inputs": {}, "metric": "accuracy", "unit": "fraction", "reference": names[0],
        "n_examples": 100, "n_seeds": 2, "methods": list(names), "keys": {}, "clean": {n: reach(0.9) for n in names},
        "sets": sets,
        "overall": {"sets": "one set", "methods": middle["methods"], "against_reference": middle["against_reference"]},
        "worst_case": {name: reach(0.5) for name in names}, "contrast": [], "checkpoints": [], "at_equal_accuracy": [],
        "at_equal_accuracy_reason": "only the final models were kept", "left_out": {}, "margin": 0.03,
    }  # fmt: skip


@pytest.fixture
def study_of(table_of):
    """Builds a run folder with this robustness study in it."""

    def make(result, **fields) -> Study:
        table = table_of(**fields)
        write_json(Path(table.folder) / "studies" / "robustness.json", result)
        return Study(table)

    return make


def evenly(values) -> bool:
    steps = np.diff(values)
    return bool(np.allclose(steps, steps[0], atol=0.25))  # coordinates are written to a tenth


def test_without_the_study_there_is_no_chapter(table_of):
    assert robustness(Study(table_of())) is None


def test_curves_start_clean_and_fall_as_planted(study_of):
    result = planted()
    (panel,) = robustness_curves.figure(result, study_of(result)).panels
    found = marks(panel.drawing)
    for name, per_step in (("full", 10), ("lora", 20)):
        own = [at for title, at in found.items() if title.startswith(f"{name} at")]
        assert len(own) == 4  # clean, and three strengths
        assert evenly([x for x, _ in own])
        assert evenly([y for _, y in own])
        assert f"{name} at 0.2: {90 - 2 * per_step}.0" in " ".join(found)
    falls = {name: found[f"{name} at 0.3: {end}"][1] - found[f"{name} at 0: 90.0 (88.0 to 92.0)"][1]
             for name, end in (("full", "60.0 (58.0 to 62.0)"), ("lora", "30.0 (28.0 to 32.0)"))}  # fmt: skip
    assert falls["lora"] == pytest.approx(2 * falls["full"], abs=0.3)
    assert "strength, share of words" in texts(panel.drawing)


def test_panels_say_what_is_disturbed_and_label_the_three_questions_of_weight_noise(study_of):
    result = robustness_study(FOUR)
    figure = robustness_curves.figure(result, study_of(result))
    headings = [panel.heading for panel in figure.panels]
    assert "Word drop (noise)" in headings
    assert "Char swap" in headings
    for question in ("on all weights", "on what was trained", "of equal length"):
        assert f"Weight noise {question}" in headings
    pgd = figure.panels[headings.index("PGD on the embeddings")]
    assert any(text.startswith("ε, ") for text in texts(pgd.drawing))


def test_the_map_prints_every_number_and_the_sign_of_every_verdict(study_of):
    result = robustness_study(FOURTEEN)
    drops, beyond = robustness_map.figure(result, study_of(result)).panels
    shown = groups(result)
    for drawing in (drops.drawing, drops.narrow):
        printed = texts(drawing)
        for group in shown:
            for entry in group.middle["methods"]:
                number = f"{100 * abs(entry['drop']['mean']):.1f}"
                assert any(text.lstrip("−") == number for text in printed), (group.name, entry["label"])
    signs = {"more fragile": "▼", "more robust": "▲", "equivalent": "≈", "cannot tell": "?"}
    for drawing in (beyond.drawing, beyond.narrow):
        printed = texts(drawing)
        numbers = [text for text in printed if text[-1:] in signs.values()]
        n_compared = sum(bool(group.middle["against_reference"]) for group in shown)  # not what was handed on
        assert len(numbers) == (n_compared + 1) * (len(FOURTEEN) - 1)
        for entry in result["overall"]["against_reference"]:
            number = f"{100 * abs(entry['drop_difference']['mean']):.1f} {signs[entry['verdict']]}"
            assert any(text[1:] == number or text == number for text in printed)


def test_the_map_tints_what_is_lost_more_deeply(study_of):
    result = planted()
    drops = robustness_map.figure(result, study_of(result)).panels[0]
    tints = [float(e.get("fill-opacity")) for e in elements(drops.drawing, "rect") if e.get("fill") == "var(--bad)"]
    assert tints == pytest.approx([0.25, 0.5, 0.25, 0.5])  # all together, then the one set; lora loses twice as much


def test_an_improvement_is_tinted_otherwise_than_a_loss(study_of):
    result = planted()
    result["sets"][1]["methods"][1]["drop"] = reach(-0.1)
    drops = robustness_map.figure(result, study_of(result)).panels[0]
    assert [e.get("fill") for e in elements(drops.drawing, "rect")].count("var(--good)") == 2
    assert "−10.0" in texts(drops.drawing)


def test_the_middle_strength_is_shown_and_the_lower_of_two_in_the_middle():
    assert groups(planted())[0].middle["strength"] == 0.2
    assert groups(planted(strengths=(0.4, 0.1, 0.3, 0.2)))[0].middle["strength"] == 0.2
    assert groups(planted(strengths=(0.5,)))[0].middle_name == "char swap, 0.5"


def test_sets_are_ordered_by_what_they_promise():
    order = [CATEGORIES.index(group.category) for group in groups(robustness_study(FOUR))]
    assert order == sorted(order)
    assert {group.name for group in groups(robustness_study(FOUR)) if group.category == "Texts, noise"} == {
        "word drop",
        "local shuffle",
    }


def test_matched_flips_stand_where_they_were_planted(study_of):
    result = planted(strengths=(0.1, 0.2, 0.3))
    study = study_of(result)
    overall = robustness_differences.overall_figure(result, study)
    assert [panel.heading for panel in overall.panels] == ["Drop, against full", "Flips where both were right"]
    assert "the second is the fairer" in overall.caption
    for drawing in (overall.panels[1].drawing, overall.panels[1].narrow):
        ((_, (x, _)),) = marks(drawing).items()
        zero = next(e for e in elements(drawing, "line") if e.get("stroke") == "var(--ink)")
        ends = [e for e in elements(drawing, "line") if e.get("stroke-width") == "2"]
        low, high = sorted(float(e.get("x1")) for e in ends)
        assert x == pytest.approx((low + high) / 2, abs=0.1)
        assert (x - float(zero.get("x1"))) / (high - low) == pytest.approx(0.2 / 0.04, rel=0.02)
    (panel,) = robustness_differences.matched_figure(result, study).panels
    assert panel.heading == "lora"
    assert "+20.0" in texts(panel.drawing)


def test_verdicts_are_told_in_words_with_the_margin(study_of):
    result = planted()
    study = study_of(result)
    figure = robustness_differences.overall_figure(result, study)
    assert "▼ more fragile" in texts(figure.panels[0].drawing)
    assert "3 points" in figure.caption
    lead = " ".join(robustness(study).lead)
    assert (
        "Against full, more fragile: lora. On examples that both had right when clean, lora flips more often." in lead
    )
    assert "The drop at equal clean score is not known: only the final models were kept." in lead
    assert "hurts full most is char swap, 0.2: from 90.0 to 70.0" in lead


def test_what_a_search_costs_is_told_beside_what_perturbations_cost_and_alone(study_of):
    """A search keeps labels too, and hurts more than what is said to hurt most of the perturbations."""
    result = robustness_study(FOUR)
    entry = next(one for one in result["sets"] if one["name"] == "deepwordbug" and one["strength"] == 0.2)
    full = next(one for one in entry["methods"] if one["label"] == result["reference"])
    full |= {"clean": reach(0.9), "perturbed": reach(0.2), "drop": reach(0.7)}
    wanted = "The search that hurts full most, each model by itself, is deepwordbug, 0.2: from 90.0 to 20.0."
    told = robustness(study_of(result)).lead
    assert wanted in told
    assert any("At middle strength the perturbation that keeps labels and hurts full most is" in one for one in told)
    alone = {**result, "sets": [one for one in result["sets"] if one["kind"] == "search"], "overall": None}
    assert wanted in robustness(study_of(alone)).lead


def test_a_drop_that_is_not_shown_is_not_called_the_worst(study_of):
    result = planted()
    for method in result["sets"][1]["methods"]:
        method["drop"] = reach(0.01)
    assert "nothing that keeps labels is shown to cost full anything" in " ".join(robustness(study_of(result)).lead)


def test_bars_end_where_a_score_can_end(study_of):
    result = planted()
    result["sets"][0]["methods"][0]["perturbed"] = reach(0.8, half=0.9)  # as two seeds that differ give it
    (panel,) = robustness_curves.figure(result, study_of(result)).panels
    ticks = [text for text in texts(panel.drawing) if re.fullmatch(r"−?\d+", text)]
    assert all(0 <= float(tick.replace("−", "-")) <= 100 for tick in ticks)
    assert "full at 0.1: 80.0 (−10.0 to 170.0)" in marks(panel.drawing)


def test_strengths_that_would_run_into_one_another_give_way_to_round_numbers(study_of):
    result = planted(strengths=(0.00334, 0.0111, 0.0334))
    (panel,) = robustness_curves.figure(result, study_of(result)).panels
    assert "0.00334" not in texts(panel.drawing)
    result = planted(strengths=(1 / 3, 2 / 3, 1.0))
    (panel,) = robustness_curves.figure(result, study_of(result)).panels
    assert {"0.333", "0.667", "1"} <= set(texts(panel.drawing))


def test_clean_against_perturbed_stands_below_the_line_of_no_loss_by_its_drop(study_of):
    result = planted()
    result["sets"][1]["methods"][1]["clean"] = reach(0.8)  # else the two stand in one column
    (panel,) = robustness_scatter.figure(result, study_of(result)).panels
    found = marks(panel.drawing)
    full, lora = found["full, char swap, 0.2: 90.0 to 70.0"], found["lora, char swap, 0.2: 80.0 to 50.0"]
    assert lora[0] < full[0]
    assert lora[1] > full[1]
    identity = next(e for e in elements(panel.drawing, "line") if e.get("stroke-dasharray") == "4 4")
    x1, y1, x2, y2 = (float(identity.get(key)) for key in ("x1", "y1", "x2", "y2"))
    per_point = (lora[1] - full[1]) / 20

    def above(at):
        return y1 + (at[0] - x1) / (x2 - x1) * (y2 - y1)

    assert full[1] - above(full) == pytest.approx(20 * per_point, abs=0.5)
    assert lora[1] - above(lora) == pytest.approx(30 * per_point, abs=0.5)


def test_lines_at_equal_score_share_their_slope_and_stand_apart_by_the_planted_difference(study_of):
    result = planted()
    slope, apart = 0.5, 0.04
    result["checkpoints"] = [
        {"label": name, "run": f"{name}-{run}", "clean": clean, "drops": {}, "used": True,
         "overall": slope * clean + apart * (name == "lora")}
        for name in ("full", "lora") for run in range(2) for clean in (0.7, 0.8, 0.9)
    ]  # fmt: skip
    result["checkpoints"].append(
        {"label": "lora", "run": "lora-0", "clean": 0.5, "drops": {"a": 0.02, "b": 0.04}, "used": False}
    )
    result["at_equal_accuracy"] = [
        {
            "set": "overall",
            "slope": reach(slope),
            "differences": {"lora": reach(apart)},
            "n_checkpoints": 12,
            "n_runs": 4,
        }
    ]  # fmt: skip
    result["at_equal_accuracy_reason"] = ""
    assert robustness_checkpoints.checkpoints(result)[-1].drop == pytest.approx(0.03)
    study = study_of(result)
    figure = robustness_checkpoints.figure(result, study)
    assert "Hollow marks are too near chance" in figure.caption
    drawing = figure.panels[0].drawing
    found = marks(drawing)
    one, other = found["full: clean 80.0, drop +40.0"], found["lora: clean 80.0, drop +44.0"]
    assert one[0] == pytest.approx(other[0], abs=0.1)
    drawn = [lines(drawing, study.style(name).colour)[0] for name in ("full", "lora")]
    gaps = []
    for (x1, y1), (x2, y2) in drawn:
        gaps.append((y2 - y1) / (x2 - x1))
    assert gaps[0] == pytest.approx(gaps[1], abs=1e-3)

    def at(line, x):
        (x1, y1), (x2, y2) = line
        return y1 + (x - x1) / (x2 - x1) * (y2 - y1)

    assert at(drawn[0], one[0]) - at(drawn[1], one[0]) == pytest.approx(one[1] - other[1], abs=0.2)
    assert at(drawn[0], one[0]) == pytest.approx(one[1], abs=0.2)
    row = robustness_checkpoints.slopes_table(result).sections[0].rows[0]
    assert [cell.text for cell in row] == ["all together", "+4.0", "+0.5"]
    assert "a method loses, beyond full: lora +4.0 (+2.0 to +6.0)" in " ".join(robustness(study).lead)


def test_own_sets_say_how_many_rows_and_how_wide_the_interval_is():
    table = own_sets(robustness_study(FOUR))
    assert table.sections[0].heading == "shifted.jsonl, 60 rows"
    assert half_width(Estimate(0.5, 0.39, 0.61), "fraction") == "11.0"  # 78 rows at 50 %, as the specification has it
    assert own_sets(planted()) is None


def test_contrast_sets_show_both_consistencies():
    table = contrast_sets(robustness_study(FOUR))
    assert table.sections[0].heading == "pairs.jsonl, 40 sets"
    assert all(cell.text != "–" for row in table.sections[0].rows for cell in row[2:])


def test_a_search_has_a_row_for_each_method_with_what_it_took_and_what_its_texts_do_to_others():
    result = robustness_study(FOUR)
    table = searches(result)
    assert [section.heading for section in table.sections][:2] == [
        "deepwordbug, up to 10 % of the words", "deepwordbug, up to 20 % of the words",
    ]  # fmt: skip
    entry = next(one for one in result["sets"] if one["name"] == "deepwordbug" and one["strength"] == 0.2)
    other = next(one for one in result["sets"] if one["name"] == "deepwordbug_transfer" and one["strength"] == 0.2)
    for row, method, handed_on in zip(table.sections[1].rows, entry["methods"], other["methods"], strict=True):
        told = [cell.text for cell in row]
        assert told[0] == method["label"]
        assert [*told[1:4], *told[6:]] == [
            *(f"{100 * one[what]['mean']:.1f}" for one, what in (
                (method, "perturbed"), (method, "attack_success"), (handed_on, "attack_success"),
            )),
            f"{method['n_queries']['mean']:.1f}", f"{100 * method['changed']['mean']:.1f}",
        ]  # fmt: skip
    assert all(row[5].sign for row in table.sections[1].rows[1:]), "a verdict against the reference"
    without = {**result, "sets": [one for one in result["sets"] if one["kind"] not in ("search", "transfer")]}
    assert searches(without) is None


def test_the_table_behind_the_map_has_every_measure_of_every_set():
    result = planted()
    (section,) = every_set(result).sections
    assert section.heading == "char swap, 0.2: 100 rows, 98 of them changed"
    assert [cell.text for cell in section.rows[1]] == [
        "lora", "90.0", "50.0", "+40.0", "55.6", "40.0", "40.0", "+20.0", "more fragile",
    ]  # fmt: skip


def test_the_first_table_gives_the_answer_and_drops_columns_that_one_method_cannot_have():
    row = answer(planted()).sections[0].rows[1]
    assert [cell.text for cell in row] == ["lora", "90.0", "+40.0", "+20.0", "more fragile", "+20.0", "50.0"]
    alone = answer(planted(names=("full",)))
    assert alone.columns == ("Method", "Clean,\u00a0%", "Drop, points", "Worst case,\u00a0%")
    assert len(alone.sections[0].rows[0]) == 4


def without_what_may_be_missing(result):
    for entry in result["sets"]:
        for method in entry["methods"]:
            method |= {"relative": None, "attack_success": None, "flip_rate": None}
        for against in entry["against_reference"]:
            against["matched"] = None
    result["sets"][0]["methods"] = result["sets"][0]["methods"][1:]
    result["sets"][1]["against_reference"] = []
    result["sets"][2]["methods"][0] |= {"perturbed": reach(float("nan")), "drop": None}
    for entry in result["contrast"]:
        for method in entry["methods"]:
            method |= {"consistency": None, "pair_consistency": None}
    result |= {
        "overall": None, "worst_case": {}, "checkpoints": [], "at_equal_accuracy": [],
        "at_equal_accuracy_reason": "no snapshots were kept", "left_out": {"prefix": "it has no embeddings"},
    }  # fmt: skip
    return result


def as_an_error(result):
    """A metric of which less is better, without bounds."""
    return {**result, "metric": "rmse", "unit": ""}


CASES = {
    "four methods": (robustness_study(FOUR), {}),
    "one method": (robustness_study(("full",)), {"methods": ("full",)}),
    "fourteen methods": (robustness_study(FOURTEEN), {"methods": FOURTEEN, "n": 60}),
    "planted": (planted(), {}),
    "one strength": (planted(strengths=(0.2,)), {}),
    "methods the table no longer has": (planted(names=("gone", "lora")), {}),
    "much is missing": (without_what_may_be_missing(robustness_study(FOUR)), {}),
    "an error": (as_an_error(robustness_study(FOUR)), {}),
    "no sets": ({**planted(), "sets": [], "overall": None}, {}),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_kind_of_study_gives_a_sound_page(study_of, case):
    result, fields = case
    study = study_of(result, **fields)
    text = page(study.table)
    read = Page(text)
    assert read.problems == []
    assert '<section id="robustness"' in text
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert not re.search(r"\b(nan|None|inf)\b", read.text)
    for figure in robustness(study).figures:
        assert figure.data.sections
        root = ElementTree.fromstring(figure.svg)
        assert len(root.find("{http://www.w3.org/2000/svg}desc").text) > 20
        assert not re.search(r"\b(nan|inf)\b", figure.svg)
        for panel in figure.panels:
            narrow = panel.narrow or panel.drawing
            assert narrow.width <= 320
            assert min(float(element.get("font-size")) for element in elements(narrow, "text")) >= 9
    for name in methods(result):
        assert name in read.text


def test_what_was_left_out_is_told(study_of):
    chapter = robustness(study_of(without_what_may_be_missing(robustness_study(FOUR))))
    assert "Left out, prefix: it has no embeddings" in chapter.notes


def test_names_and_summaries_cannot_become_markup(study_of):
    result = planted(names=("full", EVIL))
    result["sets"][0] |= {"name": EVIL, "summary": EVIL, "unit": EVIL}
    result["left_out"] = {EVIL: EVIL}
    text = page(study_of(result, methods=("full", EVIL)).table)
    assert "<script" not in text
    assert Page(text).problems == []


def test_the_figures_are_exported(study_of, tmp_path):
    study = study_of(robustness_study(FOUR))
    names = {path.stem for path in export(study.table, tmp_path / "export", ("svg",))}
    assert {"robustness-curves", "robustness-map", "matched-flips", "clean-against-perturbed"} <= names


@pytest.fixture
def with_texts(study_of):
    """A study whose perturbed texts stand in its folder."""
    result = planted()
    result["sets"][1]["file"] = "robustness/sets/char_swap.jsonl"
    study = study_of(result, texts=tuple(f"clear text {n}" for n in range(240)))
    rows = [
        {
            "id": f"rows.csv:{n + 2}",
            "texts": [f"claer <txet> {n}"],
            "edits": [[{"start": 2, "end": 4}] if n == 3 else []],
        }
        for n in range(6)
    ]
    path = study.store.folder / "robustness" / "sets" / "char_swap.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return study


def test_a_text_is_shown_before_and_after_where_texts_may_be_shown(with_texts):
    text = Page(page(with_texts.table)).text
    assert "as it is clear text 3 char swap, 0.2 claer <txet> 3" in text  # the one that was changed
    shared = page(with_texts.table, with_examples=False)
    assert "clear text" not in shared
    assert "claer" not in shared


def test_without_the_files_no_texts_are_shown(with_texts):
    (with_texts.store.folder / "robustness" / "sets" / "char_swap.jsonl").unlink()
    assert "What was done to a text" not in page(with_texts.table)
