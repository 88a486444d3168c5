"""How an edit acts inside attention: through the one function that transformers' models call for it.

Models of `transformers` leave softmax(q k^T) v to a function that is looked up by name at every call. Ours is entered
there under a name of its own; a model that is edited is told that name. It adds further keys and values and leaves the
rest to the function that the model had, which also serves the modules without edits. Only edits that change the scores
or the weights have them reckoned here, in full.
"""

import sys
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.quiet import quiet
from deltaproof.backbones.sites import Site
from deltaproof.errors import ConfigError
from deltaproof.methods.edits import AttentionEdit, Context

NAME = "deltaproof"
PLAIN = ("eager", "sdpa")
"""Functions that ours can stand before, as `deltaproof_eager` and `deltaproof_sdpa`: their masks can be widened."""
_EDITS = "_deltaproof_attention_edits"
_NOTHING: tuple[Context, list[AttentionEdit]] = (Context(), [])


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


def is_edited(module: nn.Module) -> bool:
    """Whether edits act in this module's attention."""
    return hasattr(module, _EDITS)


class EditedAttention:
    """A model whose attention is edited, until `remove`."""

    def __init__(self, backbone: Backbone, here: list[tuple[Site, AttentionEdit]], context: Context) -> None:
        self.backbone, self.model = backbone, backbone.model
        self.before = _implementation(self.model)
        self.modules: dict[str, nn.Module] = {}
        for site, edit in here:
            module = self.modules.setdefault(site.path, backbone.module(site))
            if not hasattr(module, _EDITS):
                setattr(module, _EDITS, (context, []))
            getattr(module, _EDITS)[1].append(edit)
        self._set(_entered(self._plain()))

    def _plain(self) -> str:
        """What unedited modules are left to: what they had, if it takes a mask that says who sees whom."""
        if self.before in PLAIN:
            return self.before
        return "sdpa" if getattr(self.model, "_supports_sdpa", False) else "eager"

    def _set(self, name: str) -> None:
        with quiet():  # transformers warns where a model knows no names, `check` says so in an error
            self.model.set_attn_implementation(name)  # type: ignore[operator]

    def remove(self) -> None:
        for module in self.modules.values():
            delattr(module, _EDITS)
        self.modules = {}
        self._set(self.before)

    def check(self) -> None:
        """Send one token through: each edited module must ask for its attention."""
        asked: set[int] = set()
        _WATCHERS.append(asked)
        try:
            if _implementation(self.model).startswith(NAME):
                send_a_token(self.model)
        finally:
            _WATCHERS.pop()
        if deaf := [path for path, module in self.modules.items() if id(module) not in asked]:
            raise ConfigError(
                f"attention can be edited in models that leave it to transformers' attention interface, "
                f"`{deaf[0]}` of family `{self.backbone.family}` computes its own; choose a method that changes "
                f"weights or outputs, such as `lora` or `serial`"
            )


def counts_from_real_tokens(model: nn.Module, edits: Iterable[AttentionEdit]) -> bool:
    """Whether positions have to be counted from each row's first real token, whatever padding stands before it.

    Rotary positions matter by their differences, so that models may count padding too; but further keys stand at no
    position, and how a token sees them would hang on how long its batch is.
    """
    more_keys = any(type(edit).keys_and_values is not AttentionEdit.keys_and_values for edit in edits)
    return more_keys and any("Rotary" in type(module).__name__ for module in model.modules())


def real_positions(arguments: Mapping[str, Any]) -> Tensor | None:
    """Positions of the tokens of a call, 0 for the first real one of each row, as `generate` counts them.

    Returns:
        (batch, tokens); None where the call has its own, or no padding on the left.
    """
    mask = arguments.get("attention_mask")
    tokens = next((arguments[name] for name in _TOKENS if arguments.get(name) is not None), None)
    if not isinstance(mask, Tensor) or mask.ndim != 2 or tokens is None or arguments.get("position_ids") is not None:
        return None
    if bool(mask[:, 0].all()):
        return None
    positions: Tensor = (mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -tokens.shape[1] :]
    return positions


_TOKENS = ("input_ids", "inputs_embeds")
_WATCHERS: list[set[int]] = []


@torch.no_grad()
def send_a_token(model: nn.Module) -> None:
    """One forward pass over one token, for those who watch what the model does with it."""
    was_training = model.training
    token = torch.ones(1, 1, dtype=torch.long, device=next(model.parameters()).device)
    try:
        model.eval()(input_ids=token, attention_mask=token)
    finally:
        model.train(was_training)


def _implementation(model: Any) -> str:
    return str(model.config._attn_implementation)


