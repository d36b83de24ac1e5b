"""What passes the proxy, in which form: forwarded fields, hop-by-hop fields, framing, 1xx, trailers, persistence."""

import re

import pytest

from tests.e2e.client import Client
from tests.e2e.scripted import OK
from tests.e2e.server import Edge


def ok(connection, request):
    connection.body(request)
    connection.send(OK)
    return True


def answer(data: bytes, keep: bool = True):
    def handler(connection, request):
        connection.body(request)
        connection.send(data)
        return keep

    return handler


# Towards the backend.


@pytest.mark.parametrize(
    ("forwarded", "wanted"),
    [
        ("x-forwarded", {"x-forwarded-for": "127.0.0.1", "x-forwarded-proto": "https", "x-forwarded-host": "edge.test",
                         "forwarded": "for=1.2.3.4"}),
        ("forwarded", {"forwarded": "for=127.0.0.1;proto=https;host=edge.test", "x-forwarded-for": "1.2.3.4"}),
        ("both", {"forwarded": "for=127.0.0.1;proto=https;host=edge.test", "x-forwarded-for": "127.0.0.1",
                  "x-forwarded-proto": "https", "x-forwarded-host": "edge.test"}),
        ("none", {"x-forwarded-for": "1.2.3.4", "forwarded": "for=1.2.3.4", "x-forwarded-proto": None}),
    ],
)  # fmt: skip
def test_forwarded_fields(make_edge, backend, forwarded, wanted):
    """What a client claims about itself gives way to what is known."""
    edge = make_edge({"b": [backend.server]}, listener={"forwarded": forwarded})
    with Client(edge) as client:
        client.get("/ok", "X-Forwarded-For: 1.2.3.4", "Forwarded: for=1.2.3.4")
    [request] = backend.seen("/ok")
    assert {name: request.get(name) for name in wanted} == wanted


def test_hop_by_hop_fields_end_here(edge, scripted):
    scripted.on("/s/hop", ok)
    with Client(edge) as client:
        client.get("/s/hop", "Connection: keep-alive, X-Mine", "X-Mine: 1", "Keep-Alive: timeout=5", "TE: gzip",
                   "Proxy-Connection: keep-alive", "Proxy-Authorization: secret", "Upgrade: websocket",
                   "X-Yours: 2", "Via: 1.1 other", "X-Bytes: \xfc\xe9")  # fmt: skip
    [request] = scripted.seen("/s/hop")
    for name in ("connection", "x-mine", "keep-alive", "te", "proxy-connection", "proxy-authorization", "upgrade"):
        assert name not in request.names()
    assert (request.get("x-yours"), request.get("via"), request.get("x-bytes")) == ("2", "1.1 other", "\xfc\xe9")
    assert request.get("host") == "edge.test"


def test_order_and_repetition_of_fields_stay(edge, scripted):
    scripted.on("/s/order", ok)
    with Client(edge) as client:
        client.get("/s/order", "X-A: 1", "X-B: 2", "X-A: 3", "Cookie: a", "cookie: b")
    [request] = scripted.seen("/s/order")
    assert request.all("x-a") == ["1", "3"]
    names = request.names()
    assert names.index("x-a") < names.index("x-b")
    assert request.all("cookie") == ["a", "b"]


@pytest.mark.parametrize(
    "target", ["/s/t?a=b&c=%20%zz", "/s//t/../x/./%2e%2e", "/s/t?", "/s/ü".encode().decode("latin-1")]
)
def test_targets_pass_as_they_are(edge, scripted, target):
    scripted.on("*", ok)
    try:
        with Client(edge) as client:
            status = client.get(target).status
        if target.isascii():
            assert status == 200
            assert scripted.requests[-1].target == target
        else:
            assert status == 400  # RFC 9112, section 3.2: no such byte in a target
    finally:
        scripted.handlers.pop("*")


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "GET", "X-OWN"])
def test_a_body_with_length(edge, scripted, method):
    scripted.on("/s/length", ok)
    with Client(edge) as client:
        assert client.request(method, "/s/length", body=b"0123456789" * 500).status == 200
    request = scripted.seen("/s/length")[-1]
    assert (request.method, request.body) == (method, b"0123456789" * 500)
    assert request.get("transfer-encoding") is None


def test_length_zero_is_said(edge, scripted):
    scripted.on("/s/zero", ok)
    with Client(edge) as client:
        client.request("POST", "/s/zero", "Content-Length: 0")
    assert scripted.seen("/s/zero")[0].get("content-length") == "0"


