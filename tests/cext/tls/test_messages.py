"""Every handshake message: whole, each proper prefix, trailing bytes, damaged; and what each field may hold."""

import hashlib
import random
import ssl

import pytest
from cext.tls.alert import TlsAlert
from hypothesis import given, settings
from hypothesis import strategies as st

from cext.tls import inspect
from tests import tls_corrupt as wire
from tests.tls_corrupt import GREASE, ClientHello, extension, handshake, u16s, vec
from tests.vectors.client_hellos import HELLOS

RETRY = hashlib.sha256(b"HelloRetryRequest").digest()
MLKEM = 0x11EC  # X25519MLKEM768
OFFERED = (0, 5, 10, 13, 16, 28, 43, 51)
VERSION = extension(43, b"\3\4")


def server_hello(extensions, random=bytes(32), version=0x0303, session_id=bytes(32), compression=0):
    body = version.to_bytes(2, "big") + random + vec(1, session_id) + b"\x13\1" + bytes((compression,))
    return body if extensions is None else body + vec(2, extensions)


def certificate(*entries, context=b""):
    return vec(1, context) + vec(3, b"".join(vec(3, der) + vec(2, extensions) for der, extensions in entries))


def ticket(extensions=b"", lifetime=7200, ticket=b"ticket"):
    return lifetime.to_bytes(4, "big") + b"\1\2\3\4" + vec(1, b"n") + vec(2, ticket) + vec(2, extensions)


# Right messages: (kind, body, lengths of proper prefixes that are whole messages themselves).
HELLO = ClientHello(random=bytes(range(32)))
FULL = (
    HELLO.but(wire.COOKIE, vec(2, b"cookie"))
    .but(wire.RECORD_SIZE_LIMIT, b"\x40\1")
    .but(wire.SIGNATURE_ALGORITHMS_CERT, vec(2, u16s((0x0804,))))
    .but(wire.EXTENDED_MASTER_SECRET, b"")
    .but(wire.RENEGOTIATION_INFO, b"\0")
    .but(wire.STATUS_REQUEST, b"\1\0\0\0\0")
    .but(GREASE, b"\0")
    .but(wire.EARLY_DATA, b"")
    .but(wire.PRE_SHARED_KEY, wire.psk(2, 2))
)
BARE = len(ClientHello(extensions=None).body())
SERVER_BARE = len(server_hello(None))
SHARE = extension(51, b"\0\x1d" + vec(2, bytes(32)))
RIGHT = {
    "client_hello": ("client_hello", HELLO.body(), {BARE}),
    "client_hello, every extension": ("client_hello", FULL.body(), {BARE}),
    "server_hello": ("server_hello", server_hello(VERSION + SHARE), {SERVER_BARE}),
    "hello_retry_request": (
        "server_hello",
        server_hello(VERSION + extension(51, b"\0\x17") + extension(44, vec(2, b"cookie")), random=RETRY),
        set(),
    ),
    "encrypted_extensions": (
        "encrypted_extensions",
        vec(2, extension(0, b"") + extension(16, wire.protocols(b"h2")) + extension(10, vec(2, b"\0\x1d"))),
        set(),
    ),
    "certificate_request": (
        "certificate_request",
        vec(1, b"c") + vec(2, extension(13, vec(2, b"\4\3")) + extension(GREASE, b"")
            + extension(47, vec(2, vec(2, b"name")))),
        set(),
    ),
    "certificate": ("certificate", certificate((b"leaf", extension(5, b"\1\0\0\4ocsp")), (b"issuer", b"")), set()),
    "compressed_certificate": ("compressed_certificate", b"\0\1\0\0\x09" + vec(3, b"compressed"), set()),
    "certificate_verify": ("certificate_verify", b"\4\3" + vec(2, b"signature"), set()),
    "finished": ("finished", bytes(32), set()),
    "new_session_ticket": ("new_session_ticket", ticket(extension(42, bytes((0, 0, 64, 0)))), set()),
    "key_update": ("key_update", b"\1", set()),
}


