"""Tuned is a model with a method attached: what training changes, and what is saved, merged and shipped as a whole."""

import inspect
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sites import Site, bias_of, weight_of
from deltaproof.errors import ConfigError
from deltaproof.methods.attention import counts_from_real_tokens, edit_attention, real_positions
from deltaproof.methods.base import Method, method_from
from deltaproof.methods.edits import AttentionEdit, Context, Edit, ModelEdit, Unfreeze, Watch, WeightEdit
from deltaproof.methods.hooks import hook_up
from deltaproof.seeding import generator

_PROMPTS = ("input_ids", "inputs", "inputs_embeds")
"""Under which names `generate` takes a prompt."""
_ATTACHED = "_deltaproof_attached"
"""On a model: what is attached to it, in a tuple, which torch does not look into."""


class Tuned(nn.Module):
    """A backbone, a method's edits on it, and the head: `tuned(**batch)` answers like the model."""

    def __init__(self, backbone: Backbone, method: Method, placed: list[tuple[Site | None, Edit]]) -> None:
        super().__init__()
        self.backbone = backbone
        self.method = method
        self.sites = [site for site, _ in placed]
        self.edits = nn.ModuleList(edit for _, edit in placed)
        self.model: nn.Module = backbone.model
        self.context = Context()
        self._hooks: list[Any] = []
        self._counts_from_real_tokens = False

    def forward(self, prompt_lengths: Tensor | None = None, **batch: Any) -> Any:
        """Answer like the model.

        Args:
            prompt_lengths: (batch,) how many real tokens of each row are the prompt, where not all of them are: for
                methods that act at the prompt's tokens, when a causal model is trained on prompt and answer. Left out
                with `labels`, the prompt is what stands before the first label that is not -100.
        """
        self.context.announced_lengths = prompt_lengths
        try:
            return self.model(**batch)
        finally:
            self.context.announced_lengths = None

    @torch.no_grad()
    def generate(self, input_ids: Tensor | None = None, **arguments: Any) -> Tensor:
        """Answer like the model's own `generate`; what is given is the prompt, what is generated is not."""
        if input_ids is not None:
            arguments["input_ids"] = input_ids
        prompt = next((arguments[name] for name in _PROMPTS if arguments.get(name) is not None), None)
        if prompt is None:
            raise ConfigError("`generate` needs a prompt, got none; give `input_ids`, (rows, tokens)")
        self.context.n_prompt_columns = prompt.shape[1]
        self.context.prompt_mask = arguments.get("attention_mask")
        try:
            answer: Tensor = self.model.generate(**arguments)  # type: ignore[operator]
            return answer
        finally:
            self.context.n_prompt_columns = self.context.prompt_mask = None

    def placed(self) -> Iterator[tuple[Site | None, Edit]]:
        """Each edit with its site; None stands for the whole model."""
        for site, edit in zip(self.sites, self.edits, strict=True):
            assert isinstance(edit, Edit)
            yield site, edit

    def places(self) -> list[str]:
        """A stable name for each edit: its site's, and a number that tells edits of one site apart."""
        return place_names(self.sites)

    def trained(self) -> dict[str, nn.Parameter]:
        """Every parameter that training changes, by a stable name; a shared one once."""
        names: dict[str, nn.Parameter] = {}
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                names[name] = parameter
        seen = {id(parameter) for parameter in names.values()}
        for name, parameter in self._edit_tensors(lambda edit: edit.named_parameters()):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                names[name] = parameter
        return names

    def _edit_tensors(self, of: Callable[[Edit], Iterable[tuple[str, Any]]]) -> Iterator[tuple[str, Any]]:
        for place, (_, edit) in zip(self.places(), self.placed(), strict=True):
            yield from ((f"{place}.{name}", tensor) for name, tensor in of(edit))

    def state(self) -> dict[str, Tensor]:
        """What one more task adds: all that was trained and the edits' buffers, by stable names."""
        buffers = dict(self._edit_tensors(lambda edit: edit.stored_buffers().items()))
        return {name: tensor.detach() for name, tensor in {**self.trained(), **buffers}.items()}

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Put stored values into place; the names must be those of this method on this model, no more and no fewer."""
        own = self.state()
        if missing := sorted(own.keys() ^ state.keys()):
            raise ConfigError(
                f"a stored state must hold the tensors that `{self.method.label}` trains on {self.backbone.name}, "
                f"these differ: {missing[:4]}; load it with the method and the model it was made with"
            )
        for name, tensor in state.items():
            if own[name].shape != tensor.shape:
                raise ConfigError(
                    f"`{name}` must have the shape {tuple(own[name].shape)}, got {tuple(tensor.shape)}; "
                    f"load the state with the method, labels and model it was made with"
                )
        for place, (_, edit) in zip(self.places(), self.placed(), strict=True):
            start = f"{place}."
            edit.verify({name.removeprefix(start): value for name, value in state.items() if name.startswith(start)})
        for name, tensor in state.items():
            own[name].copy_(tensor)

    @property
    def n_trainable(self) -> int:
        return sum(parameter.numel() for parameter in self.trained().values())

    @property
    def n_total(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters())

    def reachable_dimension(self) -> int:
        """Dimension of the set of models that training can reach, the head included; a shared parameter counts once."""
        per_edit = [list(edit.parameters()) for edit in self.edits]
        ours = {id(parameter): parameter.numel() for parameters in per_edit for parameter in parameters}
        shared = sum(p.numel() for parameters in per_edit for p in parameters) - sum(ours.values())
        rest = sum(parameter.numel() for parameter in self.trained().values() if id(parameter) not in ours)
        return rest + sum(edit.reachable_dimension() for _, edit in self.placed()) - shared

    @property
    def mergeable(self) -> bool:
        return not self._is_entangled() and all(
            edit.mergeable and not self._adds_a_bias(site, edit) for site, edit in self.placed()
        )

    def _is_entangled(self) -> bool:
        """Whether changes of weights act on modules that other code has wrapped: theirs are not sums of both."""
        kinds = [type(edit) for _, edit in self.placed()]
        return any(issubclass(kind, ModelEdit) for kind in kinds) and any(
            issubclass(kind, WeightEdit) for kind in kinds
        )

    def _adds_a_bias(self, site: Site | None, edit: Edit) -> bool:
        """Whether the edit would need a bias where its site has none."""
        if not isinstance(edit, WeightEdit) or site is None or bias_of(self.backbone.module(site), site) is not None:
            return False
        return edit.delta_bias(None) is not None

    @torch.no_grad()
    def merge(self) -> nn.Module:
        """Fold every edit into the base weights and let go of the hooks; returns the plain model."""
        if not self.mergeable:
            raise ConfigError(
                f"only changes of weights and biases that the model has can be merged, `{self.method.label}` is more; "
                f"keep it attached"
            )
        additions = []
        for site, edit in self.placed():
            if isinstance(edit, ModelEdit):
                self.model = edit.merge()
            elif isinstance(edit, WeightEdit) and site is not None:
                module = self.backbone.module(site)
                weight, bias = weight_of(module, site), bias_of(module, site)
                additions.append((weight, edit.delta(weight)))
                if bias is not None and (change := edit.delta_bias(bias)) is not None:
                    additions.append((bias, change))
        for target, change in additions:  # only now, so that several edits of one site all see the base weight
            target += change.to(target.dtype)
        self._release()
        return self.model

    def detach(self) -> nn.Module:
        """Take the hooks off; the base weights are as before, unless the method trains them in place."""
        for _, edit in self.placed():
            if isinstance(edit, ModelEdit):
                self.model = edit.unwrap()
        self._release()
        return self.model

    def _release(self) -> None:
        self.unhook()
        vars(self.backbone.model).pop(_ATTACHED, None)
        self.sites, self.edits = [], nn.ModuleList()

    def unhook(self) -> None:
        """Let the edits rest until the next `hook_up`; one that wraps the model acts on."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()

    def hook_up(self) -> None:
        """Let the edits act; `attach` calls this once."""
        by_path: dict[str, list[tuple[Site, Edit]]] = defaultdict(list)
        in_attention: list[tuple[Site, AttentionEdit]] = []
        wrapping: list[ModelEdit] = []
        for site, edit in self.placed():
            if isinstance(edit, ModelEdit):
                wrapping.append(edit)
            elif isinstance(edit, AttentionEdit) and site is not None:
                in_attention.append((site, edit))
            elif site is not None:
                by_path[site.path].append((site, edit))
        if in_attention:  # first, as some models refuse it, and a wrapper would stay on
            self._hooks.append(edit_attention(self.backbone, in_attention, self.context))
            edits = [edit for _, edit in in_attention]
            self._counts_from_real_tokens = counts_from_real_tokens(self.backbone.model, edits)
        for edit in wrapping:
            self.model = edit.wrap(self.model, self.backbone.head)
        for model in dict.fromkeys((self.model, self.backbone.model)):  # peft's prefixes go past the inner one's hooks
            self._hooks.append(model.register_forward_pre_hook(self._read_call, with_kwargs=True))
        for path, here in by_path.items():
            self._hooks += hook_up(self.backbone.module(path), here, self.context, self.backbone.module)

    def _read_call(self, model: Any, inputs: tuple[Any, ...], arguments: dict[str, Any]) -> Any:
        """Tell the context of a call; returns the call with positions beside it where the edits need them."""
        given = {**dict(zip(inspect.signature(model.forward).parameters, inputs, strict=False)), **arguments}
        labels = given.get("labels")
        answers = getattr(model, "can_generate", bool)() and isinstance(labels, Tensor) and labels.ndim == 2
        self.context.read(given, labels if answers else None)
        if not self._counts_from_real_tokens or model is not self.backbone.model:
            return None
        positions = real_positions(given)
        return None if positions is None else (inputs, {**arguments, "position_ids": positions})


