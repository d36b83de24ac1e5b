"""HTTP/2 towards servers: what is shared, what waits, what is sent again, and servers that break the rules."""

import contextlib
import socket
import ssl
import threading
import time

import pytest
from cext.tls.config import ClientConfig
from cryptography.hazmat.primitives import serialization

from tests import h2_peer
from tests.cext.proxy.harness import Backend, Client, H2Client, echo, get, post, reply, serving, until
from tests.cext.tls.peer import certified
from tests.h2_peer import H2Origin, frame, reset, settings, window

H2C = {"protocol": "h2c"}
MIB = 1 << 20


class Origin(H2Origin):
    """A server's end of one connection; requests are answered by `answer(origin, stream, request)` as they end."""

    def __init__(self, conn, **own):
        self.conn = conn
        self.number = conn.number
        self.taken = set()
        super().__init__(conn.send, self.read, **own)

    def read(self):
        got = self.conn.sock.recv(65536)
        if not got:
            raise EOFError
        return got

    def serve(self, answer, *, ended=True):
        while True:
            stream = self.next_request(ended=ended)
            answer(self, stream, self.responses[stream])

    def next_request(self, *, ended=True):
        """The next stream whose request is whole (or at least begun)."""
        def ready():
            return [s for s, r in self.responses.items() if s not in self.taken and r.fields and (r.ended or not ended)]

        self.until(ready)
        stream = ready()[0]
        self.taken.add(stream)
        return stream


def origin(answer, **own):
    """A script for Backend."""
    ended = own.pop("ended", True)

    def script(conn):
        Origin(conn, **own).serve(answer, ended=ended)

    return script


def say(at, stream, request):
    """Answers with what was asked."""
    f = request.fields
    body = f"{f[':method']} {f[':path']} {at.number} ".encode() + bytes(request.body)
    at.respond(stream, b"" if f[":method"] == "HEAD" else body)


def behind(*answers, pool=None, own=None, **how):
    scripts = [origin(answer, **(own or {})) for answer in answers]
    return serving(*scripts, pool={**H2C, **(pool or {})}, **how)


def last_entry(edge):
    edge.until_idle()
    edge.stop()
    return edge.log()[-1]


def told(edge, text):
    return any(text in line for _, line in edge.errors)


# ---- requests and responses

def test_a_request_as_the_server_sees_it():
    seen = []

    def answer(at, stream, request):
        seen.append((request.fields, bytes(request.body), request.trailers))
        say(at, stream, request)

    with behind(answer) as edge, H2Client(edge) as client:
        stream = client.post(b"some words", "/a?b", fields=[("te", "trailers"), ("x-own", "1"), ("cookie", "a=b")],
                             trailers=[("x-sum", "2")])
        assert client.response(stream).body == b"POST /a?b 0 some words"
    (fields, body, trailers), = seen
    assert {k: fields[k] for k in (":method", ":scheme", ":path", ":authority", "te", "x-own", "cookie")} == {
        ":method": "POST", ":scheme": "http", ":path": "/a?b", ":authority": "example.com", "te": "trailers",
        "x-own": "1", "cookie": "a=b"}
    assert fields["x-forwarded-for"] == "127.0.0.1"
    assert fields.keys().isdisjoint({"host", "connection", "transfer-encoding", "keep-alive"})
    assert body == b"some words"
    assert trailers == {"x-sum": "2"}


def test_a_client_of_http_1():
    with behind(say) as edge, Client(edge) as client:
        assert client.ask(get("/1")).body == b"GET /1 0 "
        assert client.ask(post(b"x" * 100000)).body == b"POST / 0 " + b"x" * 100000
        client.send(get("/2") + get("/3"))
        assert [client.response().body for _ in range(2)] == [b"GET /2 0 ", b"GET /3 0 "]
        assert client.ask(get("/4", method="HEAD"), head_only=True).status == 200
        assert edge.counters()["upstream_connects"] == 1


