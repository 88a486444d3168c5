"""`deltaproof compare`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from deltaproof.cli import options as o
from deltaproof.cli.suites import SUITES, OwnSets, what_to_keep
from deltaproof.errors import DeltaproofError


def compare(
    plan: Annotated[Path | None, typer.Argument(help="A plan in TOML; options override its fields.")] = None,
    model: o.Model = None,
    data: o.Data = None,
    methods: Annotated[
        str | None, typer.Option("--methods", help="Contestants: `full,lora(rank=16),ia3,head`.")
    ] = None,
    out: o.Out = None,
    text: o.Text = None,
    label: o.Label = None,
    group: o.Group = None,
    validation: o.Validation = None,
    test: o.Test = None,
    kind: o.Kind = None,
    encoding: o.Encoding = None,
    format: o.Format = None,
    columns: o.Columns = None,
    label_names: o.LabelNames = None,
    data_root: o.DataRoot = None,
    max_length: o.MaxLength = None,
    max_rows: o.MaxRows = None,
    max_evaluation_rows: o.MaxEvaluationRows = None,
    drop_leaks: o.DropLeaks = False,
    drop_empty: o.DropEmpty = False,
    metric: o.Metric = None,
    reference: o.Reference = None,
    fallback_reference: o.FallbackReference = None,
    margin: o.Margin = None,
    seeds: o.Seeds = None,
    looks: o.Looks = None,
    trials: o.Trials = None,
    tuning: o.Tuning = None,
    learning_rates: o.LearningRates = None,
    budget: o.Budget = None,
    require: o.Require = None,
    no_baselines: o.NoBaselines = False,
    epochs: o.Epochs = None,
    batch_size: o.BatchSize = None,
    schedule: o.Schedule = None,
    patience: o.Patience = None,
    precision: o.Precision = None,
    gradient_checkpointing: o.Checkpointing = False,
    revision: o.Revision = None,
    trust_remote_code: o.RemoteCode = False,
    keep: o.Keep = None,
    reuse: o.Reuse = None,
    dry_run: o.DryRun = False,
    no_examples: o.NoExamples = False,
    track: o.Track = None,
    robustness: o.Robustness = False,
    capacity: o.Capacity = False,
    compression: o.Compression = False,
    seed: o.Seed = None,
    device: o.Device = None,
    workers: o.Workers = None,
    memory: o.Memory = None,
    devices_per_run: o.DevicesPerRun = None,
    engine: o.Engine = None,
    address: o.Address = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Run every method under one protocol and say which to take.

    A run that was stopped goes on with the same command.

    Examples:

      deltaproof compare --model bert-base-uncased --data reviews.csv --methods full,lora,ia3,head

      deltaproof compare plans/my_study.toml --json | jq .recommendation

      deltaproof compare --model minilm --data demo --methods full,lora --capacity --robustness
    """
    given = {
        "model": model,
        "data": data,
        "methods": methods,
        "text": text,
        "label": label,
        "group": group,
        "validation": validation,
        "test": test,
        "kind": kind,
        "encoding": encoding,
        "format": format,
        "columns": columns,
        "label_names": label_names,
        "data_root": data_root,
        "max_length": max_length,
        "max_rows": max_rows,
        "max_evaluation_rows": max_evaluation_rows,
        "drop_leaks": drop_leaks or None,
        "drop_empty": drop_empty or None,
        "metric": metric,
        "reference": reference,
        "fallback_reference": fallback_reference,
        "margin": margin,
        "seeds": seeds,
        "looks": looks,
        "trials": trials,
        "tuning": tuning,
        "learning_rates": learning_rates,
        "budget": budget,
        "require": require or None,
        "baselines": False if no_baselines else None,
        "epochs": epochs,
        "batch_size": batch_size,
        "schedule": schedule,
        "patience": patience,
        "precision": precision,
        "workers": workers,
        "memory": memory,
        "devices_per_run": devices_per_run,
        "engine": engine,
        "address": address,
        "gradient_checkpointing": gradient_checkpointing or None,
        "revision": revision,
        "trust_remote_code": trust_remote_code or None,
        "keep": keep,
        "reuse": reuse,
        "seed": seed,
        "device": device,
    }
    fields: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    asked = {"robustness": robustness, "capacity": capacity, "compression": compression}
    suites = [name for name, wanted in asked.items() if wanted]
    run(
        plan, fields, out=out, dry_run=dry_run, no_examples=no_examples, track=track, suites=suites, json=json,
        quiet=quiet,
    )  # fmt: skip


def run(
    plan: Path | None, fields: dict[str, Any], *, out: Path | None, dry_run: bool, no_examples: bool,
    track: str | None, suites: Sequence[str], json: bool, quiet: bool,
) -> None:  # fmt: skip
    """One call of `deltaproof.compare`, its result as text or JSON, and its gates as the exit code; then the suites of
    studies that were asked for, which need every tuned model kept, and what they say for and against each claim."""
    from deltaproof.experiments.compare import compare as run_comparison
    from deltaproof.experiments.compare import settle

    settled, folder = settle(plan, out, fields)  # before what is loaded below: it has the workers' libraries loaded

    from deltaproof.cli.output import emit, emit_table, reporter_for
    from deltaproof.evidence import evidence
    from deltaproof.experiments.announcement import announcement
    from deltaproof.report import write_report

    for name in suites:
        SUITES[name].check(settled)
    if suites:
        settled = settled.replace(keep=what_to_keep(suites, settled.keep))
    table = run_comparison(settled, out=folder, dry_run=dry_run, reporter=reporter_for(folder, quiet, track))
    if dry_run:
        emit(table.experiment if json else announcement(table.experiment), as_json=json)
        return
    as_asked = partial(emit_table, table, with_examples=not no_examples, quiet=quiet)
    if table.failures or not suites:
        as_asked(as_json=json)
    elif json:
        studies = {name: _study(name, folder, settled.device, quiet) for name in suites}
        as_asked(as_json=True, more={**studies, "evidence": evidence(folder, table).to_json()})
    else:
        as_asked(as_json=False)
        for name in suites:
            emit("\n" + SUITES[name].text(_study(name, folder, settled.device, quiet)), as_json=False)
        emit("\n" + evidence(folder, table).to_text(), as_json=False)
        write_report(table, with_examples=not no_examples)  # once more, with the studies
    if table.failures:
        raise DeltaproofError(
            f"every training must come to an end, {'; '.join(table.failures)}; see `{folder / 'records'}`"
        )
    if table.is_gate_failed:
        raise typer.Exit(3)


def _study(name: str, folder: Path, device: str, quiet: bool) -> dict[str, Any]:
    from deltaproof.cli.output import say_to

    return SUITES[name].run(folder, device, say_to(quiet), OwnSets())
