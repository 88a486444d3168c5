"""Settings: frozen, typed, with errors that name the nearest key; written as TOML or as an expression."""

import ast
from typing import Any, ClassVar, Self

import pydantic

from deltaproof.errors import ConfigError, nearest


class Settings(pydantic.BaseModel):
    """A frozen group of typed fields. An unknown key is an error that suggests the near name."""

    model_config = pydantic.ConfigDict(
        frozen=True, extra="forbid", strict=False, protected_namespaces=(), use_attribute_docstrings=True
    )
    name: ClassVar[str] = ""

    def __init__(self, /, **fields: Any) -> None:
        try:
            super().__init__(**fields)
        except pydantic.ValidationError as error:
            raise ConfigError(_explain(type(self), error)) from None

    def replace(self, **fields: Any) -> Self:
        """A copy with some fields changed, checked like a new one."""
        return type(self)(**{**{key: getattr(self, key) for key in self.model_fields_set}, **fields})


def _explain(kind: type[Settings], error: pydantic.ValidationError) -> str:
    owner = kind.name or kind.__name__
    lines = []
    for problem in error.errors():
        field = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"`{owner}` has no field `{field}`; {nearest(field, kind.model_fields)}")
        elif problem["type"] == "value_error":
            lines.append(f"`{owner}{'.' + field if field else ''}`: {problem['ctx']['error']}")
        else:
            lines.append(f"`{owner}.{field}`: {problem['msg'].lower()}, got {problem['input']!r}")
    return "; ".join(lines)


def parse_expression(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """Read `lora(rank=8)` or `together(lora, head)` as (name, positional arguments, fields); nothing is evaluated.

    A positional argument that is itself a name or call comes back as such a triple; anything else is a literal.

    >>> parse_expression("lora(rank=8, roles=['query'])")
    ('lora', [], {'rank': 8, 'roles': ['query']})
    >>> parse_expression("together(lora(rank=2), head)")
    ('together', [('lora', [], {'rank': 2}), ('head', [], {})], {})
    """
    try:
        return _call(ast.parse(text.strip(), mode="eval").body)
    except (SyntaxError, ValueError):
        raise ConfigError(
            f"a method reads `name` or `name(field=value, …)`, got `{text}`; write for example `lora(rank=8)`"
        ) from None


def _call(node: ast.expr) -> tuple[str, list[Any], dict[str, Any]]:
    if isinstance(node, ast.Name):
        return node.id, [], {}
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise ValueError(node)
    fields = {}
    for keyword in node.keywords:
        if keyword.arg is None:
            raise ValueError(node)
        fields[keyword.arg] = _value(keyword.value)
    return node.func.id, [_value(argument) for argument in node.args], fields


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Call):
        return _call(node)
    if isinstance(node, ast.Name) and node.id in ("true", "false"):
        return node.id == "true"
    if isinstance(node, ast.Name):
        return node.id, [], {}
    return ast.literal_eval(node)


def split_expressions(text: str) -> list[str]:
    """Split a comma-separated list of expressions, leaving commas inside brackets alone.

    >>> split_expressions("full, lora(rank=8, alpha=16), head")
    ['full', 'lora(rank=8, alpha=16)', 'head']
    """
    parts, depth, start = [], 0, 0
    for position, letter in enumerate(text):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [part.strip() for part in [*parts, text[start:]] if part.strip()]
