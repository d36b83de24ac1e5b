"""The registers of which early data was taken: what outlives configurations, and is the same in all workers, so that
nothing that was taken before a reload, or under a master before, is taken again."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cext.tls.replay import LAYOUT, AwaitedRegister, SharedRegister

from edge.change.inheritance import Lend, Part, Take
from edge.change.material import Material
from edge.early_data.claim import Claim
from edge.early_data.settings import EarlyData
from edge.fleet.link import Link
from edge.fleet.settings import CLOCKS_MS, DEADLINE_MS
from edge.lately import Lately
from edge.schema import Place
from edge.settings import Tickets
from edge.tickets.rotations import secret_of

Name = tuple[int, int, bytes]
"""What a register goes by here: window, rate, and what its tickets are under."""

ROOM: Final = 4
"""Words of a register for each entry it is to have room for: its sets are small, and must not run full by chance."""

ROOM_MIN: Final = 1024


class Registers:
    def __init__(self) -> None:
        self._local: Lately[Name, SharedRegister] = Lately()
        self._claims: dict[Path, Claim] = {}
        self._fleets: Lately[tuple[int, int, bytes, int], AwaitedRegister] = Lately()
        """By the local register and the deadline."""

    def bequeath(self, lend: Lend) -> Part:
        """For the master that takes this one's place."""
        return {
            "layout": LAYOUT,
            "registers": [
                [window, rate, secret.hex(), lend(made.fd), _written(made.state())]
                for (window, rate, secret), made in self._local.items()
            ],
            "claims": [[str(file), lend(claim.fd)] for file, claim in self._claims.items() if claim.fd >= 0],
        }

    def inherit(self, part: Part, take: Take) -> None:
        if part["layout"] != LAYOUT:
            # Nor may a register here go by the name of one that others use still: its claim stays with the old master.
            return
        for window, rate, secret, fd, state in part["registers"]:
            register = SharedRegister.of(take(fd), _read(state), keep=True)
            os.close(fd)
            self._local.put((window, rate, bytes.fromhex(secret)), register)
        for file, fd in part["claims"]:
            self._claims[Path(file)] = Claim.of(take(fd))

    def of_host(
        self, early_data: EarlyData, tickets: Tickets, at: Place, material: Material | None = None
    ) -> SharedRegister:
        """Which early data this host has taken. `at`: `[tls] tickets`. Raises ConfigError."""

        def made() -> SharedRegister:
            return self._local.get(name, lambda: self._make(early_data, tickets.secret_file, secret))

        material = material or Material()
        secret = material.get("register's secret", lambda: secret_of(tickets, at))
        name = (early_data.window, early_data.rate, secret)
        return self._followed(name, material, made)

    def of_fleet(
        self, early_data: EarlyData, deadline: int, link: Link, material: Material | None = None
    ) -> AwaitedRegister:
        """The same for a fleet: a register of this host, and whom to ask of the others. Milliseconds."""
        keeps, secret = 2 * early_data.window, link.secrets[0]
        # Hosts share a record if they make the same of it: what is kept elsewhere, or for less long, is another.
        identity = secret.register_identity(keeps, link.whereabouts)
        name = (early_data.window, early_data.rate, b"fleet" + identity)

        def made() -> SharedRegister:
            return self._local.get(name, lambda: SharedRegister(keeps, _room(early_data), identity))

        def awaited() -> AwaitedRegister:
            # From the first moment of the window by one clock to the last by another, when it may be asked about late.
            remembers = keeps + 2 * CLOCKS_MS + DEADLINE_MS
            return AwaitedRegister(local, identity, secret.fingerprint_key, remembers, deadline)

        local = self._followed(name, material or Material(), made)
        known = self._fleets.get((*name, deadline), awaited)
        return known if known.local is local else self._fleets.put((*name, deadline), awaited())

    def _followed(self, name: Name, material: Material, made: Callable[[], SharedRegister]) -> SharedRegister:
        """The master's, in every process."""
        state = material.get("register", lambda: made().state())
        fd = material.descriptor("register", lambda: made().fd)
        known = self._local.find(name)
        if known is None or known.state() != state:
            return self._local.put(name, SharedRegister.of(fd, state))
        return known

    def _make(self, early_data: EarlyData, file: Path | None, secret: bytes) -> SharedRegister:
        keeps, capacity = 2 * early_data.window, _room(early_data)
        if file is None:
            return SharedRegister(keeps, capacity)  # its tickets go with it
        if file not in self._claims:
            self._claims[file] = Claim(file)
        identity = self._claims[file].identity(secret, keeps, capacity)
        return SharedRegister(keeps, capacity, identity, int(time.time() * 1000))


def _room(early_data: EarlyData) -> int:
    """Words of a register."""
    return max(early_data.rate * 2 * early_data.window // 1000 * ROOM, ROOM_MIN)


def _written(state: tuple[Any, ...]) -> list[Any]:
    """As JSON has it."""
    return [item.hex() if isinstance(item, bytes) else item for item in state]


def _read(state: list[Any]) -> tuple[Any, ...]:
    return tuple(bytes.fromhex(item) if isinstance(item, str) else item for item in state)
