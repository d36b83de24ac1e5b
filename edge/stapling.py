"""Fetched OCSP responses on their way to clients: the master keeps a process that fetches them, the workers look for
what it has written and staple it.

The directory belongs to the user that workers run as: master and key material have no part in it.
"""

import asyncio
import contextlib
import dataclasses
import os
import secrets
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final

from setproctitle import setproctitle

from edge import ocsp
from edge.certs import Identity
from edge.errorlog import one_line
from edge.ocsp_fetch import Cache, Fetcher, Log, Target
from edge.schema import Place
from edge.serving import Serving
from edge.settings import Settings

LOOK_MS: Final = 1000
"""How often a worker looks whether there are new responses."""
RESTART_SECONDS: Final = (1.0, 60.0)
"""Until the process that fetches is started again, after a first death and at most."""
PARENT_SECONDS: Final = 1.0


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
        fetched = {i: identity for i, identity in enumerate(self._serving.identities) if identity.responders}
        changed = {}
        for i, identity in fetched.items():
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


class Stapler:
    """The master's half: a process that fetches what is wanted, started again when it dies or something else is.

    `leave()` closes, in that process, what is not its own, and `become(user, group)` gives privileges up.
    """

    def __init__(self, log: Log, leave: Callable[[], None], become: Callable[[int, int], None]) -> None:
        self._log = log
        self._leave = leave
        self._become = become
        self._job: Job | None = None
        self._process: tuple[int, int] | None = None
        """Its id and pidfd."""
        self._start_at = 0.0
        self._deaths = 0

    def keep(self, job: "Job") -> None:
        """To be called every now and then: sees to it that the process runs, if anything is wanted."""
        if job != self._job:
            self.stop()
            self._job, self._start_at, self._deaths = job, 0.0, 0
        if self._process and _has_ended(self._process[1]):
            self.stop()
            wait = self._later()
            self._log("error", f"the process that fetches OCSP responses has ended; the next starts in {wait:g} s")
        if job.targets and not self._process and time.monotonic() >= self._start_at:
            self._start(job)

    def stop(self) -> None:
        """Ends it. It has nothing to lose."""
        if self._process:
            with contextlib.suppress(OSError):
                signal.pidfd_send_signal(self._process[1], signal.SIGKILL)
            os.close(self._process[1])
            self._process = None

    def _later(self) -> float:
        """Puts the next start off -> by how many seconds."""
        wait: float = min(RESTART_SECONDS[0] * 2 ** min(self._deaths, 20), RESTART_SECONDS[1])
        self._deaths += 1
        self._start_at = time.monotonic() + wait
        return wait

    def _start(self, job: "Job") -> None:
        master = os.getpid()
        try:
            pid = os.fork()
        except OSError as e:
            wait = self._later()
            self._log("error", f"the process that fetches OCSP responses cannot be started: {e}; again in {wait:g} s")
            return
        if pid:
            self._process = (pid, os.pidfd_open(pid))
            return
        try:
            self._serve(job, master)
        except BaseException as e:
            self._log("error", one_line(f"fetching OCSP responses: {type(e).__name__}: {e}"))
        finally:
            os._exit(1)

    def _serve(self, job: "Job", master: int) -> None:
        """In the process: never returns while the master lives."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU):
            signal.signal(number, signal.SIG_IGN)
        setproctitle("edge: ocsp")
        self._leave()
        self._become(*job.owner)
        asyncio.run(_fetch_while(Fetcher(job.targets, Cache(job.directory), self._log), master))


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """What the process does: fetch these, into that directory, as that user and group."""

    targets: tuple[Target, ...]
    directory: Path
    owner: tuple[int, int]


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))


async def _fetch_while(fetcher: Fetcher, master: int) -> None:
    """Until the master has gone."""
    work = asyncio.ensure_future(fetcher.run())
    while os.getppid() == master and not work.done():
        await asyncio.wait([work], timeout=PARENT_SECONDS)
    if work.done():
        work.result()
    work.cancel()
