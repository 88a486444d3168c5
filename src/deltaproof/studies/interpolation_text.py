"""The curve between base and tuned model in words."""

from typing import Any

from deltaproof.experiments.wording import score as shown
from deltaproof.experiments.wording import signed

_BAR = 20
_HEADS = {
    "kept": "the head is the tuned model's at every alpha: the base has none",
    "interpolated": "the base is a classifier for these labels: its head moves like every other weight",
}


def interpolation_text(found: dict[str, Any]) -> str:
    """One line per alpha, a column per set, and what to take."""
    unit, sets, alphas = found["unit"], found["sets"], found["alphas"]
    named = [f"{one['name']} ({one['n']})" for one in sets]
    widths = [max(len(name), 12) for name in named]
    shifts = [one for one in sets if one["role"] == "shift"]
    what = f"{found['contestant']}, seed {found['seed']}: {found['metric']} of W0 + alpha (W1 - W0)"
    lines = [
        f"{what}; {_HEADS[found['head']]}",
        "",
        "alpha  " + "  ".join(f"{name:>{width}}" for name, width in zip(named, widths, strict=True)),
    ]
    for at, alpha in enumerate(alphas):
        cells = [f"{shown(one['score'][at], unit):>{width}}" for one, width in zip(sets, widths, strict=True)]
        marks = ["best on validation"] if alpha == found["best_clean"] else []
        marks += [f"best on {name}, none lost" for name, best in found["without_regression"].items() if best == alpha]
        lines.append(f"{alpha:5g}  {'  '.join(cells)}  {'; '.join(marks)}".rstrip())
    lines.append("")
    for one in shifts:
        chosen = found["without_regression"][one["name"]]
        lines.append(_against(found, sets[0], one, chosen, unit))
    lines.append("alphas were looked at on these very rows: a best of several is a little too good")
    return "\n".join([*lines, *(f"note: {note}" for note in found["notes"])])


def _against(found: dict[str, Any], clean: dict[str, Any], shift: dict[str, Any], alpha: float, unit: str) -> str:
    if alpha == 1:
        return f"{shift['name']}: no alpha below 1 scores more there without losing on validation"
    at = found["alphas"].index(alpha)
    parts = []
    for one in (shift, clean):
        gap = one["difference"][at]
        parts.append(
            f"{signed(gap['difference'], unit)} ({signed(gap['low'], unit)} to {signed(gap['high'], unit)}) on "
            f"{one['name']}"
        )
    return f"alpha {alpha:g} against the tuned model, 95 %: {'; '.join(parts)}"
