"""`deltaproof compare`."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from deltaproof.cli import options as o
from deltaproof.cli.output import finish, reporter_for


def compare(
    plan: Annotated[Path | None, typer.Argument(help="A plan in TOML; options override its fields.")] = None,
    model: o.Model = None,
    data: o.Data = None,
    methods: Annotated[str | None, typer.Option("--methods", help="Contestants: `full,lora(rank=16),ia3,head`.")] = None,
    out: o.Out = None,
    text: o.Text = None,
    label: o.Label = None,
    group: o.Group = None,
    validation: o.Validation = None,
    test: o.Test = None,
    kind: o.Kind = None,
    encoding: o.Encoding = None,
    max_length: o.MaxLength = None,
    max_rows: o.MaxRows = None,
    drop_leaks: o.DropLeaks = False,
    metric: o.Metric = None,
    reference: Annotated[str | None, typer.Option("--reference", help="Compare with this contestant. [default: full]", rich_help_panel="Protocol")] = None,
    fallback_reference: Annotated[str | None, typer.Option("--fallback-reference", help="Used if the reference does not fit or diverges.", rich_help_panel="Protocol")] = None,
    margin: Annotated[float | None, typer.Option("--margin", help="Differences below this are equivalent. [default: 0.02]", rich_help_panel="Protocol")] = None,
    seeds: Annotated[int | None, typer.Option("--seeds", help="Final runs per method. [default: 3]", rich_help_panel="Protocol")] = None,
    trials: o.Trials = None,
    learning_rates: o.LearningRates = None,
    budget: Annotated[str | None, typer.Option("--budget", help="`6 trials`, `30 minutes`, `20000 examples`.", rich_help_panel="Protocol")] = None,
    require: Annotated[list[str] | None, typer.Option("--require", help="Exit with 3 unless `lora.accuracy >= full.accuracy - 0.01`.", rich_help_panel="Protocol")] = None,
    no_baselines: Annotated[bool, typer.Option("--no-baselines", help="Leave out majority class and TF-IDF.", rich_help_panel="Protocol")] = False,
    epochs: o.Epochs = None,
    batch_size: o.BatchSize = None,
    schedule: o.Schedule = None,
    patience: o.Patience = None,
    precision: o.Precision = None,
    gradient_checkpointing: o.Checkpointing = False,
    revision: o.Revision = None,
    trust_remote_code: o.RemoteCode = False,
    keep: Annotated[str | None, typer.Option("--keep", help="Tuned models to keep: best, all or none. [default: best]", rich_help_panel="Output")] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Stop after the estimate of time and memory.", rich_help_panel="Output")] = False,
    no_examples: Annotated[bool, typer.Option("--no-examples", help="Leave texts out of the report, so that it can be shared.", rich_help_panel="Output")] = False,
    track: o.Track = None,
    seed: o.Seed = None,
    device: o.Device = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Run every method under one protocol and say which to take.

    A run that was stopped goes on with the same command.

    Examples:

      deltaproof compare --model bert-base-uncased --data reviews.csv --methods full,lora,ia3,head

      deltaproof compare plans/my_study.toml --json | jq .recommendation
    """
    from deltaproof.experiments.compare import compare as run_comparison
    from deltaproof.experiments.compare import default_folder
    from deltaproof.experiments.plan import parse_budget, plan_from, read_plan

    fields: dict[str, Any] = read_plan(plan) if plan else {}
    given = {
        "model": model, "data": data, "methods": methods, "text": text, "label": label, "group": group, "validation": validation,
        "test": test, "kind": kind, "encoding": encoding, "max_length": max_length, "max_rows": max_rows,
        "drop_leaks": drop_leaks or None, "metric": metric, "reference": reference, "fallback_reference": fallback_reference,
        "margin": margin, "seeds": seeds, "trials": trials, "require": require or None, "baselines": False if no_baselines else None,
        "learning_rates": numbers(learning_rates), "budget": parse_budget(budget) if budget else None, "epochs": epochs,
        "batch_size": batch_size, "schedule": schedule, "patience": patience, "precision": precision,
        "gradient_checkpointing": gradient_checkpointing or None, "revision": revision,
        "trust_remote_code": trust_remote_code or None, "keep": keep, "seed": seed, "device": device,
    }  # fmt: skip
    resolved = plan_from({**fields, **{key: value for key, value in given.items() if value is not None}})
    folder = out or (Path("runs") / plan.stem if plan else default_folder(resolved))
    table = run_comparison(resolved, out=folder, dry_run=dry_run, reporter=reporter_for(folder, quiet, track))
    if dry_run:
        finish(table.experiment if json else "", json)
        return
    finish(table.to_json() if json else table.to_text(width=_columns()), json, report_of=table, with_examples=not no_examples, quiet=quiet)
    if table.is_gate_failed:
        sys.exit(3)


def numbers(text: str | None) -> tuple[float, ...] | None:
    """`1e-5,1e-4` as numbers."""
    from deltaproof.errors import ConfigError

    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"learning rates read `1e-5,1e-4`, got `{text}`; write numbers with commas") from None


def _columns() -> int:
    import shutil

    return max(100, min(140, shutil.get_terminal_size((110, 24)).columns))
