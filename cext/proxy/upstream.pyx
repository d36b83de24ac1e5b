"""Connections to servers, and what all their protocols have in common (see the .pxd)."""

from libc.errno cimport EPROTO, ETIMEDOUT
from libc.string cimport memcpy

from cext.base.buffer cimport (
    bytes_append,
    bytes_consume,
    bytes_free,
    chunk_acquire,
    chunk_release,
    queue_append,
    queue_clear,
)
from cext.base.stats cimport series_of
from cext.base.timers cimport timer_init
from cext.net.stream cimport CHUNKS_PER_READ, IO_AGAIN, IO_ERROR
from cext.proxy.context cimport BYTES_PER_TURN, SCRATCH
from cext.proxy.sealing cimport queue_tls_output, seal_chunk
from cext.tls.connection cimport (
    TLS_CLOSE_NOTIFY,
    TLS_DATA,
    TLS_ESTABLISHED,
    TLS_FAILED,
    TLS_NEED_DATA,
)

cdef enum:
    RECEIVE = 64 * 1024         # ciphertext at a time: what is left of a record must fit the scratch memory with it


# A server is trusted more than a client, but not with unbounded memory.
RESPONSE_LIMITS.line = 16384
RESPONSE_LIMITS.head = 65536
RESPONSE_LIMITS.fields = 256


cdef class UpstreamUser(TimerOwner):
    cdef void on_connected(self, UpstreamRequest u) noexcept:
        """Connected: the request may be sent."""

    cdef void on_lost(self, UpstreamRequest u, int loss, int error) noexcept:
        """u is closed; loss is an UpstreamLoss, error an errno or 0."""

    cdef void on_interim(self, UpstreamRequest u, const Head *h) noexcept:
        """A 1xx head."""

    cdef void on_switched(self, UpstreamRequest u, const Head *h) noexcept:
        """The 101 that was asked for: u.begin_tunnel() is to be called now."""

    cdef void on_head(self, UpstreamRequest u, const Head *h) noexcept:
        """The final head."""

    cdef void on_data(self, UpstreamRequest u, const uint8_t *p, size_t n) noexcept:
        """Content."""

    cdef void on_chunk(self, UpstreamRequest u, Chunk *c) noexcept:
        """Content in a chunk that becomes the callee's."""
        chunk_release(c)

    cdef void on_end(self, UpstreamRequest u, const BodyReader *trailers) noexcept:
        """The response is complete; `trailers` is NULL when there are none."""

    cdef void on_batch(self, UpstreamRequest u) noexcept:
        """Everything one read brought has been reported: time to flush."""

    cdef void on_drained(self, UpstreamRequest u) noexcept:
        """What was sent has (almost) gone: more may follow."""


cdef class UpstreamHome:
    cdef void take_back(self, UpstreamConnection c) noexcept:
        """A connection that has answered and may serve again."""

    cdef void on_room(self, UpstreamConnection c) noexcept:
        """A connection that requests share may take more of them."""

    cdef void on_gone(self, UpstreamConnection c, int loss, int error) noexcept:
        """A connection takes no requests (any more), and those that it had are told."""

    cdef void give_up(self, UpstreamRequest u) noexcept:
        """A request that waited for a connection does so no more."""


cdef class UpstreamRequest:
    cdef int send_head(self, const uint8_t *p, size_t n, int framing, bint ended) noexcept:
        return -1

    cdef int send(self, const uint8_t *p, size_t n) noexcept:
        return -1

    cdef int send_end(self, const BodyReader *trailers) noexcept:
        return -1

    cdef void flush(self) noexcept:
        pass

    cdef bint takes_more(self) noexcept nogil:
        return False

    cdef size_t unsent(self) noexcept nogil:
        return 0

    cdef void pause(self) noexcept:
        self.paused = True

    cdef void resume(self) noexcept:
        self.paused = False

    cdef void release(self) noexcept:
        self.drop()

    cdef void drop(self) noexcept:
        self.user = None
        self.closed = True

    cdef int begin_tunnel(self) noexcept:
        return -1

    cdef void shut_writing(self) noexcept:
        pass

    cdef bint all_sent(self) noexcept nogil:
        return True

    cdef void cut(self) noexcept:
        self.drop()


