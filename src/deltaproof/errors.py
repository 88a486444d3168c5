"""Errors a user can act on: each states the rule, the value found and the remedy."""

from collections.abc import Iterable
from difflib import get_close_matches


class DeltaproofError(Exception):
    """Base of every error that a user can act on."""


class ConfigError(DeltaproofError):
    """A setting, plan, method expression or option breaks a rule."""


class DataError(DeltaproofError):
    """The user's data breaks a rule; the message names file, row and remedy."""


class BackboneError(DeltaproofError):
    """A model cannot be loaded, or its parts cannot be found."""


class RecordError(DeltaproofError):
    """A run folder or a record cannot be read, or holds what cannot be pooled."""


class CompressionError(DeltaproofError):
    """An update cannot be compressed as asked, or would not survive it."""


class CorruptFileError(DeltaproofError):
    """A compressed file is damaged or is none; the message names the tensor and what is wrong with it."""


class NewerFormatError(DeltaproofError):
    """A compressed file was written in a format that this version does not know."""


class MissingExtraError(DeltaproofError):
    """An optional dependency is not installed; the message names the extra."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A phrase that helps someone who mistyped `name`: the near names, or all of them.

    >>> nearest("lorra", ["lora", "ia3"])
    'did you mean `lora`?'
    >>> nearest("xyz", ["lora", "ia3"])
    'known: ia3, lora'
    """
    known = sorted(known)
    close = get_close_matches(name, known, n=2, cutoff=0.6)
    if close:
        return "did you mean " + " or ".join(f"`{match}`" for match in close) + "?"
    return "known: " + ", ".join(known)
