"""The side of the servers: what one request is sent through (UpstreamRequest), who sends it (UpstreamUser), and the
connection beneath (UpstreamConnection), of which each protocol is a subclass: H1Upstream (h1_upstream), whose requests
follow each other, and H2Upstream (h2_upstream), which has many at a time.

    UpstreamUser (an exchange)  --calls-->  UpstreamRequest  --writes to-->  UpstreamConnection
                                <--on_*---                   <--parses for--

A user gets a request from the pool (UpstreamGroup.take), waits for on_connected while `connecting`, and then calls
send_head, send and send_end, each followed by flush; it is told of the response by on_interim, on_head, on_data,
on_chunk, on_batch and on_end. After on_end it calls release; to give up at any time before, drop; after on_lost nothing.
Every callback may release or drop the request: who calls one looks at `user` again afterwards.
"""

from libc.stdint cimport uint8_t, uint32_t

from cext.base.buffer cimport Bytes, Chunk
from cext.base.stats cimport Counted
from cext.base.timers cimport Timer, TimerOwner
from cext.http.h1_reader cimport BodyReader
from cext.http.message cimport Head, Limits
from cext.net.address cimport Address
from cext.net.stream cimport Stream, TcpSettings
from cext.proxy.context cimport Context
from cext.tls.connection cimport Connection
from cext.tls.session cimport Session

cdef enum UpstreamLoss:
    LOST_CONNECT = 1            # no connection came about: nothing was sent
    LOST_CLOSED = 2             # ended or broke before the response was whole
    LOST_BAD_RESPONSE = 3       # what came is no response
    LOST_HANDSHAKE = 4          # connected, but not to a server as it is configured (TLS, protocol): nothing was sent
    LOST_REFUSED = 5            # the server has not processed it, and says so: it may be sent again
    LOST_RESET = 6              # the server has ended this request alone before the response was whole

cdef Limits RESPONSE_LIMITS

cdef class UpstreamRequest
cdef class UpstreamConnection

cdef class UpstreamUser(TimerOwner):
    """Who a request is for. Memory passed in is valid during the call."""
    cdef void on_connected(self, UpstreamRequest u) noexcept
    cdef void on_lost(self, UpstreamRequest u, int loss, int error) noexcept
    cdef void on_interim(self, UpstreamRequest u, const Head *h) noexcept
    cdef void on_switched(self, UpstreamRequest u, const Head *h) noexcept
    cdef void on_head(self, UpstreamRequest u, const Head *h) noexcept
    cdef void on_data(self, UpstreamRequest u, const uint8_t *p, size_t n) noexcept
    cdef void on_chunk(self, UpstreamRequest u, Chunk *c) noexcept
    cdef void on_end(self, UpstreamRequest u, const BodyReader *trailers) noexcept
    cdef void on_batch(self, UpstreamRequest u) noexcept
    cdef void on_drained(self, UpstreamRequest u) noexcept

cdef class UpstreamHome(Counted):
    """Where a connection belongs: its server in the pool."""
    cdef TcpSettings tcp
    cdef object tls                 # ClientConfig; None: plain TCP
    cdef Session session            # the newest of the server's, to be resumed by the next connection
    cdef void take_back(self, UpstreamConnection c) noexcept
    cdef void on_room(self, UpstreamConnection c) noexcept
    cdef void on_gone(self, UpstreamConnection c, int loss, int error) noexcept
    cdef void give_up(self, UpstreamRequest u) noexcept

