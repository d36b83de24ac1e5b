"""The line between the master and a worker: frames over a pair of sockets, for as long as the worker lives.

A frame is the length of its body (4 bytes, big-endian), a letter that says what it is, and the body. What the master
says may carry secrets and pickled objects. What a worker says is a letter, a number and a few words: workers read what
the Internet sends, so the master believes none of it more than that, and bounds it.

| from | letter | body | |
|---|---|---|---|
| worker | R | | it could serve |
| master | G | | serve |
| master | P | number, pickled (kind, content) | prepare what follows, and go on as before |
| worker | p | number | it is prepared |
| worker | f | number, text | it cannot be: why |
| master | C | number | what was prepared holds from now on |
| master | K | number | it does not: forget it |
| master | Q | number, JSON | a question: see `edge.questions` |
| worker | a | number, where to go on, how many, bytes | the answer, which the master hands on without reading it |
"""

import collections
import select
import socket
import struct
from collections.abc import Iterator
from typing import Final

READY: Final = b"R"
GO: Final = b"G"
PREPARE: Final = b"P"
PREPARED: Final = b"p"
FAILED: Final = b"f"
COMMIT: Final = b"C"
KEEP: Final = b"K"
QUESTION: Final = b"Q"
ANSWER: Final = b"a"

MASTER_SAYS_MOST: Final = 256 << 20
WORKER_SAYS_MOST: Final = 32 << 10
"""Bytes of a body."""
REASON_MOST: Final = 500
"""Bytes of why something failed."""

_HEAD: Final = struct.Struct(">Ic")
_NUMBER: Final = struct.Struct(">I")
_READ: Final = 1 << 18
_WAITING_MOST: Final = 2 * (WORKER_SAYS_MOST + _HEAD.size)
"""Bytes that are read in one go: who says more has its turn again later."""


class ChannelError(Exception):
    """The other side does not keep to the protocol."""


class Channel:
    """One's own end. It never waits, except in `wait`: what cannot be sent yet is kept for the next `flush`.

    `most`: bytes of a body from the other side. `ended`: nothing will come any more.
    """

    def __init__(self, own: socket.socket, most: int) -> None:
        own.setblocking(False)
        self._socket = own
        self._most = most
        self._come = bytearray()
        self._going: collections.deque[memoryview] = collections.deque()
        self.ended = False

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, letter: bytes, body: bytes = b"") -> None:
        """Sends a frame. Who has gone gets nothing, and nobody is told: `ended` will say so."""
        if self._socket.fileno() < 0:
            return
        self._going.append(memoryview(_HEAD.pack(len(body), letter)))
        self._going.append(memoryview(body))
        self.flush()

    @property
    def waiting(self) -> bool:
        """Whether something is still to be sent."""
        return bool(self._going)

    def flush(self) -> None:
        """Sends what the other side takes now."""
        while self._going:
            try:
                sent = self._socket.send(self._going[0]) if self._going[0] else 0
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._going.clear()
                return
            if sent == len(self._going[0]):
                self._going.popleft()
            else:
                self._going[0] = self._going[0][sent:]

    def receive(self) -> Iterator[tuple[bytes, bytes]]:
        """The frames that have come whole: letter and body. Raises ChannelError."""
        self._read()
        while len(self._come) >= _HEAD.size:
            length, letter = _HEAD.unpack_from(self._come)
            if length > self._most:
                raise ChannelError(f"a frame of {length} bytes")
            end = _HEAD.size + length
            if len(self._come) < end:
                return
            body = bytes(memoryview(self._come)[_HEAD.size : end])
            del self._come[:end]
            yield letter, body

    def _read(self) -> None:
        limit = max(self._most + _HEAD.size, _WAITING_MOST)
        while len(self._come) < limit and self._socket.fileno() >= 0:
            try:
                piece = self._socket.recv(min(_READ, limit - len(self._come)))
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                piece = b""
            if not piece:
                self.ended = True
                return
            self._come += piece

    def wait(self) -> None:
        """Until something has come, or the other side has gone."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.poll()

    def close(self) -> None:
        self._going.clear()
        self._socket.close()
        self.ended = True


def numbered(number: int, rest: bytes = b"") -> bytes:
    """A body that begins with a number."""
    return _NUMBER.pack(number) + rest


def split_number(body: bytes) -> tuple[int, bytes]:
    """The number that a body begins with, and what follows. Raises ChannelError."""
    if len(body) < _NUMBER.size:
        raise ChannelError("a body without its number")
    return _NUMBER.unpack_from(body)[0], body[_NUMBER.size :]
