"""The ticket keys of configurations, wherever they come from, and the register of early data that goes with them: what
outlives reloads, and is the same in all workers."""

import dataclasses
import hashlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

from cext.tls.replay import LAYOUT, AwaitedRegister, SharedRegister
from cext.tls.session import TicketKeys

from edge import early_register
from edge.change.inheritance import Lend, Part, Take
from edge.change.material import Material
from edge.config import read_file
from edge.early_data import EarlyData
from edge.fleet.link import Link
from edge.fleet.settings import CLOCKS_MS
from edge.schema import Place
from edge.settings import Tickets
from edge.tickets.schedule import SECRET_MIN, Schedule

TURN_MS: Final = 5000
"""How often a process looks whether a period has ended."""

K = TypeVar("K")
T = TypeVar("T")

_KEPT: Final = 8
"""Configurations' keys and registers that are kept, should such a configuration come again."""

class Rotation:
    """A server's ticket keys, kept at what a schedule says of now."""

    def __init__(self, schedule: Schedule, clock: Callable[[], float] = time.time) -> None:
        self._schedule = schedule
        self._clock = clock
        now = clock()
        self._period = schedule.period(now)
        self.keys: TicketKeys = TicketKeys(schedule.keys(now))

    def describe(self, now: float) -> dict[str, Any]:
        """`rotate`, in seconds, `shared`, whether other hosts have the same, and the `keys`: see Schedule."""
        return {**self._schedule.settings(), "keys": self._schedule.describe(now)}

    def turn(self) -> None:
        """To be called every few seconds, in each process."""
        now = self._clock()
        period = self._schedule.period(now)
        if period != self._period:
            self.keys.replace(self._schedule.keys(now))
            self._period = period


@dataclasses.dataclass(slots=True)
class Shared:
    """What outlives configurations, and is the same in all workers: tickets stay good over a reload, and early data
    that was taken before it is not taken again."""

    _schedules: dict[tuple[int, int, bytes], Schedule] = dataclasses.field(default_factory=dict)
    _rotations: dict[bytes, Rotation] = dataclasses.field(default_factory=dict)
    """By the schedule's name."""
    _registers: dict[tuple[int, int, bytes], SharedRegister] = dataclasses.field(default_factory=dict)
    _claims: dict[Path, early_register.Claim] = dataclasses.field(default_factory=dict)
    _awaited: dict[tuple[int, int, bytes, int], AwaitedRegister] = dataclasses.field(default_factory=dict)
    """Those of fleets, by the local register and the deadline."""

    def bequeath(self, lend: Lend) -> Part:
        """For the master that takes this one's place: its tickets stay good, and what was taken is not taken again."""
        return {
            "layout": LAYOUT,
            "schedules": [[rotate, keep, s.hex(), made.state()] for (rotate, keep, s), made in self._schedules.items()],
            "registers": [
                [window, rate, s.hex(), lend(made.fd), _written(made.state())]
                for (window, rate, s), made in self._registers.items()
            ],
            "claims": [[str(file), lend(claim.fd)] for file, claim in self._claims.items() if claim.fd >= 0],
        }

    def inherit(self, part: Part, take: Take) -> None:
        for rotate, keep, secret, state in part["schedules"]:
            self._schedules[rotate, keep, bytes.fromhex(secret)] = Schedule.of(state)
        if part["layout"] != LAYOUT:
            # Nor may a register here go by the name of one that others use still: its claim stays with the old master.
            return
        for window, rate, secret, fd, state in part["registers"]:
            register = SharedRegister.of(take(fd), _read(state), keep=True)
            os.close(fd)
            self._registers[window, rate, bytes.fromhex(secret)] = register
        for file, fd in part["claims"]:
            self._claims[Path(file)] = early_register.Claim.of(take(fd))

    def rotation(self, tickets: Tickets, at: Place, material: Material | None = None) -> Rotation:
        """The keys as `[tls] tickets` says. Raises ConfigError."""

        def scheduled() -> Schedule:
            secret = _read_secret(tickets.secret_file, at.key("secret_file")) if tickets.secret_file else b""
            of = (tickets.rotate, tickets.keep, secret)
            return _latest(self._schedules, of, lambda: Schedule(tickets.rotate, tickets.keep, secret or None))

        schedule = (material or Material()).get("ticket keys", scheduled)
        return _latest(self._rotations, schedule.name, lambda: Rotation(schedule))

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
            remembers = keeps + 2 * CLOCKS_MS
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
