"""A plan is the whole experiment in a few fields: from TOML, the command line or Python, checked the same way."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import pydantic

from deltaproof.errors import ConfigError, nearest
from deltaproof.experiments.budget import Budget, parse_budget
from deltaproof.experiments.engines.choice import ENGINES
from deltaproof.experiments.memory_size import parse_bytes
from deltaproof.looks import MOST_LOOKS, planned_looks
from deltaproof.methods import method_from
from deltaproof.methods.base import Method
from deltaproof.settings import Settings, split_expressions
from deltaproof.training.settings import Training


class Plan(Settings):
    """The experiment: which methods, on which model and data, under which protocol."""

    name = "plan"

    model: str
    """Hub id or folder of a `transformers` model; `minilm` is the one that the extra [demo] brings."""
    data: str
    """File (.csv, .tsv, .jsonl, .parquet), folder or Hugging Face data set; `demo` is the built-in one."""
    methods: tuple[str, ...]
    """Contestants, such as `full`, `lora(rank=16)`."""
    text: tuple[str, ...] = ()
    """Column of the text, or two columns for pairs; found when left out."""
    label: tuple[str, ...] = ()
    """Column of the label, or several for multi-label; found when left out."""
    group: str | None = None
    """Column that says which rows belong together: they stay in one split and count as one unit."""
    validation: str | None = None
    """File of the validation rows; split off when left out."""
    test: str | None = None
    """File of the test rows; split off when left out."""
    kind: Literal["classification", "regression", "multilabel"] | None = None
    """Kind of task; inferred from the labels when left out."""
    encoding: str | None = None
    """Encoding of text files; UTF-8, or what a byte-order mark says, when left out."""
    format: Literal["csv", "tsv", "json", "jsonl", "parquet", "label_text"] | None = None
    """Format of files whose endings do not say it; `label_text` is a label, a blank and a text on each line."""
    columns: tuple[str, ...] = ()
    """Names for the fields of CSV and TSV files that have no header line."""
    label_names: dict[str, str] = pydantic.Field(default_factory=dict)
    """What the label column holds to the name to show for it: `{ 0 = "negative", 1 = "positive" }`."""
    data_root: str | None = None
    """Folder that files are meant from, with local copies of hub data sets: `glue:sst2` is its `glue/sst2`."""
    drop_leaks: bool = False
    """Remove rows from the training and validation splits that stand in a later split too."""
    drop_empty: bool = False
    """Leave out rows without a text, which end a run otherwise."""
    max_rows: int | None = pydantic.Field(default=None, ge=8)
    """Use at most so many training rows, drawn by class."""
    max_evaluation_rows: int | None = pydantic.Field(default=None, ge=8)
    """Use at most so many rows of the validation and of the test split, drawn by class; intervals widen accordingly."""
    max_length: int = pydantic.Field(default=256, ge=4)
    """Tokens per example; what is longer is cut, and the share of rows cut is reported."""
    metric: tuple[str, ...] = ()
    """Metrics; the first decides. A default by kind of task when left out."""
    reference: str | None = None
    """The contestant that the others are compared with; `full` if it takes part, else the first."""
    fallback_reference: str | None = None
    """The reference if the first one does not fit into memory or diverges."""
    margin: float | None = pydantic.Field(default=None, gt=0)
    """Differences below this count as equivalent, in the metric's unit; 0.02 when left out."""
    alpha: float = pydantic.Field(default=0.05, gt=0, lt=0.5)
    """Error rate of the verdicts over all comparisons with the reference."""
    seeds: int = pydantic.Field(default=3, ge=1)
    """Final runs per contestant."""
    looks: int = pydantic.Field(default=1, ge=1, le=MOST_LOOKS)
    """Planned looks at the results, at most three: once a look settles every verdict, no more seeds are run. Each look
    asks for more than the only one would, so that all together keep `alpha`."""
    seed: int = pydantic.Field(default=0, ge=0)
    """Drives everything random."""
    trials: int = pydantic.Field(default=4, ge=1)
    """Tuning runs per contestant, over learning rates, judged on validation."""
    first_trials: int = pydantic.Field(default=3, ge=1, le=3)
    """Of these, how many are tried at first, side by side; the others follow from their scores. With 2 the first are
    the rate where the method's family works and the next above it; the third lies below the lower or above the upper,
    whichever is better."""
    tuning: Literal["grid", "halving"] = "grid"
    """`grid` trains every trial to its end; `halving` stops trials that can no longer win, at the first evaluation
    after a quarter of the steps. There is one in time where `evaluations_per_epoch` is left out."""
    tuning_risk: float = pydantic.Field(default=0.05, gt=0, lt=0.5)
    """With `halving`: the most chance, per contestant, to stop the trial that would have won."""
    learning_rates: tuple[Annotated[float, pydantic.Field(gt=0, allow_inf_nan=False)], ...] = ()
    """A fixed grid for every contestant, instead of each method's own."""
    baselines: bool = True
    """Measure the majority class and TF-IDF with logistic regression too."""
    budget: Budget = Budget()
    training: Training = Training()
    reuse: tuple[str, ...] = ()
    """Other run folders: a finished run of equal settings is taken over from there, not trained again."""
    workers: int | None = pydantic.Field(default=None, ge=1)
    """Trainings side by side; when left out as many as there are cores on a CPU, up to 4, and one on an accelerator."""
    memory: int | None = None
    """Memory that all trainings may fill together on one machine, such as `4GB`, `512MiB` or `4e9`: it bounds how many
    go side by side, and how many share a process as lanes. Four fifths of what is free when left out."""
    engine: str = "local"
    """Where runs take place: `local` is this machine, each run a process of its own; `lanes` trains runs that keep the
    base frozen side by side over one copy of it, `auto` does so where a few measured steps say that it is faster; `ray`
    is a Ray cluster (extra [cluster]). It decides no result."""
    address: str | None = None
    """`HOST:PORT` of the Ray cluster; the one that this machine belongs to when left out."""
    devices_per_run: int = pydantic.Field(default=1, ge=1)
    """Devices that one training is spread over, by accelerate's FSDP: for a model that full fine-tuning does not fit
    into one. For `full`, with the engine `local`; on a CPU it means processes."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, …; the best there is when left out."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of matrix products; bf16 where the hardware is fast at it when left out."""
    revision: str | None = None
    """Commit of the model on the hub."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Never done unless asked for."""
    require: tuple[str, ...] = ()
    """Gates, such as `lora.accuracy >= full.accuracy - 0.01`; the command ends with code 3 if one fails."""
    keep: Literal["best", "all", "none", "snapshots"] = "best"
    """Which tuned models stay on disk: each contestant's best on validation, every one, or none; `snapshots` keeps
    every one, and what was trained as it stood at four moments of each final run. What an earlier call did not keep
    is trained again, without touching its record."""

    @pydantic.field_validator("methods", mode="before")
    @classmethod
    def _named(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = split_expressions(value)
        if isinstance(value, Method | type) or not isinstance(value, list | tuple):
            value = [value]
        return tuple(_expression(item) for item in value)

    @pydantic.field_validator("text", "label", "columns", "metric", "learning_rates", "reuse", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        return (value,) if isinstance(value, int | float) else value

    @pydantic.field_validator("label_names", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        if isinstance(value, str):
            pairs = [pair.partition("=") for pair in value.split(",") if pair.strip()]
            if not all(equals and name.strip() for _, equals, name in pairs):
                raise ValueError(f"`label_names` reads `0=negative,1=positive`, got `{value}`; write it so")
            return {held.strip(): name.strip() for held, _, name in pairs}
        return {str(held): name for held, name in value.items()} if isinstance(value, Mapping) else value

    @pydantic.field_validator("memory", mode="before")
    @classmethod
    def _bytes(cls, value: Any) -> Any:
        return None if value is None else parse_bytes(value)

    @pydantic.field_validator("require", mode="before")
    @classmethod
    def _gates(cls, value: Any) -> Any:
        return (value,) if isinstance(value, str) else value

    @pydantic.field_validator("model", "data", "validation", "test", "data_root", mode="before")
    @classmethod
    def _path(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if info.field_name in ("validation", "test") and not isinstance(value, str | None):
            raise ValueError(
                f"`{info.field_name}` must be a file, got {type(value).__name__}; rows in memory go into `data`, as "
                f"{{'train': …, 'validation': …, 'test': …}}"
            )
        return value

    @pydantic.field_validator("reference", "fallback_reference", mode="before")
    @classmethod
    def _one_method(cls, value: Any) -> Any:
        return value.label if isinstance(value, Method) else value

    @pydantic.field_validator("engine")
    @classmethod
    def _known(cls, value: str) -> str:
        if value not in ENGINES:
            raise ValueError(f"the `engine` must be one that there is, got `{value}`; {nearest(value, ENGINES)}")
        return value

    @pydantic.model_validator(mode="after")
    def _checked(self) -> "Plan":
        contestants = self.contestants()
        for field in ("methods", "learning_rates", "metric"):
            given = contestants if field == "methods" else set(getattr(self, field))
            if len(given) != len(getattr(self, field)):
                named = ", ".join(str(value) for value in getattr(self, field))
                raise ValueError(f"each of `{field}` may be named once, got {named}; remove the repeated one")
        planned_looks(self.seeds, self.looks, self.alpha)
        if self.devices_per_run > 1:
            self._check_sharded()
        for field in ("reference", "fallback_reference"):
            wanted = getattr(self, field)
            if wanted is not None and method_from(wanted).label not in contestants:
                raise ValueError(f"the `{field}` must be a contestant, got `{wanted}`; {nearest(wanted, contestants)}")
        return self

    def _check_sharded(self) -> None:
        """One training over several devices goes with less than one over a single device."""
        others = [name for name, method in self.contestants().items() if method.name != "full"]
        if others:
            raise ValueError(
                f"`devices_per_run` is for `full` alone, got {', '.join(others)} too: a frozen base needs no gradients "
                f"and no optimiser state, so that it mostly fits into one device; run those in a plan without it"
            )
        for field, wanted, why in (
            ("engine", "local", "it starts the processes"),
            ("tuning", "grid", "a trial that rests cannot go on, as no checkpoints are written"),
        ):
            if getattr(self, field) != wanted:
                raise ValueError(
                    f'`devices_per_run` goes with `{field} = "{wanted}"`, got `{getattr(self, field)}`: {why}; '
                    f"leave `{field}` out"
                )
        if self.keep == "snapshots":
            raise ValueError('`devices_per_run` goes without snapshots, got `keep = "snapshots"`; keep `all`')
        if self.workers not in (None, 1):
            raise ValueError(f"with `devices_per_run` one run takes place at a time, got `workers = {self.workers}`")

    def contestants(self) -> dict[str, Method]:
        """The methods by label, in the order of the plan."""
        methods = [method_from(text) for text in self.methods]
        if not methods:
            raise ConfigError("a plan needs at least one method, got none; for example `methods = ['full', 'lora']`")
        return {contestant.label: contestant for contestant in methods}

    @property
    def n_trials(self) -> int:
        """Learning rates per contestant, at most: a budget in minutes may hold fewer."""
        return len(self.learning_rates) or self.budget.trials or self.trials

    @property
    def loop(self) -> Training:
        """What the training loop reads: `training`, within the budget."""
        if self.budget.examples is None:
            return self.training
        return Training(**{**self.training.model_dump(exclude_unset=True), "examples": self.budget.examples})

    @property
    def reference_label(self) -> str:
        contestants = self.contestants()
        if self.reference is not None:
            return method_from(self.reference).label
        return "full" if "full" in contestants else next(iter(contestants))

    @property
    def fallback_reference_label(self) -> str | None:
        return None if self.fallback_reference is None else method_from(self.fallback_reference).label


def _expression(item: Any) -> str:
    """A method as one would type it, from an object, its class, a record's dict or text."""
    if isinstance(item, type) and issubclass(item, Method):
        return item().label
    return method_from(item).label if isinstance(item, Method | dict) else str(item)


def plan_from(fields: Mapping[str, Any]) -> Plan:
    """A plan from flat or grouped fields: what the training loop and the budget read may stand at the top level too."""
    flat = {key: value for key, value in fields.items() if value is not None}
    groups: dict[str, Any] = {}
    for group, kind in (("training", Training), ("budget", Budget)):
        inner = _fields_of(flat.pop(group, {}), group)
        inner |= {key: flat.pop(key) for key in kind.model_fields if key in flat and key not in Plan.model_fields}
        if "precision" in inner:
            flat.setdefault("precision", inner.pop("precision"))
        if inner:
            groups[group] = kind(**inner)
    known = {*Plan.model_fields, *Training.model_fields, *Budget.model_fields}
    for key in flat:
        if key not in known:
            raise ConfigError(f"a plan has no field `{key}`; {nearest(key, known)}")
    missing = [key for key in ("model", "data", "methods") if key not in flat]
    if missing:
        raise ConfigError(
            f"a plan needs model, data and methods, got no {' and no '.join(missing)}; for example "
            f"`--model bert-base-uncased --data reviews.csv --methods full,lora`"
        )
    return Plan(**flat, **groups)


def _fields_of(group: Any, name: str) -> dict[str, Any]:
    """The fields of `training` or `budget`, in any of the forms that a user may give."""
    if isinstance(group, Settings):
        return group.model_dump(exclude_unset=True)
    if name == "budget" and isinstance(group, str):
        return parse_budget(group).model_dump(exclude_unset=True)
    if isinstance(group, Mapping):
        return dict(group)
    raise ConfigError(f"`{name}` must hold fields, got {group!r}; write a table `[{name}]` in TOML, a dict in Python")
