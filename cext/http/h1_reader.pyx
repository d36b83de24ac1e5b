"""HTTP/1.1 from bytes: where a head ends, what its lines say, where its body ends (RFC 9112).

The grammar is read strictly: one space between the parts of a request line, CRLF and nothing else as line end, no
whitespace before a colon, no folded lines, no control bytes. Section 2.2 and 5.1 allow leniency in places; each of
them is a way to make two readers see two messages. What the fields mean is http/rules' part.
"""

from libc.stdint cimport INT64_MAX, int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp, memcpy, memmove

from types import SimpleNamespace

from cext.http.message cimport (
    FRAMING_CHUNKED, FRAMING_CLOSE, FRAMING_LENGTH, FRAMING_NONE, MAX_FIELDS, METHOD_CONNECT, METHOD_DELETE, METHOD_GET,
    METHOD_HEAD, METHOD_OPTIONS, METHOD_OTHER, METHOD_PATCH, METHOD_POST, METHOD_PUT, METHOD_TRACE, Field, Head, Limits,
    Span)
from cext.http.rules cimport (
    HTTP_HEX, HTTP_TARGET, HTTP_TOKEN, field_id, http_class, line_break, settle_request, settle_response, text_end,
    trailer_forbidden)

cdef enum:
    MAX_METHOD = 32
    MAX_SIZE_LINE = 256         # chunk size with its extensions, bytes
    MAX_SIZE_DIGITS = 16
    MAX_TRAILERS = 8192         # trailer section, bytes

cdef enum:
    LINE_SEEN = 0x80000000      # in `scanned`: the first line's end is behind


# -- heads

cdef int find_head_end(const uint8_t *p, size_t n, uint32_t *scanned, const Limits *limits,
                       bint request) noexcept nogil:
    cdef size_t at = scanned[0] & ~<uint32_t> LINE_SEEN
    cdef bint line_seen = (scanned[0] & <uint32_t> LINE_SEEN) != 0
    cdef size_t end = n if n < limits.head else limits.head
    while True:
        at = line_break(p, at, end)
        if at >= end or (p[at] == c"\r" and at + 1 == end):
            break                           # a CR at the end is looked at again, with its LF
        if p[at] != c"\r" or p[at + 1] != c"\n" or at == 0:
            return -400 if request else -502
        if not line_seen:
            if at > limits.line:
                return -414 if request else -502
            line_seen = 1
        elif p[at - 1] == c"\n":
            return <int> (at + 2)
        at += 2
    if not line_seen and at > limits.line:
        return -414 if request else -502
    if n >= limits.head:
        return -431 if request else -502
    scanned[0] = <uint32_t> at | (<uint32_t> LINE_SEEN if line_seen else 0)
    return 0


cdef size_t skip_empty_lines(const uint8_t *p, size_t n) noexcept nogil:
    cdef size_t at = 0
    while at + 1 < n and p[at] == c"\r" and p[at + 1] == c"\n":
        at += 2
    return at


cdef int parse_request(const uint8_t *p, size_t n, const Limits *limits, Head *out) noexcept nogil:
    cdef int status = _begin(p, n, limits, out)
    cdef size_t at = 0
    cdef size_t start
    if status < 0:
        return status
    # The head ends in CRLF, and CR belongs to no class: scans by class need no bound.
    while http_class[p[at]] & HTTP_TOKEN:
        at += 1
    if at == 0 or p[at] != c" ":
        return -400
    if at > MAX_METHOD:
        return -501                         # section 3: longer than any we implement
    out.method_name.off = 0
    out.method_name.len = <uint32_t> at
    out.method = _method(p, at)

    at += 1
    start = at
    while http_class[p[at]] & HTTP_TARGET:
        at += 1
    if at > limits.line:
        return -414
    if at == start or p[at] != c" ":
        return -400
    out.target.off = <uint32_t> start
    out.target.len = <uint32_t> (at - start)

    at += 1
    status = _version(p + at, n - at, out)
    if status < 0:
        return status
    at += 8
    if at > limits.line:
        return -414
    if p[at] != c"\r" or p[at + 1] != c"\n":
        return -400
    status = _parse_fields(p, at + 2, n, limits, out, 1)
    return status if status < 0 else settle_request(out)


