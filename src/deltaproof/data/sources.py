"""What a user may give as data (a file, a folder, a hub id, objects in memory) to tables by split."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from deltaproof.data.delimited import read_delimited
from deltaproof.data.hub import is_hub_id, is_saved_folder, load_hub, load_saved_folder, splits_of
from deltaproof.data.json_rows import read_json_rows, table_of_objects
from deltaproof.data.label_text import read_label_text
from deltaproof.data.parquet_rows import read_parquet_rows
from deltaproof.data.reading import BY_ITS_ENDING, Reading
from deltaproof.data.table import Table, join
from deltaproof.errors import DataError, nearest

_BY_FORMAT: dict[str, Callable[[Path, Reading], Table]] = {
    "csv": read_delimited,
    "tsv": read_delimited,
    "json": read_json_rows,
    "jsonl": read_json_rows,
    "parquet": lambda path, _: read_parquet_rows(path),
    "label_text": read_label_text,
}
READERS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
}
"""Format by the ending of a file's name."""
_ROLES = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev", "eval"},
    "test": {"test", "testing"},
}


def read_file(path: Path | str, reading: Reading = BY_ITS_ENDING) -> Table:
    """One file as a table, by the format said or by its ending; `tasks.json#rte` is a list in a file of several.

    Errors:
        DataError: the file is missing (with the nearest name in its folder) or of an unknown kind.
    """
    path = Path(path)
    file, part = file_and_part(path)
    if part is not None:
        return read_json_rows(file, reading, part)
    if not path.is_file():
        raise DataError(f"`{path}` must be a file, found none; {_neighbours(path)}")
    chosen = reading.format or READERS.get(path.suffix.lower())
    if chosen is None:
        raise DataError(
            f"`{path.name}` must end in one of {', '.join(READERS)}, got `{path.suffix}`; save it as one of these, or "
            f"say what it is: `--format {'`, `--format '.join(_BY_FORMAT)}`"
        )
    if reading.columns and chosen not in ("csv", "tsv"):
        raise DataError(
            f"`columns` are for CSV and TSV files without a header line, got them for `{path.name}`; leave them out"
        )
    return _BY_FORMAT[chosen](path, reading)


def file_and_part(path: Path) -> tuple[Path, str | None]:
    """`tasks.json#rte` as the file and its part, where there is such a JSON file and none of the whole name."""
    name, mark, part = path.name.rpartition("#")
    file = path.with_name(name) if mark and name else path
    is_part = file != path and not path.exists() and file.suffix.lower() == ".json" and file.is_file()
    return (file, part) if is_part else (path, None)


def read_source(source: Any, reading: Reading = BY_ITS_ENDING) -> tuple[str, dict[str, Table]]:
    """A name for the data and its tables by split; data without splits are one table called `train`.

    Args:
        source: path of a file (or of a list in one, `tasks.json#rte`) or folder, id of a hub data set, list of
            mappings, mapping of columns or of splits, pandas data frame, or object of the `datasets` library.
    """
    if not isinstance(source, str | Path):
        return "data in memory", _in_memory(source)
    path = Path(source).expanduser()
    file, part = file_and_part(path)
    if part is not None:
        return f"{file.stem}#{part}", {"train": read_file(path, reading)}
    if path.is_dir():
        parts = load_saved_folder(path) if is_saved_folder(path) else _read_folder(path, reading)
        return path.resolve().name, _by_role(path.name, parts)
    if isinstance(source, Path) or path.is_file() or _reads_like_a_file(path) or not is_hub_id(source):
        return path.stem, {"train": read_file(path, reading)}
    return source, _by_role(source, load_hub(source))


def _reads_like_a_file(path: Path) -> bool:
    in_a_folder_here = path.parent != Path() and path.parent.is_dir()
    return in_a_folder_here or re.fullmatch(r"\.[a-zA-Z]{2,7}", path.suffix) is not None


def _neighbours(path: Path) -> str:
    if not path.parent.is_dir():
        return f"the folder `{path.parent}` does not exist either; check the path"
    names = [item.name for item in path.parent.iterdir() if item.suffix.lower() in READERS or item.is_dir()]
    if not names:
        return f"`{path.parent}` holds no data files; check the path"
    return nearest(path.name, names)


def _role(name: str) -> str | None:
    """The split that a file's or split's name speaks of; None where it speaks of none or of several."""
    words = set(re.split(r"[^a-z]+", name.lower()))
    found = [role for role, synonyms in _ROLES.items() if words & synonyms]
    return found[0] if len(found) == 1 else None


def _read_folder(folder: Path, reading: Reading) -> dict[str, Table]:
    files = sorted(item for item in folder.iterdir() if item.is_file() and item.suffix.lower() in READERS)
    if len(files) == 1:
        return {"train": read_file(files[0], reading)}
    shards: dict[str, list[Path]] = {}
    for file in files:
        if _role(file.stem) is not None:
            shards.setdefault(re.sub(r"-\d+-of-\d+$", "", file.stem), []).append(file)
    if not any(_role(stem) == "train" for stem in shards):
        names = ", ".join(file.name for file in files) or "no data files"
        raise DataError(
            f"`{folder}` must hold one data file, or files named train, validation and test, got {names}; "
            f"rename them, or give the file itself with `--validation` and `--test`"
        )
    return {
        stem: tables[0] if len(tables) == 1 else join(tables)
        for stem, tables in ((stem, [read_file(file, reading) for file in found]) for stem, found in shards.items())
    }


def _by_role(source: str, parts: Mapping[str, Table]) -> dict[str, Table]:
    """Splits under the names train, validation and test; where several claim one name, the plainest is taken."""
    found: dict[str, Table] = {}
    for role in _ROLES:
        names = sorted(
            (name for name in parts if _role(name) == role), key=lambda name: (name != role, len(name), name)
        )
        if names:
            found[role] = parts[names[0]]
            if names[1:]:
                found[role].notes.append(
                    f"of the {role} splits, `{names[0]}` was taken and {', '.join(names[1:])} left out"
                )
    if "train" not in found and len(parts) == 1:
        return {"train": next(iter(parts.values()))}
    if "train" not in found:
        raise DataError(
            f"`{source}` must have a split `train`, got {', '.join(parts)}; give a file of one split instead"
        )
    return found


def _in_memory(source: Any) -> dict[str, Table]:
    if hasattr(source, "with_format"):  # of the `datasets` library
        return _by_role("data in memory", splits_of(source))
    if isinstance(source, Mapping) and "train" in source and set(source) <= set(_ROLES):
        return {role: _one_in_memory(role, part) for role, part in source.items()}
    return {"train": _one_in_memory("data", source)}


def _one_in_memory(origin: str, source: Any) -> Table:
    if hasattr(source, "to_dict") and hasattr(source, "columns"):  # a pandas data frame
        source = {str(name): source[name].tolist() for name in source.columns}
    if isinstance(source, list) and all(isinstance(item, Mapping) for item in source):
        return table_of_objects(origin, [dict(item) for item in source], list(range(1, len(source) + 1)))
    if isinstance(source, Mapping) and len({len(values) for values in source.values()}) == 1:
        n_rows = len(next(iter(source.values())))
        if n_rows:
            return Table(origin, {str(name): list(values) for name, values in source.items()}, range(1, n_rows + 1))
    raise DataError(
        f"data in memory must be a list of mappings, a mapping of equally long columns, or a data frame with rows, "
        f"got {type(source).__name__}; write it as one of these"
    )
