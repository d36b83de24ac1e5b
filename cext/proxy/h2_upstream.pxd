"""HTTP/2 to a server: many requests on one connection, each a stream.

A connection serves once the server's SETTINGS have come: before that, requests wait in its Server (see pool), and what
is there turns out to speak HTTP/2 or not while nothing has been sent that could be lost.
"""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint64_t

from cext.base.buffer cimport Bytes
from cext.base.timers cimport Timer
from cext.http.h2_requester cimport H2Requester
from cext.http.h2_session cimport H2Stream
from cext.proxy.upstream cimport UpstreamConnection, UpstreamRequest

cdef class H2Upstream

cdef class H2Request(UpstreamRequest):
    cdef H2Upstream connection      # None: waits for one, or has no stream any more
    cdef H2Stream *stream           # NULL before send_head, and once it is closed
    cdef Bytes held                 # content that its user does not take yet: at most the stream's window
    cdef Bytes trailers             # that follow it
    cdef bint whole                 # all of the response is here, as far as it is not held
    cdef bint touched               # on_batch is due
    cdef int take(self, const uint8_t *p, size_t n) noexcept
    cdef void finish(self) noexcept
    cdef void detach(self) noexcept
    cdef void lost(self, int loss, int error, str reason) noexcept

cdef class ServerStreams(H2Requester):
    cdef PyObject *home             # the H2Upstream that holds this, borrowed
    cdef H2Upstream connection(self)

cdef class H2Upstream(UpstreamConnection):
    cdef ServerStreams streams
    cdef H2Request opener           # for whom it connects: who gives up, gives this up, too
    cdef bint serving               # the server's SETTINGS have come, and no GOAWAY
    cdef bint answered              # it has sent a response
    cdef bint busy                  # bytes go in or out: what comes of them is sent afterwards
    cdef bint freed                 # there may be more room for requests than there was
    cdef bint held_up               # there was no room in `out` for all that was to be sent
    cdef bint over
    cdef Timer greeting             # until when the server's SETTINGS must have come
    cdef list touched               # H2Requests that on_batch is due for
    cdef int begin(self, uint64_t deadline) except -1
    cdef bint takes(self) noexcept
    cdef void adopt(self, H2Request r) noexcept
    cdef void rest(self, uint64_t deadline) noexcept
    cdef void retire(self) noexcept
    cdef void touch(self, H2Request r) noexcept
    cdef void send(self) noexcept
    cdef void send_later(self) noexcept
