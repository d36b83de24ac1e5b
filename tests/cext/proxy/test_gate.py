"""PROXY headers in front of connections: believed from those who may send them, and from nobody else."""

import pytest
from cext.proxy.address_table import AddressTable
from cext.proxy.gate import GateSettings, ProxySettings

from tests.cext.net.test_proxy_header import CLIENT, V4, V6, tlv, v2
from tests.cext.proxy.handing import connected, descriptors, gate, receiver
from tests.cext.proxy.harness import SECONDS, BytesClient, Client, echo, get, reply, serving, until
from tests.cext.tls.peer import HANDSHAKE, client_hello, record

LINE = b"PROXY TCP4 192.0.2.1 198.51.100.7 50000 443\r\n"
HERE = [("127.0.0.0", 8)]


def behind(networks=HERE, *, others=False, timeout_ms=0, rules=()):
    return {"gate": GateSettings(proxy=ProxySettings(networks, others, timeout_ms), rules=rules)}


def shown(conn):
    """Answers with what the upstream is told of the client."""
    while True:
        conn.send(reply(conn.request().fields["x-forwarded-for"].encode()))


class Proxied(BytesClient):
    """A client behind a proxy that sends `header` first; with the ClientHello, or before it."""

    def __init__(self, edge, header, *, apart=False):
        tcp = connected(edge)
        if apart:
            for i in range(len(header)):
                tcp.sendall(header[i:i + 1])
        else:
            tcp.sendall(header)
        super().__init__(None, tcp=tcp)

    def ask(self, data):
        self.tcp.sendall(self.records(data))
        return self.response()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize(("header", "client"), [
    (LINE, "192.0.2.1"),
    (v2(V4 + tlv(4, b"x" * 300)), "192.0.2.1"),
    (v2(V6, family=0x21), "2001:db8::1"),
    (b"PROXY UNKNOWN\r\n", "127.0.0.1"),
    (v2(V4, command=0x20), "127.0.0.1"),
    (v2(bytes(216), family=0x31), "127.0.0.1"),
])
def test_the_client_is_who_the_header_says(header, client, apart):
    with serving(shown, listener=behind()) as edge:
        with Proxied(edge, header, apart=apart) as one:
            for _ in range(2):
                assert one.ask(get("/")).body == client.encode()
        edge.until_idle()
        edge.stop()
        entries = edge.log()
        assert [e["client"] for e in entries] == [client] * 2
        if client != "127.0.0.1":
            assert entries[0]["client_port"] == CLIENT[1]


def test_the_host_of_an_old_request_is_where_the_client_connected_to():
    def host(conn):
        while True:
            conn.send(reply(conn.request().fields["host"].encode()))

    with serving(host, listener=behind()) as edge, Proxied(edge, LINE) as one:
        one.tcp.sendall(one.records(b"GET / HTTP/1.0\r\n\r\n"))
        assert one.response().body in (b"example.com", b"198.51.100.7:443")


@pytest.mark.parametrize("data", [
    record(HANDSHAKE, client_hello(entries=[])), b"GET / HTTP/1.1\r\n", b"PROXY TCP4 what\r\n", v2(V4[:5]),
    v2(V4 + tlv(3, bytes(4))), b"PROXY " + b"x" * 120,
])
def test_those_who_must_send_one_and_do_not_are_closed_without_a_word(data):
    with serving(echo, listener=behind()) as edge, connected(edge) as client:
        client.sendall(data)
        assert client.recv(10) == b""
        edge.until_idle()
        assert edge.counters()["proxy_refused"] == 1
        assert edge.counters()["handshakes"] == 0


@pytest.mark.parametrize("networks", [[("10.0.0.0", 8)], [("127.0.0.2", 32), ("::", 0)], []])
def test_others_are_closed(networks):
    with serving(echo, listener=behind(networks)) as edge, connected(edge) as client:
        assert client.recv(10) == b""
        assert edge.counters()["proxy_refused"] == 1
        assert edge.counters()["connections"] == 0


def test_others_may_be_served_but_are_never_believed():
    with serving(shown, listener=behind([("10.0.0.0", 8)], others=True)) as edge:
        with Client(edge) as client:
            assert client.ask(get("/")).body == b"127.0.0.1"
        for header in (LINE, v2(V4)):
            with connected(edge) as client:
                client.sendall(header + record(HANDSHAKE, client_hello(entries=[])))
                assert client.recv(1) in (b"\x15", b"")
        assert edge.counters()["handshakes"] == 1