def test_chunked_content_and_trailers_of_a_client_of_http_1():
    seen = []

    def answer(at, stream, request):
        seen.append(request)
        say(at, stream, request)

    with behind(answer) as edge, Client(edge) as client:
        client.send(get("/", "Transfer-Encoding: chunked", "TE: trailers", method="POST"))
        client.send(b"5\r\nhello\r\n1\r\n!\r\n0\r\nX-Sum: 1\r\nX-Two: 2\r\n\r\n")
        assert client.response().body == b"POST / 0 hello!"
    assert seen[0].trailers == {"x-sum": "1", "x-two": "2"}
    assert seen[0].fields["te"] == "trailers"


def test_content_of_get_is_no_reason_to_close():
    """CL.0 is a fault of HTTP/1.1's framing."""
    with behind(say) as edge, Client(edge) as client:
        for _ in range(2):
            assert client.ask(post(b"body", method="GET")).body == b"GET / 0 body"
        assert edge.counters()["upstream_connects"] == 1


def test_trailers_and_interim_responses():
    def answer(at, stream, request):
        at.send(at.head(stream, [(":status", "103"), ("link", "</a>; rel=preload")], end=False))
        at.respond(stream, b"body", fields=[("content-type", "a/b")], trailers=[("x-sum", "1"), ("host", "evil")])

    with behind(answer) as edge:
        with H2Client(edge) as client:
            response = client.ask()
            assert response.interim == [{":status": "103", "link": "</a>; rel=preload"}]
            assert (response.body, response.trailers) == (b"body", {"x-sum": "1"})
        with Client(edge) as client:
            client.send(get())
            assert client.head().status == 103
            response = client.response()
            assert (response.body, response.trailers) == (b"body", b"x-sum: 1\r\n")


@pytest.mark.parametrize("status", ["200", "204", "304", "404"])
def test_a_response_of_one_header_block(status):
    def answer(at, stream, request):
        at.respond(stream, status=status, fields=[("grpc-status", "5")])

    with behind(answer) as edge, H2Client(edge) as client:
        response = client.ask()
        assert (response.status, response.fields["grpc-status"], response.body) == (int(status), "5", b"")


def test_many_streams_share_a_connection():
    """Answered in another order than asked."""
    def script(conn):
        at = Origin(conn)
        streams = [at.next_request() for _ in range(60)]
        for stream in reversed(streams):
            say(at, stream, at.responses[stream])
        at.serve(say)

    with serving(script, pool=H2C) as edge, H2Client(edge) as client:
        streams = [client.get(f"/{n}") for n in range(60)]
        for n, stream in enumerate(streams):
            assert client.response(stream).body == f"GET /{n} 0 ".encode()
        assert edge.counters()["upstream_connects"] == 1


def test_a_response_before_the_request_is_whole():
    def script(conn):
        at = Origin(conn)
        stream = at.next_request(ended=False)
        at.respond(stream, b"begin ", end=False)
        for n in range(10):
            at.until(lambda n=n: len(at.responses[stream].body) >= 5 * (n + 1))
            at.send(frame(h2_peer.DATA, 0, stream, b"%d " % n))
        at.until(lambda: at.responses[stream].ended)
        at.send(frame(h2_peer.DATA, h2_peer.END_STREAM, stream, b"end"))
        at.end()

    with serving(script, pool=H2C) as edge, H2Client(edge) as client:
        stream = client.post(end=False)
        response = client.responses[stream]
        client.until(lambda: bytes(response.body) == b"begin ")
        for n in range(10):
            client.send(frame(h2_peer.DATA, 0, stream, b"hello"))
            client.until(lambda n=n: response.body.endswith(b"%d " % n))
        client.send(frame(h2_peer.DATA, h2_peer.END_STREAM, stream))
        assert bytes(client.response(stream).body) == b"begin 0 1 2 3 4 5 6 7 8 9 end"


