"""Bytes of a text file to text; what is not in the stated encoding is an error with row and remedy."""

import codecs
from pathlib import Path

from deltaproof.errors import DataError


def read_text(path: Path, encoding: str | None = None) -> str:
    """The text of a file: UTF-8 with or without byte-order mark, UTF-16 with one, or the `encoding` given.

    Errors:
        DataError: the file is empty, the encoding is unknown, or some bytes are not in it (with offset and row).
    """
    raw = path.read_bytes()
    if encoding is None:
        utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        chosen = "utf-16" if utf16 else "utf-8-sig"
    else:
        chosen = encoding
    try:
        text = raw.decode(chosen)
    except LookupError:
        raise DataError(
            f"`encoding` must be one that Python knows, got `{encoding}`; try `utf-8` or `latin-1`"
        ) from None
    except UnicodeDecodeError as error:
        row = raw.count(b"\n", 0, error.start) + 1
        name = "UTF-8" if encoding is None and chosen == "utf-8-sig" else chosen
        raise DataError(
            f"{path.name}, row {row}: the file must be {name}, "
            f"got byte 0x{raw[error.start]:02x} at offset {error.start}; "
            f'save it as UTF-8, or name its encoding: `--encoding latin-1` (in Python: `encoding="latin-1"`)'
        ) from None
    if not text.strip():
        raise DataError(f"{path.name}: a file must hold rows, got an empty file; give a file with a header and rows")
    return text
