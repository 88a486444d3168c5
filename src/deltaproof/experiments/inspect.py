"""A look at model and methods before anything is trained: facts for the specs, and errors while they are cheap."""

import numpy as np

from deltaproof.backbones.load import load_backbone
from deltaproof.data.run_folder import read_dataset
from deltaproof.experiments.environment import environment
from deltaproof.experiments.jobs import Facts, Question
from deltaproof.methods import method_from
from deltaproof.methods.peft_bridge import check_room
from deltaproof.methods.tuned import placed_edits
from deltaproof.tasks.text import TextTask
from deltaproof.training.precision import check_devices, pick_device, pick_precision


def look(question: Question) -> Facts:
    """Load the model, place every method's edits on it, measure the texts, and see what the machine offers.

    Raises:
        ConfigError: a method does not go with this model, or the device or precision is not to be had.
        BackboneError: the model cannot be loaded.
    """
    device = pick_device(question.device)
    precision = pick_precision(question.precision, device)
    check_devices(question.devices_per_run, device, precision)
    task = TextTask.from_json(question.task)
    backbone = load_backbone(
        question.model,
        task.kind,
        task.n_outputs,
        labels=list(task.labels) if task.labels else None,
        trust_remote_code=question.trust_remote_code,
        revision=question.revision,
    )
    methods = [method_from(fields) for fields in question.methods]
    for method in methods:
        placed_edits(backbone, method)
    notes = list(backbone.notes)
    if task.max_length > backbone.max_length:
        notes.append(f"the model takes {backbone.max_length} tokens at most, so that is the maximum length")
        task = TextTask.from_json({**question.task, "max_length": backbone.max_length})
    for method in methods:
        check_room(method, task.max_length, backbone.max_length)  # the test split may hold texts of any length
    dataset = read_dataset(question.folder / "data")
    splits = (dataset.train, dataset.validation)
    cut = [task.encode(backbone.tokenizer, split).truncated_fraction for split in splits]
    return Facts(
        fingerprint=backbone.fingerprint,
        revision=backbone.revision,
        n_parameters=sum(parameter.numel() for parameter in backbone.model.parameters()),
        max_length=task.max_length,
        truncated_fraction=float(np.average(cut, weights=[len(split) for split in splits])),
        notes=tuple(notes),
        device=str(device),
        precision=precision,
        environment=environment(),
    )
