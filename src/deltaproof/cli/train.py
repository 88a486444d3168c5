"""`deltaproof train`."""

from pathlib import Path
from typing import Annotated

import typer

from deltaproof.cli import options as o


def train(
    model: Annotated[str, typer.Option("--model", "-m", help="Hub id or folder of a transformers model, or `minilm`.")],
    data: Annotated[str, typer.Option("--data", "-d", help="CSV, TSV, JSON lines, Parquet, a folder, a hub data set.")],
    method: Annotated[str, typer.Option("--method", help="One method, such as `lora(rank=16)`.")] = "lora",
    out: o.Out = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            "--learning-rate", help="Use this one; otherwise it is tuned on validation.", rich_help_panel="Training"
        ),
    ] = None,
    text: o.Text = None,
    label: o.Label = None,
    group: o.Group = None,
    validation: o.Validation = None,
    test: o.Test = None,
    kind: o.Kind = None,
    encoding: o.Encoding = None,
    format: o.Format = None,
    columns: o.Columns = None,
    label_names: o.LabelNames = None,
    data_root: o.DataRoot = None,
    max_length: o.MaxLength = None,
    max_rows: o.MaxRows = None,
    max_evaluation_rows: o.MaxEvaluationRows = None,
    drop_leaks: o.DropLeaks = False,
    drop_empty: o.DropEmpty = False,
    metric: o.Metric = None,
    trials: o.Trials = None,
    tuning: o.Tuning = None,
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
    workers: o.Workers = None,
    memory: o.Memory = None,
    devices_per_run: o.DevicesPerRun = None,
    engine: o.Engine = None,
    address: o.Address = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Train one method and keep it, as an adapter or as a model, in OUT/best.

    Example: deltaproof train --model bert-base-uncased --data reviews.csv --method "lora(rank=16)" --out my_adapter
    """
    from deltaproof.experiments.engines.fork_server import started_early

    fields = {
        "model": model,
        "data": data,
        "methods": method,
        "text": text,
        "label": label,
        "group": group,
        "validation": validation,
        "test": test,
        "kind": kind,
        "encoding": encoding,
        "format": format,
        "columns": columns,
        "label_names": label_names,
        "data_root": data_root,
        "max_length": max_length,
        "max_rows": max_rows,
        "max_evaluation_rows": max_evaluation_rows,
        "drop_leaks": drop_leaks or None,
        "drop_empty": drop_empty or None,
        "metric": metric,
        "trials": trials,
        "tuning": tuning,
        "learning_rates": learning_rates if learning_rate is None else (learning_rate,),
        "epochs": epochs,
        "batch_size": batch_size,
        "schedule": schedule,
        "patience": patience,
        "precision": precision,
        "workers": workers,
        "memory": memory,
        "devices_per_run": devices_per_run,
        "engine": engine,
        "address": address,
        "gradient_checkpointing": gradient_checkpointing or None,
        "revision": revision,
        "trust_remote_code": trust_remote_code or None,
        "seed": seed,
        "device": device,
        "seeds": 1,
        "baselines": False,
    }
    with started_early({key: value for key, value in fields.items() if value is not None}):
        from deltaproof.cli.output import emit_table, reporter_for
        from deltaproof.errors import DeltaproofError
        from deltaproof.experiments.compare import compare
        from deltaproof.experiments.plan import plan_from
        from deltaproof.methods import method_from

        contestant = method_from(method)
        plan = plan_from({**fields, "methods": (contestant.label,)})
    folder = out or Path("runs") / f"{Path(data).stem}-{contestant.name}"
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
