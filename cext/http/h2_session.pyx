"""HTTP/2 sessions, what both ends have in common (see the .pxd).

nghttp2 reads and writes the frames, keeps the windows and the state of streams, and refuses what RFC 9113 calls
malformed. Here are what it leaves to its user: heads to Heads and back, content that waits for a window, and a price on
all that a peer can ask for at no cost of its own (resets, PINGs, SETTINGS, empty frames).
"""

cimport cython
from cpython.object cimport PyObject
from libc.stdlib cimport calloc, free, malloc, realloc
from libc.string cimport memcmp, memcpy

from cext.base.arena cimport (
    ARENA_BYTES,
    Arena,
    arena_close,
    arena_open,
    arena_owns,
    arena_sleep,
    arena_take,
    arena_wake,
)
from cext.base.buffer cimport (
    Bytes, Chunk, bytes_append, bytes_free, bytes_reserve, chunk_release, queue_append, queue_clear,
    queue_pop, queue_push)
from cext.http.h2_fields cimport set_trailers
from cext.http.message cimport MAX_FIELDS, Head, Limits
from cext.http.rules cimport text_end, trailer_forbidden
from cext.lib.nghttp2 cimport *

cdef enum:
    BLOCK_FRAMES_MAX = 8                # HEADERS and CONTINUATION frames of one header block
    BLOCK_BYTES_TIMES = 4               # what may be decoded of a block, in times of the limit of a head
    TRAILERS_MAX = 8192                 # bytes
    H2_FRAME_HEADER = 9
    PREFACE_LENGTH = 24
    PRIORITY_LENGTH = 5                 # of that frame's payload
    # What a peer may ask of us at no cost of its own, and the rate at which it may go on.
    CREDIT_MAX = 15000
    CREDIT_PER_SECOND = 500
    COST_RESET = 15                     # by the peer, or by us for what it sent
    COST_SETTINGS = 15
    COST_CONTINUATION = 50
    COST_EMPTY_DATA = 5
    COST_PING = 5
    COST_OTHER = 1
    SEND_BLOCK_MAX = 256 * 1024         # bytes of a head's fields: the limits it was read by are narrower
    EARNED_BY_DATA = COST_PING + 2 * COST_OTHER     # a frame of ours: two WINDOW_UPDATEs, and a PING to measure the path by
    CRUMB_MAX = 1024                    # below it a frame that is not all there was is a crumb

cdef nghttp2_session_callbacks *callbacks = NULL
cdef nghttp2_option *options = NULL


