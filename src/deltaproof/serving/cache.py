"""A cache that is bounded in bytes: what was used longest ago goes first."""

from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class Cache(Generic[T]):
    """Values by name with the bytes that each takes.

    >>> cache = Cache[str](10)
    >>> cache.put("a", "x", 6); cache.put("b", "y", 4); cache.get("a"); cache.put("c", "z", 4); list(cache.sizes)
    'x'
    ['a', 'c']
    """

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self._held: OrderedDict[str, tuple[T, int]] = OrderedDict()

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of each value, the one used longest ago first."""
        return {name: n_bytes for name, (_, n_bytes) in self._held.items()}

    @property
    def n_bytes(self) -> int:
        return sum(n_bytes for _, n_bytes in self._held.values())

    def get(self, name: str) -> T | None:
        """The value, which counts as used now; None where it is not held."""
        if name not in self._held:
            return None
        self._held.move_to_end(name)
        return self._held[name][0]

    def put(self, name: str, value: T, n_bytes: int) -> None:
        """Hold a value; what no longer fits is let go. One that is larger than the whole cache is not held."""
        self._held.pop(name, None)
        if n_bytes > self.most_bytes:
            return
        self._held[name] = value, n_bytes
        total = self.n_bytes
        while total > self.most_bytes:
            _, (_, freed) = self._held.popitem(last=False)
            total -= freed

    def drop(self, name: str) -> None:
        """Let go of a value, if it is held."""
        self._held.pop(name, None)
