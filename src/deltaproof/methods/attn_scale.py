"""AttnScale: a learned gain for each entry of the attention maps."""

from collections.abc import Iterator
from typing import Literal

import pydantic
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site
from deltaproof.errors import ConfigError
from deltaproof.methods.base import Method, method
from deltaproof.methods.context import Context
from deltaproof.methods.edits import AttentionEdit, Edit


class MapGain(AttentionEdit):
    """A = softmax(alpha * S), or A = alpha * softmax(S), with alpha (heads or 1, N, N) between the first N tokens.

    What is kept is alpha - 1, zero at the start: weight decay then pulls towards the base and not towards no attention.
    """

    changes_scores = True

    def __init__(self, n_heads: int, n_tokens: int, scales: Literal["scores", "weights"], causal: bool) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(n_heads, n_tokens, n_tokens))
        self.scales = scales
        self.causal = causal

    def scores(self, scores: Tensor, context: Context) -> Tensor:
        return scores * self.gains(scores, context) if self.scales == "scores" else scores

    def weights(self, weights: Tensor, context: Context) -> Tensor:
        return weights * self.gains(weights, context) if self.scales == "weights" else weights

    def gains(self, maps: Tensor, context: Context) -> Tensor:
        """alpha for these queries and keys, 1 where either stands beyond the N tokens or is padding.

        Args:
            maps: (batch, heads, queries, keys).
        Returns:
            (batch or 1, heads or 1, queries, keys).
        """
        n_queries, n_keys = maps.shape[-2:]
        first_query = context.n_past
        first_key = max(0, context.n_past + n_queries - n_keys)  # a sliding window's cache has let go of those before
        n = self.shift.shape[-1]
        padding = left_padding(context)
        if padding is None:
            known = self.shift[:, first_query : first_query + n_queries, first_key : first_key + n_keys]
            return 1 + F.pad(known, (0, n_keys - known.shape[2], 0, n_queries - known.shape[1]))
        padding = padding.to(maps.device)[:, None]
        query = torch.arange(first_query, first_query + n_queries, device=maps.device) - padding
        key = torch.arange(first_key, first_key + n_keys, device=maps.device) - padding
        known = self.shift[:, query.clamp(0, n - 1)[:, :, None], key.clamp(0, n - 1)[:, None, :]].transpose(0, 1)
        inside = ((query >= 0) & (query < n))[:, None, :, None] & ((key >= 0) & (key < n))[:, None, None, :]
        return 1 + known * inside

    def reachable_dimension(self) -> int:
        """One per entry; in a causal model those of later tokens do nothing, nor does a lone score before a softmax."""
        n_heads, n, _ = self.shift.shape
        return n_heads * (n * (n + 1) // 2 - (self.scales == "scores")) if self.causal else n_heads * n * n


def left_padding(context: Context) -> Tensor | None:
    """How many tokens stand before each row's first real one, (batch,); None where there are none in any row.

    Raises:
        ConfigError: the mask says who sees whom and not which tokens are real.
    """
    mask = context.attention_mask
    if mask is None:
        return None
    if not isinstance(mask, Tensor) or mask.ndim != 2:
        raise ConfigError(
            "`attention_mask` must be (batch, tokens) for `attn_scale`, whose gains are counted from a row's first "
            "token, got one of pairs of tokens; generate without `cache_implementation='static'`"
        )
    if bool(mask[:, 0].all()):
        return None
    return mask.long().argmax(dim=1)


@method("attn_scale")
class AttnScale(Method):
    """A gain for each pair of positions in each attention map, 1 at the start."""

    idea = "Scale each entry of every attention map by a learned gain."
    equation = (
        "A_h = softmax(alpha_h * q k^T / sqrt(d_h)), or A_h = alpha_h * softmax(q k^T / sqrt(d_h)) with "
        "`scales='weights'`; alpha = 1 at the start"
    )
    paper = "Basu et al., 2024, arXiv:2304.01917 (ATTNSCALE; ATTNSCALELITE with `share_heads`)"
    trains = "heads * N^2 per layer with N = min(tokens, the model's longest text); N^2 per layer with `share_heads`"
    advice = (
        "For few examples and inputs that are all built alike, as gains belong to positions; attention runs slower."
    )
    learning_rate = 5e-3  # among eTT's rates per domain; on the demo's data 5e-2 fits the training rows alone
    start = "alpha = 1, which is the base"
    where = "the attention maps of every layer, between the first N tokens of a row; padding is not counted"
    differences = (
        "made for images, where every input has the same N: in text a position is counted from the row's first token, "
        "and scores of tokens beyond N stay as they are; without offsets of the residual stream, which are a method "
        "of their own (`together(attn_scale, domain_residual)` is the paper's pair)"
    )

    tokens: int = pydantic.Field(default=128, ge=1)
    """N: gains exist between the first N tokens of each text; `heads * N^2` numbers per layer."""
    scales: Literal["scores", "weights"] = "scores"
    """Scale the scores, before the softmax, or the weights that it makes of them."""
    share_heads: bool = False
    """Whether all heads of a layer share one alpha."""
    layers: tuple[int, ...] | None = None
    """Numbers of the layers whose maps are scaled, from 0; all when left out."""

    def n_tokens(self, backbone: Backbone) -> int:
        return min(self.tokens, backbone.max_length)

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        n_heads = 1 if self.share_heads else backbone.heads[0]
        for site in backbone.sites(["attention"], self.layers):
            causal = bool(getattr(backbone.module(site), "is_causal", False))
            yield site, MapGain(n_heads, self.n_tokens(backbone), self.scales, causal)

    def notes(self, backbone: Backbone) -> list[str]:
        n = self.n_tokens(backbone)
        if n >= backbone.max_length:
            return []
        return [
            f"{self.name} scales attention between the first {n} tokens of a text, what comes after is left as it is"
        ]
