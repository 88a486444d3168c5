"""Compression, merges and gates with known numbers, for the chapter and the verdicts."""

from collections.abc import Mapping, Sequence
from typing import Any

RATIOS = {"0.05": 47.0, "0.2": 17.0, "0.5": 10.7}


def compression(
    verdicts: Mapping[str, Mapping[str, str]] | None = None, n_seeds: int = 1, base: float = 0.5,
    densities: Sequence[str] = ("0.05", "0.2", "0.5"), shift: float = 0.0,
) -> dict[str, Any]:  # fmt: skip
    """By method and density a verdict; scores follow from it."""
    found = verdicts or {"full": dict.fromkeys(densities, "equivalent"), "lora": dict.fromkeys(densities, "worse")}
    lost = {"equivalent": -0.002, "worse": -0.1, "better": 0.05, "cannot tell": -0.03}
    half = {"cannot tell": 0.06}
    models, contestants = [], []
    for label, by_density in found.items():
        entries = {}
        for density, verdict in by_density.items():
            gap, width = lost[verdict] + shift, half.get(verdict, 0.01)
            share = {"mean": 1 + gap / 0.9, "low": 1 + (gap - width) / 0.9, "high": 1 + (gap + width) / 0.9}
            entries[density] = {
                "difference": gap, "low": gap - width, "high": gap + width, "verdict": verdict, "note": "",
                "n_seeds": n_seeds, "n_units": 240, "retained": share, "gain_retained": share,
            }  # fmt: skip
        intervals = {"before": _around(0.9), "without": _around(base), "base": _around(base)}
        intervals |= {density: _around(0.9 + entry["difference"]) for density, entry in entries.items()}
        contestants.append({
            "label": label, "n_seeds": n_seeds, "start": "base", "intervals": intervals, "gain": _around(0.9 - base),
            "scores": {name: [one["mean"]] * n_seeds for name, one in intervals.items()}, "densities": entries,
        })  # fmt: skip
        models += [_model(label, seed, by_density, base) for seed in range(n_seeds)]
    return {
        "format": 1, "metric": "accuracy", "margin": 0.03, "level": 0.05, "n_parameters": 22_000_000,
        "inputs": {"format": 1}, "models": models, "contestants": contestants,
        "settings": {"densities": [float(name) for name in densities], "alphas": ["auto", "2"],
                     "scopes": ["per_tensor", "global"], "start": "init", "embeddings": False},
        "left_out": {"bitfit": "what is compressed are factors & gains, `bitfit` has none"},
    }  # fmt: skip


def _around(mean: float, half: float = 0.02) -> dict[str, float]:
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _model(label: str, seed: int, by_density: Mapping[str, str], base: float) -> dict[str, Any]:
    points = {
        name: {"validation": score, "relative_error": 0.5, "reason": ""}
        for name, score in (("per_tensor:auto", 0.7), ("per_tensor:2", 0.85), ("per_tensor:pruned", 0.71),
                            ("global:auto", 0.72), ("global:2", 0.8), ("global:pruned", 0.69))
    }  # fmt: skip
    dropped = {
        "relative_error": 0.6, "cosine": 0.8, "beside": 0.3,
        "roles": [{"role": "query", "n_values": 100, "energy": 0.4, "relative_error": 0.5, "cosine": 0.9},
                  {"role": "ffn_in", "n_values": 300, "energy": 0.6, "relative_error": 0.7, "cosine": 0.7}],
        "directions": [{"direction": at, "left": 1.2 / at, "energy": 0.3 / at, "n_matrices": 4} for at in (1, 2, 4)],
    }  # fmt: skip
    return {
        "key": f"{label}-{seed}", "label": label, "seed": seed, "holds": "tuned",
        "validation": {"before": 0.9, "without": base, "base": base},
        "densities": [
            {"density": float(name), "chosen": "per_tensor:2", "points": points, "relative_error": 0.6,
             "kept_energy": 0.7, "notes": [], "dropped": dropped,
             "sizes": {"file_bytes": int(2e6 / RATIOS[name]), "stored_bytes": 4_000_000, "n_ternary": 1_000_000,
                       "stored_ratio": RATIOS[name] * 1.8, "fp16_ratio": RATIOS[name],
                       "fp32_ratio": 2 * RATIOS[name]}}
            for name in by_density
        ],
    }  # fmt: skip


