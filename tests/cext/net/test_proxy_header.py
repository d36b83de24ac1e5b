"""The PROXY protocol, as proxy-protocol.txt has it."""

import binascii

import pytest
from cext.net.proxy_header import parse
from hypothesis import given, settings
from hypothesis import strategies as st

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
V4 = bytes([192, 0, 2, 1, 198, 51, 100, 7]) + (50000).to_bytes(2, "big") + (443).to_bytes(2, "big")
V6 = (bytes.fromhex("20010db8000000000000000000000001") + bytes.fromhex("20010db8000000000000000000000007")
      + (50000).to_bytes(2, "big") + (443).to_bytes(2, "big"))
CLIENT, LOCAL = ("192.0.2.1", 50000), ("198.51.100.7", 443)
CLIENT6, LOCAL6 = ("2001:db8::1", 50000), ("2001:db8::7", 443)


def v2(body, *, command=0x21, family=0x11, length=None):
    length = len(body) if length is None else length
    return SIGNATURE + bytes([command, family]) + length.to_bytes(2, "big") + body


def tlv(kind, value):
    return bytes([kind]) + len(value).to_bytes(2, "big") + value


def crc32c(data):
    """RFC 9260, appendix A, a bit at a time."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def with_checksum(before, after=b""):
    head = v2(V4 + before + tlv(3, bytes(4)) + after)
    at = 16 + len(V4 + before) + 3
    return head[:at] + crc32c(head).to_bytes(4, "big") + head[at + 4:]


def facts(header):
    n, found = parse(header + b"\x16\x03\x01")
    assert n == len(header)
    return found


WHOLE = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.7 50000 443\r\n", CLIENT, LOCAL),
    (b"PROXY TCP6 2001:db8::1 2001:db8::7 50000 443\r\n", CLIENT6, LOCAL6),
    # section 2.1's worst cases
    (b"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n",
     ("255.255.255.255", 65535), ("255.255.255.255", 65535)),
    (b"PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
     ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535), ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535)),
    (b"PROXY UNKNOWN\r\n", None, None),
    (b"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
     None, None),
    (b"PROXY TCP4 192.0.2.1 198.51.100.7 0 0\r\n", ("192.0.2.1", 0), ("198.51.100.7", 0)),
    (v2(V4), CLIENT, LOCAL),
    (v2(V6, family=0x21), CLIENT6, LOCAL6),
    (v2(V4 + tlv(1, b"h2") + tlv(5, b"id") + tlv(4, b"pad")), CLIENT, LOCAL),
    (v2(b"", family=0), None, None),
    (v2(tlv(5, b"id"), family=0), None, None),
    (v2(bytes(216), family=0x31), None, None),
    (v2(V4, family=0x12), None, None),              # datagrams
    (v2(V4, family=0x10), None, None),
    (v2(b"", command=0x20, family=0), None, None),     # LOCAL
    (v2(V4, command=0x20), None, None),
    (v2(b"\xff" * 7, command=0x20), None, None),    # whatever stands there
    (with_checksum(b""), CLIENT, LOCAL),
    (with_checksum(tlv(5, b"id"), tlv(2, b"example.com")), CLIENT, LOCAL),
]


@pytest.mark.parametrize(("header", "client", "local"), WHOLE, ids=range(len(WHOLE)))
def test_whole_headers_and_all_their_beginnings(header, client, local):
    found = facts(header)
    assert (found["client"], found["local"]) == (client, local)
    assert found["version"] == (1 if header.startswith(b"PROXY") else 2)
    for n in range(len(header)):
        assert parse(header[:n]) is None


def test_the_longest_line_is_of_107_bytes():
    unknown = b"PROXY UNKNOWN "
    assert parse(unknown + b"x" * (107 - len(unknown) - 2) + b"\r\n")[0] == 107
    assert parse(unknown + b"x" * (106 - len(unknown))) is None
    for line in (unknown + b"x" * (107 - len(unknown)), unknown + b"x" * (107 - len(unknown) - 1) + b"\r\n"):
        with pytest.raises(ValueError, match="does not end"):
            parse(line)


def test_tlvs_are_kept_as_they_stand():
    tlvs = tlv(2, b"example.com") + tlv(0xEA, b"\0" * 300) + tlv(4, b"")
    assert facts(v2(V4 + tlvs))["tlvs"] == tlvs
    assert facts(v2(V4))["tlvs"] == b""
    assert facts(v2(tlvs, command=0x20))["tlvs"] == b""


def test_a_vector_of_the_checksum():
    assert crc32c(b"123456789") == 0xE3069283
    assert binascii.hexlify(with_checksum(b"")[-4:]) == f"{crc32c(v2(V4 + tlv(3, bytes(4)))):08x}".encode()


WRONG = [
    b"GET / HTTP/1.1\r\n", b"\x16\x03\x01", b"P\r", b"proxy TCP4", b"PROXY\tTCP4", b"\r\n\r\n\r\n",
    SIGNATURE[:11] + b"\r",
    b"PROXY \r\n", b"PROXY TCP4\r\n", b"PROXY TCP5 192.0.2.1 198.51.100.7 1 2\r\n",
    b"PROXY UNKNOWNS\r\n", b"PROXY  UNKNOWN\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 50000\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.7 50000 443 \r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 50000 443 1\r\n", b"PROXY TCP4  192.0.2.1 198.51.100.7 50000 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 50000 443\n\r\n", b"PROXY TCP4 192.0.2.1\0 198.51.100.7 50000 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 050 443\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.7 00 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 65536 443\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.7 100000 443\r\n",
    b"PROXY TCP4 192.0.2.1 198.51.100.7 -1 443\r\n", b"PROXY TCP4 192.0.2.1 198.51.100.7 +1 443\r\n",
    b"PROXY TCP4 192.0.2.256 198.51.100.7 1 443\r\n", b"PROXY TCP4 192.0.2.01 198.51.100.7 1 443\r\n",
    b"PROXY TCP4 2001:db8::1 2001:db8::7 1 443\r\n", b"PROXY TCP6 192.0.2.1 198.51.100.7 1 443\r\n",
    b"PROXY TCP6 2001:db8::1 198.51.100.7 1 443\r\n", b"PROXY TCP6 fe80::1%lo 2001:db8::7 1 443\r\n",
    b"PROXY TCP4 " + b"1" * 60 + b" 198.51.100.7 1 443\r\n",
    v2(V4, command=0x11), v2(V4, command=0x22), v2(V4, command=0x2F), v2(V4, command=0x31),
    v2(V4, family=0x13), v2(V4, family=0x41), v2(V4, family=0xF1),
    v2(V4[:-1]), v2(V4, family=0x21), v2(bytes(215), family=0x31), v2(b""),
    v2(V4 + b"\x05"), v2(V4 + b"\x05\x00"), v2(V4 + b"\x05\x00\x02x"),
    v2(V4 + tlv(3, bytes(4))), v2(V4 + tlv(3, b"")), v2(V4 + tlv(3, bytes(5))),
    v2(b"", length=4097),
]


@pytest.mark.parametrize("header", WRONG, ids=range(len(WRONG)))
def test_what_is_no_header_is_refused(header):
    with pytest.raises(ValueError):
        parse(header)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([with_checksum(tlv(5, b"id"), tlv(2, b"example.com"))]), st.data())
def test_a_changed_bit_breaks_the_checksum(header, data):
    at = data.draw(st.integers(16, len(header) - 1))
    changed = bytearray(header)
    changed[at] ^= 1 << data.draw(st.integers(0, 7))
    crc_at = 16 + len(V4) + len(tlv(5, b"id"))
    if at == crc_at or crc_at < at < crc_at + 3:
        return                      # it is no checksum any more, or of another length
    if changed[crc_at - 5:crc_at - 2] != header[crc_at - 5:crc_at - 2]:
        return                      # the TLV before it ends elsewhere
    with pytest.raises(ValueError):
        parse(bytes(changed))


@settings(max_examples=500, deadline=None)
@given(
    st.sampled_from([
        b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11", SIGNATURE + b"\x21\x11\0\x20"]),
    st.binary(max_size=200),
)
def test_anything_is_a_header_a_beginning_or_refused(start, rest):
    data = start + rest
    try:
        found = parse(data)
    except ValueError:
        return
    assert found is None or 0 < found[0] <= len(data)


def test_random_addresses_survive():
    @settings(max_examples=200, deadline=None)
    @given(st.ip_addresses(), st.integers(0, 65535))
    def check(ip, port):
        size = "4" if ip.version == 4 else "6"
        line = f"PROXY TCP{size} {ip} {ip} {port} {port}\r\n".encode()
        packed = v2(ip.packed * 2 + port.to_bytes(2, "big") * 2, family=0x11 if ip.version == 4 else 0x21)
        for header in (line, packed):
            found = facts(header)
            assert found["client"] == found["local"]
            assert found["client"][1] == port
        assert facts(line)["client"] == facts(packed)["client"]

    check()
