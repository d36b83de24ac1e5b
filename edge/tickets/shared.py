"""The ticket keys of configurations, wherever they come from, and the register of early data that goes with them: what
outlives reloads, and is the same in all workers."""

import dataclasses
import hashlib
import os
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

from cext.tls.replay import LAYOUT, AwaitedRegister, SharedRegister
from cext.tls.session import TicketKeys

from edge import early_register
from edge.change.inheritance import Lend, Part, Take
from edge.change.material import Material
from edge.config import read_file
from edge.early_data import EarlyData
from edge.fleet.link import Link
from edge.fleet.settings import CLOCKS_MS, DEADLINE_MS, TICKETS, Fleet
from edge.schema import Place
from edge.settings import Tickets
from edge.tickets import delivered, directory
from edge.tickets.delivered import Delivered
from edge.tickets.directory import DirectoryError, Files
from edge.tickets.directory import State as FilesState
from edge.tickets.document import Document
from edge.tickets.schedule import SECRET_MIN, Key, Schedule

TURN_MS: Final = 1000
"""How often a process looks whether other keys are due."""

K = TypeVar("K")
T = TypeVar("T")

_KEPT: Final = 8
"""Configurations' keys and registers that are kept, should such a configuration come again."""


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


@dataclasses.dataclass(slots=True)
class Shared:
    """What outlives configurations, and is the same in all workers: tickets stay good over a reload, and early data
    that was taken before it is not taken again."""

    _schedules: dict[tuple[int, int, bytes], Schedule] = dataclasses.field(default_factory=dict)
    _rotations: dict[Hashable, Rotation] = dataclasses.field(default_factory=dict)
    """By the name of their source."""
    _chosen: Hashable = None
    """The source of the configuration before."""
    _reads: int = 0
    """How often a directory of keys was read."""
    _registers: dict[tuple[int, int, bytes], SharedRegister] = dataclasses.field(default_factory=dict)
    _claims: dict[Path, early_register.Claim] = dataclasses.field(default_factory=dict)
    _awaited: dict[tuple[int, int, bytes, int], AwaitedRegister] = dataclasses.field(default_factory=dict)
    """Those of fleets, by the local register and the deadline."""

    def bequeath(self, lend: Lend) -> Part:
        """For the master that takes this one's place: its tickets stay good, and what was taken is not taken again."""
        return {
            "layout": LAYOUT,
            "schedules": [[rotate, keep, s.hex(), made.state()] for (rotate, keep, s), made in self._schedules.items()],
            "fleets": [
                [one.fleet, one.rotate, one.keep, document.to_json(), offset, since]
                for one in self._delivered()
                for document, offset, since in [one.state()]
                if document is not None
            ],
            "registers": [
                [window, rate, s.hex(), lend(made.fd), _written(made.state())]
                for (window, rate, s), made in self._registers.items()
            ],
            "claims": [[str(file), lend(claim.fd)] for file, claim in self._claims.items() if claim.fd >= 0],
        }

    def inherit(self, part: Part, take: Take) -> None:
        for rotate, keep, secret, state in part["schedules"]:
            self._schedules[rotate, keep, bytes.fromhex(secret)] = Schedule.of(state)
        for fleet, rotate, keep, document, offset, since in part.get("fleets", ()):
            own = self._schedules.get((rotate, keep, b"")) or Schedule(rotate, keep)
            state = Document.of_json(document), offset, since
            self._rotate(Delivered(fleet, rotate, keep, own, state), state)
        if part["layout"] != LAYOUT:
            # Nor may a register here go by the name of one that others use still: its claim stays with the old master.
            return
        for window, rate, secret, fd, state in part["registers"]:
            register = SharedRegister.of(take(fd), _read(state), keep=True)
            os.close(fd)
            self._registers[window, rate, bytes.fromhex(secret)] = register
        for file, fd in part["claims"]:
            self._claims[Path(file)] = early_register.Claim.of(take(fd))

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
        if name in self._rotations:
            self._rotations[name].take(state)
            self._rotations[name].turn()

    def read_directory(self, files: Files) -> None:
        """Takes what is there now. Raises DirectoryError."""
        keys = directory.read(files.path)
        self._reads += 1
        self.deliver(files.name, (self._reads, keys))

    def _rotate(self, source: Source, state: Any) -> Rotation:
        """The rotation there is of that source, or one of it; it has the state, too."""
        self._chosen = source.name
        rotation = _latest(self._rotations, source.name, lambda: Rotation(source))
        if rotation.source is not source:
            rotation.take(state)
        return rotation

    def _schedule(self, tickets: Tickets, at: Place) -> Schedule:
        secret = _read_secret(tickets.secret_file, at.key("secret_file")) if tickets.secret_file else b""
        of = (tickets.rotate, tickets.keep, secret)
        return _latest(self._schedules, of, lambda: Schedule(tickets.rotate, tickets.keep, secret or None))

    def _delivered(self) -> list[Delivered]:
        return [one.source for one in self._rotations.values() if isinstance(one.source, Delivered)]

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

    def register(
        self, early_data: EarlyData, tickets: Tickets, at: Place, material: Material | None = None
    ) -> SharedRegister:
        """Which early data has been taken. `at`: the configuration. Raises ConfigError."""
        at = at.key("tls").key("tickets").key("secret_file")

        def made() -> SharedRegister:
            return _latest(self._registers, of, lambda: self._make_register(early_data, tickets.secret_file, secret))

        material = material or Material()
        secret = material.get(
            "register's secret", lambda: _read_secret(tickets.secret_file, at) if tickets.secret_file else b""
        )
        of = (early_data.window, early_data.rate, secret)
        return self._followed(of, material, made)

    def awaited(
        self, early_data: EarlyData, deadline: int, link: Link, material: Material | None = None
    ) -> AwaitedRegister:
        """The same for a fleet: a register of this host, and whom to ask of the others. Milliseconds."""
        keeps, secret = 2 * early_data.window, link.secrets[0]
        # Hosts share a record if they make the same of it: what is kept elsewhere, or for less long, is another.
        identity = secret.register_identity(keeps, link.whereabouts)
        of = (early_data.window, early_data.rate, b"fleet" + identity)

        def made() -> SharedRegister:
            return _latest(self._registers, of, lambda: SharedRegister(keeps, _room(early_data), identity))

        local = self._followed(of, material or Material(), made)
        known = self._awaited.get((*of, deadline))
        if known is None or known.local is not local:
            # From the first moment of the window by one clock to the last by another, when it may be asked about late.
            remembers = keeps + 2 * CLOCKS_MS + DEADLINE_MS
            known = self._awaited[*of, deadline] = AwaitedRegister(
                local, identity, secret.fingerprint_key, remembers, deadline
            )
            while len(self._awaited) > _KEPT:
                del self._awaited[next(iter(self._awaited))]
        return known

    def _followed(
        self, of: tuple[int, int, bytes], material: Material, made: Callable[[], SharedRegister]
    ) -> SharedRegister:
        """The master's, in every process."""
        state = material.get("register", lambda: made().state())
        fd = material.descriptor("register", lambda: made().fd)
        if of not in self._registers or self._registers[of].state() != state:
            self._registers[of] = SharedRegister.of(fd, state)
        return self._registers[of]

    def _make_register(self, early_data: EarlyData, file: Path | None, secret: bytes) -> SharedRegister:
        keeps, capacity = 2 * early_data.window, _room(early_data)
        if file is None:
            return SharedRegister(keeps, capacity)  # its tickets go with it
        if file not in self._claims:
            self._claims[file] = early_register.Claim(file)
        identity = self._claims[file].identity(secret, keeps, capacity)
        return SharedRegister(keeps, capacity, identity, int(time.time() * 1000))


