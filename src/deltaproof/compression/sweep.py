"""Density times alpha on validation, and the choice of alpha by it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from deltaproof.compression.compeft import Compression, Scope, compress, pruned
from deltaproof.compression.sizes import sizes_of
from deltaproof.compression.source import Source
from deltaproof.compression.trial import Trial
from deltaproof.errors import CompressionError

Alpha = float | Literal["auto"]
ALPHAS: tuple[Alpha, ...] = ("auto", 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0)
"""Where alpha is looked for; the published experiments use such a grid, `auto` is the one of least error."""
DENSITIES = (0.05, 0.1, 0.2, 0.3, 0.5)
Say = Callable[[str], None]


@dataclass(frozen=True)
class Point:
    """One setting and what came of it."""

    density: float
    alpha: Alpha | Literal["pruned"]
    """`pruned`: the kept entries with their own values, which no ternary file holds; for comparison."""
    score: float | None
    """On validation; None where the update was erased."""
    relative_error: float | None
    """|tau - tau'| / |tau| over the compressed tensors."""
    file_bytes: int | None
    fp16_ratio: float | None
    """Compressed tensors in fp16 over their code."""
    fp32_ratio: float | None
    stored_ratio: float | None
    """All tensors as stored over the whole file."""


@dataclass(frozen=True)
class Sweep:
    """Scores over density and alpha, beside the uncompressed model and the one without its compressed part."""

    metric: str
    higher_is_better: bool
    scope: str
    start: str
    before: float
    """The tuned model as it is."""
    without: float
    """With every ternary tensor at its start: what the tensors that are kept whole score alone, the head among them."""
    points: tuple[Point, ...]
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def best(self, density: float) -> Point | None:
        """The ternary point of this density that scores best; of equals the first, so `auto` before others."""
        here = [p for p in self.points if p.density == density and p.alpha != "pruned" and p.score is not None]
        return max(here, key=lambda point: self._sign * (point.score or 0.0), default=None)

    @property
    def _sign(self) -> int:
        return 1 if self.higher_is_better else -1


def search_alpha(compression: Compression, trial: Trial, alphas: Sequence[Alpha] = ALPHAS) -> tuple[Compression, float]:
    """The alpha that scores best on validation, with its score; of equals the first.

    The score is that of a choice among several on the same rows: a little too good.
    """
    best: tuple[Compression, float] | None = None
    sign = 1 if trial.metric.higher_is_better else -1
    for alpha in alphas:
        candidate = compression.with_alpha(alpha)
        score = trial.after(candidate.compressed)
        if best is None or sign * score > sign * best[1]:
            best = candidate, score
    assert best is not None, "there is at least one alpha"
    return best


def sweep(
    source: Source, trial: Trial, densities: Sequence[float] = DENSITIES, alphas: Sequence[Alpha] = ALPHAS,
    scope: Scope = "per_tensor", allow_erased: bool = False, say: Say = lambda text: None,
) -> Sweep:  # fmt: skip
    """Score every setting on validation; signs are found once for each density."""
    points: list[Point] = []
    notes: list[str] = []
    before, without = trial.before(), None
    for density in densities:
        try:
            found = compress(source, density, "auto", scope, allow_erased)
        except CompressionError as error:
            points.append(Point(density, "auto", None, None, None, None, None, None))
            notes.append(f"density {density:g}: {error}")
            continue
        notes.extend(f"density {density:g}: {note}" for note in found.notes)
        if without is None:
            without = trial.after(found.silent().compressed)
        for alpha in alphas:
            points.append(_point(found.with_alpha(alpha), density, alpha, trial))
            say(f"density {density:g}, alpha {alpha}: {trial.metric.name} {points[-1].score:.4f}")
        points.append(
            Point(density, "pruned", trial.score(pruned(source, density, scope)), None, None, None, None, None)
        )
    facts = source.facts
    return Sweep(
        trial.metric.name, trial.metric.higher_is_better, scope, str(facts["start"]), before,
        float("nan") if without is None else without, tuple(points), tuple(notes),
    )  # fmt: skip


def _point(found: Compression, density: float, alpha: Alpha, trial: Trial) -> Point:
    sizes = sizes_of(found.compressed, len(found.compressed.to_bytes()))
    return Point(
        density, alpha, trial.after(found.compressed), found.relative_error, sizes.file_bytes, sizes.fp16_ratio,
        sizes.fp32_ratio, sizes.stored_ratio,
    )  # fmt: skip
