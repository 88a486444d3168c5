"""`deltaproof show`."""

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
    """Explain one method: idea, equation, paper, fields. Example: deltaproof show lora"""
    from deltaproof.cli.output import emit
    from deltaproof.methods.describe import describe
    from deltaproof.settings import parse_expression

    facts = describe(parse_expression(name)[0])
    if model is not None:
        facts["count"] = _count(name, model)
    emit(facts if json else _text(facts), as_json=json, out=out, quiet=quiet)


def _count(name: str, model: str) -> dict[str, Any]:
    from deltaproof.methods import method_from
    from deltaproof.methods.counting import count_trainable

    method = method_from(name)
    return {"method": method.label, "model": model, **asdict(count_trainable(method, model))}


def _text(facts: dict[str, Any]) -> str:
    lines = [facts["name"], "", facts["idea"], ""]
    for key in ("equation", "trains", "paper", "advice", "learning_rate"):
        lines.append(f"{key.replace('_', ' '):14}{facts[key]}")
    if count := facts.get("count"):
        lines.append(
            f"{'count':14}{count['method']} on {count['model']}: {count['n_method']:,} parameters, and "
            f"{count['n_head']:,} of a head for two labels; the whole model has {count['n_model']:,}"
        )
    lines += ["", "fields"]
    for field in facts["fields"]:
        lines.append(f"  {field['name']}: {field['type']} = {field['default']}")
        if field["meaning"]:
            lines.append(f"      {field['meaning']}")
    return "\n".join(lines if facts["fields"] else lines[:-1])
