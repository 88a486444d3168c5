"""A gate: one question about what is to be shipped, with the number that answers it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Gate:
    """One question, its number and its threshold."""

    name: str
    number: float | None
    """What was measured; None where the question could not be asked."""
    threshold: float | None
    at_least: bool
    """Whether the number must reach the threshold; otherwise it must not pass it."""
    unit: str
    """What the number counts."""
    holds: bool | None
    """None: the question does not arise here, the reason says why."""
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def at_most(name: str, number: float, threshold: float, unit: str, reason: str = "") -> Gate:
    """A gate whose number must not pass the threshold; nan does not hold."""
    return Gate(name, number, threshold, False, unit, number <= threshold, reason)


def at_least(name: str, number: float, threshold: float, unit: str, reason: str = "") -> Gate:
    """A gate whose number must reach the threshold."""
    return Gate(name, number, threshold, True, unit, number >= threshold, reason)


def not_asked(name: str, reason: str) -> Gate:
    """A question that does not arise."""
    return Gate(name, None, None, False, "", None, reason)


def failed(name: str, reason: str) -> Gate:
    """A question that has no answer because something before it is broken."""
    return Gate(name, None, None, False, "", False, reason)


def all_hold(gates: Sequence[Gate]) -> bool:
    """Whether none of them fails; at least one must have been asked."""
    return any(gate.holds for gate in gates) and all(gate.holds is not False for gate in gates)


def gates_text(gates: Sequence[Gate]) -> str:
    """One line per gate: a mark, the name, the number beside its threshold, the reason."""
    width = max(len(gate.name) for gate in gates)
    lines = []
    for gate in gates:
        mark = {True: "ok  ", False: "FAIL", None: "–   "}[gate.holds]
        said = [_measured(gate)] if gate.number is not None else []
        said += [gate.reason] if gate.reason else []
        lines.append(f"{mark}  {gate.name.ljust(width)}  {'; '.join(said)}".rstrip())
    asked = [gate for gate in gates if gate.holds is not None]
    n_failed = sum(not gate.holds for gate in asked)
    n_left = len(gates) - len(asked)
    end = f"{len(asked) - n_failed} of {len(asked)} gates hold" + (f", {n_left} do not arise" if n_left else "")
    return "\n".join([*lines, "", end])


def _measured(gate: Gate) -> str:
    assert gate.number is not None, "asked for gates with a number"
    assert gate.threshold is not None, "a number has a threshold"
    return f"{gate.number:.3g} {gate.unit} ({'at least' if gate.at_least else 'at most'} {gate.threshold:.3g})"
