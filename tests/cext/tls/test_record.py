"""Records: header limits, nonces, and protection against an independent AEAD."""

import pytest
from cext.crypto.aead import contexts
from cext.tls.key_schedule import keys_of
from cext.tls.record import RecordKeys, length_of
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given, settings
from hypothesis import strategies as st

SUITES = {"aes-128-gcm": (1, 1, AESGCM), "aes-256-gcm": (2, 2, AESGCM), "chacha20": (1, 3, ChaCha20Poly1305)}
every_suite = pytest.mark.parametrize("suite", SUITES)


def secret_of(hash_id):
    return bytes(range(32 if hash_id == 1 else 48))


def ends(suite):
    hash_id, aead, _ = SUITES[suite]
    return [RecordKeys(hash_id, aead, secret_of(hash_id), seals) for seals in (True, False)]


def reference(suite, sequence, inner):
    """The record by the cryptography package (RFC 8446, sections 5.2 and 5.3)."""
    hash_id, aead, cipher = SUITES[suite]
    key, iv = keys_of(hash_id, aead, secret_of(hash_id))
    nonce = (int.from_bytes(iv, "big") ^ sequence).to_bytes(12, "big")
    header = b"\x17\x03\x03" + (len(inner) + 16).to_bytes(2, "big")
    return header + cipher(key).encrypt(nonce, inner, header)


@every_suite
@pytest.mark.parametrize("sequence", [0, 1, 255, 256, 2**32 - 1, 2**32, 2**63])
def test_protection_by_an_independent_aead(suite, sequence):
    sealing, opening = ends(suite)
    sealing.sequence = opening.sequence = sequence
    sealed = sealing.protect(b"content", 23)
    assert sealed == reference(suite, sequence, b"content\x17")
    assert opening.unprotect(sealed) == (23, b"content")
    assert sealing.sequence == opening.sequence == sequence + 1


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(SUITES)), st.binary(max_size=400), st.sampled_from([21, 22, 23]), st.integers(0, 300))
def test_round_trip_with_padding(suite, content, kind, padding):
    sealing, opening = ends(suite)
    for _ in range(2):
        sealed = sealing.protect(content, kind, padding)
        assert len(sealed) == 5 + len(content) + 1 + padding + 16
        assert opening.unprotect(sealed) == (kind, content)


@every_suite
def test_a_parked_direction_wakes(suite):
    sealing, opening = ends(suite)
    for n in range(4):
        sealed = sealing.protect(b"%d" % n, 23)
        assert opening.unprotect(sealed) == (23, b"%d" % n)
        sealing.park()
        opening.park()
        opening.park()


def test_contexts_are_given_back():
    before = contexts()
    keys = ends("aes-128-gcm")
    keys[0].protect(b"", 23)
    assert contexts() == before + 1
    del keys
    assert contexts() == before


@every_suite
def test_the_largest_content(suite):
    sealing, opening = ends(suite)
    content = bytes(range(256)) * 64
    assert opening.unprotect(sealing.protect(content, 23)) == (23, content)
    with pytest.raises(ValueError, match="alert 80"):
        sealing.protect(content + b"x", 23)


@every_suite
def test_nothing_authenticates_but_the_record(suite):
    sealing, opening = ends(suite)
    sealed = sealing.protect(b"content", 23)
    for at in range(len(sealed)):
        broken = bytearray(sealed)
        broken[at] ^= 0x10
        with pytest.raises(ValueError, match="20"):
            opening.unprotect(bytes(broken))
    for n in range(5, len(sealed)):
        with pytest.raises(ValueError, match="20"):
            opening.unprotect(sealed[:n])
    # A record that fails leaves the sequence number, so early data can be skipped by trial.
    assert opening.sequence == 0
    assert opening.unprotect(sealed) == (23, b"content")


@pytest.mark.parametrize(("inner", "alert"), [
    (b"", 10), (bytes(50), 10), (b"x" * 16385 + b"\x17", 22), (b"\x17" + bytes(16384 + 1), 22)])
def test_refused_inner_plaintexts(inner, alert):
    opening = ends("aes-128-gcm")[1]
    with pytest.raises(ValueError, match=f"^{alert}$"):
        opening.unprotect(reference("aes-128-gcm", 0, inner))


@pytest.mark.parametrize(("header", "protected", "expected"), [
    ("1603010005", False, 10), ("1603034000", False, 5 + 16384), ("1603034001", False, -22), ("1603034001", True, -22),
    ("1703034100", True, 5 + 16640), ("1703034101", True, -22), ("1703034001", False, -22), ("1603030000", True, 5),
    ("1303030001", True, -10), ("1803030001", True, -10), ("0003030001", True, -10), ("ff03030001", True, -10),
    ("1602030001", True, -70), ("1604030001", True, -70), ("16030000", True, 0), ("", True, 0), ("1603ff0001", True, 6),
])
def test_headers(header, protected, expected):
    assert length_of(bytes.fromhex(header), protected)[0] == expected


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40), st.booleans())
def test_any_header(data, protected):
    length, kind = length_of(data, protected)
    assert length in (0, -10, -22, -70) or (5 <= length <= 5 + 16640 and 20 <= kind <= 23)


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=5, max_size=80))
def test_any_record(data):
    with pytest.raises(ValueError, match=r"^20$"):
        ends("chacha20")[1].unprotect(data)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="AEAD"):
        RecordKeys(1, 9, bytes(32), True)
    with pytest.raises(ValueError, match="length"):
        RecordKeys(1, 1, bytes(31), True)
    with pytest.raises(ValueError, match="header"):
        ends("chacha20")[1].unprotect(b"1234")
