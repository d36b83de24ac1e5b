"""What a listening address serves with: TLS, routes, timeouts, limits.

The object stays for as long as the address is listened on, and its connections refer to it; a new configuration changes
what it says (`become`). So what begins later, on old connections too, goes by the newest settings, and nothing keeps older
ones alive. What has begun has taken what it needs: a connection its ServerConfig and what HTTP/2 has announced, a request
its route and time limits.
"""

from libc.stdint cimport uint8_t, uint32_t

from cext.http.h2_session cimport H2Settings
from cext.http.message cimport Limits
from cext.net.networks cimport Networks
from cext.net.stream cimport TcpSettings
from cext.proxy.router cimport Router
from cext.proxy.timeouts cimport Timeouts
from cext.tls.config cimport ServerConfig

cdef class Quota:
    """Addresses that have one limit of connections together."""
    cdef readonly uint32_t open         # connections of all of them

cdef class ListenerSettings:
    cdef public ServerConfig tls        # of the connections that are accepted from now on; those there are keep theirs
    cdef readonly Router router
    cdef readonly int handshake_ms      # 0: no limit
    cdef TcpSettings tcp                # of the sockets that are accepted
    cdef readonly Timeouts timeouts     # all set: what holds where a route says nothing else
    cdef readonly uint32_t first_record # bytes in each of a connection's first records,
    cdef readonly uint32_t first_bytes  # until this many were sent since it began
    cdef readonly int record_idle_ms    # or was idle for this long
    cdef Limits limits
    cdef readonly uint32_t max_connections, per_address, max_requests, requests_per_address     # 0: no limit
    cdef readonly bint answer_over      # a connection over a limit is told so
    cdef readonly bint x_forwarded, forwarded
    cdef H2Settings h2
    cdef bint early             # sessions are opened by early data
    cdef bytes unique_header    # the name of the field that tells early requests apart; b"": none
    cdef const uint8_t *unique
    cdef size_t unique_len
    cdef readonly object gate           # None, or GateSettings: what comes before TLS, and who is handed over
    cdef readonly Networks key_logged   # whose secrets the key log has, if `tls` has one; None: everybody's
    cdef readonly object senders        # None, or who may hand connections over: the listener is a Unix socket then
    # not a setting: how the address fares
    cdef readonly uint32_t open         # its connections
    cdef readonly Quota quota           # which max_connections is for
    cdef readonly bint leaving          # nobody listens there any more: its connections are finished
    cdef inline void enter(self) noexcept:
        """A connection begins."""
        self.open += 1
        self.quota.open += 1

    cdef inline void leave(self) noexcept:
        self.open -= 1
        self.quota.open -= 1
