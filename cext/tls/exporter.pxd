"""Keying material that a connection's secrets give to others (RFC 8446, section 7.5; RFC 5705 for TLS 1.2)."""

from libc.stdint cimport uint8_t

from cext.tls.constants cimport RANDOM_LENGTH
from cext.tls.prf12 cimport FINISHED12_LENGTH, MASTER_SECRET_LENGTH

cdef bytes export_keying_material(int hash, const uint8_t *exporter_master_secret, bytes label, bytes context,
                                  size_t n)
"""TLS-Exporter: n bytes. ValueError for a label of 0 or more than 249 bytes, and n over 255 hashes."""

cdef class Exporter12:
    """What a connection of TLS 1.2 keeps of its handshake for exporters and tls-unique; there is none without the
    extended master secret."""

    cdef int hash
    cdef uint8_t master_secret[MASTER_SECRET_LENGTH]
    cdef uint8_t randoms[2 * RANDOM_LENGTH]         # the client's first
    cdef uint8_t unique[FINISHED12_LENGTH]          # verify_data of the handshake's first Finished (RFC 5929, section 3.1)

    cdef bytes export(self, bytes label, bytes context, size_t n)
    # n bytes (RFC 5705, section 4): no context (None) and an empty one are two things. ValueError for a label of more
    # than 249 bytes or one that TLS itself uses, a context of 64 KiB, and n over 255 hashes.
