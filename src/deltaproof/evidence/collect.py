"""All claims of one run folder, the regime they add up to, and the advice that follows."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from deltaproof.evidence.advice import Step, advice, next_steps
from deltaproof.evidence.claim import Claim
from deltaproof.evidence.commands import ABOUT_PLAN
from deltaproof.evidence.compressed import composed, larger, merged, small
from deltaproof.evidence.displaced import displaced
from deltaproof.evidence.examples import examples
from deltaproof.evidence.intruding import intruding
from deltaproof.evidence.judging import AGREEMENT
from deltaproof.evidence.learns_forgets import forgets_less, learns_less
from deltaproof.evidence.measured import Measured
from deltaproof.evidence.parameters import parameters
from deltaproof.evidence.perturbation import perturbation
from deltaproof.evidence.regime import Answer, regime
from deltaproof.evidence.subset import subset
from deltaproof.evidence.without_regret import without_regret
from deltaproof.experiments.table import Table
from deltaproof.records.store import Store

EXAMINED = (
    subset, displaced, parameters, perturbation, examples, without_regret, learns_less, forgets_less, intruding,
)  # fmt: skip
"""The paper's five, then those who contest it."""
ON_COMPRESSION = (small, larger, merged, composed)
"""Of compressed updates; examined where a run was compressed or its models merged."""
COMPRESSING = ("Small", "Larger", "Merges", "Composes")
CONTESTING = ("Without Regret", "Learns less", "Forgets less", "Intruders")


@dataclass(frozen=True)
class Evidence:
    """What a run folder says for and against each claim. Prints well; `to_json` for scripts."""

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

    def to_text(self, width: int = 100) -> str:
        from deltaproof.evidence.text import to_text

        return to_text(self, width)

    def __str__(self) -> str:
        return self.to_text()


def evidence(run: Path | str | Store, table: Table | None = None, called: str | None = None) -> Evidence:
    """Read a run folder and say what it shows of each claim.

    Args:
        run: a folder that `compare` wrote, with what studies left in it.
        table: its table, where that was read already.
        called: how commands name the folder; its path when left out.
    Raises:
        RecordError: not a run folder, or a study that is no JSON.
    """
    m = Measured(run if isinstance(run, Store) else Store(run), table, called)
    is_compressed = bool(m.found("compression") or m.found("merging").get("merges"))
    claims = tuple(examine(m) for examine in (*EXAMINED, *(ON_COMPRESSION if is_compressed else ())))
    answers = regime(m, {claim.statement.name: claim for claim in claims})
    experiment = m.experiment
    return Evidence(
        model=Path(str(experiment["model"]["name"])).name,
        data=str(experiment["data"]["name"]),
        metric=m.metric.name,
        unit=m.metric.unit,
        margin=m.margin,
        full=m.full,
        claims=claims,
        regime=answers,
        advice=advice(m, answers),
        next=next_steps(m, claims, answers),
        folder=m.called,
    )
