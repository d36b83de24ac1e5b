"""OCSP responses, fetched from the responders that certificates name, and kept fresh.

This runs in a process of its own that has given its privileges up: nothing that a stranger's server sends is read by
the master, nor where connections are served. What was found good is written to a `Cache`, where the workers find it.

A good response is never given up for a worse answer: it is used until it expires, whatever the responder says.
"""

import asyncio
import base64
import contextlib
import dataclasses
import datetime
import hashlib
import http.client
import io
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast
from urllib.parse import quote, urlsplit

from cryptography import x509
from cryptography.x509.ocsp import OCSPCertStatus

from edge.backoff import Backoff, spread
from edge.certificates import ocsp
from edge.certificates.ocsp import Answer, OcspError
from edge.logs.errorlog import one_line
from edge.logs.logline import Log

FETCH_SECONDS: Final = 15.0
"""For a response, from the look-up of the responder's name on."""
GET_MOST: Final = 255
"""Bytes of a URL up to which a request is a GET, which may be cached on the way (RFC 5019, section 5)."""
HEAD_MOST: Final = 16 * 1024
AT_ONCE: Final = 8
"""Requests under way."""
RETRY_SECONDS: Final = (5.0, 3600.0)
"""After a first failure, and at most."""

_LENGTH: Final = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,9})[ \t]*\r\n", re.I)


class Cache:
    """Responses in a directory, a file for each certificate. None is believed without a check."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def path(self, leaf: bytes) -> Path:
        return self._directory / f"{hashlib.sha256(leaf).hexdigest()[:40]}.der"

    def load(self, leaf: bytes, issuer: x509.Certificate | None) -> Answer | None:
        """A good response that holds now."""
        try:
            with self.path(leaf).open("rb") as file:
                der = file.read(ocsp.RESPONSE_MOST + 1)
            answer = ocsp.check(der, x509.load_der_x509_certificate(leaf), issuer)
        except (OSError, OcspError):
            return None
        return answer if answer.good and answer.expires else None

    def save(self, leaf: bytes, answer: Answer) -> None:
        """Whoever reads meanwhile gets the old one or this one, whole. Raises OSError."""
        path = self.path(leaf)
        part = path.with_suffix(f".{os.getpid()}")
        try:
            part.write_bytes(answer.der)
            part.replace(path)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink()
            raise


@dataclasses.dataclass(frozen=True, slots=True)
class Target:
    """A certificate whose responses are to be fetched. `label`: for the log; `urls`: its responders."""

    label: str
    leaf: bytes
    issuer: bytes
    urls: tuple[str, ...]
    demanded: bool
    """Whether clients refuse it without a response."""


class Fetcher:
    """Keeps the responses of all targets fresh: run() never ends."""

    def __init__(
        self,
        targets: Sequence[Target],
        cache: Cache,
        log: Log,
        retry: tuple[float, float] = RETRY_SECONDS,
    ) -> None:
        self._targets = targets
        self._cache = cache
        self._log = log
        self._retry = retry
        self._gate = asyncio.Semaphore(AT_ONCE)

    async def run(self) -> None:
        await asyncio.gather(*(self._keep(target) for target in self._targets))

    async def _keep(self, target: Target) -> None:
        leaf, issuer = map(x509.load_der_x509_certificate, (target.leaf, target.issuer))
        backoff = Backoff(*self._retry)
        held = self._cache.load(target.leaf, issuer)
        wait = max(_due(held), 0.0) if held else 0.0
        while True:
            await asyncio.sleep(wait)
            held = self._cache.load(target.leaf, issuer)
            try:
                async with self._gate:
                    answer = await self._ask(target, leaf, issuer, held)
                self._cache.save(target.leaf, answer)
            except (OcspError, OSError) as e:
                wait = backoff.failed()
                self._tell(target, held, str(e), wait)
                continue
            backoff.succeeded()
            # A responder may hand out what is due already: then it is asked again, but not without a pause.
            wait = _due(answer)
            wait = wait if wait > 0 else min(max(_left(answer) / 4, 60.0), 3600.0)
            self._log("info", f"{target.label}: OCSP response until {_show(answer.expires)}")

    async def _ask(
        self, target: Target, leaf: x509.Certificate, issuer: x509.Certificate, held: Answer | None
    ) -> Answer:
        """A good response that is no older than the one that is held. Raises OcspError."""
        problems = []
        for url in target.urls:
            try:
                answer = ocsp.check(await fetch(url, ocsp.request(leaf, issuer)), leaf, issuer)
                _judge(answer, held)
                return answer
            except TimeoutError:
                problems.append(f"{url} takes more than {FETCH_SECONDS:g} s")
            except OSError as e:
                problems.append(f"{url}: {e.strerror or e}")
            except OcspError as e:
                problems.append(f"{url}: the response {e}")
        raise OcspError("; ".join(problems))

    def _tell(self, target: Target, held: Answer | None, problem: str, wait: float) -> None:
        left = f"the one at hand holds until {_show(held.expires)}" if held else "clients get none"
        level = "error" if "revoked" in problem or (target.demanded and not held) else "warning"
        message = f"{target.label}: no OCSP response: {problem}; {left}; next try in {wait:.0f} s"
        self._log(level, one_line(message[:2000]))


def _judge(answer: Answer, held: Answer | None) -> None:
    if answer.status is OCSPCertStatus.REVOKED:
        raise OcspError(f"says that the certificate is revoked, since {_show(answer.revoked)}: replace it")
    if not answer.good:
        raise OcspError("says that the responder does not know the certificate")
    if answer.expires is None:
        raise OcspError("does not say until when it holds")
    if held and answer.begins < held.begins:
        raise OcspError("is older than the one at hand")


def _due(answer: Answer) -> float:
    """Seconds until the next one is to be fetched: at half of its life, not all at one moment. Negative: at once."""
    left = _left(answer)
    life = left + (datetime.datetime.now(datetime.UTC) - answer.begins).total_seconds()
    return left - spread(life * 0.45, by=0.1)


def _left(answer: Answer) -> float:
    """Seconds until it expires, which it does."""
    return (cast(datetime.datetime, answer.expires) - datetime.datetime.now(datetime.UTC)).total_seconds()


def _show(time: datetime.datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M} UTC" if time else "an unknown time"


# HTTP.


async def fetch(url: str, request: bytes) -> bytes:
    """The content of the answer to an OCSPRequest. Raises OcspError, OSError, TimeoutError.

    Redirects are not followed: a responder's URL stands in the certificate.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    async with asyncio.timeout(FETCH_SECONDS):
        reader, writer = await asyncio.open_connection(host, parts.port or 80)
        try:
            writer.write(_http_request(url, request))
            await writer.drain()
            came = await _read(reader)
        finally:
            writer.close()
    return _content(came)


