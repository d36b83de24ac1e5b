"""Traces: what a collector gets, what the backend is told, and that a collector's troubles are nobody else's."""

import re
import socket
import time

import pytest

from tests.e2e.client import Client
from tests.e2e.collector import Collector
from tests.e2e.processes import run, wait_until
from tests.e2e.scripted import OK, Backend
from tests.e2e.server import Edge
from tests.e2e.sockets import Sockets

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"


@pytest.fixture(scope="module")
def collector():
    with Collector() as made:
        yield made


@pytest.fixture(scope="module")
def backend():
    with Backend() as made:
        made.on("/*", lambda connection, request: connection.send(OK) or True)
        yield made
        assert made.faults == []


@pytest.fixture(scope="module")
def sockets():
    with Sockets() as made:
        yield made


@pytest.fixture(scope="module")
def edge(tmp_path_factory, pki, backend, sockets, collector):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        nobody = f"127.0.0.1:{listener.getsockname()[1]}"
    server = Edge(
        tmp_path_factory.mktemp("traces"),
        pki,
        {"app": [backend.server], "sockets": [sockets.server], "limping": [nobody, backend.server]},
        routes=[
            {"match": {}, "upstream": "app"},
            {"match": {"path": "/echo"}, "upstream": "sockets"},
            {"match": {"path": "/limping/*"}, "upstream": "limping"},
        ],
        server={
            "workers": 2,
            "traces": {
                "endpoint": collector.url,
                "sample": 1,
                "trust": ["127.0.0.0/8"],
                "headers": {"x-api-key": "k3y"},
                "resource": {"deployment.environment.name": "test"},
            },
        },
    )
    with server:
        yield server


