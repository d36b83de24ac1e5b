"""A worker: one process with one data plane on the sockets of its slot."""

import dataclasses
import faulthandler
import gc
import math
import os
import pickle
import signal
import socket
import sys
import time
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Any, Final

from gunicorn.workers.base import Worker
from setproctitle import setproctitle

from edge import plane
from edge.admin import told
from edge.admin.questions import Answering
from edge.certificates import stapling
from edge.certificates.certs import Identity
from edge.certificates.serving import CERTIFICATES
from edge.certificates.stapling import Staples
from edge.change import succession
from edge.change.material import from_pieces
from edge.change.rollout import Commit, Parcel, Preparing
from edge.change.succession import CONFIGURATION, Successor
from edge.fleet import register
from edge.logs import accesslog
from edge.logs.errorlog import one_line
from edge.observe import spans
from edge.policy import Reports
from edge.processes import channel, orphans
from edge.processes.aside import Aside
from edge.processes.channel import Channel, ChannelError
from edge.processes.privileges import drop_privileges
from edge.processes.supervision import StackDump, expect_heartbeat
from edge.settings import Bind, Settings
from edge.tickets.rotations import TURN_MS

if TYPE_CHECKING:
    from edge.change.generation import Generation
    from edge.processes.slots import Slot

HEARTBEAT_MS: Final = 500


