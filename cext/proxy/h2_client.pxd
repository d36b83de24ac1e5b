"""HTTP/2 on a client's connection: many requests at a time, each a stream with an exchange of its own."""

from cpython.object cimport PyObject
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.base.buffer cimport Bytes
from cext.base.timers cimport Timer
from cext.http.h2_server cimport H2Server
from cext.http.h2_session cimport H2Stream
from cext.http.message cimport Head
from cext.proxy.context cimport Context
from cext.proxy.downstream cimport Downstream, Session
from cext.proxy.exchange cimport Exchange, ResponseSink
from cext.proxy.timeouts cimport Outflow, WriteLimits

cdef class H2Client(Session):
    cdef Context ctx
    cdef Downstream client              # None once the connection is closed
    cdef ClientStreams streams
    cdef bint busy                      # bytes go in or out: what comes of them is sent afterwards
    cdef uint32_t requests              # that were begun, promised ones among them
    cdef uint32_t block                 # the header block that the read timer is for,
    cdef uint64_t block_began           # ms
    cdef Timer parting                  # until the last GOAWAY, after the one that warns
    cdef void send(self) noexcept
    cdef void rest_again(self) noexcept
    cdef void send_later(self) noexcept
    cdef void await_client(self) noexcept
    cdef void part(self) noexcept
    cdef void end_requests(self, const char *why) noexcept

cdef class ClientStreams(H2Server):
    cdef PyObject *home                 # the H2Client that holds this, borrowed
    cdef H2Client client_of(self)
    cdef H2Request adopt(self, H2Stream *s)

cdef class H2Request(ResponseSink):
    cdef H2Client home
    cdef H2Stream *stream               # NULL once it is closed
    cdef Exchange exchange              # None before and after
    cdef Bytes held                     # content that the upstream does not take yet: at most the stream's window; of a
                                        # tunnel it outlives the stream
    cdef Timer reading                  # the client is to send more of its content
    cdef Timer stalled                  # the client is to take something of the response
    cdef WriteLimits writes
    cdef Outflow flow                   # what it takes of this stream,
    cdef uint64_t taken_of_all          # and had taken of all streams at the last look
    cdef bint head_only                 # the request is a HEAD
    cdef uint8_t promises               # made for this response,
    cdef Bytes promised                 # and their request lines
    cdef uint64_t wire_in, wire_out
    cdef void begin(self, const Head *h) noexcept
    cdef void adopt(self, Exchange x) noexcept
    cdef void refuse(self, int status, const char *text) noexcept
    cdef void push(self, Exchange x, const Head *h) noexcept
    cdef bint note_promise(self, const Bytes *text) noexcept
    cdef void pass_on(self) noexcept
    cdef void taken(self, size_t n) noexcept
    cdef void end_request(self) noexcept
    cdef void await_content(self) noexcept
    cdef void take(self, const uint8_t *p, size_t n) noexcept
    cdef void request_ended(self) noexcept
    cdef void finish(self, const char *why) noexcept
    cdef void watch(self) noexcept
    cdef void look_again(self) noexcept
    cdef const char *look(self) noexcept
    cdef void closed(self, const char *why) noexcept
    cdef void leave(self) noexcept
