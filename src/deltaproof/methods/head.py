"""Head only: the base is a fixed feature extractor."""

from collections.abc import Iterator

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site
from deltaproof.methods.base import Method, method
from deltaproof.methods.edits import Edit


@method("head")
class Head(Method):
    """Only the task's head is trained, which every other method trains as well."""

    idea = "Train the task head on the frozen base's features."
    equation = "y = head(base(x)), base fixed"
    paper = "Alain and Bengio, 2016, arXiv:1610.01644 (linear probes)"
    trains = "0 (the head alone)"
    advice = "The floor: if another method does not beat it, do not adapt the base."
    learning_rate = 5e-3
    start = "the head as every method starts it"
    where = "nothing but the head"
    differences = "none"

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        yield from ()
