"""The robustness study on a real small run and on a planted model whose drops can be counted by hand."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from synthetic_robustness import robustness_study

from deltaproof import compare
from deltaproof.errors import ConfigError, DataError, RecordError
from deltaproof.records.record import Predictions
from deltaproof.records.store import Store, read_json, read_predictions, write_json
from deltaproof.robustness.perturbations import PERTURBATIONS
from deltaproof.robustness.sets import read_perturbed
from deltaproof.studies import robustness as study
from deltaproof.studies import robustness_answers
from deltaproof.studies.kept_models import Bed, KeptModel
from deltaproof.studies.robustness_coding import codes_of, right_of
from deltaproof.studies.robustness_findings import answers_path, read_findings
from deltaproof.studies.robustness_queries import Asked
from deltaproof.studies.robustness_sets import ALL, Attack
from deltaproof.studies.robustness_text import robustness_text
from small import write_csv

robustness = partial(study.robustness, workers=1)
"""In this process, where tests can take the place of parts."""
SOME = ("char_swap", "distractor", "word_drop", "embedding_pgd", "weight_noise")
QUICK = Attack(SOME, strengths=(0.2, 0.6), epsilons=(0.05,), pgd_steps=2, noise_sizes=(0.1,), noise_draws=2)


@pytest.fixture
def run(kept_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(kept_run, folder)
    return folder


@pytest.fixture(scope="module")
def made(kept_run, tmp_path_factory):
    """A copy of the run, what the study found there, and what it said."""
    folder = tmp_path_factory.mktemp("study") / "run"
    shutil.copytree(kept_run, folder)
    said: list[str] = []
    return folder, robustness(folder, QUICK, say=said.append), said


class Keyword(torch.nn.Module):
    """Answers by one word alone: class 1 where it stands, else class 0."""

    def __init__(self, inner, word_id):
        super().__init__()
        self.inner, self.word_id = inner, word_id

    def forward(self, input_ids, attention_mask=None, **_):
        found = (input_ids == self.word_id).any(dim=1).float()[:, None]
        return SimpleNamespace(logits=torch.cat([1 - 2 * found, 2 * found - 1], dim=1))


@pytest.fixture
def keyword(monkeypatch):
    """Every kept model answers by the word `good`, which is what the label says."""
    real = KeptModel.load

    def load(self, trust_remote_code=False):
        tuned, task = real(self, trust_remote_code)
        tuned.model = Keyword(tuned.model, tuned.backbone.tokenizer("good", add_special_tokens=False)["input_ids"][0])
        return tuned, task

    monkeypatch.setattr(KeptModel, "load", load)


def test_a_model_that_goes_by_one_word_loses_exactly_the_rows_that_lose_the_word(run, keyword):
    result = robustness(run, Attack(perturbations=("word_drop", "char_swap", "tautology"), strengths=(0.3, 0.6)))
    assert result["clean"]["full"]["mean"] == 1.0
    lost = {}
    for entry in result["sets"]:
        split = read_perturbed(run / entry["file"]).split
        is_good = split.targets[:, 0] == 1
        gone = np.array(["good" not in text.split() for (text,) in split.texts])
        lost[(entry["name"], entry["strength"])] = wrong = float((is_good & gone).mean())
        for method in entry["methods"]:
            assert method["drop"]["mean"] == pytest.approx(wrong)
            assert method["perturbed"]["mean"] == pytest.approx(1 - wrong)
            assert method["attack_success"]["mean"] == pytest.approx(wrong), "all were right when clean"
            assert method["flip_rate"]["mean"] == pytest.approx(wrong)
    assert lost[("word_drop", 0.6)] > lost[("word_drop", 0.3)] > 0
    assert lost[("tautology", 0.6)] == 0
    keeping = [value for (name, _), value in lost.items() if name != "word_drop"]
    assert result["overall"]["methods"][0]["drop"]["mean"] == pytest.approx(np.mean(keeping))
    assert result["worst_case"]["full"]["mean"] == pytest.approx(1 - max(keeping)), "each strength adds edits"


def test_equal_models_do_not_differ(run, keyword):
    result = robustness(run, Attack(perturbations=("word_drop", "char_swap"), strengths=(0.6,)))
    rows = [row for entry in (*result["sets"], result["overall"]) for row in entry["against_reference"]]
    assert len(rows) == 9
    for row in rows:
        assert row["drop_difference"]["mean"] == 0
        assert row["drop_difference"]["p_holm"] == 1
        assert row["verdict"] in ("equivalent", "cannot tell")
        assert row["matched"]["difference"]["mean"] == 0
        assert row["matched"]["method"] == row["matched"]["reference"]


def test_the_clean_score_is_that_of_the_final_evaluation(made):
    folder, result, _ = made
    for label, keys in result["keys"].items():
        scores = [Store(folder).find(key).test["accuracy"] for key in keys]
        assert result["clean"][label]["mean"] == pytest.approx(np.mean(scores))


def test_every_set_has_its_facts_and_every_method(made):
    _, result, _ = made
    assert [(entry["name"], entry["strength"]) for entry in result["sets"]][:6] == [
        ("char_swap", 0.2), ("char_swap", 0.6), ("word_drop", 0.2), ("word_drop", 0.6), ("distractor", 0.2),
        ("distractor", 0.6),
    ]  # fmt: skip
    assert [entry["name"] for entry in result["sets"]][6:] == [
        "embedding_pgd", "weight_noise_all", "weight_noise_trained", "weight_noise_equal_norm",
    ]  # fmt: skip
    keeps, noise = ["keeps label"] * 2, ["noise"] * 2
    assert [entry["promise"] for entry in result["sets"]] == [*keeps, *noise, *keeps, None, None, None, None]
    assert all([one["label"] for one in entry["methods"]] == result["methods"] for entry in result["sets"])
    assert result["overall"]["n_sets"] == 4, "noise does not count"
    assert result["left_out"] == {}
    assert [entry["question"] for entry in result["sets"]][-3:] == ["all", "trained", "equal_norm"]


def test_the_exact_texts_stand_in_the_folder(made):
    folder, result, _ = made
    test = Bed(Store(folder), torch.device("cpu")).open_test("a reader of this test")
    for entry in result["sets"][:6]:
        stored = read_perturbed(folder / entry["file"])
        assert (stored.perturbation, stored.strength, stored.split.ids) == (entry["name"], entry["strength"], test.ids)
        assert entry["n_reached"] <= entry["n_examples"] == len(test)
        for before, (after,) in zip(test.texts, stored.perturbed, strict=True):
            again = PERTURBATIONS[entry["name"]].perturb_row(before, entry["strength"], 0, "unused")
            assert len(after.edits) <= again[0].budget


def test_the_numbers_come_from_disk_without_a_model_and_without_torch(made):
    folder, result, _ = made
    manifest = next((folder / "robustness").glob("manifest-*.json"))
    assert json.loads(json.dumps(read_findings(folder, manifest))) == result
    read = f"read_findings(pathlib.Path({str(folder)!r}), pathlib.Path({str(manifest)!r}))"
    code = (
        f"import sys, pathlib; from deltaproof.studies.robustness_findings import read_findings; {read}; "
        f"assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_second_call_reads_what_stands_and_other_settings_are_another_study(made, monkeypatch):
    folder, result, _ = made
    said: list[str] = []
    assert robustness(folder, QUICK, say=said.append) == result
    assert said == ["robustness: from disk"]


def test_the_estimate_comes_first_and_the_test_set_is_opened_once(run, monkeypatch, tmp_path):
    monkeypatch.setenv("DELTAPROOF_HOME", str(tmp_path / "a ledger that nobody has written to"))
    said: list[str] = []
    attack = Attack(perturbations=("char_swap",), strengths=(0.2,), max_examples=10)
    robustness(run, attack, say=said.append)
    assert said[0].startswith("8 tuned models of 4 methods, 1 sets, 10 of ")
    openings = Bed(Store(run), torch.device("cpu")).dataset.test.openings
    assert [opening.reader.split("/")[0] for opening in openings()] == ["robustness"]
    robustness(run, attack)
    assert len(openings()) == 1, "read from disk"
    robustness(run, Attack(perturbations=("char_swap",), strengths=(0.4,), max_examples=10))
    assert len(openings()) == 2


def test_a_kill_between_sets_ends_in_the_same_files(run, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    shutil.copytree(run, whole)
    wanted = robustness(whole, QUICK, ["full", "prefix(length=2)"])
    written, real = [], robustness_answers.write_predictions

    def killed(path, predictions):
        if len(written) == 7:
            raise KeyboardInterrupt
        written.append(path)
        real(path, predictions)

    with monkeypatch.context() as patch:
        patch.setattr(robustness_answers, "write_predictions", killed)
        with pytest.raises(KeyboardInterrupt):
            robustness(run, QUICK, ["full", "prefix(length=2)"])
    assert not (run / "studies" / "robustness.json").exists()
    times = {path: path.stat().st_mtime_ns for path in written}
    assert robustness(run, QUICK, ["full", "prefix(length=2)"]) == wanted
    assert {path: path.stat().st_mtime_ns for path in written} == times, "nothing is asked twice"
    for one in sorted((whole / "robustness").rglob("*")):
        other = run / one.relative_to(whole)
        assert other.exists()
        assert one.is_dir() or one.read_bytes() == other.read_bytes()
    assert (run / "studies" / "robustness.json").read_bytes() == (whole / "studies" / "robustness.json").read_bytes()


def numbers_of(value):
    """Every number of a JSON value, and apart from them all else, in their order."""
    if isinstance(value, dict):
        value = [part for key in value for part in (key, value[key])]
    if isinstance(value, list):
        parts = [numbers_of(one) for one in value]
        return [n for numbers, _ in parts for n in numbers], [one for _, other in parts for one in other]
    return ([value], []) if isinstance(value, float) else ([], [value])


def test_the_result_depends_neither_on_the_number_of_processes_nor_on_what_is_not_asked(made, kept_run, tmp_path):
    """Each row asked every time, one model after the other: but for last bits the same answers and numbers."""
    _, wanted, _ = made
    apart, whole = tmp_path / "apart", tmp_path / "whole"
    for folder in (apart, whole):
        shutil.copytree(kept_run, folder)
    said: list[str] = []
    assert study.robustness(apart, QUICK, say=said.append, workers=2) == wanted
    assert "2 models at a time" in said[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Asked, "answers_once", Asked.answers)
        everything = robustness(whole, QUICK)
    (numbers, rest), (all_numbers, all_rest) = numbers_of(wanted), numbers_of(everything)
    assert rest == all_rest, "verdicts among them"
    np.testing.assert_allclose(numbers, all_numbers, atol=1e-9)
    for path in sorted((whole / "robustness" / "answers").rglob("*.parquet")):
        once = read_predictions(apart / path.relative_to(whole), "").outputs
        each = read_predictions(path, "").outputs
        np.testing.assert_allclose(once, each, atol=1e-5)
        assert np.array_equal(once.argmax(1), each.argmax(1))


def test_only_what_reads_as_no_text_before_is_asked(run, monkeypatch):
    asked, real = [], Bed.answers

    def answers(self, tuned, task, tokenizer, split, kept):
        asked.extend(split.texts)
        return real(self, tuned, task, tokenizer, split, kept)

    monkeypatch.setattr(Bed, "answers", answers)
    monkeypatch.setattr(study, "seconds_of_models", lambda *_: 0.0)
    result = robustness(run, Attack(perturbations=("char_swap", "case_punctuation"), n_draws=2), ["bitfit"])
    key = result["keys"]["bitfit"][0]
    texts = list(Bed(Store(run), torch.device("cpu")).open_test("a reader of this test").texts)
    for entry in result["sets"]:
        for file in entry["files"]:
            texts += read_perturbed(run / file).split.texts
    tokenizer = KeptModel(Store(run).find(key), run / "tuned" / key).load()[0].backbone.tokenizer
    read = {tuple(tokenizer(text)["input_ids"]) for (text,) in texts}
    assert len(asked) == 2 * len(read) < len(texts), "of each of two seeds"


SEARCH = Attack(("deepwordbug", "synonym_search"), strengths=(0.2, 0.6), most_queries=40, transfer=True)


def test_a_search_finds_the_word_that_a_model_goes_by_and_says_what_it_took(run, keyword):
    result = robustness(run, replace(SEARCH, max_examples=20), ["full", "bitfit"])
    found = {(entry["name"], entry["strength"]): entry for entry in result["sets"]}
    assert list(found) == [
        (f"{name}{ending}", strength)
        for ending in ("", "_transfer") for name in ("deepwordbug", "synonym_search") for strength in (0.2, 0.6)
    ]  # fmt: skip
    entry = found["deepwordbug", 0.2]
    assert (entry["kind"], entry["promise"]) == ("search", "keeps label")
    for method in entry["methods"]:
        assert method["clean"]["mean"] == 1.0
        assert method["perturbed"]["mean"] == 0.5, "who has the word loses it, nobody can be given it"
        assert method["attack_success"]["mean"] == 0.5
    asked = []
    for key in result["keys"]["full"]:
        made = read_perturbed(run / entry["file"] / f"{key}.jsonl")
        for at, (row,) in enumerate(made.perturbed):
            assert len(row.edits) == (made.split.targets[at, 0] == 1)
            assert "good" not in row.text.split()
        asked.append(made.n_queries)
        shares = [1 / n for n, target in zip(made.n_words, made.split.targets[:, 0], strict=True) if target == 1]
    assert method["n_queries"]["mean"] == pytest.approx(np.mean(asked)), "of rows that were right"
    assert method["changed"]["mean"] == pytest.approx(np.mean(shares))
    handed_on = found["deepwordbug_transfer", 0.2]
    assert handed_on["against_reference"] == []
    assert [one["attack_success"]["mean"] for one in handed_on["methods"]] == [0.5, 0.5], "equal models"
    assert result["overall"] is None, "searches stand apart"
    assert result["worst_case"] == {}
    text = " ".join(robustness_text(result).split())
    assert "deepwordbug, up to 20 % of the words" in text
    assert "success of full's" in text


def test_each_model_has_texts_of_its_own_and_its_answers_are_to_them(run):
    result = robustness(run, SEARCH, ["full", "lora(rank=2)"])
    texts = {}
    for entry in (entry for entry in result["sets"] if entry["kind"] == "search"):
        for label, keys in result["keys"].items():
            for key in keys:
                made = read_perturbed(run / entry["file"] / f"{key}.jsonl")
                file = next((run / "robustness" / "answers" / key).glob(f"{entry['name']}@{entry['strength']:g}-*"))
                stored = read_predictions(file, "")
                bed, asked = Bed(Store(run), torch.device("cpu")), KeptModel(Store(run).find(key), run / "tuned" / key)
                again = Asked(bed, asked).answers(made.split)
                np.testing.assert_allclose(stored.outputs, again.outputs, atol=1e-5)
                assert made.n_queries.max() <= 40
                texts[entry["name"], entry["strength"], label] = made.split.texts
    assert texts["deepwordbug", 0.6, "full"] != texts["deepwordbug", 0.6, "lora(rank=2)"]
    for entry in result["sets"]:
        if entry["kind"] == "search":
            assert all(method["perturbed"]["mean"] <= method["clean"]["mean"] for method in entry["methods"])


def test_a_search_that_was_stopped_ends_in_the_same_files(run, tmp_path, monkeypatch):
    whole = tmp_path / "whole"
    shutil.copytree(run, whole)
    wanted = robustness(whole, SEARCH, ["full", "bitfit"])
    written, real = [], robustness_answers.write_predictions

    def killed(path, predictions):
        if len(written) == 4:
            raise KeyboardInterrupt
        written.append(path)
        real(path, predictions)

    with monkeypatch.context() as patch:
        patch.setattr(robustness_answers, "write_predictions", killed)
        with pytest.raises(KeyboardInterrupt):
            robustness(run, SEARCH, ["full", "bitfit"])
    assert robustness(run, SEARCH, ["full", "bitfit"]) == wanted
    for one in sorted((whole / "robustness").rglob("*")):
        assert one.is_dir() or one.read_bytes() == (run / one.relative_to(whole)).read_bytes()


def test_labels_choose_nothing(run, tmp_path, monkeypatch):
    """With other labels in the test rows, texts, sets, files and answers to them are the same."""
    other = tmp_path / "other"
    shutil.copytree(run, other)
    attack = Attack(perturbations=("char_swap", "synonym", "weight_noise"), noise_draws=1)
    first = robustness(run, attack, ["full"])
    real = Bed.open_test

    def flipped(self, reader):
        rows = real(self, reader)
        return type(rows)(rows.name, rows.ids, rows.texts, 1 - rows.targets, rows.groups)

    monkeypatch.setattr(Bed, "open_test", flipped)
    second = robustness(other, attack, ["full"])
    facts = ("name", "strength", "promise", "n_examples", "n_reached", "n_draws")
    assert [[entry[key] for key in facts] for entry in first["sets"]] == [
        [entry[key] for key in facts] for entry in second["sets"]
    ]
    for one, two in zip(first["sets"][:6], second["sets"][:6], strict=True):
        assert read_perturbed(run / one["file"]).split.texts == read_perturbed(other / two["file"]).split.texts
    for name in ("clean", "synonym@0.4"):
        answers = [sorted((folder / "robustness" / "answers").rglob(f"{name}*")) for folder in (run, other)]
        for one, two in zip(*answers, strict=True):
            before, after = read_predictions(one, ""), read_predictions(two, "")
            assert not np.array_equal(before.targets, after.targets)
            assert np.array_equal(before.outputs, after.outputs)


def test_several_draws_count_with_their_mean(run, keyword):
    result = robustness(run, Attack(perturbations=("word_drop",), strengths=(0.3,), n_draws=3), ["full", "bitfit"])
    (entry,) = result["sets"]
    lost = []
    for file in entry["files"]:
        split = read_perturbed(run / file).split
        lost.append(np.mean(["good" not in text for (text,) in split.texts] & (split.targets[:, 0] == 1)))
    assert len(set(lost)) > 1
    assert entry["n_draws"] == 3
    assert entry["methods"][0]["drop"]["mean"] == pytest.approx(np.mean(lost))
    assert result["overall"] is None
    assert result["at_equal_accuracy_reason"] == "no text perturbation that keeps labels was asked for"


def own_rows(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def test_a_users_own_set_is_held_against_the_clean_rows(run, keyword, tmp_path):
    file = own_rows(tmp_path / "shift.jsonl", [
        {"text": "a good film", "label": "1"}, {"text": "a fine film", "label": "1"},
        {"text": "a bad film", "label": "0"}, {"text": "not good at all", "label": "0"},
    ])  # fmt: skip
    attack = Attack(perturbations=(), adversarial=(file,), label_names={"1": "pos", "0": "neg"})
    result = robustness(run, attack, ["full", "bitfit"])
    (entry,) = result["sets"]
    assert (entry["name"], entry["kind"], entry["n_examples"], entry["strength"]) == ("shift", "adversarial", 4, None)
    assert [json.loads(line)["texts"] for line in (run / entry["file"]).read_text().splitlines()][1] == ["a fine film"]
    method = entry["methods"][0]
    assert (method["clean"]["mean"], method["perturbed"]["mean"], method["drop"]["mean"]) == (1.0, 0.5, 0.5)
    assert method["relative"]["mean"] == 0.5
    assert method["flip_rate"] is None
    assert entry["against_reference"][0]["score_difference"]["mean"] == 0
    assert result["overall"] is None


def test_contrast_sets_and_pairs_are_scored_by_hand(run, keyword, tmp_path):
    file = own_rows(tmp_path / "pairs.jsonl", [
        {"text": "a good film", "label": "pos", "pair": "a"}, {"text": "a bad film", "label": "neg", "pair": "a"},
        {"text": "good fun", "label": "pos", "pair": "b"}, {"text": "no good fun", "label": "neg", "pair": "b"},
        {"text": "fine fun", "label": "pos", "pair": "c"}, {"text": "good for nothing", "label": "neg", "pair": "c"},
    ])  # fmt: skip
    result = robustness(run, Attack(perturbations=(), contrast=(file,), group="pair"), ["full"])
    (entry,) = result["contrast"]
    (method,) = entry["methods"]
    assert (entry["n_sets"], entry["n_pairs"], entry["n_examples"]) == (3, 3, 6)
    assert method["consistency"]["mean"] == pytest.approx(1 / 3), "only the first pair is right in both"
    assert method["pair_consistency"]["mean"] == pytest.approx(2 / 3), "in c the answer changes, the wrong way round"
    assert method["accuracy"]["mean"] == pytest.approx(3 / 6)
    assert "3 contrast sets of 6 rows" in robustness_text(result)


def test_an_adversarial_file_beside_contrast_sets_needs_no_group_column(run, keyword, tmp_path):
    plain = own_rows(tmp_path / "plain.jsonl", [{"text": "good", "label": "pos"}, {"text": "bad", "label": "neg"}])
    pairs = own_rows(tmp_path / "pairs.jsonl", [
        {"text": f"{word} {at}", "label": label, "pair": at}
        for at in range(2) for word, label in (("good", "pos"), ("bad", "neg"))
    ])  # fmt: skip
    attack = Attack(perturbations=(), adversarial=(plain,), contrast=(pairs,), group="pair")
    result = robustness(run, attack, ["full"])
    assert [entry["name"] for entry in (*result["sets"], *result["contrast"])] == ["plain", "pairs"]


def test_a_handful_of_rows_gives_numbers_but_no_verdict(run, tmp_path, monkeypatch):
    """One method has every row right and the other none: of four rows that is no proof (a sign test gives 0.125)."""
    real = Bed.answers

    def answers(self, tuned, task, tokenizer, split, kept):
        found = real(self, tuned, task, tokenizer, split, kept)
        is_right = kept.label == "full" or not split.ids[0].startswith("few")
        truth = found.targets[:, 0].astype(int) if is_right else 1 - found.targets[:, 0].astype(int)
        return replace(found, outputs=np.eye(2)[truth])

    monkeypatch.setattr(Bed, "answers", answers)
    rows = [{"text": f"a film {at}", "label": ("neg", "pos")[at % 2]} for at in range(12)]
    few = own_rows(tmp_path / "few.jsonl", rows[:4])
    more = own_rows(tmp_path / "few-more.jsonl", rows)
    result = robustness(run, Attack(perturbations=(), adversarial=(few, more)), ["full", "bitfit"])
    said = {entry["name"]: entry["against_reference"][0] for entry in result["sets"]}
    assert said["few"]["score_difference"]["mean"] == said["few-more"]["score_difference"]["mean"] == -1
    assert (said["few"]["verdict"], said["few"]["score_verdict"]) == ("cannot tell", "cannot tell")
    assert (said["few-more"]["verdict"], said["few-more"]["score_verdict"]) == ("more fragile", "worse")
    assert any("few: 4 rows" in note and "no verdict" in note for note in result["notes"])


def test_snapshots_give_the_drop_at_equal_accuracy(tmp_path, monkeypatch, reviews_csv, bert):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    folder = tmp_path / "run"
    compare(model=str(bert), data=str(reviews_csv), methods=["full", "lora(rank=2)"], out=folder, seeds=2, trials=1,
            keep="snapshots", baselines=False, max_length=24, training={"epochs": 1, "batch_size": 8},
            learning_rates=[3e-3], precision="fp32", device="cpu")  # fmt: skip
    monkeypatch.setattr("deltaproof.studies.robustness_equal.LEAST_SHARE", -10.0)  # random models stay near chance
    result = robustness(folder, Attack(perturbations=("char_swap", "synonym", "word_drop"), strengths=(0.2, 0.4, 0.8)))
    assert result["at_equal_accuracy_reason"] == ""
    assert [found["set"] for found in result["at_equal_accuracy"]] == ["overall", "char_swap@0.4", "synonym@0.4"]
    assert result["at_equal_accuracy_basis"] == "snapshots and final models"
    overall = result["at_equal_accuracy"][0]
    assert (list(overall["differences"]), overall["n_runs"]) == (["lora(rank=2)"], 4)
    assert overall["n_checkpoints"] == len(result["checkpoints"]) > 12
    finals = [place for place in result["checkpoints"] if place["step"] is None]
    assert len(finals) == 4
    for place in finals:
        assert place["clean"] == pytest.approx(Store(folder).find(place["run"]).test["accuracy"])
        history = Store(folder).find(place["run"]).history
        best = max(history, key=lambda entry: entry["validation"]["accuracy"])["step"]
        steps = [other["step"] for other in result["checkpoints"] if other["run"] == place["run"]]
        assert len(set(steps)) == len(steps)
        assert best not in steps, "the final model has the values of that step"
    monkeypatch.setattr("deltaproof.studies.robustness_equal.LEAST_SHARE", 10.0)
    result = robustness(folder, Attack(perturbations=("char_swap",), strengths=(0.4,)))
    assert result["at_equal_accuracy_reason"].startswith("every checkpoint of full is too near chance to have a drop")


def test_few_runs_without_snapshots_say_why_there_is_no_regression(made):
    _, result, _ = made
    assert result["at_equal_accuracy"] == []
    assert "near chance" in result["at_equal_accuracy_reason"] or "more seeds" in result["at_equal_accuracy_reason"]
    assert result["at_equal_accuracy_basis"] == "final models"


@pytest.mark.parametrize(
    ("kind", "metric"), [("regression", "rmse"), ("regression", "spearman"), ("multilabel", "micro_f1")]
)
def test_other_kinds_of_task_have_what_is_defined_for_them(kind, metric, tmp_path, bert):
    words = ("the", "fox", "film", "dog", "good", "bad")
    if kind == "regression":
        rows = [[f"{words[at % 6]} {words[at // 6 % 6]} review {at}", at % 7 + 0.5] for at in range(90)]
        data = write_csv(tmp_path / "data.csv", ["text", "label"], rows)
        label: dict = {}
    else:
        rows = [[f"{words[at % 6]} {words[at // 6 % 6]} {at}", at % 2, at // 2 % 2] for at in range(90)]
        data, label = write_csv(tmp_path / "data.csv", ["text", "x", "y"], rows), {"label": ["x", "y"]}
    compare(model=str(bert), data=str(data), methods=["full", "head"], out=tmp_path / "run", seeds=1, trials=1,
            keep="all", baselines=False, max_length=16, training={"epochs": 1, "batch_size": 16}, kind=kind,
            learning_rates=[1e-3], metric=[metric], precision="fp32", device="cpu", **label)  # fmt: skip
    result = robustness(tmp_path / "run", QUICK)
    assert len(result["sets"]) == 10
    method = result["sets"][0]["methods"][0]
    sign = -1 if metric == "rmse" else 1
    assert method["drop"]["mean"] == pytest.approx(sign * (method["clean"]["mean"] - method["perturbed"]["mean"]))
    assert (method["flip_rate"] is None) == (kind == "regression")
    assert bool(result["worst_case"]) == (kind == "multilabel")
    assert any("targets are numbers" in note for note in result["notes"]) == (kind == "regression")
    assert "nan" not in robustness_text(result)
    with pytest.raises(DataError, match="contrast sets need answers" if kind == "regression" else "must be"):
        robustness(tmp_path / "run", Attack(contrast=(str(data),), group="text"))
    what = "numbers as its targets" if kind == "regression" else "several labels for each row"
    with pytest.raises(DataError, match=rf"a search needs rows of one true class each, .* has {what}; leave out deepw"):
        robustness(tmp_path / "run", Attack(perturbations=("char_swap", "deepwordbug")))


def test_what_cannot_be_tried_is_said_before_any_model_is_asked(run, tmp_path, monkeypatch):
    def unasked(*_):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(KeptModel, "load", unasked)
    monkeypatch.setattr(Bed, "open_test", unasked)
    pairs = own_rows(tmp_path / "pairs.jsonl", [{"premise": "a", "hypothesis": "b", "label": "pos"}] * 3)
    with pytest.raises(DataError, match=r"pairs\.jsonl: rows must have one text .* got a pair of texts \(premise"):
        robustness(run, Attack(adversarial=(pairs,)))
    coded = own_rows(tmp_path / "coded.jsonl", [{"text": "a", "label": 1}, {"text": "b", "label": 0}])
    with pytest.raises(DataError, match=r"must be one of the data set's .*got `0`.*`label_names`"):
        robustness(run, Attack(adversarial=(coded,)))
    single = own_rows(tmp_path / "one.jsonl", [{"text": "a", "label": "pos"}])
    with pytest.raises(DataError, match="must have at least 2 rows, got 1"):
        robustness(run, Attack(adversarial=(single,)))
    apart = own_rows(
        tmp_path / "apart.jsonl", [{"text": "a", "label": "pos", "g": 1}, {"text": "b", "label": "neg", "g": 2}]
    )
    with pytest.raises(DataError, match="rows that belong together must share their `g`, got 2 rows of as many groups"):
        robustness(run, Attack(contrast=(apart,), group="g"))
    alone = own_rows(
        tmp_path / "alone.jsonl", [{"text": "a", "label": "pos", "g": 1}, {"text": "b", "label": "neg", "g": 1}]
    )
    for where in ({"contrast": (alone,)}, {"adversarial": (alone,)}):
        with pytest.raises(DataError, match="must have at least 2 groups, got `1` alone in `g`"):
            robustness(run, Attack(perturbations=(), group="g", **where))
    ungrouped = own_rows(tmp_path / "ungrouped.jsonl", [{"text": "a", "label": "pos"}] * 2)
    with pytest.raises(DataError, match="the group column `g` must be there"):
        robustness(run, Attack(adversarial=(ungrouped,), group="g"))
    with pytest.raises(DataError, match="must be a file, found none"):
        robustness(run, Attack(adversarial=(str(tmp_path / "nothing.jsonl"),)))
    with pytest.raises(RecordError, match="has no contestant `ia3`"):
        robustness(run, Attack(), ["ia3"])
    shutil.rmtree(run / "tuned")
    with pytest.raises(RecordError, match="kept none"):
        robustness(run)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"perturbations": ("char_swp",)}, "did you mean `char_swap`"),
        ({"strengths": (0.0, 0.3)}, r"`0 < strength <= 1` must hold for `strengths`, got 0"),
        ({"strengths": (1.5,)}, r"got 1\.5"),
        ({"epsilons": (-0.1,)}, r"`0 < strength` must hold for `epsilons`"),
        ({"noise_sizes": (0.0,)}, "must hold for `noise_sizes`"),
        ({"noise_sizes": (float("inf"),)}, "got inf"),
        ({"epsilons": (float("nan"),)}, "got nan"),
        ({"n_draws": 0}, "`n_draws >= 1` must hold, got 0"),
        ({"max_examples": 1}, "`max_examples >= 2` must hold"),
        ({"perturbations": ()}, "something must be tried"),
        ({"perturbations": ("deepwordbg",)}, "did you mean `deepwordbug`"),
        ({"transfer": True}, "`transfer` needs a search whose texts are handed on"),
        ({"most_queries": 0}, "`most_queries >= 1` must hold"),
        ({"contrast": ("pairs.csv",)}, "`contrast` needs the column that says which rows belong together"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        Attack(**settings)


def test_answers_of_many_labels_are_told_apart_by_each_label():
    targets = np.zeros((60, 90))
    targets[:, 89] = 1
    outputs = targets.copy()
    outputs[np.arange(60), np.arange(60)] = 1  # one label too many in every row
    wrong = Predictions([str(at) for at in range(60)], None, targets, outputs)
    right = Predictions(wrong.ids, None, targets, targets)
    assert right_of("multilabel", wrong).sum() == 0
    assert right_of("multilabel", right).sum() == 60
    assert len(set(codes_of("multilabel", wrong))) == 60


def test_a_sample_is_by_class_and_the_same_every_time(run):
    attack = Attack(perturbations=("char_swap",), strengths=(0.2,), max_examples=8)
    result = robustness(run, attack, ["full"])
    split = read_perturbed(run / result["sets"][0]["file"]).split
    assert split.targets[:, 0].tolist().count(1) == 4
    key = result["keys"]["full"][0]
    stored = sorted((run / "robustness" / "answers" / key).iterdir())
    assert [len(read_predictions(path, "").ids) for path in stored] == [8, 8]
    assert answers_path(run, key, stored[0].stem) == stored[0]
    assert (result["n_examples"], result["n_test"]) == (8, Bed(Store(run), torch.device("cpu")).dataset.test.n_rows)


def keys_of(value):
    """The shape of a JSON value: the keys of its objects, of the first entry of its lists."""
    if isinstance(value, dict):
        return {key: keys_of(one) for key, one in value.items()}
    return [keys_of(value[0])] if isinstance(value, list) and value and isinstance(value[0], dict) else None


def test_the_invented_study_that_pages_are_tried_on_has_the_keys_of_a_real_one(made):
    _, real, _ = made
    invented = robustness_study(real["methods"])
    assert set(real) == set(invented)
    assert keys_of(real["sets"][0]) == keys_of(invented["sets"][0]) or set(real["sets"][0]) == set(invented["sets"][0])
    for part in ("methods", "against_reference"):
        assert set(real["sets"][0][part][0]) == set(invented["sets"][0][part][0])
        assert set(real["overall"][part][0]) == set(invented["overall"][part][0])
    assert set(real["checkpoints"][0]) == set(invented["checkpoints"][0])
    assert set(real["overall"]) == set(invented["overall"])


def test_the_table_has_a_row_per_method_and_a_mark_where_a_difference_is_shown():
    study = robustness_study(("full", "lora", "ia3", "head"))
    text = robustness_text(study, 110)
    lines = text.splitlines()
    assert max(len(line) for line in lines) <= 115
    lines = text.split("\n\n", 1)[1].splitlines()
    rows = [line.split()[0] for line in lines if line.split()[:1] and line.split()[0] in study["methods"]]
    assert rows[:8] == ["full", "lora", "ia3", "head"] * 2, "two tables, since one would be too wide"
    shown = [row for entry in study["sets"] for row in entry["against_reference"] if row["verdict"] == "more fragile"]
    assert shown
    assert "▲" in text
    for expected in ("word", "drop*", "over-", "PGD", "equal", "* noise: may change what is true",
                     "that both had right", "drop at equal clean accuracy, against full: lora"):  # fmt: skip
        assert expected in " ".join(text.split())
    assert "keeps label" not in text


def test_all_names_what_can_be_tried():
    assert set(ALL) == {*PERTURBATIONS, "embedding_pgd", "weight_noise"}


def test_the_label_names_of_the_runs_own_data_hold_for_other_files_too(run, tmp_path):
    experiment = read_json(run / "experiment.json")
    write_json(
        run / "experiment.json", {**experiment, "plan": {**experiment["plan"], "label_names": {"0": "neg", "1": "pos"}}}
    )
    rows = [{"text": "a good film", "label": 1}, {"text": "a bad film", "label": 0}]
    own_rows(tmp_path / "char_swap.jsonl", rows)
    result = robustness(run, Attack(perturbations=(), adversarial=(str(tmp_path / "char_swap.jsonl"),)), ["full"])
    assert [entry["name"] for entry in result["sets"]] == ["char_swap'"], "no perturbation's name"
    assert [json.loads(line)["target"] for line in (run / result["sets"][0]["file"]).read_text().splitlines()] == [
        [1],
        [0],
    ]
