"""Names to things: methods, tasks, metrics and families are found by name."""

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from deltaproof.errors import ConfigError, nearest

T = TypeVar("T")


class Registry(Generic[T]):
    """A table from names to entries of one kind; a second entry of the same name is an error."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def add(self, name: str) -> Callable[[T], T]:
        """A decorator that enters what it decorates under `name`."""

        def enter(entry: T) -> T:
            if name in self._entries:
                raise ConfigError(f"each {self.kind} needs a name of its own, `{name}` is taken; choose another name")
            self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            raise ConfigError(f"no {self.kind} is called `{name}`; {nearest(name, self._entries)}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def items(self) -> Iterator[tuple[str, T]]:
        return iter(self._entries.items())
