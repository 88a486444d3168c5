"""Answers of a tuned model to new texts."""

import csv
import io
from pathlib import Path
from typing import Any

import torch

from deltaproof.data.load import read_texts
from deltaproof.errors import RecordError, nearest
from deltaproof.evaluation.predict import predict
from deltaproof.methods import method_from
from deltaproof.records.store import Store
from deltaproof.saving.folder import FACTS, load_tuned
from deltaproof.training.precision import pick_device


def find_tuned(folder: Path, method: str | None = None) -> Path:
    """The tuned model in a folder: the folder itself, or a run folder's best, or its model of one contestant."""
    if method is None:
        for candidate in (folder, folder / "best"):
            if (candidate / FACTS).exists():
                return candidate
        raise RecordError(f"`{folder}` must hold a tuned model ({FACTS}) or a run's `best`, found neither; run `compare` or `train` to its end")
    store = Store(folder)
    contestants = {entry["name"]: entry["final"] for entry in store.experiment()["contestants"]}
    label = method_from(method).label
    if label not in contestants:
        raise RecordError(f"`{folder}` has no contestant `{label}`; {nearest(label, contestants)}")
    for key in contestants[label]:
        if (folder / "tuned" / key / FACTS).exists():
            return folder / "tuned" / key
    raise RecordError(f"no tuned model of `{label}` was kept in `{folder}`; compare with `--keep best`, or train it")


def answer(
    tuned_folder: Path, data: str, *, text: str | None = None, encoding: str | None = None, device: str = "auto",
    batch_size: int = 64, trust_remote_code: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Answers in the order of the rows: label and probabilities, or a value, or the labels that hold and probabilities."""
    tuned, task, spec = load_tuned(tuned_folder, trust_remote_code)
    columns = spec["data"].get("text_columns")
    ids, texts = read_texts(data, text=text if text is not None else columns, encoding=encoding)
    tuned.to(pick_device(device))
    tokenizer = tuned.backbone.tokenizer
    with torch.inference_mode():
        outputs = predict(tuned, task, task.encode_texts(tokenizer, texts), tokenizer.pad_token_id, batch_size)
    rows: list[dict[str, Any]] = []
    for identity, output in zip(ids, outputs, strict=True):
        row: dict[str, Any] = {"id": identity}
        if task.kind == "regression":
            row["value"] = float(output[0])
        else:
            labels = task.labels or tuple(str(at) for at in range(len(output)))
            row["label"] = labels[int(output.argmax())] if task.kind == "classification" else [
                label for label, probability in zip(labels, output, strict=True) if probability >= 0.5
            ]  # fmt: skip
            row["probabilities"] = {label: float(probability) for label, probability in zip(labels, output, strict=True)}
        rows.append(row)
    return {"tuned": str(tuned_folder), "method": spec["contestant"], "kind": task.kind, "answers": rows}


def as_csv(answers: dict[str, Any]) -> str:
    """One line per row: id, answer, and a column per probability."""
    out = io.StringIO()
    rows = answers["answers"]
    labels = list(rows[0]["probabilities"]) if rows and "probabilities" in rows[0] else []
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(["id", "label" if labels else "value", *(f"p({label})" for label in labels)])
    for row in rows:
        said = row.get("value", row.get("label"))
        shown = "|".join(said) if isinstance(said, list) else said
        writer.writerow([row["id"], shown, *(f"{row['probabilities'][label]:.6g}" for label in labels)])
    return out.getvalue()
