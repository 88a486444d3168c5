"""The result of a robustness study, `studies/robustness.json`, from invented answers: what pages and verdicts read."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from deltaproof.robustness.metrics import Robustness, matched_flips, robustness, worst_case
from deltaproof.stats import Interval, compare, mean_interval

KEEPS = ("char_swap", "char_drop", "keyboard", "homoglyph", "case_punctuation", "synonym", "distractor", "tautology")
NOISE = ("word_drop", "local_shuffle")
STRENGTHS = (0.1, 0.2, 0.4)
QUESTIONS = ("all", "trained", "equal_norm")
VERDICTS = {"better": "more fragile", "worse": "more robust"}


def robustness_study(
    methods: Sequence[str] = ("full", "lora", "ia3", "head"), seed: int = 0, n_examples: int = 240, n_seeds: int = 3
) -> dict[str, Any]:
    """All kinds of sets, the first method as the reference; later methods are a little worse and more fragile."""
    rng = np.random.default_rng(seed)
    hard = rng.random(n_examples)
    skills = {name: 0.92 - 0.05 * at for at, name in enumerate(methods)}
    clean = {name: _right(rng, hard, skill, n_seeds) for name, skill in skills.items()}
    reference = methods[0]

    def fallen(strength: float) -> dict[str, np.ndarray]:
        fragility = {name: strength * (0.6 + 0.2 * at) for at, name in enumerate(methods)}
        return {
            name: right * (rng.random(right.shape) > fragility[name]) + (1 - right) * (rng.random(right.shape) < 0.05)
            for name, right in clean.items()
        }

    sets, kept = [], []
    for name in (*KEEPS, *NOISE):
        for strength in STRENGTHS:
            after = fallen(strength * (1 if name in KEEPS else 1.5))
            kept += [after] if name in KEEPS else []
            sets.append({
                **_facts(name, "perturbation", strength, "share of words", n_examples),
                "promise": "keeps label" if name in KEEPS else "noise",
                "n_reached": n_examples - 4,
                "file": f"robustness/sets/{name}@{strength:g}.jsonl",
                **_findings(clean, after, reference),
            })  # fmt: skip
    for epsilon in (0.01, 0.03, 0.1):
        facts = _facts("embedding_pgd", "embedding_pgd", epsilon, "share of the embeddings' norm", n_examples)
        sets.append({**facts, **_findings(clean, fallen(8 * epsilon), reference)})
    for question in QUESTIONS:
        for size in (0.05, 0.1, 0.2):
            unit = "length" if question == "equal_norm" else "share of the weight's norm"
            facts = _facts(f"weight_noise_{question}", "weight_noise", size, unit, n_examples)
            found = _findings(clean, fallen(size), reference)
            sets.append({**facts, "question": question, "n_draws": 3, **found})
    facts = {**_facts("shifted.jsonl", "adversarial", None, "", 60), "file": "robustness/sets/shifted.jsonl"}
    before = {name: right[:, :60] for name, right in clean.items()}
    sets.append({**facts, **_findings(before, {name: x[:, :60] for name, x in fallen(0.4).items()}, reference)})
    for name, factor in (("deepwordbug", 2.0), ("synonym_search", 0.8)):
        for strength in STRENGTHS:
            after = {label: np.minimum(clean[label], right) for label, right in fallen(factor * strength).items()}
            found = _findings(clean, after, reference)
            for at, method in enumerate(found["methods"]):
                method |= {"n_queries": _interval(mean_interval(rng.normal(40 + at, 5, clean[reference].shape))),
                           "changed": {"mean": strength / 2, "low": strength / 3, "high": strength}}  # fmt: skip
            facts = {**_facts(name, "search", strength, "share of words", n_examples), "promise": "keeps label",
                     "file": f"robustness/sets/{name}@{strength:g}"}  # fmt: skip
            sets.append({**facts, **found})
            handed_on = {**_findings(clean, fallen(strength), reference), "against_reference": []}
            sets.append({**facts, "name": f"{name}_transfer", "kind": "transfer", **handed_on})
    averaged = {name: np.mean([after[name] for after in kept], axis=0) for name in methods}
    overall = _findings(clean, averaged, reference)
    return {
        "format": 1,
        "inputs": {"keys": [f"{name}-{at}" for name in methods for at in range(n_seeds)]},
        "metric": "accuracy",
        "unit": "fraction",
        "higher_is_better": True,
        "margin": 0.03,
        "alpha": 0.05,
        "kind": "classification",
        "reference": reference,
        "n_examples": n_examples,
        "n_test": 2 * n_examples,
        "n_seeds": n_seeds,
        "methods": list(methods),
        "keys": {name: [f"{name}-{at}" for at in range(n_seeds)] for name in methods},
        "clean": {name: _interval(mean_interval(right)) for name, right in clean.items()},
        "sets": sets,
        "overall": {
            "sets": "label-keeping text perturbations, all strengths above 0 averaged per example",
            "n_sets": len(kept),
            "methods": [
                {key: entry[key] for key in ("label", "drop", "flip_rate")} for entry in overall["methods"]
            ],
            "against_reference": overall["against_reference"],
        },
        "worst_case": {
            name: _interval(mean_interval(worst_case({str(at): after[name] for at, after in enumerate(kept)})))
            for name in methods
        },
        "contrast": [
            {
                "name": "pairs.jsonl",
                "n_examples": 80,
                "n_sets": 40,
                "n_pairs": 40,
                "file": "robustness/sets/pairs.jsonl",
                "methods": [
                    {
                        "label": name,
                        "accuracy": _interval(mean_interval(right[:, :80])),
                        "consistency": _interval(mean_interval(right[:, :40] * right[:, 40:80])),
                        "pair_consistency": _interval(mean_interval(1.0 * (right[:, :40] == right[:, 40:80]))),
                    }
                    for name, right in clean.items()
                ],
            }
        ],
        "checkpoints": [
            {
                "label": name,
                "run": f"{name}-{at}",
                "step": 10 * step if step else None,
                "clean": skill - 0.02 * step,
                "drops": {"char_swap@0.1": 0.02 + 0.01 * step + 0.05 * (1 - skill)},
                "overall": 0.02 + 0.01 * step + 0.05 * (1 - skill),
                "used": True,
            }
            for name, skill in skills.items()
            for at in range(n_seeds)
            for step in range(4)
        ],
        "at_equal_accuracy": [
            {
                "set": "overall",
                "slope": {"mean": 0.2, "low": 0.05, "high": 0.35},
                "differences": {
                    name: {"mean": 0.01 * at, "low": 0.01 * at - 0.03, "high": 0.01 * at + 0.03}
                    for at, name in enumerate(methods)
                    if at
                },
                "n_checkpoints": 4 * n_seeds * len(methods),
                "n_runs": n_seeds * len(methods),
            }
        ],
        "at_equal_accuracy_reason": "",
        "at_equal_accuracy_basis": "snapshots and final models",
        "left_out": {},
        "notes": [],
    }  # fmt: skip


def _right(rng: np.random.Generator, hard: np.ndarray, skill: float, n_seeds: int) -> np.ndarray:
    """(S, n) right (1) or wrong (0): what is hard is hard for all."""
    noisy = hard + 0.1 * rng.standard_normal((n_seeds, len(hard)))
    return (noisy < skill).astype(float)


def _facts(name: str, kind: str, strength: float | None, unit: str, n_examples: int) -> dict[str, Any]:
    return {
        "name": name,
        "kind": kind,
        "promise": None,
        "question": None,
        "strength": strength,
        "unit": unit,
        "summary": f"What `{name}` does to a row, in one sentence.",
        "n_examples": n_examples,
        "n_reached": None,
        "n_draws": 1,
        "file": None,
        "files": None,
        "source": None,
    }


def _findings(clean: dict[str, np.ndarray], after: dict[str, np.ndarray], reference: str) -> dict[str, Any]:
    measured: dict[str, Robustness] = {name: robustness(right, after[name]) for name, right in clean.items()}
    compared = compare({name: clean[name] - after[name] for name in clean}, reference, margin=0.03)
    against = []
    for name, comparison in compared.items():
        matched = matched_flips((clean[name], clean[reference]), (after[name], after[reference]))
        against.append({
            "label": name,
            "drop_difference": {
                "mean": comparison.difference,
                "low": comparison.low,
                "high": comparison.high,
                "p": comparison.p_difference,
                "p_holm": comparison.p_difference_holm,
            },
            "verdict": VERDICTS.get(comparison.verdict, comparison.verdict),
            "detectable_difference": comparison.detectable_difference,
            "score_difference": None,
            "score_verdict": None,
            "matched": matched
            and {
                "n_examples": matched.n_examples,
                "method": _interval(matched.first),
                "reference": _interval(matched.second),
                "difference": _interval(matched.difference),
            },
        })  # fmt: skip
    methods = [
        {
            "label": name,
            **{
                part: _interval(getattr(found, part))
                for part in ("clean", "perturbed", "drop", "relative", "attack_success")
            },
            "flip_rate": _interval(found.drop),
        }
        for name, found in measured.items()
    ]
    return {"methods": methods, "against_reference": against}


def _interval(found: Interval | None) -> dict[str, float] | None:
    return None if found is None else {key: value for key, value in asdict(found).items() if key != "standard_error"}
