"""`deltaproof list`."""

import textwrap
from typing import Annotated, Any

import typer

from deltaproof.cli import options as o
from deltaproof.errors import ConfigError, nearest


def list_(
    what: Annotated[str, typer.Argument(help="methods, tasks, models or metrics.")] = "methods",
    capabilities: Annotated[
        bool,
        typer.Option("--capabilities", help="Measure what each method can do, on tiny models: some minutes, once."),
    ] = False,
    only: Annotated[
        str | None,
        typer.Option("--only", help="Names of methods to measure, without settings: `lora,vera`. [default: all]"),
    ] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Measure again what was measured before.")] = False,
    out: o.Out = None,
    seed: o.Seed = None,
    device: o.Device = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """What there is. Example: deltaproof list methods --capabilities --only lora,vera"""
    from deltaproof.cli.output import emit

    if only is not None and not only.strip(", "):
        raise ConfigError("`--only` takes names of methods, got none; write for example `--only lora,vera`")
    if (only or fresh) and not capabilities:
        raise ConfigError("`--only` and `--fresh` say what to measure; add `--capabilities`")
    lists = {"methods": _methods, "tasks": _tasks, "models": _models, "metrics": _metrics}
    if what not in lists:
        raise ConfigError(f"`list` knows methods, tasks, models and metrics, got `{what}`; {nearest(what, lists)}")
    if capabilities:
        if what != "methods":
            raise ConfigError(f"`--capabilities` is for methods, got `{what}`; write `list methods --capabilities`")
        table = _measure(only, fresh, quiet)
        emit(table if json else _capabilities_text(table), as_json=json, out=out, quiet=quiet)
        return
    entries = lists[what]()
    width = max(len(entry["name"]) for entry in entries)
    lines = [f"{entry['name'].ljust(width)}  {entry['summary']}" for entry in entries]
    emit(entries if json else "\n".join(lines), as_json=json, out=out, quiet=quiet)
    if what == "methods" and not json and not quiet:
        typer.echo("\n`deltaproof show NAME` explains one; peft's take part under their own names too.", err=True)


def _methods() -> list[dict[str, Any]]:
    from deltaproof.methods import METHODS
    from deltaproof.methods.peft_bridge import peft_types

    ours = [
        {"name": name, "summary": kind.idea, "trains": kind.trains, "paper": kind.paper}
        for name, kind in sorted(METHODS.items())
    ]
    theirs = [
        {
            "name": f"peft_{name}" if name in METHODS else name,
            "summary": "from the installed peft",
            "trains": "",
            "paper": "",
        }
        for name in peft_types()
    ]
    return [*ours, *theirs]


def _measure(only: str | None, fresh: bool, quiet: bool) -> dict[str, Any]:
    from deltaproof.settings import split_expressions
    from deltaproof.testing.capability_table import capability_table

    def say(n_done: int, n_names: int, name: str) -> None:
        if not quiet:
            typer.echo(f"measuring {n_done + 1} of {n_names}: {name}", err=True)

    return capability_table(split_expressions(only or ""), fresh, say)


def _capabilities_text(table: dict[str, Any]) -> str:
    from deltaproof.cli.output import columns
    from deltaproof.testing.capability_table import TITLES, reasons, rows

    cells = rows(table)
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    made = ", ".join(f"{name} {version}" for name, version in table["made"].items())
    lines += ["", f"Measured on tiny models, with {made}."]
    for question, here in reasons(table).items():
        lines += ["", f"{TITLES.get(question, question)}: {table['questions'][question]}"]
        for reason, names in here.items():
            text = f"{', '.join(names)}: {reason}"
            lines += textwrap.wrap(
                text, columns(), initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False
            )
    return "\n".join(lines)


def _tasks() -> list[dict[str, Any]]:
    from deltaproof.metrics import default_metrics

    tasks = {
        "classification": "one of two or more classes, for a text or a pair of texts",
        "regression": "a number, for a text or a pair of texts",
        "multilabel": "any number of labels, for a text or a pair of texts",
    }
    return [
        {"name": name, "summary": f"{summary}; judged by {default_metrics(name)[0]}", "metrics": default_metrics(name)}
        for name, summary in tasks.items()
    ]


def _models() -> list[dict[str, Any]]:
    from deltaproof.backbones.families import FAMILIES

    known = [{"name": name, "summary": "any checkpoint of this model type"} for name in FAMILIES]
    return [
        {"name": "minilm", "summary": "MiniLM-L6, 22.7 M parameters, offline with the extra [demo]"},
        *known,
        {
            "name": "(others)",
            "summary": "encoders and decoders of transformers whose structure can be found out, with a notice",
        },
    ]


def _metrics() -> list[dict[str, Any]]:
    from deltaproof.metrics import METRICS

    return [
        {
            "name": name,
            "summary": metric.summary,
            "kinds": list(metric.kinds),
            "higher_is_better": metric.higher_is_better,
        }
        for name, metric in METRICS.items()
    ]
