"""Gates: requirements such as `lora.accuracy >= full.accuracy - 0.01`, checked on the measured means."""

import ast
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deltaproof.errors import ConfigError, nearest
from deltaproof.experiments.row import Row

COMPARISONS = {ast.GtE: ">=", ast.LtE: "<=", ast.Gt: ">", ast.Lt: "<"}
OPERATIONS: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


@dataclass(frozen=True)
class Gate:
    """A requirement and how it came out."""

    text: str
    left: float | None
    right: float | None
    holds: bool
    reason: str = ""
    """Why it could not be checked, where it could not."""


def parse_gate(text: str) -> ast.Compare:
    """Read a gate; raises a ConfigError that shows the form when it is not one."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except SyntaxError:
        node = None
    if not (isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARISONS):
        raise ConfigError(
            f"a requirement reads `lora.accuracy >= full.accuracy - 0.01`, got `{text}`; write it in that form"
        )
    for part in (node.left, node.comparators[0]):
        _names(part, text)
    return node


def gate_names(text: str) -> set[tuple[str, str]]:
    """The (contestant, quantity) pairs that a gate speaks of."""
    node = parse_gate(text)
    return _names(node.left, text) | _names(node.comparators[0], text)


def _names(node: ast.expr, text: str) -> set[tuple[str, str]]:
    if isinstance(node, ast.Attribute):
        return {(_contestant(node.value), node.attr)}
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float):
        return set()
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return _names(node.operand, text)
    if isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        return _names(node.left, text) | _names(node.right, text)
    raise ConfigError(
        f"a requirement may use contestant.quantity, numbers, + - * /, got `{ast.unparse(node)}` in `{text}`; "
        f"rewrite it"
    )


def _contestant(node: ast.expr) -> str:
    return ast.unparse(node).replace(" ", "")


def check_gates(texts: Sequence[str], rows: Sequence[Row], baselines: Sequence[Row]) -> list[Gate]:
    """Every gate with its two sides. What cannot be checked, because a run is missing, does not hold."""
    values: dict[tuple[str, str], float] = {}
    for row in (*rows, *baselines):
        name = row.name.replace(" ", "")
        values |= {(name, metric): interval.mean for metric, interval in row.scores.items()}
        values |= {(name, key): value for key, value in row.cost.items() if value is not None}
    return [_check(text, values) for text in texts]


def _check(text: str, values: dict[tuple[str, str], float]) -> Gate:
    node = parse_gate(text)
    missing = [pair for pair in sorted(gate_names(text)) if pair not in values]
    if missing:
        name, quantity = missing[0]
        known = [key for owner, key in values if owner == name]
        hint = nearest(quantity, known) if known else nearest(name, {owner for owner, _ in values})
        return Gate(text, None, None, False, f"`{name}.{quantity}` was not measured; {hint}")
    try:
        left, right = _value(node.left, values), _value(node.comparators[0], values)
    except ZeroDivisionError:
        return Gate(text, None, None, False, "it divides by zero")
    holds = {">=": left >= right, "<=": left <= right, ">": left > right, "<": left < right}
    return Gate(text, left, right, holds[COMPARISONS[type(node.ops[0])]])


def _value(node: ast.expr, values: dict[tuple[str, str], float]) -> float:
    if isinstance(node, ast.Attribute):
        return values[_contestant(node.value), node.attr]
    if isinstance(node, ast.UnaryOp):
        return -_value(node.operand, values)
    if isinstance(node, ast.BinOp):
        return OPERATIONS[type(node.op)](_value(node.left, values), _value(node.right, values))
    assert isinstance(node, ast.Constant), "parse_gate lets nothing else through"
    return float(node.value)  # type: ignore[arg-type]
