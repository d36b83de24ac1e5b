"""An HTTP/2 session from Python, in memory: for tests and fuzzing; the data plane uses H2Server itself.

What happens is told as tuples: ("request", stream, method, path, host, ended), ("refused", stream, status),
("data", stream, bytes), ("end", stream, trailer lines), ("drained", stream), ("closed", stream, code).
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from cext.base.buffer cimport Bytes, bytes_append, bytes_free
from cext.http.h1_reader cimport parse_response
from cext.http.h2_server cimport H2Server
from cext.http.h2_session cimport H2Settings, H2Stream
from cext.http.message cimport METHOD_GET, Head, Limits, Span

cdef const char *DATE = b"Thu, 01 Jan 1970 00:00:00 GMT"


cdef class Engine(H2Server):
    """Engine(max_streams=100, ...): bytes from the peer go to `receive`, bytes for it come from `output`.

    A stream is named by its number; KeyError for one that is over. Content that `receive` tells of opens the stream's
    window again when `consumed` says so.
    """

    cdef Head request
    cdef Head response
    cdef list events
    cdef list sent
    cdef public int room                # how many times more `output` may take bytes from the session
    cdef bint answering                 # requests are answered within the callback

    def __init__(self, *, uint32_t max_streams=100, uint32_t stream_window=65535, uint32_t connection_window=1 << 20,
                 uint32_t line=8192, uint32_t head=32768, uint32_t fields=100, bint answering=False):
        cdef H2Settings settings
        cdef Limits limits
        settings.max_streams = max_streams
        settings.stream_window = stream_window
        settings.connection_window = connection_window
        settings.max_header_list = head
        settings.connect_protocol = False
        limits.line, limits.head, limits.fields = line, head, fields
        self.events = []
        self.sent = []
        self.room = 1 << 30
        self.answering = answering
        self.open(&settings, &limits, &self.request)

    cdef H2Stream *find(self, int id) except NULL:
        cdef H2Stream *s = self.streams
        while s != NULL and s.id != id:
            s = s.next
        if s == NULL:
            raise KeyError(id)
        return s

    def input(self, bytes data, uint64_t now=0):
        """Bytes of the peer at `now` (ms) -> what they brought."""
        self.receive(data, len(data), now)
        return self.told()

    def output(self):
        """What is to be sent now."""
        self.send_all()
        out, self.sent = b"".join(self.sent), []
        return out

    def told(self):
        """What has happened since it was asked last."""
        events, self.events = self.events, []
        return events

    def answer(self, int id, bytes head, bint content):
        """`head`: a response as HTTP/1.1 has it; with `content`, append() and end() follow."""
        cdef H2Stream *s = self.find(id)
        if parse_response(head, len(head), &self.limits, METHOD_GET, &self.response) < 0:
            raise ValueError(head)
        if self.response.status < 200:
            return self.respond_interim(s, &self.response)
        return self.respond(s, &self.response, DATE, content)

    def simple(self, int id, int status):
        self.respond_simple(self.find(id), status, DATE, NULL, False)

    def content(self, int id, bytes data):
        """Adds to the response -> whether the stream is full."""
        cdef H2Stream *s = self.find(id)
        self.append(s, data, len(data))
        return bool(s.was_full)

    def finish(self, int id, bytes trailers=b""):
        self.end(self.find(id), trailers, len(trailers))

    def take(self, int id, size_t n):
        """n bytes of content have been passed on."""
        self.consumed(self.find(id), n)

    def cancel(self, int id, uint32_t code):
        self.reset(self.find(id), code)

    def push(self, int id, bytes text):
        """Promises a request, told as HTTP/1.1 -> whether it could be."""
        cdef Bytes copy
        memset(&copy, 0, sizeof(copy))
        bytes_append(&copy, <const uint8_t *> text, len(text))
        r = self.promise(self.find(id), &copy)
        bytes_free(&copy)
        return r == 0

    def goaway(self, *, bint last):
        if last:
            self.drain()
        else:
            self.warn()

    def state(self):
        """What is held, and how the session stands."""
        return {
            "failed": bool(self.failed), "fault": self.fault.decode() if self.fault != NULL else None,
            "finished": bool(self.finished()), "streams": self.n_streams, "held": self.held, "waiting": self.waiting,
            "in_block": bool(self.in_block), "pushes": bool(self.takes_promises()),
        }

    # ---- told by the session ----

    cdef bytes text(self, const Head *h, const Span *s):
        return (<const char *> h.base)[s.off:s.off + s.len]

    cdef void on_request(self, H2Stream *s, Head *h, bint ended) noexcept:
        self.events.append(("request", s.id, self.text(h, &h.method_name), self.text(h, &h.path), self.text(h, &h.host),
                            bool(ended)))
        if self.answering:
            self.respond_simple(s, 404, DATE, NULL, s.head_only)

    cdef void on_refused(self, H2Stream *s, int status) noexcept:
        self.events.append(("refused", s.id, status))
        self.respond_simple(s, status, DATE, NULL, s.head_only)

    cdef void on_data(self, H2Stream *s, const uint8_t *p, size_t n) noexcept:
        self.events.append(("data", s.id, (<const char *> p)[:n]))

    cdef void on_request_end(self, H2Stream *s) noexcept:
        trailers = (<const char *> s.trailers.data)[:s.trailers.len] if s.trailers.len else b""
        self.events.append(("end", s.id, trailers))

    cdef void on_stream_drained(self, H2Stream *s) noexcept:
        self.events.append(("drained", s.id))

    cdef void on_stream_closed(self, H2Stream *s, uint32_t code) noexcept:
        self.events.append(("closed", s.id, code))

    cdef int put(self, const uint8_t *p, size_t n) noexcept:
        self.sent.append((<const char *> p)[:n])
        return 0

    cdef bint has_room(self) noexcept:
        self.room -= 1
        return self.room >= 0
