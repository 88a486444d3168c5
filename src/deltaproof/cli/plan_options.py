"""Options that fill the fields of a plan, each declared once, under the name of its field.

A command says with `takes` which of them it has. What its user gave arrives as keywords, which are fields of a plan.
Commands about a run declare theirs by the same means, under the names of their settings' fields.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from inspect import Parameter, signature
from typing import Annotated, Any, get_args

import typer

from deltaproof.cli import options as o


def option(meaning: str, kind: Any = str, *flags: str, **more: Any) -> Any:
    """Without `flags` typer makes one of the field's name. A switch is off, and anything else None, when left out."""
    return Annotated[kind if kind is bool else kind | None, typer.Option(*flags, help=meaning, **more)]


_data, _protocol, _training, _output = (
    partial(option, rich_help_panel=panel) for panel in ("Data", "Protocol", "Training", "Output")
)

CONTEST = {
    "model": option("Hub id or folder of a transformers model, or `minilm`.", str, "--model", "-m"),
    "data": option("CSV, TSV, JSON lines, Parquet, a folder, a hub data set, or `demo`.", str, "--data", "-d"),
    "methods": option("Contestants: `full,lora(rank=16),ia3,head`."),
}
DATA = {
    "text": o.Text,
    "label": o.Label,
    "group": _data("Column of rows that belong together: one split, one unit."),
    "validation": _data("File of the validation rows."),
    "test": _data("File of the test rows."),
    "kind": _data("classification, regression or multilabel."),
    "encoding": o.Encoding,
    "format": _data("csv, tsv, json, jsonl, parquet, label_text. \\[default: by ending]"),
    "columns": _data("Names of the columns of files without a header line."),
    "label_names": _data("Names of labels: `0=negative,1=positive`."),
    "data_root": _data("Folder of local copies: `glue:sst2` is its glue/sst2."),
    "max_length": _data("Tokens per example. \\[default: 256]", int),
    "max_rows": _data("Use at most so many training rows.", int),
    "max_evaluation_rows": _data("Use at most so many validation and test rows.", int),
    "drop_leaks": _data("Remove rows that stand in a later split too.", bool, "--drop-leaks"),
    "drop_empty": _data("Leave out rows without a text.", bool, "--drop-empty"),
}
PROTOCOL = {
    "metric": _protocol("Metrics; the first decides: `macro_f1,accuracy`."),
    "reference": _protocol("Compare with this contestant. \\[default: full]"),
    "fallback_reference": _protocol("The reference if that one does not fit or diverges."),
    "margin": _protocol("Differences below this are equivalent. \\[default: 0.02]", float),
    "seeds": _protocol("Final runs per method. \\[default: 3]", int),
    "looks": _protocol("Look 2 or 3 times, and stop once all is settled. \\[default: 1]", int),
    "trials": _protocol("Learning rates tried per method. \\[default: 4]", int),
    "tuning": _protocol("grid, or halving: stop trials that cannot win. \\[default: grid]"),
    "learning_rates": _protocol("A fixed grid: `1e-5,1e-4`."),
    "budget": _protocol("`6 trials`, `30 minutes`, `20000 examples`."),
    "require": _protocol("Exit with 3 unless `lora.accuracy >= full.accuracy - 0.01`.", list[str]),
}
TRAINING = {
    "epochs": _training("Passes over the training rows. \\[default: 3]", float),
    "batch_size": _training("Examples per step. \\[default: 32]", int),
    "schedule": _training("linear, cosine or constant. \\[default: linear]"),
    "patience": _training("Stop after so many evaluations without gain.", int),
    "precision": _training("auto, fp32, bf16 or fp16. \\[default: auto]"),
    "gradient_checkpointing": _training("Less memory, a third more time.", bool, "--gradient-checkpointing"),
    "feature_extraction": _training("Frozen lower layers without dropout, once per row.", bool, "--feature-extraction"),
    "revision": _training("Commit of the model on the hub."),
    "trust_remote_code": o.RemoteCode,
}
KEPT = {
    "keep": _output("Tuned models to keep: best, all, none, or snapshots. \\[default: best]"),
    "reuse": _protocol("Take over finished runs of equal settings from these run folders."),
}
PLACE = {
    "seed": o.Seed,
    "device": o.Device,
    "workers": option("Trainings side by side. \\[default: one per core on a CPU, up to 4]", int, min=1),
    "memory": option("What trainings are planned to fill together: `4GB`. \\[default: 80 % of what is free]"),
    "devices_per_run": option("Spread each training of `full` over so many. \\[default: 1]", int, min=1),
    "engine": option("Where trainings run: local, lanes, auto, or ray for a Ray cluster. \\[default: local]"),
    "address": option("HOST:PORT of the Ray cluster. \\[default: this machine's]"),
}
OPTIONS: dict[str, Any] = {**CONTEST, **DATA, **PROTOCOL, **TRAINING, **KEPT, **PLACE}


def takes(
    *names: str, required: Sequence[str] = (), options: Mapping[str, Any] = OPTIONS
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command options that fill a plan; it gets those that its user gave, as keywords.

    Args:
        names: of the options and of parameters that the command declares itself, in the order of its help. Its own
            that are not named come behind.
        required: options that must be given.
        options: by their names, where they are not those of a plan.
    """

    def with_options(command: Callable[..., None]) -> Callable[..., None]:
        declared = signature(command)
        own = {name: one for name, one in declared.parameters.items() if one.kind is not Parameter.VAR_KEYWORD}
        order = dict.fromkeys((*names, *own))
        parameters = [
            own[name].replace(kind=Parameter.KEYWORD_ONLY) if name in own
            else _parameter(name, options[name], name in required)
            for name in order
        ]  # fmt: skip

        @wraps(command)
        def run(**values: Any) -> None:
            command(**{name: value for name, value in values.items() if name in own or _is_given(value)})

        vars(run)["__signature__"] = declared.replace(parameters=parameters)  # what typer reads
        run.__annotations__ = {one.name: one.annotation for one in parameters}
        return run

    return with_options


def _parameter(name: str, kind: Any, is_required: bool) -> Parameter:
    default: Any = Parameter.empty if is_required else False if get_args(kind)[0] is bool else None
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _is_given(value: Any) -> bool:
    """A zero is given, a switch that is off is not."""
    return value is not None and value is not False and value != []
