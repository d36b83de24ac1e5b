"""The packets of gokeyless's protocol: bytes in, packets out, and no I/O.

    header   u8 major (1), u8 minor, u16 length of the body, u32 id             (big-endian)
    body     items: u8 tag, u16 length, value

A request names a key by its Subject Key Identifier, an opcode and what is to be signed; the response has the request's
id, and an opcode that tells how it went. Responses come in any order.
"""

import enum
import struct
from typing import Final

HEADER: Final = struct.Struct(">BBHI")
_ITEM: Final = struct.Struct(">BH")
MAJOR: Final = 1
PADDED: Final = 1024
"""Bytes that a packet is padded to, header included, so that its length does not tell what is asked for."""
BODY_MAX: Final = 0xFFFF


class Tag(enum.IntEnum):
    """Of the items that are read or written here; all others are passed over."""

    SERVER_NAME = 0x02
    CLIENT_IP = 0x03
    SKI = 0x04
    SERVER_IP = 0x05
    OPCODE = 0x11
    PAYLOAD = 0x12
    PADDING = 0x20


class Opcode(enum.IntEnum):
    RSA_DECRYPT = 0x01
    RSA_PKCS1_SHA256 = 0x05
    RSA_PKCS1_SHA384 = 0x06
    RSA_PKCS1_SHA512 = 0x07
    ECDSA_SHA256 = 0x15
    ECDSA_SHA384 = 0x16
    ECDSA_SHA512 = 0x17
    ED25519 = 0x18
    RSA_PSS_SHA256 = 0x35
    RSA_PSS_SHA384 = 0x36
    RSA_PSS_SHA512 = 0x37
    RESPONSE = 0xF0
    PING = 0xF1
    PONG = 0xF2
    ERROR = 0xFF


class Code(enum.IntEnum):
    """What an ERROR's payload says."""

    CRYPTO = 1
    KEY_NOT_FOUND = 2
    READ = 3
    VERSION = 4
    BAD_OPCODE = 5
    UNEXPECTED_OPCODE = 6
    FORMAT = 7
    INTERNAL = 8
    CERTIFICATE_NOT_FOUND = 9
    EXPIRED = 10
    REMOTE_CONFIGURATION = 11


_OF_KEYS: Final[dict[int, int]] = {
    0x0401: Opcode.RSA_PKCS1_SHA256,
    0x0501: Opcode.RSA_PKCS1_SHA384,
    0x0601: Opcode.RSA_PKCS1_SHA512,
    0x0403: Opcode.ECDSA_SHA256,
    0x0503: Opcode.ECDSA_SHA384,
    0x0603: Opcode.ECDSA_SHA512,
    0x0804: Opcode.RSA_PSS_SHA256,
    0x0805: Opcode.RSA_PSS_SHA384,
    0x0806: Opcode.RSA_PSS_SHA512,
    0x0807: Opcode.ED25519,
}
OPCODES: Final = {
    **_OF_KEYS,
    0x0809: Opcode.RSA_PSS_SHA256,
    0x080A: Opcode.RSA_PSS_SHA384,
    0x080B: Opcode.RSA_PSS_SHA512,
}
"""By SignatureScheme (RFC 8446, section 4.2.3)."""
SCHEMES: Final = {opcode: scheme for scheme, opcode in _OF_KEYS.items()}
"""By opcode, for RSA keys of the usual kind."""

_ANSWERS: Final = (Opcode.RESPONSE, Opcode.PONG, Opcode.ERROR)


class PacketError(Exception):
    """What came is no packet of this protocol. `code`: what a server answers; `id`: to which request, where that is
    known."""

    def __init__(self, code: Code, problem: str, packet_id: int | None = None) -> None:
        super().__init__(problem)
        self.code = code
        self.id = packet_id


class Packet:
    """A packet that has come. `value` is the payload; the rest is what a request may tell beside it."""

    __slots__ = ("id", "items", "opcode", "value")

    def __init__(self, packet_id: int, opcode: int, value: bytes, items: dict[int, bytes]) -> None:
        self.id = packet_id
        self.opcode = opcode
        self.value = value
        self.items = items

    @property
    def is_answer(self) -> bool:
        return self.opcode in _ANSWERS


def build(packet_id: int, opcode: int, payload: bytes = b"", **items: bytes) -> bytes:
    """A whole packet, padded. `items` by the names of Tag in lower case; those that are empty are left out. ValueError
    when it is too long."""
    body = b"".join(
        (
            _item(Tag.OPCODE, bytes((opcode,))),
            _item(Tag.PAYLOAD, payload) if payload else b"",
            *(_item(Tag[name.upper()], value) for name, value in items.items() if value),
        )
    )
    lacking = PADDED - HEADER.size - len(body)
    if lacking > 0:  # an item cannot have fewer than three bytes
        body += _item(Tag.PADDING, bytes(max(lacking - _ITEM.size, 0)))
    if len(body) > BODY_MAX:
        raise ValueError(f"a packet's body has {len(body)} bytes, and at most {BODY_MAX}")
    return HEADER.pack(MAJOR, 0, len(body), packet_id) + body


def _item(tag: int, value: bytes) -> bytes:
    if len(value) > BODY_MAX:
        raise ValueError(f"an item has {len(value)} bytes, and at most {BODY_MAX}")
    return _ITEM.pack(tag, len(value)) + value


def parse_items(body: bytes) -> dict[int, bytes]:
    """The items of a body by their tags, padding left out. Raises PacketError (FORMAT): each tag stands once, and
    nothing stands behind the last item."""
    items: dict[int, bytes] = {}
    at, end = 0, len(body)
    while at < end:
        if end - at < _ITEM.size:
            raise PacketError(Code.FORMAT, "bytes behind the last item")
        tag, length = _ITEM.unpack_from(body, at)
        at += _ITEM.size
        if end - at < length:
            raise PacketError(Code.FORMAT, f"item 0x{tag:02x} is longer than its packet")
        if tag in items:
            raise PacketError(Code.FORMAT, f"item 0x{tag:02x} stands twice")
        items[tag] = b"" if tag == Tag.PADDING else body[at : at + length]
        at += length
    items.pop(Tag.PADDING, None)
    return items


def parse(packet_id: int, body: bytes) -> Packet:
    """Raises PacketError (FORMAT)."""
    try:
        items = parse_items(body)
        opcode = items.pop(Tag.OPCODE, b"")
        if len(opcode) != 1:
            raise PacketError(Code.FORMAT, "no opcode of one byte")
    except PacketError as error:
        error.id = packet_id
        raise
    return Packet(packet_id, opcode[0], items.pop(Tag.PAYLOAD, b""), items)


class Decoder:
    """Packets out of a stream that comes in pieces; holds less than one packet."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._lost = False

    def feed(self, data: bytes) -> list[Packet | PacketError]:
        """The packets that are whole now. One whose body is malformed is a PacketError in its place, and the stream
        goes on behind it; after one of another version (VERSION) nothing comes any more, since nothing tells where it
        ends."""
        if self._lost:
            return []
        held = self._held
        held += data
        found: list[Packet | PacketError] = []
        at = 0
        while len(held) - at >= HEADER.size:
            major, _, length, packet_id = HEADER.unpack_from(held, at)
            if major != MAJOR:
                found.append(PacketError(Code.VERSION, f"a packet of version {major}", packet_id))
                self._lost = True
                at = len(held)
                break
            body_at = at + HEADER.size
            if len(held) - body_at < length:
                break
            at = body_at + length
            try:
                found.append(parse(packet_id, bytes(held[body_at:at])))
            except PacketError as error:
                found.append(error)
        del held[:at]
        return found
