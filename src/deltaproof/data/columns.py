"""Which columns hold the texts, the label and the group: as named by the user, else found by their names."""

from collections.abc import Sequence
from dataclasses import dataclass

from deltaproof.data.column_names import IDS, LABELS, OTHER_TEXTS, PAIRS, PLAIN_TEXTS
from deltaproof.data.numbers import as_number
from deltaproof.data.table import Table
from deltaproof.errors import DataError, nearest


@dataclass(frozen=True)
class Columns:
    """The columns that matter."""

    text: tuple[str, ...]
    """One or two."""
    label: tuple[str, ...]
    """One, or one per label of a multi-label task; none for data to predict on."""
    group: str | None
    notes: tuple[str, ...] = ()


def find_columns(
    table: Table, text: str | Sequence[str] | None, label: str | Sequence[str] | None, group: str | None
) -> Columns:
    """The columns named, or those whose names say what they are.

    Errors:
        DataError: a named column is missing, or the names leave the choice open (the message lists the columns).
    """
    label_columns = _named(table, label, "label") if label is not None else None
    group_columns = _named(table, group, "group") if group is not None else ()
    if len(group_columns) > 1:
        raise DataError(f"`group` must be one column, got {', '.join(group_columns)}; name one")
    taken = {*(label_columns or ()), *group_columns}
    text_columns = find_text(table, text, taken)
    if label_columns is None:
        label_columns = (_find_label(table, {*taken, *text_columns}),)
    group_column = group_columns[0] if group_columns else None
    return Columns(text_columns, label_columns, group_column, _notes(table, text_columns, label_columns, group_columns))


def find_text(table: Table, text: str | Sequence[str] | None, taken: set[str]) -> tuple[str, ...]:
    """The one or two text columns: named, else a known pair, a known name, or the column of the longest strings."""
    if text is not None:
        named = _named(table, text, "text")
        both = next((name for name in named if name in taken), None)
        if both is not None:
            raise DataError(f"`{both}` must be either text, label or group, got it twice; name another column")
        if len(named) > 2:
            raise DataError(f"`text` must name one column or two, got {', '.join(named)}; join columns in the file")
        return named
    by_name = {name.lower(): name for name in reversed(table.columns) if name not in taken}
    pairs = [pair for pair in PAIRS if set(pair) <= set(by_name)]
    plain = [name for name in PLAIN_TEXTS if name in by_name and not any(name in pair for pair in pairs)]
    choices: list[tuple[str, ...]] = [*pairs, *((name,) for name in plain)]
    if not choices:
        choices = [(name,) for name in OTHER_TEXTS if name in by_name]
    if len(choices) > 1:
        raise _ambiguous(table, "text", [tuple(by_name[name] for name in choice) for choice in choices])
    if choices:
        return tuple(by_name[name] for name in choices[0])
    return (_longest(table, {*taken, *(by_name[name] for name in by_name if name in IDS or name in LABELS)}),)


def _find_label(table: Table, taken: set[str]) -> str:
    by_name = {name.lower(): name for name in reversed(table.columns) if name not in taken}
    found = [by_name[name] for name in LABELS if name in by_name]
    if not found:
        found = [name for name in table.columns if name not in taken and name.lower() not in IDS]
    if len(found) > 1:
        raise _ambiguous(table, "label", [(name,) for name in found])
    if not found:
        raise DataError(
            f"{table.origin}: a label column must be there, got only {_listing(table)}; name it with `--label`, "
            f"and if the file has no header line, add one"
        )
    return found[0]


def _longest(table: Table, taken: set[str]) -> str:
    """The column of the longest strings by mean length, where no other comes near it."""
    lengths = {
        name: sum(len(value) for value in values if isinstance(value, str)) / len(table)
        for name, values in table.columns.items()
        if name not in taken
    }
    lengths = {name: length for name, length in lengths.items() if length > 0}
    if not lengths:
        raise DataError(
            f"{table.origin}: a text column must be there, got only {_listing(table)}; name it with `--text`, "
            f"and if the file has no header line, add one"
        )
    longest = max(lengths, key=lambda name: lengths[name])
    near = [name for name in lengths if lengths[name] >= 0.5 * lengths[longest] and lengths[longest] >= 12]
    if len(near) > 1:
        raise _ambiguous(table, "text", [(name,) for name in near])
    return longest


def _named(table: Table, given: str | Sequence[str], option: str) -> tuple[str, ...]:
    if isinstance(given, str):
        given = [given] if given in table.columns else [name.strip() for name in given.split(",")]
    for name in given:
        if name not in table.columns:
            raise DataError(
                f"{table.origin}: the {option} column `{name}` must be there, got the columns {_listing(table)}; "
                f"{nearest(name, table.columns)}"
            )
    if len(set(given)) < len(given) or not given:
        raise DataError(f"`{option}` must name different columns, got {', '.join(given) or 'none'}; name each once")
    return tuple(given)


def _ambiguous(table: Table, option: str, choices: list[tuple[str, ...]]) -> DataError:
    shown = [",".join(choice) for choice in choices if all(len(name) <= 40 for name in choice)][:4]
    listed = " or ".join(f"`--{option} {choice}`" for choice in shown) or f"`--{option} NAME`"
    return DataError(
        f"{table.origin}: the {option} column must be clear, got several that could be it among {_listing(table)}; "
        f"give {listed}{_header_hint(table)}"
    )


def _listing(table: Table) -> str:
    names = [f"`{name}`" if len(name) <= 40 else f"`{name[:39]}…`" for name in table.columns]
    return ", ".join(names) if len(names) <= 15 else f"{', '.join(names[:15])} and {len(names) - 15} more"


def _header_hint(table: Table) -> str:
    """A remedy for a table whose first row was taken for its header, as names that are numbers or sentences show."""
    odd = any(as_number(name) is not None or len(name) > 40 for name in table.columns)
    return "; if the file has no header line, add one" if odd else ""


def _notes(table: Table, text: tuple[str, ...], label: tuple[str, ...], group: tuple[str, ...]) -> tuple[str, ...]:
    ignored = [name for name in table.columns if name not in {*text, *label, *group}]
    if not ignored:
        return ()
    more = f" and {len(ignored) - 8} more" if len(ignored) > 8 else ""
    return (f"columns not used: {', '.join(f'`{name}`' for name in ignored[:8])}{more}",)
