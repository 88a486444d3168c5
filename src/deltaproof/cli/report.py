"""`deltaproof report`."""

from pathlib import Path
from typing import Annotated

import typer

from deltaproof.cli import options as o


def report(
    folder: Annotated[Path, typer.Argument(help="A run folder, such as `runs/reviews`.")],
    export: Annotated[
        str | None, typer.Option("--export", help="Also write csv, latex, svg, png; several with commas.")
    ] = None,
    no_examples: o.NoExamples = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of what `--export` writes. \\[default: FOLDER/export]")
    ] = None,
    seed: o.Seed = None,
    device: o.Device = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Build the page again from the records, of a run or of a suite. Needs neither the model nor torch.

    Example: deltaproof report runs/reviews --export csv,latex,svg
    """
    from deltaproof.cli.output import columns, emit, emit_table
    from deltaproof.errors import ConfigError
    from deltaproof.experiments.suite_document import FILE_NAME, with_studies
    from deltaproof.experiments.suite_text import suite_text
    from deltaproof.experiments.table import table_from
    from deltaproof.records.store import Store, read_json
    from deltaproof.report.suite_page import write_suite_page

    if out is not None and not export:
        raise ConfigError(
            f"`--out` is the folder of what `--export` writes, got `{out}` without it; the page itself stands at "
            f"`{folder / 'report.html'}`"
        )
    if (folder / FILE_NAME).exists():
        document = read_json(folder / FILE_NAME)
        for entry in document["tasks"]:
            if entry["result"]:
                with_studies(entry, folder / entry["result"]["folder"])
        page = write_suite_page(folder, document)
        emit(document if json else suite_text(document, columns()), as_json=json)
        if not quiet:
            typer.echo(f"\nreport: {page}", err=True)
        return
    table = table_from(Store(folder))
    if export:
        from deltaproof.report import export as export_to

        for path in export_to(table, out or folder / "export", tuple(part.strip() for part in export.split(","))):
            if not quiet:
                typer.echo(path, err=True)
    emit_table(table, as_json=json, with_examples=not no_examples, quiet=quiet)
