"""A probe: a few measured steps of one contestant, before anything expensive starts."""

import math
import time

import numpy as np

from deltaproof.backbones.backbone import Backbone
from deltaproof.data.run_folder import read_dataset
from deltaproof.evaluation.efficiency import flops_per_token
from deltaproof.evaluation.predict import predict
from deltaproof.experiments.jobs import Job, Probe
from deltaproof.experiments.run import load_for, loop_settings, use_threads
from deltaproof.memory import KeptForGradient, PeakMemory, is_one_of_several, is_out_of_memory
from deltaproof.methods import method_from
from deltaproof.methods.decompositions import decompositions_in
from deltaproof.methods.tuned import Tuned, attach
from deltaproof.records.spec import Spec
from deltaproof.tasks.batches import epoch_batches
from deltaproof.tasks.text import Encoded, TextTask, padded
from deltaproof.training.keeping import feature_bytes
from deltaproof.training.loop import Run, number_of_steps, steps_between_evaluations, train
from deltaproof.training.precision import accelerator_for, pick_device
from deltaproof.training.settings import Training

N_STEPS = 2
"""Ordinary steps that are timed."""
TINY_RATE = 1e-6


def probe(job: Job) -> Probe:
    """Attach the method, take one step on the longest batch (for memory) and two on ordinary ones (for time).

    Nothing of it is kept, and the test split stays sealed. A contestant that does not fit into memory is an answer.
    """
    clock = time.perf_counter()
    spec, device = job.spec, pick_device(job.device)
    use_threads(spec)
    dataset = read_dataset(job.folder / "data")
    memory = PeakMemory(device)
    try:
        backbone = load_for(spec, job.trust_remote_code)
        task = TextTask.from_json(spec.task)
        rows, validation_rows = (task.encode(backbone.tokenizer, each) for each in (dataset.train, dataset.validation))
        return _measured(job, backbone, rows, validation_rows, memory, clock)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        peak, device_peak = memory.host_bytes(), memory.device_bytes()
        return Probe(peak_memory_bytes=peak, peak_device_memory_bytes=device_peak, out_of_memory=True)


def _measured(
    job: Job, backbone: Backbone, rows: Encoded, validation_rows: Encoded, memory: PeakMemory, clock: float
) -> Probe:
    """`clock`: when the probe began."""
    spec = job.spec
    method, task, settings = method_from(spec.method), TextTask.from_json(spec.task), loop_settings(spec)
    with decompositions_in(job.folder / "decompositions"):
        tuned = attach(backbone, method, spec.seed)
    n_trainable, load_seconds = tuned.n_trainable, time.perf_counter() - clock
    accelerator = accelerator_for(pick_device(job.device), spec.training["precision"])
    longest = rows.take((-rows.lengths).argsort(kind="stable")[: settings.batch_size])
    one = longest.take([0])
    train(tuned, task, one, one, _steps(settings, 1), TINY_RATE, spec.seed, accelerator)
    loaded_bytes = memory.held_bytes()  # weights that lie in a file are read by now, and the libraries' code too
    with KeptForGradient(tuned) as kept:
        train(tuned, task, longest, one, _steps(settings, 1), TINY_RATE, spec.seed, accelerator)
    ordinary = rows.take(rows_of_every_length(rows.lengths, settings.batch_size, N_STEPS))
    outcome = train(tuned, task, ordinary, one, _steps(settings, N_STEPS), TINY_RATE, spec.seed, accelerator)
    share = tokens_of_a_step(rows.lengths, settings.batch_size, task.max_length) / tokens_of_a_step(
        ordinary.lengths, settings.batch_size, task.max_length
    )
    seconds_per_row = _seconds_per_row(tuned, task, rows, settings, spec)
    kept_features = 0
    if not is_one_of_several():
        whole = Run(tuned, task, rows, validation_rows, settings, TINY_RATE, spec.seed, accelerator)
        kept_features = feature_bytes(whole)
    peak, device_peak = memory.host_bytes(), memory.device_bytes()
    if device_peak is None:
        peak, loaded_bytes = peak + kept_features, loaded_bytes + kept_features
    else:
        device_peak += kept_features
    pad_token_id = backbone.tokenizer.pad_token_id
    return Probe(
        load_seconds=load_seconds,
        step_seconds=outcome.train_seconds / N_STEPS * share,
        evaluation_seconds_per_row=seconds_per_row,
        n_steps=number_of_steps(len(rows), settings),
        n_evaluations=_number_of_evaluations(len(rows), settings),
        peak_memory_bytes=peak,
        peak_device_memory_bytes=device_peak,
        loaded_bytes=loaded_bytes,
        kept_bytes=kept.n_bytes,
        n_trainable=n_trainable,
        flops_per_token=None if is_one_of_several() else flops_per_token(tuned, task, rows, pad_token_id),
        notes=(*backbone.notes, *method.notes(backbone), *outcome.notes),
    )


def rows_of_every_length(lengths: np.ndarray, batch_size: int, n_batches: int) -> np.ndarray:
    """Rows of batches of like length, as training has them: one from the middle of each equal part of the lengths.

    >>> rows_of_every_length(np.arange(100), 2, 2).tolist()
    [24, 25, 74, 75]
    """
    order = np.argsort(lengths, kind="stable")
    middles = ((2 * np.arange(n_batches) + 1) * len(order)) // (2 * n_batches)
    starts = np.clip(middles - batch_size // 2, 0, max(0, len(order) - batch_size))
    return np.concatenate([order[start : start + batch_size] for start in starts])


def tokens_of_a_step(lengths: np.ndarray, batch_size: int, most: int) -> float:
    """Mean over an epoch's batches, padding included: what a few steps took is scaled by it to what a step takes."""
    batches = epoch_batches(lengths, batch_size, 0, 0)
    return float(np.mean([len(batch) * padded(int(lengths[batch].max()), most) for batch in batches]))


def rows_of_mean_length(lengths: np.ndarray, n_rows: int) -> np.ndarray:
    """Neighbours in length whose mean is nearest to that of all: an evaluation has batches of like length, too.

    >>> rows_of_mean_length(np.array([9, 1, 5, 4, 6, 5]), 2).tolist()
    [2, 5]
    """
    order = np.argsort(lengths, kind="stable")
    n_rows = min(n_rows, len(order))
    means = np.convolve(lengths[order], np.full(n_rows, 1 / n_rows), "valid")
    start = int(np.abs(means - lengths.mean()).argmin())
    return order[start : start + n_rows]


def _steps(settings: Training, n_steps: int) -> Training:
    return Training(**{**settings.model_dump(), "examples": n_steps * settings.batch_size, "patience": None})


def _number_of_evaluations(n_rows: int, settings: Training) -> int:
    """As the loop does it: at even distances within an epoch, and at the end."""
    return math.ceil(number_of_steps(n_rows, settings) / steps_between_evaluations(n_rows, settings))


def _seconds_per_row(tuned: Tuned, task: TextTask, rows: Encoded, settings: Training, spec: Spec) -> float:
    n_rows = 2 * settings.batch_size
    sample = rows.take(rows_of_mean_length(rows.lengths, n_rows))
    clock = time.perf_counter()
    predict(tuned, task, sample, tuned.backbone.tokenizer.pad_token_id, n_rows, spec.training["precision"])
    return (time.perf_counter() - clock) / len(sample)
