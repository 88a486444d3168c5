"""What the frozen layers below a run's lowest change make of a row: computed once, and kept for the epochs to come."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from deltaproof.memory import is_out_of_memory
from deltaproof.methods.attention import send_a_token
from deltaproof.methods.edits import ModelEdit
from deltaproof.methods.tuned import Tuned
from deltaproof.training.lanes.switch import changed_modules
from deltaproof.training.lanes.trunk import layers_in_order, n_layers_below


class Features:
    """While it is entered, passes of a model take the features of known rows from memory and keep those of new ones.

    The layers below the lowest change are the trunk. A row is known by its tokens, and kept without its padding, apart
    for training and for evaluation. A batch with a row that is not known goes through the trunk as ever. Whatever lies
    beside the trunk, such as embeddings, is computed all the same, as layers above may ask for it.

    Args:
        layers: the trunk, the lowest first.
        without_dropout: leave what lies in and below the trunk in evaluation mode while the model trains.
    """

    def __init__(self, tuned: Tuned, layers: Sequence[nn.Module], without_dropout: bool) -> None:
        self.model: Any = tuned.backbone.model
        self.layers = list(layers)
        self.resting = modules_left(self.model, self.layers[-1]) if without_dropout else []
        self.stores: dict[bool, Store] = {}
        """By whether the model trains; none where nothing is to be kept."""
        self._undo: list[Any] = []
        self._rows: list[tuple[bytes, int]] = []
        """Of the batch under way: each row's tokens as bytes, and how many they are."""
        self._width = 0
        """Of that batch, in tokens, padding included."""
        self._unknown: set[bytes] = set()
        self._output: Any = None
        """What the trunk put out for these rows; None where they are not all known."""
        self._rest: tuple[None, ...] | None = None
        """What a layer returns beside the hidden states."""

    def __enter__(self) -> "Features":
        for module in self.resting if self.model.training else ():
            module.training = False
        if self.stores:
            self._undo.append(self.model.register_forward_pre_hook(self._read, with_kwargs=True).remove)
            for layer in self.layers:
                self._stand_in(layer)
        return self

    def __exit__(self, *raised: object) -> None:
        for undo in self._undo:
            undo()
        self._undo, self._output = [], None
        for module in self.resting if self.model.training else ():
            module.training = True

    def _stand_in(self, layer: nn.Module) -> None:
        before = vars(layer).get("forward")
        layer.forward = partial(self._through, layer.forward, layer is self.layers[-1])
        self._undo.append(lambda: delattr(layer, "forward") if before is None else setattr(layer, "forward", before))

    def _read(self, model: Any, inputs: Any, arguments: dict[str, Any]) -> None:
        """See which rows are about to go through the model."""
        store, self._output = self.stores[model.training], None
        self._rows = rows_of(arguments)
        self._width = arguments["attention_mask"].shape[1] if self._rows else 0
        self._unknown = {key for key, _ in self._rows if key not in store.starts}
        if self._rows and not self._unknown:
            hidden = store.padded(self._rows, self._width)
            self._output = hidden if self._rest is None else (hidden, *self._rest)

    def _through(self, forward: Any, is_top: bool, *inputs: Any, **options: Any) -> Any:
        """What a layer of the trunk answers: its own output, or the top one's, which is all that is seen above."""
        if self._output is not None:
            return self._output
        output = forward(*inputs, **options)
        if is_top and self._rows:
            hidden, *rest = output if isinstance(output, tuple) else (output,)
            self._rest = tuple(rest) if isinstance(output, tuple) else None
            sees_all = isinstance(hidden, Tensor) and hidden.shape[:-1] == (len(self._rows), self._width)
            if sees_all and not any(each is not None for each in rest):
                self.stores[self.model.training].keep(self._rows, self._unknown, hidden)
        return output


class Store:
    """Features of rows behind one another in one tensor, which is made with the first ones.

    Args:
        n_tokens: of all rows that may come; more are not taken.
    """

    def __init__(self, n_tokens: int) -> None:
        self.n_tokens = n_tokens
        self.starts: dict[bytes, int] = {}
        """Of each row, by its tokens: where its first one lies."""
        self._values = torch.empty(0)
        self._end = 0

    def keep(self, rows: Sequence[tuple[bytes, int]], unknown: set[bytes], hidden: Tensor) -> None:
        """Take the unknown rows of (rows, tokens, width)."""
        if not len(self._values):
            try:
                self._values = hidden.new_empty(self.n_tokens + 1, hidden.shape[-1])
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                return  # the run goes on, with a whole pass for every batch
            self._values[-1] = 0  # stands for padding
        for (key, n), row in zip(rows, hidden.detach(), strict=True):
            if key in unknown and (key in self.starts or self._end + n <= self.n_tokens):
                start = self.starts.setdefault(key, self._end)
                self._end = max(self._end, start + n)
                self._values[start : start + n] = row[:n]

    def padded(self, rows: Sequence[tuple[bytes, int]], n_columns: int) -> Tensor:
        """(rows, columns, width), 0 where a row is over."""
        index = torch.full((len(rows), n_columns), self.n_tokens)
        for at, (key, n) in enumerate(rows):
            index[at, :n] = torch.arange(self.starts[key], self.starts[key] + n)
        return self._values[index.to(self._values.device)]


def rows_of(arguments: dict[str, Any]) -> list[tuple[bytes, int]]:
    """Each row's tokens, and what else the model is told of them, as bytes, and how many tokens they are.

    None at all where the model is called with anything but rows that are padded on the right.
    """
    given = {name: value for name, value in arguments.items() if value is not None}
    mask, ids = given.pop("attention_mask", None), given.get("input_ids")
    if mask is None or ids is None or not all(isinstance(each, Tensor) for each in given.values()):
        return []
    if any(each.shape != mask.shape for each in given.values()) or not bool(mask[:, 0].all()):
        return []
    columns = [given[name].cpu().numpy() for name in sorted(given)]
    lengths = mask.sum(1).tolist()
    return [(b"".join(column[at, :n].tobytes() for column in columns), n) for at, n in enumerate(lengths)]


def trunk_of(tuned: Tuned) -> list[nn.Module]:
    """The layers below the lowest place that a tuned model changes; none where it cannot be told."""
    if any(isinstance(edit, ModelEdit) for _, edit in tuned.placed()):
        return []  # code that is not ours, and may act around the model
    model, layers = tuned.backbone.model, layers_in_order(tuned.backbone)
    return layers[: n_layers_below(tuned.backbone, layers, changed_modules(model, model))]


def modules_left(model: nn.Module, top: nn.Module) -> list[nn.Module]:
    """All modules that a pass has left for good once it leaves `top`, itself among them."""
    order: list[nn.Module] = []
    handles = [
        module.register_forward_hook(lambda module, inputs, output: order.append(module)) for module in model.modules()
    ]
    try:
        send_a_token(model)
    finally:
        for handle in handles:
            handle.remove()
    last = {module: at for at, module in enumerate(order)}
    return [module for module, at in last.items() if at <= last[top]]
