"""T1: parameter-efficient tuning reaches a strict subset. Does the subset bind, that is, does it cost score?"""

from typing import Any

import numpy as np

from deltaproof.evidence import commands
from deltaproof.evidence.claim import NOT_MEASURED, Claim, Finding, Missing, Span, Statement, Verdict
from deltaproof.evidence.judging import is_worse, judge, overall, seeded
from deltaproof.evidence.measured import Lora, Measured, span
from deltaproof.evidence.words import listed, whole
from deltaproof.experiments import wording
from deltaproof.stats import mean_interval

HALF = 0.5
"""A cut that keeps more than half of the dimensions is no longer called low."""
STATEMENT = Statement(
    name="T1",
    title="A strict subset, which costs score",
    source="arXiv 2505.22355, theorem 1, known from a secondary source",
    says=(
        "With k trained numbers for d weights, k far below d, the models within reach are a strict subset of those "
        "that full fine-tuning reaches."
    ),
    tested_as=(
        "Does the subset bind? Full fine-tuning's update is cut to rank r and scored again; the lowest rank within "
        "the margin on validation is scored once on the test set."
    ),
    rule=(
        "Supported as binding if the update, cut to a rank that is low (at most half of the dimensions) or to a "
        "LoRA's own rank, is worse than the whole one; contradicted if it is equivalent within the margin, or "
        "better. LoRA at or above that rank shares its verdict; below it, the loss on validation decides, with an "
        "interval over seeds."
    ),
    not_shown=(
        "That the parameters within reach are a subset is true of any such method and needs no experiment; it says "
        "nothing of the loss. What is found holds for the update that training found here: another one may need "
        "more or less. Norms, biases and embeddings keep full fine-tuning's change in the cut model."
    ),
)


def subset(m: Measured) -> Claim:
    study = m.found("expressivity")
    if not study.get("curves"):
        if m.full is None:
            return Claim(STATEMENT, "not applicable", m.why_no_comparison, missing=(_with_full(m),))
        missing = Missing("the full update, cut to each rank", commands.capacity(m))
        return Claim(STATEMENT, "cannot tell", NOT_MEASURED, missing=(missing,))
    cut = _cut(m, study)
    loras = [_lora(m, study, lora, cut) for lora in m.loras]
    findings = [Finding(**{**vars(cut), "counts": not any(f.verdict != "not applicable" for f in loras)}), *loras]
    names = [row.name for row in m.others if row.name not in {lora.label for lora in m.loras}]
    if names:
        why = "a cut to low rank says nothing of what another kind of method reaches"
        quantity = "reach of a method that is no LoRA"
        findings.append(Finding(listed(names), quantity, None, 0, "not applicable", why, counts=False))
    verdict = overall(findings)
    return Claim(STATEMENT, verdict, _because(m, study, cut, verdict), tuple(findings), tuple(_missing(m, study)))


def _with_full(m: Measured) -> Missing:
    methods = ",".join(["full", *(entry["name"] for entry in m.experiment["contestants"])])
    return Missing("full fine-tuning", commands.compare(m, f'--methods "{methods}" --keep all'))


def _cut(m: Measured, study: dict[str, Any]) -> Finding:
    """The update at the lowest rank that was enough on validation; where that is no low one, at the largest low one."""
    rank, n_seeds = study["chosen_rank"], len(study["curves"])
    if _dimensions(study, rank) <= HALF:
        gap = study["test"]["gaps"]["expressivity"]
        on_test = "these runs cannot tell" if gap["verdict"] == "cannot tell" else f"it is {gap['verdict']}"
        because = (
            f"rank {rank} was enough on validation ({wording.share(_energy(study, rank))} of the update's energy, "
            f"{wording.share(_dimensions(study, rank))} of its dimensions); on the test set {on_test}"
        )
        return Finding(
            "full, cut",
            f"score at rank {rank} minus that of the whole update, test",
            span(gap, m.metric.unit, value="difference"),
            n_seeds,
            is_worse(gap["verdict"], n_seeds),
            seeded(because, n_seeds),
        )
    low = max((r for r in study["ranks"] if _dimensions(study, r) <= HALF), default=0)
    lost = _lost_on_validation(m, study, low)
    because = (
        f"only rank {rank} stays within the margin on validation, {wording.share(_dimensions(study, rank))} of the "
        f"dimensions, which is no low rank"
    )
    quantity = f"score at rank {low} minus that of the whole update, validation"
    return Finding("full, cut", quantity, lost and _turned(lost), n_seeds, judge(lost, m.margin, n_seeds), because)


