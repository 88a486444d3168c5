"""BitFit: the biases, and nothing else."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site
from deltaproof.methods.base import LINEAR_ROLES, Method, method
from deltaproof.methods.edits import Context, Edit, OutputEdit, Unfreeze


class AddedBias(OutputEdit):
    """h' = h + b with b = 0 at the start: a bias for a layer that has none."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(site.d_out))

    def forward(self, h: Tensor, context: Context) -> Tensor:
        return h + self.bias.to(h.dtype)


@method("bitfit")
class BitFit(Method):
    """Train every bias of the base. A model without biases (Llama, for one) gets new ones, zero at the start, on its
    linear layers; that is then said in the run's notes."""

    idea = "Train only the bias vectors."
    equation = "b' = b + db in y = W x + b"
    paper = "Ben Zaken et al., 2021, arXiv:2106.10199, sec. 3"
    trains = "d_out per layer that has a bias, d per LayerNorm"
    advice = "Tiny and cheap; for small data sets on encoders. Models without biases get new ones."
    learning_rate = 1e-3
    start = "the base's biases as they are; new ones at zero"
    where = "every bias of the base; on models without any, new ones on the linear layers"
    differences = "new biases on models that have none, which the paper's (BERT) all have"

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        biases = bias_names(backbone)
        if biases:
            yield None, Unfreeze(biases)
            return
        for site in backbone.sites(LINEAR_ROLES):
            yield site, AddedBias(site)

    def notes(self, backbone: Backbone) -> list[str]:
        if bias_names(backbone):
            return []
        return [f"{backbone.name} has no biases: bitfit trains new ones on its linear layers, zero at the start"]


def bias_names(backbone: Backbone) -> list[str]:
    """Names of the base's biases: `bias`, or DeBERTa's `q_bias` and `v_bias`; the head is trained anyway."""
    head = tuple(f"{path}." for path in backbone.head)
    names = [name for name, _ in backbone.model.named_parameters() if name.endswith((".bias", "_bias"))]
    return [name for name in names if not name.startswith(head)]
