"""The server's part of HTTP/2 (RFC 9113): requests in, responses and promises out; frames and content as h2_session has
them."""

from libc.stdint cimport uint8_t

from cext.base.buffer cimport Bytes
from cext.http.h2_session cimport H2Session, H2Settings, H2Stream
from cext.http.message cimport Head, Limits
from cext.lib.nghttp2 cimport nghttp2_nv

cdef class H2Server(H2Session):
    cdef bint served                    # a request has come
    cdef bint warned                    # the GOAWAY before the last is submitted: the peer should open no more streams

    cdef int open(self, const H2Settings *settings, const Limits *limits, Head *scratch) except -1
    # Our SETTINGS stand in the output. MemoryError.
    cdef int respond(self, H2Stream *s, const Head *h, const char *date, bint content) noexcept
    # The final head of an upstream's response; with `content`, bytes follow by append_*. 0 or -1 (the stream is reset).
    # A 2xx (with `content`) takes an extended CONNECT: see on_request.
    cdef int respond_interim(self, H2Stream *s, const Head *h) noexcept
    cdef int respond_simple(self, H2Stream *s, int status, const char *date, const char *text, bint head_only) noexcept
    cdef bint takes_promises(self) noexcept nogil
    # Whether the peer wants pushes (section 6.5.2).
    cdef int promise(self, H2Stream *parent, Bytes *text) noexcept
    # PUSH_PROMISE of a request, told as text of HTTP/1.1, which becomes the stream's; when it has been sent, on_request
    # follows. 0 or -1: no such request, or no stream for it.
    cdef void warn(self) noexcept
    # GOAWAY that lets requests on their way be served: the peer should open no more streams (section 6.8).

    # --- the consumer's
    # An extended CONNECT (RFC 8441), where settings.connect_protocol lets it come, is a request with METHOD_CONNECT, a
    # path and host as others have them, and `protocol` in its Head; FRAMING_NONE, but not `ended`. Once it is taken,
    # on_data and append_* are the tunnel's bytes, on_request_end and `end` its half-closes, a reset with H2_CANCEL is what
    # TCP does by RST. A plain CONNECT has no `protocol` and no path.
    cdef void on_request(self, H2Stream *s, Head *h, bint ended) noexcept
    cdef void on_refused(self, H2Stream *s, int status) noexcept
    cdef void on_request_end(self, H2Stream *s) noexcept
    cdef void on_reset_due(self) noexcept

    # --- private
    cdef int write_head(self, H2Stream *s, Bytes *text) noexcept nogil
    cdef int submit(self, H2Stream *s, const nghttp2_nv *nv, size_t n, bint content) noexcept
    cdef void promised(self, H2Stream *s) noexcept
