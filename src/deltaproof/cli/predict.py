"""`deltaproof predict`."""

from pathlib import Path
from typing import Annotated

import typer

from deltaproof.cli import options as o


def predict(
    tuned: Annotated[Path, typer.Argument(help="A tuned model such as `runs/reviews/best`, or a run folder.")],
    data: Annotated[str, typer.Option("--data", "-d", help="File with the texts; labels are not needed.")],
    text: o.Text = None,
    method: o.OneMethod = None,
    encoding: o.Encoding = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Examples per forward pass.")] = 64,
    trust_remote_code: o.RemoteCode = False,
    out: o.Out = None,
    seed: o.Seed = None,
    device: o.Device = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Answer new texts with a tuned model: CSV to stdout or to --out, or one JSON object with --json.

    Example: deltaproof predict runs/reviews/best --data new.csv --out answers.csv
    """
    from deltaproof.cli.output import emit
    from deltaproof.experiments.answer import answer, as_csv, find_tuned

    answers = answer(
        find_tuned(tuned, method),
        data,
        text=text,
        encoding=encoding,
        device=device or "auto",
        batch_size=batch_size,
        trust_remote_code=trust_remote_code,
    )
    emit(answers if json else as_csv(answers), as_json=json, out=out, quiet=quiet)
