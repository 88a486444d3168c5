"""What the training loop reads: the same for every contestant, but for the learning rate."""

from typing import Any, Literal

import pydantic

from deltaproof.settings import Settings


class Training(Settings):
    """Settings of the training loop."""

    name = "training"

    epochs: float = pydantic.Field(default=3.0, gt=0)
    """Passes over the training rows; may be a fraction."""
    examples: int | None = pydantic.Field(default=None, ge=1)
    """Examples seen in all, instead of `epochs`."""
    batch_size: int = pydantic.Field(default=32, ge=1)
    """Examples per optimiser step."""
    micro_batch_size: int | None = pydantic.Field(default=None, ge=1)
    """Examples per forward pass; the gradients of several make one step. Found by itself when memory runs out."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    """How the learning rate falls after the warm-up."""
    warmup_fraction: float = pydantic.Field(default=0.1, ge=0, lt=1)
    """Share of the steps over which the learning rate rises from 0."""
    weight_decay: float = pydantic.Field(default=0.01, ge=0)
    """AdamW's decay, on matrices only."""
    clip_norm: float = pydantic.Field(default=1.0, gt=0)
    """Largest norm of the gradient."""
    evaluations_per_epoch: int = pydantic.Field(default=1, ge=1)
    """How often the validation split is scored."""
    patience: int | None = pydantic.Field(default=None, ge=1)
    """Stop after so many evaluations without a better validation score; never when left out."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    feature_extraction: bool = False
    """Layers below a method's lowest change run without dropout, as a fixed feature extractor: what they make of a row
    is the same in every epoch, so that it is computed once and kept, within the bytes of the model's weights. For
    methods that change the top only, such as `head`; the usual linear probe."""

    @pydantic.model_serializer(mode="wrap")
    def _said_where_set(self, handler: pydantic.SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A later setting is left out where it is off, so that runs recorded before it keep their keys."""
        found: dict[str, Any] = handler(self)
        if not self.feature_extraction:
            found.pop("feature_extraction", None)
        return found
