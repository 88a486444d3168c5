"""Which regime is this user in? Six questions, each with its answer and the reason."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from deltaproof.evidence.claim import NOT_MEASURED, Claim, Verdict
from deltaproof.evidence.measured import Measured, span
from deltaproof.evidence.words import listed, whole

Reply = Literal["yes", "no", "cannot tell", "not applicable"]
_REPLIES: dict[Verdict, Reply] = {
    "supported": "yes", "contradicted": "no", "cannot tell": "cannot tell", "not applicable": "not applicable",
}  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """One question on the regime."""

    name: str
    question: str
    reply: Reply
    because: str

    @property
    def is_measured(self) -> bool:
        return self.because != NOT_MEASURED


def regime(m: Measured, claims: Mapping[str, Claim]) -> dict[str, Answer]:
    """The answers by name."""
    found = [
        _as_good(m),
        _of_claim("rank", "Does the rank bind?", claims["T1"]),
        _optimisation(m),
        _data(m),
        _of_claim("fragile", "Is it more fragile than full fine-tuning at equal accuracy?", claims["T4"]),
        _of_claim("forgets", "Does LoRA forget less than full fine-tuning?", claims["Forgets less"]),
    ]
    return {answer.name: answer for answer in found}


def _as_good(m: Measured) -> Answer:
    question = "Is a parameter-efficient method as good as full fine-tuning?"
    if m.why_no_comparison:
        return Answer("as_good", question, "cannot tell", m.why_no_comparison)
    by_verdict: dict[str, list[str]] = {}
    for row in m.others:
        if row.comparison is not None and row.comparison.n_seeds > 1:
            by_verdict.setdefault(row.comparison.verdict, []).append(row.name)
    good = [*by_verdict.get("better", []), *by_verdict.get("equivalent", [])]
    if not by_verdict:
        return Answer("as_good", question, "cannot tell", "there is one seed only")
    said = "; ".join(f"{verdict}: {listed(names)}" for verdict, names in by_verdict.items())
    reply: Reply = "yes" if good else "no" if set(by_verdict) == {"worse"} else "cannot tell"
    return Answer("as_good", question, reply, said)


def _of_claim(name: str, question: str, claim: Claim) -> Answer:
    return Answer(name, question, _REPLIES[claim.verdict], claim.because)


def _optimisation(m: Measured) -> Answer:
    """Trained LoRA against full fine-tuning's update cut to the same rank, on the test set."""
    question = "Is it training, not the rank, that LoRA lacks?"
    study = m.found("expressivity")
    gap = study.get("test", {}).get("gaps", {}).get("optimisation")
    if gap is None:
        why = NOT_MEASURED if not study else "no LoRA on all linear layers was trained at the rank of the cut or above"
        return Answer("optimisation", question, "cannot tell", why)
    if len(study["curves"]) < 2:
        return Answer("optimisation", question, "cannot tell", "there is one seed only")
    replies: dict[str, Reply] = {"worse": "yes", "equivalent": "no", "better": "no"}
    value = whole(span(gap, m.metric.unit, value="difference"))
    because = f"{study['lora']['label']} against full's update cut to rank {study['chosen_rank']}: {value}"
    return Answer("optimisation", question, replies.get(gap["verdict"], "cannot tell"), because)


def _data(m: Measured) -> Answer:
    """The last doubling of the training set, at full fine-tuning."""
    question = "Would more data help?"
    study = m.found("scale_examples")
    entry: dict[str, Any] = next((each for each in study.get("methods", ()) if each["label"] == m.full), {})
    if not study:
        return Answer("data", question, "cannot tell", NOT_MEASURED)
    if not entry.get("growth"):
        return Answer("data", question, "cannot tell", "fewer than three sizes of the training set came through")
    if min((len(point["keys"]) for point in entry["points"]), default=0) < 2:
        return Answer("data", question, "cannot tell", "there is one seed only")
    gain = span(entry["growth"]["gains"][-1], m.metric.unit, value="value")
    reply: Reply = "cannot tell"
    if gain is not None and gain.low is not None and gain.high is not None:
        small = gain.high < m.margin
        reply = "no" if small else "yes" if gain.low > 0 else "cannot tell"
    return Answer("data", question, reply, f"the last doubling of the training set gave full {whole(gain)}")
