"""What lets a Conn stand where a program expects a connected, blocking socket: the names and conventions of
socket.socket, over Conn's own."""

import contextlib
import io
import socket
from types import TracebackType
from typing import IO, Any, Self


class SocketLike:
    """The socket methods of a Conn, which has the rest."""

    _sock: Any

    def handshake(self) -> None:
        """See Conn."""
        raise NotImplementedError

    def read(self, n: int = 16384) -> bytes:
        """See Conn."""
        raise NotImplementedError

    def readinto(self, buffer: Any) -> int:
        """See Conn."""
        raise NotImplementedError

    def write(self, data: Any) -> int:
        """See Conn."""
        raise NotImplementedError

    def close(self) -> None:
        """See Conn."""
        raise NotImplementedError

    def _file_opened(self) -> None:
        raise NotImplementedError

    def _file_closed(self) -> None:
        raise NotImplementedError

    def recv(self, bufsize: int, flags: int = 0) -> bytes:
        """As `read`. ValueError for any flags: they mean the stream beneath, not this one."""
        _no_flags(flags)
        return self.read(bufsize)

    def recv_into(self, buffer: Any, nbytes: int = 0, flags: int = 0) -> int:
        """As `readinto`, of at most `nbytes` (0: as many as there is room for)."""
        _no_flags(flags)
        with memoryview(buffer).cast("B") as view:
            return self.readinto(view[: nbytes or len(view)])

    def send(self, data: Any, flags: int = 0) -> int:
        """As `write`: it sends all."""
        _no_flags(flags)
        return self.write(data)

    def sendall(self, data: Any, flags: int = 0) -> None:
        """As `write`."""
        _no_flags(flags)
        self.write(data)

    def makefile(self, mode: str = "r", buffering: int | None = None, **text: Any) -> IO[Any]:
        """A file that reads or writes the connection, as socket.makefile: `text` is encoding, errors and newline.

        The connection stays until this file, too, is closed.
        """
        if not set(mode) <= {"r", "w", "b"} or not set(mode) & {"r", "w"}:
            raise ValueError(f"makefile: the mode {mode!r} is not of r, w and b")
        if buffering is None or buffering < 0:
            buffering = io.DEFAULT_BUFFER_SIZE
        raw = _File(self, "r" in mode, "w" in mode)
        if buffering == 0:
            if "b" not in mode:
                raise ValueError("makefile: text is never unbuffered")
            return raw  # type: ignore[return-value]
        buffer: Any
        if "r" in mode and "w" in mode:
            buffer = io.BufferedRWPair(raw, raw, buffering)
        else:
            buffer = io.BufferedReader(raw, buffering) if "r" in mode else io.BufferedWriter(raw, buffering)
        return buffer if "b" in mode else io.TextIOWrapper(buffer, **text)

    def settimeout(self, timeout: float | None) -> None:
        """Of each wait for the peer, in seconds: TimeoutError then. None: for ever. ValueError for 0: a connection
        blocks."""
        if timeout == 0:
            raise ValueError("settimeout: a connection cannot be non-blocking")
        self._sock.settimeout(timeout)

    def gettimeout(self) -> float | None:
        """The socket's timeout in seconds; None: for ever."""
        timeout: float | None = self._sock.gettimeout()
        return timeout

    @property
    def timeout(self) -> float | None:
        """As `gettimeout`."""
        return self.gettimeout()

    def fileno(self) -> int:
        """The socket's descriptor: `pending` tells of data that it no longer holds."""
        number: int = self._sock.fileno()
        return number

    def getpeername(self) -> Any:
        """The peer's address."""
        return self._sock.getpeername()

    def getsockname(self) -> Any:
        """This side's address."""
        return self._sock.getsockname()

    def setsockopt(self, *arguments: Any) -> None:
        """Of the socket."""
        self._sock.setsockopt(*arguments)

    def getsockopt(self, *arguments: Any) -> Any:
        """Of the socket."""
        return self._sock.getsockopt(*arguments)

    def __enter__(self) -> Self:
        """The connection itself; leaving closes it."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _File(io.RawIOBase):
    """The unbuffered file under makefile()'s."""

    def __init__(self, conn: SocketLike, readable: bool, writable: bool) -> None:
        super().__init__()
        self._conn = conn
        self._modes = readable, writable
        conn._file_opened()

    def readable(self) -> bool:
        return self._modes[0]

    def writable(self) -> bool:
        return self._modes[1]

    def fileno(self) -> int:
        return self._conn.fileno()

    def readinto(self, buffer: Any) -> int:
        return self._conn.readinto(buffer)

    def write(self, data: Any) -> int:
        return self._conn.write(data)

    def close(self) -> None:
        if self.closed:
            return
        super().close()
        self._conn._file_closed()


def _no_flags(flags: int) -> None:
    if flags != 0:
        raise ValueError("flags are for plain sockets")


def shut(sock: Any, how: int) -> bool:
    """Shuts a transport down. False when it has no means to; what is not connected any more is shut enough."""
    shutdown = getattr(sock, "shutdown", None)
    if shutdown is None:
        return False
    with contextlib.suppress(OSError):
        shutdown(how)
    return True


def send_at_once(sock: Any, data: bytes) -> None:
    """Sends what can go without waiting; a transport that is no socket is trusted not to block for long."""
    if isinstance(sock, socket.socket):
        sock.send(data, socket.MSG_DONTWAIT)
    else:
        sock.sendall(data)
