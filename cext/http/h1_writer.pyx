"""HTTP/1.1 to bytes. A head that goes on is written anew from its parsed fields: what was hop-by-hop ends here, and
the framing is the sender's own.

An edge faces the Internet, so what a client says about where it came from is nobody's word: with x_forwarded every
received X-Forwarded-* and X-Real-IP is dropped and our X-Forwarded-For, -Proto and -Host stand in their place, with
forwarded likewise Forwarded (RFC 7239); nothing is appended to them. Without these settings both pass untouched. Via
passes as it came.
"""

from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memchr, memcpy, memmove, strlen

from cext.base.wire cimport Writer, write_bytes, write_room, writer_init, written
from cext.http.h1_reader cimport parse_request, parse_response
from cext.http.message cimport (
    FIELD_CONTENT_LENGTH, FIELD_FORWARDED, FIELD_HOST, FIELD_MAX_FORWARDS, FIELD_OTHER, FIELD_TRACEPARENT,
    FIELD_TRACESTATE, FIELD_TRAILER, FIELD_X_FORWARDED_FOR, FIELD_X_FORWARDED_HOST, FIELD_X_FORWARDED_PROTO, FRAMING_CHUNKED, FRAMING_CLOSE, FRAMING_LENGTH, FRAMING_NONE,
    METHOD_CONNECT, Field, Head, Limits)
from cext.http.rules cimport claims_origin
from cext.http.trace_context cimport SPAN_ID, TRACE_ID, TraceFields, write_trace
from cext.http.upgrade cimport WEBSOCKET_KEY, WEBSOCKET_KEY_FIELD, is_named

cdef const char *ALLOWED = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"


cdef ssize_t write_request(const Head *h, const Forwarding *f, int framing, uint8_t *out, size_t cap) noexcept nogil:
    cdef Writer w
    cdef const Field *field
    cdef const uint8_t *host = h.base + h.host.off
    cdef size_t host_len = h.host.len
    cdef uint32_t i
    writer_init(&w, out, cap)
    if host_len == 0 and f.default_host != NULL:
        host = f.default_host
        host_len = f.default_host_len

    if h.method == METHOD_CONNECT:
        _literal(&w, b"GET")
    else:
        write_bytes(&w, h.base + h.method_name.off, h.method_name.len)
    _literal(&w, b" ")
    write_bytes(&w, h.base + h.path.off, h.path.len)
    _literal(&w, b" HTTP/1.1\r\nHost: ")
    write_bytes(&w, host, host_len)
    _literal(&w, b"\r\n")
    for i in range(h.n_fields):
        field = &h.fields[i]
        if field.hop_by_hop or field.id == FIELD_HOST or field.id == FIELD_CONTENT_LENGTH:
            continue
        if field.id == FIELD_OTHER:
            if f.x_forwarded and claims_origin(h.base + field.name.off, field.name.len):
                continue
            if f.dropped_len == field.name.len and _same_variable(f.dropped, h.base + field.name.off, f.dropped_len):
                continue
            if f.websocket_key != NULL and is_named(h, field, WEBSOCKET_KEY_FIELD):
                continue
        elif _replaced(field.id, f, framing):
            continue
        elif field.id == FIELD_MAX_FORWARDS and h.max_forwards > 0:     # RFC 9110, section 7.6.2
            _literal(&w, b"Max-Forwards: ")
            _write_number(&w, <uint64_t> h.max_forwards - 1)
            _literal(&w, b"\r\n")
            continue
        _write_field(&w, h, field)
    # Trailers are passed on, so the upstream may send them (RFC 9110, section 6.5.1); TE concerns this hop alone.
    if h.te_trailers:
        _literal(&w, b"TE: trailers\r\n")
    if f.upgrade != NULL:
        _write_upgrade(&w, f.upgrade, f.upgrade_len, h.te_trailers)
        if f.websocket_key != NULL:
            _literal(&w, b"Sec-WebSocket-Key: ")
            write_bytes(&w, f.websocket_key, WEBSOCKET_KEY)
            _literal(&w, b"\r\n")
    elif ends_upstream(h, framing):
        _literal(&w, b"Connection: TE, close\r\n" if h.te_trailers else b"Connection: close\r\n")
    elif h.te_trailers:
        _literal(&w, b"Connection: TE\r\n")
    _write_framing(&w, framing, h.content_length)
    if f.asked_host != NULL:
        host = f.asked_host
        host_len = f.asked_host_len
    if f.x_forwarded:
        _write_x_forwarded(&w, f, host, host_len)
    if f.forwarded:
        _write_forwarded(&w, f, host, host_len)
    if f.trace != NULL:
        write_trace(&w, h, f.trace)
    _literal(&w, b"\r\n")
    return -1 if w.overflow else <ssize_t> written(&w)


