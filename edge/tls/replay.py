"""Early data once: where a server remembers what it has taken (RFC 8446, section 8)."""

import hashlib
import logging
import threading
from collections.abc import Awaitable
from typing import Any, Final, Protocol

from cext.tls.replay import DOWN, LATE, CallableRegister
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


class Question:
    """What the asker of an AwaitedRegister gets from a connection here; the proxy's are alike. `name`: what the record
    has the ClientHello by."""

    def __init__(self, name: bytes) -> None:
        self.name = name
        self._verdict: int = LATE
        self._answered = threading.Event()

    def answer(self, verdict: int) -> None:
        """One of cext.tls.replay's, from any thread. The first one counts."""
        if not self._answered.is_set():
            self._verdict = verdict
            self._answered.set()

    def wait(self, seconds: float) -> int:
        self._answered.wait(seconds)
        return self._verdict


def ask(register: Any, name: bytes) -> int:
    """What an AwaitedRegister's asker says of it, within its deadline."""
    question = Question(name)
    if register.asker is None:
        return int(DOWN)
    try:
        register.asker([question])
    except Exception:
        _log.exception("replay_register: its asker failed; early data is not taken")
        return int(DOWN)
    return question.wait(register.deadline / 1000)


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
