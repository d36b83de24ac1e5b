"""What a request means whatever protocol brought it: its route, what is forwarded of the client, its line in the log."""

from libc.stdint cimport uint64_t

from cext.http.h1_reader cimport BodyReader
from cext.http.message cimport Head
from cext.proxy.downstream cimport Downstream
from cext.proxy.exchange cimport Exchange, ResponseSink
from cext.proxy.listener_settings cimport ListenerSettings
from cext.proxy.pool cimport UpstreamGroup
from cext.proxy.router cimport Route

cdef const char *HEAD_LATE_TEXT          # said with a 408
cdef const char *HEAD_LATE               # faults: the head has not come in time,
cdef const char *KEEPALIVE_OVER          # no request has come,
cdef const char *REFUSED                 # the head is no request that is served

cdef Exchange new_exchange(Downstream client, ResponseSink sink, const Head *h)
# For a request that is no CONNECT; its `route` is None where nothing is served. None: out of memory.

# A request's way to its upstream. Each step may answer, refuse or abort it, whose exchange is then over; or hold it
# (Exchange.hold), and go on with the next one later.

cdef Exchange changed_exchange(Downstream client, Exchange x, const Head *h, Route route, UpstreamGroup group)
# As ResponseSink.request_changed.

cdef void launch(Downstream client, Exchange x, const Head *h) noexcept
# The first: limits, and the policy's director. `h` is valid within launch and launch_further, and not used afterwards.

cdef void launch_further(Downstream client, Exchange x, const Head *h, bint routed) noexcept
# Then what its route says, or that there is none, and the route's director; what follows that when it is `routed`.

cdef void resume_launch(Downstream client, Exchange x) noexcept
# Then early hints, and the upstream. Nothing holds it any more.

cdef void strip_trailers(ListenerSettings settings, BodyReader *body) noexcept
# A request's trailers, without what only we may say.

cdef void log_exchange(Downstream client, Exchange x, uint64_t wire_in, uint64_t wire_out, const char *why) noexcept
# One line for an exchange that is over; `why` when the exchange itself has no fault.

cdef void log_refusal(Downstream client, int status, uint64_t wire_out, const char *why) noexcept
# One line for a request that did not become an exchange.