cdef class H2Session:
    """One end of a connection; a role begins it by `start`."""

    def __dealloc__(self):
        cdef H2Stream *s
        arena_wake(&self.arena)
        nghttp2_session_del(self.session)
        arena_close(&self.arena)
        while self.streams != NULL:
            self.forget(self.streams)

    cdef int start(self, bint server, const nghttp2_settings_entry *iv, size_t n, const H2Settings *settings,
                   const Limits *limits, Head *scratch) except -1:
        """Our SETTINGS stand in the output afterwards."""
        cdef nghttp2_mem memory
        cdef int r
        self.server = server
        if arena_open(&self.arena) < 0:
            raise MemoryError
        memory.mem_user_data = &self.arena
        memory.malloc = allocate
        memory.free = give_back
        memory.calloc = allocate_zeroed
        memory.realloc = resize
        self.scratch = scratch
        self.limits = limits[0]
        self.credit = CREDIT_MAX
        self.window = settings.connection_window
        if server:
            self.walk.skip = PREFACE_LENGTH
            r = nghttp2_session_server_new3(&self.session, callbacks, <PyObject *> self, options, &memory)
        else:
            r = nghttp2_session_client_new3(&self.session, callbacks, <PyObject *> self, options, &memory)
        self.arena.sealed = True                # what comes and goes later has no place in it
        if (r != 0 or nghttp2_submit_settings(self.session, NGHTTP2_FLAG_NONE, iv, n) != 0
                or nghttp2_session_set_local_window_size(self.session, NGHTTP2_FLAG_NONE, 0,
                                                         <int32_t> settings.connection_window) != 0):
            raise MemoryError
        return 0

    # --- in

    cdef void receive(self, const uint8_t *p, size_t n, uint64_t now) noexcept:
        cdef ssize_t used
        cdef uint64_t earned = (now - self.credit_at) * CREDIT_PER_SECOND // 1000
        if earned:
            self.credit_at = now
            self.credit = min(self.credit + <int32_t> min(earned, <uint64_t> CREDIT_MAX), <int32_t> CREDIT_MAX)
        if self.failed:
            return
        arena_wake(&self.arena)
        self.look_at(p, n)
        if self.failed:
            return
        used = nghttp2_session_mem_recv(self.session, p, n)
        if used < 0 and not self.failed:
            if used == NGHTTP2_ERR_BAD_CLIENT_MAGIC:
                self.failed = True
                self.fault = b"not HTTP/2"
            elif used == NGHTTP2_ERR_FLOODED or used == NGHTTP2_ERR_TOO_MANY_CONTINUATIONS:
                self.terminate(H2_ENHANCE_YOUR_CALM, b"flood of frames to be answered")
            else:
                self.terminate(H2_INTERNAL_ERROR, nghttp2_strerror(<int> used))

    cdef void look_at(self, const uint8_t *p, size_t n) noexcept:
        """The frames that nghttp2 passes over without a word: those of unknown types, content for a stream that is over,
        and a PRIORITY of a stream that depends on itself (RFC 7540, section 5.3.1). And where header blocks end: it does
        not say so of those that it refuses."""
        cdef FrameWalk *w = &self.walk
        cdef size_t at = 0, part
        cdef uint32_t length, id
        while at < n:
            if w.skip:
                part = min(<size_t> w.skip, n - at)
                w.skip -= <uint32_t> part
                at += part
                if w.skip == 0 and w.ends_block:
                    self.in_block = w.ends_block = False
                continue
            w.head[w.got] = p[at]
            w.got += 1
            at += 1
            if w.got < H2_FRAME_HEADER:
                continue
            length = <uint32_t> w.head[0] << 16 | <uint32_t> w.head[1] << 8 | w.head[2]
            id = number31(w.head + 5)
            if w.got == H2_FRAME_HEADER and w.head[3] == NGHTTP2_DATA:
                self.check_stream(w.head[3], <int32_t> id)
            elif w.head[3] > NGHTTP2_CONTINUATION and w.head[3] != NGHTTP2_PRIORITY_UPDATE:
                self.spend(COST_OTHER)
            if w.head[3] == NGHTTP2_HEADERS or w.head[3] == NGHTTP2_CONTINUATION:
                w.ends_block = w.head[4] & NGHTTP2_FLAG_END_HEADERS and length
                self.in_block = length or not w.head[4] & NGHTTP2_FLAG_END_HEADERS
            if w.head[3] != NGHTTP2_PRIORITY or length != PRIORITY_LENGTH:
                w.skip = length
                w.got = 0
            elif w.got == H2_FRAME_HEADER + PRIORITY_LENGTH:
                w.got = 0
                if id == number31(w.head + 9):
                    self.terminate(H2_PROTOCOL_ERROR, b"a stream that depends on itself")

    cdef int closed_by(self, int32_t id) noexcept nogil:
        cdef int i
        for i in range(CLOSED_KEPT):
            if self.closed[i].id == id:
                return self.closed[i].by
        return CLOSED_UNKNOWN

    cdef void check_stream(self, int type, int32_t id) noexcept:
        """A frame for a stream that is over (RFC 9113, section 5.1): what was on its way when we reset it is passed over,
        anything else is the peer's error. nghttp2 has forgotten the stream."""
        cdef int by
        if id == 0 or id > self.last_id or not id & 1:
            return
        if nghttp2_session_get_stream_user_data(self.session, id) != NULL:
            return
        by = self.closed_by(id)
        if by == CLOSED_BY_PEER:
            self.terminate(H2_STREAM_CLOSED, b"a frame on a closed stream")
        elif by == CLOSED_UNKNOWN and type == NGHTTP2_HEADERS and self.server:       # it was passed over (section 5.1.1)
            self.terminate(H2_PROTOCOL_ERROR, b"a stream older than the newest")

    cdef uint32_t partial_block(self) noexcept nogil:
        """The number (see `blocks`) of the header block of which a byte has come, and not all; 0: there is none."""
        cdef const FrameWalk *w = &self.walk
        cdef uint32_t length = <uint32_t> w.head[0] << 16 | <uint32_t> w.head[1] << 8 | w.head[2]
        cdef uint32_t before = 0            # the block: nghttp2 reads them first, and then says that it has begun
        if w.got:
            return self.blocks + 1 if w.got < 4 or w.head[3] == NGHTTP2_HEADERS else 0
        if not self.in_block:
            return 0
        if w.head[3] == NGHTTP2_HEADERS:
            if w.head[4] & NGHTTP2_FLAG_PADDED:
                before += 1
            if w.head[4] & NGHTTP2_FLAG_PRIORITY:
                before += 5
        return self.blocks if length - w.skip >= before else self.blocks + 1

    cdef int begin_block(self, int32_t id) noexcept:
        """A header block begins: a head, or the trailers of a message."""
        cdef H2Stream *s = <H2Stream *> nghttp2_session_get_stream_user_data(self.session, id)
        self.blocks += 1
        self.block_bytes = 0
        self.block_frames = 1
        if s == NULL:
            s = self.opened(id)
        elif s.protocol_len and s.head_whole:   # RFC 9113, section 8.5: no trailers in a tunnel
            nghttp2_submit_rst_stream(self.session, NGHTTP2_FLAG_NONE, id, H2_PROTOCOL_ERROR)
            s = NULL
        self.reading = s
        return 0 if s != NULL else NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE

    cdef H2Stream *new_stream(self, int32_t id) noexcept nogil:
        cdef H2Stream *s = <H2Stream *> calloc(1, sizeof(H2Stream))
        if s == NULL:
            return NULL
        s.id = id
        s.next = self.streams
        if s.next != NULL:
            s.next.previous = s
        self.streams = s
        self.n_streams += 1
        return s

    cdef int take_field(self, const uint8_t *name, size_t n, const uint8_t *value, size_t m) noexcept:
        cdef H2Stream *s = self.reading
        # A block may decode to thousands of times its length: what is too long to be kept is not even decoded on.
        self.block_bytes += <uint32_t> (n + m + 32)
        if self.block_bytes > BLOCK_BYTES_TIMES * max(self.limits.head, <uint32_t> 8192):
            self.terminate(H2_ENHANCE_YOUR_CALM, b"header block too large")
            return NGHTTP2_ERR_CALLBACK_FAILURE
        if s == NULL or s.refused:
            return 0
        if text_end(value, 0, m) != m:          # a line of HTTP/1.1 must not become two
            s.refused = 400
            return 0
        if s.head_whole:
            return self.take_trailer(s, name, n, value, m)
        if n and name[0] == c":":
            return self.take_pseudo(s, name, n, value, m)
        if s.lines_at == 0:
            s.lines_at = <uint32_t> s.head.len
        s.fields += 1
        if (s.fields > self.limits.fields or n + m + 4 > self.limits.line
                or s.head.len + s.cookie.len + n + m + 4 > self.limits.head):
            s.refused = 431
            return 0
        return self.take_line(s, name, n, value, m)

    cdef int take_trailer(self, H2Stream *s, const uint8_t *name, size_t n, const uint8_t *value, size_t m) noexcept:
        if trailer_forbidden(name, n) or s.trailers.len + n + m + 4 > TRAILERS_MAX:
            return 0
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE if append_line(&s.trailers, name, n, value, m) < 0 else 0

    # --- out

    cdef void send_all(self) noexcept:
        cdef const uint8_t *p = NULL
        cdef ssize_t n
        arena_wake(&self.arena)
        while self.failed or self.has_room():   # the frames of an end are few
            n = nghttp2_session_mem_send(self.session, &p)
            if n == 0:
                break
            if n < 0 or self.put(p, n) < 0:
                self.failed = True
                if self.fault == NULL:
                    self.fault = b"out of memory"
                return
        self.tell_drained()

    cdef void note_drained(self, H2Stream *s) noexcept nogil:
        if not s.drained:
            s.drained = True
            s.next_drained = self.drained
            self.drained = s

    cdef void tell_drained(self) noexcept:
        cdef H2Stream *s
        while self.drained != NULL:
            s = self.drained
            self.drained = s.next_drained
            s.drained = False
            if s.unread:
                self.on_unread(s)
            else:
                self.on_stream_drained(s)

    cdef bint finished(self) noexcept nogil:
        arena_wake(&self.arena)
        return not nghttp2_session_want_read(self.session) and not nghttp2_session_want_write(self.session)

    cdef void sleep(self) noexcept nogil:
        if self.streams == NULL and not self.failed and not nghttp2_session_want_write(self.session):
            arena_sleep(&self.arena)

    cdef int append(self, H2Stream *s, const uint8_t *p, size_t n) noexcept:
        cdef size_t before = s.out.bytes
        cdef int r = queue_append(&s.out, p, n)
        self.waiting += s.out.bytes - before
        if r < 0:
            self.reset(s, H2_INTERNAL_ERROR)
            return -1
        self.more(s)
        return 0

    cdef void append_chunk(self, H2Stream *s, Chunk *c) noexcept:
        self.waiting += c.end - c.start
        queue_push(&s.out, c)
        self.more(s)

    cdef void more(self, H2Stream *s) noexcept:
        if s.out.bytes > H2_STREAM_HIGH or self.waiting > H2_SESSION_HIGH:
            s.was_full = True
        if s.deferred:
            s.deferred = False
            nghttp2_session_resume_data(self.session, s.id)

    cdef void end(self, H2Stream *s, const uint8_t *trailers, size_t n) noexcept:
        s.body_done = True
        if n and bytes_append(&s.out_trailers, trailers, n) < 0:
            self.reset(s, H2_INTERNAL_ERROR)
            return
        if s.deferred:
            s.deferred = False
            nghttp2_session_resume_data(self.session, s.id)

    cdef void consumed(self, H2Stream *s, size_t n) noexcept:
        s.held -= n
        self.held -= n
        if n and nghttp2_session_consume_stream(self.session, s.id, n) != 0:
            self.terminate(H2_INTERNAL_ERROR, b"out of memory")
        self.settle()

    cdef void settle(self) noexcept:
        """The connection's window is for all streams: it opens again at once, so that a stream whose content nobody takes
        does not hold up the others; unless so many have none taken that they hold another window full."""
        if self.owed and self.held <= self.window:
            arena_wake(&self.arena)             # the last of it may have outlived its stream
            if nghttp2_session_consume_connection(self.session, self.owed) != 0:
                self.terminate(H2_INTERNAL_ERROR, b"out of memory")
            self.owed = 0

    cdef void reset(self, H2Stream *s, uint32_t code) noexcept:
        s.body_done = True
        s.reset_by_us = True
        nghttp2_submit_rst_stream(self.session, NGHTTP2_FLAG_NONE, s.id, code)

    cdef int stuck(self, H2Stream *s) noexcept nogil:
        if s.out.bytes == 0:
            return NOT_STUCK
        if nghttp2_session_get_stream_remote_window_size(self.session, s.id) <= 0:
            return STUCK_STREAM
        return STUCK_CONNECTION if nghttp2_session_get_remote_window_size(self.session) <= 0 else NOT_STUCK

    cdef void drain(self) noexcept:
        if not self.draining:
            self.draining = True
            arena_wake(&self.arena)
            nghttp2_submit_goaway(self.session, NGHTTP2_FLAG_NONE,
                                  nghttp2_session_get_last_proc_stream_id(self.session), H2_NO_ERROR, NULL, 0)

    cdef void terminate(self, uint32_t code, const char *fault) noexcept:
        if not self.failed:
            self.failed = True
            self.fault = fault
            arena_wake(&self.arena)
            nghttp2_session_terminate_session(self.session, code)

    cdef void end_all(self) noexcept:
        cdef H2Stream *s = self.streams
        self.failed = True
        self.waiting = 0
        while s != NULL:
            queue_clear(&s.out)
            s = s.next

    cdef void spend(self, int cost) noexcept:
        self.credit -= cost
        if self.credit < 0:
            self.terminate(H2_ENHANCE_YOUR_CALM, b"too many frames that ask for nothing")

    cdef void earn(self, int credit) noexcept nogil:
        self.credit = min(self.credit + credit, CREDIT_MAX)

    cdef void forget(self, H2Stream *s) noexcept:
        cdef H2Stream **link = &self.drained
        if s.drained:
            while link[0] != s:
                link = &link[0].next_drained
            link[0] = s.next_drained
        if self.reading == s:
            self.reading = NULL
        if s.next != NULL:
            s.next.previous = s.previous
        if s.previous != NULL:
            s.previous.next = s.next
        else:
            self.streams = s.next
        self.n_streams -= 1
        self.held -= s.held
        self.waiting -= s.out.bytes
        bytes_free(&s.head)
        bytes_free(&s.cookie)
        bytes_free(&s.trailers)
        bytes_free(&s.out_trailers)
        queue_clear(&s.out)
        free(s)

    # --- for the consumer to override

    cdef void on_data(self, H2Stream *s, const uint8_t *p, size_t n) noexcept:
        """Content; `consumed` is called when it was passed on."""

    cdef void on_stream_drained(self, H2Stream *s) noexcept:
        """A stream that was full takes more."""

    cdef void on_stream_closed(self, H2Stream *s, uint32_t code) noexcept:
        """The stream is over, as it should (H2_NO_ERROR) or by a reset; s is gone afterwards."""

    cdef int put(self, const uint8_t *p, size_t n) noexcept:
        """Bytes for the peer; 0 or -1."""
        return -1

    cdef bint has_room(self) noexcept:
        """Whether `put` should be called now."""
        return True

    # --- for the role to override

    cdef int price(self, const nghttp2_frame_hd *hd) noexcept:
        """What a frame costs that begins to come."""
        if hd.type == NGHTTP2_RST_STREAM:
            return COST_RESET
        if hd.type == NGHTTP2_SETTINGS and not hd.flags & NGHTTP2_FLAG_ACK:
            return COST_SETTINGS
        if hd.type == NGHTTP2_PING and not hd.flags & NGHTTP2_FLAG_ACK:
            return COST_PING
        if hd.type == NGHTTP2_DATA:
            return COST_EMPTY_DATA if hd.length == 0 and not hd.flags & NGHTTP2_FLAG_END_STREAM else 0
        return COST_OTHER if hd.type != NGHTTP2_HEADERS else 0

    cdef H2Stream *opened(self, int32_t id) noexcept:
        """The peer opens a stream: its H2Stream, or NULL to refuse it."""
        return NULL

    cdef int take_pseudo(self, H2Stream *s, const uint8_t *name, size_t n, const uint8_t *value, size_t m) noexcept:
        """A pseudo-header field of a head; 0 or nghttp2's error."""
        return 0

    cdef int take_line(self, H2Stream *s, const uint8_t *name, size_t n, const uint8_t *value, size_t m) noexcept:
        """A field of a head."""
        s.has_length |= n == 14 and memcmp(name, b"content-length", 14) == 0
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE if append_line(&s.head, name, n, value, m) < 0 else 0

    cdef void finish_head(self, H2Stream *s) noexcept:
        """The block of a head has ended."""

    cdef void finish_message(self, H2Stream *s) noexcept:
        """All has come; s.trailers is what followed the content."""

    cdef void frame_came(self, const nghttp2_frame *frame) noexcept:
        """Any but HEADERS and DATA."""

    cdef void frame_sent(self, const nghttp2_frame *frame) noexcept:
        """Any but RST_STREAM and GOAWAY."""

    cdef void frame_not_sent(self, const nghttp2_frame *frame) noexcept:
        """nghttp2 could not."""

    cdef void on_unread(self, H2Stream *s) noexcept:
        """All that was to be sent now is; `unread` was set meanwhile."""


