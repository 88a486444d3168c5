"""Find a model's roles by its structure, for families that the table does not know."""

import re
from collections.abc import Iterator
from typing import Any, Literal

from torch import nn

from deltaproof.backbones.families import Family
from deltaproof.backbones.locate import base_path, is_linear
from deltaproof.backbones.roles import ATTENTION, FFN, QKV
from deltaproof.errors import BackboneError

_QKV_WORDS = {"query": "q|wq|query", "key": "k|wk|key", "value": "v|wv|value"}
_FUSED = re.compile(r"qkv|query_key_value|c_attn|in_proj", re.IGNORECASE)
_GATE = re.compile(r"gate|(^|\.)w1$", re.IGNORECASE)
_REASON = "one fused weight holds {}, and its order of rows is not known"


def discover_family(model: nn.Module) -> Family:
    """Read the roles off names and shapes of the linear maps in the repeated layers.

    Queries, keys and values are told by name; another map inside attention is `attention_out`. Of the rest a map that
    widens is `ffn_in` (or `ffn_gate`, by name), one that narrows back is `ffn_out`, a square one `attention_out`.

    Raises:
        BackboneError: there is no repeated layer, or two maps could play one role.
    """
    base = model.get_submodule(base_path(model))
    path, layers = _repeated_layers(model, base)
    linears = {name: module for layer in layers for name, module in layer.named_modules() if is_linear(module)}
    names: dict[str, str] = {}
    unreachable: dict[str, str] = {}
    for name, module in linears.items():
        if _FUSED.search(name.rpartition(".")[2]):
            unreachable |= dict.fromkeys(QKV, _REASON.format("queries, keys and values"))
            continue
        if _is_fused_gate(module, linears):
            unreachable |= dict.fromkeys(("ffn_in", "ffn_gate"), _REASON.format("input and gate"))
            continue
        role = _role(name, module, linears)
        if role in names:
            raise _cannot(model, f"both `{names[role]}` and `{name}` could be `{role}`")
        names[role] = name
    if not names:
        raise _cannot(model, "its layers hold no linear maps")
    # `score` is what transformers calls the head of causal models
    stack: Literal["encoder", "decoder"] = "decoder" if hasattr(model, "score") else "encoder"
    known = {role: names[role] for role in (*ATTENTION, *FFN) if role in names}
    return Family(path, known, stack, unreachable=unreachable or None)


def _repeated_layers(model: nn.Module, base: nn.Module) -> tuple[str, nn.ModuleList]:
    lists = [(path, module) for path, module in base.named_modules() if _is_stack(module)]
    if not lists:
        raise _cannot(model, "it has no list of equal layers")
    path, layers = max(lists, key=lambda entry: _n_weights(entry[1]))
    assert isinstance(layers, nn.ModuleList)
    size = _n_weights(layers)
    twins = [name for name, other in lists if not _nested(name, path) and 10 * _n_weights(other) > size]
    if twins:
        raise _cannot(model, f"the layers are spread over several lists, such as `{path}` and `{twins[0]}`")
    return path, layers


def _n_weights(module: nn.Module) -> int:
    """Weights of the linear maps in it."""
    weights: Iterator[Any] = (part.weight for part in module.modules() if is_linear(part))
    return sum(weight.numel() for weight in weights)


def _nested(path: str, other: str) -> bool:
    return path == other or path.startswith(other + ".") or other.startswith(path + ".")


def _is_stack(module: nn.Module) -> bool:
    return isinstance(module, nn.ModuleList) and len(module) > 0 and len({type(child) for child in module}) == 1


def _role(name: str, module: Any, linears: dict[str, Any]) -> str:
    last = name.rpartition(".")[2].lower()
    for role, words in _QKV_WORDS.items():
        if re.match(rf"(to_)?({words})(_|$)", last):
            return role
    if "att" in name.lower():
        return "attention_out"
    d_in, d_out = _shape(module)
    if d_out > d_in:
        return "ffn_gate" if _GATE.search(name) else "ffn_in"
    widened = {_shape(other) for other in linears.values()}
    if d_out < d_in and widened & {(d_out, d_in), (d_out, 2 * d_in)}:
        return "ffn_out"
    return "attention_out"


def _is_fused_gate(module: Any, linears: dict[str, Any]) -> bool:
    """Whether it widens to twice what another map narrows back."""
    d_in, d_out = _shape(module)
    shapes = {_shape(other) for other in linears.values()}
    return d_out > d_in and (d_out // 2, d_in) in shapes and (d_out, d_in) not in shapes


def _shape(module: Any) -> tuple[int, int]:
    """(d_in, d_out)"""
    rows, columns = module.weight.shape
    return (rows, columns) if type(module).__name__ == "Conv1D" else (columns, rows)


def _cannot(model: Any, why: str) -> BackboneError:
    model_type = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
    some = ", ".join(f"`{name}`" for name in _examples(model))
    return BackboneError(
        f"each role must be one linear map per layer, but of family `{model_type}` {why}; say which is which: "
        f'`deltaproof.backbones.FAMILIES.add("{model_type}")(Family(layers=…, names={{"query": …}}))`'
        + (f"; linear maps here are {some}" if some else "")
    )


def _examples(model: nn.Module) -> Iterator[str]:
    names = [name for name, module in model.named_modules() if is_linear(module)]
    yield from names[:8]
