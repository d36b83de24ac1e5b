"""The machines' way out: an HTTP proxy for apt and pip, and nothing else.

It listens on the machines' network alone, which has no other way out, and connects from this host's network to the
ports of HTTP and HTTPS of others, never to this host itself. Debian packages stay in a directory for the next who
asks.
"""

import asyncio
import contextlib
import hashlib
import ipaddress
import os
import time
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

HEAD_MAX = 64 * 1024
PIECE = 256 * 1024
PORTS = (80, 443)
HEAD_SECONDS = 30
IDLE_SECONDS = 120
KEPT_SECONDS = 30 * 86400
"""A package that nobody has asked for in this time is removed."""


class RefusedError(Exception):
    """Its text is the status line's end."""


class WayOut:
    def __init__(self, kept: Path | None = None) -> None:
        self.kept = kept
        """The directory for packages."""
        if kept:
            kept.mkdir(parents=True, exist_ok=True)
            for file in kept.iterdir():
                if file.stat().st_mtime < time.time() - KEPT_SECONDS:
                    file.unlink()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request of a connection; then it is closed."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError):
            try:
                async with asyncio.timeout(HEAD_SECONDS):
                    head = await reader.readuntil(b"\r\n\r\n")
                await self._answer(head, reader, writer)
            except RefusedError as refusal:
                writer.write(f"HTTP/1.1 {refusal}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
                await writer.drain()
        writer.close()

    async def _answer(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line, *fields = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        method, _, rest = line.partition(" ")
        target, _, version = rest.partition(" ")
        if version not in ("HTTP/1.1", "HTTP/1.0"):
            raise RefusedError("400 Bad Request")
        if method == "CONNECT":
            above, out = await self._connect(_split(f"//{target}"), 443)
            writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            await _both(reader, writer, above, out)
            return
        url = _split(target)
        if method not in ("GET", "HEAD") or url.scheme != "http" or not url.hostname:
            raise RefusedError("405 Method Not Allowed")
        own = ("proxy-", "connection:", "keep-alive:", "host:", "te:", "upgrade:")
        fields = [field for field in fields if not field.lower().startswith(own)]
        whole = method == "GET" and not any(field.lower().startswith(("range:", "if-")) for field in fields)
        file = self._place(target) if whole and url.path.endswith(".deb") else None
        if file and file.exists():
            await _send_file(file, writer)
            return
        above, out = await self._connect(url, 80)
        path = (url.path or "/") + (f"?{url.query}" if url.query else "")
        request = [f"{method} {path} HTTP/1.1", f"Host: {url.netloc}", *fields, "Connection: close", "", ""]
        out.write("\r\n".join(request).encode("latin-1"))
        try:
            await _relay(above, writer, file)
        finally:
            out.close()

    def _place(self, target: str) -> Path | None:
        return self.kept and self.kept / f"{hashlib.sha256(target.encode()).hexdigest()}.deb"

    async def _connect(self, url: SplitResult, port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        host, port = url.hostname, url.port or port
        if not host or port not in PORTS:
            raise RefusedError("403 Forbidden")
        try:
            async with asyncio.timeout(HEAD_SECONDS):
                above, out = await asyncio.open_connection(host, port, limit=HEAD_MAX)
        except (OSError, TimeoutError):
            raise RefusedError("502 Bad Gateway") from None
        # What the name has led to, not the name, decides: a name may lead anywhere.
        if not _elsewhere(out.get_extra_info("peername")[0]):
            out.close()
            raise RefusedError("403 Forbidden")
        return above, out


def _split(target: str) -> SplitResult:
    try:
        url = urlsplit(target)
        _ = url.port
    except ValueError:
        raise RefusedError("400 Bad Request") from None
    return url


def _elsewhere(address: str) -> bool:
    ip = ipaddress.ip_address(address.partition("%")[0])
    return not (ip.is_loopback or ip.is_link_local or ip.is_unspecified)


async def _relay(above: asyncio.StreamReader, writer: asyncio.StreamWriter, file: Path | None) -> None:
    """A response to its end; into `file`, too, if it is a whole one."""
    async with asyncio.timeout(IDLE_SECONDS):
        head = await above.readuntil(b"\r\n\r\n")
    fields = dict(f.lower().split(":", 1) for f in head.decode("latin-1").split("\r\n")[1:] if ":" in f)
    length = int(fields.get("content-length", "-1"))
    writer.write(head)
    if file is None or length < 0 or b" 200 " not in head.split(b"\r\n", 1)[0]:
        await _pass_on(above, writer)
        return
    partial = file.with_name(f"{file.name}.{os.getpid()}.{id(writer)}")
    try:
        with open(partial, "wb") as f:
            await _pass_on(above, writer, f.write)
            size = f.tell()
        if size == length:
            partial.rename(file)
    finally:
        partial.unlink(missing_ok=True)


async def _send_file(file: Path, writer: asyncio.StreamWriter) -> None:
    os.utime(file)
    with open(file, "rb") as f:
        size = os.fstat(f.fileno()).st_size
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n".encode())
        while piece := f.read(PIECE):
            writer.write(piece)
            await writer.drain()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, also=None) -> None:
    while True:
        async with asyncio.timeout(IDLE_SECONDS):
            piece = await reader.read(PIECE)
        if not piece:
            return
        if also:
            also(piece)
        writer.write(piece)
        async with asyncio.timeout(IDLE_SECONDS):
            await writer.drain()


async def _both(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, above: asyncio.StreamReader, out: asyncio.StreamWriter
) -> None:
    """Until one end has no more to say."""
    ways = [asyncio.ensure_future(_pass_on(reader, out)), asyncio.ensure_future(_pass_on(above, writer))]
    try:
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for way in ways:
            way.cancel()
        await asyncio.gather(*ways, return_exceptions=True)
        out.close()
