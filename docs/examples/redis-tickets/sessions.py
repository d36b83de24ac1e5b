"""Sessions in Redis: what a client keeps is a name, and a name that Redis has forgotten is nothing."""

import os
from pathlib import Path

from redis.asyncio import BlockingConnectionPool, Redis

from edge.policy import seal, unseal

SECONDS = 24 * 3600
NAME_LENGTH = 16


class Sessions:
    def __init__(self, redis):
        self._redis = redis

    def wrap(self, state, content):
        """The ticket goes to the client now; that the session is stored is awaited beside the handshake."""
        name = os.urandom(NAME_LENGTH)
        return name, self._redis.set(b"tls:" + name, seal(content), ex=SECONDS)

    async def unwrap(self, hello, ticket):
        if len(ticket) != NAME_LENGTH:
            return None
        sealed = await self._redis.get(b"tls:" + ticket)
        return None if sealed is None else unseal(sealed)

    def clone(self):
        return self


class Policy:
    def session_ticket_wrapper(self):
        # A few connections in each worker, and no handshake that waits long for one: it is made in full instead.
        pool = BlockingConnectionPool.from_url(
            f"unix://{Path(__file__).parent}/redis.sock", max_connections=16, timeout=0.25, socket_timeout=0.25
        )
        return Sessions(Redis(connection_pool=pool))
