"""HTTP/1.1 heads and chunk framing, written to memory. What goes on is always re-serialised from the parsed
head, never passed through raw; hop-by-hop fields end here."""

from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport strlen

from cext.http.message cimport FRAMING_LENGTH, FRAMING_NONE, METHOD_DELETE, METHOD_GET, METHOD_HEAD, Head
from cext.http.trace_context cimport TRACE_ROOM, TraceFields

cdef struct Forwarding:                 # what a proxy adds to a request
    const uint8_t *client               # textual address, without brackets or port
    size_t client_len
    bint client_is_v6
    const char *proto                   # "https"
    bint x_forwarded                    # X-Forwarded-For, -Proto, -Host: set; any X-Forwarded-* received is dropped
    bint forwarded                      # Forwarded (RFC 7239): likewise
    const uint8_t *default_host         # Host for a request that has none (HTTP/1.0); may be NULL
    size_t default_host_len
    const uint8_t *asked_host           # for X-Forwarded-Host and Forwarded: what the client asked for, where Host is
    size_t asked_host_len               # something else now; NULL: the head's
    const uint8_t *upgrade              # the protocol that Upgrade asks for; NULL: none
    size_t upgrade_len
    const uint8_t *dropped              # the name of a field that is ours alone, and dropped where a client sends it
    size_t dropped_len                  # 0: there is none
    TraceFields *trace                  # takes the place of traceparent and tracestate; NULL: these pass untouched
    const uint8_t *websocket_key        # Sec-WebSocket-Key of our own, for a request that came as CONNECT (RFC 8441);
                                        # NULL: that of the request, if any

cdef inline size_t request_room(const Head *h, const Forwarding *f) noexcept nogil:
    """Bytes that write_request needs at most: what it adds, one space per field, the host twice more."""
    cdef size_t host = max(h.host.len if h.host.len else f.default_host_len, f.asked_host_len)
    cdef size_t trace = TRACE_ROOM if f.trace != NULL else 0
    return h.length + h.n_fields + 3 * host + 2 * (f.client_len + strlen(f.proto)) + 320 + trace


cdef inline size_t response_room(const Head *h) noexcept nogil:
    """Bytes that write_response needs at most."""
    return h.length + h.n_fields + 128


cdef inline bint ends_upstream(const Head *h, int framing) noexcept nogil:
    """Whether a request must be the last on its connection: content of GET, HEAD and DELETE means nothing (RFC 9110,
    sections 9.3.1, 9.3.2, 9.3.5), and a backend that leaves it unread takes it for the next request (CL.0)."""
    return ((h.method == METHOD_GET or h.method == METHOD_HEAD or h.method == METHOD_DELETE)
            and framing != FRAMING_NONE and not (framing == FRAMING_LENGTH and h.content_length == 0))


cdef ssize_t write_request(const Head *h, const Forwarding *f, int framing, uint8_t *out, size_t cap) noexcept nogil
"""The request head for the upstream: HTTP/1.1, origin-form target, Host first, end-to-end fields in order (Expect
is one, where it counts), Max-Forwards one less, close where ends_upstream, TE: trailers kept, our own Connection / Content-Length / Transfer-Encoding by `framing`. Upgrade where `f` says so.
METHOD_CONNECT, which must have a path, becomes GET (RFC 8441, section 5). Length, or -1 when cap is short."""

cdef size_t drop_lines(uint8_t *lines, size_t n, const uint8_t *name, size_t name_len) noexcept nogil
"""Takes the fields of that name, as Forwarding.dropped, out of field lines with their CRLFs; how much of them is left."""

cdef struct RequestText:                # what stands in a head that write_request made
    const uint8_t *method
    size_t method_len
    const uint8_t *target
    size_t target_len
    const uint8_t *host
    size_t host_len
    const uint8_t *lines                # the other fields, each with its CRLF, and the last CRLF
    size_t lines_len

cdef inline RequestText request_text(const uint8_t *p, size_t n, size_t method_len, size_t target_len,
                                     size_t host_len) noexcept nogil:
    cdef RequestText t
    t.method = p
    t.method_len = method_len
    t.target = p + method_len + 1
    t.target_len = target_len
    t.host = t.target + target_len + 17         # " HTTP/1.1\r\nHost: "
    t.host_len = host_len
    t.lines = t.host + host_len + 2
    t.lines_len = p + n - t.lines
    return t


cdef ssize_t write_response(const Head *h, int framing, int client_minor, bint keep_alive, const char *date,
                            uint8_t *out, size_t cap) noexcept nogil
"""The response head for the client. FRAMING_CHUNKED only to HTTP/1.1 clients (to others it
becomes FRAMING_CLOSE). `date` (29 bytes, IMF-fixdate) when the
response has none. A 101 goes with its Upgrade. `Connection: close` when not keep_alive, `keep-alive` to an HTTP/1.0 client that stays."""

cdef enum:
    DECIMAL_MAX = 20                    # digits of a uint64_t

cdef size_t write_decimal(uint8_t *end, uint64_t v) noexcept nogil
"""Writes v so that it ends at `end`; returns how many digits it has."""

cdef size_t write_chunk_size(uint8_t *end, uint64_t n) noexcept nogil
"""Writes "<hex>\\r\\n" so that it ends at `end`; returns its length (at most 18)."""

cdef ssize_t write_simple(int status, int minor, bint keep_alive, bint head_only, const char *date, const char *text,
                          uint8_t *out, size_t cap) noexcept nogil
"""A whole short text/plain response of our own (400, 408, 413, 431, 502, 503, 504 ...), with `text` (NULL: the reason
phrase) and a line feed for content. 1xx, 204 and 304 have none. 405 and 204 (an OPTIONS answered) say what methods
pass here in Allow. Length, or -1 when cap is short."""

cdef const char *reason_phrase(int status) noexcept nogil

cdef inline size_t simple_content(int status, const char *text, bint head_only) noexcept nogil:
    """Bytes of content that write_simple sends."""
    if head_only or status < 200 or status == 204 or status == 304:
        return 0
    return strlen(text if text != NULL else reason_phrase(status)) + 1


cdef inline bint passes_soon(int status) noexcept nogil:
    """Whether an answer of ours comes of a want that may be over in a second: it has a Retry-After (RFC 9110, section
    10.2.3)."""
    return status == 429 or status == 503

cdef const char *ALLOWED                 # methods, as Allow lists them
