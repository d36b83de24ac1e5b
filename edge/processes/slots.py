"""The places of workers: how each has fared, and the listening sockets that wait there whoever fills it."""

import dataclasses
import math
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from edge import handovers
from edge.backoff import Backoff
from edge.change.inheritance import Lend, Part, Take, bind_of_json, bind_to_json
from edge.errors import AddressInUseError
from edge.logs.logline import Log
from edge.plane import Prepared
from edge.processes import sockets, systemd
from edge.processes.orphans import Rendezvous
from edge.processes.sockets import ListeningSocket, Name
from edge.settings import Bind, Listener

if TYPE_CHECKING:
    from edge.worker import EdgeWorker

# A first start waits this long for an address that is in use.
PREDECESSOR_SECONDS: Final = 2.0
# A slot that goes gets no new connections, but those in the middle of TCP's handshake (or deferred) still arrive.
STEER_SECONDS: Final = sockets.DEFER_ACCEPT_SECONDS + 2.0
# A worker that lived shorter than this counts as a failure, and its slot waits before the next.
STEADY_SECONDS: Final = 10.0
FIRST_SECONDS: Final = 0.2
BACKOFF_SECONDS: Final = 10.0
CRASH_LOOP: Final = 3
"""Workers of a slot in a row that did not last."""


@dataclasses.dataclass(slots=True, eq=False)
class Slot:
    """A worker's place: its sockets, and how its workers have fared."""

    index: int
    sockets: dict[Bind, ListeningSocket] = dataclasses.field(default_factory=dict)
    latest: "EdgeWorker | None" = None
    started: float = 0.0
    backoff: Backoff = dataclasses.field(default_factory=lambda: Backoff(FIRST_SECONDS, BACKOFF_SECONDS, by=0))
    """Its `failures` are workers in a row that did not last."""
    restarts: int = 0
    """Workers that took the place of one that had died."""
    retry_at: float | None = None
    leaves_at: float = math.inf
    """When the worker of a slot that goes is told to drain."""

    def close(self) -> None:
        for s in self.sockets.values():
            s.close()

    @property
    def crashing(self) -> bool:
        """Whether its workers have died again and again, until just now."""
        lately = time.monotonic() - self.started < STEADY_SECONDS + BACKOFF_SECONDS
        return lately and self.backoff.failures >= CRASH_LOOP

    def next_start(self) -> float:
        """When the next worker may start, after the latest has died: later and later where they do not last."""
        now = time.monotonic()
        if self.retry_at is None:
            wait = 0.0
            if now - self.started >= STEADY_SECONDS:
                self.backoff.succeeded()
            else:
                wait = self.backoff.failed()
            self.retry_at = now + wait if self.backoff.failures > 1 else now
        return self.retry_at

    def begin_anew(self) -> None:
        """With workers of another kind: how those before them ended does not matter."""
        self.backoff.succeeded()
        self.retry_at = None


@dataclasses.dataclass(slots=True)
class Staged:
    """What was made for a configuration that may still be refused."""

    slots_before: int
    added: list[tuple[Slot, Bind]] = dataclasses.field(default_factory=list)