def alert_of(kind, body, **options):
    with pytest.raises(TlsAlert) as caught:
        inspect.parse(kind, body, **options)
    assert caught.value.reason, "an alert says why"
    return caught.value.name


@pytest.mark.parametrize("name", RIGHT)
def test_whole(name):
    kind, body, _ = RIGHT[name]
    assert inspect.parse(kind, body, offered=OFFERED)


@pytest.mark.parametrize("name", RIGHT)
def test_no_prefix_is_a_message(name):
    """A Hello that ends before its extensions is one of an older version; every other prefix is refused."""
    kind, body, whole = RIGHT[name]
    for n in range(len(body)):
        if n in whole:
            assert not inspect.parse(kind, body[:n], offered=OFFERED).get("offers_tls13")
        elif name == "hello_retry_request" and n == SERVER_BARE:
            assert alert_of(kind, body[:n], offered=OFFERED) == "missing_extension"
        else:
            assert alert_of(kind, body[:n], offered=OFFERED) == "decode_error", n


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("tail", [b"\0", b"\xff", bytes(100)], ids=["00", "ff", "100 bytes"])
def test_trailing_bytes(name, tail):
    kind, body, _ = RIGHT[name]
    assert alert_of(kind, body + tail, offered=OFFERED) == "decode_error"


@pytest.mark.parametrize("name", RIGHT)
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_damaged_is_read_or_refused(name, seed):
    kind, body, _ = RIGHT[name]
    try:
        inspect.parse(kind, wire.mutate(body, random.Random(seed)), offered=OFFERED)
    except TlsAlert as alert:
        assert alert.name in ALERTS


ALERTS = {"decode_error", "illegal_parameter", "missing_extension", "unsupported_extension", "handshake_failure"}
KINDS = sorted({kind for kind, _, _ in RIGHT.values()})


