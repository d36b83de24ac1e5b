"""Exchanges (see the .pxd): choosing a connection, sending, waiting, passing on, retrying.

The functions stand in the order of an exchange's life. The sink calls prepare, start, request_*,
client_drained and, when all is over, close; the upstream calls on_*.
"""

import os


from cext.base.buffer cimport bytes_free, bytes_reserve
from cext.base.stats cimport series_of
from cext.base.timers cimport timer_init
from cext.http.h1_writer cimport RequestText, ends_upstream, request_room, request_text, write_request
from cext.http.message cimport (
    FRAMING_LENGTH,
    FRAMING_NONE,
    METHOD_DELETE,
    METHOD_GET,
    METHOD_HEAD,
    METHOD_OPTIONS,
    METHOD_PUT,
    METHOD_TRACE,
)
from cext.net.stream cimport out_of_descriptors
from cext.proxy.address_table cimport NO_PLACE
from cext.proxy.hints cimport without_known
from cext.proxy.pool cimport Server, UpstreamGroup, avoid
from cext.proxy.timeouts cimport intake_due, intake_fault, intake_pause
from cext.proxy.upstream cimport LOST_BAD_RESPONSE, LOST_CONNECT, LOST_HANDSHAKE, LOST_REFUSED, LOST_RESET

cdef enum:
    TIMER_WAIT = 0
    TIMER_TOTAL = 1
    WAIT_NOTHING = 0
    WAIT_CONNECT = 1
    WAIT_FIRST_BYTE = 2
    WAIT_RESPONSE = 3           # the upstream is to go on: sending its response, or taking the request
    QUEUED_MS = 60000           # for a stream of a server that is full, where no limit of `connect` is set


cdef const char *OUT_OF_MEMORY = b"The service is overloaded at the moment."


cdef class ResponseSink(TimerOwner):
    cdef void response_interim(self, Exchange x, const Head *h) noexcept:
        """A 1xx head for the client."""

    cdef void response_head(self, Exchange x, const Head *h) noexcept:
        """The final head."""

    cdef void response_switched(self, Exchange x, const Head *h) noexcept:
        """The 101 that x asked for: bytes of another protocol follow, in both directions."""

    cdef void response_half(self, Exchange x) noexcept:
        """Of a tunnel: nothing more comes from the server, while the client may go on sending."""

    cdef void response_rests(self, Exchange x) noexcept:
        """Of a tunnel: nothing has moved for a moment. Memory that is for bytes may be given back."""

    cdef void response_data(self, Exchange x, const uint8_t *p, size_t n) noexcept:
        """Content."""

    cdef void response_chunk(self, Exchange x, Chunk *c) noexcept:
        """Content in a chunk that becomes the sink's."""

    cdef void response_flush(self, Exchange x) noexcept:
        """Everything that is there now has been passed on: send it."""

    cdef void response_end(self, Exchange x, const BodyReader *trailers) noexcept:
        """The response is whole."""

    cdef void response_error(self, Exchange x, int status, const char *text) noexcept:
        """No response head was passed on: answer with one of our own."""

    cdef void response_abort(self, Exchange x) noexcept:
        """The response can't be completed: the client must see that it is cut."""

    cdef bint response_congested(self, Exchange x) noexcept:
        """Whether the client is slow: then no more until client_drained()."""
        return False

    cdef void request_wanted(self, Exchange x) noexcept:
        """More of the request body may be passed on."""

    cdef void retimed(self, Exchange x) noexcept:
        """x.timeouts has changed: those of the client's side begin anew."""

    cdef void request_admitted(self, Exchange x, const Head *h) noexcept:
        """x was held before it was launched, by the head h; or, with NULL, before its upstream was asked: on from there."""

    cdef Exchange request_changed(self, Exchange x, const Head *h, Route route, UpstreamGroup group):
        """The request is now what h says -> the exchange that takes x's place, of which nothing has gone upstream; None:
        x has been ended. Without a `route` it is looked for; `group`, if any, is asked in place of its own."""
        return None

    cdef void request_directed(self, Exchange x, const Head *h, bint routed) noexcept:
        """A director that has waited, or has changed x, is done: the launch goes on. `routed`: it was the route's."""


