"""Packets of gokeyless's protocol: what is built is parsed, whole and in pieces; what is malformed is told apart."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.keyless import wire
from edge.keyless.wire import Code, Opcode, Tag

SKI = bytes(range(20))


def body(*items):
    return b"".join(bytes([tag]) + len(value).to_bytes(2, "big") + value for tag, value in items)


def packet(content, packet_id=7, major=1, minor=0):
    return bytes([major, minor]) + len(content).to_bytes(2, "big") + packet_id.to_bytes(4, "big") + content


def test_a_request_as_it_stands_on_the_wire():
    built = wire.build(0x01020304, Opcode.ECDSA_SHA256, b"\xaa" * 32, ski=SKI, server_name=b"a.example")
    expected = body(
        (0x11, b"\x15"),
        (0x12, b"\xaa" * 32),
        (0x04, SKI),
        (0x02, b"a.example"),
        (0x20, bytes(1024 - 8 - 4 - 35 - 23 - 12 - 3)),
    )
    assert built == bytes.fromhex("0100") + (1016).to_bytes(2, "big") + bytes.fromhex("01020304") + expected
    assert len(built) == 1024


@pytest.mark.parametrize("length", [0, 1, 32, 1000, 1005, 1006, 1007, 1008, 1009, 1010, 5000])
def test_padding(length):
    built = wire.build(1, Opcode.PING, bytes(length))
    assert len(built) in range(1024, 1027) if length < 1009 else len(built) == 8 + 4 + 3 + length
    (parsed,) = wire.Decoder().feed(built)
    assert (parsed.opcode, parsed.value, parsed.items) == (Opcode.PING, bytes(length), {})


def test_too_long():
    with pytest.raises(ValueError, match="at most 65535"):
        wire.build(1, Opcode.PING, bytes(0x10000))
    with pytest.raises(ValueError, match="at most 65535"):
        wire.build(1, Opcode.PING, bytes(65530))


requests = st.tuples(
    st.integers(0, 0xFFFFFFFF),
    st.sampled_from(list(Opcode)),
    st.binary(max_size=1100),
    st.binary(max_size=40),
    st.binary(max_size=40),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(requests, min_size=1, max_size=4), st.lists(st.integers(1, 900), min_size=1, max_size=20))
def test_what_is_built_is_parsed_in_pieces_of_any_size(wanted, cuts):
    stream = b"".join(wire.build(i, o, p, ski=s, server_name=n) for i, o, p, s, n in wanted)
    decoder, found, at = wire.Decoder(), [], 0
    while at < len(stream):
        size = cuts[at % len(cuts)]
        found += decoder.feed(stream[at : at + size])
        at += size
    assert [(p.id, p.opcode, p.value) for p in found] == [(i, o, p) for i, o, p, _, _ in wanted]
    for parsed, (_, _, _, ski, name) in zip(found, wanted, strict=True):
        assert parsed.items == {tag: value for tag, value in ((Tag.SKI, ski), (Tag.SERVER_NAME, name)) if value}


def test_each_truncation_waits():
    whole = wire.build(9, Opcode.RESPONSE, b"signature")
    for n in range(len(whole)):
        assert wire.Decoder().feed(whole[:n]) == []


FAULTS = {
    "no opcode": body((0x12, b"x")),
    "an opcode of two bytes": body((0x11, b"\x15\x15")),
    "an empty opcode": body((0x11, b"")),
    "nothing at all": b"",
    "one byte behind": body((0x11, b"\x15")) + b"\x20",
    "two bytes behind": body((0x11, b"\x15")) + b"\x20\x00",
    "an item beyond the end": body((0x11, b"\x15")) + b"\x12\x00\x02x",
    "an item far beyond the end": body((0x11, b"\x15")) + b"\x12\xff\xffx",
    "a repeated opcode": body((0x11, b"\x15"), (0x11, b"\x15")),
    "a repeated payload": body((0x11, b"\x15"), (0x12, b"x"), (0x12, b"x")),
    "repeated padding": body((0x11, b"\x15"), (0x20, b"x"), (0x20, b"")),
    "a repeated tag that nobody knows": body((0x11, b"\x15"), (0x77, b"x"), (0x77, b"y")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_malformed_body_is_told_of_and_the_stream_goes_on(fault):
    good = wire.build(8, Opcode.PONG)
    bad, after = wire.Decoder().feed(packet(FAULTS[fault]) + good)
    assert isinstance(bad, wire.PacketError)
    assert (bad.code, bad.id) == (Code.FORMAT, 7)
    assert (after.id, after.opcode) == (8, Opcode.PONG)


def test_unknown_tags_are_passed_over():
    (parsed,) = wire.Decoder().feed(packet(body((0x16, b"context"), (0x11, b"\x18"), (0xEE, b""), (0x12, b"m"))))
    assert (parsed.opcode, parsed.value) == (Opcode.ED25519, b"m")


@pytest.mark.parametrize("major", [0, 2, 22, 255])
def test_another_version_ends_the_stream(major):
    decoder = wire.Decoder()
    first, bad = decoder.feed(wire.build(1, Opcode.PING) + packet(b"", 5, major) + wire.build(2, Opcode.PING))
    assert first.id == 1
    assert (bad.code, bad.id) == (Code.VERSION, 5)
    assert decoder.feed(wire.build(3, Opcode.PING)) == []


def test_the_minor_version_does_not_matter():
    (parsed,) = wire.Decoder().feed(packet(body((0x11, b"\xf1")), minor=9))
    assert parsed.opcode == Opcode.PING


@settings(max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=6))
def test_any_bytes_give_packets_or_their_faults(pieces):
    decoder = wire.Decoder()
    for piece in pieces:
        for found in decoder.feed(piece):
            assert isinstance(found, wire.Packet | wire.PacketError)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=80))
def test_any_body(content):
    (found,) = wire.Decoder().feed(packet(content))
    assert found.id == 7
    if isinstance(found, wire.Packet):
        assert 0 <= found.opcode <= 255


def test_every_scheme_of_the_engine_has_its_opcode():
    from cext.tls.config import CERTIFICATE_SCHEMES, SCHEMES

    assert set(wire.OPCODES) >= {*SCHEMES, *CERTIFICATE_SCHEMES}
    assert all(wire.OPCODES[scheme] == opcode for opcode, scheme in wire.SCHEMES.items())
