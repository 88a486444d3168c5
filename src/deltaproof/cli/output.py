"""Data to stdout, progress to stderr."""

import json as json_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from deltaproof.experiments.progress import Reporter
    from deltaproof.experiments.table import Table


def finish(data: Any, as_json: bool, report_of: "Table | None" = None, with_examples: bool = True, quiet: bool = False) -> None:
    """Write the report, if there is one to write, and print the data; name the report on stderr."""
    path = None
    if report_of is not None:
        from deltaproof.report import write_report

        path = write_report(report_of, with_examples=with_examples)
    if as_json:
        typer.echo(json_module.dumps(data, indent=1, ensure_ascii=False, default=float))
    elif data:
        typer.echo(data)
    if path is not None and not quiet:
        typer.echo(f"\nreport: {path}", err=True)


def reporter_for(folder: Path, quiet: bool, track: str | None = None) -> "Reporter":
    """Who is told of the progress: the terminal unless it is to be quiet, and a tracker if one is asked for."""
    from deltaproof.experiments.progress import Reporter, Several, Terminal, Tracking

    reporters: list[Reporter] = [] if quiet else [Terminal()]
    if track:
        from deltaproof.trackers import open_tracker

        reporters.append(Tracking(open_tracker(track, folder / "tracking")))
    return Several(*reporters)
