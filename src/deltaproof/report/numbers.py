"""Names and numbers of the report, beyond those of `experiments/wording.py`."""

import math
from collections.abc import Iterable

from deltaproof.experiments import wording
from deltaproof.metrics import Metric

_NAMES = {
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "mcc": "Matthews correlation",
    "nll": "negative log-likelihood",
    "brier": "Brier score",
    "ece": "calibration error",
    "rmse": "root mean squared error",
    "mae": "mean absolute error",
    "spearman": "Spearman correlation",
    "pearson": "Pearson correlation",
}
ENDINGS = {
    "done": "done",
    "diverged": "diverged",
    "out_of_memory": "did not fit into memory",
    "failed": "failed",
    "stopped": "stopped, could not win",
    "missing": "not finished yet",
}
SIGNS = {
    "better": "▲",
    "worse": "▼",
    "equivalent": "≈",
    "cannot tell": "?",
    "supported": "✓",
    "contradicted": "✗",
    "not applicable": "–",
}


def metric_name(metric: Metric) -> str:
    return _NAMES.get(metric.name, metric.name.replace("_", " "))


def metric_title(metric: Metric, before: str = "") -> str:
    """The metric with its unit, as a heading, and perhaps a word before it.

    >>> from deltaproof.metrics import METRICS
    >>> metric_title(METRICS["accuracy"]), metric_title(METRICS["nll"])
    ('Accuracy,\\xa0%', 'Negative log-likelihood,\\xa0nats')
    """
    name = before + metric_name(metric)
    unit = {"fraction": ",\u00a0%", "": ""}.get(metric.unit, f",\u00a0{metric.unit}")
    return name[0].upper() + name[1:] + unit


def value(number: float | None, unit: str) -> str:
    """A score, as everywhere.

    >>> value(0.9134, "fraction"), value(-0.487, "")
    ('91.3', '−0.487')
    """
    return wording.score(number, unit)


def interval(low: float | None, high: float | None, unit: str, with_sign: bool = False) -> str:
    """An interval in words, which stay clear beside minus signs; empty where there is none.

    >>> interval(0.91, 0.93, "fraction"), interval(-0.01, 0.02, "fraction", with_sign=True)
    ('91.0 to 93.0', '−1.0 to +2.0')
    """
    if low is None or high is None or not (math.isfinite(low) and math.isfinite(high)):
        return ""
    write = wording.signed if with_sign else value
    return f"{write(low, unit)} to {write(high, unit)}"


def learning_rate(rate: float | None) -> str:
    """A learning rate.

    >>> learning_rate(0.0003162), learning_rate(0.001)
    ('3.2e-4', '1e-3')
    """
    if rate is None or not rate > 0:
        return "–"
    digits, power = f"{rate:.1e}".split("e")
    return f"{digits.removesuffix('.0')}e{int(power)}"


def operations(n: float | None) -> str:
    """Floating-point operations.

    >>> operations(1.23e15)
    '1.23 PFLOP'
    """
    if n is None:
        return "–"
    for limit, prefix in ((1e18, "E"), (1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M")):
        if n >= limit:
            return f"{n / limit:.3g} {prefix}FLOP"
    return f"{n:.0f} FLOP"


def plural(n: int, what: str) -> str:
    """A count with its noun.

    >>> plural(1, "seed"), plural(3, "seed")
    ('1 seed', '3 seeds')
    """
    return f"{n:,} {what}{'' if n == 1 else 's'}".replace(",", "\u202f")


def sentence(text: str) -> str:
    """A clause as a sentence of its own.

    >>> sentence("rank 8 keeps it"), sentence("")
    ('Rank 8 keeps it.', '')
    """
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) or not text else ".")


def power_of_ten(exponent: float) -> str:
    """A power of ten, to the nearest whole exponent.

    >>> power_of_ten(-12.3), power_of_ten(0)
    ('10⁻¹²', '1')
    """
    whole = round(exponent)
    return "10" + str(whole).translate(_RAISED) if whole else "1"


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def mean_of(values: Iterable[float | None]) -> float | None:
    """The mean of the values that are there; None where none is.

    >>> mean_of([1.0, None, 2.0]), mean_of([None])
    (1.5, None)
    """
    there = [value for value in values if value is not None]
    return sum(there) / len(there) if there else None
