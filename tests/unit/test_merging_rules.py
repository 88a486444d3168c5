"""The merging rules against peft's own functions on the same tensors, and against cases reckoned by hand."""

import numpy as np
import pytest
import torch
from peft.utils import merge_utils

from deltaproof.compression.compeft import ternarised
from deltaproof.errors import ConfigError
from deltaproof.merging.rules import elected, merged, trimmed

SHAPES = [(17,), (12, 9), (3, 4, 5)]


def experts(shape, n=4):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(0))


def ours(how, changes, weights, density=1.0, seed=0):
    return merged(how, changes, weights, density, torch.Generator().manual_seed(seed))


WEIGHTS = torch.tensor([1.0, 0.5, 2.0, 0.25])


@pytest.mark.parametrize("shape", SHAPES)
def test_task_arithmetic_is_pefts(shape):
    changes = experts(shape)
    theirs = merge_utils.task_arithmetic(list(changes), WEIGHTS)
    torch.testing.assert_close(ours("task_arithmetic", changes, WEIGHTS), theirs)


@pytest.mark.parametrize("density", [0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_ties_is_pefts(shape, density):
    changes = experts(shape)
    with pytest.warns(UserWarning, match="no pruning") if density == 1 else torch.no_grad():
        theirs = merge_utils.ties(list(changes), WEIGHTS, density)
    torch.testing.assert_close(ours("ties", changes, WEIGHTS, density), theirs)


@pytest.mark.parametrize("density", [0.5, 1.0])
def test_ties_of_decompressed_updates_is_pefts(density):
    """As a merge of compressed experts takes them: ternary values, many of them equal, many zero."""
    dense = experts((400,)).numpy()
    changes = torch.from_numpy(np.stack([ternarised(vector, 0.2) for vector in dense]))
    with pytest.warns(UserWarning, match="no pruning") if density == 1 else torch.no_grad():
        theirs = merge_utils.ties(list(changes), torch.ones(4), density)
    torch.testing.assert_close(ours("ties", changes, torch.ones(4), density), theirs)


@pytest.mark.parametrize("shape", SHAPES)
def test_trimming_is_pefts(shape):
    changes = experts(shape)
    theirs = torch.stack([merge_utils.magnitude_based_pruning(one, 0.3) for one in changes])
    torch.testing.assert_close(trimmed(changes, 0.3), theirs)


@pytest.mark.parametrize(("how", "theirs"), [("dare", "dare_linear"), ("dare_ties", "dare_ties")])
@pytest.mark.parametrize("shape", SHAPES)
def test_dare_is_pefts_with_the_same_draws(shape, how, theirs):
    changes = experts(shape)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        expected = getattr(merge_utils, theirs)(list(changes), WEIGHTS, 0.4)
    torch.testing.assert_close(ours(how, changes, WEIGHTS, 0.4, seed=7), expected)


def test_linear_averages():
    changes = experts((5, 5))
    torch.testing.assert_close(ours("linear", changes, torch.ones(4)), changes.mean(0))
    torch.testing.assert_close(ours("linear", changes[:1], torch.tensor([3.0])), changes[0])


def test_a_sign_is_elected_by_mass_and_those_against_it_are_left_out():
    changes = torch.tensor([[3.0, 1.0, 0.0], [-1.0, 1.0, 0.0], [-1.0, -4.0, 2.0]])
    torch.testing.assert_close(elected(changes, torch.ones(3)), torch.tensor([3.0, -4.0, 2.0]))


def test_dropping_keeps_the_expectation():
    changes = torch.ones(1, 200_000)
    found = ours("dare", changes, torch.ones(1), 0.25)
    assert found.mean().item() == pytest.approx(1.0, abs=0.02)
    assert set(found.unique().tolist()) == {0.0, 4.0}


def test_what_is_no_rule_or_no_share_is_refused():
    with pytest.raises(ConfigError, match="got `tise`; did you mean `ties`"):
        ours("tise", experts((2,)), WEIGHTS)
    with pytest.raises(ConfigError, match="0 < density <= 1"):
        ours("ties", experts((2,)), WEIGHTS, 1.5)
