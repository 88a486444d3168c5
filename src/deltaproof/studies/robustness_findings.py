"""What stored answers say of robustness: every number of the study, from a run folder's files alone, without a model.

The manifest says which answers were asked for (`studies/robustness_answers.py` asked and stored them); nothing here is
drawn at random, so the numbers come out the same however often they are reckoned.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from deltaproof.metrics import METRICS, Metric
from deltaproof.records.record import Predictions
from deltaproof.records.store import read_json, read_predictions
from deltaproof.robustness.metrics import (
    by_group,
    contrast_consistency,
    drop_between,
    matched_flips,
    pair_consistency,
    robustness,
    share_interval,
    worst_case,
)
from deltaproof.stats import Interval, compare, mean_interval
from deltaproof.studies.robustness_coding import (
    codes_of,
    difference_json,
    interval_json,
    pairs_of,
    right_of,
    truth_of,
)
from deltaproof.studies.robustness_equal import at_equal_accuracy
from deltaproof.studies.robustness_searches import search_costs

Json = dict[str, Any]
Array = np.ndarray
FORMAT = 1
VERDICTS = {"better": "more fragile", "worse": "more robust"}
"""Of a larger drop than the reference's: the comparison's words for more and for less of it."""
POOLED = "label-keeping text perturbations, all strengths above 0 averaged per example"
LEAST_UNITS = 8
"""Rows, or groups of them, of the smallest sample that a verdict is given on. A few that all fall one way show no
spread, so that a t-test is certain of them, while a sign test of five has p = 0.06; of eight it has 0.008, which stands
among six methods too."""


def answers_path(folder: Path, model: str, asked: str) -> Path:
    """Where a model's answers to a set stand in a run folder."""
    return folder / "robustness" / "answers" / model / f"{asked}.parquet"


def found_texts_path(folder: Path, model: str, asked: str) -> Path:
    """Where the texts stand that a search found against a model."""
    return folder / "robustness" / "sets" / asked / f"{model}.jsonl"


def read_findings(folder: Path, manifest: Path) -> Json:
    """The study's result once more, from what stands on disk."""
    return findings(folder, read_json(manifest))


def findings(folder: Path, manifest: Json) -> Json:
    """The result of a study whose answers all stand in the run folder.

    Raises:
        RecordError: answers that the manifest names are missing.
    """
    study = _Study(folder, manifest)
    sets = [study.of_set(entry) for entry in manifest["sets"]]
    equal, checkpoints, reason = at_equal_accuracy(study)
    return {
        "format": FORMAT,
        "inputs": manifest["inputs"],
        "metric": study.metric.name,
        "unit": study.metric.unit,
        "higher_is_better": study.metric.higher_is_better,
        "margin": manifest["margin"],
        "alpha": manifest["alpha"],
        "kind": manifest["kind"],
        "reference": study.reference,
        "n_examples": manifest["n_examples"],
        "n_test": manifest["n_test"],
        "n_seeds": study.n_seeds,
        "methods": list(study.labels),
        "keys": manifest["keys"],
        "clean": {label: interval_json(study.level(study.clean(label))) for label in study.labels},
        "sets": sets,
        "overall": study.overall(),
        "worst_case": study.worst_case(),
        "contrast": [study.of_contrast(entry) for entry in manifest["contrast"]],
        "checkpoints": checkpoints,
        "at_equal_accuracy": equal,
        "at_equal_accuracy_reason": reason,
        "at_equal_accuracy_basis": manifest["equal_accuracy"]["basis"],
        "left_out": manifest["left_out"],
        "notes": [*manifest["notes"], *study.too_few()],
    }


@dataclass(frozen=True, eq=False)
class _Asked:
    """One method's answers to one set: (S, n) each, averaged over the draws where the set has several."""

    score: Array
    """By the deciding metric, in its own unit."""
    right: Array | None
    """Right (1) or wrong (0); None for regression."""
    answers: Array | None
    """(draws, S, n) codes of the answers."""
    groups: list[str] | None
    targets: Array


