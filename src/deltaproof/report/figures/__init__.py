"""Every figure of the report, each made from a study or, for Python users, from a table."""

from deltaproof.experiments.standings import Standings
from deltaproof.report.figure import Figure
from deltaproof.report.figures import confusion, forest, learning, pareto, rates, reliability, values
from deltaproof.report.study import Study


def forest_plot(table: Standings) -> Figure:
    """Differences to the reference with their intervals and the equivalence margin; shows itself in a notebook."""
    return forest.figure(Study(table))


def all_figures(study: Study) -> dict[str, Figure]:
    """The figures that the experiment has material for, by name, in the order of the report."""
    makers = (
        forest.figure,
        pareto.figure,
        learning.figure,
        rates.figure,
        confusion.figure,
        reliability.figure,
        values.figure,
    )
    made = [figure for make in makers if (figure := make(study)).panels]
    return {figure.name: figure for figure in made}


__all__ = ["Figure", "all_figures", "forest_plot"]
