"""What each method's update is made of, beside full fine-tuning's: norms, ranks, intruders, increments, directions.

Measured on every kept model against the base, matrix by matrix, and averaged over seeds. As a control, full
fine-tuning's directions are held against those of another seed of its own: methods can agree no better than that.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from deltaproof.backbones.roles import ATTENTION, FFN
from deltaproof.errors import ConfigError
from deltaproof.methods.tuned import Tuned
from deltaproof.studies.kept_models import Bed, KeptModel, kept_models
from deltaproof.studies.overlap import Directions, against, averaged_grid
from deltaproof.studies.same_head import below_the_head
from deltaproof.theory.deltas import Deltas
from deltaproof.theory.diagnose import Diagnosis, diagnose
from deltaproof.theory.in_memory import deltas_of
from deltaproof.theory.increments import Increments
from deltaproof.theory.nulls import noise_edge
from deltaproof.theory.rows import MatrixRow
from deltaproof.theory.skeleton import skeleton_of_model

Say = Callable[[str], None]
N_POINTS = 24
"""Singular values that are kept of a matrix, evenly spaced on a log scale: what a curve needs."""
_ROW = (
    "name", "role", "layer", "shape", "base_norm_2", "base_norm_f", "norm_2", "norm_f", "ratio_2", "ratio_f", "r90",
    "r90_noise", "r90_over_noise", "stable_rank", "entropy_rank", "n_above_noise", "energy", "truncation_error",
    "rounding_fraction", "bf16_rounding_fraction",
)  # fmt: skip
_SUMMARY = (
    "n_matrices", "base_norm_f", "norm_f", "largest_ratio_2", "median_r90", "median_r90_over_noise", "n_like_noise",
    "median_stable_rank", "median_entropy_rank", "energy", "low_rank_dimension_fraction", "rounding_fraction",
    "bf16_rounding_fraction", "by_role",
)  # fmt: skip
_AS_IT_IS = ("name", "role", "layer", "shape", "positions")
"""Entries of a row that seeds share."""


@dataclass
class Update:
    """A kept model's change of its base's weights; `deltas` is None, and `why_none` says why, where there is none."""

    kept: KeptModel
    tuned: Tuned
    deltas: Deltas | None
    why_none: str

    @classmethod
    def of(cls, kept: KeptModel) -> "Update":
        tuned, _ = kept.load()
        try:
            return cls(kept, tuned, deltas_of(tuned, below_the_head(kept.load_base())), "")
        except ConfigError as error:
            return cls(kept, tuned, None, str(error))


def spectra(bed: Bed, contestants: Sequence[str] = (), say: Say = lambda text: None) -> dict[str, Any]:
    """Diagnose every kept model's update, with its directions held against full fine-tuning's at the same seed.

    Raises:
        RecordError: nothing was kept.
    """
    models = kept_models(bed.store, contestants)
    fulls = {kept.key: kept for kept in kept_models(bed.store) if kept.method.name == "full"}
    directions = lru_cache(maxsize=2)(lambda key: Directions.of(fulls[key]))
    by_label: dict[str, list[dict[str, Any]]] = {kept.label: [] for kept in models}
    for kept in sorted(models, key=lambda kept: kept.seed):  # seed by seed, so that a full update is read once
        say(f"the update of {kept.label}, seed {kept.seed}")
        other = _counterpart(kept, list(fulls.values()))
        by_label[kept.label].append(_of_one(bed, kept, None if other is None else directions(other.key)))
    return {"format": 1, "methods": [_summary(label, found) for label, found in by_label.items()]}


def _counterpart(kept: KeptModel, fulls: Sequence[KeptModel]) -> KeptModel | None:
    """The full model of the same seed, or another one; for a full model itself one of another seed."""
    others = [full for full in fulls if full.key != kept.key]
    same = [full for full in others if full.seed == kept.seed]
    return next(iter([*same, *others]), None)


def _of_one(bed: Bed, kept: KeptModel, full: Directions | None) -> dict[str, Any]:
    update = Update.of(kept)
    what, increments = last_increments(update)
    found: dict[str, Any] = {
        "key": kept.key, "why_none": update.why_none, "what": what, "increments": increments, "diagnosis": None,
        "against": None,
    }  # fmt: skip
    if update.deltas is not None:
        found["diagnosis"] = diagnose(update.deltas, device=bed.device)
        found["against"] = None if full is None else against(update.deltas, full, bed.device)
    return found


@torch.no_grad()
def last_increments(update: Update) -> tuple[dict[str, Any], Increments]:
    """The change of the last layer's queries, or of what of that layer changed; for a method that changes no weight,
    the numbers that it trained there, or anywhere: so does the paper's figure, with prefixes."""
    tuned, backbone = update.tuned, update.tuned.backbone
    last = max((site.layer for site in backbone.all_sites if site.layer is not None), default=0)
    skeleton = skeleton_of_model(backbone.model, backbone.all_sites)
    sites = {site.role: site for site in backbone.all_sites if site.layer == last}
    for part in ("weight", "bias"):
        for role in (role for role in (*ATTENTION, *FFN) if role in sites):
            site = sites[role]
            name = skeleton.short(f"{site.path}.{part}") + (f"[{role}]" if site.rows else "")
            if update.deltas is not None and name in update.deltas:
                change = update.deltas[name].change
                if bool(change.any()):
                    return {"part": part, "role": role, "layer": last}, Increments().add(change)
    trained = [
        (name, value) for name, value in tuned.trained().items()
        if not any(f".{path}." in f".{name}." for path in backbone.head)
    ]  # fmt: skip
    layer = f".{sites['layer'].path}." if "layer" in sites else "\0"
    here = [value for name, value in trained if layer in f".{name}."]
    increments = Increments()
    for value in here or [value for _, value in trained]:
        increments.add(value)
    return {"part": "parameters", "role": None, "layer": last if here else None}, increments


