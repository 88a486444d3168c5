"""The demo's real data, which every machine with Python carries: does this docstring describe this function?"""

import platform
import sysconfig
from pathlib import Path

import numpy as np

from deltaproof.data.dataset import Dataset, dataset_fingerprint
from deltaproof.data.library import Function, functions_of, library_files, shuffled
from deltaproof.data.sealed import SealedSplit
from deltaproof.data.split import Split
from deltaproof.errors import DataError

SIZES = {"train": 800, "validation": 250, "test": 1500}
LABELS = ["exchanged", "matches"]


def demo_data(root: Path | None = None) -> Dataset:
    """Pairs of a docstring's first sentence and a function; in half of the rows the sentences are exchanged.

    The functions are those of the standard library of the Python that runs. A file belongs to one split, a function
    and a sentence to one row. The same Python version gives the same rows.

    Args:
        root: folder of the library, where it is not that of the Python that runs.
    Errors:
        DataError: this Python carries too few sources, as a stripped installation does.
    """
    root = root or Path(sysconfig.get_path("stdlib"))
    splits = {name: _exchange_half(name, functions) for name, functions in _functions_by_split(root).items()}
    note = (
        f"first sentences of docstrings, and functions, of the standard library of Python {platform.python_version()}; "
        f"half of the sentences are exchanged within their split; no file stands in two splits"
    )
    return Dataset(
        name="standard library docstrings",
        kind="classification",
        labels=LABELS,
        text_columns=("docstring", "function"),
        label_column="label",
        train=splits["train"],
        validation=splits["validation"],
        test=SealedSplit.seal(splits["test"]),
        fingerprint=dataset_fingerprint("classification", LABELS, *(split.fingerprint for split in splits.values())),
        notes=[note],
    )


def _functions_by_split(root: Path) -> dict[str, list[Function]]:
    """Functions of each split, file after file until the split is full; none twice, as some modules copy others."""
    parts: dict[str, list[Function]] = {name: [] for name in SIZES}
    seen: set[str] = set()
    for path in library_files(root):
        name = next((name for name, size in SIZES.items() if len(parts[name]) < size), None)
        if name is None:
            break
        for function in functions_of(root, path):
            if not seen & {function.sentence, function.code}:
                seen |= {function.sentence, function.code}
                parts[name].append(function)
    for name, size in SIZES.items():
        if len(parts[name]) < size:
            raise DataError(
                f"the standard library at `{root}` must give {size} {name} rows, got {len(parts[name])}; "
                f"use a Python that carries its sources, or data of your own"
            )
    return {name: functions[: SIZES[name]] for name, functions in parts.items()}


def _exchange_half(name: str, functions: list[Function]) -> Split:
    """A split in which the functions of one half keep their sentences and those of the other pass theirs on by one."""
    functions = sorted(functions, key=lambda function: function.key)
    half = len(functions) // 2
    others = [function.sentence for function in functions[half:]]
    sentences = [function.sentence for function in functions[:half]] + others[1:] + others[:1]
    matches = [1.0] * half + [0.0] * len(others)
    order = sorted(range(len(functions)), key=lambda index: shuffled(f"order of {functions[index].place}"))
    return Split(
        name,
        [functions[index].place for index in order],
        [(sentences[index], functions[index].code) for index in order],
        np.array([[matches[index]] for index in order]),
    )
