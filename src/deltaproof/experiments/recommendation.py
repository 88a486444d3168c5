"""From verdicts and costs to one sentence: quality, cost and certainty."""

from collections.abc import Sequence
from dataclasses import dataclass

from deltaproof.experiments import wording
from deltaproof.experiments.row import Row
from deltaproof.metrics import Metric


@dataclass(frozen=True)
class Recommendation:
    """Which contestant to take, and on what ground."""

    name: str | None
    sentence: str
    basis: str
    """What kind of evidence the choice rests on: which comparison confirms it, or that it is exploratory."""


def recommend(
    rows: Sequence[Row], baselines: Sequence[Row], reference: str, metric: Metric, margin: float
) -> Recommendation:
    """Take the cheapest contestant that is shown to be as good as the reference, or the best one shown to be better.

    Cheapest means: least memory in training, then fewest bytes to store. Where nothing is shown, the reference stays,
    and the sentence says what margin could have been shown.
    """
    done = {row.name: row for row in rows if row.status == "done"}
    if reference not in done:
        return _without_reference(list(done.values()), rows, reference, metric)
    chosen = _choice(done, reference)
    if chosen.name == reference:
        sentence = _reference_sentence(done, reference, metric, margin)
    else:
        sentence = _sentence(chosen, done[reference], metric, margin)
    return Recommendation(chosen.name, sentence + _baseline_clause(baselines, metric), _basis(chosen, done, reference))


def _choice(done: dict[str, Row], reference: str) -> Row:
    better = [row for row in done.values() if row.verdict == "better"]
    if better:
        return max(better, key=lambda row: row.comparison.difference if row.comparison else 0.0)
    as_good = [row for row in done.values() if row.verdict == "equivalent" or row.name == reference]
    return min(as_good, key=_expense)


def _expense(row: Row) -> tuple[float, float]:
    memory = row.cost.get("peak_device_memory_bytes") or row.cost.get("peak_memory_bytes") or 0.0
    return memory, row.cost.get("stored_bytes") or 0.0


def _sentence(row: Row, reference: Row, metric: Metric, margin: float) -> str:
    comparison = row.comparison
    assert comparison is not None, "a contestant that is not the reference was compared with it"
    low, high = wording.signed(comparison.low, metric.unit), wording.signed(comparison.high, metric.unit)
    difference = f"{wording.signed(comparison.difference, metric.unit)}, 95 % interval {low} to {high}"
    if comparison.verdict == "better":
        claim = f"better than {reference.name} in {_spoken(metric)} ({difference})"
    else:
        within = f"{wording.amount(margin, metric.unit)} of {_spoken(metric)}"
        claim = f"equivalent to {reference.name} within {within} ({difference})"
    return f"{row.name}: {claim}; {_cost_clause(row, reference)}."


def _spoken(metric: Metric) -> str:
    return metric.name.replace("_", " ")


def _cost_clause(row: Row, reference: Row) -> str:
    parts = [
        f"trains {wording.share(row.cost.get('trainable_fraction') or 0.0)} of the weights",
        _less(_expense(row)[0], _expense(reference)[0], "memory"),
        _less(row.cost.get("train_seconds"), reference.cost.get("train_seconds"), "training time"),
    ]
    mine, theirs = (wording.size(each.cost.get("stored_bytes")) for each in (row, reference))
    return ", ".join([*filter(None, parts), f"{mine} to store instead of {theirs}"])


def _less(mine: float | None, theirs: float | None, what: str) -> str:
    """Such as `38 % less memory`; empty where there is no difference to speak of."""
    if not mine or not theirs or abs(mine / theirs - 1) < 0.02:
        return ""
    return f"{100 * abs(mine / theirs - 1):.0f} % {'less' if mine < theirs else 'more'} {what}"


def _reference_sentence(done: dict[str, Row], reference: str, metric: Metric, margin: float) -> str:
    others = [row for row in done.values() if row.comparison is not None]
    if not others:
        return f"{reference}: there is no other contestant with results to compare it with."
    equivalent = [row.name for row in others if row.verdict == "equivalent"]
    if equivalent:
        one = len(equivalent) == 1
        return (
            f"{reference}: {', '.join(equivalent)} {'is' if one else 'are'} equivalent within "
            f"{wording.amount(margin, metric.unit)}, but {'needs' if one else 'need'} no less memory here."
        )
    unclear = [row for row in others if row.verdict == "cannot tell"]
    if not unclear:
        return f"{reference}: better than every other contestant in {_spoken(metric)}."
    nearest = min(unclear, key=lambda row: row.comparison.shown_margin if row.comparison else 0.0)
    assert nearest.comparison is not None, "taken from the rows that were compared"
    return (
        f"{reference}, for want of proof: {nearest.name} comes closest and would be equivalent within "
        f"{wording.amount(nearest.comparison.shown_margin, metric.unit)} of {_spoken(metric)}, but not within "
        f"{wording.amount(margin, metric.unit)}; more test examples or seeds would tell."
    )


def _basis(chosen: Row, done: dict[str, Row], reference: str) -> str:
    n = len(done) - 1
    if chosen.name == reference:
        return "no comparison" if n == 0 else f"{_comparisons(n)} with {reference}, error rate held over all (Holm)"
    same = [row.name for row in done.values() if row.verdict == chosen.verdict and row.name != chosen.name]
    text = f"confirmatory: {chosen.name} against {reference}, of {_comparisons(n)} planned (Holm)"
    if same:
        choice = "the one with the highest test score" if chosen.verdict == "better" else "the cheapest"
        text += f"; that it is {choice} among those {chosen.verdict} ({', '.join([chosen.name, *same])}) is exploratory"
    return text + "; holds for the settings that tuning chose"


def _comparisons(n: int) -> str:
    return f"{n} comparison{'s' if n != 1 else ''}"


def _without_reference(done: list[Row], rows: Sequence[Row], reference: str, metric: Metric) -> Recommendation:
    status = next((row.status for row in rows if row.name == reference), "missing")
    ended = {
        "out_of_memory": "did not fit into memory",
        "diverged": "diverged",
        "missing": "has not run to the end yet",
    }.get(status, "failed")
    if not done:
        return Recommendation(
            None,
            f"Nothing to recommend: the reference {reference} {ended}, and no other contestant came through.",
            "no results",
        )
    sign = 1 if metric.higher_is_better else -1
    best = max(done, key=lambda row: sign * row.scores[metric.name].mean)
    return Recommendation(
        best.name,
        f"{best.name} has the best mean {_spoken(metric)} ({_mean(best, metric)}) of those that came through; "
        f"the reference {reference} {ended}, so nothing was compared with it.",
        "exploratory: the best of several on the test split; name a `fallback_reference` for a verdict",
    )


def _baseline_clause(baselines: Sequence[Row], metric: Metric) -> str:
    """A warning where a model that needs no fine-tuning is not shown to be worse."""
    strong = [row for row in baselines if row.comparison is not None and row.comparison.verdict != "worse"]
    if not strong:
        return ""
    best = max(strong, key=lambda row: row.comparison.difference if row.comparison else 0.0)
    claim = "is better than the reference" if best.verdict == "better" else "is not shown to be worse"
    return f" Need you fine-tune at all? {best.name} ({_mean(best, metric)}) {claim}."


def _mean(row: Row, metric: Metric) -> str:
    return wording.score(row.scores[metric.name].mean, metric.unit)
