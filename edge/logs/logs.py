"""The logs, as everybody but the process that writes them sees them (`edge.logs.logger`).

`Sender` is what each process logs by: one `sendmsg` that never waits. `Logs` is the master's: it opens files, tells the
writing process where lines go, and starts it again when it dies.
"""

import contextlib
import errno
import grp
import math
import os
import pickle
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from edge.logs import logger, logline
from edge.logs import targets as logtargets
from edge.logs.logger import Output, Plan, Tally
from edge.logs.logline import Event
from edge.logs.settings import FACILITIES, AccessLog, ErrorLog, KeyLog, Syslog, access_target, error_target
from edge.processes.child import Child
from edge.schema import Place
from edge.settings import Settings

_BUFFER: Final = 8 << 20
"""What may wait for the writing process, where the system lets us have it (`net.core.wmem_max`)."""
_SO_SNDBUFFORCE: Final = 32
_RESTART_SECONDS: Final = (0.1, 10.0)
_END_SECONDS: Final = logger.FLUSH_SECONDS + 1.0


class Sender:
    """Says things to the writing process. Nothing here waits or raises."""

    def __init__(self, end: socket.socket) -> None:
        self._end = end
        self._too_large = False
        """What could not be sent last would not fit into an empty socket either."""
        self._lost = 0
        """Events for which there was no room."""
        self._dropped = 0
        """Lines of the access log that the writing process has not been told of."""

    def fileno(self) -> int:
        return self._end.fileno()

    def lines(self, letter: bytes, text: bytes) -> int:
        """Whole lines (or entries) -> how many bytes of them were taken."""
        self._tell_dropped()
        taken = 0
        mark = b"\n\n" if letter == logline.ENTRIES else b"\n"
        while taken < len(text):
            end = len(text)
            if end - taken > logline.MESSAGE_MOST:
                end = text.rfind(mark, taken, taken + logline.MESSAGE_MOST) + len(mark)
                if end < taken + len(mark):  # one that is larger than that
                    end = text.find(mark, taken) + len(mark)
            if not self._send(letter, text[taken:end]):
                if not self._too_large:
                    break
                self.dropped(text.count(mark, taken, end))  # it would never fit
            taken = end
        return taken

    def dropped(self, lines: int) -> None:
        """That so many lines of the access log have been dropped, for the complaint."""
        self._dropped += lines

    def _tell_dropped(self) -> None:
        if self._dropped and self._send(logline.DROPPED, logline.pack_number(self._dropped)):
            self._dropped = 0

    def event(self, severity: int, text: str, at: float | None = None) -> None:
        now = time.time() if at is None else at
        if self._lost:
            note = f"{self._lost} messages of this process were lost: they came faster than they could be taken"
            if not self._send(logline.EVENT, Event(4, os.getpid(), now, note).pack()):
                self._lost += 1
                return
            self._lost = 0
        if not self._send(logline.EVENT, Event(severity, os.getpid(), now, text).pack()):
            self._lost += 1

    def keys(self, line: str) -> None:
        self._send(logline.KEYS, line.encode("ascii") + b"\n")

    def _send(self, letter: bytes, body: bytes) -> bool:
        try:
            self._end.sendmsg((letter, body), (), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError as e:
            self._too_large = e.errno == errno.EMSGSIZE
            return False
        return True

    def wait(self, seconds: float) -> None:
        """At the end of a process: until there is room, at most so long."""
        poll = select.poll()
        poll.register(self._end, select.POLLOUT)
        poll.poll(seconds * 1000)


class Logs:
    """The master's half. `become(user, group)` gives privileges up."""

    def __init__(self, become: Callable[[int, int], None]) -> None:
        self._become = become
        self._far, near = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        _enlarge(near)
        self.sender = Sender(near)
        self._near = near
        self.tally = Tally()
        self._control: socket.socket | None = None
        self._child = Child(*_RESTART_SECONDS)
        self._settings: Settings | None = None
        self._owner = (os.geteuid(), os.getegid())

    def use(self, settings: Settings, owner: tuple[int, int]) -> None:
        """Lines go where these settings say, from now on; what was said before goes where it was to go. Files that
        cannot be opened are complained of, and the ones before stay in use."""
        self._settings, self._owner = settings, owner
        if self._control is None:
            self._start()
        else:
            self._tell(settings)

    def reopen(self) -> None:
        """Goes on in new files where the old ones were moved away."""
        if self._settings:
            self._tell(self._settings)

    def keep(self) -> float:
        """To be called every now and then: sees to it that the process runs -> the latest next time."""
        if self._child.has_ended():
            self._hang_up()
            wait = f"the next starts in {self._child.wait:.1f} s"
            self.sender.event(3, f"the process that writes the logs has ended; {wait}")
        if self._settings and self._child.may_start():
            self._start()
        return math.inf if self._control else self._child.start_at

    def describe(self) -> dict[str, Any]:
        """For the master's state: the process, and how many lines were lost on their way out of it, by log."""
        return {"pid": self._child.pid, "dropped": self.tally.read()}

    def leave(self) -> None:
        """In a process that is not the master: it keeps the sender alone."""
        self._far.close()
        self._child.forget()
        self._hang_up()

    def end(self) -> None:
        """The master ends: waits, for a bounded time, until what has been said is written. Nothing can be said then."""
        self._near.close()
        self._far.close()
        self._hang_up()
        self._child.await_end(_END_SECONDS)

    def _hang_up(self) -> None:
        if self._control:
            self._control.close()
            self._control = None

    def _start(self) -> None:
        try:
            forked, line = self._child.fork(socket.SOCK_SEQPACKET)
        except OSError as e:
            self.sender.event(3, f"the process that writes the logs cannot be started: {e}")
            return
        if forked:
            logger.serve(self._far, line, self.tally, lambda: self._become(*self._owner))
        self._control = line
        if self._settings:
            self._tell(self._settings)

    def _tell(self, settings: Settings) -> None:
        fds: list[int] = []
        outputs: dict[str, Output] = {}
        try:
            for role, key, log in _logs(settings):
                outputs[role] = self._output(role, key, log, fds)
            if self._control:
                socket.send_fds(self._control, [pickle.dumps(Plan(outputs))], fds, socket.MSG_NOSIGNAL)
        except OSError as e:
            self.sender.event(3, f"the process that writes the logs cannot be told where they go: {e.strerror}")
        finally:
            for fd in fds:
                os.close(fd)

    def _output(self, role: str, key: Place, log: AccessLog | ErrorLog | KeyLog, fds: list[int]) -> Output:
        target, form, syslog = _how(log)
        at = -1
        if target == "file" and log.path:
            try:
                fds.append(_open(log))
                at = len(fds) - 1
            except OSError as e:
                why = f"{log.path}: cannot be opened: {e.strerror}; the old file stays in use"
                self.sender.event(3, f"{key.path}: {why}")
        return Output(target, str(log.path or ""), form, syslog, at)


def _enlarge(s: socket.socket) -> None:
    for option in (_SO_SNDBUFFORCE, socket.SO_SNDBUF):  # the first is root's
        with contextlib.suppress(OSError):
            s.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
            return


def _logs(settings: Settings) -> list[tuple[str, Place, AccessLog | ErrorLog | KeyLog]]:
    """The logs that are kept, by the writing process's name for them."""
    top = Place(settings.file)
    found: list[tuple[str, Place, AccessLog | ErrorLog | KeyLog]] = []
    if settings.server.access_log:
        found.append(("access", top.key("server").key("access_log"), settings.server.access_log))
    found.append(("error", top.key("server").key("error_log"), settings.server.error_log))
    if settings.tls.key_log:
        found.append(("keys", top.key("tls").key("key_log"), settings.tls.key_log))
    return found


def _how(log: AccessLog | ErrorLog | KeyLog) -> tuple[str, str, Syslog]:
    if isinstance(log, AccessLog):
        return access_target(log), log.format, log.syslog
    if isinstance(log, ErrorLog):
        return error_target(log), log.format, log.syslog
    return "file", "", Syslog()


def check(settings: Settings) -> None:
    """Opens the files of all logs, and makes those that are not there. Raises ConfigError."""
    for _, key, log in _logs(settings):
        if _how(log)[0] != "file":
            continue
        if not isinstance(log, KeyLog):
            _group(log, key)
        try:
            os.close(_open(log))
        except OSError as e:
            raise key.key("path").error(f"{log.path}: {e.strerror}", "name a file that can be written") from None


def _open(log: AccessLog | ErrorLog | KeyLog) -> int:
    """For appending; the file is made where there is none. Raises OSError."""
    path = Path(log.path or "")
    # O_NONBLOCK: a named pipe that nobody reads is an error, not a wait without end. O_NOFOLLOW: where others may write
    # to the directory, root does not append to what they have put there.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600 if isinstance(log, KeyLog) else 0o640)
    except FileExistsError:
        return os.open(path, flags)
    if not isinstance(log, KeyLog) and log.group is not None:
        with contextlib.suppress(OSError, KeyError):
            os.fchown(fd, -1, grp.getgrnam(log.group).gr_gid)
    return fd


def _group(log: AccessLog | ErrorLog, at: Place) -> None:
    if log.group is None:
        return
    try:
        number = grp.getgrnam(log.group).gr_gid
    except KeyError:
        raise at.key("group").error(f'there is no group "{log.group}"', "create it, or name another") from None
    if os.geteuid() != 0 and number not in os.getgroups():
        raise at.key("group").error("is none of yours", "start edge as root, or remove the key")


def journal_prefix(syslog: Syslog) -> bytes:
    """What every entry of the access log has in the journal, beside its own fields."""
    return logtargets.entry(
        {"PRIORITY": "6", "SYSLOG_IDENTIFIER": syslog.tag, "SYSLOG_FACILITY": str(FACILITIES[syslog.facility])}
    )
