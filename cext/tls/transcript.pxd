"""The running hash of handshake messages (RFC 9846, section 4.4.1).

Before the cipher suite is known only the ClientHello can have come (or gone): its bytes are hashed
under SHA-256 and SHA-384 at once, and the one that is not chosen is forgotten.
"""

from libc.stdint cimport uint8_t

from cext.crypto.hash_kdf cimport Hash

cdef struct Transcript:
    int hash                    # HashId; 0 until transcript_select
    Hash sha256                 # `hash` says which goes on
    Hash sha384

cdef void transcript_init(Transcript *t) noexcept nogil
cdef void transcript_add(Transcript *t, const uint8_t *message, size_t n) noexcept nogil
cdef void transcript_select(Transcript *t, int hash) noexcept nogil
"""The suite is known: from now on one hash goes on."""
cdef void transcript_hash(const Transcript *t, uint8_t *out) noexcept nogil
"""Transcript-Hash of all messages so far: hash_length(t.hash) bytes."""
cdef void transcript_retry(Transcript *t) noexcept nogil
"""Replaces what was added (ClientHello1) by message_hash, before HelloRetryRequest is added (section 4.4.1)."""
