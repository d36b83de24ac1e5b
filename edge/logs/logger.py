"""The process that writes the logs. It alone waits for disks and daemons; who logs only ever puts a message into a
socket, or finds that there is no room.

It lives as long as anybody can say something: when the master has been killed, until the last worker has drained. Files
are opened by the master, which may do that where this process must not, and come here by their descriptors.
"""

import contextlib
import dataclasses
import mmap
import os
import pickle
import select
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from setproctitle import setproctitle

from edge.logs import logline
from edge.logs.logline import Event
from edge.logs.settings import Syslog
from edge.logs.targets import FileTarget, JournalTarget, SyslogTarget, Target, entry

COMPLAINT_SECONDS: Final = 60.0
"""A target that fails is complained of at most this often."""
FLUSH_SECONDS: Final = 3.0
"""At the end, for what is queued."""
_RECEIVE: Final = 512 << 10
_PLAN_MOST: Final = 64 << 10
_AT_A_TIME: Final = 64
"""Messages read between two looks at what the master says."""

ROLES: Final = ("access", "error", "keys")
_NAMES: Final = {"access": "access log", "error": "error log", "keys": "key log"}


@dataclasses.dataclass(frozen=True, slots=True)
class Output:
    """Where one log goes. `fd`: of a file, its place among the descriptors that come along; -1: what is open stays."""

    target: str
    path: str
    form: str
    syslog: Syslog
    fd: int = -1

    def describe(self) -> str:
        if self.target == "syslog":
            return str(self.syslog.address)
        return self.path or self.target


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """All outputs, by role. A log that is missing is not kept."""

    outputs: dict[str, Output]


class Tally:
    """Lines lost on their way out, by role, in memory that the master and all its children share."""

    _COUNT: Final = struct.Struct("=Q")

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, mmap.PAGESIZE)

    def add(self, role: str, lines: int) -> int:
        """-> all of them so far. By one thread at a time."""
        at = ROLES.index(role) * self._COUNT.size
        total: int = self._COUNT.unpack_from(self._memory, at)[0] + lines
        self._COUNT.pack_into(self._memory, at, total)
        return total

    def read(self) -> dict[str, int]:
        return {role: self._COUNT.unpack_from(self._memory, i * self._COUNT.size)[0] for i, role in enumerate(ROLES)}


class _Open:
    """One log as it is kept now."""

    def __init__(self, output: Output, target: Target | None) -> None:
        self.output = output
        self.target = target


