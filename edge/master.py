"""The master: gunicorn's arbiter, with a fixed slot of listening sockets for every worker.

What gunicorn does stays: signals, forking, reaping, heartbeats, the PID file. What differs:

- The master owns the sockets (`edge.processes.slots`), one set per slot, for its whole life. A worker that dies or is
  replaced leaves its accept queue to the next worker of its slot.
- A configuration is a *generation* (`edge.change.generation`). A reload brings the next one to the workers that run,
  all or none of them (`edge.change.reload`); where it needs other processes, they start beside the old, and only when
  all of them could serve do they take over and the old ones drain. Until then any fault (in the file, an address, a
  worker that does not boot) takes everything back, and the old generation never noticed.
- Nothing here waits, except for signals, moments and descriptors (`edge.processes.waiting`): `manage_workers` is
  called on every turn of gunicorn's loop and moves things on by one step. Which worker fills a slot is always read
  off `WORKERS`, so no way of dying leaves a slot taken.
"""

import contextlib
import dataclasses
import faulthandler
import gc
import math
import queue
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

from gunicorn.arbiter import Arbiter
from gunicorn.errors import HaltServer
from setproctitle import setproctitle

from edge import __version__, plane
from edge.admin import state
from edge.admin.administration import Administration
from edge.certificates.renewal import Renewal
from edge.change.changes import NOTHING
from edge.change.generation import DRAIN_MARGIN_SECONDS, Generation
from edge.change.inheritance import FORMAT, Inheritance, Lend
from edge.change.material import Material
from edge.change.reload import AskedBy, InPlace, Reloads, changed
from edge.change.rollout import Commit, Rollout, read_answer
from edge.change.upgrade import Upgrade
from edge.errors import EdgeError
from edge.observe.observation import Observation
from edge.processes import channel, pidfile, systemd
from edge.processes.channel import Channel, ChannelError
from edge.processes.companion import Companion
from edge.processes.pidfile import TITLE, PidFile
from edge.processes.privileges import drop_privileges, keep_memory, raise_file_limit
from edge.processes.slots import CRASH_LOOP, Slot, Slots, Staged
from edge.processes.sockets import ListeningSocket
from edge.processes.supervision import Overseer
from edge.processes.waiting import Waiting
from edge.settings import Bind
from edge.tickets.supply import Supply
from edge.worker import EdgeWorker

if TYPE_CHECKING:
    from edge.application import Application

# Old generations that may drain at a time; beyond that the oldest is ended early.
DRAINING_GENERATIONS: Final = 4
SPAWN_RETRY_SECONDS: Final = 1.0
# How often slots that go are looked after.
LEAVING_SECONDS: Final = 0.2
TURN_SECONDS: Final = 1.0


@dataclasses.dataclass(slots=True)
class Takeover:
    """A generation that starts: what to go back to, what was made for it, and who starts."""

    previous: Generation | None
    staged: Staged
    workers: list[EdgeWorker] = dataclasses.field(default_factory=list)


