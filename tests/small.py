"""Small experiments for tests: made-up reviews, a random BERT, settings that train in moments."""

import csv
import random
from pathlib import Path
from typing import Any

from typer.testing import CliRunner

from deltaproof.cli.main import app
from deltaproof.experiments.reporter import Reporter
from deltaproof.records.store import Store

FAST: dict[str, Any] = {"epochs": 1, "batch_size": 16, "max_length": 16, "precision": "fp32", "device": "cpu"}
"""Fields of a plan that takes seconds."""
FAST_OPTIONS = ["--epochs", "1", "--batch-size", "16", "--max-length", "16", "--precision", "fp32", "--device", "cpu"]
TIMINGS = {"cost", "started", "seconds", "environment"}
"""Fields of a record that two runs of one spec do not share."""


def call(*arguments: Any) -> Any:
    """What the command line gives: exit code, stdout and stderr."""
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


class Sayings(Reporter):
    """Remembers what it was told in words."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def say(self, text: str) -> None:
        self.texts.append(text)


def write_reviews(path: Path, n_rows: int = 96, seed: int = 0) -> Path:
    """A CSV of reviews, good and bad in turn, each text once."""
    return write_csv(path, ["text", "label"], [[text, ("neg", "pos")[good]] for text, good in reviews(n_rows, seed)])


def reviews(n_rows: int, seed: int = 0) -> list[tuple[str, int]]:
    draw = random.Random(seed)
    openings, things = ("the", "this", "a", "one"), ("film", "story", "fox", "dog")
    return [
        (f"{draw.choice(openings)} {('bad', 'good')[at % 2]} {draw.choice(things)} {seed} {at}", at % 2)
        for at in range(n_rows)
    ]


def write_csv(path: Path, header: list[str], rows: list[list[Any]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def essence(folder: Path) -> dict[str, Any]:
    """What a run folder says but for timings: records by key, and the predictions to the last bit."""
    store = Store(folder)
    records = {
        record.spec.key: {name: value for name, value in record.to_json().items() if name not in TIMINGS}
        for record in store.records()
    }
    answers = {path.stem: store.predictions(path.stem) for path in sorted((folder / "predictions").glob("*.parquet"))}
    bits = {key: (found.ids, found.targets.tobytes(), found.outputs.tobytes()) for key, found in answers.items()}
    return {"records": records, "predictions": bits}
