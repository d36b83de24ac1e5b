"""The transcript: a running hash that is read at any time and rewritten once (RFC 8446, section 4.4.1)."""

import hashlib

import pytest
from cext.tls.transcript import TranscriptHash
from hypothesis import given, settings
from hypothesis import strategies as st

HASHES = {1: hashlib.sha256, 2: hashlib.sha384}


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(HASHES)), st.lists(st.binary(max_size=300), max_size=6), st.booleans())
def test_digests_on_the_way(hash_id, messages, late):
    transcript, reference = TranscriptHash(0 if late else hash_id), HASHES[hash_id]()
    for n, message in enumerate(messages):
        transcript.add(message)
        reference.update(message)
        if late and n == 0:
            transcript.select(hash_id)
            late = False
        assert transcript.digest() == reference.digest()


@pytest.mark.parametrize("hash_id", HASHES)
@pytest.mark.parametrize("late", [True, False])
def test_message_hash(hash_id, late):
    transcript = TranscriptHash(0 if late else hash_id)
    transcript.add(b"ClientHello1")
    transcript.select(hash_id)
    transcript.retry()
    transcript.add(b"HelloRetryRequest")
    first = HASHES[hash_id](b"ClientHello1").digest()
    assert transcript.digest() == HASHES[hash_id](
        b"\xfe\0\0" + bytes([len(first)]) + first + b"HelloRetryRequest").digest()


def test_wrong_use():
    transcript = TranscriptHash(0)
    for call in (transcript.digest, transcript.retry, lambda: transcript.select(0), lambda: TranscriptHash(3)):
        with pytest.raises(ValueError, match="hash"):
            call()