cdef int parse_response(const uint8_t *p, size_t n, const Limits *limits, int request_method, Head *out) noexcept nogil:
    cdef size_t at = 12
    if _begin(p, n, limits, out) < 0 or _version(p, n, out) < 0 or n < 16:
        return -502
    if p[8] != c" " or not (c"1" <= p[9] <= c"5") or not (c"0" <= p[10] <= c"9") or not (c"0" <= p[11] <= c"9"):
        return -502
    out.status = (p[9] - c"0") * 100 + (p[10] - c"0") * 10 + (p[11] - c"0")
    # The space behind the code is a MUST, the phrase is not; senders that leave out both are common.
    if p[at] == c" ":
        at += 1
    elif p[at] != c"\r":
        return -502
    out.status_text.off = <uint32_t> at
    at = text_end(p, at, n)
    out.status_text.len = <uint32_t> at - out.status_text.off
    if at > limits.line or p[at] != c"\r" or p[at + 1] != c"\n":
        return -502
    if _parse_fields(p, at + 2, n, limits, out, 0) < 0:
        return -502
    return settle_response(out, request_method)


cdef int _begin(const uint8_t *p, size_t n, const Limits *limits, Head *out) noexcept nogil:
    if n > limits.head:
        return -431
    if n < 4 or p[n - 2] != c"\r" or p[n - 1] != c"\n":
        return -400
    out.base = p
    out.length = <uint32_t> n
    out.n_fields = 0
    out.method = METHOD_OTHER
    out.method_name.len = out.target.len = out.path.len = out.query.len = out.host.len = 0
    out.method_name.off = out.target.off = out.path.off = out.query.off = out.host.off = 0
    out.status = 0
    out.status_text.off = out.status_text.len = 0
    out.protocol.off = out.protocol.len = 0
    return 0


cdef int _version(const uint8_t *p, size_t n, Head *out) noexcept nogil:
    """HTTP-version (section 2.3), the name in upper case. A minor version above 1 is read as 1."""
    if n < 8 or memcmp(p, b"HTTP/", 5) != 0 or p[6] != c"." \
            or p[5] < c"0" or p[5] > c"9" or p[7] < c"0" or p[7] > c"9":
        return -400
    if p[5] != c"1":
        return -505
    out.minor = p[7] != c"0"
    return 0


cdef int _method(const uint8_t *p, size_t n) noexcept nogil:
    if n == 3:
        if memcmp(p, b"GET", 3) == 0:
            return METHOD_GET
        if memcmp(p, b"PUT", 3) == 0:
            return METHOD_PUT
    elif n == 4:
        if memcmp(p, b"POST", 4) == 0:
            return METHOD_POST
        if memcmp(p, b"HEAD", 4) == 0:
            return METHOD_HEAD
    elif n == 5:
        if memcmp(p, b"PATCH", 5) == 0:
            return METHOD_PATCH
        if memcmp(p, b"TRACE", 5) == 0:
            return METHOD_TRACE
    elif n == 6:
        if memcmp(p, b"DELETE", 6) == 0:
            return METHOD_DELETE
    elif n == 7:
        if memcmp(p, b"OPTIONS", 7) == 0:
            return METHOD_OPTIONS
        if memcmp(p, b"CONNECT", 7) == 0:
            return METHOD_CONNECT
    return METHOD_OTHER


cdef int _parse_fields(const uint8_t *p, size_t at, size_t n, const Limits *limits, Head *out,
                       bint request) noexcept nogil:
    """Field lines (section 5) from p[at] through the empty line, which must be p[n-2:n]."""
    cdef Field *f
    cdef size_t start, stop
    cdef int known
    cdef uint32_t most = limits.fields if limits.fields < MAX_FIELDS else MAX_FIELDS
    while True:
        if at + 2 > n:
            return -400
        if p[at] == c"\r":
            return 0 if at + 2 == n and p[at + 1] == c"\n" else -400
        if out.n_fields == most:
            return -431
        f = &out.fields[out.n_fields]
        start = at
        while http_class[p[at]] & HTTP_TOKEN:
            at += 1
        if at == start or p[at] != c":":
            return -400
        known = field_id(p + start, at - start)
        if known < 0:
            if request:
                return -400
            known = 0
        f.id = <uint8_t> known
        f.hop_by_hop = 0
        f.name.off = <uint32_t> start
        f.name.len = <uint32_t> (at - start)

        at += 1
        while p[at] == c" " or p[at] == c"\t":
            at += 1
        f.value.off = <uint32_t> at
        at = text_end(p, at, n)
        if at + 2 > n or p[at] != c"\r" or p[at + 1] != c"\n":
            return -400
        if at - start > limits.line:
            return -431
        stop = at
        while stop > f.value.off and (p[stop - 1] == c" " or p[stop - 1] == c"\t"):
            stop -= 1
        f.value.len = <uint32_t> stop - f.value.off
        out.n_fields += 1
        at += 2


