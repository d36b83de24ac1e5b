"""The workers of a master who was killed, and the next master, who wants their addresses.

They share no ancestor that lives. The next master, finding an address in use, opens a socket of a well-known name for
it; orphans look for that and connect. So each side knows of the other: the master that it may join the address's
group of sockets (which only the same user can) and lead new connections past theirs; and the orphans, when the
connection ends, that this is done: then they accept what had begun, and go. No client is refused or reset.

The name is abstract and anybody's to take. Who does so wins nothing: orphans accept for ACCEPT_SECONDS at most.
"""

import socket
from typing import Final

from edge.processes import sockets
from edge.settings import Bind

ACCEPT_SECONDS: Final = 3.0
"""For which orphans go on accepting without a successor."""
LOOK_MS: Final = 50
YIELD_MS: Final = sockets.DEFER_ACCEPT_SECONDS * 1000 + 500
"""From when new connections go to the successor until all that had begun before can be accepted."""


class Rendezvous:
    """The next master's: made for an address that is in use."""

    def __init__(self, bind: Bind) -> None:
        """OSError when another such master waits there already."""
        self._orphans: list[socket.socket] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.bind(_name(bind))
            self._socket.listen()
        except OSError:
            self._socket.close()
            raise

    def meet(self, seconds: float) -> bool:
        """Whether an orphan has come within that time."""
        self._socket.settimeout(seconds)
        try:
            self._orphans.append(self._socket.accept()[0])
        except OSError:
            return False
        return True

    def close(self) -> None:
        """Tells all orphans that they may go."""
        for s in (*self._orphans, self._socket):
            s.close()


def find_successor(bind: Bind) -> socket.socket | None:
    """An orphan's: a connection to the master that wants the address, if there is one."""
    s = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    s.setblocking(False)
    try:
        s.connect(_name(bind))
    except OSError:
        s.close()
        return None
    return s


def _name(bind: Bind) -> bytes:
    return b"\0edge: the next master for " + str(bind).encode()