cdef bint _replaced(int field, const Forwarding *f, int framing) noexcept nogil:
    """Whether a received end-to-end field gives way to our own, or lost its meaning with the framing."""
    if field == FIELD_X_FORWARDED_FOR or field == FIELD_X_FORWARDED_PROTO or field == FIELD_X_FORWARDED_HOST:
        return f.x_forwarded
    if field == FIELD_FORWARDED:
        return f.forwarded
    if field == FIELD_TRACEPARENT or field == FIELD_TRACESTATE:
        return f.trace != NULL
    return field == FIELD_TRAILER and framing != FRAMING_CHUNKED


cdef bint _same_variable(const uint8_t *a, const uint8_t *b, size_t n) noexcept nogil:
    """Whether two names of fields are one to a backend that makes variables of them, as CGI does."""
    cdef size_t i
    for i in range(n):
        if (a[i] | 0x20) != (b[i] | 0x20) and not (is_dash(a[i]) and is_dash(b[i])):
            return 0
    return 1


cdef size_t drop_lines(uint8_t *lines, size_t n, const uint8_t *name, size_t name_len) noexcept nogil:
    cdef size_t at = 0, kept = 0, size
    cdef const uint8_t *end
    while at < n:
        end = <const uint8_t *> memchr(lines + at, c"\n", n - at)
        size = end + 1 - (lines + at) if end != NULL else n - at
        if size <= name_len or lines[at + name_len] != c":" or not _same_variable(name, lines + at, name_len):
            memmove(lines + kept, lines + at, size)
            kept += size
        at += size
    return kept


cdef inline bint is_dash(uint8_t c) noexcept nogil:
    return c == c"-" or c == c"_"


cdef void _literal(Writer *w, const char *text) noexcept nogil:
    write_bytes(w, text, strlen(text))


cdef void _write_field(Writer *w, const Head *h, const Field *field) noexcept nogil:
    cdef const uint8_t *name = h.base + field.name.off
    cdef size_t n = field.name.len
    # One check of room per field: most of a head's time would go into four otherwise.
    if not write_room(w, n + field.value.len + 4):
        return
    memcpy(w.p, name, n)
    w.p[n] = c":"
    w.p[n + 1] = c" "
    memcpy(w.p + n + 2, h.base + field.value.off, field.value.len)
    n += 2 + field.value.len
    w.p[n] = c"\r"
    w.p[n + 1] = c"\n"
    w.p += n + 2


cdef void _write_upgrade(Writer *w, const uint8_t *protocol, size_t n, bint te) noexcept nogil:
    _literal(w, b"Upgrade: ")
    write_bytes(w, protocol, n)
    _literal(w, b"\r\nConnection: TE, upgrade\r\n" if te else b"\r\nConnection: upgrade\r\n")


cdef void _write_framing(Writer *w, int framing, int64_t content_length) noexcept nogil:
    if framing == FRAMING_CHUNKED:
        _literal(w, b"Transfer-Encoding: chunked\r\n")
    elif framing == FRAMING_LENGTH:
        _literal(w, b"Content-Length: ")
        _write_number(w, <uint64_t> content_length)
        _literal(w, b"\r\n")


