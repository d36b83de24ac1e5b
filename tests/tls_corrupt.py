"""ClientHellos in Python, right ones and wrong ones, for every test that plays a client.

`ClientHello` builds a right one field by field, each field replaceable; `faults()` yields wrong ones with the alert
each must bring; `mutate` damages any bytes at random. Nothing here imports the code under test.
"""

import dataclasses
import os
import random
from collections.abc import Iterator

GREASE = 0x3A3A
SERVER_NAME, STATUS_REQUEST, SUPPORTED_GROUPS, SIGNATURE_ALGORITHMS, ALPN = 0, 5, 10, 13, 16
EXTENDED_MASTER_SECRET, RECORD_SIZE_LIMIT, PRE_SHARED_KEY, EARLY_DATA = 23, 28, 41, 42
SUPPORTED_VERSIONS, COOKIE, PSK_KEY_EXCHANGE_MODES, OID_FILTERS = 43, 44, 45, 48
SIGNATURE_ALGORITHMS_CERT, KEY_SHARE, RENEGOTIATION_INFO = 50, 51, 0xFF01
X25519, P256, P384 = 0x001D, 0x0017, 0x0018
# Any 32 bytes are an X25519 share, but not any 65 one of P-256: that one is the curve's generator (SEC 2).
X25519_SHARE = bytes(range(1, 33))
P256_SHARE = bytes.fromhex(
    "04"
    "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296"
    "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5"
)
SIGNATURES = (0x0403, 0x0807, 0x0503, 0x0804, 0x0805, 0x0806, 0x0401)


def vec(width: int, content: bytes) -> bytes:
    """A vector: its length in `width` bytes, and its content."""
    return len(content).to_bytes(width, "big") + content


def u16s(values) -> bytes:
    return b"".join(value.to_bytes(2, "big") for value in values)


def extension(type: int, body: bytes) -> bytes:
    return type.to_bytes(2, "big") + vec(2, body)


def sni(name: bytes) -> bytes:
    return vec(2, b"\0" + vec(2, name))


def shares(*entries: tuple[int, bytes]) -> bytes:
    return vec(2, b"".join(group.to_bytes(2, "big") + vec(2, key) for group, key in entries))


def protocols(*names: bytes) -> bytes:
    return vec(2, b"".join(vec(1, name) for name in names))


def psk(identities: int = 1, binders: int = 1, binder: bytes = bytes(32)) -> bytes:
    offered = b"".join(vec(2, b"ticket") + bytes(4) for _ in range(identities))
    return vec(2, offered) + vec(2, vec(1, binder) * binders)


def handshake(type: int, body: bytes) -> bytes:
    return bytes((type,)) + vec(3, body)


def record(content: bytes, type: int = 22, version: int = 0x0301) -> bytes:
    return bytes((type,)) + version.to_bytes(2, "big") + vec(2, content)


def records(content: bytes, size: int, type: int = 22, version: int = 0x0301) -> bytes:
    """The content over records of at most `size` bytes."""
    return b"".join(record(content[at : at + size], type, version) for at in range(0, len(content), size))


def default_extensions() -> dict[int, bytes]:
    return {
        SERVER_NAME: sni(b"example.com"),
        SUPPORTED_GROUPS: vec(2, u16s((X25519, P256))),
        SIGNATURE_ALGORITHMS: vec(2, u16s(SIGNATURES)),
        ALPN: protocols(b"http/1.1"),
        SUPPORTED_VERSIONS: vec(1, u16s((0x0304, 0x0303))),
        KEY_SHARE: shares((X25519, X25519_SHARE)),
        PSK_KEY_EXCHANGE_MODES: vec(1, b"\1"),
    }


@dataclasses.dataclass
class ClientHello:
    """A right ClientHello for a TLS 1.3 server; replace any field, or one extension with `but`."""

    legacy_version: int = 0x0303
    random: bytes = dataclasses.field(default_factory=lambda: os.urandom(32))
    session_id: bytes = bytes(32)
    cipher_suites: bytes = u16s((0x1301, 0x1302, 0x1303))
    compression_methods: bytes = b"\0"
    extensions: dict[int, bytes] | bytes | None = dataclasses.field(default_factory=default_extensions)

    def but(self, type: int, body: bytes | None) -> "ClientHello":
        """With one extension replaced (added, moved to the end; None: left out)."""
        changed = dict(self.extensions)
        changed.pop(type, None)
        if body is not None:
            changed[type] = body
        return dataclasses.replace(self, extensions=changed)

    def encoded_extensions(self) -> bytes:
        if isinstance(self.extensions, bytes):
            return self.extensions
        return b"".join(extension(type, body) for type, body in self.extensions.items())

    def body(self) -> bytes:
        """Without the handshake header."""
        return (
            self.legacy_version.to_bytes(2, "big")
            + self.random
            + vec(1, self.session_id)
            + vec(2, self.cipher_suites)
            + vec(1, self.compression_methods)
            + (b"" if self.extensions is None else vec(2, self.encoded_extensions()))
        )

    def message(self) -> bytes:
        return handshake(1, self.body())

    def record(self) -> bytes:
        return record(self.message())


