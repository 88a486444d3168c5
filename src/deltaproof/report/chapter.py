"""A chapter of the page: what a study of the runs found, in plain sentences, figures and tables."""

from collections.abc import Callable
from dataclasses import dataclass

from deltaproof.report.figure import Figure
from deltaproof.report.grid import Grid


def _none() -> Grid | None:
    return None


@dataclass(frozen=True)
class Chapter:
    """One study, or several that belong together; drawn from what stands in the run folder's `studies/` alone."""

    name: str
    """Short and unique: its anchor in the page."""
    title: str
    lead: tuple[str, ...]
    """Sentences that say what was found, for those who read no further."""
    blocks: tuple[Figure | Grid, ...] = ()
    """Figures and tables in reading order, each readable without the text."""
    notes: tuple[str, ...] = ()
    """What limits the findings."""
    examples: Callable[[], Grid | None] = _none
    """A table that shows texts of test examples, read only for a page that may show them."""

    @property
    def figures(self) -> list[Figure]:
        return [block for block in self.blocks if isinstance(block, Figure)]
