"""The ticket keys of a fleet: one document, which every host may change, and which never depends on who is asked last.

A key has a moment from which it seals. So what a key is for follows from the clock alone: of those whose moment has
come the newest seals ("current"), those whose moment will come only open ("next"), and so do earlier ones
("previous"), until `keep` periods after they have sealed for the last time. A next key is there a whole period before
it is needed, so that rotation by time needs nobody; a forced one pulls the next key's moment near, but no nearer than
all hosts take to see it.

Two documents merge to the same third, in whatever order and however often: their keys together, of each key the
earlier moment. So hosts whose Redis has lost data, or has gone back to an older state, agree again by themselves. Only
a revocation takes keys away: it begins another epoch, and those of epochs before are none any more.

Times are milliseconds since 1970, of a clock that hosts agree about (Redis's).
"""

import dataclasses
import secrets
from collections.abc import Iterable, Mapping
from typing import Any, Final

from edge.tickets.schedule import Key

EVER: Final = 0
"""As a moment: the first key of a fleet gives way to every other one."""
OPENED_MOST: Final = 16
"""Keys that the engine takes."""
NEXT_MOST: Final = 2
"""Of those, next ones: documents of hosts that knew nothing of each other have one each."""
KEYS_MOST: Final = 64
NUMBER_MOST: Final = 1 << 53
AHEAD_MOST: Final = 2
"""Periods that a next key may be ahead: one that is further was made by a clock that was wrong."""


@dataclasses.dataclass(frozen=True, slots=True)
class DeliveredKey:
    name: bytes
    key: bytes = dataclasses.field(repr=False)
    made: int
    seals_from: int
    epoch: int = 0

    @property
    def pair(self) -> Key:
        return self.name, self.key

    @property
    def rank(self) -> tuple[int, int, bytes]:
        """Orders keys by age, on every host the same. Of two first keys the one that was made first counts as newer:
        a host that knew nothing has no say in what others seal with."""
        return self.seals_from, -self.made if self.seals_from == EVER else 0, self.name

    @property
    def since(self) -> int:
        """When it began to seal, or will."""
        return max(self.seals_from, self.made) if self.seals_from == EVER else self.seals_from


@dataclasses.dataclass(frozen=True, slots=True)
class Roles:
    current: DeliveredKey
    following: tuple[DeliveredKey, ...]
    """Those whose moment will come, the nearest first."""
    previous: tuple[DeliveredKey, ...]
    """Those before, the newest first."""

    @property
    def keys(self) -> tuple[DeliveredKey, ...]:
        """As TicketKeys has them: what seals first."""
        return (self.current, *self.following[:NEXT_MOST], *self.previous)[:OPENED_MOST]


