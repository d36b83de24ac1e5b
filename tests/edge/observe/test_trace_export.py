"""Records of requests as OpenTelemetry's spans: what they say, and that a collector's troubles reach nobody else."""

import dataclasses
import json
import threading

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind
from opentelemetry.trace.status import StatusCode

from edge.observe.spans import EARLY_DATA, PARENT, PUSHED, RESUMED, REUSED, Attempt, Request
from edge.observe.trace_export import QUIET_SECONDS, Exporter, Quiet, Translator
from edge.observe.traces import Traces
from edge.schema import Place, read_table

TRACE = bytes(range(16))
ATTEMPT = Attempt(b"attempt1", 100, 900, 200, 800, 200, 0, "10.0.0.7:9000", "")
REQUEST = Request(
    flags=PARENT | RESUMED,
    trace_flags=3,
    trace_id=TRACE,
    span_id=b"requests",
    parent_id=b"a parent",
    start=1_800_000_000_000_000_000,
    duration=1000,
    first_byte=800,
    bytes_in=10,
    bytes_out=2000,
    status=200,
    tls=0x0304,
    http=20,
    client_port=50000,
    client="192.0.2.1",
    method="GET",
    host="example.com:8443",
    path="/a",
    query="",
    server_name="example.com",
    route="/*",
    upstream="app",
    error="",
    attempts=(ATTEMPT,),
)


def settings(**given):
    return read_table(Traces, {"endpoint": "http://127.0.0.1:9/v1/traces", **given}, Place("edge.toml"))


def spans_of(request=REQUEST, **given):
    return list(Translator(settings(**given)).spans(request))


def changed(**values):
    return dataclasses.replace(REQUEST, **values)


def text(value):
    return bytes([len(value)]) + value


def record(**values):
    """A record of a request without attempts, as bytes."""
    path = values.get("path", b"/")
    facts = bytes([1, 0, 1]) + TRACE + b"requests" + bytes(8) + bytes(8 * 5) + bytes(2 + 2) + b"\x14" + bytes(2)
    texts = text(b"") + text(b"GET") + text(b"h") + len(path).to_bytes(2) + path + bytes(2) + text(b"") * 4
    body = facts + texts + b"\x00"
    return len(body).to_bytes(2) + body


# ---- spans ----

def test_a_request_and_its_attempt():
    own, child = spans_of()
    assert (own.name, own.kind, own.status.status_code) == ("GET /*", SpanKind.SERVER, StatusCode.UNSET)
    assert own.context.trace_id.to_bytes(16) == TRACE and own.context.span_id.to_bytes(8) == b"requests"
    assert own.parent.span_id.to_bytes(8) == b"a parent" and own.parent.is_remote
    assert (own.start_time, own.end_time) == (REQUEST.start, REQUEST.start + 1_000_000)
    assert dict(own.attributes) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "http.route": "/*",
        "url.scheme": "https",
        "url.path": "/a",
        "server.address": "example.com",
        "server.port": 8443,
        "client.address": "192.0.2.1",
        "client.port": 50000,
        "network.protocol.name": "http",
        "network.protocol.version": "2",
        "tls.protocol.name": "tls",
        "tls.protocol.version": "1.3",
        "tls.client.server_name": "example.com",
        "tls.resumed": True,
        "edge.upstream": "app",
        "edge.first_byte_ms": 0.8,
        "edge.bytes_in": 10,
        "edge.bytes_out": 2000,
    }
    assert (child.name, child.kind) == ("GET", SpanKind.CLIENT)
    assert child.parent.span_id == own.context.span_id and child.context.trace_id == own.context.trace_id
    assert child.context.span_id.to_bytes(8) == b"attempt1"
    assert (child.start_time, child.end_time) == (REQUEST.start + 100_000, REQUEST.start + 900_000)
    assert dict(child.attributes) == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "server.address": "10.0.0.7",
        "server.port": 9000,
        "network.transport": "tcp",
        "edge.upstream": "app",
        "edge.reused": False,
        "edge.connect_ms": 0.1,
        "edge.first_byte_ms": 0.7,
    }


def test_a_root_has_no_parent():
    assert spans_of(changed(flags=0))[0].parent is None


def test_what_went_wrong():
    own, child = spans_of(changed(status=503, error="connect failed", attempts=(
        dataclasses.replace(ATTEMPT, status=0, error="connect", connected=0, first_byte=0),)))
    assert (own.status.status_code, own.status.description) == (StatusCode.ERROR, "connect failed")
    assert own.attributes["error.type"] == "connect failed"
    assert child.attributes["error.type"] == "connect" and child.status.status_code is StatusCode.ERROR
    assert "http.response.status_code" not in child.attributes


@pytest.mark.parametrize(
    ("status", "of_request", "of_attempt"), [(404, None, "404"), (500, "500", "500"), (302, None, None)])
def test_statuses_are_a_servers_error_from_500_on_and_a_clients_from_400(status, of_request, of_attempt):
    own, child = spans_of(changed(status=status, attempts=(dataclasses.replace(ATTEMPT, status=status),)))
    assert own.attributes.get("error.type") == of_request
    assert child.attributes.get("error.type") == of_attempt
    for span, error in ((own, of_request), (child, of_attempt)):
        assert (span.status.status_code is StatusCode.ERROR) == (error is not None)


