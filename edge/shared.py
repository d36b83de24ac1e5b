"""What several signers of one worker have together: connections to key servers, a token's session."""

import asyncio
import weakref
from collections.abc import Callable, MutableMapping
from typing import Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")


class Shared(Generic[K, T]):
    """Of each event loop and key one T: made for the first who needs it, gone with the last."""

    def __init__(self) -> None:
        self._made: MutableMapping[asyncio.AbstractEventLoop, dict[K, tuple[T, int]]] = weakref.WeakKeyDictionary()

    def join(self, aio: asyncio.AbstractEventLoop, key: K, make: Callable[[], T]) -> T:
        """The one there is, or what make() gives."""
        made = self._made.setdefault(aio, {})
        one, users = made[key] if key in made else (make(), 0)
        made[key] = one, users + 1
        return one

    def leave(self, aio: asyncio.AbstractEventLoop, key: K) -> bool:
        """By who has joined. Whether that was the last, so that it is to be ended."""
        made = self._made[aio]
        one, users = made.pop(key)
        if users > 1:
            made[key] = one, users - 1
        return users == 1