class Slots:
    """All of them. The sockets of one address are a group, in which slot n has joined as number n; but those that were
    given go round, so that each always has a slot."""

    def __init__(self, log: Log, given: dict[Bind, list[ListeningSocket]]) -> None:
        """`given`: sockets that the service manager has opened. They stay here, and slots have twins of them."""
        self._log = log
        self._given = given
        self.shared: dict[Bind, Rendezvous] = {}
        """Addresses whose sockets some other process has still, by its leave."""
        self._steered: list[Bind] = []
        """Those at which new connections go past that one's sockets,"""
        self._unsteer_at = 0.0
        """until then."""
        self.places: list[Slot] = []
        self.leaving: list[Slot] = []
        """Those beyond the number of workers: new connections go past them, then they drain and close."""

    def bequeath(self, lend: Lend) -> Part:
        """For the master that takes this one's place."""
        return {
            "slots": [[_written(bind, s, lend) for bind, s in slot.sockets.items()] for slot in self.places],
            "given": [_written(bind, s, lend) for bind, group in self._given.items() for s in group],
        }

    def inherit(self, part: Part, take: Take) -> None:
        """Has the slots of a master whose place this one takes. Names in the file system are that one's, until
        `own_names`."""
        names: dict[str, Name] = {}
        for index, entries in enumerate(part["slots"]):
            slot = Slot(index)
            for written, fd, inode in entries:
                bind = bind_of_json(written)
                slot.sockets[bind] = ListeningSocket(fileno=take(fd))
                if bind.path:
                    name = names.setdefault(bind.path, Name(bind.path, tuple(inode), owner=0, twins=0))
                    slot.sockets[bind].name = name
                    name.twins += 1
            self.places.append(slot)
        for written, fd, _ in part["given"]:
            s = ListeningSocket(fileno=take(fd))
            bind = bind_of_json(written)
            if bind.path:
                s.name = Name(bind.path, (0, 0), owner=0)
            self._given.setdefault(bind, []).append(s)

    def own_names(self, mine: bool) -> None:
        """Whether the names of sockets in the file system go with this process."""
        for s in self.sockets():
            if s.name and s.name.inode != (0, 0):
                s.name.owner = os.getpid() if mine else 0

    def sockets(self) -> list[ListeningSocket]:
        given = [s for group in self._given.values() for s in group]
        return given + [s for slot in (*self.places, *self.leaving) for s in slot.sockets.values()]

    def stage(self, prepared: Prepared, number: int) -> Staged:
        """Binds what the configuration needs for that many slots and nobody holds yet; all or nothing. Raises
        ListenError."""
        staged = Staged(len(self.places))
        held = {(bind.family, bind.port) for slot in self.places for bind in slot.sockets}
        kinds = {bind: listener for listener in prepared.settings.listener for bind in listener.bind}
        try:
            for bind in prepared.listeners:
                if bind in self._given:
                    systemd.check_given(self._given[bind], bind, number)
                # Our own sockets on the same port, a wildcard's say, look taken too.
                elif (bind.family, bind.port) not in held and bind not in self.shared:
                    sockets.check_free(bind)
            self.places += [Slot(index) for index in range(len(self.places), number)]
            for slot in self.places[:number]:
                for bind in prepared.listeners:
                    if bind not in slot.sockets:
                        slot.sockets[bind] = self._bound(bind, kinds[bind], slot.index)
                        staged.added.append((slot, bind))
        except BaseException:
            self.unstage(staged)
            raise
        return staged

    def stage_first(self, prepared: Prepared, number: int) -> Staged:
        """`stage`, where the workers of a master who was killed may be listening. Raises ListenError."""
        until = time.monotonic() + PREDECESSOR_SECONDS
        while True:
            try:
                return self.stage(prepared, number)
            except AddressInUseError as e:
                if e.bind in self.shared or not self._meet_orphans(e.bind, until):
                    raise

    def _meet_orphans(self, bind: Bind, until: float) -> bool:
        try:
            met = Rendezvous(bind)
        except OSError:
            return False
        if met.meet(max(0.0, until - time.monotonic())):
            self.shared[bind] = met
            return True
        met.close()
        return False

    def unstage(self, staged: Staged) -> None:
        for slot, bind in staged.added:
            slot.sockets.pop(bind).close()
        del self.places[staged.slots_before :]

    def _bound(self, bind: Bind, listener: Listener, index: int) -> ListeningSocket:
        if given := self._given.get(bind):
            return given[index % len(given)].twin()
        if not bind.path:
            return sockets.bound(bind)
        for slot in self.places:
            if bind in slot.sockets:
                return slot.sockets[bind].twin()
        owner = handovers.ownership(listener.handoff)
        return sockets.bound_unix(bind, listener.handoff.mode, owner, replace=bind in self.shared)

    def listen(self, prepared: Prepared, number: int) -> None:
        """Sockets join their group here, slot after slot: `sockets.steer` counts on that order."""
        before = {bind: _count(bind) for bind in self.shared if not bind.path}
        for slot in self.places[:number]:
            for listener in prepared.settings.listener:
                for bind in listener.bind:
                    slot.sockets[bind].listen(listener.backlog)
        for bind, orphans in before.items():
            if orphans:
                sockets.steer(self.places[0].sockets[bind], number, orphans)
                self._steered.append(bind)
                self._unsteer_at = time.monotonic() + STEER_SECONDS
        for met in self.shared.values():
            met.close()
        self.shared = {}
        for listener in prepared.settings.listener:
            self._permit(listener)

    def _permit(self, listener: Listener) -> None:
        """Sockets that were there before may have other permissions now."""
        for bind in listener.bind:
            try:
                if bind.path and bind not in self._given:
                    sockets.permit(bind, listener.handoff.mode, handovers.ownership(listener.handoff))
            except OSError as e:
                self._log("error", f"{bind}: its permissions stay as they are: {e.strerror}")

    def unused(self, prepared: Prepared) -> list[ListeningSocket]:
        """Given sockets that the configuration does not listen on: what comes there waits for ever."""
        return [s for bind, group in self._given.items() if bind not in prepared.listeners for s in group]

    def close_others(self, prepared: Prepared) -> None:
        """Closes what the configuration does not listen on; a worker that does still accepts what waits there."""
        for slot in self.places:
            for bind in slot.sockets.keys() - prepared.listeners.keys():
                slot.sockets.pop(bind).close()

    @property
    def changing(self) -> bool:
        """Whether new connections do not go to all sockets of a group for now."""
        return bool(self.leaving or self._steered)

    # Slots that go.

    def steer_past(self, number: int) -> None:
        """Begins to give up the slots beyond that many."""
        self.leaving = self.places[number:]
        if not self.leaving:
            return
        del self.places[number:]
        for slot in self.leaving:
            slot.leaves_at = time.monotonic() + STEER_SECONDS
        for member in self._grouped():
            sockets.steer(member, number)

    def close_left(self, accepts: Callable[[Slot], bool]) -> bool:
        """Closes the slots that nobody can be connecting to any more; accepts(slot) tells whether a worker may still
        accept there. Whether it did."""
        now = time.monotonic()
        if self._steered and now >= self._unsteer_at:
            for bind in self._steered:
                sockets.unsteer(self.places[0].sockets[bind])
            self._steered = []
        if not self.leaving or any(now < slot.leaves_at or accepts(slot) for slot in self.leaving):
            return False
        for left in self.leaving:
            left.close()
        self.leaving = []
        for member in self._grouped():
            sockets.unsteer(member)
        return True

    def _grouped(self) -> list[ListeningSocket]:
        """One of each group in which every slot has a socket of its own."""
        return [s for bind, s in self.places[0].sockets.items() if not bind.path and bind not in self._given]


def _count(bind: Bind) -> int:
    try:
        return sockets.count_listening(bind)
    except OSError:
        return 0


def _written(bind: Bind, s: ListeningSocket, lend: Lend) -> list[object]:
    return [bind_to_json(bind), lend(s.fileno()), list(s.name.inode) if s.name else None]