def place_names(sites: Iterable[Site | None]) -> list[str]:
    """A stable name for the edit at each of these sites; None stands for the whole model."""
    count: dict[str, int] = defaultdict(int)
    names = []
    for site in sites:
        place = site.name if site else "model"
        names.append(f"{place}#{count[place]}")
        count[place] += 1
    return names


def attach(backbone: Backbone, method: "Method | str | dict[str, Any]", seed: int = 0) -> Tuned:
    """Freeze the base, put the method's edits in place and unfreeze what it trains; every method trains the head.

    The start values depend on `seed` and the place alone, whatever was attached before and wherever the model lies:
    methods that start alike, such as LoRA at two scales, have the same start, so that they are compared in pairs.

    Args:
        method: itself, or as one types it: `lora(rank=16)`.
    Raises:
        ConfigError: the method does not go with the model, or another one is attached to it.
    """
    _check_free(backbone)
    tuned = started(backbone, method_from(method), seed)
    try:
        tuned.hook_up()
    except BaseException:
        tuned.unhook()  # those of the edits that fitted
        raise
    vars(backbone.model)[_ATTACHED] = (tuned,)
    return tuned


def started(backbone: Backbone, method: Method, seed: int = 0) -> Tuned:
    """The method's edits in their places with the start values of this seed; none acts yet.

    Beside a model that is tuned already this tells what its edits started from.
    """
    tuned = place(backbone, method)
    for (site, edit), name in zip(tuned.placed(), tuned.places(), strict=True):
        weight = weight_of(backbone.module(site), site).detach() if site is not None and site.has_weight else None
        edit.start(weight, generator(seed, "method", name))
    tuned.edits.to(next(backbone.model.parameters()).device)
    return tuned


