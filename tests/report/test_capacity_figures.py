"""Figures of the capacity chapter: marks stand where planted values say."""

import itertools
import math

import numpy as np
import pytest
import synthetic_studies as planted
from marks import elements, lines, marks, texts

from deltaproof.report.drawing.heatmap import DEEPEST, HeatCell, heat_map
from deltaproof.report.drawing.plot import Axis
from deltaproof.report.drawing.ranks import rank_axis
from deltaproof.report.drawing.strips import Spread, Strip, strips
from deltaproof.report.drawing.svg import Style
from deltaproof.report.figures import (
    change_line,
    displacement,
    forgetting,
    increments,
    local_slopes,
    overlap,
    singular_values,
    truncation,
    weight_maps,
)
from deltaproof.report.figures.updates_table import updates_table
from deltaproof.report.figures.weights import without_matrices
from deltaproof.report.study import Study
from deltaproof.theory.marchenko_pastur import noise_profile

METHODS = ("full", "lora", "bitfit", "prefix", "head")
NEAR = 0.6
"""A mark is written to a tenth of a unit, and a triangle's middle is not its centre."""


@pytest.fixture
def study(table_of):
    table = table_of(methods=METHODS)
    found = Study(table)
    planted.build_studies(found.store)
    return found


def affine(values, positions):
    """The straight line through the outer two, as a function."""
    (first, start), (last, end) = (pick(zip(values, positions, strict=True)) for pick in (min, max))
    return lambda value: start + (value - first) / (last - first) * (end - start)


def assert_affine(values, positions):
    expected = affine(values, positions)
    assert positions == pytest.approx([expected(value) for value in values], abs=NEAR)
    assert max(positions) - min(positions) > 20


@pytest.mark.parametrize("narrow", [False, True])
def test_the_cut_update_stands_at_its_score_and_ranks_double_from_step_to_step(study, narrow):
    figure = truncation.figure(study, study.studies["expressivity"])
    drawing = figure.panels[0].narrow if narrow else figure.panels[0].drawing
    (curve,) = [line for line in lines(drawing, "series-0") if len(line) == len(planted.RANKS)][2:]  # after two seeds
    scores = [planted.cut_score(rank) + 0.005 for rank in planted.RANKS]  # the mean of seeds 0 and 1
    assert_affine(scores, [y for _, y in curve])
    assert_affine([-1, *(math.log2(rank) for rank in planted.RANKS[1:])], [x for x, _ in curve])
    ring = elements(drawing, "circle")[0]
    at = curve[planted.RANKS.index(planted.CHOSEN)]
    assert (float(ring.get("cx")), float(ring.get("cy"))) == pytest.approx(at, abs=0.11)


def test_the_band_below_the_whole_update_is_the_margin_and_lora_stands_at_its_rank(study):
    drawing = truncation.figure(study, study.studies["expressivity"]).panels[0].drawing
    seeds = [line for line in lines(drawing, "series-0") if len(line) == len(planted.RANKS)]
    curve, scores = seeds[2], [planted.cut_score(rank) + 0.005 for rank in planted.RANKS]
    height = affine(scores, [y for _, y in curve])
    band = elements(drawing, "rect")[0]
    assert float(band.get("y")) == pytest.approx(height(scores[-1]), abs=NEAR)
    assert float(band.get("height")) == pytest.approx(height(scores[-1] - 0.02) - height(scores[-1]), abs=NEAR)
    x, y = marks(drawing)["lora: 87.0"]
    assert (x, y) == pytest.approx((curve[planted.RANKS.index(8)][0], height(0.87)), abs=NEAR)


def test_both_gaps_have_their_verdict_in_the_table(study):
    table = truncation.verdicts(study.studies["expressivity"])
    rows = table.sections[0].rows
    assert [row[0].text for row in rows] == ["expressivity", "optimisation"]
    assert [row[4].text for row in rows] == ["equivalent", "cannot tell"]
    assert [row[3].text for row in rows] == ["−0.5", "−2.5"]
    assert (rows[0][1].text, rows[0][2].text) == ("89.5", "89.0")
    assert "its cut to rank 8" in rows[0][0].detail
    assert "from that cut to lora" in rows[1][0].detail


