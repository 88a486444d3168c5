"""A model in memory as a `transformers` folder that this package knows too, and the gates of what was written."""

from dataclasses import asdict
from pathlib import Path

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.quiet import quiet
from deltaproof.records.spec import Spec
from deltaproof.records.store import write_json
from deltaproof.saving.folder import FACTS
from deltaproof.saving.transformers_folder import save_model_folder
from deltaproof.shipping import gates as g
from deltaproof.shipping.check import check
from deltaproof.shipping.gate import Gate
from deltaproof.shipping.opening import answers_of, open_model_folder
from deltaproof.shipping.probes import TEXTS, as_rows
from deltaproof.tasks.text import TextTask

TO_THE_BIT = "to the bit, since nothing may happen on the way to disk and back"


def save_whole(backbone: Backbone, labels: tuple[str, ...] | None, folder: Path) -> None:
    """Configuration, weights, and the tokenizer with the inputs that training gave the model."""
    tokenizer = backbone.tokenizer
    tokenizer.init_kwargs["model_input_names"] = list(tokenizer.model_input_names)
    with quiet():
        save_model_folder(backbone, labels, folder)


def write_whole(backbone: Backbone, task: TextTask, spec: Spec, base: str, folder: Path) -> list[Gate]:
    """Write a model that was made without training, and ask the gates; the spec says how it was made."""
    save_whole(backbone, task.labels, folder)
    write_json(folder / FACTS, {"format": 1, "spec": asdict(spec), "task": task.to_json()})
    rows = as_rows(backbone.tokenizer, TEXTS)
    before, found = answers_of(backbone.model, rows), open_model_folder(folder).answers(rows)
    return [*check(base, folder), g.answers_are_equal("reload equals memory", before, found, 0.0, TO_THE_BIT)]
