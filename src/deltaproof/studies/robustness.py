"""The robustness study of a run folder: what every kept model answers once texts, embeddings or weights are disturbed.

Everything that is perturbed comes from the sealed test rows, which are opened once for the study and entered in the
ledger, or from files of the user's. Exact texts and every model's answers stand under `robustness/`; a study that was
stopped goes on set by set. What the answers say is reckoned from these files alone (`robustness_findings.py`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from deltaproof.errors import RecordError
from deltaproof.experiments.engines.scripts import stop_if_reading
from deltaproof.experiments.kept import snapshot_folder
from deltaproof.experiments.table import table_from
from deltaproof.experiments.wording import duration
from deltaproof.records.store import Store, read_json, write_json
from deltaproof.robustness.perturbations import PERTURBATIONS
from deltaproof.robustness.search_recipes import RECIPES
from deltaproof.studies.capacity import finite
from deltaproof.studies.kept_models import Bed, KeptModel, kept_models
from deltaproof.studies.robustness_answers import (
    Errand,
    Failed,
    lengths_of_changes,
    missing,
    n_workers_for,
    run_errands,
)
from deltaproof.studies.robustness_estimate import seconds_of_models
from deltaproof.studies.robustness_findings import FORMAT, Json, read_findings
from deltaproof.studies.robustness_plan import (
    SEARCH,
    Plan,
    add_texts,
    plan_for,
    store_given,
    store_texts,
    transferred,
)
from deltaproof.studies.robustness_queries import Model
from deltaproof.studies.robustness_sets import WEIGHT_NOISE, Attack, check_searches, chosen_rows, digest, read_given
from deltaproof.training.snapshots import snapshots_in

Say = Callable[[str], None]
NAME = "robustness"
_NUMBERS = (
    "targets are numbers: drops and the regression on clean score are measured; attack success, flips, matched flips "
    "and the worst case need answers that are right or wrong"
)


def robustness(
    run: Path | str,
    attack: Attack | None = None,
    contestants: Sequence[str] = (),
    device: torch.device | str = "cpu",
    say: Say = lambda text: None,
    workers: int | None = None,
) -> Json:
    """What perturbations cost each kept model, and whether a method stands them better than the reference.

    The result stands in `studies/robustness.json` too; a second call with the same settings reads it there, one with
    others takes its place.

    Args:
        run: a folder that `compare` wrote with `keep="all"`, or `snapshots` for the drop at equal clean accuracy.
        attack: what is tried; everything, at the usual strengths, when left out.
        contestants: labels, all when none is named.
        workers: runs whose models are asked side by side, in a process each; as many as there are cores for on a CPU,
            up to four, when left out. The result does not depend on it.
    Raises:
        RecordError: nothing was kept, or there is no such contestant.
        DataError: a file of the user's does not fit the data set.
    """
    stop_if_reading()
    study = _Study(Bed(Store(run), torch.device(device)), attack or Attack(), contestants, say, workers)
    standing = study.standing()
    if standing is not None:
        say(f"{NAME}: from disk")
        return standing
    return study.make()


class _Study:
    """One call: settled when it is made, asked in `make`."""

    def __init__(
        self, bed: Bed, attack: Attack, contestants: Sequence[str], say: Say, workers: int | None = None
    ) -> None:
        self.bed, self.attack, self.say = bed, attack, say
        self.folder = bed.store.folder
        check_searches(self.attack, bed.dataset)
        self.given = read_given(attack, bed.dataset, bed.experiment["plan"].get("label_names"))
        self.notes = [f"{one.name}: {note}" for one in self.given for note in one.notes]
        self.models = self._paired(kept_models(bed.store, contestants))
        self.table = table_from(bed.store, bed.experiment)
        labels = list(self.models)
        self.reference = self.table.reference if self.table.reference in labels else labels[0]
        if self.reference != self.table.reference:
            self.notes.append(f"`{self.table.reference}` was not kept: methods are compared with {self.reference}")
        self.n_workers = n_workers_for(self.finals, bed.device, workers)

    def _paired(self, kept: Sequence[KeptModel]) -> dict[str, list[KeptModel]]:
        """Equally many models of each method, of the same seeds where they share any."""
        found: dict[str, list[KeptModel]] = {}
        for model in kept:
            found.setdefault(model.label, []).append(model)
        shared = set.intersection(*({model.seed for model in models} for models in found.values()))
        if shared:
            paired = {label: [model for model in models if model.seed in shared] for label, models in found.items()}
        else:
            n = min(map(len, found.values()))
            paired = {label: models[:n] for label, models in found.items()}
            self.notes.append("the methods' models are of different seeds, so seeds do not pair")
        n_used = sum(map(len, paired.values()))
        if n_used < len(kept):
            self.notes.append(f"{len(kept) - n_used} models whose seed not every method has were left out")
        return paired

    @property
    def inputs(self) -> Json:
        """What the result depends on, beside the code; files of the user's by their content."""
        attack = asdict(self.attack)
        for name in ("adversarial", "contrast", "text", "label", "group", "label_names"):
            del attack[name]
        return {
            "format": FORMAT,
            **{key: list(value) if isinstance(value, list | tuple) else value for key, value in attack.items()},
            "levels": {name: self.attack.levels(name) for name in (*self.attack.texts, *self.attack.searches)},
            "sources": {name: PERTURBATIONS[name].source() for name in self.attack.texts}
            | {name: RECIPES[name].source() for name in self.attack.searches},
            "keys": {label: [model.key for model in models] for label, models in self.models.items()},
            "snapshots": {model.name: len(steps) for model, steps in self._snapshots()},
            "given": [[one.name, one.split.fingerprint, one.is_contrast] for one in self.given],
            "reference": self.reference,
            "margin": self.table.margin,
            "alpha": self.table.alpha,
            "test": self.bed.dataset.test.fingerprint,
        }

    def standing(self) -> Json | None:
        place = self.bed.store.study_path(NAME)
        found: Json | None = read_json(place) if place.exists() else None
        return found if found is not None and found.get("inputs") == self.inputs else None

    @property
    def finals(self) -> list[Model]:
        return [Model(kept.key, kept) for models in self.models.values() for kept in models]

    def _snapshots(self) -> list[tuple[Model, dict[int, Path]]]:
        """Snapshots by final model, without those of the step that the final model is of."""
        found = []
        for model in self.finals:
            record, metric = model.kept.record, self.bed.metric
            best = _best_step(record.history, metric.name, metric.higher_is_better)
            files = snapshots_in(snapshot_folder(self.bed.store, model.kept.key))
            found.append((model, {step: path for step, path in files.items() if step != best}))
        return found

    def make(self) -> Json:
        """Ask what is not answered yet, reckon, and write the result."""
        tuned, task = self.finals[0].kept.load()
        if self.bed.store.study_path(NAME).exists():
            self.say(f"{NAME}: takes the place of the study of other settings that stands here; its answers stay")
        self.say(self._announced())
        rows = chosen_rows(self.bed.open_test(f"robustness/{digest(self.inputs)}"), self.bed.dataset.kind, self.attack)
        length = self._common_length() if WEIGHT_NOISE in self.attack.perturbations else 1.0
        plan = plan_for(rows, self.attack, self.given, length)
        store_texts(add_texts(plan, rows, self.attack), rows, self.folder, tuned.backbone.tokenizer, task)
        store_given(plan, self.given, self.folder)
        del tuned
        failed = run_errands(self._errands(plan), self.n_workers, self.say)
        if self.attack.transfer:
            failed = self._transfer(plan, failed)
        equal = self._equal_accuracy(plan, failed)
        place = self.folder / "robustness" / f"manifest-{digest(self.inputs)}.json"
        write_json(place, finite(self._manifest(len(rows), plan, failed, equal)))
        self.bed.write(NAME, finite(read_findings(self.folder, place)))
        self.say(f"{NAME}: done")
        written: Json = read_json(self.bed.store.study_path(NAME))  # what a later call reads, to the digit
        return written

    def _errands(self, plan: Plan) -> list[Errand]:
        """What is asked of each run: snapshots only where something keeps labels, which their drop is about."""
        pooled, found = _pooled(plan), []
        for final, steps in self._snapshots():
            snapshots = _snapshot_models(final, steps) if pooled else ()
            questions = tuple(plan.queries), tuple(plan.on_the_way)
            found.append(Errand(self.folder, str(self.bed.device), final, snapshots, *questions))
        return found

    def _transfer(self, plan: Plan, failed: Mapping[str, Failed]) -> dict[str, Failed]:
        """Give every model what the searches found against the reference's of the same seed."""
        models = {model.name: model for model in self.finals}
        names = {label: [kept.key for kept in kept] for label, kept in self.models.items()}
        against = {key: names[self.reference][at] for keys in names.values() for at, key in enumerate(keys)}
        searched = {file for entry in plan.sets if entry["kind"] == SEARCH for file in entry["draws"]}
        gone = next((failed[key][file] for key in against.values() for file in searched & {*failed.get(key, {})}), None)
        if gone is not None:
            self.notes.append(f"no texts to hand on: a search against {self.reference} has none ({gone})")
            return dict(failed)
        queries, sets = transferred(plan, self.folder, against)
        plan.sets += sets
        device = str(self.bed.device)
        errands = [Errand(self.folder, device, models[key], (), tuple(asked), ()) for key, asked in queries.items()]
        also = run_errands(errands, self.n_workers, self.say)
        return {key: {**failed.get(key, {}), **also.get(key, {})} for key in {**failed, **also}}

    def _announced(self) -> str:
        """What is there to be asked, and about how long that takes: timed on validation rows, before the test set is
        opened."""
        n_test = self.bed.dataset.test.n_rows
        n_rows = min(n_test, self.attack.max_examples or n_test)
        n_texts = len(self.bed.dataset.text_columns)
        is_pooled = any(PERTURBATIONS[name].promise(n_texts) == "keeps label" for name in self.attack.texts)
        n_snapshots = sum(len(steps) for _, steps in self._snapshots()) if is_pooled else 0
        seconds = seconds_of_models(
            self.bed, self.finals[0].kept, self.attack, self.given, n_rows, len(self.finals), n_snapshots
        )
        plan = plan_for(self.bed.dataset.validation, self.attack, self.given)
        n_sets = len(plan.sets) + len(plan.contrast) + sum(len(self.attack.levels(name)) for name in self.attack.texts)
        n_sets += sum(len(self.attack.levels(name)) for name in self.attack.searches) * self.attack.transfer
        return (
            f"{len(self.finals)} tuned models of {len(self.models)} methods"
            f"{f' and {n_snapshots} snapshots' if n_snapshots else ''}, {n_sets} sets, {n_rows} of {n_test} test rows"
            f"{f', {self.n_workers} models at a time' if self.n_workers > 1 else ''}: "
            f"about {duration(seconds / self.n_workers)}, less what stands already"
        )

    def _common_length(self) -> float:
        """The geometric mean, over the methods, of the length of what their first seed learnt."""
        firsts = [Model(models[0].key, models[0]) for models in self.models.values()]
        lengths = lengths_of_changes(self.bed, firsts, self.folder, self.say)
        found = [lengths[model.name] for model in firsts if lengths[model.name] > 0]
        return math.exp(sum(map(math.log, found)) / len(found)) if found else 1.0

    def _equal_accuracy(self, plan: Plan, failed: Mapping[str, Failed]) -> Json:
        """Checkpoints at which the middle strengths of the label-keeping perturbations are asked."""
        sets = [{"name": f"{entry['name']}@{entry['strength']:g}", "draws": entry["draws"]} for entry in _pooled(plan)]
        found: Json = {"basis": "final models", "sets": sets, "checkpoints": [], "reason": ""}
        if not sets:
            found["reason"] = "no text perturbation that keeps labels was asked for"
            return found
        for final, steps in self._snapshots():
            if not missing(self.folder, final, plan.on_the_way):  # what it could not answer is missing still
                found["checkpoints"].append(_checkpoint(final, None))
            for step, model in zip(steps, _snapshot_models(final, steps), strict=True):
                if not failed.get(model.name):
                    found["checkpoints"].append(_checkpoint(model, step))
                    found["basis"] = "snapshots and final models"
        return found

    def _manifest(self, n_rows: int, plan: Plan, failed: Mapping[str, Failed], equal: Json) -> Json:
        """All that the findings need beside the answers."""
        keys = {label: [kept.key for kept in models] for label, models in self.models.items()}
        left_out = _left_out(keys, plan, failed)
        able = [label for label in keys if label not in left_out]
        if self.reference not in able:
            raise RecordError(
                f"the reference must have clean answers, `{self.reference}` has none ({left_out[self.reference]}); "
                f"name other methods with `--methods`"
            )
        for entry in (*plan.sets, *plan.contrast):
            entry["labels"] = [
                label
                for label in able
                if not any(draw in failed.get(key, {}) for key in keys[label] for draw in entry["draws"])
            ]
        notes = list(self.notes)
        if self.bed.dataset.kind == "regression":
            notes.append(_NUMBERS)
        return {
            "format": FORMAT, "inputs": self.inputs, "metric": self.bed.metric.name, "kind": self.bed.dataset.kind,
            "reference": self.reference, "margin": self.table.margin, "alpha": self.table.alpha, "n_examples": n_rows,
            "n_test": self.bed.dataset.test.n_rows, "keys": {label: keys[label] for label in able},
            "clean": [plan.clean], "sets": [entry for entry in plan.sets if entry["labels"]],
            "contrast": [entry for entry in plan.contrast if entry["labels"]],
            "equal_accuracy": {**equal, "checkpoints": [at for at in equal["checkpoints"] if at["label"] in able]},
            "left_out": left_out, "notes": notes,
        }  # fmt: skip