cdef class Holder:
    cdef void abandoned(self) noexcept:
        """The exchange is over: nothing is to be done for it any more."""


cdef class Early(Holder):
    cdef int dress(self, Exchange x) noexcept:
        """x.head is about to go upstream. 0, or -1: out of memory."""
        return 0

    cdef bint takes_back(self, Exchange x) noexcept:
        """The upstream has answered 425: whether x has left it, to ask once more."""
        return False


cdef class Overseer:
    cdef bint sees_head(self, Exchange x, const Head *h) noexcept:
        """The final head has come. Whether it is to go on now; if not, x is over, or held until somebody passes it on."""
        return True


cdef class Exchange(UpstreamUser):
    def __cinit__(self, Context ctx, ResponseSink sink, Route route):
        self.ctx = ctx
        self.sink = sink
        self.route = route
        self.started_us = ctx.loop.now_us
        timer_init(&self.wait, self, TIMER_WAIT)
        timer_init(&self.total, self, TIMER_TOTAL)
        self.place = NO_PLACE

    def __dealloc__(self):
        bytes_free(&self.head)

    cdef int prepare(self, const Head *h, const Forwarding *f) noexcept:
        """Serialises the request head for the upstream, while h is valid. 0, or -1 when out of memory."""
        cdef ssize_t n
        cdef size_t room = request_room(h, f)
        if bytes_reserve(&self.head, room) < 0:
            return -1
        n = write_request(h, f, h.framing, self.head.data, room)
        if n < 0:
            return -1
        self.head.len = n
        self.method = h.method
        self.method_len = <uint8_t> h.method_name.len        # which the parser bounds, as it does the host
        self.target_len = h.path.len
        self.host_len = <uint16_t> h.host.len
        self.request_framing = h.framing
        self.last_upstream = ends_upstream(h, h.framing)
        self.request_done = h.framing == FRAMING_NONE or (h.framing == FRAMING_LENGTH and h.content_length == 0)
        return 0

    cdef UpstreamGroup group(self):
        """The upstream that is asked; None: there is none."""
        if self.overseer is not None and self.overseer.group is not None:
            return self.overseer.group
        return self.route.upstream if self.route is not None else None

    cdef void hold(self, Holder by) noexcept:
        """Until `held` is None again, nothing more happens than that the client's content is awaited as far as an
        upstream takes it, which is not before start(). `total` holds; when the exchange ends, `by` is told."""
        self.held = by
        self.wait_for(WAIT_NOTHING)
        if self.timeouts.total:
            self.ctx.loop.timers.arm(&self.total, self.started_us // 1000 + self.timeouts.total)

    cdef void start(self) noexcept:
        """Asks an upstream. The sink may be told of a failure before this returns."""
        self.ctx.counters.requests += 1
        series_of(self.route, self.ctx.stats).running += 1
        series_of(self.group(), self.ctx.stats).running += 1
        if self.timeouts.total:
            self.ctx.loop.timers.arm(&self.total, self.started_us // 1000 + self.timeouts.total)
        self.round = <uint16_t> self.group().start()
        self.connect(False)

    cdef void connect(self, bint fresh) noexcept:
        """Takes a connection from the pool, going on to the next server while connects fail at once."""
        cdef UpstreamGroup group = self.group()
        cdef unsigned int servers = <unsigned int> len(group.servers)
        cdef UpstreamRequest u
        while self.attempts < servers:
            u = group.take(self.ctx, self, self.method, self.round + self.attempts, fresh)
            self.attempts += 1
            self.server = <Server> u.home
            if self.trace is not None:
                self.end_attempt(b"too early")       # one that goes on is one that was taken back
                self.trace.begin_attempt(self.server.label_bytes, self.head.data, self.ctx.loop.now_us)
            if u.closed:
                if not out_of_descriptors(u.error):     # which is not the server's fault
                    avoid(u, self.ctx.loop.now)
                self.report("connect", u.error, u.reason)
                continue
            self.upstream = u
            self.reused = u.reused
            if u.connecting:
                self.wait_for(WAIT_CONNECT)
            else:
                self.send_head()
            return
        if self.mishaps & MISHAP_HANDSHAKE:
            self.fail(502, b"The service could not be reached as it should be.", b"upstream handshake failed")
        else:
            self.fail(503, b"The service is not reachable at the moment.", b"connect failed")

    cdef void on_connected(self, UpstreamRequest u) noexcept:
        self.reused = u.reused
        self.send_head()

    cdef void send_head(self) noexcept:
        cdef UpstreamRequest u = self.upstream
        self.connected_us = self.ctx.loop.now_us
        if self.early is not None and self.early.dress(self) < 0:
            self.fail(503, OUT_OF_MEMORY, b"out of memory")
            return
        if u.send_head(self.head.data, self.head.len, self.request_framing, self.request_done) < 0:
            self.fail(503, OUT_OF_MEMORY, b"out of memory")
            return
        self.wait_for(WAIT_FIRST_BYTE if self.request_done else WAIT_NOTHING)
        u.flush()
        if not self.request_done and self.upstream is u:
            self.sink.request_wanted(self)

    cdef bint takes_request(self) noexcept nogil:
        """Whether the sink may pass on request content now."""
        return self.connected_us != 0 and self.upstream is not None and self.upstream.takes_more()

    cdef void request_data(self, const uint8_t *p, size_t n) noexcept:
        self.bytes_in += n
        if self.bytes_in > self.route.max_body:
            self.refuse_body()
            return
        self.body_begun = True
        if self.upstream is None or n == 0:
            return
        if self.upstream.send(p, n) < 0:
            self.fail(503, OUT_OF_MEMORY, b"out of memory")

    cdef void request_flush(self) noexcept:
        """What request_data brought in this turn goes out."""
        if self.upstream is not None:
            self.upstream.flush()
        if self.upstream is None or self.request_done:
            return
        if not self.takes_request():
            self.unsent = self.upstream.unsent()
            self.wait_for(WAIT_RESPONSE)            # the backend has stopped reading
        elif self.responding and not self.upstream.paused:
            self.wait_for(WAIT_RESPONSE)            # it may need more of the request first

    cdef void request_end(self, const BodyReader *trailers) noexcept:
        self.request_done = True
        if self.upstream is None:
            return
        self.body_begun = True                      # its end is a part of it
        if self.upstream.send_end(trailers) < 0:
            self.fail(503, OUT_OF_MEMORY, b"out of memory")
            return
        if not self.responding:
            self.wait_for(WAIT_FIRST_BYTE)
        self.upstream.flush()

    cdef void on_drained(self, UpstreamRequest u) noexcept:
        if not self.request_done and self.sink is not None and self.connected_us:
            if not self.responding:
                self.wait_for(WAIT_NOTHING)
            self.sink.request_wanted(self)

    cdef void on_interim(self, UpstreamRequest u, const Head *h) noexcept:
        if self.hinted is not None and h.status == 103:
            h = without_known(h, self.hinted)
            if h == NULL:
                return
        self.sink.response_interim(self, h)

    cdef void on_head(self, UpstreamRequest u, const Head *h) noexcept:
        if self.early is not None and h.status == 425 and self.early.takes_back(self):
            return
        self.first_byte_us = self.ctx.loop.now_us
        if self.overseer is None or self.overseer.sees_head(self, h):
            self.pass_head(h)

    cdef void pass_head(self, const Head *h) noexcept:
        """The response begins for the client."""
        self.status = h.status
        self.responding = True
        if h.status >= 500:
            self.ctx.counters.responses_5xx += 1
        self.wait_for(WAIT_RESPONSE)
        if self.route.hints is not None:
            self.learn_hints(h)
        self.sink.response_head(self, h)

    cdef void learn_hints(self, const Head *h) noexcept:
        cdef RequestText asked = request_text(self.head.data, self.head.len, self.method_len, self.target_len, self.host_len)
        # Content of a GET is nothing that a cache tells responses apart by, but what it asks for may stand in the links.
        if self.method == METHOD_GET and not self.last_upstream:
            self.route.hints.learn(&asked, h, self.ctx.loop.now)

    cdef void on_data(self, UpstreamRequest u, const uint8_t *p, size_t n) noexcept:
        self.bytes_out += n
        self.sink.response_data(self, p, n)

    cdef void on_chunk(self, UpstreamRequest u, Chunk *c) noexcept:
        self.bytes_out += c.end - c.start
        self.sink.response_chunk(self, c)

    cdef void on_batch(self, UpstreamRequest u) noexcept:
        self.sink.response_flush(self)
        if self.upstream is not u:
            return
        if self.sink.response_congested(self):
            u.pause()
            self.wait_for(WAIT_NOTHING)             # the client's write timeout is running now
        elif self.responding:
            self.wait_for(WAIT_RESPONSE)

    cdef void client_drained(self) noexcept:
        """The client has taken what was queued for it."""
        if self.upstream is not None and self.upstream.paused and self.held is None:
            self.wait_for(WAIT_RESPONSE)
            self.upstream.resume()

    cdef void on_end(self, UpstreamRequest u, const BodyReader *trailers) noexcept:
        cdef ResponseSink sink = self.sink
        self.upstream = None
        self.wait_for(WAIT_NOTHING)
        u.user = None
        if self.trace is not None:
            self.end_attempt(NULL)
        if trailers != NULL:
            sink.response_end(self, trailers)
            self.settle(u)
        else:                       # first of all back to the pool: a pipelined request may follow at once
            self.settle(u)
            sink.response_end(self, NULL)

    cdef void settle(self, UpstreamRequest u) noexcept:
        """The connection goes back to the pool if it can serve again."""
        if self.request_done and not self.last_upstream:
            u.release()
        else:
            u.drop()

    cdef void on_lost(self, UpstreamRequest u, int loss, int error) noexcept:
        self.upstream = None
        if loss == LOST_CONNECT or loss == LOST_HANDSHAKE:
            avoid(u, self.ctx.loop.now)
            if loss == LOST_HANDSHAKE:
                self.mishaps |= MISHAP_HANDSHAKE
            self.report("connect" if loss == LOST_CONNECT else "handshake", error, u.reason)
            self.connect(False)
            return
        if not self.mishaps & MISHAP_RETRIED and (loss == LOST_REFUSED and not self.body_begun
                                                  or u.reused and not u.answered and self.repeatable()):
            # The server has not touched it, or it closed the idle connection while the request was on its way.
            self.mishaps |= MISHAP_RETRIED
            self.attempts -= 1
            self.connected_us = 0
            self.ctx.counters.upstream_retries += 1
            series_of(self.route, self.ctx.stats).retries += 1
            series_of(self.group(), self.ctx.stats).retries += 1
            series_of(self.server, self.ctx.stats).retries += 1
            if self.trace is not None:
                self.end_attempt(b"refused" if loss == LOST_REFUSED else b"closed")
            self.connect(True)
            return
        if loss == LOST_BAD_RESPONSE:
            self.report("response cannot be understood", error, u.reason)
            self.fail(502, b"The service gave an answer that cannot be understood.", b"bad response")
        elif loss == LOST_RESET:
            self.report("reset before the response was whole", error, u.reason)
            self.fail(502, b"The service did not complete its answer.", b"upstream reset")
        else:
            self.report("closed before the response was whole", error, u.reason)
            self.fail(502, b"The service did not complete its answer.", b"upstream closed")

    cdef bint repeatable(self) noexcept nogil:
        """Whether the request may be sent a second time (RFC 9110, section 9.2.2), and can be."""
        if self.body_begun:
            return False
        return (self.method == METHOD_GET or self.method == METHOD_HEAD or self.method == METHOD_OPTIONS
                or self.method == METHOD_PUT or self.method == METHOD_DELETE or self.method == METHOD_TRACE)

    cdef void wait_for(self, int what) noexcept:
        """What the upstream is to do next, from now on."""
        cdef int ms = 0
        if self.held is not None:
            what = WAIT_NOTHING
        self.waiting_for = what
        if what == WAIT_RESPONSE:
            ms = self.timeouts.response_idle
        elif what == WAIT_FIRST_BYTE:
            ms = self.timeouts.first_byte
        elif what == WAIT_CONNECT:
            ms = self.timeouts.connect
            if ms == 0 and self.upstream is not None and self.upstream.queued:
                ms = QUEUED_MS
        if ms:
            self.ctx.loop.timers.arm(&self.wait, self.ctx.loop.now + ms)
        else:
            self.ctx.loop.timers.disarm(&self.wait)

    cdef void retime(self) noexcept:
        """`timeouts` has changed since start(): `total` counts from the request's beginning, other waits from now."""
        if self.sink is None:
            return
        if self.timeouts.total:
            self.ctx.loop.timers.arm(&self.total, self.started_us // 1000 + self.timeouts.total)
        else:
            self.ctx.loop.timers.disarm(&self.total)
        self.wait_for(self.waiting_for)
        if self.intake.since:
            self.intake.moved_at = self.ctx.loop.now
        self.sink.retimed(self)

    cdef uint64_t client_due(self) noexcept nogil:
        """Until when the client is to send more of the request's content (ms of the loop's clock); 0: no limit, or it is
        not the client that is waited for."""
        if self.request_done or not self.takes_request():
            intake_pause(&self.intake, self.ctx.loop.now)
            return 0
        return intake_due(&self.intake, &self.timeouts, self.bytes_in, self.ctx.loop.now)

    cdef uint64_t client_late(self) noexcept:
        """The time that client_due gave has come: the end, or another such time."""
        cdef uint64_t due = self.client_due()
        if due == 0 or due > self.ctx.loop.now:
            return due
        self.ctx.counters.timeouts += 1
        self.give_up_client(408, intake_fault(&self.intake, &self.timeouts, self.ctx.loop.now))
        return 0

    cdef bint takes_some(self) noexcept:
        """Whether the upstream has taken something of the request since it is waited for."""
        cdef size_t before = self.unsent
        self.unsent = self.upstream.unsent() if self.upstream is not None else 0
        return self.unsent != before

    cdef void give_up_client(self, int status, const char *fault) noexcept:
        """It is the client's fault, not the upstream's."""
        self.fault = fault
        if self.responding:
            self.sink.response_abort(self)
        else:
            self.status = status
            self.sink.response_error(self, status, b"The request did not arrive in time.")

    cdef void on_timer(self, int kind) noexcept:
        cdef UpstreamRequest u = self.upstream
        cdef const char *fault
        if kind == TIMER_WAIT and self.waiting_for == WAIT_RESPONSE and not self.takes_request() and self.takes_some():
            self.wait_for(WAIT_RESPONSE)
            return
        self.ctx.counters.timeouts += 1
        if self.held is not None:
            self.ctx.counters.responses_5xx += 1
            self.refuse(504, b"The service did not answer in time.", b"timeout: total")
            return
        if kind == TIMER_TOTAL and self.intake.since and not self.request_done and not self.responding:
            self.give_up_client(408, b"timeout: total")
            return
        if kind == TIMER_TOTAL:
            fault = b"timeout: total"
        elif self.waiting_for == WAIT_CONNECT:
            fault = b"timeout: connect"
        elif self.waiting_for == WAIT_FIRST_BYTE:
            fault = b"timeout: first_byte"
        else:
            fault = b"timeout: response_idle"
        self.report(fault.decode(), 0, "no stream was free" if u is not None and u.connecting and u.queued else None)
        if u is not None:
            self.upstream = None
            u.drop()
            if kind != TIMER_TOTAL and self.waiting_for == WAIT_CONNECT:
                if not u.queued:
                    avoid(u, self.ctx.loop.now)
                if self.attempts < <unsigned int> len(self.group().servers):
                    self.connect(False)
                    return
        self.fail(504, b"The service did not answer in time.", fault)

    cdef void fail(self, int status, const char *text, const char *fault) noexcept:
        """Tells the client, in the way its response so far allows; the detail is for the log."""
        self.fault = fault
        self.ctx.counters.upstream_failures += 1
        if self.server is not None:
            series_of(self.route, self.ctx.stats).failures += 1
            series_of(self.group(), self.ctx.stats).failures += 1
        if self.sink is None:
            return
        if self.responding:
            self.sink.response_abort(self)
        else:
            self.status = status
            self.ctx.counters.responses_5xx += 1
            self.sink.response_error(self, status, text)

    cdef void refuse(self, int status, const char *text, const char *limit) noexcept:
        """Over a limit: our answer, if none has begun; else the client sees a cut."""
        if self.responding:
            self.abort(limit)
            return
        self.fault = limit
        self.status = <uint16_t> status
        self.sink.response_error(self, status, text)

    cdef void drop_upstream(self) noexcept:
        cdef UpstreamRequest u = self.upstream
        self.upstream = None
        self.wait_for(WAIT_NOTHING)
        if u is not None:
            u.drop()

    cdef void answer(self, const Head *h, const uint8_t *body, size_t n) noexcept:
        """A whole response in place of any upstream's. None has begun; `body` is what the head announces."""
        cdef ResponseSink sink = self.sink
        self.drop_upstream()
        self.status = h.status
        self.responding = True
        if h.status >= 500:
            self.ctx.counters.responses_5xx += 1
        sink.response_head(self, h)
        if n and self.sink is not None:
            self.bytes_out += n
            sink.response_data(self, body, n)
        if self.sink is not None:
            sink.response_end(self, NULL)

    cdef void refuse_body(self) noexcept:
        self.ctx.counters.requests_over_limit += 1
        self.refuse(413, b"The request body is too large.", b"limits.body")

    cdef void abort(self, const char *why) noexcept:
        """A hook, or a fault of ours, ends the request without a word of an answer: the client sees a cut (the
        connection in HTTP/1.1, the stream in HTTP/2), the log `why` (static). The sink may be gone when this returns."""
        if self.sink is None:
            return
        self.fault = why
        self.ctx.counters.aborts += 1
        self.sink.response_abort(self)

    cdef void close(self) noexcept:
        """The end: timers and connection are given back. Idempotent."""
        cdef UpstreamRequest u = self.upstream
        cdef Holder held = self.held
        if self.sink is not None:
            self.sink = None
            self.ctx.loop.keep_until_turn_ends(self)
            if self.server is not None:         # since start()
                series_of(self.route, self.ctx.stats).running -= 1
                series_of(self.group(), self.ctx.stats).running -= 1
        self.upstream = None
        self.overseer = None
        if self.running:
            self.running = False
            self.route.load.running -= 1
        if self.place != NO_PLACE:
            self.ctx.addresses.end(self.place)
            self.place = NO_PLACE
        self.ctx.loop.timers.disarm(&self.wait)
        self.ctx.loop.timers.disarm(&self.total)
        if u is not None:
            u.drop()
        if held is not None:
            self.held = None
            held.abandoned()

    cdef void end_attempt(self, const char *why) noexcept:
        """Of a request in a trace: the server that is asked has answered, or `why` it has not."""
        cdef bytes error = None
        if self.trace.attempting:
            if why != NULL:
                error = why
            self.trace.end_attempt(self.started_us, self.ctx.loop.now_us, self.connected_us, self.first_byte_us,
                                   self.reused, self.status, error)

    cdef void log_more(self, AccessLog log) noexcept:
        """What its line in the log says beside what every exchange's does."""

    cdef void report(self, str what, int error, str reason) noexcept:
        """One line to the operator's log: which server, what happened, for which request."""
        cdef str detail = f" ({reason or os.strerror(error)})" if error or reason else ""
        cdef bytes request = self.head.data[:self.method_len + 1 + self.target_len]
        cdef bytes why = what.encode()
        if self.trace is not None:
            self.end_attempt(why)
        server = "-"
        if self.server is not None:
            server = self.server.label
            series_of(self.server, self.ctx.stats).failures += 1
        self.ctx.log("warning", f"upstream {self.group().name} {server}: {what}{detail}; "
                                f"request {request.decode('latin-1')!r}")
