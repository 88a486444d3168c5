"""Data to stdout, or to a file; all else to stderr."""

import json
import math
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from deltaproof.experiments.reporter import Reporter
    from deltaproof.experiments.table import Table


def emit(data: Any, *, as_json: bool, out: Path | None = None, quiet: bool = False) -> None:
    """Print a command's result, or write it to `out`: text as it is, anything else as one JSON object."""
    if isinstance(data, str) and not as_json:
        content = data
    else:
        content = json.dumps(_finite(data), indent=1, ensure_ascii=False, default=float, allow_nan=False)
    content = content if content.endswith("\n") or not content else content + "\n"
    if out is None:
        typer.echo(content, nl=False)
        return
    from deltaproof.records.store import write_atomically

    write_atomically(out, content)
    if not quiet:
        typer.echo(f"written: {out}", err=True)


def emit_table(
    table: "Table",
    *,
    as_json: bool,
    with_examples: bool = True,
    quiet: bool = False,
    more: dict[str, Any] | None = None,
) -> None:
    """Write the report, print the table, and name the report on stderr."""
    from deltaproof.report import write_report

    path = write_report(table, with_examples=with_examples)
    emit({**table.to_json(), **(more or {})} if as_json else table.to_text(width=columns()), as_json=as_json)
    if not quiet:
        typer.echo(f"\nreport: {path}", err=True)


def say_to(quiet: bool) -> Callable[[str], None]:
    """Who is told of a study's progress, line by line: stderr, or nobody."""
    return (lambda text: None) if quiet else (lambda text: typer.echo(text, err=True))


def ask_to_replace(out: Path, overwrite: bool) -> bool:
    """Whether a folder may be replaced: asked on a terminal, refused by the command elsewhere."""
    if overwrite or not out.exists() or not sys.stdin.isatty():
        return overwrite
    return typer.confirm(f"`{out}` is there; replace it?", err=True)


def columns() -> int:
    """How wide a table may be: the terminal, but neither cramped nor endless."""
    return max(100, min(140, shutil.get_terminal_size((110, 24)).columns))


def reporter_for(folder: Path, quiet: bool, track: str | None = None) -> "Reporter":
    """Who is told of the progress: the terminal unless it is to be quiet, and a tracker if one is asked for."""
    from deltaproof.experiments.reporter import Reporter, Several
    from deltaproof.experiments.terminal import Terminal

    reporters: list[Reporter] = [] if quiet else [Terminal()]
    if track:
        from deltaproof.experiments.tracking import Tracking
        from deltaproof.trackers import open_tracker

        reporters.append(Tracking(open_tracker(track, folder / "tracking")))
    return Several(*reporters)


def _finite(data: Any) -> Any:
    """JSON knows no NaN and no infinity: null in their place."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
