"""What a run folder says for and against each claim, as data."""

from dataclasses import asdict, dataclass
from typing import Any

from deltaproof.evidence.advice import Step
from deltaproof.evidence.claim import Claim
from deltaproof.evidence.commands import ABOUT_PLAN
from deltaproof.evidence.judging import AGREEMENT
from deltaproof.evidence.regime import Answer

COMPRESSING = ("Small", "Larger", "Merges", "Composes")
CONTESTING = ("Without Regret", "Learns less", "Forgets less", "Intruders")


@dataclass(frozen=True)
class Found:
    """What a run folder says for and against each claim."""

    model: str
    data: str
    metric: str
    unit: str
    margin: float
    full: str | None
    claims: tuple[Claim, ...]
    regime: dict[str, Answer]
    advice: str
    next: tuple[Step, ...]
    folder: str

    def claim(self, name: str) -> Claim:
        return next(claim for claim in self.claims if claim.statement.name == name)

    @property
    def paper(self) -> tuple[Claim, ...]:
        """The theorems of arXiv 2505.22355."""
        return tuple(claim for claim in self.claims if claim.statement.name not in (*CONTESTING, *COMPRESSING))

    @property
    def contesting(self) -> tuple[Claim, ...]:
        return tuple(claim for claim in self.claims if claim.statement.name in CONTESTING)

    @property
    def compressing(self) -> tuple[Claim, ...]:
        """Claims of arXiv 2311.13171 on compressed updates; none where nothing was compressed or merged."""
        return tuple(claim for claim in self.claims if claim.statement.name in COMPRESSING)

    def to_json(self) -> dict[str, Any]:
        """Plain data: what `--json` prints."""
        return {
            "format": 1,
            "folder": self.folder,
            "model": self.model,
            "data": self.data,
            "metric": self.metric,
            "unit": self.unit,
            "margin": self.margin,
            "full": self.full,
            "agreement": AGREEMENT,
            "claims": [
                {**asdict(claim.statement), "verdict": claim.verdict, "because": claim.because,
                 "n_seeds": claim.n_seeds, "findings": [asdict(finding) for finding in claim.findings],
                 "missing": [asdict(missing) for missing in claim.missing]}
                for claim in self.claims
            ],
            "regime": {name: asdict(answer) for name, answer in self.regime.items()},
            "advice": self.advice,
            "next": [asdict(step) for step in self.next],
            "about_plan": ABOUT_PLAN,
        }  # fmt: skip
