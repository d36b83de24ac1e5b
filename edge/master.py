"""The master: gunicorn's arbiter, with a fixed slot of listening sockets for every worker.

What gunicorn does stays: signals, forking, reaping, heartbeats, the PID file. What differs:

- The master owns the sockets (`edge.sockets`), one set per slot, for its whole life. A worker that dies or is
  replaced leaves its accept queue to the next worker of its slot.
- A configuration is a *generation*. SIGHUP prepares the next one, starts its workers beside the old, and only when
  all of them could serve do they take over and the old ones drain. Until then any fault (in the file, an address,
  a worker that does not boot) takes everything back, and the old generation never noticed.
- Nothing here waits: `manage_workers` is called on every turn of gunicorn's loop and moves things on by one step.
  Which worker fills a slot is always read off `WORKERS`, so no way of dying leaves a slot taken.
"""

import contextlib
import dataclasses
import math
import os
import resource
import secrets
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from gunicorn.app.base import BaseApplication
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.errors import HaltServer
from gunicorn.pidfile import Pidfile
from setproctitle import setproctitle

from edge import __version__, accesslog, channel, config, handovers, plane, sockets, stapling, ticket_keys
from edge.addresses import Addresses
from edge.certs import Identity
from edge.channel import Channel, ChannelError
from edge.errorlog import ErrorLog
from edge.errors import EdgeError
from edge.expiry import Expiry
from edge.ocsp_fetch import Target
from edge.rollout import Rollout, read_answer
from edge.schema import Place
from edge.serving import CERTIFICATES
from edge.settings import Bind, Listener, Settings
from edge.sockets import ListeningSocket
from edge.stapling import Stapler
from edge.worker import EdgeWorker, drop_privileges

# After a worker's own deadline, before the master kills it.
DRAIN_MARGIN_SECONDS: Final = 5.0
# A slot that goes gets no new connections, but those in the middle of TCP's handshake (or deferred) still arrive.
STEER_SECONDS: Final = sockets.DEFER_ACCEPT_SECONDS + 2.0
# Old generations that may drain at a time; a reload beyond that waits.
DRAINING_GENERATIONS: Final = 4
# A worker that lived shorter than this counts as a failure, and its slot waits before the next.
STEADY_SECONDS: Final = 10.0
BACKOFF_SECONDS: Final = 10.0
SPAWN_RETRY_SECONDS: Final = 1.0
# A new certificate waits this long for the OCSP response without which clients refuse it.
STAPLE_SECONDS: Final = 60.0


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Generation:
    """An accepted configuration and all that its workers inherit."""

    number: int
    prepared: plane.Prepared
    cfg: Config
    owner: tuple[int, int]
    staples: Path
    """Where fetched OCSP responses are."""


@dataclasses.dataclass(slots=True, eq=False)
class Slot:
    """A worker's place: its sockets, and how its workers have fared."""

    index: int
    sockets: dict[Bind, ListeningSocket] = dataclasses.field(default_factory=dict)
    latest: EdgeWorker | None = None
    started: float = 0.0
    failures: int = 0
    """Workers in a row that did not last."""
    retry_at: float | None = None
    leaves_at: float = math.inf
    """When the worker of a slot that goes is told to drain."""

    def close(self) -> None:
        for s in self.sockets.values():
            s.close()


@dataclasses.dataclass(slots=True)
class Takeover:
    """A generation that starts: what to go back to, what was made for it, and who starts."""

    previous: Generation | None
    slots_before: int = 0
    added: list[tuple[Slot, Bind]] = dataclasses.field(default_factory=list)
    workers: list[EdgeWorker] = dataclasses.field(default_factory=list)


