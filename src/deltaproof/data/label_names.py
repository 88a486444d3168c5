"""Labels under the names that a user gives them, in place of the numbers or codes of the file."""

from collections.abc import Mapping
from dataclasses import replace

from deltaproof.data.numbers import is_missing
from deltaproof.data.table import Table
from deltaproof.errors import DataError


def named_labels(tables: Mapping[str, Table], label: tuple[str, ...], names: Mapping[str, str]) -> dict[str, Table]:
    """The tables with each label under its name.

    Args:
        names: what the label column holds, as text, to the name of it.
    Errors:
        DataError: there are several label columns, or a label has no name (with file and row).
    """
    if len(label) > 1:
        raise DataError(f"`label_names` are for one label column, got {', '.join(label)}; leave them out")
    column = label[0]
    named = {}
    for role, table in tables.items():
        values = table.columns[column]
        keys = [None if is_missing(value) else str(value).strip() for value in values]
        unknown = [at for at, key in enumerate(keys) if key is not None and key not in names]
        got = f"`{values[unknown[0]]}`" if unknown else ""
        known = ", ".join(f"`{name}`" for name in list(names)[:8])
        table.refuse(unknown, f"each label must be one of those in `label_names` ({known})", got, "give it a name too")
        renamed = [value if key is None else names[key] for key, value in zip(keys, values, strict=True)]
        class_names = {name: found for name, found in table.class_names.items() if name != column}
        named[role] = replace(table, columns={**table.columns, column: renamed}, class_names=class_names)
    return named
