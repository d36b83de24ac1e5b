"""What a configuration is made of beside its own text: certificates, keys, secrets, names that were looked up.

The master reads each of them once, when it validates the configuration, and remembers it. Workers that take the
configuration over while they run get what was read: they have no right to read it, and it may be another by then.
"""

import pickle
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

if TYPE_CHECKING:
    from edge.certificates.kept import Kept

T = TypeVar("T")

Progress = Callable[[str, int, int], None]
"""Told now and then by what takes long: what it does, and how many of how many are done."""


def untold(what: str, done: int, of: int) -> None:
    """To nobody."""


_PIECE: Final = 32
"""Things in a piece: few enough that a piece is read in a millisecond or two."""


class Material:
    """As the master has it: `read()` is called, and what it gave is remembered. `progress` is told how far that has
    come, and what is made of it."""

    def __init__(self, progress: Progress = untold) -> None:
        self.progress = progress
        self._read: dict[Hashable, object] = {}
        self._descriptors: dict[Hashable, int] = {}
        self.kept: Mapping[int, Kept] = {}
        """Certificates, by their index, that need not be read. The master's alone."""

    @property
    def reads(self) -> bool:
        """Whether anything is read here."""
        return True

    def get(self, key: Hashable, read: Callable[[], T]) -> T:
        """What read() gives, of which every process has the same. It can be pickled."""
        if key not in self._read:
            self._read[key] = read()
        return cast(T, self._read[key])

    def put(self, key: Hashable, value: object) -> None:
        """What get() gives from now on, here and wherever all this is handed to."""
        self._read[key] = value

    def descriptor(self, key: Hashable, opened: Callable[[], int]) -> int:
        """The same for an open file. It stays open for as long as its owner likes, the one that opened() it: who wants
        to keep it in another process makes a copy."""
        if key not in self._descriptors:
            self._descriptors[key] = opened()
        return self._descriptors[key]

    def pieces(self) -> list[bytes]:
        """All that was read, for `Handed`."""
        return in_pieces(list(self._read.items()))

    def descriptors(self) -> list[tuple[Hashable, int]]:
        """All that was opened."""
        return list(self._descriptors.items())


class Handed(Material):
    """As a worker has it. KeyError for what the master has not read."""

    def __init__(self, items: Iterable[tuple[Hashable, object]], descriptors: dict[Hashable, int]) -> None:
        super().__init__()
        self._read.update(items)
        self._descriptors = descriptors

    @property
    def reads(self) -> bool:
        return False

    def forget(self) -> None:
        """Lets go of it all, bit by bit."""
        while self._read:
            self._read.popitem()

    def get(self, key: Hashable, _read: Callable[[], T]) -> T:
        return cast(T, self._read[key])

    def descriptor(self, key: Hashable, _opened: Callable[[], int]) -> int:
        return self._descriptors[key]


def in_pieces(items: Sequence[Any]) -> list[bytes]:
    """Pickled, some at a time: who reads them has time for others in between."""
    return [pickle.dumps(items[i : i + _PIECE]) for i in range(0, len(items), _PIECE)]


def from_pieces(pieces: Iterable[bytes]) -> list[Any]:
    found: list[Any] = []
    for piece in pieces:
        found += pickle.loads(piece)  # noqa: S301  # the master's, who made this process
    return found
