"""One run, from its spec to its record."""

import math
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.load import load_backbone
from deltaproof.data.dataset import Dataset
from deltaproof.data.run_folder import read_dataset
from deltaproof.errors import RecordError
from deltaproof.evaluation.efficiency import flops_per_token, latency_seconds, stored_bytes
from deltaproof.evaluation.measures import measured
from deltaproof.evaluation.predict import predict
from deltaproof.experiments.environment import environment
from deltaproof.experiments.jobs import Job
from deltaproof.experiments.kept import is_kept, snapshot_folder, tuned_folder
from deltaproof.memory import PeakMemory, is_one_of_several, is_out_of_memory
from deltaproof.methods import Method, method_from
from deltaproof.methods.decompositions import decompositions_in
from deltaproof.methods.tuned import Tuned, attach
from deltaproof.metrics import METRICS
from deltaproof.records.record import Cost, Measurements, Predictions, Record
from deltaproof.records.spec import Spec
from deltaproof.records.store import Store, write_predictions
from deltaproof.saving.folder import save_tuned
from deltaproof.seeding import seed_everything
from deltaproof.tasks.text import Encoded, TextTask
from deltaproof.training.checkpoints import Checkpoint
from deltaproof.training.loop import Outcome, Run, go
from deltaproof.training.precision import accelerator_for, pick_device
from deltaproof.training.settings import Training
from deltaproof.training.sharding import largest, whole_values

Progress = Callable[[int, int, dict[str, float]], None]


def load_for(spec: Spec, trust_remote_code: bool = False) -> Backbone:
    """The spec's model, with a head whose start values come from the spec's seed."""
    task = TextTask.from_json(spec.task)
    return load_backbone(
        spec.model["name"],
        task.kind,
        task.n_outputs,
        labels=list(task.labels) if task.labels else None,
        seed=spec.seed,
        trust_remote_code=trust_remote_code,
        revision=spec.model.get("revision") or None,
        fingerprint=spec.model["fingerprint"],
    )


def use_threads(spec: Spec) -> None:
    """On a CPU the number of threads decides the order of sums, and with it the last bits: it is part of the spec."""
    if "threads" in spec.training:
        torch.set_num_threads(spec.training["threads"])


def run(job: Job, progress: Progress = lambda step, n_steps, values: None) -> Record:
    """Train and score one contestant at one setting and seed; store and return the record.

    A training that diverges or does not fit into memory is a result.
    """
    store = Store(job.folder)
    with store.lock(job.spec.key):
        found = store.find(job.spec.key)
        if found is not None and found.status != "failed":
            if job.restore and found.status == "done" and not is_kept(store, job.spec.key, job.snapshots):
                _restore(job, store, found, progress)
            return found
        started, clock = datetime.now(UTC).isoformat(timespec="seconds"), time.perf_counter()
        try:
            record, predictions = _measure(job, store, progress)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            record, predictions = Record(job.spec, "out_of_memory", error=str(error).splitlines()[0]), None
        seconds = time.perf_counter() - clock
        record = replace(record, started=started, seconds=seconds, environment=environment())
        store.write(record, predictions)
        if job.begins is None:
            checkpoint_of(store, job).clear()
        return record


@dataclass(frozen=True)
class Ground:
    """What a run stands on before its method comes in: runs of one model and data set may share it."""

    dataset: Dataset
    task: TextTask
    settings: Training
    backbone: Backbone
    train_rows: Encoded
    validation_rows: Encoded
    accelerator: Accelerator


@dataclass(frozen=True)
class Trained:
    """A training that is over, and what it was made of."""

    ground: Ground
    method: Method
    tuned: Tuned
    outcome: Outcome
    base_measurements: Measurements


def ground_for(job: Job, store: Store) -> Ground:
    """Load the model, read and encode the data, take the device."""
    spec, device = job.spec, pick_device(job.device)
    use_threads(spec)
    torch.use_deterministic_algorithms(True, warn_only=True)
    # else every tensor fresh from `torch.empty` is filled with NaN, several percent of a step: that shows code that
    # reads what nobody wrote, and changes no result
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    accelerator = accelerator_for(device, spec.training["precision"])
    dataset = read_dataset(store.folder / "data")
    task, settings = TextTask.from_json(spec.task), loop_settings(spec)
    backbone = load_for(spec, job.trust_remote_code)
    train_rows = task.encode(backbone.tokenizer, dataset.train)
    validation_rows = task.encode(backbone.tokenizer, dataset.validation)
    return Ground(dataset, task, settings, backbone, train_rows, validation_rows, accelerator)


