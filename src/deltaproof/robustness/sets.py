"""Perturbed copies of a data set's rows, and adversarial sets that a user brings: made, read and written."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from deltaproof.data.checks import read_groups, read_pairs
from deltaproof.data.columns import find_columns
from deltaproof.data.dataset import Dataset
from deltaproof.data.numbers import as_number, is_code, is_missing
from deltaproof.data.reading import Reading
from deltaproof.data.sources import read_source
from deltaproof.data.split import Split
from deltaproof.data.table import Table
from deltaproof.data.targets import Targets, read_targets
from deltaproof.errors import ConfigError, DataError, nearest
from deltaproof.records.store import write_atomically
from deltaproof.robustness.perturbations import PERTURBATIONS, Perturbed, Promise, TextEdit

_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("texts", pa.list_(pa.string())),
        ("target", pa.list_(pa.float64())),
        ("group", pa.string()),
        ("perturbation", pa.string()),
        ("strength", pa.float64()),
        ("seed", pa.int64()),
        ("promise", pa.string()),
        ("source", pa.string()),
        ("budgets", pa.list_(pa.int64())),
        ("queries", pa.int64()),
        ("words", pa.int64()),
        ("edits", pa.list_(pa.list_(pa.struct([("start", pa.int64()), ("end", pa.int64()), ("text", pa.string())])))),
    ]
)
"""One row of a perturbed set on disk; `budgets` and `edits` have one entry for each of the row's texts."""


@dataclass(frozen=True, eq=False)
class PerturbedSet:
    """A split after one perturbation at one strength, and how it came about."""

    perturbation: str
    strength: float
    seed: int
    promise: Promise
    """Whether labels were kept, in tasks about meaning; what cannot promise it is noise."""
    source: str
    """Where the perturbation's words come from, such as `deltaproof` or `wordnet 3.0`."""
    split: Split
    """Ids, targets and groups of the clean split, with other texts."""
    perturbed: list[tuple[Perturbed, ...]]
    """Each row's texts with the edits made and the budget they had."""
    n_queries: np.ndarray | None = None
    """(n,) of a set that a search found: what a model was asked about each row."""
    n_words: np.ndarray | None = None
    """(n,) likewise: words of each row that the budget is a share of."""

    @property
    def n_edits(self) -> np.ndarray:
        """(n,) edits made in each row."""
        return np.array([sum(len(text.edits) for text in row) for row in self.perturbed])

    @property
    def budget(self) -> np.ndarray:
        """(n,) most edits allowed in each row."""
        return np.array([sum(text.budget for text in row) for row in self.perturbed])


@dataclass(frozen=True, eq=False)
class AdversarialSet:
    """Rows that a user brought to try models on, with the labels of the data set that they were trained on."""

    name: str
    split: Split
    """Its groups, where a group column was named, are contrast sets or counterfactual pairs."""
    notes: list[str] = field(default_factory=list)


def perturb_split(split: Split, name: str, strength: float, seed: int = 0) -> PerturbedSet:
    """The rows of a split after one of the ten perturbations of texts.

    A row's texts depend on its id, its texts, the name, the strength and the seed; not on the other rows.

    Raises:
        ConfigError: an unknown perturbation, or a strength outside of 0..1.
    """
    kind = PERTURBATIONS[name]
    rows = [
        kind.perturb_row(texts, strength, seed, row_id) for row_id, texts in zip(split.ids, split.texts, strict=True)
    ]
    texts = [tuple(text.text for text in row) for row in rows]
    n_texts = len(split.texts[0]) if split.texts else 1
    changed = Split(split.name, split.ids, texts, split.targets, split.groups)
    return PerturbedSet(name, strength, seed, kind.promise(n_texts), kind.source(), changed, rows)


def perturbed_sets(split: Split, names: Iterable[str] = PERTURBATIONS, seed: int = 0) -> Iterator[PerturbedSet]:
    """Every perturbation at each of its usual strengths."""
    for name in names:
        for strength in PERTURBATIONS[name].levels:
            yield perturb_split(split, name, strength, seed)


def write_perturbed(path: Path | str, made: PerturbedSet) -> None:
    """Write the exact texts with all that made them: one row each, to `.jsonl` or `.parquet`, whole or not at all."""
    path = Path(path)
    rows = list(_rows(made))
    if path.suffix == ".jsonl":
        write_atomically(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))
    elif path.suffix == ".parquet":
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA), sink, compression="zstd")
        write_atomically(path, sink.getvalue().to_pybytes())
    else:
        raise _unknown_ending(path)