class Application(BaseApplication):  # type: ignore[misc]  # gunicorn has no types
    """What gunicorn calls the application: here, the configuration file."""

    def __init__(self, file: Path, welcome: str = "") -> None:
        self.file = file
        self.welcome = welcome
        self.cookie_secret = secrets.token_bytes(32)
        self.shared = ticket_keys.Shared()
        self.addresses = Addresses()
        self.staples = stapling.Directory()
        self.cfg: Config = None
        self._numbers = 0
        super().__init__("edge", prog="edge")

    def do_load_config(self) -> None:
        """Loads nothing: `next_generation` does, and the master decides when it holds."""

    def next_generation(self) -> Generation:
        """Reads and prepares the file. Raises EdgeError; nothing has changed then."""
        settings = config.load(self.file)
        prepared = plane.prepare(settings, self.cookie_secret, self.shared)
        accesslog.make_files(settings)
        owner = config.owner(settings.server, Place(settings.file).key("server"))
        if any(identity.responders for identity in prepared.serving.identities):
            self.staples.make(settings, owner)
        self._numbers += 1
        staples = self.staples.path(settings)
        return Generation(self._numbers, prepared, _gunicorn_config(settings, owner), owner, staples)

    def run(self) -> None:
        """Serves until stopped. Raises EdgeError when that cannot begin; ends in SystemExit otherwise."""
        first = self.next_generation()
        self.cfg = first.cfg
        try:
            Master(self, first).run()
        except RuntimeError as e:
            # the PID file: another master runs, or its directory is gone
            raise EdgeError(str(e)) from None


def _gunicorn_config(settings: Settings, owner: tuple[int, int]) -> Config:
    server = settings.server
    cfg = Config(prog="edge")
    for name, value in {
        "bind": [str(bind) for listener in settings.listener for bind in listener.bind],
        "workers": server.workers,
        "worker_class": EdgeWorker,
        "logger_class": ErrorLog,
        "errorlog": str(server.error_log.path) if server.error_log.path else "-",
        "loglevel": server.error_log.level,
        "timeout": math.ceil(server.worker_timeout / 1000),
        "graceful_timeout": math.ceil(server.drain_timeout / 1000 + DRAIN_MARGIN_SECONDS),
        "pidfile": str(server.pid_file) if server.pid_file else None,
        "user": owner[0],
        "group": owner[1],
        "proc_name": "edge",
        "worker_tmp_dir": "/dev/shm" if os.path.isdir("/dev/shm") else None,  # noqa: S108
        "control_socket_disable": True,
        "pre_fork": lambda master, worker: master.furnish(worker),
        "post_fork": lambda master, worker: master.leave(worker),
    }.items():
        cfg.set(name, value)
    return cfg


