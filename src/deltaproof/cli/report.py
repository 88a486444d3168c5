"""`deltaproof report`."""

from pathlib import Path
from typing import Annotated

import typer

from deltaproof.cli import options as o


def report(
    folder: Annotated[Path, typer.Argument(help="A run folder, such as `runs/reviews`.")],
    export: Annotated[str | None, typer.Option("--export", help="Also write csv, latex, svg, png; several with commas.")] = None,
    no_examples: Annotated[bool, typer.Option("--no-examples", help="Leave texts out, so that the page can be shared.")] = False,
    out: o.Out = None,
    seed: o.Seed = None,
    device: o.Device = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Build the page again from the records. Needs neither the model nor torch.

    Example: deltaproof report runs/reviews --export csv,latex,svg
    """
    from deltaproof.cli.compare import _columns
    from deltaproof.cli.output import finish
    from deltaproof.experiments.table import table_from
    from deltaproof.records.store import Store
    from deltaproof.report import export as export_to

    table = table_from(Store(folder))
    if export:
        for path in export_to(table, out or folder / "export", tuple(part.strip() for part in export.split(","))):
            if not quiet:
                typer.echo(path, err=True)
    finish(table.to_json() if json else table.to_text(width=_columns()), json, report_of=table, with_examples=not no_examples, quiet=quiet)
