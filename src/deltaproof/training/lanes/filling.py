"""Batches of several lanes as one: rows that differ in number or length are filled up to the most in the pass."""

import math
import re
from collections.abc import Sequence
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltaproof.tasks.text import WIDTHS
from deltaproof.training.lanes.rows import Rows

Batch: TypeAlias = dict[str, Tensor]
"""Inputs of a model, (rows, tokens)."""


def width(batch: Batch) -> int:
    """Tokens of a row."""
    return batch["input_ids"].shape[1]


class Filler:
    """Puts the batches of lanes behind one another.

    Where lanes see the same rows nothing is filled. Else rows are padded on the right, as they are already, to a length
    that no side of a tensor inside the model has beside that of the tokens (`Rows`); and a lane with fewer rows has its
    first again in the place of the others. No lane's own rows see any of that; where a model shows padding to them
    all the same, as one that mixes all tokens, only lanes of the same rows go in one pass.
    """

    def __init__(self, model: Any, pad_token_id: int) -> None:
        self.sides, self.pad_token_id = sides_of(model), pad_token_id
        known = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        self.longest = known if isinstance(known, int) and known > 0 else math.inf
        self.is_seen = shows_padding(model, pad_token_id)

    def __call__(self, lanes: Sequence[int], batches: Sequence[Batch]) -> tuple[Rows, Batch]:
        """The rows of a pass, and what the model is called with."""
        n_tokens = self.width(batches)
        assert n_tokens is not None, "lanes that cannot be filled up go by themselves"
        n_rows = max(len(batch["input_ids"]) for batch in batches)
        if all(batch is batches[0] for batch in batches):
            rows = Rows(n_rows, n_tokens)
            return rows, rows.widened(batches[0], len(lanes))
        own = {lane: (len(batch["input_ids"]), width(batch)) for lane, batch in zip(lanes, batches, strict=True)}
        rows = Rows(n_rows, n_tokens, own)
        return rows, {key: torch.cat([self._filled(key, batch[key], rows) for batch in batches]) for key in batches[0]}

    def width(self, batches: Sequence[Batch]) -> int | None:
        """Tokens of a row in a pass of these batches; None where they cannot go in one."""
        widest = max(width(batch) for batch in batches)
        if all(batch is batches[0] for batch in batches):
            return widest
        if self.is_seen:
            return None
        if len({batch["input_ids"].shape for batch in batches}) == 1:
            return widest  # nothing to fill up
        taken = self.sides | {len(batch["input_ids"]) for batch in batches}
        while widest in taken:
            widest += WIDTHS
        return widest if widest <= self.longest else None

    def _filled(self, key: str, value: Tensor, rows: Rows) -> Tensor:
        filler = self.pad_token_id if key == "input_ids" else 0
        wide = F.pad(value, (0, rows.n_tokens - value.shape[1]), value=filler)
        return torch.cat([wide, wide[:1].expand(rows.n_rows - len(wide), -1)]) if len(wide) < rows.n_rows else wide


@torch.no_grad()
def shows_padding(model: Any, pad_token_id: int) -> bool:
    """Whether the answer to a row hangs on what is filled up behind it, by trying."""
    was_training, device = model.training, next(model.parameters()).device
    tokens = torch.tensor([[token for token in range(9) if token != pad_token_id][:8]], device=device)
    real = torch.ones_like(tokens)
    try:
        model.eval()
        answer = model(input_ids=tokens, attention_mask=real).logits
        padded = F.pad(tokens, (0, WIDTHS), value=pad_token_id)
        with_padding = model(input_ids=padded, attention_mask=F.pad(real, (0, WIDTHS))).logits
    finally:
        model.train(was_training)
    return not torch.allclose(with_padding, answer, rtol=1e-3, atol=1e-4)


def sides_of(model: Any) -> set[int]:
    """Lengths that sides of tensors inside a model may have beside rows and tokens: widths, heads, outputs."""
    weights = (
        parameter
        for module in model.modules()
        if not isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    )
    named = model.config.get_text_config().to_dict().items()
    found = {side for parameter in weights for side in parameter.shape}
    found |= {value for key, value in named if isinstance(value, int) and re.search(r"head|dim|size|width", key)}
    n_heads = getattr(model.config.get_text_config(), "num_attention_heads", None)
    return found | ({side // n_heads for side in found} if isinstance(n_heads, int) and n_heads else set())
