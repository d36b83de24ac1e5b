"""Keying material that a connection's secrets give to others (RFC 8446, section 7.5)."""

from libc.stdint cimport uint8_t

cdef bytes export_keying_material(int hash, const uint8_t *exporter_master_secret, bytes label, bytes context,
                                  size_t n)
"""TLS-Exporter: n bytes. ValueError for a label of 0 or more than 249 bytes, and n over 255 hashes."""