def _summary(label: str, found: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One contestant over its seeds."""
    diagnoses: list[Diagnosis] = [each["diagnosis"] for each in found if each["diagnosis"] is not None]
    increments = Increments()
    for each in found:
        increments.merge(each["increments"])
    result: dict[str, Any] = {
        "label": label,
        "keys": [each["key"] for each in found],
        "why_none": next((each["why_none"] for each in found if each["why_none"]), ""),
        "increments": {**found[0]["what"], **increments.to_dict()},
        "summary": None, "n_vectors": 0, "median_r90_by_seed": [], "findings": [], "notes": [], "rows": [],
        "intruders": None, "against_full": None,
    }  # fmt: skip
    if diagnoses:
        result["n_vectors"] = len(diagnoses[0].vectors)
        result["findings"], result["notes"] = diagnoses[0].findings, list(diagnoses[0].notes)
    with_rows = [diagnosis for diagnosis in diagnoses if diagnosis.rows]
    if with_rows:
        result["summary"] = averaged([{key: each.summary[key] for key in _SUMMARY} for each in with_rows])
        result["median_r90_by_seed"] = [each.summary["median_r90"] for each in with_rows]
        counted = [each.summary["intruders"] for each in with_rows]
        if None not in counted:
            result["intruders"] = averaged([{k: v for k, v in each.items() if k != "sweep"} for each in counted])
        result["rows"] = _rows(with_rows)
    others = [each["against"] for each in found if each["against"] is not None]
    if others:
        result["against_full"] = averaged_grid(others)
    return result


def _rows(diagnoses: Sequence[Diagnosis]) -> list[dict[str, Any]]:
    """One per matrix, averaged over the seeds in which it changed."""
    by_name: dict[str, list[dict[str, Any]]] = {}
    for diagnosis in diagnoses:
        for row in diagnosis.rows:
            by_name.setdefault(row.name, []).append(_row(row))
    return [{**averaged(rows), "n_seeds": len(rows)} for rows in by_name.values()]


def _row(row: MatrixRow) -> dict[str, Any]:
    whole = row.to_dict()
    values = row.spectrum.values
    positions = np.unique(np.geomspace(1, len(values), N_POINTS).round().astype(int))
    return {
        **{key: whole[key] for key in _ROW},
        "noise_edge": noise_edge(row.spectrum.shape, row.spectrum.norm_f),
        "intruders": None if row.intruders is None else {
            "n_official": row.intruders.n_official(), "n_robust": row.intruders.n_robust(),
            "n_undetermined": row.intruders.n_undetermined(),
        },
        "positions": positions.tolist(),
        "singular_values": [float(values[at - 1]) for at in positions],
    }  # fmt: skip


def averaged(entries: Sequence[Any]) -> Any:
    """The mean over seeds of numbers, of numbers in lists and in dicts; None where one of them is None.

    >>> averaged([{"role": "query", "r90": 3}, {"role": "query", "r90": 4}])
    {'role': 'query', 'r90': 3.5}
    """
    first = entries[0]
    if any(entry is None for entry in entries):
        return None
    if isinstance(first, dict):
        keys = [key for key in first if all(key in entry for entry in entries)]
        return {key: first[key] if key in _AS_IT_IS else averaged([entry[key] for entry in entries]) for key in keys}
    if isinstance(first, list):
        shortest = min(len(entry) for entry in entries)
        return [averaged([entry[at] for entry in entries]) for at in range(shortest)]
    return first if isinstance(first, str) else sum(entries) / len(entries)