def test_a_chunked_body_with_trailers(edge, scripted):
    """Extensions end here, forbidden trailers too; content and other trailers pass."""
    scripted.on("/s/chunks", ok)
    with Client(edge) as client:
        client.send(
            b"POST /s/chunks HTTP/1.1\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
            b"5;a=b\r\nhello\r\n00001\r\n \r\n5\r\nworld\r\n0;c\r\nX-Sum: 42\r\nContent-Length: 1\r\n\r\n"
        )
        assert client.response().status == 200
        assert client.get("/s/ok").status == 200
    [request] = scripted.seen("/s/chunks")
    assert request.body == b"hello world"
    assert request.trailers == [b"X-Sum: 42"]
    assert request.get("trailer") == "X-Sum"


def test_a_body_in_the_smallest_pieces(edge, scripted):
    scripted.on("/s/pieces", ok)
    message = b"POST /s/pieces HTTP/1.1\r\nHost: edge.test\r\nTransfer-Encoding: chunked\r\n\r\n"
    message += b"3\r\nabc\r\n4;x\r\ndefg\r\n0\r\nA: b\r\n\r\n"
    with Client(edge) as client:
        for i in range(len(message)):
            client.send(message[i : i + 1])
        assert client.response().status == 200
    [request] = scripted.seen("/s/pieces")
    assert (request.body, request.trailers) == (b"abcdefg", [b"A: b"])


def test_the_body_goes_on_while_it_comes(edge, scripted):
    """The backend sees the first half before the client sends the second: nothing waits for a whole body."""
    import threading

    half = threading.Event()

    def handler(connection, request):
        assert connection.exactly(5) == b"first"
        half.set()
        assert connection.exactly(6) == b"second"
        connection.send(OK)
        return True

    scripted.on("/s/half", handler)
    with Client(edge) as client:
        client.send(b"POST /s/half HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 11\r\n\r\nfirst")
        assert half.wait(5)
        client.send(b"second")
        assert client.response().status == 200


# Towards the client.


def test_the_response_goes_on_while_it_comes(edge, scripted):
    import threading

    seen = threading.Event()

    def handler(connection, request):
        connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
        assert seen.wait(5)
        connection.send(b"6\r\nsecond\r\n0\r\n\r\n")
        return True

    scripted.on("/s/stream", handler)
    with Client(edge) as client:
        client.send(b"GET /s/stream HTTP/1.1\r\nHost: edge.test\r\n\r\n")
        client.until(b"first")
        seen.set()
        client.until(b"second")


def test_response_fields(edge, scripted):
    scripted.on("/s/fields", answer(
        b"HTTP/1.1 299 Fine So\r\nContent-Length: 2\r\nConnection: X-Own, keep-alive\r\nX-Own: 1\r\n"
        b"Keep-Alive: timeout=9\r\nProxy-Authenticate: Basic\r\nUpgrade: h2c\r\nServer: mine\r\n"
        b"Set-Cookie: a=1\r\nSet-Cookie: b=2\r\nX-Bytes: \xfc\r\n\r\nok"))  # fmt: skip
    with Client(edge) as client:
        response = client.get("/s/fields")
        assert client.get("/s/ok").body == b"ok"
    assert (response.version, response.status, response.reason) == ("HTTP/1.1", 299, "Fine So")
    names = [name.lower() for name, _ in response.fields]
    for name in ("connection", "x-own", "keep-alive", "upgrade"):
        assert name not in names
    assert response.all("set-cookie") == ["a=1", "b=2"]
    assert (response.get("server"), response.get("x-bytes")) == ("mine", "\xfc")
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", response.get("date"))


def test_a_date_of_the_backend_stays(edge, scripted):
    scripted.on(
        "/s/date", answer(b"HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n")
    )
    with Client(edge) as client:
        assert client.get("/s/date").all("date") == ["Thu, 01 Jan 1970 00:00:00 GMT"]


