"""What the frozen layers below a run's lowest change make of a row: computed once, and kept for the epochs to come."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from deltaproof.memory import is_out_of_memory
from deltaproof.methods.edits import ModelEdit
from deltaproof.methods.tuned import Tuned
from deltaproof.training.gradient import random_state
from deltaproof.training.lanes.switch import changed_modules
from deltaproof.training.lanes.trunk import layers_in_order, n_layers_below, order_of_calls


class OverFeatures(nn.Module):
    """Answers like a tuned model, and asks its trunk, the layers below the lowest change, once about each row.

    A batch with a new row goes through the trunk as ever. What it puts out is kept without padding, apart for training
    and for evaluation, unless random numbers were drawn for it. Whatever lies beside the trunk, such as embeddings, is
    computed all the same, as layers above may ask for it.

    Args:
        trunk: its layers, the lowest first.
        resting: modules that stay in evaluation mode while the model trains.
        n_tokens: of all rows that may come, padding left out; with 0 nothing is kept.
    """

    def __init__(self, tuned: Tuned, trunk: Sequence[nn.Module], resting: Sequence[nn.Module], n_tokens: int) -> None:
        super().__init__()
        self.tuned = tuned
        self.trunk, self.resting, self.n_tokens = list(trunk), list(resting), n_tokens
        self.n_not_kept = 0
        """Batches that went through the trunk and will have to again."""
        self._rows: dict[tuple[bool, bytes], Tensor] = {}
        """(tokens, width) by whether the model trains and the row's tokens: pieces of one tensor."""
        self._free: Tensor | None = None
        """What is left of that tensor, which is made with the first of them."""
        self._beside: tuple[None, ...] | None = None
        """What a layer returns beside the hidden states, where it returns a tuple."""

    def forward(self, **batch: Tensor) -> Any:
        with having(self.resting, "training", False):
            return self._over_features(batch) if self.n_tokens else self.tuned(**batch)

    def _over_features(self, batch: dict[str, Tensor]) -> Any:
        real = batch["attention_mask"].bool()
        keys = [(self.tuned.training, tokens) for tokens in tokens_of(batch)]
        if self._rows.keys() >= set(keys):
            output = self._output(keys, real)  # of each layer, as what the top one puts out is all that is seen above
            with having(self.trunk, "forward", lambda *inputs, **options: output):
                return self.tuned(**batch)
        before, left = random_state(real.device), []
        with self.trunk[-1].register_forward_hook(lambda *call: left.append((call[-1], random_state(real.device)))):
            answer = self.tuned(**batch)
        output, after = left[-1]  # a layer may be called again and again
        has_drawn = any(not torch.equal(after[kind], before[kind]) for kind in before)
        self.n_not_kept += has_drawn or not self._keep(keys, real, output)
        return answer

    def _keep(self, keys: Sequence[tuple[bool, bytes]], real: Tensor, output: Any) -> bool:
        """Take the rows, where they are all that a layer puts out and there is room; returns whether that is so."""
        hidden, *beside = output if isinstance(output, tuple) else (output,)
        is_all = isinstance(hidden, Tensor) and hidden.shape[:-1] == real.shape
        if not is_all or any(each is not None for each in beside):
            return False
        self._beside = tuple(beside) if isinstance(output, tuple) else None
        if self._free is None:
            self._free = _room(hidden, self.n_tokens)
        for key, row in zip(keys, hidden.detach()[real].split(real.sum(1).tolist()), strict=True):
            if key not in self._rows and len(row) <= len(self._free):
                self._rows[key], self._free = self._free[: len(row)].copy_(row), self._free[len(row) :]
        return self._rows.keys() >= set(keys)

    def _output(self, keys: Sequence[tuple[bool, bytes]], real: Tensor) -> Any:
        """What the trunk puts out for these rows; 0 stands for padding."""
        rows = torch.cat([self._rows[key] for key in keys])
        hidden = rows.new_zeros(*real.shape, rows.shape[-1])
        hidden[real] = rows
        return hidden if self._beside is None else (hidden, *self._beside)


def _room(like: Tensor, n_tokens: int) -> Tensor:
    """(tokens, width); of no tokens where that many do not fit into memory: then every batch goes through the trunk."""
    try:
        return like.new_empty(n_tokens, like.shape[-1])
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        return like[:0, 0]


@contextmanager
def having(modules: Sequence[nn.Module], name: str, value: Any) -> Iterator[None]:
    """These modules have another value of an attribute for a while."""
    before = [{name: vars(module)[name]} if name in vars(module) else {} for module in modules]
    try:
        for module in modules:
            setattr(module, name, value)
        yield
    finally:
        for module, own in zip(modules, before, strict=True):
            vars(module).pop(name, None)
            vars(module).update(own)


def tokens_of(batch: dict[str, Tensor]) -> list[bytes]:
    """Each row's tokens and what else the model is told of them, whatever padding stands beside them."""
    real = batch["attention_mask"].bool()
    columns = torch.stack([batch[name] for name in sorted(batch) if name != "attention_mask"], dim=-1)
    return [row.numpy().tobytes() for row in torch.split(columns[real].cpu(), real.sum(1).tolist())]


def trunk_of(tuned: Tuned) -> list[nn.Module]:
    """The layers below the lowest place that a tuned model changes; none where it cannot be told."""
    if any(isinstance(edit, ModelEdit) for _, edit in tuned.placed()):
        return []  # code that is not ours, and may act around the model
    model, layers = tuned.backbone.model, layers_in_order(tuned.backbone)
    return layers[: n_layers_below(tuned.backbone, layers, changed_modules(model, model))]


def modules_left(model: nn.Module, top: nn.Module) -> list[nn.Module]:
    """All modules that a pass has left for good once it leaves `top`, itself among them."""
    last = {module: at for at, (module, is_left) in enumerate(order_of_calls(model)) if is_left}
    return [module for module, at in last.items() if at <= last[top]]
