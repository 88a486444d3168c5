"""The axis of a metric's scores: better is always up."""

from deltaproof.metrics import Metric
from deltaproof.report.drawing.plot import Axis
from deltaproof.report.numbers import metric_title, value


def score_axis(metric: Metric, low: float, high: float, where: str = "") -> Axis:
    """Scores from `low` to `high`, in the metric's unit; `where` names the rows, if not the test rows."""
    title = metric_title(metric) + (f" on {where}" if where else "") + " ↑ better"
    return Axis(title, low, high, lambda score: value(score, metric.unit), falling=not metric.higher_is_better)
