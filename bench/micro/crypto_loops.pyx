"""The primitives called in a loop of C, so that a nanosecond of theirs is not lost in Python's calls."""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from cext.crypto.aead cimport AEAD_KEY_MAX, aead_free, aead_new, aead_open, aead_seal
from cext.crypto.hash_kdf cimport HASH_MAX, Hash, Hmac, hash_final, hash_init, hash_update, hkdf_expand, hmac_key, hmac_sign
from cext.crypto.kx cimport KX_SHARE_MAX, KX_SHARED_MAX, KeyExchange
from cext.crypto.sign cimport SIGNATURE_MAX, PrivateKey, PublicKey
from cext.lib.libcrypto cimport EVP_CIPHER_CTX

cdef uint8_t[AEAD_KEY_MAX] KEY
cdef uint8_t[16384 + 16] RECORD
memset(KEY, 7, sizeof(KEY))


def seal(int aead, size_t n, int times):
    """Seals a record of n <= 16384 bytes with a five-byte header; how many calls failed (as of all functions here)."""
    cdef EVP_CIPHER_CTX *ctx = aead_new(aead, KEY, 1)
    cdef uint8_t[12] nonce
    cdef int i
    cdef int failures = 0
    memset(nonce, 0, sizeof(nonce))
    with nogil:
        for i in range(times):
            nonce[11] = <uint8_t> i
            failures -= aead_seal(ctx, nonce, KEY, 5, RECORD, n)
    aead_free(aead, ctx)
    return failures


def seal_and_open(int aead, size_t n, int times):
    cdef EVP_CIPHER_CTX *sealing = aead_new(aead, KEY, 1)
    cdef EVP_CIPHER_CTX *opening = aead_new(aead, KEY, 0)
    cdef uint8_t[12] nonce
    cdef int i
    cdef int failures = 0
    memset(nonce, 0, sizeof(nonce))
    with nogil:
        for i in range(times):
            nonce[11] = <uint8_t> i
            failures -= aead_seal(sealing, nonce, KEY, 5, RECORD, n)
            failures -= aead_open(opening, nonce, KEY, 5, RECORD, n)
    aead_free(aead, sealing)
    aead_free(aead, opening)
    return failures


def new_context(int aead, int times):
    """Keys a context and gives it back, as a connection that wakes and parks does."""
    cdef EVP_CIPHER_CTX *ctx
    cdef int i
    cdef int failures = 0
    with nogil:
        for i in range(times):
            ctx = aead_new(aead, KEY, 1)
            failures += ctx == NULL
            aead_free(aead, ctx)
    return failures


def transcript_hash(int id, size_t n, int times):
    """Hashes n <= 16384 bytes and takes the digest so far."""
    cdef Hash h
    cdef uint8_t[HASH_MAX] out
    cdef int i
    with nogil:
        for i in range(times):
            hash_init(&h, id)
            hash_update(&h, RECORD, n)
            hash_final(&h, out)
    return 0


def keyed_hmac(int id, size_t n, int times):
    cdef Hmac m
    cdef uint8_t[HASH_MAX] out
    cdef int i
    hmac_key(&m, id, KEY, sizeof(KEY))
    with nogil:
        for i in range(times):
            hmac_sign(&m, RECORD, n, out)
    return 0


def expand(int id, int times):
    """One HKDF-Expand of a hash from a 54-byte HkdfLabel, key schedule included."""
    cdef uint8_t[HASH_MAX] out
    cdef int i
    cdef int failures = 0
    with nogil:
        for i in range(times):
            failures -= hkdf_expand(id, KEY, 32, RECORD, 54, out, 32)
    return failures


def generate(int group, int times):
    cdef KeyExchange exchange = KeyExchange()
    cdef uint8_t[KX_SHARE_MAX] public
    cdef size_t n
    cdef int i
    cdef int failures = 0
    with nogil:
        for i in range(times):
            failures -= exchange.generate(group, public, &n)
    return failures


def derive(int group, int times):
    """Derives from one key pair and the same peer's share over and over, import of the share included."""
    cdef KeyExchange ours = KeyExchange()
    cdef KeyExchange theirs = KeyExchange()
    cdef uint8_t[KX_SHARE_MAX] share
    cdef uint8_t[KX_SHARE_MAX] answer
    cdef uint8_t[KX_SHARED_MAX] secret
    cdef size_t share_len, answer_len, n
    cdef int i
    cdef int failures = 0
    ours.generate(group, share, &share_len)
    theirs.respond(group, share, share_len, answer, &answer_len, secret, &n)
    with nogil:
        for i in range(times):
            failures -= ours.derive(answer, answer_len, secret, &n)
    return failures


def respond(int group, int times):
    """A server's whole part of a key exchange, with the same client's share over and over."""
    cdef KeyExchange ours = KeyExchange()
    cdef KeyExchange theirs = KeyExchange()
    cdef uint8_t[KX_SHARE_MAX] share
    cdef uint8_t[KX_SHARE_MAX] answer
    cdef uint8_t[KX_SHARED_MAX] secret
    cdef size_t share_len, answer_len, n
    cdef int i
    cdef int failures = 0
    theirs.generate(group, share, &share_len)
    with nogil:
        for i in range(times):
            failures -= ours.respond(group, share, share_len, answer, &answer_len, secret, &n)
    return failures


def sign(PrivateKey key not None, int scheme, int times):
    """Signs 130 bytes, the length of what a CertificateVerify signs with SHA-256."""
    cdef uint8_t[SIGNATURE_MAX] signature
    cdef size_t n
    cdef int i
    cdef int failures = 0
    with nogil:
        for i in range(times):
            failures -= key.sign(scheme, RECORD, 130, signature, &n)
    return failures


def verify(PublicKey key not None, PrivateKey private not None, int scheme, int times):
    cdef uint8_t[SIGNATURE_MAX] signature
    cdef size_t n
    cdef int i
    cdef int failures = 0
    failures -= private.sign(scheme, RECORD, 130, signature, &n)
    with nogil:
        for i in range(times):
            failures -= key.verify(scheme, RECORD, 130, signature, n)
    return failures
