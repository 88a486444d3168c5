"""T5: full fine-tuning gains more from data, so it overtakes as data grows. Does it?"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from deltaproof.evidence import commands
from deltaproof.evidence.claim import NOT_MEASURED, Claim, Finding, Missing, Span, Statement, Verdict
from deltaproof.evidence.judging import ONE_SEED, judge, overall, seeded
from deltaproof.evidence.measured import Measured, span
from deltaproof.evidence.words import count
from deltaproof.metrics import METRICS, per_unit
from deltaproof.records.store import Store
from deltaproof.stats import mean_interval

STATEMENT = Statement(
    name="T5",
    title="Smaller gains from data, and a crossover",
    source="arXiv 2505.22355, theorem 5, known from secondary sources; its formula not",
    says=(
        "Parameter-efficient tuning gains less from more data; it can match or exceed full fine-tuning where data "
        "is scarce."
    ),
    tested_as=(
        "The same comparison at several sizes of the training set. The gain of full fine-tuning from the smallest "
        "to the largest size minus that of the method, paired by seed and test example; and where the curves cross."
    ),
    rule=(
        "Gain: supported if the interval of that difference lies above 0; contradicted if it lies below 0 or within "
        "the margin around it. Crossing: supported if full overtakes the method within the range, contradicted if "
        "the method overtakes full; a crossing outside of the range cannot be told. Together: what one says and the "
        "other does not deny."
    ),
    not_shown=(
        "What happens beyond the sizes measured. At equal epochs a small set is trained for fewer steps, at equal "
        "steps it is seen more often: two questions. Theory on generalisation has terms of the opposite sign, since "
        "fewer parameters overfit less."
    ),
)


def examples(m: Measured) -> Claim:
    study, command = m.found("scale_examples"), commands.by_examples(m)
    if not study:
        missing = Missing("the comparison at several sizes of the training set", command)
        return Claim(STATEMENT, "cannot tell", NOT_MEASURED, missing=(missing,))
    methods = {entry["label"]: entry for entry in study["methods"]}
    if m.full is None or m.full not in methods:
        return Claim(
            STATEMENT, "not applicable", "the sweep has no full fine-tuning", missing=(Missing("it", command),)
        )
    findings = [
        finding for label, entry in methods.items() if label != m.full
        for finding in (_gain(m, study, methods[m.full], entry), _crossing(study, m.full, entry))
        if finding is not None
    ]  # fmt: skip
    verdict = overall(findings)
    words = {
        "supported": f"{m.full} gains more from data",
        "contradicted": f"{m.full} does not gain more from data",
        "cannot tell": "these runs cannot tell, or methods differ",
        "not applicable": "no other method stands in the sweep",
    }[verdict]
    sizes = [point["n_examples"] for point in methods[m.full]["points"]]
    because = f"{words}, from {count(min(sizes))} to {count(max(sizes))} examples" if sizes else words
    return Claim(STATEMENT, verdict, because, tuple(findings), tuple(_missing(m, study, findings)))


def _gain(m: Measured, study: dict[str, Any], full: dict[str, Any], other: dict[str, Any]) -> Finding | None:
    """Difference in differences, example by example and seed by seed."""
    mine, theirs = ({point["n_examples"]: point for point in entry["points"]} for entry in (full, other))
    sizes = sorted(set(mine) & set(theirs))
    if len(sizes) < 2:
        return None
    quantity = "full's gain from data minus the method's"
    keys = [points[size]["keys"] for points in (mine, theirs) for size in (sizes[0], sizes[-1])]
    n_seeds = min(len(each) for each in keys)
    places = [_place(m.store, size, each) for each, size in zip(keys, [sizes[0], sizes[-1]] * 2, strict=True)]
    metric = METRICS[study["metric"]]
    scores = [
        np.stack([per_unit(metric, place.predictions(key)) for key in each[:n_seeds]])
        for place, each in zip(places, keys, strict=True) if place is not None
    ]  # fmt: skip
    if len(scores) < len(keys):
        why = "the predictions at the smallest or largest size are no longer in the run folder"
        return Finding(other["label"], quantity, None, n_seeds, "cannot tell", why)
    full_low, full_high, low, high = scores
    sign = 1 if metric.higher_is_better else -1
    found = mean_interval(sign * ((full_high - full_low) - (high - low)))
    value = Span(found.mean, found.low, found.high, metric.unit)
    because = f"between {count(sizes[0])} and {count(sizes[-1])} examples at equal {study['equal']}"
    verdict = judge(value, m.margin, n_seeds)
    return Finding(other["label"], quantity, value, n_seeds, verdict, seeded(because, n_seeds))


def _place(store: Store, n_examples: int, keys: Sequence[str]) -> Store | None:
    """Where the runs of one size have their predictions: the folder itself, or the one for that size."""
    for place in (store, *(Store(path) for path in sorted((store.folder / "sizes").glob("*")))):
        has_all = all(place.predictions_path(key).exists() for key in keys)
        if has_all and place.experiment()["data"]["rows"]["train"] == n_examples:
            return place
    return None


def _crossing(study: dict[str, Any], full: str, other: dict[str, Any]) -> Finding | None:
    pair = {full, other["label"]}
    entry = next((found for found in study["crossovers"] if {found["one"], found["other"]} == pair), None)
    if entry is None:
        return None
    n_seeds = min((len(point["keys"]) for point in other["points"]), default=0)
    verdict: Verdict = "cannot tell"
    if entry["verdict"] == "crossover":
        verdict = "supported" if entry["ahead_after"] == full else "contradicted"
        because = f"{entry['ahead_after']} overtakes {entry['ahead_before']}"
    elif entry["verdict"] == "no crossover in range":
        because = f"{entry['ahead_after']} is ahead at every size; a crossing may lie outside of the range"
    else:
        because = f"the curves cross in {entry['crossing_fraction']:.0%} of the draws"
    value = span(entry["at"], "examples", value="value") if entry["verdict"] == "crossover" else None
    if n_seeds < 2:
        verdict, because = "cannot tell", f"{ONE_SEED}; {because}"
    return Finding(other["label"], "where the curves cross", value, n_seeds, verdict, because)


def _missing(m: Measured, study: dict[str, Any], findings: list[Finding]) -> list[Missing]:
    equal = "steps" if study["equal"] == "epochs" else "epochs"
    missing = [Missing(f"the same at equal {equal}", commands.by_examples_at_equal(m, equal))]
    if any(finding.n_seeds < 2 for finding in findings):
        missing.append(Missing("a second seed", f"{commands.by_examples(m)} --equal {study['equal']} --seeds 3"))
    return missing
