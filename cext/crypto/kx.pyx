"""Ephemeral key exchange (see the .pxd).

What costs as much as it need not in libcrypto 3 is fetching, allocating and validating again. So key
generation runs over one prepared context per group, and a peer's share is decoded into one key object per
group that is overwritten each time: a worker is one thread, and a derivation begins and ends in one call.

libcrypto has two ways to an X25519 share: key generation multiplies the base point by way of a table of 24 KiB, while
a derivation from the base point's coordinate (u = 9, RFC 7748 section 4.1) climbs the ladder, in assembly where the CPU
has ADX. Which is faster depends on the machine (and the table drives everything else out of the first-level cache),
so both are timed when the module is loaded. Where lib25519 is installed it is timed as well: it mostly wins by far.
"""

from libc.stdint cimport INT64_MAX, int64_t
from libc.string cimport memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec

from cext.crypto.mlkem cimport (
    MLKEM_CIPHERTEXT_LENGTH,
    MLKEM_PUBLIC_LENGTH,
    MLKEM_REFUSED,
    MLKEM_SECRET_LENGTH,
    mlkem_by,
    mlkem_decapsulate,
    mlkem_encapsulate,
    mlkem_forget,
    mlkem_generate,
)
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
    OpenSSL_version,
    OPENSSL_VERSION_STRING,
    OSSL_PARAM,
    OSSL_PARAM_construct_BN,
    OSSL_PARAM_construct_end,
    OSSL_PARAM_construct_octet_string,
    OSSL_PARAM_construct_utf8_string,
    OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY,
    OSSL_PKEY_PARAM_GROUP_NAME,
    OSSL_PKEY_PARAM_PRIV_KEY,
    OSSL_PKEY_PARAM_PUB_KEY,
    RAND_bytes,
)
from cext.crypto.lib25519 cimport X25519_LENGTH, lib25519_clamp, lib25519_loaded, lib25519_share, lib25519_shared

cdef enum Way:                          # to an X25519 share
    BY_TABLE = 0
    BY_LADDER = 1
    BY_LIB25519 = 2                     # and to the shared secret

cdef Curve[4] curves
cdef Hybrid[2] hybrids
cdef int way = BY_TABLE


cdef inline Curve *curve_of(int group) noexcept nogil:
    if group == GROUP_X25519:
        return &curves[0]
    if group == GROUP_SECP256R1:
        return &curves[1]
    if group == GROUP_SECP384R1:
        return &curves[2]
    if group == GROUP_SECP521R1:
        return &curves[3]
    return NULL


cdef inline Hybrid *hybrid_of(int group) noexcept nogil:
    if group == GROUP_X25519MLKEM768:
        return &hybrids[0]
    if group == GROUP_SECP256R1MLKEM768:
        return &hybrids[1]
    return NULL


cdef bint kx_is_hybrid(int group) noexcept nogil:
    return hybrid_of(group) != NULL


def arithmetic():
    """Who does the arithmetic in this process: the version of `libcrypto`, by which library `x25519` and `ml_kem` are
    computed ("libcrypto", "lib25519", "cryptography"; None while nobody has asked for it, or where there is none)."""
    return {
        "libcrypto": (<bytes> OpenSSL_version(OPENSSL_VERSION_STRING)).decode(),
        "x25519": "lib25519" if way == BY_LIB25519 else "libcrypto",
        "ml_kem": mlkem_by(),
    }


