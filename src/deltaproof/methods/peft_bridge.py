"""Every method of the installed `peft` as a contestant, as it is."""

import ast
import enum
from collections.abc import Iterator
from typing import Any

import pydantic

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site
from deltaproof.errors import ConfigError, nearest
from deltaproof.methods.base import LINEAR_ROLES, METHODS, Method, expression, method
from deltaproof.methods.edits import Edit
from deltaproof.methods.peft_edit import PeftEdit
from deltaproof.methods.peft_kinds import (
    LEARNING_RATES,
    REFUSED,
    config_kind,
    config_kinds,
    is_peft_type,
    known_targets,
    peft_types,
)

__all__ = ["LEARNING_RATES", "Peft", "PeftEdit", "check_room", "config_kind", "is_peft_type", "peft_types"]

_OURS = ("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode")
"""Fields of peft's configurations that the experiment sets."""
_STANDINS: dict[str, dict[str, Any]] = {
    "adalora": {"total_step": 1_000_000},  # the loop sets the true number before the first step
    "prompt_tuning": {"num_virtual_tokens": 20},
    "p_tuning": {"num_virtual_tokens": 20},
    "prefix_tuning": {"num_virtual_tokens": 20},
}
"""Values for what peft wants to be given: the number of prompts that its own examples use."""
_NEEDED = {"trainable_tokens": ("token_indices", "target_modules")}
_ROLES = {"ln_tuning": ("norm",), "ia3": ("key", "value", "ffn_out"), "beft": ("value",)}


@method("peft")
class Peft(Method):
    """Any method of the installed `peft`: `loha(r=8)`, or in Python `Peft(LoHaConfig(r=8))`.

    One that shares its name with a method of ours is called `peft_lora`, `peft_ia3`.
    """

    idea = "Any method of the installed `peft`, with its own code, start values and defaults."
    equation = "that of the method named by `type`"
    paper = "Mangrulkar et al., 2022, github.com/huggingface/peft"
    trains = "as the method of that name"
    advice = "For what is not built in; `deltaproof list methods` names them all."
    learning_rate = 1e-3
    start = "peft's own"
    where = "peft's own choice for the model, or all linear layers where it has none"
    differences = "whatever peft's code does"
    starts_as_base = False  # true of most, but not of all that peft has

    type: str
    """Name of peft's method in lower case, such as `loha`."""
    config: dict[str, Any] = pydantic.Field(default_factory=dict)
    """Fields of its configuration."""

    def __init__(self, peft_config: Any = None, /, **fields: Any) -> None:
        if peft_config is not None:
            fields = {"type": str(peft_config.peft_type.value).lower(), "config": _fields_set(peft_config), **fields}
        super().__init__(**fields)
        self.peft_config()

    @property
    def label(self) -> str:
        return expression(f"peft_{self.type}" if self.type in METHODS else self.type, self.config)

    @property
    def grid_centre(self) -> float:
        return LEARNING_RATES.get(self.type, self.learning_rate)

    @property
    def n_added_tokens(self) -> int:
        return int(getattr(self.peft_config(), "num_virtual_tokens", None) or 0)

    def peft_config(self, **defaults: Any) -> Any:
        """The configuration object; what the user set wins over `defaults`."""
        if self.type not in config_kinds():
            raise ConfigError(f"the installed `peft` has no method `{self.type}`; {nearest(self.type, peft_types())}")
        if self.type in REFUSED:
            raise ConfigError(
                f"a contestant must learn one task by itself, `{self.type}` does not: {REFUSED[self.type]}; "
                f"choose another method, such as `vera`"
            )
        kind = config_kind(self.type)
        known = kind.__dataclass_fields__
        for key in self.config:
            if key not in known:
                raise ConfigError(f"peft's `{self.type}` has no field `{key}`; {nearest(key, known)}")
        fields = {**_STANDINS.get(self.type, {}), **defaults, **self.config}
        for key in _NEEDED.get(self.type, ()):
            if not fields.get(key):
                raise ConfigError(f"`{self.type}` must be told its `{key}`, got none; write `{self.type}({key}=…)`")
        try:
            return kind(**{key: value for key, value in fields.items() if key in known})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"peft refuses `{self.label}`: {error}; change the field it names") from None

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        check_room(self, 1, backbone.max_length)
        defaults = {"task_type": "SEQ_CLS", **self._targets(backbone)}
        config = self.peft_config(**defaults)
        if hasattr(config, "modules_to_save"):
            config.modules_to_save = list(dict.fromkeys([*backbone.head, *(config.modules_to_save or ())]))
        yield None, PeftEdit(self.label, config, given=self.config)

    def _targets(self, backbone: Backbone) -> dict[str, Any]:
        """Which modules to change, by our roles, on a model for which peft has no choice of its own."""
        known = known_targets(self.type)
        if known is None or backbone.family in known:
            return {}
        sites = backbone.sites(_ROLES.get(self.type, LINEAR_ROLES))
        sites = [site for site in sites if not site.path.startswith(backbone.head)]
        targets = {"target_modules": sorted({site.path for site in sites})}
        if self.type == "ia3":
            targets["feedforward_modules"] = sorted({site.path for site in sites if site.role == "ffn_out"})
        return targets


def check_room(method: Method, n_tokens: int, max_length: int) -> None:
    """Refuse prompts that leave a text of `n_tokens` no room among the model's positions; 0 of them: not known."""
    if method.n_added_tokens and max_length and n_tokens + method.n_added_tokens > max_length:
        raise ConfigError(
            f"`tokens of the text + num_virtual_tokens <= {max_length}`, the most that the model takes, must hold for "
            f"`{method.label}`, got {n_tokens} + {method.n_added_tokens}; lower `num_virtual_tokens`, or `max_length`"
        )


def _fields_set(config: Any) -> dict[str, Any]:
    """The fields of a configuration object that differ from its class's defaults, as plain values."""
    plain = _defaults(type(config))
    given = {key: value for key, value in config.to_dict().items() if key not in (*_OURS, "peft_type")}
    return {key: _plain(value) for key, value in given.items() if key not in plain or value != plain[key]}


def _defaults(kind: Any) -> dict[str, Any]:
    """What a configuration says when nothing is set, but for the fields that have to be."""
    name = next(name for name, of in config_kinds().items() if of is kind)
    standins = _STANDINS.get(name, {})
    defaults: dict[str, Any] = kind(**standins).to_dict()
    return {key: value for key, value in defaults.items() if key not in standins}


def _plain(value: Any) -> Any:
    value = sorted(value) if isinstance(value, set) else value.value if isinstance(value, enum.Enum) else value
    try:
        ast.literal_eval(repr(value))
    except (ValueError, SyntaxError):
        raise ConfigError(
            f"a plan can hold plain values only, got {value!r} in peft's configuration; leave that field at its default"
        ) from None
    return value
