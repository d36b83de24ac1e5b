"""Secrets as lines of an NSS key log (see the .pxd)."""

from cext.crypto.hash_kdf cimport hash_length
from cext.tls.constants cimport RANDOM_LENGTH, TLS12
from cext.tls.handshake cimport (
    ACTION_READ_KEYS, ACTION_WRITE_KEYS, LEVEL_APPLICATION, LEVEL_EARLY, LEVEL_HANDSHAKE, LEVEL_INITIAL)


cdef void log_keys(object key_log, Handshake h, const Action *keys, bint server) noexcept:
    cdef size_t n = hash_length(h.hash)
    cdef bint of_client = server == (keys.kind == ACTION_READ_KEYS)
    if keys.kind != ACTION_READ_KEYS and keys.kind != ACTION_WRITE_KEYS:
        return
    if h.version == TLS12 or keys.level == LEVEL_INITIAL:
        return
    if keys.level == LEVEL_EARLY:
        label = "CLIENT_EARLY_TRAFFIC_SECRET"
    elif keys.level == LEVEL_HANDSHAKE:
        label = "CLIENT_HANDSHAKE_TRAFFIC_SECRET" if of_client else "SERVER_HANDSHAKE_TRAFFIC_SECRET"
    else:
        label = "CLIENT_TRAFFIC_SECRET_0" if of_client else "SERVER_TRAFFIC_SECRET_0"
    log_secret(key_log, label, h.client_random, keys.secret, n)
    if keys.level == LEVEL_APPLICATION and not of_client:
        log_secret(key_log, "EXPORTER_SECRET", h.client_random, h.exporter_secret, n)


cdef void log_secret(object key_log, str label, const uint8_t *client_random, const uint8_t *secret,
                     size_t n) noexcept:
    try:
        key_log(f"{label} {client_random[:RANDOM_LENGTH].hex()} {secret[:n].hex()}")
    except Exception:
        pass                                # an aid to debugging ends no connection