class Master(Arbiter):  # type: ignore[misc]  # gunicorn has no types
    # Compared with the exit code of a dead worker, to end the master: that is for this class to judge.
    WORKER_BOOT_ERROR = APP_LOAD_ERROR = -1

    app: "Application"
    pidfile: PidFile | None
    num_workers: int
    WORKERS: dict[int, EdgeWorker]

    def __init__(
        self,
        app: "Application",
        first: Generation,
        service: systemd.Service,
        given: dict[Bind, list[ListeningSocket]],
        inheritance: Inheritance | None,
    ) -> None:
        self.current = first
        self.inheritance = inheritance
        """While this master is about to take another one's place."""
        self.service = service
        self.takeover: Takeover | None = Takeover(None, Staged(0))
        self.in_place: InPlace | None = None
        self._rollouts = 0
        self._spawning = Slot(-1)
        self._overseer = Overseer()
        self.waiting = Waiting()
        self.WORKERS = {}
        super().__init__(app)
        self.reloads = Reloads(self.may_change, self._begin_reload, self._report)
        self.slots = Slots(self._report, given)
        fetcher = Companion("edge: ocsp", "fetches OCSP responses", self._report, self._leave_all, drop_privileges)
        observer = Companion("edge: observer", "shows what goes on", self._report, self._leave_workers, drop_privileges)
        keeper = Companion("edge: fleet", "keeps the fleet's keys", self._report, self._leave_all, drop_privileges)
        self.companions = [fetcher, observer, keeper]
        counting = app.generations.counting
        describe, changes = (lambda: state.describe(self)), (lambda: state.changes(self))
        self.observation = Observation(observer, counting, describe, changes, self._report)
        self.renewal = Renewal(app.generations, fetcher, self._begin_rollout, self._report)
        self.supply = Supply(keeper, app.generations.rotations, self.waiting, self._report)
        self.administration = Administration(self, self._report)
        self.upgrade = Upgrade(self)

    # The arbiter's life.

    def start(self) -> None:
        raise_file_limit()
        keep_memory(private=not self.current.prepared.settings.server.core_dumps)
        faulthandler.enable(2)
        setproctitle(TITLE)
        self.waiting.open()
        if self.inheritance:
            self._inherit(self.inheritance)
        self._stage(self.current, self.num_workers, first=True)
        self.administration.prepare(self.current.prepared.settings)
        if not self.inheritance:
            self._listen()
        super().start()
        if not self.inheritance:
            self._move_pid_file()
        listening = ", ".join(map(str, self.current.prepared.listeners))
        self.log.info("edge %s listens on %s, process %d", __version__, listening, self.pid)
        self._log_warnings()

    def manage_workers(self) -> None:
        """One step onwards. gunicorn calls it at start and on every turn."""
        self.due(self.supply.step(self.current, self.WORKERS.values()))
        self.app.addresses.keep(self.WORKERS.values())
        self.app.generations.counting.keep(self.WORKERS.values())
        self._hear_workers()
        if self.takeover:
            self._judge(self.takeover)
        self.reloads.step()
        if self.in_place:
            self._step_in_place(self.in_place)
        if self.takeover is None and self.in_place is None:
            self.renewal.step(self.current, self._members())
            self.due(self.renewal.due)
            self.renewal.keep_fetching(self.current)
            self.due(self.observation.keep(self.current))
        self.renewal.tell_expiry(self.current)
        self.due(self.app.generations.logs.keep())
        self._fill_slots()
        self._end_workers()
        if self.slots.close_left(self._accepts):
            self._publish()
        self._tell_service()
        if (next_step := self.upgrade.step()) is not None:
            self.due(next_step)
        if self.upgrade.succeeded:
            self._retire()
        self.due(self.administration.step(self.WORKERS.values()))
        setproctitle(TITLE)

    def _tell_service(self) -> None:
        serving = [w for w in self.WORKERS.values() if w.serving and w.kill_at is None]
        next_step = self.service.step(
            serving=bool(serving) and self.takeover is None,
            reloading=self.reloads.pending or self.takeover is not None,
            status=self._status(len(serving)),
            healthy=any(worker.shows_life() for worker in serving),
        )
        if next_step is not None:
            self.due(next_step)

    def _status(self, serving: int) -> str:
        crashing = ", ".join(str(slot.index) for slot in self.slots.places if slot.crashing)
        listening = ", ".join(map(str, self.current.prepared.listeners))
        said = f"generation {self.current.number}: {serving} of {self.num_workers} workers serve {listening}"
        return f"CRASH LOOP in slot {crashing}; {said}" if crashing else said

    def stop(self, graceful: bool = True) -> None:
        self.service.stopping()
        if graceful and self.WORKERS:
            seconds = self.current.prepared.settings.server.drain_timeout / 1000
            self.log.info("draining %d workers, for at most %g s", len(self.WORKERS), seconds)
        for worker in self.WORKERS.values():
            if not worker.serving:
                worker.channel.close()  # it ends there; to one that serves it would mean that the master was killed
        for companion in self.companions:
            companion.stop()
        self.upgrade.stop()
        self.supply.stop()
        self.administration.close()
        self.observation.close()
        for shared in [s for s in self.LISTENERS if s.family == socket.AF_UNIX]:
            self.LISTENERS.remove(shared)  # gunicorn would remove its name for each of the slots
            shared.close()
        super().stop(graceful)
        self.app.generations.staples.remove()

    def halt(self, reason: str | None = None, exit_status: int = 0) -> None:
        if reason is None:
            self.log.info("edge stops")
        try:
            super().halt(reason, exit_status)
        finally:
            self.app.generations.logs.end()

    # What the loop waits for.

    def watch(self, fd: int, callback: Callable[[], None]) -> None:
        """callback() on each turn on which the descriptor has something to read, or has ended."""
        self.waiting.watch(fd, callback)

    def unwatch(self, fd: int) -> None:
        """To be called before the descriptor is closed."""
        self.waiting.unwatch(fd)

    def due(self, moment: float) -> None:
        """The next turn comes at that moment (monotonic) at the latest. It holds for that turn alone."""
        self.waiting.due(moment)

    def wait_for_signals(self, timeout: float = TURN_SECONDS) -> list[int]:
        """The signals that have come; after a wait, unless some have come before."""
        signals = list(self._signals())
        until = self.waiting.until(timeout)
        if not signals:
            self.waiting.wait(until)
            signals = list(self._signals())
        return signals

    def _signals(self) -> Iterator[int]:
        with contextlib.suppress(queue.Empty):
            while True:
                number = self.SIG_QUEUE.get_nowait()
                if number != self.WAKEUP_REQUEST:
                    yield number

    # Signals that mean something else here.

    def handle_hup(self) -> None:
        """A new configuration."""
        self.reload()

    def handle_usr1(self) -> None:
        """New log files: those that were moved away are let go."""
        self.app.generations.logs.reopen()

    def handle_usr2(self) -> None:
        """Another version takes over."""
        try:
            self.upgrade.begin()
        except EdgeError as e:
            self.log.error("upgrade refused: %s", e)

    def handle_chld(self) -> None:
        self.upgrade.reap()
        super().handle_chld()

    handle_cld = handle_chld

    def handle_ttin(self) -> None:
        """One worker more, until the next reload."""
        self._resize(self.num_workers + 1)

    def handle_ttou(self) -> None:
        """One worker less, until the next reload."""
        self._resize(self.num_workers - 1)

    def _resize(self, number: int) -> None:
        if number < 1:
            self.log.warning("the number of workers stays %d: without any nobody is served", self.num_workers)
            return
        if not self.may_change():
            self.log.warning("the number of workers stays %d: another change is under way", self.num_workers)
            return
        try:
            self._stage(self.current, number)
        except EdgeError as e:
            self.log.error("the number of workers stays %d: %s", self.num_workers, e)
            return
        self.log.info("the number of workers changes from %d to %d", self.num_workers, number)
        self.num_workers = number
        self._listen()
        self.slots.steer_past(number)

    def may_change(self) -> bool:
        busy = self.takeover or self.in_place or self.renewal.under_way or self.slots.changing
        return not (busy or self.upgrade.under_way)

    # Generations.

    def reload(self, asked_by: AskedBy | None = None) -> None:
        """The configuration file is to be taken over, as soon as that can begin. A fault in it changes nothing; who
        asks is told what has become of it."""
        self.service.reload_asked()
        self.reloads.ask(asked_by)

    def _begin_reload(self) -> None:
        self._stats["reloads"] += 1
        material = Material(self.service.at_work)
        try:
            generation = self.app.generations.next(self.current, material)
            self.administration.prepare(generation.prepared.settings)
            staged = self._stage(generation, generation.prepared.settings.server.workers)
        except EdgeError as e:
            self._refuse(str(e))
            return
        except Exception as e:
            self.log.exception("a reload fails")
            self._refuse(f"{type(e).__name__}: {e}")
            return
        if not self._replaces(generation):
            self._rollouts += 1
            self.in_place = InPlace(self, self._rollouts, generation, material, staged)
            return
        self.takeover = Takeover(self.current, staged)
        for slot in self.slots.places:
            slot.begin_anew()
        self._use(generation)
        self._log_warnings()

    def _refuse(self, reason: str) -> None:
        self.log.error("reload refused, nothing has changed: %s", reason)
        self.administration.reject()
        self.reloads.conclude(self.current.number, reason=reason)

    def _replaces(self, generation: Generation) -> bool:
        """Whether a configuration needs other processes: how many there are, and as whom, is settled at their start."""
        number = generation.prepared.settings.server.workers
        return number != self.num_workers or generation.owner != self.current.owner

    def _step_in_place(self, change: InPlace) -> None:
        before = self.current
        if not change.step(self._members()):
            return
        self.in_place = None
        if change.fault:
            self.slots.unstage(change.staged)
            self._publish()
            self._refuse(change.fault)
            return
        self.slots.close_others(self.current.prepared)  # the workers accept what waits there
        self._hold(changed(before, self.current))
        self._log_warnings()
        del before, change
        gc.collect()  # policies' modules and their functions refer to one another

    def adopt(self, generation: Generation) -> None:
        """The workers that there are have prepared it, and are about to be told that it holds."""
        members = list(self._members())
        self._use(generation)
        for worker in members:
            worker.generation = generation
        self._listen()

    def _use(self, generation: Generation) -> None:
        self.current = generation
        keep_memory(private=not generation.prepared.settings.server.core_dumps)
        self.renewal.forget()
        self.app.cfg = generation.cfg
        self.setup(self.app)

    def _stage(self, generation: Generation, number: int, *, first: bool = False) -> Staged:
        """Binds what the generation needs and nobody holds yet; all or nothing. Raises ListenError."""
        try:
            self.observation.stage(generation.prepared.settings)
            return (self.slots.stage_first if first else self.slots.stage)(generation.prepared, number)
        finally:
            self._publish()

    def _listen(self) -> None:
        self.slots.listen(self.current.prepared, self.num_workers)

    def _publish(self) -> None:
        """LISTENERS is gunicorn's: what it closes when it stops."""
        self.LISTENERS = self.slots.sockets()

    def _judge(self, takeover: Takeover) -> None:
        """All of a generation's workers serve, or none does."""
        if any(w.pid not in self.WORKERS for w in takeover.workers):
            self._take_back(takeover)
        elif len(takeover.workers) == self.num_workers and all(w.ready for w in takeover.workers):
            if self.inheritance is None:
                self._commit(takeover)
            elif self._may_succeed(self.inheritance):
                self._commit(takeover)
                self._succeed(self.inheritance)

    def _commit(self, takeover: Takeover) -> None:
        self._listen()
        self.takeover = None
        self._hear_workers()
        if takeover.previous:
            self.slots.close_others(self.current.prepared)
            self.slots.steer_past(self.num_workers)
        said = changed(takeover.previous, self.current) if takeover.previous else NOTHING
        self._hold("all workers replaced" if said == NOTHING else f"{said}; all workers replaced")
        if self.app.welcome:
            with contextlib.suppress(OSError):
                sys.stdout.write(self.app.welcome)
                sys.stdout.flush()
            self.app.welcome = ""

    def _hold(self, changed: str) -> None:
        """The current configuration is the one that all workers serve."""
        self._publish()
        self._move_pid_file()
        self.app.generations.logs.use(self.current.prepared.settings, self.current.owner)
        self.administration.commit()
        said = f"; {changed}" if self.reloads.under_way else ""
        self.reloads.conclude(self.current.number, changed=changed)
        self.log.info("generation %d serves: %d workers%s", self.current.number, self.num_workers, said)

    def _take_back(self, takeover: Takeover) -> None:
        self.takeover = None
        for worker in takeover.workers:
            self._kill(worker)
        if takeover.previous is None:
            if self.inheritance:
                self.inheritance.failed("a worker did not start; the error log says why")
            raise HaltServer("a worker did not start", 1)
        self.slots.unstage(takeover.staged)
        self._publish()
        self._use(takeover.previous)
        self.administration.reject()
        self.reloads.conclude(self.current.number, reason="a worker did not start")
        self.log.error("reload taken back: a worker did not start; the old configuration goes on")

    def _move_pid_file(self) -> None:
        """Has it where the configuration wants it. At a start RuntimeError: another master has it, whose place this one
        does not take; later its lack is told."""
        try:
            wanted = self.current.prepared.settings.server.pid_file
            self.pidfile = pidfile.moved(self.pidfile, wanted, self.pid, succeeds=self.inheritance is not None)
        except (RuntimeError, OSError) as e:
            self.pidfile = None
            if self.takeover and self.takeover.previous is None:
                raise RuntimeError(str(e)) from None
            self.log.error("there is no PID file: %s", e)

    def _log_warnings(self) -> None:
        for warning in plane.warnings(self.current.prepared):
            self.log.warning("%s", warning)
        for s in self.slots.unused(self.current.prepared):
            self.log.warning("%s: the service manager listens there, but no listener of the configuration does", s)

    # Upgrades: this master takes the place of another one, and another one that of this.

    def _inherit(self, inheritance: Inheritance) -> None:
        for heir in (self.slots, self.administration, self.observation):
            heir.inherit(inheritance.estate, inheritance.take)
        inheritance.close_rest()
        # As many slots as the old master has: surplus ones go when nobody is connecting to them any more.
        self.num_workers = max(self.num_workers, len(self.slots.places))
        self._awaits_word = False

    def _may_succeed(self, inheritance: Inheritance) -> bool:
        if not self._awaits_word:
            self._awaits_word = True
            self.watch(inheritance.fileno(), lambda: None)
            inheritance.ready()
        return inheritance.hear()

    def _succeed(self, inheritance: Inheritance) -> None:
        """Workers serve: what was the old master's is this one's."""
        self.inheritance = None
        self.unwatch(inheritance.fileno())
        self.slots.close_others(self.current.prepared)
        self.slots.own_names(True)
        self.administration.own_name(True)
        self._publish()
        address, watchdog = inheritance.estate["notify"]
        self.service.speak_for(systemd.Notifier(address, watchdog))
        inheritance.serving()
        if self.num_workers > self.current.prepared.settings.server.workers:
            self._resize(self.current.prepared.settings.server.workers)

    def bequeath(self, lend: Lend) -> dict[str, object]:
        """What the master is to have that takes this one's place."""
        notifier = self.service.notifier
        return {
            "format": FORMAT,
            "version": __version__,
            "pid": self.pid,
            "notify": [notifier.address, notifier.watchdog],
            **self.app.generations.bequeath(lend),
            **self.slots.bequeath(lend),
            **self.administration.bequeath(lend),
            **self.observation.bequeath(lend),
        }

    def stay(self) -> None:
        """The new master was let serve, and died: this one has the service still."""
        self.service.main_again()
        try:
            if self.pidfile:
                self.pidfile.take(self.pid)
        except (RuntimeError, OSError) as e:
            self.log.error("there is no PID file: %s", e)

    def _retire(self) -> None:
        """Another master has all that is this one's; its workers are left."""
        self.service.handed_over()
        self.slots.own_names(False)
        self.administration.own_name(False)
        self.app.generations.staples.disown()
        raise StopIteration

    # Rollouts, to workers that stay.

    def _begin_rollout(self, kind: str, pieces: Sequence[bytes], own: Commit) -> Rollout:
        self._rollouts += 1
        return Rollout(self._rollouts, kind, None, own, pieces=pieces)

    def _members(self) -> Iterator[EdgeWorker]:
        """Whom a rollout is for."""
        return (w for w in self.WORKERS.values() if w.generation is self.current and w.kill_at is None)

    def _report(self, level: str, message: str) -> None:
        self.log.log(level, "%s", message)

    # Workers, from birth to death.

    def _fill_slots(self) -> None:
        filled = {w.slot for w in self.WORKERS.values() if w.generation is self.current and w.kill_at is None}
        for slot in self.slots.places[: self.num_workers]:
            if slot not in filled and self._may_spawn(slot) and not self._spawn(slot):
                return

    def _may_spawn(self, slot: Slot) -> bool:
        """Whether it is time: a slot whose workers do not last waits longer and longer."""
        last = slot.latest
        if slot.retry_at is None and (last is None or last.kill_at is not None or last.generation is not self.current):
            return True
        known = slot.retry_at is not None
        at = slot.next_start()
        wait = at - time.monotonic()
        if wait <= 0:
            return True
        if not known:
            failures = slot.backoff.failures
            level = "critical" if failures >= CRASH_LOOP else "error"
            message = f"slot {slot.index}: {failures} workers died in a row; the next starts in {wait:.1f} s"
            self._report(level, f"a crash loop: {message}" if level == "critical" else message)
        self.due(at)
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
        self.watch(worker.channel.fileno(), lambda: self._hear(worker))
        last = slot.latest
        slot.restarts += last is not None and last.generation is self.current and last.kill_at is None
        slot.latest, slot.started, slot.retry_at = worker, time.monotonic(), None
        if self.takeover:
            self.takeover.workers.append(worker)
        return True

    def murder_workers(self) -> None:
        for worker, number, seconds in self._overseer.hanging(self.WORKERS.values()):
            where = f"worker {worker.slot.index} (pid {worker.pid})"
            self.log.critical("%s has shown no sign of life for %.0f s: %s", where, seconds, number.name)
            self.kill_worker(worker.pid, number)

    def bury(self, worker: EdgeWorker) -> None:
        """After a worker's end: what it has left to say. Workers that start now are to inherit nothing of it."""
        self.unwatch(worker.channel.fileno())
        worker.channel.close()
        for line in worker.dump.lines():
            self.log.error("worker %d (pid %d): %s", worker.slot.index, worker.pid, line)
        worker.dump.close()

    def furnish(self, worker: EdgeWorker) -> None:
        """Before the fork: the worker's place."""
        slot = self._spawning
        worker.slot = slot
        worker.column = self.app.addresses.assign(worker)
        worker.row = self.app.generations.counting.assign(worker)
        worker.spans = self.observation.span_sender
        worker.generation = self.current
        worker.sockets = [slot.sockets[bind] for bind in self.current.prepared.listeners]
        own, worker.far_end = socket.socketpair()
        worker.channel = Channel(own, channel.WORKER_SAYS_MOST)
        # The file's time is the wall clock's until then, and one that hangs while booting would never be late.
        worker.tmp.notify()

    def leave(self, worker: EdgeWorker) -> None:
        """After the fork, in the worker: what is not its own is closed."""
        self._leave(keep=worker.sockets)
        self.observation.leave(worker=True)
        # What it serves is the worker's to let go of, when another configuration comes.
        del self.current
        self.takeover = None
        worker.channel.close()
        worker.channel = Channel(worker.far_end, channel.MASTER_SAYS_MOST, descriptors=True)

    def _leave_all(self) -> None:
        """In a process that is no worker: what is the master's, the workers' and the observer's is closed."""
        self._leave_workers()
        self.observation.leave(worker=False)

    def _leave_workers(self) -> None:
        """In the observer: what is not its own."""
        self._leave()
        self.observation.leave_sender()
        for worker in self.WORKERS.values():
            worker.tmp.close()

    def _leave(self, keep: Iterable[socket.socket] = ()) -> None:
        """What no other process has use for, but for some of the listening sockets."""
        self.waiting.leave()
        self.app.generations.logs.leave()
        kept = set(keep)
        for s in self.LISTENERS:
            if s not in kept:
                s.close()
        for worker in self.WORKERS.values():
            worker.channel.close()
            worker.dump.close()
        for companion in self.companions:
            companion.leave()
        self.administration.leave()
        self.upgrade.leave()
        if self.inheritance:
            self.inheritance.leave()

    def _hear_workers(self) -> None:
        """Lets those serve who are ready, once their generation is decided."""
        for worker in list(self.WORKERS.values()):
            self._hear(worker)
            if worker.ready and not worker.serving and self.takeover is None and worker.kill_at is None:
                worker.channel.send(channel.GO)
                worker.serving = True

    def _hear(self, worker: EdgeWorker) -> None:
        """Notes whether it is ready and what it answers."""
        line = worker.channel
        try:
            line.flush()
            for letter, body in line.receive():
                if letter == channel.READY:
                    worker.ready = True
                elif letter == channel.ANSWER:
                    self.administration.questions.hear(worker, body)
                else:
                    worker.answered, worker.refusal = read_answer(letter, body)
        except ChannelError as e:
            self.log.error("worker %d (pid %d) is killed: it said %s", worker.slot.index, worker.pid, e)
            self._kill(worker)
        if line.ended:
            self.unwatch(line.fileno())

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
            elif self._has_no_place(worker, now):
                self._drain(worker)
        self._make_room_to_drain(now)
        if self.slots.leaving:
            self.due(now + LEAVING_SECONDS)

    def _make_room_to_drain(self, now: float) -> None:
        """Those that drain never pile up, however often all workers are replaced."""
        draining = [w for w in self.WORKERS.values() if w.kill_at is not None]
        numbers = sorted({w.generation.number for w in draining})
        for worker in draining:
            if worker.generation.number in numbers[:-DRAINING_GENERATIONS] and not worker.cut:
                worker.cut = True
                worker.kill_at = now + DRAIN_MARGIN_SECONDS
                where = f"worker {worker.slot.index} (pid {worker.pid}, generation {worker.generation.number})"
                self.log.warning("%s is ended early: %d generations drain", where, len(numbers))
                self.kill_worker(worker.pid, signal.SIGQUIT)

    def _has_no_place(self, worker: EdgeWorker, now: float) -> bool:
        if worker.slot in self.slots.leaving:
            return now >= worker.slot.leaves_at
        return worker.generation is not self.current

    def _drain(self, worker: EdgeWorker) -> None:
        timeout = worker.generation.prepared.settings.server.drain_timeout / 1000
        worker.kill_at = time.monotonic() + timeout + DRAIN_MARGIN_SECONDS
        self.kill_worker(worker.pid, signal.SIGTERM)

    def _kill(self, worker: EdgeWorker) -> None:
        worker.kill_at = math.inf
        self.unwatch(worker.channel.fileno())
        worker.channel.close()
        if worker.pid in self.WORKERS:
            self.kill_worker(worker.pid, signal.SIGKILL)

    def _accepts(self, slot: Slot) -> bool:
        """Whether one of the slot's workers may still hold a connection that is not accepted."""
        return any(w.accepts() for w in self.WORKERS.values() if w.slot is slot)
