"""A server's session tickets: keys of this process, or a wrapper that the program brings."""

import logging
import os
import threading
import time
from typing import Any, Final, Protocol, Self

from cext.tls.names import describe
from cext.tls.session import TicketKeys, WrappedTickets

from edge.tls.hello import ClientHelloInfo
from edge.tls.state import ConnectionState

ROTATE: Final = 12 * 3600.0
"""Seconds for which a key seals tickets."""
KEEP: Final = 3
"""Keys that open them, the sealing one included: more than a ticket's lifetime of a day."""

_log = logging.getLogger("edge.tls")


class SessionTicketWrapper(Protocol):
    """How a server's session state becomes a ticket, which the client keeps, and is told again from one.

    The content must stay secret and unchanged: whoever reads it reads the sessions that are resumed by it. Both methods
    are called in the midst of handshakes, of any connections' threads, and must not block; what they raise is logged,
    and there is no ticket then, or a full handshake.
    """

    def wrap(self, state: ConnectionState, content: bytes) -> bytes:
        """A ticket of at most 65,535 bytes for `content`, the secrets of the session that `state` describes: its
        version, cipher_suite, server_name and alpn."""
        ...

    def unwrap(self, hello: ClientHelloInfo, ticket: bytes) -> bytes | None:
        """The content of a ticket that wrap made; None for any other, and for one whose key is gone."""
        ...

    def clone(self) -> Self:
        """A wrapper for a configuration that is made from this one by Config.clone; it may share the keys."""
        ...


class OwnTickets:
    """Tickets under random keys that never leave the process, a new one twice a day."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._keys = [self._fresh()]
        self._since = time.monotonic()
        self.sealer = TicketKeys(self._keys)

    def rotate(self) -> None:
        """Makes a new key if the time has come; those that are older than any ticket go."""
        if time.monotonic() - self._since < ROTATE:
            return
        with self._lock:
            periods = int((time.monotonic() - self._since) // ROTATE)
            if periods:
                # A process that slept for longer has not made the keys that would have gone meanwhile.
                self._keys = [self._fresh(), *self._keys][: max(KEEP - periods + 1, 1)]
                self._since = time.monotonic()
                self.sealer.replace(self._keys)

    @staticmethod
    def _fresh() -> tuple[bytes, bytes]:
        return os.urandom(16), os.urandom(32)


def session_state(info: dict[str, Any]) -> ConnectionState:
    """What a wrapper is told of a session, from what the engine tells."""
    version, cipher_suite, *_ = describe(info["version"], info["cipher_suite"], 0, 0).split()
    return ConnectionState(
        version=version,
        cipher_suite=cipher_suite,
        server_name=info["server_name"].decode("ascii"),
        alpn=info["alpn"].decode("ascii", "surrogateescape"),
        handshake_complete=True,
    )


class WrapperTickets:
    """A SessionTicketWrapper in the engine's terms."""

    def __init__(self, wrapper: SessionTicketWrapper) -> None:
        for method in ("wrap", "unwrap", "clone"):
            if not callable(getattr(wrapper, method, None)):
                raise ValueError(f"session_ticket_wrapper: has no {method}()")
        self._wrapper = wrapper
        self.sealer = WrappedTickets(self)

    def rotate(self) -> None:
        """The wrapper's own affair."""

    def wrap(self, info: dict[str, Any], content: bytes) -> bytes:
        """For the engine."""
        try:
            return self._wrapper.wrap(session_state(info), content)
        except Exception:
            _log.exception("session_ticket_wrapper: wrap failed; the client gets no ticket")
            raise

    def unwrap(self, client_hello: bytes, ticket: bytes) -> bytes | None:
        """For the engine."""
        try:
            return self._wrapper.unwrap(ClientHelloInfo.parse(client_hello), ticket)
        except Exception:
            _log.exception("session_ticket_wrapper: unwrap failed; the session is not resumed")
            raise
