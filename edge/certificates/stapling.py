"""Fetched OCSP responses on their way to clients: a companion of the master fetches them, the workers look for what
it has written and staple it.

The directory belongs to the user that workers run as: master and key material have no part in it.
"""

import asyncio
import dataclasses
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

from edge.certificates import ocsp
from edge.certificates.certs import Identity
from edge.certificates.ocsp_fetch import Cache, Fetcher, Target
from edge.certificates.serving import Serving
from edge.logs.logline import Log
from edge.schema import Place
from edge.settings import Settings

LOOK_MS: Final = 1000
"""How often a worker looks whether there are new responses."""


def targets(identities: Iterable[Identity]) -> tuple[Target, ...]:
    """What is to be fetched for them."""
    return tuple(
        Target(
            f"{identity.at.path} ({', '.join(identity.names) or 'no names'})",
            identity.chain[0],
            identity.chain[1],
            identity.responders,
            identity.must_staple,
        )
        for identity in identities
        if identity.responders
    )


def is_there(directory: Path, identity: Identity) -> bool:
    """Whether it needs no response, or has one; whoever uses that reads it."""
    return not identity.responders or Cache(directory).path(identity.chain[0]).exists()


class Directory:
    """Where the responses are: in a configuration's `cache_dir`, or, without one, in a directory for the master's life,
    which is made only when something is to be fetched."""

    def __init__(self) -> None:
        self._own = Path(tempfile.gettempdir()) / f"edge-{secrets.token_hex(8)}"
        self._made = False

    def bequeath(self) -> str | None:
        """What was made for the master's life alone, for the master that takes its place."""
        return str(self._own) if self._made else None

    def inherit(self, own: str | None) -> None:
        if own:
            self._own, self._made = Path(own), True

    def disown(self) -> None:
        """It is somebody else's to remove."""
        self._made = False

    def path(self, settings: Settings) -> Path:
        return (settings.server.cache_dir or self._own) / "ocsp"

    def make(self, settings: Settings, owner: tuple[int, int]) -> None:
        """Makes it, for `owner` (user and group) to write. Raises ConfigError."""
        place = Place(settings.file).key("server").key("cache_dir")
        path = self.path(settings)
        try:
            if settings.server.cache_dir is None and not self._made:
                self._own.mkdir(mode=0o755)
                self._made = True
            path.mkdir(mode=0o755, exist_ok=True)
            _give(path, owner)
        except OSError as e:
            raise place.error(
                f"{path}: {(e.strerror or 'unusable').lower()}",
                "name a directory in which the user who starts edge may make another",
            ) from None
        if not os.access(path, os.W_OK):
            raise place.error(f"{path} cannot be written", "give it to the user that edge runs as")

    def remove(self) -> None:
        """What was made for the master's life alone."""
        if self._made:
            shutil.rmtree(self._own, ignore_errors=True)
            self._made = False


def _give(path: Path, owner: tuple[int, int]) -> None:
    """The directory itself, not what somebody may have put in its place."""
    if os.geteuid() != 0:
        return
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        os.fchown(fd, *owner)
        os.fchmod(fd, 0o755)
    finally:
        os.close(fd)


class Staples:
    """A worker's half: the responses that are stapled."""

    def __init__(self, serving: Serving, directory: Path) -> None:
        self._serving = serving
        self._cache = Cache(directory)
        self._seen: dict[Path, tuple[int, ...] | None] = {}

    def fill(self, identities: Mapping[int, Identity]) -> dict[int, Identity]:
        """The identities with the responses that there are for them."""
        return {i: self._filled(identity) for i, identity in identities.items()}

    def look(self) -> None:
        """Uses what has come since the last time."""
        changed = {}
        for i in self._serving.few.fetched:
            identity = self._serving.identities[i]
            path = self._cache.path(identity.chain[0])
            stamp = _stamp(path)
            if stamp == self._seen.get(path):
                continue
            self._seen[path] = stamp
            filled = self._filled(identity)
            if filled.ocsp_response != identity.ocsp_response:
                changed[i] = filled
        if changed:
            self._serving.prepare(changed).commit()

    def _filled(self, identity: Identity) -> Identity:
        if not identity.responders:
            return identity
        answer = self._cache.load(identity.chain[0], ocsp.issuer_of(identity.chain))
        if answer is None or answer.expires is None:
            return identity
        return dataclasses.replace(identity, ocsp_response=answer.der, ocsp_expires=answer.expires.timestamp())


def _stamp(path: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns)


@dataclasses.dataclass(frozen=True, slots=True)
class Fetching:
    """What a companion of the master does: fetch these, into that directory, as that user and group."""

    targets: tuple[Target, ...]
    directory: Path
    owner: tuple[int, int]
    log: Log = dataclasses.field(compare=False)

    def run(self, line: socket.socket) -> None:
        asyncio.run(_fetch_until_end(Fetcher(self.targets, Cache(self.directory), self.log), line))


async def _fetch_until_end(fetcher: Fetcher, line: socket.socket) -> None:
    """Until the master has gone, which says nothing before."""
    line.setblocking(False)
    work = asyncio.ensure_future(fetcher.run())
    ended = asyncio.ensure_future(asyncio.get_running_loop().sock_recv(line, 1))
    await asyncio.wait([work, ended], return_when=asyncio.FIRST_COMPLETED)
    if work.done():
        work.result()
    work.cancel()
    ended.cancel()
