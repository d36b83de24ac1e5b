"""HTTP/1.1 connections to servers (see the .pxd).

Bodies with a Content-Length are read straight into chunks that later become TLS records, so a large response is never
copied; everything else goes through the worker's scratch memory.
"""

from cext.base.buffer cimport CHUNK_PAYLOAD, Chunk, chunk_release
from cext.http.h1_reader cimport (
    BODY_DATA,
    BODY_END,
    BODY_MORE,
    body_begin,
    body_eof,
    body_free,
    body_next,
    find_head_end,
    parse_response,
)
from cext.http.h1_writer cimport write_chunk_size
from cext.http.message cimport FRAMING_CHUNKED, FRAMING_CLOSE, FRAMING_LENGTH, INTERIMS_MAX, Head
from cext.proxy.context cimport HIGH_WATER, LOW_WATER
from cext.proxy.upstream cimport LOST_BAD_RESPONSE, LOST_CLOSED, RESPONSE_LIMITS


cdef class H1Request(UpstreamRequest):
    cdef int send_head(self, const uint8_t *p, size_t n, int framing, bint ended) noexcept:
        self.chunked = framing == FRAMING_CHUNKED
        return self.connection.write(p, n) if self.connection is not None else -1

    cdef int send(self, const uint8_t *p, size_t n) noexcept:
        cdef H1Upstream c = self.connection
        cdef uint8_t size[20]
        cdef size_t k
        if c is None:
            return -1
        if not self.chunked:
            return c.write(p, n)
        k = write_chunk_size(size + sizeof(size), n)
        return c.write(size + sizeof(size) - k, k) | c.write(p, n) | c.write(b"\r\n", 2)

    cdef int send_end(self, const BodyReader *trailers) noexcept:
        cdef H1Upstream c = self.connection
        cdef int r
        if not self.chunked:
            return 0
        if c is None:
            return -1
        r = c.write(b"0\r\n", 3)
        if trailers.trailers_len:
            r |= c.write(trailers.trailers, trailers.trailers_len)
        return r | c.write(b"\r\n", 2)

    cdef void flush(self) noexcept:
        if self.connection is not None:
            self.connection.flush()

    cdef bint takes_more(self) noexcept nogil:
        return not self.connecting and self.connection is not None and self.connection.out.bytes < HIGH_WATER

    cdef size_t unsent(self) noexcept nogil:
        return self.connection.untaken() if self.connection is not None else 0

    cdef void resume(self) noexcept:
        cdef H1Upstream c = self.connection
        if not self.paused:
            return
        self.paused = False
        if c is None:
            return
        if c.unshown:
            c.unshown = False
            c.show_again()
        c.pump()

    cdef void release(self) noexcept:
        cdef H1Upstream c = self.connection
        if c is None:
            return
        if c.keep_alive and c.out.bytes == 0 and c.filling == NULL and c.phase == UPSTREAM_IDLE:
            self.user = None
            c.home.take_back(c)
        else:
            c.close()

    cdef void drop(self) noexcept:
        self.user = None
        if self.connection is not None:
            self.connection.close()

    cdef int begin_tunnel(self) noexcept:
        if self.connection is None:
            return -1
        self.chunked = False
        self.connection.phase = UPSTREAM_TUNNEL
        return 0

    cdef void shut_writing(self) noexcept:
        if self.connection is not None:
            self.connection.finish_writing()

    cdef bint all_sent(self) noexcept nogil:
        return self.connection is None or (self.connection.out.bytes == 0 and self.connection.filling == NULL)

    cdef void cut(self) noexcept:
        self.user = None
        if self.connection is not None:
            self.connection.cut()


