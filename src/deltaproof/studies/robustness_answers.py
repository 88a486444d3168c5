"""Asking tuned models: every set's answers are stored at once, so that a study that was stopped goes on.

A run's final model and its snapshots are asked by one process. Several runs go side by side where there are cores for
it; each model computes with the threads of its own run, so that the answers do not depend on how many go at once.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from deltaproof.errors import DeltaproofError
from deltaproof.experiments.engines.local import LocalEngine
from deltaproof.experiments.engines.slots import plan_slots
from deltaproof.records.store import Store, read_json, read_predictions, write_json, write_predictions
from deltaproof.robustness.sets import write_perturbed
from deltaproof.robustness.weight_noise import weight_noise
from deltaproof.studies.kept_models import Bed
from deltaproof.studies.robustness_findings import answers_path, found_texts_path
from deltaproof.studies.robustness_queries import Asked, Model, OfRows, Query

Say = Callable[[str], None]
Failed = Mapping[str, str]
"""Files that a model could not give, with the reason."""


@dataclass(frozen=True, eq=False)
class Errand:
    """All that is asked of one run's models."""

    folder: Path
    device: str
    final: Model
    snapshots: tuple[Model, ...]
    queries: tuple[Query, ...]
    """Asked of the final model."""
    on_the_way: tuple[Query, ...]
    """Asked of each snapshot."""

    def left(self) -> list[tuple[Model, list[Query]]]:
        """The models that have no answer to something on disk yet, and to what."""
        asked = [(self.final, self.queries), *((model, self.on_the_way) for model in self.snapshots)]
        found = [(model, missing(self.folder, model, queries)) for model, queries in asked]
        return [(model, queries) for model, queries in found if queries]

    def __str__(self) -> str:
        left = self.left()
        n_files = sum(len(query.files) for model, queries in left if model is self.final for query in queries)
        n_snapshots = sum(model is not self.final for model, _ in left)
        parts = [f"{n_files} sets of answers"] * bool(n_files) + [f"{n_snapshots} snapshots"] * bool(n_snapshots)
        return f"{self.final.kept.label}, seed {self.final.kept.seed}: {' and '.join(parts)}"


def missing(folder: Path, model: Model, queries: Sequence[Query]) -> list[Query]:
    """What has no answer on disk yet."""
    return [
        query for query in queries if not all(answers_path(folder, model.name, file).exists() for file in query.files)
    ]


def run_errand(errand: Errand) -> dict[str, Failed]:
    """Ask a run's models whatever is not answered yet, and store each answer; by model what it could not give."""
    left = errand.left()
    if not left:
        return {}
    asked = Asked(Bed(Store(errand.folder), torch.device(errand.device)), errand.final.kept)
    failed = {}
    for model, queries in left:  # the final model comes first: it is what was loaded
        if model.snapshot is not None:
            asked.put_snapshot(model.snapshot)
        known = errand.queries if model is errand.final else errand.on_the_way
        _remember(asked, errand.folder, model, [query for query in known if isinstance(query, OfRows)])
        failed[model.name] = _ask(asked, errand.folder, model, queries)
    return failed


def _remember(asked: Asked, folder: Path, model: Model, queries: Sequence[OfRows]) -> None:
    """What the model answered before the study was stopped."""
    for query in queries:
        path = answers_path(folder, model.name, query.files[0])
        if path.exists():
            asked.remember(query.split, np.asarray(read_predictions(path, "delete it").outputs))


def _ask(asked: Asked, folder: Path, model: Model, queries: Sequence[Query]) -> Failed:
    failed: dict[str, str] = {}
    for query in queries:
        open_files = list(query.files)
        try:
            for answer in query.ask(asked):
                file = open_files.pop(0)
                path = answers_path(folder, model.name, file)
                if not np.isfinite(answer.predictions.outputs).all():
                    failed[file] = "its answers are not finite"
                elif not path.exists():
                    if answer.texts is not None:
                        write_perturbed(found_texts_path(folder, model.name, file), answer.texts)
                    write_predictions(path, answer.predictions)
        except DeltaproofError as error:
            failed |= dict.fromkeys(open_files, str(error))
    return failed


def n_workers_for(models: Sequence[Model], device: torch.device, wanted: int | None = None) -> int:
    """How many runs are asked at once: as many as there are cores for the threads of each."""
    n_threads = max((model.kept.record.spec.training.get("threads", 1) for model in models), default=1)
    slots = plan_slots(device.type)
    return min(wanted or max(1, slots.n_workers * slots.n_threads // n_threads), max(1, len(models)))


def run_errands(errands: Sequence[Errand], n_workers: int, say: Say) -> dict[str, Failed]:
    """Run each errand that has something left, several side by side in a process each.

    Raises:
        DeltaproofError: a process was killed twice, as happens where memory runs out, or met a bug.
    """
    left = [errand for errand in errands if errand.left()]
    if min(n_workers, len(left)) <= 1:
        found: dict[str, Failed] = {}
        for errand in left:
            say(str(errand))
            found |= run_errand(errand)
        return found
    engine = LocalEngine()
    engine.open_slots(n_workers)

    def one(errand: Errand) -> dict[str, Failed]:
        say(str(errand))
        done: dict[str, Failed] = engine.call(run_errand, errand)
        return done

    with ThreadPoolExecutor(n_workers) as pool:
        futures = [pool.submit(one, errand) for errand in left]
        try:
            for future in as_completed(futures):
                future.result()
        except BaseException:
            engine.stop()
            raise
    return {name: failed for future in futures for name, failed in future.result().items()}


def lengths_of_changes(bed: Bed, models: Sequence[Model], folder: Path, say: Say) -> dict[str, float]:
    """How long what each model learnt is, by its key: the length of noise of size 1 on it. Each is measured once."""
    place = folder / "robustness" / "lengths.json"
    known: dict[str, float] = read_json(place) if place.exists() else {}
    for model in models:
        if model.name not in known:
            say(f"the length of what {model.kept.label} learnt")
            asked = Asked(bed, model.kept)
            with weight_noise(asked.tuned, "trained", 1.0, base=asked.base) as noise:
                known[model.name] = float(noise.frobenius_norm)
            write_json(place, known)
    return known
