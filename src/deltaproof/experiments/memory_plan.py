"""Memory of trainings before they start: what runs in lanes are going to take, and how many of them fit.

What one run takes is measured by its probe. Of several in one process, what is loaded lies there once; each has its own
trained values, their gradients, two moments of AdamW and the best values so far; and of those that go through the
model in one pass, each keeps what its gradient needs.
"""

from collections.abc import Sequence

from deltaproof.experiments.jobs import Job, Probe

MARGIN = 1.15
"""A limit that may not be passed is planned as if predictions were too low by so much, which they may be: see
docs/explanation/speed.md."""
COPIES = 5
"""Of what a run trains, in fp32: the values, the gradients, two moments, and the best values so far."""
HEAP_FRESH, HEAP_AGED = 0.8, 2.0
"""Bytes that the C library's heap grows by on a CPU for each byte that the fullest pass keeps, at first and once the
heap has holes. Lanes share some of what they keep, such as masks. Fitted, see docs/explanation/speed.md."""
AGED_STEPS = 60
"""By then a heap has the holes that it is going to have."""
LATER_BYTES = 20 * 10**6
"""Of the libraries, what a run comes to after its first step: scoring, counting, writing."""


def alone_bytes(probe: Probe, fullness: float = 1.0) -> int:
    """Peak host memory of one run: what its probe took, or more, since the heap goes on to grow for some steps.

    Args:
        fullness: what the fullest pass carries, as a multiple of the run's widest batch.
    """
    heap = HEAP_FRESH + (HEAP_AGED - HEAP_FRESH) * min(1.0, probe.n_steps / AGED_STEPS)
    return max(probe.peak_memory_bytes, probe.loaded_bytes + LATER_BYTES + int(heap * fullness * _kept(probe)))


def predicted_bytes(jobs: Sequence[Job], side_by_side: int = 1, share: float = 1.0) -> int:
    """Peak host memory of jobs in lanes.

    Args:
        side_by_side: how many of them go through in one pass, of batches up to the usual width.
        share: that width, as a share of the widest batch's: of wider ones fewer lanes go through.
    """
    hungriest, *others = sorted((job.probe or Probe() for job in jobs), key=alone_bytes, reverse=True)
    own = sum(4 * COPIES * probe.n_trainable for probe in others)
    merged = jobs[0].base_bytes // 2 if jobs[0].spec.stage == "final" else 0  # on a copy, which half fits in the holes
    return alone_bytes(hungriest, _fullness(side_by_side, share)) + own + merged


def _fullness(side_by_side: int, share: float) -> float:
    return max(1.0, side_by_side * share)


def _kept(probe: Probe) -> int:
    """Bytes on the host that a pass keeps for its gradient."""
    return probe.kept_bytes if probe.peak_device_memory_bytes is None else 0


def predicted_device_bytes(jobs: Sequence[Job], side_by_side: int = 1, share: float = 1.0) -> int:
    """The same of an accelerator's memory: the hungriest alone, and what the others have of their own."""
    probes = sorted((job.probe or Probe() for job in jobs), key=lambda probe: probe.kept_bytes, reverse=True)
    peak = max(probe.peak_device_memory_bytes or 0 for probe in probes)
    own = sum(4 * (COPIES - 1) * probe.n_trainable for probe in probes[1:])  # the best values wait on the host
    return peak + own + int((_fullness(side_by_side, share) - 1) * probes[0].kept_bytes)


def most_in_one_pass(
    jobs: Sequence[Job], memory_bytes: float, device_bytes: float | None = None, share: float = 1.0
) -> int:
    """How many of these, at least one, go through the model in one pass within the memory that there is.

    Args:
        memory_bytes: of the host.
        share: of the usual width, as for `predicted_bytes`.
        device_bytes: of the accelerator, where there is one.
    """
    limit, predict = memory_bytes, predicted_bytes
    if device_bytes is not None:
        limit, predict = device_bytes, predicted_device_bytes
    n = max([n for n in range(2, len(jobs) + 1) if predict(jobs, n, share) <= limit], default=1)
    return -(-len(jobs) // -(-len(jobs) // n))  # passes of like size


def n_fitting(jobs: Sequence[Job], memory_bytes: float) -> int:
    """How many of these, from the first, are predicted to fit in lanes, one in a pass; at least one."""
    return max([n for n in range(2, len(jobs) + 1) if predicted_bytes(jobs[:n]) <= memory_bytes], default=1)
