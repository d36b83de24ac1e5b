"""Tunnels: what switches protocols and what does not, bytes both ways, and the ends of both directions."""

import base64
import hashlib
import socket
import ssl
import threading
import time

import hpack
import pytest

from tests.cext.proxy.harness import BytesClient, Client, echo, get, reply, serving, until
from tests.cext.proxy.test_upstream_tls import behind_tls, files
from tests.h2_peer import HEADERS, SETTINGS, frame

__all__ = ["files"]                             # a fixture

KEY = "dGhlIHNhbXBsZSBub25jZQ=="                # RFC 6455, section 1.3, and what belongs to it
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
WEBSOCKET = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
RAW = {"upgrade": ("raw/1", "websocket")}


def websocket(*fields, key=KEY, path="/chat"):
    return get(path, *WEBSOCKET, f"Sec-WebSocket-Key: {key}", *fields)


def raw(*fields):
    return get("/raw", "Connection: upgrade", "Upgrade: raw/1", *fields)


def switching(*fields, protocol="raw/1"):
    lines = ["HTTP/1.1 101 Switching Protocols", f"Upgrade: {protocol}", "Connection: Upgrade", *fields, "", ""]
    return "\r\n".join(lines).encode()


def accept_of(key):
    return base64.b64encode(hashlib.sha1((key + GUID).encode()).digest()).decode()


def switch(conn):
    """A backend that switches to what it is asked for."""
    request = conn.request()
    fields = []
    if request.fields["upgrade"] == "websocket":
        fields = ["Sec-WebSocket-Accept: " + accept_of(request.fields["sec-websocket-key"])]
    conn.send(switching(*fields, protocol=request.fields["upgrade"]))
    return request


def echoing(conn):
    """Sends everything back, until the client ends; then ends."""
    switch(conn)
    data, conn.buffer = conn.buffer, b""
    conn.send(data)
    while data := conn.sock.recv(65536):
        conn.send(data)


