"""The chapter on scaling: planted curves stand where the data say, and what cannot be said is not drawn."""

import json
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest
from page_reader import Page
from synthetic_scale import PER_RANK, SIZES, examples_study, parameters_study

from deltaproof.experiments.table import Table
from deltaproof.metrics import METRICS
from deltaproof.records.store import write_json
from deltaproof.report.chapters.scaling import scaling
from deltaproof.report.drawing.marks import between
from deltaproof.report.estimates import Estimate, estimate
from deltaproof.report.figures import power_laws, scale_examples, scale_gains, scale_parameters, scale_rates
from deltaproof.report.figures.scale_gains import growing, preferred
from deltaproof.report.page import page
from deltaproof.report.study import Study

EVIL = "<script>alert(1)</script>\"'&"


def concave(p: float) -> float:
    return 0.9 - 2.0 * p**-0.4


def full(n: float) -> float:
    return 0.95 - 4.0 * n**-0.5


def lora(n: float) -> float:
    return 0.9 - 1.6 * n**-0.45


@pytest.fixture
def study_of(table_of):
    """Builds a run folder with these studies in it."""

    def make(parameters=None, examples=None, **fields) -> Study:
        table: Table = table_of(**fields)
        for name, found in (("scale_parameters", parameters), ("scale_examples", examples)):
            if found is not None:
                write_json(Path(table.folder) / "studies" / f"{name}.json", found)
        return Study(table)

    return make


def titles(drawing) -> list[tuple[float, float, str]]:
    """Where each titled mark begins, and its words."""
    marks = []
    for element in ElementTree.fromstring(f"<g>{drawing.body}</g>").iter("path"):
        title = element.find("title")
        if title is not None:
            x, y = (float(number) for number in re.match(r"M(-?[\d.]+) (-?[\d.]+)", element.get("d")).groups())
            marks.append((x, y, title.text))
    return marks


def evenly(values) -> bool:
    steps = np.diff(values)
    return bool(np.allclose(steps, steps[0], atol=0.25))  # coordinates are written to a tenth


def test_without_a_sweep_there_is_no_chapter(study_of):
    assert scaling(study_of()) is None


def test_a_study_read_back_from_its_file_is_the_study(study_of):
    found = parameters_study(concave)
    assert study_of(parameters=found).studies["scale_parameters"] == json.loads(json.dumps(found))


def test_points_stand_at_their_parameters_and_scores(study_of):
    result = parameters_study(lambda p: 0.5 + 0.05 * np.log2(p / PER_RANK), others={"full": 0.8})
    figure = scale_parameters.figure(result, study_of(parameters=result))
    for drawing in (figure.panels[0].drawing, figure.panels[0].narrow):
        marks = [mark for mark in titles(drawing) if mark[2].startswith("lora(rank=")]
        assert len(marks) == 6
        assert evenly([x for x, _, _ in marks])  # doublings on a logarithmic axis
        assert evenly([y for _, y, _ in marks])  # a planted gain of five points at each
        assert marks[0][1] > marks[-1][1]  # more is higher
        (level,) = (mark for mark in titles(drawing) if mark[2].startswith("full"))
        one_doubling = marks[0][1] - marks[1][1]
        top_of_diamond = 1.3 * 4.5
        assert level[1] == pytest.approx(marks[-1][1] - one_doubling - top_of_diamond, abs=0.3)  # 80 above 75


def test_fitted_curves_go_through_planted_ones(study_of):
    result = parameters_study(concave)
    found, straight = scale_parameters.curves_of(result)
    assert (found.ceiling, found.exponent) == (pytest.approx(0.9, abs=2e-3), pytest.approx(0.4, rel=0.05))
    for rank in (1, 4, 32):
        assert found.at(PER_RANK * rank) == pytest.approx(concave(PER_RANK * rank), abs=1e-3)
    ends = np.array([PER_RANK * rank for rank in (1, 2, 4, 8, 16, 32)], dtype=float)
    slope, start = np.polyfit(ends, [concave(p) for p in ends], 1)
    assert (straight.start, straight.slope) == (pytest.approx(start), pytest.approx(slope))


def test_of_three_ranks_no_curve_is_drawn(study_of):
    result = parameters_study(concave, ranks=(1, 4, 16))
    figure = scale_parameters.figure(result, study_of(parameters=result))
    assert scale_parameters.curves_of(result) is None
    assert [name for name, _ in figure.legend] == ["lora"]
    (line,) = scale_gains.returns_table(growing(result, None), METRICS["accuracy"]).sections[0].rows
    assert [cell.text for cell in line[-3:]] == ["too few sizes", "too few sizes", "cannot be compared"]


def test_the_curve_that_was_planted_is_preferred(study_of):
    many = tuple(2**power for power in range(9))
    assert preferred(parameters_study(concave, ranks=many)["growth"]) == "concave"
    assert preferred(parameters_study(lambda p: 0.5 + 1e-6 * p, ranks=many)["growth"]) == "straight"


