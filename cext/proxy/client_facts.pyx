"""Facts of a connection (see the .pxd)."""

from libc.string cimport strlen

from cext.net.address cimport ADDRESS_TEXT, peer_text
from cext.tls.connection cimport EARLY_NONE
from cext.tls.names cimport cipher_suite_name, group_name, version_name
from cext.tls.psk cimport EARLY_TAKEN, refusal_name


cdef void log_client(AccessLog log, const Peer *peer, Connection tls) noexcept:
    cdef char[ADDRESS_TEXT] address
    cdef size_t n = peer_text(peer, address)
    cdef const char *name
    log.text(b"client", address, n)
    log.number(b"client_port", peer.port)
    name = version_name(tls.version)
    log.text(b"tls", name, strlen(name))
    name = cipher_suite_name(tls.cipher_suite)
    log.text(b"cipher", name, strlen(name))
    name = group_name(tls.group)
    log.text(b"group", name, strlen(name))
    if tls.resumed:
        log.boolean(b"resumed", True)
    if tls.early_data_state != EARLY_NONE:
        log_early_data(log, tls)
    if tls.server_name:
        log.text(b"sni", <const char *> tls.server_name, len(tls.server_name))
    if tls.alpn:
        log.text(b"alpn", <const char *> tls.alpn, len(tls.alpn))


cdef void log_early_data(AccessLog log, Connection tls) noexcept:
    cdef const char *why = refusal_name(tls.early_data_refusal)
    if tls.early_data_refusal == EARLY_TAKEN:
        log.boolean(b"early_data", True)
    else:
        log.text(b"early_data_refused", why, strlen(why))


cdef void count_early_data(Context ctx, Connection tls) noexcept:
    ctx.counters.early_offered += 1
    if tls.early_data_refusal == EARLY_TAKEN:
        ctx.counters.early_accepted += 1
    else:
        ctx.row.early_refusals[tls.early_data_refusal] += 1
