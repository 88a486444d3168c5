"""A head from a few rows: against scikit-learn, closed forms, and a task that was planted in the features."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression, Ridge

from deltaproof.backbones import load_backbone
from deltaproof.backbones.tiny import save_tiny
from deltaproof.merging import few_shot
from deltaproof.tasks.text import TextTask

TEXTS = [("a good film",), ("a bad story with bad actors",), ("numbers 0 1 2",), ("the fox jumps",)]


def task(kind="classification", n=3, **more):
    labels = None if kind == "regression" else tuple("abcdef"[:n])
    return TextTask(kind, labels, ("accuracy",), 16, **more)


def rows(n, width, seed=0):
    return np.random.default_rng(seed).normal(size=(n, width)) * np.arange(1, width + 1) + 3


@pytest.mark.parametrize("family", ["bert", "gpt2", "roberta", "distilbert"])
def test_the_features_are_what_the_last_map_is_given(family, tmp_path):
    backbone = load_backbone(str(save_tiny(family, tmp_path / family)), "classification", 3)
    path = few_shot.output_map(backbone, 3)
    encoded = task().encode_texts(backbone.tokenizer, TEXTS)
    found = few_shot.features(backbone, path, encoded, 2)
    module = backbone.module(path)
    bias = 0 if module.bias is None else module.bias.detach().numpy()
    logits = found @ module.weight.detach().numpy().T + bias
    for at, text in enumerate(TEXTS):
        batch = dict(backbone.tokenizer(text[0], return_tensors="pt"))
        with torch.no_grad():
            own = backbone.model.eval()(**batch).logits[0].numpy()
        np.testing.assert_allclose(logits[at], own, atol=1e-4)
    assert backbone.module(path) is module


@pytest.mark.parametrize("n", [2, 3])
def test_a_classifier_is_scikit_learns_on_standardised_features(n):
    inputs, classes = rows(60, 5), np.arange(60) % n
    inputs[np.arange(60), classes] += 6
    weights, biases = few_shot.fitted(task(n=n), inputs, classes[:, None].astype(float), has_bias=True)
    scaled = (inputs - inputs.mean(0)) / inputs.std(0)
    theirs = LogisticRegression(max_iter=1000).fit(scaled, classes).predict_proba(scaled)
    ours = torch.from_numpy(inputs @ weights.T + biases).softmax(-1).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_a_label_that_no_row_has_is_never_answered():
    weights, biases = few_shot.fitted(task(n=3), rows(20, 4), (np.arange(20) % 2)[:, None].astype(float), True)
    logits = torch.from_numpy(rows(20, 4) @ weights.T + biases)
    assert logits.argmax(1).max() < 2
    assert 0.001 < logits.softmax(1)[:, 2].max() < 0.1  # but one may come: it is no surprise beyond measure
    weights, biases = few_shot.fitted(task(n=3), rows(20, 4), np.ones((20, 1)), True)
    assert (weights == 0).all()
    assert biases.argmax() == 1


def test_values_are_ridge_regression_in_closed_form():
    inputs, values = rows(15, 30), rows(15, 1, seed=1)
    found = few_shot.fitted(task("regression", target_mean=2.0, target_std=0.5), inputs, values, True, 10.0)
    scaled = (inputs - inputs.mean(0)) / inputs.std(0)
    theirs = Ridge(alpha=10.0).fit(scaled, (values[:, 0] - 2.0) / 0.5).predict(scaled)
    np.testing.assert_allclose((inputs @ found[0].T + found[1])[:, 0], theirs, atol=1e-8)


def test_labels_of_which_several_may_hold_are_regressions_of_their_own():
    inputs = rows(40, 4)
    targets = np.stack([inputs[:, 0] > 3, inputs[:, 1] > 3, np.ones(40)], 1).astype(float)
    weights, biases = few_shot.fitted(task("multilabel", 3), inputs, targets, True, 2.0)
    scaled = (inputs - inputs.mean(0)) / inputs.std(0)
    for at in (0, 1):
        theirs = LogisticRegression(C=0.5, max_iter=1000).fit(scaled, targets[:, at]).decision_function(scaled)
        np.testing.assert_allclose(inputs @ weights[at] + biases[at], theirs, atol=1e-5)
    assert (inputs @ weights[2] + biases[2]).min() > 0  # a label that always holds is answered so


def test_the_loss_over_folds_tells_features_that_hold_the_answer_from_those_that_do_not():
    classes = (np.arange(64) % 2)[:, None].astype(float)
    noise = rows(64, 40)
    planted = noise.copy()
    planted[:, 0] = 4 * classes[:, 0]
    blind = few_shot.held_out_loss(task(n=2), noise, classes, True, 0)
    seeing = few_shot.held_out_loss(task(n=2), planted, classes, True, 0)
    assert seeing < 0.4 < np.log(2) < blind
    penalty, loss = few_shot.best_penalty(task(n=2), noise, classes, True, 0)
    assert penalty > 1  # features that know nothing are best left alone
    assert loss < blind
    weights, biases = few_shot.fitted(task(n=2), noise, classes, True)
    own = few_shot.losses(task(n=2), noise @ weights.T + biases, classes)
    assert own < 0.4  # on its own rows the blind map answers too: hence the folds
