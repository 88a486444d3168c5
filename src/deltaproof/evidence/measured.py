"""What a run folder holds: its table, held against full fine-tuning, and the studies of its models."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from deltaproof.evidence.claim import Span
from deltaproof.experiments.row import Row
from deltaproof.experiments.standings import Standings
from deltaproof.experiments.table import table_from
from deltaproof.metrics import Metric
from deltaproof.records.store import Store

LORA = ("lora", "peft_lora")


@dataclass(frozen=True)
class Lora:
    """A contestant that is LoRA."""

    label: str
    rank: int | None
    everywhere: bool
    """On every linear map of every layer, so that nothing but the rank narrows it."""


class Measured:
    """Reads a run folder; every claim asks it."""

    def __init__(self, store: Store, table: Standings | None = None, called: str | None = None) -> None:
        self.store = store
        self.called = str(store.folder) if called is None else called
        """How commands name the run folder."""
        self.experiment: dict[str, Any] = store.experiment() if table is None else table.experiment
        self.full: str | None = next(
            (entry["name"] for entry in self.experiment["contestants"] if entry["method"].get("name") == "full"), None
        )
        if table is None or (self.full is not None and table.reference != self.full):
            held_against = {"reference": self.full, "fallback_reference": None} if self.full else {}
            table = table_from(store, {**self.experiment, **held_against})
        self.table = table
        self.studies = {name: found for name, found in store.studies().items() if isinstance(found, dict)}

    @property
    def metric(self) -> Metric:
        return self.table.metric

    @property
    def margin(self) -> float:
        return self.table.margin

    @property
    def is_full_done(self) -> bool:
        return self.full is not None and self.table.row(self.full).status == "done"

    @property
    def others(self) -> list[Row]:
        """Contestants beside full fine-tuning that came through."""
        return [row for row in self.table.rows if row.name != self.full and row.status == "done"]

    @property
    def why_no_comparison(self) -> str:
        """Why nothing can be held against full fine-tuning; empty where something can."""
        if self.full is None:
            return "full fine-tuning is not among the contestants"
        if not self.is_full_done:
            return "full fine-tuning did not come through"
        return "" if self.others else "no other contestant came through"

    @property
    def loras(self) -> list[Lora]:
        entries = {entry["name"]: entry["method"] for entry in self.experiment["contestants"]}
        ranked = {entry["label"]: entry["rank"] for entry in self.found("expressivity").get("trained", ())}
        done = {row.name for row in self.others}
        return [
            Lora(label, ranked.get(label, method.get("rank")), label in ranked or _is_everywhere(method))
            for label, method in entries.items()
            if method.get("name") in LORA and label in done
        ]

    def found(self, study: str) -> dict[str, Any]:
        """A study's result; empty where it was not made."""
        return self.studies.get(study, {})

    def by_label(self, study: str) -> dict[str, dict[str, Any]]:
        """The entries of a study by contestant."""
        return {entry["label"]: entry for entry in self.found(study).get("methods", ())}


def span(found: Mapping[str, Any] | None, unit: str, sign: int = 1, value: str = "mean") -> Span | None:
    """An interval of a study's JSON, None where an end of it is missing; a sign of -1 turns it round.

    >>> span({"mean": 0.1, "low": 0.0, "high": 0.3}, "fraction", -1)
    Span(mean=-0.1, low=-0.3, high=-0.0, unit='fraction')
    """
    if found is None or any(found.get(part) is None for part in (value, "low", "high")):
        return None
    low, high = sorted((sign * float(found["low"]), sign * float(found["high"])))
    return Span(sign * float(found[value]), low, high, unit)


def _is_everywhere(method: Mapping[str, Any]) -> bool:
    """Roles of attention and of the feed-forward part, in all layers; unknown fields are taken as defaults."""
    roles = method.get("roles")
    return not method.get("layers") and (roles is None or {"query", "value", "ffn_in", "ffn_out"} <= set(roles))
