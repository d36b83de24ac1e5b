"""ML-KEM-768 by whoever has it (see the .pxd).

libcrypto is asked by name when the module is loaded, since the headers it is built with may be older than what it runs
with. The package is imported only when somebody wants ML-KEM and libcrypto has none: it is a few megabytes.
"""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.string cimport memcpy

from cext.lib.libcrypto cimport (
    ERR_clear_error,
    EVP_PKEY_CTX,
    EVP_PKEY_CTX_free,
    EVP_PKEY_CTX_new_from_name,
    EVP_PKEY_CTX_new_from_pkey,
    EVP_PKEY_decapsulate,
    EVP_PKEY_decapsulate_init,
    EVP_PKEY_encapsulate,
    EVP_PKEY_encapsulate_init,
    EVP_PKEY_free,
    EVP_PKEY_fromdata,
    EVP_PKEY_fromdata_init,
    EVP_PKEY_get_octet_string_param,
    EVP_PKEY_keygen,
    EVP_PKEY_keygen_init,
    EVP_PKEY_KEYPAIR,
    EVP_PKEY_PUBLIC_KEY,
    OPENSSL_cleanse,
    OSSL_PARAM,
    OSSL_PARAM_construct_end,
    OSSL_PARAM_construct_octet_string,
    OSSL_PKEY_PARAM_PUB_KEY,
)

cdef enum Provider:
    UNKNOWN = 0                         # libcrypto has none, and nobody has asked for the package
    LIBCRYPTO
    PACKAGE
    NOBODY

cdef enum:
    SEED_LENGTH = 64                    # d and z of FIPS 203, section 7.1

cdef int provider = UNKNOWN
cdef EVP_PKEY_CTX *keygen = NULL
cdef EVP_PKEY_CTX *fromdata = NULL      # keys from bytes
cdef object private_key_class, public_key_class     # of the package


cdef bint mlkem_available() noexcept:
    global provider
    if provider == UNKNOWN:
        provider = PACKAGE if import_package() else NOBODY
    return provider != NOBODY


cdef bint mlkem_quick() noexcept nogil:
    return provider == LIBCRYPTO


cdef object mlkem_by():
    return "libcrypto" if provider == LIBCRYPTO else "cryptography" if provider == PACKAGE else None


cdef int mlkem_generate(DecapsulationKey *key, uint8_t *public) noexcept nogil:
    cdef size_t n = 0
    if provider != LIBCRYPTO:
        return package_generate(key, public)
    if (EVP_PKEY_keygen(keygen, &key.pkey) != 1
            or EVP_PKEY_get_octet_string_param(key.pkey, OSSL_PKEY_PARAM_PUB_KEY, public, MLKEM_PUBLIC_LENGTH, &n) != 1
            or n != MLKEM_PUBLIC_LENGTH):
        return failed(MLKEM_FAILED)
    return 0


cdef int mlkem_decapsulate(const DecapsulationKey *key, const uint8_t *ciphertext, size_t n,
                           uint8_t *secret) noexcept nogil:
    cdef EVP_PKEY_CTX *ctx
    cdef size_t length = MLKEM_SECRET_LENGTH
    cdef bint done
    if n != MLKEM_CIPHERTEXT_LENGTH:
        return MLKEM_REFUSED
    if key.pkey == NULL:
        return package_decapsulate(key, ciphertext, secret)
    ctx = EVP_PKEY_CTX_new_from_pkey(NULL, key.pkey, NULL)
    done = (ctx != NULL and EVP_PKEY_decapsulate_init(ctx, NULL) == 1
            and EVP_PKEY_decapsulate(ctx, secret, &length, ciphertext, n) == 1 and length == MLKEM_SECRET_LENGTH)
    EVP_PKEY_CTX_free(ctx)
    return 0 if done else failed(MLKEM_FAILED)


cdef int mlkem_encapsulate(const uint8_t *public, size_t n, uint8_t *ciphertext, uint8_t *secret) noexcept nogil:
    cdef EVP_PKEY *peer = NULL
    cdef OSSL_PARAM params[2]
    cdef int code
    if n != MLKEM_PUBLIC_LENGTH:
        return MLKEM_REFUSED
    if provider != LIBCRYPTO:
        return package_encapsulate(public, ciphertext, secret)
    params[0] = OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY, <void *> public, n)
    params[1] = OSSL_PARAM_construct_end()
    if EVP_PKEY_fromdata(fromdata, &peer, EVP_PKEY_PUBLIC_KEY, params) != 1:   # the modulus check
        return failed(MLKEM_REFUSED)
    code = encapsulate_to(peer, ciphertext, secret)
    EVP_PKEY_free(peer)
    return code