@settings(max_examples=300, deadline=None)
@given(kind=st.sampled_from(KINDS), body=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(kind, body):
    try:
        inspect.parse(kind, body, offered=OFFERED)
    except TlsAlert as alert:
        assert alert.name in ALERTS


# Extension lists with right and wrong bodies: deeper into the decoders than random bytes come.
bodies = st.one_of(
    st.binary(max_size=40),
    st.binary(max_size=30).map(lambda b: vec(1, b)),
    st.binary(max_size=30).map(lambda b: vec(2, b)),
    st.binary(max_size=30).map(lambda b: vec(2, vec(1, b))),
    st.binary(max_size=30).map(lambda b: vec(2, b"\0" + vec(2, b))),
)
lists = st.lists(
    st.tuples(st.sampled_from([*wire.default_extensions(), 5, 23, 28, 41, 42, 44, 50, 0xFF01, GREASE]), bodies)
)


@settings(max_examples=400, deadline=None)
@given(added=lists)
def test_client_hello_of_any_extensions(added):
    hello = HELLO
    for type, body in added:
        hello = hello.but(type, body)
    try:
        found = inspect.parse("client_hello", hello.body())
    except TlsAlert as alert:
        assert alert.name in ALERTS
        return
    if found["offers_tls13"]:
        assert found["pre_shared_key"] or (found["signature_algorithms"] and found["supported_groups"])
        assert (found["supported_groups"] is None) == (found["key_shares"] is None)


@pytest.mark.parametrize(("what", "body", "alert"), list(wire.faults()), ids=[fault[0] for fault in wire.faults()])
def test_client_hello_fault(what, body, alert):
    assert alert_of("client_hello", body) == alert


def test_client_hello_fields():
    found = inspect.parse("client_hello", FULL.body())
    assert found == {
        "legacy_version": 0x0303,
        "random": bytes(range(32)),
        "legacy_session_id": bytes(32),
        "cipher_suites": (0x1301, 0x1302, 0x1303),
        "compression_methods": b"\0",
        "server_name": b"example.com",
        "supported_versions": (0x0304, 0x0303),
        "supported_groups": (0x1D, 0x17),
        "signature_algorithms": wire.SIGNATURES,
        "signature_algorithms_cert": (0x0804,),
        "certificate_authorities": None,
        "delegated_credential": None,
        "key_shares": [(0x1D, wire.X25519_SHARE)],
        "alpn": (b"http/1.1",),
        "psk_modes": b"\1",
        "pre_shared_key": wire.psk(2, 2),
        "cookie": b"cookie",
        "record_size_limit": 0x4001,
        "early_data": True,
        "compress_certificate": None,
        "status_request": True,
        "signed_certificate_timestamp": False,
        "extended_master_secret": True,
        "renegotiation_info": True,
        "offers_tls13": True,
    }


def test_client_hello_without_extensions_is_an_older_one():
    found = inspect.parse("client_hello", ClientHello(extensions=None, compression_methods=b"\1\0").body())
    assert not found["offers_tls13"]
    assert found["server_name"] is found["key_shares"] is found["alpn"] is None


def test_only_tls13_demands_its_extensions():
    hello = HELLO.but(wire.SUPPORTED_VERSIONS, vec(1, u16s((0x0303, GREASE))))
    for type in (wire.KEY_SHARE, wire.SIGNATURE_ALGORITHMS, wire.SUPPORTED_GROUPS):
        assert not inspect.parse("client_hello", hello.but(type, None).body())["offers_tls13"]


def test_a_psk_stands_for_signatures_and_groups():
    hello = HELLO.but(wire.SIGNATURE_ALGORITHMS, None).but(wire.PRE_SHARED_KEY, wire.psk())
    assert inspect.parse("client_hello", hello.body())["pre_shared_key"] == wire.psk()
    hello = hello.but(wire.KEY_SHARE, None).but(wire.SUPPORTED_GROUPS, None).but(wire.PRE_SHARED_KEY, wire.psk())
    assert inspect.parse("client_hello", hello.body())["key_shares"] is None


def test_no_key_shares_ask_for_a_retry():
    assert inspect.parse("client_hello", HELLO.but(wire.KEY_SHARE, wire.shares()).body())["key_shares"] == []


def test_server_name_of_another_type_is_passed_over():
    names = vec(2, b"\1" + vec(2, b"\0\xff") + b"\0" + vec(2, b"a.example"))
    assert inspect.parse("client_hello", HELLO.but(wire.SERVER_NAME, names).body())["server_name"] == b"a.example"


@pytest.mark.parametrize(
    "name", [b"a", b"A.Example.", b"xn--bcher-kva.example", b"under_score", b"192.0.2.1", b"a" * 255]
)
def test_server_name_that_may_be(name):
    assert inspect.parse("client_hello", HELLO.but(wire.SERVER_NAME, wire.sni(name)).body())["server_name"] == name


def test_status_request_of_another_type_is_passed_over():
    assert not inspect.parse("client_hello", HELLO.but(wire.STATUS_REQUEST, b"\2anything").body())["status_request"]


def test_key_shares_as_many_as_fit():
    """A duplicate among thousands is found, and the next ClientHello is read as if it had not been."""
    many = [(group, b"k") for group in range(0x1000, 0x1000 + 10_000)]
    hello = HELLO.but(wire.KEY_SHARE, wire.shares(*many))
    assert len(inspect.parse("client_hello", hello.body())["key_shares"]) == 10_000
    hello = HELLO.but(wire.KEY_SHARE, wire.shares(*many, many[0]))
    assert alert_of("client_hello", hello.body()) == "illegal_parameter"
    assert inspect.parse("client_hello", HELLO.but(wire.KEY_SHARE, wire.shares(*many)).body())


@pytest.mark.parametrize("versions", [(ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3), (ssl.TLSVersion.TLSv1_3,) * 2])
def test_client_hello_of_openssl(versions):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version, context.maximum_version = versions
    context.set_alpn_protocols(["h2", "http/1.1"])
    outgoing = ssl.MemoryBIO()
    tls = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="www.example.org")
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    sent = outgoing.read()
    assert sent[0] == 22 and int.from_bytes(sent[3:5], "big") == len(sent) - 5 and sent[5] == 1
    found = inspect.parse("client_hello", sent[9:])
    assert found["server_name"] == b"www.example.org"
    assert found["alpn"] == (b"h2", b"http/1.1")
    assert found["offers_tls13"] and 0x1301 in found["cipher_suites"] and 0x0403 in found["signature_algorithms"]
    assert all(group in found["supported_groups"] for group, _ in found["key_shares"])
    for n in range(len(sent) - 9):
        try:
            assert not inspect.parse("client_hello", sent[9 : 9 + n])["offers_tls13"]
        except TlsAlert as alert:
            assert alert.name == "decode_error"


