"""Figures: their numbers against records and other libraries, and their readability in numbers."""

import itertools
import math
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix

from deltaproof.experiments.table import table_from
from deltaproof.metrics import METRICS, N_BINS
from deltaproof.report.drawing.scales import Scale, padded
from deltaproof.report.drawing.svg import Drawing, fitted, text_width, with_colours
from deltaproof.report.drawing.theme import COLOURS, DARK, LIGHT, contrast
from deltaproof.report.figures import all_figures, forest_plot
from deltaproof.report.figures.confusion import confused_pairs, matrix
from deltaproof.report.figures.learning import mean_curve, thinned
from deltaproof.report.figures.pareto import front
from deltaproof.report.figures.reliability import bins
from deltaproof.report.study import Study

NAMES = ("differences", "costs-and-quality", "learning-curves", "learning-rates", "confusion", "reliability")


def test_confusion_counts_agree_with_scikit_learn(table_of):
    study = Study(table_of())
    row = study.table.row("lora")
    pairs = [(answer.targets[:, 0], answer.outputs.argmax(1)) for answer in study.answers(row)]
    expected = sum(confusion_matrix(true, answered, labels=range(3)) for true, answered in pairs)
    np.testing.assert_array_equal(matrix(study, row), expected)


def test_reliability_agrees_with_scikit_learn_and_with_the_calibration_error(table_of):
    study = Study(table_of(seeds=1, labels=("no", "yes"), baselines=()))
    row = study.table.row("full")
    answer = study.answers(row)[0]
    right = answer.outputs.argmax(1) == answer.targets[:, 0]
    shares, means = calibration_curve(right, answer.outputs.max(1), n_bins=N_BINS)
    found = bins(study, row)
    np.testing.assert_allclose([share for _, share, _ in found], shares)
    np.testing.assert_allclose([mean for mean, _, _ in found], means)
    error = sum(n * abs(share - mean) for mean, share, n in found) / sum(n for _, _, n in found)
    assert error == pytest.approx(METRICS["ece"].score(answer.targets, answer.outputs))


def test_the_front_is_what_no_point_beats():
    points = [tuple(point) for point in np.random.default_rng(0).integers(0, 8, (40, 2)).tolist()]
    for index, (cost, quality) in enumerate(points):
        beaten = any(c <= cost and q >= quality and (c < cost or q > quality) for c, q in points)
        assert (index in front(points)) != beaten


def test_many_classes_give_pairs_instead_of_matrices(table_of):
    study = Study(table_of(labels=tuple(f"class {n}" for n in range(25)), n=600, skills=(0.5, 0.5, 0.5, 0.5)))
    assert "confusion" not in all_figures(study)
    pairs = confused_pairs(study)
    counts = [sum(int(cell.text) for cell in row[2:]) for row in pairs.sections[0].rows]
    assert counts == sorted(counts, reverse=True)
    total = sum(matrix(study, row) for row in study.done)
    np.fill_diagonal(total, 0)
    assert counts[0] == total.max()


def test_the_forest_plot_shows_itself_in_a_notebook_and_names_every_contestant(table_of):
    table = table_of(endings={"head": "diverged"})
    figure = forest_plot(table)
    assert figure._repr_svg_() == figure.svg
    assert figure.svg in figure._repr_html_()
    for name in ("lora", "ia3", "head"):
        assert name in figure.svg
    assert "not compared, diverged" in figure.svg
    assert table.plot().svg == figure.svg


def test_an_interval_far_out_is_cut_with_an_arrow_and_the_others_stay_wide(table_of):
    figure = forest_plot(table_of(n=1500, skills=(0.9, 0.9, 0.89, 0.05), labels=("no", "yes")))
    assert "An arrow marks an interval" in figure.caption
    cells = {row[0].text: row[2].text for row in figure.data.sections[0].rows}
    assert cells["head"] in figure.svg


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_alone_is_valid_xml_with_concrete_colours(table_of, name):
    figure = all_figures(Study(table_of(labels=("a < b", "c & d", 'e "f"'))))[name]
    root = ElementTree.fromstring(figure.svg)
    space = "{http://www.w3.org/2000/svg}"
    assert root.tag == f"{space}svg"
    assert root.find(f"{space}title").text == figure.title
    assert len(root.find(f"{space}desc").text) > 20
    assert "var(" not in figure.svg
    width, height = float(root.get("width")), float(root.get("height"))
    assert 200 < width < 1200
    assert height < 2000


