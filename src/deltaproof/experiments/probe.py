"""A probe: a few measured steps of one contestant, before anything expensive starts."""

import math
import time

from deltaproof.backbones.backbone import Backbone
from deltaproof.data.run_folder import read_dataset
from deltaproof.evaluation.predict import predict
from deltaproof.experiments.jobs import Job, Probe
from deltaproof.experiments.run import load_for, loop_settings, use_threads
from deltaproof.memory import PeakMemory, is_out_of_memory
from deltaproof.methods import method_from
from deltaproof.methods.decompositions import decompositions_in
from deltaproof.methods.tuned import Tuned, attach
from deltaproof.records.spec import Spec
from deltaproof.tasks.text import Encoded, TextTask
from deltaproof.training.loop import number_of_steps, steps_between_evaluations, train
from deltaproof.training.precision import accelerator_for, pick_device
from deltaproof.training.settings import Training

N_STEPS = 3
TINY_RATE = 1e-6


def probe(job: Job) -> Probe:
    """Attach the method, take one step on the longest batch (for memory) and a few on ordinary ones (for time).

    Nothing of it is kept, and the test split stays sealed. A contestant that does not fit into memory is an answer.
    """
    clock = time.perf_counter()
    spec, device = job.spec, pick_device(job.device)
    use_threads(spec)
    dataset = read_dataset(job.folder / "data")
    memory = PeakMemory(device)
    try:
        backbone = load_for(spec, job.trust_remote_code)
        rows = TextTask.from_json(spec.task).encode(backbone.tokenizer, dataset.train)
        return _measured(job, backbone, rows, memory, clock)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        peak, device_peak = memory.host_bytes(), memory.device_bytes()
        return Probe(peak_memory_bytes=peak, peak_device_memory_bytes=device_peak, out_of_memory=True)


def _measured(job: Job, backbone: Backbone, rows: Encoded, memory: PeakMemory, clock: float) -> Probe:
    """`clock`: when the probe began."""
    spec = job.spec
    method, task, settings = method_from(spec.method), TextTask.from_json(spec.task), loop_settings(spec)
    with decompositions_in(job.folder / "decompositions"):
        tuned = attach(backbone, method, spec.seed)
    n_trainable, load_seconds = tuned.n_trainable, time.perf_counter() - clock
    accelerator = accelerator_for(pick_device(job.device), spec.training["precision"])
    longest = rows.take((-rows.lengths).argsort(kind="stable")[: settings.batch_size])
    train(tuned, task, longest, longest.take([0]), _steps(settings, 1), TINY_RATE, spec.seed, accelerator)
    outcome = train(tuned, task, rows, longest.take([0]), _steps(settings, N_STEPS), TINY_RATE, spec.seed, accelerator)
    return Probe(
        load_seconds=load_seconds,
        step_seconds=outcome.train_seconds / N_STEPS,
        evaluation_seconds_per_row=_seconds_per_row(tuned, task, rows, settings, spec),
        n_steps=number_of_steps(len(rows), settings),
        n_evaluations=_number_of_evaluations(len(rows), settings),
        peak_memory_bytes=memory.host_bytes(),
        peak_device_memory_bytes=memory.device_bytes(),
        n_trainable=n_trainable,
        notes=(*backbone.notes, *method.notes(backbone), *outcome.notes),
    )


def _steps(settings: Training, n_steps: int) -> Training:
    return Training(**{**settings.model_dump(), "examples": n_steps * settings.batch_size, "patience": None})


def _number_of_evaluations(n_rows: int, settings: Training) -> int:
    """As the loop does it: at even distances within an epoch, and at the end."""
    return math.ceil(number_of_steps(n_rows, settings) / steps_between_evaluations(n_rows, settings))


def _seconds_per_row(tuned: Tuned, task: TextTask, rows: Encoded, settings: Training, spec: Spec) -> float:
    sample = rows.take(list(range(min(len(rows), 4 * settings.batch_size))))
    clock = time.perf_counter()
    tokenizer = tuned.backbone.tokenizer
    predict(tuned, task, sample, tokenizer.pad_token_id, 2 * settings.batch_size, spec.training["precision"])
    return (time.perf_counter() - clock) / len(sample)
