"""Listening sockets: shared ports, clear errors, and connections that go past a socket."""

import contextlib
import selectors
import socket
import time

import pytest

from edge.errors import ListenError
from edge.processes import sockets
from edge.settings import Bind
from tests.e2e.processes import free_port

V4 = "127.0.0.1"


@pytest.fixture
def group():
    """group(number) -> that many listening sockets on one address."""
    with contextlib.ExitStack() as stack:

        def make(number, address=V4):
            bind = Bind(address, free_port())
            made = [stack.enter_context(sockets.bound(bind)) for _ in range(number)]
            for s in made:
                s.listen(128)
            return bind, made

        yield make


def arrivals(bind, members, number):
    """How many of some connections each member gets."""
    counts = [0] * len(members)
    for _ in range(number):
        with socket.create_connection((bind.address, bind.port)) as client, selectors.DefaultSelector() as selector:
            client.sendall(b"x")  # accepting is deferred until bytes come
            for index, s in enumerate(members):
                selector.register(s, selectors.EVENT_READ, index)
            ((key, _),) = selector.select(5)
            key.fileobj.accept()[0].close()
            counts[key.data] += 1
    return counts


def test_connections_spread_over_the_group(group):
    bind, members = group(3)
    assert min(arrivals(bind, members, 90)) > 0


def test_steering_leaves_the_last_sockets_alone(group):
    bind, members = group(4)
    sockets.steer(members[0], 2)
    counts = arrivals(bind, members, 60)
    assert counts[2:] == [0, 0]
    assert min(counts[:2]) > 0
    # One that has closed takes no place among the first.
    members.pop(2).close()
    counts = arrivals(bind, members, 40)
    assert counts[2] == 0
    assert min(counts[:2]) > 0
    sockets.unsteer(members[0])
    assert min(arrivals(bind, members, 90)) > 0


def test_steering_goes_by_the_order_of_listening():
    bind = Bind(V4, free_port())
    first, second = sockets.bound(bind), sockets.bound(bind)
    with first, second:
        second.listen()
        first.listen()
        sockets.steer(first, 1)
        assert arrivals(bind, [first, second], 20) == [0, 20]


def test_what_is_queued_stays_when_steering_begins(group):
    bind, members = group(2)
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            client = stack.enter_context(socket.create_connection((bind.address, bind.port)))
            client.sendall(b"x")
        time.sleep(0.2)
        sockets.steer(members[0], 1)
        accepted = 0
        for s in members:
            with contextlib.suppress(BlockingIOError):
                while True:
                    s.accept()[0].close()
                    accepted += 1
        assert accepted == 20


def test_options_that_accepted_sockets_inherit(group):
    bind, (member,) = group(1)
    assert member.getblocking() is False
    with socket.create_connection((bind.address, bind.port)) as client:
        client.sendall(b"x")
        time.sleep(0.1)
        with member.accept()[0] as accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_a_silent_client_is_not_accepted_at_once(group):
    bind, (member,) = group(1)
    with socket.create_connection((bind.address, bind.port)):
        time.sleep(0.1)
        with pytest.raises(BlockingIOError):
            member.accept()


def test_an_ipv6_wildcard_takes_no_ipv4_address():
    port = free_port()
    with sockets.bound(Bind("::", port)) as six, sockets.bound(Bind("0.0.0.0", port)) as four:
        six.listen()
        four.listen()
        assert str(six) == f"https://[::]:{port}"
        assert str(four) == f"https://0.0.0.0:{port}"


def test_a_taken_port_is_seen_in_spite_of_sharing(group):
    bind, _ = group(1)
    with pytest.raises(ListenError, match=rf"^{bind}: the address is in use already; stop what listens there"):
        sockets.check_free(bind)
    with sockets.bound(bind):  # a member of the group may still join
        pass


def test_a_port_in_time_wait_is_free(group):
    bind, (member,) = group(1)
    client = socket.create_connection((bind.address, bind.port))
    client.sendall(b"x")
    time.sleep(0.1)
    member.accept()[0].close()
    client.close()
    member.close()
    sockets.check_free(bind)


def test_addresses_that_cannot_be():
    with pytest.raises(ListenError, match=r"^192\.0\.2\.1:443: the address is no address of this host; choose one"):
        sockets.bound(Bind("192.0.2.1", 443))
