"""Several tasks under one protocol, each its own comparison in a run folder of its own; a failing one ends no other."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deltaproof.errors import ConfigError, DeltaproofError
from deltaproof.experiments.compare import compare
from deltaproof.experiments.document import now
from deltaproof.experiments.reporter import Reporter
from deltaproof.experiments.suite_document import (
    Document,
    Entry,
    new_suite,
    with_error,
    with_estimate,
    with_result,
    with_what_stands,
    write_suite,
)  # fmt: skip
from deltaproof.experiments.suite_plan import SuitePlan, SuiteRun, chosen
from deltaproof.experiments.table import Table
from deltaproof.experiments.wording import duration

Study = Callable[[SuiteRun], Any]
"""Measures something on a task's kept models; what it finds stands in the run folder's `studies/`."""


def run_suite(
    plan: SuitePlan,
    out: Path,
    *,
    data_root: str | None = None,
    only: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    studies: Mapping[str, Study] | None = None,
    dry_run: bool = False,
    reporter_for: Callable[[Path], Reporter] = lambda folder: Reporter(),
    say: Callable[[str], None] = lambda text: None,
    finished: Callable[[Table, SuiteRun], None] = lambda table, run: None,
) -> Document:
    """Estimate every task, run one after the other, and return what `out/suite.json` then holds.

    Each task has a run folder `out/NAME`, so that a suite that was stopped goes on with the same call. A task that ends
    with an error says so in its entry, and the next one begins. A task that is left out keeps the result that its
    folder holds under the same plan.

    Args:
        out: the suite's folder.
        data_root: folder of local copies of the tasks' data.
        only: names of tasks, with commas; all when left out.
        overrides: fields over those of every task's plan.
        studies: what is measured of each task behind its comparison, by name; every tuned model is then kept, unless
            `overrides` say what is.
        dry_run: stop after the estimates.
        finished: told of each task's table once its studies stand too.
    Raises:
        ConfigError: an unknown task, or nothing to run.
    """
    names = chosen(plan, only)
    document = new_suite(plan, names, list(studies or ()), created=now())
    entries: dict[str, Entry] = {entry["name"]: entry for entry in document["tasks"]}
    runnable = [name for name in names if entries[name]["status"] == "planned"]
    for name in names:
        if name not in runnable:
            say(f"{name}: not run, {entries[name]['reason']}")
    if not runnable:
        raise ConfigError(
            f"a suite must hold a task that can be run, got none among {', '.join(names)}; take others with `--only`"
        )
    fields = {**({"keep": "all"} if studies else {}), **(overrides or {})}
    runs = []
    for name in runnable:
        try:
            run = plan.run_of(name, out, data_root, fields)
            table = compare(run.plan, out=run.folder, dry_run=True)
            with_estimate(entries[name], table)
            runs.append(run)
            rows = table.experiment["data"]["rows"]
            counts = f"{rows['train']} rows to train, {rows['validation']} to choose on, {rows['test']} to test on"
            say(f"{name}: about {duration(entries[name]['estimated_seconds'])} ({counts})")
        except Exception as error:
            _note(entries[name], error, say)
    total = sum(entries[run.name]["estimated_seconds"] for run in runs)
    behind = f", and {' and '.join(studies)} behind each" if studies else ""
    n = f"{len(runs)} task{'s' if len(runs) != 1 else ''}"
    say(f"in all about {duration(total)} for {n}{behind}; what stands on disk already takes no time")
    if dry_run:
        return document
    for name in plan.tasks:
        if entries[name]["status"] == "left_out" and (out / name).exists():
            with_what_stands(entries[name], plan.run_of(name, out, data_root, fields))
    for run in runs:
        write_suite(out, document)
        say(f"\n{run.name}: {entries[run.name]['title']}, {entries[run.name]['category']}")
        try:
            table = compare(run.plan, out=run.folder, reporter=reporter_for(run.folder))
            with_result(entries[run.name], table)
            _measure_more(run, entries[run.name], studies or {}, say)
            with_result(entries[run.name], table)  # once more, with what the studies found
            finished(table, run)
        except Exception as error:
            _note(entries[run.name], error, say)
    document["finished"] = now()
    write_suite(out, document)
    return document


def _measure_more(run: SuiteRun, entry: Entry, studies: Mapping[str, Study], say: Callable[[str], None]) -> None:
    """The studies of one task; one that cannot be made leaves the comparison as it is."""
    for name, study in studies.items():
        try:
            study(run)
        except Exception as error:
            entry["study_errors"][name] = _words(error)
            say(f"{run.name}: {name} failed: {_words(error)}")


def _note(entry: Entry, error: Exception, say: Callable[[str], None]) -> None:
    with_error(entry, _words(error))
    say(f"{entry['name']}: failed: {entry['reason']}")


def _words(error: Exception) -> str:
    """The message of an error that a user can act on; the kind too of any other, which is ours."""
    return str(error) if isinstance(error, DeltaproofError) else f"{type(error).__name__}: {error}"