def _lora(m: Measured, study: dict[str, Any], lora: Lora, cut: Finding) -> Finding:
    enough, n_seeds = study["chosen_rank"], cut.n_seeds
    if lora.rank is None or not lora.everywhere:
        why = "it is on some of the linear maps only, the cut is made on all" if lora.rank else "its rank is not known"
        return Finding(lora.label, "reach at its rank", None, n_seeds, "not applicable", why, counts=False)
    if lora.rank >= enough and _dimensions(study, enough) <= HALF:
        return Finding(lora.label, cut.quantity, cut.value, n_seeds, cut.verdict,
                       f"its rank {lora.rank} is at or above {enough}, which was enough on validation")  # fmt: skip
    quantity = f"score at rank {lora.rank} minus that of the whole update, validation"
    if lora.rank not in study["ranks"]:
        return Finding(
            lora.label, quantity, None, n_seeds, "cannot tell", f"the update was not cut to rank {lora.rank}"
        )
    lost = _lost_on_validation(m, study, lora.rank)
    return Finding(lora.label, quantity, lost and _turned(lost), n_seeds, judge(lost, m.margin, n_seeds),
                   f"its rank {lora.rank} is below {enough}, the lowest that was enough on validation")  # fmt: skip


def _points(study: dict[str, Any], rank: int) -> list[dict[str, Any]]:
    return [next(point for point in curve["points"] if point["rank"] == rank) for curve in study["curves"]]


def _energy(study: dict[str, Any], rank: int) -> float:
    return float(np.mean([point["energy"] for point in _points(study, rank)]))


def _dimensions(study: dict[str, Any], rank: int) -> float:
    """Share of the whole update's dimensions that a cut to this rank keeps."""
    whole_rank = study["ranks"][-1]
    return float(_points(study, rank)[0]["n_dimensions"] / _points(study, whole_rank)[0]["n_dimensions"])


def _lost_on_validation(m: Measured, study: dict[str, Any], rank: int, field: str = "validation") -> Span | None:
    """What the cut loses, above zero where it loses, with an interval over seeds; None for one seed."""
    sign = 1 if m.metric.higher_is_better else -1
    whole_points = _points(study, study["ranks"][-1])
    lost = np.array([sign * (full["validation"] - cut[field])
                     for full, cut in zip(whole_points, _points(study, rank), strict=True)])  # fmt: skip
    if len(lost) < 2:
        return None
    found = mean_interval(lost[None, :])
    return Span(found.mean, found.low, found.high, m.metric.unit)


def _turned(lost: Span) -> Span:
    assert lost.low is not None, "made with an interval"
    assert lost.high is not None, "made with an interval"
    return Span(-lost.mean, -lost.high, -lost.low, lost.unit)


def _because(m: Measured, study: dict[str, Any], cut: Finding, verdict: Verdict) -> str:
    rank = study["chosen_rank"]
    words = {
        "supported": "the rank costs score here",
        "contradicted": "the subset is strict, but it does not bind here",
        "cannot tell": "these runs cannot tell whether the rank costs score",
        "not applicable": "no method here is narrowed by rank alone",
    }[verdict]
    said = f"{words}: {cut.because}" + (f", {whole(cut.value)}" if cut.value else "")
    rest = _lost_on_validation(m, study, rank, "validation_rest_at_base")
    if rest is not None and rest.mean > m.margin:
        said += (
            f"; with norms, biases and embeddings back at the base it would lose "
            f"{wording.amount(rest.mean, m.metric.unit)} on validation"
        )
    return said


def _missing(m: Measured, study: dict[str, Any]) -> list[Missing]:
    asked = [lora.rank for lora in m.loras if lora.rank and lora.everywhere and lora.rank < study["chosen_rank"]]
    ranks = sorted({rank for rank in asked if rank not in study["ranks"]})
    missing = []
    if ranks:
        every = ",".join(str(rank) for rank in sorted({*study["ranks"][:-1], *ranks} - {0}))
        missing.append(
            Missing(f"the update cut to rank {listed([str(r) for r in ranks])}", commands.capacity(m, every))
        )
    if len(study["curves"]) < 2:
        missing.append(Missing("a second seed", commands.more_seeds(m)))
    return missing
