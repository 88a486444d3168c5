"""Domain-residual adapter: an offset added to what each block puts out."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site
from deltaproof.methods.base import Method, method
from deltaproof.methods.edits import Edit, WeightEdit


class Offset(WeightEdit):
    """y' = y + o, so W' = W and b' = b + o; o = 0 at the start."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.zeros(site.d_out))

    def delta(self, weight: Tensor) -> Tensor:
        return torch.zeros_like(weight)

    def delta_bias(self, bias: Tensor | None) -> Tensor:
        return self.offset

    def contribution(self, x: Tensor, output: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self.offset.to(output.dtype).expand_as(output)


@method("domain_residual")
class DomainResidual(Method):
    """Two offsets per layer, one on the output of attention and one on that of the feed-forward block."""

    idea = "Add a learned offset to what each block adds to the residual stream."
    equation = "x' = x + attention(x) + o_a, x'' = x' + ffn(x') + o_f, o = 0 at the start"
    paper = "Xu et al., 2022 (eTT, TMLR); Basu et al., 2023, arXiv:2304.01917, sec. 3 (beside `attn_scale`)"
    trains = "2 d per layer"
    advice = "Among the smallest; for few examples, beside other small methods. Merges where there is a bias."
    learning_rate = 1e-3  # eTT takes 5e-4 to 5e-3 by domain, 1e-3 in most
    start = "o = 0, which is the base"
    where = "the outputs of `attention_out` and `ffn_out`"
    differences = (
        "an offset stands on the block's last map, so that it passes the dropout that BERT and GPT-2 put behind it, "
        "and in Gemma 2 and 3 the norm behind it"
    )

    layers: tuple[int, ...] | None = None
    """Numbers of the transformer layers that get offsets, from 0; all when left out."""

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        for site in backbone.sites(["attention_out", "ffn_out"], self.layers):
            yield site, Offset(site)