# --- pieces

cdef int append_line(Bytes *to, const uint8_t *name, size_t n, const uint8_t *value, size_t m) noexcept nogil:
    if bytes_reserve(to, n + m + 4) < 0:
        return -1
    bytes_append(to, name, n)
    bytes_append(to, b": ", 2)
    bytes_append(to, value, m)
    bytes_append(to, b"\r\n", 2)
    return 0


cdef inline uint32_t number31(const uint8_t *p) noexcept nogil:
    return (<uint32_t> p[0] & 0x7F) << 24 | <uint32_t> p[1] << 16 | <uint32_t> p[2] << 8 | p[3]


cdef nghttp2_data_provider content_of(H2Stream *s) noexcept nogil:
    cdef nghttp2_data_provider provider
    provider.source.ptr = s
    provider.read_callback = read_content
    return provider


# --- memory: what nghttp2 takes for its session stands in the arena, all else is malloc's

cdef void *allocate(size_t n, void *arena) noexcept nogil:
    cdef void *p = arena_take(<Arena *> arena, n)
    return p if p != NULL else malloc(n)


cdef void *allocate_zeroed(size_t count, size_t size, void *arena) noexcept nogil:
    cdef void *p = arena_take(<Arena *> arena, count * size) if size and count <= ARENA_BYTES // size else NULL
    return p if p != NULL else calloc(count, size)


