"""A model between its base and its tuned form as a folder, with its record."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from deltaproof import __version__
from deltaproof.experiments.document import now
from deltaproof.experiments.environment import environment
from deltaproof.records.record import Record
from deltaproof.records.store import write_json
from deltaproof.shipping.folders import EVIDENCE
from deltaproof.shipping.gate import Gate, all_hold
from deltaproof.shipping.place import check_place, neighbour, put_in_place
from deltaproof.shipping.whole import write_whole
from deltaproof.studies.grounds import Ground
from deltaproof.studies.interpolation import Curve, append, whole_spec

Say = Callable[[str], None]


def write_interpolated(
    curve: Curve, alpha: float, out: Path, overwrite: bool = False, say: Say = lambda text: None
) -> tuple[list[Gate], bool]:
    """Write the model at one alpha of the curve; returns the gates, and whether the folder stands."""
    check_place(out, overwrite)
    base, ground, spec = curve.kept.record.spec.model, Ground(curve.bed.store), whole_spec(curve, alpha)
    say(f"writing {out}")
    with neighbour(out) as place:
        gates = write_whole(curve.line.at(alpha), curve.line.task, spec, base["name"], place)
        facts: dict[str, Any] = {
            "format": 1,
            "made_by": f"deltaproof {__version__}, interpolate",
            "base": base,
            "task": curve.line.task.to_json(),
            "alpha": alpha,
            "curve": curve.to_json(),
            "gates": [gate.to_json() for gate in gates],
        }
        write_json(place / EVIDENCE, facts)
        holds = all_hold(gates)
        if holds:
            put_in_place(place, out, overwrite)
    if holds:
        test = curve.answers["test"][alpha] if "test" in curve.answers else None
        scores = {} if test is None else ground.scores(test)
        validation = ground.scores(curve.answers["validation"][alpha])
        record = Record(spec, "done", validation, scores, environment=environment(), started=now())
        curve.bed.store.write(record, test)
        curve.entry["written"].append({"alpha": alpha, "folder": out.name, "key": spec.key})
        append(curve.bed.store, curve.entry, curve.bed)
    return gates, holds
