"""What more parameters, or more data, are worth: the same experiment at several sizes, and the curves through them.

Each point is a whole comparison: learning rates chosen anew at that size, several seeds, one test set for all points.
Smaller training sets are subsets of larger ones. With equal epochs a larger set takes more steps; with equal steps each
size sees as many examples as the largest does: two questions, since small data trained for long overfits.
"""

from collections.abc import Sequence
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from deltaproof.errors import ConfigError, RecordError
from deltaproof.experiments.budget import Budget
from deltaproof.experiments.compare import compare
from deltaproof.experiments.plan import Plan
from deltaproof.experiments.reporter import Reporter
from deltaproof.experiments.table import Table
from deltaproof.fits import Curve, crossover, growth, power_law
from deltaproof.methods import method_from
from deltaproof.metrics import METRICS, Metric, per_unit
from deltaproof.records.store import Store, write_json

LEAST_FOR_POWER_LAW, LEAST_FOR_GROWTH = 4, 3


def scale_parameters(
    plan: Plan, ranks: Sequence[int], out: Path, reporter: Reporter | None = None, method: str = "lora"
) -> dict[str, Any]:
    """Train one method at several ranks beside the plan's own methods; returns and stores the study.

    Args:
        method: what gets the ranks: an expression whose field `rank` is set, such as `lora(roles=['query'])`.
    Raises:
        ConfigError: the method has no rank, or fewer than three ranks are given.
    """
    if len(set(ranks)) < LEAST_FOR_GROWTH:
        raise ConfigError(f"diminishing returns need at least 3 ranks, got {list(ranks)}; add some, such as 1,2,4,8,16")
    base = method_from(method)
    if "rank" not in type(base).model_fields:
        raise ConfigError(
            f"`{base.label}` must have a field `rank` to be scaled by it, got none; name `lora` or `pica`"
        )
    ladder = {rank: base.replace(rank=rank).label for rank in sorted(set(ranks))}
    others = tuple(name for name in plan.methods if name not in ladder.values())
    table = compare(plan.replace(methods=(*others, *ladder.values())), out=out, reporter=reporter)
    curve, points = {}, []
    for rank, label in ladder.items():
        row = table.row(label)
        if row.status != "done":
            continue
        n_trained = float(row.cost["n_trainable"] or 0)
        curve[n_trained] = _scores(Store(out), row.keys, table.metric)
        points.append({"rank": rank, "label": label, "n_trained": n_trained, **_point(table, label)})
    result = {
        "format": 1,
        "by": "parameters",
        "metric": table.metric.name,
        "method": base.label,
        "points": points,
        "others": [{"label": name, **_point(table, name)} for name in others if table.row(name).status == "done"],
        "growth": asdict(growth(curve)) if len(curve) >= LEAST_FOR_GROWTH else None,
    }
    write_json(Store(out).study_path("scale_parameters"), result)
    return result


def scale_examples(
    plan: Plan,
    sizes: Sequence[int | None],
    out: Path,
    reporter: Reporter | None = None,
    equal: Literal["epochs", "steps"] = "epochs",
) -> dict[str, Any]:
    """Run the plan at several sizes of the training set; None is all of it. Returns and stores the study.

    The largest size is the experiment of `out` itself; the others stand in `out/sizes/`.

    Raises:
        ConfigError: fewer than two sizes.
    """
    ordered: list[int | None] = [
        *sorted({size for size in sizes if size is not None}),
        *([None] if None in sizes else []),
    ]
    if len(ordered) < 2:
        raise ConfigError(f"a curve needs at least two sizes, got {list(sizes)}; name some, such as 64,256,1024,all")
    tables: dict[int, Table] = {}
    stores: dict[int, Store] = {}
    n_seen: int | None = None
    for size in reversed(ordered):
        folder = out if size == ordered[-1] else out / "sizes" / f"n-{size}"
        at_size = plan.replace(max_rows=size)
        if equal == "steps" and n_seen is not None:
            at_size = at_size.replace(budget=Budget(**{**plan.budget.model_dump(), "examples": n_seen}))
        table = compare(at_size, out=folder, reporter=reporter)
        n_rows = int(table.experiment["data"]["rows"]["train"])
        n_seen = n_seen or round(plan.training.epochs * n_rows)
        tables[n_rows], stores[n_rows] = table, Store(folder)
    result = _examples_result(tables, stores, equal)
    write_json(Store(out).study_path("scale_examples"), result)
    return result


def _examples_result(tables: dict[int, Table], stores: dict[int, Store], equal: str) -> dict[str, Any]:
    """Points, power laws and crossovers of every method that came through at each size."""
    largest = tables[max(tables)]
    _require_one_test_set(tables)
    curves: dict[str, Curve] = {}
    for row in largest.rows:
        done = [n for n in sorted(tables) if tables[n].row(row.name).status == "done"]
        curves[row.name] = {float(n): _scores(stores[n], tables[n].row(row.name).keys, largest.metric) for n in done}
    bounded = largest.metric.unit == "fraction" and largest.metric.higher_is_better
    return {
        "format": 1,
        "by": "examples",
        "equal": equal,
        "metric": largest.metric.name,
        "methods": [
            {
                "label": name,
                "points": [{"n_examples": int(n), **_point(tables[int(n)], name)} for n in sorted(curve)],
                "power_law": asdict(power_law(curve)) if bounded and len(curve) >= LEAST_FOR_POWER_LAW else None,
                "growth": asdict(growth(curve)) if len(curve) >= LEAST_FOR_GROWTH else None,
            }
            for name, curve in curves.items()
        ],
        "crossovers": [
            {"one": one, "other": other, **asdict(crossover({one: curves[one], other: curves[other]}))}
            for one, other in combinations(curves, 2)
            if largest.reference in (one, other) and len(set(curves[one]) & set(curves[other])) >= 2
        ],
    }


def _require_one_test_set(tables: dict[int, Table]) -> None:
    rows = {table.experiment["data"]["rows"]["test"] for table in tables.values()}
    if len(rows) > 1:
        raise RecordError(
            f"all sizes must be scored on one test set, got sets of {sorted(rows)} rows; use a new folder"
        )


def _scores(store: Store, keys: Sequence[str], metric: Metric) -> np.ndarray:
    """(seeds, units), higher is better."""
    sign = 1 if metric.higher_is_better else -1
    return sign * np.stack([per_unit(METRICS[metric.name], store.predictions(key)) for key in keys])


def _point(table: Table, name: str) -> dict[str, Any]:
    """Mean score with its interval, and the learning rate chosen at this size."""
    row = table.row(name)
    interval = row.scores[table.metric.name]
    facts = {"mean": interval.mean, "low": interval.low, "high": interval.high}
    return {**facts, "learning_rate": row.learning_rate, "at_edge": row.at_edge, "keys": list(row.keys)}
