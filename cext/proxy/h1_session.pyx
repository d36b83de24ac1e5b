"""HTTP/1.1 sessions (see the .pxd): a request is read, an Exchange answers it, the next one follows."""

from libc.stdlib cimport free, malloc

from cext.base.buffer cimport CHUNK_PAYLOAD, Chunk
from cext.http.h1_reader cimport (
    BODY_DATA,
    BODY_END,
    BODY_MORE,
    body_begin,
    body_free,
    body_next,
    find_head_end,
    parse_request,
    skip_empty_lines,
)
from cext.http.h1_writer cimport response_room, simple_content, write_chunk_size, write_response, write_simple
from cext.http.message cimport (
    FRAMING_CHUNKED,
    FRAMING_CLOSE,
    FRAMING_NONE,
    METHOD_CONNECT,
    METHOD_HEAD,
    Head,
)
from cext.proxy.context cimport STATE_ACTIVE, STATE_IDLE
from cext.proxy.downstream cimport READ_BODY, READ_HEAD, READ_KEEPALIVE
from cext.proxy.h1_tunnel cimport open_tunnel
from cext.proxy.limits cimport refusal_status, refusal_text
from cext.proxy.pool cimport UpstreamGroup
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
from cext.proxy.timeouts cimport WriteLimits, write_limits
from cext.proxy.tunnel cimport Tunnel

cdef enum:
    SIMPLE_MAX = 1024
    DRAIN_IDLE_MS = 1000        # how long a connection without a request is kept when the worker drains


