"""How far two models lie apart on the same rows: logits, each layer's output, and what goes into the first layer."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.evaluation.predict import in_evaluation
from deltaproof.methods.tuned import Tuned
from deltaproof.tasks.batches import evaluation_batches
from deltaproof.tasks.text import Encoded, collate


@dataclass(frozen=True)
class Displacement:
    """How far one tuned model moved, by example."""

    logits: np.ndarray
    """(n,) |f(x) - f0(x)|"""
    base_logits: np.ndarray
    """(n,) |f0(x)|"""
    layers: np.ndarray
    """(n, passes through layers) |h_l - h_l0| / |h_l0| of a layer's output over the example's tokens."""
    size: np.ndarray
    """(n,) length of what goes into the base's first layer."""
    shift: np.ndarray
    """(n,) how far tuning moved that."""


@dataclass
class _Seen:
    """What passed through the layers in one call of a model, each (batch, tokens, width)."""

    start: Tensor | None = None
    layers: list[Tensor] = field(default_factory=list)

    @contextmanager
    def watching(self, backbone: Backbone) -> Iterator["_Seen"]:
        """Watches behind a method's own hooks, so that it sees what the next layer sees."""
        sites = [site for site in backbone.all_sites if site.role == "layer"]
        with ExitStack() as hooks:
            for number, site in enumerate(sites):
                module = backbone.module(site)
                if number == 0:
                    hooks.callback(module.register_forward_pre_hook(self._enter, with_kwargs=True).remove)
                hooks.callback(module.register_forward_hook(self._leave).remove)
            yield self

    def clear(self) -> None:
        self.start, self.layers = None, []

    def _enter(self, module: nn.Module, inputs: tuple[Any, ...], options: Mapping[str, Any]) -> None:
        if self.start is None:
            self.start = inputs[0] if inputs else options["hidden_states"]

    def _leave(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self.layers.append(output[0] if isinstance(output, tuple) else output)


@torch.inference_mode()
def measure_displacement(
    tuned: Tuned, base: Backbone, encoded: Encoded, pad_token_id: int, batch_size: int = 32
) -> Displacement:
    """Send every row through both models, in fp32: no rounding of a shorter type counts as displacement."""
    base.model.to(next(tuned.parameters()).device).eval()

    def measure(size: int, device: torch.device) -> Displacement:
        found: dict[str, list[np.ndarray]] = {name: [] for name in ("logits", "base_logits", "layers", "size", "shift")}
        order: list[np.ndarray] = []
        with _Seen().watching(tuned.backbone) as after, _Seen().watching(base) as before:
            for rows in evaluation_batches(encoded.lengths, size):
                batch = {key: value.to(device) for key, value in collate(encoded, rows, pad_token_id).items()}
                after.clear()
                before.clear()
                moved, start = tuned(**batch).logits.double(), base.model(**batch).logits.double()
                real = batch["attention_mask"][..., None].double()
                found["logits"].append(_length(moved - start))
                found["base_logits"].append(_length(start))
                found["layers"].append(_relative(before.layers, after.layers, real))
                size_in, shift_in = _lengths_at_start(before.start, after.start, real)
                found["size"].append(size_in)
                found["shift"].append(shift_in)
                order.append(np.asarray(rows))
        back = np.argsort(np.concatenate(order), kind="stable")
        return Displacement(**{name: np.concatenate(parts)[back] for name, parts in found.items()})

    return in_evaluation(tuned, batch_size, measure)


def _length(values: Tensor) -> np.ndarray:
    """(rows,) l2 norm of everything in a row."""
    lengths: np.ndarray = torch.linalg.vector_norm(values.flatten(1).double(), dim=1).cpu().numpy()
    return lengths


def _relative(before: list[Tensor], after: list[Tensor], real: Tensor) -> np.ndarray:
    """(rows, layers); tokens that a method put before the text (prompt tuning) are left out."""
    columns = []
    for start, end in zip(before, after, strict=True):
        moved = (end[:, -start.shape[1] :] - start) * real
        columns.append(_length(moved) / np.maximum(_length(start * real), np.finfo(float).tiny))
    return np.stack(columns, axis=1) if columns else np.zeros((len(real), 0))


def _lengths_at_start(before: Tensor | None, after: Tensor | None, real: Tensor) -> tuple[np.ndarray, np.ndarray]:
    assert before is not None, "a model has layers"
    assert after is not None, "a model has layers"
    return _length(before * real), _length((after[:, -before.shape[1] :] - before) * real)