def test_singular_values_of_a_power_law_are_a_straight_line_on_both_logarithmic_axes(study):
    result = study.studies["spectra"]
    full = result["methods"][0]
    curve = singular_values.median_curve(full, "query")
    np.testing.assert_allclose(curve, [(i, 4.0 / i) for i in (1, 2, 4, 8, 16, 32, 64)])
    panel = singular_values.figure(study, result).panels[0]
    (line,) = lines(panel.drawing, "series-0")
    assert_affine([math.log(position) for position, _ in curve], [x for x, _ in line])
    assert_affine([math.log(height) for _, height in curve], [y for _, y in line])
    edge = next(float(e.get("y1")) for e in elements(panel.drawing, "line") if e.get("stroke") == "var(--ink)")
    assert edge == pytest.approx(line[2][1], abs=NEAR)  # 4 / 4 = 1


@pytest.mark.parametrize("shape", [(60, 60), (40, 120), (150, 50)])
def test_the_profile_of_noise_is_that_of_random_matrices(shape):
    draw = np.random.default_rng(0)
    m, n = shape
    found = np.mean([np.linalg.svd(draw.normal(size=shape), compute_uv=False) for _ in range(20)], axis=0)
    expected = noise_profile(m, n, np.arange(1, min(shape) + 1)) * (math.sqrt(m) + math.sqrt(n))
    np.testing.assert_allclose(expected, found, atol=0.03 * found[0])


def test_a_singular_value_of_zero_has_no_place_on_a_logarithmic_axis():
    row = {"role": "query", "layer": 0, "noise_edge": 1.0, "positions": [1, 2, 3], "singular_values": [2.0, 0.0, None]}
    assert singular_values.median_curve({"rows": [row]}, "query") == [(1.0, 2.0)]


def test_the_map_of_sizes_has_a_panel_per_method_that_changed_a_matrix_and_deeper_tints_for_larger_changes(study):
    figures = {figure.name: figure for figure in weight_maps.figures(study, study.studies["spectra"])}
    figure = figures["change-sizes"]
    assert [panel.heading for panel in figure.panels] == ["full", "lora"]
    n_cells = 4 * len(planted.ROLES)
    for method, panel in enumerate(figure.panels):
        cells = [float(rect.get("fill-opacity")) for rect in elements(panel.drawing, "rect")[:n_cells]]
        sizes = [planted.ratio_2(method, layer, role) for layer in range(4) for role in range(len(planted.ROLES))]
        order = np.argsort(sizes, kind="stable")
        assert all(np.diff(np.array(cells)[order]) >= -0.011)
        assert max(cells) <= DEEPEST
        assert f"{100 * sizes[0]:.1g}" in texts(panel.drawing)
    assert max(cells) == DEEPEST  # one scale for both, and the largest change is the second method's
    assert {"attn out", "ffn in", "query", "layer"} <= set(texts(figure.panels[0].drawing))


def test_maps_leave_out_what_is_in_no_layer_and_show_intruders_as_counts(study):
    maps = {figure.name: figure for figure in weight_maps.figures(study, study.studies["spectra"])}
    rows = maps["intruders"].data.sections[0].rows
    assert len(rows) == 2 * 4
    assert [cell.text for cell in rows[1]] == ["full", "2", "1", "2", "3", "0", "1"]
    rows = maps["ranks-over-noise"].data.sections[0].rows
    assert [cell.text for cell in rows[0]] == ["full", "1", "10", "12", "14", "16", "18"]


def test_methods_without_a_changed_matrix_are_named_with_the_reason(study):
    said = without_matrices(study.studies["spectra"])
    assert [line.split(" (")[0] for line in said] == ["bitfit", "prefix", "head"]
    assert "26 biases and norms changed" in said[0]
    assert "no change of weights that the base has" in said[1]
    assert "no matrix of a layer changed" in said[2]


def test_the_table_of_updates_has_a_row_per_method(study):
    rows = {row[0].text: row for row in updates_table(study.studies["spectra"]).sections[0].rows}
    assert list(rows) == list(METHODS)
    assert [cell.text for cell in rows["lora"][1:]] == ["3.0 %".replace(".0", ""), "21", "3", "72 %", "8 %", "3 of 200"]
    assert rows["prefix"][0].detail == "no change of weights"
    assert rows["bitfit"][0].detail == "26 biases and norms"


