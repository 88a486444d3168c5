"""Numbers of findings as a reader wants them."""

from collections.abc import Sequence

from deltaproof.evidence.claim import Span
from deltaproof.experiments import wording

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float, unit: str) -> str:
    """A number with its unit; differences carry their sign.

    >>> number(-0.0042, "fraction"), number(-12.3, "log10"), number(900.0, "examples")
    ('−0.4 points', '10⁻¹²', '900 examples')
    """
    if unit == "fraction":
        return f"{wording.signed(value, unit)} points"
    if unit == "log10":
        return "10" + f"{value:.0f}".translate(_RAISED)
    if unit == "examples":
        return f"{count(value)} examples"
    return f"{wording.signed(value, '')} {unit}".strip()


def count(value: float) -> str:
    """A count, its thousands apart.

    >>> count(4096)
    '4\u202f096'
    """
    return f"{value:,.0f}".replace(",", "\u202f")


def interval(span: Span) -> str:
    """Its two ends, without the unit; empty where there is none.

    >>> interval(Span(0.01, -0.004, 0.024, "fraction")), interval(Span(-9.0, None, -7.6, "log10"))
    ('−0.4 to +2.4', 'at most 10⁻⁸')
    """
    if span.unit == "log10":
        return "" if span.high is None else f"at most {number(span.high, span.unit)}"
    if span.low is None or span.high is None:
        return ""
    if span.unit == "examples":
        return f"{count(span.low)} to {count(span.high)}"
    return f"{wording.signed(span.low, span.unit)} to {wording.signed(span.high, span.unit)}"


def whole(span: Span | None) -> str:
    """The number and in brackets its interval.

    >>> whole(Span(0.01, -0.004, 0.024, "fraction"))
    '+1.0 points (−0.4 to +2.4)'
    """
    if span is None:
        return "–"
    ends = interval(span)
    return number(span.mean, span.unit) + (f" ({ends})" if ends else "")


def listed(names: Sequence[str]) -> str:
    """Names as a sentence lists them.

    >>> listed(["full"]), listed(["full", "lora", "head"])
    ('full', 'full, lora and head')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else "".join(names)