def _entered(plain: str) -> str:
    """Make our function known to transformers, with the masks that the plain one gets; returns its name."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

    name = f"{NAME}_{plain}"
    AttentionInterface.register(name, partial(attention, plain))
    AttentionMaskInterface.register(name, ALL_MASK_ATTENTION_FUNCTIONS[plain])
    return name


def attention(
    plain: str, module: nn.Module, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, **options: Any
) -> tuple[Tensor, Tensor | None]:
    """softmax(mask + scores) v with the edits of this module, in the form that transformers asks for.

    Args:
        plain: name of the function that does this without edits.
        query: (batch, heads, queries, width of a head); key and value have as many heads or fewer, each for a group.
        mask: (batch, 1, queries, keys), boolean with True for what is seen, or added to the scores; None where all may
            be seen or, in a causal module under `sdpa`, what stands before.
        options: scale, dropout and whatever else the model asks of its attention.
    Returns:
        (batch, queries, heads, width of a head), and the attention weights where they were made.
    """
    for watcher in _WATCHERS:
        watcher.add(id(module))
    context, edits = getattr(module, _EDITS, _NOTHING)
    further = [pair for edit in edits if (pair := edit.keys_and_values(context)) is not None]
    rescoring = [edit for edit in edits if edit.changes_scores]
    if mask is None and (further or rescoring) and plain == "sdpa" and _is_causal(module, query, **options):
        mask = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()[None, None]
    n_keys = key.shape[2]
    for keys, values in further:
        key, value = _before(keys, key), _before(values, value)
    if n_more := key.shape[2] - n_keys:
        mask = None if mask is None else F.pad(mask, (n_more, 0), value=mask.dtype == torch.bool)  # seen by all
        if (bias := options.get("position_bias")) is not None:
            options["position_bias"] = F.pad(bias, (n_more, 0))
    if rescoring:
        return _rescored(rescoring, context, n_more, module, query, key, value, mask, **options)
    answer: tuple[Tensor, Tensor | None] = _function(plain, module)(module, query, key, value, mask, **options)
    return answer


def _is_causal(module: Any, query: Tensor, is_causal: bool | None = None, **options: Any) -> bool:
    """Whether a missing mask means what stands before, by the rule of transformers' `sdpa`."""
    return query.shape[2] > 1 and bool(getattr(module, "is_causal", True) if is_causal is None else is_causal)


def _before(extra: Tensor, present: Tensor) -> Tensor:
    """Put (heads, extra tokens, width) before (batch, heads, tokens, width)."""
    return torch.cat([extra.to(present.dtype).expand(len(present), -1, -1, -1), present], dim=2)


def _function(plain: str, module: nn.Module) -> Any:
    """The attention function of this name, as the file that the module's class comes from sees it."""
    files = (sys.modules[kind.__module__] for kind in type(module).__mro__)
    home: Any = next(file for file in files if hasattr(file, "eager_attention_forward"))
    return home.ALL_ATTENTION_FUNCTIONS.get_interface(plain, home.eager_attention_forward)


def _rescored(
    edits: list[AttentionEdit], context: Context, n_more: int, module: nn.Module, query: Tensor, key: Tensor,
    value: Tensor, mask: Tensor | None, scaling: float | None = None, dropout: float = 0.0,
    softcap: float | None = None, position_bias: Tensor | None = None, **options: Any,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Attention with its maps written out; the first `n_more` keys are further ones, which edits of scores leave."""
    if options.get("s_aux") is not None:
        raise ConfigError(
            f"scores can be edited where attention is a softmax over keys, `{type(module).__name__}` has sinks beside "
            f"them; choose a method that changes weights or outputs, such as `lora`"
        )
    n_groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(n_groups, dim=1), value.repeat_interleave(n_groups, dim=1)
    scores = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = softcap * torch.tanh(scores / softcap)
    if position_bias is not None:
        scores = scores + position_bias
    for edit in edits:
        scores = torch.cat([scores[..., :n_more], edit.scores(scores[..., n_more:], context)], dim=-1)
    if mask is not None and mask.dtype == torch.bool:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    elif mask is not None:
        scores = scores + mask
    weights = scores.softmax(dim=-1, dtype=torch.float32)
    if mask is not None and mask.dtype == torch.bool:
        weights = weights.masked_fill(~mask, 0.0)  # who sees nobody (padding) gets nothing, as from `sdpa`
    for edit in edits:
        weights = torch.cat([weights[..., :n_more], edit.weights(weights[..., n_more:], context)], dim=-1)
    weights = F.dropout(weights.to(query.dtype), dropout, module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights
