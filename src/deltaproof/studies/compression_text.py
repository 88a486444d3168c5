"""The compression study as a terminal shows it, and its findings as sentences. Free of torch."""

from collections.abc import Iterator
from typing import Any

from deltaproof.experiments import wording
from deltaproof.metrics import METRICS
from deltaproof.studies.compression_findings import BASE, BEFORE, PRUNED, STC, WITHOUT

Result = dict[str, Any]
ENDS = {
    BEFORE: "as tuned",
    WITHOUT: "with nothing of the update but what is kept whole",
    BASE: "with nothing of it but the tuned head",
}
SCOPES = {"per_tensor": "each tensor", "per_factor": "each factor", "global": "all tensors"}


def compression_text(result: Result) -> str:
    """For each contestant two tables: sizes and scores on the test rows, and what was tried on validation."""
    lines: list[str] = []
    for entry in result["contestants"]:
        lines += [*_contestant(result, entry), ""]
    lines += [f"{label}: left out, {reason}" for label, reason in result["left_out"].items()]
    seeds = "one kept model each: nothing is said of other seeds"
    if any(entry["n_seeds"] > 1 for entry in result["contestants"]):
        seeds = "over kept models too"
    lines += [
        "stored: all tensors as stored over the whole file, by stat; fp16 and fp32: compressed tensors over their code",
        f"in brackets 95 % intervals, paired over test examples, {seeds}; verdicts against a margin of "
        f"{wording.amount(result['margin'], METRICS[result['metric']].unit)}, corrected over the densities",
        "scope and scale were chosen on validation; the test rows were asked once at each density",
    ]
    return "\n".join(lines)


def sentences(result: Result) -> list[str]:
    """For each contestant the smallest density that is shown to be as good, or the nearest to it."""
    return [_sentence(result, entry) for entry in result["contestants"] if entry["densities"]]


def models_of(result: Result, label: str) -> list[dict[str, Any]]:
    return [model for model in result["models"] if model["label"] == label]


def at_density(model: dict[str, Any], name: str) -> dict[str, Any]:
    return next(entry for entry in model["densities"] if f"{entry['density']:g}" == name)


def mean_size(result: Result, label: str, name: str, field: str) -> float:
    """A size or ratio of a contestant at a density, averaged over its kept models."""
    found = [at_density(model, name)["sizes"][field] for model in models_of(result, label)]
    return float(sum(found) / len(found))


def scale_words(name: str) -> str:
    """How a point's scope and scale read.

    >>> scale_words("global:2"), scale_words("per_tensor:auto"), scale_words("global:pruned")
    ('2 σ of all tensors', 'least error of each tensor', 'pruned over all tensors')
    """
    scope, _, alpha = name.partition(":")
    whose = SCOPES.get(scope, scope)
    if alpha == PRUNED:
        return f"pruned over {whose}"
    return f"least error of {whose}" if alpha == "auto" else f"{alpha} σ of {whose}"


def is_largest(result: Result, name: str) -> bool:
    """Whether a chosen scale is the largest that was tried, so that a larger one may do better.

    >>> is_largest({"settings": {"alphas": ["auto", "2", "8"]}}, "global:8")
    True
    """
    numbers = [alpha for alpha in result["settings"]["alphas"] if alpha != "auto"]
    alpha = name.partition(":")[2]
    return len(numbers) > 1 and alpha == max(numbers, key=float)


def chosen_words(result: Result, label: str, name: str) -> str:
    """What was chosen at a density, by the models of a contestant."""
    found = [str(at_density(model, name)["chosen"]) for model in models_of(result, label)]
    return ", ".join(dict.fromkeys(scale_words(each) for each in found))


def _sentence(result: Result, entry: dict[str, Any]) -> str:
    good = ("equivalent", "better")
    names = sorted(entry["densities"], key=float)
    kept = next((name for name in names if entry["densities"][name]["verdict"] in good), None)
    shown = kept or max(names, key=lambda name: float(entry["densities"][name]["difference"]))
    found = entry["densities"][shown]
    unit = METRICS[result["metric"]].unit
    ratios = (
        f"{mean_size(result, entry['label'], shown, 'fp16_ratio'):.0f} times smaller than fp16 in the compressed "
        f"tensors, {mean_size(result, entry['label'], shown, 'stored_ratio'):.1f} times than all tensors as stored"
    )
    difference = (
        f"{wording.signed(found['difference'], unit)} ({wording.signed(found['low'], unit)} to "
        f"{wording.signed(found['high'], unit)})"
    )
    if kept is not None:
        verdict = {"equivalent": "equivalent to the update as tuned", "better": "better than the update as tuned"}
        return f"compressed to density {shown}, {ratios}, {entry['label']} is {verdict[found['verdict']]}, {difference}"
    return (
        f"at no density is {entry['label']} shown to be as good as its update as tuned; nearest is density {shown}, "
        f"{ratios}, {difference}, {found['verdict']}"
    )


def _contestant(result: Result, entry: dict[str, Any]) -> Iterator[str]:
    unit, label = METRICS[result["metric"]].unit, entry["label"]
    ends = [f"{wording.score(entry['intervals'][end]['mean'], unit)} {words}"
            for end, words in ENDS.items() if end in entry["intervals"]]  # fmt: skip
    yield f"{label}, {result['metric'].replace('_', ' ')} on the test rows: {'; '.join(ends)}"
    yield (f" {'density':>7}  {'file':>8}  {'stored':>7}  {'fp16':>7}  {'fp32':>7}  {'score':>6}  "
           f"{'difference':>22}  {'verdict':12}  {'retained, %':>22}")  # fmt: skip
    for name, found in entry["densities"].items():
        sizes = {field: mean_size(result, label, name, field)
                 for field in ("file_bytes", "stored_ratio", "fp16_ratio", "fp32_ratio")}  # fmt: skip
        difference = (f"{wording.signed(found['difference'], unit)} ({wording.signed(found['low'], unit)} to "
                      f"{wording.signed(found['high'], unit)})")  # fmt: skip
        yield (
            f" {name:>7}  {wording.size(sizes['file_bytes']):>8}  {sizes['stored_ratio']:6.1f}x  "
            f"{sizes['fp16_ratio']:6.1f}x  {sizes['fp32_ratio']:6.1f}x  "
            f"{wording.score(entry['intervals'][name]['mean'], unit):>6}  {difference:>22}  {found['verdict']:12}  "
            f"{share_words(found['retained']):>22}"
        ).rstrip()
    yield f" {'density':>7}  on validation: as chosen, scale of least error, pruned alone, STC"
    for model in models_of(result, label):
        for at in model["densities"]:
            yield _tried(result, model, at, unit)


def _tried(result: Result, model: dict[str, Any], at: dict[str, Any], unit: str) -> str:
    points = at["points"]
    if at["chosen"] is None:
        reason = next(point["reason"] for point in points.values() if point["reason"])
        return f" {at['density']:>7g}  refused: {reason}"
    seed = f", seed {model['seed']}"
    edge = ", the largest tried" if is_largest(result, at["chosen"]) else ""
    scope = at["chosen"].partition(":")[0]
    told = [points[name]["validation"] if name in points else None
            for name in (at["chosen"], f"{scope}:auto", f"{scope}:{PRUNED}", STC)]  # fmt: skip
    numbers = "  ".join(f"{wording.score(value, unit):>6}" for value in told)
    return f" {at['density']:>7g}  {numbers}   {scale_words(at['chosen'])}{edge}{seed}"


def share_words(found: dict[str, float] | None) -> str:
    """A share in per cent with its interval.

    >>> share_words({"mean": 0.981, "low": 0.95, "high": 1.012})
    '98.1 (95.0 to 101.2)'
    """
    if found is None:
        return "–"
    return f"{100 * found['mean']:.1f} ({100 * found['low']:.1f} to {100 * found['high']:.1f})".replace("-", "−")
