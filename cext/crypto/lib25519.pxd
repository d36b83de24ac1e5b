"""X25519 (RFC 7748) by lib25519, where the machine has it: its code for the CPU at hand (vectors of AVX2 or AVX-512, ADX)
takes half of libcrypto's time for a derivation and a quarter for a share."""

from libc.stdint cimport uint8_t

cdef enum:
    X25519_LENGTH = 32                  # of a scalar, a share and a shared secret

cdef bint lib25519_loaded() noexcept nogil
"""Whether the functions below may be called."""

cdef void lib25519_clamp(uint8_t *scalar) noexcept nogil
"""Random bytes to a private key (RFC 7748, section 5)."""

cdef void lib25519_share(const uint8_t *scalar, uint8_t *share) noexcept nogil
cdef int lib25519_shared(const uint8_t *scalar, const uint8_t *peer, uint8_t *shared) noexcept nogil
"""0, or -1 for an all-zero secret (section 6.1), which is told from another in constant time."""
