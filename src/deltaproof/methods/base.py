"""A method is a frozen set of hyperparameters whose `edits` say what changes where. The config is the method."""

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, TypeVar

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.roles import ATTENTION, FFN, ROLES
from deltaproof.backbones.sites import Site
from deltaproof.errors import ConfigError
from deltaproof.methods.edits import Edit
from deltaproof.methods.peft_kinds import is_peft_type
from deltaproof.registry import Registry
from deltaproof.settings import Settings, parse_expression

METHODS: Registry[type["Method"]] = Registry("method")
M = TypeVar("M", bound="type[Method]")
LINEAR_ROLES = (*ATTENTION, *FFN)
"""Every linear map of a layer. LoRA on all of them matches full fine-tuning where LoRA on attention alone falls short
(Schulman et al., 2025, "LoRA Without Regret")."""


class Method(Settings):
    """What to train. Subclasses add fields, `edits`, and the facts below, which `deltaproof show` prints."""

    idea: ClassVar[str]
    """One sentence."""
    equation: ClassVar[str]
    paper: ClassVar[str]
    trains: ClassVar[str]
    """The number of trained parameters as a formula (the head comes on top, for every method)."""
    advice: ClassVar[str]
    """When to use it."""
    learning_rate: ClassVar[float]
    """Where the tuning grid is centred."""
    start: ClassVar[str]
    """Start values, in words."""
    where: ClassVar[str]
    """Where it attaches."""
    differences: ClassVar[str]
    """What differs from the paper, and why; `none`."""
    starts_as_base: ClassVar[bool] = True
    """Whether a fresh method leaves the model's output as it was; a method that does not says why in its docstring."""
    takes_any_rank: ClassVar[bool] = False
    """Whether a field `rank` may exceed the sides of the matrices."""
    positional: ClassVar[tuple[str, ...]] = ()
    """Fields that an expression may give without their names."""
    costless: ClassVar[tuple[str, ...]] = ()
    """Fields that change neither operations nor bytes nor `notes`, such as a factor: methods that differ in them alone
    are measured once."""

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        """Which edit goes to which site; None stands for the whole model."""
        raise NotImplementedError

    def __hash__(self) -> int:
        return hash((type(self), _frozen(vars(self))))

    @property
    def grid_centre(self) -> float:
        """The learning rate that tuning starts from."""
        return self.learning_rate

    @property
    def is_base_at_start(self) -> bool:
        """Whether these settings leave the model's output as it was; `starts_as_base` unless a setting decides."""
        return self.starts_as_base

    @property
    def measures(self) -> tuple[str, ...]:
        """What to measure of the trained model beyond scores and costs: names in `evaluation.measures.MEASURES`."""
        return ()

    @property
    def n_added_tokens(self) -> int:
        """Tokens that the method puts before the text, which take up positions of the model."""
        return 0

    def notes(self, backbone: Backbone) -> list[str]:
        """What a reader should know of this method on this model."""
        return []

    @property
    def label(self) -> str:
        """The method as one would type it: its name and the fields that differ from the defaults."""
        fields = {
            key: getattr(self, key)
            for key, field in type(self).model_fields.items()
            if getattr(self, key) != field.get_default(call_default_factory=True)
        }
        return expression(self.name, fields)

    def to_dict(self) -> dict[str, Any]:
        """Name and every field, defaults included: what a record holds and `method_from` reads."""
        return {"name": self.name, **self.model_dump(mode="json")}


def method(name: str) -> Any:
    """Register a method under `name`."""

    def enter(kind: M) -> M:
        kind.name = name
        METHODS.add(name)(kind)
        return kind

    return enter


def method_from(source: "str | dict[str, Any] | Method") -> Method:
    """A method from an expression such as `lora(rank=16)`, from a record's dict, or as it is.

    >>> method_from("lora(rank=16)").label
    'lora(rank=16)'
    """
    if isinstance(source, Method):
        return source
    if isinstance(source, dict):
        fields = dict(source)
        return _build(fields.pop("name", ""), [], fields)
    if not isinstance(source, str):
        raise ConfigError(f"a method reads `name` or `name(field=value, …)`, got {source!r}; write for example `lora`")
    return _build(*parse_expression(source))


