"""X25519 by lib25519 (see the .pxd), which is looked for when this module is loaded and is no dependency.

Both of its functions run in time that depends on no secret. Before any of it is used it must give the results that RFC
7748 prints: a library that is built wrongly for the CPU is one that is not there.
"""

import os

from libc.string cimport memcmp, memcpy
from posix.dlfcn cimport RTLD_LOCAL, RTLD_NOW, dlopen, dlsym

ctypedef void (*Share)(unsigned char *share, const unsigned char *scalar) noexcept nogil
ctypedef void (*Shared)(unsigned char *shared, const unsigned char *peer, const unsigned char *scalar) noexcept nogil

cdef Share multiply_base = NULL
cdef Shared multiply = NULL
cdef bint loaded = False


cdef bint lib25519_loaded() noexcept nogil:
    return loaded


cdef void lib25519_clamp(uint8_t *scalar) noexcept nogil:
    scalar[0] &= 248
    scalar[31] = (scalar[31] & 127) | 64


cdef void lib25519_share(const uint8_t *scalar, uint8_t *share) noexcept nogil:
    multiply_base(share, scalar)


cdef int lib25519_shared(const uint8_t *scalar, const uint8_t *peer, uint8_t *shared) noexcept nogil:
    cdef uint8_t bits = 0
    cdef int i
    multiply(shared, peer, scalar)
    for i in range(X25519_LENGTH):
        bits |= shared[i]
    return 0 if bits else -1


def load(name="lib25519.so.1"):
    """Looks for the library, by what dlopen takes; whether it is there, and right."""
    global multiply_base, multiply, loaded
    cdef void *library = dlopen(name.encode(), RTLD_NOW | RTLD_LOCAL)
    loaded = False
    if library == NULL:
        return False
    multiply_base = <Share> dlsym(library, b"lib25519_nG_montgomery25519")
    multiply = <Shared> dlsym(library, b"lib25519_dh_x25519")
    loaded = multiply_base != NULL and multiply != NULL and is_right()
    return loaded


cdef bint is_right():
    """The exchange of RFC 7748, section 6.1."""
    cdef bytes alice = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a")
    cdef bytes alice_share = bytes.fromhex("8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a")
    cdef bytes bob_share = bytes.fromhex("de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f")
    cdef bytes secret = bytes.fromhex("4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742")
    cdef uint8_t scalar[X25519_LENGTH]
    cdef uint8_t out[X25519_LENGTH]
    memcpy(scalar, <const char *> alice, X25519_LENGTH)
    lib25519_clamp(scalar)
    lib25519_share(scalar, out)
    if memcmp(out, <const char *> alice_share, X25519_LENGTH) != 0:
        return False
    return (lib25519_shared(scalar, bob_share, out) == 0
            and memcmp(out, <const char *> secret, X25519_LENGTH) == 0)


if os.environ.get("EDGE_X25519") != "libcrypto":        # for operators who want one library alone, and for comparisons
    load()
