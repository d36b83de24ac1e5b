"""HTTP/2 (RFC 9113) on one connection, by nghttp2: what both ends have in common. The server's part is h2_server's, that
of who asks h2_requester's.

Bytes in, bytes out, and what happens to each stream in between. A head becomes the text that HTTP/1.1 would have for it
and is read by h1_reader: one set of rules says what a request or a response is, and whatever speaks for it further on is
the same Head. The consumer overrides the on_* functions; within them it may answer, reset and submit whatever it likes,
but bytes go in and out only between them.
"""

from libc.stdint cimport int32_t, uint8_t, uint16_t, uint32_t, uint64_t

from cext.base.arena cimport Arena
from cext.base.buffer cimport Bytes, Chunk, ChunkQueue
from cext.http.message cimport Head, Limits
from cext.lib.nghttp2 cimport (
    nghttp2_data_provider, nghttp2_frame, nghttp2_frame_hd, nghttp2_session, nghttp2_settings_entry)

cdef enum H2Error:                      # RFC 9113, section 7
    H2_NO_ERROR = 0
    H2_PROTOCOL_ERROR = 1
    H2_INTERNAL_ERROR = 2
    H2_FLOW_CONTROL_ERROR = 3
    H2_STREAM_CLOSED = 5
    H2_FRAME_SIZE_ERROR = 6
    H2_REFUSED_STREAM = 7
    H2_CANCEL = 8
    H2_ENHANCE_YOUR_CALM = 11

cdef struct H2Stream:
    int32_t id
    void *owner                         # the consumer's, borrowed; NULL before and after
    # what comes
    Bytes head                          # pseudo-header fields, then field lines, until the head is whole
    uint32_t lines_at                   # where the field lines begin
    Bytes trailers                      # "Name: value\r\n" lines that may be passed on
    uint16_t fields
    uint16_t refused                    # status for a head that is none
    bint has_length                     # a content-length field
    bint head_whole
    bint peer_ended                     # END_STREAM has come
    bint reset_by_us                    # from then on nobody is told of what comes
    const char *fault                   # what was wrong with what came, where that ends the stream
    size_t held                         # bytes of content that on_data got and nobody consumed yet
    # what goes
    bint head_only                      # the request is a HEAD
    bint body_done                      # nothing is appended to `out` any more
    bint deferred                       # nghttp2 has found nothing to send
    bint was_full                       # `out` went over H2_STREAM_HIGH
    bint drained                        # the consumer is to be told: it is below H2_STREAM_LOW since, or
    bint unread                         # our message is whole, and the peer's goes on for nobody
    ChunkQueue out                      # content that waits for the windows
    uint64_t sent                       # bytes of content that went out
    Bytes out_trailers                  # encoded as trailers
    # a server's
    uint32_t method_len, path_len, authority_len, protocol_len      # they stand in head in this order of arrival:
    uint32_t method_at, path_at, authority_at, protocol_at
    Bytes cookie                        # crumbs of it, joined (section 8.2.3)
    bint tunnel                         # an extended CONNECT that was taken: DATA are its bytes, each way ends by itself
    bint pushed                         # a promise of ours: `head` is the request's text until that is sent
    # a requester's
    uint8_t method                      # Method of the request
    uint8_t interims                    # 1xx heads that came
    # of the session
    H2Stream *next                      # all its streams
    H2Stream *previous
    H2Stream *next_drained

cdef enum:
    CLOSED_KEPT = 16                    # of the streams that are over, those whose end is remembered

cdef enum ClosedBy:
    CLOSED_UNKNOWN = 0
    CLOSED_BY_PEER = 1                  # it has ended or reset the stream: nothing may follow
    CLOSED_BY_US = 2                    # by a reset that it may not have seen yet

cdef struct ClosedStream:
    int32_t id
    uint8_t by                          # ClosedBy

cdef struct FrameWalk:                  # where in its frames the peer's stream of bytes is
    uint32_t skip                       # bytes of the preface or of a payload that are passed over
    bint ends_block                     # behind `skip` a header block is whole
    uint8_t got                         # of the bytes below
    uint8_t head[14]                    # a frame's header, and a PRIORITY frame's payload

cdef enum:
    H2_STREAM_HIGH = 128 * 1024         # bytes of content that wait in one stream: then it is full,
    H2_STREAM_LOW = 32 * 1024           # until it has so many
    H2_SESSION_HIGH = 4 * 1024 * 1024   # bytes that wait in all streams: then each that gets more is full

cdef enum H2Stuck:
    NOT_STUCK = 0
    STUCK_STREAM = 1
    STUCK_CONNECTION = 2

cdef struct H2Settings:
    uint32_t max_streams                # open at the same time
    uint32_t stream_window              # bytes that may come on a stream before they are consumed
    uint32_t connection_window
    uint32_t max_header_list            # bytes, told to the peer
    bint connect_protocol               # extended CONNECT (RFC 8441)

