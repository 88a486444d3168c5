"""The experiment that decides: every contestant tuned alike, run at several seeds, judged once on a sealed test split."""

import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from deltaproof.data.dataset import Dataset
from deltaproof.data.demo import demo_data
from deltaproof.data.load import load_data
from deltaproof.data.run_folder import write_splits
from deltaproof.errors import ConfigError, RecordError
from deltaproof.experiments.baselines import BASELINES, measure_baseline
from deltaproof.experiments.engines.local import LocalEngine
from deltaproof.experiments.environment import environment, versions
from deltaproof.experiments.estimate import Estimate, Rows, estimate_from
from deltaproof.experiments.gates import gate_names
from deltaproof.experiments.inspect import Facts, Question
from deltaproof.experiments.plan import Plan, plan_from
from deltaproof.experiments.progress import Reporter, Silent
from deltaproof.experiments.run import Job
from deltaproof.experiments.table import COST_FIELDS, Table, table_from
from deltaproof.experiments.tuning import best_rate, first_rates, is_at_edge, next_rate
from deltaproof.methods.base import Method
from deltaproof.metrics import METRICS, default_metrics
from deltaproof.records.record import Record
from deltaproof.records.spec import Spec
from deltaproof.records.store import Store
from deltaproof.seeding import sub_seed
from deltaproof.tasks.text import TextTask, task_for
from deltaproof.training.precision import pick_device, pick_precision

DEFAULT_MARGIN = 0.02


