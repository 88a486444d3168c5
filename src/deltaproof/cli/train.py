"""`deltaproof train`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from deltaproof.cli import options as o
from deltaproof.cli import plan_options as p
from deltaproof.cli.plan_options import takes


@takes(
    "model", "data", "method", "out", "learning_rate", *p.DATA, "metric", "trials", "tuning", "learning_rates",
    *p.TRAINING, "track", *p.PLACE,
    required=("model", "data"),
)  # fmt: skip
def train(
    method: Annotated[str, typer.Option("--method", help="One method, such as `lora(rank=16)`.")] = "lora",
    out: o.Out = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate", help="Use this one; otherwise it is tuned on validation.", rich_help_panel="Training"
        ),
    ] = None,
    track: o.Track = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    **fields: Any,
) -> None:
    """Train one method and keep it, as an adapter or as a model, in OUT/best.

    Example: deltaproof train --model bert-base-uncased --data reviews.csv --method "lora(rank=16)" --out my_adapter
    """
    from deltaproof.experiments.engines.fork_server import started_early

    fields |= {"methods": method, "seeds": 1, "baselines": False}
    if learning_rate is not None:
        fields["learning_rates"] = (learning_rate,)
    with started_early(fields):
        from deltaproof.cli.output import emit_table, reporter_for
        from deltaproof.errors import DeltaproofError
        from deltaproof.experiments.compare import compare
        from deltaproof.experiments.plan import plan_from
        from deltaproof.methods import method_from

        contestant = method_from(method)
        plan = plan_from({**fields, "methods": (contestant.label,)})
    folder = out or Path("runs") / f"{Path(fields['data']).stem}-{contestant.name}"
    table = compare(plan, out=folder, reporter=reporter_for(folder, quiet, track))
    best = folder / "best"
    emit_table(table, as_json=json, quiet=quiet, more={"tuned": str(best) if best.exists() else None})
    if not best.exists():
        status = table.rows[0].status.replace("_", " ")
        raise DeltaproofError(
            f"the training must come to its end, it ended as: {status}; see `{folder / 'records'}`, and try a lower "
            f"`--learning-rate` where it diverged, a smaller model or `--gradient-checkpointing` where memory ran out"
        )
    if not quiet:
        typer.echo(f"kept: {best}", err=True)