def expression(name: str, fields: dict[str, Any]) -> str:
    """A method as one types it, which `method_from` reads back.

    >>> expression("lora", {"rank": 2, "roles": ("query",)})
    "lora(rank=2, roles=['query'])"
    """
    inside = ", ".join(f"{key}={list(value) if isinstance(value, tuple) else value!r}" for key, value in fields.items())
    return f"{name}({inside})" if inside else name


def cost_fields(fields: dict[str, Any]) -> dict[str, Any]:
    """Of a record's dict what can decide the cost of a run: all fields but the `costless` ones, inside of others too.

    >>> cost_fields({"name": "head"})
    {'name': 'head'}
    """
    name = str(fields.get("name"))
    left_out = METHODS[name].costless if name in METHODS else ()
    return {key: _cost_field(value) for key, value in fields.items() if key not in left_out}


def _cost_field(value: Any) -> Any:
    if isinstance(value, dict):
        return cost_fields(value)
    return [_cost_field(entry) for entry in value] if isinstance(value, list | tuple) else value


def _build(name: str, arguments: list[Any], fields: dict[str, Any]) -> Method:
    arguments = [_read(argument) for argument in arguments]
    fields = {key: _read(value) for key, value in fields.items()}
    if name not in METHODS and is_peft_type(name) and not arguments:
        return METHODS["peft"](**{"type": name.removeprefix("peft_"), "config": fields})
    kind = METHODS[name]
    if len(arguments) > len(kind.positional) and kind.positional != ("methods",):
        raise ConfigError(f"`{name}` takes its settings by name, got {arguments!r}; write for example `lora(rank=8)`")
    if twice := [field for field, _ in zip(kind.positional, arguments, strict=False) if field in fields]:
        raise ConfigError(f"each field may be given once, got `{twice[0]}` of `{name}` twice; leave one out")
    return kind(*arguments, **fields)


def _read(value: Any) -> Any:
    """A method where an expression holds one, inside of lists too; anything else as it is."""
    if isinstance(value, list):
        return [_read(entry) for entry in value]
    is_call = isinstance(value, tuple) and len(value) == 3 and isinstance(value[1], list) and isinstance(value[2], dict)
    return _build(*value) if is_call else value


class LinearMethod(Method):
    """A method that puts one edit on each linear layer of the chosen roles."""

    roles: tuple[str, ...] = LINEAR_ROLES
    """Roles of the layers that are changed."""
    layers: tuple[int, ...] | None = None
    """Numbers of the transformer layers that are changed, from 0; all when left out."""

    takes_roles: ClassVar[tuple[str, ...]] = (*LINEAR_ROLES, "head")
    """Roles that `roles` may name."""

    def sites(self, backbone: Backbone) -> list[Site]:
        if wrong := [role for role in self.roles if role in ROLES and role not in self.takes_roles]:
            raise ConfigError(
                f"`{self.name}` cannot change a place of role `{wrong[0]}`; name roles among "
                f"{', '.join(self.takes_roles)}"
            )
        return backbone.sites(self.roles, self.layers)


def _frozen(value: Any) -> Any:
    """A plain value as one that can be hashed: fields may hold tables and lists, such as peft's."""
    if isinstance(value, dict):
        return frozenset((key, _frozen(entry)) for key, entry in value.items())
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


def parameter_names(backbone: Backbone, sites: Iterable[Site]) -> list[str]:
    """Names of the parameters that the sites' modules own, each once, in the order of the sites."""
    names = [
        f"{site.path}.{name}" for site in sites for name, _ in backbone.module(site).named_parameters(recurse=False)
    ]
    return list(dict.fromkeys(names))
