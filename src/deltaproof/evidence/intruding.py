"""Intruder dimensions: LoRA's leading singular vectors resemble none of the base's, those of full fine-tuning do."""

from typing import Any

import numpy as np

from deltaproof.evidence import commands
from deltaproof.evidence.claim import NOT_MEASURED, Claim, Finding, Missing, Span, Statement
from deltaproof.evidence.judging import judge, overall, seeded
from deltaproof.evidence.measured import Measured
from deltaproof.evidence.without_regret import LORA_MISSING, with_lora
from deltaproof.stats import mean_interval

STATEMENT = Statement(
    name="Intruders",
    title="LoRA makes intruder dimensions",
    source="Shuttleworth et al., 2024, arXiv 2410.21228",
    says=(
        "Weights tuned with LoRA have leading singular vectors unlike every one of the base's; full fine-tuning's "
        "have none, and what LoRA forgets sits in them."
    ),
    tested_as=(
        "Of the ten leading left singular vectors of each matrix (threshold 0.5, as the authors take), those beyond "
        "what noise of the update's size would turn as far: LoRA's number minus full's, matrix by matrix."
    ),
    rule=(
        "Supported if the interval over matrices lies above 0; contradicted if it lies below 0 or within half a "
        "vector per matrix around it. The authors' own count stands beside it: where base singular values lie close "
        "together it counts what any small change does."
    ),
    not_shown=(
        "Which part of the forgetting sits in these directions is not measured. Matrices of one model are no "
        "independent sample: the interval speaks of these matrices, averaged over the seeds."
    ),
)
HALF_A_VECTOR = 0.5


def intruding(m: Measured) -> Claim:
    methods = m.by_label("spectra")
    if not methods:
        missing = Missing("spectra and intruder dimensions", commands.capacity(m))
        return Claim(STATEMENT, "cannot tell", NOT_MEASURED, missing=(missing,))
    if m.full not in methods:
        return Claim(STATEMENT, "not applicable", m.why_no_comparison or "full fine-tuning was not measured")
    if not m.loras:
        return Claim(STATEMENT, "not applicable", LORA_MISSING, missing=(with_lora(m),))
    full = methods[m.full]
    findings = [_finding(full, methods[lora.label]) for lora in m.loras if lora.label in methods]
    verdict = overall(findings)
    words = {
        "supported": "LoRA has more of them than full fine-tuning",
        "contradicted": "LoRA has no more of them than full fine-tuning",
        "cannot tell": "these runs cannot tell",
        "not applicable": "no matrix changed in both",
    }[verdict]
    because = f"{words}; full: {_counts(full)}"
    more = [Missing("a second seed", commands.more_seeds(m))] if any(f.n_seeds == 1 for f in findings) else []
    return Claim(STATEMENT, verdict, because, tuple(findings), tuple(more))


def _finding(full: dict[str, Any], lora: dict[str, Any]) -> Finding:
    quantity, n_seeds = "intruders beyond noise per matrix, minus full's", min(len(e["keys"]) for e in (full, lora))
    mine, theirs = (
        {row["name"]: row["intruders"]["n_robust"] for row in entry["rows"] if row["intruders"]}
        for entry in (lora, full)
    )
    common = [name for name in mine if name in theirs]
    if len(common) < 2:
        why = "fewer than two matrices changed in both"
        return Finding(lora["label"], quantity, None, n_seeds, "not applicable", why)
    found = mean_interval(np.array([[mine[name] - theirs[name] for name in common]]))
    value = Span(found.mean, found.low, found.high, "vectors per matrix")
    because = f"{_counts(lora)}; {len(common)} matrices"
    return Finding(lora["label"], quantity, value, n_seeds, judge(value, HALF_A_VECTOR, n_seeds),
                   seeded(because, n_seeds))  # fmt: skip


def _counts(entry: dict[str, Any]) -> str:
    found = entry["intruders"]
    if not found:
        return "not counted"
    return (
        f"{found['n_robust']:.0f} of {found['n_examined']:.0f} vectors beyond noise "
        f"({found['n_official']:.0f} by the authors' count)"
    )