def test_trailers(edge, scripted):
    scripted.on("/s/trailers", answer(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
        b"3;x=y\r\nabc\r\n0\r\nX-Sum: 7\r\nX-More: 8\r\nTransfer-Encoding: chunked\r\n\r\n"))  # fmt: skip
    with Client(edge) as client:
        response = client.get("/s/trailers", "TE: trailers", "Connection: TE")
        assert client.get("/s/ok").body == b"ok"
    assert (response.body, response.get("trailer")) == (b"abc", "X-Sum")
    assert response.trailers == [("X-Sum", "7"), ("X-More", "8")]
    assert scripted.seen("/s/trailers")[-1].get("te") == "trailers"


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 5\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
)
def test_head_has_no_body_whatever_the_backend_sends(edge, scripted, framing):
    """Also when it (wrongly) sends one: that must not become the next response."""
    scripted.on("/s/head", answer(b"HTTP/1.1 200 OK\r\n" + framing))
    with Client(edge) as client:
        assert client.request("HEAD", "/s/head").status == 200
        assert client.get("/s/ok").body == b"ok"


@pytest.mark.parametrize("status", [204, 304])
def test_no_content(edge, scripted, status):
    path = f"/s/{status}"
    scripted.on(path, answer(f'HTTP/1.1 {status} X\r\nETag: "a"\r\nX-A: b\r\n\r\n'.encode()))
    with Client(edge) as client:
        response = client.get(path)
        assert (response.status, response.get("etag"), response.get("x-a")) == (status, '"a"', "b")
        assert response.get("content-length") is None
        assert response.get("transfer-encoding") is None
        assert client.get("/s/ok").body == b"ok"


def test_a_body_that_ends_with_the_connection(edge, scripted):
    """HTTP/1.0 backends: to the client it is chunked, and its connection goes on."""
    scripted.on("/s/close", answer(b"HTTP/1.0 200 OK\r\n\r\n" + b"x" * 100_000, keep=False))
    with Client(edge) as client:
        response = client.get("/s/close")
        assert response.body == b"x" * 100_000
        assert response.get("transfer-encoding") == "chunked"
        assert client.get("/s/ok").body == b"ok"


def test_interim_responses(edge, scripted):
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
    scripted.on("/s/interim", answer(interim + OK))
    with Client(edge) as client:
        client.send(b"GET /s/interim HTTP/1.1\r\nHost: edge.test\r\n\r\n")
        hints, processing, final = client.head(), client.head(), client.head()
        assert (hints.status, hints.get("link")) == (103, "</a.css>; rel=preload")
        assert (processing.status, final.status) == (102, 200)
        assert client.exactly(2) == b"ok"


