"""The capacity suite's files as `deltaproof capacity` leaves them, with planted values that tests find again.

Every number follows from a formula below, so that a test can say where its mark must stand.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from deltaproof.records.store import Store, write_json

NAMES = ("expressivity", "spectra", "displacement", "path", "forgetting")
RANKS = (0, 1, 2, 4, 8, 16, 64)
CHOSEN = 8
STEPS = (-0.5, 0.0, 0.5, 1.0, 1.5)
ROLES = ("query", "value", "attention_out", "ffn_in", "ffn_out")
SIDE = 64
OVERLAP_RANKS = (1, 2, 4, 8, 16, 32)
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
NOT_WEIGHTS, NO_MATRIX, NOTHING = ("prefix",), ("bitfit",), ("head",)
"""Methods that change no weight, that change vectors alone, and that change nothing below the head; all others change
matrices."""


def build_studies(store: Store, only: Sequence[str] = NAMES, metric: str = "accuracy", n_layers: int = 4) -> None:
    """Write `studies/NAME.json` of a run folder, for its contestants."""
    entries = store.experiment()["contestants"]
    labels = [entry["name"] for entry in entries]
    keys = {"keys": [key for entry in entries for key in entry["final"]]}
    made = {
        "expressivity": expressivity(labels, metric),
        "spectra": {"format": 1, "methods": [spectra(label, at, n_layers) for at, label in enumerate(labels)]},
        "displacement": displacement(labels, n_layers),
        "path": path(labels, metric),
        "forgetting": forgetting(labels),
    }
    for name in only:
        write_json(Path(store.folder) / "studies" / f"{name}.json", {**made[name], "inputs": {"format": 1, **keys}})


def cut_score(rank: int, seed: int = 0) -> float:
    """Validation score of the update cut to a rank: saturates."""
    return 0.9 - 0.3 * 0.5**rank + 0.01 * seed


def expressivity(labels: Sequence[str], metric: str = "accuracy") -> dict[str, Any]:
    curves = [
        {
            "key": f"full-{seed}",
            "seed": seed,
            "points": [
                {
                    "rank": rank,
                    "energy": 1 - 0.5**rank if rank < RANKS[-1] else 1.0,
                    "n_dimensions": rank * (2 * SIDE - rank) * 20,
                    "validation": cut_score(rank, seed),
                    "validation_at_budget": cut_score(rank, seed) + 0.004,
                    "validation_rest_at_base": cut_score(rank, seed) - 0.05,
                }
                for rank in RANKS
            ],
        }
        for seed in (0, 1)
    ]
    loras = [label for label in labels if label.startswith("lora")]
    trained = [
        {"rank": CHOSEN + at, "label": label, "keys": ["a", "b"], "validation": [0.86, 0.88]}
        for at, label in enumerate(loras)
    ]
    scores = {"full": [0.89, 0.9], "truncated": [0.885, 0.895], "lora": [0.86, 0.87]}
    gaps = {
        "expressivity": gap("truncated", "full", -0.005, "equivalent"),
        "optimisation": gap("lora", "truncated", -0.025, "cannot tell"),
    }
    if not trained:
        del scores["lora"], gaps["optimisation"]
    return {
        "format": 1, "metric": metric, "margin": 0.02, "ranks": list(RANKS), "curves": curves, "trained": trained,
        "chosen_rank": CHOSEN, "lora": trained[0] if trained else None, "test": {"scores": scores, "gaps": gaps},
    }  # fmt: skip


def gap(of: str, against: str, difference: float, verdict: str) -> dict[str, Any]:
    return {
        "of": of, "against": against, "difference": difference, "low": difference - 0.01, "high": difference + 0.01,
        "verdict": verdict, "note": "",
    }  # fmt: skip


def has_matrices(label: str) -> bool:
    return not label.startswith((*NOT_WEIGHTS, *NO_MATRIX, *NOTHING))


def ratio_2(method: int, layer: int, role: int) -> float:
    """|D|_2 / |W0|_2 of a planted matrix: distinct in every cell."""
    return 0.001 * (method + 1) * (layer + 1) * (role + 1)


def spectra(label: str, method: int, n_layers: int = 4) -> dict[str, Any]:
    why = f"a spectrum needs a change of weights that the base has, `{label}` makes none"
    rows = [
        matrix_row(method, layer, role) for layer in range(n_layers) for role in range(len(ROLES))
    ] if has_matrices(label) else []  # fmt: skip
    rows += [{**rows[0], "name": "pooler.dense.weight", "role": None, "layer": None}] if label == "full" else []
    return {
        "label": label,
        "keys": [f"{label}-0", f"{label}-1"],
        "why_none": why if label.startswith(NOT_WEIGHTS) else "",
        "increments": increments(method, "bias" if label.startswith(NO_MATRIX) else "weight", empty=label == "head"),
        "summary": summary(rows) if rows else None,
        "n_vectors": 26 if label.startswith(NO_MATRIX) else 0,
        "median_r90_by_seed": [20.0, 22.0] if rows else [],
        "findings": [],
        "notes": [],
        "rows": rows,
        "intruders": {
            "n_examined": 10.0 * len(rows),
            "n_official": 7.0,
            "n_robust": 3.0 * method,
            "n_undetermined": 4.0,
        }
        if rows
        else None,
        "against_full": against_full(method) if rows else None,
    }


def matrix_row(method: int, layer: int, role: int) -> dict[str, Any]:
    shape = (
        [SIDE, 2 * SIDE] if ROLES[role] == "ffn_out" else [2 * SIDE, SIDE] if ROLES[role] == "ffn_in" else [SIDE] * 2
    )
    edge = 0.5 + 0.1 * layer
    positions = [1, 2, 4, 8, 16, 32, 64]
    heights = [4.0 / position ** (1 + 0.2 * method) for position in positions]
    return {
        "name": f"layer.{layer}.{ROLES[role]}.weight", "role": ROLES[role], "layer": layer, "shape": shape,
        "base_norm_2": 5.0, "base_norm_f": 20.0, "norm_2": 5.0 * ratio_2(method, layer, role), "norm_f": 0.4,
        "ratio_2": ratio_2(method, layer, role), "ratio_f": 0.02, "r90": 20.0, "r90_noise": 32.0,
        "r90_over_noise": min(1.0, 0.1 * (layer + 1) + 0.02 * role), "stable_rank": 3.0, "entropy_rank": 17.0,
        "n_above_noise": 2.0, "energy": {"8": 0.7}, "truncation_error": {"8": 0.55}, "rounding_fraction": 1e-6,
        "bf16_rounding_fraction": 0.08, "noise_edge": edge,
        "intruders": {"n_official": 5.0, "n_robust": float((layer + role) % 4), "n_undetermined": 1.0},
        "positions": positions, "singular_values": [edge * height for height in heights], "n_seeds": 2,
    }  # fmt: skip


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "n_matrices": float(len(rows)), "base_norm_f": 40.0, "norm_f": 1.2, "largest_ratio_2": 0.2, "median_r90": 21.0,
        "median_r90_over_noise": 0.65, "n_like_noise": 0.0, "median_stable_rank": 3.0, "median_entropy_rank": 17.5,
        "energy": {"1": 0.3, "8": 0.72}, "low_rank_dimension_fraction": {"8": 0.2}, "rounding_fraction": 1e-6,
        "bf16_rounding_fraction": 0.08, "by_role": {},
    }  # fmt: skip


def increments(method: int, part: str = "weight", empty: bool = False) -> dict[str, Any]:
    edges = (np.arange(-8, 9) * 2.0**-10).tolist()
    counts = [0 if empty else int(4096 * 0.5 ** abs(at)) for at in range(-8, 8)]
    counts[1] = 0  # a bin that nothing fell into
    return {
        "part": part, "role": "query", "layer": 3, "n": sum(counts), "std": 1e-3 * (method + 1),
        "excess_kurtosis": 1.5, "largest": 7.5e-3, "negligible_fraction": 0.01,
        "histogram": {"edges": [] if empty else edges, "counts": [] if empty else counts},
    }  # fmt: skip


def against_full(method: int) -> dict[str, Any]:
    """A method of method index m has directions up to rank 2^(m + 1) and shares twice what chance gives."""
    has = [rank <= 2 ** (method + 1) for rank in OVERLAP_RANKS]
    chance = [[max(i, j) / SIDE for j in OVERLAP_RANKS] for i in OVERLAP_RANKS]
    grid = [[2 * c if has[i] else None for c in row] for i, row in enumerate(chance)]
    return {
        "ranks": list(OVERLAP_RANKS), "n_matrices": 20, "overlap_out": grid, "overlap_in": grid, "by_chance": chance,
        "captured": [0.02 * (at + 1) * (method + 1) if has[at] else None for at in range(len(OVERLAP_RANKS))],
        "median_cosine": 0.1,
    }  # fmt: skip


def displacement(labels: Sequence[str], n_layers: int = 4) -> dict[str, Any]:
    return {
        "format": 1, "n_examples": 100, "head": "base and tuned model have the head that was trained",
        "bound": "the theorem's right-hand side, evaluated formally", "quantiles": list(QUANTILES),
        "n_lipschitz_examples": 32,
        "methods": [moved(label, at, n_layers) for at, label in enumerate(labels)],
    }  # fmt: skip


def moved(label: str, method: int, n_layers: int) -> dict[str, Any]:
    still = label.startswith(NOTHING)
    quantiles = [0.0] * 5 if still else [(method + 1) * value for value in (0.5, 0.8, 1.0, 1.5, 3.0)]
    has_bound = not still and not label.startswith(NOT_WEIGHTS)
    return {
        "label": label, "keys": [],
        "displacement": {"mean": quantiles[2], "low": quantiles[1], "high": quantiles[3], "by_seed": quantiles[2:4],
                         "quantiles": quantiles},
        "relative_displacement": 0.0 if still else 0.6,
        "layers": [0.0 if still else 0.1 * (layer + 1) for layer in range(n_layers)],
        "bound": {"log10": 12.0, "log10_low": 11.0, "log10_high": 13.0, "log10_tightness": -12.0 + method,
                  "log10_tightness_high": -10.0 + method} if has_bound else None,
        "why_no_bound": f"`{label}` changes more than weights" if label.startswith(NOT_WEIGHTS) else "",
        "not_in_bound": [],
        "slopes": {
            "base": {"lipschitz": [1.0, 1.5, 2.0, 2.5, 3.0], "radius": [0.2] * 5, "relative_radius": [0.02] * 5},
            "tuned": {"lipschitz": [value * (method + 1) for value in (1.0, 1.5, 2.0, 2.5, 3.0)],
                      "radius": [0.1] * 5, "relative_radius": [0.01] * 5},
            "ratio": [float(method + 1)] * 5,
        },
    }  # fmt: skip


def path_loss(step: float, method: int) -> float:
    """A parabola with its lowest point at the tuned model."""
    return 0.3 + 0.1 * method + 0.4 * (step - 1) ** 2


def path(labels: Sequence[str], metric: str = "accuracy") -> dict[str, Any]:
    methods = []
    left_out = {}
    for at, label in enumerate(labels):
        if label.startswith((*NOT_WEIGHTS, *NOTHING)):
            left_out[label] = "not a change of weights" if label.startswith(NOT_WEIGHTS) else "nothing changed"
            continue
        losses = [path_loss(step, at) for step in STEPS]
        scores = [0.9 - 0.2 * (step - 1) ** 2 for step in STEPS]
        methods.append({
            "label": label, "keys": [], "loss": losses, "loss_low": [loss - 0.05 for loss in losses],
            "loss_high": [loss + 0.05 for loss in losses], "score": scores, "score_by_seed": [scores],
        })  # fmt: skip
    return {
        "format": 1, "metric": metric, "loss": "nll", "head": "the same head", "steps": list(STEPS),
        "methods": methods, "left_out": left_out,
    }  # fmt: skip


def rise(method: int) -> float:
    """The first method forgets most."""
    return 0.5 / (method + 1)


def forgetting(labels: Sequence[str]) -> dict[str, Any]:
    return {
        "format": 1, "corpus": "/somebody/private/corpus.txt", "applicable": True, "task": "masked tokens",
        "unit": "nats per token", "n_chunks": 64, "before": 2.31,
        "methods": [
            {"label": label, "rise": rise(at), "low": rise(at) - 0.02, "high": rise(at) + 0.02, "n_seeds": 2}
            for at, label in enumerate(labels) if not label.startswith(NOT_WEIGHTS)
        ],
        "left_out": {label: "has no place there" for label in labels if label.startswith(NOT_WEIGHTS)},
    }  # fmt: skip
