"""An HTTPS load generator, closed-loop or at a rate, on the project's own loop, TLS client and HTTP reader.

A Generator keeps a number of Sessions busy; a Session is one connection. What is counted is an operation: in the
mode "handshake" a whole connection (connect, full handshake, one request, its response, the server's close), in
"requests" one request on a kept connection, in "idle" a connection that was opened, used once and held. "slow-write"
and "slow-read" are "handshake" by a client that sends a byte, or reads a few, once in an interval.
"""

import errno as errno_names
import os
import time

from libc.errno cimport EINPROGRESS, EINTR, errno
from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from bench.clock cimport Clock
from bench.frames cimport stream_ends
from bench.histogram cimport Histogram
from cext.base.buffer cimport Bytes, bytes_append, bytes_consume, bytes_free, queue_append
from cext.base.timers cimport Timer, timer_init
from cext.http.h1_reader cimport (
    BODY_DATA, BODY_END, BODY_ERROR, BODY_MORE, BodyReader, body_begin, body_eof, body_free, body_next,
    find_head_end, parse_response,
)
from cext.http.message cimport METHOD_GET, Head, Limits
from cext.lib.linux cimport (
    AF_INET,
    AF_INET6,
    CLOCK_MONOTONIC,
    EPOLLET,
    EPOLLIN,
    EPOLLRDHUP,
    SO_ERROR,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    clock_gettime,
    connect,
    getsockopt,
    htons,
    inet_pton,
    setsockopt,
    sockaddr,
    sockaddr_in,
    sockaddr_in6,
    sockaddr_storage,
    socket,
    socklen_t,
    timespec,
)
from cext.net.loop cimport Loop
from cext.net.stream cimport IO_AGAIN, IO_ERROR, Stream
from cext.tls.config cimport ClientConfig
from cext.tls.connection cimport (
    RECORD_HEADER,
    RECORD_OVERHEAD,
    TLS_CLOSE_NOTIFY,
    TLS_DATA,
    TLS_ESTABLISHED,
    TLS_FAILED,
    TLS_NEED_DATA,
    Connection,
)

cdef extern from "<sys/socket.h>" nogil:
    enum:
        SO_RCVBUF

cdef enum:
    SCRATCH = 256 * 1024
    RECORD_MAX = 5 + 16384 + 256        # a part of one may wait for its rest
    REQUEST_MAX = 8192
    TICK_MS = 20
    PACE_US = 50                        # how often a clocked run looks for requests that are due
    SLOW_READ = 1024                    # bytes at a time
    SLOW_BUFFER = 4096                  # what the kernel may take of a slow reader's input
    ERROR_KINDS_MAX = 50

cdef enum Mode:
    HANDSHAKE = 0
    REQUESTS = 1
    IDLE = 2
    SLOW_WRITER = 3
    SLOW_READER = 4

MODES = {
    "handshake": HANDSHAKE, "requests": REQUESTS, "idle": IDLE, "slow-write": SLOW_WRITER, "slow-read": SLOW_READER,
}

cdef enum TimerKind:
    TIMER_LIMIT = 0                     # an operation takes too long
    TIMER_PACE = 1                      # a slow client's next step

cdef enum Phase:                        # of a session, in order
    CONNECTING = 0
    HANDSHAKING
    RECEIVING                           # a request was sent
    CLOSING                             # the response is whole, the server's close is awaited
    RESTING                             # nothing is under way
    ENDED

PHASES = ("connecting", "in the handshake", "before the end of the response", "after the response", "while idle", "")

# Room for whatever a server sends: a load generator judges no style.
cdef Limits RESPONSE_LIMITS
RESPONSE_LIMITS.line = 16384
RESPONSE_LIMITS.head = 65536
RESPONSE_LIMITS.fields = 256


cdef uint64_t now_us() noexcept nogil:
    cdef timespec ts
    clock_gettime(CLOCK_MONOTONIC, &ts)
    return <uint64_t> ts.tv_sec * 1000000 + <uint64_t> ts.tv_nsec // 1000


