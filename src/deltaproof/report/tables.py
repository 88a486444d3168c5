"""The tables of the report: what every contestant reached and what it took."""

from collections.abc import Callable

import numpy as np

from deltaproof.experiments import wording
from deltaproof.experiments.row import Row
from deltaproof.metrics import METRICS
from deltaproof.records.record import Measurements
from deltaproof.report.figures.pareto import memory_of
from deltaproof.report.figures.rates import trials_of
from deltaproof.report.grid import Cell, Grid, Section, grid
from deltaproof.report.numbers import ENDINGS, SIGNS, interval, learning_rate, metric_title, operations, value
from deltaproof.report.study import Study

_MOST_LABELS = 40
NOTHING = Cell("–")


def results(study: Study) -> Grid:
    """The main table: quality, verdict and the costs that decide."""
    table = study.table
    sections = [Section(tuple(_result(study, row) for row in table.rows))]
    if table.baselines:
        sections.append(Section(tuple(_result(study, row) for row in table.baselines), "Without fine-tuning"))
    columns = (
        "Method",
        metric_title(table.metric),
        f"Difference to {table.reference}",
        "Verdict",
        "Trained share",
        "Peak memory",
        "Training time",
        "Stored",
    )
    note = (
        "Means over the seeds, with 95 % intervals that take in other seeds and another test set. Memory, time and "
        "storage are of one run: "
        f"a further task adds what is stored. A positive difference means better than {table.reference}."
    )
    return Grid("Results on the test split", columns, tuple(sections), (0, 3), note)


def _result(study: Study, row: Row) -> tuple[Cell, ...]:
    table, unit = study.table, study.table.metric.unit
    name = Cell(row.name, "reference" if row.name == table.reference else "")
    score = row.scores.get(table.metric.name)
    if score is None:
        ending = Cell(ENDINGS.get(row.status, row.status), tone="warn", sign="!")
        return name, NOTHING, NOTHING, ending, *_main_costs(row)
    reached = Cell(value(score.mean, unit), interval(score.low, score.high, unit))
    comparison = row.comparison
    if comparison is None:
        return name, reached, NOTHING, NOTHING, *_main_costs(row)
    difference = Cell(
        wording.signed(comparison.difference, unit), interval(comparison.low, comparison.high, unit, with_sign=True)
    )
    verdict = Cell(
        comparison.verdict, _remark(row, unit), comparison.verdict.replace(" ", "-"), SIGNS[comparison.verdict]
    )
    return name, reached, difference, verdict, *_main_costs(row)


def _remark(row: Row, unit: str) -> str:
    """What goes with a verdict: its note, and for `cannot tell` what could have been told."""
    comparison = row.comparison
    assert comparison is not None, "only rows that were compared have a verdict"
    remarks = [comparison.note] if comparison.note else []
    if comparison.verdict == "cannot tell":
        remarks.append(f"a difference of {wording.amount(comparison.detectable_difference, unit)} would be found")
        remarks.append(f"equivalent within {wording.amount(comparison.shown_margin, unit)}")
    return "; ".join(remarks)


def _main_costs(row: Row) -> tuple[Cell, ...]:
    share = row.cost.get("trainable_fraction")
    return (
        Cell(wording.share(share)) if share is not None else NOTHING,
        Cell(wording.size(memory_of(row))),
        Cell(wording.duration(row.cost.get("train_seconds"))),
        Cell(wording.size(row.cost.get("stored_bytes"))),
    )


def every_metric(study: Study) -> Grid:
    """Every metric with its interval; an arrow says which way is better."""
    metrics = [METRICS[name] for name in study.experiment["task"]["metrics"]]
    lines = []
    for row in (*study.table.rows, *study.table.baselines):
        if row.scores:
            found = [(row.scores[metric.name], metric.unit) for metric in metrics]
            lines.append(
                [
                    Cell(row.name),
                    *(Cell(value(score.mean, unit), interval(score.low, score.high, unit)) for score, unit in found),
                ]
            )
    columns = [f"{metric_title(metric)}\u00a0{'↑' if metric.higher_is_better else '↓'}" for metric in metrics]
    note = "The first metric decides; the others describe and carry no verdict. ↑ more is better, ↓ less is better."
    return grid("Every metric", ("Method", *columns), lines, note=note)


def label_scores(study: Study) -> Grid | None:
    """F1 of each label, for multi-label tasks."""
    if study.kind != "multilabel" or not study.done:
        return None
    targets = study.answers(study.done[0])[0].targets
    frequency = targets.sum(axis=0)
    kept = np.argsort(-frequency, kind="stable")[:_MOST_LABELS]
    scores = {
        row.name: np.mean([_f1(answer.targets, answer.outputs) for answer in study.answers(row)], axis=0)
        for row in study.done
    }
    lines = [
        [study.label(int(k)), f"{frequency[k]:.0f}", *(value(found[k], "fraction") for found in scores.values())]
        for k in kept
    ]
    note = "F1 in %, mean over the seeds, most frequent label first." + (
        f" The first {_MOST_LABELS} of {len(frequency)} labels." if len(kept) < len(frequency) else ""
    )
    return grid("F1 by label", ("Label", "Test rows", *scores), lines, note=note)


def _f1(targets: np.ndarray, outputs: np.ndarray) -> np.ndarray:
    answered = outputs >= 0.5
    below = targets.sum(axis=0) + answered.sum(axis=0)
    return np.asarray(2 * (targets * answered).sum(axis=0) / np.maximum(below, 1))


