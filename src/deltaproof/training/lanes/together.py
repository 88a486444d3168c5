"""Several tuned models over one frozen base, called at once."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sharing import sharing_copy
from deltaproof.methods.edits import ModelEdit
from deltaproof.methods.tuned import Tuned
from deltaproof.training.lanes.draws import Draws
from deltaproof.training.lanes.filling import Batch, Filler, width
from deltaproof.training.lanes.switch import Switch, changed_modules
from deltaproof.training.lanes.tables import hands_on_tables
from deltaproof.training.lanes.trunk import Trunk, layers_in_order, n_layers_below

if TYPE_CHECKING:
    from deltaproof.training.gradient import Answers
    from deltaproof.training.loop import Run


class Lanes:
    """The forward pass of lanes: what they share once, each lane's changes on its own rows.

    Every lane is a tuned model of its own, over weights that it shares (`sharing_copy`): trained, evaluated and saved
    as ever. Only the forward pass of a training step goes through a further copy, whose changed modules are `Switch`es.
    Lanes that see the same rows are a *cohort*: what lies below the lowest change is computed on the rows of one lane,
    for all of the cohort that leave it alone, and dropout masks are drawn once. Lanes of several cohorts go through in
    one pass where they have no such layers to share.

    Args:
        side_by_side: how many lanes go through in one pass, their rows behind one another; the others follow. All when
            left out.
        usual_width: tokens of a row up to which as many do. Of wider batches fewer do, so that no pass has more tokens:
            wide ones gain little by company, and would decide what memory is needed.
    """

    def __init__(
        self, base: Backbone, lanes: Sequence[Tuned], side_by_side: int | None = None, usual_width: float = math.inf
    ) -> None:
        self.tuned = list(lanes)
        self.side_by_side = side_by_side or len(self.tuned)
        self.usual_width = usual_width
        self.backbone = sharing_copy(base)
        self.model: Any = self.backbone.model
        device = next(self.model.parameters()).device
        # a lane whose method draws, or may draw, between the draws of the model draws for itself
        alone = {number for number, each in enumerate(lanes) if any(edit.draws for _, edit in each.placed())}
        self.draws = Draws(alone, device)
        changes = [changed_modules(self.model, tuned.backbone.model) for tuned in lanes]
        layers = layers_in_order(self.backbone)
        n_shared = [n_layers_below(self.backbone, layers, change) for change in changes]
        self.filler = Filler(self.model, base.tokenizer.pad_token_id)
        self._set_switches(changes)
        self.trunk = Trunk(layers, n_shared, self.draws)

    def take_up(self, runs: "Sequence[Run]") -> None:
        places = {self._number(run): (run.seed, run.n_taken) for run in runs}
        self.draws.start(places, {self._number(run): run.random for run in runs})

    def put_down(self, runs: "Sequence[Run]") -> None:
        for run in runs:
            run.random = self.draws.of(self._number(run))

    def shrink(self) -> bool:
        if self.side_by_side == 1:
            return False
        self.side_by_side //= 2
        return True

    def __call__(self, runs: "Sequence[Run]", batches: Sequence[Batch]) -> "Iterator[Answers]":
        by_number = {self._number(run): run for run in runs}
        batch_of = dict(zip(by_number, batches, strict=True))
        self.model.train(runs[0].tuned.training)
        self.draws.new_batch(by_number)

        def answers(lanes: Iterable[int], depth: int) -> "Iterator[Answers]":
            for some in self._passes(lanes, batch_of):
                yield [by_number[lane] for lane in some], self._logits(some, depth, [batch_of[lane] for lane in some])

        sharing_no_layers: dict[int, list[int]] = {}
        for cohort in cohorts(batch_of):
            self.trunk.new_batch()
            by_depth = self._by_depth(cohort)
            has_trunk = sum(len(lanes) for depth, lanes in by_depth.items() if depth > 0) > 1
            for depth, lanes in by_depth.items():
                if has_trunk and depth > 0:
                    yield from answers(lanes, depth)
                else:
                    sharing_no_layers.setdefault(depth, []).extend(lanes)
        self.trunk.new_batch()
        for lanes in sharing_no_layers.values():  # of one depth, as gradients flow down to the lowest change of a pass
            yield from answers(lanes, 0)

    def _by_depth(self, lanes: Iterable[int]) -> dict[int, list[int]]:
        """The lanes by how many layers they leave to the trunk, so that no lane takes layers from another."""
        found: dict[int, list[int]] = {}
        for lane in lanes:
            found.setdefault(self.trunk.depth_of(lane, self.model), []).append(lane)
        return dict(sorted(found.items(), reverse=True))

    def _passes(self, lanes: Iterable[int], batch_of: Mapping[int, Batch]) -> Iterator[list[int]]:
        """The lanes that go through at once, the widest rows first: those of like width have the least to fill up."""
        waiting = sorted(lanes, key=lambda lane: -width(batch_of[lane]))  # a cohort stays together
        while waiting:
            widest = batch_of[waiting[0]]
            most = lanes_of_width(width(widest), self.side_by_side, self.usual_width)
            some = waiting[: evenly(len(waiting), most)]
            if self.filler.width([batch_of[lane] for lane in some]) is None:
                some = [lane for lane in some if batch_of[lane] is widest]
            yield some
            waiting = waiting[len(some) :]

    def _logits(self, lanes: Sequence[int], depth: int, batches: Sequence[Batch]) -> list[Tensor]:
        """Of each of these lanes."""
        for lane, batch in zip(lanes, batches, strict=True):
            self.tuned[lane].context.read(batch)
        rows, inputs = self.filler(lanes, batches)
        self.draws.new_pass(lanes, rows)
        self.trunk.new_pass(depth)
        with self.draws.casts, self.draws:
            logits: Tensor = self.model(**inputs).logits
        return [each[: len(batch["input_ids"])] for each, batch in zip(logits.chunk(len(lanes)), batches, strict=True)]

    def _number(self, run: "Run") -> int:
        return next(number for number, tuned in enumerate(self.tuned) if tuned is run.tuned)

    def _set_switches(self, changes: list[dict[str, bool]]) -> None:
        for path in dict.fromkeys(path for change in changes for path in change):
            own = {
                number: self.tuned[number].backbone.module(path)
                for number, change in enumerate(changes)
                if path in change
            }
            whole = {number for number in own if changes[number][path]}
            module = self.backbone.module(path)
            module.forward = Switch(module, own, whole, self.draws)


def cohorts(batch_of: Mapping[int, Batch]) -> list[list[int]]:
    """The lanes that see the same rows, in the order of the first of each."""
    found: dict[int, list[int]] = {}
    for lane, batch in batch_of.items():
        found.setdefault(id(batch), []).append(lane)
    return list(found.values())


def lanes_of_width(n_tokens: int, side_by_side: int, usual_width: float) -> int:
    """How many lanes at most go through in one pass, with rows of so many tokens.

    >>> [lanes_of_width(n_tokens, 4, 32) for n_tokens in (16, 32, 48, 64, 256)]
    [4, 4, 2, 2, 1]
    """
    return side_by_side if n_tokens <= usual_width else max(1, int(side_by_side * usual_width / n_tokens))


def evenly(n: int, most: int) -> int:
    """The size of parts, no larger than `most`, that are about equal.

    >>> evenly(8, 3), evenly(4, 4), evenly(5, 4)
    (3, 4, 3)
    """
    return -(-n // -(-n // most))


def why_none(base: Backbone) -> str | None:
    """Why no tuned model over this base can be a lane; None where that is up to the method."""
    if hands_on_tables(base):
        return "layers of this model hand on a table, as of relative positions, that could be taken for rows"
    return None


def why_alone(base: Backbone, tuned: Tuned) -> str | None:
    """Why a tuned model over this base cannot be a lane; None where it can."""
    if any(isinstance(edit, ModelEdit) and not edit.acts_inside for _, edit in tuned.placed()):
        return "it acts around the model, and its tokens change the lengths"
    if changed_modules(base.model, tuned.backbone.model).get("", False):
        return "it changes the model as a whole"
    n_trained = sum(p.numel() for p in tuned.backbone.model.parameters() if p.requires_grad)
    if 2 * n_trained > sum(parameter.numel() for parameter in base.model.parameters()):
        return "it trains most of the model, which then cannot be shared"
    return None
