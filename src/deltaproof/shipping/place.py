"""A folder that gets its name only when it is whole."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deltaproof.errors import ConfigError


def check_place(out: Path, overwrite: bool) -> None:
    """Refuse to write where something is, before anything is done."""
    if out.exists() and not overwrite:
        raise ConfigError(
            f"nothing is overwritten unasked, `{out}` is there; name another folder, or add `--overwrite`"
        )


@contextmanager
def neighbour(out: Path) -> Iterator[Path]:
    """An empty folder beside `out`, gone afterwards unless it was given another name."""
    out.parent.mkdir(parents=True, exist_ok=True)
    place = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
    os.chmod(place, 0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def put_in_place(place: Path, out: Path, overwrite: bool) -> Path:
    """Rename a finished folder; what was there goes only once the new one stands."""
    check_place(out, overwrite)
    if not out.exists():
        os.rename(place, out)
        return out
    old = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}.old."))
    os.rename(out, old / "was")
    os.rename(place, out)
    shutil.rmtree(old)
    return out
