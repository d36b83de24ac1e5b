"""The one place where secrets leave the engine: lines of an NSS key log, for a configuration that has a `key_log`."""

from libc.stdint cimport uint8_t

from cext.tls.handshake cimport Action, Handshake

cdef void log_keys(object key_log, Handshake h, const Action *keys, bint server) noexcept
"""Of an action of TLS 1.3 that changes keys, its secret; the exporter's beside the server's last. Of others nothing.
`server`: whether this is its side."""

cdef void log_secret(object key_log, str label, const uint8_t *client_random, const uint8_t *secret,
                     size_t n) noexcept
"""Gives key_log the line "label client_random secret"; what it raises is dropped."""
