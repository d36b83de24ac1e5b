"""HTTP/1.1 on a client's connection: one request and its response at a time, pipelined ones in order."""

from libc.stdint cimport uint32_t, uint64_t, uint8_t

from cext.http.h1_reader cimport BodyReader
from cext.http.message cimport Head
from cext.proxy.context cimport Context
from cext.proxy.downstream cimport Downstream, Session
from cext.proxy.exchange cimport Exchange

cdef enum RequestPhase:
    REQUEST_HEAD = 0            # between requests, or in the middle of a head
    REQUEST_BODY = 1            # an exchange runs and its body is being read
    REQUEST_DONE = 2            # the whole request is read, the response is on its way
    REQUEST_REFUSED = 3         # no further request will be read here

cdef class H1Session(Session):
    cdef Context ctx
    cdef Downstream client              # None once the connection is closed
    cdef Exchange exchange
    cdef BodyReader body
    cdef uint8_t phase                  # RequestPhase
    cdef uint8_t minor                  # of the client's HTTP/1.x
    cdef uint8_t response_framing
    cdef uint8_t keep_alive
    cdef uint8_t head_begun             # bytes of the next head are there
    cdef uint8_t taking                 # on_plaintext runs: it goes on with the next request by itself
    cdef uint8_t draining
    cdef uint8_t head_only              # the request is a HEAD
    cdef uint32_t requests              # that were begun
    cdef uint32_t scanned               # of a head that is not whole yet
    cdef uint64_t wire_in               # heads and framing included; before a head is whole: when it began (ms)
    cdef uint64_t wire_out
    cdef size_t read_head(self, const uint8_t *p, size_t n) noexcept
    cdef void begin_exchange(self, uint64_t took) noexcept
    cdef void await_body(self) noexcept
    cdef size_t read_body(self, const uint8_t *p, size_t n) noexcept
    cdef void refuse(self, int status, const char *text, const char *why=*) noexcept
    cdef void refuse_head(self, int status, const char *text, const char *why=*) noexcept
    cdef void respond_simple(self, int status, const char *text) noexcept
    cdef void next_request(self) noexcept
    cdef int put_head(self, const Head *h, int framing) noexcept
    cdef int put(self, const uint8_t *p, size_t n) noexcept
