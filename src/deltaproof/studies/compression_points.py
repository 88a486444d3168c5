"""One kept model under compression: every density and scale on validation, the chosen ones once on the test rows.

Each number is written as soon as it is there, under the run folder's `compression/`, so that a study that was stopped
goes on where it was.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import numpy as np
from torch import Tensor

from deltaproof.compression.compeft import Compression, Scope, check_settings, compress, pruned
from deltaproof.compression.container import read_compressed
from deltaproof.compression.folder import with_ratios
from deltaproof.compression.model_source import ModelSource
from deltaproof.compression.sizes import sizes_of
from deltaproof.compression.source import Source
from deltaproof.compression.sweep import Alpha
from deltaproof.compression.trial import Trial, open_trial
from deltaproof.compression.tuned_source import Start
from deltaproof.errors import CompressionError, ConfigError
from deltaproof.records.record import Predictions
from deltaproof.records.store import read_json, read_predictions, write_json, write_predictions
from deltaproof.studies.compression_findings import BASE, BEFORE, PRUNED, STC, WITHOUT
from deltaproof.studies.dropped import dropped, taken_apart
from deltaproof.studies.grounds import drawn_by_class
from deltaproof.studies.kept_models import Bed, KeptModel
from deltaproof.studies.same_head import below_the_head

Say = Callable[[str], None]
DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.5)
ALPHAS: tuple[Alpha, ...] = ("auto", 1.0, 2.0, 4.0, 8.0)
"""Scales that are tried on validation; `auto` is the one of least error."""
STUDIED_SCOPES: tuple[Scope, ...] = ("per_tensor", "global")
"""What one threshold and one scale are for: the safer form for factors, and the paper's."""
_REMEDY = "delete the folder `compression` and study again"


@dataclass(frozen=True)
class Settings:
    """What is compressed, and how."""

    densities: tuple[float, ...] = DENSITIES
    alphas: tuple[Alpha, ...] = ALPHAS
    scopes: tuple[Scope, ...] = STUDIED_SCOPES
    start: Start = "init"
    embeddings: bool = False
    """Of a full update: embeddings too."""
    rows: int | None = None
    """Validation rows to choose on, drawn by class; all when left out."""

    def check(self) -> None:
        """Whether they are in their ranges.

        Raises:
            ConfigError: one is not.
        """
        if self.rows is not None and self.rows < 2:
            raise ConfigError(f"`rows >= 2` must hold, got {self.rows}; some hundreds tell scales apart")
        for density in self.densities:
            for alpha in self.alphas:
                for scope in self.scopes:
                    check_settings(density, alpha, scope)

    @property
    def variant(self) -> str:
        """What points of other densities, scopes and scales share."""
        rows = [] if self.rows is None else [f"{self.rows}-rows"]
        return "-".join([self.start, *(["embeddings"] if self.embeddings else []), *rows])

    @property
    def choices(self) -> list[str]:
        """Of a density: what may be chosen on validation, in the order in which equals are preferred."""
        return [name_of(scope, alpha) for scope in self.scopes for alpha in self.alphas]

    @property
    def names(self) -> list[str]:
        """Of all points of a density, those for comparison too."""
        return list(dict.fromkeys([*self.choices, *(name_of(scope, PRUNED) for scope in self.scopes), STC]))


def name_of(scope: Scope, alpha: Alpha | str) -> str:
    return f"{scope}:{alpha}" if isinstance(alpha, str) else f"{scope}:{alpha:g}"


def _read(name: str) -> tuple[Scope, Alpha | str]:
    """The scope and scale of a point's name."""
    scope, _, alpha = name.partition(":")
    return cast(Scope, scope), alpha if alpha in ("auto", PRUNED) else float(alpha)


