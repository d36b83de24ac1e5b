"""HTTP/2 sessions from Python, in memory: for tests and fuzzing; the data plane uses H2Server and H2Requester themselves.

What happens is told as tuples. By both: ("data", stream, bytes), ("drained", stream), ("closed", stream, code). By a
server: ("request", stream, method, path, host, ended), ("connect", stream, protocol, path, host, ended), ("refused",
stream, status), ("end", stream, trailer lines). By a requester: ("interim", stream, status, fields), ("response", stream, status, fields, framing, content_length, ended),
("end", stream, trailer lines), ("settings",), ("goaway", last stream, code).
"""

from libc.stdint cimport int32_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memset

from cext.base.buffer cimport Bytes, bytes_append, bytes_free
from cext.http.h1_reader cimport parse_response
from cext.http.h2_requester cimport H2Requester
from cext.http.h2_server cimport H2Server
from cext.http.h2_session cimport H2Session, H2Settings, H2Stream
from cext.http.message cimport FRAMING_NONE, METHOD_CONNECT, METHOD_GET, Head, Limits, Span

cdef const char *DATE = b"Thu, 01 Jan 1970 00:00:00 GMT"


cdef H2Stream *find(H2Session of, int id) except NULL:
    cdef H2Stream *s = of.streams
    while s != NULL and s.id != id:
        s = s.next
    if s == NULL:
        raise KeyError(id)
    return s


cdef bytes text(const Head *h, const Span *s):
    return (<const char *> h.base)[s.off:s.off + s.len]


cdef bytes text_of(const Bytes *b):
    return (<const char *> b.data)[:b.len] if b.len else b""


cdef list fields_of(const Head *h):
    return [(text(h, &h.fields[i].name), text(h, &h.fields[i].value)) for i in range(h.n_fields)]


cdef int fill(H2Settings *settings, Limits *limits, dict options) except -1:
    settings.max_streams = options.pop("max_streams", 100)
    settings.stream_window = options.pop("stream_window", 65535)
    settings.connection_window = options.pop("connection_window", 1 << 20)
    settings.max_header_list = limits.head = options.pop("head", 32768)
    settings.connect_protocol = options.pop("connect_protocol", False)
    limits.line = options.pop("line", 8192)
    limits.fields = options.pop("fields", 100)
    if options:
        raise TypeError(f"{options}: not known")
    return 0


class Talking:
    """Bytes from the peer go to `input`, bytes for it come from `output`, `events` are what happened.

    A stream is named by its number; KeyError for one that is over. Content that `input` tells of opens the stream's
    window again when `take` says so.
    """

    def input(self, bytes data, uint64_t now=0):
        """Bytes of the peer at `now` (ms) -> what they brought."""
        (<H2Session?> self).receive(data, len(data), now)
        return self.told()

    def output(self):
        """What is to be sent now."""
        (<H2Session?> self).send_all()
        out = b"".join(self.sent)
        self.sent.clear()
        return out

    def told(self):
        """What has happened since it was asked last."""
        events = self.events[:]
        self.events.clear()
        return events

    def content(self, int id, bytes data):
        """Adds to the stream -> whether it is full."""
        cdef H2Stream *s = find(self, id)
        (<H2Session?> self).append(s, data, len(data))
        return bool(s.was_full)

    def finish(self, int id, bytes trailers=b""):
        (<H2Session?> self).end(find(self, id), trailers, len(trailers))

    def take(self, int id, size_t n):
        """n bytes of content have been passed on."""
        (<H2Session?> self).consumed(find(self, id), n)

    def cancel(self, int id, uint32_t code):
        (<H2Session?> self).reset(find(self, id), code)

    def leave(self):
        """The last GOAWAY."""
        (<H2Session?> self).drain()

    def fault_of(self, int id):
        cdef H2Stream *s = find(self, id)
        return s.fault.decode() if s.fault != NULL else None

    def state(self):
        """What is held, and how the session stands."""
        cdef H2Session of = self
        return {
            "failed": bool(of.failed), "fault": of.fault.decode() if of.fault != NULL else None,
            "finished": bool(of.finished()), "streams": of.n_streams, "held": of.held, "waiting": of.waiting,
            "in_block": bool(of.in_block), "credit": of.credit,
        }


# ---- a server