cdef class KeyExchange:
    """One end of a key exchange. A client: start(group) gives its share, finish(answer) the shared secret. A server:
    answer(group, share) gives both."""

    def __dealloc__(self):
        self.forget()

    cdef void forget(self) noexcept nogil:
        EVP_PKEY_CTX_free(self.ctx)
        EVP_PKEY_free(self.pkey)
        mlkem_forget(&self.kem)
        self.ctx = NULL
        self.pkey = NULL
        if self.has_scalar:
            OPENSSL_cleanse(self.scalar, sizeof(self.scalar))
            self.has_scalar = 0

    cdef int generate(self, int group, uint8_t *public, size_t *n) noexcept nogil:
        cdef const Curve *curve = curve_of(group)
        cdef const Hybrid *hybrid
        self.forget()
        self.group = group
        if curve != NULL:
            n[0] = curve.public_length
            return self.generate_on(curve, public)
        hybrid = hybrid_of(group)
        if hybrid == NULL:
            return -1
        n[0] = hybrid.curve.public_length + MLKEM_PUBLIC_LENGTH
        return self.generate_both(hybrid, public)

    cdef int derive(self, const uint8_t *peer, size_t peer_len, uint8_t *shared, size_t *n) noexcept nogil:
        cdef const Curve *curve = curve_of(self.group)
        cdef const Hybrid *hybrid
        if self.pkey == NULL and not self.has_scalar:
            return -1
        if curve != NULL:
            n[0] = curve.shared_length
            return self.derive_on(curve, peer, peer_len, shared)
        hybrid = hybrid_of(self.group)
        n[0] = hybrid.curve.shared_length + MLKEM_SECRET_LENGTH
        return self.derive_both(hybrid, peer, peer_len, shared)

    cdef int respond(self, int group, const uint8_t *peer, size_t peer_len, uint8_t *public, size_t *public_len,
                     uint8_t *shared, size_t *n) noexcept nogil:
        cdef const Hybrid *hybrid = hybrid_of(group)
        if hybrid == NULL:
            if self.generate(group, public, public_len) < 0:
                return KX_FAILED
            return KX_REFUSED if self.derive(peer, peer_len, shared, n) < 0 else 0
        self.forget()
        self.group = group
        public_len[0] = hybrid.curve.public_length + MLKEM_CIPHERTEXT_LENGTH
        n[0] = hybrid.curve.shared_length + MLKEM_SECRET_LENGTH
        return self.respond_both(hybrid, peer, peer_len, public, shared)

    # Curves.

    cdef int generate_on(self, const Curve *curve, uint8_t *public) noexcept nogil:
        cdef size_t n = 0
        if curve.group == GROUP_X25519 and way == BY_LIB25519:
            return self.generate_by_lib25519(public)
        if curve.group == GROUP_X25519 and way == BY_LADDER:
            return self.generate_by_ladder(public)
        if EVP_PKEY_keygen(curve.keygen, &self.pkey) != 1:
            return failed()
        if (EVP_PKEY_get_octet_string_param(self.pkey, OSSL_PKEY_PARAM_ENCODED_PUBLIC_KEY,
                                            public, curve.public_length, &n) != 1
                or n != curve.public_length):
            return failed()
        return 0

    cdef int generate_by_lib25519(self, uint8_t *public) noexcept nogil:
        if RAND_bytes(self.scalar, X25519_LENGTH) != 1:
            return failed()
        self.has_scalar = 1
        lib25519_clamp(self.scalar)
        lib25519_share(self.scalar, public)
        return 0

    cdef int generate_by_ladder(self, uint8_t *public) noexcept nogil:
        """X25519: the share is the secret shared with u = 9. The key object's own public half is never looked at."""
        cdef uint8_t scalar[32]
        cdef uint8_t unused[32]
        cdef uint8_t base[32]
        cdef OSSL_PARAM params[3]
        cdef bint done
        memset(unused, 0, sizeof(unused))
        memset(base, 0, sizeof(base))
        base[0] = 9
        done = RAND_bytes(scalar, sizeof(scalar)) == 1
        params[0] = OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PRIV_KEY, scalar, sizeof(scalar))
        params[1] = OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, unused, sizeof(unused))
        params[2] = OSSL_PARAM_construct_end()
        done = done and EVP_PKEY_fromdata(curves[0].fromdata, &self.pkey, EVP_PKEY_KEYPAIR, params) == 1
        OPENSSL_cleanse(scalar, sizeof(scalar))
        return self.agree(&curves[0], base, sizeof(base), public) if done else failed()

    cdef int derive_on(self, const Curve *curve, const uint8_t *peer, size_t peer_len, uint8_t *shared) noexcept nogil:
        if peer_len != curve.public_length:
            return -1
        if self.has_scalar:
            return lib25519_shared(self.scalar, peer, shared)
        if self.pkey == NULL:
            return -1
        # RFC 9846, section 4.3.8.2: an uncompressed point on the curve. Decoding checks the equation; with that form
        # infinity cannot be written, and the cofactor is 1, so nothing of a full validation (64 us) is left to check.
        if curve.group != GROUP_X25519 and peer[0] != 0x04:
            return -1
        return self.agree(curve, peer, peer_len, shared)

    cdef int agree(self, const Curve *curve, const uint8_t *peer, size_t peer_len, uint8_t *shared) noexcept nogil:
        """The derivation itself, from a share whose form is right."""
        cdef size_t n = curve.shared_length
        if EVP_PKEY_set1_encoded_public_key(curve.peer, peer, peer_len) != 1:
            return failed()
        if self.ctx == NULL:
            self.ctx = EVP_PKEY_CTX_new_from_pkey(NULL, self.pkey, NULL)
            if self.ctx == NULL or EVP_PKEY_derive_init(self.ctx) != 1:
                return failed()
        # Section 7.4.2: X25519's all-zero secret must be refused; libcrypto's derivation fails on it.
        if (EVP_PKEY_derive_set_peer_ex(self.ctx, curve.peer, 0) != 1
                or EVP_PKEY_derive(self.ctx, shared, &n) != 1
                or n != curve.shared_length):
            return failed()
        return 0

    # Hybrids. Each part stands where the draft's section 4 has it, in either share and in the secret alike.

    cdef int generate_both(self, const Hybrid *hybrid, uint8_t *public) noexcept nogil:
        cdef size_t curve_at = MLKEM_PUBLIC_LENGTH if hybrid.kem_first else 0
        cdef size_t kem_at = 0 if hybrid.kem_first else hybrid.curve.public_length
        if self.generate_on(hybrid.curve, public + curve_at) < 0 or mlkem_generate(&self.kem, public + kem_at) < 0:
            return -1
        return 0

    cdef int derive_both(self, const Hybrid *hybrid, const uint8_t *peer, size_t peer_len, uint8_t *shared) noexcept nogil:
        cdef const Curve *curve = hybrid.curve
        cdef size_t curve_at = MLKEM_CIPHERTEXT_LENGTH if hybrid.kem_first else 0
        cdef size_t kem_at = 0 if hybrid.kem_first else curve.public_length
        if (peer_len == curve.public_length + MLKEM_CIPHERTEXT_LENGTH
                and self.derive_on(curve, peer + curve_at, curve.public_length, curve_secret(hybrid, shared)) == 0
                and mlkem_decapsulate(&self.kem, peer + kem_at, MLKEM_CIPHERTEXT_LENGTH,
                                      kem_secret(hybrid, shared)) == 0):
            return 0
        OPENSSL_cleanse(shared, KX_SHARED_MAX)
        return -1

    cdef int respond_both(self, const Hybrid *hybrid, const uint8_t *peer, size_t peer_len, uint8_t *public,
                          uint8_t *shared) noexcept nogil:
        cdef const Curve *curve = hybrid.curve
        cdef const uint8_t *peer_curve = peer + (MLKEM_PUBLIC_LENGTH if hybrid.kem_first else 0)
        cdef const uint8_t *peer_kem = peer + (0 if hybrid.kem_first else curve.public_length)
        cdef uint8_t *public_curve = public + (MLKEM_CIPHERTEXT_LENGTH if hybrid.kem_first else 0)
        cdef uint8_t *public_kem = public + (0 if hybrid.kem_first else curve.public_length)
        cdef int code
        if peer_len != curve.public_length + MLKEM_PUBLIC_LENGTH:
            return KX_REFUSED
        if self.generate_on(curve, public_curve) < 0:
            return KX_FAILED
        if self.derive_on(curve, peer_curve, curve.public_length, curve_secret(hybrid, shared)) < 0:
            code = MLKEM_REFUSED
        else:
            code = mlkem_encapsulate(peer_kem, MLKEM_PUBLIC_LENGTH, public_kem, kem_secret(hybrid, shared))
        if code == 0:
            return 0
        OPENSSL_cleanse(shared, KX_SHARED_MAX)
        return KX_REFUSED if code == MLKEM_REFUSED else KX_FAILED

    # The Python face: for tests and tools.

    def start(self, int group):
        """Generates a key pair of the group and returns its public share."""
        cdef uint8_t public[KX_SHARE_MAX]
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

    def answer(self, int group, bytes peer not None):
        """(our share, the secret) for a client's share; ValueError when that is refused."""
        cdef uint8_t public[KX_SHARE_MAX]
        cdef uint8_t shared[KX_SHARED_MAX]
        cdef size_t n = 0, shared_length = 0
        cdef int code = self.respond(group, <const uint8_t *> <const char *> peer, len(peer), public, &n, shared,
                                     &shared_length)
        if code < 0:
            raise ValueError("the peer's share is refused" if code == KX_REFUSED else f"no group {group:#06x}")
        both = public[:n], shared[:shared_length]
        OPENSSL_cleanse(shared, sizeof(shared))
        return both

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
        if group == GROUP_X25519 and way == BY_LIB25519 and len(scalar) == X25519_LENGTH:
            memcpy(self.scalar, <char *> scalar, X25519_LENGTH)
            lib25519_clamp(self.scalar)
            self.has_scalar = 1
            return self
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


