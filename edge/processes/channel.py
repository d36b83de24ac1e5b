"""The line between the master and a worker: frames over a pair of sockets, for as long as the worker lives.

A frame is the length of its body (4 bytes, big-endian), a letter that says what it is, and the body. What the master
says may carry secrets and pickled objects. What a worker says is a letter, a number and a few words: workers read what
the Internet sends, so the master believes none of it more than that, and bounds it.

| from | letter | body | |
|---|---|---|---|
| worker | R | | it could serve |
| master | G | | serve |
| master | D | number | descriptors, as many as the number says, for what follows |
| master | M | number, bytes | a piece of what follows |
| master | P | number, pickled (kind, content) | prepare that, with the pieces and descriptors, and go on as before |
| worker | p | number | it is prepared |
| worker | f | number, text | it cannot be: why |
| master | C | number | what was prepared holds from now on |
| master | K | number | it does not: forget it |
| master | T | pickled (name, state) | ticket keys that have come: see `edge.tickets.supply` |
| master | Q | number, JSON | a question: see `edge.admin.questions` |
| worker | a | number, where to go on, how many, bytes | the answer, which the master hands on without reading it |
"""

import array
import collections
import os
import select
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

READY: Final = b"R"
GO: Final = b"G"
DESCRIPTORS: Final = b"D"
PIECE: Final = b"M"
PREPARE: Final = b"P"
PREPARED: Final = b"p"
FAILED: Final = b"f"
COMMIT: Final = b"C"
KEEP: Final = b"K"
KEYS: Final = b"T"
QUESTION: Final = b"Q"
ANSWER: Final = b"a"

MASTER_SAYS_MOST: Final = 256 << 20
WORKER_SAYS_MOST: Final = 32 << 10
"""Bytes of a body."""
REASON_MOST: Final = 500
"""Bytes of why something failed."""
DESCRIPTORS_MOST: Final = 200
"""That go with one frame."""

_HEAD: Final = struct.Struct(">Ic")
_NUMBER: Final = struct.Struct(">I")
_ANCILLARY: Final = socket.CMSG_LEN(DESCRIPTORS_MOST * array.array("i").itemsize)
_READ: Final = 1 << 18
_READ_IN_A_TURN: Final = 1 << 20
"""Bytes; the loop goes on meanwhile."""
_WAITING_MOST: Final = 2 * (WORKER_SAYS_MOST + _HEAD.size)
"""Bytes that are read in one go: who says more has its turn again later."""


class ChannelError(Exception):
    """The other side does not keep to the protocol."""


class Channel:
    """One's own end. It never waits, except in `wait`: what cannot be sent yet is kept for the next `flush`.

    `most`: bytes of a body from the other side. `descriptors`: whether any are taken from it. `ended`: nothing will
    come any more.
    """

    def __init__(self, own: socket.socket, most: int, *, descriptors: bool = False) -> None:
        own.setblocking(False)
        self._socket = own
        self._most = most
        self._come = bytearray()
        self._going: collections.deque[tuple[memoryview, list[int]]] = collections.deque()
        self._descriptors: collections.deque[int] | None = collections.deque() if descriptors else None
        self.ended = False

    @property
    def sending(self) -> bool:
        """Whether something waits for the other side to read."""
        return bool(self._going)

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, letter: bytes, body: bytes = b"", descriptors: Sequence[int] = ()) -> None:
        """Sends a frame, with copies of descriptors. Who has gone gets nothing, and nobody is told: `ended` will say
        so. OSError when no descriptor can be had."""
        if self._socket.fileno() < 0:
            return
        self._going.append((memoryview(_HEAD.pack(len(body), letter)), _copies(descriptors)))
        self._going.append((memoryview(body), []))
        self.flush()

    def flush(self) -> None:
        """Sends what the other side takes now."""
        while self._going:
            rest, descriptors = self._going[0]
            try:
                if descriptors:
                    sent = socket.send_fds(self._socket, [rest], descriptors)
                else:
                    sent = self._socket.send(rest) if rest else 0
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                self._forget_going()
                return
            _close(descriptors)
            if sent == len(rest):
                self._going.popleft()
            else:
                self._going[0] = rest[sent:], []

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

    def take(self, number: int) -> list[int]:
        """The next descriptors that have come: the caller's to close. Raises ChannelError."""
        if self._descriptors is None or len(self._descriptors) < number:
            raise ChannelError("descriptors that are not there")
        return [self._descriptors.popleft() for _ in range(number)]

    def _read(self) -> None:
        limit = min(max(self._most + _HEAD.size, _WAITING_MOST), len(self._come) + _READ_IN_A_TURN)
        while len(self._come) < limit and self._socket.fileno() >= 0:
            try:
                piece = self._receive(min(_READ, limit - len(self._come)))
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                piece = b""
            if not piece:
                self.ended = True
                return
            self._come += piece

    def _receive(self, most: int) -> bytes:
        if self._descriptors is None:
            return self._socket.recv(most)  # what may come along is closed by the kernel
        # socket.recv_fds() knows no flags: programs that a hook starts would have them, too.
        piece, ancillary, _, _ = self._socket.recvmsg(most, _ANCILLARY, socket.MSG_CMSG_CLOEXEC)
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                found = array.array("i")
                found.frombytes(data[: len(data) - len(data) % found.itemsize])
                self._descriptors += found
        return piece

    def _forget_going(self) -> None:
        for _, descriptors in self._going:
            _close(descriptors)
        self._going.clear()

    def wait(self) -> None:
        """Until something has come, or the other side has gone."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        poll.poll()

    def close(self) -> None:
        self._forget_going()
        _close(self._descriptors or ())
        self._descriptors = None
        self._socket.close()
        self.ended = True


def _copies(descriptors: Iterable[int]) -> list[int]:
    made: list[int] = []
    try:
        made.extend(os.dup(fd) for fd in descriptors)
    except OSError:
        _close(made)
        raise
    return made


def _close(descriptors: Iterable[int]) -> None:
    for fd in descriptors:
        os.close(fd)


def numbered(number: int, rest: bytes = b"") -> bytes:
    """A body that begins with a number."""
    return _NUMBER.pack(number) + rest


def split_number(body: bytes) -> tuple[int, bytes]:
    """The number that a body begins with, and what follows. Raises ChannelError."""
    if len(body) < _NUMBER.size:
        raise ChannelError("a body without its number")
    return _NUMBER.unpack_from(body)[0], body[_NUMBER.size :]
