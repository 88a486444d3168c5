"""The answer: what every contestant reached and cost, and what can be said of it. Made from records, without torch."""

import json
from collections import defaultdict
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np

from deltaproof.errors import MissingExtraError, RecordError
from deltaproof.experiments.gates import check_gates
from deltaproof.experiments.recommendation import recommend
from deltaproof.experiments.row import COST_FIELDS, Row
from deltaproof.experiments.standings import Standings
from deltaproof.experiments.text import table_text
from deltaproof.metrics import METRICS, Metric, per_unit
from deltaproof.records.record import Measurements, Record
from deltaproof.records.store import Store
from deltaproof.stats import Comparison, Interval, compare, mean_interval


class Table(Standings):
    """The result of an experiment. Prints well; `to_dataframe`, `to_json` and `plot` for the rest."""

    def to_dataframe(self) -> Any:
        """One row per contestant and baseline, as a pandas DataFrame."""
        try:
            import pandas
        except ImportError:
            raise MissingExtraError(
                "a data frame needs pandas, which is not installed; run `pip install pandas`"
            ) from None

        rows = []
        for row in (*self.rows, *self.baselines):
            flat = row.to_json(self.metric)
            cost, measurements = flat.pop("cost"), flat.pop("measurements")
            rows.append({**flat.pop("scores"), **flat, **cost, **measurements})
        return pandas.DataFrame(rows).set_index("name")

    def plot(self) -> Any:
        """The forest plot of differences to the reference; shows itself in a notebook."""
        from deltaproof.report.figures import forest_plot

        return forest_plot(self)

    def to_text(self, width: int = 110) -> str:
        """The table, the sentence and what to know, as plain text."""
        return table_text(self, width)

    def __str__(self) -> str:
        return self.to_text()

    def __repr__(self) -> str:
        return self.to_text()


def table_from(store: Store, experiment: dict[str, Any] | None = None) -> Table:
    """Read an experiment's records and say what they show.

    Args:
        experiment: what `experiment.json` holds, or would hold; read from there when left out.
    """
    experiment = store.experiment() if experiment is None else experiment
    metrics = [METRICS[name] for name in experiment["task"]["metrics"]]
    main = metrics[0]
    rows, units = [], {}
    for contestant in experiment["contestants"]:
        row, per_seed = _row(store, contestant, metrics)
        rows.append(row)
        if row.status == "done":
            units[row.name] = per_seed
    baselines = []
    for entry in experiment["baselines"]:
        row, per_seed = _row(store, {"name": entry["name"], "final": [entry["key"]]}, metrics)
        baselines.append(row)
        units[row.name] = per_seed
    reference = _reference(experiment, {row.name: row for row in rows})
    margin, alpha = experiment["margin"], experiment["alpha"]
    level = (experiment.get("look") or {}).get("level", alpha)
    names = [row.name for row in rows if row.name in units]
    compared = _compare({name: units[name] for name in names}, reference, margin, alpha, main, level)
    rows = [replace(row, comparison=compared.get(row.name)) for row in rows]
    if reference in units:
        baselines = [
            replace(row, comparison=_compare_baseline(row.name, units, reference, margin, alpha, main, level))
            for row in baselines
        ]
    return Table(
        main,
        reference,
        margin,
        alpha,
        tuple(rows),
        tuple(baselines),
        recommend(rows, baselines, reference, main, margin),
        tuple(check_gates(experiment["plan"]["require"], rows, baselines)),
        experiment,
        str(store.folder),
    )


def is_settled(table: Table) -> bool:
    """Whether every contestant that came through has a verdict, so that more seeds would change none."""
    others = [row for row in table.rows if row.name != table.reference and row.status == "done"]
    return bool(others) and all(row.comparison and row.comparison.verdict != "cannot tell" for row in others)


def _compare_baseline(
    name: str, units: dict[str, np.ndarray], reference: str, margin: float, alpha: float, metric: Metric, level: float
) -> Comparison:
    """A baseline has no seeds: its scores stand beside each seed of the reference."""
    beside = np.repeat(units[name], len(units[reference]), axis=0)
    return _compare({reference: units[reference], name: beside}, reference, margin, alpha, metric, level)[name]


