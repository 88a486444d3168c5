"""What a method may have measured of its model beyond scores and costs, by name: see `Method.measures`.

    MEASURES.add("weight_norm")(lambda model, backbone, rows, batch_size, precision: {"weight_norm": ...})

Names say the unit: `…_fraction` is a share in 0..1, which reports show in %; `…_by_layer` is a list.
"""

from collections.abc import Callable, Iterable

from torch import nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.evaluation.density import activation_density
from deltaproof.records.record import Measurements
from deltaproof.registry import Registry
from deltaproof.tasks.text import Encoded

Measure = Callable[[nn.Module, Backbone, Encoded, int, str], Measurements]
"""Of model, backbone, rows, batch size and precision: numbers, or lists of them with one entry per layer."""

MEASURES: Registry[Measure] = Registry("measure")


@MEASURES.add("activation_density")
def _activation_density(
    model: nn.Module, backbone: Backbone, rows: Encoded, batch_size: int, precision: str
) -> Measurements:
    return activation_density(model, backbone, rows, batch_size, precision).to_json()


def measured(
    names: Iterable[str], model: nn.Module, backbone: Backbone, rows: Encoded, batch_size: int, precision: str
) -> Measurements:
    """Every measure of these names, side by side."""
    found: Measurements = {}
    for name in names:
        found |= MEASURES[name](model, backbone, rows, batch_size, precision)
    return found
