"""From intervals to verdicts: the same rule for every claim that something is larger, in both directions."""

import math
from collections.abc import Iterable, Sequence

from deltaproof.evidence.claim import Finding, Span, Verdict

ONE_SEED = "one seed says nothing of other seeds"
AGREEMENT = (
    "over several methods: supported (contradicted) if more than half of them say so and none says the opposite; "
    "intervals are of 95 % each, not corrected for the number of methods"
)


def judge(value: Span | None, margin: float, n_seeds: int) -> Verdict:
    """Of a claim that `value` is above zero.

    Contradicted where the interval lies below zero or within the margin around it, since a difference that is shown
    to be too small to matter is no support; supported where it lies above zero.

    >>> judge(Span(0.05, 0.01, 0.09, ""), 0.02, 3), judge(Span(0.05, -0.01, 0.11, ""), 0.02, 3)
    ('supported', 'cannot tell')
    >>> judge(Span(-0.05, -0.09, -0.01, ""), 0.02, 3), judge(Span(0.0, -0.01, 0.01, ""), 0.02, 3)
    ('contradicted', 'contradicted')
    >>> judge(Span(0.05, 0.01, 0.09, ""), 0.02, 1)
    'cannot tell'
    """
    if n_seeds < 2 or value is None or value.low is None or value.high is None:
        return "cannot tell"
    if value.high < 0 or (-margin < value.low and value.high < margin):
        return "contradicted"
    return "supported" if value.low > 0 else "cannot tell"


def is_worse(comparison: str, n_seeds: int) -> Verdict:
    """The verdict of `deltaproof.stats.compare`, of a claim that the contestant is worse.

    >>> is_worse("equivalent", 3), is_worse("worse", 3), is_worse("worse", 1)
    ('contradicted', 'supported', 'cannot tell')
    """
    found: dict[str, Verdict] = {"worse": "supported", "equivalent": "contradicted", "better": "contradicted"}
    return found.get(comparison, "cannot tell") if n_seeds > 1 else "cannot tell"


def seeded(because: str, n_seeds: int) -> str:
    """A reason, with the caveat that goes before it where there is one seed."""
    return because if n_seeds > 1 else f"{ONE_SEED}; {because}"


def overall(findings: Iterable[Finding]) -> Verdict:
    """Over methods: first what the findings of each come to, then whether the methods agree."""
    by_method: dict[str, list[Verdict]] = {}
    for finding in findings:
        if finding.counts and finding.verdict != "not applicable":
            by_method.setdefault(finding.of, []).append(finding.verdict)
    if not by_method:
        return "not applicable"
    return agreed([together(verdicts) for verdicts in by_method.values()])


def together(verdicts: Sequence[Verdict]) -> Verdict:
    """Several measurements of one thing: what some say and none denies."""
    if "supported" in verdicts:
        return "cannot tell" if "contradicted" in verdicts else "supported"
    return "contradicted" if "contradicted" in verdicts else "cannot tell"


def agreed(verdicts: Sequence[Verdict]) -> Verdict:
    """What more than half say and none denies."""
    found = together(verdicts)
    return found if 2 * verdicts.count(found) > len(verdicts) else "cannot tell"


def difference(one: Span, other: Span) -> Span:
    """One minus the other, as if they were independent: too wide an interval where, as on the same examples, they
    vary together."""
    mean, half = one.mean - other.mean, math.hypot(_half(one), _half(other))
    return Span(mean, mean - half, mean + half, one.unit)


def average(spans: Sequence[Span]) -> Span:
    """The mean of several, with the mean of their half-widths: wide enough however they vary together."""
    mean, half = (sum(values) / len(spans) for values in ([span.mean for span in spans], [_half(s) for s in spans]))
    return Span(mean, mean - half, mean + half, spans[0].unit)


def _half(span: Span) -> float:
    """The longer side of an interval."""
    assert span.low is not None, "an interval has both ends here"
    assert span.high is not None, "an interval has both ends here"
    return max(span.mean - span.low, span.high - span.mean)
