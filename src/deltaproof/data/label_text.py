"""Files of one `LABEL TEXT` a line to tables."""

from pathlib import Path

from deltaproof.data.decoding import read_text
from deltaproof.data.reading import Reading
from deltaproof.data.table import Table
from deltaproof.errors import DataError


def read_label_text(path: Path, reading: Reading) -> Table:
    """The columns `label`, before a line's first blank, and `text`, after it; blank lines are passed over.

    A label and a blank alone are an empty text. A line ends with a line feed alone: texts may hold other characters
    that some programs break lines at.

    Errors:
        DataError: a line without a blank, so without a place for a text.
    """
    labels: list[str] = []
    texts: list[str] = []
    rows: list[int] = []
    for row, line in enumerate(read_text(path, reading.encoding).split("\n"), 1):
        words = line.strip().split(maxsplit=1)
        if not words:
            continue
        if len(words) == 1 and line.rstrip("\r") == words[0]:
            raise DataError(
                f"{path.name}, row {row}: each line must be a label, a blank and a text, got `{words[0][:60]}`; "
                f"complete or delete the line, or name another `format`"
            )
        labels.append(words[0])
        texts.append(words[1] if len(words) == 2 else "")
        rows.append(row)
    return Table(path.name, {"label": labels, "text": texts}, rows)
