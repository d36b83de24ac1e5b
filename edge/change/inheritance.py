"""What a master leaves to the one that takes its place, and how the two agree on the moment.

The old master (`edge.change.upgrade`) executes the new one, whose code may be another version's. Descriptors pass by
inheritance, everything else as JSON, with a format number: so each side understands the other or says that it does not.

| from | letter | body | |
|---|---|---|---|
| old | E | JSON | the estate: descriptors by their numbers, secrets, names |
| new | R | JSON: version | its workers could serve |
| old | G | | serve: the old one changes nothing any more |
| new | S | | they do; the old one drains |
| new | F | text | it cannot be: why |

Until S the old master has given nothing up: whatever happens to the new one, it goes on.
"""

import json
import os
import socket
import time
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, Final

from edge import __version__
from edge.errors import EdgeError
from edge.processes.channel import Channel, ChannelError
from edge.settings import Bind

FORMAT: Final = 1
ENVIRONMENT: Final = "EDGE_INHERITS"
ESTATE: Final = b"E"
READY: Final = b"R"
GO: Final = b"G"
SERVING: Final = b"S"
FAILED: Final = b"F"

OLD_SAYS_MOST: Final = 4 << 20
NEW_SAYS_MOST: Final = 4096
REASON_MOST: Final = 2000
_ESTATE_SECONDS: Final = 30.0

Lend = Callable[[int], int]
"""In the old master: a descriptor is to be inherited; returns the number that it goes by."""
Take = Callable[[int], int]
"""In the new one: the descriptor of that number is the caller's."""
Part = Mapping[str, Any]


class InheritanceError(EdgeError):
    """The old master's estate cannot be taken."""


class Inheritance:
    """The new master's half."""

    def __init__(self, line: Channel, stderr: int) -> None:
        self._line = line
        self._stderr = stderr
        self.estate: Part = self._receive()
        self._left: set[int] = set(self.estate["descriptors"])
        for fd in self._left:
            os.set_inheritable(fd, False)

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> "Inheritance | None":
        """None in a process that succeeds nobody. Raises InheritanceError."""
        line, _, stderr = environ.pop(ENVIRONMENT, "").partition(",")
        if not line:
            return None
        for fd in (int(line), int(stderr)):
            os.set_inheritable(fd, False)
        return cls(Channel(socket.socket(fileno=int(line)), OLD_SAYS_MOST), int(stderr))

    def _receive(self) -> Part:
        until = time.monotonic() + _ESTATE_SECONDS
        while not self._line.ended and time.monotonic() < until:
            self._line.wait()
            for letter, body in self._line.receive():
                if letter == ESTATE:
                    return self._read(body)
        raise InheritanceError("the process to succeed has not said what it leaves")

    def _read(self, body: bytes) -> Part:
        estate: Part = json.loads(body)
        if estate.get("format") != FORMAT:
            raise InheritanceError(
                f"edge {estate.get('version')} leaves its sockets in a form that edge {__version__} does not know; "
                "restart the service"
            )
        return estate

    def take(self, number: int) -> int:
        self._left.discard(number)
        return number

    def close_rest(self) -> None:
        """What is not wanted any more."""
        for fd in self._left:
            os.close(fd)
        self._left = set()

    def speak_up(self) -> None:
        """The configuration is in order. From now on standard error is the old master's own; until here the old master
        reads there what has gone wrong."""
        os.dup2(self._stderr, 2)
        os.close(self._stderr)

    # The agreement.

    def fileno(self) -> int:
        return self._line.fileno()

    def ready(self) -> None:
        self._line.send(READY, json.dumps({"version": __version__}).encode())

    def hear(self) -> bool:
        """Whether the old master lets this one serve. If it has died, there is nobody to ask."""
        self._line.flush()
        try:
            heard = any(letter == GO for letter, _ in self._line.receive())
        except ChannelError as e:
            raise InheritanceError(f"the process to succeed has said {e}") from None
        return heard or self._line.ended

    def serving(self) -> None:
        self._line.send(SERVING)
        self._line.close()

    def failed(self, reason: str) -> None:
        self._line.send(FAILED, reason.encode(errors="replace")[:REASON_MOST])

    def leave(self) -> None:
        """In a process that was forked off."""
        self._line.close()
        for fd in self._left:
            os.close(fd)


def bind_to_json(bind: Bind) -> list[object]:
    return [bind.address, bind.port, bind.path]


def bind_of_json(written: list[Any]) -> Bind:
    return Bind(*written)
