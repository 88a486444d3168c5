"""LN-Tune: the gains and shifts of the normalisation layers."""

from collections.abc import Iterator

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site
from deltaproof.methods.base import Method, method, parameter_names
from deltaproof.methods.edits import Edit, Unfreeze


@method("ln_tune")
class LNTune(Method):
    """Train gain g and shift s of every norm, LayerNorm(h) = g * (h - mean) / std + s; RMS norms have a gain only."""

    idea = "Train only the gains and shifts of the normalisation layers."
    equation = "g' = g + dg, s' = s + ds in y = g * norm(h) + s"
    paper = "Basu et al., 2023, arXiv:2304.01917, sec. 3"
    trains = "2 d per LayerNorm, d per RMSNorm"
    advice = "Very few parameters; strong on little data and few-shot tasks."
    learning_rate = 1e-3
    start = "the base's gains and shifts"
    where = "every norm, the embeddings' and the last one included"
    differences = "the paper tunes vision transformers; RMS norms (Llama) have a gain and no shift"

    layers: tuple[int, ...] | None = None
    """Numbers of the transformer layers whose norms are trained, from 0; every norm of the model when left out."""

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        yield None, Unfreeze(parameter_names(backbone, backbone.sites(["norm"], self.layers)))
