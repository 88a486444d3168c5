"""Local copies in place of hub data sets, so that a plan that names hub sets runs without a connection."""

from pathlib import Path

from deltaproof.data.hub import is_hub_id
from deltaproof.data.sources import READERS, file_and_part
from deltaproof.errors import DataError


def below(root: Path | str, source: str) -> str:
    """Where a plan's `data`, `validation` or `test` lies below `root`.

    A path is meant from `root`; an absolute one stays. A hub id is looked for under its own name, with the colon for a
    folder: `glue:sst2` is `root/glue/sst2`, a folder or a file of any kind that is read by its ending.

    Errors:
        DataError: there is no such folder as `root`, or nothing of that name in it (the message lists the places).
    """
    found = find_below(root, source)
    if found is None:
        raise DataError(
            f"with `data_root` a local copy of `{source}` must lie below it, {_looked(Path(root), source)}, found "
            f"none; put it there (`datasets` writes it with `save_to_disk`), or leave `data_root` out to read the hub"
        )
    return found


def find_below(root: Path | str, source: str) -> str | None:
    """The same, None where nothing of that name is there."""
    root = Path(root).expanduser()
    if not root.is_dir():
        raise DataError(f"`data_root` must be a folder, found none at `{root}`; check the path")
    if Path(source).is_absolute():
        return source
    for place in _places(root, source):
        if place.exists() or file_and_part(place)[1] is not None:
            return str(place)
    return None


def _looked(root: Path, source: str) -> str:
    places = _places(root, source)
    if len(places) == 1:
        return f"looked for `{places[0]}`"
    return f"looked for the folder `{places[0]}` and for a file of that name that ends in {', '.join(READERS)}"


def _places(root: Path, source: str) -> list[Path]:
    plain = root / source
    if not is_hub_id(source):
        return [plain]
    under_its_name = root / source.replace(":", "/")
    files = [under_its_name.with_name(under_its_name.name + ending) for ending in READERS]
    return list(dict.fromkeys([under_its_name, *files, plain]))