_Column = tuple[str, Callable[[dict[str, float | None]], str]]


def _number(cost: dict[str, float | None], name: str, write: Callable[[float], str]) -> str:
    value = cost.get(name)
    return "–" if value is None else write(value)


_TRAINING: tuple[_Column, ...] = (
    ("Trained weights", lambda cost: _number(cost, "n_trainable", wording.count)),
    ("of all", lambda cost: _number(cost, "n_total", wording.count)),
    ("Reachable dimension", lambda cost: _number(cost, "reachable_dimension", wording.count)),
    ("Training time", lambda cost: wording.duration(cost.get("train_seconds"))),
    ("Examples per second", lambda cost: _number(cost, "examples_per_second", lambda value: f"{value:.3g}")),
    ("Operations", lambda cost: operations(cost.get("train_flops"))),
    ("Peak host memory", lambda cost: wording.size(cost.get("peak_memory_bytes"))),
    ("Peak device memory", lambda cost: wording.size(cost.get("peak_device_memory_bytes"))),
)
_USE: tuple[_Column, ...] = (
    ("Stored per task", lambda cost: wording.size(cost.get("stored_bytes"))),
    ("Time to answer", lambda cost: wording.duration(cost.get("latency_seconds"))),
    ("Time to answer, merged", lambda cost: wording.duration(cost.get("merged_latency_seconds"))),
)


def training_costs(study: Study) -> Grid:
    note = (
        "Measured, mean over the final runs. Reachable dimension: of the set of models that training can reach, r (m "
        "+ n − r) for a rank-r "
        "update of an m × n matrix. Host memory is the peak of the run's own process minus what it held before the "
        "model was loaded."
    )
    return _costs(study, "Training, one run", _TRAINING, note)


def use_costs(study: Study) -> Grid:
    note = "Time to answer one example, median; merged: with the method merged into the base weights, where it can be."
    return _costs(study, "In use", _USE, note)


def _costs(study: Study, caption: str, columns: tuple[_Column, ...], note: str) -> Grid:
    lines = [[row.name, *(write(row.cost) for _, write in columns)] for row in study.table.rows if row.cost]
    return grid(caption, ("Method", *(title for title, _ in columns)), lines, note=note)


def measurements(study: Study) -> Grid:
    """What methods asked to have measured, beside what the base model had; numbers by layer stay in the records."""
    rows = [row for row in study.table.rows if row.measurements]
    all_names = dict.fromkeys(name for row in rows for name in row.measurements)
    names = [name for name in all_names if not name.startswith("base_") and not name.endswith("_by_layer")]
    lines = [[Cell(row.name), *(_measurement(row.measurements, name) for name in names)] for row in rows]
    columns = [name.replace("_fraction", ",\u00a0%").replace("_", " ").capitalize() for name in names]
    note = "Measured on the validation split, mean over the final runs; per layer in the records."
    return grid("Further measurements", ("Method", *columns), lines, note=note)


def _measurement(measurements: Measurements, name: str) -> Cell:
    unit = "fraction" if name.endswith("_fraction") else ""
    found, before = measurements.get(name), measurements.get(f"base_{name}")
    if not isinstance(found, float):
        return NOTHING
    return Cell(value(found, unit), f"base {value(before, unit)}" if isinstance(before, float) else "")


def estimates(study: Study) -> Grid:
    """What was foretold before the start, and what came; memory is that of the accelerator where there is one."""
    entries = [
        (name, entry.get("estimate") or {}, entry.get("measured") or {}) for name, entry in study.contestants.items()
    ]
    on_device = any(told.get("peak_device_memory_bytes") for _, told, _ in entries)
    memory = "peak_device_memory_bytes" if on_device else "peak_memory_bytes"
    lines = [
        [
            name,
            *_foretold(told.get("seconds"), came.get("seconds"), wording.duration),
            *_foretold(told.get(memory), came.get(memory), wording.size),
        ]
        for name, told, came in entries
        if told or came
    ]
    columns = ("Method", "Time, estimated", "measured", "error", "Peak memory, estimated", "measured", "error")
    note = "The estimates are made from a few steps before the start."
    return grid("Estimated and measured, all runs of a contestant", columns, lines, note=note)


def _foretold(told: float | None, came: float | None, write: Callable[[float | None], str]) -> tuple[str, str, str]:
    error = f"{wording.signed(told / came - 1, 'fraction')} %" if told and came else "–"
    return write(told), write(came), error


def ledger(study: Study) -> Grid:
    """How each contestant was tuned and run."""
    lines: list[list[str | Cell]] = []
    for row in study.table.rows:
        trials = trials_of(study, row.name)
        records = study.finals(row)
        lines.append(
            [
                row.name,
                f"{len(trials)}",
                ", ".join(learning_rate(trial.rate) for trial in trials) or "–",
                Cell(
                    learning_rate(row.learning_rate),
                    "at the edge of those tried" if row.at_edge else "",
                    "warn" if row.at_edge else "",
                    "!" if row.at_edge else "",
                ),
                ", ".join(str(record.spec.seed) for record in records) or "–",
                Cell(ENDINGS.get(row.status, row.status), tone="" if row.status == "done" else "warn"),
            ]
        )
    return grid(
        "Tuning and final runs",
        ("Method", "Trials", "Learning rates tried", "Chosen", "Seeds", "Ended"),
        lines,
        (0, 2, 3, 4, 5),
    )
