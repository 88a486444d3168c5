"""A plan is the whole experiment in a few fields: from TOML, from the command line or from Python, checked the same way."""

import re
import tomllib
from pathlib import Path
from typing import Any, Literal

import pydantic

from deltaproof.errors import ConfigError, nearest
from deltaproof.methods import method_from
from deltaproof.methods.base import Method
from deltaproof.settings import Settings, split_expressions
from deltaproof.training.settings import Training


class Budget(Settings):
    """What the experiment may use; a field that is left out is not limited."""

    name = "budget"

    trials: int | None = pydantic.Field(None, ge=1)
    """Tuning trials per contestant."""
    minutes: float | None = pydantic.Field(None, gt=0)
    """Wall time of the whole experiment: the number of trials is the largest that fits the estimate."""
    examples: int | None = pydantic.Field(None, ge=1)
    """Training examples that each run sees."""


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
    encoding: str = "utf-8"
    """Encoding of text files."""
    drop_leaks: bool = False
    """Remove rows from the training and validation splits that stand in a later split too."""
    max_rows: int | None = pydantic.Field(None, ge=8)
    """Use at most so many training rows, drawn by class."""
    max_length: int = pydantic.Field(256, ge=4)
    """Tokens per example; what is longer is cut, and the share of rows cut is reported."""
    metric: tuple[str, ...] = ()
    """Metrics; the first decides. A default by kind of task when left out."""
    reference: str | None = None
    """The contestant that the others are compared with; `full` if it takes part, else the first."""
    fallback_reference: str | None = None
    """The reference if the first one does not fit into memory or diverges."""
    margin: float | None = pydantic.Field(None, gt=0)
    """Differences below this count as equivalent, in the metric's unit; 0.02 when left out."""
    alpha: float = pydantic.Field(0.05, gt=0, lt=0.5)
    """Error rate of the verdicts over all comparisons with the reference."""
    seeds: int = pydantic.Field(3, ge=1)
    """Final runs per contestant."""
    seed: int = pydantic.Field(0, ge=0)
    """Drives everything random."""
    trials: int = pydantic.Field(4, ge=1)
    """Tuning runs per contestant, over learning rates, judged on validation."""
    learning_rates: tuple[float, ...] = ()
    """A fixed grid for every contestant, instead of each method's own."""
    baselines: bool = True
    """Measure the majority class and TF-IDF with logistic regression too."""
    budget: Budget = Budget()
    training: Training = Training()
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
    keep: Literal["best", "all", "none"] = "best"
    """Which tuned models stay on disk: each contestant's best on validation, every one, or none."""

    @pydantic.field_validator("methods", "text", "label", "metric", "require", mode="before")
    @classmethod
    def _listed(cls, value: Any, info: pydantic.ValidationInfo) -> Any:
        if info.field_name == "methods":
            if isinstance(value, str):
                value = split_expressions(value)
            elif isinstance(value, Method):
                value = [value]
            return tuple(item.label if isinstance(item, Method) else _expression(item) for item in value)
        if isinstance(value, str):
            return tuple(part.strip() for part in ([value] if info.field_name == "require" else value.split(",")) if part.strip())
        return value

    @pydantic.model_validator(mode="after")
    def _checked(self) -> "Plan":
        contestants = self.contestants()
        if len(contestants) != len(self.methods):
            raise ValueError(f"each contestant may be named once, got {', '.join(self.methods)}; remove the repeated one")
        for field in ("reference", "fallback_reference"):
            wanted = getattr(self, field)
            if wanted is not None and method_from(wanted).label not in contestants:
                raise ValueError(f"the `{field}` must be a contestant, got `{wanted}`; {nearest(wanted, contestants)}")
        return self

    def contestants(self) -> dict[str, Method]:
        """The methods by label, in the order of the plan."""
        methods = [method_from(text) for text in self.methods]
        if not methods:
            raise ConfigError("a plan needs at least one method, got none; write for example `methods = [\"full\", \"lora\"]`")
        return {contestant.label: contestant for contestant in methods}

    @property
    def reference_label(self) -> str:
        contestants = self.contestants()
        if self.reference is not None:
            return method_from(self.reference).label
        return "full" if "full" in contestants else next(iter(contestants))


def _expression(item: Any) -> str:
    if isinstance(item, dict):
        return method_from(item).label
    return str(item)


def plan_from(fields: dict[str, Any]) -> Plan:
    """A plan from flat or grouped fields: what the training loop and the budget read may stand at the top level too."""
    fields = {key: value for key, value in fields.items() if value is not None}
    for group, kind in (("training", Training), ("budget", Budget)):
        given = fields.get(group)
        inner = dict(given) if isinstance(given, dict) else given.model_dump(exclude_unset=True) if given else {}
        for key in kind.model_fields:
            if key in fields and key not in Plan.model_fields:
                inner[key] = fields.pop(key)
        if inner:
            fields[group] = kind(**inner)
    known = {*Plan.model_fields, *Training.model_fields, *Budget.model_fields}
    for key in fields:
        if key not in known:
            raise ConfigError(f"a plan has no field `{key}`; {nearest(key, known)}")
    for key in ("model", "data", "methods"):
        if key not in fields:
            raise ConfigError(f"a plan needs `{key}`, got only {', '.join(fields) or 'nothing'}; add it")
    return Plan(**fields)


def read_plan(path: Path) -> dict[str, Any]:
    """The fields of a TOML plan, not yet checked, so that options can override them."""
    try:
        fields = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        names = [file.name for file in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        raise ConfigError(f"the plan `{path}` must exist, found nothing; {nearest(path.name, names) if names else 'check the path'}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"`{path}` must be TOML, got {error}; correct that line") from None
    return fields


def parse_budget(text: str) -> Budget:
    """`6 trials`, `30 minutes`, `20000 examples`, or several with commas.

    >>> parse_budget("6 trials, 30 minutes").minutes
    30.0
    """
    fields: dict[str, float] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([\d.]+)\s*([a-z]+?)s?\s*", part.lower())
        unit = {"trial": "trials", "minute": "minutes", "min": "minutes", "example": "examples"}.get(match[2]) if match else None
        if match is None or unit is None:
            raise ConfigError(f"a budget reads `6 trials`, `30 minutes` or `20000 examples`, got `{part.strip()}`; write one of these")
        fields[unit] = float(match[1])
    return Budget(**fields)
