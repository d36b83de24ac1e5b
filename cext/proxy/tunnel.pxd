"""Exchanges that ask a server for another protocol (RFC 9110, section 7.8), and relay bytes once it has switched.

Until its 101 a Tunnel is an exchange as any other, and any other final response is an ordinary one. From then on what
the client sends is `request content` without framing and what the server sends is `response content`, with the same
backpressure. Each direction ends by itself; the tunnel is over when both have, or when either end breaks, which the
other then sees as a break, too.
"""

from libc.stdint cimport uint8_t

from cext.http.message cimport Head
from cext.http.upgrade cimport WEBSOCKET_ACCEPT, WEBSOCKET_KEY
from cext.proxy.exchange cimport Exchange
from cext.proxy.router cimport Route
from cext.proxy.upstream cimport UpstreamRequest

cdef class Tunnel(Exchange):
    cdef bytes protocol                     # that is asked for, in lower case
    cdef uint8_t key[WEBSOCKET_KEY]         # of our own, for a request that came by CONNECT (RFC 8441)
    cdef uint8_t accept[WEBSOCKET_ACCEPT]   # what a server of WebSockets answers
    cdef uint8_t websocket
    cdef uint8_t by_connect
    cdef uint8_t switched
    cdef uint8_t server_ended
    cdef uint8_t resting                    # its timer is for the idle limit; before that, for the sink to rest
    cdef const char *ended_by               # which end has ended its direction first; NULL: neither
    cdef int ask(self, bytes protocol, const Head *h) noexcept
    cdef bint agreed(self, const Head *h) noexcept
    cdef void await_bytes(self) noexcept
    cdef void refuse_switch(self, UpstreamRequest u, str what) noexcept
    cdef void note_end(self, const char *who) noexcept
    cdef void end_when_sent(self) noexcept

cdef bytes asked_protocol(const Head *h, Route route)
# The first protocol in a request's Upgrade (or that of an extended CONNECT) that its route lets pass, in lower case;
# None: there is none, and the request goes on without Upgrade.
