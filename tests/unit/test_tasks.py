"""What is asked of a text model: tokens, padding, losses, answers, and the order of rows."""

import numpy as np
import pytest
import torch
from scipy.special import expit, log_softmax, softmax

from deltaproof.backbones import TINY_FAMILIES, tiny_backbone
from deltaproof.data import Split
from deltaproof.data.dataset import Dataset
from deltaproof.tasks.batches import epoch_batches, evaluation_batches, training_batches
from deltaproof.tasks.text import WIDTHS, TextTask, collate, task_for

CLASSES = TextTask("classification", ("a", "b", "c"), ("accuracy",), 16)
SEVERAL = TextTask("multilabel", ("a", "b"), ("micro_f1",), 16)
NUMBER = TextTask("regression", None, ("rmse",), 16, target_mean=10.0, target_std=4.0)
RANDOM = np.random.default_rng(0)


def test_the_loss_of_classes_is_their_negative_log_likelihood():
    logits, classes = RANDOM.normal(size=(5, 3)), np.array([0, 2, 1, 1, 0])
    wanted = -log_softmax(logits, axis=1)[np.arange(5), classes].mean()
    got = CLASSES.loss(torch.tensor(logits), torch.tensor(classes[:, None], dtype=torch.float32))
    assert got.item() == pytest.approx(wanted, rel=1e-6)


def test_the_loss_of_several_labels_is_the_mean_of_their_cross_entropies():
    logits, labels = RANDOM.normal(size=(5, 2)), RANDOM.integers(0, 2, size=(5, 2)).astype(float)
    p = expit(logits)
    wanted = -(labels * np.log(p) + (1 - labels) * np.log(1 - p)).mean()
    got = SEVERAL.loss(torch.tensor(logits), torch.tensor(labels, dtype=torch.float32))
    assert got.item() == pytest.approx(wanted, rel=1e-6)


def test_numbers_are_learnt_in_units_of_their_spread_and_answered_in_the_users():
    logits, targets = RANDOM.normal(size=(5, 1)), RANDOM.normal(10, 4, size=(5, 1))
    got = NUMBER.loss(torch.tensor(logits), torch.tensor(targets, dtype=torch.float32))
    answers = NUMBER.outputs(torch.tensor(logits))
    np.testing.assert_allclose(answers, logits * 4 + 10)
    assert got.item() == pytest.approx(((answers - targets) ** 2).mean() / 16, rel=1e-5)


def test_a_loss_in_half_precision_is_reckoned_in_full():
    assert CLASSES.loss(torch.zeros(2, 3, dtype=torch.bfloat16), torch.zeros(2, 1)).dtype == torch.float32


def test_answers_are_probabilities():
    logits = RANDOM.normal(size=(4, 3))
    np.testing.assert_allclose(CLASSES.outputs(torch.tensor(logits)), softmax(logits, axis=1))
    np.testing.assert_allclose(SEVERAL.outputs(torch.tensor(logits[:, :2])), expit(logits[:, :2]))


def test_the_mean_and_spread_of_a_regression_are_those_of_the_training_rows():
    targets = np.array([[1.0], [3.0], [8.0]])
    train = Split("train", ["1", "2", "3"], [("x",)] * 3, targets, None)
    dataset = Dataset("d", "regression", None, ("text",), ("y",), train, train, None, "f", [])
    task = task_for(dataset, ["rmse"], 16)
    assert (task.target_mean, task.target_std) == (targets.mean(), targets.std())
    assert TextTask.from_json(task.to_json()) == task


def test_equal_targets_do_not_divide_by_zero():
    train = Split("train", ["1"], [("x",)], np.array([[2.0]]), None)
    dataset = Dataset("d", "regression", None, ("text",), ("y",), train, train, None, "f", [])
    assert task_for(dataset, ["rmse"], 16).target_std == 1.0


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_backbone("bert").tokenizer


def test_what_is_longer_is_cut_and_the_share_of_such_rows_is_known(tokenizer):
    rows = CLASSES.encode_texts(tokenizer, [("a good film",), ("good " * 40,), ("bad",), ("film " * 40,)])
    assert rows.truncated_fraction == 0.5
    assert max(rows.lengths) == 16
    assert len(rows) == 4
    assert rows.columns["input_ids"][1][-1] == tokenizer.sep_token_id, "the closing token stays"


def test_pairs_are_told_apart(tokenizer):
    rows = CLASSES.encode_texts(tokenizer, [("a film", "a story")])
    assert set(rows.columns["token_type_ids"][0]) == {0, 1}
    assert rows.columns["input_ids"][0].count(tokenizer.sep_token_id) == 2


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_the_texts_of_a_pair_never_run_together(family):
    tokenizer = tiny_backbone(family).tokenizer
    encoded = CLASSES.encode_texts(tokenizer, [("the quick", "fox"), ("the", "quick fox")])
    assert encoded.columns["input_ids"][0] != encoded.columns["input_ids"][1]


