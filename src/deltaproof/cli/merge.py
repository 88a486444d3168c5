"""`deltaproof merge`."""

from pathlib import Path
from typing import Annotated

import typer

from deltaproof.cli import options as o

_SCORES, _NEW = "What it is scored on", "A task that no expert knows"


def merge(
    experts: Annotated[
        list[Path],
        typer.Argument(
            metavar="EXPERT...",
            help="Two or more of one base: .dpz files, run folders, tuned models, PEFT adapters, whole models.",
        ),
    ],
    how: Annotated[
        str | None,
        typer.Option(
            "--how",
            help="linear (the mean), task_arithmetic (the sum), ties, dare, dare_ties, svd. \\[default: linear; with "
            "--for task_arithmetic]",
        ),
    ] = None,
    weights: Annotated[
        str | None,
        typer.Option(
            "--weights",
            "-w",
            help="equal (1 each), auto (chosen on validation), or `1,0.5,1`. \\[default: equal; with --for auto]",
        ),
    ] = None,
    density: Annotated[
        float | None,
        typer.Option("--density", help="Share of entries that ties and dare keep. \\[default: 0.2]"),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option("--rank", "-r", help="Cut the merge to this rank and write a PEFT adapter. \\[default: svd: 16]"),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder to write. Left out: scores alone.")] = None,
    head: Annotated[
        str | None,
        typer.Option("--head", help="The expert whose head the folder has; others: OUT/heads. \\[default: the first]"),
    ] = None,
    base: Annotated[
        str | None, typer.Option("--base", help="The model that was tuned, where an expert does not say or it moved.")
    ] = None,
    test: Annotated[
        bool,
        typer.Option("--test", help="Score on the sealed test rows too, once; it is entered.", rich_help_panel=_SCORES),
    ] = False,
    run: Annotated[
        list[Path] | None,
        typer.Option(
            "--run", help="Run folder with the data of an expert that lies elsewhere.", rich_help_panel=_SCORES
        ),
    ] = None,
    budget: Annotated[
        int, typer.Option("--budget", min=1, help="Most evaluations of `auto`.", rich_help_panel=_SCORES)
    ] = 40,
    search_rows: Annotated[
        int,
        typer.Option("--search-rows", min=2, help="Validation rows of each that one takes.", rich_help_panel=_SCORES),
    ] = 200,
    for_run: Annotated[
        Path | None,
        typer.Option("--for", help="Run folder of a further task to compose for.", rich_help_panel=_NEW),
    ] = None,
    examples: Annotated[
        int, typer.Option("--examples", min=2, help="Its labelled training rows to look at.", rich_help_panel=_NEW)
    ] = 64,
    overwrite: o.Overwrite = False,
    trust_remote_code: o.RemoteCode = False,
    seed: o.Seed = None,
    device: o.Device = None,
    json: o.Json = False,
    quiet: o.Quiet = False,
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

    rule = how or ("linear" if for_run is None else "task_arithmetic")
    chosen = weights or ("equal" if for_run is None else "auto")
    settings = Settings(
        rule, chosen, density, rank, seed or 0, budget, search_rows, base, tuple(run or ()), test, trust_remote_code,
        pick_device(device or "auto"),
    )  # fmt: skip
    settings.recipe(len(experts))
    if out is not None:
        overwrite = ask_to_replace(out, overwrite)
        check_request(out, overwrite, head, [one.name for one in look_at(experts, base)])
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
