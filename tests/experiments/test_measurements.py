"""What a method asks to have measured reaches record, table and report, and disturbs nothing."""

import json
from dataclasses import replace

import pytest

import deltaproof
from deltaproof.records.store import Store
from deltaproof.report.page import page
from small import FAST

PLAIN = "lora(rank=2)"
NIL = "density_penalty(lora(rank=2), strength=0.0)"
DENSE = "density_penalty(lora(rank=2), surrogate='tanh')"


@pytest.fixture(scope="module")
def table(bert, reviews_csv, tmp_path_factory):
    settings = {**FAST, "learning_rates": [3e-3], "seeds": 2, "baselines": False, "reference": PLAIN}
    out = tmp_path_factory.mktemp("runs") / "density"
    return deltaproof.compare(
        model=str(bert), data=str(reviews_csv), out=str(out), methods=[PLAIN, NIL, DENSE], **settings
    )


def records(table, name):
    return [Store(table.folder).find(key) for key in table.row(name).keys]


def test_final_records_hold_the_density_of_the_base_and_of_what_became_of_it(table):
    for record in records(table, DENSE):
        found = record.measurements
        assert found["base_activation_density_fraction"] == pytest.approx(1.0, abs=0.01)  # GELU
        assert found["activations_above_0.01_fraction"] <= found["activation_density_fraction"] <= 1
        by_layer = found["activations_above_0.01_by_layer"]
        assert len(by_layer) == len(found["base_activation_density_by_layer"]) == 2
        assert sum(by_layer) / 2 == pytest.approx(found["activations_above_0.01_fraction"])
    assert [record.measurements for record in records(table, PLAIN)] == [{}, {}]


def test_the_base_is_measured_before_anything_is_attached_to_it(table):
    def base(name):
        return [
            {name: value for name, value in record.measurements.items() if name.startswith("base_")}
            for record in records(table, name)
        ]

    assert base(NIL) == base(DENSE)
    assert base(DENSE)[0] == base(DENSE)[1]  # the seed makes a head, and nothing below it


def test_the_penalty_lowers_what_it_is_a_penalty_on(table):
    name = "activations_above_0.01_fraction"
    assert table.row(DENSE).measurements[name] < table.row(NIL).measurements[name]


def test_measuring_and_a_penalty_of_0_leave_the_training_as_it_was_to_the_bit(table):
    store = Store(table.folder)
    for plain, nil in zip(table.row(PLAIN).keys, table.row(NIL).keys, strict=True):
        assert store.predictions(plain).outputs.tobytes() == store.predictions(nil).outputs.tobytes()
    histories = [[record.history for record in records(table, name)] for name in (PLAIN, NIL)]
    assert histories[0] == histories[1]


def test_json_data_frame_and_report_show_the_mean_over_the_final_runs(table):
    name = "activations_above_0.01_fraction"
    values = [record.measurements[name] for record in records(table, DENSE)]
    row = next(row for row in json.loads(json.dumps(table.to_json()))["methods"] if row["name"] == DENSE)
    assert row["measurements"][name] == pytest.approx(sum(values) / 2)
    assert table.to_dataframe().loc[DENSE, name] == row["measurements"][name]
    text = page(table)
    assert "Further measurements" in text
    assert "Activation density,\u00a0%" in text
    assert f"{100 * row['measurements'][name]:.1f}" in text


def test_a_report_without_measurements_has_no_table_of_them(table):
    rows = tuple(replace(row, measurements={}) for row in table.rows)
    assert "Further measurements" not in page(replace(table, rows=rows))
