"""Full fine-tuning: every parameter is trained."""

from collections.abc import Iterator

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site
from deltaproof.methods.base import Method, method
from deltaproof.methods.edits import Edit, Unfreeze


@method("full")
class Full(Method):
    """Full fine-tuning, the reference that the others are measured against."""

    idea = "Train every parameter of the model."
    equation = "theta' = theta + delta, delta free"
    paper = "Devlin et al., 2018, arXiv:1810.04805, sec. 3.2 (fine-tuning BERT)"
    trains = "all parameters"
    advice = "The reference; worth its memory when the data is large or the task is far from what the base learned."
    learning_rate = 5e-5
    start = "the base as it is"
    where = "every parameter"
    differences = "none"

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        yield None, Unfreeze(name for name, _ in backbone.model.named_parameters())
