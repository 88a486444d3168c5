"""Perturbed copies of rows and the sets that users bring: what is stored, what is read, and how models answer them."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deltaproof.backbones import tiny_backbone
from deltaproof.data import Split, load_data
from deltaproof.errors import ConfigError, DataError, RecordError
from deltaproof.evaluation.predict import predict
from deltaproof.methods import method_from
from deltaproof.methods.tuned import attach
from deltaproof.robustness.answers import perturbed_predictions, reached
from deltaproof.robustness.perturbations import PERTURBATIONS, TextEdit
from deltaproof.robustness.perturbations.base import applied
from deltaproof.robustness.sets import (
    perturb_split,
    perturbed_sets,
    read_adversarial,
    read_perturbed,
    write_perturbed,
)
from deltaproof.tasks.text import TextTask

TASK = TextTask("classification", ("no", "yes"), ("accuracy",), 32)
TEXTS = [
    ("the quick brown fox jumps over nothing",),
    ("a really boring movie with 2 good actors\u2028and a break",),
    ('quotes " and \\ and naïve words',),
]
SPLIT = Split("test", ["a.csv:2", "a.csv:3", "a.csv:9"], TEXTS, np.array([[0.0], [1.0], [0.0]]))
PAIRS = Split("test", ["p:1", "p:2"], [("a good film", "it is quite good"), ("x", "y")], np.zeros((2, 1)), ["g", "h"])


def reviews(labels=("neg", "pos"), n=40):
    return [{"text": f"review {at} of a film", "label": labels[at % 2]} for at in range(n)]


@pytest.mark.parametrize("name", PERTURBATIONS)
@pytest.mark.parametrize("split", [SPLIT, PAIRS], ids=["single", "pairs"])
def test_rows_keep_their_ids_targets_and_groups(name, split):
    made = perturb_split(split, name, 0.5, seed=3)
    assert made.split.ids == split.ids
    assert made.split.groups == split.groups
    np.testing.assert_array_equal(made.split.targets, split.targets)
    assert made.split.texts == [tuple(text.text for text in row) for row in made.perturbed]
    assert (made.n_edits <= made.budget).all()
    for before, row in zip(split.texts, made.perturbed, strict=True):
        assert [applied(text, after.edits) for text, after in zip(before, row, strict=True)] == [
            after.text for after in row
        ]


def test_a_row_does_not_depend_on_its_neighbours():
    whole, part = perturb_split(SPLIT, "char_swap", 0.5), perturb_split(SPLIT.take([2]), "char_swap", 0.5)
    assert whole.split.texts[2] == part.split.texts[0]


def test_every_perturbation_comes_at_each_of_its_strengths():
    made = list(perturbed_sets(SPLIT))
    assert [(one.perturbation, one.strength) for one in made] == [
        (name, level) for name, kind in PERTURBATIONS.items() for level in kind.levels
    ]
    assert len(made) == 30


@pytest.mark.parametrize("ending", ["jsonl", "parquet"])
@pytest.mark.parametrize("split", [SPLIT, PAIRS], ids=["single", "pairs"])
@pytest.mark.parametrize("name", ["char_swap", "distractor", "word_drop"])
def test_what_is_written_is_read_back_to_the_letter(tmp_path, ending, split, name):
    made = perturb_split(split, name, 0.4, seed=5)
    write_perturbed(tmp_path / f"made.{ending}", made)
    back = read_perturbed(tmp_path / f"made.{ending}")
    assert back.split.texts == made.split.texts
    assert back.split.ids == made.split.ids
    assert back.split.groups == made.split.groups
    np.testing.assert_array_equal(back.split.targets, made.split.targets)
    assert back.perturbed == made.perturbed
    facts = ("perturbation", "strength", "seed", "promise", "source")
    assert [getattr(back, fact) for fact in facts] == [getattr(made, fact) for fact in facts]
    assert [path.name for path in tmp_path.iterdir()] == [f"made.{ending}"], "no temporary file is left"


def test_each_row_on_disk_says_how_it_came_about(tmp_path):
    write_perturbed(tmp_path / "made.jsonl", perturb_split(SPLIT, "keyboard", 0.2, seed=5))
    row = json.loads((tmp_path / "made.jsonl").read_text(encoding="utf-8").split("\n")[0])
    assert {key: row[key] for key in ("id", "perturbation", "strength", "seed", "promise", "source", "budgets")} == {
        "id": "a.csv:2",
        "perturbation": "keyboard",
        "strength": 0.2,
        "seed": 5,
        "promise": "keeps label",
        "source": "deltaproof",
        "budgets": [2],
    }
    assert applied(TEXTS[0][0], [TextEdit(**edit) for edit in row["edits"][0]]) == row["texts"][0]


def test_rows_without_labels_are_written_too(tmp_path):
    unlabelled = Split("test", SPLIT.ids, SPLIT.texts, np.full((3, 1), np.nan))
    write_perturbed(tmp_path / "made.jsonl", perturb_split(unlabelled, "keyboard", 0.2))
    assert np.isnan(read_perturbed(tmp_path / "made.jsonl").split.targets).all()


def test_files_of_another_kind_are_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"must end in .jsonl or .parquet, got `.txt`"):
        write_perturbed(tmp_path / "made.txt", perturb_split(SPLIT, "keyboard", 0.2))
    (tmp_path / "other.jsonl").write_text('{"text": "a"}\n')
    for name in ("other.jsonl", "missing.parquet"):
        with pytest.raises(DataError, match="as `write_perturbed` writes them"):
            read_perturbed(tmp_path / name)
    with pytest.raises(ConfigError, match="did you mean `char_swap`"):
        perturb_split(SPLIT, "char_swp", 0.2)


def write(folder: Path, ending: str, rows: list[dict]) -> Path:
    path = folder / f"advglue.{ending}"
    if ending == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    elif ending == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("\n".join([",".join(rows[0]), *(",".join(map(str, row.values())) for row in rows)]))
    return path


@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_users_own_set_gets_the_numbers_of_the_data_sets_labels(tmp_path, ending):
    dataset = load_data(reviews())
    rows = [{"text": "gr8 film", "label": "pos"}, {"text": "b0ring", "label": "Neg"}, {"text": "so so", "label": "pos"}]
    found = read_adversarial(write(tmp_path, ending, rows), dataset)
    assert found.name == "advglue"
    assert found.split.targets[:, 0].tolist() == [1, 0, 1]
    assert found.split.texts == [("gr8 film",), ("b0ring",), ("so so",)]
    assert found.split.ids[0].startswith(f"advglue.{ending}:")
    assert any("3 rows: an accuracy near one half is known to ±57 points" in note for note in found.notes)


def test_a_set_of_one_class_keeps_its_number(tmp_path):
    dataset = load_data(reviews(("a", "b"), 60))
    found = read_adversarial(write(tmp_path, "jsonl", [{"text": "x y", "label": "b"}]), dataset)
    assert found.split.targets.tolist() == [[1.0]]


def test_codes_are_matched_by_the_names_that_the_user_gives(tmp_path):
    dataset = load_data(reviews())
    path = write(tmp_path, "jsonl", [{"text": "gr8", "label": 1}, {"text": "bad", "label": 0}])
    with pytest.raises(DataError, match=r"advglue.jsonl, row 2: .*`neg`, `pos`\), got `0`; .*label_names"):
        read_adversarial(path, dataset)
    found = read_adversarial(path, dataset, label_names={"0": "neg", "1": "pos"})
    assert found.split.targets[:, 0].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("written", "names"),
    [
        ([1.0, 0.0], {"0": "neg", "1": "pos"}),
        (["1.0", "0.0"], {"0": "neg", "1": "pos"}),
        ([1, 0], {"0.0": "neg", "1.0": "pos"}),
        ([True, False], {"0": "neg", "1": "pos"}),
        ([True, False], {"false": "neg", "true": "pos"}),
        (["Positive", "NEGATIVE "], {"negative": "neg", "positive": "pos"}),
        (["pos", 0], {"0": "neg"}),
    ],
)
def test_a_label_is_the_same_label_however_a_file_writes_it(tmp_path, written, names):
    rows = [{"text": f"row {at}", "label": label} for at, label in enumerate(written)]
    found = read_adversarial(write(tmp_path, "jsonl", rows), load_data(reviews()), label_names=names)
    assert found.split.targets[:, 0].tolist() == [1, 0]


def test_a_code_and_a_name_of_its_own_are_taken_as_they_are_written(tmp_path):
    rows = [{"text": "a", "label": "01"}, {"text": "b", "label": "1"}, {"text": "c", "label": "Pos"}]
    path = write(tmp_path, "jsonl", rows)
    names = {"01": "neg", "1": "pos", "pos": "neg", "Pos": "pos"}
    found = read_adversarial(path, load_data(reviews()), label_names=names)
    assert found.split.targets[:, 0].tolist() == [0, 1, 1]


def test_columns_that_are_called_otherwise_are_named(tmp_path):
    dataset = load_data(reviews())
    path = write(
        tmp_path, "jsonl", [{"sentence": "gr8", "gold": "pos", "pair": 7}, {"sentence": "no", "gold": "neg", "pair": 7}]
    )
    assert read_adversarial(path, dataset).split.texts == [("gr8",), ("no",)], "their names tell what they are"
    found = read_adversarial(path, dataset, text="sentence", label="gold", group="pair")
    assert found.split.groups == ["7", "7"]
    with pytest.raises(
        DataError, match=r"must have one text as the data set has, got a pair of texts \(sentence, pair"
    ):
        read_adversarial(path, dataset, text="sentence,pair", label="gold")


def test_pairs_are_told_from_single_texts_by_the_names_of_their_columns(tmp_path):
    path = write(tmp_path, "jsonl", [{"premise": "a", "hypothesis": "b", "label": "pos"}])
    with pytest.raises(DataError, match=r"must have one text .* got a pair of texts \(premise, hypothesis\)"):
        read_adversarial(path, load_data(reviews()))


def test_sets_for_pairs_regression_and_several_labels(tmp_path):
    pairs = load_data([{"premise": f"p {at}", "hypothesis": f"h {at}", "label": "xy"[at % 2]} for at in range(40)])
    rows = [{"premise": "a", "hypothesis": "b", "label": "y"}]
    assert read_adversarial(write(tmp_path, "jsonl", rows), pairs).split.texts == [("a", "b")]
    numbers = load_data([{"text": f"t {at}", "label": at + 0.5} for at in range(40)], kind="regression")
    assert read_adversarial(write(tmp_path, "jsonl", [{"text": "a", "label": 2.25}]), numbers).split.targets == [[2.25]]
    several = load_data([{"text": f"t {at}", "label": ["joy", "fear"][: 1 + at % 2]} for at in range(40)])
    assert several.labels == ["fear", "joy"]
    found = read_adversarial(write(tmp_path, "jsonl", [{"text": "a", "label": ["joy"]}]), several)
    assert found.split.targets.tolist() == [[0.0, 1.0]]
    with pytest.raises(DataError, match=r"got `anger`"):
        read_adversarial(write(tmp_path, "jsonl", [{"text": "a", "label": ["anger"]}]), several)


def test_answers_come_per_example_from_the_machinery_of_evaluation():
    tuned = attach(tiny_backbone("bert"), method_from("lora(rank=2)"))
    made = perturb_split(SPLIT, "keyboard", 1.0)
    found = perturbed_predictions(tuned, TASK, made.split, batch_size=2)
    clean = perturbed_predictions(tuned, TASK, SPLIT, batch_size=2)
    encoded = TASK.encode(tuned.backbone.tokenizer, SPLIT)
    np.testing.assert_array_equal(
        clean.outputs, predict(tuned, TASK, encoded, tuned.backbone.tokenizer.pad_token_id, 2)
    )
    assert found.ids == SPLIT.ids
    assert found.outputs.shape == (3, 2)
    assert (found.outputs != clean.outputs).any(axis=1).all()


def test_what_is_cut_off_does_not_reach_the_model():
    tokenizer = tiny_backbone("bert").tokenizer
    long = Split("test", ["a", "b"], [("good " * 60,), ("a good film",)], np.zeros((2, 1)))
    made = perturb_split(long, "distractor", 1.0)
    assert reached(tokenizer, TASK, long, made.split).tolist() == [False, True]
    assert not reached(tokenizer, TASK, long, long).any()
    with pytest.raises(RecordError, match="the same rows in one order"):
        reached(tokenizer, TASK, long, SPLIT)


@pytest.mark.shared_data
def test_real_adversarial_rows_are_read(shared_data):
    path = f"{shared_data / 'text/advglue/dev.json'}"
    names = {"0": "neg", "1": "pos"}
    found = read_adversarial(f"{path}#sst2", load_data(reviews()), label_names=names)
    assert (found.name, len(found.split)) == ("dev#sst2", 148)
    assert {*found.split.targets[:, 0]} == {0.0, 1.0}
    pairs = [{"text1": f"p {at}", "text2": f"h {at}", "label": ("neg", "pos")[at % 2]} for at in range(40)]
    for task, n in (("rte", 81), ("qnli", 148), ("qqp", 78)):
        assert len(read_adversarial(f"{path}#{task}", load_data(pairs), label_names=names).split) == n
    with pytest.raises(DataError, match="must have one text"):
        read_adversarial(f"{path}#rte", load_data(reviews()), label_names=names)
