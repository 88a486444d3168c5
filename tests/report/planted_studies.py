"""Studies with known answers, written beside an invented experiment: what the verdicts of the evidence are tried on."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from synthetic_experiment import Experiment, build

from deltaproof.records.store import Store, read_json, write_json

LABELS = ("full", "lora", "bitfit")


def around(mean: float, half: float = 0.01, **more: Any) -> dict[str, Any]:
    return {"mean": mean, "low": mean - half, "high": mean + half, **more}


def bounds(value: float, half: float = 0.01) -> dict[str, float]:
    return {"value": value, "low": value - half, "high": value + half}


def keys(label: str, n_seeds: int) -> list[str]:
    return [f"{label}-{seed}" for seed in range(n_seeds)]


def expressivity(
    verdict: str = "equivalent",
    chosen: int = 8,
    lora_rank: int = 8,
    validation: Mapping[int, float] | None = None,
    optimisation: str | None = "equivalent",
    n_seeds: int = 3,
) -> dict[str, Any]:
    """A full update of 64 x 64 matrices, cut; `validation` are the mean scores by rank."""
    scores = validation or {0: 0.5, 2: 0.7, 8: 0.9, 32: 0.9, 64: 0.9}
    lost = {"worse": -0.1, "equivalent": -0.001, "better": 0.05, "cannot tell": -0.02}
    half = {"cannot tell": 0.05}
    points = [
        {"rank": rank, "energy": min(1.0, 0.9 + rank / 640), "n_dimensions": rank * (128 - rank),
         "validation": score, "validation_at_budget": score, "validation_rest_at_base": score}
        for rank, score in scores.items()
    ]  # fmt: skip

    def gap(found: str) -> dict[str, Any]:
        mean = lost[found]
        ends = around(mean, half.get(found, 0.005))
        return {"difference": mean, "low": ends["low"], "high": ends["high"], "verdict": found, "note": ""}

    gaps = {"expressivity": gap(verdict)} | ({"optimisation": gap(optimisation)} if optimisation else {})
    curves = [
        {"key": key, "seed": seed, "points": [{**point, "validation": point["validation"] + 0.001 * seed * at}
                                              for at, point in enumerate(points)]}
        for seed, key in enumerate(keys("full", n_seeds))
    ]  # fmt: skip
    return {
        "format": 1, "metric": "accuracy", "margin": 0.03, "ranks": list(scores), "curves": curves,
        "trained": [{"rank": lora_rank, "label": "lora", "keys": keys("lora", n_seeds), "validation": [0.8] * n_seeds}],
        "chosen_rank": chosen, "lora": {"rank": lora_rank, "label": "lora", "keys": keys("lora", n_seeds)},
        "test": {"scores": {}, "gaps": gaps},
    }  # fmt: skip


def displacement(
    tightness: Mapping[str, float | None], n_seeds: int = 3, not_in_bound: Sequence[str] = ()
) -> dict[str, Any]:
    """Label to log10 of the largest displacement over its bound; None for a method that the bound does not speak of."""
    return {
        "format": 1,
        "methods": [
            {"label": label, "keys": keys(label, n_seeds), "displacement": around(2.0), "relative_displacement": 1.0,
             "layers": [0.1], "not_in_bound": list(not_in_bound), "slopes": None,
             "why_no_bound": "" if used is not None else "changes more than weights",
             "bound": None if used is None else
             {"log10": 9.0, "log10_low": 8.0, "log10_high": 10.0, "log10_tightness": used - 1,
              "log10_tightness_high": used}}
            for label, used in tightness.items()
        ],
    }  # fmt: skip


def by_rank(
    growth: Mapping[str, Any] | None, n_seeds: int = 3, scores: Sequence[float] = (0.7, 0.8, 0.85)
) -> dict[str, Any]:
    ranks = [2**at for at in range(len(scores))]
    return {
        "format": 1, "by": "parameters", "metric": "accuracy", "method": "lora",
        "points": [{"rank": rank, "label": f"lora(rank={rank})", "n_trained": 1000.0 * rank, **around(score),
                    "keys": keys(f"lora-{rank}", n_seeds)} for rank, score in zip(ranks, scores, strict=True)],
        "others": [], "growth": growth,
    }  # fmt: skip


def growth_of(curve: Mapping[float, Any]) -> dict[str, Any]:
    """The study's own analysis of a planted curve: x to scores, (seeds, units)."""
    from dataclasses import asdict

    from deltaproof.fits import growth

    return asdict(growth(curve))


