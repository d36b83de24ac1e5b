"""The keys of session tickets that nobody sends around: made anew in every period, the same in every process.

The keys of a period follow from a secret that workers inherit by the fork, so each of them can open, from the same
moment on, what any other seals. The next period's key is always among those that open: clocks may differ a little.

A random secret moves on with time (each period's makes the next one's, and is then forgotten), so that who reads a
process's memory cannot open the tickets of keys that are gone. A secret from a file is what several hosts share: its
file tells all keys, of all times, and is to be replaced like any other key.
"""

import hmac
import secrets
import time
from collections.abc import Hashable
from typing import Any, Final

_SECRET: Final = 32

Key = tuple[bytes, bytes]
"""Name and key, 16 and 32 bytes."""


class Schedule:
    """The keys of every moment. `rotate`: length of a period in ms; `keep`: earlier periods whose keys still open;
    `secret`: what hosts share, None for a random one. Times are seconds since 1970."""

    def __init__(self, rotate: int, keep: int, secret: bytes | None = None, now: float | None = None) -> None:
        self.name: Hashable = secrets.token_bytes(16)
        """The same for its copies in other processes, which have the same keys."""
        self._rotate = rotate
        self._keep = keep
        self._shared = secret
        self._first = 0 if secret else self._index(time.time() if now is None else now)
        """The earliest period that has a key."""
        self._secret = secret or secrets.token_bytes(_SECRET)
        """A random one: that of the period `_first`."""

    def period(self, now: float) -> int:
        """The number of the period; it never falls, whatever the clock does."""
        return max(self._index(now), self._first)

    def keys(self, now: float) -> list[Key]:
        """The key that seals, the next period's, then those of earlier periods, newest first."""
        current = self.period(now)
        first = max(self._first, current - self._keep)
        made = [_key(secret) for secret in self._secrets(first, current + 1)]
        earlier, sealing, following = made[:-2], made[-2], made[-1]
        return [sealing, following, *reversed(earlier)]

    def stamp(self, now: float) -> object:
        """Another one, when `keys` are others."""
        return self.period(now)

    def settings(self) -> dict[str, Any]:
        shared = self._shared is not None
        return {
            "source": "secret_file" if shared else "random",
            "rotate": self._rotate / 1000,
            "keep": self._keep,
            "shared": shared,
        }

    def describe(self, now: float) -> list[dict[str, Any]]:
        """Of each key of `keys` its `id` (the begin of its name, which tickets show), its `state` ("seals", "next" or
        "opens"), from when it seals (`since`), and until when it is kept (`until`). Never the key."""
        period, seconds = self.period(now), self._rotate / 1000
        keys = self.keys(now)
        periods = [period, period + 1, *range(period - 1, period - len(keys) + 1, -1)]
        states = ["seals", "next", *["opens"] * (len(keys) - 2)]
        return [
            {
                "id": name.hex()[:8],
                "state": state,
                "since": index * seconds,
                "until": (index + 1 + self._keep) * seconds,
            }
            for (name, _), index, state in zip(keys, periods, states, strict=True)
        ]

    def state(self) -> list[Any]:
        """What `of` makes the same schedule of. It holds the secret."""
        return [self._rotate, self._keep, self._shared and self._shared.hex(), self._first, self._secret.hex()]

    @classmethod
    def of(cls, state: list[Any]) -> "Schedule":
        rotate, keep, shared, first, secret = state
        schedule = cls(rotate, keep, bytes.fromhex(shared) if shared else None)
        schedule._first, schedule._secret = first, bytes.fromhex(secret)
        return schedule

    def _index(self, now: float) -> int:
        return int(now * 1000) // self._rotate

    def _secrets(self, first: int, last: int) -> list[bytes]:
        """Those of the periods first..last; what comes before `first` is forgotten."""
        if self._shared:
            return [_derive(self._shared, b"period %d" % index) for index in range(first, last + 1)]
        while self._first < first:
            self._secret = _derive(self._secret, b"next")
            self._first += 1
        made = [self._secret]
        while len(made) <= last - first:
            made.append(_derive(made[-1], b"next"))
        return made


def _derive(secret: bytes, label: bytes) -> bytes:
    return hmac.digest(secret, b"edge ticket keys: " + label, "sha256")


def _key(secret: bytes) -> Key:
    return _derive(secret, b"name")[:16], _derive(secret, b"key")
