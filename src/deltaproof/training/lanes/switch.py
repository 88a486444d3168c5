"""What a module does when lanes have changed it: the frozen part once for all, each lane's change on its own rows."""

from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import Any

from torch import Tensor, nn

from deltaproof.methods.attention import is_edited
from deltaproof.methods.edits import Edit
from deltaproof.methods.hooks import OutputHook, added_factors
from deltaproof.methods.low_rank import add_low_rank
from deltaproof.training.lanes.draws import Draws
from deltaproof.training.lanes.rows import first_shape


def changed_modules(frozen: nn.Module, tuned: nn.Module) -> dict[str, bool]:
    """Paths of the modules that a method has changed, the topmost of each; whether they have to be run as a whole.

    A module with hooks alone is run frozen, and the hooks after it. One that has trained parameters of its own, edited
    attention, or another class (as what peft puts in its place) is run as a whole.
    """
    return dict(_changed("", frozen, tuned))


def _changed(path: str, frozen: nn.Module, tuned: nn.Module) -> Iterator[tuple[str, bool]]:
    children = dict(tuned.named_children())
    is_own = any(parameter.requires_grad for parameter in tuned.parameters(recurse=False))
    if type(frozen) is not type(tuned) or is_own or is_edited(tuned) or children.keys() != frozen._modules.keys():
        yield path, True
        return
    if path and (tuned._forward_hooks or tuned._forward_pre_hooks):  # at the root stands what reads the call
        yield path, False
    for name, child in frozen.named_children():
        yield from _changed(f"{path}.{name}" if path else name, child, children[name])


class Switch:
    """Stands in the place of a frozen module's `forward`.

    Args:
        own: the lanes' modules at this place, by the lane's number; a lane that has changed nothing here has none.
        whole: which of them are run as a whole.
    """

    def __init__(self, module: nn.Module, own: Mapping[int, nn.Module], whole: set[int], draws: Draws) -> None:
        self.module, self.frozen = module, module.forward
        self.own, self.whole, self.draws = own, whole, draws

    def __call__(self, *inputs: Any, **arguments: Any) -> Any:
        here, rows, done = self.draws.here, self.draws.rows, 0
        begin = end_of_draws = self.draws.at
        parts: list[Any] = []
        sizes: list[int] = []
        for is_whole, group in groupby(here, key=self.whole.__contains__):
            lanes = tuple(group)
            for some in ((lane,) for lane in lanes) if is_whole else (lanes,):
                end = done + len(some)
                x, options = rows.part((inputs, arguments), len(here), done, end)
                if is_whole:
                    parts.append(self._whole(some[0], x, options))
                else:
                    self.draws.at = begin  # lanes that another parts draw the same here: the tape has it for the next
                    parts.append(self._together(some, x, options))
                    end_of_draws = max(end_of_draws, self.draws.at)
                sizes.append(len(some))
                done = end
        self.draws.at = end_of_draws
        return rows.joined(parts, sizes)

    def _whole(self, lane: int, inputs: Any, arguments: dict[str, Any]) -> Any:
        """The lane's own module in the place of the frozen one, on the rows that it sees alone."""
        rows = self.draws.rows
        own, options = rows.cut((inputs, arguments), lane)
        with self.draws.by_lane(lane):
            output = self.own[lane](*own, **options)
        return rows.filled(output, lane, first_shape((inputs, arguments)))

    def _together(self, lanes: tuple[int, ...], inputs: Any, arguments: dict[str, Any]) -> Any:
        """The frozen module once over the rows of all these lanes, with each lane's hooks before and after it."""
        before, self.draws.here = self.draws.here, lanes
        try:
            inputs = self._entering(lanes, inputs)
            return self._leaving(lanes, inputs, self.frozen(*inputs, **arguments))
        finally:
            self.draws.here = before

    def _entering(self, lanes: tuple[int, ...], inputs: Any) -> Any:
        """The inputs as each lane's hooks change them."""

        def changed(module: nn.Module, part: Any, number: int) -> Any:
            for hook in module._forward_pre_hooks.values():
                found: Any = hook(module, part)
                part = part if found is None else found if isinstance(found, tuple) else (found,)
            return part

        has_hooks = any(self.own[lane]._forward_pre_hooks for lane in lanes if lane in self.own)
        return self._each(lanes, inputs, changed) if has_hooks else inputs

    def _leaving(self, lanes: tuple[int, ...], inputs: Any, output: Any) -> Any:
        """The output as each lane's hooks change it."""

        def changed(module: nn.Module, part: Any, number: int) -> Any:
            rows = self.draws.rows
            seen = rows.cut(rows.part(inputs, len(lanes), number, number + 1), lanes[number])
            for hook in module._forward_hooks.values():
                found: Any = hook(module, seen, part)
                part = part if found is None else found
            return part

        if not any(self.own[lane]._forward_hooks for lane in lanes if lane in self.own):
            return output
        factors = [added_factors(self._edit_alone(lane)) for lane in lanes]
        known = [each for each in factors if each is not None]
        if len(known) == len(lanes) > 1 and isinstance(output, Tensor):
            return add_low_rank(output, inputs[0], known, self.module)
        return self._each(lanes, output, changed)

    def _edit_alone(self, lane: int) -> Edit | None:
        """What a lane has here, where that is one edit of the output."""
        hooks = list(self.own[lane]._forward_hooks.values()) if lane in self.own else []
        return hooks[0].alone() if len(hooks) == 1 and isinstance(hooks[0], OutputHook) else None

    def _each(self, lanes: tuple[int, ...], value: Any, change: Callable[[nn.Module, Any, int], Any]) -> Any:
        """Each lane's part of a value, changed by its hooks, as one again."""
        rows, parts = self.draws.rows, []
        for number, lane in enumerate(lanes):
            part = rows.part(value, len(lanes), number, number + 1)
            if lane in self.own:
                with self.draws.by_lane(lane):
                    changed = change(self.own[lane], rows.cut(part, lane), number)
                part = rows.filled(changed, lane, first_shape(part))
            parts.append(part)
        return rows.joined(parts, [1] * len(lanes))
