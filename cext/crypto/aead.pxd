"""AEADs of TLS 1.3 over EVP, sealing and opening in place (RFC 5116, RFC 8439)."""

from libc.stdint cimport uint8_t

from cext.lib.libcrypto cimport EVP_CIPHER_CTX

cdef enum AeadId:
    AEAD_AES_128_GCM = 1
    AEAD_AES_256_GCM = 2
    AEAD_CHACHA20_POLY1305 = 3

cdef enum:
    AEAD_KEY_MAX = 32
    AEAD_IV = 12
    AEAD_TAG = 16

cdef size_t aead_key_length(int aead) noexcept nogil

# A context is about 1.1 KiB, so an idle connection frees its contexts and makes them again from the key: 0.3 us, in
# which libcrypto cleanses the freed key. There is no pool, since overwriting the secrets of a pooled context well
# (0.5 us) costs more than that.
cdef EVP_CIPHER_CTX *aead_new(int aead, const uint8_t *key, bint seal) noexcept nogil
cdef void aead_free(int aead, EVP_CIPHER_CTX *ctx) noexcept nogil

cdef int aead_seal(EVP_CIPHER_CTX *ctx, const uint8_t *nonce, const uint8_t *aad, size_t aad_len,
                   uint8_t *data, size_t n) noexcept nogil
"""Encrypts data[:n] in place and writes the tag to data[n:n+16]. 0, or -1 when libcrypto fails."""

cdef int aead_open(EVP_CIPHER_CTX *ctx, const uint8_t *nonce, const uint8_t *aad, size_t aad_len,
                   uint8_t *data, size_t n) noexcept nogil
"""Decrypts data[:n] in place; the tag stands in data[n:n+16]. 0, or -1 when it does not authenticate."""
