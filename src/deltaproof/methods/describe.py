"""What can be said of a method, read off its class: for `deltaproof show` and the reference pages."""

import dataclasses
from typing import Any

from deltaproof.methods.base import METHODS
from deltaproof.methods.peft_kinds import LEARNING_RATES, config_kind, is_peft_type


def describe(name: str) -> dict[str, Any]:
    """Idea, equation, paper, formula of the trained parameters, advice and fields of one method."""
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
    return {
        "name": name,
        "idea": kind.idea,
        "equation": kind.equation,
        "trains": kind.trains,
        "paper": kind.paper,
        "advice": kind.advice,
        "learning_rate": f"tuning starts at {kind.learning_rate:g}",
        "fields": fields,
    }


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
    return {
        "name": name,
        "idea": f"{name} of the installed peft, with its own code and defaults.",
        "equation": base.equation,
        "trains": base.trains,
        "paper": base.paper,
        "advice": base.advice,
        "learning_rate": f"tuning starts at {learning_rate:g}",
        "fields": fields,
    }


def _type_name(annotation: Any) -> str:
    is_plain = isinstance(annotation, type) and not hasattr(annotation, "__args__")
    return annotation.__name__ if is_plain else str(annotation).replace("typing.", "")


def _default(field: Any) -> str:
    if field.default is not dataclasses.MISSING:
        return _shown(field.default)
    return _shown(field.default_factory()) if field.default_factory is not dataclasses.MISSING else "(to be given)"


def _shown(value: Any) -> str:
    if "Undefined" in type(value).__name__:
        return "(to be given)"
    return repr(list(value) if isinstance(value, tuple) else value)
