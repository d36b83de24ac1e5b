"""The key schedule of TLS 1.2 (see the .pxd)."""

from libc.string cimport memcpy, strlen

from cext.crypto.aead cimport AEAD_CHACHA20_POLY1305, aead_key_length
from cext.crypto.hash_kdf cimport HASH_MAX, cleanse, hash_length, hmac_key, hmac_sign
from cext.tls.constants cimport RANDOM_LENGTH


cdef int prf(const Hmac *secret, const char *label, const uint8_t *seed, size_t seed_len,
             uint8_t *out, size_t n) noexcept nogil:
    cdef uint8_t block[HASH_MAX + PRF_SEED_MAX]
    cdef size_t size = hash_length(secret.inner.id)
    cdef size_t label_len = strlen(label)
    if label_len + seed_len > PRF_SEED_MAX:
        return -1
    memcpy(block + size, label, label_len)
    if seed_len:
        memcpy(block + size + label_len, seed, seed_len)
    prf_in_place(secret, block, label_len + seed_len, out, n)
    cleanse(block, sizeof(block))
    return 0


cdef void prf_in_place(const Hmac *secret, uint8_t *block, size_t seed_len, uint8_t *out, size_t n) noexcept nogil:
    cdef uint8_t digest[HASH_MAX]
    cdef size_t size = hash_length(secret.inner.id)
    cdef size_t part
    hmac_sign(secret, block + size, seed_len, block)
    while n:
        hmac_sign(secret, block, size + seed_len, digest)
        part = size if n > size else n
        memcpy(out, digest, part)
        out += part
        n -= part
        if n:
            hmac_sign(secret, block, size, block)
    cleanse(digest, sizeof(digest))


cdef void master_secret(int hash, const uint8_t *premaster, size_t premaster_len, const uint8_t *client_random,
                        const uint8_t *server_random, uint8_t *out) noexcept nogil:
    cdef uint8_t randoms[2 * RANDOM_LENGTH]
    cdef Hmac key
    memcpy(randoms, client_random, RANDOM_LENGTH)
    memcpy(randoms + RANDOM_LENGTH, server_random, RANDOM_LENGTH)
    hmac_key(&key, hash, premaster, premaster_len)
    prf(&key, "master secret", randoms, sizeof(randoms), out, MASTER_SECRET_LENGTH)
    cleanse(&key, sizeof(key))


cdef void extended_master_secret(int hash, const uint8_t *premaster, size_t premaster_len,
                                 const uint8_t *session_hash, uint8_t *out) noexcept nogil:
    cdef Hmac key
    hmac_key(&key, hash, premaster, premaster_len)
    prf(&key, "extended master secret", session_hash, hash_length(hash), out, MASTER_SECRET_LENGTH)
    cleanse(&key, sizeof(key))


cdef size_t fixed_iv_length(int aead) noexcept nogil:
    return 12 if aead == AEAD_CHACHA20_POLY1305 else 4


cdef void key_block(const Hmac *master, int aead, const uint8_t *client_random, const uint8_t *server_random,
                    uint8_t *client, uint8_t *server) noexcept nogil:
    cdef uint8_t randoms[2 * RANDOM_LENGTH]
    cdef uint8_t block[2 * KEY_IV_MAX]
    cdef size_t key = aead_key_length(aead)
    cdef size_t iv = fixed_iv_length(aead)
    memcpy(randoms, server_random, RANDOM_LENGTH)
    memcpy(randoms + RANDOM_LENGTH, client_random, RANDOM_LENGTH)
    prf(master, "key expansion", randoms, sizeof(randoms), block, 2 * (key + iv))
    # An AEAD has no MAC keys: client_write_key, server_write_key, client_write_IV, server_write_IV.
    memcpy(client, block, key)
    memcpy(server, block + key, key)
    memcpy(client + key, block + 2 * key, iv)
    memcpy(server + key, block + 2 * key + iv, iv)
    cleanse(block, sizeof(block))


cdef void finished12(const Hmac *master, bint server, const uint8_t *transcript_hash, uint8_t *out) noexcept nogil:
    prf(master, "server finished" if server else "client finished", transcript_hash, hash_length(master.inner.id),
        out, FINISHED12_LENGTH)


# --- Python's face, for tests and tools

def prf_bytes(int hash, bytes secret not None, bytes label not None, bytes seed not None, size_t n):
    """PRF(secret, label, seed): n bytes; ValueError for an unknown hash, or label and seed over 128 bytes."""
    cdef Hmac key
    cdef bytearray out = bytearray(n)
    cdef const char *text = label
    if hash_length(hash) == 0 or b"\0" in label:
        raise ValueError("no such hash, or a label with a zero byte")
    hmac_key(&key, hash, secret, len(secret))
    if prf(&key, text, seed, len(seed), out, n) < 0:
        raise ValueError("label and seed are too long")
    return bytes(out)


def master(int hash, bytes premaster not None, bytes client_random not None, bytes server_random not None):
    """master_secret; ValueError for an unknown hash or a random that is not 32 bytes."""
    cdef uint8_t out[MASTER_SECRET_LENGTH]
    if hash_length(hash) == 0 or len(client_random) != RANDOM_LENGTH or len(server_random) != RANDOM_LENGTH:
        raise ValueError("no such hash, or a random that is not 32 bytes")
    master_secret(hash, premaster, len(premaster), client_random, server_random, out)
    return out[:MASTER_SECRET_LENGTH]


def extended_master(int hash, bytes premaster not None, bytes session_hash not None):
    """extended_master_secret; ValueError for an unknown hash or a session_hash of another length."""
    cdef uint8_t out[MASTER_SECRET_LENGTH]
    if hash_length(hash) == 0 or <size_t> len(session_hash) != hash_length(hash):
        raise ValueError("no such hash, or a session_hash of another length")
    extended_master_secret(hash, premaster, len(premaster), session_hash, out)
    return out[:MASTER_SECRET_LENGTH]


def keys(int hash, int aead, bytes secret not None, bytes client_random not None, bytes server_random not None):
    """(client's key and IV, server's key and IV) of a master secret; ValueError for what cannot be."""
    cdef Hmac key
    cdef uint8_t client[KEY_IV_MAX]
    cdef uint8_t server[KEY_IV_MAX]
    cdef size_t n = aead_key_length(aead) + fixed_iv_length(aead)
    if not hash_length(hash) or not aead_key_length(aead) or len(client_random) != RANDOM_LENGTH or (
            len(server_random) != RANDOM_LENGTH):
        raise ValueError("no such hash or AEAD, or a random that is not 32 bytes")
    hmac_key(&key, hash, secret, len(secret))
    key_block(&key, aead, client_random, server_random, client, server)
    return client[:n], server[:n]


def finished(int hash, bytes secret not None, bint server, bytes transcript_hash not None):
    """verify_data by a master secret; ValueError for an unknown hash or a transcript_hash of another length."""
    cdef Hmac key
    cdef uint8_t out[FINISHED12_LENGTH]
    if hash_length(hash) == 0 or <size_t> len(transcript_hash) != hash_length(hash):
        raise ValueError("no such hash, or a transcript_hash of another length")
    hmac_key(&key, hash, secret, len(secret))
    finished12(&key, server, transcript_hash, out)
    return out[:FINISHED12_LENGTH]