class Expert:
    """A kept model that is compressed again and again; it is read only when a number is missing."""

    def __init__(self, bed: Bed, kept: KeptModel, settings: Settings, say: Say) -> None:
        self.bed, self.kept, self.settings, self.say = bed, kept, settings, say
        self.place = bed.store.folder / "compression" / settings.variant / kept.key

    @cached_property
    def _opened(self) -> tuple[Source, Trial]:
        self.say(f"{self.kept.label}, seed {self.kept.seed}")
        settings = self.settings
        source, trial = open_trial(
            self.kept.folder, settings.start, embeddings=settings.embeddings, device=self.bed.device
        )
        assert trial is not None, "the data of a run folder lie in it"
        validation = self.bed.dataset.validation
        if settings.rows is not None and settings.rows < len(validation):
            trial.choose_on(drawn_by_class(validation, trial.task.kind, settings.rows, 0, "compression"))
        return source, trial

    @property
    def trial(self) -> Trial:
        return self._opened[1]

    @cached_property
    def _base(self) -> Any:
        return below_the_head(self.kept.load_base())

    @cached_property
    def _whole(self) -> Any:
        """The update as tuned, taken apart."""
        self.trial.put((part.name, self._opened[0].tensor(part)) for part in self._opened[0].parts)
        return taken_apart(self.trial.tuned, self._base)

    def measured(self) -> dict[str, Any]:
        """Everything of this model but its answers.

        Raises:
            CompressionError: it is of a method that is not compressed.
        """
        ends = self._ends()
        densities = [self._density(density) for density in self.settings.densities]
        return {
            "key": self.kept.key, "label": self.kept.label, "seed": self.kept.seed,
            "validation": ends["validation"], "densities": densities, "holds": ends["holds"],
        }  # fmt: skip

    def answers(self, what: str) -> Predictions | None:
        """The answers on the test rows: as tuned, at one of the ends, or at a density; None where there are none."""
        if what == BEFORE:
            return self.bed.store.predictions(self.kept.key)
        path = self.place / f"{what}.parquet"
        return read_predictions(path, _REMEDY) if path.exists() else None

    def _ends(self) -> dict[str, Any]:
        path = self.place / "ends.json"
        if path.exists():
            return dict(read_json(path))
        source, trial = self._opened
        scores = {BEFORE: trial.before()}
        trial.put_compressed(compress(source, 0.5, "auto", "per_tensor", allow_erased=True).silent().compressed)
        scores[WITHOUT] = trial.here()
        self._ask_test(WITHOUT)
        base = _with_head_alone(source, trial)
        if base is not None:
            trial.put(base)
            scores[BASE] = trial.here()
            self._ask_test(BASE)
        elif _keeps_head_alone(source, trial):
            scores[BASE] = scores[WITHOUT]
            same = read_predictions(self.place / f"{WITHOUT}.parquet", _REMEDY)
            write_predictions(self.place / f"{BASE}.parquet", same)
        ends = {"validation": scores, "holds": source.facts["holds"]}
        write_json(path, ends)
        return ends

    def _density(self, density: float) -> dict[str, Any]:
        path = self.place / f"density-{density:g}.json"
        found: dict[str, Any] = read_json(path) if path.exists() else {"points": {}, "chosen": {}}
        made: dict[Scope, Compression] = {}
        for name in self.settings.names:
            if name not in found["points"]:
                found["points"][name] = self._point(density, name, made)
                write_json(path, found)
        points = {name: found["points"][name] for name in self.settings.names}
        chosen = self._chosen(points)
        if chosen is None:
            return {"density": density, "points": points, "chosen": None}
        if chosen not in found["chosen"] or not (self.place / f"{_file(density, chosen)}.parquet").exists():
            found["chosen"][chosen] = self._look(density, chosen, made)
            write_json(path, found)
        return {"density": density, "points": points, "chosen": chosen, **found["chosen"][chosen]}

    def _compressed(self, density: float, scope: Scope, made: dict[Scope, Compression]) -> Compression:
        if scope not in made:
            made[scope] = compress(self._opened[0], density, "auto", scope)
        return made[scope]

    def _point(self, density: float, name: str, made: dict[Scope, Compression]) -> dict[str, Any]:
        source, trial = self._opened
        scope, alpha = _read(name)
        error = None
        if alpha == PRUNED:
            score = trial.score(pruned(source, density, scope))
        else:
            try:
                scaled = self._compressed(density, scope, made).with_alpha(cast(Alpha, alpha))
            except CompressionError as refused:
                return {"validation": None, "relative_error": None, "reason": str(refused)}
            score, error = trial.after(scaled.compressed), scaled.relative_error
        self.say(f"  density {density:g}, {name}: {trial.metric.name} {score:.4f}")
        return {"validation": score, "relative_error": error, "reason": ""}

    def _chosen(self, points: dict[str, Any]) -> str | None:
        """What scores best on validation, of equals the first; None where everything was refused."""
        sign = 1 if self.bed.metric.higher_is_better else -1
        there = [name for name in self.settings.choices if points[name]["validation"] is not None]
        return max(there, key=lambda name: sign * points[name]["validation"], default=None)

    def _look(self, density: float, chosen: str, made: dict[Scope, Compression]) -> dict[str, Any]:
        """The file as written and read again: its size, what was dropped, and its answers to the test rows."""
        source, trial = self._opened
        whole = self._whole
        scope, alpha = _read(chosen)
        scaled = self._compressed(density, scope, made).with_alpha(cast(Alpha, alpha))
        with TemporaryDirectory(dir=self.place) as folder:
            path = Path(folder) / "expert.dpz"
            scaled.compressed.write(path)
            written, n_bytes = read_compressed(path), path.stat().st_size
        trial.put_compressed(written)
        lost = dropped(whole, trial.tuned, self._base)
        self._ask_test(_file(density, chosen))
        return {
            "sizes": with_ratios(sizes_of(written, n_bytes)), "relative_error": scaled.relative_error,
            "kept_energy": _kept_energy(source, scaled), "notes": list(scaled.notes), "dropped": lost,
        }  # fmt: skip

    def _ask_test(self, name: str) -> None:
        """What the model as it stands answers to the test rows; the look is entered in the ledger."""
        split = self.bed.open_test(f"{self.kept.key}/compressed-{self.settings.variant}-{name}")
        rows = self.trial.task.encode(self.trial.tuned.backbone.tokenizer, split)
        answers = Predictions(split.ids, split.groups, split.targets, self.trial.answers(rows))
        write_predictions(self.place / f"{name}.parquet", answers)

    def chosen_file(self, found: dict[str, Any]) -> str:
        """Which answers belong to a density."""
        return _file(found["density"], found["chosen"])


