"""`deltaproof scale`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from deltaproof.cli import options as o
from deltaproof.errors import ConfigError


def scale(
    plan: Annotated[Path | None, typer.Argument(help="A plan in TOML; options override its fields.")] = None,
    rank: Annotated[str | None, typer.Option("--rank", help="Ranks of one method: `1,2,4,8,16`.")] = None,
    examples: Annotated[
        str | None, typer.Option("--examples", help="Sizes of the training set: `64,256,1k,4k,all`.")
    ] = None,
    method: Annotated[str, typer.Option("--method", help="With --rank: the method that gets the ranks.")] = "lora",
    equal: Annotated[
        str, typer.Option("--equal", help="With --examples: equal `epochs`, or `steps` (examples seen).")
    ] = "epochs",
    model: o.Model = None,
    data: o.Data = None,
    methods: Annotated[
        str | None, typer.Option("--methods", help="Contestants beside the scaled one. \\[default: full, or full,lora]")
    ] = None,
    out: o.Out = None,
    text: o.Text = None,
    label: o.Label = None,
    validation: o.Validation = None,
    test: o.Test = None,
    max_length: o.MaxLength = None,
    metric: o.Metric = None,
    margin: o.Margin = None,
    seeds: o.Seeds = None,
    trials: o.Trials = None,
    epochs: o.Epochs = None,
    batch_size: o.BatchSize = None,
    seed: o.Seed = None,
    device: o.Device = None,
    workers: o.Workers = None,
    memory: o.Memory = None,
    engine: o.Engine = None,
    address: o.Address = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """What more parameters or more data are worth: the same comparison at several sizes, and curves through them.

    Each point is tuned and run at several seeds, so a sweep takes as long as its comparisons together. The report of
    the run folder draws the curves, where two methods cross, and whether the next doubling still paid.

    Examples:

      deltaproof scale --model minilm --data demo --rank 1,2,4,8,16,32

      deltaproof scale plans/my_study.toml --examples 64,256,1k,all --methods full,lora
    """
    from deltaproof.experiments.compare import settle

    if (rank is None) == (examples is None):
        raise ConfigError("a sweep is over one thing, `--rank` or `--examples`, got both or neither; name one of them")
    if equal not in ("epochs", "steps"):
        raise ConfigError(f"`--equal` must be `epochs` or `steps`, got `{equal}`; write one of them")
    ranks = None if rank is None else numbers(rank, "--rank")
    sizes = sizes_from(examples or "")
    given: dict[str, Any] = {
        "model": model, "data": data, "text": text, "label": label, "validation": validation, "test": test,
        "methods": methods, "max_length": max_length, "metric": metric, "margin": margin, "seeds": seeds,
        "trials": trials, "epochs": epochs, "batch_size": batch_size, "seed": seed, "device": device,
        "workers": workers, "memory": memory, "engine": engine, "address": address,
    }  # fmt: skip
    fields = {key: value for key, value in given.items() if value is not None}
    if plan is None:
        fields.setdefault("methods", "full" if rank is not None else "full,lora")
    settled, folder = settle(plan, out, fields)  # before what is loaded below: it has the workers' libraries loaded

    from deltaproof.cli.output import emit, reporter_for
    from deltaproof.experiments.table import table_from
    from deltaproof.records.store import Store
    from deltaproof.report import write_report
    from deltaproof.studies.scale import scale_examples, scale_parameters
    from deltaproof.studies.scale_text import scale_text

    reporter = reporter_for(folder, quiet, None)
    if ranks is not None:
        result = scale_parameters(settled, ranks, folder, reporter, method)
    else:
        result = scale_examples(settled, sizes, folder, reporter, "steps" if equal == "steps" else "epochs")
    page = write_report(table_from(Store(folder)))
    emit(result if json else scale_text(result), as_json=json)
    if not quiet:
        typer.echo(f"\nreport: {page}", err=True)


def numbers(text: str, option: str) -> list[int]:
    """Whole numbers separated by commas."""
    try:
        found = [int(part) for part in text.split(",") if part.strip()]
    except ValueError:
        found = []
    if not found or min(found) < 1:
        raise ConfigError(f"`{option}` takes whole numbers of at least 1, got `{text}`; write for example 1,2,4,8")
    return found


def sizes_from(text: str) -> list[int | None]:
    """Numbers of examples; `1k` is a thousand, `all` is None."""
    sizes: list[int | None] = []
    for part in (part.strip().lower() for part in text.split(",") if part.strip()):
        digits, factor = (part[:-1], 1000) if part.endswith("k") else (part, 1)
        if part != "all" and not digits.isdigit():
            raise ConfigError(
                f"`--examples` takes numbers, `1k` or `all`, got `{part}`; write for example 64,256,1k,all"
            )
        sizes.append(None if part == "all" else factor * int(digits))
    return sizes
