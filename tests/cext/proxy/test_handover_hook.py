"""Connections that a hook hands over, at once or after it has waited; and what becomes of those that nobody takes."""

import asyncio

import pytest
from cext.proxy.handshake_hooks import Drop, HandOver

from tests.cext.net.test_proxy_header import V4, tlv, v2
from tests.cext.proxy.handing import connected, gate, receiver
from tests.cext.proxy.harness import Client, get, until
from tests.cext.proxy.test_gate import behind
from tests.cext.proxy.test_handover import handed, hello
from tests.cext.proxy.test_handshake_hooks import asking
from tests.cext.tls.peer import HANDSHAKE, extension, record


def give(hello):
    return HandOver("legacy")


async def give_later(hello):
    await asyncio.sleep(0.02)
    return HandOver("legacy")


def only_for_hooks(path, **how):
    """A gate whose rule fits nobody."""
    return gate(path, targets=["legacy"], names=[b"nobody.test"], **how)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "r.sock"


@pytest.mark.parametrize("hook", [give, give_later])
def test_a_hook_hands_over_all_that_came(path, hook):
    message = hello("example.com", extension(21, bytes(2000)))
    sent = b"".join(record(HANDSHAKE, message[i:i + 700]) for i in range(0, len(message), 700)) + b"and more"
    with receiver(path, handed), asking(listener=only_for_hooks(path), client_hello=hook) as edge:
        for _ in range(3):
            with connected(edge) as client:
                client.sendall(sent[:100])
                client.sendall(sent[100:])
                assert client.recv(100) == b"handed over: %d" % len(sent)
        assert edge.counters()["handed_over"] == 3
        edge.until_idle()
        assert edge.counters()["handshakes_waiting"] == 0


@pytest.mark.parametrize("hook", [give, give_later])
@pytest.mark.parametrize("serve", [True, False])
def test_nobody_takes_it(path, hook, serve):
    with asking(listener=only_for_hooks(path, serve=serve), client_hello=hook) as edge:
        if serve:
            with Client(edge) as client:
                assert client.ask(get("/here")).body == b"GET /here "
        else:
            with connected(edge) as client:
                client.sendall(record(HANDSHAKE, hello()))
                assert client.recv(1) == b""
        edge.until_idle()
        assert edge.counters()["handoff_failures"] == 1
        assert edge.counters()["handshakes_waiting"] == 0


def test_those_that_it_does_not_hand_over_are_served(path):
    with receiver(path, handed), asking(listener=only_for_hooks(path), client_hello=lambda hello: None) as edge:
        with Client(edge) as client:
            assert client.ask(get("/here")).body == b"GET /here "
        assert edge.counters()["handed_over"] == 0


def test_an_unknown_receiver_is_a_fault_of_the_hook(path):
    failures = []
    listener = only_for_hooks(path)
    with asking(failures, listener=listener, client_hello=lambda hello: HandOver("other")) as edge:
        with connected(edge) as client:
            client.sendall(record(HANDSHAKE, hello()))
            assert client.recv(7)[-1] == 80
        until(lambda: failures)
        assert "other" in str(failures[0][1])


def test_hooks_see_what_the_proxy_said():
    seen = []

    def look(hello):
        seen.append((hello.client, hello.client_port, hello.local, hello.local_port, hello.proxy))
        return Drop

    with asking(listener=behind(), client_hello=look) as edge:
        for header in (v2(V4 + tlv(5, b"id") + tlv(2, b"a.test")), b"PROXY UNKNOWN\r\n"):
            with connected(edge) as client:
                client.sendall(header + record(HANDSHAKE, hello()))
                assert client.recv(1) == b""
    (*addresses, proxy), (address, *_, unknown) = seen
    assert addresses == ["192.0.2.1", 50000, "198.51.100.7", 443]
    assert proxy.tlvs == [(5, b"id"), (2, b"a.test")]
    assert (proxy.tlv(2), proxy.tlv(1)) == (b"a.test", None)
    assert (proxy.proxy_address, proxy.local_address, proxy.local_port) == ("127.0.0.1", "198.51.100.7", 443)
    assert address == "127.0.0.1"
    assert (unknown.local_address, unknown.local_port, unknown.tlvs) == (None, None, [])
