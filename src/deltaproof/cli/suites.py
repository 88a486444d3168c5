"""Suites of studies that `compare` runs behind its table when a flag asks for them, each one entry here."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deltaproof.errors import ConfigError

if TYPE_CHECKING:
    from deltaproof.experiments.plan import Plan

Say = Callable[[str], None]


@dataclass(frozen=True)
class Suite:
    """Studies of a run folder whose tuned models were all kept."""

    check: "Callable[[Plan], None]"
    """Raises a ConfigError where the plan's run could not be studied: before anything is trained."""
    run: Callable[[Path, str, Say], dict[str, Any]]
    """Run folder, device and whom to tell, to results."""
    text: Callable[[dict[str, Any]], str]
    needs_snapshots: bool = False
    """Whether it asks models on the way too, not only at the end of their training."""


def _check_capacity(plan: "Plan") -> None:
    if not any(method.name == "full" for method in plan.contestants().values()):
        raise ConfigError(
            f"`--capacity` holds every update against that of full fine-tuning, got the methods "
            f"{', '.join(plan.contestants())}; add `full` to `--methods`"
        )


def _capacity(folder: Path, device: str, say: Say) -> dict[str, Any]:
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


def _robustness(folder: Path, device: str, say: Say) -> dict[str, Any]:
    from deltaproof.studies.robustness import robustness
    from deltaproof.training.precision import pick_device

    return robustness(folder, device=pick_device(device), say=say)


def _robustness_text(results: dict[str, Any]) -> str:
    from deltaproof.cli.output import columns
    from deltaproof.studies.robustness_text import robustness_text

    return robustness_text(results, columns())


SUITES: dict[str, Suite] = {
    "robustness": Suite(_check_robustness, _robustness, _robustness_text, needs_snapshots=True),
    "capacity": Suite(_check_capacity, _capacity, _capacity_text),
}
