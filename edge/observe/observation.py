"""The master's half of the observer: its sockets, which outlive it, what it is told, and that it runs."""

import json
import socket
import time
from collections.abc import Callable
from typing import Any, Final

from edge.change.generation import Generation
from edge.change.inheritance import Lend, Part, Take
from edge.errors import ConfigError
from edge.logs.logline import Log
from edge.observe.counting import Counting
from edge.observe.observer import LABELS, STATE, Observing
from edge.observe.settings import Endpoint
from edge.processes.companion import Companion
from edge.processes.sockets import REASONS
from edge.schema import Place
from edge.settings import ServerTable, Settings

TELL_SECONDS: Final = 1.0
"""Between two reports of what the master knows, at most."""
DEAF_SECONDS: Final = 30.0
"""An observer that has taken nothing for so long is ended; the next one may do better."""
BACKLOG: Final = 128


class Observation:
    """`companion` is the observer, `describe()` what it is told: now and then, and at once when `changes()`, which is
    cheap, gives something else."""

    def __init__(
        self,
        companion: Companion,
        counting: Counting,
        describe: Callable[[], dict[str, Any]],
        changes: Callable[[], object],
        log: Log,
    ) -> None:
        self._companion = companion
        self._counting = counting
        self._describe = describe
        self._changes = changes
        self._seen: object = None
        self._log = log
        self.sockets: dict[Endpoint, socket.socket] = {}
        """Bound and listening."""
        self._spans, self.span_sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        """Workers send to the latter, and never wait: see unix(7), /proc/sys/net/unix/max_dgram_qlen."""
        for end in (self._spans, self.span_sender):
            end.setblocking(False)
        self._told: int | None = None
        """The process that was told of the first `_labels` labels."""
        self._labels = 0
        self._certificates: object = None
        """Those that it was told of."""
        self._tell_at = 0.0
        self._heard_at = 0.0

    def bequeath(self, lend: Lend) -> Part:
        return {"observer": [[[e.address, e.port], lend(s.fileno())] for e, s in self.sockets.items()]}

    def inherit(self, part: Part, take: Take) -> None:
        self.sockets |= {Endpoint(*e): socket.socket(fileno=take(fd)) for e, fd in part["observer"]}

    def stage(self, settings: Settings) -> None:
        """Binds what the settings name and is not held yet; all or nothing. What was held stays, until `keep`. Raises
        ConfigError."""
        added: dict[Endpoint, socket.socket] = {}
        try:
            for name, endpoint in wanted(settings.server).items():
                if endpoint not in self.sockets and endpoint not in added:
                    added[endpoint] = _listening(endpoint, Place(settings.file).key("server").key(name).key("bind"))
        except BaseException:
            for s in added.values():
                s.close()
            raise
        self.sockets |= added

    def keep(self, generation: Generation) -> float:
        """To be called every now and then, when this configuration is the one that holds: sees to it that the observer
        runs, if it is wanted, and knows what the master knows -> when next (monotonic)."""
        server = generation.prepared.settings.server
        endpoints = set(wanted(server).values())
        for endpoint in self.sockets.keys() - endpoints:
            self.sockets.pop(endpoint).close()
        self._companion.keep(self._work(generation) if endpoints or server.traces else None)
        if self._companion.pid is None:
            return time.monotonic() + TELL_SECONDS
        seen = self._changes()
        if time.monotonic() >= self._tell_at or self._told != self._companion.pid or seen != self._seen:
            self._seen = seen
            self.tell()
        return self._tell_at

    def tell(self) -> None:
        """Something has happened: the observer is told what the master knows now. One that is busy is told later."""
        self._tell_at = time.monotonic() + TELL_SECONDS
        line = self._companion.channel
        if line is None:
            return
        if self._told != self._companion.pid:
            self._told, self._labels, self._heard_at = self._companion.pid, 0, time.monotonic()
            self._certificates = None
        line.flush()
        if line.sending:
            if time.monotonic() > self._heard_at + DEAF_SECONDS:
                self._log("error", "the observer does not hear what it is told: it is ended")
                self._companion.stop()
            return
        self._heard_at = time.monotonic()
        labels = self._counting.labels
        if self._labels < len(labels):
            line.send(LABELS, json.dumps([self._labels, labels.after(self._labels)]).encode())
            self._labels = len(labels)
        said = self._describe()
        if said["certificates"] is self._certificates:
            said = {**said, "certificates": None}  # they may be very many, and change seldom
        else:
            self._certificates = said["certificates"]
        line.send(STATE, json.dumps(said).encode())

    def leave(self, worker: bool) -> None:
        """In another process: what is the observer's is closed. A worker sends spans."""
        for s in self.sockets.values():
            s.close()
        self._spans.close()
        if not worker:
            self.leave_sender()

    def leave_sender(self) -> None:
        """In another process: what workers send spans by is closed."""
        self.span_sender.close()

    def close(self) -> None:
        """The master ends."""
        for s in self.sockets.values():
            s.close()

    def _work(self, generation: Generation) -> Observing:
        server = generation.prepared.settings.server
        return Observing(
            owner=generation.owner,
            metrics=server.metrics,
            status_page=server.status_page,
            traces=server.traces,
            sockets=self.sockets,
            spans=self._spans,
            table=self._counting.table,
            labels=tuple(self._counting.labels),
            log=self._log,
        )


def wanted(server: ServerTable) -> dict[str, Endpoint]:
    """Where something is to be observed, by the key that says so."""
    sections = {"metrics": server.metrics, "status_page": server.status_page}
    return {name: section.bind for name, section in sections.items() if section is not None}


def _listening(endpoint: Endpoint, at: Place) -> socket.socket:
    s = socket.socket(endpoint.family, socket.SOCK_STREAM)
    try:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if endpoint.family == socket.AF_INET6:
            s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        s.bind((endpoint.address, endpoint.port))
        s.listen(BACKLOG)
        s.setblocking(False)
    except OSError as e:
        s.close()
        raise _refusal(endpoint, e, at) from None
    return s


def _refusal(endpoint: Endpoint, e: OSError, at: Place) -> ConfigError:
    problem, _, remedy = REASONS.get(e.errno or 0, f"cannot be used: {e.strerror}; choose another").partition("; ")
    return at.error(f"{endpoint}: the address {problem}", remedy)