cdef class Session(Stream):
    """One connection to the server."""

    cdef Generator owner
    cdef Connection tls
    cdef Timer limit
    cdef Timer pace
    cdef size_t sent                    # of the request, by a slow writer
    cdef Bytes partial                  # the beginning of a record
    cdef Bytes head                     # the beginning of a response's head
    cdef uint32_t scanned
    cdef bint in_body
    cdef BodyReader body
    cdef Phase phase
    cdef uint64_t opened                # µs
    cdef uint64_t started               # µs, of the operation under way
    cdef bint peer_closed               # with close_notify
    cdef bint last_response             # the server said it will close
    cdef bint warm                      # has had a response

    def __cinit__(self, Generator owner):
        self.owner = owner
        self.loop = owner.loop
        timer_init(&self.limit, self, TIMER_LIMIT)
        timer_init(&self.pace, self, TIMER_PACE)

    def __dealloc__(self):
        bytes_free(&self.partial)
        bytes_free(&self.head)
        body_free(&self.body)

    # ---- in the order of a connection's life ----

    cdef void open(self) noexcept:
        cdef int buffer = SLOW_BUFFER
        self.opened = self.started = now_us()
        self.fd = socket(self.owner.address.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if self.fd < 0:
            self.fail_errno("socket", errno)
            return
        if self.owner.mode == SLOW_READER:
            setsockopt(self.fd, SOL_SOCKET, SO_RCVBUF, &buffer, sizeof(buffer))
        if connect(self.fd, <sockaddr *> &self.owner.address, self.owner.address_length) < 0:
            if errno != EINPROGRESS and errno != EINTR:
                self.fail_errno("connect", errno)
                return
        self.owner.loop.timers.arm(&self.limit, self.loop.now + self.owner.timeout_ms)
        try:
            self.tls = Connection(self.owner.next_config(), self.owner.resumable)
        except Exception as e:
            self.fail(f"{type(e).__name__}: {e}")
            return
        # On a local network the connection mostly stands by now: its first flight goes out without an event.
        self.writable = True
        if self.queue_tls() < 0 or self.send_queue() == IO_ERROR:
            self.fail_errno("connect", self.error)
            return
        if self.out.head == NULL:
            self.phase = HANDSHAKING
        if self.watch() < 0:
            self.fail_errno("epoll_ctl", errno)

    cdef int watch(self) noexcept:
        """Waits for input, and for room to write only if something is left to be written."""
        if self.out.head != NULL:
            return self.attach()
        return self.loop.register(self, EPOLLIN | EPOLLRDHUP | <uint32_t> EPOLLET)

    cdef void on_event(self, uint32_t events) noexcept:
        cdef int error = 0
        cdef socklen_t n = sizeof(error)
        self.note_events(events)
        if self.phase == CONNECTING and (self.writable or self.hangup):
            getsockopt(self.fd, SOL_SOCKET, SO_ERROR, &error, &n)
            if error:
                self.fail_errno("connect", error)
                return
            self.phase = HANDSHAKING
        if self.flush() == 0 and self.readable and not self.reads_slowly():
            self.read(SCRATCH)

    cdef bint reads_slowly(self) noexcept:
        return self.owner.mode == SLOW_READER and self.phase == RECEIVING

    cdef int flush(self) noexcept:
        """Sends what is queued; -1 when the session has ended."""
        cdef int r
        if self.out.head == NULL:
            return 0
        r = self.send_queue()
        if r == IO_ERROR:
            # The server may have said why before it closed: that is the better reason.
            self.readable = True
            self.read(SCRATCH)
            if self.phase != ENDED:
                self.fail_errno("send", self.error)
            return -1
        if r == IO_AGAIN and self.registered:
            self.loop.unregister(self)
            if self.attach() < 0:
                self.fail_errno("epoll_ctl", errno)
                return -1
        return 0

    cdef void read(self, size_t most) noexcept:
        """Takes what has come, `most` bytes at a time: all of it, or one portion when it is a slow reader's."""
        cdef uint8_t *scratch = self.owner.scratch
        cdef size_t before = self.partial.len
        cdef ssize_t got
        while self.fd >= 0 and self.readable:
            got = self.receive_into(scratch + before, min(most, SCRATCH - before))
            if got == IO_AGAIN:
                return
            if got == IO_ERROR:
                self.fail_errno(PHASES[<int> self.phase], self.error)
                return
            if got == 0:
                self.on_end()
                return
            if before:
                memcpy(scratch, self.partial.data, before)
                bytes_consume(&self.partial, before)
            self.owner.bytes_read += got
            self.take_records(scratch, before + got)
            before = self.partial.len
            if self.reads_slowly():
                return

    cdef void take_records(self, uint8_t *p, size_t n) noexcept:
        cdef size_t consumed, data_len
        cdef uint8_t *data
        cdef int event
        while n and self.phase != ENDED:
            event = self.tls.receive(p, n, &consumed, &data, &data_len)
            if event == TLS_NEED_DATA:
                if n > RECORD_MAX or bytes_append(&self.partial, p, n) < 0:
                    self.fail("a record that does not end")
                return
            p += consumed
            n -= consumed
            if event == TLS_DATA:
                self.take_plaintext(data, data_len)
            elif event == TLS_ESTABLISHED:
                self.on_established()
            elif event == TLS_CLOSE_NOTIFY:
                self.peer_closed = True
                self.on_end()
            elif event == TLS_FAILED:
                if self.queue_tls() == 0:
                    self.send_queue()
                self.fail(f"tls: {self.tls.failure}")
        if self.phase != ENDED and self.tls.out.len:
            if self.queue_tls() == 0:
                self.flush()

    cdef void on_established(self) noexcept:
        self.owner.handshakes += 1
        self.owner.resumed += self.tls.resumed
        self.owner.handshake_us.record(now_us() - self.opened)
        if self.owner.facts is None:
            self.owner.facts = (self.tls.version, self.tls.cipher_suite, self.tls.group, self.tls.signature_scheme)
        self.request(self.opened)

    cdef void request(self, uint64_t since) noexcept:
        """Sends a request, together with what the handshake still has to send."""
        self.phase = RECEIVING
        self.started = since
        self.in_body = False
        self.scanned = 0
        self.sent = 0
        self.owner.loop.timers.arm(&self.limit, self.loop.now + self.owner.timeout_ms)
        if self.owner.mode >= SLOW_WRITER:
            self.owner.loop.timers.arm(&self.pace, self.loop.now + self.owner.interval_ms)
        if self.owner.requests is not None:
            self.owner.next_request()
        self.send_request(1 if self.owner.mode == SLOW_WRITER else self.owner.request_length)

    cdef void send_request(self, size_t n) noexcept:
        """Sends the next n bytes of the request, in one record."""
        cdef uint8_t record[REQUEST_MAX + RECORD_OVERHEAD]
        cdef ssize_t length
        self.tls.before_write()
        if self.queue_tls() < 0:
            return
        memcpy(record + RECORD_HEADER, self.owner.request + self.sent, n)
        self.sent += n
        length = self.tls.seal(record, n)
        if length < 0 or queue_append(&self.out, record, length) < 0:
            self.fail("seal")
            return
        self.flush()

    cdef void take_plaintext(self, const uint8_t *p, size_t n) noexcept:
        cdef size_t consumed, data_len
        cdef const uint8_t *data
        cdef int step
        if self.owner.h2:
            self.take_frames(p, n)
            return
        if self.phase != RECEIVING:
            if n:
                self.fail("data that no request asked for")
            return
        if not self.in_body:
            n = self.take_head(&p, n)
            if not self.in_body:
                return
        while True:
            step = body_next(&self.body, p, n, &consumed, &data, &data_len)
            p += consumed
            n -= consumed
            if step == BODY_MORE:
                return
            if step == BODY_ERROR:
                self.fail("http: bad chunk framing")
                return
            if step == BODY_END:
                break
            self.owner.body_bytes += data_len
        if n:
            self.fail("data that no request asked for")
            return
        self.on_response()

    cdef void take_frames(self, const uint8_t *p, size_t n) noexcept:
        """Waits for the end of the one stream of a connection of HTTP/2."""
        cdef int ends = -1
        if bytes_append(&self.head, p, n) == 0:
            ends = stream_ends(&self.head)
        if ends < 0:
            self.fail("http/2: the server ends the stream or the connection")
        elif ends:
            bytes_free(&self.head)
            self.on_response()

    cdef size_t take_head(self, const uint8_t **p, size_t n) noexcept:
        """Reads a head, whole in p[:n] or gathered from pieces -> how many bytes, from the new p on, are body."""
        cdef Head *h = self.owner.response
        cdef const uint8_t *at = p[0]
        cdef size_t length = n
        cdef int end
        if self.head.len:
            if bytes_append(&self.head, at, n) < 0:
                self.fail("out of memory")
                return 0
            at = self.head.data
            length = self.head.len
        while True:
            end = find_head_end(at, length, &self.scanned, &RESPONSE_LIMITS, 0)
            if end == 0:
                if self.head.len == 0 and bytes_append(&self.head, at, length) < 0:
                    self.fail("out of memory")
                return 0
            if end < 0 or parse_response(at, end, &RESPONSE_LIMITS, METHOD_GET, h) < 0:
                self.fail("http: malformed response head")
                return 0
            self.scanned = 0
            if h.status >= 200:
                break
            at += end                   # an interim response: the final one follows
            length -= end
            if self.head.len:
                bytes_consume(&self.head, end)
                at = self.head.data
            if length == 0:
                return 0
        if h.status >= 300:
            self.fail(f"status {h.status}")
            return 0
        # What is left of this piece is body; of the gathered bytes only those of this piece can be
        length -= end
        p[0] += n - length
        bytes_free(&self.head)
        self.in_body = True
        self.last_response = not h.keep_alive
        body_begin(&self.body, h.framing, h.content_length)
        return length

    cdef void on_response(self) noexcept:
        body_free(&self.body)
        if self.owner.resume and self.tls.session is not None:
            self.owner.resumable = self.tls.session
        self.in_body = False
        if self.owner.one_request:
            self.phase = CLOSING
            self.loop.timers.disarm(&self.pace)
            self.owner.latency_us.record(now_us() - self.started)
            return                      # counted when the server has closed
        self.phase = RESTING
        self.owner.loop.timers.disarm(&self.limit)
        if self.owner.bare:
            self.owner.keep_socket(self)
            return
        if self.last_response:
            self.fail("the server does not keep the connection")
            return
        self.owner.on_operation(self)

    cdef void on_end(self) noexcept:
        """The server will send no more: close_notify, or the end of the TCP connection."""
        if self.phase == RECEIVING and self.in_body and self.peer_closed and body_eof(&self.body) == BODY_END:
            self.on_response()
        if self.phase != CLOSING:
            if self.phase != ENDED:
                self.fail(f"closed {PHASES[<int> self.phase]}")
            return
        if not self.peer_closed:
            self.owner.unclean += 1
        self.end()
        self.owner.on_operation(self)

    cdef void on_timer(self, int kind) noexcept:
        cdef Session alive = self       # the wheel holds no reference
        if kind == TIMER_PACE:
            alive.step()
            return
        alive.fail(f"timeout {PHASES[<int> self.phase]}")

    cdef void step(self) noexcept:
        """What a slow client does once in an interval."""
        self.owner.loop.timers.arm(&self.pace, self.loop.now + self.owner.interval_ms)
        if self.owner.mode == SLOW_WRITER:
            if self.sent < self.owner.request_length:
                self.send_request(1)
            return
        self.readable = True
        self.read(SLOW_READ)
        if self.phase == CLOSING:       # the response is whole: the rest is read as it comes
            self.read(SCRATCH)

    # ---- ends ----

    cdef void fail_errno(self, str what, int error) noexcept:
        self.fail(f"{what}: {errno_names.errorcode.get(error, error)}")

    cdef void fail(self, str why) noexcept:
        if self.phase == ENDED:
            return
        self.end()
        self.owner.failed_us.record(now_us() - self.started)
        self.owner.on_error(self, why)

    cdef void leave(self) noexcept:
        """Closes as one should: with close_notify."""
        if self.tls is not None and self.tls.established:
            self.tls.close_notify()
            if self.queue_tls() == 0:
                self.send_queue()
        self.end()

    cdef void end(self) noexcept:
        self.phase = ENDED
        self.loop.timers.disarm(&self.limit)
        self.loop.timers.disarm(&self.pace)
        self.close_stream()

    cdef int queue_tls(self) noexcept:
        """What the engine wants sent joins the queue; -1 (and the session has ended) when memory is out."""
        if self.tls.out.len == 0:
            return 0
        if queue_append(&self.out, self.tls.out.data, self.tls.out.len) < 0:
            self.fail("out of memory")
            return -1
        bytes_consume(&self.tls.out, self.tls.out.len)
        return 0


cdef class Generator:
    """Generator(address, port, config, request, ...).run() -> what was found, as a dictionary.

    `address`: a numeric IPv4 or IPv6 address. `request`: the bytes of a GET. `count`, `seconds`: whichever is reached
    first ends the run (0: no such bound). `timeout`: seconds one operation may take. After `max_errors` the run is
    given up. In the mode "idle" `count` connections are opened, `concurrency` at a time, then held for `seconds`;
    `on_held(n)` is called when they stand. `resume`: handshakes go on from the newest session the server has given.
    `configs`: of the handshakes, in turn, where one is not enough (but `config`'s names are told of all). `requests`:
    those to be sent, in turn, in place of `request`. `bare`, in the mode "idle": of each connection that has had its
    response the socket alone is held. `h2`: a connection's one request is a whole stream of HTTP/2, preface included, in
    the modes "handshake" and "idle" with `bare`.
    `interval`: seconds between the steps of a slow client. `rate`: so many requests (in the mode of that name), or
    handshakes, begin in a second, by the clock; one for which no connection is free waits. A request's latency counts
    from when it was due.
    """

    cdef Loop loop
    cdef ClientConfig config
    cdef sockaddr_storage address
    cdef socklen_t address_length
    cdef uint8_t request[REQUEST_MAX]
    cdef size_t request_length
    cdef uint8_t *scratch
    cdef Head *response                 # the one being parsed
    cdef Mode mode
    cdef int concurrency
    cdef uint64_t count
    cdef uint64_t duration_us
    cdef uint64_t timeout_ms
    cdef uint64_t interval_ms
    cdef double period_us               # REQUESTS: from the beginning of one to the next; 0: as fast as they are answered
    cdef bint one_request               # on each connection, which the server then closes
    cdef uint64_t max_errors
    cdef object on_held
    cdef bint resume
    cdef list configs                   # ClientConfigs, or what makes each; None: `config` alone
    cdef list requests                  # None: `request` alone
    cdef size_t turn, request_turn      # places in these
    cdef bint h2
    cdef bint bare
    cdef list sockets                   # descriptors that are held
    cdef object resumable               # the session to be resumed, once there is one

    # the run
    cdef set live                       # sessions with a connection
    cdef list waiting                   # REQUESTS: sessions that are warm before the measurement begins
    cdef list free                      # REQUESTS at a rate: sessions that wait for the clock, longest first
    cdef double due                     # µs, when the next request begins
    cdef Clock clock
    cdef int busy                       # operations under way
    cdef int missing                    # sessions that failed and are replaced at the next tick
    cdef uint64_t begun                 # operations, the failed ones not counted
    cdef uint64_t done
    cdef uint64_t errors_total
    cdef bint measuring
    cdef bint ending                    # no new operations
    cdef bint held                      # IDLE: all stand
    cdef uint64_t started               # µs
    cdef uint64_t ended
    cdef double cpu_started             # s
    cdef double cpu_ended

    # what was found
    cdef dict errors
    cdef Histogram latency_us
    cdef Histogram handshake_us
    cdef Histogram failed_us            # how long failed operations lasted
    cdef uint64_t handshakes
    cdef uint64_t resumed               # of them
    cdef uint64_t unclean
    cdef uint64_t bytes_read
    cdef uint64_t body_bytes
    cdef tuple facts

    def __cinit__(self):
        self.scratch = <uint8_t *> malloc(SCRATCH)
        self.response = <Head *> malloc(sizeof(Head))
        if self.scratch == NULL or self.response == NULL:
            raise MemoryError
        memset(&self.address, 0, sizeof(self.address))

    def __dealloc__(self):
        free(self.scratch)
        free(self.response)

    def __init__(self, str address, int port, ClientConfig config not None, bytes request, *, mode="handshake",
                 int concurrency=16, uint64_t count=0, double seconds=0, double timeout=10, double interval=1,
                 uint64_t max_errors=1000, on_held=None, bint resume=False, double rate=0, configs=None, requests=None,
                 bint bare=False, bint h2=False):
        if mode not in MODES:
            raise ValueError(f"mode {mode!r} is none of {', '.join(MODES)}")
        if not 0 < len(request) <= REQUEST_MAX:
            raise ValueError(f"a request is 1 to {REQUEST_MAX} bytes")
        if concurrency < 1 or timeout <= 0 or interval <= 0 or seconds < 0:
            raise ValueError("concurrency, timeout and interval are positive")
        if not (count or seconds):
            raise ValueError("a run is bounded by count or seconds")
        if rate < 0 or (rate and mode not in ("requests", "handshake")):
            raise ValueError("a rate is of requests or handshakes per second, in the modes of these names")
        if mode == "idle" and not count:
            raise ValueError("count: how many connections to hold")
        if configs is not None and not configs or requests is not None and not all(
                0 < len(each) <= REQUEST_MAX for each in requests or [b""]):
            raise ValueError(f"configs and requests: at least one of each, a request of 1 to {REQUEST_MAX} bytes")
        if bare and mode != "idle" or h2 and not bare:
            raise ValueError("bare is for the mode idle, h2 for what is bare")
        self.configs = None if configs is None else list(configs)
        self.requests = None if requests is None else list(requests)
        self.bare = bare
        self.h2 = h2
        self.sockets = []
        self.set_address(address, port)
        self.config = config
        memcpy(self.request, <const char *> request, len(request))
        self.request_length = len(request)
        self.mode = MODES[mode]
        self.concurrency = concurrency
        self.count = count
        self.duration_us = <uint64_t> (seconds * 1e6)
        self.timeout_ms = <uint64_t> (timeout * 1e3)
        self.interval_ms = <uint64_t> (interval * 1e3)
        self.period_us = 1e6 / rate if rate else 0
        self.one_request = self.mode != REQUESTS and self.mode != IDLE
        self.max_errors = max_errors
        self.on_held = on_held
        self.resume = resume
        self.loop = Loop()
        self.live = set()
        self.waiting = []
        self.free = []
        self.errors = {}
        self.latency_us = Histogram()
        self.handshake_us = Histogram()
        self.failed_us = Histogram()

    cdef int set_address(self, str address, int port) except -1:
        cdef sockaddr_in *v4 = <sockaddr_in *> &self.address
        cdef sockaddr_in6 *v6 = <sockaddr_in6 *> &self.address
        encoded = address.encode("ascii")
        if not 0 < port < 65536:
            raise ValueError(f"port {port}")
        if inet_pton(AF_INET, encoded, &v4.sin_addr) == 1:
            self.address.ss_family = AF_INET
            v4.sin_port = htons(<uint16_t> port)
            self.address_length = sizeof(sockaddr_in)
        elif inet_pton(AF_INET6, encoded, &v6.sin6_addr) == 1:
            self.address.ss_family = AF_INET6
            v6.sin6_port = htons(<uint16_t> port)
            self.address_length = sizeof(sockaddr_in6)
        else:
            raise ValueError(f"{address!r} is no IP address")
        return 0

    cdef ClientConfig next_config(self):
        if self.configs is None:
            return self.config
        made = self.configs[self.turn]
        self.turn = (self.turn + 1) % <size_t> len(self.configs)
        return made if isinstance(made, ClientConfig) else made()

    cdef void next_request(self) noexcept:
        cdef bytes request = self.requests[self.request_turn]
        self.request_turn = (self.request_turn + 1) % <size_t> len(self.requests)
        memcpy(self.request, <const char *> request, len(request))
        self.request_length = len(request)

    cdef void keep_socket(self, Session s) noexcept:
        """Holds what is left when a session's state is let go of."""
        self.sockets.append(s.fd)
        self.loop.unregister(s)
        s.fd = -1
        self.live.discard(s)
        s.phase = ENDED
        self.on_operation(s)

    # ---- the run ----

    def run(self):
        """Blocks until the run has ended, and tells what it found. Exceptions of signal handlers leave through here."""
        cdef int i
        periodic = self.loop.every(TICK_MS, self._tick)
        try:
            self.begin_measuring()
            self.measuring = self.mode != REQUESTS
            if self.one_request and self.period_us:
                self.due = self.started
                self.clock = Clock(self.loop, PACE_US, self._due)
            else:
                for i in range(self.concurrency):
                    self.open_session()
            self.loop.run()
        finally:
            periodic.cancel()
            if self.clock is not None:
                self.clock.stop()
            self.close_all()
            self.loop.close()
        return self.result()

    def stop(self):
        """Ends the run early: what is under way is finished, nothing new begun."""
        self.ending = True
        self.stop_if_idle()

    cdef void begin_measuring(self) noexcept:
        self.measuring = True
        self.latency_us.reset()
        self.done = self.begun = self.bytes_read = self.body_bytes = 0
        self.cpu_started = time.process_time()
        self.started = now_us()

    cdef bint may_begin(self) noexcept:
        return not self.ending and not (self.measuring and self.count and self.begun >= self.count)

    cdef void open_session(self) noexcept:
        cdef Session s
        if not self.may_begin():
            self.stop_if_idle()
            return
        self.begun += 1
        self.busy += 1
        s = Session(self)
        self.live.add(s)
        s.open()

    cdef void on_operation(self, Session s) noexcept:
        """An operation of s has ended well."""
        cdef uint64_t now
        if self.one_request:
            self.done += 1
            self.busy -= 1
            self.live.discard(s)
            if self.period_us:
                self.begin_due()
            else:
                self.open_session()
            return
        if self.mode == IDLE:
            self.latency_us.record(now_us() - s.started)
            self.done += 1
            self.busy -= 1
            if self.done < self.count:
                self.open_session()
            elif not self.held:
                self.hold()
            return
        if not self.measuring:
            self.busy -= 1
            self.waiting.append(s)
            self.loop.call_soon(self._begin_requests)
            return
        now = now_us()
        if s.warm:
            self.latency_us.record(now - s.started)
            self.done += 1
        else:
            self.begun -= 1             # the first response of a session that replaces a failed one
            s.warm = True
        self.busy -= 1
        if not self.may_begin():
            self.live.discard(s)
            s.leave()
            self.stop_if_idle()
        elif self.period_us:
            self.free.append(s)
            self.begin_due()
        else:
            self.begun += 1
            self.busy += 1
            s.request(now)

    def _due(self):
        self.begin_due()

    cdef void begin_due(self) noexcept:
        """The requests that the clock asks for by now, as far as connections are free."""
        cdef uint64_t now = now_us()
        cdef Session s
        if self.one_request:
            while self.due <= now and len(self.live) < self.concurrency and self.may_begin():
                self.open_session()
                self.due += self.period_us
        while self.due <= now and self.free and self.may_begin():
            s = <Session> self.free.pop(0)
            if s.phase != RESTING:
                continue
            self.begun += 1
            self.busy += 1
            s.request(<uint64_t> self.due)
            self.due += self.period_us
        if not self.may_begin() or self.busy == 0:
            self.stop_if_idle()

    def _begin_requests(self):
        """Once every connection has had a response, the measurement begins."""
        cdef Session s
        if self.measuring or len(self.waiting) < self.concurrency:
            return
        self.begin_measuring()
        if self.period_us:
            self.due = self.started
            self.clock = Clock(self.loop, PACE_US, self._due)
        ready, self.waiting = self.waiting, []
        for s in ready:
            if s.phase != RESTING:
                continue
            s.warm = True
            if self.period_us:
                self.free.append(s)
            elif self.may_begin():
                self.begun += 1
                self.busy += 1
                s.request(now_us())
            else:
                self.live.discard(s)
                s.leave()
        self.stop_if_idle()

    cdef void hold(self) noexcept:
        self.held = True
        self.ended = now_us()
        self.cpu_ended = time.process_time()
        if self.on_held is not None:
            self.loop.call_soon(self._held)

    def _held(self):
        self.on_held(len(self.live) + len(self.sockets))

    cdef void on_error(self, Session s, str why) noexcept:
        """s has ended, not as it should."""
        self.live.discard(s)
        if s in self.waiting or s in self.free:
            (self.waiting if s in self.waiting else self.free).remove(s)
        elif not self.held:
            self.busy -= 1
            self.begun -= 1
        self.errors_total += 1
        if why not in self.errors and len(self.errors) >= ERROR_KINDS_MAX:
            why = "other"
        self.errors[why] = self.errors.get(why, 0) + 1
        if self.errors_total >= self.max_errors:
            self.ending = True
        # A server that refuses is asked again at the next tick, not in a tight loop.
        if self.held:
            return
        self.missing += 1
        self.stop_if_idle()

    cdef void stop_if_idle(self) noexcept:
        cdef bint more = self.missing or self.free or (self.one_request and self.period_us)
        if self.held:
            if self.ending:
                self.loop.stop()
            return
        if self.busy == 0 and (self.ending or not (more and self.may_begin())) and not self.waiting:
            self.note_end()
            self.loop.stop()

    cdef void note_end(self) noexcept:
        if self.ended == 0:
            self.ended = now_us()
            self.cpu_ended = time.process_time()

    def _tick(self):
        cdef int missing
        cdef uint64_t since = self.ended if self.held else self.started
        if self.duration_us and (self.held or self.mode != IDLE) and now_us() - since >= self.duration_us:
            self.ending = True
        if self.ending and not self.measuring:
            self.waiting.clear()        # REQUESTS that never became warm
        missing, self.missing = self.missing, 0
        for _ in range(missing):
            self.open_session()
        self.stop_if_idle()

    cdef void close_all(self) noexcept:
        cdef Session s
        for s in list(self.live):
            if s.phase != ENDED:
                s.leave()
        self.live.clear()
        for fd in self.sockets:
            os.close(fd)
        self.sockets.clear()
        self.note_end()

    def result(self):
        """{"done", "per_second", "cpu_us", "latency_us", ...}: see bench/README.md."""
        cdef double seconds = (self.ended - self.started) / 1e6
        cdef double cpu = self.cpu_ended - self.cpu_started
        found = {
            "done": self.done,
            "seconds": round(seconds, 6),
            "per_second": round(self.done / seconds, 1) if seconds > 0 else 0.0,
            "cpu_seconds": round(cpu, 6),
            "cpu_us": round(cpu / self.done * 1e6, 2) if self.done else None,
            "latency_us": self.latency_us.summary(),
            "handshakes": self.handshakes,
            "resumed": self.resumed,
            "handshake_us": self.handshake_us.summary(),
            "bytes_read": self.bytes_read,
            "body_bytes": self.body_bytes,
            "unclean_closes": self.unclean,
            "errors": dict(self.errors),
            "failed_us": self.failed_us.summary(),
        }
        if self.facts is not None:
            names = ("version", "cipher_suite", "group", "signature_scheme")
            found["negotiated"] = {name: f"0x{value:04x}" for name, value in zip(names, self.facts, strict=True)}
        return found
