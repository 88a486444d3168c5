"""`deltaproof attack`."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from deltaproof.cli import options as o
from deltaproof.cli.plan_options import option, takes
from deltaproof.cli.values import label_names, shares

_own, _settings = (partial(option, rich_help_panel=panel) for panel in ("Your own sets", "Strengths and draws"))

TRIED = {
    "max_examples": option("Most test rows, drawn by class. \\[default: all]", int),
    "adversarial": _own(
        "File of adversarial or shifted rows; `tasks.json#sst2` is one list of several. May be repeated.", list[str]
    ),
    "contrast": _own(
        "File of contrast sets or counterfactual pairs, told apart by --group. May be repeated.", list[str]
    ),
    "label_names": _own("What these files write as label, and your data's name for it: `0=negative,1=positive`."),
    "text": _own("Text column of these files, or two for pairs."),
    "label": _own("Label column of these files."),
    "group": _own("Column of their rows that belong together."),
    "strengths": _settings("Of the text perturbations, in 0..1: `0.1,0.3`. \\[default: each one's own three]"),
    "n_draws": _settings("Seeds of each text perturbation. \\[default: 1]", int, "--draws", min=1),
    "epsilons": _settings("Of embedding_pgd, shares of the embeddings' length. \\[default: 0.01,0.03,0.1]"),
    "pgd_steps": _settings("Gradient steps of embedding_pgd. \\[default: 5]", int, min=1),
    "noise_sizes": _settings(
        "Of weight_noise, shares of the weights' length. \\[default: 0.03,0.1,0.3]", str, "--noise"
    ),
    "noise_draws": _settings("Draws of weight_noise. \\[default: 3]", int, min=1),
    "most_queries": _settings("Of a search, texts asked about one row. \\[default: 200]", int, "--max-queries", min=1),
    "transfer": _settings(
        "Ask every method the texts that a search found against the reference, too.", bool, "--transfer"
    ),
    "seed": o.Seed,
}
"""Fields of `studies.robustness_sets.Attack`."""
_READ: dict[str, Callable[[str], Any]] = {
    "label_names": label_names,
    "strengths": partial(shares, option="--strengths"),
    "epsilons": partial(shares, option="--epsilons"),
    "noise_sizes": partial(shares, option="--noise"),
}


@takes(
    "folder", "methods", "perturbations", "max_examples", "out", *TRIED, "no_examples", "device", "workers",
    options=TRIED,
)  # fmt: skip
def attack(
    folder: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder that `compare --keep all` or `snapshots` wrote.")
    ],
    methods: o.KeptMethods = None,
    perturbations: Annotated[
        str,
        typer.Option(
            "--perturbations",
            help="all, none, or names: `char_swap,synonym`. `search` stands for searches against each model, which "
            "take longer: `all,search`.",
        ),
    ] = "all",
    no_examples: o.NoExamples = False,
    out: o.Out = None,
    device: o.Device = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Models asked side by side. \\[default: one per core on a CPU, up to 4]"),
    ] = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    **fields: Any,
) -> None:
    """What do typos, other words, moved embeddings, noisy weights or your own adversarial sets cost each method?

    Disturbs the test rows of a run that exists and asks every tuned model that it kept. Drops are held against the
    reference's, paired by example and seed, and at matched clean accuracy too. Opening the test rows is entered in the
    ledger. The exact texts stand in RUN/robustness; a study that was stopped goes on with the same command.

    Examples:

      deltaproof attack runs/reviews --max-examples 500

      deltaproof attack runs/reviews --perturbations none --adversarial advglue/dev.json#sst2
      --label-names 0=negative,1=positive

      deltaproof attack runs/reviews --perturbations char_swap,synonym --strengths 0.1,0.3 --json | jq .overall

      deltaproof attack runs/reviews --perturbations search --max-examples 200 --transfer
    """
    from deltaproof.cli.output import columns, emit, say_to
    from deltaproof.experiments.table import table_from
    from deltaproof.records.store import Store
    from deltaproof.report import write_report
    from deltaproof.settings import split_expressions
    from deltaproof.studies.robustness import robustness
    from deltaproof.studies.robustness_sets import Attack
    from deltaproof.studies.robustness_text import robustness_text
    from deltaproof.training.precision import pick_device

    read = {name: _READ[name](value) if name in _READ else value for name, value in fields.items()}
    settings = Attack(_perturbations(perturbations), **read)
    wanted = split_expressions(methods) if methods else ()
    result = robustness(folder, settings, wanted, pick_device(device or "auto"), say_to(quiet), workers)
    page = write_report(table_from(Store(folder)), with_examples=not no_examples)
    emit(result if json else robustness_text(result, columns()), as_json=json, out=out, quiet=quiet)
    if not quiet:
        typer.echo(f"\nreport: {page}", err=True)


def _perturbations(text: str) -> tuple[str, ...]:
    """Names, where `all` stands for all but the searches, `search` for these, and `none` for nothing."""
    from deltaproof.studies.robustness_sets import ALL, SEARCHES

    several = {"all": ALL, "search": SEARCHES, "none": ()}
    return tuple(dict.fromkeys(name for given in _names(text) for name in several.get(given, (given,))))


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
