"""`deltaproof decompress`."""

from pathlib import Path
from typing import Annotated

import typer

from deltaproof.cli import options as o


def decompress(
    file: Annotated[Path, typer.Argument(metavar="FILE.dpz", help="A file that `deltaproof compress` wrote.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="A new folder.")],
    base: Annotated[str | None, typer.Option("--base", help="Where the model that was tuned lies now.")] = None,
    initial: Annotated[
        Path | None, typer.Option("--initial", help="Of a PEFT adapter compressed with it: its folder before training.")
    ] = None,
    trust_remote_code: o.RemoteCode = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """A compressed file as a folder again: what `predict` and transformers or PEFT load.

    A low-rank or IA3 update becomes a PEFT adapter, a full one a transformers model; tuned models of deltaproof keep
    their `deltaproof.json`.

    Examples:

      deltaproof decompress expert.dpz -o adapter/

      deltaproof predict adapter/ --data new.csv
    """
    from deltaproof.cli.output import emit
    from deltaproof.compression.restore import decompress as run

    run(file, out, trust_remote_code, base, initial)
    files = sorted(path.name for path in out.iterdir())
    emit({"folder": str(out), "files": files} if json else f"{out}: {', '.join(files)}", as_json=json, quiet=quiet)
