"""The observer: a process beside the workers that answers those who look on, in plain HTTP, and never serves a client.

It reads what workers count in shared memory (`View.figures`), and has from the master, at least every second, what that
knows (`View.state`). It holds nothing of anybody else's: a scraper that hangs, or a fault here, harms nobody.

What is answered where is a table, path -> handler, for each listening socket: `sites`.
"""

import asyncio
import contextlib
import dataclasses
import functools
import json
import socket
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any, Final

import h11
from cext.base.stats import StatsTable

from edge.logs.errorlog import one_line
from edge.logs.logline import Log
from edge.observe import figures, metrics
from edge.observe.figures import Figures
from edge.observe.labels import KINDS
from edge.observe.page.site import Page
from edge.observe.settings import Endpoint, Metrics, StatusPage
from edge.observe.spans import DATAGRAM_MOST
from edge.observe.traces import Traces
from edge.processes import channel
from edge.processes.channel import Channel

STATE: Final = b"S"
"""The master's word: what it knows, as JSON."""
LABELS: Final = b"L"
"""The master's word: JSON, [first index, [[kind, label], ...]]: what has got a series since the last time."""

CONNECTIONS_MOST: Final = 64
HEAD_MOST: Final = 16 << 10
"""Bytes of a request's head."""
REQUEST_SECONDS: Final = 30.0
"""From an answer, or from the connection's beginning, to the next whole request."""
ANSWER_SECONDS: Final = 30.0
"""For a client to take its answer."""
ANSWERS_MOST: Final = 128 << 20
"""Bytes of all answers that clients are still to take."""
DATAGRAMS_IN_A_TURN: Final = 16
_PIECE: Final = 1 << 16
_SMALL: Final = 1 << 12
"""So much is read of a request before its size is looked at."""

Headers = list[tuple[str, str]]
Answer = tuple[int, Headers, bytes]
"""Status, header fields beside Content-Length, and content."""


@dataclasses.dataclass(frozen=True, slots=True)
class Request:
    """GET or HEAD: which one, a handler need not care."""

    path: str
    query: str
    headers: Mapping[str, str]
    """By name in lower case; of several the last."""


Handler = Callable[[Request], Awaitable[Answer]]
"""What it raises is logged, and answered 500."""


@dataclasses.dataclass(frozen=True, slots=True)
class Observing:
    """The work of the companion (`edge.processes.companion.Work`). What is not compared is the same for the master's
    life."""

    owner: tuple[int, int]
    metrics: Metrics | None
    status_page: StatusPage | None
    traces: Traces | None
    sockets: Mapping[Endpoint, socket.socket] = dataclasses.field(compare=False)
    """Listening."""
    spans: socket.socket = dataclasses.field(compare=False)
    """Datagrams that workers send."""
    table: StatsTable = dataclasses.field(compare=False)
    labels: tuple[tuple[str, str], ...] = dataclasses.field(compare=False)
    log: Log = dataclasses.field(compare=False)

    @property
    def endpoints(self) -> set[Endpoint]:
        """Where it is to answer; none: there is nothing to be observed."""
        return {wanted.bind for wanted in (self.metrics, self.status_page) if wanted}

    def run(self, line: socket.socket) -> None:
        asyncio.run(_observe(self, Channel(line, channel.MASTER_SAYS_MOST)))


class View:
    """What there is to be seen."""

    def __init__(self, table: StatsTable, labels: Collection[tuple[str, str]], spans: socket.socket) -> None:
        self._table = table
        self._labels = list(labels)
        self.spans = spans
        self.state: dict[str, Any] = {}
        """What the master has said last (`edge.admin.state`); {}: nothing yet."""
        self.exports: Callable[[], dict[str, int]] | None = None
        """What has become of spans: {exported, failed, dropped}; None: there are none."""

    def figures(self, rows: Collection[int] | None = None) -> Figures:
        """What all workers have counted, or those with these rows. Raises figures.Unreadable."""
        return figures.read(self._table, self._labels, rows)

    def hear(self, letter: bytes, body: bytes) -> None:
        """The master's word."""
        if letter == STATE:
            said = json.loads(body)
            if said["certificates"] is None:
                said["certificates"] = self.state["certificates"]
            self.state = said
        elif letter == LABELS:
            first, labels = json.loads(body)
            self._labels[first:] = [(kind, label) for kind, label in labels if kind in KINDS]


def sites(observing: Observing, view: View) -> dict[Endpoint, dict[str, Handler]]:
    """Who answers what, by address and path."""
    found: dict[Endpoint, dict[str, Handler]] = {endpoint: {} for endpoint in observing.endpoints}
    if observing.metrics:
        found[observing.metrics.bind] |= {"/metrics": metrics.Exposition(view, observing.metrics).answer}
    if observing.status_page:
        found[observing.status_page.bind] |= Page(view, observing.status_page).handlers()
    return found


async def _observe(observing: Observing, master: Channel) -> None:
    """Until the master has gone."""
    loop = asyncio.get_running_loop()
    view = View(observing.table, observing.labels, observing.spans)
    ended = loop.create_future()

    def hear() -> None:
        for letter, body in master.receive():
            view.hear(letter, body)
        if master.ended and not ended.done():
            ended.set_result(None)

    loop.add_reader(master.fileno(), hear)
    bounds = Bounds()
    for endpoint, handlers in sites(observing, view).items():
        serve = functools.partial(_serve, Site(handlers, bounds, observing.log))
        await asyncio.start_server(serve, sock=observing.sockets[endpoint].dup(), limit=HEAD_MOST)
    if observing.traces:
        view.exports = _export(loop, observing, observing.traces)
    hear()
    await ended


