"""`deltaproof gate`."""

from pathlib import Path
from typing import Annotated

import typer

from deltaproof.cli import options as o

MOST_TEXTS = 200
"""Each goes through both models alone."""


def gate(
    base: Annotated[str, typer.Argument(help="The model that was tuned: a folder, a hub id, or `minilm`.")],
    tuned: Annotated[
        Path, typer.Argument(help="A PEFT adapter, what `train` or `compare` saved, or a fully tuned model.")
    ],
    output: Annotated[
        Path | None,
        typer.Argument(metavar="[MERGED]", help="What was made of it: a merged model. \\[default: TUNED itself]"),
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="Ask with the texts of this file, instead of ten of our own.")
    ] = None,
    text: o.Text = None,
    tolerance: Annotated[
        float | None,
        typer.Option(
            "--tolerance",
            min=0.0,
            help="How far logits may be off, of the largest. \\[default: what rounding explains]",
        ),
    ] = None,
    out: o.Out = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Does what is to be shipped hold what was tuned? Exit code 3 unless every gate holds.

    Opens the folders as their users would, whoever made them: whole files, the right base, the head, tokenizer and
    label names, weights that are not the base's, equal answers.

    Examples:

      deltaproof gate bert-base-uncased adapter/ merged/

      deltaproof gate base/ runs/reviews/best --json | jq '.gates[] | select(.holds == false)'
    """
    from deltaproof.cli.output import emit
    from deltaproof.data.load import read_texts
    from deltaproof.shipping.check import check
    from deltaproof.shipping.evidence import run_of
    from deltaproof.shipping.gate import all_hold, gates_text
    from deltaproof.shipping.gate_log import enter_gates
    from deltaproof.shipping.probes import TEXTS

    texts = TEXTS if data is None else read_texts(data, text=text)[1][:MOST_TEXTS]
    gates = check(base, tuned, output, texts, tolerance)
    if (run := run_of(tuned)) is not None:
        enter_gates(run, f"check of {output.name}" if output is not None else "check as tuned", gates)
    holds = all_hold(gates)
    found = {"holds": holds, "gates": [gate.to_json() for gate in gates]}
    emit(found if json else gates_text(gates), as_json=json, out=out, quiet=quiet)
    if not holds:
        raise typer.Exit(3)