def _compare(
    units: dict[str, np.ndarray], reference: str, margin: float, alpha: float, metric: Metric, level: float
) -> dict[str, Comparison]:
    if reference not in units or len(units) < 2:
        return {}
    return compare(units, reference, margin, alpha, metric.higher_is_better, metric.unit, level)


def _reference(experiment: dict[str, Any], rows: dict[str, Row]) -> str:
    """The reference named by the plan, or its declared fallback where that did not come through."""
    reference: str = experiment["reference"]
    fallback: str | None = experiment.get("fallback_reference")
    if fallback and rows[reference].status not in ("done", "missing") and rows[fallback].status == "done":
        return fallback
    return reference


def _row(store: Store, contestant: dict[str, Any], metrics: list[Metric]) -> tuple[Row, np.ndarray]:
    """A contestant's row, and its deciding scores by seed and unit, (seeds, units)."""
    name, keys = contestant["name"], tuple(contestant.get("final") or ())
    records = [store.find(key) for key in keys]
    found = [record for record in records if record is not None]
    facts: dict[str, Any] = {
        "learning_rate": contestant.get("learning_rate"),
        "at_edge": contestant.get("at_edge", False),
        "keys": keys,
        "cost": _mean_cost(found),
        "measurements": _mean_measurements(found),
        "notes": tuple(
            dict.fromkeys([*contestant.get("notes", []), *(note for record in found for note in record.notes)])
        ),
    }
    status = contestant.get("status") or _status(records)
    facts["error"] = _error(store, contestant, found)
    if status != "done":
        return Row(name, status, **facts), np.empty((0, 0))
    answers = [store.predictions(key) for key in keys]
    for other in answers[1:]:
        if other.ids != answers[0].ids:
            raise RecordError(
                f"the runs of `{name}` must answer the same examples, theirs differ; run the experiment anew"
            )
    by_metric = {metric.name: np.stack([per_unit(metric, answer) for answer in answers]) for metric in metrics}
    scores = {}
    for metric in metrics:
        interval = mean_interval(by_metric[metric.name])
        # the score itself, as pseudo-values differ from it by their bias
        mean = fmean(record.test[metric.name] for record in found)
        low, high = mean - (interval.mean - interval.low), mean + (interval.high - interval.mean)
        if metric.unit == "fraction":  # nothing lies beyond 0 and 1
            low, high = max(0.0, low), min(1.0, high)
        scores[metric.name] = Interval(mean, low, high, interval.standard_error)
    return Row(name, status, scores, **facts), by_metric[metrics[0].name]


def _status(records: list[Record | None]) -> str:
    if not records or any(record is None for record in records):
        return "missing"
    worst = [record.status for record in records if record is not None and record.status != "done"]
    return worst[0] if worst else "done"


def _error(store: Store, contestant: dict[str, Any], finals: list[Record]) -> str:
    """The last line of the first error among the contestant's runs."""
    trials = (store.find(trial["key"]) for trial in contestant.get("trials") or ())
    for record in (*finals, *trials):
        if record is not None and record.error:
            return record.error.strip().splitlines()[-1]
    return ""


def _mean_cost(records: list[Record]) -> dict[str, float | None]:
    costs = [record.cost for record in records if record.cost is not None]
    means: dict[str, float | None] = {}
    for name in COST_FIELDS if costs else ():
        values = [getattr(cost, name) for cost in costs if getattr(cost, name) is not None]
        means[name] = fmean(values) if values else None
    if costs:
        means["trainable_fraction"] = costs[0].n_trainable / max(1, costs[0].n_total)
    return means


def _mean_measurements(records: list[Record]) -> Measurements:
    """Each number's mean over the runs that have it."""
    values: dict[str, list[float | list[float]]] = defaultdict(list)
    for record in records:
        for name, value in record.measurements.items():
            values[name].append(value)
    return {name: np.mean(found, axis=0).tolist() for name, found in values.items()}


def dumps(table: Table) -> str:
    """The table as one JSON object."""
    return json.dumps(table.to_json(), indent=1, ensure_ascii=False, default=float)
