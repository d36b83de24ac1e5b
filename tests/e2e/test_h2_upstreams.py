"""HTTP/2 to backends: gRPC end to end, and hypercorn, over TLS and without."""

import concurrent.futures
import contextlib
import hashlib
import os
import queue
import sys
import threading
import time

import pytest

os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # other tests start processes; none of them uses gRPC

import grpc

from tests.e2e.processes import ROOT, Process, answers, free_port, peer, run
from tests.e2e.server import Edge

MIB = 1 << 20
SECONDS = 20
LARGE = [("grpc.max_receive_message_length", 64 * MIB), ("grpc.max_send_message_length", 64 * MIB)]


class Service:
    """A gRPC server of raw bytes, in threads of this process; `peers` are the connections that calls came on."""

    def __init__(self, credentials=None, port=0):
        self.peers = set()
        self.cancelled = threading.Event()
        self.gate = threading.Barrier(100)
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(128), options=LARGE)
        stream = {"request_deserializer": None, "response_serializer": None}
        handlers = {
            "Echo": grpc.unary_unary_rpc_method_handler(self.echo, **stream),
            "Count": grpc.unary_stream_rpc_method_handler(self.count, **stream),
            "Sum": grpc.stream_unary_rpc_method_handler(self.sum, **stream),
            "Chat": grpc.stream_stream_rpc_method_handler(self.chat, **stream),
            "Fail": grpc.unary_unary_rpc_method_handler(self.fail, **stream),
            "Sleep": grpc.unary_unary_rpc_method_handler(self.sleep, **stream),
            "Endless": grpc.unary_stream_rpc_method_handler(self.endless, **stream),
            "Meet": grpc.unary_unary_rpc_method_handler(self.meet, **stream),
        }
        self.server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.Test", handlers),))
        where = f"127.0.0.1:{port}"
        self.port = (
            self.server.add_secure_port(where, credentials) if credentials else self.server.add_insecure_port(where)
        )
        self.address = f"127.0.0.1:{self.port}"
        self.server.start()

    def echo(self, request, context):
        self.peers.add(context.peer())
        context.send_initial_metadata((("x-first", "1"), ("x-raw-bin", b"\x00\xff")))
        context.set_trailing_metadata((("x-last", "2"),))
        return request

    def count(self, request, context):
        for n in range(int(request)):
            yield str(n).encode()

    def sum(self, requests, context):
        return str(sum(map(int, requests))).encode()

    def chat(self, requests, context):
        for request in requests:
            yield b"you said " + request

    def fail(self, request, context):
        context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today: 100%")

    def sleep(self, request, context):
        context.add_callback(self.cancelled.set)
        self.cancelled.wait(SECONDS)
        return b""

    def endless(self, request, context):
        context.add_callback(self.cancelled.set)
        while context.is_active():
            yield bytes(int(request))

    def meet(self, request, context):
        """Answers when a hundred calls are here at the same time."""
        self.peers.add(context.peer())
        self.gate.wait(SECONDS)
        return request


def stub(channel, kind, name):
    return getattr(channel, kind)(f"/t.Test/{name}")


@pytest.fixture(scope="module", params=["h2c", "h2"])
def protocol(request):
    return request.param


@pytest.fixture(scope="module")
def certificates(pki):
    return grpc.ssl_server_credentials([(pki.default.key.read_bytes(), pki.default.chain.read_bytes())])


@pytest.fixture(scope="module")
def service(protocol, certificates):
    made = Service(certificates if protocol == "h2" else None)
    yield made
    made.server.stop(None)


def upstream(protocol, pki, *servers):
    table = {"servers": list(servers), "protocol": protocol}
    return table | {"tls": {"ca": pki.ca.file}} if protocol == "h2" else table


@pytest.fixture(scope="module")
def edge(tmp_path_factory, pki, protocol, service):
    tables = {"grpc": upstream(protocol, pki, service.address)}
    with Edge(tmp_path_factory.mktemp("edge"), pki, tables) as server:
        yield server


@contextlib.contextmanager
def dial(edge, pki):
    credentials = grpc.ssl_channel_credentials(pki.ca.file.read_bytes())
    with grpc.secure_channel(f"127.0.0.1:{edge.port}", credentials, options=LARGE) as channel:
        yield channel