cdef void _write_number(Writer *w, uint64_t v) noexcept nogil:
    cdef uint8_t digits[DECIMAL_MAX]
    cdef size_t n = write_decimal(digits + DECIMAL_MAX, v)
    write_bytes(w, digits + DECIMAL_MAX - n, n)


cdef size_t write_decimal(uint8_t *end, uint64_t v) noexcept nogil:
    cdef uint8_t *p = end
    while True:
        p -= 1
        p[0] = c"0" + <uint8_t> (v % 10)
        v //= 10
        if v == 0:
            return end - p


cdef void _write_x_forwarded(Writer *w, const Forwarding *f, const uint8_t *host, size_t host_len) noexcept nogil:
    _literal(w, b"X-Forwarded-For: ")
    if f.client_len:
        write_bytes(w, f.client, f.client_len)
    else:
        _literal(w, b"unknown")
    _literal(w, b"\r\nX-Forwarded-Proto: ")
    _literal(w, f.proto)
    _literal(w, b"\r\nX-Forwarded-Host: ")
    write_bytes(w, host, host_len)
    _literal(w, b"\r\n")


cdef void _write_forwarded(Writer *w, const Forwarding *f, const uint8_t *host, size_t host_len) noexcept nogil:
    """RFC 7239, section 4: an IPv6 address stands in brackets and quotes, a host with a port in quotes."""
    cdef bint quoted = (memchr(host, c":", host_len) != NULL) if host_len else 1
    _literal(w, b"Forwarded: for=")
    if f.client_len == 0:
        _literal(w, b"unknown")
    elif f.client_is_v6:
        _literal(w, b'"[')
        write_bytes(w, f.client, f.client_len)
        _literal(w, b']"')
    else:
        write_bytes(w, f.client, f.client_len)
    _literal(w, b";proto=")
    _literal(w, f.proto)
    _literal(w, b';host="' if quoted else b";host=")
    write_bytes(w, host, host_len)
    _literal(w, b'"\r\n' if quoted else b"\r\n")


cdef ssize_t write_response(const Head *h, int framing, int client_minor, bint keep_alive, const char *date,
                            uint8_t *out, size_t cap) noexcept nogil:
    cdef Writer w
    cdef const Field *field
    cdef uint32_t i
    # What cannot be framed for this client ends with the connection.
    if framing == FRAMING_CHUNKED and client_minor == 0:
        framing = FRAMING_CLOSE
    if framing == FRAMING_CLOSE:
        keep_alive = 0
    writer_init(&w, out, cap)
    _literal(&w, b"HTTP/1.1 ")
    _write_number(&w, h.status)
    _literal(&w, b" ")
    write_bytes(&w, h.base + h.status_text.off, h.status_text.len)
    _literal(&w, b"\r\n")
    for i in range(h.n_fields):
        field = &h.fields[i]
        if field.hop_by_hop or field.id == FIELD_CONTENT_LENGTH:
            continue
        if field.id == FIELD_TRAILER and framing != FRAMING_CHUNKED:
            continue
        _write_field(&w, h, field)
    if h.status >= 200:                     # an interim head carries nothing about the message to come
        if not h.has_date and date != NULL:
            _write_date(&w, date)
        if framing == FRAMING_NONE and h.content_length >= 0:
            framing = FRAMING_LENGTH        # of HEAD and 304: the length announced, no content
        _write_framing(&w, framing, h.content_length)
        _write_persistence(&w, client_minor, keep_alive)
    elif h.status == 101:
        _write_upgrade(&w, h.base + h.upgrade.off, h.upgrade.len, False)
    _literal(&w, b"\r\n")
    return -1 if w.overflow else <ssize_t> written(&w)


cdef void _write_date(Writer *w, const char *date) noexcept nogil:
    _literal(w, b"Date: ")
    _literal(w, date)
    _literal(w, b"\r\n")