cdef inline uint8_t *curve_secret(const Hybrid *hybrid, uint8_t *shared) noexcept nogil:
    return shared + (MLKEM_SECRET_LENGTH if hybrid.kem_first else 0)


cdef inline uint8_t *kem_secret(const Hybrid *hybrid, uint8_t *shared) noexcept nogil:
    return shared + (0 if hybrid.kem_first else hybrid.curve.shared_length)


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


cdef int64_t quickest() except -1:
    """Nanoseconds of the quickest of a few exchanges of X25519 by `way`; far too many when none succeeds."""
    cdef KeyExchange exchange = KeyExchange()
    cdef uint8_t public[KX_PUBLIC_MAX]
    cdef uint8_t shared[KX_SHARED_MAX]
    cdef size_t n = 0
    cdef int64_t best = INT64_MAX
    cdef timespec begin, end
    for _ in range(8):
        clock_gettime(CLOCK_MONOTONIC, &begin)
        if (exchange.generate(GROUP_X25519, public, &n) < 0
                or exchange.derive(public, n, shared, &n) < 0):
            return INT64_MAX
        clock_gettime(CLOCK_MONOTONIC, &end)
        best = min(best, (end.tv_sec - begin.tv_sec) * 1000000000 + end.tv_nsec - begin.tv_nsec)
    OPENSSL_cleanse(shared, sizeof(shared))
    return best