def test_gains_and_their_change_are_those_that_were_planted(study_of):
    result = parameters_study(lambda p: 0.5 + 0.06 * np.log2(p / PER_RANK) - 0.005 * np.log2(p / PER_RANK) ** 2)
    (curve,) = growing(result, None)
    assert [gain.mean for _, _, gain in curve.gains] == pytest.approx([0.055, 0.045, 0.035, 0.025, 0.015])
    study = study_of(parameters=result)
    figure = scale_gains.figure([curve], study.table.metric, study)
    heights = [y for _, y, _ in titles(figure.panels[0].drawing)]
    assert evenly(heights)
    chapter = scaling(study)
    assert "a doubling brought +1.5" in chapter.lead[1]
    assert "Returns diminish" in chapter.lead[1]
    assert "changes by −1.0" in chapter.lead[1]


def test_a_learning_rate_at_the_edge_shows_as_a_hollow_mark_and_in_words(study_of):
    result = parameters_study(concave, at_edge=(16, 32), others={"full": 0.8})
    study = study_of(parameters=result)
    for figure in (scale_parameters.figure(result, study), scale_rates.figure(result, None, study)):
        root = ElementTree.fromstring(f"<g>{figure.panels[0].drawing.body}</g>")
        hollow = [e.find("title") for e in root.iter("path") if e.get("fill") == "var(--surface)"]
        names = [title.text for title in hollow if title is not None and title.text.startswith("lora")]
        assert len(names) == 2
        assert "16" in names[0]
        assert "32" in names[1]
        assert "hollow mark" in figure.caption
    assert "2 of 6 points were tuned to a learning rate at the edge" in scaling(study).notes[0]


def test_learning_rates_stand_on_a_logarithmic_axis(study_of):
    result = parameters_study(concave)
    marks = titles(scale_rates.figure(result, None, study_of(parameters=result)).panels[0].drawing)
    assert evenly([x for x, _, _ in marks])
    assert evenly([y for _, y, _ in marks])  # planted as rank to the power of -1/2


def test_a_planted_crossover_is_shaded_where_it_lies(study_of):
    result = examples_study({"full": full, "lora": lora}, noise=0.01)
    (pair,) = result["crossovers"]
    assert pair["verdict"] == "crossover"
    sizes = np.array(SIZES, dtype=float)
    gap = [full(n) - lora(n) for n in sizes]
    at = int(np.flatnonzero(np.diff(np.sign(gap)))[0])
    crossing = np.exp(np.interp(0, gap[at : at + 2], np.log(sizes[at : at + 2])))
    assert pair["at"]["value"] == pytest.approx(crossing, rel=1e-3)
    figure = scale_examples.figure(result, study_of(examples=result))
    (panel,) = figure.panels
    for drawing in (panel.drawing, panel.narrow):
        marks = titles(drawing)
        xs = {title.split(", ")[1].split(":")[0]: x for x, _, title in marks if title.startswith("full")}
        left, right = xs["64"], xs["16,384"] if "16,384" in xs else xs["16\u202f384"]
        root = ElementTree.fromstring(f"<g>{drawing.body}</g>")
        (band,) = [e for e in root.iter("rect") if e.get("fill") == "var(--accent)"]

        def place(n, left=left, right=right):
            return left + np.log(n / 64) / np.log(16384 / 64) * (right - left)

        start, width = float(band.get("x")), float(band.get("width"))
        circle = 5.0  # marks begin left of their middle
        assert start == pytest.approx(place(pair["at"]["low"]), abs=circle)
        assert start + width == pytest.approx(place(pair["at"]["high"]), abs=circle + 1)
        assert f"n* ≈ {pair['at']['value']:,.0f}".replace(",", "\u202f") in drawing.body
    assert "overtakes" in panel.heading


def test_without_a_crossover_the_plot_says_so(study_of):
    result = examples_study({"full": lambda n: lora(n) + 0.05, "lora": lora})
    study = study_of(examples=result)
    figure = scale_examples.figure(result, study)
    assert "no crossover in range" in figure.panels[0].drawing.body
    assert "do not cross in this range: full is ahead throughout" in figure.panels[0].heading
    assert scale_examples.crossover_table(result).sections[0].rows[0][1].text == "no crossover in range"
    assert any("do not cross" in sentence for sentence in scaling(study).lead)


def test_several_pairs_get_a_panel_each(study_of):
    result = examples_study({"full": full, "lora": lora, "head": lambda n: 0.6 - n**-0.5})
    figure = scale_examples.figure(result, study_of(examples=result))
    assert figure.panels[0].heading == "Every method"
    assert len(figure.panels) == 3


