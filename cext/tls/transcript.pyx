"""The running hash of handshake messages (see the .pxd)."""

from libc.string cimport memcpy

from cext.crypto.hash_kdf cimport HASH_MAX, HASH_SHA256, HASH_SHA384, hash_final, hash_init, hash_length, hash_update
from cext.tls.constants cimport HANDSHAKE_HEADER, HS_MESSAGE_HASH


cdef void transcript_init(Transcript *t, int hash) noexcept nogil:
    t.hash = hash
    if hash:
        hash_init(&t.running, hash)
        return
    hash_init(&t.running, HASH_SHA256)
    hash_init(&t.other, HASH_SHA384)


cdef void transcript_add(Transcript *t, const uint8_t *message, size_t n) noexcept nogil:
    hash_update(&t.running, message, n)
    if t.hash == 0:
        hash_update(&t.other, message, n)


cdef void transcript_select(Transcript *t, int hash) noexcept nogil:
    if t.hash == 0 and hash == HASH_SHA384:
        t.running = t.other
    t.hash = hash


cdef void transcript_hash(const Transcript *t, uint8_t *out) noexcept nogil:
    hash_final(&t.running, out)


cdef void transcript_restart(Transcript *t, int hash, const uint8_t *client_hello1) noexcept nogil:
    cdef uint8_t message[HANDSHAKE_HEADER + HASH_MAX]
    cdef size_t n = hash_length(hash)
    message[0] = HS_MESSAGE_HASH
    message[1] = 0
    message[2] = 0
    message[3] = <uint8_t> n
    memcpy(message + HANDSHAKE_HEADER, client_hello1, n)
    transcript_init(t, hash)
    transcript_add(t, message, HANDSHAKE_HEADER + n)


cdef void transcript_retry(Transcript *t) noexcept nogil:
    cdef uint8_t digest[HASH_MAX]
    transcript_hash(t, digest)
    transcript_restart(t, t.hash, digest)


# --- Python's face, for tests and tools

cdef class TranscriptHash:
    """A Transcript: `hash` is 1 (SHA-256), 2 (SHA-384) or 0 (not known yet, see select)."""
    cdef Transcript transcript

    def __cinit__(self, int hash=0):
        if hash not in (0, HASH_SHA256, HASH_SHA384):
            raise ValueError(f"no such hash: {hash}")
        transcript_init(&self.transcript, hash)

    def add(self, bytes message not None):
        transcript_add(&self.transcript, message, len(message))

    def select(self, int hash):
        if hash not in (HASH_SHA256, HASH_SHA384):
            raise ValueError(f"no such hash: {hash}")
        transcript_select(&self.transcript, hash)

    def retry(self):
        """The messages so far become message_hash; ValueError before the hash is known."""
        if not self.transcript.hash:
            raise ValueError("the hash is not known")
        transcript_retry(&self.transcript)

    def digest(self):
        """Transcript-Hash; ValueError before the hash is known."""
        cdef uint8_t out[HASH_MAX]
        if not self.transcript.hash:
            raise ValueError("the hash is not known")
        transcript_hash(&self.transcript, out)
        return out[:hash_length(self.transcript.hash)]
