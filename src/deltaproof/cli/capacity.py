"""`deltaproof capacity`."""

from pathlib import Path
from typing import Annotated

import typer

from deltaproof.cli import options as o


def capacity(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder that `compare --keep all` wrote.")],
    methods: o.KeptMethods = None,
    ranks: Annotated[
        str | None,
        typer.Option("--ranks", help="Where the full update is cut. \\[default: 1,2,4,8,16,32,64,128,256]"),
    ] = None,
    corpus: Annotated[
        Path | None, typer.Option("--corpus", help="Text on which forgetting is measured. \\[default: docstrings]")
    ] = None,
    out: o.Out = None,
    seed: o.Seed = None,
    device: o.Device = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """What are the updates made of, does a low rank bind, how far did the answers move, and what was forgotten?

    Measures on the tuned models that a run kept; the results stand in RUN/studies, and `deltaproof report RUN` draws
    them. A suite that was stopped goes on with the same command.

    Examples:

      deltaproof capacity runs/reviews

      deltaproof capacity runs/reviews --methods full,lora --ranks 1,4,16,64 --json | jq .expressivity.test
    """
    from deltaproof.cli.output import emit, say_to
    from deltaproof.cli.values import whole_numbers
    from deltaproof.settings import split_expressions
    from deltaproof.studies.capacity import capacity as run
    from deltaproof.studies.capacity_text import capacity_text
    from deltaproof.studies.expressivity import RANKS
    from deltaproof.training.precision import pick_device

    results = run(
        folder,
        split_expressions(methods) if methods else (),
        RANKS if ranks is None else (0, *whole_numbers(ranks, "--ranks")),
        corpus,
        seed or 0,
        pick_device(device or "auto"),
        say_to(quiet),
    )
    emit(results if json else capacity_text(results), as_json=json, out=out, quiet=quiet)
