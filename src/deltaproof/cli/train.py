"""`deltaproof train`."""

from pathlib import Path
from typing import Annotated

import typer

from deltaproof.cli import options as o
from deltaproof.cli.compare import _columns, numbers
from deltaproof.cli.output import finish, reporter_for


def train(
    model: Annotated[str, typer.Option("--model", "-m", help="Hub id or folder of a transformers model, or `minilm`.")],
    data: Annotated[str, typer.Option("--data", "-d", help="CSV, TSV, JSON lines, Parquet, a folder, a hub data set, or `demo`.")],
    method: Annotated[str, typer.Option("--method", help="One method, such as `lora(rank=16)`.")] = "lora",
    out: o.Out = None,
    learning_rate: Annotated[float | None, typer.Option("--learning-rate", help="Use this one; otherwise it is tuned on validation.", rich_help_panel="Training")] = None,
    text: o.Text = None,
    label: o.Label = None,
    group: o.Group = None,
    validation: o.Validation = None,
    test: o.Test = None,
    kind: o.Kind = None,
    encoding: o.Encoding = None,
    max_length: o.MaxLength = None,
    max_rows: o.MaxRows = None,
    drop_leaks: o.DropLeaks = False,
    metric: o.Metric = None,
    trials: o.Trials = None,
    learning_rates: o.LearningRates = None,
    epochs: o.Epochs = None,
    batch_size: o.BatchSize = None,
    schedule: o.Schedule = None,
    patience: o.Patience = None,
    precision: o.Precision = None,
    gradient_checkpointing: o.Checkpointing = False,
    revision: o.Revision = None,
    trust_remote_code: o.RemoteCode = False,
    track: o.Track = None,
    seed: o.Seed = None,
    device: o.Device = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Train one method and keep it, as an adapter or as a model, in OUT/best.

    Example: deltaproof train --model bert-base-uncased --data reviews.csv --method "lora(rank=16)" --out my_adapter
    """
    from deltaproof.experiments.compare import compare
    from deltaproof.experiments.plan import plan_from
    from deltaproof.methods import method_from

    contestant = method_from(method)
    fields = {
        "model": model, "data": data, "methods": (contestant.label,), "text": text, "label": label, "group": group,
        "validation": validation, "test": test, "kind": kind, "encoding": encoding, "max_length": max_length, "max_rows": max_rows,
        "drop_leaks": drop_leaks or None, "metric": metric, "trials": trials,
        "learning_rates": (learning_rate,) if learning_rate else numbers(learning_rates), "epochs": epochs,
        "batch_size": batch_size, "schedule": schedule, "patience": patience, "precision": precision,
        "gradient_checkpointing": gradient_checkpointing or None, "revision": revision,
        "trust_remote_code": trust_remote_code or None, "seed": seed, "device": device, "seeds": 1, "baselines": False,
    }  # fmt: skip
    folder = out or Path("runs") / f"{Path(data).stem}-{contestant.name}"
    table = compare(plan_from(fields), out=folder, reporter=reporter_for(folder, quiet, track))
    best = folder / "best"
    if json:
        finish({**table.to_json(), "tuned": str(best)}, json, report_of=table, quiet=quiet)
    else:
        finish(f"{table.to_text(width=_columns())}\n\nkept in {best}", json, report_of=table, quiet=quiet)
