"""Ephemeral key exchange (see the .pxd).

What costs as much as it need not in libcrypto 3 is fetching, allocating and validating again. So key
generation runs over one prepared context per group, and a peer's share is decoded into one key object per
group that is overwritten each time: a worker is one thread, and a derivation begins and ends in one call.
"""

from cext.lib.libcrypto cimport (
    ERR_clear_error,
    EVP_PKEY_CTX,
    EVP_PKEY_CTX_free,
    EVP_PKEY_CTX_new_from_name,
    EVP_PKEY_CTX_new_from_pkey,
    EVP_PKEY_CTX_set_group_name,
    EVP_PKEY_derive,
    EVP_PKEY_derive_init,
    EVP_PKEY_derive_set_peer_ex,
    EVP_PKEY_free,
    EVP_PKEY_fromdata,
    EVP_PKEY_fromdata_init,
    EVP_PKEY_get_octet_string_param,
    EVP_PKEY_keygen,
    EVP_PKEY_keygen_init,
    EVP_PKEY_KEYPAIR,
    EVP_PKEY_set1_encoded_public_key,
    OPENSSL_cleanse,
    OSSL_PARAM,
    OSSL_PARAM_construct_BN,
    OSSL_PARAM_construct_end,
    OSSL_PARAM_construct_octet_string,
    OSSL_PARAM_construct_utf8_string,
    OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY,
    OSSL_PKEY_PARAM_GROUP_NAME,
    OSSL_PKEY_PARAM_PRIV_KEY,
)

cdef struct Curve:
    int group
    const char *name                    # libcrypto's
    size_t public_length
    size_t shared_length
    EVP_PKEY_CTX *keygen
    EVP_PKEY *peer                      # any key of the group; its public half is the last peer's

cdef Curve[3] curves


cdef inline Curve *curve_of(int group) noexcept nogil:
    if group == GROUP_X25519:
        return &curves[0]
    if group == GROUP_SECP256R1:
        return &curves[1]
    if group == GROUP_SECP384R1:
        return &curves[2]
    return NULL


cdef size_t kx_public_length(int group) noexcept nogil:
    cdef Curve *curve = curve_of(group)
    return 0 if curve == NULL else curve.public_length


