"""The key schedule against HKDF as Python's hmac computes it, for both hashes (RFC 8446, section 7.1)."""

import hashlib
import hmac

import pytest
from cext.tls.key_schedule import Schedule, keys_of, updated, verify_data
from hypothesis import given, settings
from hypothesis import strategies as st

HASHES = {1: "sha256", 2: "sha384"}
KEY_LENGTHS = {1: 16, 2: 32, 3: 32}
every_hash = pytest.mark.parametrize("hash_id", HASHES)
TRAFFIC = ["c hs traffic", "s hs traffic", "c ap traffic", "s ap traffic"]


def size(hash_id):
    return hashlib.new(HASHES[hash_id]).digest_size


def mac(hash_id, key, data):
    return hmac.new(key, data, HASHES[hash_id]).digest()


def expand_label(hash_id, secret, label, context, length):
    label = b"tls13 " + label.encode()
    info = length.to_bytes(2, "big") + bytes([len(label)]) + label + bytes([len(context)]) + context
    return mac(hash_id, secret, info + b"\x01")[:length]


def derive(hash_id, secret, label, digest):
    return expand_label(hash_id, secret, label, digest, size(hash_id))


def handshake_secret(hash_id, shared):
    early = mac(hash_id, bytes(size(hash_id)), bytes(size(hash_id)))
    return mac(hash_id, derive(hash_id, early, "derived", hashlib.new(HASHES[hash_id]).digest()), shared)


def master_secret(hash_id, shared):
    empty = hashlib.new(HASHES[hash_id]).digest()
    return mac(hash_id, derive(hash_id, handshake_secret(hash_id, shared), "derived", empty), bytes(size(hash_id)))


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(HASHES)), st.binary(min_size=1, max_size=97), st.sampled_from(TRAFFIC), st.data())
def test_secrets(hash_id, shared, label, data):
    digest = data.draw(st.binary(min_size=size(hash_id), max_size=size(hash_id)))
    schedule = Schedule(hash_id, shared)
    assert schedule.derive(label, digest) == derive(hash_id, handshake_secret(hash_id, shared), label, digest)
    schedule.master()
    assert schedule.derive(label, digest) == derive(hash_id, master_secret(hash_id, shared), label, digest)


@every_hash
def test_secrets_of_no_message(hash_id):
    empty = hashlib.new(HASHES[hash_id]).digest()
    secret = handshake_secret(hash_id, b"s")
    assert Schedule(hash_id, b"s").derive("derived") == derive(hash_id, secret, "derived", empty)


@every_hash
@pytest.mark.parametrize("aead", KEY_LENGTHS)
def test_traffic_keys(hash_id, aead):
    secret = bytes(range(size(hash_id)))
    assert keys_of(hash_id, aead, secret) == (
        expand_label(hash_id, secret, "key", b"", KEY_LENGTHS[aead]), expand_label(hash_id, secret, "iv", b"", 12))


@every_hash
def test_updates_and_finished(hash_id):
    secret, digest = bytes(range(size(hash_id))), bytes(size(hash_id))
    assert updated(hash_id, secret) == expand_label(hash_id, secret, "traffic upd", b"", size(hash_id))
    finished_key = expand_label(hash_id, secret, "finished", b"", size(hash_id))
    assert verify_data(hash_id, secret, digest) == mac(hash_id, finished_key, digest)


def test_wrong_arguments():
    with pytest.raises(ValueError, match="hash"):
        Schedule(3, b"")
    with pytest.raises(ValueError, match="transcript_hash"):
        Schedule(1, b"").derive("c hs traffic", bytes(31))
    with pytest.raises(ValueError, match="secret"):
        updated(2, bytes(32))
    with pytest.raises(ValueError, match="AEAD"):
        keys_of(1, 4, bytes(32))
    with pytest.raises(KeyError):
        Schedule(1, b"").derive("no such label")
