"""`deltaproof show`."""

import sys
import textwrap
from dataclasses import asdict
from typing import Annotated, Any

import typer

from deltaproof.cli import options as o


def show(
    name: Annotated[str, typer.Argument(help="A method, such as `lora`, or with settings: `lora(rank=16)`.")],
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="Count what it would train of this model, loading no weights.")
    ] = None,
    out: o.Out = None,
    seed: o.Seed = None,
    device: o.Device = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Explain one method: idea, equation, start, places, paper, fields. Example: deltaproof show lora"""
    from deltaproof.cli.output import emit
    from deltaproof.methods.describe import describe

    facts = describe(name)
    if model is not None:
        facts["count"] = _count(name, model)
    is_bold = out is None and sys.stdout.isatty()
    emit(facts if json else _text(facts, is_bold), as_json=json, out=out, quiet=quiet)


def _count(name: str, model: str) -> dict[str, Any]:
    from deltaproof.methods import method_from
    from deltaproof.methods.counting import count_trainable

    method = method_from(name)
    return {"method": method.label, "model": model, **asdict(count_trainable(method, model))}


LABELS = {
    "equation": "equation",
    "start": "starts as",
    "where": "goes to",
    "trains": "trains",
    "learning_rate": "learning rate",
    "advice": "use it",
    "differences": "differs",
    "paper": "paper",
}


def _text(facts: dict[str, Any], is_bold: bool) -> str:
    from deltaproof.cli.output import columns

    def bold(text: str) -> str:
        return typer.style(text, bold=True) if is_bold else text

    def wrapped(text: str, first: str, further: str) -> list[str]:
        return textwrap.wrap(
            text, columns(), initial_indent=first, subsequent_indent=further, break_on_hyphens=False,
            break_long_words=False,
        )  # fmt: skip

    lines = [bold(facts["name"]), "", *wrapped(facts["idea"], "", ""), ""]
    for key, label in LABELS.items():
        lines += wrapped(facts[key], f"{label:15}", " " * 15)
    if count := facts.get("count"):
        text = (
            f"{count['n_method']:,} parameters of {count['method']} on {count['model']}, and {count['n_head']:,} of a "
            f"head for two labels; the whole model has {count['n_model']:,}"
        )
        lines += wrapped(text, f"{'count':15}", " " * 15)
    if facts["fields"]:
        lines += ["", bold("fields")]
    for field in facts["fields"]:
        value, default = field.get("value"), field["default"]
        usual = "" if default.startswith("(") else f" (default {default})"
        is_set = f"{value}{usual}" if value else default
        lines += wrapped(f"{field['name']}: {field['type']} = {is_set}", "  ", "      ")
        if field["meaning"]:
            lines += wrapped(field["meaning"], "      ", "      ")
    return "\n".join(lines)
