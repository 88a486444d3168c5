"""`deltaproof compress`."""

from pathlib import Path
from typing import Annotated

import typer

from deltaproof.cli import options as o

_CHOICES = "What is compressed"


def compress(
    tuned: Annotated[
        Path,
        typer.Argument(help="A tuned model such as `runs/reviews/best`, a run folder, a PEFT adapter, or a model."),
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write, such as `expert.dpz`.")] = None,
    density: Annotated[
        str | None,
        typer.Option(
            "--density", help="Share of entries kept, several with --sweep and --study: `0.05,0.2`. \\[default: 0.2]"
        ),
    ] = None,
    alpha: Annotated[
        str | None,
        typer.Option(
            "--alpha",
            help="`auto`: least error, no data needed. `search`: best on validation. Or a number. \\[default: auto]",
        ),
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(
            "--scope",
            help="One threshold and scale per_tensor, per_factor, or global (the paper); several with --study. "
            "\\[default: per_tensor]",
        ),
    ] = None,
    sweep: Annotated[
        bool, typer.Option("--sweep", help="Score densities and alphas on validation; write none.")
    ] = False,
    study: Annotated[
        bool,
        typer.Option(
            "--study",
            help="Of a run folder: every kept model at every density, chosen on validation, then asked once of the "
            "test rows; stored for the report.",
        ),
    ] = False,
    rows: Annotated[
        int | None,
        typer.Option("--rows", min=2, help="Of --study: validation rows to choose on. \\[default: all]"),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--start",
            help="Count from the true start (`init`) or from zero (`zero`, the paper). \\[default: init where known]",
            rich_help_panel=_CHOICES,
        ),
    ] = None,
    base: Annotated[
        str | None,
        typer.Option("--base", help="The model that was tuned, if it lies elsewhere now.", rich_help_panel=_CHOICES),
    ] = None,
    initial: Annotated[
        Path | None,
        typer.Option("--initial", help="Of a PEFT adapter: its folder before training.", rich_help_panel=_CHOICES),
    ] = None,
    embeddings: Annotated[
        bool,
        typer.Option("--embeddings", help="Of a full update: compress embeddings too.", rich_help_panel=_CHOICES),
    ] = False,
    allow_erased: Annotated[
        bool,
        typer.Option("--allow-erased", help="Go on where an adapter's update is lost.", rich_help_panel=_CHOICES),
    ] = False,
    no_scores: Annotated[bool, typer.Option("--no-scores", help="Do not score on validation.")] = False,
    trust_remote_code: o.RemoteCode = False,
    device: o.Device = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Make an update small: keep the signs of its largest entries and a scale (ComPEFT), and say what that costs.

    LoRA, DoRA, IA3, PiCa and full updates, and PEFT's LoRA and IA3. Heads, norms, biases and embeddings stay as they
    are.

    Examples:

      deltaproof compress runs/reviews/best -o expert.dpz

      deltaproof compress runs/reviews/best -o expert.dpz --density 0.1 --alpha search

      deltaproof compress runs/reviews/best --sweep --density 0.05,0.1,0.2 --json | jq '.points[] | {density, alpha,
      score}'

      deltaproof compress runs/reviews --study --density 0.05,0.2,0.5
    """
    from deltaproof.cli.compress_text import report_text, sweep_text
    from deltaproof.cli.output import emit, say_to
    from deltaproof.compression.folder import Options, compress_folder, read_choices, sweep_folder
    from deltaproof.errors import ConfigError
    from deltaproof.training.precision import pick_device

    if sweep + study + (out is not None) != 1:
        raise ConfigError(
            "one of a file to write (`-o expert.dpz`), `--sweep` and `--study` must be given, and no two; choose one"
        )
    if study:
        _study(tuned, density, alpha, scope, start, embeddings, rows, device, json, quiet)
        return
    chosen = read_choices(density, alpha, scope or "per_tensor", start, sweep)
    place = pick_device(device or "auto")
    options = Options(chosen.start, base, initial, embeddings, trust_remote_code, not no_scores, place)
    if out is None:
        found = sweep_folder(tuned, chosen.densities, chosen.alphas, chosen.scope, allow_erased, options, say_to(quiet))
        emit(found.to_dict() if json else sweep_text(found), as_json=json, quiet=quiet)
        return
    report = compress_folder(
        tuned, out, chosen.densities[0], chosen.alphas[0], chosen.scope, allow_erased, options, say_to(quiet)
    )
    emit(report.to_dict() if json else report_text(report), as_json=json, quiet=quiet)


def _study(
    run: Path, density: str | None, alpha: str | None, scope: str | None, start: str | None, embeddings: bool,
    rows: int | None, device: str | None, json: bool, quiet: bool,
) -> None:  # fmt: skip
    from deltaproof.cli.output import emit, say_to
    from deltaproof.compression.folder import read_choices
    from deltaproof.studies.compression import compression
    from deltaproof.studies.compression_points import ALPHAS, DENSITIES, STUDIED_SCOPES, Settings
    from deltaproof.studies.compression_text import compression_text
    from deltaproof.training.precision import pick_device

    scopes = [part.strip() for part in scope.split(",")] if scope else STUDIED_SCOPES
    chosen = [read_choices(density, alpha, each, start, is_sweep=True) for each in scopes]
    settings = Settings(
        chosen[0].densities if density else DENSITIES, chosen[0].alphas if alpha else ALPHAS,
        tuple(each.scope for each in chosen), start=chosen[0].start or "init", embeddings=embeddings,
        rows=rows,
    )  # fmt: skip
    found = compression(run, settings, device=pick_device(device or "auto"), say=say_to(quiet))
    emit(found if json else compression_text(found), as_json=json, quiet=quiet)
