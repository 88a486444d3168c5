"""`deltaproof compress`."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deltaproof.cli import options as o
from deltaproof.cli.plan_options import option, takes

if TYPE_CHECKING:
    from deltaproof.studies.compression_points import Settings

_compressed = partial(option, rich_help_panel="What is compressed")

CHOSEN = {
    "density": option("Share of entries kept, several with --sweep and --study: `0.05,0.2`. \\[default: 0.2]"),
    "alpha": option(
        "`auto`: least error, no data needed. `search`: best on validation. Or a number. \\[default: auto]"
    ),
    "scope": option(
        "One threshold and scale per_tensor, per_factor, or global (the paper); several with --study. "
        "\\[default: per_tensor]"
    ),
    "start": _compressed(
        "Count from the true start (`init`) or from zero (`zero`, the paper). \\[default: init where known]"
    ),
}
"""What `compression.folder.read_choices` reads."""
READING = {
    "base": _compressed("The model that was tuned, if it lies elsewhere now."),
    "initial": _compressed("Of a PEFT adapter: its folder before training.", Path),
    "embeddings": _compressed("Of a full update: compress embeddings too.", bool, "--embeddings"),
    "trust_remote_code": o.RemoteCode,
}
"""Fields of `compression.folder.Options`."""


@takes(
    "tuned", "out", *CHOSEN, "sweep", "study", "rows", *READING, "allow_erased", "no_scores", "device",
    options={**CHOSEN, **READING},
)  # fmt: skip
def compress(
    tuned: Annotated[
        Path,
        typer.Argument(help="A tuned model such as `runs/reviews/best`, a run folder, a PEFT adapter, or a model."),
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write, such as `expert.dpz`.")] = None,
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
    allow_erased: Annotated[
        bool,
        typer.Option(
            "--allow-erased", help="Go on where an adapter's update is lost.", rich_help_panel="What is compressed"
        ),
    ] = False,
    no_scores: Annotated[bool, typer.Option("--no-scores", help="Do not score on validation.")] = False,
    device: o.Device = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    **fields: Any,
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
    asked = {name: fields.pop(name) for name in CHOSEN if name in fields}
    place, say = pick_device(device or "auto"), say_to(quiet)
    if study:
        from deltaproof.studies.compression import compression
        from deltaproof.studies.compression_text import compression_text

        results = compression(tuned, _studied(asked, fields.get("embeddings", False), rows), device=place, say=say)
        emit(results if json else compression_text(results), as_json=json, quiet=quiet)
        return
    chosen = read_choices(sweep, **asked)
    options = Options(chosen.start, with_scores=not no_scores, device=place, **fields)
    if out is None:
        found = sweep_folder(tuned, chosen.densities, chosen.alphas, chosen.scope, allow_erased, options, say)
        emit(found.to_dict() if json else sweep_text(found), as_json=json, quiet=quiet)
        return
    report = compress_folder(
        tuned, out, chosen.densities[0], chosen.alphas[0], chosen.scope, allow_erased, options, say
    )
    emit(report.to_dict() if json else report_text(report), as_json=json, quiet=quiet)


def _studied(asked: dict[str, str], embeddings: bool, rows: int | None) -> "Settings":
    from deltaproof.compression.folder import read_choices
    from deltaproof.studies.compression_points import ALPHAS, DENSITIES, STUDIED_SCOPES, Settings

    scopes = [part.strip() for part in asked["scope"].split(",")] if asked.get("scope") else STUDIED_SCOPES
    chosen = [read_choices(True, **{**asked, "scope": scope}) for scope in scopes]
    return Settings(
        chosen[0].densities if asked.get("density") else DENSITIES, chosen[0].alphas if asked.get("alpha") else ALPHAS,
        tuple(each.scope for each in chosen), start=chosen[0].start or "init", embeddings=embeddings, rows=rows,
    )  # fmt: skip