@pytest.mark.parametrize(
    ("client", "suites", "groups", "shares", "alpn"),
    [
        (
            "chromium",
            (0x1301, 0x1302, 0x1303),
            (0x11EC, 0x1D, 0x17, 0x18),
            {0x11EC: 1216, 0x1D: 32},
            (b"h2", b"http/1.1"),
        ),
        ("gnutls", (0x1302, 0x1303, 0x1301, 0x1304), (0x17, 0x18, 0x19, 0x1D, 0x1E), {0x17: 65, 0x1D: 32}, None),
        ("nss", (0x1301, 0x1303, 0x1302), (0x1D, 0x17, 0x18, 0x19), {0x1D: 32}, None),
    ],
)
def test_client_hello_of(client, suites, groups, shares, alpn):
    """Captured ones; Chromium's has GREASE in every list."""
    sent = HELLOS[client]
    found = inspect.parse("client_hello", sent[9:])
    assert found["server_name"] == b"www.example.com" and found["alpn"] == alpn and found["offers_tls13"]
    assert tuple(suite for suite in found["cipher_suites"] if suite >> 8 == 0x13) == suites
    grease = [group for group in found["supported_groups"] if group & 0x0F0F == 0x0A0A]
    assert bool(grease) == (client == "chromium")
    assert tuple(group for group in found["supported_groups"] if group < 0x100 or group == MLKEM) == groups
    assert {group: len(key) for group, key in found["key_shares"] if group not in grease} == shares
    for n in range(BARE, len(sent) - 10):
        try:
            assert not inspect.parse("client_hello", sent[9 : 9 + n])["offers_tls13"]
        except TlsAlert as alert:
            assert alert.name == "decode_error"


# --- what a server sends


@pytest.mark.parametrize(
    ("what", "body", "alert"),
    [
        ("legacy_version", server_hello(VERSION + SHARE, version=0x0304), "illegal_parameter"),
        ("compression", server_hello(VERSION + SHARE, compression=1), "decode_error"),
        ("session id of 33", server_hello(VERSION + SHARE, session_id=bytes(33)), "decode_error"),
        ("a version not offered", server_hello(extension(43, b"\3\3") + SHARE), "illegal_parameter"),
        ("a version of 3 bytes", server_hello(extension(43, b"\3\4\0") + SHARE), "decode_error"),
        ("versions twice", server_hello(VERSION * 2), "decode_error"),
        ("share of no bytes", server_hello(VERSION + extension(51, b"\0\x1d\0\0")), "decode_error"),
        ("share trailing", server_hello(VERSION + extension(51, b"\0\x1d\0\1k\0")), "decode_error"),
        ("share without key", server_hello(VERSION + extension(51, b"\0\x1d")), "decode_error"),
        ("ALPN", server_hello(VERSION + extension(16, wire.protocols(b"h2"))), "illegal_parameter"),
        ("PSK unasked", server_hello(VERSION + extension(41, b"\0\0")), "unsupported_extension"),
        ("GREASE", server_hello(VERSION + extension(GREASE, b"")), "unsupported_extension"),
        ("a cookie", server_hello(VERSION + extension(44, vec(2, b"c"))), "illegal_parameter"),
        ("retry, no version", server_hello(extension(51, b"\0\x17"), random=RETRY), "missing_extension"),
        ("retry with a share", server_hello(VERSION + SHARE, random=RETRY), "decode_error"),
        ("retry, empty cookie", server_hello(VERSION + extension(44, b"\0\0"), random=RETRY), "decode_error"),
    ],
)
def test_server_hello_fault(what, body, alert):
    assert alert_of("server_hello", body, offered=OFFERED) == alert