class Master(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    # Compared with the exit code of a dead worker, to end the master: that is for this class to judge.
    WORKER_BOOT_ERROR = APP_LOAD_ERROR = -1

    app: Application
    pidfile: Pidfile | None
    num_workers: int
    WORKERS: dict[int, EdgeWorker]

    def __init__(self, app: Application, first: Generation) -> None:
        self.current = first
        self.slots: list[Slot] = []
        self.leaving: list[Slot] = []
        """Slots beyond the number of workers: new connections go past them, then they drain and close."""
        self.takeover: Takeover | None = Takeover(previous=None)
        self.rollout: Rollout | None = None
        self._reload_asked = False
        self._rollouts = 0
        self._renewing: dict[int, Identity] = {}
        """The certificates that `rollout` brings."""
        self._awaited: tuple[Identity, ...] = ()
        """Certificates that are not served before there is an OCSP response for them,"""
        self._await_until = 0.0
        """or this moment has come."""
        self._stapled_for: tuple[Sequence[Identity], Sequence[Identity]] = ((), ())
        self._targets: tuple[Target, ...] = ()
        """What is to be fetched for those."""
        self._fetch_at = 0.0
        self._spawning = Slot(-1)
        self.WORKERS = {}
        super().__init__(app)
        self._expiry = Expiry()
        self._stapler = Stapler(self._report, self._leave_all, drop_privileges)

    # The arbiter's life.

    def start(self) -> None:
        raise_file_limit()
        self._stage(Takeover(previous=None), self.current)
        self._listen()
        super().start()
        listening = ", ".join(map(str, self.current.prepared.listeners))
        self.log.info("edge %s listens on %s, process %d", __version__, listening, self.pid)
        self._log_warnings()

    def manage_workers(self) -> None:
        """One step onwards. gunicorn calls it at start and after every signal or second."""
        if self.current.prepared.rotation:
            self.current.prepared.rotation.turn()  # or secrets that every worker has forgotten would stay here
        self.app.addresses.keep(self.WORKERS.values())
        self._hear_workers()
        if self.takeover:
            self._judge(self.takeover)
        if self._reload_asked and self._may_change():
            self._reload_asked = False
            self.reload()
        self._renew_certificates()
        self._keep_stapler()
        self._expiry.look(self.current.prepared.serving.identities, self._report)
        self._fill_slots()
        self._end_workers()
        self._close_left()
        setproctitle("edge: master")

    def wait_for_signals(self, timeout: float = 1.0) -> list[int]:
        if self.takeover or self.rollout or not all(w.serving for w in self.WORKERS.values()):
            timeout = 0.02
        elif self.leaving or len(self.WORKERS) < self.num_workers:
            timeout = 0.2
        signals: list[int] = super().wait_for_signals(timeout)
        return signals

    def stop(self, graceful: bool = True) -> None:
        if graceful and self.WORKERS:
            seconds = self.current.prepared.settings.server.drain_timeout / 1000
            self.log.info("draining %d workers, for at most %g s", len(self.WORKERS), seconds)
        for worker in self.WORKERS.values():
            worker.channel.close()  # one that still boots ends there
        self._stapler.stop()
        for shared in [s for s in self.LISTENERS if s.family == socket.AF_UNIX]:
            self.LISTENERS.remove(shared)  # gunicorn would remove its name for each of the slots
            shared.close()
        super().stop(graceful)
        self.app.staples.remove()

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        if reason is None:
            self.log.info("edge stops")
        super().halt(reason, exit_status)

    # Signals that mean something else here.

    def handle_hup(self) -> None:
        """A new configuration."""
        self._reload_asked = True
        if not self._may_change():
            self.log.info("the reload waits until the last change is through")

    def handle_usr1(self) -> None:
        """New log files: those that were moved away are let go."""
        try:
            accesslog.make_files(self.current.prepared.settings)
        except EdgeError as e:
            self.log.error("reopening the logs: %s", e)
        super().handle_usr1()
        self._stapler.stop()  # the next one has the new files

    def handle_usr2(self) -> None:
        self.log.warning("SIGUSR2 is ignored: restart edge to run another version")

    def handle_ttin(self) -> None:
        """One worker more, until the next reload."""
        self._resize(self.num_workers + 1)

    def handle_ttou(self) -> None:
        """One worker less, until the next reload."""
        self._resize(self.num_workers - 1)

    def _resize(self, number: int) -> None:
        if number < 1 or not self._may_change():
            self.log.warning("the number of workers stays %d for now", self.num_workers)
            return
        try:
            self._stage(Takeover(previous=self.current, slots_before=len(self.slots)), self.current, number)
        except EdgeError as e:
            self.log.error("the number of workers stays %d: %s", self.num_workers, e)
            return
        self.num_workers = number
        self._listen()
        self._steer_past_leaving()

    def _may_change(self) -> bool:
        draining = {w.generation.number for w in self.WORKERS.values() if w.kill_at is not None}
        if self.takeover or self.rollout or self.leaving:
            return False
        return len(draining) < DRAINING_GENERATIONS

    # Generations.

    def reload(self) -> None:
        """Begins to take the configuration file over. A fault in it changes nothing."""
        self._stats["reloads"] += 1
        takeover = Takeover(previous=self.current, slots_before=len(self.slots))
        try:
            generation = self.app.next_generation()
            self._stage(takeover, generation)
        except EdgeError as e:
            self.log.error("reload refused, nothing has changed: %s", e)
            return
        except Exception:
            self.log.exception("reload refused, nothing has changed")
            return
        self.takeover = takeover
        for slot in self.slots:
            slot.failures, slot.retry_at = 0, None
        self._use(generation)
        self._log_warnings()

    def _use(self, generation: Generation) -> None:
        self.current = generation
        self._awaited = ()
        self.app.cfg = generation.cfg
        self.setup(self.app)

    def _stage(self, takeover: Takeover, generation: Generation, number: int = 0) -> None:
        """Binds what the generation needs and nobody holds yet; all or nothing. Raises ListenError."""
        number = number or generation.prepared.settings.server.workers
        held = {(bind.family, bind.port) for slot in self.slots for bind in slot.sockets}
        kinds = {bind: listener for listener in generation.prepared.settings.listener for bind in listener.bind}
        try:
            for bind in generation.prepared.listeners:
                # Our own sockets on the same port, a wildcard's say, look taken too.
                if (bind.family, bind.port) not in held:
                    sockets.check_free(bind)
            self.slots += [Slot(index) for index in range(len(self.slots), number)]
            for slot in self.slots[:number]:
                for bind in generation.prepared.listeners:
                    if bind not in slot.sockets:
                        slot.sockets[bind] = self._bound(bind, kinds[bind])
                        takeover.added.append((slot, bind))
        except BaseException:
            self._unstage(takeover)
            raise
        self._publish()

    def _bound(self, bind: Bind, listener: Listener) -> ListeningSocket:
        if not bind.path:
            return sockets.bound(bind)
        for slot in self.slots:
            if bind in slot.sockets:
                return slot.sockets[bind].twin()
        return sockets.bound_unix(bind, listener.handoff.mode, handovers.ownership(listener.handoff))

    def _unstage(self, takeover: Takeover) -> None:
        for slot, bind in takeover.added:
            slot.sockets.pop(bind).close()
        del self.slots[takeover.slots_before :]
        self._publish()

    def _publish(self) -> None:
        """LISTENERS is gunicorn's: what it closes when it stops."""
        self.LISTENERS = [s for slot in (*self.slots, *self.leaving) for s in slot.sockets.values()]

    def _listen(self) -> None:
        """Sockets join their group here, slot after slot: `sockets.steer` counts on that order."""
        for slot in self.slots[: self.num_workers]:
            for listener in self.current.prepared.settings.listener:
                for bind in listener.bind:
                    slot.sockets[bind].listen(listener.backlog)
        for listener in self.current.prepared.settings.listener:
            self._permit(listener)

    def _permit(self, listener: Listener) -> None:
        """Sockets that were there before may have other permissions now."""
        for bind in listener.bind:
            try:
                if bind.path:
                    sockets.permit(bind, listener.handoff.mode, handovers.ownership(listener.handoff))
            except OSError as e:
                self.log.error("%s: its permissions stay as they are: %s", bind, e.strerror)

    def _judge(self, takeover: Takeover) -> None:
        """All of a generation's workers serve, or none does."""
        if any(w.pid not in self.WORKERS for w in takeover.workers):
            self._take_back(takeover)
        elif len(takeover.workers) == self.num_workers and all(w.ready for w in takeover.workers):
            self._commit(takeover)

    def _commit(self, takeover: Takeover) -> None:
        self._listen()
        self.takeover = None
        self._hear_workers()
        if takeover.previous:
            for slot in self.slots:
                for bind in slot.sockets.keys() - self.current.prepared.listeners.keys():
                    slot.sockets.pop(bind).close()  # the old worker accepts what waits there
            self._move_pid_file()
            self._steer_past_leaving()
        self._publish()
        self.log.info("generation %d serves: %d workers", self.current.number, self.num_workers)
        if self.app.welcome:
            with contextlib.suppress(OSError):
                sys.stdout.write(self.app.welcome)
                sys.stdout.flush()
            self.app.welcome = ""

    def _take_back(self, takeover: Takeover) -> None:
        self.takeover = None
        for worker in takeover.workers:
            self._kill(worker)
        if takeover.previous is None:
            raise HaltServer("a worker did not start", 1)
        self._unstage(takeover)
        self._use(takeover.previous)
        self.log.error("reload taken back: a worker did not start; the old configuration goes on")

    def _move_pid_file(self) -> None:
        name = self.cfg.pidfile
        if name == (self.pidfile and self.pidfile.fname):
            return
        if self.pidfile:
            self.pidfile.unlink()
        self.pidfile = Pidfile(name) if name else None
        try:
            if self.pidfile:
                self.pidfile.create(self.pid)
        except (RuntimeError, OSError) as e:
            self.pidfile = None
            self.log.error("there is no PID file: %s", e)

    def _log_warnings(self) -> None:
        for warning in plane.warnings(self.current.prepared):
            self.log.warning("%s", warning)

    # Certificates, which change while a generation stays.

    def _renew_certificates(self) -> None:
        prepared = self.current.prepared
        if self.rollout:
            self._step(self.rollout, prepared)
        elif self.takeover is None and (changed := prepared.watch.look(prepared.serving.identities, self.log.error)):
            if self._awaits_staples(changed):
                return
            try:
                own = prepared.serving.prepare(changed)
            except EdgeError as e:
                self.log.error("%s; the certificate before goes on", e)
                prepared.watch.refuse(changed)
                return
            self._rollouts += 1
            self._renewing = changed
            self.rollout = Rollout(self._rollouts, CERTIFICATES, changed, own)

    def _awaits_staples(self, changed: dict[int, Identity]) -> bool:
        """Whether certificates that clients refuse without an OCSP response wait for theirs, for a while: the watch
        offers them again."""
        directory = self.current.staples
        lacking = tuple(i for i in changed.values() if i.must_staple and not stapling.is_there(directory, i))
        now = time.monotonic()
        if not lacking or (self._awaited and now > self._await_until):
            self._awaited = ()
            return False
        if not self._awaited:
            self._await_until = now + STAPLE_SECONDS
        self._awaited = lacking
        return True

    def _keep_stapler(self) -> None:
        generation = self.current
        if self.takeover:
            return
        identities = generation.prepared.serving.identities
        if (identities, self._awaited) != self._stapled_for:
            self._stapled_for = (identities, self._awaited)
            self._targets = stapling.targets((*identities, *self._awaited))
        if time.monotonic() < self._fetch_at:
            return
        if self._targets and not generation.staples.is_dir():
            try:
                self.app.staples.make(generation.prepared.settings, generation.owner)
            except EdgeError as e:
                self.log.error("no OCSP responses are fetched: %s", e)
                self._fetch_at = time.monotonic() + STAPLE_SECONDS
                return
        self._stapler.keep(stapling.Job(self._targets, generation.staples, generation.owner))

    def _report(self, level: str, message: str) -> None:
        self.log.log(level, "%s", message)

    def _leave_all(self) -> None:
        """In a process that is no worker: what is the master's and the workers' is closed."""
        for s in self.LISTENERS:
            s.close()
        for worker in self.WORKERS.values():
            worker.channel.close()
            worker.tmp.close()

    def _step(self, rollout: Rollout, prepared: plane.Prepared) -> None:
        members = (w for w in self.WORKERS.values() if w.generation is self.current and w.kill_at is None)
        if not rollout.step(members):
            return
        renewed, self.rollout, self._renewing = self._renewing, None, {}
        if rollout.fault:
            self.log.error("the certificates before go on: %s", rollout.fault)
            if rollout.broken:
                prepared.watch.refuse(renewed)
            return
        prepared.watch.accept(renewed)
        for identity in renewed.values():
            self.log.info("%s: %s", identity.at.path, identity.describe())
            for warning in identity.warnings:
                self.log.warning("%s", warning)

    # Workers, from birth to death.

    def _fill_slots(self) -> None:
        filled = {w.slot for w in self.WORKERS.values() if w.generation is self.current and w.kill_at is None}
        for slot in self.slots[: self.num_workers]:
            if slot not in filled and self._may_spawn(slot) and not self._spawn(slot):
                return

    def _may_spawn(self, slot: Slot) -> bool:
        """Whether it is time: a slot whose workers do not last waits longer and longer."""
        now = time.monotonic()
        last = slot.latest
        if slot.retry_at is not None:
            return now >= slot.retry_at
        if last is None or last.kill_at is not None or last.generation is not self.current:
            return True
        slot.failures = slot.failures + 1 if now - slot.started < STEADY_SECONDS else 0
        if slot.failures <= 1:
            return True
        wait = min(BACKOFF_SECONDS, 0.1 * 2**slot.failures)
        slot.retry_at = now + wait
        self.log.error("slot %d: %d workers died in a row; the next starts in %.1f s", slot.index, slot.failures, wait)
        return False

    def _spawn(self, slot: Slot) -> bool:
        self._spawning = slot
        try:
            worker = self.WORKERS[self.spawn_worker()]
        except OSError as e:
            # no process, no descriptor, no room for its heartbeat file
            self.log.error("slot %d: a worker cannot be started: %s", slot.index, e)
            slot.retry_at = time.monotonic() + SPAWN_RETRY_SECONDS
            if self.takeover:
                self._take_back(self.takeover)
            return False
        worker.far_end.close()
        slot.latest, slot.started, slot.retry_at = worker, time.monotonic(), None
        if self.takeover:
            self.takeover.workers.append(worker)
        return True

    def furnish(self, worker: EdgeWorker) -> None:
        """Before the fork: the worker's place."""
        slot = self._spawning
        worker.slot = slot
        worker.column = self.app.addresses.assign(worker)
        worker.generation = self.current
        worker.sockets = [slot.sockets[bind] for bind in self.current.prepared.listeners]
        own, worker.far_end = socket.socketpair()
        worker.channel = Channel(own, channel.WORKER_SAYS_MOST)
        # The file's time is the wall clock's until then, and one that hangs while booting would never be late.
        worker.tmp.notify()

    def leave(self, worker: EdgeWorker) -> None:
        """After the fork, in the worker: what is not its own is closed."""
        own = set(worker.sockets)
        for s in self.LISTENERS:
            if s not in own:
                s.close()
        for sibling in self.WORKERS.values():
            sibling.channel.close()
        worker.channel.close()
        worker.channel = Channel(worker.far_end, channel.MASTER_SAYS_MOST)

    def _hear_workers(self) -> None:
        """Notes who is ready and what they answer, and lets those serve whose generation is decided."""
        for worker in list(self.WORKERS.values()):
            try:
                self._hear(worker)
            except ChannelError as e:
                self.log.error("worker %d (pid %d) is killed: it said %s", worker.slot.index, worker.pid, e)
                self._kill(worker)
                continue
            if worker.ready and not worker.serving and self.takeover is None and worker.kill_at is None:
                worker.channel.send(channel.GO)
                worker.serving = True

    def _hear(self, worker: EdgeWorker) -> None:
        worker.channel.flush()
        for letter, body in worker.channel.receive():
            if letter == channel.READY:
                worker.ready = True
            else:
                worker.answered, worker.refusal = read_answer(letter, body)

    def _end_workers(self) -> None:
        """Tells those to drain that have no place any more, and kills those that drain too long."""
        if self.takeover:
            return
        now = time.monotonic()
        for worker in list(self.WORKERS.values()):
            if worker.kill_at is not None:
                if now >= worker.kill_at:
                    self.log.warning("worker %d (pid %d) drained too long: killed", worker.slot.index, worker.pid)
                    self._kill(worker)
            elif now >= worker.slot.leaves_at if worker.slot in self.leaving else worker.generation is not self.current:
                self._drain(worker)

    def _drain(self, worker: EdgeWorker) -> None:
        timeout = worker.generation.prepared.settings.server.drain_timeout / 1000
        worker.kill_at = time.monotonic() + timeout + DRAIN_MARGIN_SECONDS
        self.kill_worker(worker.pid, signal.SIGTERM)

    def _kill(self, worker: EdgeWorker) -> None:
        worker.kill_at = math.inf
        worker.channel.close()
        if worker.pid in self.WORKERS:
            self.kill_worker(worker.pid, signal.SIGKILL)

    # Slots that go.

    def _steer_past_leaving(self) -> None:
        self.leaving = self.slots[self.num_workers :]
        if not self.leaving:
            return
        del self.slots[self.num_workers :]
        for slot in self.leaving:
            slot.leaves_at = time.monotonic() + STEER_SECONDS
        for bind, member in self.slots[0].sockets.items():
            if not bind.path:
                sockets.steer(member, self.num_workers)

    def _close_left(self) -> None:
        """Closes the slots that nobody can be connecting to any more."""
        if not self.leaving or any(self._accepts(slot) for slot in self.leaving):
            return
        for left in self.leaving:
            left.close()
        self.leaving = []
        self._publish()
        for bind, member in self.slots[0].sockets.items():
            if not bind.path:
                sockets.unsteer(member)

    def _accepts(self, slot: Slot) -> bool:
        """Whether a slot may still get or hold a connection that is not accepted."""
        if time.monotonic() < slot.leaves_at:
            return True
        return any(w.accepts() for w in self.WORKERS.values() if w.slot is slot)


def raise_file_limit() -> None:
    """As many open files as the hard limit allows: each connection is one, or two."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
