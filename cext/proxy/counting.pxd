"""What is counted of handshakes and of exchanges, beside the Counters: in this process's row, and in the series of the
route, the upstream and the server."""

from libc.stdint cimport uint64_t

from cext.proxy.context cimport Context
from cext.proxy.exchange cimport Exchange
from cext.tls.connection cimport Connection

cdef enum:
    SERIES_UNROUTED = 3         # of requests that have no route, as the control plane's labels have it

cdef void count_handshake(Context ctx, Connection tls, uint64_t us) noexcept
# One that was completed, `us` after the connection was accepted.

cdef void count_alert(Context ctx, object failure) noexcept
# A connection has ended by a TlsAlert, ours or the client's.

cdef void count_exchange(Exchange x, uint64_t wire_in, uint64_t wire_out) noexcept
# One that is over.

cdef void count_refusal(Context ctx, int status, uint64_t wire_out) noexcept
# A request that did not become an exchange.
