"""The message of a hand-over: the same to Cython and to Python, and nothing but a message to either."""

import socket

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cext.net import handoff as fast
from edge import handoff
from edge.handoff import Handoff, HandoffError

V4 = (("192.0.2.1", 50000), ("198.51.100.7", 443))
V6 = (("2001:db8::1", 50000), ("2001:db8::7", 443))

ports = st.integers(0, 65535)
pairs = st.one_of(
    st.tuples(st.tuples(st.ip_addresses(v=4).map(str), ports), st.tuples(st.ip_addresses(v=4).map(str), ports)),
    st.tuples(st.tuples(st.ip_addresses(v=6).map(str), ports), st.tuples(st.ip_addresses(v=6).map(str), ports)),
)
names = st.text("abcz-._0", max_size=64)


def as_dict(message):
    h = Handoff.decode(message)
    return {"client": h.client, "local": h.local, "proxied": h.proxied, "name": h.name.encode(), "tlvs": h.tlvs,
            "data": h.data}


@settings(max_examples=200, deadline=None)
@given(pairs, st.binary(max_size=3000), st.booleans(), names, st.binary(max_size=2000))
def test_both_write_the_same_and_read_it_back(addresses, data, proxied, name, tlvs):
    client, local = addresses
    message = fast.build(client, local, data, proxied=proxied, name=name.encode(), tlvs=tlvs)
    assert Handoff(client=client, local=local, data=data, proxied=proxied, name=name, tlvs=tlvs).encode() == message
    assert fast.parse(message) == as_dict(message)
    assert fast.parse(message)["data"] == data
    assert fast.parse(message)["tlvs"] == tlvs


@pytest.mark.parametrize("addresses", [V4, V6])
def test_every_truncation_and_a_byte_more_is_refused(addresses):
    message = fast.build(*addresses, b"hello", name=b"legacy", tlvs=b"\x05\x00\x01x")
    for n in range(len(message)):
        with pytest.raises(ValueError):
            fast.parse(message[:n])
        with pytest.raises(HandoffError):
            Handoff.decode(message[:n])
    with pytest.raises(ValueError, match="add up"):
        fast.parse(message + b"x")
    with pytest.raises(HandoffError, match="add up"):
        Handoff.decode(message + b"x")


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 90), st.integers(0, 255), st.binary(max_size=8))
def test_changed_bytes_are_a_message_to_both_or_to_none(at, value, more):
    changed = bytearray(fast.build(*V6, b"hello", name=b"legacy", tlvs=b"\x05\x00\x01x"))
    changed[at % len(changed)] = value
    message = bytes(changed) + more
    try:
        found = fast.parse(message)
    except ValueError:
        with pytest.raises(HandoffError):
            Handoff.decode(message)
        return
    if found["client"] is None:         # no address: only Python says so at once, the other when it has the descriptor
        with pytest.raises(HandoffError, match="no address"):
            Handoff.decode(message)
        return
    try:
        found["name"].decode()
    except UnicodeDecodeError:
        return
    assert as_dict(message) == found


def with_field(kind, value, message=None):
    message = bytearray(message or fast.build(*V4, b"hello"))
    length = int.from_bytes(message[6:8], "big")
    field = kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value
    message[6:8] = (length + len(field)).to_bytes(2, "big")
    return bytes(message[:length]) + field + bytes(message[length:])


def test_what_later_versions_may_add_is_passed_over_and_what_they_must_not_is_refused():
    assert fast.parse(with_field(0x7FFF, b"new"))["data"] == b"hello"
    assert Handoff.decode(with_field(0x7FFF, b"new")).data == b"hello"
    flagged = bytearray(fast.build(*V4, b"hello"))
    flagged[5] = 0x0E
    assert fast.parse(bytes(flagged))["data"] == Handoff.decode(bytes(flagged)).data == b"hello"
    for critical in (with_field(0x8001, b"new"), bytes(flagged[:5]) + b"\x10" + bytes(flagged[6:])):
        with pytest.raises(ValueError, match="not known"):
            fast.parse(critical)
        with pytest.raises(HandoffError, match="not known"):
            Handoff.decode(critical)


@pytest.mark.parametrize("message", [
    with_field(1, b"a", with_field(1, b"b")),
    with_field(2, b"a", with_field(2, b"b")),
    with_field(1, b"n" * 65),
], ids=["two names", "TLVs twice", "a long name"])
def test_fields_that_are_refused(message):
    with pytest.raises(ValueError, match="twice"):
        fast.parse(message)
    with pytest.raises(HandoffError, match="twice"):
        Handoff.decode(message)


def test_limits():
    largest = fast.build(*V4, b"d" * handoff.DATA_MAX, name=b"n" * 64, tlvs=b"t" * 4096)
    assert len(fast.parse(largest)["data"]) == len(Handoff.decode(largest).data) == handoff.DATA_MAX
    for too_much in ({"data": b"d" * (handoff.DATA_MAX + 1)}, {"name": "n" * 65}, {"tlvs": b"t" * 9000}):
        with pytest.raises(ValueError, match="too much"):
            Handoff(client=V4[0], local=V4[1], **too_much).encode()
        fields = {name: value.encode() if name == "name" else value for name, value in too_much.items()}
        with pytest.raises(ValueError, match="too much"):
            fast.build(*V4, fields.pop("data", b""), **fields)


# The descriptor.


@pytest.fixture
def tcp():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        with socket.create_connection(listener.getsockname()) as client:
            server, _ = listener.accept()
            yield client, server
            server.close()


def through(message, fd):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        socket.send_fds(ours, [message], [fd])
        return handoff.receive(theirs)


def test_a_connection_is_received_with_what_was_read(tcp):
    client, server = tcp
    message = fast.build(client.getsockname(), server.getsockname(), b"hel", name=b"legacy")
    with through(message, server.fileno()) as connection:
        client.sendall(b"lo")
        assert connection.data + connection.sock.recv(10) == b"hello"
        assert connection.client == client.getsockname()
        assert connection.handoff.name == "legacy"


def test_a_message_with_another_clients_address_is_refused(tcp):
    client, server = tcp
    host, port = client.getsockname()
    for other in ((host, port ^ 1), ("127.0.0.2", port)):
        with pytest.raises(HandoffError, match="not that of the connection"):
            through(fast.build(other, server.getsockname(), b""), server.fileno())
    with through(fast.build(("192.0.2.9", 9), V4[1], b"", proxied=True), server.fileno()) as connection:
        assert connection.client == ("192.0.2.9", 9)


def test_descriptors_that_are_no_tcp_connection_are_refused(tcp):
    message = fast.build(*V4, b"", proxied=True)
    with socket.socket() as unconnected, socket.socket(type=socket.SOCK_DGRAM) as datagrams:
        datagrams.connect(("127.0.0.1", 9))
        for sock in (unconnected, datagrams, *socket.socketpair()):
            with sock, pytest.raises(HandoffError, match=r"no TCP connection|client has gone"):
                through(message, sock.fileno())
