"""What a client may have at a time: connections when they are accepted, requests when their route is known."""

from libc.stdint cimport uint32_t

from cext.http.message cimport Head
from cext.net.address cimport Peer
from cext.proxy.context cimport Context
from cext.proxy.downstream cimport Downstream
from cext.proxy.exchange cimport Exchange
from cext.proxy.listener_settings cimport ListenerSettings

cdef int admit_connection(Context ctx, ListenerSettings settings, int fd, const Peer *peer, uint32_t *place) noexcept
# OVER_NONE, with the place of its address, or why it is not to be served. Idle ones are closed first to make room.

cdef int admit_proxied(Context ctx, ListenerSettings settings, int fd, const Peer *peer) noexcept
# The same for a connection from a proxy, whose address is nobody's: the client's follows, for

cdef int admit_address(Context ctx, ListenerSettings settings, const Peer *peer, uint32_t *place) noexcept

cdef bint may_answer(Context ctx, ListenerSettings settings, int over) noexcept
# Whether a connection over a limit is told so, or just closed.

cdef bint admit_request(Downstream client, Exchange x, const Head *h) noexcept
# Whether x may start; else its sink has been told to answer, and x is over.

cdef int refusal_status(int over) noexcept
cdef const char *refusal_text(int over) noexcept
cdef const char *refusal_cause(int over) noexcept       # for the log
