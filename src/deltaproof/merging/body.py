"""The merged model in memory: one body for all tasks, and a head for each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.load import load_backbone
from deltaproof.backbones.sites import Site
from deltaproof.errors import BackboneError, ConfigError, nearest
from deltaproof.merging.combine import Cuts, Recipe, combined, names_of
from deltaproof.merging.experts import Expert, Opener
from deltaproof.merging.sources import ExpertSource
from deltaproof.merging.unnamed import NO_NAME, task_of
from deltaproof.tasks.text import TextTask
from deltaproof.theory.checkpoints import open_model
from deltaproof.theory.deltas import parts_of
from deltaproof.theory.skeleton import Skeleton, skeleton_of, skeleton_of_model


@dataclass
class Head:
    """The experts that answer one question, and the model that answers it with the merged body."""

    name: str
    """Of the first of its experts."""
    task: TextTask
    members: list[int]
    """Which experts, by their place."""
    backbone: Backbone
    values: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    """Of each member, by the names of the head's parameters."""

    @property
    def names(self) -> list[str]:
        """The parameters of the head."""
        return [
            name for name, _ in self.backbone.model.named_parameters()
            if any(name.startswith(f"{path}.") for path in self.backbone.head)
        ]  # fmt: skip


class Body:
    """A base whose weights can be set to any merge of the experts.

    All heads sit on one body: their models share its tensors.
    """

    def __init__(
        self, sources: Sequence[ExpertSource], tasks: Sequence[TextTask] = (), trust_remote_code: bool = False
    ) -> None:
        """Open the experts.

        Args:
            tasks: further questions to be asked of the body, with heads that no expert has.
        Raises:
            ConfigError, RecordError, BackboneError, CorruptFileError: an expert cannot be merged or read.
        """
        first = sources[0]
        self.sources = list(sources)
        self.base = open_model(first.base, first.revision)
        self.skeleton: Skeleton | None = skeleton_of(self.base.folder)
        opener = Opener(self.base, self.skeleton, trust_remote_code)
        self.experts: list[Expert] = [opener.open(source) for source in sources]
        self._trust = trust_remote_code
        self._cuts: Cuts = {}
        self.heads: list[Head] = []
        for at, expert in enumerate(self.experts):
            self._seat(at, expert)
        self.fitted: list[Head] = [self._new_head(f"new {at}", task, []) for at, task in enumerate(tasks)]
        self._places = _places(self.heads[0].backbone)
        on_top = _shorts(self.heads[0].backbone, self.heads[0].names)
        self.names = [name for name in names_of(self.experts) if name in self._places and name not in on_top]
        self.notes = self._notes(on_top)
        if not self.names:
            raise ConfigError(
                "experts must change weights below the head, these change none there; merge experts that were tuned as "
                "a whole"
            )

    def head(self, name: str) -> Head:
        """The head that answers as this expert does.

        Raises:
            ConfigError: there is no such expert.
        """
        for head in self.heads:
            if name in [self.sources[at].name for at in head.members]:
                return head
        known = [source.name for source in self.sources]
        raise ConfigError(f"a head must be an expert's, got `{name}`; {nearest(name, known)}")

    @torch.no_grad()
    def apply(self, recipe: Recipe) -> None:
        """Set body and heads to this merge."""
        recipe.check(len(self.experts))
        for found in combined(self.experts, recipe, self.names, self._cuts):
            self._set(found.name, found.base + found.change.to(found.base))
        for head in self.heads:
            self.seat_head(head, averaged(head, recipe.weights))

    @torch.no_grad()
    def apply_expert(self, at: int) -> None:
        """Set the body to one expert alone, its own head in place."""
        own = self.experts[at].deltas
        for name in self.names:
            if name in own.loaders:
                delta = own[name]
                self._set(name, delta.base + delta.change)
            else:
                self._reset(name)
        for head in self.heads:
            if at in head.members:
                self.seat_head(head, head.values[at])

    @torch.no_grad()
    def apply_base(self) -> None:
        """Set the body to the base; heads stay."""
        for name in self.names:
            self._reset(name)

    @torch.no_grad()
    def seat_head(self, head: Head, values: Mapping[str, Tensor]) -> None:
        """Set a head's parameters."""
        own = dict(head.backbone.model.named_parameters())
        for name, value in values.items():
            own[name].copy_(value.to(own[name]))

    def to(self, device: torch.device) -> "Body":
        """Move the models; what is shared stays shared."""
        if device.type != "cpu":
            models = [head.backbone.model for head in (*self.heads, *self.fitted)]
            for model in models:
                model.to(device)
            for model in models[1:]:
                self._share(model, self.heads[0])
            self._places = _places(self.heads[0].backbone)
        return self

    def _set(self, name: str, value: Tensor) -> None:
        parameter, site = self._places[name]
        _part(parameter, site).copy_(value.to(parameter))

    def _reset(self, name: str) -> None:
        expert = next(expert for expert in self.experts if name in expert.deltas.loaders)
        self._set(name, expert.deltas[name].base)

    def _seat(self, at: int, expert: Expert) -> None:
        """Put an expert at the head of its task, or at a new one."""
        source = expert.source
        task = source.task or task_of(source.path, source.kind, self.base.folder, expert.values)
        for head in self.heads:
            if _same_question(head.task, task):
                head.members.append(at)
                break
        else:
            head = self._new_head(source.name, task, [at])
            self.heads.append(head)
        values = expert.head(head.names)
        own = dict(head.backbone.model.named_parameters())
        for name, value in values.items():
            if own[name].shape != value.shape:
                raise BackboneError(
                    f"a head must have the shape that its labels ask for, `{name}` of `{source.path}` has "
                    f"{list(value.shape)} in place of {list(own[name].shape)}; save it again with its label names"
                )
        head.values[at] = {name: value.detach().clone() for name, value in values.items()}

    def _new_head(self, name: str, task: TextTask, members: list[int]) -> Head:
        source = self.sources[0]
        backbone = load_backbone(
            source.base, task.kind, task.n_outputs, labels=list(task.labels) if task.labels else None, seed=0,
            trust_remote_code=self._trust, revision=source.revision,
        )  # fmt: skip
        backbone.model.requires_grad_(False)
        backbone.model.eval()
        head = Head(name, task, members, backbone)
        if self.heads:
            self._share(backbone.model, self.heads[0])
        return head

    def _share(self, model: Any, first: Head) -> None:
        """One body: every tensor below the head is the first model's."""
        own_head = {name for head in (*self.heads,) for name in head.names}
        there = dict(first.backbone.model.named_parameters())
        for name, parameter in model.named_parameters():
            if name not in own_head and name in there and there[name].shape == parameter.shape:
                parameter.data = there[name].data

    def _notes(self, on_top: set[str]) -> list[str]:
        unknown = sorted({name for name in names_of(self.experts) if name not in self._places and name not in on_top})
        notes = [f"`{name}` has no place in the model and was left out" for name in unknown[:4]]
        for head in self.heads:
            if len(head.members) > 1:
                members = ", ".join(self.sources[at].name for at in head.members)
                notes.append(f"the heads of {members} answer one question and are averaged by their weights")
        return notes


