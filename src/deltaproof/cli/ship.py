"""`deltaproof ship`."""

from pathlib import Path
from typing import Annotated

import typer

from deltaproof.cli import options as o


def ship(
    tuned: Annotated[Path, typer.Argument(help="A tuned model such as `runs/reviews/best`, or a run folder.")],
    to: Annotated[
        str, typer.Option("--to", help="merged, a transformers folder; adapter, in PEFT's format; onnx; gguf.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write.")],
    base: Annotated[
        str | None, typer.Option("--base", help="Where the base lies now. \\[default: where it did in training]")
    ] = None,
    licence: Annotated[str | None, typer.Option("--license", help="For the model card, such as `apache-2.0`.")] = None,
    overwrite: o.Overwrite = False,
    keep_failed: Annotated[bool, typer.Option("--keep-failed", help="Keep what failed a gate, as OUT.failed.")] = False,
    dtype: Annotated[
        str, typer.Option("--dtype", help="Of a merged model: store its weights in fp32, bf16 or fp16.")
    ] = "fp32",
    quantize: Annotated[
        str | None, typer.Option("--quantize", help="Of an ONNX graph: `int8`, matrices in 8 bits.")
    ] = None,
    tolerance: Annotated[
        float | None,
        typer.Option("--tolerance", help="How far a logit may be off, in units of the largest. \\[default: rounding]"),
    ] = None,
    score_tolerance: Annotated[
        float | None,
        typer.Option("--score-tolerance", help="How far the score on validation may move. \\[default: half a point]"),
    ] = None,
    with_examples: Annotated[
        bool, typer.Option("--examples", help="Let the report beside it show texts of test examples.")
    ] = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Export a tuned model, prove that what was written answers as what was measured, and put the evidence beside it.

    Nothing stands under the name of OUT unless every gate holds; exit code 3 then.

    Examples:

      deltaproof ship runs/reviews/best --to merged -o reviews-model/ --license apache-2.0

      deltaproof ship runs/reviews/best --to merged --dtype bf16 -o half/

      deltaproof ship runs/reviews --to adapter -o reviews-adapter/ --json | jq .gates
    """
    from deltaproof.cli.output import ask_to_replace, emit, say_to
    from deltaproof.experiments.wording import size
    from deltaproof.shipping.gate import gates_text
    from deltaproof.shipping.ship import ship as run

    overwrite = ask_to_replace(out, overwrite)
    shipped = run(
        tuned, to, out, base=base, licence=licence, overwrite=overwrite, keep_failed=keep_failed,
        with_examples=with_examples, dtype=dtype, quantize=quantize, tolerance=tolerance,
        score_tolerance=score_tolerance, say=say_to(quiet),
    )  # fmt: skip
    where = f"{shipped.folder}: {size(shipped.stored_bytes)}" if shipped.folder else f"{out}: not written"
    emit(shipped.to_json() if json else f"{gates_text(shipped.gates)}\n\n{where}", as_json=json)
    if not shipped.holds:
        raise typer.Exit(3)
