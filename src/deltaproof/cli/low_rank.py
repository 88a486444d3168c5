"""`deltaproof extract` and `deltaproof squeeze`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from deltaproof.cli import options as o

Rank = Annotated[int, typer.Option("--rank", "-r", min=1, help="Of every matrix; one that has less keeps what it has.")]
Folder = Annotated[Path, typer.Option("--out", "-o", help="Folder to write the adapter to.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it is there.")]


def extract(
    base: Annotated[str, typer.Argument(help="The model that was tuned: a folder, a hub id, or `minilm`.")],
    tuned: Annotated[Path, typer.Argument(help="The fully tuned model's folder.")],
    out: Folder,
    rank: Rank = 16,
    overwrite: Overwrite = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """The best low-rank adapter of a fully tuned model, in PEFT's format, and what it loses.

    Linear maps and embeddings are cut to the rank; the head, norms and biases are kept whole.

    Example: deltaproof extract bert-base-uncased my-model/ --rank 16 -o adapter/
    """
    from deltaproof.cli.output import ask_to_replace, emit
    from deltaproof.experiments.wording import size
    from deltaproof.shipping.extract import extract as run
    from deltaproof.shipping.low_rank import cuts_text

    found = run(base, tuned, rank, out, ask_to_replace(out, overwrite))
    said = [
        cuts_text(found),
        f"logits move by up to {found['largest_logit_difference']:.3g}, the largest is {found['largest_logit']:.3g} "
        f"({found['n_texts']} texts)",
    ]
    if found["not_representable"]:
        said.append(f"PEFT has no place for {', '.join(found['not_representable'])}: left out")
    emit(found if json else "\n".join([*said, f"{out}: {size(found['stored_bytes'])}"]), as_json=json)


def squeeze(
    adapter: Annotated[Path, typer.Argument(help="A LoRA in PEFT's format.")],
    out: Folder,
    rank: Rank = 8,
    overwrite: Overwrite = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """The nearest LoRA of a lower rank, and what it loses; of a run's adapter also the score on validation.

    Example: deltaproof squeeze runs/reviews/best --rank 4 -o small/
    """
    from deltaproof.cli.output import ask_to_replace, emit
    from deltaproof.experiments.wording import size
    from deltaproof.shipping.low_rank import cuts_text
    from deltaproof.shipping.ship import scores_of
    from deltaproof.shipping.squeeze import squeeze as run

    found: dict[str, Any] = run(adapter, rank, out, ask_to_replace(out, overwrite))
    found["score"] = scores_of(adapter, [adapter, out])
    said = [cuts_text(found)]
    if found["score"]:
        before, after = found["score"]["values"]
        where = f"{found['score']['metric']} on {found['score']['n_rows']} validation rows"
        said.append(f"{where}: {before:.4g}, now {after:.4g}")
    said.append(f"{out}: {size(found['stored_bytes'])}, was {size(found['stored_bytes_before'])}")
    emit(found if json else "\n".join(said), as_json=json)
