"""An experiment as the report reads it: the table, and the records and predictions behind it, each read once."""

from functools import cache, cached_property
from typing import Any

import numpy as np

from deltaproof.experiments.row import Row
from deltaproof.experiments.standings import Standings
from deltaproof.records.record import Predictions, Record
from deltaproof.records.store import Store
from deltaproof.report.drawing.svg import Style

_SHAPES = ("circle", "square", "up", "down", "plus", "right")


class Study:
    """A table with what stands behind it."""

    def __init__(self, table: Standings) -> None:
        self.table = table
        self.store = Store(table.folder)
        self.experiment = table.experiment
        self.kind: str = table.experiment["data"]["kind"]
        self.labels: list[str] = [str(label) for label in table.experiment["data"].get("labels") or []]
        self.record = cache(self.store.find)
        self.predictions = cache(self.store.predictions)
        self._means: dict[str, np.ndarray] = {}

    @cached_property
    def studies(self) -> dict[str, dict[str, Any]]:
        """What studies of the kept models measured, by name: `studies["spectra"]`."""
        return self.store.studies()

    @cached_property
    def done(self) -> list[Row]:
        """The contestants that came through."""
        return [row for row in self.table.rows if row.status == "done"]

    @cached_property
    def contestants(self) -> dict[str, dict[str, Any]]:
        """What `experiment.json` says of each contestant."""
        return {entry["name"]: entry for entry in self.experiment["contestants"]}

    def finals(self, row: Row) -> list[Record]:
        """The final runs that are there, ended well or not."""
        return [record for key in row.keys if (record := self.record(key)) is not None]

    def answers(self, row: Row) -> list[Predictions]:
        """Test predictions, one per seed."""
        return [self.predictions(key) for key in row.keys]

    def mean_outputs(self, row: Row) -> np.ndarray:
        """(n, k) outputs, averaged over the seeds."""
        if row.name not in self._means:
            self._means[row.name] = np.mean([answer.outputs for answer in self.answers(row)], axis=0)
        return self._means[row.name]

    @cached_property
    def styles(self) -> dict[str, Style]:
        """How each contestant looks in every figure; the reference is neutral, baselines are pale."""
        styles = {self.table.reference: Style("series-0", "diamond")}
        others = [row.name for row in self.table.rows if row.name != self.table.reference]
        for position, name in enumerate(others):
            turn, index = divmod(position, len(_SHAPES))
            # the second time round the shapes move on, so that no colour meets the same shape again
            styles[name] = Style(f"series-{index + 1}", _SHAPES[(index + turn) % len(_SHAPES)], hollow=turn % 2 == 1)
        styles |= {row.name: Style("axis", "plus", hollow=True) for row in self.table.baselines}
        return styles

    def style(self, name: str) -> Style:
        """Of a contestant that a study names; a plain one where the table no longer has it."""
        return self.styles.get(name, Style("muted", "plus", hollow=True))

    def label(self, index: int) -> str:
        return self.labels[index] if index < len(self.labels) else str(index)
