"""The handshake messages of TLS 1.2: whole, each proper prefix, trailing bytes, and what each field may hold."""

import pytest
from cext.tls.alert import TlsAlert
from hypothesis import given
from hypothesis import strategies as st

from cext.tls import messages12
from tests.cext.tls.peer import extension, u16s, vector

OFFERED = (0, 5, 10, 11, 16, 23, 35, 0xFF01)
RENEGOTIATION, EMS, FORMATS = extension(0xFF01, b"\0"), extension(23), extension(11, b"\1\0")
ALPN = extension(16, vector(2, vector(1, b"h2")))
ALL = RENEGOTIATION + EMS + FORMATS + ALPN + extension(0) + extension(35) + extension(5)


def server_hello(extensions, version=0x0303, session_id=bytes(32), compression=0):
    body = u16s(version) + bytes(range(32)) + vector(1, session_id) + u16s(0xC02B) + bytes((compression,))
    return body if extensions is None else body + vector(2, extensions)


RIGHT = {
    "server_hello": server_hello(ALL),
    "certificate": vector(3, vector(3, b"leaf") + vector(3, b"issuer")),
    "certificate_request": vector(1, b"\x40\1") + vector(2, u16s(0x0403, 0x0804)) + vector(2, vector(2, b"name")),
    "server_key_exchange": b"\3" + u16s(29) + vector(1, bytes(32)) + u16s(0x0403) + vector(2, b"signature"),
    "client_key_exchange": vector(1, bytes(32)),
    "server_hello_done": b"",
    "new_session_ticket": bytes(4) + vector(2, b"ticket"),
}


def alert_of(kind, body, offered=OFFERED):
    with pytest.raises(TlsAlert) as caught:
        messages12.parse(kind, body, offered)
    assert caught.value.reason
    return caught.value.name


@pytest.mark.parametrize("kind", RIGHT)
def test_whole_prefixes_and_trailing_bytes(kind):
    body = RIGHT[kind]
    assert messages12.parse(kind, body, OFFERED) is not None
    bare = len(server_hello(None))
    for n in range(len(body)):
        if kind == "server_hello" and n == bare:
            continue                    # a ServerHello may end without extensions
        assert alert_of(kind, body[:n]) == "decode_error"
    for tail in (b"\0", b"\0\0\0", bytes(100)):
        assert alert_of(kind, body + tail) == "decode_error"


def test_fields():
    found = messages12.parse("server_hello", RIGHT["server_hello"], OFFERED)
    assert found == {
        "random": bytes(range(32)), "session_id": bytes(32), "cipher_suite": 0xC02B, "alpn": b"h2",
        "extended_master_secret": True, "renegotiation_info": True, "session_ticket": True, "status_request": True,
        "server_name": True, "record_size_limit": None, "timestamps": None,
    }
    bare = messages12.parse("server_hello", server_hello(None), OFFERED)
    assert not any(bare[name] for name in ("alpn", "extended_master_secret", "renegotiation_info", "session_ticket"))
    assert messages12.parse("certificate", RIGHT["certificate"]) == {"chain": [b"leaf", b"issuer"], "leaf": b"leaf"}
    assert messages12.parse("certificate", vector(3, b"")) == {"chain": [], "leaf": None}
    assert messages12.parse("server_key_exchange", RIGHT["server_key_exchange"]) == {
        "params": RIGHT["server_key_exchange"][:36], "group": 29, "point": bytes(32), "algorithm": 0x0403,
        "signature": b"signature",
    }
    assert messages12.parse("new_session_ticket", bytes(3) + b"\7" + vector(2, b"")) == {
        "lifetime_hint": 7, "ticket": b""}


@pytest.mark.parametrize(("body", "alert"), [
    (server_hello(ALL, version=0x0302), "protocol_version"),
    (server_hello(ALL, compression=1), "illegal_parameter"),
    (server_hello(ALL, session_id=bytes(33)), "decode_error"),
    (server_hello(EMS + EMS), "decode_error"),
    (server_hello(extension(51, bytes(4))), "illegal_parameter"),       # of TLS 1.3's ServerHello
    (server_hello(extension(13, bytes(4))), "illegal_parameter"),       # of a ClientHello
    (server_hello(extension(18, b"")), "unsupported_extension"),
    (server_hello(extension(0x7777)), "unsupported_extension"),
    (server_hello(extension(0xFF01, b"\1x")), "handshake_failure"),     # RFC 5746, section 3.4
    (server_hello(extension(0xFF01, b"")), "decode_error"),
    (server_hello(extension(11, b"\1\1")), "illegal_parameter"),        # RFC 8422, section 5.2
    (server_hello(extension(11, b"\0\0")), "decode_error"),
    (server_hello(extension(23, b"x")), "decode_error"),
    (server_hello(extension(35, b"x")), "decode_error"),
    (server_hello(extension(16, vector(2, vector(1, b"a") + vector(1, b"b")))), "decode_error"),
    (server_hello(extension(16, vector(2, vector(1, b"")))), "decode_error"),
])
def test_server_hello_fault(body, alert):
    assert alert_of("server_hello", body) == alert


@pytest.mark.parametrize(("kind", "body", "alert"), [
    ("certificate", vector(3, vector(3, b"")), "decode_error"),
    ("certificate_request", vector(1, b"") + vector(2, b"\4\3") + vector(2, b""), "decode_error"),
    ("certificate_request", vector(1, b"\1") + vector(2, b"\4\3\2") + vector(2, b""), "decode_error"),
    ("certificate_request", vector(1, b"\1") + vector(2, b"\4\3") + vector(2, vector(2, b"")), "decode_error"),
    ("server_key_exchange", b"\1" + bytes(40), "illegal_parameter"),    # explicit_prime
    ("server_key_exchange", b"\3\0\x1d" + vector(1, b"") + b"\4\3" + vector(2, b"s"), "decode_error"),
    ("client_key_exchange", vector(1, b""), "decode_error"),
])
def test_fault(kind, body, alert):
    assert alert_of(kind, body) == alert


@given(st.sampled_from(sorted(RIGHT)), st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(kind, body):
    try:
        messages12.parse(kind, body, OFFERED)
    except TlsAlert as alert:
        assert alert.reason


def test_unknown_kind():
    with pytest.raises(ValueError, match="no handshake message"):
        messages12.parse("nothing", b"")
