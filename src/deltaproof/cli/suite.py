"""`deltaproof suite`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deltaproof.cli import options as o
from deltaproof.cli.plan_options import takes
from deltaproof.cli.suites import SUITES, OwnSets, what_to_keep
from deltaproof.errors import DeltaproofError

if TYPE_CHECKING:
    from deltaproof.experiments.suite_plan import SuiteRun
    from deltaproof.experiments.table import Table


@takes(
    "plan", "only", "data_root", "out", "model", "methods", "max_rows", "max_evaluation_rows", "max_length", "margin",
    "seeds", "looks", "trials", "tuning", "epochs", "batch_size", "precision", "robustness", "capacity", "compression",
    "dry_run", "no_examples", "seed", "device", "workers", "memory", "engine", "address",
)  # fmt: skip
def suite(
    plan: Annotated[Path, typer.Argument(help="A plan of several tasks in TOML; options override fields of all.")],
    only: Annotated[str | None, typer.Option("--only", help="Tasks to run: `sst2,rte`. \\[default: all]")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the suite. \\[default: runs/ and the plan's name]")
    ] = None,
    robustness: o.Robustness = False,
    capacity: o.Capacity = False,
    compression: o.Compression = False,
    dry_run: o.DryRun = False,
    no_examples: o.NoExamples = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
    **overrides: Any,
) -> None:
    """Run a plan of several tasks, one comparison each, and draw them together.

    With --robustness each task's adversarial sets are asked too. One task that fails does not end the others. A suite
    that was stopped goes on with the same command.

    Examples:

      deltaproof suite plans/look_within.toml --dry-run

      deltaproof suite plans/look_within.toml --only sst2,rte --data-root copies/ --max-rows 600 --robustness
    """
    from deltaproof.experiments.engines.fork_server import started_early
    from deltaproof.experiments.plan_file import read_plan

    data_root = overrides.pop("data_root", None)
    folder = out or Path("runs") / plan.stem
    asked = {"robustness": robustness, "capacity": capacity, "compression": compression}
    wanted = [name for name, is_asked in asked.items() if is_asked]
    with started_early({**read_plan(plan), **overrides, "data": "that of each task"}):
        from deltaproof.cli.output import columns, emit, reporter_for, say_to
        from deltaproof.evidence.over_tasks import over_tasks
        from deltaproof.experiments.suite import run_suite
        from deltaproof.experiments.suite_document import write_suite
        from deltaproof.experiments.suite_plan import read_suite_plan
        from deltaproof.experiments.suite_text import suite_text
        from deltaproof.report import write_report
        from deltaproof.report.suite_page import write_suite_page

        suite_plan = read_suite_plan(plan)
    if wanted:
        overrides["keep"] = what_to_keep(wanted, suite_plan.common.get("keep", "best"))

    def page_of(table: "Table", run: "SuiteRun") -> None:
        write_report(table, with_examples=not no_examples)

    document = run_suite(
        suite_plan,
        folder,
        data_root=data_root,
        only=only,
        overrides=overrides,
        studies={name: partial(_study, name, quiet) for name in wanted},
        dry_run=dry_run,
        reporter_for=lambda place: reporter_for(place, quiet),
        say=say_to(quiet),
        finished=page_of,
    )
    if not dry_run:
        if (compressed := over_tasks(folder, document)) is not None:
            document["compression"] = compressed
            write_suite(folder, document)
        page = write_suite_page(folder, document)
        if not quiet:
            typer.echo(f"\nreport: {page}\n", err=True)
    emit(document if json else suite_text(document, columns()), as_json=json)
    failed = [f"{entry['name']}: {entry['reason']}" for entry in document["tasks"] if entry["status"] == "failed"]
    if failed:
        raise DeltaproofError(f"every task must come to its end, {'; '.join(failed)}")


def _study(name: str, quiet: bool, run: "SuiteRun") -> None:
    from deltaproof.cli.output import say_to

    SUITES[name].check(run.plan)
    own = OwnSets(run.adversarial_sources(), run.adversarial_label_names)
    SUITES[name].run(run.folder, run.plan.device, say_to(quiet), own)
