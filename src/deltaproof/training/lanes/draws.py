"""Random numbers in lanes: each lane draws what it would draw alone, and lanes that draw alike draw once.

What a model draws (dropout) depends on the state of a generator, the order of the draws and their shapes. Lanes of one
seed that stand at the same step draw the same masks for the same rows, as long as no method draws in between: those
follow one *stream*. What is drawn for the first of them is kept on a tape for the others, who come later or stand in
the same pass. A lane whose method draws for itself has a stream of its own.
"""

from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from deltaproof.quick.attention import written_out
from deltaproof.quick.casts import Casts
from deltaproof.quick.dropping import draw_attention_mask, draw_mask
from deltaproof.quick.mode import quick
from deltaproof.training.gradient import random_state, set_random_state
from deltaproof.training.lanes.masked import dropped
from deltaproof.training.lanes.rows import Rows, by_row

State = dict[str, Tensor]


class Draws(TorchFunctionMode):
    """While the frozen model runs, takes its draws stream by stream.

    Args:
        alone: numbers of the lanes whose methods draw for themselves.
    """

    def __init__(self, alone: Collection[int], device: torch.device) -> None:
        super().__init__()
        self.alone, self.device, self.casts = alone, device, Casts()
        self.streams: dict[int, Hashable] = {}
        """Of each lane, by its number."""
        self.states: dict[Hashable, State] = {}
        self.here: tuple[int, ...] = ()
        """The lanes whose rows are in the tensors that the frozen model sees now."""
        self.rows = Rows(0, 0)
        self.at = 0
        """How many draws of the frozen model lie behind in this pass."""
        self._tape: dict[Hashable, dict[int, Any]] = {}
        """What the streams of several lanes drew for these rows: masks, or where the generators stood."""
        self._to_come: set[int] = set()
        """Lanes that these rows have not taken through the model yet."""
        self._now: Hashable = None
        self._is_lane = False

    def start(self, places: Mapping[int, Hashable], states: Mapping[int, State]) -> None:
        """Take up where each lane's generator stands; lanes at one place draw alike."""
        self._now = None
        self.streams = {lane: lane if lane in self.alone else place for lane, place in places.items()}
        self.states = {self.streams[lane]: state for lane, state in states.items()}

    def of(self, lane: int) -> State:
        """Where a lane's generator stands."""
        self._save()
        return self.states[self.streams[lane]]

    def new_batch(self, lanes: Collection[int]) -> None:
        """Other rows, for these lanes: what was drawn for the last ones is no use."""
        self._tape, self._to_come = {}, set(lanes)

    def new_pass(self, lanes: Sequence[int], rows: Rows) -> None:
        """The rows of these lanes are about to go through the frozen model."""
        self.here, self.rows, self.at = tuple(lanes), rows, 0
        wanted = {self.streams[lane] for lane in self._to_come}
        self._tape = {stream: drawn for stream, drawn in self._tape.items() if stream in wanted}
        self._to_come -= set(lanes)
        self._turn_to(self.streams[self.here[0]])  # for what draws past the functions below

    @contextmanager
    def by_lane(self, lane: int) -> Iterator[None]:
        """Code of one lane's own runs: it draws from the lane's stream, as it does alone."""
        before, self._is_lane = self._is_lane, True
        self._turn_to(self.streams[lane])
        try:
            yield
        finally:
            self._is_lane = before

    def _turn_to(self, stream: Hashable) -> None:
        if stream != self._now:
            self._save()
            self._now = stream
            set_random_state(self.states[stream], self.device)

    def _save(self) -> None:
        if self._now is not None:
            self.states[self._now] = random_state(self.device)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self._is_lane:
            if func is F.dropout:
                return self._dropout(*args, **kwargs)
            if func is F.scaled_dot_product_attention and kwargs.get("dropout_p"):
                return self._attention(*args, **kwargs)
        return quick(func, args, kwargs) if self.device.type == "cpu" else func(*args, **kwargs)

    def _dropout(self, input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
        if not training or p == 0:
            return input
        n_lanes = len(self.here) if self.rows.are_in_maps(input, len(self.here)) else 1
        streams, size, parts = self._runs(n_lanes), len(input) // n_lanes, []
        masks = self._drawn(lambda lane: self._mask(input[:size], p, lane), input[:size].shape)
        for part, (stream, n) in zip(torch.split(input, [size * n for _, n in streams]), streams, strict=True):
            parts.append(dropped(part, masks[stream], n, 1 / (1 - p)))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _runs(self, n_lanes: int) -> list[tuple[Hashable, int]]:
        """Streams of the lanes whose rows are in a tensor, each with how many of them stand behind one another."""
        if n_lanes == 1:
            return [(self.streams[self.here[0]], 1)]
        return [(stream, len(list(lanes))) for stream, lanes in groupby(self.here, key=self.streams.__getitem__)]

    def _drawn(self, draw: Callable[[int], Any], shape: Sequence[int] | None = None) -> dict[Hashable, Any]:
        """What each stream draws here, for the first of its lanes; what the others are to have too is kept.

        Args:
            draw: for a lane, what it draws alone.
            shape: of one lane's part of the whole, to which masks are filled up.
        """
        found: dict[Hashable, Any] = {}
        for lane in self.here:
            stream = self.streams[lane]
            if stream in found:
                continue
            drawn = self._tape.setdefault(stream, {})
            if self.at not in drawn:
                self._turn_to(stream)
                drawn[self.at] = draw(lane)
            found[stream] = drawn[self.at] if shape is None else self._filled(drawn[self.at], lane, shape)
        self.at += 1
        return found

    @torch.no_grad()
    def _mask(self, x: Tensor, p: float, lane: int) -> Tensor:
        """What a lane alone would draw here: scaled where the device's own dropout scales the mask, else boolean."""
        n_rows, own = self.rows.n_rows, x
        if lane in self.rows.own and len(x) % n_rows == 0:
            own = self.rows.cut(by_row(x, n_rows), lane).flatten(0, 1)
        if x.is_cuda:  # one kernel draws, masks and scales there, the scale in fp32
            return torch.native_dropout(torch.ones_like(own), p, True)[1]
        return draw_mask(own.shape, p, own)

    def _filled(self, mask: Tensor, lane: int, shape: Sequence[int]) -> Tensor:
        """A lane's mask in the shape of the lane's part of the whole."""
        if lane not in self.rows.own or mask.shape == shape:
            return mask
        whole = (self.rows.n_rows, shape[0] // self.rows.n_rows, *shape[1:])
        filled: Tensor = self.rows.filled(by_row(mask, self.rows.own[lane][0]), lane, whole).flatten(0, 1)
        return filled

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, **options: Any,
    ) -> Tensor:  # fmt: skip
        """Attention with dropout. On a CPU torch writes the maps out, and so do we, each stream's under one mask."""
        n = len(self.here) if self.rows.are_in(query, len(self.here)) else 1
        streams, inputs, parts, done = self._runs(n), (query, key, value, attn_mask), [], 0
        on_cpu, one = query.device.type == "cpu", self.rows.part((query, key), n, 0, 1)
        if on_cpu:
            shape = (*one[0].shape[:-1], key.shape[-2])
            masks = self._drawn(lambda lane: self._maps_mask(one, dropout_p, lane), shape)
        else:
            masks = self._drawn(lambda lane: self._skipped(inputs, n, lane, dropout_p, is_causal))
        for stream, n_lanes in streams:
            some = self.rows.part(inputs, n, done, done + n_lanes)
            if on_cpu:
                q, k, v, mask = some
                parts.append(written_out(q, k, v, mask, masks[stream], is_causal, **options))
            else:
                lanes = self.here[done : done + n_lanes]
                parts += self._from(masks[stream], lanes, some, dropout_p, is_causal, options)
            done += n_lanes
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _maps_mask(self, inputs: tuple[Tensor, Tensor], p: float, lane: int) -> Tensor:
        """What a lane alone would draw for the maps of its attention, of query and key."""
        query, key = self.rows.cut(inputs, lane)
        return draw_attention_mask(query, key, p)

    def _skipped(self, inputs: tuple[Any, ...], n_lanes: int, lane: int, p: float, is_causal: bool) -> State:
        """Where the generators stand before a draw, which is then taken for once: for masks that stay in a kernel."""
        before = random_state(self.device)
        with torch.no_grad():
            self._in_kernel(self.rows.narrowed(inputs, n_lanes), lane, p, is_causal, {})
        return before

    def _from(
        self, state: State, lanes: Sequence[int], inputs: tuple[Any, ...], p: float, is_causal: bool, options: Any
    ) -> list[Tensor]:
        """Attention lane by lane, each drawing from where the first one began."""
        now, parts = random_state(self.device), []
        for number, lane in enumerate(lanes):
            set_random_state(state, self.device)
            one = self.rows.part(inputs, len(lanes), number, number + 1)
            parts.append(self.rows.filled(self._in_kernel(one, lane, p, is_causal, options), lane, one[0].shape))
        set_random_state(now, self.device)
        return parts

    def _in_kernel(self, inputs: tuple[Any, ...], lane: int, p: float, is_causal: bool, options: Any) -> Tensor:
        """Attention of one lane as the device's own function computes it alone."""
        q, k, v, mask = self.rows.cut(inputs, lane)
        if lane in self.rows.own and mask is not None:
            mask, is_causal = without_need(mask)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p, is_causal=is_causal, **options)


def without_need(mask: Tensor) -> tuple[Tensor | None, bool]:
    """None for a mask that hides nothing, or only what comes later; and whether that is hidden.

    As transformers does for rows without padding: the kernel that it then gets draws its masks in another way.
    """
    if mask.dtype == torch.bool and bool(mask.all()):
        return None, False
    if mask.dtype == torch.bool and bool((mask == torch.ones_like(mask).tril()).all()):
        return None, True
    return mask, False
