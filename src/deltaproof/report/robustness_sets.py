"""A robustness study as the page reads it: its sets by what was disturbed, in words, and the one of middle strength."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from deltaproof.metrics import METRICS
from deltaproof.report.estimates import Estimate, estimate, finite

Json = dict[str, Any]
SIGNS = {"more fragile": "▼", "more robust": "▲", "equivalent": "≈", "cannot tell": "?"}
"""As everywhere on the page, down is worse."""
TONES = {"more fragile": "worse", "more robust": "better", "equivalent": "equivalent", "cannot tell": "cannot-tell"}
_NOISE = {
    "all": "weight noise on all weights",
    "trained": "weight noise on what was trained",
    "equal_norm": "weight noise of equal length",
}
_SHORT = {
    "weight noise on all weights": "noise, all",
    "weight noise on what was trained": "noise, trained",
    "weight noise of equal length": "noise, equal",
    "PGD on the embeddings": "PGD",
    "case and punctuation": "case, signs",
    "keyboard neighbour": "keyboard",
}
_NAMES = {"case_punctuation": "case and punctuation", "keyboard": "keyboard neighbour"}
KEEPS, NOISE = "Texts, label kept", "Texts, noise"
SEARCHED, HANDED_ON = "Texts, searched", "Texts, found against another"
CATEGORIES = (KEEPS, NOISE, SEARCHED, HANDED_ON, "Embeddings, PGD", "Weights, noise", "Your own sets")


@dataclass(frozen=True)
class Group:
    """Everything that one perturbation did, at rising strength."""

    name: str
    """In words."""
    category: str
    """One of `CATEGORIES`."""
    sets: tuple[Json, ...]

    @property
    def middle(self) -> Json:
        """The set of middle strength, of an even number the lower of the two."""
        return self.sets[(len(self.sets) - 1) // 2]

    @property
    def short_name(self) -> str:
        """The same for narrow places."""
        strength = self.strength(self.middle)
        short = _SHORT.get(self.name, self.name)
        return short if strength is None else f"{short}, {strength:.3g}"

    @property
    def has_strength(self) -> bool:
        return self.strength(self.middle) is not None

    @staticmethod
    def strength(entry: Json) -> float | None:
        return finite(entry.get("strength"))

    @property
    def middle_name(self) -> str:
        """The name with the strength shown.

        >>> Group("char swap", KEEPS, ({"strength": 0.1}, {"strength": 0.2})).middle_name
        'char swap, 0.1'
        """
        strength = self.strength(self.middle)
        return self.name if strength is None else f"{self.name}, {strength:.3g}"


def groups(result: Json) -> list[Group]:
    """Sets of one name together, ordered by category, and within it as the study had them."""
    found: dict[tuple[str, str], list[Json]] = {}
    for entry in result.get("sets") or []:
        found.setdefault((str(entry["name"]), str(entry.get("question"))), []).append(entry)
    made = [
        Group(_words(entries[0]), _category(entries[0]), tuple(sorted(entries, key=_strength)))
        for entries in found.values()
    ]
    return sorted(made, key=lambda group: CATEGORIES.index(group.category))


def _strength(entry: Json) -> float:
    return finite(entry.get("strength")) or 0.0


def _words(entry: Json) -> str:
    if entry.get("kind") == "adversarial":
        return str(entry["name"])  # a file's name, as the user knows it
    if entry.get("kind") == "embedding_pgd":
        return "PGD on the embeddings"
    name = str(entry["name"])
    if entry.get("kind") == "transfer":
        return f"{name.removesuffix('_transfer').replace('_', ' ')} found against the reference"
    return _NOISE.get(str(entry.get("question")), _NAMES.get(name, name.replace("_", " ")))


def _category(entry: Json) -> str:
    kinds = {
        "search": SEARCHED, "transfer": HANDED_ON, "embedding_pgd": "Embeddings, PGD",
        "weight_noise": "Weights, noise", "adversarial": "Your own sets",
    }  # fmt: skip
    return kinds.get(str(entry.get("kind")), NOISE if entry.get("promise") == "noise" else KEEPS)


def found_for(entries: Sequence[Mapping[str, Any]] | None, label: str) -> Mapping[str, Any]:
    """The entry of a method; empty where it has none."""
    return next((entry for entry in entries or [] if entry.get("label") == label), {})


def number(entries: Sequence[Mapping[str, Any]] | None, label: str, what: str) -> Estimate | None:
    """A method's number, where it was measured: `number(entry["methods"], "lora", "drop")`."""
    return estimate(found_for(entries, label).get(what))


def methods(result: Json) -> list[str]:
    """Labels, the reference first."""
    named = [str(name) for name in result.get("methods") or []]
    return sorted(named, key=lambda name: name != result.get("reference"))


def higher_is_better(result: Json) -> bool:
    return METRICS[result["metric"]].higher_is_better


def gap_unit(result: Json) -> str:
    """What drops are counted in, for the title of an axis.

    >>> gap_unit({"unit": "fraction"}), gap_unit({"unit": ""})
    (', points', '')
    """
    unit = str(result["unit"])
    return {"fraction": ", points", "": ""}.get(unit, f", {unit}")
