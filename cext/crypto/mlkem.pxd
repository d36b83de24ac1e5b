"""ML-KEM-768 (FIPS 203): the half of a hybrid group that is a KEM (cext.crypto.kx has the groups).

libcrypto does it where it can (3.5 and later), without the GIL; else the `cryptography` package, which brings a libcrypto
of its own along and is called as Python. Both check what a peer sends as FIPS 203, sections 7.2 and 7.3, has it: the
length, and of an encapsulation key that every coefficient is reduced (the modulus check).
"""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t

from cext.lib.libcrypto cimport EVP_PKEY

cdef enum:
    MLKEM_PUBLIC_LENGTH = 1184          # encapsulation key
    MLKEM_CIPHERTEXT_LENGTH = 1088
    MLKEM_SECRET_LENGTH = 32

cdef enum:
    MLKEM_REFUSED = -1                  # what the peer sent
    MLKEM_FAILED = -2                   # not its fault

cdef struct DecapsulationKey:
    EVP_PKEY *pkey                      # of our libcrypto, or NULL
    PyObject *key                       # an MLKEM768PrivateKey of the package, owned, or NULL

cdef bint mlkem_available() noexcept
"""Whether anything here has ML-KEM-768. The first call may import the package."""

cdef bint mlkem_quick() noexcept nogil
"""Whether it costs about what a Diffie-Hellman does: by libcrypto."""

cdef object mlkem_by()
"""Whose it is: "libcrypto", "cryptography", or None where nobody has it or has asked for it."""

cdef int mlkem_generate(DecapsulationKey *key, uint8_t *public) noexcept nogil
"""A new pair into `key`, which is empty: zeroed, or forgotten. 0 or MLKEM_FAILED."""

cdef int mlkem_decapsulate(const DecapsulationKey *key, const uint8_t *ciphertext, size_t n,
                           uint8_t *secret) noexcept nogil
"""The secret in a ciphertext. 0, MLKEM_REFUSED for a wrong length, or MLKEM_FAILED. Any ciphertext of the right length
gives a secret: that it is the peer's shows in the Finished (implicit rejection)."""

cdef int mlkem_encapsulate(const uint8_t *public, size_t n, uint8_t *ciphertext, uint8_t *secret) noexcept nogil
"""A new secret and the ciphertext that tells it to whoever has the key `public` is of. 0, MLKEM_REFUSED or
MLKEM_FAILED."""

cdef void mlkem_forget(DecapsulationKey *key) noexcept nogil
"""Frees (and so cleanses) the key; it is empty then."""
