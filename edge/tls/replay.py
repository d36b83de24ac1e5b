"""Early data once: where a server remembers what it has taken (RFC 8446, section 8)."""

import hashlib
import logging
from collections.abc import Awaitable
from typing import Any, Final, Protocol

from cext.tls.replay import CallableRegister
from cext.tls.replay import ReplayRegister as EngineRegister

from edge.tls.certificate import wait_for

REPLAY_WINDOW: Final = 20.0
"""Seconds for which a register must remember: the engine takes no early data whose ticket's age, by the client's clock,
is off by more than half of it."""

_log = logging.getLogger("edge.tls")


class ReplayRegister(Protocol):
    """The record of the early data that was taken, by which a server takes it once.

    `identity` names the record, in any number of bytes: servers of one identity share one record, and take early data
    under one another's tickets. A record that has been lost must come back under another, since nothing tells any more
    what was taken under the tickets of the old one.
    """

    identity: bytes

    def enter(self, binder: bytes) -> bool | Awaitable[bool]:
        """Remembers `binder`, 32 or 48 bytes that no other ClientHello has, for REPLAY_WINDOW seconds at least; True
        if it was not there before, at once or as an awaitable. The two are one step: of those who enter the same at
        one time, one may be told True.

        It is called in the midst of handshakes, of any connections' threads. For False, any other value, and what it
        raises (which is logged), the early data is not taken, and the client sends it after the handshake.
        """
        ...


def engine_register(register: ReplayRegister) -> Any:
    """The engine's form of it. ValueError for what is none."""
    if isinstance(register, EngineRegister):
        return register
    enter = getattr(register, "enter", None)
    identity = getattr(register, "identity", None)
    if not callable(enter) or not isinstance(identity, bytes) or not identity:
        raise ValueError("replay_register: needs enter(binder) and an identity of one byte or more")

    def ask(binder: bytes) -> bool:
        try:
            return wait_for(enter(binder)) is True
        except Exception:
            _log.exception("replay_register: enter failed; early data is not taken")
            return False

    return CallableRegister(ask, hashlib.sha256(identity).digest()[:8], int(REPLAY_WINDOW * 1000))
