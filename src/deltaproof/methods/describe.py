"""What can be said of a method, read off its class: for `deltaproof show` and the reference pages."""

import dataclasses
from typing import Any

from deltaproof.methods.base import METHODS
from deltaproof.methods.peft_bridge import LEARNING_RATES, config_kind, is_peft_type


def describe(name: str) -> dict[str, Any]:
    """Idea, equation, paper, formula of the trained parameters, advice and fields of one method."""
    if name not in METHODS and is_peft_type(name):
        return _describe_peft(name)
    kind = METHODS[name]
    fields = [
        {
            "name": key,
            "type": str(field.annotation).replace("typing.", "") if not isinstance(field.annotation, type) else field.annotation.__name__,
            "default": _shown(field.get_default(call_default_factory=True)),
            "meaning": field.description or "",
        }
        for key, field in kind.model_fields.items()
    ]
    return {
        "name": name, "idea": kind.idea, "equation": kind.equation, "trains": kind.trains, "paper": kind.paper, "advice": kind.advice,
        "learning_rate": f"tuning starts at {kind.learning_rate:g}", "fields": fields,
    }  # fmt: skip


def _describe_peft(name: str) -> dict[str, Any]:
    kind, base = config_kind(name), METHODS["peft"]
    fields = [
        {"name": field.name, "type": str(field.type), "default": _default(field), "meaning": str(field.metadata.get("help", ""))}
        for field in dataclasses.fields(kind)
    ]
    return {
        "name": name, "idea": f"{name} of the installed peft, with its own code and defaults.", "equation": base.equation,
        "trains": base.trains, "paper": base.paper, "advice": base.advice,
        "learning_rate": f"tuning starts at {LEARNING_RATES.get(name, base.learning_rate):g}", "fields": fields,
    }  # fmt: skip


def _default(field: Any) -> str:
    if field.default is not dataclasses.MISSING:
        return _shown(field.default)
    return _shown(field.default_factory()) if field.default_factory is not dataclasses.MISSING else "(to be given)"


def _shown(value: Any) -> str:
    return "(to be given)" if "Undefined" in type(value).__name__ else repr(list(value) if isinstance(value, tuple) else value)