cdef class H1Upstream(UpstreamConnection):
    def __cinit__(self):
        self.request = H1Request.__new__(H1Request)
        self.request.connection = self
        self.request.home = self.home

    def __dealloc__(self):
        body_free(&self.body)

    cdef UpstreamRequest begin(self, UpstreamUser user, int method):
        """A request of `user` follows, and its response is reported to it."""
        cdef H1Request r = self.request
        self.loop.timers.disarm(&self.idle)
        self.phase = UPSTREAM_HEAD
        self.scanned = 0
        self.interims = 0
        self.keep_alive = False
        r.user = user
        r.method = method
        r.connecting = not self.ready
        r.answered = False
        r.paused = False
        r.switching = False
        return r

    cdef void park(self, uint64_t deadline) noexcept:
        """Idle in the pool, until `deadline` at most."""
        self.phase = UPSTREAM_IDLE
        self.request.reused = True
        body_free(&self.body)
        self.loop.timers.arm(&self.idle, deadline)

    cdef void close(self) noexcept:
        cdef H1Request r = self.request
        UpstreamConnection.close(self)
        r.error = self.error
        r.reason = self.reason
        r.user = None
        r.closed = True
        r.connection = None

    cdef void lose(self, int loss, int error) noexcept:
        cdef H1Request r = self.request
        cdef UpstreamUser user = r.user
        self.close()
        if user is not None:
            user.on_lost(r, loss, error)
        else:
            self.home.on_gone(self, loss, error)

    cdef void on_ready(self) noexcept:
        cdef H1Request r = self.request
        r.connecting = False
        if r.user is not None:
            r.user.on_connected(r)

    cdef void on_sent(self) noexcept:
        cdef H1Request r = self.request
        if self.out.bytes <= LOW_WATER and r.user is not None:
            r.user.on_drained(r)

    # ---- the response

    cdef bint wants_input(self) noexcept:
        return not self.request.paused

    cdef size_t wants_chunks(self) noexcept:
        if self.phase == UPSTREAM_BODY and self.body.framing == FRAMING_LENGTH and self.body.remaining >= CHUNK_PAYLOAD:
            return self.body.remaining
        return 0

    cdef void on_chunks(self, Chunk **chunks, int n, size_t size) noexcept:
        cdef H1Request r = self.request
        cdef UpstreamUser user = r.user
        cdef int i
        self.body.remaining -= size
        for i in range(n):
            if r.user is user:
                user.on_chunk(r, chunks[i])
            else:
                chunk_release(chunks[i])
        if r.user is user and self.body.remaining == 0:
            self.finish_response()

    cdef void on_read(self) noexcept:
        cdef H1Request r = self.request
        if r.user is not None:
            r.user.on_batch(r)

    cdef size_t on_bytes(self, const uint8_t *p, size_t n) noexcept:
        """Reports what p[:n] brings; too little to be reported yet is not taken."""
        cdef H1Request request = self.request
        cdef UpstreamUser user = request.user
        cdef const uint8_t *data = NULL
        cdef size_t pos = 0
        cdef size_t used, size
        cdef int r
        if self.phase == UPSTREAM_IDLE:                     # nothing was asked
            self.lose(LOST_CLOSED, 0)
            return n
        request.answered = True
        while request.user is user:
            if request.paused:                              # by a hook that looks at the head
                self.unshown = True
                break
            if self.phase == UPSTREAM_HEAD:
                used = 0
                r = self.read_head(p + pos, n - pos, &used)
                pos += used
                if r == 0:
                    break
                if r < 0:
                    self.lose(LOST_BAD_RESPONSE, 0)
                    return n
                continue
            if self.phase >= UPSTREAM_TUNNEL:
                if pos < n:
                    user.on_data(request, p + pos, n - pos)
                pos = n
                break
            used = 0
            size = 0
            r = body_next(&self.body, p + pos, n - pos, &used, &data, &size)
            pos += used
            if r == BODY_DATA:
                user.on_data(request, data, size)
            elif r == BODY_MORE:
                break
            elif r == BODY_END:
                if pos < n:                                 # more than was asked for: not to be trusted further
                    self.keep_alive = False
                self.finish_response()
                return n
            else:
                self.lose(LOST_BAD_RESPONSE, 0)
                return n
        return pos

    cdef int read_head(self, const uint8_t *p, size_t n, size_t *used) noexcept:
        """A head, if it is whole, is reported. 1; 0: more is needed; -1: it is no response."""
        cdef H1Request request = self.request
        cdef UpstreamUser user = request.user
        cdef Head *head = &self.ctx.response
        cdef int r = find_head_end(p, n, &self.scanned, &RESPONSE_LIMITS, False)
        if r <= 0:
            return r
        used[0] = r
        self.scanned = 0
        if parse_response(p, r, &RESPONSE_LIMITS, request.method, head) < 0:
            return -1
        if head.status == 101:
            if not request.switching:
                return -1
            user.on_switched(request, head)
            return 1 if request.user is not user or self.phase == UPSTREAM_TUNNEL else -1
        if head.status < 200:
            self.interims += 1
            if self.interims > INTERIMS_MAX:            # each may wait for the client, with no window to hold it back
                self.reason = "too many interim responses"
                return -1
            user.on_interim(request, head)
            return 1
        self.keep_alive = head.keep_alive and head.framing != FRAMING_CLOSE
        body_begin(&self.body, head.framing, head.content_length)
        self.phase = UPSTREAM_BODY
        user.on_head(request, head)
        return 1

    cdef void finish_response(self) noexcept:
        """The last thing done for this response: the user may hand the connection on."""
        cdef H1Request r = self.request
        self.phase = UPSTREAM_IDLE
        if self.hangup:
            self.keep_alive = False
        r.user.on_end(r, &self.body if self.body.trailers_len else NULL)

    cdef void on_ended(self, int error) noexcept:
        cdef H1Request r = self.request
        self.readable = False
        if self.phase == UPSTREAM_BODY and not error and body_eof(&self.body) == BODY_END:
            self.keep_alive = False
            self.finish_response()
        elif self.phase == UPSTREAM_TUNNEL and not error and not self.broken:
            self.phase = UPSTREAM_TUNNEL_ENDED
            r.user.on_end(r, NULL)
        elif self.phase != UPSTREAM_TUNNEL_ENDED or error or self.broken:
            self.lose(LOST_CLOSED, error)