cdef class UpstreamConnection(Stream):
    def __cinit__(self, Context ctx, UpstreamHome home):
        self.ctx = ctx
        self.loop = ctx.loop
        self.home = home
        timer_init(&self.idle, self, 0)

    def __dealloc__(self):
        bytes_free(&self.pending)
        bytes_free(&self.plain)
        chunk_release(self.filling)

    # ---- life

    cdef int open(self, const Address *where) noexcept:
        """Starts to connect: 0 (`ready`, or it will be), or -1 with `error`."""
        cdef int r = self.connect_to(where, &self.home.tcp)
        if self.fd >= 0:
            series_of(self.home, self.ctx.stats).open += 1      # until close()
        if r < 0:
            return -1
        self.connecting = not self.writable
        if not self.connecting:
            self.on_connect()
        return 0 if self.fd >= 0 else -1

    cdef void on_connect(self) noexcept:
        """TCP is there: with TLS, a ClientHello goes out."""
        if self.home.tls is None:
            self.ready = True
            self.on_ready()
            return
        try:
            self.tls = Connection(self.home.tls, self.home.session)
        except Exception as e:
            self.fail_tls(repr(e))
            return
        self.flush()

    cdef bint still_open(self) noexcept:
        """Whether an idle connection may serve: a look (0.2 us) tells that it is open and silent. In TLS there may be
        what says nothing to anyone, such as tickets."""
        if self.nothing_to_read():
            return True
        if self.tls is None:
            return False
        self.readable = True
        self.pump()
        return self.fd >= 0 and self.nothing_to_read()

    cdef void close(self) noexcept:
        """Without a word to anyone but, where it may be understood, the server."""
        self.loop.timers.disarm(&self.idle)
        if self.tls is not None and self.fd >= 0 and self.ready and self.writable and self.out.bytes == 0:
            self.tls.close_notify()
            if queue_tls_output(self.tls, &self.out) == 0:
                self.send_queue()
        if self.fd >= 0:
            series_of(self.home, self.ctx.stats).open -= 1
        self.close_stream()
        chunk_release(self.filling)
        self.filling = NULL
        bytes_free(&self.pending)
        bytes_free(&self.plain)

    cdef void cut(self) noexcept:
        """As close(), but what the server sees is a break."""
        self.reset_on_close()
        self.ready = False                          # no close_notify: it would confirm an end
        self.close()

    # ---- the protocol's own

    cdef void on_ready(self) noexcept:
        """Connected."""

    cdef bint wants_input(self) noexcept:
        """Whether more may be read; if not, the server's bytes wait in the kernel. Later: pump()."""
        return True

    cdef size_t on_bytes(self, const uint8_t *p, size_t n) noexcept:
        """Takes what it can use of p[:n] -> how much. The rest comes again with what follows it."""
        return n

    cdef size_t wants_chunks(self) noexcept:
        """How many of the bytes to come are content that may be read straight into chunks."""
        return 0

    cdef void on_chunks(self, Chunk **chunks, int n, size_t size) noexcept:
        """`size` bytes of content in n chunks, which become the protocol's."""

    cdef void on_read(self) noexcept:
        """All that one read brought has been given."""

    cdef void on_sent(self) noexcept:
        """The socket has taken something of `out`."""

    cdef void on_ended(self, int error) noexcept:
        """The server will send no more, or (error) the connection broke."""

    cdef void lose(self, int loss, int error) noexcept:
        """Closes, and tells those who use the connection."""

    cdef bint is_idle(self) noexcept:
        """Whether it is kept for requests to come, until its timer `idle`, and would be missed by nobody now."""
        return self.idle.deadline != 0

    # ---- writing

    cdef int write(self, const uint8_t *p, size_t n) noexcept:
        """Queues a copy; flush() sends it. 0, or -1 when it cannot."""
        cdef Chunk *c
        cdef size_t room
        if self.tls is None:
            return queue_append(&self.out, p, n)
        while n:
            if self.filling == NULL:
                self.filling = chunk_acquire()
                if self.filling == NULL:
                    return -1
            c = self.filling
            room = self.tls.plaintext_max - (c.end - c.start)
            if room > n:
                room = n
            memcpy(c.data + c.end, p, room)
            c.end += <uint32_t> room
            p += room
            n -= room
            if c.end - c.start >= self.tls.plaintext_max and self.seal_filling() < 0:
                return -1
        return 0

    cdef int seal_filling(self) noexcept:
        """What was gathered becomes a record."""
        cdef Chunk *c = self.filling
        if c == NULL:
            return 0
        self.filling = NULL
        self.tls.before_write()
        if queue_tls_output(self.tls, &self.out) < 0:
            chunk_release(c)
            return -1
        return seal_chunk(self.tls, &self.out, c)

    cdef void flush(self) noexcept:
        if self.connecting or self.fd < 0:
            return
        if self.tls is not None and (self.seal_filling() < 0 or queue_tls_output(self.tls, &self.out) < 0):
            self.lose(LOST_CLOSED, EPROTO)
            return
        if self.out.bytes == 0:
            return
        if self.send_queue() == IO_ERROR:
            # The server may have answered before it closed: what it sent is read first.
            queue_clear(&self.out)
            self.broken = True
            self.hangup = True
            self.readable = True
            self.pump()
            return
        if self.shut_when_sent and self.out.bytes == 0:
            self.finish_writing()
        if self.ready:
            self.on_sent()

    cdef void finish_writing(self) noexcept:
        """Shuts our side, after what is queued. In TLS that is a close_notify: the socket stays as it is."""
        if self.tls is not None:
            if self.seal_filling() == 0:
                self.tls.close_notify()
                self.flush()
            return
        self.shut_when_sent = self.out.bytes > 0
        if not self.shut_when_sent and self.fd >= 0:
            self.shut_writing()

    # ---- events and reading

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
            self.on_connect()
        if self.fd >= 0 and self.out.bytes and self.writable:
            self.flush()
        if self.fd >= 0 and self.readable:
            self.pump()

    cdef void pump(self) noexcept:
        """Reads until the socket is empty or the protocol has enough."""
        cdef ssize_t got
        cdef size_t budget = BYTES_PER_TURN
        if self.pumping:
            return
        if self.ctx.upstream_reading:               # within another's callback, whose scratch memory is in use
            self.loop.again(self)
            return
        self.pumping = True
        self.ctx.upstream_reading = True
        while self.readable and self.fd >= 0 and self.wants_input():
            if self.tls is not None:
                got = self.read_records()
            else:
                got = self.read_chunks() if self.wants_chunks() else self.read_scratch()
            if got <= 0:
                break
            if self.fd >= 0:
                self.on_read()
            if <size_t> got >= budget:
                self.loop.again(self)
                break
            budget -= got
        self.ctx.upstream_reading = False
        self.pumping = False

    cdef void show_again(self) noexcept:
        """What on_bytes has left although it was enough; the memory is ours alone meanwhile."""
        cdef Bytes *place = &self.plain if self.tls is not None else &self.pending
        cdef Bytes kept = place[0]
        cdef size_t taken
        place.data = NULL
        bytes_free(place)
        taken = self.on_bytes(kept.data, kept.len)
        if self.fd < 0:
            bytes_free(&kept)
            return
        bytes_consume(&kept, taken)
        place[0] = kept
        self.on_read()

    cdef ssize_t read_scratch(self) noexcept:
        """One read through scratch memory; what arrived before and was too little to parse goes in front."""
        cdef uint8_t *p = self.ctx.upstream_scratch
        cdef size_t have = self.pending.len
        cdef size_t taken
        cdef ssize_t got
        if have >= SCRATCH:
            self.lose(LOST_BAD_RESPONSE, 0)
            return 0
        got = self.receive_into(p + have, SCRATCH - have)
        if got == IO_AGAIN:
            return 0
        if got <= 0:
            self.on_ended(self.error if got < 0 else 0)
            return 0
        if have:
            memcpy(p, self.pending.data, have)
            bytes_free(&self.pending)
        taken = self.on_bytes(p, have + got)
        if self.fd >= 0 and taken < have + got and bytes_append(&self.pending, p + taken, have + got - taken) < 0:
            self.lose(LOST_CLOSED, 0)
        return got

    cdef ssize_t read_chunks(self) noexcept:
        """One read straight into chunks, each a future record."""
        cdef Chunk *chunks[CHUNKS_PER_READ]
        cdef int n = 0
        cdef ssize_t got = self.receive_chunks(self.wants_chunks(), chunks, &n)
        if got == IO_AGAIN:
            return 0
        if got <= 0:
            self.on_ended(self.error if got < 0 else 0)
            return 0
        self.on_chunks(chunks, n, got)
        return got

    cdef ssize_t read_records(self) noexcept:
        """One read, and the records it completes, opened in scratch memory."""
        cdef uint8_t *p = self.ctx.upstream_scratch
        cdef size_t have = self.pending.len
        cdef size_t used
        cdef ssize_t got = self.receive_into(p + have, RECEIVE)
        if got == IO_AGAIN:
            return 0
        if got <= 0:
            if not self.ready:
                self.fail_tls("closed during the handshake")
            elif got < 0:
                self.on_ended(self.error)
            elif self.tls.read_closed:
                self.readable = False
            else:                                   # an end that TLS does not confirm may be anyone's
                self.reason = "TLS: ended without close_notify"
                self.on_ended(EPROTO)
            return 0
        if have:
            memcpy(p, self.pending.data, have)
            bytes_free(&self.pending)
        used = self.open_records(p, have + got)
        if self.fd >= 0 and used < have + got and bytes_append(&self.pending, p + used, have + got - used) < 0:
            self.lose(LOST_CLOSED, 0)
        return got

    cdef size_t open_records(self, uint8_t *p, size_t n) noexcept:
        """Opens the whole records in p[:n] and delivers them -> bytes used."""
        cdef size_t pos = 0
        cdef size_t used = 0
        cdef size_t size = 0
        cdef uint8_t *data = NULL
        cdef int event
        while pos < n and self.fd >= 0:
            event = self.tls.receive(p + pos, n - pos, &used, &data, &size)
            pos += used
            if event == TLS_DATA:
                self.deliver(data, size)
                continue
            if event == TLS_NEED_DATA:
                break
            if event == TLS_FAILED:
                self.fail_tls(str(self.tls.failure))
                return n
            if self.tls.out.len:
                self.flush()
                if self.fd < 0:
                    return n
            if event == TLS_ESTABLISHED:
                self.ready = True
                self.on_ready()
            elif event == TLS_CLOSE_NOTIFY:
                self.on_ended(0)
                return n
            if self.tls.session is not None:
                self.home.session = self.tls.session
        return pos

    cdef void deliver(self, uint8_t *p, size_t n) noexcept:
        """Plaintext to the protocol; what it leaves is kept in front of what follows."""
        cdef Bytes kept
        cdef size_t taken
        if self.plain.len == 0:
            taken = self.on_bytes(p, n)
            if self.fd < 0 or taken == n:
                return
            p += taken
            n -= taken
        if bytes_append(&self.plain, p, n) < 0:
            self.lose(LOST_CLOSED, 0)
            return
        if self.plain.len == n:                     # it has just declined all of this
            return
        kept = self.plain
        self.plain.data = NULL
        bytes_free(&self.plain)
        taken = self.on_bytes(kept.data, kept.len)
        if self.fd < 0:
            bytes_free(&kept)
            return
        bytes_consume(&kept, taken)
        self.plain = kept

    cdef void fail_tls(self, str reason) noexcept:
        """No TLS with this server (any more). Our alert, if there is one, goes out."""
        self.reason = f"TLS: {reason}"
        if self.tls is not None and queue_tls_output(self.tls, &self.out) == 0:
            self.send_queue()
        self.lose(LOST_CLOSED if self.ready else LOST_HANDSHAKE, 0)
