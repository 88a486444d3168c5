"""T4: parameter-efficient tuning is more sensitive to perturbations. Also where both methods are equally accurate?"""

from collections.abc import Callable, Sequence
from typing import Any

from deltaproof.evidence import commands
from deltaproof.evidence.claim import NOT_MEASURED, Claim, Finding, Missing, Span, Statement, Verdict
from deltaproof.evidence.judging import agreed, average, judge, overall, seeded
from deltaproof.evidence.measured import Measured, span
from deltaproof.evidence.words import count, listed, whole

STATEMENT = Statement(
    name="T4",
    title="More sensitive to perturbations",
    source=(
        "arXiv 2505.22355, abstract and theorem 4: the direction is stated, the formula is not known, nor which "
        "eleven test sets were used"
    ),
    says="The limited parameter space makes a model more susceptible to perturbations.",
    tested_as=(
        "Perturbed test texts that keep their label, paired example by example, at equal clean accuracy: the share "
        "turned wrong of the examples that both methods had right, and the drop regressed on clean accuracy over "
        "checkpoints."
    ),
    rule=(
        "Per method and measure: supported if the interval of its difference to full fine-tuning lies above 0; "
        "contradicted if it lies below 0 or within the margin around it; fewer than 8 examples that both had right "
        "cannot tell. The two measures together: what one says "
        "and the other does not deny. The raw drop stands beside them and does not decide."
    ),
    not_shown=(
        "A larger raw drop alone may repeat a difference in clean accuracy. Weight noise asks three questions of "
        "its own (on all weights, on the trained ones, at equal norm), which do not enter the verdict; nor do other "
        "attacks than these."
    ),
)
SHARE = "fraction"
"""Of flips, whatever the metric of the task is."""
_FRAGILE: dict[str, Verdict] = {
    "more fragile": "supported", "more robust": "contradicted", "equivalent": "contradicted",
}  # fmt: skip
LEAST_MATCHED = 8
"""Examples that both had right: when all of a few fall one way they show no spread, and an interval is no interval."""
MATCHED, REGRESSED = "turned wrong of those both had right, minus full's", "drop at equal clean accuracy, minus full's"
RAW = "raw drop from the clean test rows to the set, minus full's"
_BESIDE: dict[str, Callable[[dict[str, Any]], bool]] = {
    "texts searched word by word": lambda entry: bool(entry["kind"] == "search" and entry["promise"] == "keeps label"),
    "attack on embeddings": lambda entry: bool(entry["kind"] == "embedding_pgd"),
    "noise on all weights": lambda entry: bool(entry["question"] == "all"),
    "noise on the trained weights": lambda entry: bool(entry["question"] == "trained"),
    "noise of equal norm": lambda entry: bool(entry["question"] == "equal_norm"),
}


def perturbation(m: Measured) -> Claim:
    study = m.found("robustness")
    if not study:
        if m.why_no_comparison:
            return Claim(STATEMENT, "not applicable", m.why_no_comparison)
        missing = Missing("robustness to perturbed texts", commands.attack(m))
        return Claim(STATEMENT, "cannot tell", NOT_MEASURED, missing=(missing,))
    if study["reference"] != m.full:
        because = f"the study held methods against {study['reference']}, the claim is about full fine-tuning"
        return Claim(
            STATEMENT, "not applicable", because, missing=(Missing("robustness against full", commands.attack(m)),)
        )
    labels = [label for label in study["methods"] if label != m.full]
    findings = [finding for label in labels for finding in _of_method(m, study, label)]
    beside = [_group(m, study, name, is_in, labels) for name, is_in in _BESIDE.items()]
    everything = [*findings, *(finding for finding in (*beside, _own_sets(m, study, labels)) if finding is not None)]
    verdict = overall(findings)
    words = {
        "supported": "at equal clean accuracy methods are more fragile than full fine-tuning",
        "contradicted": "at equal clean accuracy methods are no more fragile than full fine-tuning",
        "cannot tell": "at equal clean accuracy these runs cannot tell, or methods differ",
        "not applicable": "no method stands beside full fine-tuning",
    }[verdict]
    if labels and not _keeping(study):
        words = "no perturbation that keeps the label was tried"
    raw = _raw(study)
    return Claim(STATEMENT, verdict, words + (f"; raw drops: {raw}" if raw else ""), tuple(everything),
                 tuple(_missing(m, study)))  # fmt: skip


def _of_method(m: Measured, study: dict[str, Any], label: str) -> list[Finding]:
    """The two measures at equal clean accuracy, each with the raw drop in words."""
    n_seeds, against = int(study["n_seeds"]), _against(study["overall"], label)
    raw = f"raw drop {whole(span(against['drop_difference'], m.metric.unit))} ({against['verdict']})" if against else ""
    value, n_examples = _matched(m, study, label)
    findings = []
    if value is not None:
        because = f"on {count(n_examples)} examples" + (f"; {raw}" if raw else "")
        verdict = judge(value, m.margin, n_seeds) if n_examples >= LEAST_MATCHED else "cannot tell"
        findings.append(Finding(label, MATCHED, value, n_seeds, verdict, seeded(because, n_seeds)))
    line = next((entry for entry in study["at_equal_accuracy"] if entry["set"] == "overall"), None)
    found = line and span(line["differences"].get(label), m.metric.unit)
    if line and found:
        because = f"regressed over {line['n_checkpoints']} checkpoints of {line['n_runs']} runs"
        findings.append(Finding(label, REGRESSED, found, n_seeds, judge(found, m.margin, n_seeds),
                                seeded(because, n_seeds)))  # fmt: skip
    if not findings:
        why = raw or "no label-keeping perturbation was tried"
        findings.append(Finding(label, "fragility at equal clean accuracy", None, n_seeds, "cannot tell", why))
    return findings