cdef void give_back(void *p, void *arena) noexcept nogil:
    if not arena_owns(<Arena *> arena, p):
        free(p)


cdef void *resize(void *p, size_t n, void *arena) noexcept nogil:
    cdef void *moved
    cdef size_t rest
    if p == NULL:
        return allocate(n, arena)
    if not arena_owns(<Arena *> arena, p):
        return realloc(p, n)
    moved = malloc(n)
    if moved != NULL:                       # as much as can have been there: its old size is not known
        rest = (<Arena *> arena).memory + ARENA_BYTES - <uint8_t *> p
        memcpy(moved, p, min(n, rest))
    return moved


# --- what nghttp2 calls

cdef ssize_t read_content(nghttp2_session *session, int32_t id, uint8_t *buf, size_t length, uint32_t *flags,
                          nghttp2_data_source *source, void *user) noexcept nogil:
    cdef H2Stream *s = <H2Stream *> source.ptr
    cdef nghttp2_nv nv[MAX_FIELDS]
    cdef size_t n = min(length, s.out.bytes)
    if n == 0 and not s.body_done:
        s.deferred = True
        return NGHTTP2_ERR_DEFERRED
    flags[0] |= NGHTTP2_DATA_FLAG_NO_COPY
    if s.body_done and n == s.out.bytes:
        flags[0] |= NGHTTP2_DATA_FLAG_EOF
        if s.out_trailers.len:
            if nghttp2_submit_trailer(session, id, nv, set_trailers(nv, &s.out_trailers, MAX_FIELDS)) == 0:
                flags[0] |= NGHTTP2_DATA_FLAG_NO_END_STREAM
    return <ssize_t> n