def test_server_hello_psk():
    body = server_hello(VERSION + SHARE + extension(41, b"\0\1"))
    assert inspect.parse("server_hello", body, offered=(*OFFERED, 41))["pre_shared_key"] == b"\0\1"
    body = server_hello(VERSION + SHARE + extension(41, b"\0"))
    assert alert_of("server_hello", body, offered=(*OFFERED, 41)) == "decode_error"


def test_server_hello_of_an_older_version():
    """What its extensions are is not judged by TLS 1.3's table."""
    found = inspect.parse("server_hello", server_hello(extension(0xFF01, b"\0") + extension(23, b"")), offered=OFFERED)
    assert found["selected_version"] == 0


@pytest.mark.parametrize(
    ("what", "extensions", "alert"),
    [
        ("two protocols", extension(16, wire.protocols(b"h2", b"h3")), "decode_error"),
        ("no protocol", extension(16, b"\0\0"), "decode_error"),
        ("a protocol of no bytes", extension(16, vec(2, b"\0")), "decode_error"),
        ("a name in server_name", extension(0, wire.sni(b"a")), "decode_error"),
        ("half a group", extension(10, vec(2, b"\0")), "decode_error"),
        ("early data unasked", extension(42, b""), "unsupported_extension"),
        ("key_share", SHARE, "illegal_parameter"),
        ("record_size_limit below 64", extension(28, b"\0\1"), "illegal_parameter"),
        ("record_size_limit of three bytes", extension(28, b"\x40\0\0"), "decode_error"),
        ("protocol trailing", extension(16, wire.protocols(b"h2") + b"\0"), "decode_error"),
        ("groups trailing", extension(10, vec(2, b"\0\x1d") + b"\0"), "decode_error"),
        ("GREASE", extension(GREASE, b""), "unsupported_extension"),
    ],
)
def test_encrypted_extensions_fault(what, extensions, alert):
    assert alert_of("encrypted_extensions", vec(2, extensions), offered=OFFERED) == alert


def test_early_data_of_an_answer_is_empty():
    found = inspect.parse("encrypted_extensions", vec(2, extension(42, b"")), offered=(42,))
    assert found["early_data"]
    assert alert_of("encrypted_extensions", vec(2, extension(42, b"\0")), offered=(42,)) == "decode_error"


@pytest.mark.parametrize(
    ("what", "body", "alert"),
    [
        ("no certificate", certificate(), "decode_error"),
        ("a certificate of no bytes", certificate((b"", b"")), "decode_error"),
        ("a context", certificate((b"leaf", b""), context=b"c"), "illegal_parameter"),
        ("an extension unasked", certificate((b"leaf", extension(18, b"sct"))), "unsupported_extension"),
        ("an extension twice", certificate((b"leaf", extension(5, b"") * 2)), "illegal_parameter"),
        ("an extension of another message", certificate((b"leaf", extension(16, b""))), "illegal_parameter"),
    ],
)
def test_certificate_fault(what, body, alert):
    assert alert_of("certificate", body, offered=OFFERED) == alert


