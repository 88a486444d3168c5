"""`deltaproof attack`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from deltaproof.cli import options as o
from deltaproof.cli.values import label_names as read_names
from deltaproof.cli.values import shares

_OWN, _SETTINGS = "Your own sets", "Strengths and draws"


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
    max_examples: Annotated[
        int | None, typer.Option("--max-examples", help="Most test rows, drawn by class. \\[default: all]")
    ] = None,
    adversarial: Annotated[
        list[str] | None,
        typer.Option(
            "--adversarial",
            help="File of adversarial or shifted rows; `tasks.json#sst2` is one list of several. May be repeated.",
            rich_help_panel=_OWN,
        ),
    ] = None,
    contrast: Annotated[
        list[str] | None,
        typer.Option(
            "--contrast",
            help="File of contrast sets or counterfactual pairs, told apart by --group. May be repeated.",
            rich_help_panel=_OWN,
        ),
    ] = None,
    label_names: Annotated[
        str | None,
        typer.Option(
            "--label-names",
            help="What these files write as label, and your data's name for it: `0=negative,1=positive`.",
            rich_help_panel=_OWN,
        ),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option("--text", help="Text column of these files, or two for pairs.", rich_help_panel=_OWN),
    ] = None,
    label: Annotated[
        str | None, typer.Option("--label", help="Label column of these files.", rich_help_panel=_OWN)
    ] = None,
    group: Annotated[
        str | None,
        typer.Option("--group", help="Column of their rows that belong together.", rich_help_panel=_OWN),
    ] = None,
    strengths: Annotated[
        str | None,
        typer.Option(
            "--strengths",
            help="Of the text perturbations, in 0..1: `0.1,0.3`. \\[default: each one's own three]",
            rich_help_panel=_SETTINGS,
        ),
    ] = None,
    draws: Annotated[
        int, typer.Option("--draws", min=1, help="Seeds of each text perturbation.", rich_help_panel=_SETTINGS)
    ] = 1,
    epsilons: Annotated[
        str | None,
        typer.Option(
            "--epsilons",
            help="Of embedding_pgd, shares of the embeddings' length. \\[default: 0.01,0.03,0.1]",
            rich_help_panel=_SETTINGS,
        ),
    ] = None,
    pgd_steps: Annotated[
        int, typer.Option("--pgd-steps", min=1, help="Gradient steps of embedding_pgd.", rich_help_panel=_SETTINGS)
    ] = 5,
    noise: Annotated[
        str | None,
        typer.Option(
            "--noise",
            help="Of weight_noise, shares of the weights' length. \\[default: 0.03,0.1,0.3]",
            rich_help_panel=_SETTINGS,
        ),
    ] = None,
    noise_draws: Annotated[
        int, typer.Option("--noise-draws", min=1, help="Draws of weight_noise.", rich_help_panel=_SETTINGS)
    ] = 3,
    max_queries: Annotated[
        int,
        typer.Option("--max-queries", min=1, help="Of a search, texts asked about one row.", rich_help_panel=_SETTINGS),
    ] = 200,
    transfer: Annotated[
        bool,
        typer.Option(
            "--transfer",
            help="Ask every method the texts that a search found against the reference, too.",
            rich_help_panel=_SETTINGS,
        ),
    ] = False,
    no_examples: o.NoExamples = False,
    out: o.Out = None,
    seed: o.Seed = None,
    device: o.Device = None,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, help="Models asked side by side. \\[default: one per core on a CPU, up to 4]"),
    ] = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
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

    given: dict[str, Any] = {
        "strengths": shares(strengths, "--strengths"),
        "epsilons": shares(epsilons, "--epsilons"),
        "noise_sizes": shares(noise, "--noise"),
    }
    settings = Attack(
        perturbations=_perturbations(perturbations), most_queries=max_queries, transfer=transfer,
        n_draws=draws, pgd_steps=pgd_steps, noise_draws=noise_draws, adversarial=tuple(adversarial or ()),
        contrast=tuple(contrast or ()), text=text, label=label, group=group, label_names=read_names(label_names),
        max_examples=max_examples, seed=seed or 0,
        **{key: value for key, value in given.items() if value is not None},
    )  # fmt: skip
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
