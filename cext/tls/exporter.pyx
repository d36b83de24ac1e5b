"""Keying material for others (see the .pxd)."""

from libc.stdint cimport uint16_t

from cext.base.wire cimport Writer, close_vec, open_vec, write_bytes, write_u16, writer_init, written
from cext.crypto.hash_kdf cimport HASH_MAX, cleanse, hash_length, hash_once, hkdf_expand

cdef enum:
    LABEL_PREFIX = 6                        # "tls13 "
    LABEL_MAX = 255 - LABEL_PREFIX          # HkdfLabel.label<7..255>
    INFO_MAX = 2 + 1 + 255 + 1 + HASH_MAX
    HASHES_MAX = 255                        # that HKDF-Expand gives


cdef bytes export_keying_material(int hash, const uint8_t *exporter_master_secret, bytes label, bytes context,
                                  size_t n):
    cdef uint8_t digest[HASH_MAX]
    cdef uint8_t secret[HASH_MAX]
    cdef size_t length = hash_length(hash)
    if not 0 < len(label) <= LABEL_MAX:
        raise ValueError(f"an exporter's label has 1 to {LABEL_MAX} bytes, not {len(label)}")
    if not 0 < n <= HASHES_MAX * length:
        raise ValueError(f"an exporter gives 1 to {HASHES_MAX * length} bytes, not {n}")
    keying_material = bytearray(n)
    hash_once(hash, NULL, 0, digest)
    expand_label(hash, exporter_master_secret, label, digest, secret, length)
    hash_once(hash, <const char *> context, len(context), digest)
    expand_label(hash, secret, b"exporter", digest, <uint8_t *> <char *> keying_material, n)
    cleanse(secret, sizeof(secret))
    return bytes(keying_material)


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