cdef int send_content(nghttp2_session *session, nghttp2_frame *frame, const uint8_t *header, size_t length,
                      nghttp2_data_source *source, void *user) noexcept:
    cdef H2Session self = <H2Session> user
    cdef H2Stream *s = <H2Stream *> source.ptr
    cdef Chunk *c
    cdef size_t part
    cdef size_t sent = length
    cdef int r = self.put(header, 9)
    while length and r == 0:
        c = s.out.head
        part = min(length, <size_t> (c.end - c.start))
        r = self.put(c.data + c.start, part)
        length -= part
        s.out.bytes -= part
        s.sent += part
        self.waiting -= part
        self.sent += part
        c.start += <uint32_t> part
        if c.start == c.end:
            chunk_release(queue_pop(&s.out))
    if r < 0:
        return NGHTTP2_ERR_CALLBACK_FAILURE
    # A window that lets only crumbs through earns nothing: each costs us a frame (CVE-2019-9511).
    if s.out.bytes == 0 or sent >= CRUMB_MAX:
        self.earn(EARNED_BY_DATA)
    if s.was_full and s.out.bytes <= H2_STREAM_LOW:
        s.was_full = False
        self.note_drained(s)
    return 0


cdef int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *user) noexcept:
    return (<H2Session> user).begin_block(frame.hd.stream_id)