@pytest.fixture(scope="module")
def channel(edge, pki):
    with dial(edge, pki) as made:
        yield made


def test_unary_with_metadata(channel):
    response, call = stub(channel, "unary_unary", "Echo").with_call(b"hello", timeout=SECONDS)
    assert response == b"hello"
    assert call.code() == grpc.StatusCode.OK
    first, last = dict(call.initial_metadata()), dict(call.trailing_metadata())
    assert (first["x-first"], first["x-raw-bin"], last["x-last"]) == ("1", b"\x00\xff", "2")


def test_server_streaming(channel):
    assert list(stub(channel, "unary_stream", "Count")(b"500", timeout=SECONDS)) == [b"%d" % n for n in range(500)]


def test_client_streaming(channel):
    said = stub(channel, "stream_unary", "Sum")((b"%d" % n for n in range(500)), timeout=SECONDS)
    assert int(said) == sum(range(500))


def test_bidirectional_streaming(channel):
    """Each answer comes while the request is still going on."""
    say = queue.SimpleQueue()
    answers = stub(channel, "stream_stream", "Chat")(iter(say.get, None), timeout=SECONDS)
    for n in range(50):
        say.put(b"%d" % n)
        assert next(answers) == b"you said %d" % n
    say.put(None)
    assert list(answers) == []
    assert answers.code() == grpc.StatusCode.OK


def test_a_status_without_content(channel):
    """Head and trailers are one header block."""
    with pytest.raises(grpc.RpcError) as caught:
        stub(channel, "unary_unary", "Fail")(b"", timeout=SECONDS)
    assert caught.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert caught.value.details() == "not today: 100%"


def test_a_deadline(channel, service):
    service.cancelled.clear()
    start = time.monotonic()
    with pytest.raises(grpc.RpcError) as caught:
        stub(channel, "unary_unary", "Sleep")(b"", timeout=0.4)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.monotonic() - start < 5
    assert service.cancelled.wait(5)


def test_a_call_is_cancelled(channel, service):
    service.cancelled.clear()
    call = stub(channel, "unary_stream", "Endless")(b"1000", timeout=SECONDS)
    assert next(call) == bytes(1000)
    call.cancel()
    assert service.cancelled.wait(5)


def test_large_messages(channel):
    message = os.urandom(8 * MIB)
    for _ in range(2):
        assert stub(channel, "unary_unary", "Echo")(message, timeout=SECONDS) == message


def test_a_client_that_reads_slowly_holds_up_nobody_else(channel, service):
    service.cancelled.clear()
    call = stub(channel, "unary_stream", "Endless")(b"%d" % MIB, timeout=SECONDS)
    next(call)
    for n in range(20):
        assert stub(channel, "unary_unary", "Echo")(b"%d" % n, timeout=5) == b"%d" % n
    call.cancel()
    assert service.cancelled.wait(5)


def test_a_hundred_calls_at_once_on_one_connection(channel, service):
    service.peers.clear()
    meet = stub(channel, "unary_unary", "Meet")
    calls = [meet.future(b"%d" % n, timeout=SECONDS) for n in range(100)]
    assert [call.result() for call in calls] == [b"%d" % n for n in range(100)]
    assert len(service.peers) == 1


def test_a_server_that_leaves(tmp_path, pki, certificates, protocol):
    """It finishes what it has, and further calls go to the other one; none is lost."""
    made = [Service(certificates if protocol == "h2" else None) for _ in range(2)]
    tables = {"grpc": upstream(protocol, pki, *(one.address for one in made))}
    with Edge(tmp_path / "edge", pki, tables) as edge, dial(edge, pki) as channel:
        echo = stub(channel, "unary_unary", "Echo")
        for n in range(10):
            assert echo(b"%d" % n, timeout=SECONDS) == b"%d" % n
        assert all(one.peers for one in made)
        slow = stub(channel, "unary_stream", "Count")(b"2000", timeout=SECONDS)
        leaving = made[0].server.stop(5)
        for n in range(40):
            assert echo(b"%d" % n, timeout=SECONDS) == b"%d" % n
        assert len(list(slow)) == 2000
        assert leaving.wait(10)
    made[1].server.stop(None)


