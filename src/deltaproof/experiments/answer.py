"""Answers of a tuned model to new texts."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from deltaproof.data.load import read_texts
from deltaproof.errors import RecordError, nearest
from deltaproof.evaluation.predict import predict
from deltaproof.experiments.kept import tuned_folder
from deltaproof.methods import method_from
from deltaproof.records.store import Store
from deltaproof.saving.folder import FACTS, load_tuned
from deltaproof.tasks.text import TextTask
from deltaproof.training.precision import pick_device


def find_tuned(folder: Path, method: str | None = None) -> Path:
    """The tuned model in a folder: the folder itself, or a run folder's best, or its model of one contestant."""
    if method is None:
        for candidate in (folder, folder / "best"):
            if (candidate / FACTS).exists():
                return candidate
        raise RecordError(
            f"`{folder}` must hold a tuned model ({FACTS}) or a run's `best`, found neither; "
            f"run `compare` or `train` to its end"
        )
    store = Store(folder)
    contestants = {entry["name"]: entry["final"] for entry in store.experiment()["contestants"]}
    label = method_from(method).label
    if label not in contestants:
        raise RecordError(f"`{folder}` has no contestant `{label}`; {nearest(label, contestants)}")
    for key in contestants[label]:
        kept = tuned_folder(store, key)
        if (kept / FACTS).exists():
            return kept
    raise RecordError(f"no tuned model of `{label}` was kept in `{folder}`; compare with `--keep best`, or train it")


def answer(
    folder: Path,
    data: str,
    *,
    text: str | None = None,
    encoding: str | None = None,
    device: str = "auto",
    batch_size: int = 64,
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Answers in the order of the rows: label and probabilities, or a value, or the labels that hold and probabilities.

    Args:
        folder: of the tuned model.
        data: what to answer; labels are not needed.
        text: its text columns; those that the model was trained on when left out.
    """
    place = pick_device(device)
    tuned, task, spec = load_tuned(folder, trust_remote_code)
    columns = spec["data"].get("text_columns")
    ids, texts = read_texts(data, text=text if text is not None else columns, encoding=encoding)
    tuned.to(place)
    tokenizer = tuned.backbone.tokenizer
    outputs = predict(tuned, task, task.encode_texts(tokenizer, texts), tokenizer.pad_token_id, batch_size)
    rows = [{"id": identity, **said(task, output)} for identity, output in zip(ids, outputs, strict=True)]
    return {"tuned": str(folder), "method": spec["contestant"], "kind": task.kind, "answers": rows}


def said(task: TextTask, output: np.ndarray) -> dict[str, Any]:
    """What a row of outputs says: label and probabilities, or a value, or the labels that hold and probabilities."""
    if task.kind == "regression":
        return {"value": float(output[0])}
    labels = task.labels or tuple(str(at) for at in range(len(output)))
    probabilities = {label: float(probability) for label, probability in zip(labels, output, strict=True)}
    if task.kind == "classification":
        return {"label": labels[int(output.argmax())], "probabilities": probabilities}
    holding = [label for label, probability in probabilities.items() if probability >= 0.5]
    return {"label": holding, "probabilities": probabilities}


def as_csv(answers: dict[str, Any]) -> str:
    """One line per row: id, answer, and a column per probability."""
    out = io.StringIO()
    rows = answers["answers"]
    labels = list(rows[0]["probabilities"]) if rows and "probabilities" in rows[0] else []
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "label" if labels else "value", *(f"p({label})" for label in labels)])
    for row in rows:
        answer = row.get("value", row.get("label"))
        shown = "|".join(answer) if isinstance(answer, list) else answer
        writer.writerow([row["id"], shown, *(f"{row['probabilities'][label]:.6g}" for label in labels)])
    return out.getvalue()