class Experiment:
    """A plan on its way to a table: what was resolved, and one method per part of the protocol."""

    def __init__(self, plan: Plan, folder: Path, reporter: Reporter) -> None:
        self.plan = plan
        self.store = Store(folder)
        self.reporter = reporter
        self.contestants = plan.contestants()
        self.device = pick_device(plan.device)
        self.precision = pick_precision(plan.precision, self.device)
        self.engine = LocalEngine((str(self.device),))
        self.dataset = self._read_data()
        self.task, self.facts = self._look_at_model()
        self.document = self._document()
        self.estimates: dict[str, Estimate] = {}

    # --- before anything is trained

    def _read_data(self) -> Dataset:
        """The data, checked and split; the splits go to the run folder, where every run reads them."""
        plan = self.plan
        self.reporter.say(f"reading {plan.data}")
        if plan.data == "demo":
            dataset = demo_data()
        else:
            dataset = load_data(
                plan.data, text=plan.text or None, label=plan.label or None, group=plan.group, validation=plan.validation,
                test=plan.test, kind=plan.kind, seed=plan.seed, drop_leaks=plan.drop_leaks, max_rows=plan.max_rows,
                encoding=plan.encoding,
            )  # fmt: skip
        return write_splits(dataset, self.store.folder / "data")

    def _look_at_model(self) -> tuple[TextTask, Facts]:
        plan = self.plan
        metrics = list(plan.metric) + [name for name in default_metrics(self.dataset.kind) if name not in plan.metric]
        for name in metrics:
            if self.dataset.kind not in METRICS[name].kinds:
                fitting = ", ".join(default_metrics(self.dataset.kind))
                raise ConfigError(f"a metric must suit the task, got `{name}` for {self.dataset.kind}; take one of {fitting}")
        task = task_for(self.dataset, metrics, plan.max_length)
        self._check_gates(metrics)
        self.reporter.say(f"looking at {plan.model}")
        facts = self.engine.look(
            Question(
                plan.model, plan.revision, plan.trust_remote_code,
                tuple(method.to_dict() for method in self.contestants.values()), task.to_json(), self.store.folder,
            )  # fmt: skip
        )
        return TextTask.from_json({**task.to_json(), "max_length": facts.max_length}), facts

    def _check_gates(self, metrics: list[str]) -> None:
        """A gate that names what is not measured must fail now, not after hours."""
        names = {name.replace(" ", "") for name in (*self.contestants, *(BASELINES if self.plan.baselines else ()))}
        for text in self.plan.require:
            for name, quantity in gate_names(text):
                if name not in names:
                    raise ConfigError(f"a requirement must name a contestant, got `{name}` in `{text}`; known: {', '.join(sorted(names))}")
                if quantity not in (*metrics, *COST_FIELDS, "trainable_fraction"):
                    raise ConfigError(
                        f"a requirement must name a metric or a cost, got `{quantity}` in `{text}`; metrics: {', '.join(metrics)}; "
                        f"costs: {', '.join(COST_FIELDS)}"
                    )

    def _document(self) -> dict[str, Any]:
        """What `experiment.json` holds from the start; the runs' keys come in as they end."""
        plan, dataset = self.plan, self.dataset
        counts = None
        if dataset.kind == "classification" and dataset.labels:
            classes = dataset.train.targets[:, 0].astype(int)
            counts = {label: int((classes == at).sum()) for at, label in enumerate(dataset.labels)}
        return {
            "format": 1,
            "name": self.store.folder.name,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "finished": None,
            "plan": plan.model_dump(mode="json"),
            "data": {
                "name": dataset.name, "kind": dataset.kind, "labels": dataset.labels, "text_columns": list(dataset.text_columns),
                "label_column": dataset.label_column, "fingerprint": dataset.fingerprint,
                "rows": asdict(self._rows()), "notes": list(dataset.notes),
                "truncated_fraction": self.facts.truncated_fraction, "openings": 0, "class_counts": counts,
            },
            "model": {
                "name": plan.model, "fingerprint": self.facts.fingerprint, "revision": self.facts.revision,
                "n_parameters": self.facts.n_parameters, "notes": list(self.facts.notes),
            },
            "task": self.task.to_json(),
            "margin": self._margin(),
            "alpha": plan.alpha,
            "reference": plan.reference_label,
            "fallback_reference": plan.fallback_reference,
            "device": str(self.device),
            "precision": self.precision,
            "environment": environment(),
            "contestants": [
                {
                    "name": name, "method": method.to_dict(), "centre": method.grid_centre, "trials": [], "learning_rate": None,
                    "at_edge": False, "status": None, "final": [], "notes": [], "estimate": None, "measured": None,
                }
                for name, method in self.contestants.items()
            ],
            "baselines": [],
            "estimated_seconds": None,
            "measured_seconds": None,
        }  # fmt: skip

    def _rows(self) -> Rows:
        return Rows(len(self.dataset.train), len(self.dataset.validation), self.dataset.test.n_rows)

    def _margin(self) -> float:
        """The plan's, or 0.02: two points of a fraction, 0.02 of a correlation; of an error, 5 % of the targets' spread."""
        if self.plan.margin is not None:
            return self.plan.margin
        if self.task.metrics[0] in ("rmse", "mae"):
            return 0.05 * self.task.target_std
        return DEFAULT_MARGIN

    def claim_folder(self) -> None:
        """Refuse a folder that holds an experiment on another model; write the plan down."""
        path = self.store.folder / "experiment.json"
        if path.exists():
            before = self.store.experiment()
            if before["model"]["fingerprint"] != self.facts.fingerprint:
                raise RecordError(
                    f"`{self.store.folder}` holds an experiment on the model `{before['model']['name']}`; give another folder with `--out`"
                )
            self.document["created"] = before["created"]
            self._estimated_before = {entry["name"]: entry["estimate"] for entry in before["contestants"]}
        self.write()

    _estimated_before: dict[str, Any] = {}

    def write(self) -> None:
        self.document["data"]["openings"] = len(self.dataset.test.openings())
        self.store.write_experiment(self.document)

    def estimate(self) -> None:
        """Measure a few steps of each contestant, and fit the number of trials to the budget."""
        for entry in self.document["contestants"]:
            known = self._estimated_before.get(entry["name"])
            if known and known.get("fits") and known["method"] == entry["method"]:
                measured = Estimate(**known["figures"])
            else:
                self.reporter.say(f"measuring a few steps of {entry['name']}")
                spec = self._spec(entry["name"], entry["centre"], self._tuning_seed(), "tuning")
                probe = self.engine.probe(self._job(spec))
                measured = estimate_from(probe, self._rows(), self.plan.training)
                entry["notes"] = list(probe.notes)
            self.estimates[entry["name"]] = measured
        self.n_trials = self._trials_in_budget()
        for entry in self.document["contestants"]:
            measured = self.estimates[entry["name"]]
            entry["estimate"] = {
                "seconds": measured.seconds(self.n_trials, self.plan.seeds), "peak_memory_bytes": measured.peak_memory_bytes,
                "peak_device_memory_bytes": measured.peak_device_memory_bytes, "n_trainable": measured.n_trainable,
                "fits": measured.fits, "figures": asdict(measured), "method": entry["method"],
            }  # fmt: skip
        self.document["plan"]["trials"] = self.n_trials
        self.document["estimated_seconds"] = sum(entry["estimate"]["seconds"] for entry in self.document["contestants"])
        self.write()

    def _trials_in_budget(self) -> int:
        budget, most = self.plan.budget, self.plan.budget.trials or self.plan.trials
        if budget.minutes is None:
            return most

        def minutes(trials: int) -> float:
            return sum(estimate.seconds(trials, self.plan.seeds) for estimate in self.estimates.values()) / 60

        fitting = [trials for trials in range(1, most + 1) if minutes(trials) <= budget.minutes]
        if not fitting:
            raise ConfigError(
                f"the budget must hold one trial and {self.plan.seeds} seeds of each contestant, about {minutes(1):.1f} minutes "
                f"here, got {budget.minutes:g}; take fewer methods, examples or seeds, or more minutes"
            )
        return fitting[-1]

    # --- the protocol

    def measure(self) -> None:
        """Baselines, then each contestant: tuned on validation, then run at every seed and scored on the test split."""
        clock = time.monotonic()
        if self.plan.baselines:
            for name in BASELINES:
                spec = Spec(
                    name, {"name": name}, {}, self.task.to_json(), self._data_facts(), {}, self.plan.seed, "baseline"
                )
                measure_baseline(spec, self.dataset, self.store)
                self.document["baselines"].append({"name": name, "key": spec.key})
        for entry in self.document["contestants"]:
            self._measure_contestant(entry)
            self.write()
        self.document["measured_seconds"] = time.monotonic() - clock
        self.document["finished"] = datetime.now(UTC).isoformat(timespec="seconds")
        self.write()

    def _measure_contestant(self, entry: dict[str, Any]) -> None:
        parents = self._tune(entry)
        if entry["status"] is not None:
            self.reporter.say(f"{entry['name']}: {entry['status'].replace('_', ' ')} in every trial")
            return
        records = []
        for seed in self._final_seeds():
            spec = self._spec(entry["name"], entry["learning_rate"], seed, "final", parents)
            records.append(self._run(spec, keep=self.plan.keep != "none"))
            entry["final"].append(spec.key)
            self.write()
        self._keep_best(entry["name"], records)
        peaks = [record.cost.peak_memory_bytes for record in records if record.cost and record.cost.peak_memory_bytes]
        entry["measured"] = {
            "seconds": sum(record.seconds for record in records) + sum(trial["seconds"] for trial in entry["trials"]),
            "peak_memory_bytes": max(peaks, default=None),
        }

    def _tune(self, entry: dict[str, Any]) -> tuple[str, ...]:
        """Choose the learning rate on validation, each contestant with the same number of trials; returns the trials' keys."""
        metric = METRICS[self.task.metrics[0]]
        sign = 1 if metric.higher_is_better else -1
        rates = list(self.plan.learning_rates) or first_rates(entry["centre"], self.n_trials)
        scores: dict[float, float] = {}
        while rates or (not self.plan.learning_rates and len(scores) < self.n_trials):
            rate = _rounded(rates.pop(0) if rates else next_rate(scores))
            record = self._run(self._spec(entry["name"], rate, self._tuning_seed(), "tuning"))
            score = record.validation.get(metric.name) if record.status == "done" else None
            scores[rate] = float("-inf") if score is None else sign * score
            entry["trials"].append(
                {"learning_rate": rate, "key": record.spec.key, "score": score, "status": record.status, "seconds": record.seconds}
            )
            if record.status == "out_of_memory":
                break  # another learning rate needs no less
            self.write()
        chosen = best_rate(scores)
        if scores[chosen] == float("-inf"):
            entry["status"] = entry["trials"][-1]["status"]
        else:
            entry["learning_rate"], entry["at_edge"] = chosen, is_at_edge(scores, chosen)
        return tuple(trial["key"] for trial in entry["trials"])

    def _run(self, spec: Spec, keep: bool = False) -> Record:
        self.reporter.run_started(spec, self.estimates[spec.contestant])
        record = self.engine.run(self._job(spec, keep), lambda job, *values: self.reporter.progress(job.spec, *values))
        self.reporter.run_ended(record)
        return record

    def _keep_best(self, name: str, records: list[Record]) -> None:
        """Of a contestant's tuned models keep the one with the best validation score, unless all are wanted."""
        if self.plan.keep != "best":
            return
        metric = METRICS[self.task.metrics[0]]
        done = [record for record in records if record.status == "done"]
        sign = 1 if metric.higher_is_better else -1
        done.sort(key=lambda record: -sign * record.validation[metric.name])
        for record in done[1:]:
            remove_tuned(self.store, record.spec.key)

    def _job(self, spec: Spec, keep: bool = False) -> Job:
        return Job(spec, self.store.folder, str(self.device), keep, self.plan.trust_remote_code)

    def _tuning_seed(self) -> int:
        """Not one of the final seeds, so that no final run is the one that its setting was chosen on."""
        return sub_seed(self.plan.seed, "tuning") % 10**6 + 10**6

    def _final_seeds(self) -> list[int]:
        return [1000 * self.plan.seed + at for at in range(self.plan.seeds)]

    def _data_facts(self) -> dict[str, Any]:
        return {"name": self.dataset.name, "fingerprint": self.dataset.fingerprint, "rows": asdict(self._rows()),
                "training_ids": self.dataset.train.fingerprint}  # fmt: skip

    def _spec(self, name: str, rate: float, seed: int, stage: str, parents: tuple[str, ...] = ()) -> Spec:
        training = {**self.plan.training.model_dump(mode="json"), "learning_rate": rate, "precision": self.precision}
        training |= {"device": self.device.type, "versions": versions()}
        if self.plan.budget.examples is not None:
            training["examples"] = self.plan.budget.examples
        return Spec(
            contestant=name,
            method=self.contestants[name].to_dict(),
            model={"name": self.plan.model, "fingerprint": self.facts.fingerprint, "revision": self.facts.revision},
            task=self.task.to_json(),
            data=self._data_facts(),
            training=training,
            seed=seed,
            stage=stage,
            parents=parents,
        )


