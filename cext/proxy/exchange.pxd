"""One request and its response: a client's stream on one side, an upstream connection on the other."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cext.base.buffer cimport Bytes, Chunk
from cext.base.timers cimport Timer, TimerOwner
from cext.http.h1_reader cimport BodyReader
from cext.http.h1_writer cimport Forwarding
from cext.http.message cimport Head
from cext.proxy.access_log cimport AccessLog
from cext.proxy.context cimport Context
from cext.proxy.pool cimport Server, UpstreamGroup
from cext.proxy.router cimport Route
from cext.proxy.timeouts cimport Intake, Timeouts
from cext.proxy.trace cimport Trace
from cext.proxy.upstream cimport UpstreamRequest, UpstreamUser

cdef enum:
    MISHAP_RETRIED = 1          # it was sent once more
    MISHAP_HANDSHAKE = 2        # a server was there, but without the TLS or the protocol that it should have

cdef class Exchange

cdef class ResponseSink(TimerOwner):
    """The client's side of an exchange, whatever protocol it speaks. Memory passed in is valid during the call."""
    cdef void response_interim(self, Exchange x, const Head *h) noexcept
    cdef void response_head(self, Exchange x, const Head *h) noexcept
    cdef void response_switched(self, Exchange x, const Head *h) noexcept
    cdef void response_half(self, Exchange x) noexcept
    cdef void response_rests(self, Exchange x) noexcept
    cdef void response_data(self, Exchange x, const uint8_t *p, size_t n) noexcept
    cdef void response_chunk(self, Exchange x, Chunk *c) noexcept
    cdef void response_flush(self, Exchange x) noexcept
    cdef void response_end(self, Exchange x, const BodyReader *trailers) noexcept
    cdef void response_error(self, Exchange x, int status, const char *text) noexcept
    cdef void response_abort(self, Exchange x) noexcept
    cdef bint response_congested(self, Exchange x) noexcept
    cdef void request_wanted(self, Exchange x) noexcept
    cdef void retimed(self, Exchange x) noexcept
    cdef void request_admitted(self, Exchange x, const Head *h) noexcept
    cdef Exchange request_changed(self, Exchange x, const Head *h, Route route, UpstreamGroup group)
    cdef void request_directed(self, Exchange x, const Head *h, bint routed) noexcept

cdef class Holder:
    """Who holds an exchange up: see Exchange.hold."""
    cdef const char *name               # static, for the log
    cdef void abandoned(self) noexcept

cdef class Early(Holder):
    """What an exchange has to do with early data; see early_data."""
    cdef int dress(self, Exchange x) noexcept
    cdef bint takes_back(self, Exchange x) noexcept

cdef class Overseer:
    """The hooks that were asked about a request, and what they have decided."""
    cdef UpstreamGroup group            # the upstream that is asked in place of its route's; None: that one
    cdef Exchange before                # what the client asked for, where that was changed; None: it was not
    cdef bint sees_head(self, Exchange x, const Head *h) noexcept

cdef class Exchange(UpstreamUser):
    cdef Context ctx
    cdef ResponseSink sink              # None once the exchange is over
    cdef Route route                    # None: there is none, and no upstream is asked
    cdef Overseer overseer              # None: no hook was asked
    cdef UpstreamRequest upstream
    cdef Holder held                    # None: nothing holds it up
    cdef Early early                    # None: no byte of it came before the client's handshake was confirmed
    cdef Server server                  # that was asked last; None: none was
    cdef Bytes head                     # the request head as it goes upstream; kept for a retry and the log
    cdef Trace trace                    # None: it is in none
    cdef uint32_t target_len
    # small fields share words
    cdef uint16_t host_len
    cdef uint8_t method_len             # the method stands at head[0], the target behind it, then the host
    cdef uint8_t method
    cdef uint8_t minor                  # of the client's HTTP/1.x
    cdef uint8_t request_framing
    cdef uint8_t request_done           # the client's body is complete
    cdef uint8_t last_upstream          # its connection serves no request after it: see ends_upstream
    cdef uint8_t body_begun             # something of it went upstream: it cannot be sent again
    cdef uint8_t responding             # the client has a response head
    cdef uint8_t mishaps                # MISHAP_*, as bits
    cdef uint8_t reused
    cdef uint8_t running                # counted by its route
    cdef uint8_t pushed                 # nobody asked: the client was promised it
    cdef uint8_t waiting_for
    cdef uint16_t status
    cdef uint16_t attempts              # servers asked so far
    cdef uint16_t round                 # where the choice of a server began, as far as it matters
    cdef uint32_t place                 # counted by its client's address, too, unless NO_PLACE
    cdef Timeouts timeouts              # all set; see there how they may be changed
    cdef bytes hinted                   # the 103 of ours that the client got; None: none
    cdef size_t unsent                  # to the upstream, when it began to be waited for
    cdef Intake intake                  # of the request's content
    cdef Timer wait                     # for the upstream: see `waiting_for`
    cdef Timer total
    cdef uint64_t started_us, connected_us, first_byte_us
    cdef uint64_t bytes_in, bytes_out   # content, as the client sent and got it
    cdef const char *fault              # what went wrong, for the log; NULL: nothing
    cdef int prepare(self, const Head *h, const Forwarding *f) noexcept
    cdef UpstreamGroup group(self)
    cdef void hold(self, Holder by) noexcept
    cdef void start(self) noexcept
    cdef void request_data(self, const uint8_t *p, size_t n) noexcept
    cdef void request_flush(self) noexcept
    cdef void request_end(self, const BodyReader *trailers) noexcept
    cdef bint takes_request(self) noexcept nogil
    cdef void client_drained(self) noexcept
    cdef void refuse(self, int status, const char *text, const char *limit) noexcept
    cdef void refuse_body(self) noexcept
    cdef void abort(self, const char *why) noexcept
    cdef void close(self) noexcept
    cdef void connect(self, bint fresh) noexcept
    cdef void send_head(self) noexcept
    cdef void pass_head(self, const Head *h) noexcept
    cdef void drop_upstream(self) noexcept
    cdef void answer(self, const Head *h, const uint8_t *body, size_t n) noexcept
    cdef void settle(self, UpstreamRequest u) noexcept
    cdef void learn_hints(self, const Head *h) noexcept
    cdef void wait_for(self, int what) noexcept
    cdef void retime(self) noexcept
    cdef uint64_t client_due(self) noexcept nogil
    cdef uint64_t client_late(self) noexcept
    cdef bint takes_some(self) noexcept
    cdef void give_up_client(self, int status, const char *fault) noexcept
    cdef void fail(self, int status, const char *text, const char *fault) noexcept
    cdef void report(self, str what, int error, str reason) noexcept
    cdef bint repeatable(self) noexcept nogil
    cdef void end_attempt(self, const char *why) noexcept
    cdef void log_more(self, AccessLog log) noexcept
