"""Connections handed over from one process to another: the message, a receiver and a sender, for any Python program.

    with handoff.Receiver("/run/legacy.sock") as receiver:
        for connection in receiver:
            ...     # connection.data comes first, then what connection.sock gives

A message and a descriptor come through a Unix socket (SOCK_SEQPACKET); docs/handoff.md has the format. This module
uses the standard library alone, and nothing else of `edge`.
"""

import dataclasses
import errno
import ipaddress
import os
import selectors
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

MAGIC: Final = b"EDGH"
VERSION: Final = 1
HEADER: Final = struct.Struct("!4sBBHIBxHHxx16s16s")
"""Magic, version, flags, length of the header, length of the data, family, ports and addresses of client and server."""
HEADER_MAX: Final = 8192
DATA_MAX: Final = 96 * 1024
MESSAGE_MAX: Final = HEADER_MAX + DATA_MAX
NAME_MAX: Final = 64

PROXIED: Final = 0x01
CRITICAL_FLAGS: Final = 0xF0
FIELD_NAME: Final = 1
FIELD_TLVS: Final = 2
CRITICAL_FIELD: Final = 0x8000

_CREDENTIALS: Final = struct.Struct("3i")

Address = tuple[str, int]
"""An IP address as text, and a port."""


class HandoffError(ValueError):
    """What came is no message of a hand-over, or not that of its descriptor."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Handoff:
    """What is said of a connection that is handed over."""

    client: Address
    local: Address | None = None
    """What the client connected to."""
    data: bytes = b""
    """What has been read from the client: it comes before what the descriptor will give."""
    proxied: bool = False
    """Whether the addresses are those of a PROXY header: the descriptor's own are then a proxy's."""
    name: str = ""
    """Of the sender's rule."""
    tlvs: bytes = b""
    """Of the PROXY header, as they stood there."""

    def encode(self) -> bytes:
        """The message. ValueError when it is too much for one."""
        name = self.name.encode()
        fields = b"".join(
            struct.pack("!HH", kind, len(value)) + value
            for kind, value in ((FIELD_NAME, name), (FIELD_TLVS, self.tlvs))
            if value
        )
        length = HEADER.size + len(fields)
        if length > HEADER_MAX or len(self.data) > DATA_MAX or len(name) > NAME_MAX:
            raise ValueError("too much for the message of a hand-over")
        client = ipaddress.ip_address(self.client[0])
        local = ipaddress.ip_address(self.local[0]) if self.local else None
        if local and local.version != client.version:
            raise ValueError("client and server have addresses of two families")
        header = HEADER.pack(
            MAGIC,
            VERSION,
            PROXIED if self.proxied else 0,
            length,
            len(self.data),
            client.version,
            self.client[1],
            self.local[1] if self.local else 0,
            client.packed,
            local.packed if local else b"",
        )
        return header + fields + self.data

    @classmethod
    def decode(cls, message: bytes) -> "Handoff":
        """From a whole message. Raises HandoffError."""
        if message[:4] != MAGIC:
            raise HandoffError("it is no message of a hand-over")
        if message[4:5] != bytes([VERSION]):
            raise HandoffError("its version is not known")
        if len(message) < HEADER.size:
            raise HandoffError("its header is cut short")
        _, _, flags, length, data_length, family, client_port, local_port, client, local = HEADER.unpack_from(message)
        if flags & CRITICAL_FLAGS:
            raise HandoffError("it has a flag that is not known")
        if not HEADER.size <= length <= HEADER_MAX or data_length > DATA_MAX or length + data_length != len(message):
            raise HandoffError("its lengths are out of bounds, or do not add up")
        if family not in (4, 6):
            raise HandoffError("it has no address")
        fields = _fields(message[HEADER.size : length])
        try:
            name = fields.get(FIELD_NAME, b"").decode()
        except UnicodeDecodeError:
            raise HandoffError("its name is not UTF-8") from None
        return cls(
            client=(_address(family, client), client_port),
            local=(_address(family, local), local_port),
            data=message[length:],
            proxied=bool(flags & PROXIED),
            name=name,
            tlvs=fields.get(FIELD_TLVS, b""),
        )


def _address(family: int, packed: bytes) -> str:
    return str(ipaddress.IPv4Address(packed[:4]) if family == 4 else _plain(ipaddress.IPv6Address(packed)))


