"""A WebSocket server of the `websockets` library, in a thread: what a socket does is chosen by the path.

    /echo           sends every message back
    /close?N        closes with code N when it gets a message
    /flood?N        sends N messages of 1 MiB as fast as they are taken
    /hold           takes nothing until `release` is set, then says how many bytes came
    /abort          ends without a closing handshake when it gets a message
    /no             refuses the handshake with 403
"""

import asyncio
import http
import threading
from urllib.parse import urlsplit

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

MIB = 1 << 20
PIECE = bytes(MIB)


class Sockets:
    """`server` is how a configuration names it; `ends` are the (path, close code) of the sockets that are over."""

    def __init__(self) -> None:
        self.ends: list[tuple[str, int | None]] = []
        self.keys: list[str] = []
        self.origins: list[str | None] = []
        self.sent = 0
        self.open = 0
        self.release = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Sockets":
        self._thread.start()
        assert self._ready.wait(5)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        how = {"max_size": 32 * MIB, "max_queue": 4, "ping_interval": None, "close_timeout": 2}
        how |= {"select_subprotocol": lambda _, offered: "chat" if "chat" in offered else None}
        server = await serve(self._handle, "127.0.0.1", 0, process_request=self._admit, **how)
        port = server.sockets[0].getsockname()[1]
        self.server = f"127.0.0.1:{port}"
        self._ready.set()
        await self._stop.wait()
        server.close(close_connections=True)
        await server.wait_closed()

    def _admit(self, connection, request):
        self.keys.append(request.headers["Sec-WebSocket-Key"])
        self.origins.append(request.headers.get("Origin"))
        if request.path == "/no":
            return connection.respond(http.HTTPStatus.FORBIDDEN, "not here\n")
        return None

    async def _handle(self, socket) -> None:
        path = socket.request.path
        parts = urlsplit(path)
        number = int(parts.query) if parts.query.isdigit() else 0
        self.open += 1
        try:
            await getattr(self, "_" + parts.path[1:])(socket, number)
        except ConnectionClosed:
            pass
        finally:
            self.open -= 1
            await socket.wait_closed()
            self.ends.append((path, socket.close_code))

    async def _echo(self, socket, _: int) -> None:
        async for message in socket:
            await socket.send(message)

    async def _close(self, socket, code: int) -> None:
        await socket.recv()
        await socket.close(code, "as you wish")

    async def _flood(self, socket, number: int) -> None:
        self.sent = 0
        for _ in range(number):
            await socket.send(PIECE)
            self.sent += 1

    async def _hold(self, socket, _: int) -> None:
        socket.transport.pause_reading()
        while not self.release.is_set():
            await asyncio.sleep(0.02)
        socket.transport.resume_reading()
        got = 0
        while (message := await socket.recv()) != "end":
            got += len(message)
        await socket.send(str(got))

    async def _abort(self, socket, _: int) -> None:
        await socket.recv()
        socket.transport.abort()