def test_captured_energy_stops_at_a_methods_rank_and_has_chance_beside_it(study):
    result = study.studies["spectra"]
    figure = overlap.captured_figure(study, result)
    drawing = figure.panels[0].drawing
    (full,), (lora,) = lines(drawing, "series-0"), lines(drawing, "series-1")
    assert (len(full), len(lora)) == (2, 3)  # ranks 1, 2 and 1, 2, 4 are what they have
    assert_affine([0.04, 0.08, 0.12], [y for _, y in lora])
    chance = dict(overlap.captured_by_chance(overlap.compared(result)))
    square, oblong = 16 / 64**2, 16 / (64 * 128)
    assert chance[4] == pytest.approx((3 * square + 2 * oblong) / 5)
    assert "full, another seed" in {name for name, _ in figure.legend}


def test_an_overlap_no_larger_than_chance_has_no_tint(study):
    result = study.studies["spectra"]
    method = result["methods"][0]
    method["against_full"]["overlap_out"] = overlap.chance_of(method, "out")
    figure = overlap.maps_figure(study, result)
    at_chance, above = (panel.drawing for panel in figure.panels[:2])
    n_key = 5
    assert len(elements(at_chance, "rect")) == n_key
    assert len(elements(above, "rect")) > n_key
    assert figure.panels[1].heading == "full, another seed: input side"


def test_a_histogram_has_logarithmic_heights_and_an_empty_bin_reaches_the_ground(study):
    method = study.studies["spectra"]["methods"][0]
    found = method["increments"]["histogram"]
    panel = increments.figure(study, study.studies["spectra"]).panels[0]
    (outline,) = lines(panel.drawing, "series-0")
    tops = [outline[1 + 2 * at][1] for at in range(len(found["counts"]))]
    filled = [(math.log(count), top) for count, top in zip(found["counts"], tops, strict=True) if count]
    assert_affine(*map(list, zip(*filled, strict=True)))
    assert tops[1] == outline[0][1] == max(y for _, y in outline)
    assert panel.heading == "full: query weights, layer 4"
    assert "bitfit: query biases, layer 4" in {
        p.heading for p in increments.figure(study, study.studies["spectra"]).panels
    }


def test_displacement_strips_stand_at_their_medians_and_the_bound_on_an_axis_of_exponents(study):
    figure = displacement.figure(study, study.studies["displacement"])
    measured, tightness = figure.panels
    found = {title.split(":")[0]: x for title, (x, _) in marks(measured.drawing).items()}
    assert list(found) == ["full", "lora", "bitfit", "prefix"]
    assert_affine([math.log(at + 1) for at in range(4)], list(found.values()))
    assert "logits as those of the base" in texts(measured.drawing)
    found = {title.split(":")[0]: x for title, (x, _) in marks(tightness.drawing).items()}
    assert_affine([-12.0, -11.0, -10.0], [found[label] for label in ("full", "lora", "bitfit")])
    reached = [float(e.get("x1")) for e in elements(tightness.drawing, "line") if e.get("stroke") == "var(--ink)"]
    assert affine([-12.0, -10.0], [found["full"], found["bitfit"]])(0.0) == pytest.approx(reached[0], abs=NEAR)
    assert {"no change of weights", "nothing moved", "median 10⁻¹¹, at most 10⁻⁹"} <= set(texts(tightness.drawing))
    assert "nothing moved" in {row[4].text for row in figure.data.sections[0].rows}


def test_slopes_stand_beside_the_bases_and_what_holds_is_in_percent(study):
    slopes, radii = local_slopes.figure(study, study.studies["displacement"]).panels
    assert "2 times the base's" in texts(slopes.drawing)
    found = {title.split(":")[0]: x for title, (x, _) in marks(slopes.drawing).items()}
    assert len({found[f"{label}, base"] for label in METHODS}) == 1
    assert_affine([math.log(at + 1) for at in range(5)], [found[f"{label}, tuned"] for label in METHODS])
    assert found["full, base"] == pytest.approx(found["full, tuned"], abs=NEAR)
    assert texts(radii.drawing).count("median 1 %") == len(METHODS)
    assert "full: median 1 %." in radii.description


def test_where_no_margin_is_known_there_is_no_radius(study):
    result = study.studies["displacement"]
    for method in result["methods"]:
        method["slopes"]["base"]["relative_radius"] = None
    assert [panel.heading for panel in local_slopes.figure(study, result).panels] == ["Slopes"]