def test_a_server_that_needs_no_more_of_the_request():
    """RST_STREAM with NO_ERROR after a whole response is no error (RFC 9113, section 8.1)."""
    def answer(at, stream, request):
        at.respond(stream, b"enough")
        at.send(reset(stream, h2_peer.NO_ERROR))

    with behind(answer, own={"ended": False}) as edge, H2Client(edge) as client:
        for _ in range(3):
            stream = client.post(b"x" * 1000, end=False)
            response = client.response(stream)
            assert (response.status, bytes(response.body)) == (200, b"enough")
        assert edge.counters()["upstream_connects"] == 1


# ---- windows

def test_large_content_both_ways():
    body = bytes(range(256)) * 16384        # 4 MiB

    def script(conn):
        at = Origin(conn)
        stream = at.next_request()
        at.respond(stream, end=False)
        at.upload(stream, bytes(at.responses[stream].body))
        at.end()

    with serving(script, pool=H2C) as edge, H2Client(edge) as client:
        stream = client.post(end=False)
        client.until(lambda: client.settings is not None)
        client.upload(stream, body)
        assert client.response(stream).body == body


def test_a_slow_client_stalls_its_own_stream_only():
    """What waits for it is bounded, and others go on over the same connection."""
    sent = {}

    def script(conn):
        at = Origin(conn)
        slow = at.next_request()
        at.respond(slow, end=False)
        conn.sock.settimeout(0.02)
        sent[0] = 0
        at.windows[slow] = at.room(slow)
        end = time.monotonic() + 3
        answered = set()
        while time.monotonic() < end:
            n = min(at.room(slow), at.room(0), 16384)
            if n > 0:
                at.send(frame(h2_peer.DATA, 0, slow, bytes(n)))
                at.windows[slow] = at.room(slow) - n
                at.windows[0] = at.room(0) - n
                sent[0] += n
            with contextlib.suppress(TimeoutError):
                if n <= 0:
                    at.step()
            for s, r in list(at.responses.items()):
                if s != slow and r.ended and s not in answered:
                    answered.add(s)
                    say(at, s, r)

    with contextlib.ExitStack() as ends:
        edge = ends.enter_context(serving(script, pool=H2C, send_buffer=65536))
        slow, other = ends.enter_context(Client(edge, receive_buffer=65536)), ends.enter_context(Client(edge))
        slow.send(get("/slow"))
        slow.head()
        until(lambda: sent.get(0, 0) > MIB // 4)
        time.sleep(0.3)
        before = sent[0]
        for n in range(20):
            assert other.ask(get(f"/{n}")).body == f"GET /{n} 0 ".encode()
        time.sleep(0.2)
        assert sent[0] - before < MIB // 4          # it has come to a halt,
        assert sent[0] < 6 * MIB                    # soon,
        assert edge.chunks_in_use() * 16384 < 2 * MIB
        assert edge.counters()["upstream_connects"] == 1
        slow.sock.settimeout(5)
        got = 0
        while got < before + MIB:                   # and goes on when the client does
            got += len(slow.sock.recv(65536))


def test_clients_that_take_nothing_do_not_close_the_window_for_others():
    """Many streams, of any number of clients, hold what fits their windows; the connection's is open all the same."""
    ends = threading.Event()

    def script(conn):
        at = Origin(conn)
        conn.sock.settimeout(0.01)
        left = {}
        while not ends.is_set():
            with contextlib.suppress(TimeoutError):
                at.step()
            for stream in [s for s, r in at.responses.items() if r.ended and s not in at.taken]:
                at.taken.add(stream)
                at.respond(stream, end=False)
                left[stream] = MIB if at.responses[stream].fields[":path"] == "/large" else 2
            for stream in list(left):
                while (n := min(at.room(stream), at.room(0), 16384, left[stream])) > 0:
                    left[stream] -= n
                    at.send(frame(h2_peer.DATA, 0 if left[stream] else h2_peer.END_STREAM, stream, bytes(n)))
                    at.windows[stream] = at.room(stream) - n
                    at.windows[0] = at.room(0) - n
                if left[stream] == 0:
                    del left[stream]

    with serving(script, pool=H2C, send_buffer=65536) as edge:
        with H2Client(edge, initial_window_size=0) as lazy, Client(edge) as other:
            large = [lazy.get("/large") for _ in range(60)]
            lazy.until(lambda: all(lazy.responses[stream].fields for stream in large))
            time.sleep(0.5)
            for _ in range(5):
                assert other.ask(get("/small")).body == bytes(2)
            assert edge.counters()["upstream_connects"] == 1
            # Once they are taken, they come whole.
            for stream in large[:3]:
                lazy.send(window(stream, 2 * MIB))
            lazy.until(lambda: all(lazy.responses[stream].ended for stream in large[:3]))
            assert [len(lazy.responses[stream].body) for stream in large[:3]] == [MIB] * 3
        edge.until_idle()
        ends.set()


def test_a_slow_server_holds_up_the_client():
    """The server opens no windows: little more than the first one is taken from the client."""
    def script(conn):
        at = Origin(conn, hold=True)
        stream = at.next_request(ended=False)
        at.until(lambda: len(at.responses[stream].body) >= 65535)
        time.sleep(0.4)
        at.respond(stream, b"%d" % len(at.responses[stream].body))
        at.end()

    def push(client, stream):
        with contextlib.suppress(EOFError, OSError):
            client.upload(stream, bytes(20 * MIB))

    with serving(script, pool=H2C) as edge, H2Client(edge) as client:
        stream = client.post(end=False)
        client.until(lambda: client.settings is not None)
        thread = threading.Thread(target=push, args=(client, stream), daemon=True)
        thread.start()
        thread.join(0.3)
        assert 65535 <= client.uploaded < 2 * MIB
        assert edge.chunks_in_use() * 16384 < 2 * MIB
        client.sock.settimeout(0.1)
        thread.join(5)


def test_ten_mebibytes_to_a_slow_client_arrive_whole():
    def script(conn):
        at = Origin(conn)
        stream = at.next_request()
        at.respond(stream, end=False)
        at.upload(stream, bytes(10 * MIB))
        at.serve(say)

    with serving(script, pool=H2C, send_buffer=65536) as edge, Client(edge, receive_buffer=32768) as client:
        client.send(get())
        head = client.head()
        assert head.fields["transfer-encoding"] == "chunked"
        got, most = 0, 0
        while size := int(client.line(), 16):
            got += len(client.exactly(size))
            assert client.exactly(2) == b"\r\n"
            if got % (MIB // 2) < size:
                most = max(most, edge.chunks_in_use())
                time.sleep(0.01)
        assert got == 10 * MIB
        assert most * 16384 < 2 * MIB


# ---- how many

def test_connections_as_the_server_limits_its_streams():
    """Two streams each: twelve requests at a time take six connections, and wait where only three are allowed."""
    gate = threading.Event()

    def script(conn):
        at = Origin(conn, max_concurrent_streams=2)
        while True:
            stream = at.next_request()
            if not gate.is_set():
                conn.sock.settimeout(0.02)
                while not gate.is_set():
                    with contextlib.suppress(TimeoutError):
                        at.step()
                conn.sock.settimeout(8)
            say(at, stream, at.responses[stream])

    for most, expected in ((16, 6), (3, 3)):
        gate.clear()
        with serving(script, pool={**H2C, "max_connections": most}) as edge, H2Client(edge) as client:
            streams = [client.get(f"/{n}") for n in range(12)]
            until(lambda edge=edge, expected=expected: edge.counters()["upstream_connects"] == expected)
            time.sleep(0.1)
            gate.set()
            for n, stream in enumerate(streams):
                assert client.response(stream).body.startswith(f"GET /{n} ".encode())
            assert edge.counters()["upstream_connects"] == expected
            assert len(edge.backends[0].open) == expected
            edge.backends[0].open.clear()
            edge.backends[0].accepted = 0


def test_who_waits_for_a_stream_waits_no_longer_than_for_a_connection():
    def answer(at, stream, request):
        if request.fields[":path"] != "/stay":
            say(at, stream, request)

    one = {"own": {"max_concurrent_streams": 1}, "pool": {"max_connections": 1}}
    with behind(answer, **one, connect_ms=300) as edge, H2Client(edge) as client:
        client.get("/stay")
        start = time.monotonic()
        response = client.ask("/late")
        assert response.status == 504
        assert 0.2 < time.monotonic() - start < 3
        assert told(edge, "timeout: connect")
        assert edge.counters()["upstream_connects"] == 1


def test_who_waits_may_give_up():
    def answer(at, stream, request):
        if request.fields[":path"] == "/first":
            time.sleep(0.3)
        say(at, stream, request)

    one = {"own": {"max_concurrent_streams": 1}, "pool": {"max_connections": 1}}
    with behind(answer, **one) as edge, H2Client(edge) as client:
        first, second, third = (client.get(path) for path in ("/first", "/second", "/third"))
        client.send(reset(second))
        assert client.response(first).body == b"GET /first 0 "
        assert client.response(third).body == b"GET /third 0 "


def test_an_idle_connection_is_closed():
    goaways = []

    def script(conn):
        at = Origin(conn)
        with contextlib.suppress(EOFError):
            at.serve(say)
        goaways.extend(at.goaways)

    with serving(script, pool={**H2C, "idle_ms": 150}) as edge, Client(edge) as client:
        assert client.ask(get()).status == 200
        until(lambda: goaways)
        assert goaways == [(0, h2_peer.NO_ERROR)]
        assert client.ask(get()).status == 200
        assert edge.counters()["upstream_connects"] == 2


def test_none_is_kept_idle():
    with behind(say, pool={"max_idle": 0}) as edge, Client(edge) as client:
        for n in range(3):
            assert client.ask(get()).body == f"GET / {n} ".encode()


def test_what_the_server_says_on_an_idle_connection():
    """A PING is answered, an end is noticed before the next request."""
    def script(conn):
        at = Origin(conn)
        stream = at.next_request()
        say(at, stream, at.responses[stream])
        if conn.number == 0:
            at.send(frame(h2_peer.PING, 0, 0, bytes(8)))
            at.until(lambda: at.pongs)
            conn.sock.close()
        else:
            at.serve(say)

    with serving(script, pool=H2C) as edge, Client(edge) as client:
        assert client.ask(post(b"1")).status == 200
        until(lambda: edge.call(edge.group.idle_connections) == 0)
        assert client.ask(post(b"2")).body == b"POST / 1 2"


# ---- what is sent again

def test_streams_that_a_goaway_leaves_out_are_sent_again():
    """POST too: the server says that it has not touched them."""
    def script(conn):
        at = Origin(conn)
        if conn.number:
            at.serve(say)
        streams = [at.next_request() for _ in range(4)]
        last = sorted(streams)[1]
        at.send(frame(h2_peer.GOAWAY, 0, 0, last.to_bytes(4, "big") + bytes(4)))
        for stream in streams:
            if stream <= last:
                say(at, stream, at.responses[stream])
        at.end()

    with serving(script, pool=H2C) as edge, H2Client(edge) as client:
        streams = [client.post(path=f"/{n}", fields=[("content-length", "0")]) for n in range(4)]
        said = sorted(bytes(client.response(stream).body) for stream in streams)
        assert [line.split()[2] for line in said] == [b"0", b"0", b"1", b"1"]
        assert edge.counters()["upstream_retries"] == 2
        assert edge.counters()["upstream_connects"] == 2


def test_a_server_that_always_leaves():
    """Before it took a request: asking on would not help."""
    def script(conn):
        conn.send(settings() + frame(h2_peer.GOAWAY, 0, 0, bytes(8)))
        conn.sock.recv(1000)

    with serving(script, pool=H2C) as edge, H2Client(edge) as client:
        streams = [client.get() for _ in range(10)]
        assert {client.response(stream).status for stream in streams} == {502}
        assert edge.counters()["upstream_connects"] <= 10
        assert told(edge, "handshake (HTTP/2: GOAWAY by the server, NO_ERROR)"), edge.errors[:3]


def test_refused_streams_are_sent_again_once():
    def answer(at, stream, request):
        if request.fields[":path"] == "/never" or "x-seen" not in seen:
            seen.add("x-seen")
            at.send(reset(stream, h2_peer.REFUSED_STREAM))
        else:
            say(at, stream, request)

    seen = set()
    with behind(answer) as edge, H2Client(edge) as client:
        assert client.response(client.post(path="/once", fields=[("content-length", "0")])).body == b"POST /once 0 "
        assert client.ask("/never").status == 502
        assert told(edge, "REFUSED_STREAM")


def test_content_that_has_gone_is_not_sent_again():
    def answer(at, stream, request):
        at.until(lambda: request.body)
        at.send(reset(stream, h2_peer.REFUSED_STREAM))

    with behind(answer, own={"ended": False}) as edge, H2Client(edge) as client:
        assert client.response(client.post(b"body", end=False)).status == 502
        assert edge.counters()["upstream_retries"] == 0


def test_a_broken_connection_fails_what_is_on_it():
    """Nothing of it was answered: what may be repeated is asked again, a POST is not. What was begun is cut."""
    def script(conn):
        at = Origin(conn)
        if conn.number:
            at.serve(say)
        first = at.next_request()
        say(at, first, at.responses[first])
        streams = [at.next_request() for _ in range(3)]
        begun = next(s for s in streams if at.responses[s].fields[":path"] == "/begun")
        at.respond(begun, b"half", fields=[("content-length", "8")], end=False)
        time.sleep(0.1)
        conn.reset()

    with serving(script, pool=H2C) as edge, H2Client(edge) as client:
        assert client.ask("/first").status == 200
        streams = client.get("/begun"), client.get("/again"), client.post(path="/not", fields=[("content-length", "0")])
        begun, again, posted = map(client.response, streams)
        assert (begun.status, bytes(begun.body), begun.reset) == (200, b"half", h2_peer.INTERNAL_ERROR)
        assert bytes(again.body) == b"GET /again 1 "
        assert posted.status == 502


# ---- servers that are none

@pytest.mark.parametrize("greeting", [
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n",
    b"",
    frame(h2_peer.PING, 0, 0, bytes(8)),
    b"\x00" * 64,
])
def test_a_server_that_does_not_speak_it(greeting):
    def script(conn):
        conn.sock.recv(1000)
        conn.send(greeting)
        time.sleep(0.1)

    with serving(script, pool=H2C) as edge, Client(edge) as client:
        response = client.ask(get())
        assert response.status == 502
        assert told(edge, "handshake (HTTP/2: ")
        client.close()
        assert last_entry(edge)["error"] == "upstream handshake failed"


def test_a_server_that_says_nothing():
    with serving(lambda conn: conn.sock.recv(1), pool=H2C) as edge:
        pass
    with serving(lambda conn: time.sleep(0.8), pool=H2C, connect_ms=200) as edge, Client(edge) as client:
        assert client.ask(get()).status == 504
        client.close()
        assert last_entry(edge)["error"] == "timeout: connect"


def test_nobody_is_there():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = ("tcp", *listener.getsockname())
    good = Backend(origin(say))
    broken = Backend()
    broken.address = address
    with serving(broken, good, pool=H2C) as edge, H2Client(edge) as client:
        streams = [client.post(path=f"/{n}", fields=[("content-length", "0")]) for n in range(20)]
        assert {client.response(stream).status for stream in streams} == {200}
    with serving(broken, pool=H2C) as edge, H2Client(edge) as client:
        assert {client.response(stream).status for stream in [client.get() for _ in range(5)]} == {503}


@pytest.fixture(scope="module")
def pem(tmp_path_factory):
    certificate, key = certified()
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    file = tmp_path_factory.mktemp("pki") / "server.pem"
    file.write_bytes(certificate.public_bytes(serialization.Encoding.PEM) + key.private_bytes(*form))
    return file


@contextlib.contextmanager
def over_tls(pem, script, alpn):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.set_alpn_protocols(alpn)
    pool = {"protocol": "h2", "tls": [ClientConfig(server_name="example.com", alpn=(b"h2",))]}
    with serving(Backend(script, tls=context), pool=pool) as edge:
        yield edge


def test_over_tls(pem):
    def answer(at, stream, request):
        at.respond(stream, request.fields[":scheme"].encode() + bytes(request.body))

    with over_tls(pem, origin(answer), ["h2"]) as edge, H2Client(edge) as client:
        streams = [client.post(b"x" * 20000) for _ in range(3)]
        assert {bytes(client.response(stream).body) for stream in streams} == {b"https" + b"x" * 20000}
        assert edge.counters()["upstream_connects"] == 1


def test_a_server_that_does_not_choose_it(pem):
    with over_tls(pem, echo, ["http/1.1"]) as edge, Client(edge) as client:
        assert client.ask(get()).status == 502
        assert told(edge, "handshake (HTTP/2: not chosen by the server (ALPN))")


# ---- servers that break the rules

def faulty(fault):
    """A server that does `fault(origin, stream)` with the first request, and serves those that follow."""
    def script(conn):
        at = Origin(conn)
        if conn.number:
            at.serve(say)
        stream = at.next_request()
        with contextlib.suppress(OSError):
            fault(at, stream)
            at.serve(say)

    return script


def head(at, stream, *fields, end=False):
    at.send(at.head(stream, list(fields), end=end))


OK = (":status", "200")
FAULTS = {
    "more than the stream's window": lambda at, s: (
        head(at, s, OK), [at.send(frame(h2_peer.DATA, 0, s, bytes(16384))) for _ in range(400)]),
    "content before a head": lambda at, s: at.send(frame(h2_peer.DATA, 0, s, b"x")),
    "content on no stream": lambda at, s: at.send(frame(h2_peer.DATA, 0, 0, b"x")),
    "a stream that nobody opened": lambda at, s: at.send(at.head(s + 10, [OK])),
    "a stream of its own": lambda at, s: at.send(at.head(2, [OK])),
    "a promise": lambda at, s: at.send(frame(h2_peer.PUSH_PROMISE, 4, s, b"\0\0\0\2\x88")),
    "a frame that is too large": lambda at, s: at.send(frame(h2_peer.DATA, 0, s, bytes(20000))),
    "no status": lambda at, s: head(at, s, ("x-a", "b")),
    "a status twice": lambda at, s: head(at, s, OK, OK),
    "a status that is none": lambda at, s: head(at, s, (":status", "abc")),
    "101": lambda at, s: head(at, s, (":status", "101")),
    "a request's pseudo-header": lambda at, s: head(at, s, OK, (":path", "/")),
    "capitals": lambda at, s: head(at, s, OK, ("X-A", "b")),
    "a line break": lambda at, s: head(at, s, OK, ("x-a", "b\r\nc: d")),
    "a field of connections": lambda at, s: head(at, s, OK, ("connection", "close")),
    "two lengths": lambda at, s: head(at, s, OK, ("content-length", "1"), ("content-length", "2")),
    "a length that is none": lambda at, s: head(at, s, OK, ("content-length", "x")),
    "a head that is too large": lambda at, s: head(at, s, OK, *((f"x-{n}", "y" * 4000) for n in range(30))),
    "too many fields": lambda at, s: head(at, s, OK, *((f"x-{n}", "y") for n in range(300))),
    "fields that do not decode": lambda at, s: at.send(frame(h2_peer.HEADERS, 4, s, b"\xff\xff\xff\xff\xff")),
    "many heads": lambda at, s: [head(at, s, (":status", "103")) for _ in range(100)],
    "a reset": lambda at, s: at.send(reset(s, h2_peer.CANCEL)),
    "a reset without a fault": lambda at, s: at.send(reset(s, h2_peer.NO_ERROR)),
    "GOAWAY with a fault": lambda at, s: (
        at.send(frame(h2_peer.GOAWAY, 0, 0, s.to_bytes(4, "big") + bytes([0, 0, 0, 1]))), at.conn.sock.close()),
    "an end": lambda at, s: at.conn.sock.close(),
    "half a frame": lambda at, s: (at.send(b"\x00\x10\x00\x01"), at.conn.sock.close()),
    "a flood of SETTINGS": lambda at, s: [at.send(settings(enable_push=0) * 1000) for _ in range(20)],
    "a flood of PINGs": lambda at, s: [at.send(frame(h2_peer.PING, 0, 0, bytes(8)) * 1000) for _ in range(200)],
    "a flood of empty DATA": lambda at, s: (
        head(at, s, OK), [at.send(frame(h2_peer.DATA, 0, s) * 1000) for _ in range(200)]),
    "a flood of CONTINUATION": lambda at, s: at.send(
        frame(h2_peer.HEADERS, 0, s, at.encoder.encode([OK])) + frame(h2_peer.CONTINUATION, 0, s) * 1000),
    "windows beyond what there is": lambda at, s: at.send(window(0, 0x7FFFFFFF), window(0, 0x7FFFFFFF)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_servers_that_break_the_rules(fault):
    """The request ends by 502 or a cut, the next one is served, and nothing is left behind."""
    with serving(faulty(FAULTS[fault]), pool=H2C) as edge, H2Client(edge) as client:
        response = client.response(client.post(fields=[("content-length", "0")]))
        if response.fields is None or response.status == 200:
            assert response.reset is not None, response
        else:
            assert response.status == 502
        until(lambda: any("upstream app" in text for _, text in edge.errors))
        again = client.response(client.post(path="/again", fields=[("content-length", "0")]))
        assert again.body.startswith(b"POST /again ")


def test_a_length_that_does_not_hold():
    """Content longer than announced is a fault of the stream (RFC 9113, section 8.1.1), shorter too."""
    def answer(at, stream, request):
        at.respond(stream, b"four", fields=[("content-length", request.fields[":path"][1:])])

    with behind(answer) as edge, H2Client(edge) as client:
        assert client.ask("/4").body == b"four"
        for length in ("/3", "/5"):
            response = client.ask(length)
            assert response.reset is not None or response.status == 502
        assert client.ask("/4").body == b"four"
        assert edge.counters()["upstream_connects"] == 1


def test_clients_that_leave_reset_their_streams():
    """One connection serves them all, and the server hears of each."""
    resets = []

    def script(conn):
        at = Origin(conn)
        while True:
            f = at.step()
            if f.type == h2_peer.RST_STREAM:
                resets.append(at.responses[f.stream].reset)

    with serving(script, pool=H2C) as edge:
        with H2Client(edge) as client:
            streams = [client.get(f"/{n}") for n in range(20)]
            until(lambda: edge.counters()["requests"] == 20)
            client.send(*(reset(stream) for stream in streams[:10]))
            until(lambda: len(resets) == 10)
        until(lambda: len(resets) == 20)
        assert set(resets) == {h2_peer.CANCEL}
        assert edge.counters()["upstream_connects"] == 1


def test_http_1_upstreams_are_not_touched_by_it():
    def script(conn):
        conn.request()
        conn.send(reply(b"one"))

    with serving(script, pool={"protocol": "http/1.1"}) as edge, H2Client(edge) as client:
        assert client.ask().body == b"one"
