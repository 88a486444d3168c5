"""Compressed updates over the tasks of a suite: what is retained of each method at each density, and the claims.

A task is a unit here: differences to the updates as tuned are averaged over tasks, with intervals over tasks, so that
what holds on one data set is not taken for what holds on others.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from deltaproof.evidence.claim import NOT_MEASURED, Claim, Finding, Missing, Span, Statement, Verdict
from deltaproof.evidence.compressed import (
    COMPOSED,
    LARGER,
    MERGED,
    SMALL,
    as_good,
    decided,
    deciding,
    difference_of,
    pairs_of,
    times_smaller,
    told,
)  # fmt: skip
from deltaproof.evidence.judging import overall
from deltaproof.evidence.measured import Measured
from deltaproof.records.store import Store, read_json
from deltaproof.stats import Comparison, compare, mean_interval

LEAST_TASKS = 3
"""Fewer say nothing of other tasks."""
Result = dict[str, Any]


def over_tasks(out: Path, document: Mapping[str, Any]) -> dict[str, Any] | None:
    """Plain data for `suite.json`; None where no task was compressed.

    Args:
        out: the suite's folder, with a run folder for each task.
        document: what `suite.json` holds: its tasks are looked for, their scores are fractions.
    """
    found = {}
    for entry in document["tasks"]:
        result = entry["result"]
        if result is not None and result["unit"] == "fraction" and (out / entry["name"]).is_dir():
            store = Store(out / entry["name"])
            found[entry["name"]] = store
    runs = {name: store for name, store in found.items() if store.study_path("compression").exists()}
    if not runs:
        return None
    studies = {name: read_json(store.study_path("compression")) for name, store in runs.items()}
    margin = float(np.mean([study["margin"] for study in studies.values()]))
    rows = _rows(studies, margin)
    measured = {name: Measured(store) for name, store in found.items() if store.study_path("merging").exists()}
    claims = [
        _small(rows),
        Claim(LARGER, "not applicable", "one model was compressed; the claim compares sizes of one family"),
        _merges(measured, MERGED, margin, composed=False),
        _merges(measured, COMPOSED, margin, composed=True),
    ]
    return {
        "format": 1,
        "margin": margin,
        "tasks": list(runs),
        "settings": next(iter(studies.values()))["settings"],
        "methods": _ends(studies),
        "rows": rows,
        "claims": [
            {**asdict(claim.statement), "verdict": claim.verdict, "because": claim.because,
             "findings": [asdict(finding) for finding in claim.findings],
             "missing": [asdict(missing) for missing in claim.missing]}
            for claim in claims
        ],
    }  # fmt: skip


def _contestants(studies: Mapping[str, Result]) -> list[str]:
    return list(dict.fromkeys(entry["label"] for study in studies.values() for entry in study["contestants"]))


def _entry(study: Result, label: str) -> Result | None:
    return next((entry for entry in study["contestants"] if entry["label"] == label), None)


def _ends(studies: Mapping[str, Result]) -> list[Result]:
    """By method: the scores as tuned and at the start of the gain, by task."""
    found = []
    for label in _contestants(studies):
        there = {name: entry for name, study in studies.items() if (entry := _entry(study, label)) is not None}
        found.append({
            "method": label,
            "before": {name: entry["intervals"]["before"] for name, entry in there.items()},
            "start": {name: entry["intervals"].get(entry["start"]) for name, entry in there.items()},
            "n_seeds": {name: entry["n_seeds"] for name, entry in there.items()},
        })  # fmt: skip
    return found


def _rows(studies: Mapping[str, Result], margin: float) -> list[Result]:
    """One for each method and density: by task, and over the tasks that have it."""
    rows = []
    for label in _contestants(studies):
        own: list[Result] = []
        there = {name: entry for name, study in studies.items() if (entry := _entry(study, label)) is not None}
        densities = sorted({density for entry in there.values() for density in entry["densities"]}, key=float)
        for density in densities:
            tasks = {name: _cell(studies[name], entry, density) for name, entry in there.items()
                     if density in entry["densities"]}  # fmt: skip
            sizes = {field: float(np.mean([task["sizes"][field] for task in tasks.values()]))
                     for field in ("file_bytes", "stored_ratio", "fp16_ratio", "fp32_ratio")}  # fmt: skip
            retained = [task["retained"]["mean"] for task in tasks.values() if task["retained"]]
            gains = [task["gain_retained"]["mean"] for task in tasks.values() if task["gain_retained"]]
            own.append({
                "method": label, "density": density, "tasks": tasks, **sizes,
                "difference": _over([task["difference"] for task in tasks.values()]), "retained": _over(retained),
                "gain_retained": _over(gains), "n_gains": len(gains), "verdict": None, "note": "",
            })  # fmt: skip
        _with_verdicts(own, margin)
        rows += own
    return rows


def _cell(study: Result, entry: Result, density: str) -> Result:
    found = entry["densities"][density]
    models = [at for model in study["models"] if model["label"] == entry["label"] for at in model["densities"]
              if f"{at['density']:g}" == density]  # fmt: skip
    sizes = {field: float(np.mean([at["sizes"][field] for at in models]))
             for field in ("file_bytes", "stored_ratio", "fp16_ratio", "fp32_ratio")}  # fmt: skip
    return {
        "score": entry["intervals"][density]["mean"],
        "chosen": list(dict.fromkeys(at["chosen"] for at in models)),
        "sizes": sizes,
        **{field: found[field] for field in ("difference", "low", "high", "verdict", "retained", "gain_retained")},
    }


def _over(values: Sequence[float]) -> dict[str, float] | None:
    """The mean over tasks with a 95 % interval over tasks; None of fewer than two."""
    if len(values) < 2:
        return None
    found = mean_interval([list(values)])
    return {"mean": found.mean, "low": found.low, "high": found.high, "n": len(values)}


def _with_verdicts(rows: Sequence[Result], margin: float) -> None:
    """Whether the mean difference over tasks is within the margin, corrected over the densities of a method."""
    names = {name for row in rows for name in row["tasks"]}
    whole = [row for row in rows if set(row["tasks"]) == names]
    for row in rows:
        row["verdict"], row["note"] = "cannot tell", "not measured on all tasks, or on too few"
    if len(names) < LEAST_TASKS or not whole:
        return
    differences = {row["density"]: [[task["difference"] for task in row["tasks"].values()]] for row in whole}
    found: dict[str, Comparison] = compare({"as tuned": [[0.0] * len(names)], **differences}, "as tuned", margin)
    for row in whole:
        row["verdict"], row["note"] = found[row["density"]].verdict, ""


def _small(rows: Sequence[Result]) -> Claim:
    findings = []
    for label in dict.fromkeys(row["method"] for row in rows):
        own = [row for row in rows if row["method"] == label]
        verdicts = {row["density"]: str(row["verdict"]) for row in own}
        ratios = {row["density"]: float(row["fp16_ratio"]) for row in own}
        key = deciding(verdicts, ratios)
        for row in own:
            is_key = row["density"] == key
            verdict: Verdict = decided(verdicts, ratios) if is_key else as_good(str(row["verdict"]))
            because = (
                f"density {row['density']}: {row['fp16_ratio']:.0f} times smaller than fp16, the whole file "
                f"{row['stored_ratio']:.1f} times smaller than as stored; over {len(row['tasks'])} tasks "
                f"{row['verdict']}"
            )
            findings.append(
                Finding(label, "compressed minus as tuned, mean over tasks, test", _span(row["difference"]),
                        len(row["tasks"]), verdict, because, counts=is_key)
            )  # fmt: skip
    verdict = overall(findings)
    words = {
        "supported": "small files score as well over the tasks",
        "contradicted": "files that small score worse over the tasks",
        "cannot tell": "these tasks cannot tell, or the methods differ",
        "not applicable": "nothing was small enough to say",
    }[verdict]
    return Claim(SMALL, verdict, f"{words}: {told(findings)}", tuple(findings))


def _span(found: dict[str, float] | None, unit: str = "fraction") -> Span | None:
    return None if found is None else Span(found["mean"], found["low"], found["high"], unit)


def _merges(measured: Mapping[str, Measured], statement: Statement, margin: float, composed: bool) -> Claim:
    """Over the tasks on which the same merge was scored with compressed and with uncompressed experts."""
    by_merge: dict[str, dict[str, float]] = {}
    for name, m in measured.items():
        for small_one, whole in pairs_of(m.found("merging").get("merges", ()), composed):
            found = difference_of(m, small_one, whole)
            if found is not None:
                by_merge.setdefault(_named(small_one, whole), {})[name] = found.difference
    if not by_merge:
        what = "a composition" if composed else "a merge"
        missing = Missing(f"{what} of compressed experts, and the same of the uncompressed ones", "")
        return Claim(statement, "cannot tell", NOT_MEASURED, missing=(missing,))
    findings = [_of_merge(what, differences, margin) for what, differences in by_merge.items()]
    verdict = overall(findings)
    words = {
        "supported": "compressed experts did as well",
        "contradicted": "compressed experts did worse",
        "cannot tell": "these tasks cannot tell, or the rules differ",
        "not applicable": "nothing was compared",
    }[verdict]
    return Claim(statement, verdict, f"{words}: {told(findings)}", tuple(findings))


def _named(small_one: Result, whole: Result) -> str:
    methods = ", ".join(dict.fromkeys(expert["contestant"] for expert in whole["experts"]))
    times = times_smaller(small_one, whole)
    how, n = small_one["recipe"]["how"], len(whole["experts"])
    return f"{how} of {n} {methods} experts, files {times:.1f} times smaller"


def _of_merge(what: str, differences: Mapping[str, float], margin: float) -> Finding:
    values = list(differences.values())
    quantity = "of compressed experts minus of uncompressed ones, mean over tasks, test"
    if len(values) < LEAST_TASKS:
        listed = ", ".join(f"{name} {100 * value:+.1f}" for name, value in differences.items()).replace("-", "−")
        because = f"scored on {len(values)} of the tasks, which says nothing of others: {listed} points"
        return Finding(what, quantity, _span(_over(values)), len(values), "cannot tell", because)
    found = compare({"whole": [[0.0] * len(values)], "small": [values]}, "whole", margin)["small"]
    because = f"over {len(values)} tasks {found.verdict}"
    value = Span(found.difference, found.low, found.high, "fraction")
    return Finding(what, quantity, value, len(values), as_good(found.verdict), because)
