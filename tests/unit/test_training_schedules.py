"""Learning-rate schedules against those of transformers."""

import pytest
import torch
from transformers import get_scheduler

from deltaproof.training.schedules import factor

NAMES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


@pytest.mark.parametrize("schedule", NAMES)
@pytest.mark.parametrize(("n_steps", "warmup_fraction"), [(1, 0.1), (7, 0.0), (20, 0.1), (100, 0.25)])
def test_a_schedule_is_that_of_transformers_with_the_warm_up_one_step_ahead(schedule, n_steps, warmup_fraction):
    """transformers takes its first step at rate 0, which moves nothing; ours begins at 1 / n_warmup."""
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    n_warmup = round(n_steps * warmup_fraction)
    theirs = get_scheduler(NAMES[schedule], optimizer, num_warmup_steps=n_warmup, num_training_steps=n_steps)
    rates = []
    for _ in range(n_steps + 1):
        rates.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    for step in range(n_steps):
        ahead = step + 1 if step < n_warmup else step
        assert factor(schedule, step, n_steps, warmup_fraction) == pytest.approx(rates[ahead], abs=1e-12)


def test_no_step_is_taken_at_rate_zero():
    for schedule in NAMES:
        assert all(factor(schedule, step, 50, 0.1) > 0 for step in range(50))