class _Study:
    """Answers by method and set, each read once."""

    def __init__(self, folder: Path, manifest: Json) -> None:
        self.folder, self.manifest = folder, manifest
        self.metric: Metric = METRICS[manifest["metric"]]
        self.sign = 1 if self.metric.higher_is_better else -1
        self.labels: list[str] = list(manifest["keys"])
        self.reference: str = manifest["reference"]
        self.n_seeds = min(len(keys) for keys in manifest["keys"].values())
        self.read = cache(self._from_disk)

    def _from_disk(self, model: str, asked: str) -> Predictions:
        return read_predictions(answers_path(self.folder, model, asked), "run `deltaproof attack` again")

    def asked(self, label: str, draws: Sequence[str]) -> _Asked:
        """What a method answered to a set, for each draw of it."""
        keys = self.manifest["keys"][label]
        found = [[self.read(key, draw) for key in keys] for draw in draws]
        first = found[0][0]

        def averaged(of: Callable[[Predictions], Array]) -> Array:
            return np.asarray(np.mean([[of(each) for each in row] for row in found], axis=0))

        codes = [[codes_of(self.manifest["kind"], each) for each in row] for row in found]
        has_answers = codes[0][0] is not None
        return _Asked(
            averaged(lambda each: self.metric.per_example(each.targets, each.outputs)),
            averaged(lambda each: right_of(self.manifest["kind"], each)) if has_answers else None,
            np.array(codes, dtype=float) if has_answers else None,
            first.groups,
            first.targets,
        )

    def clean(self, label: str) -> _Asked:
        return self.asked(label, self.manifest["clean"])

    def level(self, asked: _Asked) -> Interval:
        """The score itself; a share lies in 0..1, and so does its interval."""
        found = mean_interval(by_group(asked.score, asked.groups))
        if self.metric.unit != "fraction":
            return found
        return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))

    def of_set(self, entry: Json) -> Json:
        """One set: what each method keeps of its score, and how that compares with the reference."""
        facts = {key: value for key, value in entry.items() if key not in ("draws", "paired", "labels")}
        after = {label: self.asked(label, entry["draws"]) for label in entry["labels"]}
        clean = {label: self.clean(label) for label in after}
        of = _paired if entry["paired"] else _unpaired
        methods = [{"label": label, **of(self, clean[label], after[label])} for label in after]
        if entry["kind"] == "search":
            for method in methods:
                label = method["label"]
                method |= self.search_costs(label, entry["draws"][0], clean[label], after[label])
        if entry["kind"] == "transfer":  # the texts were chosen against the reference: it stands apart
            return {**facts, "methods": methods, "against_reference": []}
        drops = {label: self.drop(clean[label], after[label], entry["paired"]) for label in after}
        scores = {label: by_group(asked.score, asked.groups) for label, asked in after.items()}
        flips = {label: self.matched(clean, after, label) if entry["paired"] else None for label in after}
        return {**facts, "methods": methods, "against_reference": self.against(drops, flips, scores)}

    def search_costs(self, label: str, asked: str, clean: _Asked, after: _Asked) -> Json:
        assert clean.right is not None
        assert after.right is not None
        places = [found_texts_path(self.folder, key, asked) for key in self.manifest["keys"][label]]
        costs = search_costs(places, clean.right, after.right, clean.groups)
        return {name: interval_json(found) for name, found in costs.items()}

    def too_few(self) -> list[str]:
        """A note for each sample that is too small for a verdict: the test rows, or a set of the user's."""
        samples = {"the test rows": (self.labels[0], self.manifest["clean"])} | {
            entry["name"]: (entry["labels"][0], entry["draws"])
            for entry in self.manifest["sets"] if not entry["paired"]
        }  # fmt: skip
        found = []
        for name, (label, draws) in samples.items():
            asked = self.asked(label, draws)
            n, what = (asked.score.shape[1], "rows") if asked.groups is None else (len(set(asked.groups)), "groups")
            if n < LEAST_UNITS and len(self.labels) > 1:
                found.append(f"{name}: {n} {what}, so no verdict; at least {LEAST_UNITS} are needed for one")
        return found

    def drop(self, clean: _Asked, after: _Asked, paired: bool) -> Array:
        """(S, units) what was lost: positive where the score got worse, whichever way it counts."""
        if paired:
            return by_group(self.sign * (clean.score - after.score), clean.groups)
        return drop_between(self.sign * clean.score, self.sign * after.score, clean.groups, after.groups)

    def against(
        self, drops: Mapping[str, Array], matched: Mapping[str, Json | None], scores: Mapping[str, Array] | None = None
    ) -> list[Json]:
        """Every method's drop held against the reference's, Holm-corrected over the methods; and so its score.

        Args:
            scores: on the set itself, where rows of its own make a sample smaller than that of the drops.
        """
        if self.reference not in drops or len(drops) < 2:
            return []
        margin, alpha = self.manifest["margin"], self.manifest["alpha"]
        compared = compare(dict(drops), self.reference, margin, alpha, unit=self.metric.unit)
        level = (
            compare(dict(scores), self.reference, margin, alpha, self.metric.higher_is_better, self.metric.unit)
            if scores
            else {}
        )
        n_units = min(values[self.reference].shape[1] for values in (drops, scores) if values)
        is_told = n_units >= LEAST_UNITS
        return [
            {
                "label": label,
                "drop_difference": difference_json(found),
                "verdict": VERDICTS.get(found.verdict, found.verdict) if is_told else "cannot tell",
                "detectable_difference": found.detectable_difference,
                "score_difference": difference_json(level[label]) if label in level else None,
                "score_verdict": (level[label].verdict if is_told else "cannot tell") if label in level else None,
                "matched": matched.get(label),
            }
            for label, found in compared.items()
        ]

    def matched(self, clean: Mapping[str, _Asked], after: Mapping[str, _Asked], label: str) -> Json | None:
        """Flips on the examples that method and reference both had right when clean."""
        if label == self.reference or self.reference not in after:
            return None
        pair = (label, self.reference)
        before, then = [clean[name].right for name in pair], [after[name].right for name in pair]
        if before[0] is None or before[1] is None or then[0] is None or then[1] is None:
            return None
        found = matched_flips((before[0], before[1]), (then[0], then[1]), clean[label].groups)
        if found is None:
            return None
        return {
            "n_examples": found.n_examples,
            "method": interval_json(found.first),
            "reference": interval_json(found.second),
            "difference": interval_json(found.difference),
        }

    def pooled(self) -> list[Json]:
        """The sets that promise to keep the label: the only ones in which a wrong answer is surely the model's."""
        return [
            entry
            for entry in self.manifest["sets"]
            if entry["kind"] == "perturbation" and entry["promise"] == "keeps label" and entry["strength"] > 0
        ]

    def everywhere(self) -> list[str]:
        """The methods that answered every pooled set."""
        return [label for label in self.labels if all(label in entry["labels"] for entry in self.pooled())]

    def overall(self) -> Json | None:
        """Drop, flips and verdicts over all pooled sets at once."""
        if not self.pooled():
            return None
        draws = [draw for entry in self.pooled() for draw in entry["draws"]]
        after = {label: self.asked(label, draws) for label in self.everywhere()}
        clean = {label: self.clean(label) for label in after}
        drops = {label: self.drop(clean[label], after[label], True) for label in after}
        matched = {label: self.matched(clean, after, label) for label in after}
        return {
            "sets": POOLED,
            "n_sets": len(self.pooled()),
            "methods": [
                {
                    "label": label,
                    "drop": interval_json(mean_interval(drops[label])),
                    "flip_rate": interval_json(_flips(clean[label], after[label])),
                }
                for label in after
            ],
            "against_reference": self.against(drops, matched),
        }

    def worst_case(self) -> dict[str, Json | None]:
        """Share of examples right when clean and after every pooled perturbation."""
        if not self.pooled() or self.manifest["kind"] == "regression":
            return {}
        found = {}
        for label in self.everywhere():
            clean = self.clean(label)
            assert clean.right is not None
            rights = {"clean": clean.right}
            for entry in self.pooled():
                for draw in entry["draws"]:
                    right = self.asked(label, [draw]).right
                    assert right is not None
                    rights[draw] = right
            found[label] = interval_json(share_interval(worst_case(rights), clean.groups))
        return found

    def of_contrast(self, entry: Json) -> Json:
        """Contrast sets or counterfactual pairs: is all of a set right, does the answer change as the label does?"""
        methods = []
        for label in entry["labels"]:
            asked = self.asked(label, entry["draws"])
            assert asked.right is not None
            assert asked.answers is not None
            assert asked.groups is not None
            pairs = pairs_of(asked.groups)
            targets = truth_of(self.manifest["kind"], asked.targets)
            of_pairs = None
            if len(pairs) > 1:
                one, other = pairs[:, 0], pairs[:, 1]
                answers = asked.answers[0]
                of_pairs = pair_consistency(answers[:, one], answers[:, other], targets[one], targets[other])
            methods.append({
                "label": label,
                "accuracy": interval_json(share_interval(asked.right, asked.groups)),
                "consistency": interval_json(contrast_consistency(asked.right, asked.groups)),
                "pair_consistency": interval_json(of_pairs),
            })  # fmt: skip
        groups = self.asked(entry["labels"][0], entry["draws"]).groups if entry["labels"] else None
        sets = sorted(set(groups or []))
        n_pairs = len(pairs_of(groups)) if groups else 0
        return {
            "name": entry["name"], "n_examples": entry["n_examples"], "n_sets": len(sets), "n_pairs": n_pairs,
            "file": entry["file"], "methods": methods,
        }  # fmt: skip


