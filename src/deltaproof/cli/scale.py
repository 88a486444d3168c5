"""`deltaproof scale`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from deltaproof.cli import options as o
from deltaproof.cli.plan_options import takes
from deltaproof.cli.values import whole_numbers
from deltaproof.errors import ConfigError


@takes(
    "plan", "rank", "examples", "method", "equal", "model", "data", "methods", "out", "text", "label", "validation",
    "test", "max_length", "metric", "margin", "seeds", "trials", "epochs", "batch_size", "seed", "device", "workers",
    "memory", "engine", "address",
)  # fmt: skip
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
    methods: Annotated[
        str | None, typer.Option("--methods", help="Contestants beside the scaled one. \\[default: full, or full,lora]")
    ] = None,
    out: o.Out = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    **fields: Any,
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
    ranks = None if rank is None else whole_numbers(rank, "--rank")
    sizes = sizes_from(examples or "")
    if methods is None and plan is None:
        methods = "full" if rank is not None else "full,lora"
    if methods is not None:
        fields["methods"] = methods
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
