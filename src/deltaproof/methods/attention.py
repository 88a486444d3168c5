"""How an edit acts inside attention: through the one function that transformers' models call for it.

Models of `transformers` leave softmax(q k^T) v to a function that is looked up by name at every call. Ours is entered
there under a name of its own; a model that is edited is told that name, and a module without edits gets what it got.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site
from deltaproof.errors import ConfigError
from deltaproof.methods.edits import AttentionEdit, Context

NAME = "deltaproof"
_EDITS = "_deltaproof_attention_edits"


def edit_attention(backbone: Backbone, here: list[tuple[Site, AttentionEdit]], context: Context) -> "EditedAttention":
    """Let the edits act; returns the handle that takes them off.

    Raises:
        ConfigError: this model computes its attention in code of its own.
    """
    handle = EditedAttention(backbone, here, context)
    try:
        handle.check()
    except BaseException:
        handle.remove()
        raise
    return handle


class EditedAttention:
    """A model whose attention is edited, until `remove`."""

    def __init__(self, backbone: Backbone, here: list[tuple[Site, AttentionEdit]], context: Context) -> None:
        _enter()
        self.backbone, self.model = backbone, backbone.model
        self.before = _implementation(self.model)
        self.modules: dict[str, nn.Module] = {}
        for site, edit in here:
            module = self.modules.setdefault(site.path, backbone.module(site))
            if not hasattr(module, _EDITS):
                setattr(module, _EDITS, (context, []))
            getattr(module, _EDITS)[1].append(edit)
        self.model.set_attn_implementation(NAME)  # type: ignore[operator]

    def remove(self) -> None:
        for module in self.modules.values():
            delattr(module, _EDITS)
        self.modules = {}
        self.model.set_attn_implementation(self.before)  # type: ignore[operator]

    @torch.no_grad()
    def check(self) -> None:
        """Send one token through: each edited module must ask for its attention."""
        asked: set[int] = set()
        was_training = self.model.training
        token = torch.ones(1, 1, dtype=torch.long, device=next(self.model.parameters()).device)
        _WATCHERS.append(asked)
        try:
            if _implementation(self.model) == NAME:
                self.model.eval()(input_ids=token, attention_mask=token)
        finally:
            _WATCHERS.pop()
            self.model.train(was_training)
        if deaf := [path for path, module in self.modules.items() if id(module) not in asked]:
            raise ConfigError(
                f"attention can be edited in models that leave it to transformers' attention interface, "
                f"`{deaf[0]}` of family `{self.backbone.family}` computes its own; choose a method that changes "
                f"weights or outputs, such as `lora` or `serial`"
            )


_WATCHERS: list[set[int]] = []


def _implementation(model: Any) -> str:
    return str(model.config._attn_implementation)


def _enter() -> None:
    """Make our function known to transformers, with masks written out in full: extra keys change their shape."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    AttentionInterface.register(NAME, attention)
    AttentionMaskInterface.register(NAME, ALL_MASK_ATTENTION_FUNCTIONS["eager"])


def attention(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, scaling: float | None = None,
    dropout: float = 0.0, **options: Any,
) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    """softmax(mask + scores) v with the edits of this module, in the form that transformers asks for.

    Args:
        query: (batch, heads, queries, width of a head); key and value have as many heads or fewer, each for a group.
        attention_mask: added to the scores, (batch, 1, queries, keys); None where everything may be seen, or, in a
            causal module, what stands before.
    Returns:
        (batch, queries, heads, width of a head), and the attention weights where they were made.
    """
    for watcher in _WATCHERS:
        watcher.add(id(module))
    context, edits = getattr(module, _EDITS, (None, []))
    if context is None:
        return _plain(module, query, key, value, attention_mask, scaling, dropout, **options)
    n_groups = query.shape[1] // key.shape[1]
    mask = _full_mask(module, query, key, attention_mask)
    further = [pair for edit in edits if (pair := edit.keys_and_values(context)) is not None]
    n_keys = key.shape[2]
    for more_keys, more_values in further:
        key = torch.cat([more_keys.to(key.dtype).expand(len(key), -1, -1, -1), key], dim=2)
        value = torch.cat([more_values.to(value.dtype).expand(len(value), -1, -1, -1), value], dim=2)
    n_more = key.shape[2] - n_keys
    if mask is not None and n_more:
        mask = F.pad(mask, (n_more, 0))  # every token may attend to them
    key, value = key.repeat_interleave(n_groups, dim=1), value.repeat_interleave(n_groups, dim=1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if not any(edit.changes_scores for edit in edits):
        mixed = F.scaled_dot_product_attention(query, key, value, mask, dropout, scale=scale)
        return mixed.transpose(1, 2).contiguous(), None
    scores = query @ key.mT * scale
    for edit in edits:
        scores = torch.cat([scores[..., :n_more], edit.scores(scores[..., n_more:], context)], dim=-1)
    if mask is not None:
        scores = scores + mask
    weights = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    mixed = F.dropout(weights, dropout, module.training) @ value
    return mixed.transpose(1, 2).contiguous(), weights


def _plain(module: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None,
           dropout: float, **options: Any) -> tuple[Tensor, Tensor | None]:  # fmt: skip
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    sdpa = ALL_ATTENTION_FUNCTIONS["sdpa"]
    answer: tuple[Tensor, Tensor | None] = sdpa(
        module, query, key, value, mask, scaling=scaling, dropout=dropout, **options
    )
    return answer


def _full_mask(module: Any, query: Tensor, key: Tensor, mask: Tensor | None) -> Tensor | None:
    """The mask that a missing one stands for."""
    n_queries, n_keys = query.shape[2], key.shape[2]
    if mask is not None or n_queries == 1 or not getattr(module, "is_causal", False):
        return None if mask is None else mask[..., :n_keys].to(query.dtype)
    unseen = torch.ones(n_queries, n_keys, dtype=torch.bool, device=query.device).triu(n_keys - n_queries + 1)
    return torch.zeros(n_queries, n_keys, dtype=query.dtype, device=query.device).masked_fill(
        unseen, torch.finfo(query.dtype).min
    )[None, None]
