"""Serial bottleneck adapters: behind the feed-forward block, or behind both blocks of a layer."""

from collections.abc import Iterator
from typing import Literal

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site
from deltaproof.errors import ConfigError
from deltaproof.methods.base import method
from deltaproof.methods.bottleneck import BehindNorm, Bottleneck, BottleneckMethod, ends, norms_behind_sums
from deltaproof.methods.edits import Edit


@method("serial")
class Serial(BottleneckMethod):
    """A small network with a bottleneck after a block, on what the block puts out."""

    idea = "Put a small network with a bottleneck behind the blocks of each layer."
    equation = (
        "h' = h + s Up(act(Down h)); as `pfeiffer` on post-norm models, with r the block's input, "
        "LN(h + s Up(act(Down LN(h + r))) + r)"
    )
    paper = (
        "Houlsby et al., 2019, arXiv:1902.00751 (`houlsby`); Pfeiffer et al., 2021, arXiv:2005.00247, with one per "
        "layer, in the form of Zhou et al., 2023, arXiv:2301.12132; Liu et al., 2024, arXiv:2402.06247 (`after_norm`)"
    )
    trains = "2 d D + D + d per adapter, D = d / reduction: one per layer as `pfeiffer`, two otherwise"
    advice = "Strong on encoders and on tasks far from pre-training; cannot be merged, costs time at inference."
    learning_rate = 3e-4  # the middle of Houlsby et al.'s grid, 3e-5 to 3e-3
    start = "Up = 0, which is the base; `initial` has the papers' own"
    where = "the end of the feed-forward block of each layer, with `houlsby` and `after_norm` of attention too"
    differences = (
        "starts as the base; `houlsby` stands before the dropout that BERT and GPT-2 put behind a block, and trains no "
        "norms (write `together(serial(placement='houlsby'), ln_tune)`); in Gemma 2 and 3 adapters stand before the "
        "norm of the block's output"
    )

    placement: Literal["pfeiffer", "houlsby", "after_norm"] = "pfeiffer"
    """`pfeiffer`: one per layer, after the feed-forward block. `houlsby`: after attention and after the feed-forward
    block, before the residual sums. `after_norm`: after both, behind the norms of the sums, on post-norm models."""

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        if self.placement == "pfeiffer":
            kind = BehindNorm if norms_behind_sums(backbone) else Bottleneck
            for site in ends(backbone, "ffn", self.layers):
                yield site, kind(site, self)
            return
        for site in backbone.sites(self._roles(backbone), self.layers):
            yield site, Bottleneck(site, self)

    def _roles(self, backbone: Backbone) -> tuple[str, str]:
        if self.placement == "houlsby":
            return "attention_out", "ffn_out"
        if not norms_behind_sums(backbone):
            raise ConfigError(
                f"`placement='after_norm'` needs a model with norms behind its residual sums, such as BERT, "
                f"`{backbone.name}` has none there; choose `pfeiffer` or `houlsby`"
            )
        return "attention_norm", "ffn_norm"
