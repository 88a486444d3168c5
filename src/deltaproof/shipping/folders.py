"""What kind of model lies in a folder, and its tensors by the names that they have in the model."""

from pathlib import Path
from typing import Literal

from deltaproof.errors import BackboneError
from deltaproof.saving.folder import FACTS
from deltaproof.saving.folder import TENSORS as OWN_TENSORS
from deltaproof.theory.adapters import CONFIG, TENSORS
from deltaproof.theory.checkpoints import Checkpoint, open_model

Kind = Literal["model", "adapter", "tuned", "onnx"]
ONNX, EVIDENCE, HEADS = "model.onnx", "evidence.json", "heads"


def kind_of(folder: Path) -> Kind:
    """A whole model, an adapter of peft's, what `train` or `compare` saved in a form of ours alone, or an ONNX graph.

    Raises:
        BackboneError: none of these.
    """
    if not folder.is_dir():
        raise BackboneError(f"a folder must exist, got `{folder}`; check the path")
    if (folder / ONNX).is_file():
        return "onnx"
    if (folder / CONFIG).is_file():
        return "adapter"
    if (folder / "config.json").is_file():
        return "model"
    if (folder / FACTS).is_file():
        return "tuned"
    raise BackboneError(
        f"a folder must hold a model (config.json), an adapter ({CONFIG}) or a tuned model ({FACTS}), `{folder}` has "
        f"none of these; give the folder that `save_pretrained`, `train` or `ship` wrote"
    )


def tensors_of(folder: Path, kind: Kind) -> Checkpoint:
    """The folder's tensors, each read when it is asked for.

    Raises:
        BackboneError: there are none, or a file is cut short.
    """
    if kind == "model":
        return open_model(str(folder))
    file = folder / (OWN_TENSORS if kind == "tuned" else TENSORS)
    if not file.is_file():
        raise BackboneError(
            f"an adapter's weights must be safetensors, `{folder}` has no {file.name} (pickled weights can run code "
            f"and are never opened); save it anew with `save_pretrained` where you trust it"
        )
    return Checkpoint(folder, [file])


def model_name(stored: str) -> str:
    """A tensor's name in the model itself, peft's wrappers taken off.

    >>> model_name("base_model.model.bert.pooler.modules_to_save.dense.weight")
    'bert.pooler.dense.weight'
    """
    name = stored.removeprefix("base_model.model.")
    return name.replace(".base_layer.", ".").replace(".modules_to_save.", ".")