def _paired(study: _Study, clean: _Asked, after: _Asked) -> Json:
    """The same rows, clean and perturbed."""
    groups = clean.groups
    quality = robustness(study.sign * clean.score, study.sign * after.score, groups)
    success = None
    if clean.right is not None and after.right is not None:
        success = robustness(clean.right, after.right, groups).attack_success
    return {
        "clean": interval_json(study.level(clean)),
        "perturbed": interval_json(study.level(after)),
        "drop": interval_json(quality.drop),
        "relative": interval_json(quality.relative) if study.sign > 0 and quality.clean.mean > 0 else None,
        "attack_success": interval_json(success),
        "flip_rate": interval_json(_flips(clean, after)),
    }


def _unpaired(study: _Study, clean: _Asked, after: _Asked) -> Json:
    """Rows of their own: no answer has a clean counterpart, so nothing flips."""
    drop = study.drop(clean, after, paired=False)
    before, then = study.level(clean), study.level(after)
    relative = None
    if study.sign > 0 and before.mean > 0:
        ratio = then.mean / before.mean
        change = drop_between(after.score / before.mean, ratio * clean.score / before.mean, after.groups, clean.groups)
        relative = mean_interval(ratio + change)
    return {
        "clean": interval_json(before),
        "perturbed": interval_json(then),
        "drop": interval_json(mean_interval(drop)),
        "relative": interval_json(relative),
        "attack_success": None,
        "flip_rate": None,
    }


def _flips(clean: _Asked, after: _Asked) -> Interval | None:
    """Share of examples whose answer changes, averaged over the draws."""
    if clean.answers is None or after.answers is None:
        return None
    return share_interval((after.answers != clean.answers[0]).mean(axis=0), clean.groups)