def _plain(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """An IPv4 client of a socket for both families is one of IPv4."""
    return ip.ipv4_mapped or ip


def _fields(text: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while text:
        if len(text) < 4:
            raise HandoffError("a field is cut short")
        kind, length = struct.unpack_from("!HH", text)
        value, text = text[4 : 4 + length], text[4 + length :]
        if len(value) != length:
            raise HandoffError("a field is cut short")
        if kind in (FIELD_NAME, FIELD_TLVS):
            if kind in found or (kind == FIELD_NAME and length > NAME_MAX):
                raise HandoffError("a field stands there twice or is too long")
            found[kind] = value
        elif kind & CRITICAL_FIELD:
            raise HandoffError("it has a field that is not known")
    return found


class Connection:
    """A connection that was received: its socket, and what is said of it."""

    def __init__(self, sock: socket.socket, handoff: Handoff) -> None:
        self.sock = sock
        self.handoff = handoff

    @property
    def client(self) -> Address:
        return self.handoff.client

    @property
    def data(self) -> bytes:
        """What was read from the client already: it comes before what the socket will give."""
        return self.handoff.data

    def close(self) -> None:
        self.sock.close()

    def __enter__(self) -> "Connection":
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self.close()


class Receiver:
    """Listens on a Unix socket for connections that others hand over.

    `mode` and `users` (ids, beside root's and our own) say who may. It makes the socket and removes it again; one that
    nobody listens on any more is replaced. OSError when that cannot be.
    """

    def __init__(self, path: str | os.PathLike[str], *, mode: int = 0o600, users: tuple[int, ...] = ()) -> None:
        self.path = os.fspath(path)
        self._users = {0, os.geteuid(), *users}
        self._listener = listen(self.path, mode)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._ready: list[socket.socket] = []

    def accept(self, timeout: float | None = None) -> Connection:
        """The next connection; a message that is none is passed over. TimeoutError after `timeout` seconds without."""
        while True:
            if not self._ready:
                self._ready = [key.fileobj for key, _ in self._selector.select(timeout)]  # type: ignore[misc]
                if not self._ready:
                    raise TimeoutError("no connection was handed over")
            source = self._ready.pop()
            if source is self._listener:
                self._welcome()
                continue
            try:
                connection = receive(source)
            except HandoffError:
                continue
            except OSError:
                connection = None
            if connection is not None:
                return connection
            self._selector.unregister(source)
            source.close()

    def _welcome(self) -> None:
        try:
            source, _ = self._listener.accept()
        except OSError:
            return  # it has gone again
        if sender_of(source) in self._users:
            self._selector.register(source, selectors.EVENT_READ)
        else:
            source.close()

    def __iter__(self) -> Iterator[Connection]:
        while True:
            yield self.accept()

    def close(self) -> None:
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()
        Path(self.path).unlink(missing_ok=True)

    def __enter__(self) -> "Receiver":
        return self

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def listen(path: str, mode: int) -> socket.socket:
    """A listening socket there, which those may connect to whom `mode` lets. OSError if someone listens there."""
    check_free(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        listener.bind(path)
        os.chmod(path, mode)  # nobody can connect before it listens
        listener.listen(128)
    except BaseException:
        listener.close()
        raise
    return listener


def check_free(path: str, kind: socket.SocketKind = socket.SOCK_SEQPACKET) -> None:
    """Removes a socket that nobody listens on. OSError (EADDRINUSE) when somebody does, or it is no socket."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EADDRINUSE, "is there already, and no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, kind) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except OSError:  # EPROTOTYPE: for something else; EAGAIN: and has much to do
            pass
    raise OSError(errno.EADDRINUSE, "somebody listens there")


def sender_of(source: socket.socket) -> int:
    """The user id of the process that connected."""
    _, uid, _ = _CREDENTIALS.unpack(source.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(uid)


def receive(source: socket.socket) -> Connection | None:
    """One connection from a sender's socket; None at its end. HandoffError for what is none, with every descriptor
    that came closed."""
    message, descriptors, flags, _ = socket.recv_fds(source, MESSAGE_MAX, 8, socket.MSG_CMSG_CLOEXEC)
    if not message and not descriptors:
        return None
    if len(descriptors) != 1 or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for fd in descriptors:
            os.close(fd)
        raise HandoffError("it is cut off, or has not exactly one descriptor")
    sock = socket.socket(fileno=descriptors[0])
    try:
        handoff = Handoff.decode(message)
        _check(sock, handoff)
        sock.setblocking(True)
    except BaseException:
        sock.close()
        raise
    return Connection(sock, handoff)


def _check(sock: socket.socket, handoff: Handoff) -> None:
    """The descriptor is a TCP connection, and that of the message's client."""
    if sock.family not in (socket.AF_INET, socket.AF_INET6) or sock.type != socket.SOCK_STREAM:
        raise HandoffError("the descriptor is no TCP connection")
    try:
        host, port = sock.getpeername()[:2]
    except OSError:
        raise HandoffError("the client has gone") from None
    peer = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(peer, ipaddress.IPv6Address):
        host = str(_plain(peer))
    if not handoff.proxied and (host, port) != handoff.client:
        raise HandoffError("its address is not that of the connection")


def give(path: str | os.PathLike[str], sock: socket.socket, data: bytes = b"", *, name: str = "") -> None:
    """Hands a connection over to who listens there, with what has been read from it, and closes ours. OSError when that
    cannot be; the connection is still there then."""
    client, local = (_named(address) for address in (sock.getpeername(), sock.getsockname()))
    message = Handoff(client=client, local=local, data=data, name=name).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as out:
        out.connect(os.fspath(path))
        socket.send_fds(out, [message], [sock.fileno()])
    sock.close()


def _named(address: tuple[str, int]) -> Address:
    ip = ipaddress.ip_address(address[0].partition("%")[0])
    return (str(_plain(ip)) if isinstance(ip, ipaddress.IPv6Address) else str(ip), address[1])
