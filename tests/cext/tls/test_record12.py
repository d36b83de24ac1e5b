"""Records of TLS 1.2 against the cryptography package's AEADs (RFC 5246, section 6.2.3.3; RFC 5288; RFC 7905)."""

import pytest
from cext.tls.record import RecordKeys, length_of
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

AES_128, AES_256, CHACHA20 = 1, 2, 3
KEY_IV = {AES_128: (16, 4), AES_256: (32, 4), CHACHA20: (32, 12)}
BAD_RECORD_MAC, RECORD_OVERFLOW, PROTOCOL_VERSION = 20, 22, 70


def keys(aead, seals=True, sequence=0):
    made = RecordKeys(0, aead, bytes(range(sum(KEY_IV[aead]))), seals)
    made.sequence = sequence
    return made


def reference(aead, sequence, kind, content, explicit=None):
    """The whole record, by another hand."""
    key_length, _ = KEY_IV[aead]
    key, iv = bytes(range(key_length)), bytes(range(key_length, sum(KEY_IV[aead])))
    number = sequence.to_bytes(8, "big")
    aad = number + bytes([kind]) + b"\3\3" + len(content).to_bytes(2, "big")
    if aead == CHACHA20:
        nonce = bytes(a ^ b for a, b in zip(iv, bytes(4) + number, strict=True))
        sealed = ChaCha20Poly1305(key).encrypt(nonce, content, aad)
    else:
        explicit = number if explicit is None else explicit
        sealed = explicit + AESGCM(key).encrypt(iv + explicit, content, aad)
    return bytes([kind]) + b"\3\3" + len(sealed).to_bytes(2, "big") + sealed


@given(st.sampled_from(sorted(KEY_IV)), st.integers(0, 2**64 - 2), st.sampled_from([20, 21, 22, 23]),
       st.binary(max_size=300))
def test_any_record(aead, sequence, kind, content):
    record = reference(aead, sequence, kind, content)
    assert keys(aead, sequence=sequence).protect(content, kind) == record
    assert keys(aead, False, sequence).unprotect(record) == (kind, content)


@pytest.mark.parametrize("aead", KEY_IV)
def test_sizes_and_sequence(aead):
    sealing, opening = keys(aead), keys(aead, False)
    for n, size in enumerate((0, 1, 16383, 16384)):
        record = sealing.protect(bytes(size), 23)
        assert opening.unprotect(record) == (23, bytes(size))
        assert sealing.sequence == opening.sequence == n + 1
        sealing.park()
        opening.park()
    with pytest.raises(ValueError):
        sealing.protect(bytes(16385), 23)


@pytest.mark.parametrize("aead", [AES_128, AES_256])
def test_the_peers_explicit_nonce_is_its_own(aead):
    """It need not be the sequence number (RFC 5288, section 3), which the additional data has anyway."""
    assert keys(aead, False).unprotect(reference(aead, 0, 23, b"data", b"\xfe" * 8)) == (23, b"data")


@pytest.mark.parametrize("aead", KEY_IV)
def test_refusals(aead):
    record = reference(aead, 0, 23, b"content")
    for at in (0, *range(5, len(record))):
        damaged = record[:at] + bytes([record[at] ^ 1]) + record[at + 1 :]
        with pytest.raises(ValueError, match=str(BAD_RECORD_MAC)):
            keys(aead, False).unprotect(damaged)
    with pytest.raises(ValueError, match=str(BAD_RECORD_MAC)):
        keys(aead, False, 1).unprotect(record)
    for n in range(5, 5 + 16 + (0 if aead == CHACHA20 else 8)):
        with pytest.raises(ValueError, match=str(BAD_RECORD_MAC)):
            keys(aead, False).unprotect(record[:n])
    with pytest.raises(ValueError, match=str(RECORD_OVERFLOW)):
        keys(aead, False).unprotect(reference(aead, 0, 23, bytes(16385)))


def test_lengths_and_versions():
    header = b"\x16\3\3\x40\x18"                # a handshake record of 2^14 + 24 bytes
    assert length_of(header, True, True)[0] == 5 + 0x4018
    assert length_of(header, True, False)[0] == -RECORD_OVERFLOW
    assert length_of(b"\x17\3\3\x41\1", True, True)[0] == -RECORD_OVERFLOW
    for version in (b"\3\1", b"\3\4", b"\2\3"):
        assert length_of(b"\x17" + version + b"\0\x20", True, True)[0] == -PROTOCOL_VERSION


def test_keys_that_cannot_be():
    for aead, secret in ((0, b""), (4, bytes(44)), (AES_128, bytes(28)), (CHACHA20, bytes(36))):
        with pytest.raises(ValueError):
            RecordKeys(0, aead, secret, True)
    with pytest.raises(ValueError, match="padding"):
        keys(AES_128).protect(b"x", 23, 1)
