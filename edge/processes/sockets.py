"""Listening sockets: one per worker slot and address, held by the master and shared with the slot's worker.

The sockets of one address form a SO_REUSEPORT group among which the kernel spreads connections. A socket's accept
queue lives as long as anyone holds the socket: a worker may die and its successor serves what waited. Only closing
a slot's last copy would lose its queue, so a slot that goes is first steered around (`steer`).

A Unix socket, for connections that are handed over, is one for all slots: each has a twin of it.
"""

import contextlib
import ctypes
import dataclasses
import errno
import os
import socket
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from edge import handoff
from edge.errors import AddressInUseError, ListenError
from edge.settings import Bind

# A connection reaches accept when its first bytes have come, or after this many seconds.
DEFER_ACCEPT_SECONDS: Final = 1

_SO_ATTACH_REUSEPORT_CBPF: Final = 51
_SO_DETACH_REUSEPORT_BPF: Final = 68
_LISTEN: Final = "0A"

REASONS: Final = {
    errno.EADDRINUSE: "is in use already; stop what listens there (`ss -ltnp` shows it) or choose another port",
    errno.EADDRNOTAVAIL: "is no address of this host; choose one that `ip address` shows",
    errno.EACCES: "needs root or CAP_NET_BIND_SERVICE; start edge as root or choose a port from 1024 on",
    errno.EAFNOSUPPORT: "cannot be used: this kernel has no such address family; remove it",
}


@dataclasses.dataclass(slots=True)
class Name:
    """That of a Unix socket in the file system, as long as a twin of the process that made it is open."""

    path: str
    inode: tuple[int, int]
    owner: int
    """The process."""
    twins: int = 1

    def release(self) -> None:
        self.twins -= 1
        if self.twins == 0 and os.getpid() == self.owner:
            with contextlib.suppress(OSError):
                if inode_of(self.path) == self.inode:  # it may be somebody else's by now
                    os.unlink(self.path)


class ListeningSocket(socket.socket):
    """A socket that shows as its address."""

    name: Name | None = None
    """Of a Unix socket."""

    def twin(self) -> "ListeningSocket":
        """The same socket once more, for another slot."""
        twin = ListeningSocket(fileno=os.dup(self.fileno()))
        twin.name = self.name
        if twin.name:
            twin.name.twins += 1
        return twin

    def prepare(self) -> None:
        """Sets what accepted sockets inherit."""
        if self.family == socket.AF_UNIX:
            return
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, DEFER_ACCEPT_SECONDS)

    def close(self) -> None:
        name, self.name = self.name, None
        super().close()
        if name:
            name.release()

    def __str__(self) -> str:
        if self.family == socket.AF_UNIX:
            return f"unix:{self.name.path}" if self.name else "unix (closed)"
        if self.fileno() < 0:
            return "https (closed)"
        host, port = self.getsockname()[:2]
        return f"https://[{host}]:{port}" if self.family == socket.AF_INET6 else f"https://{host}:{port}"


def check_free(bind: Bind) -> None:
    """ListenError when someone listens there. SO_REUSEPORT alone would let a second edge share the port unseen."""
    if bind.path:
        return  # to look is to take it: bound_unix does
    with socket.socket(bind.family, socket.SOCK_STREAM) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind(s, bind)


def bound(bind: Bind) -> ListeningSocket:
    """A new member of the address's group, not yet listening."""
    s = ListeningSocket(bind.family, socket.SOCK_STREAM)
    try:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        s.prepare()
        _bind(s, bind)
        s.setblocking(False)
    except BaseException:
        s.close()
        raise
    return s


def bound_unix(bind: Bind, mode: int, owner: tuple[int, int], *, replace: bool = False) -> ListeningSocket:
    """A Unix socket at the bind's path, not yet listening; one that nobody listens on any more is replaced, or with
    `replace` any. Raises ListenError."""
    s = ListeningSocket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        if replace:
            os.unlink(bind.path)
        else:
            handoff.check_free(bind.path)
        s.bind(bind.path)
        s.name = Name(bind.path, inode_of(bind.path), os.getpid())
        permit(bind, mode, owner)
        s.setblocking(False)
    except OSError as e:
        s.close()
        why = e.strerror or "cannot be used"
        message = (
            f"{bind}: the path cannot be bound: {why.lower()}; choose one in a directory that exists and is yours to "
            "write, and where nobody else listens"
        )
        raise _refusal(e, message, bind) from None
    return s


def permit(bind: Bind, mode: int, owner: tuple[int, int]) -> None:
    """Who may connect to a Unix socket; -1 leaves the user or group as it is. OSError when that cannot be."""
    os.chown(bind.path, *owner)
    os.chmod(bind.path, mode)


def inode_of(path: str | Path) -> tuple[int, int]:
    """What tells the file of a name from another that has taken its place. Raises OSError."""
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _bind(s: socket.socket, bind: Bind) -> None:
    try:
        if bind.family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind((bind.address, bind.port))
    except OSError as e:
        message = f"{bind}: the address {REASONS.get(e.errno or 0, f'cannot be used: {e.strerror}')}"
        raise _refusal(e, message, bind) from None


def _refusal(error: OSError, message: str, bind: Bind) -> ListenError:
    return AddressInUseError(message, bind) if error.errno == errno.EADDRINUSE else ListenError(message)


def steer(member: socket.socket, count: int, first: int = 0) -> None:
    """Sends new connections to `count` sockets of the group only, from the one with index `first` on, in the order of
    their listen calls."""
    # A = random; A %= count; A += first; return A
    _attach(member, [(0x20, 0xFFFFF038), (0x94, count), (0x04, first), (0x16, 0)])


def unsteer(member: socket.socket) -> None:
    """Gives the choice back to the kernel."""
    member.setsockopt(socket.SOL_SOCKET, _SO_DETACH_REUSEPORT_BPF, 0)


def count_listening(bind: Bind) -> int:
    """How many sockets of this network namespace listen on the address. Raises OSError."""
    if bind.family == socket.AF_INET6:
        words = struct.unpack("=4I", socket.inet_pton(socket.AF_INET6, bind.address))
        table = "/proc/self/net/tcp6"
    else:
        words = struct.unpack("=I", socket.inet_aton(bind.address))
        table = "/proc/self/net/tcp"
    address = "".join(f"{word:08X}" for word in words) + f":{bind.port:04X}"
    with open(table, encoding="ascii") as rows:
        fields = (row.split(maxsplit=4) for row in rows)
        return sum(row[1] == address and row[3] == _LISTEN for row in fields)


def _attach(member: socket.socket, program: Sequence[tuple[int, int]]) -> None:
    """Attaches classic BPF instructions (code, constant) that return the index of the socket to take."""
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", op, 0, 0, k) for op, k in program))
    fprog = struct.pack("HP", len(program), ctypes.addressof(code))
    member.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_REUSEPORT_CBPF, fprog)