def write_rows(path: Path, split: Split) -> None:
    """Write the exact rows of a set as JSON lines, whole or not at all: id, texts, target and group."""
    groups: Sequence[str | None] = split.groups or [None] * len(split)
    rows = (
        {"id": row_id, "texts": list(texts), "target": target.tolist(), "group": group}
        for row_id, texts, target, group in zip(split.ids, split.texts, split.targets, groups, strict=True)
    )
    write_atomically(path, "".join(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n" for row in rows))


def read_perturbed(path: Path | str) -> PerturbedSet:
    """What `write_perturbed` wrote; the split takes the file's name.

    Raises:
        DataError: the file is missing, or is not what `write_perturbed` writes.
    """
    path = Path(path)
    try:
        if path.suffix == ".jsonl":
            # the line break alone ends a row: texts may hold other characters that `splitlines` breaks at
            rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        elif path.suffix == ".parquet":
            rows = pq.ParquetFile(path).read().to_pylist()
        else:
            raise _unknown_ending(path)
        first = rows[0]
        groups = [row["group"] for row in rows]
        split = Split(
            path.stem,
            [row["id"] for row in rows],
            [tuple(row["texts"]) for row in rows],
            np.array([[np.nan if value is None else value for value in row["target"]] for row in rows], dtype=float),
            None if groups[0] is None else groups,
        )
        perturbed = [_perturbed(row) for row in rows]
        searched = [
            None if first.get(name) is None else np.array([row[name] for row in rows]) for name in ("queries", "words")
        ]
        return PerturbedSet(
            first["perturbation"], first["strength"], first["seed"], first["promise"], first["source"], split,
            perturbed, *searched,
        )  # fmt: skip
    except (OSError, ValueError, KeyError, IndexError, TypeError) as error:
        raise DataError(
            f"`{path}` must hold perturbed texts as `write_perturbed` writes them, got {error!r}; write it anew"
        ) from None


def read_adversarial(
    source: Any,
    dataset: Dataset,
    *,
    text: str | Sequence[str] | None = None,
    label: str | Sequence[str] | None = None,
    group: str | None = None,
    label_names: Mapping[str, str] | None = None,
    encoding: str | None = None,
    needs_group: bool = True,
) -> AdversarialSet:
    """Rows of a user's own adversarial, shifted or contrast set, with labels as the data set numbers them.

    Args:
        source: whatever `load_data` reads; of a source with splits, `test` where it has one, else `train`.
        dataset: the data that models are trained on: its columns are looked for, its labels are meant.
        text: the text columns, where they are called otherwise here; found by their names when left out.
        label: the label column or columns, likewise.
        group: column that names contrast sets or counterfactual pairs.
        label_names: what the file writes to the data set's name for it, such as `{"0": "negative"}`.
        needs_group: False where the group column counts only if the file has it.
    Raises:
        DataError: a column is missing, a text is empty, or a label is none of the data set's.
    """
    name, tables = read_source(source, Reading(encoding))
    table = tables.get("test", tables["train"])
    if group is not None and not needs_group and group not in table.columns:
        group = None
    columns = find_columns(
        table,
        text or _if_there(table, dataset.text_columns),
        label or _if_there(table, [name.strip() for name in dataset.label_column.split(",")]),
        group,
    )
    if len(columns.text) != len(dataset.text_columns):
        raise DataError(
            f"{table.origin}: rows must have {_texts(len(dataset.text_columns))} as the data set has, got "
            f"{_texts(len(columns.text))} ({', '.join(columns.text)}); name the columns with `text`, or leave this "
            f"file out"
        )
    targets = read_targets(
        {"adversarial": _renamed(table, columns.label, label_names or {})}, columns.label, dataset.kind
    )
    groups = read_groups(table, columns.group)
    numbered = _numbered(table, targets, dataset)
    split = Split(name, table.ids(), read_pairs(table, columns.text), numbered, groups)
    reach = 100 * 1.96 * (0.25 / len(split)) ** 0.5
    notes = [*table.notes, f"{len(split)} rows: an accuracy near one half is known to ±{reach:.0f} points at best"]
    return AdversarialSet(name, split, notes)


def _if_there(table: Table, names: Sequence[str]) -> Sequence[str] | None:
    """The data set's own columns, where the table has them all; None for those that their names tell."""
    return names if set(names) <= set(table.columns) else None


def _texts(n: int) -> str:
    return "one text" if n == 1 else "a pair of texts"


def _renamed(table: Table, label: tuple[str, ...], names: Mapping[str, str]) -> Table:
    """The table with what stands in its label column under the data set's names."""
    if not names or len(label) > 1:
        return table
    stated = table.class_names.get(label[0], [])
    values = [_name_of(value, names, stated) for value in table.columns[label[0]]]
    return replace(table, columns={**table.columns, label[0]: values}, class_names={})


def _name_of(value: Any, names: Mapping[str, str], stated: Sequence[str]) -> Any:
    """The data set's name for what stands in a label column; the value itself where the user said nothing of it.

    What was written counts first; then `1.0` is 1, a truth value is 1 or 0, and capitals do not matter.

    Args:
        stated: names of whole numbers that the file itself states.
    """
    if is_missing(value) or isinstance(value, list | dict | np.ndarray):
        return value
    whole = _whole(value)
    own = stated[whole] if whole is not None and 0 <= whole < len(stated) else value
    written = str(own).strip()
    if written in names:
        return names[written]
    same = {name for key, name in names.items() if whole is not None and _whole(key) == whole}
    same = same or {name for key, name in names.items() if key.strip().casefold() == written.casefold()}
    return same.pop() if len(same) == 1 else own


def _whole(value: Any) -> int | None:
    """The whole number that a label is, a truth value as 1 or 0; None for words and codes such as `007`."""
    number = float(value) if isinstance(value, bool | np.bool_) else as_number(value)
    if number is None or is_code(value) or not number.is_integer():
        return None
    return int(number)


def _numbered(table: Table, targets: Targets, dataset: Dataset) -> np.ndarray:
    """Targets by the data set's numbers of its labels."""
    values = targets.values["adversarial"]
    if dataset.labels is None or targets.labels is None:
        return values
    place = [_place(name, dataset.labels) for name in targets.labels]
    for own, where in enumerate(place):
        if where is None:
            has = values[:, 0] == own if dataset.kind == "classification" else values[:, own] > 0
            known = ", ".join(f"`{name}`" for name in dataset.labels[:8])
            table.refuse(
                np.flatnonzero(has).tolist(),
                f"the label must be one of the data set's ({known})",
                f"`{targets.labels[own]}`",
                f"{nearest(targets.labels[own], dataset.labels)}; say what it stands for with "
                f'`label_names`, such as {{"{targets.labels[own]}": "{dataset.labels[0]}"}}',
            )
    if dataset.kind == "classification":
        return np.array([[place[int(value)]] for value in values[:, 0]], dtype=float)
    numbered = np.zeros((len(values), len(dataset.labels)))
    for own, where in enumerate(place):
        if where is not None:
            numbered[:, where] = values[:, own]
    return numbered


def _place(name: str, labels: list[str]) -> int | None:
    """The label of this name; else the only one that differs in upper and lower case alone."""
    if name in labels:
        return labels.index(name)
    alike = [place for place, known in enumerate(labels) if known.casefold() == name.casefold()]
    return alike[0] if len(alike) == 1 else None


def _rows(made: PerturbedSet) -> Iterator[dict[str, Any]]:
    split = made.split
    for at, row in enumerate(made.perturbed):
        searched = (
            {"queries": int(made.n_queries[at]), "words": int(made.n_words[at])}
            if made.n_queries is not None and made.n_words is not None
            else {}
        )
        yield {
            "id": split.ids[at],
            "texts": [text.text for text in row],
            "target": [float(value) if np.isfinite(value) else None for value in split.targets[at]],
            "group": None if split.groups is None else split.groups[at],
            "perturbation": made.perturbation,
            "strength": made.strength,
            "seed": made.seed,
            "promise": made.promise,
            "source": made.source,
            "budgets": [text.budget for text in row],
            **searched,
            "edits": [[vars(edit) for edit in text.edits] for text in row],
        }


def _perturbed(row: dict[str, Any]) -> tuple[Perturbed, ...]:
    parts = zip(row["texts"], row["edits"], row["budgets"], strict=True)
    return tuple(Perturbed(text, tuple(TextEdit(**edit) for edit in edits), budget) for text, edits, budget in parts)


def _unknown_ending(path: Path) -> ConfigError:
    return ConfigError(f"`{path.name}` must end in .jsonl or .parquet, got `{path.suffix}`; choose one of these")