cdef void _write_persistence(Writer *w, int client_minor, bint keep_alive) noexcept nogil:
    """RFC 9112, section 9.3: 1.1 persists by default, 1.0 when both say so."""
    if not keep_alive:
        _literal(w, b"Connection: close\r\n")
    elif client_minor == 0:
        _literal(w, b"Connection: keep-alive\r\n")


cdef size_t write_chunk_size(uint8_t *end, uint64_t n) noexcept nogil:
    cdef uint8_t *p = end - 2
    cdef uint8_t digit
    p[0] = c"\r"
    p[1] = c"\n"
    while True:
        digit = n & 15
        p -= 1
        p[0] = digit + (c"0" if digit < 10 else c"a" - 10)
        n >>= 4
        if n == 0:
            return end - p


cdef ssize_t write_simple(int status, int minor, bint keep_alive, bint head_only, const char *date, const char *text,
                          uint8_t *out, size_t cap) noexcept nogil:
    cdef Writer w
    cdef const char *reason = reason_phrase(status)
    cdef size_t n
    if text == NULL:
        text = reason
    n = strlen(text)
    writer_init(&w, out, cap)
    _literal(&w, b"HTTP/1.1 ")
    _write_number(&w, <uint64_t> status)
    _literal(&w, b" ")
    _literal(&w, reason)
    _literal(&w, b"\r\n")
    if status >= 200:
        if date != NULL:
            _write_date(&w, date)
        if status == 405 or status == 204:      # RFC 9110, section 15.5.6; our 204 is the answer to an OPTIONS
            _literal(&w, b"Allow: ")
            _literal(&w, ALLOWED)
            _literal(&w, b"\r\n")
        elif passes_soon(status):
            _literal(&w, b"Retry-After: 1\r\n")
        if status != 204 and status != 304:
            _literal(&w, b"Content-Type: text/plain; charset=utf-8\r\n")
            _write_framing(&w, FRAMING_LENGTH, n + 1)
        _write_persistence(&w, minor, keep_alive)
    _literal(&w, b"\r\n")
    # HEAD, 204 and 304 have no content whatever the head announces (RFC 9112, section 6.3).
    if status >= 200 and status != 204 and status != 304 and not head_only:
        write_bytes(&w, text, n)
        _literal(&w, b"\n")
    return -1 if w.overflow else <ssize_t> written(&w)


cdef const char *reason_phrase(int status) noexcept nogil:
    if status == 100: return b"Continue"
    if status == 101: return b"Switching Protocols"
    if status == 103: return b"Early Hints"
    if status == 200: return b"OK"
    if status == 204: return b"No Content"
    if status == 301: return b"Moved Permanently"
    if status == 302: return b"Found"
    if status == 304: return b"Not Modified"
    if status == 307: return b"Temporary Redirect"
    if status == 308: return b"Permanent Redirect"
    if status == 400: return b"Bad Request"
    if status == 401: return b"Unauthorized"
    if status == 403: return b"Forbidden"
    if status == 404: return b"Not Found"
    if status == 405: return b"Method Not Allowed"
    if status == 408: return b"Request Timeout"
    if status == 411: return b"Length Required"
    if status == 413: return b"Content Too Large"
    if status == 414: return b"URI Too Long"
    if status == 417: return b"Expectation Failed"
    if status == 421: return b"Misdirected Request"
    if status == 425: return b"Too Early"
    if status == 426: return b"Upgrade Required"
    if status == 429: return b"Too Many Requests"
    if status == 431: return b"Request Header Fields Too Large"
    if status == 500: return b"Internal Server Error"
    if status == 501: return b"Not Implemented"
    if status == 502: return b"Bad Gateway"
    if status == 503: return b"Service Unavailable"
    if status == 504: return b"Gateway Timeout"
    if status == 505: return b"HTTP Version Not Supported"
    return b"Status"


# -- the same for Python: tests, fuzzing, tools