def _room(early_data: EarlyData) -> int:
    """Words of a register."""
    return max(early_data.rate * 2 * early_data.window // 1000 * early_register.ROOM, early_register.ROOM_MIN)


def _latest(known: dict[K, T], key: K, make: Callable[[], T]) -> T:
    """The one there is, or what make() gives, which takes the place of the one that has not been asked for longest."""
    one = known.pop(key) if key in known else make()
    known[key] = one
    while len(known) > _KEPT:
        del known[next(iter(known))]
    return one


def _written(state: tuple[Any, ...]) -> list[Any]:
    """As JSON has it."""
    return [item.hex() if isinstance(item, bytes) else item for item in state]


def _read(state: list[Any]) -> tuple[Any, ...]:
    return tuple(bytes.fromhex(item) if isinstance(item, str) else item for item in state)


def lifetime(tickets: Tickets) -> int:
    """Seconds for which a ticket is said to be good: no longer than its key is sure to be kept."""
    return max(min(tickets.lifetime, tickets.rotate * tickets.keep) // 1000, 1)


def _read_secret(path: Path, at: Place) -> bytes:
    content = read_file(path, at)
    if len(content) < SECRET_MIN:
        raise at.error(f"{path} is shorter than {SECRET_MIN} bytes", "make it with: openssl rand -out FILE 48")
    return hashlib.sha256(content).digest()
