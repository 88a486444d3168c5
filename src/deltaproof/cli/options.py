"""Options that several commands take, declared once."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object to stdout; progress stays on stderr."),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder or file to write to.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the folder if it is there.")]
KeptMethods = Annotated[
    str | None, typer.Option("--methods", help="Look at these only: `full,lora(rank=16)`. \\[default: all kept]")
]
OneMethod = Annotated[
    str | None, typer.Option("--method", help="Of a run folder: this contestant instead of the best.")
]
Seed = Annotated[
    int | None,
    typer.Option("--seed", min=0, help="Drives everything random. \\[default: 0]"),
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="cpu, cuda, cuda:1, mps. \\[default: the best there is]"),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on stderr but errors.")]

_DATA, _TRAINING, _OUTPUT = "Data", "Training", "Output"

Text = Annotated[
    str | None,
    typer.Option("--text", help="Text column, or two for pairs: `question,answer`.", rich_help_panel=_DATA),
]
Label = Annotated[
    str | None,
    typer.Option("--label", help="Label column, or several for multi-label: `toxic,spam`.", rich_help_panel=_DATA),
]
Encoding = Annotated[
    str | None,
    typer.Option("--encoding", help="Encoding of text files. \\[default: utf-8]", rich_help_panel=_DATA),
]
RemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Run Python code that comes with the model.", rich_help_panel=_TRAINING),
]
Track = Annotated[
    str | None,
    typer.Option("--track", help="trackio, mlflow, wandb or tensorboard.", rich_help_panel=_OUTPUT),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Stop after the estimate of time and memory.", rich_help_panel=_OUTPUT)
]
NoExamples = Annotated[
    bool,
    typer.Option(
        "--no-examples", help="Leave texts out of the report, so that it can be shared.", rich_help_panel=_OUTPUT
    ),
]
Robustness = Annotated[
    bool,
    typer.Option(
        "--robustness",
        help="Then perturb the test rows: typos, words, embeddings, weights. Keeps every tuned model, and snapshots.",
        rich_help_panel=_OUTPUT,
    ),
]
Capacity = Annotated[
    bool,
    typer.Option(
        "--capacity",
        help="Then study the updates: ranks, displacement, forgetting. Keeps every tuned model.",
        rich_help_panel=_OUTPUT,
    ),
]
Compression = Annotated[
    bool,
    typer.Option(
        "--compression",
        help="Then compress the kept models at several densities, and score them on the test rows.",
        rich_help_panel=_OUTPUT,
    ),
]
