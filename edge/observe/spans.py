"""The records in which workers tell of traced requests (`cext/proxy/trace.pxd` has their form): sent, and read.

They come from processes that read what the Internet sends: whatever is no record is a RecordError, never anything else.
"""

import dataclasses
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any, Final

VERSION: Final = 1
PARENT, PUSHED, RESUMED, EARLY_DATA = 1, 2, 4, 8
REUSED: Final = 1
ATTEMPTS_MOST: Final = 8
DATAGRAM_MOST: Final = 1 << 16
"""Bytes of a batch: workers send less than half of that."""

_FACTS: Final = struct.Struct(">BBB16s8s8sQQQQQHHBH")
_ATTEMPT: Final = struct.Struct(">8sQQQQHB")


class RecordError(Exception):
    """This is no record."""


@dataclasses.dataclass(frozen=True, slots=True)
class Attempt:
    """A server that was asked. Times: us since the request's start; 0: it has not come to that."""

    span_id: bytes
    began: int
    ended: int
    connected: int
    first_byte: int
    status: int
    flags: int
    server: str
    error: str


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """A request that is over."""

    flags: int
    trace_flags: int
    trace_id: bytes
    span_id: bytes
    parent_id: bytes
    """With PARENT."""
    start: int
    """ns since 1970"""
    duration: int
    """us"""
    first_byte: int
    """us since the start; 0: there was none"""
    bytes_in: int
    bytes_out: int
    status: int
    tls: int
    """The version, as 0x0304; 0: unknown."""
    http: int
    """10, 11, 20"""
    client_port: int
    client: str
    method: str
    host: str
    path: str
    query: str
    server_name: str
    route: str
    upstream: str
    error: str
    attempts: tuple[Attempt, ...]


def sender(to: socket.socket) -> Callable[[bytes], bool]:
    """In a worker: sends a batch as one datagram, unless that would have to wait -> whether it went."""

    def send(batch: bytes) -> bool:
        try:
            to.send(batch, socket.MSG_DONTWAIT)
        except OSError:
            return False
        return True

    return send


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0

    def take(self, n: int) -> bytes:
        piece = self._data[self.at : self.at + n]
        if len(piece) < n:
            raise RecordError("it ends too early")
        self.at += n
        return piece

    def text(self, width: int = 1) -> str:
        """Peers may send anything: a byte each, as in the access log."""
        return self.take(int.from_bytes(self.take(width))).decode("latin-1")


def number(batch: bytes) -> int:
    """How many records a batch has, unread."""
    at = found = 0
    while at + 2 <= len(batch):
        at += 2 + int.from_bytes(batch[at : at + 2])
        found += 1
    return found


def read(batch: bytes) -> Iterator[Request]:
    """The requests of a batch. Raises RecordError, after those before what is no record."""
    at = 0
    while at < len(batch):
        reader = _Reader(batch)
        reader.at = at
        size = int.from_bytes(reader.take(2))
        yield _request(_Reader(reader.take(size)), size)
        at = reader.at


def _request(reader: _Reader, size: int) -> Request:
    facts = reader.take(_FACTS.size)
    if facts[0] != VERSION:
        raise RecordError(f"its version is {facts[0]}")
    texts = [reader.text(width) for width in (1, 1, 1, 2, 2, 1, 1, 1, 1)]
    n = reader.take(1)[0]
    if n > ATTEMPTS_MOST:
        raise RecordError(f"it tells of {n} attempts")
    attempts = tuple(_attempt(reader) for _ in range(n))
    if reader.at != size:
        raise RecordError("something follows it")
    values: list[Any] = [*_FACTS.unpack(facts)[1:], *texts, attempts]
    return Request(*values)


def _attempt(reader: _Reader) -> Attempt:
    values: list[Any] = [*_ATTEMPT.unpack(reader.take(_ATTEMPT.size)), reader.text(), reader.text()]
    return Attempt(*values)