def _http_request(url: str, request: bytes) -> bytes:
    """HTTP/1.0: the end of the answer is that of the connection, and no part of it is chunked."""
    parts = urlsplit(url)
    path = parts.path or "/"
    asked = f"{path.rstrip('/')}/{quote(base64.b64encode(request), safe='')}"
    post = len(url) - len(path) + len(asked) > GET_MOST or bool(parts.query)
    line = f"POST {path}{'?' if parts.query else ''}{parts.query}" if post else f"GET {asked}"
    head = f"{line} HTTP/1.0\r\nHost: {parts.netloc}\r\nAccept: application/ocsp-response\r\n"
    if not post:
        return f"{head}\r\n".encode("ascii")
    head += f"Content-Type: application/ocsp-request\r\nContent-Length: {len(request)}\r\n\r\n"
    return head.encode("ascii") + request


async def _read(reader: asyncio.StreamReader) -> bytes:
    came = bytearray()
    while piece := await reader.read(16384):
        came += piece
        if len(came) > HEAD_MOST + ocsp.RESPONSE_MOST:
            raise OcspError(f"has more than {ocsp.RESPONSE_MOST} bytes")
        head, _, content = came.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if length and len(content) >= int(length[1]):
            break  # some keep the connection open all the same
    return bytes(came)


def _content(came: bytes) -> bytes:
    response = http.client.HTTPResponse(cast(socket.socket, _Received(came)))
    try:
        response.begin()
        content = response.read()
    except (http.client.HTTPException, ValueError) as e:
        raise OcspError(f"is no HTTP ({type(e).__name__})") from None
    if response.status != http.client.OK:
        raise OcspError(f"has status {response.status}")
    return content


@dataclasses.dataclass(frozen=True, slots=True)
class _Received:
    """What HTTPResponse reads as if from a socket."""

    content: bytes

    def makefile(self, _mode: str) -> io.BytesIO:
        return io.BytesIO(self.content)