def test_layers_that_nothing_moved_are_said_not_drawn(study):
    figure = displacement.layers_figure(study, study.studies["displacement"])
    assert "No layer moved under head" in figure.caption
    assert "head" not in {name for name, _ in figure.legend}
    (line,) = lines(figure.panels[0].drawing, "series-0")
    assert_affine([0.1, 0.2, 0.3, 0.4], [y for _, y in line])


def test_loss_and_score_along_the_change_have_their_planted_minimum_at_the_tuned_model(study):
    figure = change_line.figure(study, study.studies["path"])
    loss, score = (panel.drawing for panel in figure.panels)
    (line,) = lines(loss, "series-0")
    assert_affine([planted.path_loss(step, 0) for step in planted.STEPS], [y for _, y in line])
    for drawing, best in ((loss, max), (score, min)):  # y grows downwards
        (line,) = lines(drawing, "series-0")
        tuned = [float(e.get("x1")) for e in elements(drawing, "line") if e.get("stroke-dasharray") == "3 3"][1]
        assert best(line, key=lambda point: point[1])[0] == pytest.approx(tuned, abs=0.11)
    assert "prefix (not a change of weights); head (nothing changed)" in figure.caption


def test_a_loss_that_explodes_is_drawn_on_a_logarithmic_axis(study):
    result = study.studies["path"]
    result["methods"][0]["loss"] = [1000.0, 10.0, 1.0, 0.1, None]
    (line,) = lines(change_line.figure(study, result).panels[0].drawing, "series-0")
    assert_affine([3.0, 1.0, 0.0, -1.0], [y for _, y in line])


def test_learning_and_forgetting_stand_at_rise_and_score_with_bars_both_ways(study):
    result = study.studies["forgetting"]
    figure = forgetting.figure(study, result)
    found = {title.split(":")[0]: at for title, at in marks(figure.panels[0].drawing).items()}
    rises = {label: planted.rise(METHODS.index(label)) for label in ("full", "lora", "bitfit", "head")}
    assert set(found) == set(rises)
    assert_affine(list(rises.values()), [found[label][0] for label in rises])
    scores = {row.name: row.scores["accuracy"].mean for row in study.done}
    assert_affine([scores[label] for label in rises], [found[label][1] for label in rises])
    assert "prefix (has no place there)" in figure.caption
    assert "/somebody" not in figure.caption
    on_front = {row[0].text for row in figure.data.sections[0].rows if row[5].text == "yes"}
    beaten = {
        a
        for a, b in itertools.permutations(rises, 2)
        if rises[b] <= rises[a] and scores[b] >= scores[a] and (rises[b], scores[b]) != (rises[a], scores[a])
    }
    assert on_front == set(rises) - beaten


def test_a_rise_far_beyond_the_others_is_cut_with_an_arrow(study):
    result = study.studies["forgetting"]
    result["methods"][0] |= {"rise": 50.0, "low": 49.0, "high": 51.0}
    drawing = forgetting.figure(study, result).panels[0].drawing
    found = {title.split(":")[0]: x for title, (x, _) in marks(drawing).items()}
    assert found["lora"] - found["head"] > 100
    assert found["full"] <= drawing.width


def test_a_heat_map_without_room_shows_its_numbers_on_pointing():
    cells = {(row, column): HeatCell("12345", 0.5, f"{row}-{column}") for row in range(3) for column in range(20)}
    drawing = heat_map(["a", "b", "c"], [f"{n}" for n in range(20)], cells, "rows", "columns")
    assert "12345" not in texts(drawing)
    assert elements(drawing, "title")[0].text == "0-0"


def test_rank_zero_stands_one_step_before_the_lowest_rank():
    axis, place = rank_axis("rank", [0, 4, 16, 384])
    assert [place(rank) for rank in (0, 4, 16)] == [1, 2, 4]
    assert [axis.text(at) for at in axis.at] == ["0", "4", "16", "384"]
    axis, _ = rank_axis("rank", [8, 9, 10, 11, 12, 16])
    assert [axis.text(at) for at in axis.at] == ["9", "16"]
    axis, _ = rank_axis("rank", [0])
    assert axis.low < axis.high


def test_values_beyond_a_strips_axis_stay_inside_the_drawing():
    drawing = strips([Strip("a", "", (Spread(Style("accent"), (-5.0, 0.5, 9.0)),))], Axis("x", 0, 1, str))
    assert all(
        0 <= x <= drawing.width
        for line in elements(drawing, "line")
        for x in (float(line.get("x1")), float(line.get("x2")))
    )