cdef class H1Session(Session):
    def __cinit__(self, Downstream client):
        self.ctx = client.ctx
        self.client = client
        self.draining = self.ctx.draining or client.settings.leaving
        client.expect(READ_HEAD, client.settings.timeouts.header)

    def __dealloc__(self):
        body_free(&self.body)

    # ---- the request ----

    cdef bint wants_plaintext(self) noexcept:
        if self.phase == REQUEST_HEAD:
            return not self.client.congested    # a client that takes no responses gets no further ones made
        return self.phase == REQUEST_BODY and self.exchange is not None and self.exchange.takes_request()

    cdef size_t on_plaintext(self, const uint8_t *p, size_t n) noexcept:
        cdef size_t pos = 0
        cdef size_t used
        self.taking = True
        while pos < n and self.client is not None and self.wants_plaintext():
            if self.phase == REQUEST_HEAD:
                used = self.read_head(p + pos, n - pos)
                if used == 0:
                    break
            else:
                used = self.read_body(p + pos, n - pos)
            pos += used
        self.taking = False
        if self.client is not None and self.client.peer_finished:
            # Nothing follows: what is not whole now never will be.
            if self.phase == REQUEST_HEAD and (pos == n or self.wants_plaintext()):
                self.client.finish(False)
            elif self.phase == REQUEST_BODY and pos == n:
                self.client.abort(b"client closed")
        return pos

    cdef size_t read_head(self, const uint8_t *p, size_t n) noexcept:
        """A request head, if it is whole -> bytes used (0: more is needed)."""
        cdef Downstream client = self.client
        cdef size_t skipped = 0
        cdef int r
        if self.scanned == 0:
            skipped = skip_empty_lines(p, n)
            if skipped == n:
                return n
            client.set_state(STATE_ACTIVE)
        r = find_head_end(p + skipped, n - skipped, &self.scanned, &client.settings.limits, True)
        if r == 0:
            if not self.head_begun:
                self.head_begun = True
                self.wire_in = self.ctx.loop.now
                if client.read_phase != READ_HEAD or self.draining:
                    client.expect(READ_HEAD, client.settings.timeouts.header)
            if skipped:
                self.scanned = 0                # counted from what is shown next time
            return skipped
        self.scanned = 0
        self.wire_in = self.ctx.loop.now - self.wire_in if self.head_begun else 0
        self.head_begun = False
        if r > 0:
            n = skipped + r
            r = parse_request(p + skipped, r, &client.settings.limits, &self.ctx.request)
        if r < 0:
            self.refuse_head(-r, NULL)
            return n
        self.begin_exchange(self.wire_in)
        return n

    cdef void begin_exchange(self, uint64_t took) noexcept:
        """The head that ctx.request holds has come, in `took` ms."""
        cdef Head *h = &self.ctx.request
        cdef Downstream client = self.client
        cdef WriteLimits writes
        cdef Exchange x
        self.requests += 1
        self.minor = h.minor
        self.keep_alive = h.keep_alive and not self.draining and self.requests != client.settings.max_requests
        self.head_only = h.method == METHOD_HEAD
        self.wire_in = h.length
        self.wire_out = 0
        if client.refused:
            self.refuse(refusal_status(client.refused), refusal_text(client.refused))
            return
        if h.method == METHOD_CONNECT:
            self.refuse(405, b"CONNECT is not served here.")
            return
        x = new_exchange(client, self, h)
        if x is None:
            self.refuse(500, b"The request could not be passed on.")
            return
        self.exchange = x
        body_begin(&self.body, h.framing, h.content_length)
        self.phase = REQUEST_DONE if x.request_done else REQUEST_BODY
        client.expect(READ_BODY, 0)
        writes = write_limits(&x.timeouts)
        client.adopt(&writes, x.timeouts.keepalive)
        if x.timeouts.header and took >= <uint64_t> x.timeouts.header:
            x.fault = HEAD_LATE
            x.status = 408
            self.keep_alive = False
            self.response_error(x, 408, HEAD_LATE_TEXT)
            return
        launch(client, x, h)

    cdef void request_wanted(self, Exchange x) noexcept:
        if self.phase == REQUEST_BODY:
            self.await_body()
            self.client.resume()

    cdef void request_admitted(self, Exchange x, const Head *h) noexcept:
        if h != NULL:
            launch(self.client, x, h)
        else:
            resume_launch(self.client, x)

    cdef void retimed(self, Exchange x) noexcept:
        cdef WriteLimits writes = write_limits(&x.timeouts)
        self.client.adopt(&writes, x.timeouts.keepalive)
        if self.phase == REQUEST_BODY:
            self.await_body()

    cdef Exchange request_changed(self, Exchange x, const Head *h, Route route, UpstreamGroup group):
        cdef Exchange other = changed_exchange(self.client, x, h, route, group)
        if other is not None:
            self.exchange = other
        return other

    cdef void request_directed(self, Exchange x, const Head *h, bint routed) noexcept:
        launch_further(self.client, x, h, routed)

    cdef void await_body(self) noexcept:
        """While the upstream takes no more, waiting is not the client's fault."""
        self.client.expect_by(READ_BODY, self.exchange.client_due())

    cdef size_t read_body(self, const uint8_t *p, size_t n) noexcept:
        """Body bytes to the upstream -> bytes used (all, unless the body or the connection ended)."""
        cdef Exchange x = self.exchange
        cdef size_t pos = 0
        cdef size_t used = 0
        cdef size_t size = 0
        cdef const uint8_t *data = NULL
        cdef int r = BODY_MORE
        while pos <= n and self.exchange is x:
            used = 0
            r = body_next(&self.body, p + pos, n - pos, &used, &data, &size)
            pos += used
            if r == BODY_DATA:
                x.request_data(data, size)
            else:
                break
        self.wire_in += pos
        if self.exchange is not x:
            return pos
        if r == BODY_END:
            if self.body.trailers_len and self.client.settings.unique_len:
                strip_trailers(self.client.settings, &self.body)
            self.phase = REQUEST_DONE
            self.client.expect(READ_BODY, 0)
            x.request_end(&self.body)
        elif r == BODY_MORE:
            x.request_flush()
            if self.exchange is x:
                self.await_body()
        else:
            x.fault = b"bad chunked body"
            if x.responding:
                self.response_abort(x)
            else:
                x.status = 400
                self.response_error(x, 400, b"The request body is malformed.")
            return n
        return pos

    # ---- the response, told by the exchange ----

    cdef void response_interim(self, Exchange x, const Head *h) noexcept:
        cdef size_t room = 0
        cdef uint8_t *out
        cdef ssize_t n
        if self.minor == 0 or response_room(h) > CHUNK_PAYLOAD:
            return
        out = self.client.reserve(response_room(h), &room)
        n = write_response(h, FRAMING_NONE, self.minor, True, NULL, out, room) if out != NULL else -1
        if n >= 0:
            self.client.commit(n)
            self.wire_out += n

    cdef void response_head(self, Exchange x, const Head *h) noexcept:
        self.response_framing = h.framing
        if h.framing == FRAMING_CHUNKED or h.framing == FRAMING_CLOSE:
            self.response_framing = FRAMING_CHUNKED if self.minor else FRAMING_CLOSE
        if self.response_framing == FRAMING_CLOSE or not x.request_done or self.draining:
            self.keep_alive = False
        self.put_head(h, self.response_framing)

    cdef int put_head(self, const Head *h, int framing) noexcept:
        cdef size_t room = 0
        cdef size_t wanted = response_room(h)
        cdef uint8_t *out
        cdef uint8_t *large = NULL
        cdef ssize_t n
        if wanted > CHUNK_PAYLOAD:
            large = <uint8_t *> malloc(wanted)
            out = large
            room = wanted
        else:
            out = self.client.reserve(wanted, &room)
        n = write_response(h, framing, self.minor, self.keep_alive, self.ctx.date(), out, room) if out != NULL else -1
        if n < 0 or (large != NULL and self.client.write(large, n) < 0):
            free(large)
            self.client.abort(b"response head not written")
            return -1
        if large == NULL:
            self.client.commit(n)
        free(large)
        self.wire_out += n
        return 0

    cdef void response_switched(self, Exchange x, const Head *h) noexcept:
        """Another session goes on; what the client has sent behind its request comes to it."""
        cdef Downstream client = self.client
        if self.put_head(h, FRAMING_NONE) < 0:
            return
        self.exchange = None
        self.client = None
        self.ctx.loop.keep_until_turn_ends(self)
        open_tunnel(client, <Tunnel> x, self.wire_in, self.wire_out)
        client.flush()

    cdef void response_data(self, Exchange x, const uint8_t *p, size_t n) noexcept:
        cdef uint8_t size[20]
        cdef size_t k
        if self.response_framing != FRAMING_CHUNKED:
            self.put(p, n)
            return
        k = write_chunk_size(size + sizeof(size), n)
        if self.put(size + sizeof(size) - k, k) == 0 and self.put(p, n) == 0:
            self.put(b"\r\n", 2)

    cdef int put(self, const uint8_t *p, size_t n) noexcept:
        self.wire_out += n
        if self.client is None:
            return -1
        if self.client.write(p, n) < 0:
            self.client.abort(b"out of memory")
            return -1
        return 0

    cdef void response_chunk(self, Exchange x, Chunk *c) noexcept:
        self.wire_out += c.end - c.start
        if self.client.write_chunk(c) < 0:
            self.client.abort(b"sealing failed")

    cdef void response_flush(self, Exchange x) noexcept:
        self.client.flush()

    cdef bint response_congested(self, Exchange x) noexcept:
        return self.client is not None and self.client.congested

    cdef void on_drained(self) noexcept:
        if self.exchange is not None:
            self.exchange.client_drained()
        elif self.phase == REQUEST_HEAD:
            if self.client.read_phase == READ_KEEPALIVE:
                self.client.expect(READ_KEEPALIVE, self.client.keepalive_ms)
            self.client.resume()

    cdef void response_end(self, Exchange x, const BodyReader *trailers) noexcept:
        if self.response_framing == FRAMING_CHUNKED:
            self.put(b"0\r\n", 3)
            if trailers != NULL and trailers.trailers_len:
                self.put(trailers.trailers, trailers.trailers_len)
            self.put(b"\r\n", 2)
        self.next_request()

    cdef void response_error(self, Exchange x, int status, const char *text) noexcept:
        if self.phase != REQUEST_DONE:
            self.keep_alive = False
        self.respond_simple(status, text)
        x.bytes_out += simple_content(status, text, self.head_only)
        self.next_request()

    cdef void response_abort(self, Exchange x) noexcept:
        self.client.abort(x.fault)

    cdef void next_request(self) noexcept:
        """The response is written: log it, and read on or close."""
        cdef Exchange x = self.exchange
        cdef Downstream client = self.client
        cdef bint unread = self.phase != REQUEST_DONE
        if client is None:
            return
        self.exchange = None
        log_exchange(client, x, self.wire_in, self.wire_out, NULL)
        x.close()
        body_free(&self.body)
        if not self.keep_alive or unread:
            # A body or pipelined requests that are still on their way would turn our close into a reset: linger.
            self.phase = REQUEST_REFUSED
            client.finish(unread or client.plain.len or client.stash.len or client.readable)
            return
        self.phase = REQUEST_HEAD
        client.flush()
        if self.client is None:
            return
        client.set_state(STATE_IDLE)
        if self.draining:
            client.expect(READ_HEAD, DRAIN_IDLE_MS)     # its last response did not say close: as in on_drain
        else:
            client.expect(READ_KEEPALIVE, client.keepalive_ms)
        if self.taking:
            return
        if client.peer_finished and client.plain.len == 0:
            client.finish(False)
        elif client.plain.len or client.stash.len or client.readable:
            client.resume()

    # ---- refusals and ends ----

    cdef void refuse_head(self, int status, const char *text, const char *why=REFUSED) noexcept:
        """As refuse, when the head did not become a request: nothing of the one before it counts."""
        self.head_only = False
        self.wire_out = 0
        self.refuse(status, text, why)

    cdef void refuse(self, int status, const char *text, const char *why=REFUSED) noexcept:
        """A request that can't be served: our answer, then the connection is closed."""
        self.keep_alive = False
        self.phase = REQUEST_REFUSED
        self.respond_simple(status, text)
        log_refusal(self.client, status, self.wire_out, why)
        if self.client is not None:
            self.client.finish(True)

    cdef void respond_simple(self, int status, const char *text) noexcept:
        cdef uint8_t out[SIMPLE_MAX]
        cdef ssize_t n = write_simple(status, self.minor, self.keep_alive, self.head_only, self.ctx.date(), text, out, sizeof(out))
        if n > 0:
            self.put(out, n)

    cdef void on_read_timeout(self, int phase) noexcept:
        cdef Exchange x = self.exchange
        cdef uint64_t due
        if phase == READ_KEEPALIVE or (phase == READ_HEAD and not self.head_begun):
            self.client.tell(KEEPALIVE_OVER if phase == READ_KEEPALIVE else HEAD_LATE)
            self.client.finish(False)
        elif phase == READ_HEAD:
            self.refuse_head(408, HEAD_LATE_TEXT, HEAD_LATE)
        elif x is not None:
            due = x.client_late()
            if due:
                self.client.expect_by(READ_BODY, due)

    cdef void on_peer_finished(self) noexcept:
        if self.client.plain.len:
            self.client.resume()        # it may hold the end of what is under way: on_plaintext decides
        elif self.exchange is None:
            self.client.finish(False)
        elif self.phase == REQUEST_BODY:
            self.client.abort(b"client closed")

    cdef void on_drain(self) noexcept:
        self.draining = True
        if self.phase == REQUEST_HEAD and not self.head_begun:
            # A request may be on its way: a close that crosses it would lose it. Its response will say close.
            self.client.expect(READ_HEAD, DRAIN_IDLE_MS)

    cdef void on_closed(self, const char *why) noexcept:
        cdef Exchange x = self.exchange
        self.exchange = None
        if x is not None:
            if x.fault == NULL:
                self.ctx.counters.client_aborts += 1
                x.fault = why
            log_exchange(self.client, x, self.wire_in, self.wire_out, why)
            x.close()
        self.client = None
