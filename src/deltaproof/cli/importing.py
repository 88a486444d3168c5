"""`deltaproof import`."""

from pathlib import Path
from typing import Annotated

import typer

from deltaproof.cli import options as o

app = typer.Typer(help="Read results that were measured elsewhere.", no_args_is_help=True)


@app.callback()
def importing() -> None:
    """Read results that were measured elsewhere."""


@app.command("peft-results")
def peft_results(
    folder: Annotated[Path, typer.Argument(help="Folder of the JSON files of PEFT's MetaMathQA comparison.")],
    out: o.Out = None,
    seed: o.Seed = None,
    device: o.Device = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Rank PEFT's own comparison, with the groups that cannot be told apart.

    Example: deltaproof import peft-results peft/method_comparison/MetaMathQA/results --json | jq .tied_with_best
    """
    from deltaproof.cli.output import emit
    from deltaproof.interop.peft_results import read_peft_results

    ranking = read_peft_results(folder)
    emit(ranking.to_json() if json else ranking.to_text(), as_json=json, out=out, quiet=quiet)
