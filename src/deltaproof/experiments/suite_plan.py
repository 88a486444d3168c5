"""A plan over several tasks: what they share, each task's own, and where local copies of its data lie."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydantic

from deltaproof.data.local_copies import below, find_below
from deltaproof.errors import ConfigError, nearest
from deltaproof.experiments.budget import Budget
from deltaproof.experiments.plan import Plan, plan_from
from deltaproof.experiments.plan_file import read_plan
from deltaproof.settings import Settings
from deltaproof.training.settings import Training

LOCAL_FIELDS = (
    "data", "validation", "test", "text", "label", "group", "kind", "encoding", "format", "columns", "label_names",
    "adversarial", "adversarial_label_names",
)  # fmt: skip
"""What may be said otherwise of a local copy than of the hub's data set."""
_PLAN_FIELDS = {*Plan.model_fields, *Training.model_fields, *Budget.model_fields}


class SuiteTask(Settings):
    """One task of a suite."""

    name = "task"

    category: str
    """Tasks of one category stand together in tables."""
    title: str = ""
    """How tables call it; its name when left out."""
    needs: str = ""
    """What the task needs and is not there yet, such as `generation`: it stands in the tables and is not run."""
    note: str = ""
    """What a reader should know, such as how its data differ from those of others."""
    adversarial: tuple[str, ...] = ()
    """Adversarial sets for its robustness study: files or hub data sets."""
    adversarial_label_names: dict[str, str] = pydantic.Field(default_factory=dict)
    """What those sets hold as labels to the task's names for them."""
    local: dict[str, Any] = pydantic.Field(default_factory=dict)
    """Fields for a local copy, used with a data root that has no copy under the hub's own name."""
    plan: dict[str, Any] = pydantic.Field(default_factory=dict)
    """Fields of the task's own plan, over those that all tasks share."""


@dataclass(frozen=True)
class SuiteRun:
    """A task with everything that its run needs."""

    name: str
    task: SuiteTask
    plan: Plan
    folder: Path
    adversarial: tuple[str, ...]
    adversarial_label_names: dict[str, str]

    def adversarial_sources(self) -> list[str]:
        """Where its adversarial sets are: below the data root where there is one.

        Raises:
            DataError: one is not there.
        """
        root = self.plan.data_root
        return [source if root is None else below(root, source) for source in self.adversarial]


@dataclass(frozen=True)
class SuitePlan:
    """Tasks under one protocol, and what their page says of them."""

    title: str
    about: tuple[str, ...]
    """Paragraphs at the head of the page: where the plan comes from and what it does not claim."""
    common: dict[str, Any]
    """Fields of every task's plan."""
    tasks: dict[str, SuiteTask]
    paper_reference_values: dict[str, dict[str, Any]] | None
    """Task to method to the value as the paper prints it, entered by someone who has the paper; under `TASK/SET` of an
    adversarial set. None where nobody has."""

    def run_of(self, name: str, out: Path, data_root: str | None, overrides: Mapping[str, Any]) -> SuiteRun:
        """One task's plan, settled and checked.

        Raises:
            ConfigError: a field does not hold. DataError: the data root is none, or has no copy of the task's data.
        """
        task = self.tasks[name]
        fields = {**self.common, **task.plan}
        adversarial, label_names = task.adversarial, task.adversarial_label_names
        if data_root is not None:
            fields["data_root"] = data_root
            if task.local and find_below(data_root, fields.get("data", "")) is None:
                fields |= {key: value for key, value in task.local.items() if not key.startswith("adversarial")}
                adversarial = _listed(task.local.get("adversarial", adversarial))
                label_names = task.local.get("adversarial_label_names", label_names)
        plan = plan_from({**fields, **overrides})
        if data_root is not None:
            for source in filter(None, (plan.data, plan.validation, plan.test)):
                below(data_root, source)
        return SuiteRun(name, task, plan, out / name, adversarial, dict(label_names))


def read_suite_plan(source: Path | str | Mapping[str, Any]) -> SuitePlan:
    """A suite from TOML, or from its fields.

    Raises:
        ConfigError: a field is unknown (with the nearest), a task has no category, a name cannot be a folder's.
    """
    fields = dict(source) if isinstance(source, Mapping) else read_plan(Path(source))
    given = fields.pop("tasks", {})
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(
            "a suite needs tasks, got none; write `[tasks.NAME]` for each, with a category and data. A plan of one "
            "task is run by `deltaproof compare`"
        )
    title, about = str(fields.pop("title", "Suite")), _listed(fields.pop("about", ()))
    paper = fields.pop("paper_reference_values", None) or None
    tasks = {str(name): _task(str(name), found) for name, found in given.items()}
    _check_fields("a suite", fields, {*_PLAN_FIELDS, "title", "about", "tasks", "paper_reference_values"})
    for key in paper or ():
        if key.partition("/")[0] not in tasks:
            raise ConfigError(
                f"`paper_reference_values` must name a task, got `{key}`; {nearest(key.partition('/')[0], tasks)}"
            )
    return SuitePlan(title, about, fields, tasks, paper)


def chosen(plan: SuitePlan, only: str | None) -> list[str]:
    """The names of the tasks to run: all, or those of a list with commas, in the order of the plan."""
    if only is None:
        return list(plan.tasks)
    wanted = [name.strip() for name in only.split(",") if name.strip()]
    for name in wanted:
        if name not in plan.tasks:
            raise ConfigError(f"`--only` must name tasks of the plan, got `{name}`; {nearest(name, plan.tasks)}")
    if not wanted:
        raise ConfigError(f"`--only` must name a task, got none; known: {', '.join(plan.tasks)}")
    return [name for name in plan.tasks if name in wanted]


def _task(name: str, fields: Any) -> SuiteTask:
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name) is None:
        raise ConfigError(
            f"a task's name becomes a folder: letters, digits, `_`, `.` and `-`, got `{name}`; rename it, and write "
            f"what the tables show as its `title`"
        )
    if not isinstance(fields, Mapping):
        raise ConfigError(f"`tasks.{name}` must hold fields, got {fields!r}; write a table `[tasks.{name}]`")
    own = {key: value for key, value in fields.items() if key in SuiteTask.model_fields and key != "plan"}
    rest = {key: value for key, value in fields.items() if key not in own}
    _check_fields(f"the task `{name}`", rest, {*_PLAN_FIELDS, *SuiteTask.model_fields} - {"plan"})
    _check_fields(f"`local` of the task `{name}`", own.get("local", {}), set(LOCAL_FIELDS))
    if "adversarial" in own:
        own["adversarial"] = _listed(own["adversarial"])
    task = SuiteTask(**own, plan=rest)
    if not task.needs and not rest.get("data"):
        raise ConfigError(
            f"the task `{name}` needs `data`, got none; name a data set, or say what it `needs` to be run"
        )
    return task


def _check_fields(owner: str, fields: Mapping[str, Any], known: set[str]) -> None:
    for key in fields:
        if key not in known:
            raise ConfigError(f"{owner} has no field `{key}`; {nearest(key, known)}")


def _listed(value: Any) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else tuple(value)
