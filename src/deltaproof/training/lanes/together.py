"""Several tuned models over one frozen base, called at once."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from deltaproof.backbones.backbone import Backbone
from deltaproof.backbones.sharing import sharing_copy
from deltaproof.methods.edits import ModelEdit
from deltaproof.methods.tuned import Tuned
from deltaproof.training.lanes.draws import SHARED, Draws
from deltaproof.training.lanes.rows import Rows
from deltaproof.training.lanes.switch import Switch, changed_modules
from deltaproof.training.lanes.trunk import Trunk, layers_in_order, n_layers_below

if TYPE_CHECKING:
    from deltaproof.training.gradient import Answers
    from deltaproof.training.loop import Run


class Lanes:
    """The forward pass of lanes that see the same rows: what they share once, each lane's changes on its own rows.

    Every lane is a tuned model of its own, over weights that it shares (`sharing_copy`): trained, evaluated and saved
    as ever. Only the forward pass of a training step goes through a further copy, whose changed modules are `Switch`es.
    What lies below a lane's lowest change is computed on the rows of one lane, for all that leave it alone, and dropout
    masks are drawn once.

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
        self.draws = Draws([self._stream(number, tuned) for number, tuned in enumerate(lanes)], device)
        changes = [changed_modules(self.model, tuned.backbone.model) for tuned in lanes]
        layers = layers_in_order(self.backbone)
        n_shared = [n_layers_below(self.backbone, layers, change) for change in changes]
        self._set_switches(changes)
        self.trunk = Trunk(layers, n_shared, self.draws)

    def take_up(self, runs: "Sequence[Run]") -> None:
        self.draws.start({self._number(run): run.random for run in runs})

    def put_down(self, runs: "Sequence[Run]") -> None:
        for run in runs:
            run.random = self.draws.of(self._number(run))

    def shrink(self) -> bool:
        if self.side_by_side == 1:
            return False
        self.side_by_side //= 2
        return True

    def __call__(self, runs: "Sequence[Run]", batch: dict[str, Tensor]) -> "Iterator[Answers]":
        by_number = {self._number(run): run for run in runs}
        self.model.train(runs[0].tuned.training)
        self.draws.new_batch()
        self.trunk.new_batch()
        most = lanes_of_width(batch["input_ids"].shape[1], self.side_by_side, self.usual_width)
        for depth, lanes in self._by_depth(by_number).items():
            size = evenly(len(lanes), most)
            for at in range(0, len(lanes), size):
                some = lanes[at : at + size]
                yield [by_number[lane] for lane in some], self._logits(some, depth, batch)

    def _by_depth(self, lanes: Iterable[int]) -> dict[int, list[int]]:
        """The lanes by how many layers they leave to the trunk, so that no lane takes layers from another."""
        found: dict[int, list[int]] = {}
        for lane in lanes:
            found.setdefault(self.trunk.depth_of(lane, self.model), []).append(lane)
        return dict(sorted(found.items(), reverse=True))

    def _logits(self, lanes: Sequence[int], depth: int, batch: dict[str, Tensor]) -> list[Tensor]:
        """Of each of these lanes."""
        for lane in lanes:
            self.tuned[lane].context.read(batch)
        rows = Rows(*batch["input_ids"].shape)
        self.draws.new_pass(lanes, rows)
        self.trunk.new_pass(depth)
        with self.draws.casts, self.draws:
            logits: Tensor = self.model(**rows.widened(batch, len(lanes))).logits
        return list(logits.chunk(len(lanes)))

    def _number(self, run: "Run") -> int:
        return next(number for number, tuned in enumerate(self.tuned) if tuned is run.tuned)

    @staticmethod
    def _stream(number: int, tuned: Tuned) -> int:
        """A stream of its own for a lane whose method draws, or may draw, between the draws of the model."""
        return number if any(edit.draws for _, edit in tuned.placed()) else SHARED

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


def lanes_of_width(width: int, side_by_side: int, usual_width: float) -> int:
    """How many lanes at most go through in one pass, with rows of so many tokens.

    >>> [lanes_of_width(width, 4, 32) for width in (16, 32, 48, 64, 256)]
    [4, 4, 2, 2, 1]
    """
    return side_by_side if width <= usual_width else max(1, int(side_by_side * usual_width / width))


def evenly(n: int, most: int) -> int:
    """The size of parts, no larger than `most`, that are about equal.

    >>> evenly(8, 3), evenly(4, 4), evenly(5, 4)
    (3, 4, 3)
    """
    return -(-n // -(-n // most))


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