cdef int encapsulate_to(EVP_PKEY *peer, uint8_t *ciphertext, uint8_t *secret) noexcept nogil:
    cdef EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new_from_pkey(NULL, peer, NULL)
    cdef size_t ciphertext_length = MLKEM_CIPHERTEXT_LENGTH
    cdef size_t secret_length = MLKEM_SECRET_LENGTH
    cdef bint done = (ctx != NULL and EVP_PKEY_encapsulate_init(ctx, NULL) == 1
                      and EVP_PKEY_encapsulate(ctx, ciphertext, &ciphertext_length, secret, &secret_length) == 1
                      and ciphertext_length == MLKEM_CIPHERTEXT_LENGTH and secret_length == MLKEM_SECRET_LENGTH)
    EVP_PKEY_CTX_free(ctx)
    return 0 if done else failed(MLKEM_FAILED)


cdef void mlkem_forget(DecapsulationKey *key) noexcept nogil:
    EVP_PKEY_free(key.pkey)
    key.pkey = NULL
    if key.key != NULL:
        with gil:
            Py_DECREF(<object> key.key)
        key.key = NULL


cdef int failed(int code) noexcept nogil:
    """The code, with libcrypto's error queue emptied: a peer that sends bad keys must not fill it."""
    ERR_clear_error()
    return code


# --- the package

cdef bint import_package() noexcept:
    global private_key_class, public_key_class
    try:
        from cryptography.hazmat.backends.openssl.backend import backend
        from cryptography.hazmat.primitives.asymmetric import mlkem
        private_key_class = mlkem.MLKEM768PrivateKey
        public_key_class = mlkem.MLKEM768PublicKey
        return backend.mlkem_supported()
    except Exception:                   # not there, or too old
        return 0


cdef int package_generate(DecapsulationKey *key, uint8_t *public) noexcept with gil:
    cdef bytes encoded
    if not mlkem_available():
        return MLKEM_FAILED
    try:
        private = private_key_class.generate()
        encoded = private.public_key().public_bytes_raw()
        if len(encoded) != MLKEM_PUBLIC_LENGTH:
            return MLKEM_FAILED
        memcpy(public, PyBytes_AS_STRING(encoded), MLKEM_PUBLIC_LENGTH)
        Py_INCREF(private)
        key.key = <PyObject *> private
    except BaseException:
        return MLKEM_FAILED
    return 0


cdef int package_decapsulate(const DecapsulationKey *key, const uint8_t *ciphertext, uint8_t *secret) noexcept with gil:
    cdef bytes shared
    if key.key == NULL:
        return MLKEM_FAILED
    try:
        shared = (<object> key.key).decapsulate(
            PyBytes_FromStringAndSize(<const char *> ciphertext, MLKEM_CIPHERTEXT_LENGTH))
        return take_secret(shared, secret)
    except BaseException:
        return MLKEM_FAILED


cdef int package_encapsulate(const uint8_t *public, uint8_t *ciphertext, uint8_t *secret) noexcept with gil:
    cdef bytes shared, wrapped
    if not mlkem_available():
        return MLKEM_FAILED
    try:
        peer = public_key_class.from_public_bytes(
            PyBytes_FromStringAndSize(<const char *> public, MLKEM_PUBLIC_LENGTH))
    except ValueError:                  # the modulus check
        return MLKEM_REFUSED
    except BaseException:
        return MLKEM_FAILED
    try:
        shared, wrapped = peer.encapsulate()
        if len(wrapped) != MLKEM_CIPHERTEXT_LENGTH:
            return MLKEM_FAILED
        memcpy(ciphertext, PyBytes_AS_STRING(wrapped), MLKEM_CIPHERTEXT_LENGTH)
        return take_secret(shared, secret)
    except BaseException:
        return MLKEM_FAILED


cdef int take_secret(bytes shared, uint8_t *secret) noexcept:
    """Copies the secret out of an object that nobody else has, and cleanses that."""
    if len(shared) != MLKEM_SECRET_LENGTH:
        return MLKEM_FAILED
    memcpy(secret, PyBytes_AS_STRING(shared), MLKEM_SECRET_LENGTH)
    OPENSSL_cleanse(PyBytes_AS_STRING(shared), MLKEM_SECRET_LENGTH)
    return 0


# --- the Python face: for tests and tools

NAMES = {"libcrypto": LIBCRYPTO, "package": PACKAGE, "nobody": NOBODY}


