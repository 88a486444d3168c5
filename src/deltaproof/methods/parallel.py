"""Scaled parallel adapters: a bottleneck beside a block, reading what the block reads."""

from collections.abc import Iterator
from typing import Literal

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site
from deltaproof.methods.base import method
from deltaproof.methods.bottleneck import BeforeNorm, Bottleneck, BottleneckMethod, ends, norms_behind_sums
from deltaproof.methods.edits import Edit

READS: dict[str, str] = {"ffn": "ffn_in", "attention": "query"}
"""The map whose input is the block's."""


@method("parallel")
class Parallel(BottleneckMethod):
    """A small network with a bottleneck beside a block: both see the same input, and their outputs add up."""

    idea = "Put a small network with a bottleneck beside the feed-forward block of each layer."
    equation = "h' = h + s Up(ReLU(Down x)), x the block's input, h its output, s = 4"
    paper = "He et al., 2022, arXiv:2110.04366; with prefixes beside it, their mix-and-match adapter"
    trains = "2 d D + D + d per layer, D = d / reduction"
    advice = "Like `serial`, and often ahead of it; needs no second pass behind the block. Cannot be merged."
    learning_rate = 3e-4  # as for `serial`, so that the two forms are compared on one grid
    start = "Down Kaiming-uniform, Up = 0, which is the base"
    where = "from the input of the block to its end: the input of the norm behind it (BERT) or its last map's output"
    differences = (
        "D = d / 16 instead of the 512 of the paper's summaries and translations; in Gemma 2 and 3 the sum "
        "stands before the norm of the block's output"
    )

    scale: float = 4.0
    """Factor s on what the adapter adds."""
    placement: Literal["ffn", "attention"] = "ffn"
    """The block beside which it stands."""

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        starts = {(site.stack, site.layer): site for site in backbone.sites([READS[self.placement]], self.layers)}
        kind = BeforeNorm if norms_behind_sums(backbone) else Bottleneck
        for site in ends(backbone, self.placement, self.layers):
            yield site, kind(site, self, reads=starts[site.stack, site.layer])
