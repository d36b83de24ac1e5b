"""Lets requests through whose X-API-Key a service knows, and tells the upstream whose key it is.

The service is asked once for a key, however many requests wait for the answer, and again when that has grown old. While
the service cannot be reached, an old answer is good for a while longer; without one the request gets 503.
"""

import asyncio
import collections
import contextlib
import json
import time
from pathlib import Path

SERVICE = Path(__file__).with_name("keys.sock")
FRESH = 30.0  # seconds for which an answer is used without asking again,
STALE = 300.0  # and for which it is better than none
KEPT = 10_000  # answers: keys are the clients' words, and must not fill the memory
ASK = 2.0  # seconds for the service


class Policy:
    def __init__(self):
        self._known = collections.OrderedDict()  # key -> (owner or None, when it was asked)
        self._asking = {}  # key -> the task that asks

    async def director(self, request):
        key = request.headers.pop("X-API-Key")
        request.headers.pop("X-Client-Name")  # the upstream believes it
        if not key or len(key) > 200:
            request.respond(401, {"WWW-Authenticate": "APIKey"}, "An API key is needed.\n")
            return
        try:
            owner = await self._owner(key)
        except (OSError, ValueError, TimeoutError, EOFError):
            request.respond(503, {"Retry-After": "5"}, "Keys cannot be looked up at the moment.\n")
            return
        if owner is None:
            request.respond(403, (), "This API key is not known.\n")
        else:
            request.headers["X-Client-Name"] = owner

    async def _owner(self, key):
        owner, asked = self._known.get(key, (None, None))
        if asked is not None and time.monotonic() - asked < FRESH:
            return owner
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.ensure_future(self._ask(key))
            task.add_done_callback(lambda _: self._asking.pop(key))
        try:
            return await asyncio.shield(task)  # the client of one request may leave: the others still want to know
        except (OSError, ValueError, TimeoutError, EOFError):
            if asked is not None and time.monotonic() - asked < STALE:
                return owner
            raise

    async def _ask(self, key):
        async with asyncio.timeout(ASK):
            status, body = await _get(f"/owner?key={key.encode('latin-1').hex()}")
        if status not in (200, 404):
            raise ValueError(f"the service answered {status}")
        owner = json.loads(body)["owner"] if status == 200 else None
        self._known[key] = (owner, time.monotonic())
        self._known.move_to_end(key)
        while len(self._known) > KEPT:
            self._known.popitem(last=False)
        return owner


async def _get(target):
    """(status, body) of a GET. Any client of HTTP for asyncio does; this one needs nothing to be installed."""
    reader, writer = await asyncio.open_unix_connection(SERVICE)
    try:
        writer.write(f"GET {target} HTTP/1.0\r\nHost: keys\r\n\r\n".encode())
        head = await reader.readuntil(b"\r\n\r\n")
        return int(head.split()[1]), await reader.read(65536)
    except asyncio.LimitOverrunError as e:
        raise ValueError(str(e)) from None
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