def test_certificate_of_a_client():
    assert inspect.parse("certificate", certificate(context=b"c"), from_server=False)["chain"] == []
    found = inspect.parse("certificate", certificate((b"one", b""), (b"two", b"")))
    assert (found["leaf"], found["chain"]) == (b"one", [b"one", b"two"])


def test_certificate_request_needs_algorithms():
    assert alert_of("certificate_request", b"\0\0\0") == "missing_extension"
    assert alert_of("certificate_request", b"\0" + vec(2, extension(13, b"\0\0"))) == "decode_error"
    assert alert_of("certificate_request", b"\0" + vec(2, extension(0, b""))) == "illegal_parameter"


@pytest.mark.parametrize(
    ("body", "alert"),
    [
        (ticket(lifetime=604_801), "illegal_parameter"),
        (ticket(ticket=b""), "decode_error"),
        (ticket(extension(42, bytes(3))), "decode_error"),
        (ticket(extension(42, bytes(5))), "decode_error"),
        (ticket(extension(0, b"")), "illegal_parameter"),
    ],
)
def test_new_session_ticket_fault(body, alert):
    assert alert_of("new_session_ticket", body) == alert


@pytest.mark.parametrize(
    ("authorities", "alert"),
    [(vec(2, vec(2, b"name")), None), (b"\0\0", "decode_error"), (vec(2, b"\0\0"), "decode_error"),
     (b"", "decode_error"),
     (vec(2, vec(2, b"name")) + b"\0", "decode_error"), (vec(2, vec(2, b"name") + b"\0\5"), "decode_error")],
)  # fmt: skip
def test_certificate_authorities(authorities, alert):
    request = b"\0" + vec(2, extension(13, vec(2, b"\4\3")) + extension(47, authorities))
    hello = ClientHello().but(47, authorities).body()
    for kind, body in (("certificate_request", request), ("client_hello", hello)):
        if alert:
            assert alert_of(kind, body) == alert
        else:
            assert inspect.parse(kind, body)


@pytest.mark.parametrize(
    ("algorithms", "alert"),
    [(vec(1, b"\0\1\0\2"), None), (b"\0", "decode_error"), (b"", "decode_error"), (vec(1, b"\0\1\0"), "decode_error"),
     (vec(1, b"\0\1") + b"\0", "decode_error"), (vec(1, b"\0\1\0\2\0\1"), "decode_error")],
)  # fmt: skip
def test_compress_certificate(algorithms, alert):
    body = ClientHello().but(27, algorithms).body()
    if alert:
        assert alert_of("client_hello", body) == alert
    else:
        assert inspect.parse("client_hello", body)


def test_finished_is_as_long_as_the_hash():
    assert inspect.parse("finished", bytes(48), hash_length=48) == {"verify_data": bytes(48)}
    assert alert_of("finished", bytes(48), hash_length=32) == "decode_error"
    assert alert_of("finished", bytes(32), hash_length=48) == "decode_error"


def test_key_update_is_0_or_1():
    assert inspect.parse("key_update", b"\0") == {"update_requested": False}
    assert inspect.parse("key_update", b"\1") == {"update_requested": True}
    assert {alert_of("key_update", bytes((v,))) for v in range(2, 256)} == {"illegal_parameter"}


# --- build, and read again

