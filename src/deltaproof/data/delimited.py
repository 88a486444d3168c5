"""CSV and TSV files to tables."""

import csv
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from deltaproof.data.decoding import read_text
from deltaproof.data.reading import Reading
from deltaproof.data.table import Table
from deltaproof.errors import DataError


def read_delimited(path: Path, reading: Reading) -> Table:
    """A CSV or TSV file with a header line, or without one where `columns` names them; every value is a string.

    Quotes, newlines inside quotes, CRLF and a byte-order mark are understood. A `.csv` file whose header holds
    semicolons or tabs but no comma is read by those. A TSV file in which a quote is an ordinary letter (as in the
    GLUE files) is read so where reading it with quotes fails.

    Errors:
        DataError: an unclosed quote, a row with more or fewer fields than the header, two columns of one name.
    """
    text = read_text(path, reading.encoding)
    usual = _usual(path, reading)
    delimiter = _delimiter(text, usual)
    first = "first row" if reading.columns else "header"
    notes = [] if delimiter == usual else [f"{path.name} was read with the separator {delimiter!r}"]
    try:
        records, lines = _records(path, text, delimiter, True, first)
    except DataError:
        if delimiter != "\t":
            raise
        try:
            records, lines = _records(path, text, delimiter, False, first)
        except DataError:
            records = []
        if not records:
            raise
        notes.append(f'{path.name} was read with " as an ordinary letter, as its quotes do not pair up')
    if reading.columns:
        names = _named(path, records, lines, reading.columns)
        return Table(path.name, _columns(names, records), lines, notes=notes)
    header = _header(path, records[0])
    if len(records) == 1:
        raise DataError(
            f"{path.name}: a file must hold rows, got a header only; add rows, or a header if it is missing"
        )
    return Table(path.name, _columns(header, records[1:]), lines[1:], notes=notes)


def _columns(header: Sequence[str], records: list[list[str]]) -> dict[str, list[str]]:
    return {name: list(values) for name, values in zip(header, zip(*records, strict=True), strict=True)}


def _named(path: Path, records: list[list[str]], lines: list[int], names: tuple[str, ...]) -> tuple[str, ...]:
    """The names of the columns of a file without a header line, where they are as many as its fields."""
    if len(names) != len(records[0]):
        raise DataError(
            f"{path.name}, row {lines[0]}: `columns` must name each field of a row, got {len(names)} names "
            f"({', '.join(names)}) for {len(records[0])} fields; name every field, used or not"
        )
    return names


def _usual(path: Path, reading: Reading) -> str:
    return "\t" if (reading.format or path.suffix.lower().removeprefix(".")) == "tsv" else ","


def _delimiter(text: str, usual: str) -> str:
    header = text.lstrip("\r\n").split("\n", 1)[0]
    if usual in header:
        return usual
    return next((other for other in ";\t" if other in header), usual)


def _records(path: Path, text: str, delimiter: str, quoted: bool, first: str) -> tuple[list[list[str]], list[int]]:
    """Header and rows, each with the line it begins on; blank lines are passed over."""
    header_line = text.lstrip("\r\n").split("\n", 1)[0]
    reader = csv.reader(
        io.StringIO(text, newline=""),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        strict=True,
        skipinitialspace=delimiter + " " in header_line,
    )
    records: list[list[str]] = []
    lines: list[int] = []
    end_of_last = 0
    limit = csv.field_size_limit(sys.maxsize)  # a text may be longer than the 131,072 letters of csv's default
    try:
        for record in reader:
            line, end_of_last = end_of_last + 1, reader.line_num
            wider = not records or len(records[0]) > 1  # in a file of one column, blanks in quotes are a value
            if not record or (wider and len(record) == 1 and not record[0].strip()):
                continue
            if records and len(record) != len(records[0]):
                raise DataError(
                    f"{path.name}, row {line}: each row must have the {len(records[0])} fields of the {first}, "
                    f"got {len(record)}; put quotes around values that hold {_name(delimiter)}"
                )
            records.append(record)
            lines.append(line)
    except csv.Error as error:
        raise DataError(
            f"{path.name}, row {end_of_last + 1}: quotes must pair up, got {error}; "
            f'close the quote, or write a quote inside a quoted value as ""'
        ) from None
    finally:
        csv.field_size_limit(limit)
    return records, lines


def _header(path: Path, record: list[str]) -> list[str]:
    names = [name.strip() or f"column {position}" for position, name in enumerate(record, 1)]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise DataError(
            f"{path.name}, row 1: column names must differ, got `{twice}` twice; "
            f"rename one, or add a header line if there is none"
        )
    return names


def _name(delimiter: str) -> str:
    return {",": "a comma", ";": "a semicolon", "\t": "a tab"}[delimiter]
