"""A sweep over sizes as plain text: one table, and what its curves say."""

from typing import Any

from deltaproof.experiments.wording import score, signed
from deltaproof.metrics import METRICS


def scale_text(result: dict[str, Any]) -> str:
    return "\n".join(_parameters(result) if result["by"] == "parameters" else _examples(result))


def _parameters(result: dict[str, Any]) -> list[str]:
    metric = METRICS[result["metric"]]
    lines = [f"{'':24}{'trained':>12}  {metric.name} (95 % interval)"]
    for point in result["points"]:
        lines.append(f"{point['label']:24}{point['n_trained']:12,.0f}  {_score(point, metric.unit)}")
    for other in result["others"]:
        lines.append(f"{other['label']:24}{'':12}  {_score(other, metric.unit)}")
    return [*lines, "", *growth_sentences(result["growth"], "parameters", metric.unit)]


def _examples(result: dict[str, Any]) -> list[str]:
    metric = METRICS[result["metric"]]
    lines = [f"{metric.name} (95 % interval) at equal {result['equal']}"]
    for method in result["methods"]:
        for point in method["points"]:
            lines.append(f"{method['label']:24}{point['n_examples']:12,}  {_score(point, metric.unit)}")
    for method in result["methods"]:
        if method["power_law"]:
            lines += ["", f"{method['label']}: {power_law_sentence(method['power_law'])}"]
    return [*lines, "", *(crossover_sentence(entry) for entry in result["crossovers"])]


def growth_sentences(found: dict[str, Any] | None, what: str, unit: str) -> list[str]:
    """What can be said of returns on more `what`."""
    if found is None:
        return [f"too few sizes came through to say anything of returns on {what}"]
    bend = found["bend"]
    said = {
        "diminishing": "shrinks from one doubling to the next",
        "not diminishing": "does not shrink from one doubling to the next",
        "cannot tell": "may shrink, stay or grow: these runs cannot tell",
    }[found["verdict"]]
    gains = ", ".join(signed(gain["value"], unit) for gain in found["gains"])
    return [
        f"gain per doubling of {what}: {gains}",
        f"the gain {said} (change per doubling {signed(bend['value'], unit)}, 95 % interval "
        f"{signed(bend['low'], unit)} to {signed(bend['high'], unit)})",
    ]


def power_law_sentence(law: dict[str, Any]) -> str:
    floor, exponent = law["floor"], law["exponent"]
    if law["is_at_edge"]:
        return "these sizes do not determine a power law (its exponent runs to the edge of the range searched)"
    return (
        f"error = {floor['value']:.3f} + {law['scale']['value']:.3g} n^-{exponent['value']:.2f} "
        f"(exponent {exponent['low']:.2f} to {exponent['high']:.2f}, floor {floor['low']:.3f} to {floor['high']:.3f})"
    )


def crossover_sentence(entry: dict[str, Any]) -> str:
    one, other = entry["one"], entry["other"]
    if entry["verdict"] == "crossover":
        at = entry["at"]
        return (
            f"{entry['ahead_after']} overtakes {entry['ahead_before']} at about {at['value']:,.0f} examples "
            f"(95 % interval {at['low']:,.0f} to {at['high']:,.0f})"
        )
    if entry["verdict"] == "no crossover in range":
        return f"{one} and {other} do not cross in this range: {entry['ahead_after']} is ahead throughout"
    return (
        f"{one} and {other}: these runs cannot tell whether they cross ({entry['crossing_fraction']:.0%} of draws do)"
    )


def _score(point: dict[str, Any], unit: str) -> str:
    return f"{score(point['mean'], unit)} ({score(point['low'], unit)} to {score(point['high'], unit)})"
