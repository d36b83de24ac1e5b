"""Ephemeral key exchange: X25519 (RFC 7748), P-256, P-384 and P-521 (SEC 1, uncompressed points), and the hybrids of a curve and
ML-KEM-768 (draft-ietf-tls-ecdhe-mlkem), which are of TLS 1.3 alone.

A Diffie-Hellman's two shares are alike; a KEM's are not: the client's holds an encapsulation key, and the server answers
with the ciphertext of a secret of its making. So a client generates and derives, a server responds, whatever the group.
"""

from libc.stdint cimport uint8_t

from cext.crypto.mlkem cimport DecapsulationKey
from cext.lib.libcrypto cimport EVP_PKEY, EVP_PKEY_CTX

cdef enum Group:                       # NamedGroup, RFC 9846 section 4.3.7, and the draft's section 6
    GROUP_SECP256R1 = 0x0017
    GROUP_SECP384R1 = 0x0018
    GROUP_SECP521R1 = 0x0019
    GROUP_X25519 = 0x001D
    GROUP_SECP256R1MLKEM768 = 0x11EB
    GROUP_X25519MLKEM768 = 0x11EC

cdef enum:
    KX_PUBLIC_MAX = 133                # of a curve: P-521's 0x04, x, y
    KX_SHARE_MAX = 65 + 1184           # of any group: SecP256r1MLKEM768's, a client's
    KX_SHARED_MAX = 66                 # of any group: P-521's x

cdef enum:
    KX_REFUSED = -1                    # the peer's share is none of the group
    KX_FAILED = -2                     # no fault of the peer's

cdef struct Curve:
    int group
    const char *name                    # libcrypto's
    size_t public_length
    size_t shared_length
    EVP_PKEY_CTX *keygen
    EVP_PKEY *peer                      # any key of the group; its public half is the last peer's
    EVP_PKEY_CTX *fromdata              # X25519: private keys from bytes

cdef struct Hybrid:                     # of a curve and ML-KEM-768: shares and secrets are the two's, one after the other
    int group
    Curve *curve
    bint kem_first

cdef bint kx_is_hybrid(int group) noexcept nogil
"""Whether it is a hybrid we know; it can be used where mlkem_available()."""

cdef class KeyExchange:
    """One end of one key exchange. Private halves are freed (and cleansed by libcrypto) with the object."""
    cdef EVP_PKEY *pkey
    cdef EVP_PKEY_CTX *ctx              # of the derivations under pkey
    cdef uint8_t scalar[32]             # of X25519 by lib25519, instead of pkey
    cdef bint has_scalar
    cdef DecapsulationKey kem           # of a hybrid's client
    cdef readonly int group

    cdef int generate(self, int group, uint8_t *public, size_t *n) noexcept nogil
    # A key pair, and the share of it: in `public`, KX_SHARE_MAX bytes (KX_PUBLIC_MAX are enough for a curve's), of
    # length n. 0, or -1 when there is none to be had.
    cdef int derive(self, const uint8_t *peer, size_t peer_len, uint8_t *shared, size_t *n) noexcept nogil
    # The secret shared with the peer's answer, in KX_SHARED_MAX bytes. 0, or -1. Refused is a share of the wrong length or
    # format, a point off the curve and, for X25519, an all-zero secret (RFC 9846, section 7.4.2: illegal_parameter).
    cdef int respond(self, int group, const uint8_t *peer, size_t peer_len, uint8_t *public, size_t *public_len,
                     uint8_t *shared, size_t *n) noexcept nogil
    # A server's whole part: our answer to a client's share, and the secret; room as above. 0, KX_REFUSED (as in derive; and
    # an encapsulation key that is not reduced) or KX_FAILED.

    cdef int generate_on(self, const Curve *curve, uint8_t *public) noexcept nogil
    cdef int generate_by_lib25519(self, uint8_t *public) noexcept nogil
    cdef int generate_by_ladder(self, uint8_t *public) noexcept nogil
    cdef int derive_on(self, const Curve *curve, const uint8_t *peer, size_t peer_len, uint8_t *shared) noexcept nogil
    cdef int agree(self, const Curve *curve, const uint8_t *peer, size_t peer_len, uint8_t *shared) noexcept nogil
    cdef int generate_both(self, const Hybrid *hybrid, uint8_t *public) noexcept nogil
    cdef int derive_both(self, const Hybrid *hybrid, const uint8_t *peer, size_t peer_len, uint8_t *shared) noexcept nogil
    cdef int respond_both(self, const Hybrid *hybrid, const uint8_t *peer, size_t peer_len, uint8_t *public,
                          uint8_t *shared) noexcept nogil
    cdef void forget(self) noexcept nogil