def _matched(m: Measured, study: dict[str, Any], label: str) -> tuple[Span | None, float]:
    """Over all label-keeping sets together; where that was not reckoned, the average of the sets' own intervals."""
    against = _against(study["overall"], label)
    if against and against["matched"]:
        return span(against["matched"]["difference"], SHARE), against["matched"]["n_examples"]
    return _averaged(m, _keeping(study), label)


def _keeping(study: dict[str, Any]) -> list[dict[str, Any]]:
    """The sets that the claim is judged on: the same texts for every model, which a search's are not."""
    return [entry for entry in study["sets"] if entry["kind"] == "perturbation" and entry["promise"] == "keeps label"]


def _averaged(m: Measured, sets: Sequence[dict[str, Any]], label: str) -> tuple[Span | None, float]:
    spans, counts = [], []
    for entry in sets:
        against = _against(entry, label)
        found = span(against["matched"]["difference"], SHARE) if against and against["matched"] else None
        if against and found:
            spans.append(found)
            counts.append(float(against["matched"]["n_examples"]))
    return (average(spans), sum(counts) / len(counts)) if spans else (None, 0.0)


def _group(
    m: Measured, study: dict[str, Any], name: str, is_in: Callable[[dict[str, Any]], bool], labels: Sequence[str]
) -> Finding | None:
    """Sets of another kind: one verdict over methods, their numbers in words. None where none was tried."""
    sets = [entry for entry in study["sets"] if is_in(entry)]
    if not sets:
        return None
    found = {label: value for label in labels if (value := _averaged(m, sets, label)[0]) is not None}
    n_seeds = int(study["n_seeds"])
    verdict = agreed([judge(value, m.margin, n_seeds) for value in found.values()]) if found else "cannot tell"
    numbers = "; ".join(f"{label} {whole(value)}" for label, value in found.items())
    return Finding(name, MATCHED, None, n_seeds, verdict, numbers or "no set has matched examples", counts=False)


def _own_sets(m: Measured, study: dict[str, Any], labels: Sequence[str]) -> Finding | None:
    """The user's own sets: their rows have no clean counterpart, so what is left is the raw drop. None without any."""
    n_seeds = int(study["n_seeds"])
    told: list[Verdict] = []
    said: list[str] = []
    sets = [entry for entry in study["sets"] if entry["kind"] == "adversarial"]
    for entry in sets:
        found = {label: against for label in labels if (against := _against(entry, label))}
        told += [_FRAGILE.get(against["verdict"], "cannot tell") for against in found.values()]
        numbers = [
            f"{label} {whole(span(against['drop_difference'], m.metric.unit))} ({against['verdict']})"
            for label, against in found.items()
        ]
        said.append(f"{entry['name']}, {count(entry['n_examples'])} rows: {', '.join(numbers) or 'not compared'}")
    if not sets:
        return None
    verdict: Verdict = agreed(told) if told and n_seeds > 1 else "cannot tell"
    return Finding("adversarial sets", RAW, None, n_seeds, verdict, seeded("; ".join(said), n_seeds), counts=False)


def _against(entry: dict[str, Any] | None, label: str) -> dict[str, Any] | None:
    found = entry["against_reference"] if entry else []
    return next((against for against in found if against["label"] == label), None)


def _raw(study: dict[str, Any]) -> str:
    """Such as `lora and ia3 more fragile, head cannot tell`."""
    by_verdict: dict[str, list[str]] = {}
    for against in study["overall"]["against_reference"] if study["overall"] else ():
        by_verdict.setdefault(against["verdict"], []).append(against["label"])
    return ", ".join(f"{listed(labels)} {verdict}" for verdict, labels in by_verdict.items())


def _missing(m: Measured, study: dict[str, Any]) -> list[Missing]:
    missing = []
    kinds = {entry["kind"] for entry in study["sets"]}
    if not _keeping(study):  # and so no drop to be regressed, however many seeds there are
        missing.append(Missing("perturbations that keep the label", commands.attack(m)))
    elif not study["at_equal_accuracy"]:
        why = study.get("at_equal_accuracy_reason") or "too few checkpoints"
        missing.append(Missing(f"the drop regressed on clean accuracy ({why})", commands.more_seeds(m)))
    if "adversarial" not in kinds:
        missing.append(Missing("adversarial sets of your own", f"{commands.attack(m)} --adversarial FILE"))
    if int(study["n_seeds"]) < 2:
        missing.append(Missing("a second seed", commands.more_seeds(m)))
    return missing
