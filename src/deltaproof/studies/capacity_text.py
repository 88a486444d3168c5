"""The capacity suite as plain sentences, a paragraph per study."""

from collections.abc import Callable
from typing import Any

from deltaproof.experiments.wording import score, share, signed
from deltaproof.metrics import METRICS
from deltaproof.studies.quantiles import median_of

Result = dict[str, Any]


def capacity_text(results: dict[str, Result]) -> str:
    """What each study found; one that could not be made says why."""
    return "\n\n".join(
        "\n".join([TITLES[name], *(f"- {sentence}" for sentence in sentences(name, result))])
        for name, result in results.items()
    )


def sentences(name: str, result: Result) -> list[str]:
    """What one study found, for the terminal and for the page: a sentence per method, or why it could not be made."""
    return [result["reason"]] if result.get("applicable") is False else _SENTENCES[name](result)


def _expressivity(result: Result) -> list[str]:
    metric, rank, gaps = METRICS[result["metric"]], result["chosen_rank"], result["test"]["gaps"]
    name = metric.name.replace("_", " ")
    points = [next(point for point in curve["points"] if point["rank"] == rank) for curve in result["curves"]]
    energy = sum(point["energy"] for point in points) / len(points)
    gap = gaps["expressivity"]
    if rank == result["ranks"][-1]:
        said = [f"no rank below {rank} stays within the margin on validation: expressivity binds at every rank cut to"]
    else:
        said = [
            f"rank {rank} keeps {share(energy)} of the update's energy and {_lost(gap, metric.unit)} of {name}: "
            + {
                "equivalent": "expressivity does not bind",
                "worse": "what this rank cannot express costs score, expressivity binds",
                "better": "the cut update is even better, expressivity does not bind",
                "cannot tell": "these runs cannot tell whether expressivity binds",
            }[gap["verdict"]]
        ]
    lora = result["lora"]
    if lora is None:
        return [*said, "no LoRA on every linear map was trained at that rank or above, to hold against the cut update"]
    if "optimisation" not in gaps:
        return [*said, f"LoRA at rank {lora['rank']} and full fine-tuning were not kept at the same number of seeds"]
    gap = gaps["optimisation"]
    return [
        *said,
        f"LoRA trained at rank {lora['rank']} {_lost(gap, metric.unit)} of {name} against the cut update: "
        + {
            "equivalent": "optimisation finds what the rank can express",
            "worse": "optimisation, not the rank, is what it lacks",
            "better": "training at that rank finds a better place than the cut",
            "cannot tell": "these runs cannot tell whether optimisation is what it lacks",
        }[gap["verdict"]],
    ]


def _lost(gap: Result, unit: str) -> str:
    """Positive differences mean better."""
    word = "loses" if gap["difference"] <= 0 else "gains"
    points = f"{score(abs(gap['difference']), unit)}{' points' if unit == 'fraction' else ''}"
    return f"{word} {points} ({signed(gap['low'], unit)} to {signed(gap['high'], unit)})"


def _spectra(result: Result) -> list[str]:
    return [f"{method['label']}: {_update(method)}" for method in result["methods"]]


def _update(method: Result) -> str:
    summary, intruders, full = method["summary"], method["intruders"], method["against_full"]
    if summary is None:
        n = method["n_vectors"]
        return method["why_none"] or (f"{n} biases and norms changed, no matrix did" if n else "nothing changed")
    said = [
        f"an update of {share(summary['norm_f'] / summary['base_norm_f'])} of the weights' norm",
        f"90 % of its energy takes rank {summary['median_r90']:.0f} in the middle matrix "
        f"({share(summary['median_r90_over_noise'])} of what noise takes)",
        f"rank 8 holds {share(summary['energy']['8'])}",
    ]
    if intruders:
        said.append(
            f"{intruders['n_official']:.0f} of {intruders['n_examined']:.0f} leading vectors are intruders, "
            f"{intruders['n_robust']:.0f} of them beyond what noise makes"
        )
    if full:
        ranks = [
            (rank, value) for rank, value in zip(full["ranks"], full["captured"], strict=True) if value is not None
        ]
        other = "another seed's" if method["label"] == "full" else "full fine-tuning's"
        held = f", {share(ranks[-1][1])} of it in the first {ranks[-1][0]} directions" if ranks else ""
        cosine = f"{full['median_cosine']:.2f}".replace("-", "−")
        said.append(f"cosine {cosine} with {other} update{held}")
    return "; ".join(said)


def _displacement(result: Result) -> list[str]:
    said = [f"{method['label']}: {_movement(method)}" for method in result["methods"]]
    return [*said, f"the bound is {result['bound']}"]


def _movement(method: Result) -> str:
    moved, bound, slopes = method["displacement"], method["bound"], method["slopes"]
    if moved["mean"] == 0:
        return "its logits are those of the base"
    said = [
        f"its logits moved by {moved['mean']:.3g} ({moved['low']:.3g} to {moved['high']:.3g}), "
        f"{method['relative_displacement']:.2g} times the base's own length"
    ]
    if bound is not None:
        allowed, used = bound["log10"], bound["log10_tightness"]
        said.append(f"the theorem would allow 10^{allowed:.0f}, of which the movement is 10^{used:.0f}")
    if slopes is not None and slopes["ratio"] is not None:
        ratio, tuned = median_of(slopes["ratio"]), slopes["tuned"]
        steep = f"where examples lie its slope is {ratio:.2g} times the base's"
        if tuned["relative_radius"] is not None:
            radius = median_of(tuned["relative_radius"])
            steep += f", and its answer holds to first order within {share(radius)} of the input's length"
        said.append(steep)
    return "; ".join(said)


def _path(result: Result) -> list[str]:
    metric, steps = METRICS[result["metric"]], result["steps"]
    said = []
    for method in result["methods"]:
        at = {t: score(value, metric.unit) for t, value in zip(steps, method["score"], strict=True)}
        lowest = steps[min(range(len(steps)), key=method["loss"].__getitem__)]
        words = [f"{at[t]} {where}" for t, where in _PLACES.items() if t in at]
        said.append(
            f"{method['label']}: {metric.name.replace('_', ' ')} {', '.join(words)}; the loss is lowest at "
            f"{lowest:g} times the change"
        )
    return [*said, *(f"{label}: {why}, so there is no line" for label, why in result["left_out"].items())]


_PLACES = {0.0: "at the base", 0.5: "halfway", 1.0: "at the tuned model", 1.5: "half as far again"}


def _forgetting(result: Result) -> list[str]:
    said = [
        f"{method['label']}: the base's own loss ({result['task']}) rose by {method['rise']:.3g} {result['unit']} "
        f"({method['low']:.3g} to {method['high']:.3g}) from {result['before']:.3g}{_named(result, method)}"
        for method in result["methods"]
    ]
    return [*said, *(f"{label}: {why}" for label, why in result["left_out"].items())]


def _named(result: Result, method: Result) -> str:
    """How many tokens it names right; studies of an earlier form do not say."""
    if "right" not in method:
        return ""
    return (
        f"; it names {share(method['right']['mean'])} of these tokens right, the base {share(result['right_before'])}"
    )


_SENTENCES: dict[str, Callable[[Result], list[str]]] = {
    "expressivity": _expressivity,
    "spectra": _spectra,
    "displacement": _displacement,
    "path": _path,
    "forgetting": _forgetting,
}
TITLES = {
    "expressivity": "Does a low rank bind?",
    "spectra": "What are the updates made of?",
    "displacement": "How far did the answers move, and how far may they have?",
    "path": "What lies along the change?",
    "forgetting": "What was forgotten?",
}
