"""A backend connection (see the .pxd).

Bodies with a Content-Length are read straight into chunks that later become TLS records, so a large
response is never copied; everything else goes through the worker's scratch memory.

Every callback may drop this connection or give it to somebody else: after one, `user` is looked at again.
"""

from libc.errno cimport ETIMEDOUT
from libc.string cimport memcpy

from cext.base.buffer cimport CHUNK_PAYLOAD, bytes_append, bytes_free, chunk_release, queue_append, queue_clear
from cext.base.timers cimport timer_init
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
from cext.http.message cimport FRAMING_CLOSE, FRAMING_LENGTH, Limits
from cext.net.stream cimport CHUNKS_PER_READ, IO_AGAIN, IO_ERROR
from cext.proxy.context cimport BYTES_PER_TURN, LOW_WATER, SCRATCH

# A backend is trusted more than a client, but not with unbounded memory.
cdef Limits RESPONSE_LIMITS
RESPONSE_LIMITS.line = 16384
RESPONSE_LIMITS.head = 65536
RESPONSE_LIMITS.fields = 256


cdef class UpstreamUser(TimerOwner):
    cdef void on_connected(self, Upstream u) noexcept:
        """Connected: the request may be sent."""

    cdef void on_lost(self, Upstream u, int loss, int error) noexcept:
        """u is closed; loss is an UpstreamLoss, error an errno or 0."""

    cdef void on_interim(self, Upstream u, const Head *h) noexcept:
        """A 1xx head."""

    cdef void on_head(self, Upstream u, const Head *h) noexcept:
        """The final head, valid during the call."""

    cdef void on_data(self, Upstream u, const uint8_t *p, size_t n) noexcept:
        """Content, valid during the call."""

    cdef void on_chunk(self, Upstream u, Chunk *c) noexcept:
        """Content in a chunk that becomes the callee's."""
        chunk_release(c)

    cdef void on_end(self, Upstream u) noexcept:
        """The response is complete; trailers, if any, are in u.body."""

    cdef void on_batch(self, Upstream u) noexcept:
        """Everything one read brought has been reported: time to flush."""

    cdef void on_drained(self, Upstream u) noexcept:
        """What was queued has (almost) gone: more may be queued."""


