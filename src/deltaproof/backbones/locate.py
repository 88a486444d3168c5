"""From a family's names to the sites of a model at hand."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from torch import nn

from deltaproof.backbones.families import Family
from deltaproof.backbones.roles import QKV
from deltaproof.backbones.sites import Site
from deltaproof.errors import BackboneError


def find_sites(model: nn.Module, family: Family, head: Sequence[str]) -> tuple[Site, ...]:
    """Every site of the model: the layers' linear maps in order, then norms, embeddings and the head."""
    layers = layer_paths(model, family)
    found = [site for index, path in enumerate(layers) for site in _linear_sites(model, family, path, index)]
    for role, name in family.names.items():
        present = next((site for site in found if site.role == role), None)
        _require(model, present, joined(layers[0], name))
    for index, path in enumerate(layers):
        found += _places_in_layer(model, family, path, index, found)
    found += _norm_sites(model, family, layers, head)
    found += _embedding_sites(model, family)
    found += _head_sites(model, family, head)
    return tuple(found)


def base_path(model: nn.Module) -> str:
    """Path of the model below its head, such as `bert`."""
    prefix = getattr(model, "base_model_prefix", "")
    return prefix if isinstance(prefix, str) and hasattr(model, prefix) else ""


def joined(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def layer_paths(model: nn.Module, family: Family) -> list[str]:
    """Paths of the model's layers, first to last."""
    path = joined(base_path(model), family.layers)
    layers = _submodule(model, path)
    _require(model, layers, path)
    return [joined(path, name) for name, _ in layers.named_children()]


def is_linear(module: nn.Module) -> bool:
    """Whether this is a dense map with a two-dimensional weight: `nn.Linear`, or `Conv1D` as GPT-2 has it."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def is_norm(module: nn.Module) -> bool:
    """Whether this is a norm with a weight, told by the class name: each family has an RMS norm of its own."""
    weight = getattr(module, "weight", None)
    return "norm" in type(module).__name__.lower() and weight is not None and weight.ndim == 1


def is_activation(module: nn.Module) -> bool:
    """Whether this is a non-linearity, told by where its class stands."""
    home = type(module).__module__
    return home in ("transformers.activations", "torch.nn.modules.activation") and not list(module.parameters())


def token_embedding(model: Any) -> Any:
    """The module that turns token ids into vectors; None for the few models without one (CANINE hashes characters)."""
    try:
        return model.get_input_embeddings()
    except NotImplementedError:
        return None


def _submodule(model: nn.Module, path: str) -> Any:
    try:
        return model.get_submodule(path)
    except AttributeError:
        return None


def _require(model: nn.Module, module: Any, path: str) -> None:
    if module is None:
        model_type = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        raise BackboneError(
            f"`{path}` must be a module of the model, as the table says for family `{model_type}`, got none; "
            f"correct that family's entry in deltaproof.backbones.families"
        )


def _linear_sites(model: nn.Module, family: Family, layer_path: str, layer: int) -> Iterator[Site]:
    sharing = Counter(family.names.values())
    start: Counter[str] = Counter()
    for role, name in family.names.items():
        path = joined(layer_path, name)
        module = _submodule(model, path)
        if module is None:  # a layer of another kind in a hybrid model
            continue
        site = _whole(path, module, role, layer, family)
        if sharing[name] > 1:
            size = _fused_size(model, role, site, sharing[name])
            rows = (start[name], start[name] + size)
            start[name] += size
            site = Site(path, role, layer, site.d_in, size, rows, site.transposed, family.stack)
        yield site
    for name, end in start.items():
        d_out = _whole(name, _submodule(model, joined(layer_path, name)), "", layer, family).d_out
        if end != d_out:
            raise BackboneError(
                f"the roles that share `{joined(layer_path, name)}` must cover its {d_out} rows, got {end}; "
                f"register a `Family` without them in deltaproof.backbones.FAMILIES"
            )


def _whole(path: str, module: Any, role: str, layer: int | None, family: Family) -> Site:
    transposed = type(module).__name__ == "Conv1D"
    d_out, d_in = module.weight.shape[::-1] if transposed else module.weight.shape
    return Site(path, role, layer, d_in, d_out, None, transposed, family.stack)


def _fused_size(model: nn.Module, role: str, site: Site, n_sharing: int) -> int:
    """Rows of one role in a shared weight; with grouped-query attention keys and values have fewer heads."""
    if role not in QKV:
        return site.d_out // n_sharing
    config = model.config.get_text_config()  # type: ignore[operator, union-attr]
    n_heads = config.num_attention_heads
    head_width = getattr(config, "head_dim", None) or config.hidden_size // n_heads
    n_key_heads = getattr(config, "num_key_value_heads", None) or n_heads
    return int(head_width * (n_heads if role == "query" else n_key_heads))


def _within(path: str, parents: Iterable[str]) -> bool:
    return any(path == parent or path.startswith(parent + ".") for parent in parents)


def _places_in_layer(
    model: nn.Module, family: Family, layer_path: str, layer: int, linear: Sequence[Site]
) -> Iterator[Site]:
    """The layer itself, its attention, its non-linearity, and the norms behind its residual sums."""
    here = {site.role: site for site in linear if site.layer == layer}
    width = next((here[role].d_out for role in ("ffn_out", "attention_out") if role in here), None)
    if width is None:
        return
    yield Site(layer_path, "layer", layer, width, width, stack=family.stack)
    attention = None
    if "query" in here:
        attention = here["query"].path.rpartition(".")[0]
        yield Site(attention, "attention", layer, width, width, stack=family.stack)
    if "ffn_in" in here:
        for name, module in model.get_submodule(layer_path).named_modules():
            path = joined(layer_path, name)
            if is_activation(module) and (attention is None or not _within(path, [attention])):
                inner = here["ffn_in"].d_out
                yield Site(path, "activation", layer, inner, inner, stack=family.stack)
    for role, name in (family.norms or {}).items():
        yield Site(joined(layer_path, name), role, layer, width, width, stack=family.stack)


def _norm_sites(model: nn.Module, family: Family, layers: Sequence[str], head: Sequence[str]) -> Iterator[Site]:
    for path, module in model.named_modules():
        if is_norm(module) and not _within(path, head):
            layer = next((index for index, parent in enumerate(layers) if _within(path, [parent])), None)
            width = module.weight.shape[0]
            yield Site(path, "norm", layer, width, width, stack=family.stack)


def _embedding_sites(model: Any, family: Family) -> Iterator[Site]:
    """The token embedding and the tables beside it (positions, segments)."""
    token = token_embedding(model)
    if token is None:
        return
    path = next(path for path, module in model.named_modules() if module is token)
    parent = path.rpartition(".")[0]
    for name, module in model.get_submodule(parent).named_children():
        if isinstance(module, nn.Embedding):
            n_rows, width = module.weight.shape
            yield Site(joined(parent, name), "embedding", None, n_rows, width, transposed=True, stack=family.stack)


def _head_sites(model: nn.Module, family: Family, head: Sequence[str]) -> Iterator[Site]:
    for path, module in model.named_modules():
        if is_linear(module) and _within(path, head):
            yield _whole(path, module, "head", None, family)
