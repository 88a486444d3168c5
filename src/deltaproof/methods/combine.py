"""Methods made of methods: several at once, or one kept to some layers or roles.

together(lora(rank=8), ln_tune)
on_layers(together(serial, parallel, prefix), layers=[0, 1, 4])
only(lora, roles=['query', 'value'])
"""

import math
from collections.abc import Iterator
from typing import Annotated, Any

import pydantic

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site
from deltaproof.errors import ConfigError
from deltaproof.methods.base import Method, method, method_from
from deltaproof.methods.edits import Edit, ModelEdit, Unfreeze

Inner = Annotated[
    Method, pydantic.BeforeValidator(method_from), pydantic.PlainSerializer(lambda inner: inner.to_dict())
]
"""A method as a field of another: given as an expression, as a record's table, or as it is."""


class Wrapper(Method):
    """A method around another one, `inner`."""

    inner: Inner
    """The method itself."""

    def __init__(self, inner: Any = None, /, **fields: Any) -> None:
        super().__init__(**({} if inner is None else {"inner": inner}), **fields)

    @property
    def grid_centre(self) -> float:
        return self.inner.grid_centre

    @property
    def is_base_at_start(self) -> bool:
        return self.inner.is_base_at_start

    @property
    def measures(self) -> tuple[str, ...]:
        return self.inner.measures

    @property
    def n_added_tokens(self) -> int:
        return self.inner.n_added_tokens

    def notes(self, backbone: Backbone) -> list[str]:
        return self.inner.notes(backbone)


@method("together")
class Together(Method):
    """Several methods at once, each on its own sites, all trained with one learning rate."""

    idea = "Use several methods at once."
    equation = (
        "the edits of each; changes of weights and branches at one site add up, changes of outputs follow in order"
    )
    paper = "He et al., 2022, arXiv:2110.04366 (mix-and-match adapters); Zhou et al., 2023, arXiv:2301.12132"
    trains = "the sum of theirs"
    advice = (
        "Where one method alone falls short: such as adapters for what a layer puts out beside prefixes for what it "
        "attends to. Each part costs its own time."
    )
    learning_rate = 1e-3
    start = "as each of them starts"
    where = "where each of them goes"
    differences = "none: it is the papers' own composition, but for any methods"
    positional = ("methods",)

    methods: tuple[Inner, ...] = pydantic.Field(min_length=1)
    """The methods."""

    def __init__(self, *methods: Any, **fields: Any) -> None:
        super().__init__(**({"methods": methods} if methods else {}), **fields)

    @property
    def grid_centre(self) -> float:
        """The geometric mean of theirs, which no part is further from than it must be."""
        return math.exp(sum(math.log(inner.grid_centre) for inner in self.methods) / len(self.methods))

    @property
    def is_base_at_start(self) -> bool:
        return all(inner.is_base_at_start for inner in self.methods)

    @property
    def measures(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for inner in self.methods for name in inner.measures))

    @property
    def n_added_tokens(self) -> int:
        return sum(inner.n_added_tokens for inner in self.methods)

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        placed = [pair for inner in self.methods for pair in inner.edits(backbone)]
        if sum(isinstance(edit, ModelEdit) for _, edit in placed) > 1:
            raise ConfigError(
                f"one method at most may wrap the whole model, `{self.label}` has several of peft's; keep one of them"
            )
        yield from placed

    def notes(self, backbone: Backbone) -> list[str]:
        return list(dict.fromkeys(note for inner in self.methods for note in inner.notes(backbone)))

    @property
    def label(self) -> str:
        return f"{self.name}({', '.join(inner.label for inner in self.methods)})"


@method("on_layers")
class OnLayers(Wrapper):
    """A method kept to some layers: what it would do elsewhere, it leaves."""

    idea = "Keep a method to some layers of the model."
    equation = "the inner method's edits at layers in `layers`"
    paper = "Zhou et al., 2023, arXiv:2301.12132 (which layers, as part of the configuration)"
    trains = "the inner method's formula over these layers"
    advice = "To save parameters and time (the backward pass stops at the lowest layer), or to see which layers matter."
    learning_rate = 1e-3
    start = "as the inner method starts"
    where = "the inner method's places in these layers; what stands outside of layers, such as the last norm, is left"
    differences = "none"
    positional = ("inner", "layers")

    layers: tuple[int, ...] = pydantic.Field(min_length=1)
    """Numbers of the layers, from 0."""

    def __init__(self, inner: Any = None, layers: Any = None, /, **fields: Any) -> None:
        super().__init__(inner, **({} if layers is None else {"layers": layers}), **fields)

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        yield from _kept(self, self.inner, backbone.narrowed(layers=self.layers))

    @property
    def label(self) -> str:
        return f"{self.name}({self.inner.label}, {list(self.layers)})"


@method("only")
class Only(Wrapper):
    """A method kept to sites of some roles: what it would do elsewhere, it leaves."""

    idea = "Keep a method to some roles, such as queries and values."
    equation = "the inner method's edits at roles in `roles`"
    paper = "Hu et al., 2021, arXiv:2106.09685, sec. 7.1 (which weights to adapt)"
    trains = "the inner method's formula over these roles"
    advice = "For methods without `roles` of their own, or around several at once."
    learning_rate = 1e-3
    start = "as the inner method starts"
    where = "the inner method's places of these roles"
    differences = "none"
    positional = ("inner", "roles")

    roles: tuple[str, ...] = pydantic.Field(min_length=1)
    """The roles."""

    def __init__(self, inner: Any = None, roles: Any = None, /, **fields: Any) -> None:
        super().__init__(inner, **({} if roles is None else {"roles": roles}), **fields)

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        yield from _kept(self, self.inner, backbone.narrowed(roles=self.roles))

    @property
    def label(self) -> str:
        return f"{self.name}({self.inner.label}, {list(self.roles)})"


def _explained(outer: Method, inner: Method, narrow: Backbone) -> list[tuple[Site | None, Edit]]:
    """The inner method's edits; what it finds wrong is said of the whole expression."""
    try:
        return list(inner.edits(narrow))
    except ConfigError as error:
        raise ConfigError(f"`{outer.label}`: {error}") from None


def _kept(outer: Method, inner: Method, narrow: Backbone) -> Iterator[tuple[Site | None, Edit]]:
    """The inner method's edits on a model that shows some of its sites only."""
    found = False
    for site, edit in _explained(outer, inner, narrow):
        if site is None and not isinstance(edit, Unfreeze):
            raise ConfigError(
                f"`{outer.name}` keeps edits of single sites apart, `{inner.label}` changes the model as a whole; "
                f"use that method's own fields, such as `target_modules`"
            )
        if isinstance(edit, Unfreeze):
            edit = Unfreeze(name for name in edit.names if narrow.shows(name))
            if not edit.names:
                continue
        found = True
        yield site, edit
    if not found:
        raise ConfigError(
            f"`{outer.name}` must leave something of `{inner.label}`, got nothing in `{narrow.name}`; name other "
            f"layers or roles"
        )