cdef int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t n,
                   const uint8_t *value, size_t m, uint8_t flags, void *user) noexcept:
    return (<H2Session> user).take_field(name, n, value, m)


cdef int on_invalid_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t n,
                           const uint8_t *value, size_t m, uint8_t flags, void *user) noexcept:
    """A field that makes the message malformed (RFC 9113, section 8.1.1); nghttp2 would pass over it."""
    nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, frame.hd.stream_id, H2_PROTOCOL_ERROR)
    return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE


cdef int on_begin_frame(nghttp2_session *session, const nghttp2_frame_hd *hd, void *user) noexcept:
    cdef H2Session self = <H2Session> user
    if hd.type == NGHTTP2_CONTINUATION:
        self.block_frames += 1
        self.spend(COST_CONTINUATION)
        if self.block_frames > BLOCK_FRAMES_MAX:
            self.terminate(H2_ENHANCE_YOUR_CALM, b"header block of too many frames")
        return NGHTTP2_ERR_CALLBACK_FAILURE if self.failed else 0
    if hd.type == NGHTTP2_HEADERS:
        self.check_stream(hd.type, hd.stream_id)
    elif hd.type == NGHTTP2_PRIORITY and hd.stream_id == 0:         # RFC 9113, section 6.3
        self.terminate(H2_PROTOCOL_ERROR, b"PRIORITY for the connection")
    self.spend(self.price(hd))
    return NGHTTP2_ERR_CALLBACK_FAILURE if self.failed else 0


