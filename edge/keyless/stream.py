"""TLS by our own engine beneath an asyncio protocol: what both ends of a keyless connection have in common."""

import asyncio
from typing import Any, Final

from cext.tls.engine import CLOSE_NOTIFY, DATA, ESTABLISHED, FAILED, Engine

_RECEIVE: Final = 1 << 14


class TlsStream(asyncio.BufferedProtocol):
    """A connection whose bytes are sealed and opened on the way. Subclasses override the three methods below."""

    def __init__(self, engine: Engine) -> None:
        self.loop = asyncio.get_running_loop()
        self.engine = engine
        self.transport: Any = None
        self._received = bytearray(_RECEIVE)
        self._view = memoryview(self._received)
        self._unsealed: list[bytes] = []
        self._cause = ""
        self._over = False

    # --- for subclasses

    def established(self) -> None:
        """The handshake is complete, the peer is who it should be: `send` may be called."""

    def data_came(self, data: bytes) -> None:
        """What the peer sends, opened."""

    def ended(self, cause: str) -> None:
        """The connection is over, for this reason; called once. It may never have been established."""

    # --- what they call

    def send(self, data: bytes) -> None:
        """Seals and sends; what is given in one turn of the loop goes out at its end, together."""
        if not self._unsealed:
            self.loop.call_soon(self._send_gathered)
        self._unsealed.append(data)

    def end(self, cause: str) -> None:
        """Sends what is there still, then close_notify, and closes."""
        if self._over or self._cause:
            return
        self._cause = cause
        if self.transport is None:
            return
        self._send_gathered()
        self.engine.send_close_notify()
        self._flush()
        self.transport.close()

    def cut(self, cause: str) -> None:
        """Ends it at once, whatever the peer has not taken yet."""
        self._cause = self._cause or cause
        if self.transport is not None:
            self.transport.abort()

    @property
    def unsent(self) -> int:
        """Bytes that the peer has not taken yet."""
        return self.transport.get_write_buffer_size() if self.transport is not None else 0

    # --- asyncio's

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        if self._cause:  # it was given up meanwhile
            transport.abort()
            return
        self._flush()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._view

    def buffer_updated(self, nbytes: int) -> None:
        for event, payload in self.engine.receive_bytes(self._view[:nbytes]):
            if self._cause and event != FAILED:
                continue  # closing: what still comes is nobody's
            if event == DATA:
                self.data_came(payload)
            elif event == ESTABLISHED:
                self.established()
            elif event == CLOSE_NOTIFY:
                self.end("the other end has closed the connection")
            elif event == FAILED:
                self._fail()
                return
        self._flush()

    def eof_received(self) -> None:
        self._cause = self._cause or "the connection was cut off"

    def connection_lost(self, exc: Exception | None) -> None:
        self._over = True
        self.transport = None
        self._unsealed.clear()
        self.ended(self._cause or (str(exc) if exc else "the connection was closed"))

    # ---

    def _fail(self) -> None:
        self._cause = self._cause or str(self.engine.failure)
        self._flush()  # the alert
        self.transport.close()

    def _send_gathered(self) -> None:
        gathered, self._unsealed = self._unsealed, []
        if not gathered or self.transport is None or self.engine.failure is not None:
            return
        try:
            self.engine.send(gathered[0] if len(gathered) == 1 else b"".join(gathered))
        except ValueError as error:  # the keys have sealed all they may, or the other end has gone
            self.cut(str(error))
            return
        self._flush()

    def _flush(self) -> None:
        output = self.engine.take_output()
        if output and self.transport is not None:
            self.transport.write(output)
