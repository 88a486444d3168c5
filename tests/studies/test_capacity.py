"""The suite on a real small run: every study made once, resumed to the same, and no other look at the test set."""

import json
import shutil

import pytest
import torch

from deltaproof.errors import RecordError
from deltaproof.records.store import Store, read_json, write_json
from deltaproof.studies import capacity as module
from deltaproof.studies.capacity import capacity, finite
from deltaproof.studies.capacity_text import capacity_text
from deltaproof.studies.kept_models import Bed

NAMES = ["expressivity", "spectra", "displacement", "path", "forgetting"]
RANKS = (0, 2, 8)


@pytest.fixture(scope="module")
def made(kept_run, tmp_path_factory):
    """A copy of the run, what the suite found there, and what it said."""
    folder = tmp_path_factory.mktemp("suite") / "run"
    shutil.copytree(kept_run, folder)
    said: list[str] = []
    return folder, capacity(folder, ranks=RANKS, say=said.append), said


def files(folder):
    return {path.name: path.read_bytes() for path in (folder / "studies").iterdir()}


def test_every_study_stands_as_one_strict_json_file_with_what_it_was_made_from(made):
    folder, results, _ = made
    assert list(results) == NAMES
    assert sorted(path.stem for path in (folder / "studies").glob("*.json")) == sorted(NAMES)
    for name, result in results.items():
        text = (folder / "studies" / f"{name}.json").read_text()
        assert json.loads(text, parse_constant=pytest.fail) == result
        assert result["inputs"]["format"] == 1


def test_the_estimate_comes_first_and_each_study_and_model_is_named(made):
    _, _, said = made
    assert said[0].startswith("8 tuned models of 4 methods, about ")
    for name in NAMES:
        assert f"{name}:" in said
    assert "along the change of lora(rank=2), seed 1" in said


def test_only_the_final_look_of_expressivity_opens_the_test_set(kept_run, tmp_path, monkeypatch):
    monkeypatch.setenv("DELTAPROOF_HOME", str(tmp_path / "a ledger that nobody has written to"))
    shutil.copytree(kept_run, tmp_path / "run")
    result = capacity(tmp_path / "run", ["full", "lora(rank=2)"], ranks=RANKS)["expressivity"]
    openings = Bed(Store(tmp_path / "run"), torch.device("cpu")).dataset.test.openings()
    wanted = [f"{key}/rank-{result['chosen_rank']}" for key in result["inputs"]["keys"]]
    assert [opening.reader for opening in openings] == wanted


def test_what_stands_is_not_made_again_and_a_study_that_was_lost_comes_out_the_same(made):
    folder, results, _ = made
    before = files(folder)
    said: list[str] = []
    assert capacity(folder, ranks=RANKS, say=said.append) == results
    assert said == [f"{name}: from disk" for name in NAMES]
    (folder / "studies" / "displacement.json").unlink()
    (folder / "studies" / "path.json").unlink()
    assert capacity(folder, ranks=RANKS) == results
    assert files(folder) == before


def test_a_kill_between_studies_leaves_what_was_finished(kept_run, tmp_path, monkeypatch):
    folder = tmp_path / "run"
    shutil.copytree(kept_run, folder)

    def killed(*arguments, **options):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(module, "path", killed)
        with pytest.raises(KeyboardInterrupt):
            capacity(folder, ["full"], ranks=RANKS)
    assert sorted(files(folder)) == ["displacement.json", "expressivity.json", "spectra.json"]
    said: list[str] = []
    capacity(folder, ["full"], ranks=RANKS, say=said.append)
    assert [line for line in said if "from disk" in line] == [f"{name}: from disk" for name in NAMES[:3]]


def test_other_methods_or_ranks_are_other_studies(made, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(made[0], folder)
    said: list[str] = []
    capacity(folder, ranks=(0, 4), say=said.append)
    assert [line for line in said if "from disk" in line] == [f"{name}: from disk" for name in NAMES[1:]]


def test_a_run_without_full_is_studied_but_for_the_cut(kept_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(kept_run, folder)
    experiment = read_json(folder / "experiment.json")
    experiment["contestants"] = [entry for entry in experiment["contestants"] if entry["name"] != "full"]
    write_json(folder / "experiment.json", experiment)
    results = capacity(folder, ["bitfit"])
    assert results["expressivity"]["applicable"] is False
    assert "needs a fully tuned model" in results["expressivity"]["reason"]
    assert not (folder / "studies" / "expressivity.json").exists()
    assert [entry["label"] for entry in results["path"]["methods"]] == ["bitfit"]
    assert "needs a fully tuned model" in capacity_text(results)


def test_a_run_that_kept_nothing_says_what_to_do(kept_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(kept_run, folder, ignore=shutil.ignore_patterns("tuned"))
    with pytest.raises(RecordError, match=r"a study needs tuned models, .* kept none .* `--keep all`"):
        capacity(folder)


def test_where_one_seed_was_kept_the_others_are_missed_aloud(kept_run, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(kept_run, folder)
    for entry in read_json(folder / "experiment.json")["contestants"]:
        shutil.rmtree(folder / "tuned" / entry["final"][1])
    said: list[str] = []
    results = capacity(folder, ["full", "lora(rank=2)"], ranks=(0, 2), say=said.append)
    assert "2 tuned models of 2 methods (2 of 4 were not kept" in said[0]
    assert len(results["path"]["methods"][0]["keys"]) == 1


def test_the_sentences_have_a_paragraph_per_study_and_a_line_per_method(made):
    text = capacity_text(made[1])
    for title in ("Does a low rank bind?", "What are the updates made of?", "How far did the answers move",
                  "What lies along the change?", "What was forgotten?"):  # fmt: skip
        assert title in text
    for expected in ("bitfit: its logits moved by", "lora(rank=2): accuracy", "evaluated formally", "energy",
                     "prefix(length=2): not a change of weights", "output layer must be in the"):  # fmt: skip
        assert expected in text
    assert "nan" not in text


def expressivity_with(verdict, difference=-0.004, rank=8):
    points = [{"rank": 8, "energy": 0.97}, {"rank": 64, "energy": 1.0}]
    gap = {"difference": difference, "low": -0.011, "high": 0.003, "verdict": verdict}
    return {"metric": "accuracy", "chosen_rank": rank, "ranks": [8, 64], "curves": [{"points": points}],
            "lora": {"rank": 8}, "test": {"gaps": {"expressivity": gap, "optimisation": gap}}}  # fmt: skip


@pytest.mark.parametrize(
    ("verdict", "conclusion"),
    [
        ("equivalent", "expressivity does not bind"),
        ("worse", "expressivity binds"),
        ("cannot tell", "these runs cannot tell whether expressivity binds"),
    ],
)
def test_the_sentence_on_expressivity_follows_the_verdict(verdict, conclusion):
    text = capacity_text({"expressivity": expressivity_with(verdict)})
    sentence = "rank 8 keeps 97 % of the update's energy and loses 0.4 points (−1.1 to +0.3) of accuracy: "
    assert sentence in text
    assert text.splitlines()[1].endswith(conclusion)


def test_where_no_rank_below_the_whole_was_enough_expressivity_binds():
    text = capacity_text({"expressivity": expressivity_with("equivalent", rank=64)})
    assert "no rank below 64 stays within the margin on validation" in text


def test_json_has_no_nan_and_no_infinity():
    assert finite({"a": [float("nan"), 1.0], 2: float("-inf"), "b": (1, None)}) == {
        "a": [None, 1.0], "2": None, "b": [1, None],
    }  # fmt: skip
