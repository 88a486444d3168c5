"""Runs made with other library versions: they stay in the folder, are left out, and are spoken of."""

from collections import Counter, defaultdict
from typing import Any

from deltaproof.experiments.environment import versions
from deltaproof.records.store import Store


def left_out(store: Store, names: list[str], data_fingerprint: str) -> dict[str, list[str]]:
    """By contestant, a sentence for each set of other versions that its runs on this data were made with."""
    current = versions()
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for record in store.records():
        then = record.spec.training.get("versions")
        is_ours = record.spec.contestant in names and record.spec.data["fingerprint"] == data_fingerprint
        if is_ours and then != current:
            counts[record.spec.contestant][_difference(then or {}, current)] += 1
    return {
        name: [
            f"{n} run{'s are' if n > 1 else ' is'} in this folder and left out: made with {difference}"
            for difference, n in counts[name].items()
        ]
        for name in counts
    }


def _difference(then: dict[str, Any], current: dict[str, Any]) -> str:
    """
    >>> _difference({"torch": "2.12", "peft": "0.21"}, {"torch": "2.13", "peft": "0.21"})
    'torch 2.12 (2.13 now)'
    """
    names = [name for name in {**then, **current} if then.get(name) != current.get(name)]
    return ", ".join(f"{name} {then.get(name, 'none')} ({current.get(name, 'none')} now)" for name in names)
