"""What every method can do, as one table: measured, kept for the next time, and put into words."""

import hashlib
import json
import os
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import deltaproof
from deltaproof.errors import ConfigError, nearest
from deltaproof.experiments.environment import versions
from deltaproof.records.store import read_json, write_json
from deltaproof.testing.capabilities import CAPABILITIES, FAMILIES, Found, capabilities
from deltaproof.testing.examples import every_name, example, refusal

TITLES = {
    "starts_as_base": "starts as base",
    "merges": "merges",
    "exports_to_lora": "to LoRA",
    "in_bf16": "bf16",
    "recomputes": "checkpointing",
    "leaves_the_base": "base kept",
    "swaps": "swaps",
    "composes": "beside LoRA",
}
"""Short names of the questions that are asked on each family that a method runs on."""
DECISIVE = ("deltaproof", "peft", "transformers", "torch")


def capability_table(
    only: Iterable[str] = (),
    fresh: bool = False,
    progress: Callable[[int, int, str], None] = lambda done, all, name: None,
) -> dict[str, Any]:
    """Measure what methods can do; what was measured before with the same code is read, not measured again.

    Args:
        only: names of methods; all of ours and of the installed peft when left out.
        fresh: measure again.
        progress: told of how many are done, of how many, and of the name that is next.
    Returns:
        `made`: versions; `questions`: what each name asks; `methods`: by name the settings that were tried (`as`), and
        by family and question True, or how it fails; or why peft's method cannot take part (`refused`).
    """
    names = _checked(list(only)) or every_name()
    path = cache_folder() / f"capabilities-{_key()}.json"
    known: dict[str, Any] = read_json(path) if path.exists() else {}
    for number, name in enumerate(names):
        if fresh or name not in known:
            progress(number, len(names), name)
            known = (read_json(path) if path.exists() else {}) | {name: _measured(name)}
            write_json(path, known)
    return {
        "made": versions(DECISIVE),
        "questions": {name: _question(check) for name, check in CAPABILITIES.items()},
        "methods": {name: known[name] for name in names},
    }


def _checked(names: list[str]) -> list[str]:
    for name in names:
        if "(" in name:
            raise ConfigError(
                f"capabilities are measured of methods by name, each with settings that fit tiny models, got `{name}`; "
                f"write `{name.partition('(')[0]}`, or call `deltaproof.testing.capabilities.capabilities`"
            )
        if name not in every_name():
            raise ConfigError(f"no method is called `{name}`; {nearest(name, every_name())}")
    return names


def _measured(name: str) -> dict[str, Any]:
    if reason := refusal(name):
        return {"as": name, "refused": reason}
    method = example(name)
    return {"as": method.label, "families": capabilities(method)}


def _question(check: Any) -> str:
    return " ".join(check.__doc__.split())


def cache_folder() -> Path:
    """In the folder that DELTAPROOF_HOME names, else where the system keeps what programs can make again."""
    if home := os.environ.get("DELTAPROOF_HOME"):
        return Path(home).expanduser() / "cache"
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "deltaproof"


def _key() -> str:
    """Sixteen hexadecimal digits that change with the libraries and with our own code."""
    digest = hashlib.sha256(json.dumps(versions(DECISIVE), sort_keys=True).encode())
    root = Path(deltaproof.__file__).parent
    for part in ("backbones", "methods", "saving", "testing", "training"):
        for file in sorted((root / part).glob("*.py")):
            digest.update(file.name.encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def summary(entry: dict[str, Any], question: str) -> str:
    """One cell: `yes`, `no`, the families where it can, or `-` where it does not run at all."""
    answers = _answers(entry, question)
    can = [family for family, found in answers.items() if found is True]
    return "-" if not answers else "yes" if len(can) == len(answers) else ", ".join(can) or "no"


def _answers(entry: dict[str, Any], question: str) -> dict[str, Found]:
    found = {family: here[question] for family, here in entry.get("families", {}).items()}
    return {family: answer for family, answer in found.items() if answer is not None}


def rows(table: dict[str, Any]) -> list[list[str]]:
    """Names, whether each runs on each family, and the cells; titles first."""
    lines = [["method", *FAMILIES, *TITLES.values()]]
    for name, entry in table["methods"].items():
        runs = {family: found["runs"] is True for family, found in entry.get("families", {}).items()}
        cells = ["yes" if runs.get(family) else "no" for family in FAMILIES]
        lines.append([name, *cells, *(summary(entry, question) for question in TITLES)])
    return lines


def reasons(table: dict[str, Any]) -> dict[str, dict[str, list[str]]]:
    """By question and reason, which methods fail for it; with the families where it is not all they run on."""
    found: dict[str, dict[str, list[str]]] = {question: {} for question in ("runs", *TITLES)}
    for name, entry in table["methods"].items():
        if "refused" in entry:
            found["runs"].setdefault(entry["refused"], []).append(name)
        for question in found:
            answers = _answers(entry, question)
            by_reason: dict[str, list[str]] = {}
            for family, answer in answers.items():
                if isinstance(answer, str):
                    by_reason.setdefault(answer, []).append(family)
            for reason, families in by_reason.items():
                where = "" if len(families) == len(answers) else f" ({', '.join(families)})"
                found[question].setdefault(reason, []).append(name + where)
    return {question: here for question, here in found.items() if here}
