"""Another version of edge takes the place of the one that runs, without a connection lost; or does not, and nothing has
happened.

The old master executes the new one as it was started itself, so that a link that points to another virtual environment
by now leads to its code. What it hands over, and how both agree on the moment, is in `edge.change.inheritance`. This is
the old master's half: it watches the new one until that serves, and ends it if it is late.
"""

import contextlib
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge import __version__
from edge.change import inheritance
from edge.errors import EdgeError
from edge.logs.errorlog import one_line
from edge.processes.channel import Channel, ChannelError

if TYPE_CHECKING:
    from edge.master import Master

_SAID_MOST: Final = 64 << 10
"""Bytes of what the new process writes to standard error before its configuration is in order."""
_LINES_LOGGED: Final = 40
_TAKE_OVER_SECONDS: Final = 15.0
"""Between the word to serve and that it does."""


class UpgradeError(EdgeError):
    """It cannot be, or has failed."""


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    succeeded: bool
    reason: str
    """Why not."""
    version: str
    """Of the process that serves now,"""
    pid: int
    """and its id."""
    seconds: float


AskedBy = Callable[[Outcome], None]


@dataclasses.dataclass(slots=True, eq=False)
class _Attempt:
    process: subprocess.Popen[bytes]
    line: Channel
    errors: int
    """Its standard error, at first."""
    asked_by: AskedBy | None
    started: float
    late_at: float
    said: bytearray = dataclasses.field(default_factory=bytearray)
    version: str = ""
    """Once it could serve."""
    reason: str = ""
    """Why it fails."""


