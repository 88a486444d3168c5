"""What gates said of a run's models, kept in its folder for the report: `studies/gates.json`."""

from collections.abc import Sequence
from typing import Any

from deltaproof.experiments.document import now
from deltaproof.records.store import read_json, write_json
from deltaproof.shipping.evidence import Run
from deltaproof.shipping.gate import Gate, all_hold

STUDY, FORMAT = "gates", 1


def enter_gates(run: Run, what: str, gates: Sequence[Gate]) -> None:
    """Enter an outcome, in the place of an earlier one of the same model and question; safe beside other processes.

    Args:
        what: what was asked, such as `export as merged`.
    """
    spec = run.record.spec
    entry: dict[str, Any] = {
        "what": what,
        "key": spec.key,
        "contestant": spec.contestant,
        "seed": spec.seed,
        "holds": all_hold(gates),
        "gates": [gate.to_json() for gate in gates],
        "written": now(),
    }
    path = run.store.study_path(STUDY)
    with run.store.lock(STUDY):
        found = read_json(path)["runs"] if path.exists() else []
        others = [other for other in found if (other["key"], other["what"]) != (entry["key"], entry["what"])]
        write_json(path, {"format": FORMAT, "runs": [*others, entry]})
