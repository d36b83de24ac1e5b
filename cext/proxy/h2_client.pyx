"""HTTP/2 towards clients (see the .pxd): frames go through ClientStreams, requests and responses through H2Request.

What upstreams bring within one turn of the loop is gathered and sent at its end: responses that become ready together
share TLS records and one system call.
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.string cimport memchr, memset

from cext.base.buffer cimport Bytes, Chunk, bytes_append, bytes_consume, bytes_free, chunk_release
from cext.base.timers cimport timer_init
from cext.http.h1_reader cimport BodyReader
from cext.http.h1_writer cimport simple_content
from cext.http.h2_session cimport H2_CANCEL, H2_INTERNAL_ERROR, H2_NO_ERROR, NOT_STUCK, STUCK_CONNECTION
from cext.http.links cimport Link, next_link
from cext.http.message cimport FIELD_LINK, FRAMING_LENGTH, FRAMING_NONE, METHOD_CONNECT, METHOD_GET
from cext.http.upgrade cimport WEBSOCKET_ACCEPT_FIELD, is_named
from cext.proxy.context cimport STATE_ACTIVE, STATE_IDLE
from cext.proxy.downstream cimport READ_BODY, READ_HEAD, READ_KEEPALIVE
from cext.proxy.limits cimport refusal_status, refusal_text
from cext.proxy.pool cimport UpstreamGroup
from cext.proxy.push cimport promised_request
from cext.proxy.router cimport Route
from cext.proxy.service cimport (
    HEAD_LATE,
    HEAD_LATE_TEXT,
    KEEPALIVE_OVER,
    REFUSED,
    changed_exchange,
    launch,
    launch_further,
    log_exchange,
    log_refusal,
    new_exchange,
    resume_launch,
    strip_trailers,
)
from cext.proxy.timeouts cimport WriteLimits, outflow_begin, outflow_look, outflow_next, write_limits
from cext.proxy.tunnel cimport Tunnel

cdef extern from "<string.h>" nogil:
    void *memmem(const void *p, size_t n, const void *part, size_t m)

cdef enum:
    OUT_MAX = 128 * 1024        # sealed bytes that wait for the socket: the rest waits unsealed, where it can be ordered
    PARTING_MS = 1000           # between the GOAWAY that warns and the last one: requests on their way are served
    STALL_MS = 30000            # write_idle of answers that no route speaks for
    PROMISES_MAX = 10           # for one response
    TIMER_READING = 0
    TIMER_STALLED = 1


cdef class H2Client(Session):
    def __cinit__(self, Downstream client):
        self.ctx = client.ctx
        self.client = client
        timer_init(&self.parting, self, 0)
        self.streams = ClientStreams.__new__(ClientStreams)
        self.streams.home = <PyObject *> self
        self.streams.open(&client.settings.h2, &client.settings.limits, &self.ctx.request)
        client.expect(READ_HEAD, client.settings.timeouts.header)
        if self.ctx.draining or client.settings.leaving:
            self.part()
        self.send_later()

    cdef bint wants_plaintext(self) noexcept:
        return not self.client.congested        # who takes nothing gets no further requests answered

    cdef size_t on_plaintext(self, const uint8_t *p, size_t n) noexcept:
        self.busy = True
        self.streams.receive(p, n, self.ctx.loop.now)
        self.busy = False
        self.send()
        return n

    cdef void send(self) noexcept:
        """Frames that may leave now, to the socket."""
        if self.client is None or self.busy or self.client.closing:
            return
        self.busy = True
        self.streams.send_all()
        if self.client is not None:
            self.client.flush()
        self.busy = False
        if self.client is None:
            return
        if self.streams.failed:
            self.end_requests(self.streams.fault)
            self.ctx.log("info", f"{self.client.peer_name()}: HTTP/2: {self.streams.fault.decode()}")
            self.client.finish(True)
        elif self.streams.finished() or self.client.peer_finished and self.streams.n_streams == 0:
            self.client.finish(True)
        else:
            self.await_client()
            if self.client.parked:          # a PING came, or the like
                self.rest_again()

    cdef void rest_again(self) noexcept:
        """Once in a turn: to wake costs more than most that comes, and a client could make each byte a record."""
        if self.client.pumping:
            self.send_later()
            return
        self.client.tls.park()
        self.streams.sleep()

    cdef void send_later(self) noexcept:
        if self.client is not None:
            self.ctx.loop.at_turn_end(self.client)

    cdef void on_turn_end(self) noexcept:
        self.send()

    cdef void on_parked(self) noexcept:
        self.streams.sleep()

    cdef uint32_t head_number(self) noexcept:
        return self.streams.blocks

    cdef uint32_t partial_head(self) noexcept:
        return self.streams.partial_block()

    cdef void await_client(self) noexcept:
        """What the client is to send next, and until when."""
        cdef Downstream client = self.client
        if self.streams.in_block or self.streams.n_streams:
            client.set_state(STATE_ACTIVE)
        elif self.streams.served and client.state != STATE_IDLE:
            client.set_state(STATE_ACTIVE)      # what came may have been no request
            client.set_state(STATE_IDLE)
        if self.streams.in_block:
            if client.read_phase != READ_HEAD or self.block != self.streams.blocks:
                self.block = self.streams.blocks
                self.block_began = self.ctx.loop.now
                client.expect(READ_HEAD, client.settings.timeouts.header)
        elif self.streams.n_streams:
            if client.read_phase != READ_BODY:
                client.expect(READ_BODY, 0)
        elif self.streams.served:
            if client.read_phase != READ_KEEPALIVE:
                client.expect(READ_KEEPALIVE, client.keepalive_ms)

    cdef void on_drained(self) noexcept:
        if self.busy:                       # the socket took all at once: others are to have their turn
            self.send_later()
            return
        self.send()
        if self.client is not None:
            self.client.resume()

    cdef void on_read_timeout(self, int phase) noexcept:
        """Nobody asks any more, or a header block does not end: without that no other can be read either."""
        cdef const char *fault = KEEPALIVE_OVER if phase == READ_KEEPALIVE else HEAD_LATE
        self.client.tell(fault)
        self.streams.drain()
        self.send()
        self.end_requests(fault)
        if self.client is not None:
            self.client.finish(True)

    cdef void on_peer_finished(self) noexcept:
        self.send_later()

    cdef void on_drain(self) noexcept:
        self.part()
        self.send()

    cdef void part(self) noexcept:
        """In two steps: a request may be on its way, and a GOAWAY that crosses it would leave it unserved."""
        self.streams.warn()
        self.ctx.loop.timers.arm(&self.parting, self.ctx.loop.now + PARTING_MS)

    cdef void on_timer(self, int kind) noexcept:
        self.streams.drain()
        self.send()

    cdef void end_requests(self, const char *why) noexcept:
        cdef H2Stream *s = self.streams.streams
        while s != NULL:
            if s.owner != NULL:
                (<H2Request> s.owner).closed(why)
            s = s.next

    cdef void on_closed(self, const char *why) noexcept:
        self.ctx.loop.timers.disarm(&self.parting)
        self.end_requests(why)
        self.streams.end_all()
        self.client = None


cdef class ClientStreams(H2Server):
    cdef H2Client client_of(self):
        return <H2Client> self.home

    cdef int put(self, const uint8_t *p, size_t n) noexcept:
        cdef Downstream client = self.client_of().client
        return client.write(p, n) if client is not None else -1

    cdef bint has_room(self) noexcept:
        cdef Downstream client = self.client_of().client
        if client is None:
            return False
        if client.out.bytes > OUT_MAX:
            client.congested = True             # on_drained() follows
        return client.out.bytes <= OUT_MAX

    cdef void on_request(self, H2Stream *s, Head *h, bint ended) noexcept:
        self.adopt(s).begin(h)

    cdef void on_refused(self, H2Stream *s, int status) noexcept:
        self.adopt(s).refuse(status, NULL)

    cdef H2Request adopt(self, H2Stream *s):
        cdef H2Request request = H2Request.__new__(H2Request)
        request.home = self.client_of()
        request.home.client.set_state(STATE_ACTIVE)
        request.home.requests += 1
        if request.home.requests == request.home.client.settings.max_requests and not self.warned:
            request.home.part()
        request.stream = s
        request.head_only = s.head_only
        request.writes.idle = STALL_MS
        Py_INCREF(request)                      # by the stream, until closed()
        s.owner = <void *> <PyObject *> request
        return request

    cdef void on_data(self, H2Stream *s, const uint8_t *p, size_t n) noexcept:
        if s.owner != NULL:
            (<H2Request> s.owner).take(p, n)
        else:
            self.consumed(s, n)

    cdef void on_request_end(self, H2Stream *s) noexcept:
        if s.owner != NULL:
            (<H2Request> s.owner).request_ended()

    cdef void on_reset_due(self) noexcept:
        self.client_of().send_later()

    cdef void on_stream_drained(self, H2Stream *s) noexcept:
        cdef H2Request request
        if s.owner != NULL:
            request = <H2Request> s.owner
            if request.exchange is not None:
                request.exchange.client_drained()

    cdef void on_stream_closed(self, H2Stream *s, uint32_t code) noexcept:
        cdef H2Request request
        if s.owner == NULL:
            return
        request = <H2Request> s.owner
        if (code == H2_NO_ERROR and s.peer_ended and isinstance(request.exchange, Tunnel)
                and (<Tunnel> request.exchange).server_ended):
            s.held -= request.held.len          # the connection's window goes on to count it
            request.leave()                     # both ways have ended; what the server has not taken yet still goes out
        else:
            request.closed(b"stream reset" if s.reset_by_us else b"stream reset by the client")


cdef class H2Request(ResponseSink):
    def __cinit__(self):
        timer_init(&self.reading, self, TIMER_READING)
        timer_init(&self.stalled, self, TIMER_STALLED)

    def __dealloc__(self):
        bytes_free(&self.held)
        bytes_free(&self.promised)

    # ---- the request ----

    cdef void begin(self, const Head *h) noexcept:
        cdef Downstream client = self.home.client
        cdef Exchange x
        self.wire_in = h.length
        if client.refused:
            self.refuse(refusal_status(client.refused), refusal_text(client.refused))
            self.home.streams.drain()
            return
        if h.method == METHOD_CONNECT and h.protocol.len == 0:
            self.refuse(405, b"CONNECT is not served here.")
            return
        x = new_exchange(client, self, h)
        if x is None:
            self.home.streams.reset(self.stream, H2_INTERNAL_ERROR)
            return
        self.exchange = x
        x.pushed = self.stream.pushed
        self.adopt(x)
        if x.timeouts.header and not x.pushed and self.home.block == self.home.streams.blocks:
            if self.home.ctx.loop.now - self.home.block_began >= <uint64_t> x.timeouts.header:
                x.fault = HEAD_LATE
                x.status = 408
                self.response_error(x, 408, HEAD_LATE_TEXT)
                return
        launch(client, x, h)

    cdef void adopt(self, Exchange x) noexcept:
        """The request's limits for its stream; for the connection, of several that share it, the most patient ones."""
        cdef Downstream client = self.home.client
        cdef WriteLimits shared
        self.writes = write_limits(&x.timeouts)
        shared = self.writes
        if self.home.streams.n_streams > 1:
            shared.idle = max(shared.idle, client.writes.idle) if shared.idle and client.writes.idle else 0
            shared.rate = min(shared.rate, client.writes.rate)
            shared.grace = max(shared.grace, client.writes.grace)
        client.adopt(&shared, x.timeouts.keepalive)

    cdef Exchange request_changed(self, Exchange x, const Head *h, Route route, UpstreamGroup group):
        cdef Exchange other = changed_exchange(self.home.client, x, h, route, group)
        if other is not None:
            self.exchange = other
        return other

    cdef void request_directed(self, Exchange x, const Head *h, bint routed) noexcept:
        launch_further(self.home.client, x, h, routed)

    cdef void refuse(self, int status, const char *text) noexcept:
        """An answer of our own to what does not become an exchange."""
        self.home.streams.respond_simple(self.stream, status, self.home.ctx.date(), text, self.head_only)
        self.watch()
        log_refusal(self.home.client, status, self.stream.out.bytes, REFUSED)

    cdef void take(self, const uint8_t *p, size_t n) noexcept:
        """Content: to the upstream, or held until that takes it; only then may the client send as much again."""
        cdef Exchange x = self.exchange
        self.wire_in += n
        if x is None:
            self.home.streams.consumed(self.stream, n)
        elif self.held.len or not x.takes_request():
            if bytes_append(&self.held, p, n) < 0:
                self.home.streams.reset(self.stream, H2_INTERNAL_ERROR)
        else:
            self.home.streams.consumed(self.stream, n)
            x.request_data(p, n)
            if self.exchange is x:
                x.request_flush()
            self.await_content()

    cdef void pass_on(self) noexcept:
        """What was held, as far as the upstream takes it."""
        cdef Exchange x = self.exchange
        cdef size_t part
        while x is not None and self.held.len and x.takes_request():
            part = min(self.held.len, <size_t> 16384)
            x.request_data(self.held.data, part)
            if self.exchange is not x:
                return
            bytes_consume(&self.held, part)
            self.taken(part)
        if x is None:
            return
        if self.held.len == 0 and (self.stream == NULL or self.stream.peer_ended):
            self.end_request()
        else:
            x.request_flush()

    cdef void taken(self, size_t n) noexcept:
        """Of what was held: the windows may open again."""
        cdef ClientStreams streams = self.home.streams
        if self.stream != NULL:
            streams.consumed(self.stream, n)
            return
        streams.held -= n
        if self.home.client is not None:
            streams.settle()

    cdef void request_wanted(self, Exchange x) noexcept:
        cdef H2Request own = self               # where the stream has gone, the exchange's reference is the last
        own.await_content()
        if own.held.len or own.stream == NULL or own.stream.peer_ended:
            own.pass_on()
        own.home.send_later()

    cdef void request_ended(self) noexcept:
        if self.held.len == 0 and self.exchange is not None and self.exchange.connected_us:
            self.end_request()

    cdef void end_request(self) noexcept:
        cdef BodyReader trailers
        cdef Exchange x = self.exchange
        self.home.ctx.loop.timers.disarm(&self.reading)
        if x.request_done:
            return
        memset(&trailers, 0, sizeof(trailers))
        if self.stream != NULL:
            trailers.trailers = self.stream.trailers.data
            trailers.trailers_len = <uint32_t> self.stream.trailers.len
            if trailers.trailers_len and self.home.client.settings.unique_len:
                strip_trailers(self.home.client.settings, &trailers)
        x.request_end(&trailers)

    cdef void await_content(self) noexcept:
        cdef Exchange x = self.exchange
        cdef uint64_t due = 0
        if self.stream != NULL and x is not None and not self.stream.peer_ended:
            due = x.client_due()
        if due:
            self.home.ctx.loop.timers.arm(&self.reading, due)
        else:
            self.home.ctx.loop.timers.disarm(&self.reading)

    # ---- the response, told by the exchange ----

    cdef void response_interim(self, Exchange x, const Head *h) noexcept:
        if x.route.push:
            self.push(x, h)
        self.home.streams.respond_interim(self.stream, h)
        self.home.send_later()

    cdef void response_head(self, Exchange x, const Head *h) noexcept:
        cdef bint content = not (self.head_only or h.status == 204 or h.status == 304 or h.framing == FRAMING_NONE
                                 or h.framing == FRAMING_LENGTH and h.content_length == 0)
        if x.route is not None and x.route.push:
            self.push(x, h)
        self.wire_out += h.length
        self.home.streams.respond(self.stream, h, self.home.ctx.date(), content)
        self.home.send_later()

    cdef void response_switched(self, Exchange x, const Head *h) noexcept:
        """The 101 of HTTP/1.1 as the 200 that it is here (RFC 8441, section 5)."""
        cdef Head ours = h[0]
        cdef uint32_t i
        x.status = ours.status = 200
        for i in range(ours.n_fields):
            if is_named(&ours, &ours.fields[i], WEBSOCKET_ACCEPT_FIELD):
                ours.fields[i].hop_by_hop = True
        self.wire_out += h.length
        self.home.streams.respond(self.stream, &ours, self.home.ctx.date(), True)
        self.home.send_later()

    cdef void response_half(self, Exchange x) noexcept:
        if self.stream != NULL:
            self.home.streams.end(self.stream, NULL, 0)
        self.watch()
        self.home.send_later()

    cdef void push(self, Exchange x, const Head *h) noexcept:
        """Promises what the response asks to be preloaded: before its head, so that the client does not ask itself."""
        cdef Bytes text
        cdef Link link
        cdef const uint8_t *value
        cdef size_t at
        cdef uint32_t i
        if x.method != METHOD_GET or self.stream.pushed or not self.home.streams.takes_promises():
            return
        for i in range(h.n_fields):
            if h.fields[i].id != FIELD_LINK:
                continue
            value = h.base + h.fields[i].value.off
            at = 0
            while self.promises < PROMISES_MAX:
                at = next_link(value, h.fields[i].value.len, at, &link)
                if link.len == 0:
                    break
                memset(&text, 0, sizeof(text))
                if promised_request(x, &link, &text) == 0 and self.note_promise(&text):
                    self.home.streams.promise(self.stream, &text)
                bytes_free(&text)

    cdef bint note_promise(self, const Bytes *text) noexcept:
        """False when it was made before: an early hint and the response it hints at name the same links."""
        cdef const uint8_t *end = <const uint8_t *> memchr(text.data, c"\n", text.len)
        cdef size_t n = end + 1 - text.data
        if memmem(self.promised.data, self.promised.len, text.data, n) != NULL:
            return False
        self.promises += 1
        return bytes_append(&self.promised, text.data, n) == 0

    cdef void response_data(self, Exchange x, const uint8_t *p, size_t n) noexcept:
        self.wire_out += n
        if self.stream != NULL:
            self.home.streams.append(self.stream, p, n)

    cdef void response_chunk(self, Exchange x, Chunk *c) noexcept:
        self.wire_out += c.end - c.start
        if self.stream != NULL:
            self.home.streams.append_chunk(self.stream, c)
        else:
            chunk_release(c)

    cdef void response_flush(self, Exchange x) noexcept:
        self.watch()
        self.home.send_later()

    cdef bint response_congested(self, Exchange x) noexcept:
        return self.stream != NULL and self.stream.was_full

    cdef void response_end(self, Exchange x, const BodyReader *trailers) noexcept:
        if self.stream != NULL:
            if trailers != NULL:
                self.home.streams.end(self.stream, trailers.trailers, trailers.trailers_len)
            else:
                self.home.streams.end(self.stream, NULL, 0)
        self.watch()
        self.finish(NULL)

    cdef void request_admitted(self, Exchange x, const Head *h) noexcept:
        if h != NULL:
            launch(self.home.client, x, h)
        else:
            resume_launch(self.home.client, x)

    cdef void retimed(self, Exchange x) noexcept:
        if self.stream == NULL or self.home.client is None:
            return
        self.adopt(x)
        self.home.ctx.loop.timers.disarm(&self.stalled)
        self.watch()
        self.await_content()

    cdef void response_error(self, Exchange x, int status, const char *text) noexcept:
        if self.stream != NULL:
            self.home.streams.respond_simple(self.stream, status, self.home.ctx.date(), text, self.head_only)
            x.bytes_out += simple_content(status, text, self.head_only)
        self.watch()
        self.finish(NULL)

    cdef void response_abort(self, Exchange x) noexcept:
        if self.stream != NULL:
            self.home.streams.reset(self.stream, H2_CANCEL if isinstance(x, Tunnel) else H2_INTERNAL_ERROR)
        self.finish(x.fault)

    cdef void finish(self, const char *why) noexcept:
        """The exchange is over; what it left waits in the stream."""
        cdef Exchange x = self.exchange
        cdef H2Request own = self               # where the stream has gone, the exchange's reference is the last
        if x is None:
            return
        self.exchange = None
        log_exchange(self.home.client, x, self.wire_in, self.wire_out, why)
        x.close()
        own.home.ctx.loop.timers.disarm(&own.reading)
        if own.held.len:
            own.taken(own.held.len)
        bytes_free(&own.held)
        if own.home.client is not None:
            own.home.send_later()

    # ---- time and ends ----

    cdef void watch(self) noexcept:
        """While content waits, the client must take some of it in time, and at its rate."""
        if self.stream != NULL and self.stalled.deadline == 0 and (self.writes.idle or self.writes.rate):
            outflow_begin(&self.flow, self.stream.sent, self.home.ctx.loop.now)
            self.taken_of_all = self.home.streams.sent
            self.look_again()

    cdef void look_again(self) noexcept:
        cdef uint64_t now = self.home.ctx.loop.now
        self.home.ctx.loop.timers.arm(&self.stalled, outflow_next(&self.flow, &self.writes, now))

    cdef const char *look(self) noexcept:
        """The limit that the client has let pass, or NULL. Not its fault: that a more urgent stream has its turn, or that
        the connection's socket has (which has limits of its own). Where all streams wait for the connection's window, it
        is enough that they take together what one of them should."""
        cdef uint64_t now = self.home.ctx.loop.now
        cdef uint64_t taken = self.home.streams.sent - self.taken_of_all
        cdef int stuck = self.home.streams.stuck(self.stream)
        cdef bint moves = stuck == STUCK_CONNECTION and taken
        cdef bint waits = stuck != NOT_STUCK
        if moves and self.writes.rate and taken * 1000 >= <uint64_t> self.writes.rate * (now - self.flow.looked_at):
            waits = False
        self.taken_of_all = self.home.streams.sent
        return outflow_look(&self.flow, &self.writes, self.stream.sent, moves, waits, now)

    cdef void on_timer(self, int kind) noexcept:
        cdef Exchange x = self.exchange
        cdef const char *fault
        cdef uint64_t due
        if self.stream == NULL:
            return
        if kind == TIMER_STALLED:
            fault = self.look()
            if fault == NULL:
                self.look_again()
                return
            self.home.ctx.counters.timeouts += 1
            self.home.streams.reset(self.stream, H2_CANCEL)
            self.finish(fault)
        elif x is not None:
            if self.home.streams.held > self.home.streams.window:
                x.intake.since = 0              # other streams' content keeps the connection's window shut: it may not send
                due = x.client_due()
            else:
                due = x.client_late()
            if due:
                self.home.ctx.loop.timers.arm(&self.reading, due)
        self.home.send_later()

    cdef void closed(self, const char *why) noexcept:
        """The stream is gone, or the whole connection."""
        cdef Exchange x = self.exchange
        if x is not None:
            if x.fault == NULL:
                self.home.ctx.counters.client_aborts += 1
                x.fault = why
            self.exchange = None
            log_exchange(self.home.client, x, self.wire_in, self.wire_out, why)
            x.close()
        self.leave()

    cdef void leave(self) noexcept:
        self.home.ctx.loop.timers.disarm(&self.reading)
        self.home.ctx.loop.timers.disarm(&self.stalled)
        if self.stream != NULL:
            self.stream.owner = NULL
            self.stream = NULL
            self.home.ctx.loop.keep_until_turn_ends(self)
            Py_DECREF(self)
