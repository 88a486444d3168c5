"""Run folders for the report's tests."""

from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic_experiment import Experiment, build

from deltaproof.experiments.table import Table, table_from


@pytest.fixture
def table_of(tmp_path: Path) -> Callable[..., Table]:
    """Builds a run folder from the fields of `Experiment` and reads its table."""

    def make(**fields: object) -> Table:
        return table_from(build(tmp_path / "run", Experiment(**fields)))  # type: ignore[arg-type]

    return make
