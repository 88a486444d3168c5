"""`deltaproof show`."""

from typing import Annotated, Any

import typer

from deltaproof.cli import options as o


def show(
    name: Annotated[str, typer.Argument(help="A method, such as `lora`.")],
    out: o.Out = None,
    seed: o.Seed = None,
    device: o.Device = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """Explain one method: idea, equation, paper, fields. Example: deltaproof show lora"""
    from deltaproof.cli.output import emit
    from deltaproof.methods.describe import describe

    facts = describe(name)
    emit(facts if json else _text(facts), as_json=json, out=out, quiet=quiet)


def _text(facts: dict[str, Any]) -> str:
    lines = [facts["name"], "", facts["idea"], ""]
    for key in ("equation", "trains", "paper", "advice", "learning_rate"):
        lines.append(f"{key.replace('_', ' '):14}{facts[key]}")
    lines += ["", "fields"]
    for field in facts["fields"]:
        lines.append(f"  {field['name']}: {field['type']} = {field['default']}")
        if field["meaning"]:
            lines.append(f"      {field['meaning']}")
    return "\n".join(lines if facts["fields"] else lines[:-1])
