"""Where log lines go. Each target has a thread of its own and a queue with an end: a disk that hangs holds up nobody
but itself, and what does not fit is counted.

This runs in the process that writes the logs (`edge.logs.logger`), which may wait; no other does.
"""

import collections
import contextlib
import errno
import fcntl
import os
import queue
import select
import socket
import struct
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from edge.logs.logline import Event
from edge.logs.settings import FACILITIES, Syslog, SyslogAddress

QUEUE_BYTES: Final = 32 << 20
"""What may wait for one target."""
BATCH_BYTES: Final = 1 << 20
"""Written in one go."""
SYSLOG_MOST: Final = 8 << 10
"""Bytes of a message to a syslog daemon; RFC 5424, section 6.1, asks receivers for 2 KiB. What is longer is cut."""
JOURNAL: Final = "/run/systemd/journal/socket"
JOURNAL_PLAIN: Final = 128 << 10
"""A datagram for the journal that is larger goes as a file in memory."""
FILES_MOST: Final = 16
"""New files that a target may have been given before it has written what was for the last."""
RETRY_SECONDS: Final = 1.0
"""Until a daemon that has gone is tried again."""

Work = Callable[[], None] | tuple[bytes, ...] | None
"""Lines; something to do when those before are written; or the end."""
Failed = Callable[[int, str], None]
"""Told how many lines are lost, and why."""


class Target(ABC):
    """Lines in, in order; `failed` is called in its thread."""

    def __init__(self, failed: Failed) -> None:
        self._failed = failed
        self._queue: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._ahead: list[Work] = []
        """Taken from the queue too early."""
        self._put = self._done = 0
        """Bytes; the first is the reader's, the second the thread's own."""
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def put(self, lines: Sequence[bytes]) -> bool:
        """Whether there was room for them; nothing waits. Each is one line, without its line feed."""
        size = sum(map(len, lines))
        if self._put - self._done + size > QUEUE_BYTES:
            return False
        self._put += size
        self._queue.put(tuple(lines))
        return True

    def then(self, act: Callable[[], None]) -> None:
        """Done in the thread, when what has been put before is written."""
        self._queue.put(act)

    def close(self) -> None:
        """No more comes. It goes on until its queue is empty."""
        self._queue.put(None)

    @property
    def ended(self) -> bool:
        """After `close`: whether it is through."""
        return not self._thread.is_alive()

    def wait(self, until: float) -> None:
        """Until it is through, or that moment (monotonic) has come."""
        self._thread.join(max(0.0, until - time.monotonic()))

    def _run(self) -> None:
        while True:
            work = self._ahead.pop() if self._ahead else self._queue.get()
            if work is None:
                break
            if callable(work):
                work()
                continue
            size, lines = sum(map(len, work)), list(work)
            while size < BATCH_BYTES and (more := self._next()) is not None:
                lines += more
                size += sum(map(len, more))
            try:
                self.write(lines)
            except Exception as e:  # whatever it is: the logs go on
                self._failed(len(lines), f"{type(e).__name__}: {e}")
            self._done += size
        self.end()

    def _next(self) -> tuple[bytes, ...] | None:
        """More lines, if those are what comes next."""
        try:
            work = self._queue.get_nowait()
        except queue.Empty:
            return None
        if isinstance(work, tuple):
            return work
        self._ahead.append(work)
        return None

    @abstractmethod
    def write(self, lines: Sequence[bytes]) -> None: ...

    @abstractmethod
    def end(self) -> None:
        """The thread is about to end."""


class FileTarget(Target):
    """Appends to an open file, pipe or terminal."""

    def __init__(self, fd: int, failed: Failed) -> None:
        self._fd = fd
        self._torn = False
        """The last line is not whole."""
        self._following: collections.deque[int] = collections.deque()
        """The files that are next."""
        self._lock = threading.Lock()
        super().__init__(failed)

    def use(self, fd: int) -> None:
        """What comes from now on goes there. One that hangs while it is given more and more files skips some."""
        with self._lock:
            if len(self._following) == FILES_MOST:
                os.close(self._following.pop())
                self._following.append(fd)
                return
            self._following.append(fd)
        self.then(self._use_next)

    def _use_next(self) -> None:
        with self._lock:
            fd = self._following.popleft()
        os.close(self._fd)
        self._fd, self._torn = fd, False

    def write(self, lines: Sequence[bytes]) -> None:
        text = b"\n".join([*lines, b""])
        if self._torn:
            text = b"\n" + text
        written = 0
        try:
            while written < len(text):
                written += self._write(memoryview(text)[written:])
            self._torn = False
        except OSError as e:
            if written:
                self._torn = text[written - 1 : written] != b"\n"
            self._failed(text.count(b"\n", written), e.strerror or "cannot be written")

    def _write(self, text: memoryview) -> int:
        while True:
            try:
                return os.write(self._fd, text)
            except BlockingIOError:  # a pipe that is full: its reader may come back
                poll = select.poll()
                poll.register(self._fd, select.POLLOUT)
                poll.poll()

    def end(self) -> None:
        if self._fd > 2:
            os.close(self._fd)


