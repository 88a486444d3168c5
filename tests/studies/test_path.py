"""Along a method's change: both ends are models that exist, and the weights lie on the line between them."""

import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from deltaproof.records.record import Predictions
from deltaproof.records.store import Store
from deltaproof.studies.kept_models import Bed, KeptModel, kept_models
from deltaproof.studies.path import NO_CHANGE, STEPS, along, losses, path, put_at
from deltaproof.studies.same_head import base_with_head
from deltaproof.tasks.text import TextTask

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def bed(kept_run):
    return Bed(Store(kept_run), CPU)


@pytest.fixture(scope="module")
def result(bed):
    before = bed.dataset.test.openings()
    found = path(bed)
    assert bed.dataset.test.openings() == before
    return found


def test_at_one_every_method_scores_what_its_record_says(bed, result):
    for entry in result["methods"]:
        for key, scores in zip(entry["keys"], entry["score_by_seed"], strict=True):
            record = bed.store.find(key)
            assert scores[STEPS.index(1.0)] == pytest.approx(record.validation["accuracy"], abs=1e-6)


def test_at_one_the_loss_is_that_of_the_record(bed, result):
    for entry in result["methods"]:
        recorded = [bed.store.find(key).validation["nll"] for key in entry["keys"]]
        tolerance = 0 if entry["label"] in ("full", "bitfit") else 1e-5  # folding LoRA into the weights rounds
        assert entry["loss"][STEPS.index(1.0)] == pytest.approx(np.mean(recorded), abs=max(tolerance, 1e-12))


def test_at_zero_it_is_the_base_under_the_trained_head(bed, result):
    for entry in result["methods"]:
        wanted = []
        for kept in kept_models(bed.store, [entry["label"]]):
            base, task = base_with_head(kept), kept.load()[1]
            answer = bed.answers(base.model, task, base.tokenizer, bed.dataset.validation, kept)
            wanted.append([bed.score(answer), float(losses(task, answer).mean())])
        scores, loss = np.mean(wanted, axis=0)
        assert entry["score"][STEPS.index(0.0)] == pytest.approx(scores, abs=1e-12)
        assert entry["loss"][STEPS.index(0.0)] == pytest.approx(loss, abs=1e-12)


def test_what_changes_no_weights_has_no_line(result):
    assert [entry["label"] for entry in result["methods"]] == ["full", "lora(rank=2)", "bitfit"]
    assert list(result["left_out"]) == ["prefix(length=2)"]
    for entry in result["methods"]:
        assert len(entry["loss"]) == len(entry["score"]) == len(result["steps"]) == 9
        assert all(low <= loss <= high for low, loss, high in zip(
            entry["loss_low"], entry["loss"], entry["loss_high"], strict=True
        ))  # fmt: skip


def test_the_weights_lie_on_the_line(bed):
    (kept, _) = kept_models(bed.store, ["lora(rank=2)"])
    base = base_with_head(kept)
    start = {name: value.detach().clone() for name, value in base.model.named_parameters()}
    tuned, _ = kept.load()
    edit = next(edit for site, edit in tuned.placed() if site.role == "query")
    change, name = edit.delta(torch.empty(32, 32)).detach(), "bert.encoder.layer.0.attention.self.query.weight"
    end = {name: value.detach() for name, value in tuned.merge().named_parameters()}
    for t in (-0.5, 0.5, 1.0):
        put_at(base, start, end, t)
        now = dict(base.model.named_parameters())
        torch.testing.assert_close(now[name], start[name] + t * change)
        assert torch.equal(now["classifier.weight"], start["classifier.weight"])


def test_the_steps_of_ones_own_are_taken(bed):
    (kept, _) = kept_models(bed.store, ["full"])
    answers, _ = along(bed, kept, (0.0, 1.0))
    assert not isinstance(answers, str)
    assert len(answers) == 2
    assert not np.array_equal(answers[0].outputs, answers[1].outputs)


def test_the_loss_of_a_regression_is_in_standard_deviations():
    task = TextTask("regression", None, ("rmse",), 16, target_mean=3.0, target_std=2.0)
    answer = Predictions(["a", "b"], None, np.array([[1.0], [5.0]]), np.array([[2.0], [1.0]]))
    np.testing.assert_allclose(losses(task, answer), [0.25, 4.0])


def test_where_training_left_the_weights_as_they_were_there_is_no_line(bed, tmp_path):
    """A full model whose body is that of the base again, as if only its head had been trained."""
    (kept, _) = kept_models(bed.store, ["full"])
    folder = shutil.copytree(kept.folder, tmp_path / "tuned")
    state = load_file(folder / "model.safetensors")
    base = {name: value for name, value in kept.load_base().model.named_parameters() if name in state}
    body = {name: value.detach().contiguous() for name, value in base.items() if not name.startswith("classifier")}
    save_file({**state, **body}, folder / "model.safetensors", metadata={"format": "pt"})
    assert along(bed, KeptModel(kept.record, folder), STEPS)[0] == NO_CHANGE
