"""From the regime to one paragraph of advice, and to what should be done next."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from deltaproof.evidence import commands
from deltaproof.evidence.claim import Claim
from deltaproof.evidence.measured import Measured, span
from deltaproof.evidence.regime import Answer
from deltaproof.evidence.words import listed, whole
from deltaproof.experiments import wording

MOST_STEPS = 6


@dataclass(frozen=True)
class Step:
    """Something to do, and the command that does it; empty where none does."""

    do: str
    command: str


def advice(m: Measured, answers: Mapping[str, Answer]) -> str:
    """One paragraph: what to take, which regime this is, and what speaks for and against."""
    return " ".join([_take(m, answers["as_good"]), *_sentences(m, answers)])


def _take(m: Measured, as_good: Answer) -> str:
    chosen, margin = m.table.recommendation.name, wording.amount(m.margin, m.metric.unit)
    if as_good.reply == "yes":
        if chosen is not None and chosen != m.full:
            return f"Take {chosen}: it is shown to be as good as full fine-tuning within {margin} ({as_good.because})."
        return f"As good as full fine-tuning within {margin}, though not shown to need less memory: {as_good.because}."
    if as_good.reply == "no":
        return f"Stay with full fine-tuning: each other method is shown to be worse ({as_good.because})."
    return (
        f"Whether a parameter-efficient method is as good as full fine-tuning is not decided here ({as_good.because})."
    )


def _sentences(m: Measured, answers: Mapping[str, Answer]) -> Iterator[str]:
    yield _limit(m, answers["rank"], answers["optimisation"], answers["as_good"])
    data, fragile, forgets = answers["data"], answers["fragile"], answers["forgets"]
    if data.reply == "yes":
        yield f"It is short of data: {data.because}, so more examples are worth more than another method."
    elif data.reply == "no":
        yield f"Data is not what limits it: {data.because}."
    if fragile.reply == "yes":
        yield "At equal accuracy the cheaper methods break more easily under perturbed text: test on it first."
    elif fragile.reply == "no":
        yield "Fragility is no reason for full fine-tuning: at equal accuracy the cheaper methods hold as well."
    if forgets.reply == "yes":
        yield "LoRA keeps more of what the base knew, which counts if the model does other work too."
    elif forgets.reply == "no":
        yield "Do not choose LoRA for its memory: it kept no more of what the base knew."
    open_ones = [
        _TOPICS[answer.name] for answer in answers.values() if answer.name in _TOPICS and answer.reply == "cannot tell"
    ]
    if open_ones:
        yield f"Open: {listed(open_ones)}."


_TOPICS = {
    "data": "whether more data would help",
    "fragile": "robustness at equal accuracy",
    "forgets": "who forgets less",
}


def _limit(m: Measured, rank: Answer, optimisation: Answer, as_good: Answer) -> str:
    """The rank, training, neither, or unknown."""
    enough = m.found("expressivity").get("chosen_rank")
    if rank.reply == "yes":
        higher = f", of which rank {enough} was enough on validation" if enough else ""
        return f"The rank binds: it cannot express what full fine-tuning found{higher}; raise it, or tune fully."
    if rank.reply == "no":
        start = f"The rank does not bind: full fine-tuning's update, cut to rank {enough}, scores as well as the whole"
        if optimisation.reply == "yes":
            lacks = f"what LoRA lacks is training ({optimisation.because})"
            return f"{start}; {lacks}, so tune its learning rate and epochs first."
        if optimisation.reply == "no":
            worse = as_good.reply == "no"
            end = "; that it is worse all the same may come of small losses at each step" if worse else ""
            return f"{start}, and LoRA's training finds as good a one: more rank buys nothing{end}."
        return f"{start}; whether LoRA's training finds it cannot be told ({optimisation.because})."
    gaps = m.found("expressivity").get("test", {}).get("gaps", {})
    gap = span(gaps.get("expressivity"), m.metric.unit, value="difference")
    if rank.reply == "not applicable" or gap is None:
        return f"Whether the rank binds is open ({rank.because})."
    return (
        f"Whether the rank binds is open: full fine-tuning's update, cut to rank {enough}, was good enough on "
        f"validation, but on the test set it scores {whole(gap)} against the whole, which decides nothing."
    )


def next_steps(m: Measured, claims: Sequence[Claim], answers: Mapping[str, Answer]) -> tuple[Step, ...]:
    """What would change the picture most, first; each command once."""
    steps: dict[str, Step] = {}
    for step in _wanted(m, claims, answers):
        steps.setdefault(step.command or step.do, step)
    return tuple(steps.values())[:MOST_STEPS]


def _wanted(m: Measured, claims: Sequence[Claim], answers: Mapping[str, Answer]) -> Iterator[Step]:
    trials = int(m.experiment["plan"].get("trials") or 1) + 2
    edges = [row.name for row in m.table.rows if row.at_edge]
    if edges:
        yield Step(f"try learning rates beyond those tried: that of {listed(edges)} is at the edge",
                   commands.compare(m, f"--trials {trials} --keep all"))  # fmt: skip
    elif answers["optimisation"].reply == "yes":
        yield Step("tune LoRA's learning rate more finely", commands.compare(m, f"--trials {trials} --keep all"))
    if answers["rank"].reply == "yes":
        enough = int(m.found("expressivity").get("chosen_rank") or 32)
        ranks = ",".join(str(rank) for rank in sorted({max(1, enough // 4), max(1, enough // 2), enough, 2 * enough}))
        yield Step("train at higher ranks", commands.by_rank(m, ranks))
    if answers["data"].reply == "yes":
        yield Step("gather more examples: the curve still rises", "")
    if answers["fragile"].reply == "yes":
        yield Step("look at the perturbed texts that were answered wrongly, and test on text from the field",
                   f"{commands.attack(m)} --adversarial FILE")  # fmt: skip
    if answers["as_good"].reply == "cannot tell" and not m.why_no_comparison:
        yield Step(
            "more seeds, or more test rows: differences of this size are not found with so few", commands.more_seeds(m)
        )
    for claim in claims:
        for missing in claim.missing:
            if claim.verdict in ("cannot tell", "not applicable"):
                yield Step(f"measure {missing.what} ({claim.statement.name})", missing.command)