cdef class Upstream(Stream):
    def __cinit__(self, Context ctx, UpstreamUser home):
        self.ctx = ctx
        self.loop = ctx.loop
        self.home = home
        timer_init(&self.idle, self, 0)

    def __dealloc__(self):
        bytes_free(&self.pending)
        body_free(&self.body)

    cdef int open(self, const Address *where) noexcept:
        """Starts to connect: 0 (connected, or `connecting`), or -1 with `error`."""
        if self.connect_to(where) < 0:
            return -1
        self.connecting = not self.writable
        return 0

    cdef void begin(self, UpstreamUser user, int request_method) noexcept:
        """A request of `user` follows, and its response is reported to it."""
        self.loop.timers.disarm(&self.idle)
        self.user = user
        self.request_method = request_method
        self.phase = UPSTREAM_HEAD
        self.scanned = 0
        self.answered = False
        self.keep_alive = False
        self.paused = False

    cdef int queue(self, const uint8_t *p, size_t n) noexcept nogil:
        """Adds request bytes; flush() sends them. -1 when out of memory."""
        return queue_append(&self.out, p, n)

    cdef void flush(self) noexcept:
        cdef UpstreamUser user
        cdef size_t before = self.out.bytes
        cdef int r
        if self.connecting or self.fd < 0 or before == 0:
            return
        r = self.send_queue()
        if r == IO_ERROR:
            # The backend may have answered before it closed: what it sent is read first.
            queue_clear(&self.out)
            self.hangup = True
            self.readable = True
            if not self.pumping:
                self.pump()
            return
        user = self.user
        if self.out.bytes <= LOW_WATER and user is not None:
            user.on_drained(self)

    cdef void resume(self) noexcept:
        """Reads again after `paused`."""
        if self.paused:
            self.paused = False
            if not self.pumping:
                self.pump()

    cdef void park(self, uint64_t deadline) noexcept:
        """Idle in the pool, until `deadline` at most."""
        self.user = self.home
        self.phase = UPSTREAM_IDLE
        self.reused = True
        body_free(&self.body)
        self.loop.timers.arm(&self.idle, deadline)

    cdef void drop(self) noexcept:
        """Closes without a word to anyone."""
        self.user = None
        self.loop.timers.disarm(&self.idle)
        self.close_stream()

    cdef void on_timer(self, int kind) noexcept:
        self.lose(LOST_CLOSED, ETIMEDOUT)

    cdef void on_event(self, uint32_t events) noexcept:
        cdef int error
        self.note_events(events)
        if self.connecting:
            if not (self.writable or self.hangup):
                return
            error = self.connect_result()
            if error:
                self.lose(LOST_CONNECT, error)
                return
            self.connecting = False
            if self.user is not None:
                self.user.on_connected(self)
        if self.fd >= 0 and self.out.bytes and self.writable:
            self.flush()
        if self.fd >= 0 and self.readable:
            self.pump()

    cdef void pump(self) noexcept:
        cdef ssize_t got
        cdef size_t budget = BYTES_PER_TURN
        self.pumping = True
        while self.readable and self.fd >= 0 and not self.paused:
            if self.phase == UPSTREAM_BODY and self.body.framing == FRAMING_LENGTH and self.body.remaining >= CHUNK_PAYLOAD:
                got = self.read_chunks()
            else:
                got = self.read_scratch()
            if got <= 0:
                break
            if <size_t> got >= budget:
                self.loop.again(self)
                break
            budget -= got
        self.pumping = False

    cdef ssize_t read_scratch(self) noexcept:
        """One read through scratch memory; what arrived before and was too little to parse goes in front."""
        cdef uint8_t *p = self.ctx.upstream_scratch
        cdef size_t have = self.pending.len
        cdef ssize_t got
        if have >= SCRATCH:
            self.lose(LOST_BAD_RESPONSE, 0)
            return 0
        got = self.receive_into(p + have, SCRATCH - have)
        if got == IO_AGAIN:
            return 0
        if got <= 0:
            self.ended(self.error if got < 0 else 0)
            return 0
        if self.phase == UPSTREAM_IDLE:             # nothing was asked
            self.lose(LOST_CLOSED, 0)
            return 0
        self.answered = True
        if have:
            memcpy(p, self.pending.data, have)
            bytes_free(&self.pending)
        self.consume(p, have + got)
        return got

    cdef ssize_t read_chunks(self) noexcept:
        """One read straight into chunks, each a future record."""
        cdef Chunk *chunks[CHUNKS_PER_READ]
        cdef UpstreamUser user = self.user
        cdef int n = 0
        cdef int i
        cdef ssize_t got = self.receive_chunks(self.body.remaining, chunks, &n)
        if got == IO_AGAIN:
            return 0
        if got <= 0:
            self.ended(self.error if got < 0 else 0)
            return 0
        self.body.remaining -= got
        for i in range(n):
            if self.user is user:
                user.on_chunk(self, chunks[i])
            else:
                chunk_release(chunks[i])
        if self.user is user:
            if self.body.remaining == 0:
                self.finish_response()
            else:
                user.on_batch(self)
        return got

    cdef void consume(self, const uint8_t *p, size_t n) noexcept:
        """Reports what p[:n] brings; the rest, if it is too little, is kept."""
        cdef UpstreamUser user = self.user
        cdef Head *head = &self.ctx.response
        cdef const uint8_t *data = NULL
        cdef size_t pos = 0
        cdef size_t used, size
        cdef int r
        while self.user is user:
            if self.phase == UPSTREAM_HEAD:
                r = find_head_end(p + pos, n - pos, &self.scanned, &RESPONSE_LIMITS, False)
                if r == 0:
                    break
                if r > 0:
                    used = r
                    r = parse_response(p + pos, used, &RESPONSE_LIMITS, self.request_method, head)
                    pos += used
                    self.scanned = 0
                if r < 0 or head.status == 101:         # no upgrade was asked for
                    self.lose(LOST_BAD_RESPONSE, 0)
                    return
                if head.status < 200:
                    user.on_interim(self, head)
                    continue
                self.keep_alive = head.keep_alive and head.framing != FRAMING_CLOSE
                body_begin(&self.body, head.framing, head.content_length)
                self.phase = UPSTREAM_BODY
                user.on_head(self, head)
                continue
            used = 0
            size = 0
            r = body_next(&self.body, p + pos, n - pos, &used, &data, &size)
            pos += used
            if r == BODY_DATA:
                user.on_data(self, data, size)
            elif r == BODY_MORE:
                break
            elif r == BODY_END:
                if pos < n:                             # more than was asked for: not to be trusted further
                    self.keep_alive = False
                self.finish_response()
                return
            else:
                self.lose(LOST_BAD_RESPONSE, 0)
                return
        if self.user is not user:
            return
        if pos < n and bytes_append(&self.pending, p + pos, n - pos) < 0:
            self.lose(LOST_CLOSED, 0)
            return
        user.on_batch(self)

    cdef void finish_response(self) noexcept:
        """The last thing done for this response: the user may hand the connection on."""
        self.phase = UPSTREAM_IDLE
        if self.hangup:
            self.keep_alive = False
        self.user.on_end(self)

    cdef void ended(self, int error) noexcept:
        """The backend has closed, or the connection broke."""
        if self.phase == UPSTREAM_BODY and not error and body_eof(&self.body) == BODY_END:
            self.keep_alive = False
            self.readable = False
            self.finish_response()
            return
        self.lose(LOST_CLOSED, error)

    cdef void lose(self, int loss, int error) noexcept:
        cdef UpstreamUser user = self.user
        self.drop()
        if user is not None:
            user.on_lost(self, loss, error)
