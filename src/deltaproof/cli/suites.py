"""Suites of studies that `compare` runs behind its table when a flag asks for them, each one entry here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltaproof.errors import ConfigError

if TYPE_CHECKING:
    from deltaproof.experiments.plan import Plan

Say = Callable[[str], None]


@dataclass(frozen=True)
class OwnSets:
    """Adversarial sets of the user's that belong to a run."""

    sources: Sequence[str] = ()
    label_names: Mapping[str, str] = field(default_factory=dict)
    """What they write as label, to the data set's name for it."""


@dataclass(frozen=True)
class Suite:
    """Studies of a run folder whose tuned models were all kept."""

    check: "Callable[[Plan], None]"
    """Raises a ConfigError where the plan's run could not be studied: before anything is trained."""
    run: Callable[[Path, str, Say, OwnSets], dict[str, Any]]
    """Run folder, device, whom to tell and the user's own sets, to results."""
    text: Callable[[dict[str, Any]], str]
    needs_snapshots: bool = False
    """Whether it asks models on the way too, not only at the end of their training."""
    needs_all: bool = True
    """Whether it asks the models of all seeds; one of each contestant is enough otherwise."""


def _check_capacity(plan: "Plan") -> None:
    if not any(method.name == "full" for method in plan.contestants().values()):
        raise ConfigError(
            f"`--capacity` holds every update against that of full fine-tuning, got the methods "
            f"{', '.join(plan.contestants())}; add `full` to `--methods`"
        )


def _capacity(folder: Path, device: str, say: Say, own: OwnSets) -> dict[str, Any]:
    from deltaproof.studies.capacity import capacity
    from deltaproof.training.precision import pick_device

    return capacity(folder, device=pick_device(device), say=say)


def _capacity_text(results: dict[str, Any]) -> str:
    from deltaproof.studies.capacity_text import capacity_text

    return capacity_text(results)


def _check_robustness(plan: "Plan") -> None:
    if len(plan.contestants()) < 2:
        raise ConfigError(
            f"`--robustness` holds a method's drops against another's, got {', '.join(plan.contestants())} alone; name "
            f"two methods or more, or study this run with `deltaproof attack`"
        )


def _robustness(folder: Path, device: str, say: Say, own: OwnSets) -> dict[str, Any]:
    from deltaproof.studies.robustness import robustness
    from deltaproof.studies.robustness_sets import Attack
    from deltaproof.training.precision import pick_device

    attack = Attack(adversarial=tuple(own.sources), label_names=own.label_names)
    return robustness(folder, attack, device=pick_device(device), say=say)


def _robustness_text(results: dict[str, Any]) -> str:
    from deltaproof.cli.output import columns
    from deltaproof.studies.robustness_text import robustness_text

    return robustness_text(results, columns())


def _check_compression(plan: "Plan") -> None:
    known = ("full", "lora", "dora", "ia3", "pica")
    if not any(method.name in known for method in plan.contestants().values()):
        raise ConfigError(
            f"`--compression` needs an update that can be compressed, got the methods {', '.join(plan.contestants())}; "
            f"add one of {', '.join(known)}"
        )


def _compression(folder: Path, device: str, say: Say, own: OwnSets) -> dict[str, Any]:
    from deltaproof.studies.compression import compression
    from deltaproof.training.precision import pick_device

    return compression(folder, device=pick_device(device), say=say)


def _compression_text(results: dict[str, Any]) -> str:
    from deltaproof.studies.compression_text import compression_text

    return compression_text(results)


SUITES: dict[str, Suite] = {
    "robustness": Suite(_check_robustness, _robustness, _robustness_text, needs_snapshots=True),
    "capacity": Suite(_check_capacity, _capacity, _capacity_text),
    "compression": Suite(_check_compression, _compression, _compression_text, needs_all=False),
}


def what_to_keep(names: Sequence[str], planned: str = "best") -> str:
    """Which tuned models a run must keep for these suites, and those that its plan keeps anyway.

    >>> what_to_keep(["compression"]), what_to_keep(["compression", "capacity"]), what_to_keep([], "all")
    ('best', 'all', 'all')
    """
    suites = [SUITES[name] for name in names]
    wanted = "snapshots" if any(suite.needs_snapshots for suite in suites) else "all"
    if not any(suite.needs_snapshots or suite.needs_all for suite in suites):
        wanted = "best"
    order = ("none", "best", "all", "snapshots")
    return max(wanted, planned, key=order.index)