def choose_way():
    """Times the ways to an X25519 exchange and takes the quickest."""
    global way
    cdef list times = []
    for way in range(BY_LIB25519 + 1):
        if way != BY_LIB25519 or lib25519_loaded():
            times.append((quickest(), way))
    way = min(times)[1]


def x25519_way(str choice=None):
    """How X25519 is done: "table", "ladder" (both libcrypto's) or "lib25519". One of them as `choice` sets it (for tests and
    measurements; ValueError when it is not there), None only asks."""
    global way
    if choice is not None:
        if choice not in WAYS or choice == "lib25519" and not lib25519_loaded():
            raise ValueError(f"no such way to X25519: {choice}")
        way = WAYS.index(choice)
    return WAYS[way]


WAYS = ("table", "ladder", "lib25519")
prepare(&curves[0], GROUP_X25519, b"X25519", b"X25519", 32, 32)
curves[0].fromdata = EVP_PKEY_CTX_new_from_name(NULL, b"X25519", NULL)
if curves[0].fromdata == NULL or EVP_PKEY_fromdata_init(curves[0].fromdata) != 1:
    raise ImportError("libcrypto makes no X25519 key from bytes")
choose_way()
prepare(&curves[1], GROUP_SECP256R1, b"EC", b"P-256", 65, 32)
prepare(&curves[2], GROUP_SECP384R1, b"EC", b"P-384", 97, 48)
prepare(&curves[3], GROUP_SECP521R1, b"EC", b"P-521", 133, 66)
# Which is first does not go by the name: ML-KEM comes first with X25519, last with P-256 (the draft's section 4).
hybrids[0] = Hybrid(GROUP_X25519MLKEM768, &curves[0], True)
hybrids[1] = Hybrid(GROUP_SECP256R1MLKEM768, &curves[1], False)

X25519 = GROUP_X25519
SECP256R1 = GROUP_SECP256R1
SECP384R1 = GROUP_SECP384R1
SECP521R1 = GROUP_SECP521R1
X25519MLKEM768 = GROUP_X25519MLKEM768
SECP256R1MLKEM768 = GROUP_SECP256R1MLKEM768
