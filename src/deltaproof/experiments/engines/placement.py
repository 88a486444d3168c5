"""How many runs the nodes of a cluster hold at once, and what each must ask for so that no node is given more.

Nodes are their resources by Ray's names: `CPU`, `GPU`, `memory` in bytes.
"""

import math
from collections.abc import Mapping, Sequence

from deltaproof.experiments.engines.local import MEMORY_SHARE
from deltaproof.experiments.memory_plan import MARGIN

BESIDE_BYTES = 400 * 10**6
"""What lies on a node beside a run's own memory: Ray's worker, and the server that the run is forked from with torch
and transformers loaded. Measured, without what processes share."""

Node = Mapping[str, float]


def has_room(node: Node, asked: Mapping[str, float]) -> bool:
    """Whether a node, were it idle, has what is asked of it.

    >>> has_room({"CPU": 4.0}, {"CPU": 2, "GPU": 0}), has_room({"CPU": 4.0}, {"CPU": 2, "GPU": 1})
    (True, False)
    """
    return all(node.get(name, 0.0) >= amount for name, amount in asked.items())


def room_bytes(node: Node, limit: int | None) -> float:
    """Memory that runs may fill together on a node, by what is foretold of them."""
    room = max(0.0, node.get("memory", 0.0) * MEMORY_SHARE - BESIDE_BYTES)
    return room if limit is None else min(room, limit / MARGIN)


def runs_at_once(node: Node, peak_bytes: int, limit: int | None) -> int:
    """How many runs of such a peak a node's memory holds.

    >>> node = {"memory": 10e9}
    >>> runs_at_once(node, 3 * 10**9, None), runs_at_once(node, 3 * 10**9, limit=4 * 10**9)
    (2, 1)
    """
    found = node.get("memory", 0.0) * MEMORY_SHARE // (peak_bytes + BESIDE_BYTES)
    return int(found if limit is None else min(found, limit / MARGIN // max(1, peak_bytes)))


def asked_bytes(nodes: Sequence[Node], peak_bytes: int, limit: int | None) -> int:
    """What each run asks for. With a limit so much that none of the nodes is given more runs than it may hold, as Ray
    knows of no limit; never more than some node has."""
    wanted = peak_bytes + BESIDE_BYTES
    if limit is not None:
        shares = (node.get("memory", 0.0) / (runs_at_once(node, peak_bytes, limit) + 1) for node in nodes)
        wanted = max([wanted, *(math.floor(share) + 1 for share in shares)])
    return int(min(wanted, max((node.get("memory", 0.0) * MEMORY_SHARE for node in nodes), default=0.0)))


def roomiest(nodes: Sequence[Node]) -> Node:
    """The node for a run that is to be alone: the one with the most memory."""
    return max(nodes, key=lambda node: (node.get("memory", 0.0), node.get("CPU", 0.0)), default={})
