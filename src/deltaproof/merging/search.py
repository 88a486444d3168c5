"""Weights of a merge, chosen by what they score: no gradient, few evaluations, the same answer each time."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

Weights = tuple[float, ...]


@dataclass(frozen=True)
class Tried:
    """One evaluation."""

    weights: Weights
    value: float
    """The objective; larger is better."""
    loss: float
    """What decides between equal values; smaller is better."""

    @property
    def rank(self) -> tuple[float, float]:
        return self.value, -self.loss

    def to_json(self) -> dict[str, Any]:
        return {"weights": list(self.weights), "value": self.value, "loss": self.loss}


Evaluate = Callable[[Weights], Tried]
SCALES = (1.0, 0.5, 0.3, 0.7, 0.2, 1.3)
"""Of the experts' sum, tried before any weight is moved alone (Ilharco et al., 2022, arXiv:2212.04089, tune one such
scale); a rule that divides by the sum of the weights does not tell them apart."""
FIRST_STEP, LEAST_STEP = 0.2, 0.05
LORAHUB_BOUND, LORAHUB_PRICE = 1.5, 0.05
"""Of a weight, and of the mean of the weights' sizes in the loss. Source: Huang et al., 2023, arXiv:2307.13269
(LoraHub), sec. 3 and its released code."""


class _Memory:
    """Evaluates each setting once, up to a budget."""

    def __init__(self, evaluate: Evaluate, budget: int, known: Sequence[Tried]) -> None:
        self._evaluate, self._budget = evaluate, budget
        self._known = {one.weights: one for one in known}
        self.tried: list[Tried] = []

    @property
    def is_spent(self) -> bool:
        return len(self.tried) >= self._budget

    def ask(self, weights: Sequence[float]) -> Tried:
        key = tuple(round(float(weight), 4) + 0.0 for weight in weights)
        if (found := next((one for one in self.tried if one.weights == key), None)) is not None:
            return found
        found = self._known[key] if key in self._known else self._evaluate(key)
        self.tried.append(found)
        return found

    @property
    def best(self) -> Tried:
        return max(self.tried, key=lambda one: one.rank)


def coordinate_search(
    evaluate: Evaluate, n_experts: int, budget: int, scales: bool = True, known: Sequence[Tried] = ()
) -> list[Tried]:
    """A common scale first, then each weight up and down, with steps that halve where none helps.

    Args:
        evaluate: asked for each setting once.
        budget: most evaluations.
        scales: False where the rule divides by the sum of the weights.
        known: evaluations of an earlier call, which are not repeated.
    Returns:
        every evaluation in its order; the best is `max` by `rank`.
    """
    memory = _Memory(evaluate, budget, known)
    for scale in SCALES if scales else (1.0 / n_experts,):
        if memory.is_spent:
            return memory.tried
        memory.ask([scale] * n_experts)
    step = FIRST_STEP
    while step >= LEAST_STEP and not memory.is_spent:
        start = memory.best
        for at in range(n_experts):
            for sign in (1.0, -1.0):
                if memory.is_spent:
                    return memory.tried
                moved = list(memory.best.weights)
                moved[at] += sign * step
                if abs(sum(moved)) > 1e-6 or scales:
                    memory.ask(moved)
        if memory.best is start:
            step /= 2
    return memory.tried


def bounded_search(
    evaluate: Evaluate, n_experts: int, budget: int, bound: float = LORAHUB_BOUND, known: Sequence[Tried] = ()
) -> list[Tried]:
    """From all weights at 0 within -bound … bound, by linear models of the objective (COBYLA of scipy).

    What LoraHub asks of nevergrad, without that package: no gradient, bounds, tens of evaluations.

    Source: Powell, 1994, doi:10.1007/978-94-015-8330-5_4 (COBYLA); Huang et al., 2023, arXiv:2307.13269 (the task).
    """
    from scipy.optimize import minimize

    memory = _Memory(evaluate, budget, known)

    def objective(weights: np.ndarray) -> float:
        if memory.is_spent:
            raise _Spent
        return -memory.ask(np.clip(weights, -bound, bound).tolist()).value

    with suppress(_Spent):
        minimize(
            objective, np.zeros(n_experts), method="COBYLA", bounds=[(-bound, bound)] * n_experts, tol=0.01,
            options={"rhobeg": 0.5, "maxiter": budget},
        )  # fmt: skip
    return memory.tried


class _Spent(Exception):  # noqa: N818 - it ends a search, and is no error
    pass