def attached(spec: Spec, store: Store, backbone: Backbone) -> Tuned:
    """The spec's method on a model, with the start values of its seed."""
    seed_everything(spec.seed, "run")
    with decompositions_in(store.folder / "decompositions"):
        return attach(backbone, method_from(spec.method), spec.seed)


def run_on(
    ground: Ground, tuned: Tuned, job: Job, store: Store, progress: Progress = lambda step, n_steps, values: None
) -> Run:
    """The job's training, ready to begin."""
    return Run(
        tuned,
        ground.task,
        ground.train_rows,
        ground.validation_rows,
        ground.settings,
        job.spec.training["learning_rate"],
        job.spec.seed,
        ground.accelerator,
        None if is_one_of_several() else checkpoint_of(store, job),
        progress,
        snapshot_folder(store, job.spec.key) if job.snapshots else None,
    )


def _train(job: Job, store: Store, progress: Progress) -> Trained:
    ground = ground_for(job, store)
    before = before_attaching(job.spec, store, ground)
    tuned = attached(job.spec, store, ground.backbone)
    training = run_on(ground, tuned, job, store, progress)
    training.begin()
    go([training], stop_after=job.spec.training.get("rung_step"))
    return Trained(ground, tuned.method, tuned, training.outcome, before)


def checkpoint_of(store: Store, job: Job) -> Checkpoint:
    """Where the job's training stands on disk."""
    return Checkpoint(store.folder / "checkpoints" / job.checkpoint_key)


def _measure(job: Job, store: Store, progress: Progress) -> tuple[Record, Predictions | None]:
    memory = PeakMemory(pick_device(job.device))
    made = _train(job, store, progress)
    peaks = [memory.host_bytes(), memory.device_bytes()]
    if is_one_of_several():
        peaks = [largest(peak, made.ground.accelerator.device) for peak in peaks]
    return measure(job, store, made, *peaks)


def run_beside(job: Job) -> None:
    """Take part in a run that the process of rank 0 records: all its steps and evaluations, and nothing written."""
    _measure(job, Store(job.folder), lambda step, n_steps, values: None)


def measure(
    job: Job, store: Store, made: Trained, peak_memory_bytes: int | None, peak_device_memory_bytes: int | None
) -> tuple[Record, Predictions | None]:
    """What a training that is over has come to. A final run's model may be merged by it, for good."""
    spec, precision = job.spec, job.spec.training["precision"]
    ground, tuned, outcome = made.ground, made.tuned, made.outcome
    notes = [*tuned.backbone.notes, *made.method.notes(tuned.backbone), *outcome.notes]
    if outcome.diverged:
        return Record(spec, "diverged", history=outcome.history, notes=notes), None
    validation = outcome.validation
    if spec.stage == "rung":
        _keep_answers(store, spec, "rung", tuned, ground)
        validation = outcome.history[-1]["validation"]
    test_scores: dict[str, float] = {}
    measurements: Measurements = {}
    predictions: Predictions | None = None
    if spec.stage == "final":
        test_scores, predictions = _final_evaluation(ground.dataset, tuned, ground.task, spec, precision)
        measurements = made.base_measurements | measured(
            made.method.measures, tuned, tuned.backbone, ground.validation_rows, 2 * spec.training["batch_size"],
            precision,
        )  # fmt: skip
        if job.keep:
            _save(made, job, tuned_folder(store, spec.key))
    per_token = None if job.probe is None else job.probe.flops_per_token
    if per_token is None:
        per_token = flops_per_token(tuned, ground.task, ground.train_rows, tuned.backbone.tokenizer.pad_token_id)
    cost = _cost(tuned, ground.train_rows, outcome, per_token, precision, final=spec.stage == "final")
    cost = replace(cost, peak_memory_bytes=peak_memory_bytes, peak_device_memory_bytes=peak_device_memory_bytes)
    record = Record(
        spec, "done", validation, test_scores, outcome.history, cost, measurements=measurements, notes=notes
    )
    return record, predictions


def _restore(job: Job, store: Store, record: Record, progress: Progress) -> None:
    """Train a recorded run again for its tuned model, which was not kept; the record and the test split stay closed.

    Raises:
        RecordError: this training went another way than the one on record.
    """
    made = _train(job, store, progress)
    checkpoint_of(store, job).clear()
    if not _went_as(record, made.outcome):
        shutil.rmtree(snapshot_folder(store, record.spec.key), ignore_errors=True)
        raise RecordError(
            f"a training that is repeated must go as on record, that of `{record.spec.contestant}` with seed "
            f"{record.spec.seed} did not on this machine, so its tuned model is not had again; compare in a new folder "
            f"with `--keep all`"
        )
    save_tuned(made.tuned, made.ground.task, record.spec, tuned_folder(store, record.spec.key))


