"""The checkpoint that is kept: the best on validation, the earliest of equals."""

from typing import Any

import torch
from torch import Tensor, nn

from deltaproof.metrics import METRICS


class Best:
    """The best values so far by one metric, and how many evaluations ago they were seen."""

    def __init__(self, metric: str, patience: int | None) -> None:
        self.metric, self.patience = METRICS[metric], patience
        self.scores: dict[str, float] = {}
        self.values: dict[str, Tensor] = {}
        self.evaluations_since = 0

    def see(self, scores: dict[str, float], trained: dict[str, nn.Parameter]) -> None:
        """Keep a copy of the trained parameters if they score better than any before."""
        sign = 1 if self.metric.higher_is_better else -1
        if not self.scores or sign * scores[self.metric.name] > sign * self.scores[self.metric.name]:
            self.scores, self.evaluations_since = scores, 0
            self.values = {name: _held(parameter).detach().to("cpu", copy=True) for name, parameter in trained.items()}
        else:
            self.evaluations_since += 1

    @property
    def is_patience_over(self) -> bool:
        return self.patience is not None and self.evaluations_since >= self.patience

    @torch.no_grad()
    def put_back(self, trained: dict[str, nn.Parameter]) -> None:
        """Give the trained parameters the values of the best checkpoint, if there was any."""
        for name, value in self.values.items():
            _held(trained[name]).copy_(value)


def _held(parameter: Any) -> Tensor:
    """What this process holds of a parameter: all of it, or its share where several train one model."""
    found: Tensor = parameter.to_local() if hasattr(parameter, "to_local") else parameter
    return found