# -- bodies

cdef enum ChunkState:           # where in chunked-body (section 7.1) the next byte stands
    SIZE = 0
    EXT_START
    EXT_NAME
    EXT_VALUE_START
    EXT_VALUE
    EXT_QUOTED
    EXT_ESCAPE
    EXT_QUOTE_END
    SIZE_LF
    DATA
    DATA_CR
    DATA_LF
    TRAILER
    TRAILER_LF
    FINISHED
    FAILED


cdef void body_begin(BodyReader *b, int framing, int64_t content_length) noexcept nogil:
    b.framing = <uint8_t> framing
    b.state = SIZE
    b.remaining = <uint64_t> content_length if framing == FRAMING_LENGTH else 0
    b.line = 0
    b.trailers = NULL
    b.trailers_len = b.trailers_cap = b.trailers_open = 0
    if framing == FRAMING_NONE:
        b.state = FINISHED


cdef void body_free(BodyReader *b) noexcept nogil:
    free(b.trailers)
    b.trailers = NULL
    b.trailers_len = b.trailers_cap = b.trailers_open = 0


cdef int body_eof(BodyReader *b) noexcept nogil:
    if b.state == FAILED:
        return BODY_ERROR
    if b.state == FINISHED or b.framing == FRAMING_CLOSE or (b.framing == FRAMING_LENGTH and b.remaining == 0):
        b.state = FINISHED
        return BODY_END
    b.state = FAILED
    return BODY_ERROR


cdef int body_next(BodyReader *b, const uint8_t *p, size_t n, size_t *consumed,
                   const uint8_t **data, size_t *data_len) noexcept nogil:
    consumed[0] = 0
    data[0] = NULL
    data_len[0] = 0
    if b.state == FAILED:
        return BODY_ERROR
    if b.state == FINISHED:
        return BODY_END
    if b.framing == FRAMING_CHUNKED:
        return _chunked_next(b, p, n, consumed, data, data_len)
    if b.framing == FRAMING_LENGTH:
        if b.remaining == 0:
            b.state = FINISHED
            return BODY_END
        if n > b.remaining:
            n = b.remaining
        b.remaining -= n
    if n == 0:
        return BODY_MORE
    consumed[0] = data_len[0] = n
    data[0] = p
    return BODY_DATA


cdef int _chunked_next(BodyReader *b, const uint8_t *p, size_t n, size_t *consumed,
                       const uint8_t **data, size_t *data_len) noexcept nogil:
    cdef size_t i = 0
    cdef size_t run
    cdef int step
    while i < n:
        if b.state == DATA:
            run = n - i if n - i < b.remaining else b.remaining
            b.remaining -= run
            if b.remaining == 0:
                b.state = DATA_CR
            data[0] = p + i
            data_len[0] = run
            consumed[0] = i + run
            return BODY_DATA
        if b.state == TRAILER:
            run = text_end(p, i, n) - i
            if run and _trailer_text(b, p + i, run) < 0:
                return _failed(b)
            i += run
            if i == n:
                break
            if p[i] != c"\r":
                return _failed(b)
            b.state = TRAILER_LF
        elif b.state == TRAILER_LF:
            if p[i] != c"\n":
                return _failed(b)
            if b.trailers_open == 0:
                b.state = FINISHED
                consumed[0] = i + 1
                return BODY_END
            if _trailer_line(b) < 0:
                return _failed(b)
            b.state = TRAILER
        elif b.state == DATA_CR:
            if p[i] != c"\r":
                return _failed(b)
            b.state = DATA_LF
        elif b.state == DATA_LF:
            if p[i] != c"\n":
                return _failed(b)
            b.state = SIZE
        else:
            step = _size_line(b, p[i])
            if step < 0:
                return _failed(b)
            b.state = <uint8_t> step
        i += 1
    consumed[0] = n
    return BODY_MORE


cdef int _failed(BodyReader *b) noexcept nogil:
    b.state = FAILED
    return BODY_ERROR


