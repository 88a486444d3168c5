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


def predicted_bytes(jobs: Sequence[Job], side_by_side: int = 1, share: float = 1.0, places: int | None = None) -> int:
    """Peak host memory of jobs in lanes.

    Args:
        side_by_side: how many of them go through in one pass, of batches up to the usual width.
        share: that width, as a share of the widest batch's: of wider ones fewer lanes go through.
        places: how many train at a time, all when left out; the others wait with their start values.
    """
    hungriest, *others = sorted((job.probe or Probe() for job in jobs), key=alone_bytes, reverse=True)
    own = _own_bytes(others, COPIES, places)
    merged = jobs[0].base_bytes // 2 if jobs[0].spec.stage == "final" else 0  # on a copy, which half fits in the holes
    return alone_bytes(hungriest, _fullness(side_by_side, share)) + own + merged


def _own_bytes(others: Sequence[Probe], copies: int, places: int | None) -> int:
    """What lanes beside the hungriest have of their own, at worst: those that train the largest at a time."""
    sizes = sorted((4 * probe.n_trainable for probe in others), reverse=True)
    n_training = len(sizes) if places is None else places - 1
    return copies * sum(sizes[:n_training]) + sum(sizes[n_training:])


def _fullness(side_by_side: int, share: float) -> float:
    return max(1.0, side_by_side * share)


def _kept(probe: Probe) -> int:
    """Bytes on the host that a pass keeps for its gradient."""
    return probe.kept_bytes if probe.peak_device_memory_bytes is None else 0


def predicted_device_bytes(
    jobs: Sequence[Job], side_by_side: int = 1, share: float = 1.0, places: int | None = None
) -> int:
    """The same of an accelerator's memory: the hungriest alone, and what the others have of their own."""
    probes = sorted((job.probe or Probe() for job in jobs), key=lambda probe: probe.kept_bytes, reverse=True)
    peak = max(probe.peak_device_memory_bytes or 0 for probe in probes)
    own = _own_bytes(probes[1:], COPIES - 1, places)  # the best values wait on the host
    return peak + own + int((_fullness(side_by_side, share) - 1) * probes[0].kept_bytes)


def most_in_one_pass(
    jobs: Sequence[Job],
    memory_bytes: float,
    device_bytes: float | None = None,
    share: float = 1.0,
    places: int | None = None,
) -> int:
    """How many of these, at least one, go through the model in one pass within the memory that there is.

    Args:
        memory_bytes: of the host.
        share: of the usual width, as for `predicted_bytes`; `places` too.
        device_bytes: of the accelerator, where there is one.
    """
    limit, predict = memory_bytes, predicted_bytes
    if device_bytes is not None:
        limit, predict = device_bytes, predicted_device_bytes
    at_a_time = places or len(jobs)
    n = max([n for n in range(2, at_a_time + 1) if predict(jobs, n, share, places) <= limit], default=1)
    return -(-at_a_time // -(-at_a_time // n))  # passes of like size


def n_fitting(jobs: Sequence[Job], memory_bytes: float) -> int:
    """How many of these are predicted to fit at a time, one in a pass, while the others wait; at least one."""
    fitting = [n for n in range(2, len(jobs) + 1) if predicted_bytes(jobs, places=n) <= memory_bytes]
    return max(fitting, default=1)
