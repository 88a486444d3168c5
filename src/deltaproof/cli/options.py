"""Options that several commands take, declared once."""

from pathlib import Path
from typing import Annotated

import typer

Json = Annotated[
    bool,
    typer.Option("--json", help="Print one JSON object to stdout; progress stays on stderr."),
]
Out = Annotated[Path | None, typer.Option("--out", "-o", help="Folder or file to write to.")]
Seed = Annotated[
    int | None,
    typer.Option("--seed", min=0, help="Drives everything random. \\[default: 0]"),
]
Device = Annotated[
    str | None,
    typer.Option("--device", help="cpu, cuda, cuda:1, mps. \\[default: the best there is]"),
]
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, help="Trainings side by side. \\[default: one per core on a CPU, up to 4]"),
]
Memory = Annotated[
    str | None,
    typer.Option(
        "--memory", help="What trainings are planned to fill together: `4GB`. \\[default: 80 % of what is free]"
    ),
]
DevicesPerRun = Annotated[
    int | None,
    typer.Option("--devices-per-run", min=1, help="Spread each training of `full` over so many. \\[default: 1]"),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine", help="Where trainings run: local, lanes, auto, or ray for a Ray cluster. \\[default: local]"
    ),
]
Address = Annotated[
    str | None, typer.Option("--address", help="HOST:PORT of the Ray cluster. \\[default: this machine's]")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing on stderr but errors.")]

_DATA, _PROTOCOL, _TRAINING, _OUTPUT = "Data", "Protocol", "Training", "Output"

Model = Annotated[
    str | None,
    typer.Option("--model", "-m", help="Hub id or folder of a transformers model, or `minilm`."),
]
Data = Annotated[
    str | None,
    typer.Option("--data", "-d", help="CSV, TSV, JSON lines, Parquet, a folder, a hub data set, or `demo`."),
]
Text = Annotated[
    str | None,
    typer.Option("--text", help="Text column, or two for pairs: `question,answer`.", rich_help_panel=_DATA),
]
Label = Annotated[
    str | None,
    typer.Option("--label", help="Label column, or several for multi-label: `toxic,spam`.", rich_help_panel=_DATA),
]
Group = Annotated[
    str | None,
    typer.Option("--group", help="Column of rows that belong together: one split, one unit.", rich_help_panel=_DATA),
]
Validation = Annotated[
    str | None,
    typer.Option("--validation", help="File of the validation rows.", rich_help_panel=_DATA),
]
Test = Annotated[
    str | None,
    typer.Option("--test", help="File of the test rows.", rich_help_panel=_DATA),
]
Kind = Annotated[
    str | None,
    typer.Option("--kind", help="classification, regression or multilabel.", rich_help_panel=_DATA),
]
Encoding = Annotated[
    str | None,
    typer.Option("--encoding", help="Encoding of text files. \\[default: utf-8]", rich_help_panel=_DATA),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", help="csv, tsv, json, jsonl, parquet, label_text. \\[default: by ending]", rich_help_panel=_DATA
    ),
]
Columns = Annotated[
    str | None,
    typer.Option("--columns", help="Names of the columns of files without a header line.", rich_help_panel=_DATA),
]
LabelNames = Annotated[
    str | None,
    typer.Option("--label-names", help="Names of labels: `0=negative,1=positive`.", rich_help_panel=_DATA),
]
DataRoot = Annotated[
    str | None,
    typer.Option("--data-root", help="Folder of local copies: `glue:sst2` is its glue/sst2.", rich_help_panel=_DATA),
]
MaxEvaluationRows = Annotated[
    int | None,
    typer.Option("--max-evaluation-rows", help="Use at most so many validation and test rows.", rich_help_panel=_DATA),
]
MaxLength = Annotated[
    int | None,
    typer.Option("--max-length", help="Tokens per example. \\[default: 256]", rich_help_panel=_DATA),
]
MaxRows = Annotated[
    int | None,
    typer.Option("--max-rows", help="Use at most so many training rows.", rich_help_panel=_DATA),
]
DropLeaks = Annotated[
    bool,
    typer.Option("--drop-leaks", help="Remove rows that stand in a later split too.", rich_help_panel=_DATA),
]
DropEmpty = Annotated[bool, typer.Option("--drop-empty", help="Leave out rows without a text.", rich_help_panel=_DATA)]

