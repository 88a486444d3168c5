"""`deltaproof compare`."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from deltaproof.cli import options as o
from deltaproof.cli import plan_options as p
from deltaproof.cli.plan_options import takes
from deltaproof.cli.suites import SUITES, OwnSets, what_to_keep
from deltaproof.errors import DeltaproofError


@takes(
    "plan", *p.CONTEST, "out", *p.DATA, *p.PROTOCOL, "no_baselines", *p.TRAINING, *p.KEPT, "dry_run", "no_examples",
    "track", "robustness", "capacity", "compression", *p.PLACE,
)  # fmt: skip
def compare(
    plan: Annotated[Path | None, typer.Argument(help="A plan in TOML; options override its fields.")] = None,
    out: o.Out = None,
    no_baselines: Annotated[
        bool, typer.Option("--no-baselines", help="Leave out majority class and TF-IDF.", rich_help_panel="Protocol")
    ] = False,
    dry_run: o.DryRun = False,
    no_examples: o.NoExamples = False,
    track: o.Track = None,
    robustness: o.Robustness = False,
    capacity: o.Capacity = False,
    compression: o.Compression = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    **fields: Any,
) -> None:
    """Run every method under one protocol and say which to take.

    A run that was stopped goes on with the same command.

    Examples:

      deltaproof compare --model bert-base-uncased --data reviews.csv --methods full,lora,ia3,head

      deltaproof compare plans/my_study.toml --json | jq .recommendation

      deltaproof compare --model minilm --data demo --methods full,lora --capacity --robustness
    """
    if no_baselines:
        fields["baselines"] = False
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
