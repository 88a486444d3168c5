"""What sits on top of a pretrained model: which modules are new, and how they start."""

from collections.abc import Collection
from typing import Any

import torch
from torch import nn

from deltaproof.backbones.locate import base_path, is_linear, joined
from deltaproof.errors import BackboneError
from deltaproof.seeding import sub_seed


def head_paths(model: nn.Module, lacked: Collection[str], is_classifier: bool) -> tuple[str, ...]:
    """Paths of the modules that every method trains.

    On top of the base model that is each module with something new in it (ModernBERT's first one is pretrained), or
    all of them where the checkpoint was a classifier already. Inside the base model it is what was new, such as a
    pooler.

    Args:
        lacked: names of the parameters that the checkpoint did not hold.
    """
    on_top = modules_on_top(model)
    new_on_top = [path for path in on_top if is_classifier or any(_inside(name, path) for name in lacked)]
    base = base_path(model)
    in_base = [name for name in lacked if base and _inside(name, base)]
    return tuple(_largest_new_modules(model, in_base, base) + new_on_top)


def modules_on_top(model: nn.Module) -> list[str]:
    """The model's own children with parameters, the base model left out: `classifier`, `pre_classifier`, `score` …"""
    base = base_path(model)
    return [name for name, child in model.named_children() if name != base and any(True for _ in child.parameters())]


def check_base_was_loaded(model: nn.Module, name: str, lacked: Collection[str]) -> None:
    """Refuse a checkpoint that holds less than half of the base model: a random model would be tuned unnoticed."""
    base = base_path(model)
    expected = [key for key, _ in model.named_parameters() if _inside(key, base)]
    missing = [key for key in expected if key in lacked]
    if 2 * len(missing) > len(expected):
        raise BackboneError(
            f"the checkpoint must hold the base model's weights, but `{name}` lacks {len(missing)} of "
            f"{len(expected)}, such as `{missing[0]}`; check that config.json and the weights belong together"
        )


def check_head_skips_padding(model: nn.Module, name: str) -> None:
    """Refuse a head that sums a row up by its last column or by the mean of all (XLNet's): in a batch that is padding.

    Rows are padded on the right here, and a text must get the same answer alone and beside a longer one.
    """
    for path, module in model.named_modules():
        kind = getattr(module, "summary_type", "first")  # transformers' `SequenceSummary`, under each family's name
        if kind != "first":
            raise BackboneError(
                f"a text must get the same answer alone and in a padded batch, but `{path}` in `{name}` reads padding, "
                f"by `summary_type = {kind}`; take a model whose head reads the first token or the last real one, such "
                f"as BERT, DeBERTa or Llama"
            )


def output_parameters(model: nn.Module, n_outputs: int) -> set[str]:
    """Names of the parameters of the last linear map on top, the one whose rows mean the labels."""
    maps = [
        joined(top, path)
        for top in modules_on_top(model)
        for path, module in model.get_submodule(top).named_modules()
        if is_linear(module) and module.weight.shape[0] == n_outputs
    ]
    return {f"{path}.{name}" for path in maps[-1:] for name, _ in model.get_submodule(path).named_parameters()}


@torch.no_grad()
def start_afresh(model: Any, lacked: Collection[str], seed: int) -> None:
    """Draw the new parameters in the model's own way, from a generator that nothing else shares.

    Loading draws them too, but in an order and from a state that may differ from one release to the next.
    """
    # transformers draws what does not carry this mark; a module that carries it is passed over whole.
    for module in model.modules():
        module._is_hf_initialized = False
    tensors = [*model.named_parameters(), *model.named_buffers()]
    for name, tensor in tensors:
        tensor._is_hf_initialized = name not in lacked
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(sub_seed(seed, "head"))
        model.initialize_weights()
    for marked in (*model.modules(), *(tensor for _, tensor in tensors)):
        del marked._is_hf_initialized


def _largest_new_modules(model: nn.Module, names: Collection[str], base: str) -> list[str]:
    """The highest modules all of whose parameters are new, below the base model."""
    found: list[str] = []
    for path, module in model.named_modules():
        parameters = [joined(path, name) for name, _ in module.named_parameters()]
        is_new = _inside(path, base) and path != base and bool(parameters) and all(name in names for name in parameters)
        if is_new and not any(_inside(path, parent) for parent in found):
            found.append(path)
    return found


def _inside(name: str, path: str) -> bool:
    return not path or name == path or name.startswith(path + ".")
