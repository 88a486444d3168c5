"""Vectors added to the embeddings of a model's tokens: where white-box attacks and local slopes take hold."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn

from deltaproof.backbones.locate import token_embedding
from deltaproof.errors import BackboneError
from deltaproof.methods.tuned import Tuned


class Offset:
    """What is added to the token vectors, and the vectors as they were in the latest call of the model."""

    def __init__(self) -> None:
        self.value: Tensor | None = None
        """(batch, tokens, width), or None for nothing."""
        self.vectors: Tensor | None = None
        """(batch, tokens, width), without the offset."""


@contextmanager
def embedding_offset(model: nn.Module) -> Iterator[Offset]:
    """While open, what is put into the `Offset` is added to what the token embedding gives.

    A hook on the embedding rather than `inputs_embeds`: token ids still go in, and with them the positions that some
    models read off the ids. Edits of a method at the embedding act first.

    Raises:
        BackboneError: the model has no token embedding.
    """
    inner = model.backbone.model if isinstance(model, Tuned) else model
    embedding = token_embedding(inner)
    if embedding is None:
        raise BackboneError(
            f"vectors can be added only where a model has a token embedding, {type(inner).__name__} has none; "
            f"perturb its texts instead"
        )
    offset = Offset()

    def hook(module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
        offset.vectors = output.detach()
        return output if offset.value is None else output + offset.value.to(output.dtype)

    handle = embedding.register_forward_hook(hook)
    try:
        yield offset
    finally:
        handle.remove()
