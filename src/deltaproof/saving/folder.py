"""A tuned model on disk: everything that was trained, what is needed to answer with it, and nothing executable."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from deltaproof.backbones.load import load_backbone
from deltaproof.backbones.quiet import quiet
from deltaproof.errors import RecordError
from deltaproof.methods import method_from
from deltaproof.methods.tuned import Tuned, attach
from deltaproof.records.spec import Spec
from deltaproof.records.store import write_atomically, write_json
from deltaproof.saving.peft_adapter import save_peft_adapter
from deltaproof.saving.transformers_folder import save_model_folder
from deltaproof.tasks.text import TextTask

FACTS, TENSORS = "deltaproof.json", "deltaproof.safetensors"


def save_tuned(tuned: Tuned, task: TextTask, spec: Spec, folder: Path) -> None:
    """Write the whole of what training produced, head included; the facts come last, so a folder with facts is whole.

    Full fine-tuning is a `transformers` folder; what has that form is a PEFT adapter as well (see `peft_adapter`).
    """
    folder.mkdir(parents=True, exist_ok=True)
    with quiet():
        if spec.method["name"] == "full":
            save_model_folder(tuned.backbone, task.labels, folder)
        else:
            state = {name: tensor.cpu().contiguous().clone() for name, tensor in tuned.state().items()}
            write_atomically(folder / TENSORS, safetensors.torch.save(state))
            save_peft_adapter(tuned, folder)
            tuned.backbone.tokenizer.save_pretrained(folder)
    write_json(folder / FACTS, {"format": 1, "spec": asdict(spec), "task": task.to_json()})


def load_tuned(
    folder: Path, trust_remote_code: bool = False, base: str | None = None
) -> tuple[Tuned, TextTask, dict[str, Any]]:
    """The tuned model as it was when saved, its task, and the spec it was made by.

    Args:
        base: where the model that was tuned lies now, if not where it did then.
    """
    task, spec = facts_of(folder)
    is_full = spec["method"]["name"] == "full"
    source = str(Path(folder).resolve()) if is_full else base or _beside(Path(folder), spec)
    tuned = attach_anew(task, spec, trust_remote_code, source, what=f"`{folder}`")
    if not is_full:
        tuned.load_state(_read_tensors(Path(folder) / TENSORS))
    return tuned.eval(), task, spec


def _beside(folder: Path, spec: dict[str, Any]) -> str | None:
    """The base of a tuned model that is kept within it, such as a further head over a merged model; else None."""
    place = spec["model"].get("beside")
    return str((folder.resolve() / place).resolve()) if place else None


def attach_anew(
    task: TextTask, spec: dict[str, Any], trust_remote_code: bool = False, base: str | None = None, what: str = "this"
) -> Tuned:
    """The model of a spec with its method attached and nothing trained yet: what stored values are loaded into.

    Args:
        base: where the model lies now, if not where it did then; of full fine-tuning, the tuned model.
        what: how an error calls what the spec is of.
    Raises:
        RecordError: the base of a method that changes it is another model.
    """
    labels = list(task.labels) if task.labels else None
    is_full = spec["method"]["name"] == "full"
    backbone = load_backbone(
        base or spec["model"]["name"], task.kind, task.n_outputs, labels=labels, seed=spec["seed"],
        trust_remote_code=trust_remote_code,
        revision=None if base else spec["model"].get("revision") or None,
    )  # fmt: skip
    if not is_full:
        check_base(backbone.fingerprint, spec, what)
    return attach(backbone, method_from(spec["method"]), spec["seed"])


def check_base(fingerprint: str, spec: dict[str, Any], what: str) -> None:
    """Refuse a base other than the one that was tuned.

    Raises:
        RecordError: its fingerprint differs.
    """
    if fingerprint != spec["model"]["fingerprint"]:
        raise RecordError(
            f"the model must be the one that {what} was tuned on, `{spec['model']['name']}` with fingerprint "
            f"{spec['model']['fingerprint']}, got {fingerprint}; bring that model back, the rest fits no other"
        )


def facts_of(folder: Path) -> tuple[TextTask, dict[str, Any]]:
    """The task and the spec of a tuned model.

    Raises:
        RecordError: the folder holds none, or not a whole one.
    """
    path = Path(folder) / FACTS
    if not path.exists():
        raise RecordError(
            f"`{folder}` must be a folder that `train` or `compare` saved, found no {FACTS}; "
            f"name one such as `runs/NAME/best`"
        )
    return read_facts(path)


def read_facts(path: Path) -> tuple[TextTask, dict[str, Any]]:
    """The task, and the spec it was trained by.

    Raises:
        RecordError: the file is damaged.
    """
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        return TextTask.from_json(facts["task"]), facts["spec"]
    except (ValueError, KeyError, TypeError) as error:
        raise RecordError(f"`{path}` must hold a tuned model's facts, got {error!r}; save the model again") from None


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise RecordError(f"`{path}` must be a whole safetensors file, got: {error}; save the model again") from None
    return tensors
