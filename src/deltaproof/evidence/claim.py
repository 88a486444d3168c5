"""A claim, what was measured for it, and what that says."""

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["supported", "contradicted", "cannot tell", "not applicable"]
NOT_MEASURED = "not measured"


@dataclass(frozen=True)
class Span:
    """A number and its 95 % interval; an end that is not known is None."""

    mean: float
    low: float | None
    high: float | None
    unit: str
    """`fraction` (shown in points), `factor`, `log10`, `examples`, `vectors per matrix`, or a unit as it is."""


@dataclass(frozen=True)
class Finding:
    """One number of one method, and what it says of the claim."""

    of: str
    """The contestant, or which of several questions."""
    quantity: str
    value: Span | None
    n_seeds: int
    verdict: Verdict
    because: str
    counts: bool = True
    """Whether it enters the verdict on the claim; others are shown beside it."""


@dataclass(frozen=True)
class Missing:
    """What was not measured, and the command that measures it; empty where none does."""

    what: str
    command: str


@dataclass(frozen=True)
class Statement:
    """A claim in words, the same for every run."""

    name: str
    """Short and unique, such as `T1`."""
    title: str
    source: str
    says: str
    """What the source claims, and how much of that is known for certain."""
    tested_as: str
    """The testable form, which is ours."""
    rule: str
    """How numbers become a verdict."""
    not_shown: str
    """What does not follow, whatever the verdict."""


@dataclass(frozen=True)
class Claim:
    """A statement with the evidence of one run folder."""

    statement: Statement
    verdict: Verdict
    because: str
    """One sentence."""
    findings: tuple[Finding, ...] = ()
    missing: tuple[Missing, ...] = ()

    @property
    def n_seeds(self) -> int:
        """Of the findings that count, the fewest."""
        return min((finding.n_seeds for finding in self.findings if finding.counts and finding.n_seeds), default=0)