def test_further_attempts_are_numbered():
    again = dataclasses.replace(ATTEMPT, span_id=b"attempt2", flags=REUSED, server="unix:/run/app.sock")
    _, first, second = spans_of(changed(attempts=(ATTEMPT, again)))
    assert "http.request.resend_count" not in first.attributes
    assert second.attributes["http.request.resend_count"] == 1
    assert second.attributes["edge.reused"] is True
    assert (second.attributes["server.address"], second.attributes["network.transport"]) == ("/run/app.sock", "unix")


@pytest.mark.parametrize(
    ("host", "address", "port"),
    [("[::1]:8443", "::1", 8443), ("[::1]", "::1", None), ("::1", "::1", None), ("a.example", "a.example", None),
     ("a:b", "a:b", None), ("a:999999", "a:999999", None), ("", None, None)])
def test_hosts(host, address, port):
    attributes = spans_of(changed(host=host))[0].attributes
    assert (attributes.get("server.address"), attributes.get("server.port")) == (address, port)


def test_methods_that_are_no_ones():
    own, child = spans_of(changed(method="PURGE"))
    for span in (own, child):
        assert span.attributes["http.request.method"] == "_OTHER"
        assert span.attributes["http.request.method_original"] == "PURGE"
    assert (own.name, child.name) == ("HTTP /*", "HTTP")


def test_flags():
    attributes = spans_of(changed(flags=PUSHED | EARLY_DATA, tls=0x0303, http=11))[0].attributes
    assert attributes["edge.pushed"] and attributes["edge.early_data"] and not attributes["tls.resumed"]
    assert (attributes["tls.protocol.version"], attributes["network.protocol.version"]) == ("1.2", "1.1")
    assert "tls.protocol.name" not in spans_of(changed(tls=0))[0].attributes


@pytest.mark.parametrize(
    ("how", "shown"),
    [("none", None), ("full", "user=al%20ice&key=s3cret&empty=&bare"),
     ("names", "user=REDACTED&key=REDACTED&empty=REDACTED&bare=REDACTED")])
def test_queries(how, shown):
    query = "user=al%20ice&key=s3cret&empty=&bare"
    assert spans_of(changed(query=query), query=how)[0].attributes.get("url.query") == shown
    if how != "full":
        assert "s3cret" not in json.dumps([dict(s.attributes) for s in spans_of(changed(query=query), query=how)])


def test_the_resource():
    resource = spans_of(service="front", resource={"deployment.environment.name": "test"})[0].resource.attributes
    assert (resource["service.name"], resource["deployment.environment.name"]) == ("front", "test")
    assert resource["service.version"] and resource["host.name"]


def test_whatever_peers_send_can_be_encoded():
    everything = bytes(range(256)).decode("latin-1")
    names = ("client", "method", "host", "path", "query", "server_name", "route", "upstream", "error")
    values = dict.fromkeys(names, everything)
    attempts = (dataclasses.replace(ATTEMPT, server=everything, error=everything, ended=0),)
    odd = changed(**values, status=65535, tls=65535, http=255, start=2**63 - 2**40, duration=2**30, attempts=attempts)
    assert encode_spans(spans_of(odd, query="names")).SerializeToString()


# ---- exporting ----

class Slow(SpanExporter):
    """A collector that does not answer until it may."""

    def __init__(self):
        self.may = threading.Event()
        self.got = 0

    def export(self, spans):
        self.may.wait(30)
        self.got += len(spans)
        return SpanExportResult.FAILURE

    def shutdown(self):
        self.may.set()

    def force_flush(self, timeout_millis=30000):
        return True


def exporter(send, log=None, **given):
    return Exporter(settings(**given), log or (lambda level, message: None), send)


def test_spans_are_exported_together():
    memory = InMemorySpanExporter()
    own = exporter(memory)
    own.feed(record(path=b"/1") + record(path=b"/2"))
    own.feed(record(path=b"/3"))
    own.close()
    assert [span.attributes["url.path"] for span in memory.get_finished_spans()] == ["/1", "/2", "/3"]
    assert (own.exported, own.failed, own.dropped) == (3, 0, 0)


def test_no_more_than_the_queue_waits():
    lines, slow = [], Slow()
    own = exporter(slow, lambda level, message: lines.append((level, message)), queue=16)
    for _ in range(100):
        own.feed(record() * 10)
    assert own.dropped == 1000 - 16, "whether they were read for it or not"
    assert len(lines) == 1 and "dropped" in lines[0][1]
    slow.may.set()
    own.close()
    assert (slow.got, own.failed, own.exported) == (16, 16, 0)


def test_what_is_no_record_is_left_out():
    lines, memory = [], InMemorySpanExporter()
    own = exporter(memory, lambda level, message: lines.append(message))
    for noise in (b"\x00", b"\xff" * 100, record()[:-1], record() + b"\x00\x01\x02"):
        own.feed(noise)
    own.feed(record())
    own.close()
    assert own.exported == 2            # the whole ones
    assert lines and all("cannot be read" in line for line in lines)


def test_a_collector_that_is_not_there():
    lines = []
    own = Exporter(settings(timeout="100ms"), lambda level, message: lines.append((level, message)))
    own.feed(record())
    own.close()
    assert (own.exported, own.failed) == (0, 1)
    assert any(level == "error" and message.startswith("traces: ") for level, message in lines), lines


def test_troubles_are_told_now_and_then():
    now, lines = [0.0], []
    quiet = Quiet(lambda level, message: lines.append(message), lambda: now[0])
    for _ in range(5):
        quiet.say("warning", "a")
    quiet.say("warning", "b")
    assert lines == ["a", "b"]
    now[0] += QUIET_SECONDS
    quiet.say("warning", "a")
    assert lines == ["a", "b", "a (4 times more since)"]
