"""Numbers as a reader wants them."""

import math
from typing import Any


def score(value: float | None, unit: str) -> str:
    """A score; a fraction shows as a percentage without the sign.

    >>> score(0.9134, "fraction"), score(0.4321, "")
    ('91.3', '0.432')
    """
    if value is None or not math.isfinite(value):
        return "–"
    return (f"{100 * value:.1f}" if unit == "fraction" else f"{value:.3g}").replace("-", "−")


def signed(value: float | None, unit: str) -> str:
    """A difference, with its sign.

    >>> signed(-0.004, "fraction"), signed(0.0, "fraction")
    ('−0.4', '0.0')
    """
    if value is None or not math.isfinite(value):
        return "–"
    text = score(abs(value), unit)
    return text if float(text) == 0 else ("+" if value > 0 else "−") + text


def amount(value: float, unit: str) -> str:
    """A distance with its unit.

    >>> amount(0.03, "fraction"), amount(0.5, "nats")
    ('3 points', '0.5 nats')
    """
    if unit != "fraction":
        return f"{value:.2g} {unit}".strip()
    return f"{100 * value:.0f} points" if value >= 0.1 else f"{100 * value:.2g} points"


def size(n_bytes: float | None) -> str:
    """Bytes in the nearest unit.

    >>> size(1234567)
    '1.2 MB'
    """
    if n_bytes is None:
        return "–"
    for unit in ("B", "kB", "MB", "GB"):
        if n_bytes < 999.5:
            return f"{n_bytes:.0f} {unit}" if unit == "B" or n_bytes >= 99.5 else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def duration(seconds: float | None) -> str:
    """A time in the nearest unit.

    >>> duration(0.0123), duration(75), duration(5400)
    ('12 ms', '1 min 15 s', '1 h 30 min')
    """
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{1000 * seconds:.0f} ms" if seconds >= 0.01 else f"{1000 * seconds:.1f} ms"
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def share(fraction: float) -> str:
    """A share in per cent, with two digits.

    >>> share(0.0123), share(1.0), share(0.00004)
    ('1.2 %', '100 %', '0.004 %')
    """
    percent = 100 * fraction
    if percent == 0 or percent >= 9.95:
        return f"{percent:.0f} %"
    return (
        f"{percent:.{max(0, 1 - math.floor(math.log10(percent)))}f} %".replace(".0 %", " %")
        if percent >= 1
        else f"{percent:.1g} %"
    )


def count(number: float) -> str:
    """A count in the nearest thousand.

    >>> count(22713216), count(770)
    ('22.7 M', '770')
    """
    for limit, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g} {unit}"
    return f"{number:.0f}"


def look(found: dict[str, Any], alpha: float) -> str:
    """At which planned look an experiment stands, and what it asks of a verdict there."""
    return (
        f"Look {found['number']} of {found['of']}, after {found['n_seeds']} seeds each: a verdict needs p <= "
        f"{found['level']:.3f} here, so that all looks together keep {share(alpha)}."
    )