class _DatagramTarget(Target):
    """A daemon that takes a datagram for each line."""

    where: str

    def __init__(self, failed: Failed) -> None:
        self._socket: socket.socket | None = None
        self._gone_until = 0.0
        self._why = ""
        super().__init__(failed)

    def write(self, lines: Sequence[bytes]) -> None:
        lost = sum(not self._send(line) for line in lines)
        if lost:
            self._failed(lost, self._why)

    def _send(self, line: bytes) -> bool:
        if self._socket is None and time.monotonic() < self._gone_until:
            return False
        for _ in range(2):  # a daemon that was started again has another socket
            try:
                if self._socket is None:
                    self._socket = self.connect()
                self.datagram(self._socket, line)
            except OSError as e:
                self._close()
                self._why = f"{self.where}: {(e.strerror or 'unreachable').lower()}"
            else:
                return True
        self._gone_until = time.monotonic() + RETRY_SECONDS
        return False

    def _close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    @abstractmethod
    def connect(self) -> socket.socket: ...

    @abstractmethod
    def datagram(self, to: socket.socket, line: bytes) -> None: ...

    def end(self) -> None:
        self._close()


class SyslogTarget(_DatagramTarget):
    """Lines that begin with a severity (one digit), for a syslog daemon."""

    def __init__(self, syslog: Syslog, failed: Failed) -> None:
        self._address: SyslogAddress = syslog.address
        self._facility = FACILITIES[syslog.facility] * 8
        self._tag = syslog.tag
        self._host = socket.gethostname() or "-"
        self.where = str(self._address)
        super().__init__(failed)

    def connect(self) -> socket.socket:
        ip = socket.AF_INET6 if ":" in self._address.host else socket.AF_INET
        family = socket.AF_UNIX if self._address.path else ip
        made = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            made.connect(self._address.path or (self._address.host, self._address.port))
        except OSError:
            made.close()
            raise
        return made

    def datagram(self, to: socket.socket, line: bytes) -> None:
        event = Event.unpack(line)
        to.send(self.message(event))

    def message(self, event: Event) -> bytes:
        """As syslog(3) writes it to a Unix socket, whose reader knows no other; else RFC 5424, section 6."""
        priority = self._facility + event.severity
        if self._address.path:
            at = time.strftime("%b %e %H:%M:%S", time.localtime(event.at))
            head = f"<{priority}>{at} {self._tag}[{event.pid}]: "
        else:
            at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(event.at))
            at += f".{int(event.at % 1 * 1000):03d}Z"
            head = f"<{priority}>1 {at} {self._host} {self._tag} {event.pid} - - "
        text = event.text.replace("\n", "\\n")
        return (head + text).encode("utf-8", "backslashreplace")[:SYSLOG_MOST]


class JournalTarget(_DatagramTarget):
    """Entries in the journal's own form, as `entry` and the access log make them."""

    where = JOURNAL

    def __init__(self, failed: Failed, path: str = JOURNAL) -> None:
        self._path = path
        super().__init__(failed)

    def connect(self) -> socket.socket:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
        try:
            made.connect(self._path)
        except OSError:
            made.close()
            raise
        return made

    def datagram(self, to: socket.socket, line: bytes) -> None:
        if len(line) <= JOURNAL_PLAIN:
            try:
                to.send(line)
                return
            except OSError as e:
                if e.errno != errno.EMSGSIZE:
                    raise
        with _file_in_memory(line) as fd:
            socket.send_fds(to, [b""], [fd])


@contextlib.contextmanager
def _file_in_memory(content: bytes) -> Iterator[int]:
    """A sealed memfd, as journald wants one that does not fit into a datagram."""
    fd = os.memfd_create("edge-journal", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        os.lseek(fd, 0, os.SEEK_SET)
        seals = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
        yield fd
    finally:
        os.close(fd)


def entry(fields: dict[str, str]) -> bytes:
    """An entry for the journal: a value of several lines goes with its length."""
    made = b""
    for name, value in fields.items():
        content = value.encode("utf-8", "backslashreplace")
        if b"\n" in content:
            made += name.encode() + b"\n" + struct.pack("<Q", len(content)) + content + b"\n"
        else:
            made += name.encode() + b"=" + content + b"\n"
    return made
