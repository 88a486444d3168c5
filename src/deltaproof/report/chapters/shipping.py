"""Ship it: how small the updates can be made, what that drops, how they merge, and what the gates say."""

from deltaproof.report.chapter import Chapter
from deltaproof.report.figure import Figure
from deltaproof.report.figures import compression_dropped, compression_sizes, interpolation, merges
from deltaproof.report.gates_table import gates_table
from deltaproof.report.grid import Grid
from deltaproof.report.numbers import sentence
from deltaproof.report.study import Study
from deltaproof.studies.compression_text import sentences

STUDIED = ("compression", "merging", "interpolation", "gates")


def shipping(study: Study) -> Chapter | None:
    """None where nothing was compressed, merged or asked of gates."""
    compressed, merged, between, gated = (study.studies.get(name) for name in STUDIED)
    blocks: list[Figure | Grid | None] = []
    lead: list[str] = []
    notes: list[str] = []
    if compressed:
        blocks += [
            compression_sizes.figure(study, compressed),
            compression_sizes.results(compressed),
            compression_dropped.tried(compressed),
            compression_dropped.figure(compressed),
            compression_dropped.by_role(compressed),
        ]
        lead += [sentence(said) for said in sentences(compressed)]
        notes += [sentence(f"{label} is not compressed: {why}") for label, why in compressed["left_out"].items()]
        if all(entry["n_seeds"] == 1 for entry in compressed["contestants"]):
            notes.append("One kept model of each method was compressed: nothing is said of other seeds.")
    if merged and merged["merges"]:
        blocks += [merges.figure(merged)]
    if between and between["models"]:
        blocks += [interpolation.figure(between)]
    if gated and gated["runs"]:
        blocks += [gates_table(gated)]
        lead.append(_gates(gated["runs"]))
    shown = tuple(block for block in blocks if block is not None and (isinstance(block, Grid) or block.panels))
    return Chapter("ship-it", "Ship it", tuple(lead), shown, tuple(notes)) if shown else None


def _gates(runs: list[dict[str, object]]) -> str:
    held = sum(bool(run["holds"]) for run in runs)
    what = "export or check" if len(runs) == 1 else "exports and checks"
    return f"Of {len(runs)} {what}, {held} passed every gate."
