"""Every method of the installed `peft` as a contestant, as it is."""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site
from deltaproof.errors import ConfigError, nearest
from deltaproof.methods.base import LINEAR_ROLES, Method, method
from deltaproof.methods.edits import Edit, ModelEdit

LEARNING_RATES = {
    "prompt_tuning": 1e-2, "p_tuning": 1e-3, "prefix_tuning": 5e-3, "ia3": 1e-2, "ln_tuning": 2e-3, "vera": 5e-3, "pvera": 5e-3,
    "c3a": 1e-1, "fourierft": 1e-2, "waveft": 1e-2, "osf": 1e-4, "trainable_tokens": 1e-2, "vblora": 5e-3, "road": 3e-3,
}  # fmt: skip
"""Where the tuning grid is centred; 1e-3 for the rest. Starting points from peft's own comparison and examples: the grid
moves on from them."""


def _config_kinds() -> dict[str, type]:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return {str(kind.value).lower(): config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}


def is_peft_type(name: str) -> bool:
    """Whether the installed `peft` has a method of this name, such as `vera` or `prefix_tuning`."""
    return name in _config_kinds()


def peft_types() -> list[str]:
    """Names of every method of the installed `peft`."""
    return sorted(_config_kinds())


def config_kind(name: str) -> Any:
    """The configuration class of one of peft's methods."""
    return _config_kinds()[name]


class PeftEdit(ModelEdit):
    """The model wrapped by `peft.get_peft_model`."""

    mergeable = True

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config = config
        self._seed = 0
        self._wrapped: list[Any] = []  # in a list, so that the edit does not own the model's parameters
        self.mergeable = not (config.is_prompt_learning or config.is_adaption_prompt)  # type: ignore[misc]

    def start(self, weight: torch.Tensor | None, generator: torch.Generator) -> None:
        self._seed = int(torch.randint(2**31, (1,), generator=generator))

    def wrap(self, model: nn.Module, head: tuple[str, ...]) -> nn.Module:
        import peft

        with torch.random.fork_rng():
            torch.manual_seed(self._seed)
            wrapped = peft.get_peft_model(model, self.config)
        for name, parameter in wrapped.named_parameters():
            if any(f"{path}.modules_to_save" in name for path in head):
                parameter.requires_grad_(True)
        self._wrapped.append(wrapped)
        return wrapped

    def begin(self, n_steps: int) -> None:
        model = self._wrapped[0].base_model
        if hasattr(model, "rankallocator"):
            config = model.peft_config["default"]
            config.total_step = n_steps
            config.tinit, config.tfinal = min(config.tinit, n_steps // 10), min(config.tfinal, n_steps // 3)
            model.rankallocator.set_total_step(n_steps)

    def after_step(self, step: int) -> None:
        allocate = getattr(self._wrapped[0].base_model, "update_and_allocate", None)
        if allocate is not None:
            allocate(step)

    def merge(self) -> nn.Module:
        return self._wrapped.pop().merge_and_unload()

    def unwrap(self) -> nn.Module:
        return self._wrapped.pop().unload()


@method("peft")
class Peft(Method):
    """Any method of the installed `peft`: `peft(type='vera', config={'r': 64})`, `vera(r=64)`, or `Peft(VeraConfig(r=64))`."""

    idea = "Any method of the installed `peft`, with its own code, start values and defaults."
    equation = "that of the method named by `type`"
    paper = "Mangrulkar et al., 2022, github.com/huggingface/peft"
    trains = "as the method of that name"
    advice = "For what is not built in; `deltaproof list methods` names them all."
    learning_rate = 1e-3
    starts_as_base = False  # true of most, but not of all that peft has

    type: str
    """Name of peft's method in lower case, such as `vera`."""
    config: dict[str, Any] = {}
    """Fields of its configuration."""

    def __init__(self, peft_config: Any = None, /, **fields: Any) -> None:
        if peft_config is not None:
            given = peft_config.to_dict()
            plain = type(peft_config)().to_dict() if _default_works(type(peft_config)) else {}
            fields["type"] = str(given.pop("peft_type").value).lower()
            fields["config"] = {
                key: sorted(value) if isinstance(value, set) else value
                for key, value in given.items()
                if key not in _OURS and (key not in plain or value != plain[key])
            }
        super().__init__(**fields)
        self.peft_config()

    @property
    def label(self) -> str:
        inside = ", ".join(f"{key}={value!r}" for key, value in self.config.items())
        own = self.type if self.type not in _built_in() else f"peft_{self.type}"
        return f"{own}({inside})" if inside else own

    @property
    def grid_centre(self) -> float:
        return LEARNING_RATES.get(self.type, self.learning_rate)

    def peft_config(self, **defaults: Any) -> Any:
        """The configuration object; what the user set wins over `defaults`."""
        kinds = _config_kinds()
        if self.type not in kinds:
            raise ConfigError(f"the installed `peft` has no method `{self.type}`; {nearest(self.type, kinds)}")
        kind = kinds[self.type]
        fields = kind.__dataclass_fields__  # type: ignore[attr-defined]
        for key in self.config:
            if key not in fields:
                raise ConfigError(f"peft's `{self.type}` has no field `{key}`; {nearest(key, fields)}")
        known = {key: value for key, value in defaults.items() if key in fields}
        try:
            return kind(**{**known, **self.config})
        except (TypeError, ValueError) as error:
            raise ConfigError(f"peft refuses `{self.label}`: {error}; change the field it names") from None

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        from peft.utils.constants import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as KNOWN_TARGETS

        defaults: dict[str, Any] = {"task_type": "SEQ_CLS", "modules_to_save": list(backbone.head)}
        if self.type == "adalora":
            defaults["total_step"] = 1_000_000  # the loop sets the true number before the first step
        if self.type in ("prompt_tuning", "p_tuning", "prefix_tuning"):
            defaults["num_virtual_tokens"] = 20
        if backbone.model.config.model_type not in KNOWN_TARGETS:
            defaults["target_modules"] = sorted({site.path for site in backbone.sites(LINEAR_ROLES)})
        yield None, PeftEdit(self.peft_config(**defaults))


_OURS = ("task_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode", "modules_to_save")


def _built_in() -> set[str]:
    from deltaproof.methods.base import METHODS

    return set(METHODS)


def _default_works(kind: Any) -> bool:
    try:
        kind()
    except (TypeError, ValueError):
        return False
    return True