def available():
    return bool(mlkem_available())


def quick():
    return bool(mlkem_quick())


def providers():
    """Those of "libcrypto" and "package" that can be used here."""
    return [name for name, there in (("libcrypto", keygen != NULL), ("package", import_package())) if there]


def provided_by(str choice=None):
    """Who does it: "libcrypto", "package" or "nobody"; `choice` chooses (for tests), ValueError when it is not there."""
    global provider
    if choice is not None:
        if choice != "nobody" and choice not in providers():
            raise ValueError(f"no ML-KEM-768 by {choice}")
        provider = NAMES[choice]
    mlkem_available()
    return next(name for name, number in NAMES.items() if number == provider)


def encapsulate(bytes public not None):
    """(ciphertext, secret); ValueError when the key is refused."""
    cdef uint8_t ciphertext[MLKEM_CIPHERTEXT_LENGTH]
    cdef uint8_t secret[MLKEM_SECRET_LENGTH]
    if mlkem_encapsulate(<const uint8_t *> <const char *> public, len(public), ciphertext, secret) < 0:
        raise ValueError("the encapsulation key is refused")
    both = ciphertext[:MLKEM_CIPHERTEXT_LENGTH], secret[:MLKEM_SECRET_LENGTH]
    OPENSSL_cleanse(secret, sizeof(secret))
    return both


cdef class PrivateKey:
    """A decapsulation key: a new one, or with `seed` (64 bytes) that which follows from it, for test vectors."""
    cdef DecapsulationKey key
    cdef readonly bytes public

    def __init__(self, bytes seed=None):
        cdef uint8_t public[MLKEM_PUBLIC_LENGTH]
        mlkem_forget(&self.key)
        if (mlkem_generate(&self.key, public) if seed is None else self.expand(seed, public)) < 0:
            raise ValueError("no ML-KEM-768 key")
        self.public = public[:MLKEM_PUBLIC_LENGTH]

    def __dealloc__(self):
        mlkem_forget(&self.key)

    cdef int expand(self, bytes seed, uint8_t *public) except? -1:
        cdef OSSL_PARAM params[2]
        cdef bytes encoded
        cdef size_t n = 0
        if len(seed) != SEED_LENGTH:
            raise ValueError(f"a seed has {SEED_LENGTH} bytes")
        if mlkem_quick():
            params[0] = OSSL_PARAM_construct_octet_string(b"seed", <char *> seed, SEED_LENGTH)
            params[1] = OSSL_PARAM_construct_end()
            if (EVP_PKEY_fromdata(fromdata, &self.key.pkey, EVP_PKEY_KEYPAIR, params) != 1
                    or EVP_PKEY_get_octet_string_param(self.key.pkey, OSSL_PKEY_PARAM_PUB_KEY, public,
                                                       MLKEM_PUBLIC_LENGTH, &n) != 1):
                return failed(MLKEM_FAILED)
            return 0
        if not mlkem_available():
            return MLKEM_FAILED
        private = private_key_class.from_seed_bytes(seed)
        encoded = private.public_key().public_bytes_raw()
        memcpy(public, PyBytes_AS_STRING(encoded), MLKEM_PUBLIC_LENGTH)
        Py_INCREF(private)
        self.key.key = <PyObject *> private
        return 0

    def decapsulate(self, bytes ciphertext not None):
        """The secret; ValueError when the ciphertext is refused."""
        cdef uint8_t secret[MLKEM_SECRET_LENGTH]
        if mlkem_decapsulate(&self.key, <const uint8_t *> <const char *> ciphertext, len(ciphertext), secret) < 0:
            raise ValueError("the ciphertext is refused")
        copy = secret[:MLKEM_SECRET_LENGTH]
        OPENSSL_cleanse(secret, sizeof(secret))
        return copy


cdef int find_libcrypto() noexcept:
    """libcrypto's, when it has it and both contexts can be prepared."""
    global provider, keygen, fromdata
    keygen = EVP_PKEY_CTX_new_from_name(NULL, b"ML-KEM-768", NULL)
    fromdata = EVP_PKEY_CTX_new_from_name(NULL, b"ML-KEM-768", NULL)
    if (keygen != NULL and fromdata != NULL
            and EVP_PKEY_keygen_init(keygen) == 1 and EVP_PKEY_fromdata_init(fromdata) == 1):
        provider = LIBCRYPTO
        return 0
    EVP_PKEY_CTX_free(keygen)
    EVP_PKEY_CTX_free(fromdata)
    keygen = fromdata = NULL
    return failed(MLKEM_FAILED)


find_libcrypto()
