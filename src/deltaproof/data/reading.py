"""How a text file is to be read, where its ending does not say."""

from dataclasses import dataclass

from deltaproof.errors import DataError, nearest

FORMATS = ("csv", "tsv", "json", "jsonl", "parquet", "label_text")
"""`label_text` is one `LABEL TEXT` a line, as many older sets of sentences are kept."""


@dataclass(frozen=True)
class Reading:
    """What a user says of a file's form; everything may be left out."""

    encoding: str | None = None
    """Of text files; UTF-8, or what a byte-order mark says, when left out."""
    format: str | None = None
    """One of `FORMATS`; by the file's ending when left out."""
    columns: tuple[str, ...] = ()
    """Names for the fields of a CSV or TSV file that has no header line."""

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in FORMATS:
            raise DataError(
                f"`format` must be one of {', '.join(FORMATS)}, got `{self.format}`; {nearest(self.format, FORMATS)}"
            )
        if len(set(self.columns)) < len(self.columns):
            raise DataError(f"`columns` must name different columns, got {', '.join(self.columns)}; name each once")
        if self.columns and self.format not in (None, "csv", "tsv"):
            raise DataError(
                f"`columns` are for CSV and TSV files without a header line, got them with `{self.format}`, "
                f"which names its own; leave them out"
            )


BY_ITS_ENDING = Reading()
"""Nothing said: UTF-8, by the file's ending, with a header line."""
