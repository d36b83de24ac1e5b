"""The other end of the admin socket, for commands: asks, and waits for as long as it is told to."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Final

from edge.errors import EdgeError

ANSWER_SECONDS: Final = 15.0

Line = dict[str, Any]


class RefusedError(EdgeError):
    """The running edge says no. `line` is its answer."""

    def __init__(self, line: Line) -> None:
        super().__init__(str(line.get("error", "refused")))
        self.line = line


class UnreachableError(EdgeError):
    """Nobody answers there, or whoever does has gone before the answer was whole."""

    exit_code: ClassVar = 3


class TimedOutError(EdgeError):
    """It takes too long."""

    exit_code: ClassVar = 4


class Admin:
    """A connection to an admin socket. Raises UnreachableError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._come = bytearray()
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(ANSWER_SECONDS)
        try:
            self._connect(time.monotonic() + ANSWER_SECONDS)
        except OSError as e:
            self._socket.close()
            raise UnreachableError(f"{path}: {_why(e)}") from None

    def __enter__(self) -> "Admin":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def ask(self, command: str, seconds: float = ANSWER_SECONDS, **arguments: object) -> Iterator[Line]:
        """The lines of an answer, of which the last has `ok`. `seconds`: for the whole of it. Raises RefusedError,
        TimedOutError and UnreachableError."""
        until = time.monotonic() + seconds
        try:
            self._send(json.dumps({"command": command, **arguments}).encode() + b"\n")
            while True:
                line = self._line(until)
                if line.get("ok") is False:
                    raise RefusedError(line)
                yield line
                if "ok" in line:
                    return
        except TimeoutError:
            raise TimedOutError(f"{self._path}: no answer in {seconds:g} s") from None
        except OSError as e:
            raise UnreachableError(f"{self._path}: {_why(e)}") from None
        except ValueError:
            raise UnreachableError(f"{self._path}: whoever listens there is not edge") from None

    def ask_one(self, command: str, seconds: float = ANSWER_SECONDS, **arguments: object) -> Line:
        """The last line of an answer."""
        *_, last = self.ask(command, seconds, **arguments)
        return last

    def _connect(self, until: float) -> None:
        """With a timeout of its own a socket gives up at once where the other side has much to do."""
        while True:
            try:
                self._socket.connect(str(self._path))
                return
            except BlockingIOError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.02)

    def _send(self, line: bytes) -> None:
        self._socket.settimeout(ANSWER_SECONDS)
        self._socket.sendall(line)

    def _line(self, until: float) -> Line:
        while (end := self._come.find(b"\n")) < 0:
            left = until - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            piece = self._socket.recv(1 << 20)
            if not piece:
                raise ConnectionResetError
            self._come += piece
        line = json.loads(self._come[:end])
        del self._come[: end + 1]
        if not isinstance(line, dict):
            raise ValueError("no object")
        return line


def _why(e: OSError) -> str:
    match e:
        case FileNotFoundError() | ConnectionRefusedError():
            return "no edge listens there; is it running, with this [server] admin?"
        case PermissionError():
            return "may not be connected to by this user; see [server] admin, its owner, group and mode"
        case ConnectionResetError() | BrokenPipeError():
            return "edge has closed the connection; it may have been stopped"
    return (e.strerror or "cannot be reached").lower()