def _left_out(keys: Mapping[str, Sequence[str]], plan: Plan, failed: Mapping[str, Failed]) -> dict[str, str]:
    """Methods without clean answers by their label, others by set and label, with the reason."""
    found: dict[str, str] = {}
    for label, models in keys.items():
        for key in models:
            if plan.clean in failed.get(key, {}):
                found[label] = failed[key][plan.clean]
        if label in found:
            continue
        for entry in (*plan.sets, *plan.contrast):
            for key in models:
                for draw in entry["draws"]:
                    if draw in failed.get(key, {}):
                        found[f"{entry['name']}: {label}"] = failed[key][draw]
    return found


def _pooled(plan: Plan) -> list[Json]:
    """The sets that snapshots are asked too."""
    files = {file for query in plan.on_the_way for file in query.files}
    return [entry for entry in plan.sets if entry["kind"] == "perturbation" and set(entry["draws"]) <= files]


def _snapshot_models(final: Model, steps: Mapping[int, Path]) -> tuple[Model, ...]:
    return tuple(Model(f"{final.name}-step-{step}", final.kept, path) for step, path in steps.items())


def _checkpoint(model: Model, step: int | None) -> Json:
    return {"label": model.kept.label, "run": model.kept.key, "step": step, "model": model.name}


def _best_step(history: Sequence[Mapping[str, Any]], metric: str, higher_is_better: bool) -> int | None:
    """The step whose values the final model has: the best on validation, the earliest of equals."""
    if not history:
        return None
    sign = 1 if higher_is_better else -1
    return int(max(history, key=lambda entry: sign * entry["validation"][metric])["step"])