cdef int _size_line(BodyReader *b, uint8_t c) noexcept nogil:
    """The next byte of a chunk-size line -> the state after it, or -1. Extensions (section 7.1.1) are checked and
    dropped; the whitespace that section calls bad is refused."""
    cdef int state = b.state
    if state == SIZE_LF:
        b.line = 0
        if c != c"\n":
            return -1
        return DATA if b.remaining else TRAILER
    if b.line == 0:
        b.remaining = 0
    b.line += 1
    if b.line > MAX_SIZE_LINE:
        return -1
    if state == SIZE:
        if http_class[c] & HTTP_HEX:
            if b.line > MAX_SIZE_DIGITS:
                return -1
            b.remaining = b.remaining << 4 | <uint64_t> (c - c"0" if c <= c"9" else (c | 0x20) - c"a" + 10)
            return SIZE
        if b.line == 1 or b.remaining > <uint64_t> INT64_MAX:
            return -1
        return _after_extension(c)
    if state == EXT_START:
        return EXT_NAME if http_class[c] & HTTP_TOKEN else -1
    if state == EXT_NAME:
        if http_class[c] & HTTP_TOKEN:
            return EXT_NAME
        return EXT_VALUE_START if c == c"=" else _after_extension(c)
    if state == EXT_VALUE_START:
        if c == c'"':
            return EXT_QUOTED
        return EXT_VALUE if http_class[c] & HTTP_TOKEN else -1
    if state == EXT_VALUE:
        return EXT_VALUE if http_class[c] & HTTP_TOKEN else _after_extension(c)
    if state == EXT_QUOTE_END:
        return _after_extension(c)
    if (c < 0x20 and c != c"\t") or c == 0x7F:
        return -1
    if state == EXT_ESCAPE:
        return EXT_QUOTED
    return EXT_QUOTE_END if c == c'"' else EXT_ESCAPE if c == c"\\" else EXT_QUOTED


cdef int _after_extension(uint8_t c) noexcept nogil:
    return EXT_START if c == c";" else SIZE_LF if c == c"\r" else -1


cdef int _trailer_text(BodyReader *b, const uint8_t *p, size_t n) noexcept nogil:
    """Keeps n bytes of an unfinished trailer line; -1 over the section's limit or out of memory."""
    if n > MAX_TRAILERS - b.line or _trailer_room(b, n) < 0:
        return -1
    memcpy(b.trailers + b.trailers_len + b.trailers_open, p, n)
    b.trailers_open += <uint32_t> n
    b.line += <uint32_t> n
    return 0


cdef int _trailer_room(BodyReader *b, size_t more) noexcept nogil:
    cdef size_t need = b.trailers_len + b.trailers_open + more
    cdef size_t cap = b.trailers_cap if b.trailers_cap else 256
    cdef uint8_t *grown
    if need <= b.trailers_cap:
        return 0
    while cap < need:
        cap *= 2
    grown = <uint8_t *> realloc(b.trailers, cap)
    if grown == NULL:
        return -1
    b.trailers = grown
    b.trailers_cap = <uint32_t> cap
    return 0


cdef int _trailer_line(BodyReader *b) noexcept nogil:
    """A whole trailer line stands behind trailers_len: checks it, and keeps it as "Name: value" CRLF or drops it."""
    cdef uint8_t *p
    cdef size_t colon = 0
    cdef size_t start
    cdef size_t n = b.trailers_open
    b.line += 2
    if b.line > MAX_TRAILERS or _trailer_room(b, 3) < 0:
        return -1
    p = b.trailers + b.trailers_len
    b.trailers_open = 0
    while colon < n and http_class[p[colon]] & HTTP_TOKEN:
        colon += 1
    if colon == 0 or colon == n or p[colon] != c":":
        return -1
    if trailer_forbidden(p, colon):
        return 0
    start = colon + 1
    while start < n and (p[start] == c" " or p[start] == c"\t"):
        start += 1
    while n > start and (p[n - 1] == c" " or p[n - 1] == c"\t"):
        n -= 1
    memmove(p + colon + 2, p + start, n - start)
    p[colon + 1] = c" "
    n = colon + 2 + n - start
    p[n] = c"\r"
    p[n + 1] = c"\n"
    b.trailers_len += <uint32_t> n + 2
    return 0


# -- the same for Python: tests, fuzzing, tools

DEFAULT_LIMITS = {"line": 8192, "head": 32768, "fields": 100}