def forgetting(rises: Mapping[str, tuple[float, float]], n_seeds: int = 3, **left_out: str) -> dict[str, Any]:
    """Label to the rise of the base's loss and its half-width, from 2 nats per token."""
    return {
        "format": 1, "applicable": True, "task": "masked tokens", "unit": "nats per token", "n_chunks": 64,
        "before": 2.0,
        "methods": [{"label": label, "rise": rise, "low": rise - half, "high": rise + half, "n_seeds": n_seeds}
                    for label, (rise, half) in rises.items()],
        "left_out": left_out,
    }  # fmt: skip


def spectra(robust: Mapping[str, Sequence[float]], n_seeds: int = 3) -> dict[str, Any]:
    """Label to the number of intruders beyond noise in each matrix."""
    return {
        "format": 1,
        "methods": [
            {"label": label, "keys": keys(label, n_seeds),
             "intruders": {"n_examined": 10 * len(counts), "n_official": sum(counts) + 1, "n_robust": sum(counts),
                           "n_undetermined": 1},
             "rows": [{"name": f"layer.{at}.query", "intruders": {"n_official": n, "n_robust": n, "n_undetermined": 0}}
                      for at, n in enumerate(counts)]}
            for label, counts in robust.items()
        ],
    }  # fmt: skip


def robustness(
    raw: Mapping[str, str],
    matched: Mapping[str, Mapping[str, Any] | None],
    regressed: Mapping[str, Mapping[str, Any]] | None = None,
    n_seeds: int = 3,
    reference: str = "full",
) -> dict[str, Any]:
    """Label to the verdict on its raw drop, and to the difference in flips where both were right."""

    def against(with_matched: bool) -> list[dict[str, Any]]:
        return [
            {"label": label, "verdict": verdict, "drop_difference": around(0.1, p=0.001, p_holm=0.002),
             "matched": {"n_examples": 150, "method": around(0.1), "reference": around(0.1),
                         "difference": dict(found)} if with_matched and (found := matched[label]) else None}
            for label, verdict in raw.items()
        ]  # fmt: skip

    line = {
        "set": "overall",
        "slope": around(0.2),
        "differences": dict(regressed or {}),
        "n_checkpoints": 24,
        "n_runs": 6,
    }
    facts = {"kind": "perturbation", "promise": "keeps label", "question": None, "n_examples": 200}
    labels = [reference, *raw]
    return {
        "format": 1, "inputs": {}, "metric": "accuracy", "unit": "fraction", "reference": reference, "n_examples": 200,
        "n_seeds": n_seeds, "methods": labels, "keys": {label: keys(label, n_seeds) for label in labels},
        "clean": {label: around(0.8) for label in labels},
        "sets": [{"name": "char_swap", "strength": strength, **facts, "methods": [], "against_reference": against(True)}
                 for strength in (0.1, 0.2)],
        "overall": {"sets": "label-keeping", "methods": [], "against_reference": against(True)},
        "worst_case": {}, "contrast": [], "checkpoints": [],
        "at_equal_accuracy": [line] if regressed else [], "at_equal_accuracy_reason": "", "left_out": {},
    }  # fmt: skip


def by_examples(
    folder: Path, skills: Mapping[int, Sequence[float]], crossovers: Sequence[Mapping[str, Any]] = (), n_seeds: int = 3,
    n: int = 400,
) -> dict[str, Any]:  # fmt: skip
    """Runs at several sizes: size of the training set to each method's skill, the largest being the folder itself."""
    points: dict[str, list[dict[str, Any]]] = {label: [] for label in LABELS}
    for size, of_methods in sorted(skills.items()):
        place = folder if size == max(skills) else folder / "sizes" / f"n-{size}"
        store = build(place, Experiment(methods=LABELS, skills=tuple(of_methods), seeds=n_seeds, n=n))
        document = read_json(place / "experiment.json")
        document["data"]["rows"]["train"] = size
        write_json(place / "experiment.json", document)
        for entry in store.experiment()["contestants"]:
            points[entry["name"]].append({"n_examples": size, **around(0.8), "keys": entry["final"]})
    return {
        "format": 1, "by": "examples", "equal": "epochs", "metric": "accuracy",
        "methods": [{"label": label, "points": found, "power_law": None, "growth": None}
                    for label, found in points.items()],
        "crossovers": [dict(entry) for entry in crossovers],
    }  # fmt: skip


def write(folder: Path, **studies: dict[str, Any]) -> Store:
    """Put studies into a run folder."""
    store = Store(folder)
    for name, result in studies.items():
        write_json(store.study_path(name), result)
    return store
