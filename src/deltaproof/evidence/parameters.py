"""T3: more trained parameters are worth less and less. Does the gain shrink?"""

from typing import Any

from deltaproof.evidence import commands
from deltaproof.evidence.claim import NOT_MEASURED, Claim, Finding, Missing, Span, Statement, Verdict
from deltaproof.evidence.judging import ONE_SEED, seeded
from deltaproof.evidence.measured import Measured, span
from deltaproof.evidence.words import whole

STATEMENT = Statement(
    name="T3",
    title="Diminishing benefit of more parameters",
    source="arXiv 2505.22355, theorem 3: its name known from secondary sources, its formula not",
    says="Each further trained parameter is worth less than the one before.",
    tested_as=(
        "One method at several ranks, each tuned anew, at several seeds: the change of the gain from one doubling "
        "of parameters to the next, and, the weaker claim, the bend of the curve per parameter (in units of its "
        "whole rise)."
    ),
    rule=(
        "Supported if the interval of either bend lies below 0, since a gain that shrinks per doubling shrinks per "
        "parameter too; contradicted if the gain per doubling does not shrink (interval at or above 0 while the "
        "score rises) and the bend per parameter is not below 0."
    ),
    not_shown=(
        "The energy that rank r holds of an update grows ever more slowly by construction, so it is not counted as "
        "evidence. A sweep speaks of its own range of ranks."
    ),
)
BY_DOUBLING, BY_PARAMETER = "per doubling", "per parameter"


def parameters(m: Measured) -> Claim:
    study, command = m.found("scale_parameters"), commands.by_rank(m)
    if not study:
        missing = Missing("one method at several ranks", command)
        return Claim(STATEMENT, "cannot tell", NOT_MEASURED, missing=(missing,))
    growth, points = study["growth"], study["points"]
    if growth is None or not points:
        because = "fewer than three ranks came through"
        return Claim(STATEMENT, "cannot tell", because, missing=(Missing("more ranks", command),))
    n_seeds = min(len(point["keys"]) for point in points)
    unit = m.metric.unit if study["metric"] == m.metric.name else ""
    doubling = _doubling(study, growth, unit, n_seeds)
    parameter = _parameter(study, growth, n_seeds)
    verdict = _verdict(doubling.verdict, parameter.verdict)
    more = [] if n_seeds > 1 else [Missing("a second seed", f"{command} --seeds 3")]
    return Claim(STATEMENT, verdict, _because(m, study, doubling, verdict), (doubling, parameter), tuple(more))


def _doubling(study: dict[str, Any], growth: dict[str, Any], unit: str, n_seeds: int) -> Finding:
    found: dict[str, Verdict] = {"diminishing": "supported", "not diminishing": "contradicted"}
    verdict = found.get(growth["verdict"], "cannot tell") if n_seeds > 1 else "cannot tell"
    gains = [span(gain, unit, value="value") for gain in growth["gains"]]
    because = f"gain per doubling from {whole(gains[0])} at first to {whole(gains[-1])} at last"
    return Finding(f"{study['method']}, {BY_DOUBLING}", "change of the gain from one doubling to the next",
                   span(growth["bend"], unit, value="value"), n_seeds, verdict,
                   seeded(because, n_seeds))  # fmt: skip


def _parameter(study: dict[str, Any], growth: dict[str, Any], n_seeds: int) -> Finding:
    bend = span(growth["bend_in_x"], "of the rise", value="value")
    verdict: Verdict = "cannot tell"
    if n_seeds > 1 and bend is not None and bend.low is not None and bend.high is not None:
        verdict = "supported" if bend.high < 0 else "contradicted" if bend.low > 0 else "cannot tell"
    because = "the weaker claim: the curve is concave in the number of parameters"
    return Finding(f"{study['method']}, {BY_PARAMETER}", "bend of the curve over parameters", bend, n_seeds, verdict,
                   because if n_seeds > 1 else ONE_SEED)  # fmt: skip


def _verdict(doubling: Verdict, parameter: Verdict) -> Verdict:
    if "supported" in (doubling, parameter):
        return "supported"
    return "contradicted" if "contradicted" in (doubling, parameter) else "cannot tell"


def _because(m: Measured, study: dict[str, Any], doubling: Finding, verdict: Verdict) -> str:
    points = sorted(study["points"], key=lambda point: float(point["n_trained"]))
    unit = doubling.value.unit if doubling.value else ""
    sign = 1 if m.metric.higher_is_better else -1
    rise = Span(sign * (points[-1]["mean"] - points[0]["mean"]), None, None, unit)
    words = {
        "supported": "the gain shrinks",
        "contradicted": "the gain does not shrink",
        "cannot tell": "these runs cannot tell whether the gain shrinks",
        "not applicable": "",
    }[verdict]
    return (
        f"{words}: {whole(rise)} from rank {points[0]['rank']} to {points[-1]['rank']}, "
        f"and the gain per doubling changed by {whole(doubling.value)}"
    )
