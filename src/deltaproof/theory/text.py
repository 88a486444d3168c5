"""A diagnosis as a terminal shows it."""

import io

from rich import box
from rich.console import Console
from rich.table import Table

from deltaproof.theory.diagnose import Diagnosis
from deltaproof.theory.rows import MatrixRow

WIDEST = 200
_COLUMNS = ("|W0|2", "|D|F", "|D|2", "|D|2/|W0|2", "r90 (noise)", "stable", "entropy", "in rank 8", "above noise")
LEGEND = (
    "W0 base weight, D its change; r90: singular values that hold 90 % of D's energy, in brackets for Gaussian noise "
    "of that shape; stable, entropy: two other ranks; in rank 8: energy of the best rank-8 part; above noise: singular "
    "values beyond the edge of noise."
)
_INTRUDERS = " Intruders: by the definition, of the ten leading ones; in brackets those that noise would not make."


def to_text(diagnosis: Diagnosis, width: int = 110) -> str:
    """One line per matrix, one per role, the findings and the notes."""
    out = io.StringIO()
    console = Console(file=out, width=width, highlight=False, color_system=None)
    if diagnosis.rows:
        wide = Console(file=out, width=max(width, WIDEST), highlight=False, color_system=None)
        wide.print(_matrices(diagnosis), markup=False)  # a line too wide is better than one cut
        wide.print(_roles(diagnosis), markup=False)
        has_intruders = any(row.intruders for row in diagnosis.rows)
        console.print(LEGEND + (_INTRUDERS if has_intruders else "") + "\n", markup=False)
    if diagnosis.vectors:
        largest = max(diagnosis.vectors, key=lambda vector: vector.norm)
        console.print(
            f"{len(diagnosis.vectors)} biases and norms changed, most of all {largest.name}: by {largest.norm:.3g}, "
            f"its own length being {largest.base_norm:.3g}.\n",
            markup=False,
        )
    for finding in diagnosis.findings:
        console.print(f"- {finding}.", markup=False)
    for note in diagnosis.notes:
        console.print(f"note: {note}", markup=False)
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()).strip("\n")


def _matrices(diagnosis: Diagnosis) -> Table:
    has_intruders = any(row.intruders for row in diagnosis.rows)
    has_other = any(row.agreement for row in diagnosis.rows)
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    grid.add_column("layer", justify="right")
    grid.add_column("role")
    for heading in (*_COLUMNS, *(["intruders"] if has_intruders else []), *(["cosine"] if has_other else [])):
        grid.add_column(heading, justify="right", no_wrap=True)
    for row in diagnosis.rows:
        cells = [*_cells(row)]
        if has_intruders:
            cells.append(f"{row.intruders.n_official()} ({row.intruders.n_robust()})" if row.intruders else "")
        if has_other:
            cells.append(f"{row.agreement.cosine:.2f}" if row.agreement else "")
        grid.add_row("" if row.layer is None else str(row.layer), _label(row), *cells)
    return grid


def _label(row: MatrixRow) -> str:
    """The role, or the name where the role does not say which matrix it is."""
    return row.role if row.role is not None and row.layer is not None else row.name.removesuffix(".weight")


def _cells(row: MatrixRow) -> list[str]:
    found = row.spectrum
    return [
        f"{row.base_norm_2:.3g}",
        f"{found.norm_f:.3g}",
        f"{found.norm_2:.3g}",
        f"{row.ratio_2:.2g}",
        f"{found.r90} ({row.r90_noise})",
        f"{found.stable_rank:.1f}",
        f"{found.entropy_rank:.1f}",
        f"{found.energy(8):.0%}",
        str(row.n_above_noise),
    ]


def _roles(diagnosis: Diagnosis) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    grid.add_column("all of a role")
    for heading in ("matrices", "|D|F", "|D|F/|W0|F", "r90, median", "of noise's", "stable, median", "in rank 8"):
        grid.add_column(heading, justify="right", no_wrap=True)
    for role, here in diagnosis.summary["by_role"].items():
        grid.add_row(
            role,
            str(here["n_matrices"]),
            f"{here['norm_f']:.3g}",
            f"{here['ratio_f']:.2g}",
            f"{here['median_r90']:.0f}",
            f"{here['median_r90_over_noise']:.0%}",
            f"{here['median_stable_rank']:.1f}",
            f"{here['energy_8']:.0%}",
        )
    return grid
