"""The extension table row by row, and the walk over a list: order, duplicates, bounds."""

import random

import pytest
from cext.tls.alert import TlsAlert
from hypothesis import given
from hypothesis import strategies as st

from cext.tls import extensions
from tests.tls_corrupt import GREASE, extension

# Transcribed from the tables of RFC 8446 section 4.2, RFC 8879 section 7.1 and RFC 8449 section 8, and for the
# ServerHello of TLS 1.2 from the RFCs that define each, not from the code.
CH, SH, HRR, EE, CT, CR, NST, SH12 = (
    "client_hello",
    "server_hello",
    "hello_retry_request",
    "encrypted_extensions",
    "certificate",
    "certificate_request",
    "new_session_ticket",
    "server_hello_12",
)
RFC = {
    0: {CH, EE, SH12}, 1: {CH, EE, SH12}, 5: {CH, CR, CT, SH12}, 10: {CH, EE, SH12}, 13: {CH, CR}, 14: {CH, EE},
    15: {CH, EE}, 16: {CH, EE, SH12}, 18: {CH, CR, CT, SH12}, 19: {CH, EE}, 20: {CH, EE}, 21: {CH},
    51: {CH, SH, HRR}, 41: {CH, SH}, 45: {CH},
    42: {CH, EE, NST}, 44: {CH, HRR}, 43: {CH, SH, HRR}, 47: {CH, CR}, 48: {CR}, 49: {CH}, 50: {CH, CR},
    27: {CH, CR}, 28: {CH, EE, SH12}, 11: {CH, SH12}, 23: {CH, SH12}, 35: {CH, SH12}, 0xFF01: {CH, SH12},
    34: {CH, CR, CT},
}  # fmt: skip
MESSAGES = (CH, SH, HRR, EE, CT, CR, NST, SH12)
ANSWERS = {SH, HRR, EE, CT, SH12}
COOKIE = 44


def alert_of(*args, **kwargs):
    with pytest.raises(TlsAlert) as caught:
        extensions.read(*args, **kwargs)
    return caught.value.name


def test_every_row_is_tested():
    assert {type for type, _, _ in extensions.TABLE} == set(RFC)
    assert set(extensions.MESSAGES) == set(MESSAGES)


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("type", RFC)
def test_row(type, message):
    encoded = extension(type, b"content")
    if message in RFC[type]:
        assert extensions.read(encoded, message, offered=[type]) == {type: b"content"}
    else:
        assert alert_of(encoded, message, offered=[type]) == "illegal_parameter"


@pytest.mark.parametrize(
    ("type", "message"), [(t, m) for t, row in RFC.items() for m in sorted(row) if (t, m) != (COOKIE, HRR)]
)
def test_what_was_not_offered_is_not_answered(type, message):
    encoded = extension(type, b"")
    others = [other for other in RFC if other != type]
    if message in ANSWERS:
        assert alert_of(encoded, message, offered=others) == "unsupported_extension"
    else:
        assert extensions.read(encoded, message, offered=others) == {type: b""}


def test_a_retry_may_bring_a_cookie_unasked():
    assert extensions.read(extension(COOKIE, b"c"), HRR) == {COOKIE: b"c"}


@pytest.mark.parametrize("type", [GREASE, 0x0A0A, 0xFAFA, 6, 63, 64, 0x1234, 0xFF02, 0xFFFF])
@pytest.mark.parametrize("message", MESSAGES)
def test_unknown_ones_are_passed_over_where_nothing_is_answered(type, message):
    encoded = extension(type, b"x") + extension(0, b"y")
    if message in ANSWERS:
        assert alert_of(encoded, message, offered=RFC) == "unsupported_extension"
    elif message in RFC[0]:
        assert extensions.read(encoded, message) == {0: b"y"}
    else:
        assert extensions.read(extension(type, b"x"), message) == {}


@pytest.mark.parametrize("type", [*RFC, GREASE, 0x1234, 0xFFFF])
def test_twice_is_refused(type):
    message, alert = (CR, "illegal_parameter") if type == 48 else (CH, "decode_error")
    apart = extension(type, b"1") + extension(0x4444, b"") + extension(type, b"1")
    assert alert_of(extension(type, b"") * 2, message) == alert
    assert alert_of(apart, message) == alert


@pytest.mark.parametrize("type", [*RFC, GREASE, 0xFFFF])
def test_twice_weighs_more_than_unasked(type):
    unasked = extension(0x1234, b"")
    alert = alert_of(unasked + extension(type, b"1") + unasked + extension(type, b"1"), EE)
    assert alert == "decode_error"
    assert alert_of(extension(0x1234, b"") + extension(type, b"1"), EE) == "unsupported_extension"


def test_no_call_remembers_another():
    """The set of unknown types is emptied on every way out."""
    unknown = [extension(type, b"") for type in (GREASE, 0x1234, 0x1235)]
    for _ in range(3):
        assert extensions.read(b"".join(unknown), CH) == {}
        assert alert_of(b"".join(unknown) + unknown[0], CH) == "decode_error"
        assert alert_of(b"".join(unknown) + b"\0", CH) == "decode_error"
        assert alert_of(b"".join(unknown) + b"\0\0\0\1", CH) == "decode_error"
        assert alert_of(b"".join(unknown) + extension(48, b""), CH) == "illegal_parameter"


def test_as_many_as_a_message_holds():
    """16,383 different ones fill a vector; one more, a duplicate, is found, in time linear in their number."""
    types = list(range(0x100, 0x100 + 16382))
    random.Random(1).shuffle(types)
    encoded = b"".join(extension(type, b"") for type in types)
    assert extensions.read(encoded, CH) == {}
    assert alert_of(encoded + extension(types[0], b""), CH) == "decode_error"


def test_truncation():
    encoded = extension(0, b"name") + extension(GREASE, b"") + extension(43, b"\2\3\4")
    ends = {0, 8, 12, len(encoded)}
    for n in range(len(encoded) + 1):
        if n in ends:
            extensions.read(encoded[:n], CH)
        else:
            assert alert_of(encoded[:n], CH) == "decode_error"


@given(st.binary(max_size=80), st.sampled_from(MESSAGES), st.sets(st.sampled_from(sorted(RFC))))
def test_anything_is_read_or_refused(data, message, offered):
    try:
        found = extensions.read(data, message, offered=offered)
    except TlsAlert as alert:
        assert alert.name in ("decode_error", "illegal_parameter", "unsupported_extension")
        return
    assert all(message in RFC[type] for type in found)
