"""Random numbers in lanes: each lane draws what it would draw alone, and lanes that draw alike draw once.

What a model draws (dropout) depends on the state of a generator, the order of the draws and their shapes. Lanes of one
seed that see the same rows draw the same masks, as long as no method draws in between: those follow one *stream*. What
is drawn for the first of them is kept on a tape for the others, who come later or stand in the same pass. A lane whose
method draws for itself has a stream of its own.
"""

from collections.abc import Iterator, Sequence
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
from deltaproof.training.lanes.rows import Rows

State = dict[str, Tensor]
SHARED = -1
"""The stream of the lanes that draw nothing for themselves."""


class Draws(TorchFunctionMode):
    """While the frozen model runs, takes its draws stream by stream.

    Args:
        streams: of each lane, by its number.
    """

    def __init__(self, streams: Sequence[int], device: torch.device) -> None:
        super().__init__()
        self.streams, self.device, self.casts = streams, device, Casts()
        self.states: dict[int, State] = {}
        self.here: tuple[int, ...] = ()
        """The lanes whose rows are in the tensors that the frozen model sees now."""
        self.rows = Rows(0, 0)
        self.at = 0
        """How many draws of the shared stream lie behind in this pass."""
        self._tape: list[Any] = []
        """What the shared stream drew for this batch: masks, or where the generators stood."""
        self._now: int | None = None
        self._is_lane = False

    def start(self, states: dict[int, State]) -> None:
        """Take up where each lane's generator stands."""
        self._now = None
        self.states = {self.streams[lane]: state for lane, state in states.items()}

    def of(self, lane: int) -> State:
        """Where a lane's generator stands."""
        self._save()
        return self.states[self.streams[lane]]

    def new_batch(self) -> None:
        """Other rows: what was drawn for the last ones is no use."""
        self._tape = []

    def new_pass(self, lanes: Sequence[int], rows: Rows) -> None:
        """The rows of these lanes are about to go through the frozen model."""
        self.here, self.rows, self.at = tuple(lanes), rows, 0
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

    def _turn_to(self, stream: int) -> None:
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
        masks = self._drawn({stream for stream, _ in streams}, lambda: self._mask(input[:size], p))
        for part, (stream, n) in zip(torch.split(input, [size * n for _, n in streams]), streams, strict=True):
            parts.append(dropped(part, masks[stream], n, 1 / (1 - p)))
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _runs(self, n_lanes: int) -> list[tuple[int, int]]:
        """Streams of the lanes whose rows are in a tensor, each with how many of them stand behind one another."""
        if n_lanes == 1:
            return [(self.streams[self.here[0]], 1)]
        return [(stream, len(list(lanes))) for stream, lanes in groupby(self.here, key=self.streams.__getitem__)]

    def _drawn(self, streams: set[int], draw: Any) -> dict[int, Any]:
        """What each stream draws here; the shared one draws once for every lane of the batch."""
        found = {}
        for stream in streams:
            if stream == SHARED and self.at < len(self._tape):
                found[stream] = self._tape[self.at]
            else:
                self._turn_to(stream)
                found[stream] = draw()
                if stream == SHARED:
                    self._tape.append(found[stream])
        self.at += SHARED in streams
        return found

    @staticmethod
    @torch.no_grad()
    def _mask(x: Tensor, p: float) -> Tensor:
        """What one lane alone would draw here: scaled where the device's own dropout scales the mask, else boolean."""
        if x.is_cuda:  # one kernel draws, masks and scales there, the scale in fp32
            return torch.native_dropout(torch.ones_like(x), p, True)[1]
        return draw_mask(x.shape, p, x)

    def _attention(
        self, query: Tensor, key: Tensor, value: Tensor, attn_mask: Tensor | None = None, dropout_p: float = 0.0,
        is_causal: bool = False, **options: Any,
    ) -> Tensor:  # fmt: skip
        """Attention with dropout. On a CPU torch writes the maps out, and so do we, each stream's under one mask."""
        n = len(self.here) if self.rows.are_in(query, len(self.here)) else 1
        streams, size, parts, done = self._runs(n), len(query) // n, [], 0
        names = {stream for stream, _ in streams}
        if query.device.type == "cpu":
            masks = self._drawn(names, lambda: draw_attention_mask(query[:size], key, dropout_p))
        else:
            masks = self._drawn(names, lambda: self._skipped(query, key, value, attn_mask, size, dropout_p, is_causal))
        for stream, n_lanes in streams:
            q, k, v, mask = self.rows.part((query, key, value, attn_mask), n, done, done + n_lanes)
            if query.device.type == "cpu":
                parts.append(written_out(q, k, v, mask, masks[stream], is_causal, **options))
            else:
                parts += self._from(masks[stream], n_lanes, (q, k, v, mask), dropout_p, is_causal, options)
            done += n_lanes
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _skipped(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, size: int, p: float, is_causal: bool
    ) -> State:
        """Where the generators stand before a draw, which is then taken for once: for masks that stay in a kernel."""
        before = random_state(self.device)
        q, k, v, m = self.rows.part((query, key, value, mask), len(query) // size, 0, 1)
        with torch.no_grad():
            F.scaled_dot_product_attention(q, k, v, attn_mask=m, dropout_p=p, is_causal=is_causal)
        return before

    def _from(
        self,
        state: State,
        n_lanes: int,
        inputs: tuple[Any, ...],
        p: float,
        is_causal: bool,
        options: Any,
    ) -> list[Tensor]:
        """Attention lane by lane, each drawing from where the first one began."""
        now, parts = random_state(self.device), []
        for number in range(n_lanes):
            set_random_state(state, self.device)
            q, k, v, mask = self.rows.part(inputs, n_lanes, number, number + 1)
            parts.append(
                F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=p, is_causal=is_causal, **options)
            )
        set_random_state(now, self.device)
        return parts
