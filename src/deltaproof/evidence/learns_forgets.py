"""LoRA learns less and forgets less: two claims, of the task's score and of what the base knew."""

from typing import Any

from deltaproof.evidence import commands
from deltaproof.evidence.claim import NOT_MEASURED, Claim, Finding, Missing, Span, Statement
from deltaproof.evidence.judging import difference, is_worse, judge, overall, seeded
from deltaproof.evidence.measured import Measured, span
from deltaproof.evidence.without_regret import LORA_MISSING, with_lora

SOURCE = "Biderman et al., 2024, arXiv 2405.09673"
LEARNS_LESS = Statement(
    name="Learns less",
    title="LoRA learns less",
    source=SOURCE,
    says="At usual low ranks LoRA falls well short of full fine-tuning, on code and mathematics with much data.",
    tested_as="Full fine-tuning's score minus LoRA's on the test set, each at its chosen learning rate.",
    rule="Supported if LoRA is worse on the test set; contradicted if it is equivalent within the margin, or better.",
    not_shown="The claim was made for harder tasks and far more data than a small classification task has.",
)
FORGETS_LESS = Statement(
    name="Forgets less",
    title="LoRA forgets less",
    source=SOURCE,
    says="LoRA keeps more of what the base model could do.",
    tested_as=(
        "The rise of the base's own pretraining loss on the same text, full fine-tuning's minus LoRA's. The paper "
        "measures benchmark scores instead."
    ),
    rule=(
        "Supported if the interval of that difference lies above 0; contradicted if it lies below 0, or within a "
        "hundredth of the base's loss around it. The two rises are taken as independent, which makes the interval "
        "too wide, not too narrow."
    ),
    not_shown="Loss on one text stands for what the base knew; other abilities may be kept or lost.",
)
NEGLIGIBLE = 0.01
"""Of the base's own loss: a difference in its rise that does not matter."""


def learns_less(m: Measured) -> Claim:
    if m.why_no_comparison:
        return Claim(LEARNS_LESS, "not applicable", m.why_no_comparison)
    if not m.loras:
        return Claim(LEARNS_LESS, "not applicable", LORA_MISSING, missing=(with_lora(m),))
    findings = []
    for lora in m.loras:
        found = m.table.row(lora.label).comparison
        assert found is not None, "full came through, and so did this one"
        value = Span(-found.difference, -found.high, -found.low, m.metric.unit)
        said, because = (
            is_worse(found.verdict, found.n_seeds),
            seeded(f"in the test: {found.verdict}", found.n_seeds),
        )
        quantity = "full's score minus its own, test"
        findings.append(Finding(lora.label, quantity, value, found.n_seeds, said, because))
    verdict = overall(findings)
    words = {
        "supported": "LoRA's score is worse",
        "contradicted": "LoRA's score is not worse",
        "cannot tell": "these runs cannot tell whether LoRA's score is worse",
        "not applicable": "nothing was compared",
    }[verdict]
    more = [Missing("a second seed", commands.more_seeds(m))] if any(f.n_seeds < 2 for f in findings) else []
    return Claim(LEARNS_LESS, verdict, words, tuple(findings), tuple(more))


def forgets_less(m: Measured) -> Claim:
    study = m.found("forgetting")
    if not study:
        missing = Missing("the base's own loss before and after", commands.capacity(m))
        return Claim(FORGETS_LESS, "cannot tell", NOT_MEASURED, missing=(missing,))
    if study.get("applicable") is False:
        return Claim(FORGETS_LESS, "not applicable", study["reason"])
    methods = m.by_label("forgetting")
    full = methods.get(m.full or "")
    if full is None:
        return Claim(FORGETS_LESS, "not applicable", m.why_no_comparison or "full fine-tuning was not measured")
    loras = {lora.label for lora in m.loras}
    findings = [_forgets(study, full, entry, not loras or label in loras)
                for label, entry in methods.items() if label != m.full]  # fmt: skip
    findings += [
        Finding(label, "rise of the base's loss", None, 0, "not applicable", why, counts=False)
        for label, why in study["left_out"].items()
    ]
    verdict = overall(findings)
    whose = "LoRA" if loras else "the methods here (LoRA is not among them)"
    words = {
        "supported": f"{whose}: less of the base's own task was lost than with full fine-tuning",
        "contradicted": f"{whose}: no less of the base's own task was lost than with full fine-tuning",
        "cannot tell": "these runs cannot tell whether less was lost",
        "not applicable": "no method could be asked",
    }[verdict]
    because = f"{words}; full fine-tuning's loss rose by {full['rise']:.3g} from {study['before']:.3g} {study['unit']}"
    more = [Missing("a second seed", commands.more_seeds(m))] if any(f.n_seeds == 1 for f in findings) else []
    return Claim(FORGETS_LESS, verdict, because, tuple(findings), tuple(more))


def _forgets(study: dict[str, Any], full: dict[str, Any], entry: dict[str, Any], counts: bool) -> Finding:
    mine, theirs = (span(each, study["unit"], value="rise") for each in (full, entry))
    value = difference(mine, theirs) if mine and theirs else None
    n_seeds = min(full["n_seeds"], entry["n_seeds"])
    because = f"its own loss rose by {entry['rise']:.3g} {study['unit']}"
    return Finding(entry["label"], "full's rise of the base's loss minus its own", value, n_seeds,
                   judge(value, NEGLIGIBLE * study["before"], n_seeds),
                   seeded(because, n_seeds), counts)  # fmt: skip