def test_http_1_0_client_gets_no_interim_response_and_no_chunks(edge, scripted):
    scripted.on("/s/old", answer(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX: y\r\n\r\n"))  # fmt: skip
    with Client(edge) as client:
        client.send(b"GET /s/old HTTP/1.0\r\nHost: edge.test\r\n\r\n")
        response = client.response()
        assert (response.status, response.body, response.get("transfer-encoding")) == (200, b"abc", None)
        assert response.get("connection") == "close"


@pytest.mark.parametrize("name", ["edge.test", None])
def test_http_1_0_without_host(edge, scripted, name):
    """The backend gets one all the same: the name of the handshake, or the address that was connected to."""
    scripted.on("/s/nohost", ok)
    with Client(edge, name=name, context=unnamed(edge)) as client:
        client.send(b"GET /s/nohost HTTP/1.0\r\n\r\n")
        assert client.response().status == 200
        assert client.closed()
    assert scripted.seen("/s/nohost")[-1].get("host") == (name or f"127.0.0.1:{edge.port}")


def unnamed(edge):
    context = edge.tls_context()
    context.check_hostname = False
    return context


def test_http_1_0_keep_alive(edge):
    with Client(edge) as client:
        for _ in range(3):
            client.send(b"GET /1k HTTP/1.0\r\nHost: edge.test\r\nConnection: keep-alive\r\n\r\n")
            response = client.response()
            assert (response.status, response.get("connection")) == (200, "keep-alive")
        client.send(b"GET /1k HTTP/1.0\r\nHost: edge.test\r\n\r\n")
        assert client.response().get("connection") == "close"
        assert client.closed()


def test_connection_close_is_kept(edge):
    with Client(edge) as client:
        assert client.get("/1k", "Connection: close").get("connection") == "close"
        assert client.closed()


def test_expect_100_continue(edge, scripted):
    def handler(connection, request):
        assert request.get("expect") == "100-continue"
        connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        connection.body(request)
        connection.send(OK)
        return True

    scripted.on("/s/expect", handler)
    with Client(edge) as client:
        client.send(b"POST /s/expect HTTP/1.1\r\nHost: edge.test\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        assert client.head().status == 100
        client.send(b"abc")
        assert client.response().status == 200


def test_the_final_answer_before_the_body(edge, scripted):
    """An early refusal reaches the client; its connection ends, as nobody knows whether the body still comes."""
    scripted.on("/s/early", lambda c, r: c.send(
        b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig"))  # fmt: skip
    with Client(edge) as client:
        client.send(b"POST /s/early HTTP/1.1\r\nHost: edge.test\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 1000)
        response = client.response()
        assert (response.status, response.body, response.get("connection")) == (413, b"big", "close")
        assert client.closed()


# Persistence.


def test_keep_alive(edge):
    with Client(edge) as client:
        for i in range(200):
            assert len(client.get(f"/1k?{i}").body) == 1024


@pytest.mark.parametrize("at_once", [True, False])
def test_pipelining(edge, scripted, at_once):
    """Answers come in order, bodies among them, and a slow one holds back those behind it."""
    paths = [f"/s/pipe?{i}" for i in range(20)]

    def handler(connection, request):
        connection.body(request)
        text = request.target.encode()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(text), text))
        return True

    scripted.on("/s/pipe", handler)
    requests = []
    for i, path in enumerate(paths):
        body = b"b" * i * 100
        head = f"{'POST' if body else 'GET'} {path} HTTP/1.1\r\nHost: edge.test\r\n"
        head += f"Content-Length: {len(body)}\r\n" if body else ""
        requests.append(head.encode() + b"\r\n" + body)
    requests[-1] = requests[-1].replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with Client(edge) as client:
        if at_once:
            client.send(b"".join(requests))
        else:
            for request in requests:
                client.send(request)
        assert [client.response().body.decode() for _ in paths] == paths
        assert client.closed()


def test_half_closed_client_gets_its_answer(edge):
    """close_notify after the request: no more is asked, but what was asked is answered."""
    import ssl

    with Client(edge) as client:
        client.send(b"GET /app/slow?seconds=0.3 HTTP/1.1\r\nHost: edge.test\r\n\r\n")
        client.sock.settimeout(5)
        answer = b""
        try:
            client.sock.unwrap()  # sends close_notify, then reads: OpenSSL refuses data here
        except ssl.SSLError as e:
            answer = e.reason.encode()
        assert answer in (b"", b"APPLICATION_DATA_AFTER_CLOSE_NOTIFY")
    assert edge.wait_request(path="/app/slow?seconds=0.3")["status"] == 200


def test_connections_to_backends_are_pooled(make_edge, backend):
    edge = make_edge({"b": [backend.server]})
    with Client(edge) as client:
        for _ in range(10):
            client.get("/ok")
    with Client(edge) as client:
        client.get("/ok")
    assert {r.connection for r in backend.seen("/ok")} == {0}
    assert [r["reused"] for r in (edge.wait_request(11), *edge.requests())][1:] == [False] + [True] * 10


def test_no_pool(make_edge, backend):
    edge = make_edge({"b": {"servers": [backend.server], "pool": {"max_idle": 0}}})
    with Client(edge) as client:
        for _ in range(3):
            client.get("/ok")
    assert [r.connection for r in backend.seen("/ok")] == [0, 1, 2]


def test_idle_backend_connections_end(make_edge, backend):
    edge = make_edge({"b": {"servers": [backend.server], "pool": {"idle": "200ms"}}})
    closed = []

    def handler(connection, request):
        connection.send(OK)
        closed.append(connection.wait_closed(3))

    backend.on("/idle", handler)
    with Client(edge) as client:
        client.get("/idle")
        from tests.e2e.processes import wait_until

        wait_until(lambda: closed == [True], 20, "end of the idle connection")
        assert client.get("/ok").body == b"ok"


def test_round_robin(make_edge):
    from tests.e2e.scripted import Backend

    with Backend() as one, Backend() as two, Backend() as three:
        edge = make_edge({"b": [b.server for b in (one, two, three)]})
        with Client(edge) as client:
            for _ in range(9):
                client.get("/ok")
        assert [len(b.seen("/ok")) for b in (one, two, three)] == [3, 3, 3]


def test_unix_socket(edge: Edge):
    with Client(edge) as client:
        assert client.get("/unix/echo?via=socket").status == 200
    assert edge.wait_request(path="/unix/echo?via=socket")["upstream"].startswith("unix:/")
