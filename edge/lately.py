"""What is kept should it be asked for again: of each key one, and not more than so many of all."""

from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")

MOST: Final = 8


class Lately(Generic[K, T]):
    """The one that has not been asked for longest makes room for another."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: dict[K, T] = {}

    def get(self, key: K, make: Callable[[], T]) -> T:
        """The one there is, or what make() gives."""
        return self.put(key, self._kept[key] if key in self._kept else make())

    def put(self, key: K, one: T) -> T:
        """That one, from now on."""
        self._kept.pop(key, None)
        self._kept[key] = one
        while len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]
        return one

    def find(self, key: K) -> T | None:
        """The one there is; it makes room no later for that."""
        return self._kept.get(key)

    def items(self) -> Iterator[tuple[K, T]]:
        """Those that will make room first come first."""
        return iter(self._kept.items())
