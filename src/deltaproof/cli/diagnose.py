"""`deltaproof diagnose`."""

import sys
from typing import Annotated

import typer

from deltaproof.cli import options as o


def diagnose(
    base: Annotated[str, typer.Argument(help="The model before: a folder, a hub id, or `minilm`.")],
    tuned: Annotated[
        str, typer.Argument(help="After: a model, a PEFT adapter, or a folder that `train` or `compare` saved.")
    ],
    against: Annotated[
        str | None, typer.Option("--against", help="Another update of the same base: do the two go the same way?")
    ] = None,
    no_intruders: Annotated[
        bool, typer.Option("--no-intruders", help="Leave out intruder dimensions, the slowest part.")
    ] = False,
    out: o.Out = None,
    seed: o.Seed = None,
    device: o.Device = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """What did tuning change? Norms, ranks and directions of each matrix's update, beside those of noise and rounding.

    Reads checkpoints and adapters one tensor at a time.

    Examples:

      deltaproof diagnose bert-base-uncased runs/reviews/best

      deltaproof diagnose base/ full/ --against lora/ --json | jq .summary
    """
    from deltaproof.cli.output import columns, emit
    from deltaproof.theory.diagnose import diagnose as run
    from deltaproof.theory.text import to_text
    from deltaproof.theory.updates import read_update
    from deltaproof.training.precision import pick_device

    place = pick_device(device or "auto")
    update, other = read_update(base, tuned), None if against is None else read_update(base, against)
    shows = not quiet and sys.stderr.isatty()
    diagnosis = run(
        update, other, with_intruders=not no_intruders, device=place, progress=_show if shows else lambda *_: None
    )
    emit(diagnosis.to_dict() if json else to_text(diagnosis, width=columns()), as_json=json, out=out, quiet=quiet)


def _show(done: int, n: int, name: str) -> None:
    """One line that is written over."""
    typer.echo(f"\r\033[K{f'{done} of {n}: {name}' if done < n else ''}", nl=False, err=True)