def _check_free(backbone: Backbone) -> None:
    """A second method would act on top of the first, while each is counted, saved and merged by itself."""
    if found := vars(backbone.model).get(_ATTACHED):
        raise ConfigError(
            f"one method at a time may be attached to a model, `{found[0].method.label}` is attached to "
            f"`{backbone.name}` already; `detach()` that one first, or attach both at once with `together(...)`"
        )


def place(backbone: Backbone, method: Method) -> Tuned:
    """The method's edits in their places, the base frozen and what is trained unfrozen; no edit has started or acts."""
    placed = placed_edits(backbone, method)
    backbone.model.requires_grad_(False)
    parameters = dict(backbone.model.named_parameters())
    for path in backbone.head:
        backbone.module(path).requires_grad_(True)
    for name in (name for _, edit in placed if isinstance(edit, Unfreeze) for name in edit.names):
        parameters[name].requires_grad_(True)
    return Tuned(backbone, method, placed)


def placed_edits(backbone: Backbone, method: Method) -> list[tuple[Site | None, Edit]]:
    """The method's edits with their sites.

    Raises:
        ConfigError: the method does not go with the model, or watches a site twice.
    """
    placed = list(method.edits(backbone))
    watched: set[tuple[type[Edit], str]] = set()
    for site, edit in placed:
        if isinstance(edit, Watch) and site is not None:
            if (type(edit), site.name) in watched:
                raise ConfigError(
                    f"one penalty of a kind may act at a place, `{method.label}` has two at {site.name}, where they "
                    f"would count twice; leave one out, or keep them to different `layers`"
                )
            watched.add((type(edit), site.name))
    return placed
