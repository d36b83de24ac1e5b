"""SHA-256, SHA-384, HMAC and HKDF (RFC 6234, 2104, 5869), and the constant-time compare.

A Hash is a plain struct that is copied by assignment: a transcript is forked without an allocation.
"""

from libc.stdint cimport uint8_t

from cext.lib.libcrypto cimport SHA256_CTX, SHA512_CTX

cdef enum HashId:
    HASH_SHA256 = 1
    HASH_SHA384 = 2

cdef enum:
    HASH_MAX = 48

cdef union HashState:
    SHA256_CTX sha256
    SHA512_CTX sha512

cdef struct Hash:
    int id
    HashState state

cdef struct Hmac:            # inner and outer states after the key block: many MACs under one key
    Hash inner
    Hash outer

cdef size_t hash_length(int id) noexcept nogil
cdef void hash_init(Hash *h, int id) noexcept nogil
cdef void hash_update(Hash *h, const void *p, size_t n) noexcept nogil
cdef void hash_final(const Hash *h, uint8_t *out) noexcept nogil
"""The digest so far; h itself goes on (the state is copied)."""
cdef void hash_once(int id, const void *p, size_t n, uint8_t *out) noexcept nogil

cdef void sha1_once(const void *p, size_t n, uint8_t *out) noexcept nogil
"""20 bytes. For what RFC 6455 makes of it alone: a checksum that secures nothing."""

cdef void hmac_key(Hmac *m, int id, const uint8_t *key, size_t n) noexcept nogil
cdef void hmac_sign(const Hmac *m, const void *p, size_t n, uint8_t *out) noexcept nogil
cdef void hmac_once(int id, const uint8_t *key, size_t key_len, const void *p, size_t n, uint8_t *out) noexcept nogil

cdef void hkdf_extract(int id, const uint8_t *salt, size_t salt_len, const uint8_t *ikm, size_t ikm_len,
                       uint8_t *prk) noexcept nogil
cdef int hkdf_expand(int id, const uint8_t *prk, size_t prk_len, const uint8_t *info, size_t info_len,
                     uint8_t *out, size_t n) noexcept nogil
"""0, or -1 when n is over 255 hashes."""

cdef bint equal_constant_time(const void *a, const void *b, size_t n) noexcept nogil
cdef void cleanse(void *p, size_t n) noexcept nogil
cdef int random_bytes(uint8_t *out, size_t n) noexcept nogil
"""0, or -1 when the system has no randomness."""
