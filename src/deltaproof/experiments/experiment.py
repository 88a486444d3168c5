"""The protocol: contestants tuned alike on validation, then run at the same seeds and scored once on the test split."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from deltaproof.errors import ConfigError, RecordError
from deltaproof.experiments import wording
from deltaproof.experiments.baselines import BASELINES, measure_baseline
from deltaproof.experiments.document import new_document, now, trials_before, write_document
from deltaproof.experiments.engines.engine import Engine
from deltaproof.experiments.estimate import (
    Estimate,
    estimate_from,
    largest_peak_bytes,
    probe_once,
    trials_in_budget,
    wall_seconds,
)
from deltaproof.experiments.halving import Rung, rung_for
from deltaproof.experiments.jobs import Job, Probe
from deltaproof.experiments.kept import is_kept, keep_best, to_keep
from deltaproof.experiments.memory_plan import MARGIN
from deltaproof.experiments.other_versions import left_out
from deltaproof.experiments.reporter import Reporter
from deltaproof.experiments.resolve import Resolved
from deltaproof.experiments.reuse import Reuse
from deltaproof.experiments.specs import baseline_spec, contestant_spec, final_seeds, tuning_seed
from deltaproof.experiments.table import is_settled, table_from
from deltaproof.experiments.trials import Trial, Trials, savings, stopping
from deltaproof.experiments.tuning import best_rate, first_rates, is_at_edge, next_rate, rounded
from deltaproof.looks import Look, planned_looks
from deltaproof.metrics import METRICS
from deltaproof.records.record import Record
from deltaproof.records.spec import Spec
from deltaproof.training.loop import number_of_steps, steps_between_evaluations

Item = TypeVar("Item")
Result = TypeVar("Result")
Entry = dict[str, Any]
"""What `experiment.json` says of one contestant."""


class Experiment:
    """A resolved plan on its way to a table. What stands on disk already is not measured again."""

    def __init__(self, resolved: Resolved, engine: Engine, reporter: Reporter) -> None:
        self.resolved = resolved
        self.plan, self.store = resolved.plan, resolved.store
        self.engine = engine
        self.reporter = reporter
        self.metric = METRICS[resolved.task.metrics[0]]
        self.document = new_document(resolved)
        self.reuse = Reuse.of(self.store, self.plan.reuse, self.plan.keep)
        self.reused: dict[str, list[str]] = {}
        """Contestant to the folders that its runs were taken over from."""
        self.estimates: dict[str, Estimate] = {}
        self.probes: dict[str, Probe] = {}
        self.n_trials = 0
        self._lock = threading.RLock()
        """Held by whoever of the contestants' threads changes the document or tells the reporter."""

    def estimate(self) -> None:
        """Measure a few steps of each contestant, and fit the number of trials to the budget."""
        entries: list[Entry] = self.document["contestants"]
        self.engine.open_slots(self.resolved.slots.n_workers)
        self.reporter.say(f"measuring a few steps of {', '.join(entry['name'] for entry in entries)}")
        self._side_by_side(self._probe, entries)
        estimates, n_seeds = [self.estimates[entry["name"]] for entry in entries], self.plan.seeds
        self._check_memory(estimates)
        n_workers = self.engine.workers_in_memory(largest_peak_bytes(estimates), self.resolved.slots.n_workers)
        self.engine.open_slots(n_workers)
        n_trials = trials_before(self.store, self.document) or trials_in_budget(
            estimates, n_seeds, self.plan.budget, self.plan.n_trials, n_workers
        )
        self.n_trials = n_trials if n_trials > 1 else 0  # a choice of one needs no trial
        for entry, estimate in zip(entries, estimates, strict=True):
            entry["estimate"] = estimate.to_json(self.n_trials, n_seeds)
        self.document["plan"]["trials"] = n_trials
        self.document["workers"], self.document["threads"] = n_workers, self.resolved.slots.n_threads
        self.document["estimated_seconds"] = wall_seconds(estimates, self.n_trials, n_seeds, n_workers)
        if self.plan.tuning == "halving" and self.n_trials and self._rung() is None:
            self.reporter.say(
                "no trial can be stopped early: no evaluation comes between a quarter of the steps and the end; raise "
                "`evaluations_per_epoch`, or leave it out"
            )

    def _check_memory(self, estimates: list[Estimate]) -> None:
        """Say which contestants do not fit even alone; where that was to be kept to, nothing is trained."""
        limit, room = self.plan.memory, self.engine.memory_bytes()
        names = [entry["name"] for entry in self.document["contestants"]]
        found = [
            (name, each.peak_memory_bytes)
            for name, each in zip(names, estimates, strict=True)
            if each.fits and each.peak_memory_bytes > room
        ]
        if not found:
            return
        named = ", ".join(f"{name} needs about {wording.size(peak)}" for name, peak in found)
        enough = wording.size(1.01 * MARGIN * max(peak for _, peak in found))
        if limit is not None:
            free = f" and {wording.size(room)} are free" if room < limit / MARGIN else ""
            raise ConfigError(
                f"`memory` must hold one training of each contestant, with {MARGIN - 1:.0%} to spare, got "
                f"{wording.size(limit)}{free}: {named}; give {enough}, take a "
                f"smaller `batch_size` or `max_length`, or leave it out of `methods`"
            )
        self.reporter.say(f"{wording.size(room)} of memory can be had: {named}, and may not come to an end")

    def _probe(self, entry: Entry) -> None:
        probe = probe_once(self.engine, self._job(self._spec(entry, rounded(entry["centre"]), "probe")))
        with self._lock:
            self.probes[entry["name"]] = probe
            self.estimates[entry["name"]] = estimate_from(probe, self.resolved.rows)
            entry["notes"] = list(probe.notes)

    def _side_by_side(self, do: Callable[[Item], Result], items: list[Item]) -> list[Result]:
        """Do something for all items at once, in a thread each; the engine's slots decide how much runs at a time.

        The first error, or a Ctrl-C, ends what is under way.
        """
        with ThreadPoolExecutor(max(1, len(items))) as pool:
            futures = [pool.submit(do, item) for item in items]
            try:
                for future in as_completed(futures):
                    future.result()
            except BaseException:
                self.engine.stop()
                raise
            return [future.result() for future in futures]

    def measure(self) -> None:
        """Baselines, and beside them each contestant: tuned, then run at every seed."""
        self._note_other_versions()
        self._write()
        looks = planned_looks(self.plan.seeds, self.plan.looks, self.plan.alpha)
        parts: list[Callable[[], None]] = [self._measure_baselines]
        if len(looks) == 1:
            parts += [partial(self._measure_contestant, entry) for entry in self.document["contestants"]]
        else:
            parts.append(partial(self._measure_in_looks, looks))
        self._side_by_side(lambda measure: measure(), parts)
        seconds = sum(entry["measured"]["seconds"] for entry in self.document["contestants"])
        self.document["measured_seconds"] = seconds / self.document["workers"]
        self.document["finished"] = now()
        self._write()

    def _measure_baselines(self) -> None:
        """In this process, which waits for its workers otherwise."""
        for name in BASELINES if self.plan.baselines else ():
            spec = baseline_spec(self.resolved, name)
            measure_baseline(spec, self.resolved.dataset, self.store)
            with self._lock:
                self.document["baselines"].append({"name": name, "key": spec.key})

    def _measure_contestant(self, entry: Entry) -> None:
        trials = self._tune(entry)
        self._end_contestant(entry, trials, self._run_finals(entry, trials, self.plan.seeds))

    def _measure_in_looks(self, looks: list[Look]) -> None:
        """All contestants at as many seeds as a look asks for, then at more, until a look settles every verdict."""
        entries: list[Entry] = self.document["contestants"]
        trials = {
            entry["name"]: found for entry, found in zip(entries, self._side_by_side(self._tune, entries), strict=True)
        }
        finals: dict[str, list[Record]] = {}
        for at, look in enumerate(looks, 1):

            def run_to_look(entry: Entry, n_seeds: int = look.n_seeds) -> None:
                finals[entry["name"]] = self._run_finals(entry, trials[entry["name"]], n_seeds)

            self._side_by_side(run_to_look, entries)
            self.document["look"] = {"number": at, "of": len(looks), "n_seeds": look.n_seeds, "level": look.level}
            self._write()
            if is_settled(table_from(self.store, self.document)):
                break
        if look.n_seeds < self.plan.seeds:
            self.reporter.say(
                f"every verdict is settled after {look.n_seeds} of {self.plan.seeds} seeds: no more are run"
            )
        for entry in entries:
            self._end_contestant(entry, trials[entry["name"]], finals[entry["name"]])

    def _end_contestant(self, entry: Entry, trials: list[Record], finals: list[Record]) -> None:
        """Keep the tuned models that the plan keeps, and enter what the contestant took."""
        if self.plan.keep == "best":
            keep_best(self.store, finals, self.metric)
        self._restore_models(finals)
        with self._lock:
            entry["measured"] = self._measured([*trials, *finals])
            self._note_reused(entry)
            self._write()

    def _run_finals(self, entry: Entry, trials: list[Record], n_seeds: int) -> list[Record]:
        """The runs at the first of the final seeds; none where no trial came through."""
        if entry["status"] is not None:
            return []
        parents = tuple(record.spec.key for record in trials)
        seeds = final_seeds(self.plan.seed, n_seeds)
        specs = [self._spec(entry, entry["learning_rate"], "final", seed, parents) for seed in seeds]
        with self._lock:
            entry["final"] = [spec.key for spec in specs]
            self._write()
        return self._side_by_side(lambda spec: self._run(spec, keep=self.plan.keep != "none"), specs)

    def _restore_models(self, finals: list[Record]) -> None:
        """Train again what the plan keeps but an earlier call with other wishes did not; the records stay."""
        wanted = to_keep(finals, self.metric, self.plan.keep)
        snapshots = self.plan.keep == "snapshots"
        lost = [record for record in wanted if not is_kept(self.store, record.spec.key, snapshots)]
        self._side_by_side(self._restore, lost)

    def _restore(self, record: Record) -> None:
        spec = record.spec
        with self._lock:
            self.reporter.say(f"{spec.contestant}, seed {spec.seed}: training again for its model, which was not kept")
        try:
            self.engine.run(replace(self._job(spec), restore=True), lambda *values: self._on_progress(spec, *values))
        except RecordError as error:
            with self._lock:
                self.reporter.say(str(error))

    def _tune(self, entry: Entry) -> list[Record]:
        """Choose the learning rate on validation, each contestant with the same number of trials."""
        first = first_rates(entry["centre"], min(self.n_trials, self.plan.first_trials))
        rates = [rounded(rate) for rate in self.plan.learning_rates or first]
        if self.n_trials == 0:
            entry["learning_rate"] = rates[0]
            return []
        rung = self._rung()
        trials = Trials(
            lambda rate: self._spec(entry, rate, "tuning"), lambda spec, begins: self._run(spec, begins=begins),
            self._found, self._side_by_side, self.store, self.metric, rung, self.plan.tuning_risk, self.n_trials,
        )  # fmt: skip
        records: list[Record] = []
        scores: dict[float, float] = {}
        while len(scores) < self.n_trials:
            given = rates[len(scores) : self.n_trials]
            # those known beforehand go side by side, unless one will do to see that it does not fit into memory
            batch = given[: None if self.estimates[entry["name"]].fits else 1] or [rounded(next_rate(scores))]
            if batch[0] in scores:
                break  # the search has closed in on one rate
            for rate, trial in trials.run(batch).items():
                records.append(trial.record)
                with self._lock:
                    scores[rate] = self._note_trial(entry, rate, trial, rung)
                    self._write()
            if any(record.status == "out_of_memory" for record in records):
                break  # another learning rate needs no less
        if max(scores.values()) == float("-inf"):
            entry["status"] = records[-1].status
        else:
            entry["learning_rate"] = best_rate(scores)
            entry["at_edge"] = is_at_edge(scores, entry["learning_rate"])
        self._say_savings(entry)
        return records

    def _rung(self) -> Rung | None:
        """Where trials rest; None where each goes to its end."""
        if self.plan.tuning != "halving" or self.n_trials < 2:
            return None
        n_rows, settings = self.resolved.rows.train, self.resolved.loop
        return rung_for(
            n_rows, number_of_steps(n_rows, settings), settings, steps_between_evaluations(n_rows, settings)
        )

    def _say_savings(self, entry: Entry) -> None:
        text = savings(entry["name"], entry["trials"], self.plan.tuning_risk)
        if text:
            with self._lock:
                entry["notes"].append(text.removeprefix(f"{entry['name']}: "))
                self.reporter.say(text)

    def _note_trial(self, entry: Entry, rate: float, trial: Trial, rung: Rung | None) -> float:
        """Enter a trial; returns its score, higher is better, minus infinity for one that did not come through."""
        record = trial.record
        score = record.validation[self.metric.name] if record.status == "done" else None
        entry["trials"].append(
            {
                "learning_rate": rate,
                "key": record.spec.key,
                "score": score,
                "status": "stopped" if trial.stopped else record.status,
                "seconds": record.seconds,
                **({"stopped": stopping(trial, rung)} if trial.stopped and rung else {}),
            }
        )
        if score is None:
            return float("-inf")
        return score if self.metric.higher_is_better else -score

    def _run(self, spec: Spec, keep: bool = False, begins: str | None = None) -> Record:
        """The record of a run, from disk where it stands; a run that failed is tried anew."""
        found = self._found(spec)
        from_disk = found is not None
        if found is None:
            found = self.engine.run(self._job(spec, keep, begins), lambda *values: self._on_progress(spec, *values))
        with self._lock:
            self.reporter.run_ended(found, from_disk)
        return found

    def _found(self, spec: Spec) -> Record | None:
        """The record where it stands here, or in a folder whose runs may be taken over."""
        found = self.store.find(spec.key)
        if found is not None and found.status != "failed":
            return found
        if found is not None or not self.reuse.folders:
            return None
        taken = self.reuse.fetch(spec)
        if taken is None:
            return None
        with self._lock:
            self.reused.setdefault(spec.contestant, []).append(taken[1].name)
        return taken[0]

    def _note_reused(self, entry: Entry) -> None:
        taken = self.reused.get(entry["name"], [])
        if taken:
            runs = f"{len(taken)} run{'s' if len(taken) > 1 else ''}"
            text = f"{runs} of equal settings taken over from {', '.join(sorted(set(taken)))}, not trained again"
            entry["notes"].append(text)
            self.reporter.say(f"{entry['name']}: {text}")

    def _on_progress(self, spec: Spec, step: int, n_steps: int, values: dict[str, float]) -> None:
        with self._lock:
            self.reporter.progress(spec, step, n_steps, values)

    def _measured(self, records: list[Record]) -> dict[str, Any]:
        """What a contestant took in all, to be held against its estimate; peaks are those of runs that came through."""
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

    def _job(self, spec: Spec, keep: bool = False, begins: str | None = None) -> Job:
        snapshots = spec.stage == "final" and self.plan.keep == "snapshots"
        facts = self.resolved.facts
        return Job(
            spec,
            self.store.folder,
            facts.device,
            keep=keep,
            snapshots=snapshots,
            trust_remote_code=self.plan.trust_remote_code,
            begins=begins,
            probe=self.probes.get(spec.contestant),
            base_bytes=4 * facts.n_parameters,  # loaded in fp32
        )

    def _write(self) -> None:
        with self._lock:
            self.document["data"]["openings"] = len(self.resolved.dataset.test.openings())
            write_document(self.store, self.document)
