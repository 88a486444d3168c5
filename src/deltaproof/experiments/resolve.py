"""From a plan to what is known before anything is trained: data, task, model, machine."""

from dataclasses import dataclass
from pathlib import Path

from deltaproof.data.dataset import Dataset
from deltaproof.data.demo import demo_data
from deltaproof.data.load import load_data
from deltaproof.data.local_copies import below
from deltaproof.data.run_folder import write_splits
from deltaproof.errors import ConfigError, RecordError
from deltaproof.experiments.baselines import BASELINES
from deltaproof.experiments.engines.engine import Engine
from deltaproof.experiments.engines.slots import Slots
from deltaproof.experiments.estimate import Rows
from deltaproof.experiments.gates import gate_names
from deltaproof.experiments.halving import with_rung
from deltaproof.experiments.jobs import Facts, Question
from deltaproof.experiments.plan import Plan
from deltaproof.experiments.reporter import Reporter
from deltaproof.experiments.row import COST_FIELDS
from deltaproof.methods.base import Method
from deltaproof.metrics import METRICS, default_metrics
from deltaproof.records.store import Store
from deltaproof.tasks.text import TextTask, task_for
from deltaproof.training.settings import Training

DEFAULT_MARGIN = 0.02


@dataclass(frozen=True)
class Resolved:
    """A plan with everything that it left open filled in."""

    plan: Plan
    store: Store
    contestants: dict[str, Method]
    dataset: Dataset
    task: TextTask
    facts: Facts
    slots: Slots

    @property
    def rows(self) -> Rows:
        return Rows(len(self.dataset.train), len(self.dataset.validation), self.dataset.test.n_rows)

    @property
    def loop(self) -> Training:
        """What the training loop reads; with halving, an evaluation comes early enough to stop trials there."""
        return with_rung(self.plan.loop, self.rows.train) if self.plan.tuning == "halving" else self.plan.loop

    @property
    def margin(self) -> float:
        """The plan's; else 0.02, which is two points of a fraction, and of an error 5 % of the targets' spread."""
        if self.plan.margin is not None:
            return self.plan.margin
        return 0.05 * self.task.target_std if self.task.metrics[0] in ("rmse", "mae") else DEFAULT_MARGIN


def resolve(plan: Plan, folder: Path, engine: Engine, reporter: Reporter) -> Resolved:
    """Read and split the data into the run folder, and look at model and methods.

    Raises:
        ConfigError: a setting does not go with data, model or machine. DataError, BackboneError: those cannot be read.
        RecordError: the folder holds an experiment on another model.
    """
    contestants, store = plan.contestants(), Store(folder)
    reporter.say(f"reading {plan.data}")
    dataset = write_splits(read_data(plan), folder / "data")
    metrics = _metrics(plan, dataset.kind)
    _check_gates(plan, list(contestants), metrics)
    task = task_for(dataset, metrics, plan.max_length)
    reporter.say(f"looking at {plan.model}")
    facts = engine.look(
        Question(
            plan.model,
            plan.revision,
            plan.trust_remote_code,
            tuple(method.to_dict() for method in contestants.values()),
            task.to_json(),
            folder,
            plan.device,
            plan.precision,
            plan.devices_per_run,
        )
    )
    _check_folder(store, facts)
    task = TextTask.from_json({**task.to_json(), "max_length": facts.max_length})
    slots = engine.slots(facts.device, plan.workers)
    if plan.devices_per_run > 1:  # one run at a time, its processes share the cores
        slots = Slots(1, engine.slots(facts.device, plan.devices_per_run).n_threads)
    return Resolved(plan, store, contestants, dataset, task, facts, slots)


def read_data(plan: Plan) -> Dataset:
    """The plan's data, checked and split."""
    if plan.data == "demo":
        return demo_data()

    def place(source: str) -> str:
        return source if plan.data_root is None else below(plan.data_root, source)

    return load_data(
        place(plan.data),
        text=plan.text or None,
        label=plan.label or None,
        group=plan.group,
        validation=plan.validation and place(plan.validation),
        test=plan.test and place(plan.test),
        kind=plan.kind,
        seed=plan.seed,
        drop_leaks=plan.drop_leaks,
        drop_empty=plan.drop_empty,
        max_rows=plan.max_rows,
        max_evaluation_rows=plan.max_evaluation_rows,
        encoding=plan.encoding,
        format=plan.format,
        columns=plan.columns,
        label_names=plan.label_names,
    )


def _metrics(plan: Plan, kind: str) -> list[str]:
    """The plan's metrics first, then the others that are usual for the kind of task."""
    usual = default_metrics(kind)
    for name in plan.metric:
        if kind not in METRICS[name].kinds:
            kinds = " or ".join(f"`--kind {other}`" for other in METRICS[name].kinds)
            raise ConfigError(
                f"a metric must suit the task, got `{name}` for {kind}; take one of {', '.join(usual)}, "
                f"or say that the task is another: {kinds}"
            )
    return [*plan.metric, *(name for name in usual if name not in plan.metric)]


def _check_gates(plan: Plan, contestants: list[str], metrics: list[str]) -> None:
    """A gate that names what is not measured must fail now, not after hours."""
    known = {name.replace(" ", "") for name in (*contestants, *(BASELINES if plan.baselines else ()))}
    quantities = (*metrics, *COST_FIELDS, "trainable_fraction")
    for text in plan.require:
        for name, quantity in gate_names(text):
            if name not in known:
                raise ConfigError(
                    f"a requirement must name a contestant, got `{name}` in `{text}`; known: {', '.join(sorted(known))}"
                )
            if quantity not in quantities:
                raise ConfigError(
                    f"a requirement must name a metric or a cost, got `{quantity}` in `{text}`; "
                    f"metrics: {', '.join(metrics)}; costs: {', '.join(quantities[len(metrics) :])}"
                )


def _check_folder(store: Store, facts: Facts) -> None:
    if not (store.folder / "experiment.json").exists():
        return
    before = store.experiment()["model"]
    if before["fingerprint"] != facts.fingerprint:
        raise RecordError(
            f"`{store.folder}` must hold this experiment, it holds one on the model `{before['name']}`; "
            f"give another folder with `--out`"
        )
