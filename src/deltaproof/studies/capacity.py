"""The capacity suite of a run folder: every study of what the updates are and what they could express, one by one.

Each study's JSON says what it was made from; one that stands there for the same models and settings is not made again,
so that a suite that was stopped goes on, and ends with what it would have ended with.
"""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from deltaproof.backbones.sites import weight_of
from deltaproof.errors import DeltaproofError
from deltaproof.experiments.wording import duration
from deltaproof.methods.base import LINEAR_ROLES
from deltaproof.records.store import Store, read_json
from deltaproof.studies.displacement import displacement
from deltaproof.studies.expressivity import RANKS, expressivity
from deltaproof.studies.forgetting import forgetting
from deltaproof.studies.kept_models import Bed, KeptModel, kept_models
from deltaproof.studies.path import STEPS, path
from deltaproof.studies.spectra import spectra
from deltaproof.theory.subspaces import leading_directions

Say = Callable[[str], None]
Result = TypeVar("Result")
FORMAT = 1
_TIMED_ROWS = 32
_DECOMPOSITIONS = 6
"""Of each changed matrix: its own, the base's, two for intruders, two for directions."""


@dataclass(frozen=True)
class _Study:
    name: str
    inputs: dict[str, Any]
    """What its result depends on, beside the code."""
    run: Callable[[], dict[str, Any]]
    n_passes: int
    """Passes over the validation rows that it takes, for the estimate."""
    n_loads: int
    """How often it reads a model."""


def capacity(
    run: Path | str,
    contestants: Sequence[str] = (),
    ranks: Sequence[int] = RANKS,
    corpus: Path | None = None,
    seed: int = 0,
    device: torch.device | str = "cpu",
    say: Say = lambda text: None,
) -> dict[str, dict[str, Any]]:
    """Results of expressivity, spectra, displacement, path and forgetting, by name; each is in `studies/` too.

    A study that cannot be made of this run says so in `reason`, beside `applicable: false`, and the others go on.

    Args:
        run: a folder that `compare` wrote with `keep="all"`; with `best`, one seed of each method is looked at.
        contestants: labels, all when none is named; the truncation test is of `full` and LoRA, whatever is named.
        ranks: where the full update is cut.
        corpus: text on which forgetting is measured.
        seed: chooses the examples at which slopes are measured.
    Raises:
        RecordError: nothing was kept, or there is no such contestant.
    """
    bed = Bed(Store(run), torch.device(device))
    models = kept_models(bed.store, contestants)
    studies = _studies(bed, models, contestants, ranks, corpus, seed, say)
    open_ones = [study for study in studies if _standing(bed.store, study) is None]
    for line in _before(bed, models, open_ones):
        say(line)
    return {study.name: _result(bed, study, say) for study in studies}


def _studies(
    bed: Bed, models: Sequence[KeptModel], contestants: Sequence[str], ranks: Sequence[int], corpus: Path | None,
    seed: int, say: Say,
) -> list[_Study]:  # fmt: skip
    keys = [kept.key for kept in models]
    full = [kept.key for kept in kept_models(bed.store) if kept.method.name == "full"]
    finals = [key for entry in bed.experiment["contestants"] for key in entry["final"]]
    n, n_full = len(models), len(full)
    return [
        _Study("expressivity", {"keys": full, "finals": finals, "ranks": sorted(set(ranks))},
               lambda: expressivity(bed, ranks, say), 3 * n_full * (len(set(ranks)) + 1), 4 * n_full),
        _Study("spectra", {"keys": keys, "full": full}, lambda: spectra(bed, contestants, say), 0, 3 * n),
        _Study("displacement", {"keys": keys, "seed": seed},
               lambda: displacement(bed, contestants, seed, say), 3 * n, 3 * n),
        _Study("path", {"keys": keys, "steps": list(STEPS)},
               lambda: path(bed, contestants, say=say), len(STEPS) * n, 3 * n),
        _Study("forgetting", {"keys": keys, "corpus": _digest(corpus)},
               lambda: forgetting(bed, corpus, contestants, say), n, 3 * n),
    ]  # fmt: skip