Trials = Annotated[
    int | None,
    typer.Option("--trials", help="Learning rates tried per method. \\[default: 4]", rich_help_panel=_PROTOCOL),
]
Tuning = Annotated[
    str | None,
    typer.Option(
        "--tuning", help="grid, or halving: stop trials that cannot win. \\[default: grid]", rich_help_panel=_PROTOCOL
    ),
]
LearningRates = Annotated[
    str | None,
    typer.Option("--learning-rates", help="A fixed grid: `1e-5,1e-4`.", rich_help_panel=_PROTOCOL),
]
Metric = Annotated[
    str | None,
    typer.Option("--metric", help="Metrics; the first decides: `macro_f1,accuracy`.", rich_help_panel=_PROTOCOL),
]

Reference = Annotated[
    str | None,
    typer.Option("--reference", help="Compare with this contestant. \\[default: full]", rich_help_panel=_PROTOCOL),
]
FallbackReference = Annotated[
    str | None,
    typer.Option(
        "--fallback-reference", help="The reference if that one does not fit or diverges.", rich_help_panel=_PROTOCOL
    ),
]
Margin = Annotated[
    float | None,
    typer.Option(
        "--margin", help="Differences below this are equivalent. \\[default: 0.02]", rich_help_panel=_PROTOCOL
    ),
]
Seeds = Annotated[
    int | None,
    typer.Option("--seeds", help="Final runs per method. \\[default: 3]", rich_help_panel=_PROTOCOL),
]
Looks = Annotated[
    int | None,
    typer.Option(
        "--looks", help="Look 2 or 3 times, and stop once all is settled. \\[default: 1]", rich_help_panel=_PROTOCOL
    ),
]
Budget = Annotated[
    str | None,
    typer.Option("--budget", help="`6 trials`, `30 minutes`, `20000 examples`.", rich_help_panel=_PROTOCOL),
]
Require = Annotated[
    list[str] | None,
    typer.Option(
        "--require", help="Exit with 3 unless `lora.accuracy >= full.accuracy - 0.01`.", rich_help_panel=_PROTOCOL
    ),
]
NoBaselines = Annotated[
    bool, typer.Option("--no-baselines", help="Leave out majority class and TF-IDF.", rich_help_panel=_PROTOCOL)
]

Epochs = Annotated[
    float | None,
    typer.Option("--epochs", help="Passes over the training rows. \\[default: 3]", rich_help_panel=_TRAINING),
]
BatchSize = Annotated[
    int | None,
    typer.Option("--batch-size", help="Examples per step. \\[default: 32]", rich_help_panel=_TRAINING),
]
Schedule = Annotated[
    str | None,
    typer.Option("--schedule", help="linear, cosine or constant. \\[default: linear]", rich_help_panel=_TRAINING),
]
Patience = Annotated[
    int | None,
    typer.Option("--patience", help="Stop after so many evaluations without gain.", rich_help_panel=_TRAINING),
]
Precision = Annotated[
    str | None,
    typer.Option("--precision", help="auto, fp32, bf16 or fp16. \\[default: auto]", rich_help_panel=_TRAINING),
]
Checkpointing = Annotated[
    bool,
    typer.Option("--gradient-checkpointing", help="Less memory, a third more time.", rich_help_panel=_TRAINING),
]
Revision = Annotated[
    str | None,
    typer.Option("--revision", help="Commit of the model on the hub.", rich_help_panel=_TRAINING),
]
RemoteCode = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Run Python code that comes with the model.", rich_help_panel=_TRAINING),
]
Track = Annotated[
    str | None,
    typer.Option("--track", help="trackio, mlflow, wandb or tensorboard.", rich_help_panel=_OUTPUT),
]
Keep = Annotated[
    str | None,
    typer.Option(
        "--keep", help="Tuned models to keep: best, all, none, or snapshots. \\[default: best]", rich_help_panel=_OUTPUT
    ),
]
Reuse = Annotated[
    str | None,
    typer.Option(
        "--reuse", help="Take over finished runs of equal settings from these run folders.", rich_help_panel=_PROTOCOL
    ),
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