def test_letters_that_xml_forbids_are_replaced(table_of):
    figures = all_figures(Study(table_of(labels=("bell \x07 here", "null \x00", "plain"), baselines=())))
    ElementTree.fromstring(figures["confusion"].svg)


def test_text_that_looks_like_a_colour_stays_as_it_is():
    drawing = Drawing(100, 100)
    drawing.text((0, 0), 'fill="var(--ink)"')
    assert "fill=&quot;var(--ink)&quot;" in with_colours(drawing.body)


def test_a_run_that_stopped_early_ends_the_mean_curve():
    assert mean_curve([[(1, 1.0), (2, 2.0), (3, 3.0)], [(1, 3.0), (2, 4.0)]]) == [(1, 2.0), (2, 3.0)]
    assert mean_curve([]) == []


def test_a_thinned_curve_keeps_its_ends():
    curve = [(float(step), 0.0) for step in range(1000)]
    short = thinned(curve)
    assert (short[0], short[-1], len(short)) == (curve[0], curve[-1], 40)


@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize("seconds", [False, True])
@pytest.mark.parametrize(("low", "high"), [(1e-6, 2e-3), (0.3, 0.31), (12, 95), (1, 4e5), (3e8, 5e8), (0.9, 0.90001)])
def test_ticks_are_few_rising_and_inside(low, high, seconds, log):
    ticks = Scale(low, high, 0, 1, log).ticks(seconds=seconds)
    assert 2 <= len(ticks) <= 9
    assert ticks == sorted(set(ticks))
    assert all(low * (1 - 1e-6) <= tick <= high * (1 + 1e-6) for tick in ticks)


def test_a_scale_maps_its_ends_and_its_middle():
    assert [Scale(10, 20, 100, 200)(value) for value in (10, 15, 20)] == [100, 150, 200]
    assert Scale(1, 100, 0, 10, log=True)(10) == pytest.approx(5)
    assert padded([3.0, 3.0])[0] < 3 < padded([3.0, 3.0])[1]


def test_a_name_too_long_keeps_both_its_ends():
    name = "lora(rank=16, roles=['query', 'value'], alpha=32)"
    short = fitted(name, 120)
    assert text_width(short) <= 120
    assert short.startswith("lora(")
    assert short.endswith("32)")
    assert "…" in short


def test_twelve_contestants_all_look_different(table_of):
    study = Study(table_of(methods=tuple(f"m{n}" for n in range(13)), n=60, baselines=()))
    styles = [study.styles[f"m{n}"] for n in range(13)]
    assert len({(style.shape, style.hollow, style.colour) for style in styles}) == 13
    assert len({(style.colour, style.hollow) for style in styles}) == 13
    assert len({(style.shape, style.hollow) for style in styles}) == 13


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_reach_the_contrast_that_wcag_asks_for(theme):
    for ground, text in itertools.product(("page", "surface"), ("ink", "muted", "accent", "good", "bad", "warn")):
        assert contrast(theme[ground], theme[text]) >= 4.5, (ground, text)
    for tone in ("accent", "good", "bad", "warn"):
        assert contrast(theme[f"{tone}-soft"], theme[tone]) >= 4.5, tone
    for name in [name for name in COLOURS if name.startswith("series-")] + ["axis"]:
        assert contrast(theme["surface"], theme[name]) >= 3, name


@pytest.mark.parametrize("theme", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("tint", ["accent", "bad"])
def test_counts_stay_readable_on_the_deepest_tint(theme, tint):
    def channels(colour: str) -> list[int]:
        return [int(colour[start : start + 2], 16) for start in (1, 3, 5)]

    mixed = [round((a + b) / 2) for a, b in zip(channels(theme[tint]), channels(theme["surface"]), strict=True)]
    assert contrast("#" + "".join(f"{channel:02x}" for channel in mixed), theme["ink"]) >= 4.5


def test_contrast_agrees_with_known_values():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)  # the well-known grey just below 4.5


def test_values_that_are_not_finite_leave_no_trace_in_the_drawing(table_of):
    table = table_of(endings={"lora": "diverged"})
    study = Study(table)
    record = study.finals(table.row("lora"))[0]
    record.history.append({"step": 200, "train_loss": math.inf, "validation": {"accuracy": math.nan}})
    study.store.write(record)
    figures = all_figures(Study(table_from(study.store)))
    assert figures
    for figure in figures.values():
        assert not re.search(r"\b(nan|inf)\b", figure.svg)
