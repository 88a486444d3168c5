"""Scores of folders on labelled rows: those of the run that a model is from, or a file of the user's."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from deltaproof.backbones.source import find_source
from deltaproof.backbones.tokenizing import load_tokenizer, max_length_of
from deltaproof.data.labelled import read_labelled
from deltaproof.data.run_folder import read_dataset
from deltaproof.data.split import Split
from deltaproof.errors import BackboneError, ConfigError
from deltaproof.evaluation.predict import predict
from deltaproof.metrics import METRICS
from deltaproof.records.store import read_json
from deltaproof.shipping.evidence import run_of
from deltaproof.shipping.folders import kind_of
from deltaproof.shipping.opening import Opened, open_model_folder, open_on_base
from deltaproof.tasks.text import TextTask
from deltaproof.theory.adapters import CONFIG


def score(model: nn.Module, task: TextTask, tokenizer: Any, split: Split) -> float:
    """The task's first metric."""
    outputs = predict(model, task, task.encode(tokenizer, split), tokenizer.pad_token_id)
    return float(METRICS[task.metrics[0]].score(split.targets, outputs))


def score_opened(model: nn.Module, task: TextTask, tokenizers: Path, split: Split) -> float:
    """With the tokenizer of a folder; a decoder is told which token is padding."""
    tokenizer = load_tokenizer(tokenizers, str(tokenizers))
    config: Any = model.config
    if getattr(config, "pad_token_id", None) is None:
        config.pad_token_id = tokenizer.pad_token_id
    return score(model, task, tokenizer, split)


def scores_of(
    base: str | None, source: Path, folders: Sequence[Path], data: str | None = None, text: str | None = None,
    label: str | None = None,
) -> dict[str, Any] | None:  # fmt: skip
    """Scores of models or adapters, on a file's rows or on the validation rows of the run that `source` is from.

    Args:
        base: what the adapters lie on; None: the base of that run, or the one that the adapter names.
        folders: the first one's outputs and label names are those of all.
    Returns:
        metric, number of rows, where they are from, and the score of each folder; None where there are no rows.
    Raises:
        ConfigError: the model is no classifier and no regression of one number.
    """
    run = run_of(source)
    if data is None and run is None:
        return None
    if base is None:
        base = run.record.spec.model["name"] if run is not None else _named_base(source)
    opened = [_open(base, folder) for folder in folders]
    tokenizers = _with_tokenizer(base, folders[0])
    if data is None:
        assert run is not None
        task = TextTask.from_json(run.record.spec.task)
        split = read_dataset(run.store.folder / "data", ["validation"]).validation
        where = "validation rows"
    else:
        task = _task_of(opened[0], folders[0], tokenizers)
        split = read_labelled(data, task.labels, text=text, label=label)
        where = f"rows of {Path(data).name}"
    values = [score_opened(one.model, task, tokenizers, split) for one in opened]
    return {"metric": task.metrics[0], "n_rows": len(split), "rows": where, "values": values}


def scores_text(found: dict[str, Any]) -> str:
    """One line: before, and now."""
    before, after = found["values"]
    return f"{found['metric']} on {found['n_rows']} {found['rows']}: {before:.4g}, now {after:.4g}"


def _open(base: str, folder: Path) -> Opened:
    return open_model_folder(folder) if kind_of(folder) == "model" else open_on_base(base, folder)


def _named_base(adapter: Path) -> str:
    named = read_json(adapter / CONFIG).get("base_model_name_or_path")
    if not named:
        raise ConfigError(f"an adapter must name its base to be scored, `{adapter}` names none; gate it with its base")
    return str(named)


def _with_tokenizer(base: str, folder: Path) -> Path:
    """The folder, or the base's where an adapter came without a tokenizer."""
    try:
        load_tokenizer(folder, str(folder))
    except BackboneError:
        return find_source(base).folder
    return folder


def _task_of(opened: Opened, folder: Path, tokenizers: Path) -> TextTask:
    """What a model of elsewhere answers, as far as its folder tells."""
    n_outputs = opened.n_outputs
    if not n_outputs:
        raise ConfigError(
            f"a model must classify or tell a number to be scored, `{folder}` does neither; leave `--data` out"
        )
    longest = min(512, max_length_of(load_tokenizer(tokenizers, str(tokenizers)), opened.model))
    if n_outputs == 1:
        return TextTask("regression", None, ("mae",), longest)
    labels = opened.labels or tuple(str(at) for at in range(n_outputs))
    return TextTask("classification", labels, ("accuracy",), longest)