class Peer(BytesClient):
    """A client that can end its direction alone."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def sealed(self, data):
        return self.records(*(data[i:i + 16_384] for i in range(0, len(data), 16_384)))

    def send(self, data):
        self.tcp.sendall(self.sealed(data))

    def ask(self, data):
        self.send(data)
        return self.response()

    def end(self):
        self.tcp.sendall(self.close_notify())

    def ended(self):
        return self.buffer + self.recv(1) == b""


def last_entry(edge):
    edge.until_idle()
    edge.stop()
    return edge.log()[-1]


# ---- the switch

def test_a_websocket():
    seen = []

    def script(conn):
        seen.append(switch(conn))
        conn.send(b"hello")
        assert conn.exactly(4) == b"back"

    with serving(script) as edge, Client(edge) as client:
        response = client.ask(websocket("Sec-WebSocket-Protocol: chat", "Connection: X-Hop", "X-Hop: 1"))
        assert response.start == "HTTP/1.1 101 Switching Protocols"
        assert response.fields == {"upgrade": "websocket", "connection": "upgrade", "sec-websocket-accept": ACCEPT}
        assert client.exactly(5) == b"hello"
        assert edge.counters()["connections_hijacked"] == 1
        assert edge.counters()["tunnels_open"] == 1
        client.send(b"back")
        assert client.ended()
        client.close()
        entry = last_entry(edge)
        assert (entry["status"], entry["upgrade"], entry["ended_by"]) == (101, "websocket", "upstream")
        assert "error" not in entry
        assert entry["bytes_in"] == len(websocket("Sec-WebSocket-Protocol: chat", "Connection: X-Hop", "X-Hop: 1")) + 4
        counters = edge.counters()
        assert (counters["tunnels"], counters["tunnels_open"], counters["became_hijacked"]) == (1, 0, 1)
    sent = seen[0].fields
    assert (sent["upgrade"], sent["connection"]) == ("websocket", "upgrade")
    assert (sent["sec-websocket-key"], sent["sec-websocket-protocol"]) == (KEY, "chat")
    assert "x-hop" not in sent


@pytest.mark.parametrize("fields", [
    ("Upgrade: h2c", "Connection: upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    ("Upgrade: other", "Connection: upgrade"),
    ("Upgrade: websocket", "Connection: upgrade"),                                          # without a key
    ("Upgrade: websocket", "Connection: upgrade", "Sec-WebSocket-Key: short"),
    ("Upgrade: websocket", "Connection: upgrade", f"Sec-WebSocket-Key: {KEY}", f"Sec-WebSocket-Key: {KEY}"),
    ("Upgrade: websocket", "Connection: upgrade, Sec-WebSocket-Key", f"Sec-WebSocket-Key: {KEY}"),
    ("Upgrade: websocket", f"Sec-WebSocket-Key: {KEY}"),                                    # not listed
    ("Upgrade: websocket", "Upgrade: raw/1", "Connection: upgrade", f"Sec-WebSocket-Key: {KEY}"),
])
def test_what_may_not_switch_is_an_ordinary_request(fields):
    def script(conn):
        request = conn.request()
        assert "upgrade" not in request.fields
        assert "connection" not in request.fields
        conn.send(reply(b"ordinary"))

    with serving(script, **RAW) as edge, Client(edge) as client:
        assert client.ask(get("/", *fields)).body == b"ordinary"


def test_an_upgrade_that_is_switched_off():
    with serving(echo, upgrade=()) as edge, Client(edge) as client:
        assert client.ask(websocket()).body == b"GET /chat "


def test_websockets_begin_with_get():
    with serving(echo) as edge, Client(edge) as client:
        for method in ("POST", "OPTIONS"):
            assert client.ask(websocket().replace(b"GET", method.encode(), 1)).status == 200


def test_of_several_protocols_the_first_that_may_pass():
    seen = []

    def script(conn):
        seen.append(switch(conn))

    with serving(script, **RAW) as edge, Client(edge) as client:
        assert client.ask(get("/", "Connection: upgrade", "Upgrade: h2c, RAW/1, websocket")).status == 101
        assert client.ended()
    assert seen[0].fields["upgrade"] == "raw/1"


@pytest.mark.parametrize("answer", [
    switching(protocol="websocket"),                                                        # no Accept
    switching("Sec-WebSocket-Accept: " + accept_of("another"), protocol="websocket"),
    switching(f"Sec-WebSocket-Accept: {ACCEPT}", f"Sec-WebSocket-Accept: {ACCEPT}", protocol="websocket"),
    switching(f"Sec-WebSocket-Accept: {ACCEPT}"),                                           # another protocol
    switching(f"Sec-WebSocket-Accept: {ACCEPT}", protocol="websocket, h2c"),
    f"HTTP/1.1 101 OK\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n".encode(),
    f"HTTP/1.1 101 OK\r\nConnection: upgrade\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n".encode(),
    f"HTTP/1.0 101 OK\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {ACCEPT}\r\n\r\n".encode(),
])
def test_a_101_that_was_not_asked_for(answer):
    """Whoever made the backend answer so (a page of the client's choosing, say) gets no tunnel to it: what stands
    behind the request is another one, which goes its own way."""
    got = []

    def script(conn):
        got.append(conn.request().start)
        conn.send(answer + b"secret")
        got.append(conn.rest())

    with serving(script) as edge, Client(edge) as client:
        client.send(websocket() + get("/another"))
        for _ in range(2):
            response = client.response()
            assert response.status == 502
            assert b"secret" not in response.body
        assert edge.counters()["tunnels"] == 0
        until(lambda: len(got) == 4)
    assert sorted(map(str, got)) == ["GET /another HTTP/1.1", "GET /chat HTTP/1.1", "b''", "b''"]


def test_a_refused_upgrade_is_an_ordinary_response_and_the_connection_goes_on():
    """What the client sent behind its request, before it knew, is its next request: read as such, by us."""
    def script(conn):
        assert conn.request().fields["upgrade"] == "websocket"
        conn.send(reply(b"no", status="426 Upgrade Required", fields=["Sec-WebSocket-Version: 13"]))
        request = conn.request()
        assert request.start == "GET /next HTTP/1.1"
        assert "upgrade" not in request.fields
        conn.send(reply(b"next"))
        conn.rest()

    with serving(script) as edge, Client(edge) as client:
        client.send(websocket() + get("/next"))
        refusal = client.response()
        assert (refusal.status, refusal.fields["sec-websocket-version"]) == (426, "13")
        assert client.response().body == b"next"
        assert edge.backends[0].accepted == 1


def test_what_the_client_sends_too_early_waits_for_the_101():
    seen, early = threading.Event(), []

    def script(conn):
        conn.request()
        assert seen.wait(8)
        conn.sock.settimeout(0.1)
        with pytest.raises(TimeoutError):
            conn.sock.recv(1)
        conn.sock.settimeout(8)
        conn.send(switching())
        early.append(conn.exactly(14))

    with serving(script, **RAW) as edge, Client(edge) as client:
        client.send(raw() + b"before ")
        client.send(b"the 101")
        time.sleep(0.05)
        seen.set()
        assert client.response().status == 101
        assert client.ended()
    assert early == [b"before the 101"]


def test_interim_responses_before_the_switch():
    def script(conn):
        conn.request()
        conn.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + switching("X: 1") + b"data")

    with serving(script, **RAW) as edge, Client(edge) as client:
        assert client.ask(raw()).status == 103
        response = client.response()
        assert (response.status, response.fields["x"]) == (101, "1")
        assert client.rest() == b"data"


def test_a_kept_connection_that_was_closed_is_replaced():
    def script(conn):
        if conn.number == 0:
            conn.request()
            conn.send(reply())
            conn.request()
            return
        echoing(conn)

    with serving(script, **RAW) as edge, Peer(edge) as client:
        assert client.ask(get()).status == 200
        assert client.ask(raw()).status == 101
        client.send(b"again")
        assert client.exactly(5) == b"again"
        client.end()
        assert client.ended()


# ---- the bytes

@pytest.mark.parametrize("size", [1, 125, 16_384, 1_000_000])
def test_bytes_of_any_number_come_back(size):
    data = hashlib.shake_128(b"tunnel").digest(size)
    with serving(echoing, **RAW) as edge, Peer(edge) as client:
        assert client.ask(raw()).status == 101
        # TLS is the business of one thread: the other has only bytes to send.
        sender = threading.Thread(target=client.tcp.sendall, args=(client.sealed(data),))
        sender.start()
        assert client.exactly(size) == data
        sender.join()
        client.end()
        assert client.ended()
        entry = last_entry(edge)
        assert entry["ended_by"] == "client"
        assert entry["bytes_in"] == len(raw()) + size
        assert entry["bytes_out"] > size


def test_one_byte_at_a_time_and_every_split_of_the_head():
    with serving(echoing, **RAW) as edge:
        client = BytesClient(edge)
        for byte in raw() + b"xyz":
            client.tcp.sendall(client.records(bytes([byte])))
        assert client.head().status == 101
        assert client.exactly(3) == b"xyz"
        client.tcp.sendall(client.close_notify())
        assert client.recv(1) == b""
        client.close()


def test_a_backend_that_does_not_read_holds_up_the_client():
    """Memory stays bounded, and nothing is lost."""
    go = threading.Event()
    total = 24 << 20

    def script(conn):
        switch(conn)
        assert go.wait(8)
        got = len(conn.buffer)
        while got < total:
            part = conn.sock.recv(1 << 20)
            assert part
            got += len(part)
        conn.send(b"all")

    with serving(script, **RAW) as edge, Client(edge) as client:
        assert client.ask(raw()).status == 101
        sender = threading.Thread(target=client.send, args=(bytes(total),), daemon=True)
        sender.start()
        time.sleep(0.3)
        assert sender.is_alive()
        assert edge.chunks_in_use() <= 40          # of 16 KiB
        go.set()
        assert client.exactly(3) == b"all"
        sender.join()


def test_a_client_that_does_not_read_holds_up_the_backend():
    total = 12 << 20
    sent = threading.Event()

    def script(conn):
        switch(conn)
        conn.send(bytes(total))
        sent.set()

    with serving(script, **RAW) as edge, Client(edge, receive_buffer=65536) as client:
        assert client.ask(raw()).status == 101
        assert not sent.wait(0.3)
        assert edge.chunks_in_use() <= 60
        assert len(client.exactly(total)) == total
        assert client.ended()


# ---- the ends

def test_the_client_ends_first_and_still_reads():
    ended = threading.Event()

    def script(conn):
        switch(conn)
        assert conn.rest() == b"question"
        ended.set()
        time.sleep(0.05)
        conn.send(b"answer")

    with serving(script, **RAW) as edge, Peer(edge) as client:
        assert client.ask(raw()).status == 101
        client.send(b"question")
        client.end()
        assert ended.wait(8)
        assert client.rest() == b"answer"
        entry = last_entry(edge)
        assert entry["ended_by"] == "client"
        assert "error" not in entry


def test_the_backend_ends_first_and_still_reads():
    got = []

    def script(conn):
        switch(conn)
        conn.send(b"answer")
        conn.sock.shutdown(socket.SHUT_WR)
        got.append(conn.rest())

    with serving(script, **RAW) as edge:
        client = BytesClient(edge)
        client.tcp.sendall(client.records(raw()))
        assert client.head().status == 101
        assert client.exactly(6) == b"answer"
        assert client.recv(1) == b""                # close_notify,
        client.tcp.settimeout(8)
        assert client.tcp.recv(1) == b""            # and TCP's own end
        assert edge.counters()["tunnels_open"] == 1
        client.tcp.sendall(client.records(b"and ", b"another ", b"question"))
        time.sleep(0.05)
        client.tcp.sendall(client.close_notify())
        entry = last_entry(edge)
        assert entry["ended_by"] == "upstream"
        assert "error" not in entry
        client.close()
    assert got == [b"and another question"]


def test_the_client_ends_with_its_request():
    """Its close_notify stands behind the bytes that come before the 101."""
    got = []

    def script(conn):
        conn.request()
        time.sleep(0.1)
        conn.send(switching())
        got.append(conn.rest())
        conn.send(b"bye")

    for data in (b"", b"early"):
        with serving(script, **RAW) as edge, Peer(edge) as client:
            client.send(raw() + data)
            client.end()
            assert client.response().status == 101
            assert client.rest() == b"bye"
        assert got.pop() == data


@pytest.mark.parametrize("how", ["cut", "reset"])
def test_a_client_that_breaks_off_resets_the_backend(how):
    seen = []

    def script(conn):
        switch(conn)
        conn.send(b"x")
        try:
            conn.rest()
        except ConnectionResetError as e:
            seen.append(e)

    with serving(script, **RAW) as edge:
        client = Client(edge)
        assert client.ask(raw()).status == 101
        assert client.exactly(1) == b"x"
        getattr(client, how)()
        until(lambda: seen)
        entry = last_entry(edge)
        assert entry["error"] == {"cut": "client closed", "reset": "client reset"}[how]
        assert entry["ended_by"] == "client"


def test_a_backend_that_breaks_off_cuts_the_client():
    """Without close_notify: what was sent may not be all."""
    def script(conn):
        switch(conn)
        conn.send(b"x")
        assert conn.exactly(1) == b"y"
        conn.reset()

    with serving(script, **RAW) as edge, Client(edge) as client:
        assert client.ask(raw()).status == 101
        assert client.exactly(1) == b"x"
        client.send(b"y")
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            client.rest()
        entry = last_entry(edge)
        assert (entry["error"], entry["ended_by"]) == ("upstream closed", "upstream")


def test_the_idle_timeout():
    """Bytes of either direction push it back; when it ends, both ends see a break."""
    seen = []

    def script(conn):
        switch(conn)
        try:
            while True:
                assert conn.exactly(1) == b"x"
        except ConnectionResetError as e:
            seen.append(e)

    limits = {"tunnel_idle": 300, "total": 400, "body_idle": 50, "response_idle": 50}
    with serving(script, timeouts=limits, **RAW) as edge:
        client = Client(edge)
        assert client.ask(raw()).status == 101
        start = time.monotonic()
        for _ in range(5):
            time.sleep(0.15)
            client.send(b"x")
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            client.rest()
        assert 0.95 < time.monotonic() - start < 3
        until(lambda: seen)
        assert last_entry(edge)["error"] == "timeout: websocket_idle"
        assert edge.counters()["timeouts"] == 1
        client.close()


def test_no_idle_timeout():
    with serving(echoing, timeouts={"tunnel_idle": 0, "total": 100, "body_idle": 50, "response_idle": 50,
                                    "first_byte": 100}, **RAW) as edge, Peer(edge) as client:
        assert client.ask(raw()).status == 101
        time.sleep(0.7)                             # so long that it rests
        client.send(b"x")
        assert client.exactly(1) == b"x"
        client.end()
        assert client.ended()


def test_a_client_that_takes_nothing_is_cut():
    def script(conn):
        switch(conn)
        conn.send(bytes(32 << 20))

    with serving(script, timeouts={"write_idle": 300}, send_buffer=65536, **RAW) as edge:
        client = Client(edge, receive_buffer=4096)
        assert client.ask(raw()).status == 101
        assert last_entry(edge)["error"] == "timeout: write_idle"
        client.close()


def test_a_worker_that_drains_leaves_tunnels_alone():
    with serving(echoing, **RAW) as edge, Peer(edge) as client:
        assert client.ask(raw()).status == 101
        edge.call(lambda: edge.plane.drain(5000))
        time.sleep(0.1)
        client.send(b"still")
        assert client.exactly(5) == b"still"
        client.end()
        assert client.ended()
        assert edge.ended.wait(2)


def test_many_at_once():
    with serving(echoing, **RAW) as edge:
        clients = [Peer(edge) for _ in range(50)]
        for n, client in enumerate(clients):
            client.send(raw() + b"%04d" % n)
        for n, client in enumerate(clients):
            assert client.response().status == 101
            assert client.exactly(4) == b"%04d" % n
        assert edge.counters()["connections_hijacked"] == 50
        for client in clients:
            client.end()
            assert client.ended()
            client.close()
        edge.until_idle()
        assert edge.counters()["tunnels_open"] == 0


# ---- servers of other kinds

@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_server_of_tls(files, version):
    data = bytes(300_000)

    def script(conn):
        echoing(conn)
        conn.sock.unwrap()                          # Python's close() alone would be a cut

    with behind_tls(script, files, version=version, **RAW) as edge, Peer(edge) as client:
        assert client.ask(raw()).status == 101
        sender = threading.Thread(target=client.tcp.sendall, args=(client.sealed(data),))
        sender.start()
        assert client.exactly(len(data)) == data
        sender.join()
        client.end()
        assert client.ended()
        entry = last_entry(edge)
        assert entry["ended_by"] == "client"
        assert "error" not in entry


def test_a_server_of_tls_that_ends_first(files):
    got = []

    def script(conn):
        switch(conn)
        conn.send(b"bye")
        incoming = conn.sock
        incoming.settimeout(0)
        try:
            incoming.unwrap()                       # close_notify, and on with reading
        except ssl.SSLWantReadError:
            incoming.settimeout(8)
            got.append(socket.socket.recv(incoming, 65536))
        except ssl.SSLError as e:                   # the client was so quick that OpenSSL has read it already
            assert e.reason == "APPLICATION_DATA_AFTER_CLOSE_NOTIFY"
            got.append(e)

    with behind_tls(script, files, **RAW) as edge, Peer(edge) as client:
        assert client.ask(raw()).status == 101
        assert client.exactly(3) == b"bye"
        assert client.ended()
        client.send(b"more")
        until(lambda: got)
        client.end()
        assert last_entry(edge)["ended_by"] == "upstream"
    assert got[0]


@pytest.mark.parametrize("how", ["cut", "reset"])
def test_a_client_that_breaks_off_is_no_end_to_a_server_of_tls(files, how):
    seen = []

    def script(conn):
        switch(conn)
        try:
            seen.append(conn.rest())
        except OSError as e:
            seen.append(e)

    with behind_tls(script, files, **RAW) as edge:
        client = Client(edge)
        assert client.ask(raw()).status == 101
        getattr(client, how)()
        until(lambda: seen)
    assert isinstance(seen[0], (ConnectionResetError, ssl.SSLError))


def test_a_server_of_tls_that_is_cut_off(files):
    def script(conn):
        switch(conn)
        conn.send(b"x")
        socket.socket(fileno=conn.sock.detach()).close()

    with behind_tls(script, files, **RAW) as edge, Client(edge) as client:
        assert client.ask(raw()).status == 101
        assert client.exactly(1) == b"x"
        with pytest.raises((ssl.SSLError, ConnectionResetError)):
            client.rest()
        assert last_entry(edge)["error"] == "upstream closed"


def test_a_server_of_http2_is_asked_for_no_switch():
    """It would be another way to ask; the request goes on as any other."""
    heads = []

    def script(conn):
        assert conn.exactly(24).startswith(b"PRI * HTTP/2.0")
        conn.send(frame(SETTINGS))
        while not heads:
            header = conn.exactly(9)
            payload = conn.exactly(int.from_bytes(header[:3], "big"))
            if header[3] == HEADERS:
                heads.append(dict(hpack.Decoder().decode(payload)))

    with serving(script, pool={"protocol": "h2c"}) as edge, Client(edge) as client:
        assert client.ask(websocket()).status == 502
    assert heads[0][":method"] == "GET"
    assert heads[0]["sec-websocket-key"] == KEY
    assert "upgrade" not in heads[0]