cdef class Serving(H2Server):
    cdef Head request
    cdef Head response
    cdef readonly list events
    cdef readonly list sent
    cdef public int room                # how many times more `output` may take bytes from the session
    cdef bint answering                 # requests are answered within the callback

    def __init__(self, *, bint answering=False, **options):
        cdef H2Settings settings
        cdef Limits limits
        fill(&settings, &limits, options)
        self.events = []
        self.sent = []
        self.room = 1 << 30
        self.answering = answering
        self.open(&settings, &limits, &self.request)

    def answer(self, int id, bytes head, bint content):
        """`head`: a response as HTTP/1.1 has it; with `content`, content() and finish() follow."""
        cdef H2Stream *s = find(self, id)
        if parse_response(head, len(head), &self.limits, METHOD_GET, &self.response) < 0:
            raise ValueError(head)
        if self.response.status < 200:
            return self.respond_interim(s, &self.response)
        return self.respond(s, &self.response, DATE, content)

    def simple(self, int id, int status):
        self.respond_simple(find(self, id), status, DATE, NULL, False)

    def push(self, int id, bytes text):
        """Promises a request, told as HTTP/1.1 -> whether it could be."""
        cdef Bytes copy
        memset(&copy, 0, sizeof(copy))
        bytes_append(&copy, <const uint8_t *> text, len(text))
        r = self.promise(find(self, id), &copy)
        bytes_free(&copy)
        return r == 0

    def part(self):
        """The GOAWAY before the last."""
        self.warn()

    def takes_pushes(self):
        return bool(self.takes_promises())

    # ---- told by the session ----

    cdef void on_request(self, H2Stream *s, Head *h, bint ended) noexcept:
        if h.protocol.len:
            assert h.method == METHOD_CONNECT and text(h, &h.method_name) == b"CONNECT" and h.framing == FRAMING_NONE
        self.events.append((
            "connect" if h.protocol.len else "request", s.id,
            text(h, &h.protocol if h.protocol.len else &h.method_name), text(h, &h.path), text(h, &h.host), bool(ended)))
        if self.answering:
            self.respond_simple(s, 404, DATE, NULL, s.head_only)

    cdef void on_refused(self, H2Stream *s, int status) noexcept:
        self.events.append(("refused", s.id, status))
        self.respond_simple(s, status, DATE, NULL, s.head_only)

    cdef void on_data(self, H2Stream *s, const uint8_t *p, size_t n) noexcept:
        self.events.append(("data", s.id, (<const char *> p)[:n]))

    cdef void on_request_end(self, H2Stream *s) noexcept:
        self.events.append(("end", s.id, text_of(&s.trailers)))

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


class Engine(Talking, Serving):
    """Engine(max_streams=100, stream_window=65535, connection_window=1 << 20, line=8192, head=32768, fields=100,
    connect_protocol=False, answering=False)."""


# ---- a requester

cdef class Asking(H2Requester):
    cdef Head head
    cdef readonly list events
    cdef readonly list sent
    cdef readonly dict faults           # of the streams that are over with one
    cdef bytes again                    # what is asked within the callback that tells of a response

    def __init__(self, *, bytes again=None, **options):
        cdef H2Settings settings
        cdef Limits limits
        fill(&settings, &limits, options)
        self.events = []
        self.sent = []
        self.faults = {}
        self.again = again
        self.open(&settings, &limits, &self.head)

    def ask(self, bytes text, *, bint https=True, bint content=False):
        """A request, told as HTTP/1.1 -> its stream, or None; with `content`, content() and finish() follow."""
        cdef H2Stream *s
        cdef Bytes copy
        memset(&copy, 0, sizeof(copy))
        bytes_append(&copy, <const uint8_t *> text, len(text))
        s = self.request(&copy, https, content)
        bytes_free(&copy)
        return s.id if s != NULL else None

    def spare(self):
        """How many requests may begin."""
        return self.room()

    # ---- told by the session ----

    cdef void on_interim(self, H2Stream *s, const Head *h) noexcept:
        self.events.append(("interim", s.id, h.status, fields_of(h)))

    cdef void on_response(self, H2Stream *s, const Head *h, bint ended) noexcept:
        if self.again is not None:
            self.ask(self.again)
        self.events.append(("response", s.id, h.status, fields_of(h), h.framing, h.content_length, bool(ended)))

    cdef void on_data(self, H2Stream *s, const uint8_t *p, size_t n) noexcept:
        self.events.append(("data", s.id, (<const char *> p)[:n]))

    cdef void on_response_end(self, H2Stream *s) noexcept:
        self.events.append(("end", s.id, text_of(&s.trailers)))

    cdef void on_stream_drained(self, H2Stream *s) noexcept:
        self.events.append(("drained", s.id))

    cdef void on_stream_closed(self, H2Stream *s, uint32_t code) noexcept:
        self.events.append(("closed", s.id, code))
        if s.fault != NULL:
            self.faults[s.id] = s.fault.decode()

    cdef void on_settings(self) noexcept:
        self.events.append(("settings",))

    cdef void on_goaway(self, int32_t last_id, uint32_t code) noexcept:
        self.events.append(("goaway", last_id, code))

    cdef int put(self, const uint8_t *p, size_t n) noexcept:
        self.sent.append((<const char *> p)[:n])
        return 0


class Requester(Talking, Asking):
    """Requester(options as Engine's, again=None)."""