def _file(density: float, chosen: str) -> str:
    return f"density-{density:g}-{chosen.replace(':', '-')}"


def _kept_energy(source: Source, made: Compression) -> float:
    """Share of the sum of squares that lies in the kept entries: what pruning alone would keep."""
    kept = total = 0.0
    entries = made.compressed.ternary
    for part in source.parts:
        if part.name in entries:
            change = source.change(part)
            total += float(np.square(change, dtype=np.float64).sum())
            kept += float(np.square(change[entries[part.name].signs() != 0], dtype=np.float64).sum())
    return kept / total if total > 0 else 1.0


def _in_head(name: str, trial: Trial) -> bool:
    return any(name.startswith(f"{path}.") for path in trial.tuned.backbone.head)


def _with_head_alone(source: Source, trial: Trial) -> Sequence[tuple[str, Tensor]] | None:
    """Of a whole model: the base's tensors, the head as tuned; None for methods beside the weights."""
    if not isinstance(source, ModelSource):
        return None
    found = []
    for part in source.parts:
        start = None if _in_head(part.name, trial) else source.base(part)
        found.append((part.name, source.tensor(part) if start is None else start))
    return found


def _keeps_head_alone(source: Source, trial: Trial) -> bool:
    return all(_in_head(part.name, trial) for part in source.parts if part.start is None)


def as_json(settings: Settings) -> dict[str, Any]:
    alphas = [alpha if isinstance(alpha, str) else f"{alpha:g}" for alpha in settings.alphas]
    return {**asdict(settings), "alphas": alphas}