@pytest.mark.parametrize(("network", "ours"), [
    (("127.0.0.1", 32), True), (("127.0.0.0", 31), True), (("127.0.0.0", 32), False), (("0.0.0.0", 0), True),
    (("126.0.0.0", 7), True), (("128.0.0.0", 1), False), (("::", 0), False),
])
def test_networks(network, ours):
    with serving(shown, listener=behind([network])) as edge, connected(edge) as client:
        if ours:
            client.sendall(b"x")
        assert client.recv(10) == b""
        until(lambda: edge.counters()["proxy_refused"] == 1)
        refused = [text for _, text in edge.errors if "connection refused" in text]
        assert ("there is no PROXY header" in refused[0]) is ours


def test_a_header_that_does_not_come():
    with serving(echo, listener=behind(timeout_ms=50)) as edge, connected(edge) as client:
        client.sendall(LINE[:-1])
        assert client.recv(10) == b""
        edge.until_idle()
        assert edge.counters()["timeouts"] == 1


def test_the_handshakes_time_begins_after_the_header():
    with serving(echo, listener=behind(timeout_ms=0) | {"handshake_ms": 50}) as edge, connected(edge) as client:
        client.sendall(LINE[:-1])
        client.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.recv(1)
        client.settimeout(SECONDS)
        client.sendall(LINE[-1:])
        assert client.recv(1) == b""
        assert edge.counters()["timeouts"] == 1


def test_a_client_that_goes_before_its_header_is_whole():
    with serving(echo, listener=behind()) as edge:
        before = descriptors()
        for n in (0, 3, len(LINE) - 1):
            with connected(edge) as client:
                client.sendall(LINE[:n])
        until(lambda: edge.counters()["connections"] == 3)
        edge.until_idle()
        until(lambda: descriptors() <= before)


@pytest.mark.parametrize("answered", [False, True])
def test_limits_count_the_clients_address_not_the_proxys(answered):
    table = AddressTable(64, 2)
    table.join(0)
    listener = behind() | {"per_address": 1, "answer_over": answered}
    with serving(echo, listener=listener, plane={"addresses": table}) as edge:
        with Proxied(edge, LINE) as one, Proxied(edge, v2(V6, family=0x21)) as two:
            assert one.ask(get("/1")).body == b"GET /1 "
            assert two.ask(get("/2")).body == b"GET /2 "
            if answered:
                with Proxied(edge, LINE) as three:
                    assert three.ask(get("/3")).status == 429
            else:
                with connected(edge) as three:
                    three.sendall(LINE)
                    assert three.recv(1) == b""
            assert edge.counters()["connections_over_limit"] == 1
        edge.until_idle()
        for _ in range(2):
            with Proxied(edge, LINE) as one:
                assert one.ask(get("/again")).status == 200
            edge.until_idle()
        assert edge.counters()["connections_over_limit"] == 1


def test_what_the_proxy_said_is_handed_over_with_the_connection(tmp_path):
    seen = []

    def keep(connection):
        seen.append(connection)
        connection.sock.sendall(b"kept")

    path = tmp_path / "r.sock"
    rules = gate(path)["gate"].rules
    tlvs = tlv(5, b"id") + tlv(2, b"example.com")
    hello = record(HANDSHAKE, client_hello(entries=[]))
    with receiver(path, keep), serving(echo, listener=behind(rules=rules)) as edge, connected(edge) as client:
        client.sendall(v2(V4 + tlvs) + hello)
        assert client.recv(10) == b"kept"
    message = seen[0].handoff
    assert (message.client, message.local, message.proxied) == (CLIENT, ("198.51.100.7", 443), True)
    assert (message.tlvs, message.data) == (tlvs, hello)


def test_many_with_headers_leave_nothing_behind():
    with serving(echo, listener=behind()) as edge:
        before = None
        for i in range(200):
            if i % 2:
                with connected(edge) as client:
                    client.sendall(v2(V4) + record(HANDSHAKE, client_hello(entries=[])))
                    assert client.recv(1)
            else:
                with connected(edge) as client:
                    client.sendall(LINE[:20] + b"\0\r\n")
                    assert client.recv(1) == b""
            before = before or descriptors()
        edge.until_idle()
        until(lambda: descriptors() <= before)
