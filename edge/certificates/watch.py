"""The files of certificates, watched: what has changed on disk is read, checked whole and offered for use.

Tools write files in several steps: a key before its chain, a file piece by piece. So what has changed is read only
when it has stayed the same for a moment, and where it is faulty it is read a second time before that is called an
error; from then on it is left alone until it changes again.
"""

import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from edge.certificates import certs
from edge.certificates.certs import Identity
from edge.errors import ConfigError
from edge.settings import Settings

SETTLE_SECONDS: Final = 1.0
"""For this long a file must not have changed."""
TRIES: Final = 2
SHARE: Final = 25.0
"""From one look at all of them to the next at least so many times as long as it takes."""
PART: Final = 2000
"""Certificates that are looked at in one go, in some ten milliseconds."""

Log = Callable[[str], None]
Stamp = tuple[int, ...] | None
"""What a file looks like from outside; None: there is none."""


@dataclasses.dataclass(slots=True)
class _News:
    """Files of a certificate that are not those that are served."""

    stamps: list[Stamp]
    tries: int = 0


class Watch:
    """To be made before the certificates are loaded. `clock`: seconds, monotonic."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._clock = clock
        self._every = settings.server.certificate_check / 1000
        self._next = clock() + self._every
        self._files = [certs.files(entry) for entry in settings.certificate]
        self._served = [_stamps(paths) for paths in self._files]
        self._news: dict[int, _News] = {}
        self._spent = 0.0
        """Seconds that this has taken so far."""
        self._swept = 0
        """Up to where all have been looked at, when that is done in parts."""

    @property
    def due(self) -> float:
        """When to look next, by the clock."""
        return self._next if self._every else math.inf

    def unchanged(self, before: "Watch") -> Iterator[tuple[int, int]]:
        """The index here and the one there of each certificate whose files are those that `before` has served from."""
        places = {entry: i for i, entry in enumerate(before._settings.certificate)}
        for i, entry in enumerate(self._settings.certificate):
            there = places.get(entry)
            if there is not None and None not in self._served[i] and self._served[i] == before._served[there]:
                yield i, there

    def look(self, served: Sequence[Identity], log: Log) -> dict[int, Identity]:
        """The certificates that are to take the place of those in `served`, by their index; to be called as often as
        one likes. Faults go to `log`. After it, `accept` or `refuse` is to be called with what was found."""
        now = self._clock()
        if not self._every or now < self._next:
            return {}
        self._next = now + self._every
        first, self._swept = self._swept, min(self._swept + PART, len(self._files))
        places = range(first, self._swept)
        if self._swept == len(self._files):
            self._swept = 0
        else:
            self._next = now
        found = {i: identity for i in places if (identity := self._look_at(i, log))}
        self._spent += self._clock() - now
        if not self._swept:
            # Of a hundred thousand, or on a disk that is slow, it takes no more of the master's time than this.
            self._next = max(self._next, now + SHARE * self._spent)
            self._spent = 0.0
        if not found:
            return {}
        try:
            settled = certs.settle(self._settings, [found.get(i, identity) for i, identity in enumerate(served)])
        except ConfigError as e:
            self.refuse(found)
            log(f"{e}; the certificates before go on")
            return {}
        pairs = enumerate(zip(settled, served, strict=True))
        changed = {i: _kept_key(new, old) for i, (new, old) in pairs if new is not old}
        changed = {i: identity for i, identity in changed.items() if _differs(identity, served[i])}
        self.accept({i: identity for i, identity in found.items() if i not in changed})
        return changed

    def accept(self, found: Sequence[int] | dict[int, Identity]) -> None:
        """They are served now."""
        for i in found:
            if i in self._news:
                self._served[i] = self._news.pop(i).stamps

    def refuse(self, found: Sequence[int] | dict[int, Identity]) -> None:
        """They cannot be: they are left alone until they change again."""
        for i in found:
            if i in self._news:
                self._news[i].tries = TRIES

    def _look_at(self, index: int, log: Log) -> Identity | None:
        stamps = _stamps(self._files[index])
        news = self._news.get(index)
        if stamps == self._served[index]:
            self._news.pop(index, None)
            return None
        if news is None or news.stamps != stamps:
            self._news[index] = _News(stamps)
            self._next = min(self._next, self._clock() + SETTLE_SECONDS)
            return None
        if news.tries == TRIES:
            return None
        news.tries += 1
        try:
            identity = certs.load_entry(self._settings, index)
        except ConfigError as e:
            if news.tries == TRIES:
                log(f"{e}; the certificate before goes on")
            return None
        news.tries = 0
        return identity if _stamps(self._files[index]) == stamps else None


def _stamps(paths: Sequence[Path]) -> list[Stamp]:
    return [_stamp(path) for path in paths]


def _stamp(path: Path) -> Stamp:
    """A link counts for what it leads to: certificates are often exchanged by turning one."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _kept_key(new: Identity, old: Identity) -> Identity:
    """What is loaded already is not sent around again."""
    if new.public_key == old.public_key:
        new = dataclasses.replace(new, key_pem=b"")
    if new.delegation and old.delegation and new.delegation.credential == old.delegation.credential:
        new = dataclasses.replace(new, delegation=old.delegation)
    return new


def _differs(new: Identity, old: Identity) -> bool:
    """Whether clients would see another certificate, or something else beside it."""
    return dataclasses.replace(new, warnings=(), at=old.at) != dataclasses.replace(old, warnings=())
