"""`deltaproof inspect`."""

from pathlib import Path
from typing import Annotated

import typer

from deltaproof.cli import options as o


def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE.dpz", help="A file that `deltaproof compress` wrote.")],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    out: o.Out = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """What a compressed file holds: method, base, settings, sizes. Every byte is checked; the base is not needed.

    Example: deltaproof inspect expert.dpz --tensors
    """
    from deltaproof.cli.compress_text import inspection_text
    from deltaproof.cli.output import emit
    from deltaproof.compression.inspection import inspected

    found = inspected(file)
    emit(found if json else inspection_text(found, tensors), as_json=json, out=out, quiet=quiet)
