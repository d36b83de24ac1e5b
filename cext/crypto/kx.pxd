"""Ephemeral key exchange: X25519 (RFC 7748), P-256 and P-384 (SEC 1, uncompressed points)."""

from libc.stdint cimport uint8_t

from cext.lib.libcrypto cimport EVP_PKEY, EVP_PKEY_CTX

cdef enum Group:                       # NamedGroup, RFC 9846 section 4.3.7
    GROUP_SECP256R1 = 0x0017
    GROUP_SECP384R1 = 0x0018
    GROUP_X25519 = 0x001D

cdef enum:
    KX_PUBLIC_MAX = 97                 # P-384: 0x04, x, y
    KX_SHARED_MAX = 48

cdef size_t kx_public_length(int group) noexcept nogil
"""Bytes of a share of the group; 0 when the group is unknown."""

cdef class KeyExchange:
    """One ephemeral key pair. The private half is freed (and cleansed by libcrypto) with the object."""
    cdef EVP_PKEY *pkey
    cdef EVP_PKEY_CTX *ctx              # of the derivations under pkey
    cdef uint8_t scalar[32]             # of X25519 by lib25519, instead of pkey
    cdef bint has_scalar
    cdef readonly int group
    cdef int generate(self, int group, uint8_t *public, size_t *n) noexcept nogil
    cdef int derive(self, const uint8_t *peer, size_t peer_len, uint8_t *shared, size_t *n) noexcept nogil
    cdef int generate_by_lib25519(self, uint8_t *public, size_t *n) noexcept nogil
    cdef int generate_by_ladder(self, uint8_t *public, size_t *n) noexcept nogil
    cdef int agree(self, const uint8_t *peer, size_t peer_len, uint8_t *shared, size_t *n) noexcept nogil
    cdef void forget(self) noexcept nogil
    # both: 0, or -1. derive refuses a share of the wrong length or format, a point off the curve and,
    # for X25519, an all-zero secret (RFC 9846, section 7.4.2: illegal_parameter).
    # generate(group=...) of P-256 and P-384 keys reuses a parameter template made once.
