"""Every kind of task that a text model is asked, from file to table."""

import numpy as np
import pytest

import deltaproof
from deltaproof.experiments.answer import answer, find_tuned
from deltaproof.records.store import Store
from small import FAST, reviews, write_csv

QUICK = {**FAST, "methods": "lora(rank=2),head", "trials": 1, "seeds": 1}


def compared(bert, folder, data, **fields):
    table = deltaproof.compare(model=bert, data=data, out=folder / "run", **{**QUICK, **fields})
    assert [row.status for row in table.rows] == ["done", "done"]
    return table


def test_seven_classes_unbalanced(bert, tmp_path):
    rows = [[text, f"class {min(at % 16, 6)}"] for at, (text, _) in enumerate(reviews(192))]
    table = compared(bert, tmp_path, write_csv(tmp_path / "d.csv", ["text", "label"], rows), metric="macro_f1")
    assert table.metric.name == "macro_f1"
    assert len(table.experiment["data"]["class_counts"]) == 7
    answers = Store(tmp_path / "run").predictions(table.row("head").keys[0])
    assert answers.outputs.shape[1] == 7
    said = answer(find_tuned(tmp_path / "run"), str(tmp_path / "d.csv"))["answers"]
    assert len(said) == 192
    assert set(said[0]["probabilities"]) == {f"class {at}" for at in range(7)}


def test_pairs_of_texts_and_new_pairs_under_the_same_names(bert, tmp_path):
    texts = [text for text, _ in reviews(96)]
    rows = [[text, other, at % 2] for at, (text, other) in enumerate(zip(texts, texts[1:] + texts[:1], strict=True))]
    data = write_csv(tmp_path / "d.csv", ["premise", "hypothesis", "label"], rows)
    table = compared(bert, tmp_path, data, text="premise,hypothesis")
    assert table.experiment["data"]["text_columns"] == ["premise", "hypothesis"]
    new = write_csv(tmp_path / "new.csv", ["note", "hypothesis", "premise"], [["x y z", texts[1], texts[0]]] * 3)
    turned = write_csv(tmp_path / "turned.csv", ["note", "hypothesis", "premise"], [["x y z", texts[0], texts[1]]])
    first, second = (answer(find_tuned(tmp_path / "run", "head"), str(path)) for path in (new, turned))
    assert len(first["answers"]) == 3
    assert first["answers"][0]["probabilities"] != second["answers"][0]["probabilities"]


def test_regression_answers_in_the_users_unit(bert, tmp_path):
    rows = [[text, 1000.5 + 50 * good + at % 5] for at, (text, good) in enumerate(reviews(96))]
    table = compared(bert, tmp_path, write_csv(tmp_path / "d.csv", ["text", "score"], rows), metric="rmse,spearman")
    assert table.metric.name == "rmse"
    spread = np.std([row[1] for row in rows])
    assert table.margin == pytest.approx(0.05 * spread, rel=0.1)
    assert 0 < table.row("head").scores["rmse"].mean < 10 * spread
    said = answer(find_tuned(tmp_path / "run"), str(tmp_path / "d.csv"))["answers"]
    assert all(900 < row["value"] < 1200 for row in said)


def test_several_labels_at_once(bert, tmp_path):
    rows = [[text, good, int(at % 3 == 0), int(at % 4 == 0)] for at, (text, good) in enumerate(reviews(128))]
    data = write_csv(tmp_path / "d.csv", ["text", "good", "third", "fourth"], rows)
    table = compared(bert, tmp_path, data, label="good,third,fourth")
    assert table.metric.name == "micro_f1"
    said = answer(find_tuned(tmp_path / "run"), str(data))["answers"]
    assert all(
        row["label"] == [label for label, probability in row["probabilities"].items() if probability >= 0.5]
        for row in said
    )


def test_rows_of_one_group_stay_in_one_split_and_are_one_unit(bert, tmp_path):
    rows = [[text, good, f"author {at // 4}"] for at, (text, good) in enumerate(reviews(160))]
    table = compared(bert, tmp_path, write_csv(tmp_path / "d.csv", ["text", "label", "author"], rows), group="author")
    answers = Store(tmp_path / "run").predictions(table.row("head").keys[0])
    assert len(answers.ids) % 4 == 0
    assert all(answers.groups.count(name) == 4 for name in answers.groups)
    assert table.row("head").comparison.n_units == len(set(answers.groups))


def test_splits_in_files_of_their_own_are_used_as_given(bert, tmp_path):
    for name, n_rows, seed in (("train", 48, 1), ("dev", 16, 2), ("test", 24, 3)):
        write_csv(tmp_path / f"{name}.csv", ["text", "label"], [[t, y] for t, y in reviews(n_rows, seed)])
    table = compared(
        bert, tmp_path, tmp_path / "train.csv", validation=tmp_path / "dev.csv", test=tmp_path / "test.csv"
    )
    assert table.experiment["data"]["rows"] == {"train": 48, "validation": 16, "test": 24}
    answers = Store(tmp_path / "run").predictions(table.row("head").keys[0])
    assert all(identity.startswith("test.csv:") for identity in answers.ids)


def test_long_texts_are_cut_and_the_share_is_told(bert, tmp_path):
    rows = [[text + " and on" * (30 if at % 4 == 0 else 0), good] for at, (text, good) in enumerate(reviews(96))]
    table = compared(bert, tmp_path, write_csv(tmp_path / "d.csv", ["text", "label"], rows), max_length=40)
    assert table.experiment["data"]["truncated_fraction"] == pytest.approx(0.25, abs=0.1)


def test_a_length_beyond_the_models_is_lowered_to_it(bert, reviews_csv, tmp_path):
    table = compared(bert, tmp_path, reviews_csv, max_length=100_000)
    assert table.experiment["task"]["max_length"] <= 128
    assert any("tokens at most" in note for note in table.experiment["model"]["notes"])


def test_a_budget_of_examples_is_what_every_run_sees(bert, reviews_csv, tmp_path):
    table = compared(bert, tmp_path, reviews_csv, budget="32 examples")
    for record in Store(tmp_path / "run").records():
        if record.spec.stage == "final":
            assert record.history[-1]["step"] == 2
    assert table.experiment["plan"]["budget"]["examples"] == 32


def test_a_budget_of_minutes_sets_the_number_of_trials(bert, reviews_csv, tmp_path):
    plenty = deltaproof.compare(
        model=bert, data=reviews_csv, out=tmp_path / "a", dry_run=True, budget="60 minutes", **{**QUICK, "trials": 6}
    )
    assert plenty.experiment["plan"]["trials"] == 6
    seconds = plenty.experiment["estimated_seconds"]
    few = deltaproof.compare(
        model=bert, data=reviews_csv, out=tmp_path / "a", dry_run=True, budget={"minutes": 0.6 * seconds / 60},
        **{**QUICK, "trials": 6},
    )  # fmt: skip
    assert 1 <= few.experiment["plan"]["trials"] < 6
    assert few.experiment["estimated_seconds"] <= 0.6 * seconds
    with pytest.raises(deltaproof.errors.ConfigError, match="the budget must hold one trial and 1 seeds"):
        deltaproof.compare(
            model=bert, data=reviews_csv, out=tmp_path / "a", dry_run=True, budget={"minutes": 1e-6}, **QUICK
        )