def faults() -> Iterator[tuple[str, bytes, str]]:
    """(what is wrong, ClientHello body, name of the alert): each fault a server must refuse."""
    hello = ClientHello()
    yield from (
        ("empty", b"", "decode_error"),
        ("trailing byte", hello.body() + b"\0", "decode_error"),
        ("session id of 33 bytes", dataclasses.replace(hello, session_id=bytes(33)).body(), "decode_error"),
        ("no cipher suite", dataclasses.replace(hello, cipher_suites=b"").body(), "decode_error"),
        ("half a cipher suite", dataclasses.replace(hello, cipher_suites=b"\x13\1\x13").body(), "decode_error"),
        ("no compression method", dataclasses.replace(hello, compression_methods=b"").body(), "decode_error"),
        ("compression", dataclasses.replace(hello, compression_methods=b"\1\0").body(), "illegal_parameter"),
        ("no null compression", dataclasses.replace(hello, compression_methods=b"\1").body(), "illegal_parameter"),
        ("extensions cut short", dataclasses.replace(hello, extensions=b"\0\0\0\4\0").body(), "decode_error"),
    )
    encoded = hello.encoded_extensions()
    for what, more, alert in (
        ("known extension twice", extension(ALPN, protocols(b"http/1.1")), "decode_error"),
        ("unknown extension twice", extension(GREASE, b"") * 2, "decode_error"),
        ("pre_shared_key not last", extension(PRE_SHARED_KEY, psk()) + extension(GREASE, b""), "illegal_parameter"),
        ("CertificateRequest's extension", extension(OID_FILTERS, b"\0\0"), "illegal_parameter"),
    ):
        yield what, dataclasses.replace(hello, extensions=encoded + more).body(), alert
    for what, type, body, alert in (
        ("server_name empty", SERVER_NAME, b"", "decode_error"),
        ("server_name without names", SERVER_NAME, b"\0\0", "decode_error"),
        ("server_name trailing", SERVER_NAME, sni(b"a.example") + b"\0", "decode_error"),
        ("server_name of no bytes", SERVER_NAME, sni(b""), "decode_error"),
        ("two host names", SERVER_NAME, vec(2, (b"\0" + vec(2, b"a")) * 2), "illegal_parameter"),
        ("server_name with NUL", SERVER_NAME, sni(b"a\0.example"), "illegal_parameter"),
        ("server_name with newline", SERVER_NAME, sni(b"a\n.example"), "illegal_parameter"),
        ("server_name not ASCII", SERVER_NAME, sni("ä.example".encode()), "illegal_parameter"),
        ("server_name of 256 bytes", SERVER_NAME, sni(b"a" * 256), "illegal_parameter"),
        ("server_name with a leading dot", SERVER_NAME, sni(b".example"), "illegal_parameter"),
        ("no supported version", SUPPORTED_VERSIONS, b"\0", "decode_error"),
        ("half a version", SUPPORTED_VERSIONS, b"\1\3", "decode_error"),
        ("no group", SUPPORTED_GROUPS, b"\0\0", "decode_error"),
        ("half a group", SUPPORTED_GROUPS, vec(2, b"\0\x1d\0"), "decode_error"),
        ("no signature algorithm", SIGNATURE_ALGORITHMS, b"\0\0", "decode_error"),
        ("signature algorithms trailing", SIGNATURE_ALGORITHMS, vec(2, u16s(SIGNATURES)) + b"\0", "decode_error"),
        ("certificate's algorithms empty", SIGNATURE_ALGORITHMS_CERT, b"\0\0", "decode_error"),
        ("key share cut short", KEY_SHARE, vec(2, b"\0\x1d\0\x20" + bytes(31)), "decode_error"),
        ("key share of no bytes", KEY_SHARE, shares((X25519, b"")), "decode_error"),
        ("key shares trailing", KEY_SHARE, shares((X25519, X25519_SHARE)) + b"\0", "decode_error"),
        ("two shares of a group", KEY_SHARE, shares((X25519, X25519_SHARE), (X25519, bytes(32))), "illegal_parameter"),
        ("ALPN without names", ALPN, b"\0\0", "decode_error"),
        ("ALPN name of no bytes", ALPN, protocols(b"h2", b""), "decode_error"),
        ("ALPN trailing", ALPN, protocols(b"h2") + b"\0", "decode_error"),
        ("no PSK mode", PSK_KEY_EXCHANGE_MODES, b"\0", "decode_error"),
        ("cookie of no bytes", COOKIE, b"\0\0", "decode_error"),
        ("record_size_limit of one byte", RECORD_SIZE_LIMIT, b"\x40", "decode_error"),
        ("record_size_limit of three bytes", RECORD_SIZE_LIMIT, b"\x40\0\0", "decode_error"),
        ("supported_versions trailing", SUPPORTED_VERSIONS, vec(1, u16s((0x0304,))) + b"\0", "decode_error"),
        ("supported_groups trailing", SUPPORTED_GROUPS, vec(2, u16s((X25519,))) + b"\0", "decode_error"),
        ("certificate's algorithms trailing", SIGNATURE_ALGORITHMS_CERT, vec(2, b"\4\3") + b"\0", "decode_error"),
        ("PSK modes trailing", PSK_KEY_EXCHANGE_MODES, vec(1, b"\1") + b"\0", "decode_error"),
        ("cookie trailing", COOKIE, vec(2, b"c") + b"\0", "decode_error"),
        ("renegotiation_info trailing", RENEGOTIATION_INFO, b"\0\0", "decode_error"),
        ("OCSP request trailing", STATUS_REQUEST, b"\1\0\0\0\0\0", "decode_error"),
        ("PSK trailing", PRE_SHARED_KEY, psk() + b"\0", "decode_error"),
        (
            "PSK identity of no bytes",
            PRE_SHARED_KEY,
            vec(2, vec(2, b"") + bytes(4)) + vec(2, vec(1, bytes(32))),
            "decode_error",
        ),
        ("PSK identity without age", PRE_SHARED_KEY, vec(2, vec(2, b"id")) + vec(2, vec(1, bytes(32))), "decode_error"),
        ("record_size_limit below 64", RECORD_SIZE_LIMIT, b"\0\x3f", "illegal_parameter"),
        ("early_data not empty", EARLY_DATA, b"\0", "decode_error"),
        ("extended_master_secret not empty", EXTENDED_MASTER_SECRET, b"\0", "decode_error"),
        ("renegotiation_info cut short", RENEGOTIATION_INFO, b"\1", "decode_error"),
        ("renegotiation", RENEGOTIATION_INFO, vec(1, bytes(12)), "handshake_failure"),
        ("OCSP request cut short", STATUS_REQUEST, b"\1\0\0\0", "decode_error"),
        ("status_request empty", STATUS_REQUEST, b"", "decode_error"),
        ("PSK without identities", PRE_SHARED_KEY, psk(identities=0), "decode_error"),
        ("PSK without binders", PRE_SHARED_KEY, psk(binders=0), "decode_error"),
        ("PSK binder of no bytes", PRE_SHARED_KEY, psk(binder=b""), "decode_error"),
        ("one binder for two identities", PRE_SHARED_KEY, psk(identities=2), "illegal_parameter"),
        ("no supported_groups", SUPPORTED_GROUPS, None, "missing_extension"),
        ("no key_share", KEY_SHARE, None, "missing_extension"),
        ("no signature_algorithms", SIGNATURE_ALGORITHMS, None, "missing_extension"),
    ):
        yield what, hello.but(type, body).body(), alert
    without_modes = hello.but(PSK_KEY_EXCHANGE_MODES, None).but(PRE_SHARED_KEY, psk())
    yield "pre_shared_key without psk_key_exchange_modes", without_modes.body(), "missing_extension"


def mutate(data: bytes, rng: random.Random) -> bytes:
    """The bytes with one to four of: a flipped bit, a byte set to an extreme, a cut, an insertion, a repetition."""
    damaged = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(damaged) + 1)
        kind = rng.randrange(5)
        if kind == 0 and at < len(damaged):
            damaged[at] ^= 1 << rng.randrange(8)
        elif kind == 1 and at < len(damaged):
            damaged[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif kind == 2:
            del damaged[at : at + rng.randint(1, 8)]
        elif kind == 3:
            damaged[at:at] = rng.randbytes(rng.randint(1, 8))
        else:
            damaged[at:at] = damaged[at : at + rng.randint(1, 40)]
    return bytes(damaged)


def malformed_records(count: int, seed: int = 0) -> Iterator[bytes]:
    """Records of damaged ClientHellos: the known faults, then mutations (a few still right), some of the record."""
    rng = random.Random(seed)
    known = [record(handshake(1, body)) for _, body, _ in faults()]
    for i in range(count):
        if i < len(known):
            yield known[i]
            continue
        right = ClientHello(random=rng.randbytes(32)).message()
        yield mutate(record(right), rng) if rng.random() < 0.3 else record(mutate(right, rng))
