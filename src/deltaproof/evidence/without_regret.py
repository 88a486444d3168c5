"""LoRA Without Regret: LoRA matches full fine-tuning, given rank enough and a learning rate of its own."""

from typing import Any

from deltaproof.evidence import commands
from deltaproof.evidence.claim import Claim, Finding, Missing, Span, Statement, Verdict
from deltaproof.evidence.judging import ONE_SEED, overall
from deltaproof.evidence.measured import Lora, Measured
from deltaproof.experiments.row import Row

STATEMENT = Statement(
    name="Without Regret",
    title="LoRA matches full fine-tuning",
    source="Schulman and Thinking Machines, 2025, “LoRA Without Regret”, known from secondary sources",
    says=(
        "In post-training on small to medium data LoRA on all linear layers, with rank enough and its own learning "
        "rate (about ten times that of full fine-tuning), learns as fast and as well; below its capacity it falls "
        "short."
    ),
    tested_as=(
        "The comparison of LoRA with full fine-tuning on the test set, each at the learning rate that validation chose."
    ),
    rule=(
        "Supported if LoRA is equivalent within the margin, or better. Contradicted if it is worse although the "
        "claim's conditions hold: on all linear layers, its learning rate not at the edge of those tried, and its "
        "rank not below the one that was enough for full fine-tuning's update. Worse with a condition that fails "
        "cannot be told."
    ),
    not_shown="That the match would hold with more data than here: capacity is used up by examples.",
)
LORA_MISSING = "LoRA is not among the contestants, or did not come through"


def without_regret(m: Measured) -> Claim:
    if m.why_no_comparison:
        return Claim(STATEMENT, "not applicable", m.why_no_comparison)
    if not m.loras:
        return Claim(STATEMENT, "not applicable", LORA_MISSING, missing=(with_lora(m),))
    findings = [_finding(m, lora) for lora in m.loras]
    verdict = overall(findings)
    words = {
        "supported": "LoRA is as good as full fine-tuning here",
        "contradicted": "LoRA is worse here, with its conditions met",
        "cannot tell": "these runs cannot tell",
        "not applicable": "nothing was compared",
    }[verdict]
    because = "; ".join(dict.fromkeys([words, *(finding.because for finding in findings)]))
    return Claim(STATEMENT, verdict, because, tuple(findings), tuple(_missing(m, findings)))


def with_lora(m: Measured) -> Missing:
    methods = ",".join([*(entry["name"] for entry in m.experiment["contestants"]), "lora(rank=8)"])
    return Missing("LoRA beside full fine-tuning", commands.compare(m, f'--methods "{methods}" --keep all'))


def _finding(m: Measured, lora: Lora) -> Finding:
    row = m.table.row(lora.label)
    comparison = row.comparison
    assert comparison is not None, "full came through, and so did this one"
    value = Span(comparison.difference, comparison.low, comparison.high, m.metric.unit)
    failing = unmet(m, lora, row)
    verdict: Verdict = "cannot tell"
    because = f"{lora.label}: {comparison.verdict}{_rates(m, row)}"
    if comparison.n_seeds < 2:
        because = f"{ONE_SEED}; {because}"
    elif comparison.verdict in ("equivalent", "better"):
        verdict = "supported"
    elif comparison.verdict == "worse":
        verdict = "cannot tell" if failing else "contradicted"
        because += f", but {'; '.join(failing)}" if failing else ""
    return Finding(lora.label, "score minus full's, test", value, comparison.n_seeds, verdict, because)


def unmet(m: Measured, lora: Lora, row: Row) -> list[str]:
    """Conditions of the claim that do not hold for this contestant."""
    trials = next(entry["trials"] for entry in m.experiment["contestants"] if entry["name"] == lora.label)
    enough = m.found("expressivity").get("chosen_rank")
    failing = []
    if not lora.everywhere:
        failing.append("it is not on all linear layers")
    if len(trials) < 2:
        failing.append("its learning rate was not tuned")
    if row.at_edge:
        failing.append(f"its learning rate {row.learning_rate:g} is at the edge of those tried")
    if enough is not None and lora.rank is not None and lora.rank < enough:
        failing.append(f"its rank {lora.rank} is below {enough}, the lowest that was enough for the full update")
    return failing


def _rates(m: Measured, row: Row) -> str:
    full: Any = m.table.row(m.full or "").learning_rate
    return f", at {row.learning_rate / full:.2g} times full's learning rate" if full and row.learning_rate else ""


def _missing(m: Measured, findings: list[Finding]) -> list[Missing]:
    missing = []
    if not m.found("expressivity"):
        missing.append(Missing("whether its rank is enough for the full update", commands.capacity(m)))
    if any(m.table.row(lora.label).at_edge for lora in m.loras):
        trials = int(m.experiment["plan"].get("trials") or 1) + 2
        missing.append(
            Missing("learning rates beyond those tried", commands.compare(m, f"--trials {trials} --keep all"))
        )
    if any(finding.n_seeds < 2 for finding in findings):
        missing.append(Missing("a second seed", commands.more_seeds(m)))
    return missing
