"""Rows that stand in more than one split, and rows that contradict each other."""

from collections import defaultdict

import numpy as np

from deltaproof.data.split import Split


def find_leaks(splits: dict[str, Split], drop: bool) -> tuple[dict[str, Split], list[str]]:
    """Texts that stand in two splits: counted, and removed from the earlier of the two where `drop` is set.

    The test split stays whole; a text in training and validation is removed from training.

    Args:
        splits: train, validation, test, in this order.
    """
    notes = []
    cleaned = dict(splits)
    names = list(splits)
    for earlier, later in [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]:
        where = dict(zip(splits[later].texts, splits[later].ids, strict=True))
        split = cleaned[earlier]
        leaked = [i for i, texts in enumerate(split.texts) if texts in where]
        if not leaked:
            continue
        examples = ", ".join(f"{split.ids[i]} = {where[split.texts[i]]}" for i in leaked[:3])
        remedy = f"they were removed from {earlier}" if drop else "`--drop-leaks` removes them"
        notes.append(
            f"leak: {len(leaked)} rows of {earlier} have the same text as rows of {later} ({examples}); {remedy}"
        )
        if drop:
            kept = np.ones(len(split), dtype=bool)
            kept[leaked] = False
            cleaned[earlier] = split.take(np.flatnonzero(kept))
    return cleaned, notes


def shared_groups(splits: dict[str, Split]) -> list[str]:
    """Notes on groups that stand in two splits although their rows belong together."""
    notes = []
    names = list(splits)
    for earlier, later in [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]:
        shared = sorted(set(splits[earlier].groups or []) & set(splits[later].groups or []))
        if shared:
            listed = ", ".join(f"`{group}`" for group in shared[:3])
            notes.append(
                f"leak: {len(shared)} groups stand in both {earlier} and {later} ({listed}); move each to one split"
            )
    return notes


def find_conflicts(splits: dict[str, Split]) -> list[str]:
    """A note on texts that carry different targets in different rows, and one on repeated rows within training."""
    targets: dict[tuple[str, ...], dict[bytes, str]] = defaultdict(dict)
    for split in splits.values():
        for texts, target, row_id in zip(split.texts, split.targets, split.ids, strict=True):
            targets[texts].setdefault(target.tobytes(), row_id)
    conflicts = [list(rows.values()) for rows in targets.values() if len(rows) > 1]
    notes = []
    if conflicts:
        examples = ", ".join(" and ".join(rows[:2]) for rows in conflicts[:3])
        notes.append(
            f"{len(conflicts)} texts have different labels in different rows ({examples}); no model can answer both"
        )
    repeated = len(splits["train"]) - len(set(splits["train"].texts))
    if repeated:
        notes.append(f"{repeated} rows of train repeat the text of another row of train")
    return notes