cdef enum:
    HEAD_SPACE = 65536
cdef Limits WIDE
WIDE.line, WIDE.head, WIDE.fields = HEAD_SPACE, HEAD_SPACE, 256


def serialise_request(bytes data not None, bytes client not None=b"192.0.2.1", bint client_is_v6=False,
                      bytes proto not None=b"https", bint x_forwarded=False, bint forwarded=False,
                      bytes default_host=None, bytes upgrade=None, bytes dropped=b"", framing=None, cap=None, trace=None):
    """Parses a request head and writes it for an upstream: bytes, the parser's negative status, or -1 when it does
    not fit cap (None: request_room, at most 65536). framing None: as received. trace: (trace id, span id, flags, whether
    the tracestate stays)."""
    cdef TraceFields fields
    cdef const uint8_t *ids
    cdef Head head
    cdef Forwarding f
    cdef uint8_t out[HEAD_SPACE]
    cdef ssize_t n = parse_request(data, len(data), &WIDE, &head)
    if n < 0:
        return n
    f.client, f.client_len, f.client_is_v6 = client, len(client), client_is_v6
    f.proto, f.x_forwarded, f.forwarded = proto, x_forwarded, forwarded
    f.upgrade, f.upgrade_len, f.websocket_key = NULL, 0, NULL
    f.dropped, f.dropped_len = dropped, len(dropped)
    if upgrade is not None:
        f.upgrade, f.upgrade_len = upgrade, len(upgrade)
    f.default_host, f.default_host_len = NULL, 0
    f.asked_host, f.asked_host_len = NULL, 0
    f.trace = NULL
    if trace is not None:
        trace_id, span_id, fields.context.flags, fields.state = trace
        both = trace_id + span_id
        ids = both
        memcpy(fields.context.trace_id, ids, TRACE_ID)
        memcpy(fields.context.parent_id, ids + TRACE_ID, SPAN_ID)
        f.trace = &fields
    if default_host is not None:
        f.default_host, f.default_host_len = default_host, len(default_host)
    n = write_request(&head, &f, head.framing if framing is None else framing, out,
                      min(<size_t> HEAD_SPACE, request_room(&head, &f) if cap is None else <size_t> cap))
    return n if n < 0 else out[:n]


def serialise_response(bytes data not None, int request_method=1, framing=None, int client_minor=1,
                       bint keep_alive=True, bytes date=None, cap=None):
    """Parses a response head and writes it for a client, likewise."""
    cdef Head head
    cdef uint8_t out[HEAD_SPACE]
    cdef const char *when = NULL
    cdef ssize_t n = parse_response(data, len(data), &WIDE, request_method, &head)
    if n < 0:
        return n
    if date is not None:
        when = date
    n = write_response(&head, head.framing if framing is None else framing, client_minor, keep_alive, when, out,
                       min(<size_t> HEAD_SPACE, response_room(&head) if cap is None else <size_t> cap))
    return n if n < 0 else out[:n]


def simple_response(int status, int minor=1, bint keep_alive=True, bint head_only=False, bytes date=None,
                    bytes text=None, size_t cap=HEAD_SPACE):
    """write_simple's bytes, or -1 when they do not fit cap."""
    cdef uint8_t out[HEAD_SPACE]
    cdef const char *when = NULL
    cdef const char *body = NULL
    if date is not None:
        when = date
    if text is not None:
        body = text
    n = write_simple(status, minor, keep_alive, head_only, when, body, out, min(<size_t> HEAD_SPACE, cap))
    return n if n < 0 else out[:n]


def without_field(bytes lines not None, bytes name not None):
    """drop_lines of a copy."""
    cdef bytearray left = bytearray(lines)
    cdef uint8_t *p = left
    return bytes(left[:drop_lines(p, len(left), name, len(name))])


def chunk_size_line(uint64_t n):
    cdef uint8_t line[18]
    cdef size_t used = write_chunk_size(line + 18, n)
    return line[18 - used:18]
