"""Files that the workers append to: the access log, and what both logs need at start."""

import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from edge.config import owner
from edge.schema import Place
from edge.settings import Settings

_COMPLAINT_SECONDS: Final = 60.0


class AccessLog:
    """Appends batches of whole lines to a file. What cannot be written is dropped, counted and complained of."""

    def __init__(self, path: Path, complain: Callable[[str], None]) -> None:
        self._path = path
        self._complain = complain
        self._fd = _open(path)
        self._dropped = 0
        self._silent_until = 0.0

    def write(self, lines: bytes) -> None:
        """Called from the data plane's loop: it raises nothing."""
        try:
            # One write per batch: with O_APPEND, lines of several workers do not mix.
            written = os.write(self._fd, lines)
            while written < len(lines):
                written += os.write(self._fd, lines[written:])
        except OSError as e:
            self._drop(lines.count(b"\n"), e)

    def reopen(self) -> None:
        """Goes on in a new file when the old one was moved away."""
        try:
            fd = _open(self._path)
        except OSError as e:
            self._complain(f"access log {self._path}: cannot be reopened ({e.strerror}); the old file stays in use")
            return
        os.close(self._fd)
        self._fd = fd

    def close(self) -> None:
        os.close(self._fd)

    def _drop(self, lines: int, error: OSError) -> None:
        self._dropped += lines
        now = time.monotonic()
        if now >= self._silent_until:
            self._silent_until = now + _COMPLAINT_SECONDS
            self._complain(f"access log {self._path}: {error.strerror}; {self._dropped} lines dropped so far")


def make_files(settings: Settings) -> None:
    """Creates the log files as their writers, the workers, will need them. Raises ConfigError."""
    server = settings.server
    at = Place(settings.file).key("server")
    uid, gid = owner(server, at)
    access = server.access_log.path if server.access_log else None
    for path, key in (
        (access, at.key("access_log").key("path")),
        (server.error_log.path, at.key("error_log").key("path")),
    ):
        if path is None:
            continue
        try:
            fd = _open(path)
            try:
                if os.geteuid() == 0 and stat.S_ISREG(os.fstat(fd).st_mode):
                    os.fchown(fd, uid, gid)
            finally:
                os.close(fd)
        except OSError as e:
            raise key.error(f"{path}: {e.strerror}", "name a file that can be written") from None


def _open(path: Path) -> int:
    # O_NONBLOCK: a named pipe that nobody reads is an error, not a wait without end.
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o640)
