"""AEADs of TLS 1.3: contexts keyed once, a nonce per record (see the .pxd)."""

from libc.limits cimport INT_MAX

from cext.lib.libcrypto cimport (
    ERR_clear_error,
    EVP_CIPHER,
    EVP_CIPHER_CTX_free,
    EVP_CIPHER_CTX_get_params,
    EVP_CIPHER_CTX_new,
    EVP_CIPHER_CTX_set_params,
    EVP_CIPHER_fetch,
    EVP_CipherInit_ex,
    EVP_DecryptFinal_ex,
    EVP_DecryptUpdate,
    EVP_EncryptFinal_ex,
    EVP_EncryptUpdate,
    OSSL_CIPHER_PARAM_AEAD_TAG,
    OSSL_PARAM,
    OSSL_PARAM_construct_end,
    OSSL_PARAM_construct_octet_string,
)

cdef enum:
    AEAD_COUNT = 3

cdef EVP_CIPHER *ciphers[AEAD_COUNT]    # fetched once: a fetch per context takes locks and walks tables
cdef size_t contexts_in_use = 0

# "The tag is at [0].data": made once and pointed at each record's tag, since a worker is one thread. The older control
# call makes one per record and, for ChaCha20-Poly1305, takes 0.2 us.
cdef OSSL_PARAM[2] tag


cdef size_t aead_key_length(int aead) noexcept nogil:
    if aead == AEAD_AES_128_GCM:
        return 16
    if aead == AEAD_AES_256_GCM or aead == AEAD_CHACHA20_POLY1305:
        return 32
    return 0


cdef EVP_CIPHER_CTX *aead_new(int aead, const uint8_t *key, bint seal) noexcept nogil:
    global contexts_in_use
    cdef EVP_CIPHER_CTX *ctx
    if aead_key_length(aead) == 0:
        return NULL
    ctx = EVP_CIPHER_CTX_new()
    if ctx == NULL:
        return NULL
    if EVP_CipherInit_ex(ctx, ciphers[aead - 1], NULL, key, NULL, seal) != 1:
        ERR_clear_error()
        EVP_CIPHER_CTX_free(ctx)
        return NULL
    contexts_in_use += 1
    return ctx


cdef void aead_free(int aead, EVP_CIPHER_CTX *ctx) noexcept nogil:
    global contexts_in_use
    if ctx != NULL:
        contexts_in_use -= 1
        EVP_CIPHER_CTX_free(ctx)


cdef int aead_seal(EVP_CIPHER_CTX *ctx, const uint8_t *nonce, const uint8_t *aad, size_t aad_len,
                   uint8_t *data, size_t n) noexcept nogil:
    cdef int done = 0
    if n > INT_MAX or aad_len > INT_MAX:
        return -1
    if EVP_CipherInit_ex(ctx, NULL, NULL, NULL, nonce, -1) != 1:
        return failed()
    if aad_len and EVP_EncryptUpdate(ctx, NULL, &done, aad, <int> aad_len) != 1:
        return failed()
    if n and EVP_EncryptUpdate(ctx, data, &done, data, <int> n) != 1:
        return failed()
    if EVP_EncryptFinal_ex(ctx, data + n, &done) != 1:
        return failed()
    tag[0].data = data + n
    if EVP_CIPHER_CTX_get_params(ctx, tag) != 1:
        return failed()
    return 0


cdef int aead_open(EVP_CIPHER_CTX *ctx, const uint8_t *nonce, const uint8_t *aad, size_t aad_len,
                   uint8_t *data, size_t n) noexcept nogil:
    cdef int done = 0
    if n > INT_MAX or aad_len > INT_MAX:
        return -1
    if EVP_CipherInit_ex(ctx, NULL, NULL, NULL, nonce, -1) != 1:
        return failed()
    tag[0].data = data + n
    if EVP_CIPHER_CTX_set_params(ctx, tag) != 1:
        return failed()
    if aad_len and EVP_DecryptUpdate(ctx, NULL, &done, aad, <int> aad_len) != 1:
        return failed()
    if n and EVP_DecryptUpdate(ctx, data, &done, data, <int> n) != 1:
        return failed()
    # libcrypto compares the tag here, in constant time.
    if EVP_DecryptFinal_ex(ctx, data + n, &done) != 1:
        return failed()
    return 0


cdef int failed() noexcept nogil:
    """-1, with libcrypto's error queue emptied: a peer that sends forged records must not fill it."""
    ERR_clear_error()
    return -1


cdef int fetch() except -1:
    cdef const char *name
    for i, algorithm in enumerate((b"AES-128-GCM", b"AES-256-GCM", b"ChaCha20-Poly1305")):
        name = algorithm
        ciphers[i] = EVP_CIPHER_fetch(NULL, name, NULL)
        if ciphers[i] == NULL:
            raise ImportError(f"libcrypto has no {algorithm.decode()}")
    return 0


fetch()
tag[0] = OSSL_PARAM_construct_octet_string(OSSL_CIPHER_PARAM_AEAD_TAG, NULL, AEAD_TAG)
tag[1] = OSSL_PARAM_construct_end()


# The Python face: for tests and tools.

AES_128_GCM = AEAD_AES_128_GCM
AES_256_GCM = AEAD_AES_256_GCM
CHACHA20_POLY1305 = AEAD_CHACHA20_POLY1305


cdef class Aead:
    """One AEAD context of one direction. ValueError on a key or nonce of the wrong length."""
    cdef EVP_CIPHER_CTX *ctx
    cdef int aead
    cdef bint sealing

    def __init__(self, int aead, bytes key not None, bint seal):
        if len(key) != <Py_ssize_t> aead_key_length(aead) or not key:
            raise ValueError(f"AEAD {aead} does not take a key of {len(key)} bytes")
        aead_free(self.aead, self.ctx)
        self.aead = aead
        self.sealing = seal
        self.ctx = aead_new(aead, <const uint8_t *> <const char *> key, seal)
        if self.ctx == NULL:
            raise MemoryError

    def __dealloc__(self):
        aead_free(self.aead, self.ctx)

    def seal(self, bytes nonce not None, bytes aad not None, bytes plaintext not None):
        """The ciphertext with its tag."""
        cdef bytearray out = bytearray(plaintext) + bytes(AEAD_TAG)
        self._check(nonce, 1)
        if aead_seal(self.ctx, <const uint8_t *> <const char *> nonce, <const uint8_t *> <const char *> aad, len(aad),
                     <uint8_t *> <char *> out, len(plaintext)) < 0:
            raise RuntimeError("libcrypto failed to seal")
        return bytes(out)

    def open(self, bytes nonce not None, bytes aad not None, bytes sealed not None):
        """The plaintext, or None when `sealed` does not authenticate."""
        cdef bytearray out = bytearray(sealed)
        self._check(nonce, 0)
        if len(sealed) < AEAD_TAG or aead_open(
                self.ctx, <const uint8_t *> <const char *> nonce, <const uint8_t *> <const char *> aad, len(aad),
                <uint8_t *> <char *> out, len(sealed) - AEAD_TAG) < 0:
            return None
        return bytes(out[:-AEAD_TAG])

    cdef int _check(self, bytes nonce, bint seal) except -1:
        if len(nonce) != AEAD_IV or self.sealing != seal:
            raise ValueError(f"a nonce has {AEAD_IV} bytes, and a context seals or opens, never both")
        return 0


def contexts():
    """Contexts in use: tests assert that it returns to where it was."""
    return contexts_in_use
