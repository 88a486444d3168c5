"""The base as a tuned model must be held against it: untrained but for the head, which is the tuned model's own.

Every method trains a head, and the base has none, or none for this task: against a head of chance any answer would have
moved far. With the tuned head on both sides, what differs is what tuning did below it. What a method adds at the head's
own maps (LoRA on the role `head`, for one) counts as its change.
"""

from collections.abc import Mapping

from torch import Tensor

from deltaproof.backbones.backbone import Backbone
from deltaproof.studies.kept_models import KeptModel

SAME_HEAD = "base and tuned model have the head that was trained; what moved the answer lies below it"


def base_with_head(kept: KeptModel) -> Backbone:
    """The base of a kept model, with the trained values of its head."""
    tuned, _ = kept.load()
    plain, base = tuned.detach(), kept.load_base()
    for path in base.head:
        base.module(path).load_state_dict(plain.get_submodule(path).state_dict())
    base.model.eval()
    return base


def below_the_head(base: Backbone) -> Mapping[str, Tensor]:
    """The base's parameters by name, without those of the head."""
    head = tuple(f"{path}." for path in base.head)
    return {name: value for name, value in base.model.named_parameters() if not name.startswith(head)}
