"""A client's proof of who it is: what both roles and both protocol versions share of it (see the .pxd)."""

from cext.base.wire cimport left, read_vec24
from cext.crypto.x509 cimport public_key
from cext.tls.config cimport CLIENT_AUTH_NONE, CLIENT_AUTH_REQUIRE
from cext.tls.constants cimport bad_certificate

from cext.tls.alert import TlsAlert


cdef int ask_trust(Handshake h, object verify, tuple arguments, int otherwise=bad_certificate) except -1:
    try:
        verify(*arguments)
    except Exception as error:
        description = getattr(error, "description", None)
        h.reason = NULL
        why = error.reason if isinstance(error, TlsAlert) and error.reason else error
        h.error = f"the certificate is not trusted: {why}"
        if isinstance(description, int) and 1 < description < 256:     # -1 is an exception; no alert numbers it
            return -<int> description
        return -otherwise
    return 0


cdef PublicKey read_key(Handshake h, bytes leaf):
    try:
        return public_key(leaf)
    except ValueError as error:
        h.reason = NULL
        h.error = str(error)
        return None


cdef bint admits_chain(ServerConfig config, tuple chain) noexcept:
    if config.client_auth == CLIENT_AUTH_NONE:
        return not chain                # who was known by a certificate is not to be taken for anyone
    if not chain:
        return config.client_auth != CLIENT_AUTH_REQUIRE
    if config.verify_client is None:
        return 1
    try:
        config.verify_client(list(chain))
    except Exception:
        return 0                        # the full handshake that follows says why
    return 1


cdef bytes state_of_chain(tuple chain):
    return b"".join([len(der).to_bytes(3, "big") + der for der in chain]) if chain else b""


cdef tuple chain_of_state(Reader certificates):
    cdef Reader der
    cdef list chain = []
    while read_vec24(&certificates, &der):
        chain.append((<const char *> der.p)[:left(&der)])
    return tuple(chain)