class Upgrade:
    """The master's: at most one at a time."""

    def __init__(self, master: "Master") -> None:
        self._master = master
        self._attempt: _Attempt | None = None
        self.succeeded = False
        """Another master serves: this one has only to drain."""

    @property
    def under_way(self) -> bool:
        return self._attempt is not None

    def begin(self, python: str | None = None, asked_by: AskedBy | None = None) -> int:
        """Starts the new master -> its process id. `python`: the interpreter whose edge it is to be. Raises
        UpgradeError."""
        if reason := self._why_not():
            raise UpgradeError(reason)
        master = self._master
        words = command(sys.orig_argv, sys.argv, python)
        lent: list[int] = []

        def lend(fd: int) -> int:
            lent.append(fd)
            return fd

        estate = json.dumps({**master.bequeath(lend), "descriptors": lent})
        errors = far_errors = -1
        try:
            own, far = socket.socketpair()
            errors, far_errors = os.pipe2(os.O_CLOEXEC)
            stderr = os.dup(2)
        except OSError as e:
            for fd in (errors, far_errors):
                if fd >= 0:
                    os.close(fd)
            raise UpgradeError(f"there are no descriptors for it: {(e.strerror or str(e)).lower()}") from None
        try:
            process = subprocess.Popen(  # noqa: S603  # what this process is, or what its own user has named
                words,
                stdin=subprocess.DEVNULL,
                stderr=far_errors,
                pass_fds=[far.fileno(), stderr, *lent],
                env={**os.environ, inheritance.ENVIRONMENT: f"{far.fileno()},{stderr}"},
                cwd=master.START_CTX["cwd"],
            )
        except OSError as e:
            own.close()
            os.close(errors)
            raise UpgradeError(f"{words[0]} cannot be executed: {(e.strerror or str(e)).lower()}") from None
        finally:
            far.close()
            os.close(far_errors)
            os.close(stderr)
        os.set_blocking(errors, False)
        now = time.monotonic()
        limit = master.current.prepared.settings.server.upgrade_timeout / 1000
        line = Channel(own, inheritance.NEW_SAYS_MOST)
        self._attempt = _Attempt(process, line, errors, asked_by, now, now + limit)
        master.watch(line.fileno(), self._hear)
        master.watch(errors, self._overhear)
        line.send(inheritance.ESTATE, estate.encode())
        master.log.info("upgrade: process %d starts: %s", process.pid, " ".join(map(str, words)))
        return process.pid

    def _why_not(self) -> str:
        master = self._master
        if self.under_way or self.succeeded:
            return "an upgrade is under way already"
        if master.reloads.pending or not master.may_change():
            return "a reload or another change is under way; try again when it is through"
        if os.getpid() == 1:
            return "this is process 1, with which everything else would end; start another container"
        return ""

    def step(self) -> float | None:
        """To be called on every turn -> when next, at the latest (monotonic)."""
        attempt = self._attempt
        if attempt is None:
            return None
        if attempt.line.fileno() >= 0:
            attempt.line.flush()
        if time.monotonic() >= attempt.late_at and attempt.process.poll() is None:
            seconds = attempt.late_at - attempt.started
            self._give_up(attempt, attempt.reason or f"it does not serve after {seconds:.0f} s")
        self.reap()
        return attempt.late_at if self._attempt else None

    def reap(self) -> None:
        """Before the master waits for any of its children: this one is ours."""
        attempt = self._attempt
        if attempt is None or attempt.process.poll() is None:
            return
        self._hear()  # its last words
        if self._attempt is attempt and not self.succeeded:
            self._overhear()
            self._fail(attempt)

    # What the new master says.

    def _hear(self) -> None:
        attempt = self._attempt
        if attempt is None or attempt.line.fileno() < 0:
            return
        try:
            for letter, body in attempt.line.receive():
                self._heard(attempt, letter, body)
        except (ChannelError, ValueError, KeyError, TypeError) as e:
            self._give_up(attempt, f"it said {e}")
        if attempt.line.ended and attempt.line.fileno() >= 0:
            self._master.unwatch(attempt.line.fileno())

    def _heard(self, attempt: _Attempt, letter: bytes, body: bytes) -> None:
        if letter == inheritance.READY and not attempt.version:
            attempt.version = one_line(str(json.loads(body)["version"]))[:100]
            attempt.late_at = time.monotonic() + _TAKE_OVER_SECONDS
            self._master.service.succeeded_by(attempt.process.pid)
            attempt.line.send(inheritance.GO)
        elif letter == inheritance.SERVING and attempt.version:
            self._succeed(attempt)
        elif letter == inheritance.FAILED:
            attempt.reason = one_line(body.decode(errors="replace"))
        else:
            raise ChannelError(f"a frame of kind {letter!r}")

    def _overhear(self) -> None:
        attempt = self._attempt
        if attempt is None or attempt.errors < 0:
            return
        try:
            while piece := os.read(attempt.errors, 65536):
                attempt.said += piece[: max(0, _SAID_MOST - len(attempt.said))]
        except BlockingIOError:
            return
        self._close_errors(attempt)

    def _close_errors(self, attempt: _Attempt) -> None:
        if attempt.errors >= 0:
            self._master.unwatch(attempt.errors)
            os.close(attempt.errors)
            attempt.errors = -1

    # How it ends.

    def _give_up(self, attempt: _Attempt, reason: str) -> None:
        """It is killed, and reaped when it has ended; its workers and helpers follow it."""
        attempt.reason = attempt.reason or reason
        attempt.process.kill()

    def _fail(self, attempt: _Attempt) -> None:
        said = attempt.said.decode(errors="replace").splitlines()
        for line in said[-_LINES_LOGGED:]:
            self._master.log.error("upgrade: process %d: %s", attempt.process.pid, one_line(line))
        last = next((one_line(line).strip() for line in reversed(said) if line.strip()), "")
        reason = attempt.reason or last.removeprefix("edge: ") or _ending(attempt.process.returncode)
        self._end(attempt)
        if attempt.version:
            self._master.stay()
        self._master.log.error("upgrade failed, edge %s goes on: %s", __version__, reason)
        self._tell(attempt, Outcome(False, reason, __version__, os.getpid(), time.monotonic() - attempt.started))

    def _succeed(self, attempt: _Attempt) -> None:
        self._end(attempt)
        self.succeeded = True
        seconds = time.monotonic() - attempt.started
        self._master.log.info(
            "upgrade: edge %s, process %d, serves in place of edge %s; this process drains",
            attempt.version,
            attempt.process.pid,
            __version__,
        )
        self._tell(attempt, Outcome(True, "", attempt.version, attempt.process.pid, seconds))
        attempt.process.returncode = 0  # whoever waits for all children may have it

    def _end(self, attempt: _Attempt) -> None:
        self._attempt = None
        self._close_errors(attempt)
        if attempt.line.fileno() >= 0:
            self._master.unwatch(attempt.line.fileno())
            attempt.line.close()

    def _tell(self, attempt: _Attempt, outcome: Outcome) -> None:
        if attempt.asked_by:
            attempt.asked_by(outcome)

    def stop(self) -> None:
        """The master ends before it is decided."""
        if self._attempt:
            attempt = self._attempt
            self._end(attempt)
            attempt.process.kill()
            attempt.process.wait()
            self._tell(attempt, Outcome(False, "edge was stopped meanwhile", __version__, os.getpid(), 0.0))

    def leave(self) -> None:
        """In a process that was forked off."""
        if self._attempt:
            self._attempt.line.close()
            if self._attempt.errors >= 0:
                os.close(self._attempt.errors)


def _ending(code: int) -> str:
    if code >= 0:
        return f"it ended with exit code {code}"
    with contextlib.suppress(ValueError):
        return f"it was ended by {signal.Signals(-code).name}"
    return f"it was ended by signal {-code}"


def command(original: Sequence[str], argv: Sequence[str], python: str | None = None) -> list[str]:
    """What to execute for another process like this one: `original` is the whole command line that this one was started
    with, `argv` the program and its arguments. Every path in it is looked up afresh."""
    arguments = list(argv[1:])
    before = list(original[: len(original) - len(arguments)])
    if python is not None:
        return [python, "-P", "-m", "edge", *arguments]  # its edge, and not one of the working directory
    script = before[-1] if len(before) > 1 and before[-2:-1] not in (["-m"], ["-c"]) else ""
    if script and not script.startswith("-") and os.access(script, os.X_OK) and not Path(script).is_dir():
        return [script, *arguments]  # its first line names an interpreter of its own
    interpreter = before[0] if "/" in before[0] else shutil.which(before[0]) or sys.executable
    return [interpreter, *before[1:], *arguments]


def usable_python(path: Any) -> str:
    """An interpreter that is named by who may name one. Raises UpgradeError."""
    if not isinstance(path, str) or not os.path.isabs(path):
        raise UpgradeError("python is to be the absolute path of an interpreter")
    if not os.access(path, os.X_OK) or os.path.isdir(path):
        raise UpgradeError(f"{one_line(path)} cannot be executed")
    return path
