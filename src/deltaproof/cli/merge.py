"""`deltaproof merge`."""

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from deltaproof.cli import options as o
from deltaproof.cli.plan_options import option, takes

_scored, _NEW = partial(option, rich_help_panel="What it is scored on"), "A task that no expert knows"

ASKED = {
    "how": option(
        "linear (the mean), task_arithmetic (the sum), ties, dare, dare_ties, svd. \\[default: linear; with --for "
        "task_arithmetic]"
    ),
    "weights": option(
        "equal (1 each), auto (chosen on validation), or `1,0.5,1`. \\[default: equal; with --for auto]",
        str, "--weights", "-w",
    ),
    "density": option("Share of entries that ties and dare keep. \\[default: 0.2]", float),
    "rank": option(
        "Cut the merge to this rank and write a PEFT adapter. \\[default: svd: 16]", int, "--rank", "-r"
    ),
    "base": option("The model that was tuned, where an expert does not say or it moved."),
    "with_test": _scored("Score on the sealed test rows too, once; it is entered.", bool, "--test"),
    "runs": _scored("Run folder with the data of an expert that lies elsewhere.", list[Path], "--run"),
    "budget": _scored("Most evaluations of `auto`. \\[default: 40]", int, min=1),
    "search_rows": _scored("Validation rows of each that one takes. \\[default: 200]", int, min=2),
    "trust_remote_code": o.RemoteCode,
    "seed": o.Seed,
}  # fmt: skip
"""Fields of `studies.merging.Settings`."""


@takes(
    "experts", "how", "weights", "density", "rank", "out", "head", "base", "with_test", "runs", "budget", "search_rows",
    "for_run", "examples", "overwrite", "trust_remote_code", "seed", "device",
    options=ASKED,
)  # fmt: skip
def merge(
    experts: Annotated[
        list[Path],
        typer.Argument(
            metavar="EXPERT...",
            help="Two or more of one base: .dpz files, run folders, tuned models, PEFT adapters, whole models.",
        ),
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write. Left out: scores alone.")] = None,
    head: Annotated[
        str | None,
        typer.Option("--head", help="The expert whose head the folder has; others: OUT/heads. \\[default: the first]"),
    ] = None,
    for_run: Annotated[
        Path | None,
        typer.Option("--for", help="Run folder of a further task to compose for.", rich_help_panel=_NEW),
    ] = None,
    examples: Annotated[
        int, typer.Option("--examples", min=2, help="Its labelled training rows to look at.", rich_help_panel=_NEW)
    ] = 64,
    overwrite: o.Overwrite = False,
    device: o.Device = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
    **fields: Any,
) -> None:
    """Make one model of several experts of one base, score it on the task of each, and keep the scores as a run.

    What is merged are the changes of the weights, one weight at a time. Experts of one task share an averaged head;
    others keep theirs. Scores and paired differences go to each expert's run folder (`studies/merging.json`) and its
    report. A search that was stopped goes on with the same command.

    Examples:

      deltaproof merge runs/sst2 runs/subj runs/trec --how ties --weights auto -o merged/

      deltaproof merge a.dpz b.dpz --run runs/a --run runs/b --weights 1,0.5 --json | jq '.runs[].validation'

      deltaproof merge runs/sst2 runs/subj --for runs/cola --examples 64
    """
    from deltaproof.cli.output import ask_to_replace, emit, say_to
    from deltaproof.experiments.wording import size
    from deltaproof.merging.sources import look_at
    from deltaproof.shipping.gate import gates_text
    from deltaproof.shipping.merged import check_request, write_merged
    from deltaproof.studies.composition import compose
    from deltaproof.studies.merging import Settings
    from deltaproof.studies.merging import merge as merge_all
    from deltaproof.studies.merging_text import merge_text
    from deltaproof.training.precision import pick_device

    if for_run is not None:
        fields = {"how": "task_arithmetic", "weights": "auto", **fields}
    settings = Settings(**fields, device=pick_device(device or "auto"))
    settings.recipe(len(experts))
    if out is not None:
        overwrite = ask_to_replace(out, overwrite)
        check_request(out, overwrite, head, [one.name for one in look_at(experts, settings.base)])
    say = say_to(quiet)
    if for_run is None:
        done = merge_all(experts, settings, say)
    else:
        done = compose(experts, for_run, settings, examples, say)
    written = None if out is None else write_merged(done, out, head, overwrite, say)
    found = {**done.to_json(), "written": None if written is None else written.to_json()}
    said = [merge_text(found)]
    if written is not None:
        said += ["", gates_text(written.gates), ""]
        said.append(f"{out}: {size(written.stored_bytes)}" if written.holds else f"{out}: not written")
        said += [f"  head of {one}: {out}/{place}" for one, place in written.heads.items() if place != "."]
    emit(found if json else "\n".join(said), as_json=json, quiet=quiet)
    if written is not None and not written.holds:
        raise typer.Exit(3)
