"""Connections to the Redis that has a key, behind sentinels and in clusters, too: for who writes many commands at once,
or hears what nobody asked for. A Client (`edge.fleet.link`) gives one command at a time to whoever is free."""

import asyncio
import contextlib
import socket
import threading
import time
from typing import Any, Final

from edge.fleet.link import Link

CONNECT_SECONDS: Final = 1.0
KNOWN_SECONDS: Final = 0.5
"""How long a cluster is not asked again who has what."""
REPLY_MOST: Final = 32 << 10
"""Bytes: of what is asked on these connections, sections of INFO have the longest answers,"""
REPLY_LINES: Final = 16
"""and TIME, or a message, those of most parts."""


class Nodes:
    """Where connections come from."""

    def __init__(self, link: Link) -> None:
        names = [server.host for server in link.servers if server.host]
        self.seconds = CONNECT_SECONDS * (max(len(names), 1) + 1)
        """To ask all sentinels, or nodes, of which only the last knows more, and to connect."""
        self._client = link.asyncio(connections=1, seconds=CONNECT_SECONDS)
        self._lookups = [Lookup(name) for name in names]
        self._cluster = link.mode == "cluster"
        self._learned = -KNOWN_SECONDS
        """When the cluster was last asked who has what (monotonic)."""
        self._learning = asyncio.Lock()

    async def connection(self, key: bytes) -> Any:
        """To who has the key: of the redis package, connected, and without a limit to how long an answer takes."""
        from edge.fleet.connection import bound  # noqa: PLC0415  # see edge.fleet.link

        redis: Any = self._client.redis
        errors = [await lookup.error() for lookup in self._lookups]
        failed = [error for error in errors if error is not None]
        if failed and len(failed) == len(errors):
            raise failed[0]
        if self._cluster:
            async with self._learning:
                if time.monotonic() >= self._learned + KNOWN_SECONDS:
                    await redis.aclose()  # the nodes may be others by now
                    await redis.initialize()
                    self._learned = time.monotonic()
            node = redis.get_node_from_key(key)
            made = node.connection_class(**node.connection_kwargs)
        else:
            made = redis.connection_pool.make_connection()
        bound(made, REPLY_MOST, REPLY_LINES)
        try:
            await made.connect()
        except BaseException:
            await made.disconnect(nowait=True)
            raise
        made.socket_timeout = None  # who waits for an answer has a limit of his own
        return made

    async def close(self) -> None:
        with contextlib.suppress(Exception):
            await self._client.close()


class Lookup:
    """Whether a name leads anywhere. Names are looked up in threads; who does it again and again while nobody answers
    would fill those that hooks share, and hold up the process's end. Here it is one thread, which holds up nothing."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._asked: asyncio.Future[OSError | None] | None = None

    async def error(self) -> OSError | None:
        """None: somewhere. RuntimeError when there is no thread to be had."""
        if self._asked is None:
            loop = asyncio.get_running_loop()
            threading.Thread(target=self._look_up, args=(loop,), daemon=True).start()
            self._asked = loop.create_future()  # in time: what answers it waits for the loop
        return await asyncio.shield(self._asked)

    def _look_up(self, loop: asyncio.AbstractEventLoop) -> None:
        error = None
        try:
            socket.getaddrinfo(self._name, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as e:
            error = e if isinstance(e, OSError) else OSError(str(e))
        with contextlib.suppress(RuntimeError):  # the loop may be closed
            loop.call_soon_threadsafe(self._answered, error)

    def _answered(self, error: OSError | None) -> None:
        asked, self._asked = self._asked, None
        if asked is not None and not asked.done():
            asked.set_result(error)
