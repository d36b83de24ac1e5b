"""What hosts of a fleet tell each other at once: that something is new in Redis.

It is a hint, and nothing more: who hears it looks, and who does not, as he was away or may not subscribe, looks a
little later. Whoever writes publishes an empty message on a channel that has the key's name. In a cluster each node
passes it on to all others, behind sentinels a master to its replicas: it matters little which one is listened to.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

from edge.backoff import Backoff
from edge.fleet.link import Link
from edge.fleet.nodes import Nodes

SURE_SECONDS: Final = 10.0
"""How often the connection is tried: a host that is cut off hears nothing, and no error either."""
ANSWER_SECONDS: Final = 2.0
AGAIN_SECONDS: Final = (0.5, 10.0)
"""Until the next try after a failure, and after many."""
REFUSED_SECONDS: Final = 60.0
"""The same, when the user may not subscribe."""
REST_SECONDS: Final = 0.01
"""After each that is heard: others may publish as fast as they can."""


class News:
    """Of one key. `heard()` is called when there may be something new; also when it begins to listen again."""

    def __init__(self, link: Link, key: str, heard: Callable[[], None]) -> None:
        self._nodes = Nodes(link)
        self._key = key.encode()
        self._heard = heard
        self._confirmed = asyncio.Event()
        self._backoff = Backoff(*AGAIN_SECONDS)
        self._closed = False
        self.refused = ""
        """Why this user may not subscribe."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def close(self) -> None:
        """It listens no more."""
        self._closed = True
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        try:
            while not self._closed:
                with contextlib.suppress(Exception):  # whoever asks for the key says what is wrong
                    await self._listen()
                if not self._closed:  # a TaskGroup, or asyncio's wait_for, may swallow that it is cancelled
                    await asyncio.sleep(REFUSED_SECONDS if self.refused else self._backoff.failed())
        finally:
            await self._nodes.close()

    async def _listen(self) -> None:
        """Until the connection ends. Raises."""
        async with asyncio.timeout(self._nodes.seconds):
            connection = await self._nodes.connection(self._key)
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._read(connection))
                group.create_task(self._make_sure(connection))
        finally:
            await connection.disconnect(nowait=True)

    async def _make_sure(self, connection: Any) -> None:
        """Subscribes, again and again: each time that is confirmed."""
        while connection.is_connected and not self._closed:  # the package would make another
            self._confirmed.clear()
            await connection.send_command("SUBSCRIBE", self._key)
            async with asyncio.timeout(ANSWER_SECONDS):
                await self._confirmed.wait()
            self._backoff.succeeded()
            await asyncio.sleep(SURE_SECONDS)
        raise ConnectionError

    async def _read(self, connection: Any) -> None:
        from redis.exceptions import InvalidResponse, ResponseError  # noqa: PLC0415  # see edge.fleet.link

        subscribed = False
        while True:
            try:
                said = await connection.read_response(disable_decoding=True)
            except ResponseError as e:
                self.refused = str(e)
                raise
            match said:
                case [b"subscribe", self._key, _]:
                    if not subscribed:
                        self._heard()
                    subscribed, self.refused = True, ""
                    self._confirmed.set()
                case [b"message", self._key, _]:
                    self._heard()
                    await asyncio.sleep(REST_SECONDS)
                case _:
                    raise InvalidResponse("it says what it was not asked for")
