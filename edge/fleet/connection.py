"""Connections to Redis that take no more from it than they have use for; and in TLS trust whom they are told to, and
nobody else.

The redis package's own keep whatever they are sent; add the authorities of the configuration to those of the system;
and read a client certificate from files, for which a worker lacks the right.
"""

import functools
import os
import ssl
from typing import Any, Final

from redis._parsers import _AsyncRESP2Parser
from redis.asyncio import SSLConnection
from redis.exceptions import InvalidResponse, RedisClusterException, RedisError

FAILURES: Final = (RedisError, RedisClusterException, OSError)
"""What a client raises when Redis is not reached, is late, or refuses."""
REPLY_MOST: Final = 2 << 20
"""Bytes: a cluster describes all of Redis's commands in one."""


class Bounded(_AsyncRESP2Parser):
    """Ends with InvalidResponse where a reply would be longer than `most` bytes, or of more than `lines`: strings and
    arrays begin with one."""

    def __init__(self, socket_read_size: int) -> None:
        super().__init__(socket_read_size)
        self.most, self.lines = REPLY_MOST, REPLY_MOST
        self._line = 0

    async def _read(self, length: int) -> bytes:
        self._check(length)
        return await super()._read(length)

    async def _readline(self) -> bytes:
        self._line = self._line + 1 if self._pos else 1
        self._check(0)
        return await super()._readline()

    def _check(self, more: int) -> None:
        """`_pos`: how much there has been of the reply."""
        if not 0 <= more <= self.most - self._pos or self._line > self.lines:
            raise InvalidResponse(f"a reply of more than {self.most} bytes or {self.lines} lines")


def bound(connection: Any, most: int, lines: int) -> None:
    """Its replies are shorter than those of others."""
    connection._parser.most, connection._parser.lines = most, lines


def context(ca: str | None, certificate: bytes | None, key: bytes | None) -> ssl.SSLContext:
    """Of PEM: verifies certificate and name, always. `ca` None: by the system's authorities. ValueError for what is
    none."""
    try:
        made = ssl.create_default_context(cadata=ca)  # which then does not trust the system's
        made.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate is not None and key is not None:
            _load(made, certificate + b"\n" + key)
    except ssl.SSLError as e:
        raise ValueError((e.reason or "unusable").lower().replace("_", " ")) from None
    return made


def _load(made: ssl.SSLContext, pem: bytes) -> None:
    """Of memory: Python's ssl knows only files, and the process that needs it may have no right to read it."""
    fd = os.memfd_create("pem")
    try:
        os.write(fd, pem)
        made.load_cert_chain(f"/proc/self/fd/{fd}", password="")  # or it would be asked for at the terminal
    finally:
        os.close(fd)


@functools.cache
def verified(*also: type) -> type:
    """A class of connections that is made with `context`, and is `also` of others of the package."""

    class Verified(*also, SSLConnection):  # type: ignore[misc]  # which ones is known when it runs
        def __init__(self, *, context: ssl.SSLContext, **options: Any) -> None:
            super().__init__(**options)
            self.ssl_context.context = context

    return Verified