cdef int _limits(dict given, Limits *out) except -1:
    given = {**DEFAULT_LIMITS, **given}
    if len(given) != 3:
        raise TypeError("the limits are line, head and fields")
    out.line, out.head, out.fields = given["line"], given["head"], given["fields"]
    return 0


cdef bytes _text(const Head *h, Span s):
    return h.base[s.off:s.off + s.len]


cdef object _describe(const Head *h, bint request):
    cdef uint32_t i
    out = SimpleNamespace(
        minor=h.minor, keep_alive=bool(h.keep_alive), framing=h.framing, content_length=h.content_length,
        upgrade=_text(h, h.upgrade), te_trailers=bool(h.te_trailers), length=h.length,
        fields=[(_text(h, h.fields[i].name), _text(h, h.fields[i].value)) for i in range(h.n_fields)],
        hop_by_hop=[bool(h.fields[i].hop_by_hop) for i in range(h.n_fields)],
        ids=[h.fields[i].id for i in range(h.n_fields)])
    if request:
        out.method, out.method_id = _text(h, h.method_name), h.method
        out.target, out.path, out.query = _text(h, h.target), _text(h, h.path), _text(h, h.query)
        out.host, out.expect_continue = _text(h, h.host), bool(h.expect_continue)
        out.max_forwards = h.max_forwards
    else:
        out.status, out.reason = h.status, _text(h, h.status_text)
        out.has_date, out.has_server = bool(h.has_date), bool(h.has_server)
    return out


def parse_request_bytes(bytes data not None, **limits):
    """parse_request of a whole head: an object with the members of Head (spans as bytes, fields as pairs, with
    hop_by_hop and ids beside them), or the negative status. Limits by name: line, head (bytes), fields (number)."""
    cdef Limits lim
    cdef Head head
    cdef int status
    _limits(limits, &lim)
    status = parse_request(data, len(data), &lim, &head)
    return status if status < 0 else _describe(&head, 1)


def parse_response_bytes(bytes data not None, int request_method=METHOD_GET, **limits):
    """parse_response of a whole head, likewise; request_method is a Method."""
    cdef Limits lim
    cdef Head head
    cdef int status
    _limits(limits, &lim)
    status = parse_response(data, len(data), &lim, request_method, &head)
    return status if status < 0 else _describe(&head, 0)


def skip_empty(bytes data not None):
    return skip_empty_lines(data, len(data))


cdef class HeadFinder:
    """find_head_end over a growing buffer."""

    cdef uint32_t scanned
    cdef Limits limits
    cdef bint request

    def __init__(self, bint request=True, **limits):
        self.request = request
        _limits(limits, &self.limits)

    def find(self, bytes data not None, n=None):
        """The head's length in data[:n], 0 or -status. data[:n] holds what earlier calls saw, and more."""
        cdef size_t size = len(data) if n is None else min(n, len(data))
        return find_head_end(data, size, &self.scanned, &self.limits, self.request)

    @property
    def looked(self):
        """How many bytes will not be looked at again."""
        return self.scanned & ~<uint32_t> LINE_SEEN


cdef class BodyDecoder:
    """A BodyReader. framing is a Framing; content_length counts with FRAMING_LENGTH alone."""

    cdef BodyReader reader

    def __cinit__(self, int framing, int64_t content_length=0):
        if not FRAMING_NONE <= framing <= FRAMING_CLOSE or content_length < 0:
            raise ValueError("framing or content_length")
        body_begin(&self.reader, framing, content_length)

    def __dealloc__(self):
        body_free(&self.reader)

    def step(self, bytes data not None):
        """One body_next: (BodyStep, consumed, content)."""
        cdef size_t consumed, n
        cdef const uint8_t *p
        cdef int result = body_next(&self.reader, data, len(data), &consumed, &p, &n)
        return result, consumed, p[:n] if n else b""

    def feed(self, bytes data not None):
        """Every step there is in data: (last BodyStep, bytes consumed, content)."""
        taken, content = 0, []
        while True:
            result, consumed, part = self.step(data[taken:])
            taken += consumed
            content.append(part)
            if result != BODY_DATA:
                return result, taken, b"".join(content)

    def eof(self):
        return body_eof(&self.reader)

    @property
    def trailers(self):
        """The validated trailer lines so far."""
        return self.reader.trailers[:self.reader.trailers_len] if self.reader.trailers_len else b""
