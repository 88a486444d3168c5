"""What can be said of a method, read off its class: for `deltaproof show` and the reference pages."""

import dataclasses
import types
import typing
from typing import Any

from deltaproof.methods.base import METHODS, method_from
from deltaproof.methods.peft_kinds import LEARNING_RATES, config_kind, is_peft_type

_FACTS = ("idea", "equation", "start", "where", "trains", "differences", "paper", "advice")


def describe(text: str) -> dict[str, Any]:
    """What a method is, by its name or as an expression such as `pica(rank=16)`: idea, equation and so on, and fields.

    Each field has its name, type, default and meaning, and `value` where the expression sets it.
    """
    if "(" not in text:
        return _describe(text)
    chosen = method_from(text)
    given = getattr(chosen, "config", None) if chosen.name == "peft" else chosen.to_dict()
    facts = _describe(chosen.label.partition("(")[0])
    for field in facts["fields"]:
        value = (given or {}).get(field["name"])
        if field["name"] in (given or {}) and _shown(value) != field["default"]:
            field["value"] = _shown(_typed(value))
    return {**facts, "name": chosen.label, "learning_rate": f"tuning starts at {chosen.grid_centre:.2g}"}


def _typed(value: Any) -> Any:
    """Methods inside of a method as one types them."""
    if isinstance(value, list):
        return [_typed(entry) for entry in value]
    return method_from(value).label if isinstance(value, dict) and "name" in value else value


def _describe(name: str) -> dict[str, Any]:
    if name not in METHODS and is_peft_type(name):
        return _describe_peft(name)
    kind = METHODS[name]
    fields = [
        {
            "name": key,
            "type": _type_name(field.annotation),
            "default": _shown(field.get_default(call_default_factory=True)),
            "meaning": field.description or "",
        }
        for key, field in kind.model_fields.items()
    ]
    facts = {key: getattr(kind, key) for key in _FACTS}
    return {"name": name, **facts, "learning_rate": f"tuning starts at {kind.learning_rate:.2g}", "fields": fields}


def _describe_peft(name: str) -> dict[str, Any]:
    kind, base = config_kind(name), METHODS["peft"]
    learning_rate = LEARNING_RATES.get(name.removeprefix("peft_"), base.learning_rate)
    fields = [
        {
            "name": field.name,
            "type": _type_name(field.type),
            "default": _default(field),
            "meaning": str(field.metadata.get("help", "")),
        }
        for field in dataclasses.fields(kind)
    ]
    facts = {key: getattr(base, key) for key in _FACTS}
    facts["idea"] = f"{name} of the installed peft, with its own code and defaults."
    return {"name": name, **facts, "learning_rate": f"tuning starts at {learning_rate:.2g}", "fields": fields}


def _type_name(annotation: Any) -> str:
    """A type as one writes it, without what pydantic is told beside it."""
    origin, inside = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _type_name(inside[0])
    if origin in (typing.Union, types.UnionType):
        return " | ".join(map(_type_name, inside))
    if origin is typing.Literal:
        return " | ".join(map(repr, inside))
    if origin is not None:
        parts = ("..." if part is Ellipsis else _type_name(part) for part in inside)
        return f"{_type_name(origin)}[{', '.join(parts)}]"
    if annotation is type(None):
        return "None"
    return annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")


def _default(field: Any) -> str:
    if field.default is not dataclasses.MISSING:
        return _shown(field.default)
    return _shown(field.default_factory()) if field.default_factory is not dataclasses.MISSING else "(to be given)"


def _shown(value: Any) -> str:
    if "Undefined" in type(value).__name__:
        return "(to be given)"
    return repr(list(value) if isinstance(value, tuple) else value)
