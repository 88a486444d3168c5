"""An ONNX graph of a classifier: written by torch's exporter, read by onnxruntime."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.quiet import quiet
from deltaproof.errors import BackboneError, ConfigError, MissingExtraError
from deltaproof.shipping.folders import ONNX
from deltaproof.tasks.text import TextTask

_EXAMPLES = ("a good film", "a bad film, with a bad story")


class _Logits(nn.Module):
    """The model with its inputs in a fixed order, and logits alone for output."""

    def __init__(self, model: nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, list(names)

    def forward(self, *inputs: Tensor) -> Tensor:
        logits: Tensor = self.model(**dict(zip(self.names, inputs, strict=True))).logits
        return logits


def export_onnx(model: nn.Module, backbone: Backbone, task: TextTask, folder: Path) -> None:
    """Write `model.onnx` for any number of rows and tokens, with config.json beside it.

    Raises:
        MissingExtraError: the extra is not installed.
        ConfigError: torch cannot trace the model.
    """
    runtime()
    names = [name for name in ("input_ids", "attention_mask", "token_type_ids") if name in _example(backbone)]
    example = tuple(_example(backbone)[name] for name in names)
    dynamic = tuple({0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC} for _ in names)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with quiet():
            torch.onnx.export(
                _Logits(model.cpu().eval(), names), example, str(folder / ONNX), dynamo=True, verbose=False,
                input_names=names, output_names=["logits"], dynamic_shapes=(dynamic,),
            )  # fmt: skip
    except Exception as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ConfigError(
            f"torch must be able to export the model to ONNX, it says: {text}; use `--to merged`"
        ) from error
    config: Any = backbone.model.config
    if task.labels:
        config.id2label = dict(enumerate(task.labels))
        config.label2id = {label: index for index, label in enumerate(task.labels)}
    config.save_pretrained(folder)


def _example(backbone: Backbone) -> dict[str, Tensor]:
    return dict(backbone.tokenizer(list(_EXAMPLES), padding=True, return_tensors="pt"))


def quantize(folder: Path) -> tuple[int, int]:
    """Store the matrices of a graph in 8 bits, its activations being rounded as it runs (dynamic quantisation).

    Each row of a matrix has a scale of its own: one for the whole cost points of accuracy where it was measured.

    Returns:
        how many matrices are stored in 8 bits, and of how many.
    Raises:
        BackboneError: onnxruntime cannot quantise it.
    """
    runtime()
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    path, small = folder / ONNX, folder / f"int8-{ONNX}"
    try:
        with quiet():
            quantize_dynamic(path, small, weight_type=QuantType.QInt8, per_channel=True)
    except Exception as error:
        raise BackboneError(f"onnxruntime must be able to quantise the graph, it says: {error}") from error
    before = onnx.load(path, load_external_data=False).graph.initializer
    for file in (path, folder / f"{ONNX}.data"):
        file.unlink(missing_ok=True)
    small.rename(path)
    after = onnx.load(path, load_external_data=False).graph.initializer
    n_small = sum(entry.data_type == onnx.TensorProto.INT8 and len(entry.dims) == 2 for entry in after)
    return n_small, sum(entry.data_type == onnx.TensorProto.FLOAT and len(entry.dims) == 2 for entry in before)


class OnnxModel:
    """A graph that answers, on the CPU."""

    def __init__(self, folder: Path) -> None:
        """
        Raises:
            MissingExtraError: the extra is not installed.
            BackboneError: onnxruntime cannot read the graph.
        """
        engine = runtime()
        try:
            self.session = engine.InferenceSession(str(folder / ONNX), providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BackboneError(
                f"`{folder / ONNX}` must be an ONNX graph, onnxruntime says: {str(error).splitlines()[0]}"
            ) from error
        self.inputs = [entry.name for entry in self.session.get_inputs()]

    def __call__(self, row: dict[str, Tensor]) -> np.ndarray:
        """Logits of a batch, (rows, n_outputs)."""
        nothing = torch.zeros_like(row["input_ids"])  # what a model in torch takes where a tokenizer gives no segments
        given = {name: row.get(name, nothing).numpy().astype(np.int64) for name in self.inputs}
        logits: np.ndarray = self.session.run(None, given)[0].astype(np.float64)
        return logits

    def answers(self, rows: Sequence[dict[str, Tensor]]) -> list[np.ndarray]:
        """Of each row alone, (n_outputs,)."""
        return [self(row)[0] for row in rows]


def runtime() -> Any:
    """onnxruntime, where the whole extra is installed.

    Raises:
        MissingExtraError: it is not.
    """
    try:
        import onnx  # noqa: F401
        import onnxruntime
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError(
            f"ONNX needs the extra [onnx], `{error.name}` is not installed; run `pip install 'deltaproof[onnx]'`"
        ) from None
    return onnxruntime
