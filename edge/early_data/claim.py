"""The identity of a register of early data that outlives its process.

Tickets under a secret that a file holds stay good over a restart, and on other hosts. Whether their early data was
taken is known to one register alone, which such a ticket names. After a restart a new register may take that name, with
a barrier for what the old one knew (cext/tls/replay); but never while another process uses it. So the name is bound to
this host and to the file as it lies on its disk, and whoever uses it keeps that file locked: the lock goes with the
last of the processes that share the register, however they end.

Where the name cannot be had, because another edge on this host has it, or the file system knows no locks, the register
gets one of its own: tickets from before the start then have no early data.
"""

import fcntl
import hmac
import os
import socket
from pathlib import Path
from typing import Final

_HOST: Final = (Path("/etc/machine-id"), Path("/sys/class/dmi/id/product_uuid"))
"""What tells hosts apart; the second is for root alone, and not everywhere."""


class Claim:
    """The lock on a secret's file, for the life of this object in this process and its children."""

    def __init__(self, file: Path, host: tuple[Path, ...] = _HOST) -> None:
        self._fd = -1
        self._host = _host_name(host)
        if self._host:
            self._fd = _lock(file)

    @classmethod
    def of(cls, fd: int) -> "Claim":
        """Another process's, by its descriptor."""
        claim = cls.__new__(cls)
        claim._host, claim._fd = _host_name(_HOST), fd
        return claim

    @property
    def fd(self) -> int:
        """The descriptor that the lock is held by, or -1."""
        return self._fd

    def __del__(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    def identity(self, secret: bytes, *of: int) -> bytes | None:
        """Eight bytes: the same for the same secret, file, host and numbers. None where nobody may have them."""
        if self._fd < 0:
            return None
        status = os.fstat(self._fd)
        name = b"\0".join([self._host, *(b"%d" % n for n in (status.st_dev, status.st_ino, *of))])
        return hmac.digest(secret, b"edge early data register: " + name, "sha256")[:8]


def _host_name(host: tuple[Path, ...]) -> bytes:
    """b"" when nothing tells this host from others."""
    found = []
    for path in host:
        try:
            found.append(path.read_bytes().strip())
        except OSError:
            found.append(b"")
    return b"\0".join([*found, socket.gethostname().encode()]) if any(found) else b""


def _lock(file: Path) -> int:
    """A descriptor of the locked file, or -1."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(fd)
        return -1
    return fd
