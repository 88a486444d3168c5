"""A pretrained model ready to be tuned: the model, its tokenizer, and where its parts are."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from deltaproof.backbones.roles import ROLES
from deltaproof.backbones.sites import Site
from deltaproof.errors import ConfigError, nearest


@dataclass
class Backbone:
    """A sequence classifier in fp32 with its tokenizer, and its sites by role."""

    model: nn.Module
    tokenizer: Any
    family: str
    """The `model_type` of the configuration, such as `bert`."""
    head: tuple[str, ...]
    """Paths of the modules that every method trains: what the checkpoint lacked, or its classifier where it had one."""
    n_layers: int
    name: str
    """As the user gave it."""
    revision: str
    """The commit on the hub; empty for a folder."""
    fingerprint: str
    """Sixteen hexadecimal digits of SHA-256 over configuration and weights as they were read."""
    max_length: int
    """Most tokens that model and tokenizer take."""
    separates_pairs: bool
    """Whether the tokenizer puts anything between the two texts of a pair (GPT-2's does not)."""
    all_sites: tuple[Site, ...]
    unreachable: dict[str, str] = field(default_factory=dict)
    """Roles that the model has but no site can stand for, with the reason."""
    hidden_sites: tuple[Site, ...] = ()
    """Sites that the model has, but that a method around the asking one keeps from it."""
    brings_head: bool = False
    """Whether the checkpoint is a classifier for these labels, so that the head starts as its own."""
    lacked: frozenset[str] = frozenset()
    """Names of the parameters that the checkpoint did not hold: their start comes from the seed of loading."""
    notes: list[str] = field(default_factory=list)
    """What a reader of the results should know about this model."""

    def sites(self, roles: Iterable[str], layers: Iterable[int] | None = None) -> list[Site]:
        """The sites that play these roles, in the model's order; with `layers`, those of these layers only.

        Raises:
            ConfigError: a role or a layer does not exist, or nothing matches.
        """
        roles = list(roles)
        self._check_roles(roles)
        chosen = None if layers is None else self._checked_layers(layers)
        found = [site for site in self.all_sites if site.role in roles and (chosen is None or site.layer in chosen)]
        if not found:
            raise ConfigError(self._nothing_matches(roles, chosen))
        return found

    def narrowed(self, roles: Iterable[str] | None = None, layers: Iterable[int] | None = None) -> "Backbone":
        """The same model, showing its sites of these roles and layers only.

        Raises:
            ConfigError: a role or a layer does not exist, or nothing is left.
        """
        wanted = list(ROLES) if roles is None else list(roles)
        shown = tuple(self.sites(wanted, layers))
        hidden = tuple(site for site in self.all_sites if site not in shown)
        return replace(self, all_sites=shown, hidden_sites=(*self.hidden_sites, *hidden))

    def shows(self, parameter: str) -> bool:
        """Whether one of the sites owns the parameter of this name."""
        path, _, name = parameter.rpartition(".")
        owners = {path, f"{path}.{name.removesuffix('_bias')}"}  # DeBERTa keeps `q_bias` beside its maps
        return any(site.path in owners for site in self.all_sites if site.has_weight)

    @property
    def heads(self) -> tuple[int, int, int]:
        """Heads of attention, heads of its keys and values, and the width of a head."""
        config: Any = self.model.config.get_text_config()  # type: ignore[operator, union-attr]
        n_heads = int(config.num_attention_heads)
        n_key_heads = int(getattr(config, "num_key_value_heads", None) or n_heads)
        width = getattr(config, "head_dim", None) or config.hidden_size // n_heads
        return n_heads, n_key_heads, int(width)

    def module(self, site: Site | str) -> nn.Module:
        """The module at a site or path."""
        return self.model.get_submodule(site if isinstance(site, str) else site.path)

    def _check_roles(self, roles: list[str]) -> None:
        for role in roles:
            if role not in ROLES:
                raise ConfigError(f"`role` must be one that models have, got `{role}`; {nearest(role, ROLES)}")

    def _checked_layers(self, layers: Iterable[int]) -> set[int]:
        chosen = set(layers)
        for layer in chosen:
            if not 0 <= layer < self.n_layers:
                raise ConfigError(
                    f"`0 <= layer < n_layers` must hold in `{self.name}`, got layer {layer} with n_layers "
                    f"{self.n_layers}; name layers from 0 to {self.n_layers - 1}"
                )
        return chosen

    def _nothing_matches(self, roles: list[str], layers: set[int] | None) -> str:
        if hidden := [site for site in self.hidden_sites if site.role in roles]:
            return self._kept_from([site for site in hidden if layers is None or site.layer in layers])
        has = [role for role in ROLES if any(site.role == role for site in self.all_sites)]
        where = "" if layers is None else f" in layers {sorted(layers)}"
        reasons = {self.unreachable[role] for role in roles if role in self.unreachable}
        because = f" ({'; '.join(sorted(reasons))})" if reasons else ""
        return (
            f"the roles must match at least one site of `{self.name}`, got none for {', '.join(roles)}{where}"
            f"{because}; this model has {', '.join(has)}"
        )

    def _kept_from(self, hidden: list[Site]) -> str:
        """Why nothing matches where the model has such sites, but not within what a method was kept to."""
        shown = {site.role for site in self.all_sites}
        needed = list(dict.fromkeys(site.role for site in hidden))
        if roles := [role for role in needed if role not in shown]:
            some = "one or more of " if len(roles) > 1 else ""
            return (
                f"the roles that a method is kept to must hold places that it uses, got {', '.join(sorted(shown))}; "
                f"name {some}{', '.join(roles)} as well"
            )
        layers = sorted({site.layer for site in self.all_sites if site.layer is not None})
        wanted = sorted({site.layer for site in hidden if site.layer is not None})
        return (
            f"the layers that a method is kept to must hold layers that it uses, got {layers}, where it uses {wanted}; "
            f"name layers that are in both"
        )
