"""`deltaproof extract` and `deltaproof squeeze`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from deltaproof.cli import options as o

Rank = Annotated[int, typer.Option("--rank", "-r", min=1, help="Of every matrix; one that has less keeps what it has.")]
Folder = Annotated[Path, typer.Option("--out", "-o", help="Folder to write the adapter to.")]
Data = Annotated[
    str | None, typer.Option("--data", "-d", help="Labelled rows to score before and after: a file, or a data set.")
]


def extract(
    base: Annotated[str, typer.Argument(help="The model that was tuned: a folder, a hub id, or `minilm`.")],
    tuned: Annotated[Path, typer.Argument(help="The fully tuned model's folder.")],
    out: Folder,
    rank: Rank = 16,
    data: Data = None,
    text: o.Text = None,
    label: o.Label = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """The best low-rank adapter of a fully tuned model, in PEFT's format, and what it loses.

    Linear maps and embeddings are cut to the rank; the head, norms and biases are kept whole. Both are scored on the
    rows of --data, or, for a model within its run folder, on that run's validation rows.

    Example: deltaproof extract bert-base-uncased my-model/ --rank 16 -o adapter/ --data reviews.csv
    """
    from deltaproof.cli.output import ask_to_replace, emit
    from deltaproof.experiments.wording import size
    from deltaproof.shipping.extract import extract as run
    from deltaproof.shipping.low_rank import cuts_text
    from deltaproof.shipping.scoring import scores_of, scores_text

    found = run(base, tuned, rank, out, ask_to_replace(out, overwrite))
    found["score"] = scores_of(base, tuned, [tuned, out], data, text, label)
    said = [
        cuts_text(found),
        f"logits move by up to {found['largest_logit_difference']:.3g}, the largest is {found['largest_logit']:.3g} "
        f"({found['n_texts']} texts)",
    ]
    if found["score"]:
        said.append(scores_text(found["score"]))
    if found["not_representable"]:
        said.append(f"PEFT has no place for {', '.join(found['not_representable'])}: left out")
    emit(found if json else "\n".join([*said, f"{out}: {size(found['stored_bytes'])}"]), as_json=json)


def squeeze(
    adapter: Annotated[Path, typer.Argument(help="A LoRA in PEFT's format.")],
    out: Folder,
    rank: Rank = 8,
    data: Data = None,
    text: o.Text = None,
    label: o.Label = None,
    overwrite: o.Overwrite = False,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """The nearest LoRA of a lower rank, and what it loses.

    Both are scored on the rows of --data, or, for an adapter within its run folder, on that run's validation rows.

    Example: deltaproof squeeze runs/reviews/best --rank 4 -o small/
    """
    from deltaproof.cli.output import ask_to_replace, emit
    from deltaproof.experiments.wording import size
    from deltaproof.shipping.low_rank import cuts_text
    from deltaproof.shipping.scoring import scores_of, scores_text
    from deltaproof.shipping.squeeze import squeeze as run

    found: dict[str, Any] = run(adapter, rank, out, ask_to_replace(out, overwrite))
    found["score"] = scores_of(None, adapter, [adapter, out], data, text, label)
    said = [cuts_text(found)]
    if found["score"]:
        said.append(scores_text(found["score"]))
    said.append(f"{out}: {size(found['stored_bytes'])}, was {size(found['stored_bytes_before'])}")
    emit(found if json else "\n".join(said), as_json=json)