cdef int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *user) noexcept:
    cdef H2Session self = <H2Session> user
    cdef H2Stream *s
    cdef bint ended
    if frame.hd.type != NGHTTP2_HEADERS and frame.hd.type != NGHTTP2_DATA:
        self.frame_came(frame)
        return 0
    s = <H2Stream *> nghttp2_session_get_stream_user_data(session, frame.hd.stream_id)
    if s == NULL or s.reset_by_us:
        return 0
    ended = frame.hd.flags & NGHTTP2_FLAG_END_STREAM
    s.peer_ended |= ended
    if frame.hd.type == NGHTTP2_HEADERS and not s.head_whole:
        self.finish_head(s)
    elif ended:
        self.finish_message(s)
    return 0


cdef int on_invalid_frame(nghttp2_session *session, const nghttp2_frame *frame, int code, void *user) noexcept:
    """nghttp2 resets the stream."""
    cdef H2Stream *s = <H2Stream *> nghttp2_session_get_stream_user_data(session, frame.hd.stream_id)
    if s != NULL:
        s.reset_by_us = True
    return 0


cdef int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *p, size_t n,
                       void *user) noexcept:
    cdef H2Session self = <H2Session> user
    cdef H2Stream *s = <H2Stream *> nghttp2_session_get_stream_user_data(session, id)
    self.owed += n
    if s != NULL and not s.reset_by_us:
        s.held += n
        self.held += n
        self.on_data(s, p, n)
    self.settle()
    return 0