SESSION = bytes(range(100, 132))
BUILT = {
    "client_hello": (
        1,
        {
            "random": bytes(range(32)),
            "legacy_session_id": SESSION,
            "cipher_suites": (0x1301, 0x1303),
            "key_shares": [(0x1D, wire.X25519_SHARE), (0x17, wire.P256_SHARE)],
            "cookie": b"cookie",
        },
        {"extensions": ClientHello().but(wire.KEY_SHARE, None).encoded_extensions()},
    ),
    "server_hello": (
        2,
        {
            "random": bytes(range(32)),
            "legacy_session_id_echo": SESSION,
            "cipher_suite": 0x1302,
            "group": 0x17,
            "share": wire.P256_SHARE,
        },
        {},
    ),
    "encrypted_extensions": (8, {"alpn": b"http/1.1", "server_name": True}, {}),
    "certificate_verify": (15, {"algorithm": 0x0804, "signature": bytes(range(256))}, {}),
    "finished": (20, {"verify_data": bytes(range(32))}, {}),
    "new_session_ticket": (
        4,
        {"lifetime": 7200, "age_add": 0xFFFFFFFF, "nonce": b"\0", "ticket": bytes(100), "max_early_data_size": 16384},
        {},
    ),
    "key_update": (24, {"update_requested": True}, {}),
}


@pytest.mark.parametrize("kind", BUILT)
def test_built_is_read(kind):
    type, fields, more = BUILT[kind]
    message = inspect.build(kind, **fields, **more)
    assert message[0] == type and message[1:4] == (len(message) - 4).to_bytes(3, "big")
    found = inspect.parse(kind, message[4:], offered=OFFERED)
    assert {name: found[name] for name in fields} == fields


@pytest.mark.parametrize("kind", BUILT)
def test_built_into_too_little_room(kind):
    _, fields, more = BUILT[kind]
    size = len(inspect.build(kind, **fields, **more))
    for room in range(size):
        with pytest.raises(OverflowError):
            inspect.build(kind, room=room, **fields, **more)
    assert len(inspect.build(kind, room=size, **fields, **more)) == size


def test_built_client_hello_is_the_tests_own():
    """Against an encoder that knows nothing of the code."""
    hello = (
        HELLO.but(wire.KEY_SHARE, None).but(wire.COOKIE, vec(2, b"c")).but(wire.KEY_SHARE, wire.shares((29, b"k" * 32)))
    )
    extensions = HELLO.but(wire.KEY_SHARE, None).encoded_extensions()
    assert hello.message() == inspect.build(
        "client_hello",
        random=HELLO.random,
        legacy_session_id=bytes(32),
        cipher_suites=(0x1301, 0x1302, 0x1303),
        extensions=extensions,
        key_shares=[(29, b"k" * 32)],
        cookie=b"c",
    )


def test_built_retry():
    message = inspect.build(
        "hello_retry_request", legacy_session_id_echo=SESSION, cipher_suite=0x1301, group=0x18, cookie=b"c" * 50
    )
    assert message[0] == 2 and message[6:38] == RETRY
    found = inspect.parse("server_hello", message[4:], offered=OFFERED)
    assert found["retry"] and found["group"] == 0x18 and found["cookie"] == b"c" * 50 and found["share"] is None
    message = inspect.build("hello_retry_request", legacy_session_id_echo=b"", cipher_suite=0x1301, cookie=b"c")
    assert inspect.parse("server_hello", message[4:], offered=OFFERED)["group"] == 0


def test_built_without_the_optional():
    assert inspect.build("encrypted_extensions") == handshake(8, b"\0\0")
    assert inspect.build("empty_certificate", request_context=b"c") == handshake(11, b"\1c\0\0\0")
    assert inspect.build("certificate", body=b"body") == handshake(11, b"body")
    bare = inspect.build("new_session_ticket", lifetime=1, age_add=2, nonce=b"", ticket=b"t")
    assert inspect.parse("new_session_ticket", bare[4:])["max_early_data_size"] == 0


def test_what_a_certificate_verify_signs():
    """RFC 8446 section 4.4.3 prints it for a hash of 32 bytes of 01."""
    signed = inspect.certificate_verify_input(True, b"\1" * 32)
    assert signed == b" " * 64 + b"TLS 1.3, server CertificateVerify\0" + b"\1" * 32
    signed = inspect.certificate_verify_input(False, b"\1" * 48)
    assert signed == b" " * 64 + b"TLS 1.3, client CertificateVerify\0" + b"\1" * 48
