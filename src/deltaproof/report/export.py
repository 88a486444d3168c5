"""Files for papers and slides: the table as CSV and LaTeX, every figure as SVG and PNG."""

import csv
import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from deltaproof.errors import ConfigError, MissingExtraError, nearest
from deltaproof.experiments.standings import Standings
from deltaproof.records.store import write_atomically
from deltaproof.report.chapters import all_chapters
from deltaproof.report.figures import all_figures
from deltaproof.report.grid import Cell, Grid
from deltaproof.report.study import Study
from deltaproof.report.tables import results

FORMATS = ("csv", "latex", "svg", "png")
_PNG_SCALE = 2.0
"""Pixels per unit: sharp in print at column width."""
_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    "−": "$-$",
    "–": "--",
    "×": r"$\times$",
    "±": r"$\pm$",
    "≈": r"$\approx$",
    "…": r"\ldots{}",
    "\u202f": r"\,",
    "\u00a0": "~",
    "\n": " ",
}


def export(table: Standings, folder: Path | str, formats: Sequence[str] = FORMATS) -> list[Path]:
    """Write the table and every figure to `folder`; returns the files.

    Errors:
        ConfigError: an unknown format. MissingExtraError: PNG without the extra `[figures]`; nothing is written then.
    """
    folder = Path(folder)
    for name in formats:
        if name not in FORMATS:
            raise ConfigError(f"a format must be one of {', '.join(FORMATS)}, got `{name}`; {nearest(name, FORMATS)}")
    to_png = _png_writer() if "png" in formats else None
    study = Study(table)
    files: dict[str, str | bytes] = {}
    if "csv" in formats:
        files["results.csv"] = table_csv(table)
    if "latex" in formats:
        files["results.tex"] = grid_latex(results(study), f"tab:{_slug(str(table.experiment['name']))}")
    of_chapters = {figure.name: figure for chapter in all_chapters(study) for figure in chapter.figures}
    for name, figure in {**all_figures(study), **of_chapters}.items():
        if "svg" in formats:
            files[f"{name}.svg"] = figure.svg
        if to_png is not None:
            files[f"{name}.png"] = to_png(figure.svg)
    for name, content in files.items():
        write_atomically(folder / name, content)
    return [folder / name for name in files]


def _png_writer() -> Callable[[str], bytes]:
    try:
        import vl_convert
    except ImportError:
        raise MissingExtraError(
            "PNG files need the extra [figures], which is not installed; run `pip install 'deltaproof[figures]'`, or "
            "leave `png` out of the formats"
        ) from None
    return lambda svg: bytes(vl_convert.svg_to_png(svg, scale=_PNG_SCALE))


def table_csv(table: Standings) -> str:
    """One row per contestant and baseline, with unrounded numbers."""
    rows = []
    for group in ("methods", "baselines"):
        for entry in table.to_json()[group]:
            scores, cost = entry.pop("scores"), entry.pop("cost")
            notes = "; ".join(entry.pop("notes"))
            rows.append(
                {
                    "group": group,
                    **entry,
                    **{f"test_{name}": value for name, value in scores.items()},
                    **cost,
                    "notes": notes,
                }
            )
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def grid_latex(table: Grid, label: str) -> str:
    """A `table` environment in the style of the package `booktabs`."""
    letters = "".join("l" if index in table.text_columns else "r" for index in range(len(table.columns)))
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{latex(table.caption)}}}",
        rf"\label{{{label}}}",
        rf"\begin{{tabular}}{{{letters}}}",
        r"\toprule",
        " & ".join(map(latex, table.columns)) + r" \\",
        r"\midrule",
    ]
    for position, section in enumerate(table.sections):
        if position:
            lines.append(r"\midrule")
        if section.heading:
            lines.append(rf"\multicolumn{{{len(table.columns)}}}{{l}}{{\emph{{{latex(section.heading)}}}}} \\")
        lines += [
            " & ".join(_latex_cell(cell, index) for index, cell in enumerate(row)) + r" \\" for row in section.rows
        ]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])


def _latex_cell(cell: Cell, column: int) -> str:
    """The text, and intervals in brackets; what is said in words under a verdict stays on the page."""
    is_interval = bool(re.match(r"[−+\d.]+ to ", cell.detail))
    detail = (
        f" [{cell.detail.replace(' to ', ', ')}]"
        if is_interval
        else f" ({cell.detail})"
        if cell.detail and column == 0
        else ""
    )
    return latex(cell.text + detail)


def latex(text: str) -> str:
    """Text with LaTeX's own letters made harmless.

    >>> latex("50 % of f_1 & −2")
    '50 \\\\% of f\\\\_1 \\\\& $-$2'
    """
    return "".join(_LATEX.get(letter, letter) for letter in text)


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-") or "results"
