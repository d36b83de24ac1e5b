"""Connections received from other processes: only from who may, only what is one, and then as any other."""

import socket

import pytest
from cext.net.handoff import build

from edge import handoff
from tests.cext.proxy.handing import connected, descriptors, gate, receiver_settings, receiving
from tests.cext.proxy.harness import (
    RESET,
    SECONDS,
    BytesClient,
    echo,
    get,
    serving,
    until,
)
from tests.cext.tls.peer import HANDSHAKE, client_hello, record


@pytest.fixture
def path(tmp_path):
    return tmp_path / "edge.sock"


class Accepted:
    """A client, and the connection that a sender has accepted from it."""

    def __init__(self, family=socket.AF_INET, address="127.0.0.1"):
        with socket.create_server((address, 0), family=family, dualstack_ipv6=address == "::") as listener:
            self.port = listener.getsockname()[1]
            self.client = socket.create_connection(("127.0.0.1", self.port), SECONDS)
            self.sock, _ = listener.accept()

    def message(self, data=b"", **how):
        return build(self.client.getsockname(), self.client.getpeername(), data, **how)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.client.close()
        self.sock.close()


def sender(path):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    sock.settimeout(SECONDS)
    sock.connect(str(path))
    return sock


def refusals(edge):
    return [text for level, text in edge.errors if level == "warning"]


def test_a_python_program_hands_over_what_it_has_read(path):
    with serving(echo) as edge, receiving(edge, path), Accepted() as one:
        hello = client_hello(entries=[])
        one.client.sendall(record(HANDSHAKE, hello))
        data = one.sock.recv(20)
        handoff.give(path, one.sock, data)
        assert one.client.recv(5)[0] == HANDSHAKE
        assert edge.counters()["handoffs_received"] == 1


@pytest.mark.parametrize("blocking", [True, False])
def test_data_may_come_with_the_message_or_after_it(path, blocking):
    """One byte of the ClientHello, all of it, or none; and a descriptor that blocks, or not."""
    hello = record(HANDSHAKE, client_hello(entries=[]))
    for n in (0, 1, 5, len(hello)):
        with serving(echo) as edge, receiving(edge, path), Accepted() as one, sender(path) as out:
            one.sock.setblocking(blocking)
            socket.send_fds(out, [one.message(hello[:n])], [one.sock.fileno()])
            one.client.sendall(hello[n:])
            assert one.client.recv(5)[0] == HANDSHAKE
            assert not one.sock.getblocking() or blocking


def test_a_client_of_ipv4_on_a_socket_for_both_families(path):
    if not socket.has_dualstack_ipv6():
        pytest.skip("no sockets for both families")
    hello = record(HANDSHAKE, client_hello(entries=[]))
    with serving(echo) as edge, receiving(edge, path), Accepted(socket.AF_INET6, "::") as one:
        handoff.give(path, one.sock, hello)
        assert one.client.recv(5)[0] == HANDSHAKE
        assert edge.counters()["handoffs_received"] == 1


def test_the_handshake_timeout_begins_when_it_is_received(path):
    with serving(echo) as edge, receiving(edge, path, handshake_ms=50), Accepted() as one, sender(path) as out:
        socket.send_fds(out, [one.message()], [one.sock.fileno()])
        one.sock.close()
        assert one.client.recv(1) == b""
        edge.until_idle()
        assert edge.counters()["timeouts"] == 1


def test_limits_hold(path):
    with serving(echo) as edge, receiving(edge, path, max_connections=1), sender(path) as out:
        with Accepted() as one, Accepted() as two:
            for accepted in (one, two):
                socket.send_fds(out, [accepted.message()], [accepted.sock.fileno()])
                accepted.sock.close()
            assert two.client.recv(1) == b""
            assert edge.counters()["connections_over_limit"] == 1
            assert edge.counters()["connections_open"] == 1
        edge.until_idle()


