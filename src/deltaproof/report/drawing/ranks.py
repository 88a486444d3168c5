"""An axis of ranks: each doubling takes the same room, and rank 0 stands one step before the lowest."""

import math
from collections.abc import Callable, Sequence

from deltaproof.report.drawing.plot import Axis

_LEAST_GAP = 0.7
"""In doublings: closer ranks than that have one tick between them."""


def rank_axis(title: str, ranks: Sequence[float]) -> tuple[Axis, Callable[[float], float]]:
    """The axis, and where on it a rank stands.

    >>> axis, place = rank_axis("rank", [0, 1, 8])
    >>> place(0), place(1), place(8)
    (-1.0, 0.0, 3.0)
    """
    known = sorted(set(ranks))
    lowest = math.log2(next((rank for rank in known if rank > 0), 1))

    def place(rank: float) -> float:
        return math.log2(rank) if rank > 0 else lowest - 1

    def text(at: float) -> str:
        return "0" if known[0] == 0 and at <= lowest - 1 else f"{2**at:.0f}"

    at = [place(rank) for rank in known]
    ticks = [at[-1]]
    for tick in reversed(at):
        if ticks[-1] - tick >= _LEAST_GAP:
            ticks.append(tick)
    room = 0.05 * ((at[-1] - at[0]) or 1.0)
    return Axis(title, at[0] - room, at[-1] + room, text, at=ticks[::-1]), place
