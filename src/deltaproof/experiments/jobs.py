"""What goes to a worker process and what comes back, free of torch: a run, a probe, a look at model and methods."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deltaproof.records.spec import Spec


@dataclass(frozen=True)
class Probe:
    """A few measured steps of one contestant, from which time and memory are estimated."""

    load_seconds: float = 0.0
    step_seconds: float = 0.0
    evaluation_seconds_per_row: float = 0.0
    n_steps: int = 0
    """Optimiser steps of a whole run."""
    n_evaluations: int = 0
    """Times that a whole run scores the validation split."""
    peak_memory_bytes: int = 0
    peak_device_memory_bytes: int | None = None
    loaded_bytes: int = 0
    """Of the host's peak, what stood there before the first step: model, data, libraries."""
    kept_bytes: int = 0
    """What the longest batch keeps from its forward pass for its gradient, where the run takes place."""
    n_trainable: int = 0
    flops_per_token: float | None = None
    """Operations of a training step per token, of which a run need not count them again."""
    out_of_memory: bool = False
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Job:
    """A run or a probe of one contestant: a spec and where to run it."""

    spec: Spec
    folder: Path
    """Of the experiment; its `data/` holds the splits."""
    device: str
    keep: bool = False
    """Whether to save the tuned model under `tuned/<key>`."""
    restore: bool = False
    """Whether to train again where the record stands but the tuned model does not."""
    snapshots: bool = False
    """Whether to save what is trained at a few moments under `snapshots/<key>`; decides no result."""
    trust_remote_code: bool = False
    begins: str | None = None
    """Key of the run that this one, a trial's way to its rung, is the beginning of: it leaves its checkpoint there."""
    probe: Probe | None = None
    """Of the contestant; None where there was none."""
    base_bytes: int = 0
    """What the model's weights take."""

    @property
    def checkpoint_key(self) -> str:
        """Names the checkpoint that the job goes on from, under `checkpoints/`."""
        return self.begins or self.spec.key


@dataclass(frozen=True)
class LaneRequest:
    """Jobs of one model and data set, to be trained side by side."""

    jobs: tuple[Job, ...]
    side_by_side: int | None = None
    """How many go through the model in one pass; None: what a few measured steps find the fastest."""
    places: int | None = None
    """How many train at a time, the first first; the next begins where one has ended. None: all at once."""
    memory_bytes: float = float("inf")
    """Host memory that they may fill together."""
    may_decline: bool = False
    """Whether all may be left to be run alone if that is about as fast."""


@dataclass(frozen=True)
class LaneReport:
    """What came of jobs that were to be trained side by side; the records of those that were stand in their folder."""

    alone: tuple[tuple[str, str], ...]
    """Keys of those that have to be run alone, each with the reason."""
    n_lanes: int = 0
    """How many were trained in lanes."""
    side_by_side: int = 0
    """How many of them went through the model in one pass."""
    gain: float | None = None
    """How many times faster a step was in lanes, measured before the start; None where it was not."""
    peak_memory_bytes: int | None = None
    peak_device_memory_bytes: int | None = None


@dataclass(frozen=True)
class Question:
    """What is to be looked at before anything is trained."""

    model: str
    revision: str | None
    trust_remote_code: bool
    methods: tuple[dict[str, Any], ...]
    task: dict[str, Any]
    folder: Path
    device: str
    precision: str
    devices_per_run: int = 1


@dataclass(frozen=True)
class Facts:
    """What was found: about the model, the texts and the machine."""

    fingerprint: str
    revision: str
    n_parameters: int
    max_length: int
    """The task's maximum length, or the model's where that is shorter."""
    truncated_fraction: float
    """Share of the training and validation rows that lose tokens to it."""
    notes: tuple[str, ...]
    device: str
    """What the wanted device comes to here, such as `cuda`."""
    precision: str
    """What the wanted precision comes to on it, such as `bf16`."""
    environment: dict[str, Any]
