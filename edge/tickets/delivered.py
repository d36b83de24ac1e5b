"""Ticket keys that a fleet has agreed about, as each process of a host has them; and what seals until it has."""

from collections.abc import Hashable
from typing import Any

from edge.tickets.document import OPENED_MOST, Document, merge
from edge.tickets.schedule import Key, Schedule

State = tuple[Document | None, int, int]
"""Of a Delivered: the document; how many ms the fleet's clock is ahead of the host's; when keys of its own have sealed
last, in ms since 1970."""


class Delivered:
    """The keys of a fleet's document. `rotate` is a period in ms, `keep` for how many periods a key opens when it has
    sealed. Until there is a document the keys of `own` are used; what they have sealed is opened for as long after it.
    """

    def __init__(self, fleet: str, rotate: int, keep: int, own: Schedule, state: State = (None, 0, 0)) -> None:
        self.name: Hashable = ("fleet", fleet, rotate, keep)
        """The same for its copies in other processes."""
        self.fleet = fleet
        self.rotate = rotate
        self.keep = keep
        self._own = own
        self.document, self._offset, self._since = state

    def state(self) -> State:
        """What its copies take."""
        return self.document, self._offset, self._since

    def heard(self, document: Document | None, offset: int, now: float) -> State:
        """What copies take when the fleet has said that; None: the document is as before. A revocation ends what was
        own here, too."""
        if document is None:
            return self.document, offset, self._since
        if self.document is None:
            return document, offset, int(now * 1000)
        return document, offset, 0 if document.epoch > self.document.epoch else self._since

    def take(self, state: State, now: float) -> None:
        """What another process has is added."""
        document, self._offset, since = state
        if document is None:
            return
        newer = self.document is None or document.epoch > self.document.epoch
        self._since = since if newer else max(self._since, since)
        merged = merge(self.document, document) if self.document else document
        self.document = merged.alive(self._clock(now), self.rotate, self.keep)

    def stamp(self, now: float) -> object:
        """Another one, when `keys` are others."""
        return [name for name, _ in self.keys(now)]

    def keys(self, now: float) -> list[Key]:
        """At a moment of the host's clock: the key that seals, the next, those before, newest first."""
        own = self._own.keys(now)
        if self.document is None:
            return own
        keys = [key.pair for key in self.document.roles(self._clock(now), self.rotate, self.keep).keys]
        if now * 1000 < self._since + self.keep * self.rotate:
            keys += [own[0], *own[2:]]  # the one that would be its next has sealed nothing
        return keys[:OPENED_MOST]

    def settings(self) -> dict[str, Any]:
        return {
            "source": "fleet",
            "rotate": self.rotate / 1000,
            "keep": self.keep,
            "shared": self.document is not None,
        }

    def describe(self, now: float) -> list[dict[str, Any]]:
        """As that of Schedule, without keys of its own that are opened still."""
        if self.document is None:
            return self._own.describe(now)
        roles = self.document.roles(self._clock(now), self.rotate, self.keep)
        told = [("seals", roles.current, roles.current.since + self.rotate)]
        told += [("next", key, key.since + self.rotate) for key in roles.following]
        later = (roles.current, *roles.previous)
        told += [("opens", key, after.since) for after, key in zip(later, roles.previous, strict=False)]
        return [
            {
                "id": key.name.hex()[:8],
                "state": state,
                "since": (key.since - self._offset) / 1000,
                "until": (max(ended, key.made) + self.keep * self.rotate - self._offset) / 1000,
            }
            for state, key, ended in told
        ]

    def _clock(self, now: float) -> int:
        """The fleet's, in ms."""
        return int(now * 1000) + self._offset
