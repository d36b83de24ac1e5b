"""Negotiation as tables: what the client offers, what we prefer, what comes of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cext.tls import negotiate

AES128, AES256, CHACHA = 0x1301, 0x1302, 0x1303
X25519, P256, P384 = 0x001D, 0x0017, 0x0018
GREASE = 0x2A2A
HANDSHAKE_FAILURE, ILLEGAL_PARAMETER, PROTOCOL_VERSION, NO_APPLICATION_PROTOCOL = -40, -47, -70, -120


@pytest.mark.parametrize(
    ("versions", "legacy", "chosen"),
    [
        ((0x0304,), 0x0303, 0x0304),
        ((GREASE, 0x0303, 0x0304), 0x0303, 0x0304),
        ((0x0304,), 0x0301, 0x0304),
        ((0x0304,), 0x0300, PROTOCOL_VERSION),
        ((0x0303,), 0x0303, 0x0303),
        ((0x0303,), 0x0301, 0x0303),
        ((0x0303,), 0x0300, PROTOCOL_VERSION),
        ((), 0x0303, PROTOCOL_VERSION),
        (None, 0x0303, 0x0303),
        (None, 0x0305, 0x0303),
        (None, 0x0302, PROTOCOL_VERSION),
        ((0x0302, 0x0301), 0x0303, PROTOCOL_VERSION),
        ((0x7F1C, GREASE), 0x0304, PROTOCOL_VERSION),
    ],
)
def test_version(versions, legacy, chosen):
    assert negotiate.version(versions, legacy) == chosen


@pytest.mark.parametrize(
    ("versions", "ours", "chosen"),
    [
        ((0x0304, 0x0303), (0x0303, 0x0303), 0x0303),
        ((0x0304, 0x0303), (0x0304, 0x0304), 0x0304),
        ((0x0304,), (0x0303, 0x0303), PROTOCOL_VERSION),
        ((0x0303,), (0x0304, 0x0304), PROTOCOL_VERSION),
        (None, (0x0304, 0x0304), PROTOCOL_VERSION),
    ],
)
def test_version_within_our_limits(versions, ours, chosen):
    assert negotiate.version(versions, 0x0303, *ours) == chosen


ECDSA, RSA = (0xC02B, 0xC02C, 0xCCA9), (0xC02F, 0xC030, 0xCCA8)


@pytest.mark.parametrize(
    ("client", "ecdsa", "chosen"),
    [
        (ECDSA + RSA, True, 0xC02B),
        (ECDSA + RSA, False, 0xC02F),
        (RSA[::-1], False, 0xCCA8),  # ChaCha20 before AES: what the client prefers
        ((GREASE, 0x1301, 0xCCA9, 0xC02F), False, 0xC02F),  # for ECDSA alone, so the preference cannot be met
        ((0xC030, 0xC02F), False, 0xC02F),
        (ECDSA, False, HANDSHAKE_FAILURE),
        ((0x009C, 0xC013), False, HANDSHAKE_FAILURE),
    ],
)
def test_cipher_suite_of_tls12(client, ecdsa, chosen):
    assert negotiate.cipher_suite12(client, (0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9, 0xCCA8), ecdsa) == chosen


@pytest.mark.parametrize(
    ("client", "server", "chosen"),
    [
        # our preference, not the client's
        ((AES256, AES128), (AES128, AES256), AES128),
        ((AES128, AES256), (AES256, AES128), AES256),
        ((AES128, AES256, CHACHA), (CHACHA, AES128), CHACHA),
        # a client that puts ChaCha20 before any AES is likely without AES
        ((CHACHA, AES128, AES256), (AES128, AES256, CHACHA), CHACHA),
        ((CHACHA,), (AES128, CHACHA), CHACHA),
        ((GREASE, CHACHA, AES128), (AES128, CHACHA), CHACHA),
        ((GREASE, 0xC02B, 0xCCA9, CHACHA, AES128), (AES128, CHACHA), CHACHA),
        # not when an AES comes first, nor when we have no ChaCha20
        ((AES256, CHACHA, AES128), (AES128, CHACHA), AES128),
        ((GREASE, AES128, CHACHA), (AES128, CHACHA), AES128),
        ((CHACHA, AES128), (AES256, AES128), AES128),
        # nothing in common
        ((0xC02B, 0xC02F, GREASE), (AES128, AES256, CHACHA), HANDSHAKE_FAILURE),
        ((0x1304,), (AES128, AES256, CHACHA), HANDSHAKE_FAILURE),
        ((AES256,), (AES128, CHACHA), HANDSHAKE_FAILURE),
        ((CHACHA,), (AES128,), HANDSHAKE_FAILURE),
    ],
)
def test_cipher_suite(client, server, chosen):
    assert negotiate.cipher_suite(client, server) == chosen


OURS = (X25519, P256, P384)


@pytest.mark.parametrize(
    ("groups", "shares", "server", "chosen"),
    [
        ((X25519, P256), {X25519: b"x"}, OURS, (X25519, False, b"x")),
        ((P256, X25519), {P256: b"p", X25519: b"x"}, OURS, (X25519, False, b"x")),
        ((X25519, P256), {X25519: b"x", P256: b"p"}, OURS, (X25519, False, b"x")),
        # a share is worth more than our order: it saves a round trip
        ((X25519, P256), {P256: b"p"}, OURS, (P256, False, b"p")),
        ((X25519, P256), {X25519: b"x", P256: b"p"}, (P256, X25519), (P256, False, b"p")),
        # GREASE and groups we have not
        ((GREASE, 0x11EC, X25519), {GREASE: b"\0", 0x11EC: b"m", X25519: b"x"}, OURS, (X25519, False, b"x")),
        # HelloRetryRequest, by our order
        ((P384, P256), {}, OURS, (P256, True, None)),
        ((GREASE, 0x11EC, P384), {GREASE: b"\0", 0x11EC: b"m"}, OURS, (P384, True, None)),
        ((X25519, P256), {X25519: b"x"}, (P256,), (P256, True, None)),
        # a share of a group that is not offered, whether it is ours or not
        ((P256,), {X25519: b"x"}, OURS, ILLEGAL_PARAMETER),
        ((X25519,), {X25519: b"x", GREASE: b"\0"}, OURS, ILLEGAL_PARAMETER),
        ((X25519,), {GREASE: b"\0"}, (P256,), ILLEGAL_PARAMETER),
        # nothing in common
        ((0x11EC, GREASE), {0x11EC: b"m"}, OURS, HANDSHAKE_FAILURE),
        ((X25519,), {X25519: b"x"}, (P384,), HANDSHAKE_FAILURE),
        ((), {}, OURS, HANDSHAKE_FAILURE),
    ],
)
def test_group(groups, shares, server, chosen):
    for _ in range(2):  # no call remembers another
        assert negotiate.group(groups, list(shares.items()), server) == chosen


@given(
    st.lists(st.sampled_from((X25519, P256, P384, 0x11EC, GREASE)), unique=True),
    st.lists(st.sampled_from((X25519, P256, P384, 0x11EC, GREASE)), unique=True),
    st.permutations(OURS),
)
def test_group_is_common_or_an_alert(groups, shared, server):
    chosen = negotiate.group(groups, [(group, b"key") for group in shared], server)
    if not set(shared) <= set(groups):
        assert chosen == ILLEGAL_PARAMETER
    elif not set(groups) & set(server):
        assert chosen == HANDSHAKE_FAILURE
    else:
        group, retry, _ = chosen
        assert group in groups and group in server
        assert retry == (not set(shared) & set(server))
        candidates = groups if retry else shared
        assert group == next(preferred for preferred in server if preferred in candidates)


def test_group_among_as_many_as_fit():
    groups = list(range(0x1000, 0x1000 + 32_000))
    assert negotiate.group([*groups, P384], [(group, b"k") for group in groups[:10_000]], OURS) == (P384, True, None)
    assert negotiate.group([P256], [(groups[-1], b"k")], OURS) == ILLEGAL_PARAMETER


@pytest.mark.parametrize(
    ("client", "server", "chosen"),
    [
        ((0x0403, 0x0804), (0x0403,), 0x0403),
        ((0x0806, 0x0805, 0x0804), (0x0804, 0x0805, 0x0806), 0x0804),
        ((GREASE, 0x0806), (0x0804, 0x0805, 0x0806), 0x0806),
        ((0x0401, 0x0501, 0x0201), (0x0804, 0x0805, 0x0806), HANDSHAKE_FAILURE),
        ((0x0403,), (0x0503,), HANDSHAKE_FAILURE),
        ((), (0x0403,), HANDSHAKE_FAILURE),
    ],
)
def test_scheme(client, server, chosen):
    assert negotiate.scheme(client, server) == chosen


@pytest.mark.parametrize(
    ("client", "server", "chosen"),
    [
        ((b"http/1.1", b"h2"), (b"h2", b"http/1.1"), b"h2"),
        ((b"h2", b"http/1.1"), (b"http/1.1",), b"http/1.1"),
        ((b"\x0a\x0a", b"http/1.1"), (b"http/1.1",), b"http/1.1"),
        (None, (b"h2",), None),
        ((b"h2",), (), None),
        ((b"h2", b"h3"), (b"http/1.1",), NO_APPLICATION_PROTOCOL),
        ((b"http/1.1 ", b"HTTP/1.1", b"http/1."), (b"http/1.1",), NO_APPLICATION_PROTOCOL),
    ],
)
def test_alpn(client, server, chosen):
    assert negotiate.alpn(client, server) == chosen
