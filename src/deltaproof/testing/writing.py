"""Checks of the contract on what one writes: a method reads back as written, and wrong settings are refused."""

import tomllib
from collections.abc import Callable, Iterator
from typing import Any

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.roles import ROLES
from deltaproof.errors import ConfigError
from deltaproof.experiments.plan import plan_from
from deltaproof.methods.base import Method, method_from
from deltaproof.methods.tuned import attach
from deltaproof.report.plan_text import plan_toml
from deltaproof.testing.bench import Bench


def it_reads_back_as_written(method: Method, bench: Bench) -> None:
    """Its label, its record, and a plan in TOML that names it parse to an equal method."""
    assert method_from(method.label) == method, f"`{method.label}` reads as another method"
    assert method_from(method.to_dict()) == method, f"{method.to_dict()} reads as another method"
    plan = plan_from({"model": "m", "data": "d.csv", "methods": [method]})
    text = plan_toml(plan.model_dump(mode="json"))
    (read,) = plan_from(tomllib.loads(text)).contestants().values()
    assert read == method, f"the plan\n{text}\nholds another method"


def wrong_settings_are_refused(method: Method, bench: Bench) -> None:
    """A value that cannot be, an unknown field, role or layer, a rank that fits no matrix: each is an error.

    The error names the field or its value, and after a semicolon the remedy, where the value itself is not one.
    """
    backbone = bench.backbone()
    message = _refusal(lambda: method_from({**method.to_dict(), "no_such_field": 1}), "an unknown field")
    assert "no_such_field" in message, f"the error does not name the field: {message}"
    for name, value in _out_of_bounds(type(method)):
        message = _refusal(lambda name=name, value=value: method.replace(**{name: value}), f"{name} = {value}")  # type: ignore[misc]
        assert name in message, f"the error does not name `{name}`: {message}"
    for fields, named in _misfits(method, backbone):
        message = _refusal(lambda fields=fields: attach(backbone, method.replace(**fields)), str(fields))  # type: ignore[misc]
        assert named in message, f"the error does not name {named}: {message}"
        assert "; " in message, f"the error gives no remedy: {message}"


def _refusal(action: Callable[[], Any], what: str) -> str:
    try:
        action()
    except ConfigError as error:
        return str(error)
    raise AssertionError(f"{what} is accepted")


def _out_of_bounds(kind: type[Method]) -> Iterator[tuple[str, Any]]:
    """For each bound of each number among the fields, a value just outside of it."""
    for name, field in kind.model_fields.items():
        for bound in field.metadata:
            for attribute, step in (("ge", -1), ("gt", 0), ("le", 1), ("lt", 0)):
                if hasattr(bound, attribute):
                    yield name, getattr(bound, attribute) + step


def _misfits(method: Method, backbone: Backbone) -> Iterator[tuple[dict[str, Any], str]]:
    """Settings that are well formed, but not for this model, each with what the error must name."""
    fields = type(method).model_fields
    if "layers" in fields:
        yield {"layers": (backbone.n_layers,)}, str(backbone.n_layers)
    if "roles" in fields:
        missing = next(role for role in ROLES if all(site.role != role for site in backbone.all_sites))
        yield {"roles": (missing,)}, missing
        yield {"roles": ("qeury",)}, "qeury"
    if "rank" in fields and not method.takes_any_rank:
        yield {"rank": 1 + max(max(site.d_in, site.d_out) for site in backbone.all_sites)}, "rank"