cdef class H2Session:
    cdef nghttp2_session *session       # not to be touched asleep
    cdef Arena arena                    # what nghttp2 keeps for as long as the connection lasts
    cdef Head *scratch                  # where heads are parsed to; valid within the call that tells of one
    cdef Limits limits
    cdef H2Stream *streams
    cdef uint32_t n_streams
    cdef H2Stream *drained              # whose consumer is to be told
    cdef H2Stream *reading              # whose header block is being received
    cdef uint32_t blocks                # header blocks that have begun
    cdef uint32_t block_bytes           # decoded so far of the newest
    cdef uint32_t block_frames
    cdef size_t window                  # the connection's, bytes
    cdef size_t held                    # of all streams
    cdef size_t owed                    # bytes that came, by which the connection's window is not opened again yet
    cdef size_t waiting                 # bytes in `out` of all streams
    cdef uint64_t sent                  # bytes of content that went out
    cdef int32_t credit                 # what the peer may still do that costs us more than it
    cdef uint64_t credit_at             # ms
    cdef int32_t last_id                # of the streams that requests opened the newest
    cdef ClosedStream closed[CLOSED_KEPT]
    cdef uint8_t closed_at
    cdef FrameWalk walk
    cdef bint server                    # the end that requests come to
    cdef bint failed                    # the connection can only be closed, once what take_output gives has been sent
    cdef bint draining                  # the last GOAWAY is submitted: what the peer opens later is passed over
    cdef bint in_block                  # a header block is being received: its rest must follow
    cdef const char *fault              # why it failed, for the log

    cdef void receive(self, const uint8_t *p, size_t n, uint64_t now) noexcept
    # Takes all of p[:n]; `now` in ms, for rates. Afterwards look at `failed`, then send_all.
    cdef void send_all(self) noexcept
    # Writes what is to be sent now through put, as far as there is room; then on_stream_drained where it is due.
    cdef bint finished(self) noexcept nogil
    # Nothing more can come or go: close.
    cdef void sleep(self) noexcept nogil
    # Gives memory back, if no stream is open and nothing is to be sent, until anything else is called.

    cdef int append(self, H2Stream *s, const uint8_t *p, size_t n) noexcept
    # Content; 0, or -1 when out of memory (the stream is reset).
    cdef void append_chunk(self, H2Stream *s, Chunk *c) noexcept
    # the chunk becomes the stream's
    cdef void end(self, H2Stream *s, const uint8_t *trailers, size_t n) noexcept
    # The content is whole; `trailers`: "Name: value\r\n" lines, n 0 for none.
    cdef void consumed(self, H2Stream *s, size_t n) noexcept
    # n bytes of on_data have been passed on: the peer may send as many more on this stream
    cdef int stuck(self, H2Stream *s) noexcept nogil
    # H2Stuck: which window does not let content go.
    cdef void reset(self, H2Stream *s, uint32_t code) noexcept
    cdef void drain(self) noexcept
    # The last GOAWAY: what is open goes on, what the peer opens later is passed over.
    cdef void end_all(self) noexcept
    # The connection is gone: no function of nghttp2 is called any more, nobody is told anything, and the content that
    # waits is given back now, whoever still holds the session.
    cdef void terminate(self, uint32_t code, const char *fault) noexcept

    # --- the consumer's
    cdef void on_data(self, H2Stream *s, const uint8_t *p, size_t n) noexcept
    cdef void on_stream_drained(self, H2Stream *s) noexcept
    cdef void on_stream_closed(self, H2Stream *s, uint32_t code) noexcept
    cdef int put(self, const uint8_t *p, size_t n) noexcept
    cdef bint has_room(self) noexcept

    # --- the role's
    cdef int start(self, bint server, const nghttp2_settings_entry *iv, size_t n, const H2Settings *settings,
                   const Limits *limits, Head *scratch) except -1
    cdef int price(self, const nghttp2_frame_hd *hd) noexcept
    cdef H2Stream *opened(self, int32_t id) noexcept
    cdef int take_pseudo(self, H2Stream *s, const uint8_t *name, size_t n, const uint8_t *value, size_t m) noexcept
    cdef int take_line(self, H2Stream *s, const uint8_t *name, size_t n, const uint8_t *value, size_t m) noexcept
    cdef void finish_head(self, H2Stream *s) noexcept
    cdef void finish_message(self, H2Stream *s) noexcept
    cdef void frame_came(self, const nghttp2_frame *frame) noexcept
    cdef void frame_sent(self, const nghttp2_frame *frame) noexcept
    cdef void frame_not_sent(self, const nghttp2_frame *frame) noexcept
    cdef void on_unread(self, H2Stream *s) noexcept

    # --- private
    cdef void look_at(self, const uint8_t *p, size_t n) noexcept
    cdef int closed_by(self, int32_t id) noexcept nogil
    cdef void check_stream(self, int type, int32_t id) noexcept
    cdef int begin_block(self, int32_t id) noexcept
    cdef uint32_t partial_block(self) noexcept nogil
    cdef int take_field(self, const uint8_t *name, size_t n, const uint8_t *value, size_t m) noexcept
    cdef int take_trailer(self, H2Stream *s, const uint8_t *name, size_t n, const uint8_t *value, size_t m) noexcept
    cdef void more(self, H2Stream *s) noexcept
    cdef H2Stream *new_stream(self, int32_t id) noexcept nogil
    cdef void settle(self) noexcept
    cdef void forget(self, H2Stream *s) noexcept
    cdef void spend(self, int cost) noexcept
    cdef void earn(self, int credit) noexcept nogil
    cdef void note_drained(self, H2Stream *s) noexcept nogil
    cdef void tell_drained(self) noexcept

cdef int append_line(Bytes *to, const uint8_t *name, size_t n, const uint8_t *value, size_t m) noexcept nogil
# A field line of HTTP/1.1; 0 or -1.

cdef nghttp2_data_provider content_of(H2Stream *s) noexcept nogil
# Of a stream's `out`, for what nghttp2 submits.
