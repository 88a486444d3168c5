"""Between the base and a tuned model: what a share of the change costs on clean rows, and gains on shifted ones.

W(a) = (1 - a) W0 + a W1, a = 0 the base and a = 1 the tuned model. The head is the tuned model's at every a, since the
base has none; where the base is a classifier for the same labels, its head is moved like every other weight.

Source: Wortsman et al., 2021, arXiv:2109.01903 (WiSE-FT), eq. 1.

`studies/interpolation.json`: `metric`, `unit`, and `models`, one entry per tuned model:

    key, contestant, seed       of its record
    head                        `kept` or `interpolated`
    alphas                      ascending
    sets                        validation first, then `test` where it was asked for, then each shifted set: name, role
                                (`validation`, `test`, `shift`), n, score and loss at each alpha, and `difference`: at
                                each alpha the paired difference to alpha 1, positive for better (null at 1):
                                difference, low, high, n, verdict, note
    best_clean                  alpha of the best validation score; of equal ones the one of least loss
    without_regression          by shifted set the alpha that scores best there among those that score no less than
                                alpha 1 on validation
    written                     alpha, folder name and record key of each model that was written
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from deltaproof.backbones.backbone import Backbone
from deltaproof.data.split import Split
from deltaproof.errors import ConfigError, RecordError
from deltaproof.experiments.answer import find_tuned
from deltaproof.methods.full import Full
from deltaproof.records.record import Predictions
from deltaproof.records.store import Store, read_json, read_predictions, write_json, write_predictions
from deltaproof.studies.grounds import Ground
from deltaproof.studies.kept_models import Bed, KeptModel
from deltaproof.studies.merge_record import difference
from deltaproof.studies.path import losses, put_at
from deltaproof.studies.robustness_sets import Attack, digest, file_name, read_given
from deltaproof.studies.same_head import base_with_head
from deltaproof.tasks.text import TextTask

Say = Callable[[str], None]
STUDY = "interpolation"
ALPHAS = tuple(round(0.1 * at, 1) for at in range(11))


@dataclass(frozen=True)
class Settings:
    """What is asked."""

    alphas: tuple[float, ...] = ALPHAS
    shift: tuple[str, ...] = ()
    """Files of shifted or adversarial rows, as `attack --adversarial` takes them."""
    text: str | None = None
    label: str | None = None
    label_names: Mapping[str, str] = field(default_factory=dict)
    with_test: bool = False
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        if not self.alphas or not all(np.isfinite(self.alphas)):
            raise ConfigError(f"alphas must be numbers, got {list(self.alphas)}; leave them out for 0, 0.1, … 1")
        if wrong := [alpha for alpha in self.alphas if not 0 <= alpha <= 1]:
            raise ConfigError(
                f"`0 <= alpha <= 1` must hold, got {wrong[0]:g}; beyond the two ends `deltaproof capacity` looks"
            )


class Line:
    """A model anywhere between the base and a tuned one."""

    def __init__(self, kept: KeptModel) -> None:
        """Load both ends.

        Raises:
            ConfigError: the method is no change of weights, or changed none below the head.
        """
        tuned, self.task = kept.load()
        if not tuned.mergeable:
            raise ConfigError(
                f"only a change of weights can be taken in part, `{tuned.method.label}` is more; take another model of "
                f"the run with `--method`"
            )
        self.backbone: Backbone = kept.load_base()
        self.moves_head = self.backbone.brings_head
        if not self.moves_head:
            self.backbone = base_with_head(kept)
        merged = tuned.merge()
        self._end = {name: value.detach() for name, value in merged.named_parameters()}
        self._start = {name: value.detach().clone() for name, value in self.backbone.model.named_parameters()}
        if all(torch.equal(self._start[name], self._end[name]) for name in self._start):
            raise ConfigError(
                f"something must have changed below the head, `{kept.label}` left it as it was; take another model of "
                f"the run with `--method`"
            )
        self.backbone.model.eval()

    def at(self, alpha: float) -> Backbone:
        """The model there; the same object each time."""
        put_at(self.backbone, self._start, self._end, alpha)
        return self.backbone


@dataclass
class Curve:
    """What came of it."""

    bed: Bed
    kept: KeptModel
    line: Line
    entry: dict[str, Any]
    """As in `studies/interpolation.json`."""
    answers: dict[str, dict[float, Predictions]]
    """By set and alpha."""
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        return {
            "run": str(self.bed.store.folder), "metric": self.bed.metric.name, "unit": self.bed.metric.unit,
            **self.entry, "notes": self.notes,
        }  # fmt: skip


def interpolate(
    folder: Path, settings: Settings, method: str | None = None, say: Say = lambda text: None
) -> Curve:  # fmt: skip
    """Score the line from the base to a tuned model of a run, and write the study.

    Args:
        folder: a run folder, whose `best` is taken, or a tuned model in one.
        method: of a run folder: this contestant in place of the best.
    Raises:
        ConfigError: the method is no change of weights.
        DataError: a shifted file does not fit the data.
        RecordError: the model does not lie in its run folder.
    """
    kept, bed = _kept(folder, method, settings.device)
    sets, notes = _sets(bed, settings)
    say(f"loading both ends of {kept.label}, seed {kept.seed}")
    line = Line(kept)
    if settings.with_test:
        sets["test"] = ("test", bed.open_test(f"{STUDY}/{kept.key}"))
        sets = {name: sets[name] for name in sorted(sets, key=lambda name: ("validation", "test").index(name)
                if name in ("validation", "test") else 2)}  # fmt: skip
    alphas = sorted({*settings.alphas, 1.0})
    answers: dict[str, dict[float, Predictions]] = {name: {} for name in sets}
    for alpha in alphas:
        for name, (_, split) in sets.items():
            answers[name][alpha] = _answer(bed, kept, line, alpha, name, split, say)
    ground = Ground(bed.store)
    entry = {
        "key": kept.key,
        "contestant": kept.label,
        "seed": kept.seed,
        "head": "interpolated" if line.moves_head else "kept",
        "alphas": alphas,
        "sets": [_set(ground, line.task, name, role, answers[name]) for name, (role, _) in sets.items()],
        "written": [],
    }
    entry |= _choices(entry, bed.metric.higher_is_better)
    append(bed.store, entry, bed)
    return Curve(bed, kept, line, entry, answers, notes)


def _kept(folder: Path, method: str | None, device: torch.device) -> tuple[KeptModel, Bed]:
    place = find_tuned(folder, method).resolve()
    store = Store(place.parent.parent)
    record = store.find(place.name) if (store.folder / "experiment.json").is_file() else None
    if record is None:
        raise RecordError(
            f"a curve is scored on the data of the run that tuned the model, `{folder}` does not lie in its run "
            f"folder; give a folder that `compare` or `train` wrote, or its `best`"
        )
    return KeptModel(record, place), Bed(store, device)


def _sets(bed: Bed, settings: Settings) -> tuple[dict[str, tuple[str, Split]], list[str]]:
    sets: dict[str, tuple[str, Split]] = {"validation": ("validation", bed.dataset.validation)}
    if not settings.shift:
        return sets, ["no shifted rows were given: the curve is of clean rows alone; name a file with `--shift`"]
    attack = Attack(
        perturbations=(), adversarial=settings.shift, text=settings.text, label=settings.label,
        label_names=settings.label_names,
    )  # fmt: skip
    given = read_given(attack, bed.dataset, bed.experiment.get("plan", {}).get("label_names"))
    for one in given:
        name = one.name if one.name not in ("validation", "test") else f"{one.name}'"
        sets[name] = ("shift", one.split)
    return sets, [f"{one.name}: {note}" for one in given for note in one.notes]


def _answer(bed: Bed, kept: KeptModel, line: Line, alpha: float, name: str, split: Split, say: Say) -> Predictions:
    """From disk where this model answered these rows before."""
    mark = digest([kept.key, split.fingerprint, bed.device.type])
    path = bed.store.folder / STUDY / kept.key / f"{file_name(name)}-{mark}-{alpha:g}.parquet"
    if path.is_file():
        return read_predictions(path, "delete it and run the same command again")
    say(f"alpha {alpha:g}: {name}, {len(split)} rows")
    backbone = line.at(alpha)
    answers = bed.answers(backbone.model, line.task, backbone.tokenizer, split, kept)
    write_predictions(path, answers)
    return answers


def _set(
    ground: Ground, task: TextTask, name: str, role: str, answers: Mapping[float, Predictions]
) -> dict[str, Any]:  # fmt: skip
    end = answers[1.0]
    return {
        "name": name,
        "role": role,
        "n": len(end.ids),
        "score": [ground.score(each) for each in answers.values()],
        "loss": [float(losses(task, each).mean()) for each in answers.values()],
        "difference": [None if alpha == 1 else difference(ground, each, end) for alpha, each in answers.items()],
    }


def _choices(entry: Mapping[str, Any], higher_is_better: bool) -> dict[str, Any]:
    sign = 1 if higher_is_better else -1
    alphas, clean = entry["alphas"], entry["sets"][0]

    def best(of: Mapping[str, Any], among: Sequence[int]) -> float:
        chosen = max(among, key=lambda at: (sign * of["score"][at], -of["loss"][at]))
        return float(alphas[chosen])

    end = alphas.index(1.0)
    unhurt = [at for at in range(len(alphas)) if sign * clean["score"][at] >= sign * clean["score"][end]]
    return {
        "best_clean": best(clean, range(len(alphas))),
        "without_regression": {one["name"]: best(one, unhurt) for one in entry["sets"] if one["role"] == "shift"},
    }


def append(store: Store, entry: dict[str, Any], bed: Bed) -> None:
    """Put an entry into the study, in the place of one of the same model; what was written of it stays named."""
    path = store.study_path(STUDY)
    with store.lock(STUDY):
        study: dict[str, Any] = read_json(path) if path.is_file() else {"format": 1, "models": []}
        before: dict[str, Any] = next((one for one in study["models"] if one["key"] == entry["key"]), {})
        named = [*before.get("written", []), *entry["written"]]
        entry["written"] = [one for at, one in enumerate(named) if one not in named[:at]]
        others = [one for one in study["models"] if one["key"] != entry["key"]]
        study |= {"metric": bed.metric.name, "unit": bed.metric.unit, "models": [*others, entry]}
        write_json(path, study)


def whole_spec(curve: Curve, alpha: float) -> Any:
    """The model at one alpha as a run, whose parent is the tuned model's."""
    spec = curve.kept.record.spec
    return replace(
        spec, contestant=f"{spec.contestant}, {alpha:g} of its change", method=Full().to_dict(), stage="merging",
        training={**spec.training, "interpolation": {"alpha": alpha, "head": curve.entry["head"]}},
        parents=(curve.kept.key,),
    )  # fmt: skip
