"""Keying material for others (see the .pxd)."""

cimport cython
from libc.stdint cimport uint16_t

from cext.base.wire cimport Writer, close_vec, open_vec, write_bytes, write_u16, writer_init, written
from cext.crypto.hash_kdf cimport HASH_MAX, Hmac, cleanse, hash_length, hash_once, hkdf_expand, hmac_key
from cext.tls.prf12 cimport prf_in_place

cdef enum:
    LABEL_PREFIX = 6                        # "tls13 "
    LABEL_MAX = 255 - LABEL_PREFIX          # HkdfLabel.label<7..255>
    INFO_MAX = 2 + 1 + 255 + 1 + HASH_MAX
    HASHES_MAX = 255                        # that HKDF-Expand gives
    CONTEXT_MAX = 0xFFFF                    # TLS 1.2: its length is two bytes

# Labels of the PRF's that are not for exporters (RFC 5705, section 4).
RESERVED = {b"client finished", b"server finished", b"master secret", b"key expansion", b"extended master secret"}


cdef bytes export_keying_material(int hash, const uint8_t *exporter_master_secret, bytes label, bytes context,
                                  size_t n):
    cdef uint8_t digest[HASH_MAX]
    cdef uint8_t secret[HASH_MAX]
    cdef size_t length = hash_length(hash)
    if not 0 < len(label) <= LABEL_MAX:
        raise ValueError(f"an exporter's label has 1 to {LABEL_MAX} bytes, not {len(label)}")
    check_length(hash, n)
    keying_material = bytearray(n)
    hash_once(hash, NULL, 0, digest)
    expand_label(hash, exporter_master_secret, label, digest, secret, length)
    hash_once(hash, <const char *> context, len(context), digest)
    expand_label(hash, secret, b"exporter", digest, <uint8_t *> <char *> keying_material, n)
    cleanse(secret, sizeof(secret))
    return bytes(keying_material)


cdef int check_length(int hash, size_t n) except -1:
    cdef size_t most = HASHES_MAX * hash_length(hash)
    if not 0 < n <= most:
        raise ValueError(f"an exporter gives 1 to {most} bytes, not {n}")
    return 0


cdef void expand_label(int hash, const uint8_t *secret, bytes label, const uint8_t *context, uint8_t *out,
                       size_t n) noexcept:
    """HKDF-Expand-Label (section 7.1) for a label that is not known beforehand, and any length."""
    cdef uint8_t info[INFO_MAX]
    cdef Writer w
    cdef uint8_t *at
    writer_init(&w, info, sizeof(info))
    write_u16(&w, <uint16_t> n)
    at = open_vec(&w, 1)
    write_bytes(&w, b"tls13 ", LABEL_PREFIX)
    write_bytes(&w, <const char *> label, len(label))
    close_vec(&w, at, 1)
    at = open_vec(&w, 1)
    write_bytes(&w, context, hash_length(hash))
    close_vec(&w, at, 1)
    hkdf_expand(hash, secret, hash_length(hash), info, written(&w), out, n)


@cython.no_gc
cdef class Exporter12:
    """The exporter of a connection of TLS 1.2; made by its handshake."""

    def __dealloc__(self):
        cleanse(self.master_secret, sizeof(self.master_secret))

    cdef bytes export(self, bytes label, bytes context, size_t n):
        cdef Hmac key
        cdef bytearray block
        if len(label) > LABEL_MAX or label in RESERVED:
            raise ValueError(f"an exporter's label has at most {LABEL_MAX} bytes, and is none of TLS's own")
        if context is not None and len(context) > CONTEXT_MAX:
            raise ValueError(f"an exporter's context has at most {CONTEXT_MAX} bytes")
        check_length(self.hash, n)
        seed = label + self.randoms[:2 * RANDOM_LENGTH]
        if context is not None:
            seed += len(context).to_bytes(2, "big") + context
        keying_material = bytearray(n)
        block = bytearray(hash_length(self.hash)) + seed
        hmac_key(&key, self.hash, self.master_secret, MASTER_SECRET_LENGTH)
        prf_in_place(&key, <uint8_t *> <char *> block, len(seed), <uint8_t *> <char *> keying_material, n)
        cleanse(&key, sizeof(key))
        return bytes(keying_material)
