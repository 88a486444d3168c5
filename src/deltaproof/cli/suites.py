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


SUITES: dict[str, Suite] = {"capacity": Suite(_check_capacity, _capacity, _capacity_text)}
