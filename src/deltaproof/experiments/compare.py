"""The experiment that decides: contestants tuned alike, run at several seeds, judged once on a sealed test split."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltaproof.errors import ConfigError
from deltaproof.experiments.engines.choice import engine_named
from deltaproof.experiments.engines.fork_server import started_early
from deltaproof.experiments.engines.scripts import stop_if_reading
from deltaproof.experiments.plan_file import read_plan
from deltaproof.experiments.reporter import Reporter

if TYPE_CHECKING:  # they bring torch, beside which the fork server is to load its own
    from deltaproof.experiments.plan import Plan
    from deltaproof.experiments.table import Table


def compare(
    plan: "Plan | str | os.PathLike[str] | None" = None,
    /,
    *,
    out: str | os.PathLike[str] | None = None,
    dry_run: bool = False,
    reporter: Reporter | None = None,
    **fields: Any,
) -> "Table":
    """Run every contestant of a plan under one protocol and return the table that answers.

    Args:
        plan: the experiment, or the path of one in TOML, which fields override; or leave it out and give its fields by
            name, such as `model`, `data` (a path, a hub id, a data frame, a list of mappings), `methods`, `seeds`.
        out: the run folder; an experiment that was killed goes on there with the same call.
        dry_run: stop after the estimate of time and memory; nothing is trained, and no contestant has a result.
        reporter: who is told of the progress; nobody when left out.
    Raises:
        ConfigError, DataError, BackboneError: before anything is trained.

    Example:
        >>> deltaproof.compare(model="minilm", data="reviews.csv", methods=[Full(), LoRA(rank=8)])  # doctest: +SKIP
    """
    stop_if_reading()
    resolved_plan, folder = settle(plan, None if out is None else Path(out), fields)
    from deltaproof.experiments.experiment import Experiment
    from deltaproof.experiments.kept import point_to_best
    from deltaproof.experiments.resolve import resolve
    from deltaproof.experiments.table import table_from

    reporter = reporter or Reporter()
    engine = engine_named(resolved_plan.engine, resolved_plan.address, reporter.say, resolved_plan.memory)
    try:
        engine.start()
        experiment = Experiment(resolve(resolved_plan, folder, engine, reporter), engine, reporter)
        experiment.estimate()
        if dry_run:
            return table_from(experiment.store, experiment.document)
        reporter.planned(experiment.document)
        experiment.measure()
        table = table_from(experiment.store, experiment.document)
        point_to_best(experiment.store, table)
        reporter.finished(table)
        return table
    finally:
        engine.close()
        reporter.close()


def settle(
    plan: "Plan | str | os.PathLike[str] | None", out: Path | None, fields: dict[str, Any]
) -> "tuple[Plan, Path]":
    """The plan and its run folder, from what `compare` was given; rows in memory become files there."""
    if plan is not None and not isinstance(plan, str | os.PathLike):
        if fields:
            raise ConfigError(f"a `Plan` comes alone, got {', '.join(fields)} too; use `plan.replace(…)`")
        return plan, out or default_folder(plan)
    if plan is not None:
        fields = {**read_plan(Path(plan)), **fields}
        out = out or Path("runs") / Path(plan).stem
    with started_early(fields):
        from deltaproof.experiments.given_rows import keep_rows
        from deltaproof.experiments.plan import plan_from

        data = fields.get("data")
        if data is not None and not isinstance(data, str | os.PathLike):
            out = out or Path("runs") / "experiment"
            fields = {**fields, "data": keep_rows(data, out)}
        settled = plan_from(fields)
    return settled, out or default_folder(settled)


def default_folder(plan: "Plan") -> Path:
    """`runs/` and the data's name."""
    return Path("runs") / (Path(plan.data).stem.replace(":", "-") or "experiment")
