"""All claims of one run folder, the regime they add up to, and the advice that follows."""

from pathlib import Path

from deltaproof.evidence.advice import advice, next_steps
from deltaproof.evidence.compressed import composed, larger, merged, small
from deltaproof.evidence.displaced import displaced
from deltaproof.evidence.examples import examples
from deltaproof.evidence.found import Found
from deltaproof.evidence.intruding import intruding
from deltaproof.evidence.learns_forgets import forgets_less, learns_less
from deltaproof.evidence.measured import Measured
from deltaproof.evidence.parameters import parameters
from deltaproof.evidence.perturbation import perturbation
from deltaproof.evidence.regime import regime
from deltaproof.evidence.subset import subset
from deltaproof.evidence.text import to_text
from deltaproof.evidence.without_regret import without_regret
from deltaproof.experiments.standings import Standings
from deltaproof.records.store import Store

EXAMINED = (
    subset, displaced, parameters, perturbation, examples, without_regret, learns_less, forgets_less, intruding,
)  # fmt: skip
"""The paper's five, then those who contest it."""
ON_COMPRESSION = (small, larger, merged, composed)
"""Of compressed updates; examined where a run was compressed or its models merged."""


class Evidence(Found):
    """What a run folder says for and against each claim. Prints well; `to_json` for scripts."""

    def to_text(self, width: int = 100) -> str:
        return to_text(self, width)

    def __str__(self) -> str:
        return self.to_text()


def evidence(run: Path | str | Store, table: Standings | None = None, called: str | None = None) -> Evidence:
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
