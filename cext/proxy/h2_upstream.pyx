"""HTTP/2 connections to servers (see the .pxd): frames go through ServerStreams, requests and responses through H2Request.

What requests bring within one turn of the loop is gathered and sent at its end: many share one system call.

Content that a client does not take is held here while the server's window for its stream closes: at most that window.
The connection's window opens again at once, so that the others go on (see H2Session.settle).
"""

from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport ETIMEDOUT
from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from cext.base.buffer cimport Bytes, bytes_append, bytes_free
from cext.base.stats cimport series_of
from cext.base.timers cimport timer_init
from cext.http.h1_reader cimport BodyReader
from cext.http.h2_requester cimport H2Requester
from cext.http.h2_session cimport H2_CANCEL, H2_NO_ERROR, H2_PROTOCOL_ERROR, H2_REFUSED_STREAM, H2Settings, H2Stream
from cext.http.message cimport Head
from cext.proxy.upstream cimport (
    LOST_BAD_RESPONSE,
    LOST_CLOSED,
    LOST_CONNECT,
    LOST_HANDSHAKE,
    LOST_REFUSED,
    LOST_RESET,
    RESPONSE_LIMITS,
    UpstreamUser,
)

cdef enum:
    OUT_MAX = 128 * 1024            # bytes that wait for the socket: the rest waits in its streams
    STREAMS_MAX = 1000              # at the same time on a connection, if the server lets us
    STREAM_WINDOW = 128 * 1024      # what is held at most for a client that takes nothing
    CONNECTION_WINDOW = 2 * 1024 * 1024
    TIMER_GREETING = 1              # 0: idle

H2_ERRORS = ("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED",
             "FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM",
             "INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED")


cdef str error_name(uint32_t code):
    return H2_ERRORS[code] if code < <uint32_t> len(H2_ERRORS) else f"0x{code:x}"


