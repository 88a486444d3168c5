"""The layers below the lowest change of any lane: computed once per batch, on the rows of one lane."""

import re
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

from torch import nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.methods.attention import send_a_token
from deltaproof.training.lanes.draws import Draws


class Trunk:
    """Stands in the place of each layer's `forward`: what several passes of a batch share is computed in the first.

    Args:
        layers: the lowest first.
        n_shared: of each lane, by its number: how many layers lie below its lowest change.
    """

    def __init__(self, layers: Sequence[nn.Module], n_shared: Sequence[int], draws: Draws) -> None:
        self.layers, self.n_shared, self.draws = layers, n_shared, draws
        self.depth = 0
        """How many layers the lanes of this pass leave to the trunk."""
        self._calls = 0
        """Of shared layers in this pass."""
        self._kept: list[tuple[Any, int]] = []
        """What each call of a shared layer put out, and how many draws lay behind it then."""
        for number, layer in enumerate(layers):
            layer.forward = _Layer(self, number, layer)

    def depth_of(self, lane: int, model: Any) -> int:
        """How many layers a lane can leave to the trunk; none where it would draw other masks there."""
        draws_alike = lane not in self.draws.alone or not (model.training and drops(model))
        return self.n_shared[lane] if draws_alike else 0

    def new_batch(self) -> None:
        """Other rows."""
        self._kept = []

    def new_pass(self, depth: int) -> None:
        """The same rows, for lanes that leave so many layers to the trunk."""
        self.depth, self._calls = depth, 0

    def through(self, number: int, layer: Any, inputs: Any, options: Any) -> Any:
        """What a layer answers."""
        rows, n_lanes = self.draws.rows, len(self.draws.here)
        if number < self.depth:
            call, self._calls = self._calls, self._calls + 1
            if call == len(self._kept):
                narrow, named = rows.narrowed((inputs, options), n_lanes)
                self._kept.append((layer(*narrow, **named), self.draws.at))
            output, self.draws.at = self._kept[call]
            return rows.widened(output, n_lanes) if number == len(self.layers) - 1 else output
        if number == self.depth and number > 0:
            inputs, options = rows.widened((inputs, options), n_lanes)
        return layer(*inputs, **options)


class _Layer:
    """A layer's `forward`, which asks the trunk."""

    def __init__(self, trunk: Trunk, number: int, layer: nn.Module) -> None:
        self.trunk, self.number, self.layer = trunk, number, layer.forward

    def __call__(self, *inputs: Any, **options: Any) -> Any:
        return self.trunk.through(self.number, self.layer, inputs, options)


def drops(model: Any) -> bool:
    """Whether the model has a dropout that is on."""
    fields = model.config.get_text_config().to_dict()
    named = (value for key, value in fields.items() if re.search(r"drop(out|_prob|$)", key))
    return any(isinstance(value, float | int) and value > 0 for value in named) or any(
        isinstance(module, nn.Dropout) and module.p > 0 for module in model.modules()
    )


def layers_in_order(backbone: Backbone) -> list[nn.Module]:
    """The transformer layers, the lowest first, each once; none where the model has no such places."""
    paths = dict.fromkeys(site.path for site in backbone.all_sites if site.role == "layer")
    return [backbone.module(path) for path in paths]


def n_layers_below(backbone: Backbone, layers: list[nn.Module], changed: Iterable[str]) -> int:
    """How many layers have been left for good before the first of the changed modules is entered."""
    calls, entering = order_of_calls(backbone.model), {(backbone.module(path), False) for path in changed}
    first = next((at for at, call in enumerate(calls) if call in entering), 0)
    return sum((layer, True) in calls[:first] and (layer, True) not in calls[first:] for layer in layers)


def order_of_calls(model: nn.Module) -> list[tuple[nn.Module, bool]]:
    """The modules in the order in which they are entered and, with True, left.

    Found by sending a token through, as no table says in which order a model calls its parts.
    """
    calls: list[tuple[nn.Module, bool]] = []
    with ExitStack() as hooks:
        for module in model.modules():
            hooks.enter_context(module.register_forward_pre_hook(lambda each, *_: calls.append((each, False))))
            hooks.enter_context(module.register_forward_hook(lambda each, *_: calls.append((each, True))))
        send_a_token(model)
    return calls