cdef int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *user) noexcept:
    """What a peer does that we have to reset a stream for it is charged as if it had done so. A GOAWAY with a code may be
    nghttp2's own: it has passed over all that comes since."""
    cdef H2Session self = <H2Session> user
    cdef H2Stream *s
    if frame.hd.type == NGHTTP2_GOAWAY:
        if frame.goaway.error_code != H2_NO_ERROR and not self.failed:
            self.failed = True
            self.fault = b"a fault of the whole connection"
    elif frame.hd.type != NGHTTP2_RST_STREAM:
        self.frame_sent(frame)
    elif blames_peer(frame.rst_stream.error_code):
        self.spend(COST_RESET)
        s = <H2Stream *> nghttp2_session_get_stream_user_data(session, frame.hd.stream_id)
        if s != NULL:
            s.reset_by_us = True
            if s.fault == NULL:
                s.fault = b"malformed"
    return 0


cdef inline bint blames_peer(uint32_t code) noexcept nogil:
    return (code == H2_PROTOCOL_ERROR or code == H2_FLOW_CONTROL_ERROR or code == H2_STREAM_CLOSED
            or code == H2_FRAME_SIZE_ERROR or code == H2_REFUSED_STREAM)


cdef int on_frame_not_send(nghttp2_session *session, const nghttp2_frame *frame, int code, void *user) noexcept:
    (<H2Session> user).frame_not_sent(frame)
    return 0


cdef int on_stream_close(nghttp2_session *session, int32_t id, uint32_t code, void *user) noexcept:
    cdef H2Session self = <H2Session> user
    cdef H2Stream *s = <H2Stream *> nghttp2_session_get_stream_user_data(session, id)
    if s != NULL:
        nghttp2_session_set_stream_user_data(session, id, NULL)
        self.closed[self.closed_at].id = id
        self.closed[self.closed_at].by = CLOSED_BY_US if s.reset_by_us else CLOSED_BY_PEER
        self.closed_at = (self.closed_at + 1) % CLOSED_KEPT
        if s.fault != NULL and code == H2_NO_ERROR:     # both ends were done before our reset went
            code = H2_PROTOCOL_ERROR
        self.on_stream_closed(s, code)
        self.forget(s)
        self.settle()
    return 0


cdef int prepare() except -1:
    global callbacks, options
    if nghttp2_session_callbacks_new(&callbacks) != 0 or nghttp2_option_new(&options) != 0:
        raise MemoryError
    nghttp2_session_callbacks_set_on_begin_frame_callback(callbacks, on_begin_frame)
    nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, on_begin_headers)
    nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header)
    nghttp2_session_callbacks_set_on_invalid_header_callback(callbacks, on_invalid_header)
    nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame_recv)
    nghttp2_session_callbacks_set_on_invalid_frame_recv_callback(callbacks, on_invalid_frame)
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data_chunk)
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, on_frame_send)
    nghttp2_session_callbacks_set_on_frame_not_send_callback(callbacks, on_frame_not_send)
    nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_stream_close)
    nghttp2_session_callbacks_set_send_data_callback(callbacks, send_content)
    nghttp2_option_set_no_auto_window_update(options, 1)
    nghttp2_option_set_max_send_header_block_length(options, SEND_BLOCK_MAX)
    nghttp2_option_set_builtin_recv_extension_type(options, NGHTTP2_PRIORITY_UPDATE)
    return 0


prepare()