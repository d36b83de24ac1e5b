"""Requests that must not pass: ambiguous framing, malformed heads, limits. The backend never hears of them."""

import time

import pytest

from tests.e2e.client import Client
from tests.e2e.scripted import Backend
from tests.e2e.server import Edge
from tests.vectors import http1_chunks, http1_requests


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, pki):
    """An edge of small limits whose backend answers everything: whatever it sees, it answers with 200."""

    def handler(connection, request):
        connection.body(request)
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return True

    with Backend() as backend:
        backend.on("*", handler)
        limits = {"line": "512B", "head": "2KiB", "fields": 20}
        with Edge(
            tmp_path_factory.mktemp("guarded"), pki, {"b": [backend.server]}, listener={"limits": limits}
        ) as edge:
            edge.backend = backend
            yield edge


def test_every_malformed_head(guarded):
    """Each is answered with its exact status, an end in good order, and never reaches the backend."""
    faults = []
    before = len(guarded.backend.requests)
    for name, head, status in http1_requests.REFUSED:
        if name == "nothing but its end":
            continue  # empty lines before a request are skipped (RFC 9112, section 2.2)
        with Client(guarded) as client:
            # A second request behind it must not be served, whatever the first one was taken for.
            client.send(head + b"GET /smuggled HTTP/1.1\r\nHost: edge.test\r\n\r\n")
            try:
                response = client.response()
                wanted = {status} if len(head) < 400 else {status, 414, 431}
                if response.status not in wanted:
                    faults.append(f"{name}: {response.status} instead of {status}")
                if response.get("connection") != "close":
                    faults.append(f"{name}: no Connection: close")
                if (rest := client.rest()) != b"":
                    faults.append(f"{name}: went on with {rest[:100]!r}")
            except (OSError, AssertionError) as e:
                faults.append(f"{name}: {e!r}")
    assert not faults, "\n".join(faults)
    assert len(guarded.backend.requests) == before


def test_every_malformed_chunked_body(guarded):
    """The head may have passed already; then the backend's request stays incomplete. Nothing behind it is served."""
    faults = []
    for name, chunks in http1_chunks.REFUSED:
        with Client(guarded) as client:
            client.send(b"POST /chunks HTTP/1.1\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks
                        + b"GET /smuggled HTTP/1.1\r\nHost: edge.test\r\n\r\n")  # fmt: skip
            try:
                response = client.response()
                if response.status != 400:
                    faults.append(f"{name}: {response.status}")
                if (rest := client.rest()) != b"":
                    faults.append(f"{name}: went on with {rest[:100]!r}")
            except (OSError, AssertionError) as e:
                faults.append(f"{name}: {e!r}")
    assert not faults, "\n".join(faults)
    time.sleep(0.1)
    assert guarded.backend.seen("/smuggled") == []


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    ("what", "head", "status"),
    [
        ("line", b"GET /" + b"a" * 600 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        ("line without end", b"GET /" + b"a" * 5000, 414),
        ("many fields", b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 20 + b"\r\n", 431),
        ("long field", b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 600 + b"\r\n\r\n", 431),
        ("large head", b"GET / HTTP/1.1\r\nHost: a\r\n" + (b"A: " + b"b" * 400 + b"\r\n") * 5 + b"\r\n", 431),
        ("large field", b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 3000 + b"\r\n\r\n", 431),
        ("head without end", b"GET / HTTP/1.1\r\nHost: a\r\nA: " + b"b" * 9000, 431),
        ("method of 33 bytes", b"M" * 33 + b" / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    ],
)
def test_limits(guarded, what, head, status, at_once):
    with Client(guarded) as client:
        if at_once:
            client.send(head)
        else:
            for i in range(0, len(head), 97):
                try:
                    client.send(head[i : i + 97])
                except OSError:
                    break  # refused before its end
                time.sleep(0.001)
        response = client.response()
        assert (response.status, response.get("connection")) == (status, "close")
        assert client.closed()


def test_just_within_the_limits(guarded):
    with Client(guarded) as client:
        line = b"GET /" + b"a" * (512 - len(b"GET / HTTP/1.1")) + b" HTTP/1.1\r\n"
        assert client.send(line + b"Host: a\r\n\r\n").response().status == 200
        assert client.send(b"GET / HTTP/1.1\r\nHost: a\r\n" + b"A: b\r\n" * 19 + b"\r\n").response().status == 200
        head = b"GET / HTTP/1.1\r\nHost: a\r\n" + (b"A: " + b"b" * 400 + b"\r\n") * 4 + b"A: "
        head += b"b" * (2048 - len(head) - 4) + b"\r\n\r\n"
        assert client.send(head).response().status == 200


def test_default_limits(edge):
    with Client(edge) as client:
        assert client.get("/headers?" + "a" * 8000).status == 200
        assert client.get("/headers?" + "a" * 8200).status == 414
    with Client(edge) as client:
        assert client.get("/app/echo", *(f"X-{i}: {'v' * 70}" for i in range(90))).status == 200
        assert client.get("/app/echo", *(f"X-{i}: v" for i in range(128))).status == 431
    with Client(edge) as client:
        assert client.get("/s/ok", "X: " + "v" * 33_000).status == 431


def test_a_refusal_is_logged(guarded):
    known = len(guarded.requests(error="request refused"))
    with Client(guarded) as client:
        client.send(b"GET / HTTP/1.1\r\nHost : a\r\n\r\n")
        port = client.port
        assert client.response().status == 400
    record = guarded.wait_request(count=known + 1, error="request refused")
    assert (record["status"], record["client_port"]) == (400, port)


def test_good_requests_before_a_bad_one_are_answered(guarded):
    with Client(guarded) as client:
        good = b"GET /good HTTP/1.1\r\nHost: edge.test\r\n\r\n"
        client.send(good * 3 + b"GET /bad HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 1, 1\r\n\r\nx" + good)
        assert [client.response().status for _ in range(4)] == [200, 200, 200, 400]
        assert client.closed()
    assert guarded.backend.seen("/bad") == []