cdef class KeyExchange:
    """One ephemeral key pair: start(group) gives the public share, finish(peer_share) the shared secret."""

    def __dealloc__(self):
        EVP_PKEY_free(self.pkey)

    cdef int generate(self, int group, uint8_t *public, size_t *n) noexcept nogil:
        cdef Curve *curve = curve_of(group)
        EVP_PKEY_free(self.pkey)
        self.pkey = NULL
        self.group = group
        if curve == NULL or EVP_PKEY_keygen(curve.keygen, &self.pkey) != 1:
            return failed()
        if (EVP_PKEY_get_octet_string_param(self.pkey, OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY,
                                            public, KX_PUBLIC_MAX, n) != 1
                or n[0] != curve.public_length):
            return failed()
        return 0

    cdef int derive(self, const uint8_t *peer, size_t peer_len, uint8_t *shared, size_t *n) noexcept nogil:
        cdef Curve *curve = curve_of(self.group)
        cdef EVP_PKEY_CTX *ctx
        cdef bint done
        if curve == NULL or self.pkey == NULL or peer_len != curve.public_length:
            return -1
        # RFC 9846, section 4.3.8.2: an uncompressed point on the curve. Decoding checks the equation; with that form
        # infinity cannot be written, and the cofactor is 1, so nothing of a full validation (64 us) is left to check.
        if self.group != GROUP_X25519 and peer[0] != 0x04:
            return -1
        if EVP_PKEY_set1_encoded_public_key(curve.peer, peer, peer_len) != 1:
            return failed()

        ctx = EVP_PKEY_CTX_new_from_pkey(NULL, self.pkey, NULL)
        n[0] = curve.shared_length
        # Section 7.4.2: X25519's all-zero secret must be refused; libcrypto's derivation fails on it.
        done = (ctx != NULL
                and EVP_PKEY_derive_init(ctx) == 1
                and EVP_PKEY_derive_set_peer_ex(ctx, curve.peer, 0) == 1
                and EVP_PKEY_derive(ctx, shared, n) == 1
                and n[0] == curve.shared_length)
        EVP_PKEY_CTX_free(ctx)
        return 0 if done else failed()

    # The Python face: for tests and tools.

    def start(self, int group):
        """Generates a key pair of the group and returns its public share."""
        cdef uint8_t public[KX_PUBLIC_MAX]
        cdef size_t n = 0
        if self.generate(group, public, &n) < 0:
            raise ValueError(f"cannot generate a key of group {group:#06x}")
        return public[:n]

    def finish(self, bytes peer not None):
        """The shared secret with the holder of the share `peer`; ValueError when the share is refused."""
        cdef uint8_t shared[KX_SHARED_MAX]
        cdef size_t n = 0
        if self.derive(<const uint8_t *> <const char *> peer, len(peer), shared, &n) < 0:
            raise ValueError("the peer's share is refused")
        secret = shared[:n]
        OPENSSL_cleanse(shared, sizeof(shared))
        return secret

    @staticmethod
    def from_private(int group, bytes private not None):
        """A key exchange with a known private key (big-endian scalar, or the 32 bytes of X25519), for test vectors."""
        cdef KeyExchange self = KeyExchange()
        cdef Curve *curve = curve_of(group)
        cdef bytearray scalar = bytearray(private)
        cdef OSSL_PARAM params[3]
        cdef EVP_PKEY_CTX *ctx
        cdef bint done
        if curve == NULL:
            raise ValueError(f"unknown group {group:#06x}")
        self.group = group
        if group == GROUP_X25519:
            params[0] = OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PRIV_KEY, <char *> scalar, len(scalar))
            params[1] = OSSL_PARAM_construct_end()
        else:
            scalar.reverse()            # libcrypto takes integers in the machine's order
            params[0] = OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, <char *> curve.name, 0)
            params[1] = OSSL_PARAM_construct_BN(
                OSSL_PKEY_PARAM_PRIV_KEY, <unsigned char *> <char *> scalar, len(scalar))
            params[2] = OSSL_PARAM_construct_end()
        ctx = EVP_PKEY_CTX_new_from_name(NULL, b"X25519" if group == GROUP_X25519 else b"EC", NULL)
        done = (ctx != NULL and EVP_PKEY_fromdata_init(ctx) == 1
                and EVP_PKEY_fromdata(ctx, &self.pkey, EVP_PKEY_KEYPAIR, params) == 1)
        EVP_PKEY_CTX_free(ctx)
        if not done:
            failed()
            raise ValueError("not a private key of the group")
        return self


cdef int failed() noexcept nogil:
    """-1, with libcrypto's error queue emptied: a peer that sends bad shares must not fill it."""
    ERR_clear_error()
    return -1


cdef int prepare(Curve *curve, int group, const char *algorithm, const char *name, size_t public_length,
                 size_t shared_length) except -1:
    curve.group = group
    curve.name = name
    curve.public_length = public_length
    curve.shared_length = shared_length
    curve.keygen = EVP_PKEY_CTX_new_from_name(NULL, algorithm, NULL)
    if (curve.keygen == NULL or EVP_PKEY_keygen_init(curve.keygen) != 1
            or (group != GROUP_X25519 and EVP_PKEY_CTX_set_group_name(curve.keygen, name) != 1)
            or EVP_PKEY_keygen(curve.keygen, &curve.peer) != 1):
        raise ImportError(f"libcrypto has no {name.decode()}")
    return 0


prepare(&curves[0], GROUP_X25519, b"X25519", b"X25519", 32, 32)
prepare(&curves[1], GROUP_SECP256R1, b"EC", b"P-256", 65, 32)
prepare(&curves[2], GROUP_SECP384R1, b"EC", b"P-384", 97, 48)

X25519 = GROUP_X25519
SECP256R1 = GROUP_SECP256R1
SECP384R1 = GROUP_SECP384R1
