"""How many trainings run side by side on this machine, and with how many threads each."""

import os
from dataclasses import dataclass

MOST_ON_CPU = 4
"""More trainings at once would rather fill memory and caches than gain time."""


@dataclass(frozen=True)
class Slots:
    """Places for trainings."""

    n_workers: int
    n_threads: int
    """Of each training."""


def plan_slots(device: str, n_workers: int | None = None, n_cores: int | None = None) -> Slots:
    """On a CPU as many trainings as there are cores, up to four, sharing the cores; on an accelerator one.

    Two processes of one thread get more done than one of two: operations of a small model are too short to share, and
    threads wait for each other whenever something else runs. `OMP_NUM_THREADS` fixes the threads of each training.
    `n_cores`: of a machine other than this one.
    """
    n_cores = n_cores or available_cores()
    fixed = os.environ.get("OMP_NUM_THREADS", "")
    n_threads = int(fixed) if fixed.isdigit() and int(fixed) > 0 else None
    if n_workers is None:
        n_workers = max(1, min(MOST_ON_CPU, n_cores // (n_threads or 1))) if device == "cpu" else 1
    return Slots(n_workers, n_threads or max(1, n_cores // n_workers))


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
