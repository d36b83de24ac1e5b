"""SHA-256, SHA-384, HMAC and HKDF over plain structs (see the .pxd)."""

from libc.string cimport memcpy, memset

from cext.lib.libcrypto cimport (
    CRYPTO_memcmp,
    OPENSSL_cleanse,
    RAND_bytes,
    SHA1,
    SHA256_Final,
    SHA256_Init,
    SHA256_Update,
    SHA384_Final,
    SHA384_Init,
    SHA384_Update,
)

cdef enum:
    BLOCK_MAX = 128                     # SHA-384's block; SHA-256's is 64
    EXPAND_MAX_BLOCKS = 255             # RFC 5869, section 2.3: L <= 255 * HashLen
    RANDOM_MAX = 1 << 20


cdef size_t hash_length(int id) noexcept nogil:
    if id == HASH_SHA256:
        return 32
    if id == HASH_SHA384:
        return 48
    return 0


cdef void hash_init(Hash *h, int id) noexcept nogil:
    h.id = id
    if id == HASH_SHA256:
        SHA256_Init(&h.state.sha256)
    else:
        SHA384_Init(&h.state.sha512)


cdef void hash_update(Hash *h, const void *p, size_t n) noexcept nogil:
    if h.id == HASH_SHA256:
        SHA256_Update(&h.state.sha256, p, n)
    else:
        SHA384_Update(&h.state.sha512, p, n)


cdef void hash_final(const Hash *h, uint8_t *out) noexcept nogil:
    cdef HashState copy
    if h.id == HASH_SHA256:
        copy.sha256 = h.state.sha256
        hash256_end(&copy.sha256, out)
    else:
        copy.sha512 = h.state.sha512
        hash384_end(&copy.sha512, out)


# libcrypto wipes the pending block when it finishes; the chaining state is left, and in a MAC that is a secret.
cdef inline void hash256_end(SHA256_CTX *c, uint8_t *out) noexcept nogil:
    SHA256_Final(out, c)
    OPENSSL_cleanse(c, sizeof(SHA256_CTX))


cdef inline void hash384_end(SHA512_CTX *c, uint8_t *out) noexcept nogil:
    SHA384_Final(out, c)
    OPENSSL_cleanse(c, sizeof(SHA512_CTX))


cdef void hash_once(int id, const void *p, size_t n, uint8_t *out) noexcept nogil:
    cdef Hash h
    hash_init(&h, id)
    hash_update(&h, p, n)
    hash_final(&h, out)


cdef void sha1_once(const void *p, size_t n, uint8_t *out) noexcept nogil:
    SHA1(<const uint8_t *> p, n, out)


cdef void hmac_key(Hmac *m, int id, const uint8_t *key, size_t n) noexcept nogil:
    cdef uint8_t block[BLOCK_MAX]
    cdef size_t i
    cdef size_t size = 64 if id == HASH_SHA256 else 128
    memset(block, 0, sizeof(block))
    if n > size:
        hash_once(id, key, n, block)
    elif n:
        memcpy(block, key, n)

    for i in range(size):
        block[i] ^= 0x36
    hash_init(&m.inner, id)
    hash_update(&m.inner, block, size)
    for i in range(size):
        block[i] ^= 0x36 ^ 0x5C
    hash_init(&m.outer, id)
    hash_update(&m.outer, block, size)
    OPENSSL_cleanse(block, sizeof(block))


cdef void hmac_sign(const Hmac *m, const void *p, size_t n, uint8_t *out) noexcept nogil:
    hmac_sign_parts(m, p, n, NULL, 0, NULL, 0, out)


cdef void hmac_sign_parts(const Hmac *m, const void *a, size_t a_len, const void *b, size_t b_len,
                          const void *c, size_t c_len, uint8_t *out) noexcept nogil:
    """The MAC of a || b || c. `out` may be `a`: it is written when all input is taken."""
    cdef HashState s
    cdef uint8_t digest[HASH_MAX]
    if m.inner.id == HASH_SHA256:
        s.sha256 = m.inner.state.sha256
        SHA256_Update(&s.sha256, a, a_len)
        if b_len:
            SHA256_Update(&s.sha256, b, b_len)
        if c_len:
            SHA256_Update(&s.sha256, c, c_len)
        SHA256_Final(digest, &s.sha256)
        s.sha256 = m.outer.state.sha256
        SHA256_Update(&s.sha256, digest, 32)
        hash256_end(&s.sha256, out)
    else:
        s.sha512 = m.inner.state.sha512
        SHA384_Update(&s.sha512, a, a_len)
        if b_len:
            SHA384_Update(&s.sha512, b, b_len)
        if c_len:
            SHA384_Update(&s.sha512, c, c_len)
        SHA384_Final(digest, &s.sha512)
        s.sha512 = m.outer.state.sha512
        SHA384_Update(&s.sha512, digest, 48)
        hash384_end(&s.sha512, out)
    OPENSSL_cleanse(digest, sizeof(digest))


