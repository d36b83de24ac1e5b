"""Expectations, interim answers, trailers and the methods that an edge answers by itself, through the real proxy."""

import time

import pytest
from cext.proxy.router import Route

from tests.cext.proxy.harness import Client, echo, get, post, reply, serving

ALLOW = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.fixture(scope="module")
def echoing():
    with serving(echo) as edge:
        yield edge


def expecting(*fields, version="1.1"):
    return get("/", "Expect: 100-continue", *fields, method="POST", version=version)


# ---- Expect (RFC 9110, section 10.1.1)

@pytest.mark.parametrize(("field", "body"), [
    ("Content-Length: 4", b"body"), ("Transfer-Encoding: chunked", b"4\r\nbody\r\n0\r\n\r\n")])
def test_a_client_waits_for_the_backends_100(field, body):
    def script(conn):
        while True:
            request = conn.head()
            assert request.fields["expect"] == "100-continue"
            assert conn.buffer == b""               # the client waits, and so do we
            conn.send(CONTINUE)
            conn.send(reply(conn.content(request, False).body))

    with serving(script) as edge, Client(edge) as client:
        for _ in range(3):
            client.send(expecting(field))
            assert client.response().status == 100
            assert client.ask(body).body == b"body"
    assert edge.backends[0].accepted == 1


def test_a_client_does_not_wait():
    """The 100 comes all the same, and before the answer."""
    def script(conn):
        while True:
            request = conn.head()
            conn.send(CONTINUE)
            conn.send(reply(conn.content(request, False).body))

    with serving(script) as edge, Client(edge) as client:
        for _ in range(3):
            assert client.ask(expecting("Content-Length: 4") + b"body").status == 100
            assert client.response().body == b"body"
        assert client.ask(expecting("Content-Length: 4") + b"body" + get("/next")).status == 100
        assert client.response().body == b"body"
    assert edge.backends[0].accepted == 1


def test_a_backend_that_sends_no_100():
    """A client that gives up waiting sends its content; it has its answer."""
    with serving(echo) as edge, Client(edge) as client:
        client.send(expecting("Content-Length: 4"))
        time.sleep(0.05)
        assert client.ask(b"body").body == b"POST / body"
        assert client.ask(get()).status == 200


@pytest.mark.parametrize("sent", [b"", b"bo", b"body"])
def test_a_final_answer_without_100(sent):
    """Whether the content still comes, nobody can tell: a connection on which it did not come whole ends here and at
    the backend, so that what follows is never taken for content, nor content for a request."""
    def script(conn):
        while True:
            request = conn.head()
            if sent == b"body":
                conn.content(request, False)
            conn.send(reply(b"no", status="417 Expectation Failed"))
            if sent != b"body":
                conn.rest()

    with serving(script) as edge, Client(edge) as client:
        client.send(expecting("Content-Length: 4") + sent)
        response = client.response()
        assert (response.status, response.body) == (417, b"no")
        if sent == b"body":
            assert "connection" not in response.fields
            assert client.ask(get()).status == 417
            return
        assert response.fields["connection"] == "close"
        client.send(b"body"[len(sent):] + get("/smuggled"))
        assert client.ended()
    assert edge.backends[0].accepted == 1
    assert {entry["status"] for entry in edge.log()} == {417}


def test_a_1_0_client_is_told_of_no_100():
    def script(conn):
        request = conn.head()
        assert "expect" not in request.fields
        conn.send(CONTINUE)
        conn.send(reply(conn.content(request, False).body))

    with serving(script) as edge, Client(edge) as client:
        assert client.ask(expecting("Content-Length: 4", version="1.0") + b"body").body == b"body"


def test_an_expectation_of_nothing_ends_here():
    def script(conn):
        while True:
            assert "expect" not in conn.request().fields
            conn.send(reply())

    with serving(script) as edge, Client(edge) as client:
        assert client.ask(get("/", "Expect: 100-continue")).status == 200
        assert client.ask(expecting("Content-Length: 0")).status == 200


def test_another_expectation_reaches_nobody(echoing):
    with Client(echoing) as client:
        assert client.ask(post(b"x", "/", "Expect: something")).status == 417
        assert client.ended()


def test_interim_answers_of_a_request_that_asked_for_none():
    def script(conn):
        while True:
            conn.request()
            conn.send(CONTINUE * 2 + reply(b""))

    with serving(script) as edge, Client(edge) as client:
        for method in ("GET", "HEAD", "OPTIONS"):
            client.send(get("/", method=method))
            assert [client.response(head_only=True).status for _ in range(3)] == [100, 100, 200]


# ---- trailers

def test_trailers_both_ways():
    """Announced or not, in order; what framing or trust depends on stays behind."""
    def script(conn):
        while True:
            request = conn.request()
            assert request.fields["trailer"] == "X-Sum"
            assert request.trailers == b"X-Sum: 1\r\nX-More: 2\r\n"
            conn.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Back\r\n\r\n2\r\nok\r\n"
                      b"0\r\nX-Back: 3\r\nContent-Length: 9\r\nSet-Cookie: a\r\nX-Again: 4\r\n\r\n")

    body = b"1\r\na\r\n0\r\nX-Sum: 1\r\nHost: evil\r\nX-Forwarded-For: evil\r\nX-More:2\r\n\r\n"
    with serving(script) as edge, Client(edge) as client:
        for _ in range(3):
            response = client.ask(get("/", "Transfer-Encoding: chunked", "Trailer: X-Sum", method="POST") + body)
            assert (response.body, response.trailers) == (b"ok", b"X-Back: 3\r\nX-Again: 4\r\n")
            assert response.fields["trailer"] == "X-Back"


