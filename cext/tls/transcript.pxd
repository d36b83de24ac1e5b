"""The running hash of handshake messages (RFC 9846, section 4.4.1).

A client sends its ClientHello before it knows the hash: until transcript_select the messages go through SHA-256
and SHA-384 at once, and then the one that was not chosen is forgotten.
"""

from libc.stdint cimport uint8_t

from cext.crypto.hash_kdf cimport Hash

cdef struct Transcript:
    int hash                    # HashId; 0 until it is known
    Hash running                # of `hash`; SHA-256 as long as `hash` is 0
    Hash other                  # SHA-384 as long as `hash` is 0, then unused

cdef void transcript_init(Transcript *t, int hash) noexcept nogil
"""Empty; hash 0: not known yet."""
cdef void transcript_add(Transcript *t, const uint8_t *message, size_t n) noexcept nogil
cdef void transcript_select(Transcript *t, int hash) noexcept nogil
"""The cipher suite is known: from now on one hash goes on."""
cdef void transcript_hash(const Transcript *t, uint8_t *out) noexcept nogil
"""Transcript-Hash of all messages so far: hash_length(t.hash) bytes."""
cdef void transcript_restart(Transcript *t, int hash, const uint8_t *client_hello1) noexcept nogil
"""A transcript that begins with the message_hash which stands for ClientHello1, by the hash of that: after it comes
the HelloRetryRequest."""
cdef void transcript_retry(Transcript *t) noexcept nogil
"""transcript_restart with what was added so far (a client, or a server that kept its state); `hash` is known."""