@dataclasses.dataclass(frozen=True, slots=True)
class Document:
    """`keys` are in the order of their rank, of this epoch alone, and never none. `version` grows with each change."""

    version: int
    epoch: int
    keys: tuple[DeliveredKey, ...]

    @property
    def content(self) -> object:
        return self.epoch, self.keys

    def roles(self, now: int, rotate: int, keep: int) -> Roles:
        """What the keys are for; those that are none any more are left out. A clock before all keys has the first one
        seal."""
        there = [key for key in self.keys if key.seals_from <= now] or [self.keys[0]]
        current = there.pop()
        following = tuple(k for k in self.keys if k.rank > current.rank and k.seals_from <= now + AHEAD_MOST * rotate)
        previous: list[DeliveredKey] = []
        later = current
        for key in reversed(there):
            if now < max(later.seals_from, key.made) + keep * rotate:
                previous.append(key)
            later = key
        return Roles(current, following, tuple(previous))

    def alive(self, now: int, rotate: int, keep: int) -> "Document":
        """Without the keys that are for nothing any more."""
        roles = self.roles(now, rotate, keep)
        return dataclasses.replace(self, keys=(*reversed(roles.previous), roles.current, *roles.following))

    def ready(self, now: int, rotate: int, settle: int) -> "Document":
        """With a next key: the same, if there is one."""
        if self._following(now, rotate):
            return self
        last = max((key.seals_from for key in self.keys if key.seals_from <= now), default=EVER)
        return self._changed([*self.keys, _made(now, max(last + rotate, now + settle), self.epoch)])

    def rotated(self, now: int, rotate: int, settle: int) -> tuple["Document", DeliveredKey]:
        """With the next key to seal as soon as all have seen that, and that key. Where it will be so soon anyway,
        nothing changes."""
        prepared = self.ready(now, rotate, settle)
        [key, *_] = prepared._following(now, rotate)
        if key.seals_from <= now + settle:
            return prepared, key
        pulled = dataclasses.replace(key, seals_from=now + settle)
        return prepared._changed(pulled if one is key else one for one in prepared.keys), pulled

    def revoked(self, now: int, rotate: int) -> tuple["Document", DeliveredKey]:
        """With keys that are all new, and the one that seals at once."""
        fresh = first(now, rotate, epoch=self.epoch + 1, version=self.version + 1)
        return fresh, fresh.keys[0]

    def _following(self, now: int, rotate: int) -> list[DeliveredKey]:
        """The nearest first."""
        return [key for key in self.keys if now < key.seals_from <= now + AHEAD_MOST * rotate]

    def _changed(self, keys: Iterable[DeliveredKey]) -> "Document":
        return _document(self.version + 1, self.epoch, keys)

    # As JSON has it.

    def to_json(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "epoch": self.epoch,
            "keys": [[k.name.hex(), k.key.hex(), k.made, k.seals_from] for k in self.keys],
        }

    @classmethod
    def of_json(cls, written: object) -> "Document":
        """ValueError for what is none."""
        if not isinstance(written, Mapping) or not isinstance(written.get("keys"), list):
            raise ValueError("is no document of ticket keys")
        version, epoch, listed = _number(written.get("version")), _number(written.get("epoch")), written["keys"]
        if not 0 < len(listed) <= KEYS_MOST:
            raise ValueError(f"has {len(listed)} ticket keys")
        document = _document(version, epoch, (_key(one, epoch) for one in listed))
        if len({key.name for key in document.keys}) < len(listed):
            raise ValueError("has two ticket keys of one name")
        return document


def first(now: int, rotate: int, *, epoch: int = 0, version: int = 1) -> Document:
    """Of a fleet that has no keys."""
    return _document(version, epoch, [_made(now, EVER, epoch), _made(now, now + rotate, epoch)])


def merge(one: Document, other: Document) -> Document:
    """What both know. Its version tells it from either, unless it is the one with the higher version."""
    epoch = max(one.epoch, other.epoch)
    keys: dict[bytes, DeliveredKey] = {}
    for key in (*one.keys, *other.keys):
        if key.epoch == epoch:
            keys[key.name] = _agreed(keys[key.name], key) if key.name in keys else key
    version = max(one.version, other.version)
    merged = _document(version, epoch, keys.values())
    newest = [document for document in (one, other) if document.version == version]
    if all(document.content == merged.content for document in newest):
        return merged
    return dataclasses.replace(merged, version=version + 1)


def _agreed(one: DeliveredKey, other: DeliveredKey) -> DeliveredKey:
    return dataclasses.replace(
        one,
        key=min(one.key, other.key),  # the same, unless somebody who has the fleet's secret is up to something
        made=min(one.made, other.made),
        seals_from=min(one.seals_from, other.seals_from),
    )


def _document(version: int, epoch: int, keys: Iterable[DeliveredKey]) -> Document:
    ordered = sorted(keys, key=lambda key: key.rank)
    return Document(version, epoch, tuple(ordered[-KEYS_MOST:]))


def _made(now: int, seals_from: int, epoch: int) -> DeliveredKey:
    return DeliveredKey(secrets.token_bytes(16), secrets.token_bytes(32), now, seals_from, epoch)


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < NUMBER_MOST:
        raise ValueError(f"{value!r:.40} is no number of a document")
    return value


def _key(written: object, epoch: int) -> DeliveredKey:
    if not isinstance(written, list) or len(written) != 4 or not all(isinstance(text, str) for text in written[:2]):
        raise ValueError("has a ticket key that is none")
    name, key = bytes.fromhex(written[0]), bytes.fromhex(written[1])
    if len(name) != 16 or len(key) != 32:
        raise ValueError("has a ticket key of another length")
    return DeliveredKey(name, key, _number(written[2]), _number(written[3]), epoch)