def test_those_that_are_none_are_refused_and_leave_nothing_open(path):
    with serving(echo) as edge, receiving(edge, path), Accepted() as one, sender(path) as out:
        host, port = one.client.getsockname()
        read, write = socket.socketpair()
        before = None
        wrong = [
            (b"hello", [one.sock.fileno()]),
            (one.message()[:-1], [one.sock.fileno()]),
            (one.message(), []),
            (one.message(), [one.sock.fileno()] * 2),
            (one.message(), [write.fileno()]),
            (build((host, port ^ 1), (host, one.port), b""), [one.sock.fileno()]),
            (build(None, None, b""), [one.sock.fileno()]),
            (build(None, None, b"", proxied=True), [one.sock.fileno()]),
        ]
        for n, (message, fds) in enumerate(wrong, 1):
            socket.send_fds(out, [message], fds)
            until(lambda n=n: edge.counters()["handoffs_refused"] == n)
            before = before or descriptors()
        assert descriptors() == before
        assert edge.counters()["connections"] == 0
        assert len(refusals(edge)) == len(wrong)
        read.close()
        write.close()
        # The sender is still heard.
        socket.send_fds(out, [one.message(record(HANDSHAKE, client_hello(entries=[])))], [one.sock.fileno()])
        assert one.client.recv(5)[0] == HANDSHAKE


def test_a_message_too_long_is_refused(path):
    with serving(echo) as edge, receiving(edge, path), Accepted() as one, sender(path) as out:
        socket.send_fds(out, [one.message(b"x" * handoff.DATA_MAX) + b"y" * 9000], [one.sock.fileno()])
        until(lambda: edge.counters()["handoffs_refused"] == 1)
        assert "cut off" in refusals(edge)[0]


def test_a_client_that_has_gone_by_then(path):
    with serving(echo) as edge, receiving(edge, path), Accepted() as one, sender(path) as out:
        message = one.message()
        one.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        one.client.close()
        socket.send_fds(out, [message], [one.sock.fileno()])
        until(lambda: edge.counters()["handoffs_refused"] == 1)
        assert "the client has gone" in refusals(edge)[0]


def test_users_that_may_not_are_turned_away(path):
    with serving(echo) as edge, receiving(edge, path, uids={123456}), Accepted() as one, sender(path) as out:
        until(lambda: edge.counters()["handoffs_refused"] == 1)
        assert out.recv(1) == b""
        with pytest.raises(OSError):
            socket.send_fds(out, [one.message()], [one.sock.fileno()])
        assert "listener.handoff.users" in refusals(edge)[0]


def test_a_proxys_word_is_handed_on(path):
    with serving(echo) as edge, receiving(edge, path), Accepted() as one, sender(path) as out:
        tlvs = b"\x05\x00\x02id"
        message = build(("2001:db8::1", 50000), ("2001:db8::7", 443), b"", proxied=True, tlvs=tlvs)
        socket.send_fds(out, [message], [one.sock.fileno()])
        one.sock.close()
        client = BytesClient(None, tcp=one.client)
        one.client.sendall(client.records(get("/")))
        assert client.response().status == 200
        client.close()
        edge.until_idle()
        edge.stop()
        entry, = edge.log()
        assert (entry["client"], entry["client_port"]) == ("2001:db8::1", 50000)


def test_one_that_ends_takes_what_was_sent_and_its_senders_go_elsewhere(path):
    """A worker that drains: what is in its socket is served; what comes later goes to the next one, through the same
    listening socket."""
    hello = record(HANDSHAKE, client_hello(entries=[]))
    with (
        serving(echo) as ending,
        serving(echo) as staying,
        serving(echo, listener=gate(path)) as front,
        receiving(ending, path) as listener,
    ):
        with connected(front) as client:
            client.sendall(hello)
            assert client.recv(5)[0] == HANDSHAKE
        ending.until_idle()
        ending.call(lambda: ending.plane.drain(SECONDS * 1000))
        assert ending.ended.wait(SECONDS)
        staying.call(lambda: staying.plane.listen(listener.fileno(), receiver_settings(staying)))
        for _ in range(3):
            with connected(front) as client:
                client.sendall(hello)
                assert client.recv(5)[0] == HANDSHAKE
        assert ending.counters()["handoffs_received"] == 1
        assert staying.counters()["handoffs_received"] == 3
        assert front.counters()["handoff_failures"] == 0
        staying.until_idle()
