"""The ticket keys of configurations, wherever they come from: they outlive reloads, and are the same in all workers."""

import hashlib
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Final, Protocol

from cext.tls.session import TicketKeys

from edge.change.inheritance import Part
from edge.change.material import Material
from edge.config import read_secret
from edge.fleet.settings import TICKETS, Fleet
from edge.lately import Lately
from edge.schema import Place
from edge.settings import Tickets
from edge.tickets import delivered, directory
from edge.tickets.delivered import Delivered
from edge.tickets.directory import DirectoryError, Files
from edge.tickets.directory import State as FilesState
from edge.tickets.document import Document
from edge.tickets.schedule import Key, Schedule

TURN_MS: Final = 1000
"""How often a process looks whether other keys are due."""


class Source(Protocol):
    """Where keys come from: `Schedule`, `Delivered` or `Files`. Moments are seconds since 1970."""

    name: Hashable
    """The same for its copies in other processes."""

    def stamp(self, now: float) -> object:
        """Another one, when `keys` are others. Cheap."""

    def keys(self, now: float) -> list[Key]:
        """The key that seals, then the others that open."""

    def settings(self) -> dict[str, Any]:
        """`source`, its kind; `rotate`, in seconds, and `keep`; and `shared`, whether other hosts have the same."""

    def describe(self, now: float) -> list[dict[str, Any]]:
        """Of each key `id`, `state`, `since`, `until`: see Schedule. Never the key."""


class Rotation:
    """A server's ticket keys, kept at what their source says of now."""

    def __init__(self, source: Source, clock: Callable[[], float] = time.time) -> None:
        self.source = source
        self._clock = clock
        now = clock()
        self._stamp = source.stamp(now)
        self.keys: TicketKeys = TicketKeys(source.keys(now))

    @property
    def sealing(self) -> bytes:
        """The name of the key that seals."""
        return bytes(self.keys.names[0])

    def describe(self, now: float) -> dict[str, Any]:
        """What Source.settings tells, and the `keys`."""
        return {**self.source.settings(), "keys": self.source.describe(now)}

    def take(self, state: Any) -> None:
        """The source has become another: `state()` of a copy of it, elsewhere. None: it is of a kind that does not.
        The next turn uses it."""
        if isinstance(self.source, Delivered | Files):
            self.source.take(state, self._clock())

    def turn(self) -> None:
        """To be called every second or so, in each process."""
        now = self._clock()
        stamp = self.source.stamp(now)
        if stamp != self._stamp:
            self.keys.replace(self.source.keys(now))
            self._stamp = stamp


class Rotations:
    """Those of all configurations: tickets stay good over a reload."""

    def __init__(self) -> None:
        self._schedules: Lately[tuple[int, int, bytes], Schedule] = Lately()
        self._rotations: Lately[Hashable, Rotation] = Lately()
        """By the name of their source."""
        self._chosen: Hashable = None
        """The source of the configuration before."""
        self._reads = 0
        """How often a directory of keys was read."""

    def bequeath(self) -> Part:
        """For the master that takes this one's place."""
        return {
            "schedules": [[rotate, keep, s.hex(), made.state()] for (rotate, keep, s), made in self._schedules.items()],
            "fleets": [
                [one.fleet, one.rotate, one.keep, document.to_json(), offset, since]
                for one in self._delivered()
                for document, offset, since in [one.state()]
                if document is not None
            ],
        }

    def inherit(self, part: Part) -> None:
        for rotate, keep, secret, state in part["schedules"]:
            self._schedules.put((rotate, keep, bytes.fromhex(secret)), Schedule.of(state))
        for fleet, rotate, keep, document, offset, since in part.get("fleets", ()):
            own = self._schedules.find((rotate, keep, b"")) or Schedule(rotate, keep)
            state = Document.of_json(document), offset, since
            self._rotate(Delivered(fleet, rotate, keep, own, state), state)

    def rotation(
        self, tickets: Tickets, at: Place, material: Material | None = None, fleet: Fleet | None = None
    ) -> Rotation:
        """The keys as `[tls] tickets` and `[fleet]` say. `at`: the former. Raises ConfigError."""
        material = material or Material()
        rotate, keep = tickets.rotate, tickets.keep
        if (path := tickets.directory) is not None:
            files = material.get("ticket keys", lambda: self._read_directory(path, at.key("directory")))
            return self._rotate(Files(path, rotate, keep, files), files)
        schedule = material.get("ticket keys", lambda: self._schedule(tickets, at))
        if fleet is None or not fleet.shares(TICKETS):
            return self._rotate(schedule, None)
        state = material.get("delivered ticket keys", lambda: self._known(fleet.name, rotate, keep, schedule))
        return self._rotate(Delivered(fleet.name, rotate, keep, schedule, state), state)

    def deliver(self, name: Hashable, state: Any) -> None:
        """What has come for the source of that name, which may not be here."""
        if rotation := self._rotations.find(name):
            rotation.take(state)
            rotation.turn()

    def read_directory(self, files: Files) -> None:
        """Takes what is there now. Raises DirectoryError."""
        keys = directory.read(files.path)
        self._reads += 1
        self.deliver(files.name, (self._reads, keys))

    def _rotate(self, source: Source, state: Any) -> Rotation:
        """The rotation there is of that source, or one of it; it has the state, too."""
        self._chosen = source.name
        rotation = self._rotations.get(source.name, lambda: Rotation(source))
        if rotation.source is not source:
            rotation.take(state)
        return rotation

    def _schedule(self, tickets: Tickets, at: Place) -> Schedule:
        secret = secret_of(tickets, at)
        of = (tickets.rotate, tickets.keep, secret)
        return self._schedules.get(of, lambda: Schedule(tickets.rotate, tickets.keep, secret or None))

    def _delivered(self) -> list[Delivered]:
        return [one.source for _, one in self._rotations.items() if isinstance(one.source, Delivered)]

    def _known(self, fleet: str, rotate: int, keep: int, own: Schedule) -> delivered.State:
        """What any configuration before has heard of a fleet. `own` may have sealed until now."""
        known, now = Delivered(fleet, rotate, keep, own), time.time()
        for one in self._delivered():
            if one.fleet == fleet:
                known.take(one.state(), now)
        document, offset, since = known.state()
        return document, offset, int(now * 1000) if self._chosen == own.name else since

    def _read_directory(self, path: Path, at: Place) -> FilesState:
        try:
            keys = directory.read(path)
        except DirectoryError as e:
            raise at.error(e.problem, e.remedy) from None
        self._reads += 1
        return self._reads, keys


def lifetime(tickets: Tickets) -> int:
    """Seconds for which a ticket is said to be good: no longer than its key is sure to be kept."""
    return max(min(tickets.lifetime, tickets.rotate * tickets.keep) // 1000, 1)


def secret_of(tickets: Tickets, at: Place) -> bytes:
    """What hosts with the same `secret_file` have; b"" without one. Raises ConfigError."""
    if tickets.secret_file is None:
        return b""
    return hashlib.sha256(read_secret(tickets.secret_file, at.key("secret_file"))).digest()