cdef class H2Request(UpstreamRequest):
    def __dealloc__(self):
        bytes_free(&self.held)
        bytes_free(&self.trailers)

    # ---- the request

    cdef int send_head(self, const uint8_t *p, size_t n, int framing, bint ended) noexcept:
        cdef Bytes text
        cdef H2Upstream c = self.connection
        if c is None or c.fd < 0:
            return -1
        text.data = <uint8_t *> p
        text.len = text.cap = n
        self.stream = c.streams.request(&text, c.tls is not None, not ended)
        if self.stream == NULL:
            return -1
        c.loop.timers.disarm(&c.idle)
        Py_INCREF(self)                         # by the stream, until detach()
        self.stream.owner = <void *> <PyObject *> self
        return 0

    cdef int send(self, const uint8_t *p, size_t n) noexcept:
        return self.connection.streams.append(self.stream, p, n) if self.stream != NULL else -1

    cdef int send_end(self, const BodyReader *trailers) noexcept:
        if self.stream == NULL:
            return -1
        self.connection.streams.end(self.stream, trailers.trailers, trailers.trailers_len)
        return 0

    cdef void flush(self) noexcept:
        if self.stream != NULL:
            self.connection.send_later()

    cdef bint takes_more(self) noexcept nogil:
        return self.stream != NULL and not self.stream.was_full

    cdef size_t unsent(self) noexcept nogil:
        return self.stream.out.bytes if self.stream != NULL else 0

    cdef void release(self) noexcept:
        """The response is whole. A server that has not read all of the request will not."""
        cdef H2Upstream c = self.connection
        self.user = None
        if self.stream == NULL:
            return
        if self.stream.out.bytes or not self.stream.body_done:
            c.streams.reset(self.stream, H2_NO_ERROR)
            c.send_later()
        self.detach()

    cdef void drop(self) noexcept:
        cdef H2Upstream c = self.connection
        self.user = None
        self.closed = True
        if self.connecting:
            self.connecting = False
            self.home.give_up(self)
        elif self.stream != NULL:
            if not (self.stream.peer_ended and self.stream.body_done and self.stream.out.bytes == 0):
                c.streams.reset(self.stream, H2_NO_ERROR if self.stream.peer_ended else H2_CANCEL)
            c.send_later()
            self.detach()

    cdef void detach(self) noexcept:
        """The stream goes its own way: nobody is told of it any more."""
        cdef H2Stream *s = self.stream
        if s == NULL:
            return
        if self.held.len:                       # nobody takes it, but the connection's window counts it
            self.connection.streams.consumed(s, self.held.len)
            bytes_free(&self.held)
        s.owner = NULL
        self.stream = NULL
        self.connection = None
        Py_DECREF(self)

    # ---- the response

    cdef int take(self, const uint8_t *p, size_t n) noexcept:
        """Content: to the user, or held until that takes it; only then may the server send as much again. 0 or -1."""
        if self.paused or self.held.len:
            return bytes_append(&self.held, p, n)
        self.connection.streams.consumed(self.stream, n)
        self.user.on_data(self, p, n)
        return 0

    cdef void resume(self) noexcept:
        cdef UpstreamUser user = self.user
        cdef H2Request own = self               # the caller's reference may be the one that on_end gives up
        cdef Bytes kept
        if not own.paused:
            return
        self.paused = False
        if self.held.len:
            kept = self.held
            memset(&self.held, 0, sizeof(Bytes))
            if self.stream != NULL:
                self.connection.streams.consumed(self.stream, kept.len)
                self.connection.send_later()
            user.on_data(self, kept.data, kept.len)
            bytes_free(&kept)
        if self.user is user and self.whole:
            self.finish()
        elif self.user is user:
            user.on_batch(self)

    cdef void finish(self) noexcept:
        """All has been reported but the end."""
        cdef UpstreamUser user = self.user
        cdef BodyReader trailers
        cdef Bytes kept = self.trailers         # ours alone meanwhile
        memset(&self.trailers, 0, sizeof(Bytes))
        memset(&trailers, 0, sizeof(trailers))
        trailers.trailers = kept.data
        trailers.trailers_len = <uint32_t> kept.len
        user.on_end(self, &trailers if kept.len else NULL)
        bytes_free(&kept)

    cdef void lost(self, int loss, int error, str reason) noexcept:
        cdef UpstreamUser user = self.user
        self.user = None
        self.closed = True
        self.connecting = False
        self.reason = reason
        self.detach()
        if user is not None:
            user.on_lost(self, loss, error)


