"""A client's connection, as hooks see it."""

from cext.proxy.downstream cimport Downstream

cdef class TlsState:
    """What a connection's handshake came to; "" and False where something is not there."""
    cdef Downstream downstream              # the connection, for what changes
    cdef readonly str version               # "TLSv1.3" or "TLSv1.2"
    cdef readonly str cipher_suite
    cdef readonly str group
    cdef readonly str server_name           # what the client asked for (SNI)
    cdef readonly str alpn
    cdef readonly bint resumed
    cdef readonly tuple peer_certificates   # DER, the client's own first; () where it has shown none
    cdef readonly str ja3                   # fingerprints of its ClientHello, of a policy with `fingerprints = True`
    cdef readonly str ja4

cdef class ClientConnection:
    """A client's connection, the same object from its first state to its last."""
    cdef Downstream downstream              # None once it is closed
    cdef readonly str state
    cdef str address
    cdef int port
    cdef TlsState facts
    cdef void close(self)

cdef TlsState tls_state(Downstream client)

cdef str address_of(Downstream client)
