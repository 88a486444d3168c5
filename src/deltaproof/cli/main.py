"""`deltaproof`: the commands, and what their errors look like."""

import sys

import typer

from deltaproof.cli import compare, demo, importing, listing, predict, report, show, train
from deltaproof.errors import ConfigError, DeltaproofError

app = typer.Typer(
    name="deltaproof",
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
app.command("report")(report.report)
app.command("list")(listing.list_)
app.command("show")(show.show)
app.add_typer(importing.app, name="import")


@app.callback(invoke_without_command=True)
def version(context: typer.Context, version: bool = typer.Option(False, "--version", help="Print the version.")) -> None:
    if version:
        from deltaproof import __version__

        typer.echo(__version__)
        raise typer.Exit()


def main() -> None:
    """Run a command; a user's error is one paragraph on stderr, never a traceback."""
    try:
        app()
    except DeltaproofError as error:
        typer.secho(f"error: {error}", fg=typer.colors.RED if sys.stderr.isatty() else None, err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from here", err=True)
        sys.exit(130)


if __name__ == "__main__":
    main()