cdef class ServerStreams(H2Requester):
    cdef H2Upstream connection(self):
        return <H2Upstream> self.home

    cdef int put(self, const uint8_t *p, size_t n) noexcept:
        return self.connection().write(p, n)

    cdef bint has_room(self) noexcept:
        cdef H2Upstream c = self.connection()
        if c.out.bytes > OUT_MAX:
            c.held_up = True
        return c.out.bytes <= OUT_MAX

    cdef void on_settings(self) noexcept:
        cdef H2Upstream c = self.connection()
        c.serving = not self.left
        c.freed = True

    cdef void on_goaway(self, int32_t last_id, uint32_t code) noexcept:
        cdef H2Upstream c = self.connection()
        c.serving = False
        c.freed = True
        c.reason = f"HTTP/2: GOAWAY by the server, {error_name(code)}"

    cdef void on_interim(self, H2Stream *s, const Head *h) noexcept:
        cdef H2Request r
        if s.owner == NULL:
            return
        r = <H2Request> s.owner
        r.answered = True
        if h.status == 101:                     # HTTP/2 has none (RFC 9113, section 8.6)
            self.reset(s, H2_PROTOCOL_ERROR)
            r.lost(LOST_BAD_RESPONSE, 0, "101 in HTTP/2")
        else:
            r.user.on_interim(r, h)

    cdef void on_response(self, H2Stream *s, const Head *h, bint ended) noexcept:
        cdef H2Upstream c = self.connection()
        cdef H2Request r
        c.answered = True
        if s.owner == NULL:
            return
        r = <H2Request> s.owner
        r.answered = True
        c.touch(r)
        r.user.on_head(r, h)
        if ended and r.user is not None:
            r.whole = True
            if not r.paused:
                r.finish()

    cdef void on_data(self, H2Stream *s, const uint8_t *p, size_t n) noexcept:
        cdef H2Request r
        if s.owner == NULL:
            self.consumed(s, n)
            return
        r = <H2Request> s.owner
        self.connection().touch(r)
        if r.take(p, n) < 0:
            self.reset(s, H2_CANCEL)
            r.lost(LOST_CLOSED, 0, "out of memory")

    cdef void on_response_end(self, H2Stream *s) noexcept:
        cdef H2Request r
        if s.owner == NULL:
            return
        r = <H2Request> s.owner
        r.whole = True
        r.trailers = s.trailers
        memset(&s.trailers, 0, sizeof(Bytes))
        if not r.paused:
            r.finish()

    cdef void on_stream_drained(self, H2Stream *s) noexcept:
        cdef H2Request r
        if s.owner == NULL:
            return
        r = <H2Request> s.owner
        if r.user is not None:
            r.user.on_drained(r)

    cdef void on_stream_closed(self, H2Stream *s, uint32_t code) noexcept:
        cdef H2Request r
        self.connection().freed = True
        if s.owner == NULL:
            return
        r = <H2Request> s.owner
        if r.whole:                             # what is held is all there is
            bytes_kept(r)
        elif code == H2_REFUSED_STREAM:
            r.lost(LOST_REFUSED, 0, "HTTP/2: REFUSED_STREAM")
        elif s.fault != NULL:
            r.lost(LOST_BAD_RESPONSE, 0, f"HTTP/2: {s.fault.decode()}")
        else:
            r.lost(LOST_RESET, 0, f"HTTP/2: stream closed, {error_name(code)}")


cdef void bytes_kept(H2Request r) noexcept:
    """The stream ends before its user has taken all of it."""
    cdef Bytes held = r.held
    memset(&r.held, 0, sizeof(Bytes))
    r.connection.streams.consumed(r.stream, held.len)
    r.detach()
    r.held = held


