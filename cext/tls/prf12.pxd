"""The key schedule of TLS 1.2: one pseudorandom function, and what is derived by it (RFC 5246, sections 5, 6.3, 7.4.9
and 8.1; RFC 7627)."""

from libc.stdint cimport uint8_t

from cext.crypto.hash_kdf cimport Hmac

cdef enum:
    MASTER_SECRET_LENGTH = 48
    FINISHED12_LENGTH = 12
    KEY_IV_MAX = 44                     # a direction's write_key and write_IV: at most ChaCha20-Poly1305's 32 and 12
    PRF_SEED_MAX = 128                  # label and seed together

cdef int prf(const Hmac *secret, const char *label, const uint8_t *seed, size_t seed_len,
             uint8_t *out, size_t n) noexcept nogil
"""PRF(secret, label, seed) by P_<hash> of the HMAC's hash: n bytes. 0, or -1 when label and seed are over
PRF_SEED_MAX."""

cdef void prf_in_place(const Hmac *secret, uint8_t *block, size_t seed_len, uint8_t *out, size_t n) noexcept nogil
"""The same for what is longer: label and seed stand in `block` already, behind room for one hash, A(i) (section 5)."""

cdef void master_secret(int hash, const uint8_t *premaster, size_t premaster_len, const uint8_t *client_random,
                        const uint8_t *server_random, uint8_t *out) noexcept nogil
"""MASTER_SECRET_LENGTH bytes (RFC 5246, section 8.1)."""

cdef void extended_master_secret(int hash, const uint8_t *premaster, size_t premaster_len,
                                 const uint8_t *session_hash, uint8_t *out) noexcept nogil
"""The same by RFC 7627, section 4: session_hash is the transcript's up to and with ClientKeyExchange."""

cdef size_t fixed_iv_length(int aead) noexcept nogil
"""4 for AES-GCM (RFC 5288, section 3), 12 for ChaCha20-Poly1305 (RFC 7905, section 2)."""

cdef void key_block(const Hmac *master, int aead, const uint8_t *client_random, const uint8_t *server_random,
                    uint8_t *client, uint8_t *server) noexcept nogil
"""Each direction's write_key and, behind it, its write_IV (RFC 5246, section 6.3): at most KEY_IV_MAX bytes each."""

cdef void finished12(const Hmac *master, bint server, const uint8_t *transcript_hash, uint8_t *out) noexcept nogil
"""verify_data (RFC 5246, section 7.4.9): FINISHED12_LENGTH bytes."""
