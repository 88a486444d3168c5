"""`deltaproof interpolate`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from deltaproof.cli import options as o
from deltaproof.cli.values import label_names as read_names
from deltaproof.errors import ConfigError

_SHIFTED = "Shifted rows"


def interpolate(
    tuned: Annotated[
        Path, typer.Argument(metavar="RUN", help="A run folder, or a tuned model in one, such as `runs/reviews/best`.")
    ],
    alphas: Annotated[
        str | None,
        typer.Option("--alphas", help="Shares of the change, 0 the base and 1 the tuned model. \\[default: 0,0.1,…,1]"),
    ] = None,
    method: o.OneMethod = None,
    shift: Annotated[
        list[str] | None,
        typer.Option(
            "--shift",
            help="File of shifted or adversarial rows; `tasks.json#sst2` is one list of several. May be repeated.",
            rich_help_panel=_SHIFTED,
        ),
    ] = None,
    text: Annotated[
        str | None, typer.Option("--text", help="Their text column, or two for pairs.", rich_help_panel=_SHIFTED)
    ] = None,
    label: Annotated[str | None, typer.Option("--label", help="Their label column.", rich_help_panel=_SHIFTED)] = None,
    label_names: Annotated[
        str | None,
        typer.Option(
            "--label-names",
            help="What they write as label, and your data's name for it: `0=negative,1=positive`.",
            rich_help_panel=_SHIFTED,
        ),
    ] = None,
    test: Annotated[
        bool, typer.Option("--test", help="Score on the sealed test rows too; looking is entered once.")
    ] = False,
    alpha: Annotated[
        float | None, typer.Option("--alpha", help="Which one --out writes. \\[default: best on validation]")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write one of the models to.")] = None,
    overwrite: o.Overwrite = False,
    device: o.Device = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """How much of a change to keep: scores of W0 + alpha (W1 - W0) on clean and on shifted rows (WiSE-FT).

    The head is the tuned model's at every alpha, unless the base is a classifier for the same labels: then its head
    moves too. The curve goes to the run folder (`studies/interpolation.json`); what was answered is not asked again.

    Examples:

      deltaproof interpolate runs/reviews/best --shift shifted.csv

      deltaproof interpolate runs/sst2 --shift advglue/dev.json#sst2 --label-names 0=negative,1=positive
      --alpha 0.6 -o steadier/
    """
    from deltaproof.cli.output import ask_to_replace, emit, say_to
    from deltaproof.shipping.gate import all_hold, gates_text
    from deltaproof.shipping.interpolated import write_interpolated
    from deltaproof.shipping.place import check_place
    from deltaproof.studies.interpolation import ALPHAS, Settings
    from deltaproof.studies.interpolation import interpolate as run
    from deltaproof.studies.interpolation_text import interpolation_text
    from deltaproof.studies.merging import numbers
    from deltaproof.training.precision import pick_device

    if alpha is not None and out is None:
        raise ConfigError("`--alpha` says which model `--out` writes, got no folder; add `-o`, or leave it out")
    wanted = ALPHAS if alphas is None else tuple(numbers(alphas, "--alphas"))
    settings = Settings(
        wanted if alpha is None else (*wanted, alpha), tuple(shift or ()), text, label, read_names(label_names),
        test, pick_device(device or "auto"),
    )  # fmt: skip
    if out is not None:
        overwrite = ask_to_replace(out, overwrite)
        check_place(out, overwrite)
    curve = run(tuned, settings, method, say_to(quiet))
    said: dict[str, Any] = {**curve.to_json(), "gates": None}
    lines = [interpolation_text(said)]
    holds = True
    if out is not None:
        chosen = curve.entry["best_clean"] if alpha is None else alpha
        gates, holds = write_interpolated(curve, chosen, out, overwrite, say_to(quiet))
        said |= {**curve.to_json(), "gates": [gate.to_json() for gate in gates]}
        lines += ["", gates_text(gates), "", f"{out}: alpha {chosen:g}" if all_hold(gates) else f"{out}: not written"]
    emit(said if json else "\n".join(lines), as_json=json, quiet=quiet)
    if not holds:
        raise typer.Exit(3)