def _save(made: Trained, job: Job, folder: Path) -> None:
    """Write the tuned model; where several processes hold a share each, that of rank 0 writes it whole."""
    tuned = made.tuned
    if is_one_of_several():
        values = whole_values(tuned.trained())
        if not made.ground.accelerator.is_main_process:
            return
        tuned = attach(load_for(job.spec, job.trust_remote_code), made.method, job.spec.seed)
        tuned.load_state(values)
    save_tuned(tuned, made.ground.task, job.spec, folder)


def _keep_answers(
    store: Store, spec: Spec, moment: Literal["start", "rung"], model: torch.nn.Module, ground: Ground
) -> None:
    """Store what a model answers to the validation rows, by which trials are compared at their rung."""
    size, precision = 2 * spec.training["batch_size"], spec.training["precision"]
    pad_token_id = ground.backbone.tokenizer.pad_token_id
    outputs = predict(model, ground.task, ground.validation_rows, pad_token_id, size, precision)
    split = ground.dataset.validation
    write_predictions(store.rung_path(spec.key, moment), Predictions(split.ids, split.groups, split.targets, outputs))


def _went_as(record: Record, outcome: Outcome) -> bool:
    """Whether a training went as on record: to the bit, and but for rounding where that was made in lanes."""
    if "lanes" not in record.environment:
        return (outcome.validation, outcome.history) == (record.validation, record.history)
    return _alike(outcome.history, record.history)


def _alike(one: Any, other: Any) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_alike, one, other))
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=1e-3, abs_tol=1e-3)
    return bool(one == other)


def before_attaching(spec: Spec, store: Store, ground: Ground) -> Measurements:
    """What has to be known of the model before the method is attached: at a final run what it asks to have measured;
    on the way to a rung the answers, which are stored."""
    if spec.stage == "rung":
        _keep_answers(store, spec, "start", ground.backbone.model.to(ground.accelerator.device), ground)
        ground.backbone.model.cpu()  # where it lay: methods start from its weights there
    method = method_from(spec.method)
    if not method.measures or spec.stage != "final":
        return {}
    batch_size, precision = 2 * spec.training["batch_size"], spec.training["precision"]
    model = ground.backbone.model.to(ground.accelerator.device)
    found = measured(method.measures, model, ground.backbone, ground.validation_rows, batch_size, precision)
    model.cpu()  # where it lay: methods start from its weights there
    return {f"base_{name}": value for name, value in found.items()}


def _final_evaluation(
    dataset: Dataset, tuned: Tuned, task: TextTask, spec: Spec, precision: str
) -> tuple[dict[str, float], Predictions]:
    """The one place that opens the sealed test split."""
    test = dataset.test.open(spec.key)
    tokenizer = tuned.backbone.tokenizer
    rows = task.encode(tokenizer, test)
    outputs = predict(tuned, task, rows, tokenizer.pad_token_id, 2 * spec.training["batch_size"], precision)
    scores = {name: METRICS[name].score(test.targets, outputs) for name in task.metrics}
    return scores, Predictions(test.ids, test.groups, test.targets, outputs)


def _cost(tuned: Tuned, rows: Encoded, outcome: Outcome, per_token: float, precision: str, final: bool) -> Cost:
    """What the run took; the latencies, which merge the model for good, only after a final evaluation."""
    pad_token_id = tuned.backbone.tokenizer.pad_token_id
    facts: dict[str, Any] = {
        "n_trainable": tuned.n_trainable,
        "n_total": tuned.n_total,
        "reachable_dimension": tuned.reachable_dimension(),
        "train_seconds": outcome.train_seconds,
        "examples_per_second": outcome.examples_seen / max(outcome.train_seconds, 1e-9),
        "train_flops": per_token * outcome.tokens_seen,
        "stored_bytes": stored_bytes(tuned),
    }
    if final:
        facts["latency_seconds"] = latency_seconds(tuned, rows, pad_token_id, precision)
        if tuned.mergeable:
            facts["merged_latency_seconds"] = latency_seconds(tuned.merge(), rows, pad_token_id, precision)
    return Cost(**facts)


def loop_settings(spec: Spec) -> Training:
    """The part of the spec that the training loop reads."""
    return Training(**{key: value for key, value in spec.training.items() if key in Training.model_fields})
