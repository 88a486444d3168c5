"""`deltaproof evidence`."""

from pathlib import Path
from typing import Annotated

import typer

from deltaproof.cli import options as o


def evidence(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, such as `runs/reviews`.")],
    out: o.Out = None,
    seed: o.Seed = None,
    device: o.Device = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """For and against: what a run says of each claim on parameter-efficient tuning, and what follows for you.

    Reads the records and what `capacity`, `scale` and `attack` left in the folder; needs neither the model nor torch.
    What was not measured is named, with the command that would.

    Examples:

      deltaproof evidence runs/reviews

      deltaproof evidence runs/reviews --json | jq '.claims[] | {name, verdict}'
    """
    from deltaproof.cli.output import columns, emit
    from deltaproof.evidence import evidence as run

    found = run(folder)
    emit(found.to_json() if json else found.to_text(width=columns()), as_json=json, out=out, quiet=quiet)