def test_nobody_is_there(tmp_path, pki, protocol):
    tables = {"grpc": upstream(protocol, pki, f"127.0.0.1:{free_port()}")}
    with Edge(tmp_path / "edge", pki, tables) as edge, dial(edge, pki) as channel:
        with pytest.raises(grpc.RpcError) as caught:
            stub(channel, "unary_unary", "Echo")(b"", timeout=SECONDS)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


# --- hypercorn


@contextlib.contextmanager
def serve(directory, pki, *, tls):
    """hypercorn's address."""
    port = free_port()
    command = [sys.executable, "-m", "hypercorn", "--bind", f"127.0.0.1:{port}", "--graceful-timeout", "1"]
    if tls:
        command += ["--certfile", pki.default.chain, "--keyfile", pki.default.key]
    process = Process([*command, "tests.e2e.asgi_app:application"], directory / "output.log", cwd=ROOT)
    process.started(lambda: answers(port))
    yield f"127.0.0.1:{port}"
    process.stop()


@pytest.fixture(scope="module")
def hypercorn(tmp_path_factory, pki, protocol):
    with serve(tmp_path_factory.mktemp("hypercorn"), pki, tls=protocol == "h2") as address:
        yield address


@pytest.fixture(scope="module")
def site(tmp_path_factory, pki, protocol, hypercorn):
    with Edge(tmp_path_factory.mktemp("edge"), pki, {"app": upstream(protocol, pki, hypercorn)}) as server:
        yield server


def curl(edge, pki, path, *options):
    name = f"edge.test:{edge.port}"
    command = [peer("curl"), "--silent", "--show-error", "--cacert", pki.ca.file, "--max-time", "30"]
    command += ["--resolve", f"{name}:127.0.0.1", *options, f"https://{name}{path}"]
    process = run([str(part) for part in command], seconds=40)
    assert process.returncode == 0, process.stdout
    return process.stdout


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_curl(site, pki, version):
    assert curl(site, pki, "/version", version) == "2"
    assert curl(site, pki, "/echo", version, "--data", "some words") == "POST some words"
    assert curl(site, pki, "/status/404", version, "--output", os.devnull, "--write-out", "%{http_code}") == "404"


@pytest.mark.parametrize("version", ["--http1.1", "--http2"])
def test_uploads_and_downloads(site, pki, version, tmp_path):
    body = os.urandom(5 * MIB)
    (tmp_path / "body").write_bytes(body)
    digest = hashlib.sha256(body).hexdigest()
    assert curl(site, pki, "/sha256", version, "--data-binary", f"@{tmp_path / 'body'}") == digest
    curl(site, pki, f"/zeros/{5 * MIB}", version, "--output", tmp_path / "zeros")
    assert (tmp_path / "zeros").read_bytes() == bytes(5 * MIB)


def test_head(site, pki):
    said = curl(site, pki, "/zeros/1000", "--head", "--http2")
    assert "content-length: 1000" in said.lower()


def test_requests_share_connections(site, pki):
    """Two hundred requests, forty at a time."""
    said = run(
        [peer("h2load"), "-n", "200", "-c", "4", "-m", "10", "-t", "1", f"https://127.0.0.1:{site.port}/connection"],
        seconds=60,
    ).stdout
    assert "200 succeeded, 0 failed, 0 errored" in said, said
    served = {curl(site, pki, "/connection") for _ in range(3)}
    assert len(served) == 1


def test_http_1_over_tls(tmp_path, pki):
    """A backend that chooses the older protocol, where that is asked for; it is not trusted without its authority."""
    with serve(tmp_path, pki, tls=True) as address:
        tables = {"app": {"servers": [address], "tls": {"ca": pki.ca.file}}, "other": {"servers": [address], "tls": {}}}
        routes = [{"match": {}, "upstream": "app"}, {"match": {"path": "/other"}, "upstream": "other"}]
        with Edge(tmp_path / "edge", pki, tables, routes=routes) as edge:
            assert curl(edge, pki, "/version") == "1.1"
            assert curl(edge, pki, "/echo", "--data", "some words") == "POST some words"
            assert curl(edge, pki, "/other", "--output", os.devnull, "--write-out", "%{http_code}") == "502"
            edge.wait_error(rf"upstream other {address}: handshake \(TLS: unknown_ca: .*request 'GET /other'")
