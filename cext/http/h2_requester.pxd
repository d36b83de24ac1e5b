"""The asking end of HTTP/2 (RFC 9113): requests out, responses in; frames and content as h2_session has them.

A stream is the requester's own from `request` until on_stream_closed, which comes for each once and says by its code how
it ended: H2_NO_ERROR as it should, H2_REFUSED_STREAM when the peer has not processed it (by a reset, or by a GOAWAY that
left it out), so that it may be sent again (section 8.7). `fault` in the stream is what was wrong with a response.

A response may be whole before its request is: on_response_end has come, the stream is still there. Whoever does not want
to send the rest resets it with H2_NO_ERROR.
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t

from cext.base.buffer cimport Bytes
from cext.http.h2_session cimport H2Session, H2Settings, H2Stream
from cext.http.message cimport Head, Limits

cdef class H2Requester(H2Session):
    cdef uint32_t most                  # streams that we open at the same time
    cdef bint met                       # the peer's SETTINGS have come
    cdef bint left                      # its GOAWAY has: no request can begin any more

    cdef int open(self, const H2Settings *settings, const Limits *limits, Head *scratch) except -1
    # Preface and our SETTINGS stand in the output; requests need not wait for the peer's. `limits` are those of responses,
    # settings.max_streams is how many requests there may be at the same time. MemoryError.
    cdef uint32_t room(self) noexcept nogil
    # How many requests may begin now: by the peer's SETTINGS_MAX_CONCURRENT_STREAMS, our own limit, and neither end's
    # leaving.
    cdef H2Stream *request(self, const Bytes *text, bint https, bint content) noexcept
    # A request, told as text of HTTP/1.1 (origin-form target, Host; of its fields, those that end at this hop are left
    # out), which is only read. With `content`, append_* and end() follow. Its `owner` is the caller's to set. NULL: no such
    # request, no room, or no memory.

    # --- the consumer's; heads are valid during the call
    cdef void on_interim(self, H2Stream *s, const Head *h) noexcept
    cdef void on_response(self, H2Stream *s, const Head *h, bint ended) noexcept
    cdef void on_response_end(self, H2Stream *s) noexcept
    cdef void on_settings(self) noexcept
    cdef void on_goaway(self, int32_t last_id, uint32_t code) noexcept

    # --- private
    cdef void refuse(self, H2Stream *s, const char *fault) noexcept
    cdef int write_head(self, H2Stream *s, Bytes *text) noexcept nogil