cdef class H2Upstream(UpstreamConnection):
    cdef int begin(self, uint64_t deadline) except -1:
        """Before open(); from then until `deadline` it is given to be ready. MemoryError."""
        cdef H2Settings settings
        memset(&settings, 0, sizeof(settings))
        settings.max_streams = STREAMS_MAX
        settings.stream_window = STREAM_WINDOW
        settings.connection_window = CONNECTION_WINDOW
        settings.max_header_list = RESPONSE_LIMITS.head
        timer_init(&self.greeting, self, TIMER_GREETING)
        self.loop.timers.arm(&self.greeting, deadline)
        self.touched = []
        self.streams = ServerStreams.__new__(ServerStreams)
        self.streams.home = <PyObject *> self
        return self.streams.open(&settings, &RESPONSE_LIMITS, &self.ctx.response)

    # ---- for the pool

    cdef bint takes(self) noexcept:
        """Whether a request may begin now."""
        return self.serving and self.fd >= 0 and self.streams.room() > 0

    cdef bint still_open(self) noexcept:
        """One that is idle is looked at; others are heard of."""
        if self.streams.n_streams or self.pumping or self.nothing_to_read():
            return True
        self.readable = True
        self.pump()
        return self.takes()

    cdef void adopt(self, H2Request r) noexcept:
        r.connection = self
        r.connecting = r.queued = False
        r.reused = self.answered
        self.ctx.counters.upstream_reuses += r.reused
        series_of(self.home, self.ctx.stats).reuses += r.reused

    cdef void rest(self, uint64_t deadline) noexcept:
        """Idle, until `deadline` at most."""
        self.loop.timers.arm(&self.idle, deadline)

    cdef bint is_idle(self) noexcept:
        return self.idle.deadline != 0 and self.streams.met and self.streams.n_streams == 0

    cdef void retire(self) noexcept:
        """Ends in good order: nothing is under way."""
        self.streams.drain()
        self.send()
        self.lose(LOST_CLOSED, 0)

    # ---- life

    cdef void on_ready(self) noexcept:
        if self.tls is not None and self.tls.alpn != b"h2":
            self.reason = "HTTP/2: not chosen by the server (ALPN)"
            self.lose(LOST_HANDSHAKE, 0)
            return
        self.send()

    cdef void on_timer(self, int kind) noexcept:
        if kind == TIMER_GREETING:
            self.lose(LOST_CLOSED, ETIMEDOUT)
        elif self.streams.n_streams == 0:
            self.retire()

    cdef void on_ended(self, int error) noexcept:
        if not self.serving and not self.streams.left and self.reason is None:
            self.reason = "HTTP/2: closed before its SETTINGS came"
        self.lose(LOST_CLOSED, error)

    cdef void lose(self, int loss, int error) noexcept:
        cdef list owners = []
        cdef H2Stream *s = self.streams.streams
        cdef H2Request r
        if self.over:
            return
        self.over = True
        if loss == LOST_CLOSED and not self.streams.last_id:
            loss = LOST_CONNECT if self.connecting else LOST_HANDSHAKE
            if self.reason is None and not error:
                self.reason = "HTTP/2: not spoken by the server"
        while s != NULL:
            if s.owner != NULL:
                owners.append(<H2Request> s.owner)
            s = s.next
        self.loop.keep_until_turn_ends(self)
        self.close()
        for r in owners:
            if r.stream == NULL:            # dropped, because of another one's loss
                continue
            if r.whole:
                bytes_kept(r)
            else:
                r.lost(loss, error, self.reason)
        self.home.on_gone(self, loss, error)

    cdef void close(self) noexcept:
        self.serving = False
        self.opener = None
        self.loop.timers.disarm(&self.greeting)
        UpstreamConnection.close(self)
        self.streams.end_all()

    # ---- bytes

    cdef size_t on_bytes(self, const uint8_t *p, size_t n) noexcept:
        self.busy = True
        self.streams.receive(p, n, self.loop.now)
        self.busy = False
        return n

    cdef void on_read(self) noexcept:
        """Everything that one read brought has been told: who got something of it may pass it on."""
        cdef list touched = self.touched
        cdef H2Request r
        self.touched = []
        for r in touched:
            r.touched = False
            if r.user is not None:
                r.user.on_batch(r)
        if self.streams.failed:
            self.send()
        else:
            self.send_later()

    cdef void touch(self, H2Request r) noexcept:
        if not r.touched:
            r.touched = True
            self.touched.append(r)

    cdef void send_later(self) noexcept:
        self.loop.at_turn_end(self)

    cdef void on_turn_end(self) noexcept:
        self.send()

    cdef void on_sent(self) noexcept:
        if self.held_up:
            self.held_up = False
            self.send_later()

    cdef void send(self) noexcept:
        """Frames that may leave now, to the socket; then what has come of it all."""
        if self.busy or self.fd < 0 or not self.ready:
            return
        self.busy = True
        self.streams.send_all()
        self.flush()
        self.busy = False
        if self.fd < 0:
            return
        if self.streams.failed:
            self.reason = f"HTTP/2: {self.streams.fault.decode()}"
            self.lose(LOST_CLOSED, 0)
        elif self.streams.finished():
            if self.streams.n_streams and self.reason is None:
                self.reason = "HTTP/2: broken by the server"
            self.lose(LOST_CLOSED, 0)
        elif self.freed:
            self.freed = False
            if self.streams.met:
                self.opener = None
                self.loop.timers.disarm(&self.greeting)
            if self.streams.left:
                self.home.on_gone(self, LOST_CLOSED if self.streams.last_id else LOST_HANDSHAKE, 0)
            elif self.serving:
                self.home.on_room(self)