def _digest(corpus: Path | None) -> str:
    """Of the text's bytes, so that a file that changed is another text; one that cannot be read is refused later."""
    if corpus is None or not corpus.is_file():
        return str(corpus)
    return hashlib.sha256(corpus.read_bytes()).hexdigest()[:16]


def _standing(store: Store, study: _Study) -> dict[str, Any] | None:
    """The study's result, where it stands for the same inputs."""
    place = store.study_path(study.name)
    found: dict[str, Any] | None = read_json(place) if place.exists() else None
    return found if found is not None and found.get("inputs") == _inputs(study) else None


def _inputs(study: _Study) -> dict[str, Any]:
    return {"format": FORMAT, **study.inputs}


def _result(bed: Bed, study: _Study, say: Say) -> dict[str, Any]:
    found = _standing(bed.store, study)
    if found is not None:
        say(f"{study.name}: from disk")
        return found
    say(f"{study.name}:")
    started = time.perf_counter()
    try:
        result = study.run()
    except DeltaproofError as error:
        say(f"{study.name}: left out, {error}")
        return {"format": FORMAT, "applicable": False, "reason": str(error)}
    place = bed.write(study.name, finite({**result, "inputs": _inputs(study)}))
    say(f"{study.name}: done in {duration(time.perf_counter() - started)}")
    written: dict[str, Any] = read_json(place)  # what a later call reads, to the digit
    return written


def _before(bed: Bed, models: Sequence[KeptModel], studies: Sequence[_Study]) -> list[str]:
    """What is there to be looked at, and about how long that takes."""
    if not studies:
        return []
    n_finals = sum(len(entry["final"]) for entry in bed.experiment["contestants"] if entry["name"] in _labels(models))
    kept = f"{len(models)} tuned models of {len(_labels(models))} methods"
    if len(models) < n_finals:
        kept += f" ({n_finals - len(models)} of {n_finals} were not kept: `compare … --keep all` trains these again)"
    return [f"{kept}, about {duration(_estimate(bed, models, studies))}"]


def _labels(models: Sequence[KeptModel]) -> list[str]:
    return list(dict.fromkeys(kept.label for kept in models))


def _estimate(bed: Bed, models: Sequence[KeptModel], studies: Sequence[_Study]) -> float:
    """Seconds: one model is read, asked for a few rows, and one of its matrices taken apart."""
    (tuned, task), per_load = timed(models[0].load)
    rows = bed.dataset.validation
    few = rows.take(range(min(len(rows), _TIMED_ROWS)))
    _, per_few = timed(lambda: bed.answers(tuned, task, tuned.backbone.tokenizer, few, models[0]))
    sites = [site for site in tuned.backbone.all_sites if site.role in LINEAR_ROLES]
    weight = weight_of(tuned.backbone.module(sites[0]), sites[0]).detach()
    _, per_matrix = timed(lambda: leading_directions(weight.cpu(), 1))
    n_matrices = len(sites) * len(models) * any(study.name == "spectra" for study in studies)
    per_pass = per_few * len(rows) / len(few)
    in_models = sum(study.n_passes * per_pass + study.n_loads * per_load for study in studies)
    return in_models + n_matrices * _DECOMPOSITIONS * per_matrix


def timed(do: Callable[[], Result]) -> tuple[Result, float]:
    clock = time.perf_counter()
    result = do()
    return result, time.perf_counter() - clock


def finite(data: Any) -> Any:
    """JSON knows no NaN and no infinity: None in their place."""
    if isinstance(data, dict):
        return {str(key): finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    if isinstance(data, np.generic | np.ndarray):
        return finite(data.tolist())
    return None if isinstance(data, float) and not math.isfinite(data) else data