# ---- 101

@pytest.mark.parametrize("asked", [(), ("Connection: Upgrade", "Upgrade: h2c")])
def test_an_unasked_101(asked):
    """An Upgrade that does not go on was not asked for: nothing of a switched protocol reaches the client."""
    def script(conn):
        request = conn.request()
        assert "upgrade" not in request.fields
        conn.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nsecret")
        conn.rest()

    with serving(script) as edge, Client(edge) as client:
        response = client.ask(get("/", *asked))
        assert response.status == 502
        assert b"secret" not in response.body
        assert client.ask(get("/", *asked)).status == 502       # the client's connection goes on, the other does not
    assert edge.backends[0].accepted == 2


# ---- methods

def test_connect_ends_the_connection(echoing):
    """What follows a CONNECT may be a tunnel's bytes."""
    with Client(echoing) as client:
        response = client.ask(b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n" + get("/smuggled"))
        assert (response.status, response.fields["allow"]) == (405, ALLOW)
        assert response.fields["connection"] == "close"
        assert client.ended()


def test_trace_is_refused(echoing):
    with Client(echoing) as client:
        response = client.ask(get("/", "Cookie: secret", method="TRACE"))
        assert (response.status, response.fields["allow"]) == (405, ALLOW)
        assert b"secret" not in response.body
        assert client.ask(get()).status == 200


def test_trace_where_a_route_names_it():
    def routes(group):
        return [Route(group), Route(group, path="/traced", methods=("TRACE", "GET"))]

    with serving(echo, routes=routes) as edge, Client(edge) as client:
        assert client.ask(get("/", method="TRACE")).status == 405
        assert client.ask(get("/traced", "Max-Forwards: 1", method="TRACE")).body == b"TRACE /traced "
        assert client.ask(get("/traced", "Max-Forwards: 0", method="TRACE")).status == 405
        assert client.ask(get("/traced")).status == 200


def test_options_asterisk():
    """It asks about the server, whoever the host: answered even where nothing is served."""
    with serving(echo, routes=lambda group: [Route(group, hosts=("other.example",))]) as edge, Client(edge) as client:
        for _ in range(2):
            response = client.ask(get("*", method="OPTIONS"))
            assert (response.status, response.fields["allow"], response.body) == (204, ALLOW, b"")
            assert "content-length" not in response.fields
        assert client.ask(get("/", method="OPTIONS")).status == 404


def test_max_forwards():
    def script(conn):
        while True:
            request = conn.request()
            conn.send(reply(request.fields.get("max-forwards", "-").encode()))

    with serving(script) as edge, Client(edge) as client:
        assert client.ask(get("/", "Max-Forwards: 2", method="OPTIONS")).body == b"1"
        assert client.ask(get("/", "max-forwards:0001", "Connection: max-forwards", method="OPTIONS")).body == b"0"
        assert client.ask(get("/", "Max-Forwards: 9223372036854775807", method="OPTIONS")).body == b"%d" % (2**63 - 2)
        assert client.ask(get("/", "Max-Forwards: 0", method="OPTIONS")).status == 204
        assert client.ask(get("/", "Max-Forwards: 0")).body == b"0"
        assert client.ask(get("/", "Max-Forwards: x", method="OPTIONS")).status == 400


# ---- content that a backend may not read (CL.0, TE.0)

@pytest.mark.parametrize("method", ["GET", "HEAD", "DELETE"])
@pytest.mark.parametrize("chunked", [False, True])
def test_unread_content_is_no_request(method, chunked):
    """A backend that reads no content with these methods takes it for the next request; told to close, it does not."""
    heard = []

    def script(conn):
        while True:
            head = conn.head()
            heard.append(head.start)
            body = head.start.encode() if not head.start.startswith("HEAD") else b""
            conn.send(reply(body))
            if "close" in head.fields.get("connection", ""):
                return

    smuggled = get("/smuggled")
    content = b"%x\r\n%s\r\n0\r\n\r\n" % (len(smuggled), smuggled) if chunked else smuggled
    framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(content)}"
    with serving(script) as edge, Client(edge) as client, Client(edge) as victim:
        for _ in range(3):
            client.send(get("/a", framing, "TE: trailers", method=method) + content)
            assert client.response(head_only=method == "HEAD").status == 200
            assert victim.ask(get("/victim")).body == b"GET /victim HTTP/1.1"
    assert set(heard) == {f"{method} /a HTTP/1.1", "GET /victim HTTP/1.1"}


def test_content_that_means_something_keeps_the_connection(echoing):
    accepted = echoing.backends[0].accepted
    with Client(echoing) as client:
        for method in ("POST", "PUT", "PATCH", "OPTIONS", "PROPFIND"):
            assert client.ask(post(b"x", method=method)).status == 200
        assert client.ask(get("/", "Content-Length: 0")).status == 200
    assert echoing.backends[0].accepted <= accepted + 1