def test_a_planted_power_law_is_drawn_and_tabled(study_of):
    result = examples_study({"full": lambda n: 1 - 0.05 - 3.0 * n**-0.5, "lora": lambda n: 1 - 2.0 * n**-0.3})
    table = power_laws.law_table(result)
    (one, other) = table.sections[0].rows
    assert (one[2].text, one[3].text) == ("5.0", "0.50")
    assert (other[2].text, other[3].text) == ("0.0", "0.30")
    figure = power_laws.figure(result, study_of(examples=result))
    marks = [y for _, y, title in titles(figure.panels[0].drawing) if title.startswith("lora")]
    assert evenly(marks)  # a law without a floor is a straight line on logarithmic axes


def test_a_law_that_the_sizes_do_not_determine_has_no_line(study_of):
    result = examples_study({"full": full, "lora": lora})
    result["methods"][0]["power_law"]["is_at_edge"] = True
    row = power_laws.law_table(result).sections[0].rows[0]
    assert (row[1].text, row[2].text) == ("not determined", "–")
    drawn = power_laws.figure(result, study_of(examples=result)).panels[0].drawing.body
    both = power_laws.figure(examples_study({"full": full, "lora": lora}), study_of()).panels[0].drawing.body
    assert drawn.count("stroke-linejoin") == both.count("stroke-linejoin") - 1


def test_an_error_of_nothing_has_no_place_on_a_logarithmic_axis(study_of):
    result = examples_study({"full": lambda n: 1.0 if n > 4000 else full(n)})
    figure = power_laws.figure(result, study_of(examples=result))
    assert len(titles(figure.panels[0].drawing)) == 3
    assert not re.search(r"\b(nan|inf)\b", figure.svg)


CASES = {
    "parameters alone": (parameters_study(concave, others={"full": 0.8, "head": 0.6}, noise=0.02), None),
    "examples alone": (None, examples_study({"full": full, "lora": lora}, noise=0.02)),
    "both": (parameters_study(concave), examples_study({"full": full, "lora": lora})),
    "one method": (None, examples_study({"lora": lora})),
    "two sizes": (None, examples_study({"full": full, "lora": lora}, sizes=(64, 4096))),
    "an error": (
        parameters_study(lambda p: 2.0 + p**-0.4, metric="rmse"),
        examples_study({"full": lambda n: n**-0.2, "lora": lambda n: 0.8 * n**-0.1}, metric="rmse"),
    ),
    "fourteen methods": (
        None,
        examples_study({"full": full, **{f"m{n}": lambda x, n=n: lora(x) - 0.01 * n for n in range(13)}}),
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_every_kind_of_sweep_gives_a_sound_page(study_of, case):
    study = study_of(*case)
    text = page(study.table)
    read = Page(text)
    assert read.problems == []
    assert '<section id="scaling"' in text
    ids = [attributes["id"] for _, attributes in read.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert not re.search(r"\b(nan|None|inf)\b", read.text)
    for figure in scaling(study).figures:
        assert figure.data.sections[0].rows
        root = ElementTree.fromstring(figure.svg)
        assert len(root.find("{http://www.w3.org/2000/svg}desc").text) > 20
        assert not re.search(r"\b(nan|inf)\b", figure.svg)
        for panel in figure.panels:
            assert panel.narrow.width <= 320
            narrow = ElementTree.fromstring(f"<g>{panel.narrow.body}</g>")
            assert min(float(element.get("font-size")) for element in narrow.iter("text")) >= 9


def test_missing_parts_leave_gaps_not_errors(study_of):
    parameters, examples = parameters_study(concave, others={"full": 0.8}), examples_study({"full": full, "lora": lora})
    for point in parameters["points"]:
        point.pop("at_edge")
        point["learning_rate"] = None
    parameters["points"][0] |= {"mean": float("nan"), "low": None, "high": None}
    parameters["points"][1] |= {"low": None, "high": None}
    parameters["growth"] = None
    examples["methods"][0]["points"] = []
    examples["methods"][1] |= {"power_law": None, "growth": None}
    examples["crossovers"][0] |= {"at": None, "verdict": "cannot tell"}
    text = page(study_of(parameters, examples).table)
    assert not re.search(r"\b(nan|None|inf)\b", Page(text).text)


def test_names_cannot_become_markup(study_of):
    parameters = parameters_study(concave, others={EVIL: 0.8})
    parameters["method"] = EVIL
    text = page(study_of(parameters, examples_study({EVIL: lora, "full": full})).table)
    assert "<script" not in text
    assert Page(text).problems == []


def test_estimates_read_what_studies_store():
    assert estimate({"value": 1, "low": 0, "high": 2}) == Estimate(1.0, 0.0, 2.0)
    assert estimate({"mean": 1, "low": 0, "high": float("inf")}) == Estimate(1.0)
    assert estimate(None) is None
    assert [Estimate(0, *ends).sign for ends in ((1, 2), (-1, 2), (-2, -1), (None, None))] == [1, 0, -1, 0]
    assert between(0, 1, 3) == [0, 0.5, 1]