cdef void hmac_once(int id, const uint8_t *key, size_t key_len, const void *p, size_t n, uint8_t *out) noexcept nogil:
    cdef Hmac m
    hmac_key(&m, id, key, key_len)
    hmac_sign(&m, p, n, out)
    OPENSSL_cleanse(&m, sizeof(m))


cdef void hkdf_extract(int id, const uint8_t *salt, size_t salt_len, const uint8_t *ikm, size_t ikm_len,
                       uint8_t *prk) noexcept nogil:
    # An absent salt is a hash of zeros (RFC 5869, section 2.2), which is what HMAC pads an empty key to.
    hmac_once(id, salt, salt_len, ikm, ikm_len, prk)


cdef int hkdf_expand(int id, const uint8_t *prk, size_t prk_len, const uint8_t *info, size_t info_len,
                     uint8_t *out, size_t n) noexcept nogil:
    cdef Hmac m
    cdef uint8_t t[HASH_MAX]
    cdef uint8_t counter = 0
    cdef size_t size = hash_length(id)
    cdef size_t t_len = 0
    cdef size_t take
    if n > EXPAND_MAX_BLOCKS * size:
        return -1
    hmac_key(&m, id, prk, prk_len)
    while n:
        counter += 1
        hmac_sign_parts(&m, t, t_len, info, info_len, &counter, 1, t)
        t_len = size
        take = size if n > size else n
        memcpy(out, t, take)
        out += take
        n -= take
    OPENSSL_cleanse(&m, sizeof(m))
    OPENSSL_cleanse(t, sizeof(t))
    return 0


cdef bint equal_constant_time(const void *a, const void *b, size_t n) noexcept nogil:
    return CRYPTO_memcmp(a, b, n) == 0


cdef void cleanse(void *p, size_t n) noexcept nogil:
    OPENSSL_cleanse(p, n)


cdef int random_bytes(uint8_t *out, size_t n) noexcept nogil:
    if n > RANDOM_MAX:
        return -1
    return 0 if RAND_bytes(out, <int> n) == 1 else -1


# The Python face: for the control plane's cold paths, tests and tools.

SHA256 = HASH_SHA256
SHA384 = HASH_SHA384


cdef class Hasher:
    """A running hash: update(), digest() of what came so far (it may go on), copy() as a transcript is forked."""
    cdef Hash h

    def __init__(self, int id):
        _check(id)
        hash_init(&self.h, id)

    def update(self, bytes data not None):
        hash_update(&self.h, <const char *> data, len(data))

    def digest(self):
        cdef uint8_t out[HASH_MAX]
        hash_final(&self.h, out)
        return out[:hash_length(self.h.id)]

    def copy(self):
        cdef Hasher other = Hasher(self.h.id)
        other.h = self.h
        return other


def hmac(int id, bytes key not None, bytes message not None):
    """HMAC (RFC 2104); 32 or 48 bytes."""
    cdef uint8_t out[HASH_MAX]
    _check(id)
    hmac_once(id, <const uint8_t *> <const char *> key, len(key), <const char *> message, len(message), out)
    return out[:hash_length(id)]


def extract(int id, bytes salt not None, bytes ikm not None):
    """HKDF-Extract; the pseudorandom key, one hash long."""
    cdef uint8_t out[HASH_MAX]
    _check(id)
    hkdf_extract(id, <const uint8_t *> <const char *> salt, len(salt),
                 <const uint8_t *> <const char *> ikm, len(ikm), out)
    return out[:hash_length(id)]


def expand(int id, bytes prk not None, bytes info not None, size_t length):
    """HKDF-Expand to `length` bytes; ValueError when that is over 255 hashes."""
    cdef uint8_t out[EXPAND_MAX_BLOCKS * HASH_MAX]
    _check(id)
    if hkdf_expand(id, <const uint8_t *> <const char *> prk, len(prk),
                   <const uint8_t *> <const char *> info, len(info), out, length) < 0:
        raise ValueError(f"HKDF-Expand: {length} bytes is over 255 hashes (RFC 5869, section 2.3)")
    return out[:length]


def equal(bytes a not None, bytes b not None):
    """Whether a and b are the same, in time that depends on their lengths alone."""
    return len(a) == len(b) and equal_constant_time(<const char *> a, <const char *> b, len(a))


def random(size_t n):
    """n random bytes (at most 1 MiB)."""
    cdef bytearray out
    if n > RANDOM_MAX:
        raise ValueError(f"random: {n} bytes is over {RANDOM_MAX}")
    out = bytearray(n)
    if random_bytes(<uint8_t *> <char *> out, n) < 0:
        raise OSError("libcrypto has no randomness")
    return bytes(out)


cdef int _check(int id) except -1:
    if hash_length(id) == 0:
        raise ValueError(f"unknown hash {id}")
    return 0