def _rounded(rate: float) -> float:
    """Three digits: a rate that a person can read and type."""
    return float(f"{rate:.3g}")


def remove_tuned(store: Store, key: str) -> None:
    """Delete a tuned model from the run folder."""
    import shutil

    shutil.rmtree(store.folder / "tuned" / key, ignore_errors=True)


def point_to_best(store: Store, table: Table) -> None:
    """Make `best` in the run folder the tuned model of the recommended contestant."""
    if table.recommendation.name is None:
        return
    kept = [key for key in table.row(table.recommendation.name).keys if (store.folder / "tuned" / key).exists()]
    link = store.folder / "best"
    if kept:
        temporary = store.folder / ".best"
        temporary.unlink(missing_ok=True)
        temporary.symlink_to(Path("tuned") / kept[0])
        temporary.replace(link)


def default_folder(plan: Plan) -> Path:
    """`runs/` and the data's name."""
    return Path("runs") / (Path(plan.data).stem.replace(":", "-") or "experiment")


def compare(
    plan: Plan | None = None,
    /,
    *,
    out: Path | str | None = None,
    dry_run: bool = False,
    reporter: Reporter | None = None,
    **fields: Any,
) -> Table:
    """Run every contestant of a plan under one protocol and return the table that answers.

    Args:
        plan: the experiment; or give its fields by name, such as `model`, `data`, `methods`, `seeds`.
        out: the run folder; an experiment that was killed goes on there with the same call.
        dry_run: stop after the estimate of time and memory.
        reporter: who is told of the progress.
    """
    plan = plan or plan_from(fields)
    experiment = Experiment(plan, Path(out) if out else default_folder(plan), reporter or Silent())
    experiment.claim_folder()
    experiment.estimate()
    experiment.reporter.planned(experiment.document)
    if not dry_run:
        experiment.measure()
    table = table_from(experiment.store)
    if not dry_run:
        point_to_best(experiment.store, table)
    experiment.reporter.finished(table)
    return table


__all__ = ["Experiment", "Method", "compare"]