class Logger:
    """`data`: what everybody says; `control`: what the master does."""

    def __init__(self, data: socket.socket, control: socket.socket, tally: Tally) -> None:
        self._data = data
        self._control = control
        self._tally = tally
        self._open: dict[str, _Open] = {}
        self._lock = threading.Lock()
        self._quiet_until: dict[str, float] = {}
        self._elsewhere = 0
        """Lines of the access log that others had to drop, and have counted."""
        self._last_resort = FileTarget(2, lambda lines, why: None)
        """Standard error, for complaints that the error log does not take."""
        self._leaving: list[Target] = []

    def run(self) -> None:
        """Until nobody is left who could say something."""
        if not self._obey():  # what is said before the first plan waits for it
            return
        poll = select.poll()
        poll.register(self._data, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if self._control.fileno() in ready and not self._obey():
                poll.unregister(self._control)  # the master has gone; its workers may go on
                self._control.close()
            if not self._hear():
                break
        self._end()

    def _hear(self) -> bool:
        """Takes some of what has been said. False: nothing more will be."""
        empty = 0
        for _ in range(_AT_A_TIME):
            try:
                message = self._data.recv(_RECEIVE, socket.MSG_DONTWAIT)
            except (BlockingIOError, InterruptedError):
                return True
            if not message:  # the end, or somebody has really said that
                empty += 1
                continue
            try:
                self._take(message[:1], message[1:])
            except ValueError:
                self._lost("error", 1, "a message was not understood")
        return empty < _AT_A_TIME or not _state(self._data) & select.POLLHUP

    def _take(self, letter: bytes, body: bytes) -> None:
        if letter == logline.ACCESS:
            self._put("access", self._access_lines(body.removesuffix(b"\n").split(b"\n")))
        elif letter == logline.ENTRIES:
            self._put("access", self._access_entries(body.removesuffix(b"\n\n").split(b"\n\n")))
        elif letter == logline.EVENT:
            self._event(Event.unpack(body))
        elif letter == logline.KEYS:
            self._put("keys", body.removesuffix(b"\n").split(b"\n"))
        elif letter == logline.DROPPED:
            self._elsewhere += logline.unpack_number(body)
            self._lost("access", 0, "lines came faster than they could be taken")
        else:
            raise ValueError("no such message")

    # Lines as their target wants them.

    def _access_lines(self, lines: list[bytes]) -> list[bytes]:
        output = self._output("access")
        if output is None or output.target in ("file", "stdout"):
            return lines
        if output.target == "syslog":
            now, pid = time.time(), os.getpid()
            return [Event(6, pid, now, line.decode("ascii", "replace")).pack() for line in lines]
        return [self._entry(output, 6, {"MESSAGE": line.decode("ascii", "replace")}) for line in lines]

    def _access_entries(self, entries: list[bytes]) -> list[bytes]:
        output = self._output("access")
        if output is not None and output.target == "journald":
            return [made + b"\n" for made in entries]
        # Made for the target before: what they say as a line.
        return self._access_lines([made.partition(b"\n")[0].removeprefix(b"MESSAGE=") for made in entries])

    def _event(self, event: Event) -> None:
        output = self._output("error")
        if output is None:
            self._last_resort.put([event.line("text")])
            return
        if output.target == "syslog":
            line = event.pack()
        elif output.target == "journald":
            line = self._entry(output, event.severity, {"MESSAGE": event.text, "EDGE_PID": str(event.pid)})
        else:
            line = event.line(output.form)
        self._put("error", [line])

    def _entry(self, output: Output, severity: int, fields: dict[str, str]) -> bytes:
        return entry({**fields, "PRIORITY": str(severity), "SYSLOG_IDENTIFIER": output.syslog.tag})

    def _output(self, role: str) -> Output | None:
        kept = self._open.get(role)
        return kept.output if kept else None

    def _put(self, role: str, lines: Sequence[bytes]) -> None:
        kept = self._open.get(role)
        if kept is None:
            return  # not kept any more
        if kept.target is None:
            self._lost(role, len(lines), "is not open")
        elif not kept.target.put(lines):
            self._lost(role, len(lines), "it is too slow")

    # What is lost.

    def _failed(self, role: str) -> Callable[[int, str], None]:
        return lambda lines, why: self._lost(role, lines, why)

    def _lost(self, role: str, lines: int, why: str) -> None:
        with self._lock:
            total = self._tally.add(role, lines) + (self._elsewhere if role == "access" else 0)
            now = time.monotonic()
            if now < self._quiet_until.get(role, 0.0):
                return
            self._quiet_until[role] = now + COMPLAINT_SECONDS
        self._complain(role, f"{why}; {total} lines dropped so far")

    def _complain(self, role: str, why: str) -> None:
        output = self._output(role)
        what = f"{_NAMES[role]} {output.describe()}" if output else _NAMES[role]
        event = Event(3, os.getpid(), time.time(), f"{what}: {why}")
        if role == "error":
            self._last_resort.put([event.line("text")])
        else:
            self._event(event)

    # What the master wants.

    def _obey(self) -> bool:
        """Takes a plan. False: the master has gone."""
        try:
            said, fds, _, _ = socket.recv_fds(self._control, _PLAN_MOST, len(ROLES))
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            return False
        if not said:
            return False
        plan: Plan = pickle.loads(said)  # noqa: S301  # the master alone has the other end
        if self._open.keys() - plan.outputs.keys():
            while _state(self._data) & select.POLLIN and self._hear():
                pass  # what was said before a log ended has its place still
        self._use(plan, fds)
        return True

    def _use(self, plan: Plan, fds: list[int]) -> None:
        before, self._open = self._open, {}
        for role, output in plan.outputs.items():
            fd = fds[output.fd] if output.fd >= 0 else None
            self._open[role] = self._next(role, output, fd, before.pop(role, None))
        for kept in before.values():
            self._let_go(kept)
        self._quiet_until.clear()

    def _next(self, role: str, output: Output, fd: int | None, before: _Open | None) -> _Open:
        if before and before.target and _same(before.output, output):
            if fd is not None and isinstance(before.target, FileTarget):
                before.target.use(fd)
            return _Open(output, before.target)
        if before:
            self._let_go(before)
        return _Open(output, self._target(role, output, fd))

    def _target(self, role: str, output: Output, fd: int | None) -> Target | None:
        failed = self._failed(role)
        if output.target == "syslog":
            return SyslogTarget(output.syslog, failed)
        if output.target == "journald":
            return JournalTarget(failed)
        if output.target in ("stdout", "stderr"):
            fd = 1 if output.target == "stdout" else 2
        return FileTarget(fd, failed) if fd is not None else None

    def _let_go(self, kept: _Open) -> None:
        if kept.target:
            kept.target.close()
            self._leaving = [*(target for target in self._leaving if not target.ended), kept.target]

    def _end(self) -> None:
        until = time.monotonic() + FLUSH_SECONDS
        error = self._open.get("error")
        for kept in self._open.values():
            if kept is not error:
                self._let_go(kept)
        for target in self._leaving:
            target.wait(until)
        for last in (error and error.target, self._last_resort):  # where the others complain
            if last:
                last.close()
                last.wait(until)


def _same(before: Output, after: Output) -> bool:
    """Whether the one goes on as the other, in a file of the same name."""
    return (before.target, before.path, before.syslog) == (after.target, after.path, after.syslog)


def _state(s: socket.socket) -> int:
    """What poll says of it."""
    poll = select.poll()
    poll.register(s, select.POLLIN)
    return sum(events for _, events in poll.poll(0))


def serve(data: socket.socket, control: socket.socket, tally: Tally, become: Callable[[], None]) -> None:
    """In the process itself: never returns."""
    try:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2,
                       signal.SIGTTIN, signal.SIGTTOU, signal.SIGWINCH):  # fmt: skip
            signal.signal(number, signal.SIG_IGN)  # whoever stops a group or a service stops it by ending the others
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        setproctitle("edge: logs")
        _keep_only({0, 1, 2, data.fileno(), control.fileno()})
        become()
        Logger(data, control, tally).run()
    except BaseException as e:
        with contextlib.suppress(OSError):
            os.write(2, f"edge: the process that writes the logs ends: {type(e).__name__}: {e}\n".encode())
        os._exit(1)
    os._exit(0)  # a thread that hangs in a write holds nothing up


def _keep_only(wanted: set[int]) -> None:
    """Closes whatever else was inherited."""
    for name in os.listdir("/proc/self/fd"):
        if int(name) not in wanted:
            with contextlib.suppress(OSError):
                os.close(int(name))
