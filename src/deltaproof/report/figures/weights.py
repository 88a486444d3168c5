"""What several figures of weight changes share: methods that have some, and the order of roles and layers."""

from collections.abc import Sequence
from typing import Any

from deltaproof.experiments.wording import share

Entry = dict[str, Any]
_ORDER = ("query", "key", "value", "attention_out", "ffn_in", "ffn_gate", "ffn_out")
_NAMES = {"attention_out": "attn out", "ffn_in": "ffn in", "ffn_gate": "ffn gate", "ffn_out": "ffn out"}


def with_matrices(result: Entry) -> list[Entry]:
    """The methods of a spectra study that changed a matrix."""
    return [method for method in result["methods"] if any(in_layers(method))]


def in_layers(method: Entry) -> list[Entry]:
    """Rows of matrices that belong to a layer and have a role in it; embeddings and poolers do not."""
    return [row for row in method["rows"] if row["layer"] is not None and row["role"]]


def role_name(role: str) -> str:
    """As a figure writes it: short.

    >>> role_name("attention_out"), role_name("query")
    ('attn out', 'query')
    """
    return _NAMES.get(role, role.replace("_", " "))


def roles_of(rows: Sequence[Entry]) -> list[str]:
    """Roles that occur, in the order in which a layer goes through them."""
    found = dict.fromkeys(row["role"] for row in rows)
    return [role for role in _ORDER if role in found] + [role for role in found if role not in _ORDER]


def without_matrices(result: Entry) -> list[str]:
    """Methods that have no part in figures of matrices, each with the reason."""
    said = []
    for method in result["methods"]:
        if not any(in_layers(method)):
            n = method["n_vectors"]
            vectors = f"{n} biases and norms changed, no matrix of a layer did" if n else "no matrix of a layer changed"
            why = "no change of weights that the base has" if method["why_none"] else vectors
            said.append(f"{method['label']} ({why})")
    return said


def percent(value: float | None) -> str:
    return "–" if value is None else share(value)
