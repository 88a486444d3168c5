"""What a method costs: floating-point operations, bytes and latency, each measured."""

import statistics
import time

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from deltaproof.evaluation.predict import autocast
from deltaproof.methods.tuned import Tuned
from deltaproof.tasks.text import Encoded, TextTask, collate

N_CALLS, N_WARM_UP = 11, 2
"""Calls that a latency is the median of, and those before them that are not counted."""


def flops_per_token(tuned: Tuned, task: TextTask, encoded: Encoded, pad_token_id: int, n_rows: int = 4) -> float:
    """Floating-point operations of forward and backward per token, counted on a few rows of middling length.

    Counts matrix products, convolutions and attention, as `torch.utils.flop_counter` knows them; a frozen weight has no
    gradient product, so this shows what freezing saves. Attention makes the figure depend on length a little.
    """
    device = next(tuned.parameters()).device
    by_length = encoded.lengths.argsort(kind="stable")
    middle = max(0, len(by_length) // 2 - n_rows // 2)
    rows = by_length[middle : middle + n_rows]
    batch = {key: value.to(device) for key, value in collate(encoded, rows, pad_token_id).items()}
    targets = torch.as_tensor(encoded.targets[rows], dtype=torch.float32, device=device)
    before = {parameter: parameter.grad for parameter in tuned.trained().values()}
    was_training = tuned.training
    for parameter in before:
        parameter.grad = None
    tuned.train()  # as in training: with dropout, and with activations reckoned twice where they are not kept
    counter = FlopCounterMode(display=False)
    # attention by its plain formula, which the counter can see on every device
    with counter, sdpa_kernel(SDPBackend.MATH), torch.random.fork_rng([device] if device.type == "cuda" else []):
        task.loss(tuned(**batch).logits, targets).backward()  # type: ignore[no-untyped-call]
    for parameter, gradient in before.items():
        parameter.grad = gradient
    tuned.train(was_training)
    return counter.get_total_flops() / batch["input_ids"].numel()


@torch.inference_mode()
def latency_seconds(
    model: nn.Module, encoded: Encoded, pad_token_id: int, precision: str, n_calls: int = N_CALLS
) -> float:
    """Median time to answer one example, over `n_calls` calls on examples spread over the lengths."""
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    rows = encoded.lengths.argsort(kind="stable")[:: max(1, len(encoded) // n_calls)][:n_calls]
    batches = [{key: value.to(device) for key, value in collate(encoded, [row], pad_token_id).items()} for row in rows]
    times = []
    with autocast(device, precision):
        for batch in [*batches[:N_WARM_UP], *batches]:
            started = time.perf_counter()
            model(**batch).logits.cpu()
            times.append(time.perf_counter() - started)
    model.train(was_training)
    return statistics.median(times[N_WARM_UP:])


def stored_bytes(tuned: Tuned) -> int:
    """Bytes that one more task adds on disk: all that was trained, in the precision it is kept in."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tuned.state().values())