def context(request):
    """(trace id, parent id, flags) of what a backend got."""
    return re.fullmatch(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", request.get("traceparent")).groups()


def test_a_request_is_a_span_and_the_backends_parent_its_child(edge, backend, collector):
    with Client(edge) as client:
        assert client.get("/one?secret=1", f"traceparent: {SAMPLED}", "tracestate: vendor=1").status == 200
    own, [attempt] = collector.of("/one")
    [seen] = backend.seen("/one")
    assert (own.trace_id, own.parent_id) == (TRACE, PARENT)
    assert context(seen) == (TRACE, attempt.span_id, "01")
    assert seen.get("tracestate") == "vendor=1"
    assert own.server and not attempt.server
    assert own.attributes["http.response.status_code"] == 200
    assert own.attributes["client.address"] == "127.0.0.1"
    assert own.attributes["server.address"] == "edge.test"
    assert own.attributes["edge.upstream"] == "app"
    assert own.attributes["tls.protocol.version"] == "1.3"
    assert "url.query" not in own.attributes
    assert own.message.name == "GET /*"
    assert 0 <= own.message.end_time_unix_nano - own.message.start_time_unix_nano < 30e9
    assert abs(own.message.start_time_unix_nano / 1e9 - time.time()) < 60
    assert own.resource["service.name"] == "edge"
    assert own.resource["deployment.environment.name"] == "test"
    assert collector.requests[0][0] == "/v1/traces"
    assert {k.lower(): v for k, v in collector.requests[0][1].items()}["x-api-key"] == "k3y"


def test_the_log_names_the_trace(edge, collector):
    with Client(edge) as client:
        client.get("/logged")
        client.get("/unsampled", f"traceparent: {UNSAMPLED}")
    [own] = collector.wait(url__path="/logged")
    assert own.parent_id == ""
    assert edge.wait_request(path="/logged")["trace"] == own.trace_id
    assert "trace" not in edge.wait_request(path="/unsampled")
    assert [span for span in collector.spans if span.attributes.get("url.path") == "/unsampled"] == []


def test_http_2(edge, backend, collector):
    done = run(["curl", "-sS", "--http2", "--cacert", edge.pki.ca.file, "--resolve", f"edge.test:{edge.port}:127.0.0.1",
                "-H", f"traceparent: {SAMPLED}", edge.url("/h2")])
    assert done.returncode == 0, done.stdout
    own, [attempt] = collector.of("/h2")
    assert own.attributes["network.protocol.version"] == "2"
    assert context(backend.seen("/h2")[0]) == (TRACE, attempt.span_id, "01")


def test_a_request_that_another_server_gets(edge, backend, collector):
    with Client(edge) as client:
        for i in range(2):  # one of them comes to the server that is not there first
            assert client.get(f"/limping/{i}").status == 200
    attempts = next(found for _, found in (collector.of(f"/limping/{i}") for i in range(2)) if len(found) == 2)
    failed, served = attempts
    assert failed.attributes["error.type"] == "connect"
    assert served.attributes["http.request.resend_count"] == 1
    assert served.span_id in [context(request)[1] for i in range(2) for request in backend.seen(f"/limping/{i}")]


def test_a_websocket_is_over_when_it_is_over(edge, collector):
    import websockets.sync.client

    with websockets.sync.client.connect(
        f"wss://edge.test:{edge.port}/echo", sock=socket.create_connection(("127.0.0.1", edge.port)),
        ssl=edge.tls_context(),
    ) as client:
        client.send("hello")
        assert client.recv() == "hello"
        assert [span for span in collector.spans if span.attributes.get("url.path") == "/echo"] == []
    [own] = collector.wait(url__path="/echo")
    assert own.attributes["http.response.status_code"] == 101


def test_what_is_answered_here(edge, collector):
    with Client(edge) as client:
        assert client.request("TRACE", "/nothing").status == 405
    own, attempts = collector.of("/nothing", attempts=0)
    assert (own.attributes["http.response.status_code"], attempts) == (405, [])


def test_who_is_not_trusted(make_edge, backend, collector):
    edge = make_edge(
        {"app": [backend.server]}, server={"traces": {"endpoint": collector.url, "sample": "100%", "query": "names"}}
    )
    with Client(edge) as client:
        client.get("/stranger?a=secret", f"traceparent: {UNSAMPLED}", "tracestate: x=1")
    own, [attempt] = collector.of("/stranger")
    assert own.parent_id == "" and own.trace_id != TRACE
    [seen] = backend.seen("/stranger")
    assert context(seen) == (own.trace_id, attempt.span_id, "03")
    assert seen.get("tracestate") is None
    assert own.attributes["url.query"] == "a=REDACTED"


def test_a_collector_that_hangs_or_is_gone(make_edge, backend, tmp_path):
    """Requests are served as before; what is too much is dropped, and told; what comes later is exported."""
    with Collector() as collector:
        collector.held.clear()
        edge = make_edge({"app": [backend.server]}, server={"traces": {
            "endpoint": collector.url, "sample": 1, "queue": 16, "timeout": "300ms"}})
        with Client(edge) as client:
            for _ in range(50):
                client.send(b"GET /burst HTTP/1.1\r\nHost: edge.test\r\n\r\n" * 20)
                for _ in range(20):
                    assert client.response().status == 200
            edge.wait_error("spans are dropped", seconds=30)
            edge.wait_error("traces: .*(time|export)", seconds=30)
            collector.held.set()
            later = 0

            def arrives():
                nonlocal later
                later += 1
                assert client.get(f"/later/{later}").status == 200
                return any(s.attributes.get("url.path", "").startswith("/later/") for s in list(collector.spans))

            wait_until(arrives, 30, "a span after the collector is back")
        assert 0 < len([s for s in collector.spans if s.attributes.get("url.path") == "/burst"]) < 200


def test_a_reload_begins_and_ends_them(make_edge, backend, collector):
    """In place: the worker stays."""
    edge = make_edge({"app": [backend.server]})
    [worker] = edge.workers()
    wanted = {"endpoint": collector.url, "sample": 1}
    with Client(edge) as client:
        for number, traces in enumerate((None, wanted, None, wanted)):
            if number:
                edge.tables["server"] = {k: v for k, v in edge.tables["server"].items() if k != "traces"}
                edge.tables["server"] |= {"traces": traces} if traces else {}
                edge.write()
                edge.reload()
                edge.wait_error(rf"generation {number + 1} serves", seconds=30)
            assert client.get(f"/reloaded/{number}", f"traceparent: {SAMPLED}").status == 200
    for number, traced in enumerate((False, True, False, True)):
        [seen] = backend.seen(f"/reloaded/{number}")
        assert (seen.get("traceparent") == SAMPLED) == (not traced)
        if traced:
            own, [attempt] = collector.of(f"/reloaded/{number}")
            assert context(seen) == (own.trace_id, attempt.span_id, "03")
    assert edge.workers() == [worker]
