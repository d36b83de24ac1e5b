"""What processes say to the one that writes the logs, and how a message becomes a line.

Messages go through one pair of SOCK_SEQPACKET sockets that all share: each arrives whole or not at all, whoever else
is sending. A message is a letter and a body.

| letter | body | |
|---|---|---|
| A | lines | of the access log |
| J | entries of the journal, an empty line behind each | of the access log |
| E | severity (1 byte, RFC 5424's), process id (4 bytes), time (double), text | an event for the error log |
| K | lines | of the key log |
| D | number (4 bytes) | lines of the access log that their process had to drop |
"""

import json
import struct
import time
from collections.abc import Callable
from typing import Final

Log = Callable[[str, str], None]
"""Says something in the error log: called with level and message."""

ACCESS: Final = b"A"
ENTRIES: Final = b"J"
EVENT: Final = b"E"
KEYS: Final = b"K"
DROPPED: Final = b"D"

MESSAGE_MOST: Final = 64 << 10
"""Bytes of a body; one line that is longer than that is cut."""
TEXT_MOST: Final = 32 << 10
"""Bytes of an event's text."""

SEVERITIES: Final = {"critical": 2, "error": 3, "warning": 4, "info": 6, "debug": 7}
NAMES: Final = {number: name for name, number in SEVERITIES.items()}

_EVENT: Final = struct.Struct(">BId")
_NUMBER: Final = struct.Struct(">I")


class Event:
    """One thing that happened: what the error log has a line for."""

    __slots__ = ("at", "pid", "severity", "text")

    def __init__(self, severity: int, pid: int, at: float, text: str) -> None:
        self.severity, self.pid, self.at, self.text = severity, pid, at, text

    def pack(self) -> bytes:
        text = self.text.encode("utf-8", "backslashreplace")
        return _EVENT.pack(self.severity, self.pid & 0xFFFFFFFF, self.at) + text[:TEXT_MOST]

    @classmethod
    def unpack(cls, body: bytes) -> "Event":
        """Raises ValueError."""
        if len(body) < _EVENT.size:
            raise ValueError("an event without its beginning")
        severity, pid, at = _EVENT.unpack_from(body)
        return cls(severity, pid, at, body[_EVENT.size :].decode("utf-8", "replace"))

    @property
    def level(self) -> str:
        return NAMES.get(self.severity, "error")

    def line(self, form: str) -> bytes:
        """Its line in a file, "text" or "json", without the line feed."""
        if form == "json":
            record = {"time": stamp(self.at), "level": self.level, "pid": self.pid, "message": self.text}
            return json.dumps(record).encode()
        return f"{stamp(self.at)} {self.level} [{self.pid}] {self.text}".encode()


def stamp(at: float) -> str:
    """RFC 3339, in UTC, to the millisecond."""
    try:
        parts = time.gmtime(at)
    except (OverflowError, ValueError, OSError):
        parts, at = time.gmtime(0), 0.0
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', parts)}.{int(at % 1 * 1000):03d}Z"


def pack_number(number: int) -> bytes:
    return _NUMBER.pack(min(number, 0xFFFFFFFF))


def unpack_number(body: bytes) -> int:
    """Raises ValueError."""
    if len(body) != _NUMBER.size:
        raise ValueError("no number")
    number: int = _NUMBER.unpack(body)[0]
    return number