def test_an_empty_text_gets_one_token_where_the_tokenizer_gives_none():
    backbone = tiny_backbone("gpt2")
    rows = CLASSES.encode_texts(backbone.tokenizer, [("",), ("a film",)])
    assert rows.lengths[0] == 1
    with torch.no_grad():
        logits = backbone.model(**collate(rows, [0, 1], backbone.tokenizer.pad_token_id)).logits
    assert logits.isfinite().all()


def test_a_batch_is_padded_to_its_longest_row_as_the_tokenizer_does(tokenizer):
    texts = ["a good film", "a bad film with a bad story", "fox"]
    rows = CLASSES.encode_texts(tokenizer, [(text,) for text in texts])
    batch = collate(rows, [2, 0, 1], tokenizer.pad_token_id)
    wanted = tokenizer([texts[row] for row in (2, 0, 1)], padding=True, return_tensors="pt")
    for key in ("input_ids", "attention_mask"):
        assert torch.equal(batch[key], wanted[key])


def test_with_room_a_batch_is_padded_to_a_multiple_as_the_tokenizer_does_and_never_beyond_it(tokenizer):
    texts = ["a good film", "a bad film with a bad story", "fox"]
    rows = CLASSES.encode_texts(tokenizer, [(text,) for text in texts])
    batch = collate(rows, [0, 1, 2], tokenizer.pad_token_id, 64)
    wanted = tokenizer(texts, padding=True, pad_to_multiple_of=WIDTHS, return_tensors="pt")
    for key in ("input_ids", "attention_mask"):
        assert torch.equal(batch[key], wanted[key])
    longest = rows.lengths.max()
    assert batch["input_ids"].shape[1] > longest, "else this shows nothing"
    assert collate(rows, [0, 1, 2], tokenizer.pad_token_id, longest)["input_ids"].shape[1] == longest


@pytest.mark.parametrize("family", ["bert", "gpt2", "llama"])
def test_padding_to_a_multiple_changes_no_answer(family):
    backbone = tiny_backbone(family)
    rows = CLASSES.encode_texts(backbone.tokenizer, [("a good film",), ("a bad film with a bad story",)])
    pad = backbone.tokenizer.pad_token_id
    with torch.no_grad():
        narrow, wide = (backbone.model.eval()(**collate(rows, [0, 1], pad, most)).logits for most in (0, 64))
    assert torch.allclose(narrow, wide, atol=1e-6)


def test_rows_are_taken_in_the_order_given(tokenizer):
    rows = CLASSES.encode_texts(tokenizer, [("a",), ("good film",)], np.array([[0.0], [1.0]]))
    taken = rows.take([1, 0])
    assert taken.columns["input_ids"] == rows.columns["input_ids"][::-1]
    assert taken.targets[:, 0].tolist() == [1.0, 0.0]


LENGTHS = np.random.default_rng(1).integers(4, 128, size=1003)


@pytest.mark.parametrize("n_rows", [1, 7, 32, 1003])
def test_an_epoch_holds_every_row_once(n_rows):
    batches = epoch_batches(LENGTHS[:n_rows], 16, seed=3, epoch=0)
    assert sorted(np.concatenate(batches)) == list(range(n_rows))
    assert sorted(map(len, batches), reverse=True)[: n_rows // 16] == [16] * (n_rows // 16)


def test_the_order_depends_on_seed_and_epoch_and_on_nothing_else():
    def order(seed, epoch):
        np.random.rand(3)
        return np.concatenate(epoch_batches(LENGTHS, 16, seed, epoch)).tolist()

    assert order(0, 0) == order(0, 0)
    assert order(0, 0) != order(1, 0)
    assert order(0, 0) != order(0, 1)


def test_batches_of_like_length_waste_little_padding():
    def padded(batches):
        return sum(LENGTHS[batch].max() * len(batch) for batch in batches)

    plain = np.random.default_rng(0).permutation(len(LENGTHS))
    random = [plain[at : at + 16] for at in range(0, len(plain), 16)]
    waste = padded(random) / LENGTHS.sum() - 1
    bucketed = padded(epoch_batches(LENGTHS, 16, 0, 0)) / LENGTHS.sum() - 1
    assert waste > 0.6
    assert bucketed < 0.1


def test_the_batches_of_an_epoch_do_not_come_in_the_order_of_their_lengths():
    means = [LENGTHS[batch].mean() for batch in epoch_batches(LENGTHS, 16, 0, 0)]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3


def test_training_takes_epoch_after_epoch_and_stops_in_time():
    batches = list(training_batches(LENGTHS[:40], 16, 0, 5))
    assert [len(batch) for batch in batches].count(8) >= 1
    assert sorted(np.concatenate(batches[:3])) == list(range(40))
    assert len(batches) == 5


def test_evaluation_starts_with_the_longest_and_takes_every_row_once():
    batches = evaluation_batches(LENGTHS, 64)
    assert LENGTHS[batches[0]].max() == LENGTHS.max()
    assert sorted(np.concatenate(batches)) == list(range(len(LENGTHS)))