def averaged(head: Head, weights: Sequence[float]) -> dict[str, Tensor]:
    """The head of several experts of one task: the mean by their weights' sizes, equal where all are 0.

    A head starts at random, so there is no common start to count changes from.
    """
    shares = torch.tensor([abs(weights[at]) for at in head.members], dtype=torch.float64)
    shares = shares / shares.sum() if float(shares.sum()) > 0 else torch.full_like(shares, 1 / len(shares))
    return {
        name: sum(
            (float(share) * head.values[at][name].double() for share, at in zip(shares, head.members, strict=True)),
            torch.zeros(()),
        ).to(head.values[head.members[0]][name].dtype)
        for name in head.names
    }


def _same_question(first: TextTask, second: TextTask) -> bool:
    """Whether two tasks have one head: the same kind and labels, and for values the same scale.

    Labels without names tell nothing, so that each such expert keeps its own head.
    """
    if first.labels is not None and first.labels[0] == NO_NAME.format(0):
        return False
    same = (first.kind, first.labels) == (second.kind, second.labels)
    return same and (first.target_mean, first.target_std) == (second.target_mean, second.target_std)


def _places(backbone: Backbone) -> dict[str, tuple[Tensor, Site | None]]:
    """Where each change goes: parameter and site, by the names of `theory.deltas`."""
    skeleton = skeleton_of_model(backbone.model, backbone.all_sites)
    found = {}
    for name, parameter in backbone.model.named_parameters():
        for own, site in parts_of(skeleton.short(name), skeleton):
            found[own] = (parameter.data, site)
    return found


def _shorts(backbone: Backbone, names: Sequence[str]) -> set[str]:
    skeleton = skeleton_of_model(backbone.model, backbone.all_sites)
    return {own for name in names for own, _ in parts_of(skeleton.short(name), skeleton)}


def _part(tensor: Tensor, site: Site | None) -> Tensor:
    """A view of a parameter as a change of it is written: (d_out, d_in), rows of a role alone."""
    if tensor.ndim > 2:
        tensor = tensor.view(tensor.shape[0], -1)
    if site is not None and site.transposed and tensor.ndim == 2:
        tensor = tensor.mT
    return tensor if site is None or site.rows is None else tensor[site.rows[0] : site.rows[1]]
