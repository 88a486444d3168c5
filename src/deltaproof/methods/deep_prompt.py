"""Deep prompts: learned tokens that stand before the text in every layer and are gone behind it."""

from collections.abc import Iterator
from typing import Any

import pydantic
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.locate import is_norm
from deltaproof.backbones.sites import Site, bias_of, weight_of
from deltaproof.errors import ConfigError
from deltaproof.methods.attention import send_a_token
from deltaproof.methods.base import Method, method
from deltaproof.methods.context import Context
from deltaproof.methods.edits import AttentionEdit, Edit
from deltaproof.methods.prefix import check_length


class DeepPrompt(AttentionEdit):
    """Keys [W_k n(P) + b_k; K] and values [W_v n(P) + b_v; V] by a layer's own maps and, in front of them, its norm n.

    What a layer makes of its prompts is dropped behind it, so that all they do there is to be attended to.
    """

    def __init__(self, length: int, width: int, frozen: "LayerMaps", n_heads: int) -> None:
        super().__init__()
        self.prompt = nn.Parameter(torch.empty(length, width))
        self.n_heads = n_heads
        self._frozen = (frozen,)

    def start(self, weight: Tensor | None, generator: torch.Generator) -> None:
        bound = (3 / self.prompt.shape[1]) ** 0.5  # sqrt(6 / (3 * 16^2 + d)), the authors' for ViT-B/16, where d = 768
        nn.init.uniform_(self.prompt, -bound, bound, generator=generator)

    def keys_and_values(self, context: Context) -> tuple[Tensor, Tensor]:
        keys, values = self._frozen[0](self.prompt)
        return self._heads(keys), self._heads(values)

    def _heads(self, rows: Tensor) -> Tensor:
        return rows.view(len(rows), self.n_heads, -1).transpose(0, 1)

    def reachable_dimension(self) -> int:
        """No more than the keys and values have numbers."""
        length, width = self.prompt.shape
        return length * min(width, self._frozen[0].d_out)


class LayerMaps:
    """How a layer turns its input into keys and values, by the modules that do so in the model."""

    def __init__(self, backbone: Backbone, layer: int, norm: nn.Module | None) -> None:
        self.norm = norm
        self.maps = [(backbone.module(site), site) for site in backbone.sites(["key", "value"], [layer])]
        self.d_out = sum(site.d_out for _, site in self.maps)

    def __call__(self, prompt: Tensor) -> list[Tensor]:
        """Keys and values, (length, heads of keys * width of a head) each, for a prompt of (length, d)."""
        h = prompt.to(weight_of(*self.maps[0]).dtype)
        if self.norm is not None:
            h = self.norm.forward(h)  # what other methods hang on the modules is meant for tokens of the text
        return [F.linear(h, weight_of(module, site), bias_of(module, site)) for module, site in self.maps]


def norms_before(backbone: Backbone, attentions: list[Site]) -> dict[str, nn.Module | None]:
    """The norm of the same layer whose output an attention gets, by the attention's path; None in post-norm models.

    Families differ in names and in order, so one token is sent through and followed.
    """
    made: list[tuple[int | None, Tensor, nn.Module]] = []
    found: dict[str, nn.Module | None] = {}
    handles: list[Any] = []

    def watch(site: Site, layer: nn.Module) -> None:
        def enter(module: nn.Module, inputs: tuple[Tensor, ...], options: dict[str, Any]) -> None:
            x = inputs[0] if inputs else options["hidden_states"]
            norms = (norm for index, output, norm in made if index == site.layer and output is x)
            found.setdefault(site.path, next(norms, None))  # ALBERT comes by again and again: its first time counts

        def leave(module: nn.Module, inputs: Any, output: Tensor) -> None:
            made.append((site.layer, output, module))

        handles.append(backbone.module(site).register_forward_pre_hook(enter, with_kwargs=True))
        handles.extend(norm.register_forward_hook(leave) for norm in layer.modules() if is_norm(norm))

    try:
        for site in attentions:
            (layer,) = backbone.sites(["layer"], [site.layer])  # type: ignore[list-item]
            watch(site, backbone.module(layer))
        send_a_token(backbone.model)
    finally:
        for handle in handles:
            handle.remove()
    return found


@method("deep_prompt")
class DeepPromptTuning(Method):
    """Learned tokens before the text in every layer, their outputs dropped behind it.

    Fresh prompts are attended to, so that the first answers are not those of the base.
    """

    idea = "Put a few learned tokens before the text anew in every layer."
    equation = "[_, x_i] = layer_i([P_i, x_{i-1}]), which is attention(q, [W_k n(P) + b_k; K], [W_v n(P) + b_v; V])"
    paper = "Jia et al., 2022, arXiv:2203.12119, eq. 5 (VPT-deep)"
    trains = "length * d per layer"
    advice = "Where `prefix` is too large or too restless: the model's own maps make keys and values of fewer numbers."
    learning_rate = 3e-2  # on the demo's data 1e-2 and 1e-1 do about equally well, 1e-3 hardly learns
    start = "P uniform on +-sqrt(3 / d), the paper's bound at ViT-B/16"
    where = "the attention of every layer; nothing is added to the sequence, so no position moves"
    differences = (
        "made for images, here for text; prompts stand at no position, also in models with rotary positions; they pass "
        "the model's own maps without what other methods add to these"
    )
    starts_as_base = False

    length: int = pydantic.Field(default=10, ge=1)
    """Prompts per layer."""
    layers: tuple[int, ...] | None = None
    """Numbers of the layers that get prompts, from 0; all when left out."""

    def edits(self, backbone: Backbone) -> Iterator[tuple[Site | None, Edit]]:
        check_length(self.length, backbone)
        sites = backbone.sites(["attention"], self.layers)
        for site in sites:
            self._check(backbone, site)
        norms = norms_before(backbone, sites)
        for site in sites:
            assert site.layer is not None
            frozen = LayerMaps(backbone, site.layer, norms[site.path])
            yield site, DeepPrompt(self.length, site.d_in, frozen, backbone.heads[1])

    def _check(self, backbone: Backbone, site: Site) -> None:
        """Nothing but the maps may stand between the layer's input and its keys, as the norms of Qwen3's heads do."""
        behind = {other.path for other in backbone.all_sites if other.role == "attention_norm"}  # ALBERT keeps it here
        parts = backbone.module(site).named_modules(prefix=site.path)
        if norms := [path for path, module in parts if is_norm(module) and path not in behind]:
            raise ConfigError(
                f"`deep_prompt` needs keys that are a linear map of what enters attention, in `{backbone.name}` they "
                f"pass norms of their own, such as `{norms[-1]}`; choose `prefix`, which learns the keys themselves"
            )