cdef class UpstreamRequest:
    """One request at a server, and the response to it.

    A tunnel: the user sets `switching` before send_head when the head asks for an upgrade. A 101 is then told by
    on_switched (without it, it is LOST_BAD_RESPONSE), within which the user calls begin_tunnel. From then on bytes
    pass as they are: what comes by on_data and on_batch, what goes by send and flush, with the same backpressure.
    on_end says that the server will send no more; our direction stays open until shut_writing, and the request until
    drop. An error is told by on_lost. A final head instead of the 101 is an ordinary response.
    """
    cdef UpstreamUser user          # who is told; None: nobody any more
    cdef UpstreamHome home          # the Server in the pool
    cdef bint connecting            # on_connected is to come: nothing may be sent before
    cdef bint closed                # nothing can be sent any more; from take: it could not begin, see `error`
    cdef bint queued                # while `connecting`: all connections there may be are full; not the server's fault
    cdef bint reused                # its connection has answered others before
    cdef bint answered              # a byte of the response has come
    cdef bint paused                # its user's client is slow: nothing more of the response is reported
    cdef bint switching             # set by the user: a 101 is awaited
    cdef int error                  # errno of a connect that failed at once
    cdef str reason                 # what else is known of a loss; None: nothing
    cdef int method                 # Method of the request

    cdef int send_head(self, const uint8_t *p, size_t n, int framing, bint ended) noexcept
    # The request's head, as write_request wrote it; `framing` of its content, of which with `ended` there is none.
    # 0, or -1 when out of memory, as the next two.
    cdef int send(self, const uint8_t *p, size_t n) noexcept
    # Content, n > 0: its framing is added here. In a tunnel, bytes.
    cdef int send_end(self, const BodyReader *trailers) noexcept
    # The content is whole: not called when send_head said `ended`.
    cdef void flush(self) noexcept
    # What was given goes out. on_drained, or on_lost, may come before this returns.
    cdef bint takes_more(self) noexcept nogil
    # Whether content should be sent now; when it is not, on_drained follows once it may be.
    cdef size_t unsent(self) noexcept nogil
    # Bytes that the server has still to take: when that changes, it takes some.
    cdef void pause(self) noexcept
    # No more of the response is reported than what one read brought; the server is held up once buffers are full.
    cdef void resume(self) noexcept
    cdef void release(self) noexcept
    # After on_end, when the whole request was sent: the connection may serve others.
    cdef void drop(self) noexcept
    # Gives up, without a word to the user: the connection is closed (HTTP/1.1), the stream reset (HTTP/2).
    cdef int begin_tunnel(self) noexcept
    # Within on_switched; 0, or -1: this protocol has no tunnels.
    cdef void shut_writing(self) noexcept
    # Of a tunnel: no more will be sent, once what was given has gone; the server may still send.
    cdef bint all_sent(self) noexcept nogil
    # Of a tunnel: whether what was given has gone. When it has not, on_drained follows.
    cdef void cut(self) noexcept
    # drop, of a tunnel: the server sees a reset, not an end.

cdef class UpstreamConnection(Stream):
    """A connection to a server: socket and TLS. What is spoken on it is a subclass's business."""
    cdef Context ctx
    cdef UpstreamHome home
    cdef Connection tls             # None: plain TCP
    cdef bint connecting            # TCP
    cdef bint ready                 # connected, and secure where it is to be
    cdef bint pumping
    cdef bint broken                # sending has failed: what came before that is still read
    cdef bint shut_when_sent        # our side is to be shut once `out` has gone
    cdef Bytes pending              # read, but not yet enough to parse, or to open: part of a record
    cdef Bytes plain                # of TLS: opened, but not yet enough to parse
    cdef Chunk *filling             # of TLS: plaintext of the next record
    cdef str reason                 # why it ends, where there is more to say than an errno
    cdef Timer idle
    # for the protocol
    cdef int open(self, const Address *where) noexcept
    cdef int write(self, const uint8_t *p, size_t n) noexcept
    cdef void flush(self) noexcept
    cdef void pump(self) noexcept
    cdef void show_again(self) noexcept
    cdef void finish_writing(self) noexcept
    cdef bint still_open(self) noexcept
    cdef void close(self) noexcept
    cdef void cut(self) noexcept
    # the protocol's own
    cdef void on_ready(self) noexcept
    cdef bint wants_input(self) noexcept
    cdef size_t on_bytes(self, const uint8_t *p, size_t n) noexcept
    cdef size_t wants_chunks(self) noexcept
    cdef void on_chunks(self, Chunk **chunks, int n, size_t size) noexcept
    cdef void on_read(self) noexcept
    cdef void on_sent(self) noexcept
    cdef void on_ended(self, int error) noexcept
    cdef void lose(self, int loss, int error) noexcept
    cdef bint is_idle(self) noexcept
    # its own
    cdef void on_connect(self) noexcept
    cdef ssize_t read_scratch(self) noexcept
    cdef ssize_t read_chunks(self) noexcept
    cdef ssize_t read_records(self) noexcept
    cdef size_t open_records(self, uint8_t *p, size_t n) noexcept
    cdef void deliver(self, uint8_t *p, size_t n) noexcept
    cdef void fail_tls(self, str reason) noexcept
    cdef int seal_filling(self) noexcept
