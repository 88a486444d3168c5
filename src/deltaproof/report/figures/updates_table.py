"""The updates in numbers: norms, ranks and intruders, a row per method."""

from typing import Any

from deltaproof.report.figures.weights import percent
from deltaproof.report.grid import Cell, Grid, grid

Result = dict[str, Any]
_COLUMNS = (
    "Method",
    "Size",
    "r90",
    "Stable rank",
    "Energy in rank 8",
    "Lost in bf16",
    "Intruders",
)


def updates_table(result: Result) -> Grid:
    return grid(
        "The updates in numbers",
        _COLUMNS,
        [_line(method) for method in result["methods"]],
        note="Means over the seeds; ranks are medians over the matrices. Size: Frobenius norm of the change as a share "
        "of the weights'. At most: the largest |D|₂ / |W0|₂ of a matrix, embeddings included. r90 holds 90 % of a "
        "change's energy; stable rank is |D|F² / |D|₂², entropy rank exp(−Σ p log p) of the singular values: three "
        "counts of directions that weigh small ones differently. Lost in bf16: the rounding that storing the tuned "
        "weights in bfloat16 would add, as a share of the change. Intruders: those that noise does not explain, "
        "with those of the authors' definition below.",
    )


def _line(method: Result) -> list[str | Cell]:
    summary, intruders = method["summary"], method["intruders"]
    if summary is None:
        n = method["n_vectors"]
        why = "no change of weights" if method["why_none"] else f"{n} biases and norms" if n else "nothing changed"
        return [Cell(method["label"], why), *(["–"] * (len(_COLUMNS) - 1))]
    return [
        Cell(method["label"], f"{_count(summary['n_matrices'])} matrices"),
        Cell(_ratio(summary["norm_f"], summary["base_norm_f"]), f"at most {percent(summary['largest_ratio_2'])}"),
        Cell(_count(summary["median_r90"]), f"{percent(summary['median_r90_over_noise'])} of noise's"),
        Cell(_count(summary["median_stable_rank"]), f"entropy {_count(summary['median_entropy_rank'])}"),
        percent(summary["energy"].get("8")),
        percent(summary["bf16_rounding_fraction"]),
        Cell(
            f"{_count(intruders['n_robust'])} of {_count(intruders['n_examined'])}",
            f"{_count(intruders['n_official'])} by definition",
        )
        if intruders
        else "–",
    ]


def _ratio(part: float | None, whole: float | None) -> str:
    return "–" if part is None or not whole else percent(part / whole)


def _count(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if value == round(value) or value >= 99.5 else f"{value:.1f}"
