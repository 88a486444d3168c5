"""The protocol: every contestant tuned alike on validation, then run at the same seeds and scored once on the test split."""

from typing import Any

from deltaproof.experiments.baselines import BASELINES, measure_baseline
from deltaproof.experiments.document import new_document, now, write_document
from deltaproof.experiments.engines.local import LocalEngine
from deltaproof.experiments.estimate import Estimate, estimate_from, probe_once, trials_in_budget
from deltaproof.experiments.jobs import Job
from deltaproof.experiments.kept import keep_best
from deltaproof.experiments.other_versions import left_out
from deltaproof.experiments.reporter import Reporter
from deltaproof.experiments.resolve import Resolved
from deltaproof.experiments.specs import baseline_spec, contestant_spec, final_seeds, tuning_seed
from deltaproof.experiments.tuning import best_rate, first_rates, is_at_edge, next_rate, rounded
from deltaproof.metrics import METRICS
from deltaproof.records.record import Record
from deltaproof.records.spec import Spec

Entry = dict[str, Any]
"""What `experiment.json` says of one contestant."""


class Experiment:
    """A resolved plan on its way to a table. What stands on disk already is not measured again."""

    def __init__(self, resolved: Resolved, engine: LocalEngine, reporter: Reporter) -> None:
        self.resolved = resolved
        self.plan, self.store = resolved.plan, resolved.store
        self.engine = engine
        self.reporter = reporter
        self.metric = METRICS[resolved.task.metrics[0]]
        self.document = new_document(resolved)
        self.estimates: dict[str, Estimate] = {}
        self.n_trials = 0

    def estimate(self) -> None:
        """Measure a few steps of each contestant, and fit the number of trials to the budget."""
        entries: list[Entry] = self.document["contestants"]
        for entry in entries:
            self.reporter.say(f"measuring a few steps of {entry['name']}")
            probe = probe_once(self.engine, self._job(self._spec(entry, rounded(entry["centre"]), "probe")))
            self.estimates[entry["name"]] = estimate_from(probe, self.resolved.rows)
            entry["notes"] = list(probe.notes)
        estimates, n_seeds = list(self.estimates.values()), self.plan.seeds
        n_trials = trials_in_budget(estimates, n_seeds, self.plan.budget, self.plan.n_trials)
        self.n_trials = n_trials if n_trials > 1 else 0  # a choice of one needs no trial
        for entry, estimate in zip(entries, estimates, strict=True):
            entry["estimate"] = estimate.to_json(self.n_trials, n_seeds)
        self.document["plan"]["trials"] = n_trials
        self.document["estimated_seconds"] = sum(entry["estimate"]["seconds"] for entry in entries)

    def measure(self) -> None:
        """Baselines, then each contestant: tuned, then run at every seed."""
        self._note_other_versions()
        self._write()
        for name in BASELINES if self.plan.baselines else ():
            spec = baseline_spec(self.resolved, name)
            measure_baseline(spec, self.resolved.dataset, self.store)
            self.document["baselines"].append({"name": name, "key": spec.key})
        for entry in self.document["contestants"]:
            entry["measured"] = self._measured(self._run_contestant(entry))
            self._write()
        self.document["measured_seconds"] = sum(entry["measured"]["seconds"] for entry in self.document["contestants"])
        self.document["finished"] = now()
        self._write()

    def _run_contestant(self, entry: Entry) -> list[Record]:
        """Every run of one contestant; none at the final seeds where no trial came through."""
        trials = self._tune(entry)
        if entry["status"] is not None:
            return trials
        finals: list[Record] = []
        parents = tuple(record.spec.key for record in trials)
        for seed in final_seeds(self.plan.seed, self.plan.seeds):
            spec = self._spec(entry, entry["learning_rate"], "final", seed, parents)
            finals.append(self._run(spec, keep=self.plan.keep != "none"))
            entry["final"].append(spec.key)
            self._write()
            if finals[-1].status == "out_of_memory":
                break  # another seed needs no less
        if self.plan.keep == "best":
            keep_best(self.store, finals, self.metric)
        return [*trials, *finals]

    def _tune(self, entry: Entry) -> list[Record]:
        """Choose the learning rate on validation, each contestant with the same number of trials."""
        rates = [rounded(rate) for rate in self.plan.learning_rates or first_rates(entry["centre"], self.n_trials)]
        if self.n_trials == 0:
            entry["learning_rate"] = rates[0]
            return []
        records: list[Record] = []
        scores: dict[float, float] = {}
        while len(scores) < self.n_trials:
            rate = rates[len(scores)] if len(scores) < len(rates) else rounded(next_rate(scores))
            if rate in scores:
                break  # the search has closed in on one rate
            record = self._run(self._spec(entry, rate, "tuning"))
            records.append(record)
            scores[rate] = self._note_trial(entry, rate, record)
            self._write()
            if record.status == "out_of_memory":
                break  # another learning rate needs no less
        if max(scores.values()) == float("-inf"):
            entry["status"] = records[-1].status
        else:
            entry["learning_rate"] = best_rate(scores)
            entry["at_edge"] = is_at_edge(scores, entry["learning_rate"])
        return records

    def _note_trial(self, entry: Entry, rate: float, record: Record) -> float:
        """Enter a trial; returns its score, higher is better, minus infinity for one that did not come through."""
        score = record.validation[self.metric.name] if record.status == "done" else None
        entry["trials"].append(
            {
                "learning_rate": rate,
                "key": record.spec.key,
                "score": score,
                "status": record.status,
                "seconds": record.seconds,
            }
        )
        if score is None:
            return float("-inf")
        return score if self.metric.higher_is_better else -score

    def _run(self, spec: Spec, keep: bool = False) -> Record:
        """The record of a run, from disk where it stands; a run that failed is tried anew."""
        estimate = self.estimates[spec.contestant]
        found = self.store.find(spec.key)
        from_disk = found is not None and found.status != "failed"
        if found is None or not from_disk:
            self.reporter.run_started(spec, estimate)
            found = self.engine.run(self._job(spec, keep), lambda *values: self.reporter.progress(spec, *values))
        self.reporter.run_ended(found, estimate, from_disk)
        return found

    def _measured(self, records: list[Record]) -> dict[str, Any]:
        """What a contestant took in all, to be held against its estimate; with peaks of the runs that were completed."""
        costs = [record.cost for record in records if record.cost is not None]
        peaks = [cost.peak_memory_bytes for cost in costs if cost.peak_memory_bytes is not None]
        device_peaks = [cost.peak_device_memory_bytes for cost in costs if cost.peak_device_memory_bytes is not None]
        return {
            "seconds": sum(record.seconds for record in records),
            "peak_memory_bytes": max(peaks, default=None),
            "peak_device_memory_bytes": max(device_peaks, default=None),
        }

    def _note_other_versions(self) -> None:
        entries = self.document["contestants"]
        notes = left_out(self.store, [entry["name"] for entry in entries], self.resolved.dataset.fingerprint)
        for entry in entries:
            entry["notes"] += notes.get(entry["name"], [])
            for note in notes.get(entry["name"], []):
                self.reporter.say(f"{entry['name']}: {note}")

    def _spec(
        self, entry: Entry, rate: float, stage: str, seed: int | None = None, parents: tuple[str, ...] = ()
    ) -> Spec:
        seed = tuning_seed(self.plan.seed) if seed is None else seed
        return contestant_spec(self.resolved, entry["name"], rate, seed, stage, parents)

    def _job(self, spec: Spec, keep: bool = False) -> Job:
        return Job(spec, self.store.folder, self.resolved.facts.device, keep, self.plan.trust_remote_code)

    def _write(self) -> None:
        self.document["data"]["openings"] = len(self.resolved.dataset.test.openings())
        write_document(self.store, self.document)