def merge(
    key: str, compressed: bool, how: str = "ties", chosen_on: str | None = None, test: float | None = 0.8
) -> dict[str, Any]:
    gap = {"difference": -0.05, "low": -0.08, "high": -0.02, "n": 240, "verdict": "worse", "note": "one seed"}
    return {
        "key": key, "contestant": f"{how} of sst2 & subj",
        "recipe": {"how": how, "density": 0.2, "rank": None, "seed": 0},
        "chosen_on": chosen_on, "n_evaluations": 12, "n_rows": 64, "cosines": [[1.0, 0.1], [0.1, 1.0]],
        "experts": [
            {"name": name, "contestant": "lora", "key": f"key-{name}", "data": name, "digest": f"{name}{compressed}",
             "stored_bytes": 80_000 if compressed else 1_200_000, "weight": 1.0, "is_of_this_task": name == "sst2"}
            for name in ("sst2", "subj")
        ],
        "head": "of sst2", "validation": {"n": 120, "merged": 0.82},
        "test": None if test is None else {"n": 240, "merged": test},
        "compared": [
            {"name": "sst2", "kind": "expert", "validation": 0.87, "test": test and 0.85,
             "difference": {"validation": gap, "test": gap if test is not None else None}},
            {"name": "base", "kind": "base", "validation": 0.5, "test": test and 0.5,
             "difference": {"validation": gap, "test": None}},
        ],
        "head_only": None, "folder": None, "written": "2026-11-20T10:00:00+00:00",
    }  # fmt: skip


def merging(*merges: dict[str, Any]) -> dict[str, Any]:
    return {"format": 1, "metric": "accuracy", "unit": "fraction", "merges": list(merges)}


def interpolation() -> dict[str, Any]:
    """Clean rows are best at 0.5, shifted ones at 0.25."""

    def gap(verdict: str, mean: float) -> dict[str, Any]:
        return {"difference": mean, "low": mean - 0.02, "high": mean + 0.02, "n": 240, "verdict": verdict, "note": ""}

    def rows(name: str, role: str, scores: Sequence[float]) -> dict[str, Any]:
        gaps = [None if at == len(scores) - 1 else gap("cannot tell", score - scores[-1])
                for at, score in enumerate(scores)]  # fmt: skip
        return {"name": name, "role": role, "n": 240, "score": list(scores), "loss": [0.5] * len(scores),
                "difference": gaps}  # fmt: skip

    return {
        "format": 1, "metric": "accuracy", "unit": "fraction",
        "models": [{
            "key": "full-0", "contestant": "full", "seed": 0, "head": "kept", "alphas": [0.0, 0.25, 0.5, 1.0],
            "sets": [rows("validation", "validation", (0.5, 0.8, 0.92, 0.9)),
                     rows("shift <1>", "shift", (0.5, 0.7, 0.68, 0.6))],
            "best_clean": 0.5, "without_regression": {"shift <1>": 0.5}, "written": [],
        }],
    }  # fmt: skip


def gates() -> dict[str, Any]:
    def gate(name: str, number: float | None, holds: bool | None, reason: str = "") -> dict[str, Any]:
        threshold = None if number is None else 0.0001
        return {"name": name, "number": number, "threshold": threshold, "at_least": False, "unit": "largest difference",
                "holds": holds, "reason": reason}  # fmt: skip

    return {
        "format": 1,
        "runs": [{
            "what": "export as merged", "key": "full-0", "contestant": "full", "seed": 0, "holds": False,
            "written": "2026-11-20T10:00:00+00:00",
            "gates": [gate("output answers like the tuned", 3e-6, True),
                      gate("head is equal", 0.5, False, "<b>lost</b>"),
                      gate("label names are there", None, None, "an adapter has no place for them")],
        }],
    }  # fmt: skip