class EdgeWorker(Worker):  # type: ignore[misc]  # gunicorn has no types
    """Made in the master before the fork. What stands under "master's view" is never used by the process itself."""

    alive: bool
    slot: "Slot"
    generation: "Generation"
    column: int | None
    """Where it counts what client addresses have."""
    row: int | None
    """Where it counts what goes on."""
    spans: socket.socket
    """Where it sends what it has of traces."""
    channel: Channel
    """One's own end of the line between worker and master,"""
    far_end: socket.socket
    """and until the fork the worker's."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        # the master's view
        self.born = time.time()
        self.ready = False
        self.serving = False
        self.told = 0
        """The number of the rollout that it heard of last,"""
        self.answered = 0
        """and of the one that it answered last,"""
        self.refusal = ""
        """with why not, if it cannot."""
        self.keys_told: object = None
        """Which ticket keys it was told of last (`edge.tickets.supply`)."""
        self.kill_at: float | None = None
        """When a draining worker is killed (monotonic); None while it is not draining."""
        self.cut = False
        """It was told not to drain any longer."""
        self.dump = StackDump()

    def accepts(self) -> bool:
        """The master's view: whether it may hold its listening sockets still."""
        return os.fstat(self.tmp.fileno()).st_size == 0

    def silent_for(self) -> float:
        """The master's view: seconds since its last heartbeat."""
        return float(time.monotonic() - self.tmp.last_update())

    def shows_life(self) -> bool:
        return bool(self.silent_for() <= self.cfg.timeout)

    def init_process(self) -> None:
        """Opens what needs privileges, gives them up, then runs. Never returns to a caller who would go on."""
        setproctitle(f"edge: worker {self.slot.index} (generation {self.generation.number})")
        # The master sends SIGABRT to a worker that hangs: it tells where. A crash does, too.
        faulthandler.enable(self.dump.fd)
        expect_heartbeat(self.cfg.timeout)  # a hook's module may hang while it is imported, and the master be gone
        gc.freeze()  # what the master made stays shared: no collection here writes to it
        settings = self.generation.prepared.settings
        self.sockets_by_bind: dict[Bind, socket.socket] = dict(self.slot.sockets)
        self._orphaned = False
        self._successors: dict[Bind, socket.socket] = {}
        self._awaiting: list[plane.Watched] = []
        try:
            self.plane = plane.open_plane(
                self._report,
                addresses=self.app.addresses.join(self.column),
                stats=self.app.generations.counting.join(self.row),
                memory_limit=settings.server.memory_limit,
                hook_timeout=settings.server.hook_timeout,
            )
            accesslog.follow(self.plane, settings.server.access_log, self.cfg.sender)
            self.plane.failed = Reports(self._report, "").failed
            self.plane.trace(self.generation.prepared.traces, spans.sender(self.spans))
            drop_privileges(*self.generation.owner)
            self.generation.prepared.use()
            self.plane.hooks = plane.make_hooks(self.generation.prepared, self._report)
        except Exception as e:
            self._fail(e)
        super().init_process()

    def init_signals(self) -> None:
        # SIGHUP goes to the whole group when a terminal closes; the master answers for it.
        for ignored in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH):
            signal.signal(ignored, signal.SIG_IGN)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for number, act in (
            (signal.SIGTERM, self._drain),
            (signal.SIGINT, self._stop),
            (signal.SIGQUIT, self._stop),
        ):
            signal.signal(number, self._between_turns(act))

    def _between_turns(self, act: Callable[[], None]) -> Callable[[int, FrameType | None], None]:
        """A handler that defers: Python runs it anywhere, in the middle of a callback for a connection too."""
        return lambda _number, _frame: self.plane.loop.call_soon(act)

    def load_wsgi(self) -> None:
        """There is no application: the data plane is built already."""

    def run(self) -> None:
        if not self._wait_for_go():
            return
        try:
            self._signers = plane.Signers(self.plane, self._report)
            self._signers.follow(self.generation.prepared.serving)
            self._register = register.Asking(self.plane, self._report)
            self._follow_register()
            self._staples = Staples(self.generation.prepared.serving, self.generation.staples)
            self._preparing = Preparing(
                self.channel,
                {},
                self.log.error,
                Answering(self.channel, told.answers(self.plane), self.log.error),
                aside=Aside(self.plane.loop),
                prepare_aside={
                    CERTIFICATES: self._prepare_certificates,
                    CONFIGURATION: self._prepare_configuration,
                },
                keys=self._take_keys,
            )
            self._look_for_staples()  # those of the last run are there
            self.plane.every(stapling.LOOK_MS, self._look_for_staples)
            self._doors = {
                bind: self.plane.listen(self.sockets_by_bind[bind].fileno(), settings)
                for bind, settings in self.generation.prepared.listeners.items()
            }
            self.plane.every(HEARTBEAT_MS, self._beat)
            self._hearing = self.plane.watch(self.channel.fileno(), self._hear_master)
            self._hear_master()  # what came together with the word to serve
            self._turn_keys()  # the configuration may have been prepared days ago
            self.plane.every(TURN_MS, self._turn_keys)
        except Exception as e:
            self._fail(e)
        self._beat()
        self.plane.run()
        accesslog.end(self.plane, self.cfg.sender)

    def _wait_for_go(self) -> bool:
        """False when the master has gone or has thought better of it."""
        self.channel.send(channel.READY)
        while not self.channel.ended:
            self.channel.wait()
            for letter, _ in self.channel.receive():
                return letter == channel.GO
        return False

    def _hear_master(self) -> None:
        try:
            goes_on = self._preparing.hear()
        except ChannelError as e:
            self.log.error("the master is not heard any more: it said %s", e)
            goes_on = False
        if not goes_on:
            self._hearing.close()
        if self.channel.ended:
            self._lose_master()

    def _lose_master(self) -> None:
        """Goes on for a moment, until whoever starts the next master has let it listen, then drains."""
        if not self.alive or self._orphaned:
            return
        self._orphaned = True
        self.log.error("the master is gone: this worker drains")
        self._give_up = time.monotonic() + orphans.ACCEPT_SECONDS
        self._look_for_successor()
        self.plane.every(orphans.LOOK_MS, self._look_for_successor)

    def _look_for_successor(self) -> None:
        if not self.alive:
            return
        if not self._successors and time.monotonic() > self._give_up:
            self._drain()
            return
        for bind in self.generation.prepared.listeners.keys() - self._successors.keys():
            if found := orphans.find_successor(bind):
                self._successors[bind] = found
                self._awaiting.append(self.plane.watch(found.fileno(), self._yield))  # it ends when that one listens

    def _yield(self) -> None:
        """New connections go to the successor: those that had begun before are accepted still."""
        for watched in self._awaiting:
            watched.close()
        for line in self._successors.values():
            line.close()
        self._awaiting, self._successors = [], {}  # that one may have a successor soon, too
        self._give_up = math.inf
        self.plane.every(orphans.YIELD_MS, self._drain)

    def _follow_register(self) -> None:
        prepared = self.generation.prepared
        self._register.follow(prepared.register, prepared.link, prepared.settings.fleet)

    def _take_keys(self, said: bytes) -> None:
        """Ticket keys that the master has heard of."""
        try:
            self.app.generations.deliver(*pickle.loads(said))  # noqa: S301  # the master's, who made this process
        except Exception as e:
            self.log.error("ticket keys stay as they are: %s: %s", type(e).__name__, e)

    def _turn_keys(self) -> None:
        if self.generation.prepared.rotation:
            self.generation.prepared.rotation.turn()

    def _prepare_certificates(self, _: object, parcel: Parcel) -> Commit:
        changed: dict[int, Identity] = dict(from_pieces(parcel.pieces))
        return self.generation.prepared.serving.prepare(self._staples.fill(changed))

    def _prepare_configuration(self, _: object, parcel: Parcel) -> Commit:
        return succession.prepare(
            parcel,
            build=self.app.generations.prepare,
            before=self.generation.prepared,
            report=self._report,
            take_over=self._take_over,
        )

    def _take_over(self, successor: Successor) -> None:
        """A configuration takes the place of the one that is served, between two turns of the loop."""
        before, prepared = [self.generation.prepared], successor.prepared
        self.generation = dataclasses.replace(
            self.generation,
            number=successor.announcement.number,
            prepared=prepared,
            staples=successor.announcement.staples,
        )
        server = prepared.settings.server
        prepared.use()
        self._turn_keys()
        self.plane.hooks = successor.hooks
        self.plane.hook_timeout = server.hook_timeout
        self.plane.memory_limit = server.memory_limit
        self.plane.trace(prepared.traces)
        self._change_listeners(prepared, successor.sockets)
        self._staples = successor.staples
        before[0].serving.replaced = None
        self._signers.follow(prepared.serving)
        self._follow_register()
        for group in succession.dropped_groups(before[0], prepared):
            group.retire()
        self.use_logs(prepared.settings)
        setproctitle(f"edge: worker {self.slot.index} (generation {self.generation.number})")
        succession.dismantle(before)

    def _change_listeners(self, prepared: plane.Prepared, added: dict[Bind, socket.socket]) -> None:
        """What stays changes its settings, which its connections refer to; what is new begins, what is not there any
        more ends."""
        for bind, made in list(prepared.listeners.items()):
            if bind in self._doors:
                living = self._doors[bind].settings
                self.plane.become(self._doors[bind], made)
                prepared.serving.reattach(made, living)
                prepared.listeners[bind] = living
            else:
                self.sockets_by_bind[bind] = added[bind]
                self._doors[bind] = self.plane.listen(added[bind].fileno(), made)
        for bind in self._doors.keys() - prepared.listeners.keys():
            self.plane.leave(self._doors.pop(bind))
            self.sockets_by_bind.pop(bind).close()

    def _look_for_staples(self) -> None:
        if self._preparing.busy:
            return  # what is prepared was made of what is served now
        try:
            self._staples.look()
        except Exception as e:
            self.log.error("OCSP responses are not looked for: %s: %s", type(e).__name__, e)

    def _beat(self) -> None:
        self.notify()
        expect_heartbeat(self.cfg.timeout)
        if os.getppid() != self.ppid:
            self._lose_master()

    def _drain(self) -> None:
        if not self.alive:
            return
        self.alive = False
        self.plane.drain(self.generation.prepared.settings.server.drain_timeout)
        # Accepting is over here. Others may hold these sockets too; if none does, clients are refused at once
        # instead of waiting in a queue that nobody serves.
        for s in self.sockets_by_bind.values():
            s.close()
        # The heartbeat's file, empty until now, tells the master: a heartbeat alone may be older than the drain.
        os.ftruncate(self.tmp.fileno(), 1)
        self.notify()  # the file's time is the wall clock's now

    def _stop(self) -> None:
        self.alive = False
        self.plane.stop()

    def use_logs(self, settings: Settings) -> None:
        """The logs of a configuration that has taken the place of the one before."""
        accesslog.follow(self.plane, settings.server.access_log, self.cfg.sender)
        self.log.error_log.setLevel(settings.server.error_log.level.upper())

    def _report(self, level: str, message: str) -> None:
        self.log.log(level, "%s", one_line(message))

    def _fail(self, error: Exception) -> None:
        self.log.error("worker %d cannot start: %s: %s", self.slot.index, type(error).__name__, error)
        sys.exit(1)
