"""Spans for a collector: what workers tell of requests, as OpenTelemetry has it.

Runs in the observer, never in a worker: an export waits for a collector, which may be slow or gone. What waits is
bounded (`queue`), and dropped where it would be more. The attributes are those of the semantic conventions for HTTP
where these have one, and `edge.*` where they have none.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl, quote_plus

from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags
from opentelemetry.trace.status import Status, StatusCode

from edge import __version__
from edge.logs.errorlog import one_line
from edge.logs.logline import Log
from edge.observe import spans
from edge.observe.spans import Attempt, RecordError, Request
from edge.observe.traces import Traces

BATCH: Final = 512
DELAY_MS: Final = 1000.0
"""For which spans wait to be exported together."""
QUIET_SECONDS: Final = 30.0
"""Between two lines in the log about one kind of trouble."""

METHODS: Final = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
HTTP_VERSIONS: Final = {10: "1.0", 11: "1.1", 20: "2"}
TLS_VERSIONS: Final = {0x0303: "1.2", 0x0304: "1.3"}

Attributes = dict[str, str | int | float | bool]


class Exporter:
    """Takes records (`feed`) and exports them as spans, in a thread of its own. `send`: what does that, for tests."""

    def __init__(self, settings: Traces, log: Log, send: SpanExporter | None = None) -> None:
        self._settings = settings
        self._quiet = Quiet(log)
        _redirect_library_logs(self._quiet)
        self._sender = _Counting(send or _otlp(settings))
        self._processor = BatchSpanProcessor(
            self._sender,
            max_queue_size=settings.queue,
            max_export_batch_size=min(BATCH, settings.queue),
            schedule_delay_millis=DELAY_MS,
        )
        self._translate = Translator(settings)
        self._given = 0
        self.dropped = 0
        """Requests whose spans were not taken, as too many waited."""

    @property
    def exported(self) -> int:
        return self._sender.exported

    @property
    def failed(self) -> int:
        """Spans that the collector has not taken."""
        return self._sender.failed

    def counts(self) -> dict[str, int]:
        return {"exported": self.exported, "failed": self.failed, "dropped": self.dropped}

    def feed(self, datagram: bytes) -> None:
        """What a worker has sent: whole records. Never waits, and never raises."""
        if self._room() < 1:
            self._drop(spans.number(datagram))
            return
        try:
            for request in spans.read(datagram):
                self._take(request)
        except RecordError as e:
            self._quiet.say("warning", f"a worker's spans cannot be read: {e}")

    def _room(self) -> int:
        return self._settings.queue - (self._given - self._sender.done)

    def _drop(self, requests: int) -> None:
        self.dropped += requests
        self._quiet.say("warning", "traces: the collector is too slow, or gone; spans are dropped")

    def _take(self, request: Request) -> None:
        if self._room() < 1 + len(request.attempts):
            self._drop(1)
            return
        for span in self._translate.spans(request):
            self._given += 1
            self._processor.on_end(span)

    def close(self) -> None:
        """Exports what waits, as far as the collector takes it."""
        self._processor.shutdown()  # type: ignore[no-untyped-call]


class Quiet:
    """A log that says of each kind of trouble only so often."""

    def __init__(self, log: Log, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._said: dict[str, float] = {}
        self._untold: dict[str, int] = {}
        self._lock = threading.Lock()

    def say(self, level: str, message: str, kind: str = "") -> None:
        kind = kind or message
        with self._lock:
            now = self._clock()
            if len(self._said) > 100:
                self._said.clear()
            if now - self._said.get(kind, -QUIET_SECONDS) < QUIET_SECONDS:
                self._untold[kind] = self._untold.get(kind, 0) + 1
                return
            self._said[kind] = now
            untold = self._untold.pop(kind, 0)
        self._log(level, f"{message} ({untold} times more since)" if untold else message)


def _redirect_library_logs(quiet: Quiet) -> None:
    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            level = "error" if record.levelno >= logging.ERROR else "warning"
            quiet.say(level, one_line(f"traces: {record.getMessage()}")[:500], str(record.msg))

    library = logging.getLogger("opentelemetry")
    library.handlers = [Handler(logging.WARNING)]
    library.propagate = False


class _Counting(SpanExporter):
    """An exporter, and how many spans it is done with."""

    def __init__(self, inner: SpanExporter) -> None:
        self._inner = inner
        self.exported = self.failed = self.done = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = SpanExportResult.FAILURE
        try:
            result = self._inner.export(spans)
        finally:
            self.done += len(spans)
            if result is SpanExportResult.SUCCESS:
                self.exported += len(spans)
            else:
                self.failed += len(spans)
        return result

    def shutdown(self) -> None:
        self._inner.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        return True


def _otlp(settings: Traces) -> SpanExporter:
    return OTLPSpanExporter(
        endpoint=settings.endpoint,
        certificate_file=str(settings.ca) if settings.ca else None,
        headers=dict(settings.headers),
        timeout=settings.timeout / 1000,
        compression=Compression.Gzip if settings.compression == "gzip" else Compression.NoCompression,
    )


# Requests as spans.


class Translator:
    def __init__(self, settings: Traces) -> None:
        self._query = settings.query
        self._resource = Resource(
            {
                "service.name": settings.service,
                "service.version": __version__,
                "host.name": socket.gethostname(),
                **dict(settings.resource),
            }
        )
        self._scope = InstrumentationScope("edge", __version__)

    def spans(self, request: Request) -> Iterator[ReadableSpan]:
        """One for the request, and for each server that was asked one of its children."""
        flags = TraceFlags(request.trace_flags)
        parent = None
        if request.flags & spans.PARENT:
            parent = _context(request.trace_id, request.parent_id, flags, remote=True)
        own = _context(request.trace_id, request.span_id, flags)
        method = request.method if request.method in METHODS else "HTTP"
        yield ReadableSpan(
            name=f"{method} {request.route}" if request.route else method,
            context=own,
            parent=parent,
            resource=self._resource,
            attributes=self._of_request(request),
            kind=SpanKind.SERVER,
            status=_status(request.error, request.status >= 500),
            start_time=request.start,
            end_time=request.start + request.duration * 1000,
            instrumentation_scope=self._scope,
        )
        for number, attempt in enumerate(request.attempts):
            yield ReadableSpan(
                name=method,
                context=_context(request.trace_id, attempt.span_id, flags),
                parent=own,
                resource=self._resource,
                attributes=_of_attempt(request, attempt, number),
                kind=SpanKind.CLIENT,
                status=_status(attempt.error, attempt.status >= 400),
                start_time=request.start + attempt.began * 1000,
                end_time=request.start + max(attempt.ended, attempt.began) * 1000,
                instrumentation_scope=self._scope,
            )

    def _of_request(self, request: Request) -> Attributes:
        host, port = _split_authority(request.host)
        found: Attributes = {
            **_method(request.method),
            "url.scheme": "https",
            "url.path": request.path,
            "network.protocol.name": "http",
            "edge.bytes_in": request.bytes_in,
            "edge.bytes_out": request.bytes_out,
        }
        _add(
            found,
            {
                "server.address": host,
                "server.port": port,
                "url.query": self._shown_query(request.query),
                "http.response.status_code": request.status,
                "http.route": request.route,
                "network.protocol.version": HTTP_VERSIONS.get(request.http, ""),
                "tls.protocol.version": TLS_VERSIONS.get(request.tls, ""),
                "tls.client.server_name": request.server_name,
                "client.address": request.client,
                "client.port": request.client_port,
                "edge.upstream": request.upstream,
                "edge.first_byte_ms": request.first_byte / 1000,
                "error.type": _error(request.error, request.status, 500),
            },
        )
        if request.tls:
            found["tls.protocol.name"] = "tls"
            found["tls.resumed"] = bool(request.flags & spans.RESUMED)
        if request.flags & spans.EARLY_DATA:
            found["edge.early_data"] = True
        if request.flags & spans.PUSHED:
            found["edge.pushed"] = True
        return found

    def _shown_query(self, query: str) -> str:
        if self._query == "full":
            return query
        if self._query == "none":
            return ""
        names = parse_qsl(query, keep_blank_values=True, encoding="latin-1", max_num_fields=None)
        return "&".join(f"{quote_plus(name, encoding='latin-1')}=REDACTED" for name, _ in names)


def _of_attempt(request: Request, attempt: Attempt, number: int) -> Attributes:
    found: Attributes = {**_method(request.method), "edge.reused": bool(attempt.flags & spans.REUSED)}
    path = attempt.server.removeprefix("unix:")
    host, port = (path, 0) if path != attempt.server else _split_authority(attempt.server)
    _add(
        found,
        {
            "server.address": host,
            "server.port": port,
            "network.transport": "unix" if path != attempt.server else "tcp",
            "http.response.status_code": attempt.status,
            "http.request.resend_count": number,
            "edge.upstream": request.upstream,
            "edge.connect_ms": (attempt.connected - attempt.began) / 1000 if attempt.connected else 0,
            "edge.first_byte_ms": (attempt.first_byte - attempt.began) / 1000 if attempt.first_byte else 0,
            "error.type": _error(attempt.error, attempt.status, 400),
        },
    )
    return found


def _add(found: Attributes, maybe: dict[str, Any]) -> None:
    """Those that say something."""
    found.update({name: value for name, value in maybe.items() if value})


def _method(method: str) -> Attributes:
    if method in METHODS:
        return {"http.request.method": method}
    return {"http.request.method": "_OTHER", "http.request.method_original": method}


def _error(fault: str, status: int, least: int) -> str:
    return fault or (str(status) if status >= least else "")


def _status(fault: str, failed: bool) -> Status:
    if fault:
        return Status(StatusCode.ERROR, fault)
    return Status(StatusCode.ERROR if failed else StatusCode.UNSET)


def _split_authority(authority: str) -> tuple[str, int]:
    """Host without brackets, and port; 0: it has none."""
    host, colon, port = authority.rpartition(":")
    if not colon or not port.isdecimal() or port != port[:5] or (":" in host and not host.endswith("]")):
        return authority.strip("[]"), 0
    return host.strip("[]"), int(port)


def _context(trace_id: bytes, span_id: bytes, flags: TraceFlags, *, remote: bool = False) -> SpanContext:
    return SpanContext(int.from_bytes(trace_id), int.from_bytes(span_id), remote, flags)