def _export(
    loop: asyncio.AbstractEventLoop, observing: Observing, traces: Traces
) -> Callable[[], dict[str, int]]:
    """What workers send of traces goes to the collector -> what tells what has become of it."""
    from edge.observe.trace_export import Exporter  # noqa: PLC0415  # OpenTelemetry, which is installed where it is wanted

    exporter = Exporter(traces, observing.log)

    def take() -> None:
        for _ in range(DATAGRAMS_IN_A_TURN):
            try:
                exporter.feed(observing.spans.recv(DATAGRAM_MOST))
            except BlockingIOError:
                return

    loop.add_reader(observing.spans.fileno(), take)
    return exporter.counts


@dataclasses.dataclass(slots=True)
class Bounds:
    """What all clients have together."""

    connections: int = 0
    answers: int = 0
    """Bytes."""
    silent: dict[asyncio.WriteTransport, None] = dataclasses.field(default_factory=dict)
    """Connections on which a whole request has yet to come; the one that has been waited for longest is first."""

    def make_room(self) -> bool:
        """For one more connection: whoever is silent longest gives way."""
        if self.connections >= CONNECTIONS_MOST:
            if not self.silent:
                return False
            longest = next(iter(self.silent))
            del self.silent[longest]
            longest.abort()
        return True


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    handlers: Mapping[str, Handler]
    bounds: Bounds
    log: Log

    async def answer(self, event: h11.Request) -> Answer:
        target, _, query = event.target.decode("ascii").partition("?")
        if event.method not in (b"GET", b"HEAD"):
            return plain(405, "Only GET and HEAD are answered here.", [("Allow", "GET, HEAD")])
        handler = self.handlers.get(target)
        if handler is None:
            return plain(404, f"There is nothing here; there is: {', '.join(sorted(self.handlers))}")
        headers = {name.decode("ascii"): value.decode("latin-1") for name, value in event.headers}
        try:
            return await handler(Request(target, query, headers))
        except figures.Unreadable:
            return plain(503, "The numbers cannot be read at the moment.")
        except Exception as e:
            self.log("error", one_line(f"observer: {target}: {type(e).__name__}: {e}"))
            return plain(500, "This failed; the error log says how.")


def plain(status: int, text: str, headers: Headers | None = None) -> Answer:
    """A line of text."""
    return status, [("Content-Type", "text/plain; charset=utf-8"), *(headers or [])], f"{text}\n".encode()


async def _serve(site: Site, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One connection."""
    if not site.bounds.make_room():
        writer.transport.abort()
        return
    site.bounds.connections += 1
    try:
        await _converse(site, reader, writer)
    except (OSError, TimeoutError, h11.LocalProtocolError):
        pass
    finally:
        site.bounds.connections -= 1
        writer.transport.abort()


async def _converse(site: Site, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_MOST - _SMALL)
    while True:
        try:
            site.bounds.silent[writer.transport] = None
            try:
                async with asyncio.timeout(REQUEST_SECONDS):
                    event = await _request(connection, reader)
            finally:
                site.bounds.silent.pop(writer.transport, None)
            if event is None:
                return
            answer = await site.answer(event)
        except h11.RemoteProtocolError as e:
            event, answer = None, plain(e.error_status_hint, "This request cannot be understood.")
        await _send(site.bounds, connection, writer, event, answer)
        if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
            await _close(reader, writer)
            return
        connection.start_next_cycle()


async def _request(connection: h11.Connection, reader: asyncio.StreamReader) -> h11.Request | None:
    """The next request, of which any content is passed over; None: there is none."""
    request: h11.Request | None = None
    content = 0
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(_SMALL))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            content += len(event.data)
            if content > HEAD_MOST:
                raise h11.RemoteProtocolError("more content than anybody needs here", error_status_hint=413)
        elif isinstance(event, h11.EndOfMessage):
            return request
        else:
            return None


async def _send(
    bounds: Bounds,
    connection: h11.Connection,
    writer: asyncio.StreamWriter,
    request: h11.Request | None,
    answer: Answer,
) -> None:
    """`request`: None where there was none that could be understood, and none will be read any more."""
    status, headers, content = answer
    if bounds.answers + len(content) > ANSWERS_MOST and bounds.answers:
        status, headers, content = plain(503, "Others are still being answered.", [("Retry-After", "10")])
    fields = [*headers, ("Content-Length", str(len(content))), ("X-Content-Type-Options", "nosniff")]
    if not any(name.lower() == "cache-control" for name, _ in headers):
        fields.append(("Cache-Control", "no-store"))
    if request is None:
        fields.append(("Connection", "close"))
    bounds.answers += len(content)
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            writer.write(connection.send(h11.Response(status_code=status, headers=fields)))
            if request is None or request.method != b"HEAD":
                for at in range(0, len(content), _PIECE):
                    writer.write(connection.send(h11.Data(data=content[at : at + _PIECE])))
                    await writer.drain()
            writer.write(connection.send(h11.EndOfMessage()))
            await writer.drain()
    finally:
        bounds.answers -= len(content)


async def _close(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """So that the client gets all of its answer: what it may still be sending must not end it by a reset."""
    with contextlib.suppress(OSError, TimeoutError):
        writer.write_eof()
        async with asyncio.timeout(1.0):
            while await reader.read(_PIECE):
                pass
