"""`deltaproof`: the commands, and what their errors look like."""

import sys
from typing import Any

import typer
from typer.core import TyperGroup

from deltaproof.cli import (
    attack,
    capacity,
    compare,
    compress,
    decompress,
    demo,
    diagnose,
    evidence,
    gate,
    importing,
    inspect,
    interpolate,
    listing,
    low_rank,
    merge,
    predict,
    report,
    scale,
    ship,
    show,
    suite,
    train,
)
from deltaproof.errors import ConfigError, DeltaproofError

DONE, OUR_ERROR, WRONG_USAGE, GATE_FAILED, INTERRUPTED = 0, 1, 2, 3, 130
GOES_ON = ("attack", "capacity", "compare", "demo", "interpolate", "merge", "scale", "suite", "train")


class Commands(TyperGroup):
    """A user's error is one paragraph on stderr and an exit code, never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except DeltaproofError as error:
            typer.secho(f"error: {error}", fg=typer.colors.RED if sys.stderr.isatty() else None, err=True)
            raise typer.Exit(WRONG_USAGE if isinstance(error, ConfigError) else OUR_ERROR) from None
        except OSError as error:
            if isinstance(error, BrokenPipeError):  # the reader of our output went away: click knows what to do
                raise
            typer.echo(f"error: a file or folder must be usable, got {error}; check the path and its rights", err=True)
            raise typer.Exit(OUR_ERROR) from None
        except KeyboardInterrupt:
            rest = "; the same command goes on from here" if ctx.invoked_subcommand in GOES_ON else ""
            typer.echo(f"stopped{rest}", err=True)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    name="deltaproof",
    cls=Commands,
    help="Full fine-tuning or a parameter-efficient method? Runs the experiment that decides, on your model and data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 an error, 2 wrong usage, 3 a requirement does not hold.",
)
app.command("demo")(demo.demo)
app.command("compare")(compare.compare)
app.command("train")(train.train)
app.command("predict")(predict.predict)
app.command("scale")(scale.scale)
app.command("suite")(suite.suite)
app.command("capacity")(capacity.capacity)
app.command("attack")(attack.attack)
app.command("diagnose")(diagnose.diagnose)
app.command("evidence")(evidence.evidence)
app.command("compress")(compress.compress)
app.command("inspect")(inspect.inspect)
app.command("decompress")(decompress.decompress)
app.command("interpolate")(interpolate.interpolate)
app.command("merge")(merge.merge)
app.command("ship")(ship.ship)
app.command("gate")(gate.gate)
app.command("extract")(low_rank.extract)
app.command("squeeze")(low_rank.squeeze)
app.command("report")(report.report)
app.command("list")(listing.list_)
app.command("show")(show.show)
app.add_typer(importing.app, name="import")


@app.callback(invoke_without_command=True)
def version(version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        from deltaproof import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run a command."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that knows no `–` is no reason to stop
    app()


if __name__ == "__main__":
    main()
