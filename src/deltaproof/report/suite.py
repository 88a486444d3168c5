"""A suite as its page reads it: `suite.json` alone, with the numbers that stand in several places."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from deltaproof.experiments import wording

IN_HUNDREDTHS = (
    "accuracy", "macro_f1", "micro_f1", "balanced_accuracy", "exact_match", "mcc", "pearson", "spearman",
)  # fmt: skip
"""Metrics whose best value is 1: they stand in hundredths, as benchmarks print them, and can be averaged."""
VERDICTS = ("better", "equivalent", "worse", "cannot tell")


@dataclass(frozen=True)
class TaskResult:
    """A task that was run."""

    entry: dict[str, Any]

    @property
    def title(self) -> str:
        return str(self.entry["title"])

    @property
    def name(self) -> str:
        return str(self.entry["name"])

    @property
    def category(self) -> str:
        return str(self.entry["category"])

    @property
    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = self.entry["result"]
        return found

    @property
    def metric(self) -> str:
        return str(self.result["metric"])

    @property
    def is_in_hundredths(self) -> bool:
        return self.metric in IN_HUNDREDTHS

    @property
    def unit(self) -> str:
        """What `wording` is told, so that hundredths are written out."""
        return "fraction" if self.is_in_hundredths else str(self.result["unit"])

    def row(self, method: str) -> dict[str, Any] | None:
        rows = (*self.result["methods"], *self.result["baselines"])
        return next((row for row in rows if row["name"] == method), None)

    def score(self, number: float | None) -> str:
        return wording.score(number, self.unit)


class SuiteResult:
    """What `suite.json` holds, by task, category and method."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        self.entries: list[dict[str, Any]] = document["tasks"]
        self.run = [TaskResult(entry) for entry in self.entries if entry["result"] is not None]
        self.not_run = [entry for entry in self.entries if entry["result"] is None]

    @cached_property
    def categories(self) -> dict[str, list[TaskResult]]:
        """The tasks that were run, by category, in the order of the plan."""
        found: dict[str, list[TaskResult]] = {}
        for task in self.run:
            found.setdefault(task.category, []).append(task)
        return found

    @cached_property
    def methods(self) -> list[str]:
        """Every contestant of any task, in the order in which they come."""
        return list(dict.fromkeys(row["name"] for task in self.run for row in task.result["methods"]))

    @cached_property
    def baselines(self) -> list[str]:
        return list(dict.fromkeys(row["name"] for task in self.run for row in task.result["baselines"]))

    def average(self, method: str, category: str) -> float | None:
        """Mean over the category's tasks; None where the method lacks one, or a metric is not in hundredths."""
        tasks = self.categories[category]
        rows = [task.row(method) for task in tasks]
        means = [row["mean"] for row in rows if row is not None and row["mean"] is not None]
        whole = len(means) == len(tasks) and all(task.is_in_hundredths for task in tasks)
        return sum(means) / len(means) if whole else None

    def verdicts(self, method: str, category: str) -> dict[str, int]:
        """How often each verdict fell."""
        found = [row["verdict"] for task in self.categories[category] if (row := task.row(method)) is not None]
        return {verdict: found.count(verdict) for verdict in VERDICTS if verdict in found}

    def paper(self, key: str, method: str) -> str:
        """The value that someone entered from the paper; empty where nobody did."""
        value = ((self.document.get("paper_reference_values") or {}).get(key) or {}).get(method)
        return "" if value is None else str(value)
