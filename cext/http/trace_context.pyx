"""Trace contexts (see the .pxd). Sections are those of the recommendation "Trace Context Level 2"."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memcmp, strlen

from cext.base.wire cimport Writer, write_bytes, write_room, writer_init, written
from cext.http.h1_reader cimport parse_request
from cext.http.message cimport FIELD_TRACEPARENT, FIELD_TRACESTATE, Head, Limits, Span
from cext.http.rules cimport next_member

cdef enum:
    MEMBERS_MAX = 32            # section 3.3.1
    LONG_MEMBER = 128           # those that are longer fall away first (section 3.3.1.5)
    KEY_MAX = 256
    VALUE_MAX = 256
    PARENT_AT = 36              # where parent-id stands in a traceparent

cdef const char *DIGITS = b"0123456789abcdef"


cdef int read_hex(const uint8_t *p, size_t n, uint8_t *out) noexcept nogil:
    """2 * n characters to n bytes -> 1 when not all of them are zero, 0 when they are, -1 for any other character."""
    cdef size_t i
    cdef uint8_t c, digit
    cdef uint8_t seen = 0
    for i in range(2 * n):
        c = p[i]
        if c"0" <= c <= c"9":
            digit = c - c"0"
        elif c"a" <= c <= c"f":
            digit = c - c"a" + 10
        else:
            return -1
        seen |= digit
        if i & 1:
            out[i >> 1] |= digit
        else:
            out[i >> 1] = <uint8_t> (digit << 4)
    return 1 if seen else 0


cdef bint parse_traceparent(const uint8_t *p, size_t n, TraceContext *c) noexcept nogil:
    cdef uint8_t version
    if n < TRACEPARENT or read_hex(p, 1, &version) < 0 or version == 0xFF:
        return False
    if n > TRACEPARENT and (version == 0 or p[TRACEPARENT] != c"-"):
        return False
    if p[2] != c"-" or p[35] != c"-" or p[52] != c"-":
        return False
    if read_hex(p + 3, TRACE_ID, c.trace_id) <= 0 or read_hex(p + PARENT_AT, SPAN_ID, c.parent_id) <= 0:
        return False
    if read_hex(p + 53, 1, &c.flags) < 0:
        return False
    c.flags &= TRACE_SAMPLED | TRACE_RANDOM
    return True


cdef bint find_context(const Head *h, TraceContext *c) noexcept nogil:
    cdef uint32_t i
    cdef int found = -1
    for i in range(h.n_fields):
        if h.fields[i].id != FIELD_TRACEPARENT:
            continue
        # One that Connection names was for us alone, which no sender of a trace means.
        if found >= 0 or h.fields[i].hop_by_hop:
            return False
        found = <int> i
    return found >= 0 and parse_traceparent(h.base + h.fields[found].value.off, h.fields[found].value.len, c)


cdef void write_hex(uint8_t *out, const uint8_t *p, size_t n) noexcept nogil:
    cdef size_t i
    for i in range(n):
        out[2 * i] = DIGITS[p[i] >> 4]
        out[2 * i + 1] = DIGITS[p[i] & 15]


cdef void write_trace(Writer *w, const Head *h, TraceFields *t) noexcept nogil:
    cdef uint8_t *p
    if not write_room(w, TRACEPARENT + 15):
        return
    _literal(w, b"traceparent: ")
    p = w.p
    w.p += TRACEPARENT
    p[0] = p[1] = c"0"
    p[2] = p[35] = p[52] = c"-"
    write_hex(p + 3, t.context.trace_id, TRACE_ID)
    write_hex(p + PARENT_AT, t.context.parent_id, SPAN_ID)
    write_hex(p + 53, &t.context.flags, 1)
    t.at = <uint32_t> (p + PARENT_AT - w.start)
    _literal(w, b"\r\n")
    if t.state:
        _write_state(w, h)


cdef void _literal(Writer *w, const char *text) noexcept nogil:
    write_bytes(w, text, strlen(text))


cdef void _write_state(Writer *w, const Head *h) noexcept nogil:
    cdef Span members[MEMBERS_MAX]
    cdef int n = _members(h, members)
    cdef size_t total = 0
    cdef int i
    cdef bint first = True
    if n <= 0:
        return
    for i in range(n):
        total += members[i].len + 1             # with the comma before it; the first has none
    total -= 1
    _shorten(members, n, LONG_MEMBER, &total)
    _shorten(members, n, 0, &total)
    for i in range(n):
        if members[i].len:
            _literal(w, b"tracestate: " if first else b",")
            write_bytes(w, h.base + members[i].off, members[i].len)
            first = False
    if not first:
        _literal(w, b"\r\n")


cdef void _shorten(Span *members, int n, uint32_t above, size_t *total) noexcept nogil:
    """Drops members of more than `above` characters, the last first, until the rest fits."""
    cdef int i = n
    while i > 0 and total[0] > TRACESTATE_MAX:
        i -= 1
        if members[i].len > above:
            total[0] -= members[i].len + 1
            members[i].len = 0


cdef int _members(const Head *h, Span *members) noexcept nogil:
    """The members of all tracestate fields, in order; how many, or -1: what came is no tracestate."""
    cdef Span rest, member
    cdef uint32_t i
    cdef int n = 0
    for i in range(h.n_fields):
        if h.fields[i].id != FIELD_TRACESTATE or h.fields[i].hop_by_hop:
            continue
        rest = h.fields[i].value
        while next_member(h.base, &rest, &member):
            if member.len == 0:
                continue
            if n == MEMBERS_MAX or not _is_member(h.base + member.off, member.len) or _is_known(h, members, n, &member):
                return -1
            members[n] = member
            n += 1
    return n


cdef bint _is_member(const uint8_t *p, size_t n) noexcept nogil:
    """key "=" value (section 3.3.1.3); next_member has taken the whitespace around it, and no value ends in any."""
    cdef size_t key = _key_length(p, n)
    cdef size_t i
    if key == 0 or key == n or p[key] != c"=" or n == key + 1 or n - key - 1 > VALUE_MAX:
        return False
    for i in range(key + 1, n):
        if not 0x20 <= p[i] <= 0x7E or p[i] == c"=":
            return False
    return True


cdef size_t _key_length(const uint8_t *p, size_t n) noexcept nogil:
    cdef size_t i = 0
    cdef uint8_t c
    while i < n and i < KEY_MAX:
        c = p[i]
        if not (c"a" <= c <= c"z" or c"0" <= c <= c"9"):
            if i == 0 or not (c == c"_" or c == c"-" or c == c"*" or c == c"/" or c == c"@"):
                break
        i += 1
    return i


cdef bint _is_known(const Head *h, const Span *members, int n, const Span *member) noexcept nogil:
    """Whether one before it has its key."""
    cdef const uint8_t *p = h.base + member.off
    cdef size_t key = _key_length(p, member.len) + 1        # with its "="
    cdef int i
    for i in range(n):
        if members[i].len >= key and memcmp(h.base + members[i].off, p, key) == 0:
            return True
    return False


# -- the same for Python: tests, fuzzing

cdef enum:
    SPACE = 65536
cdef Limits WIDE
WIDE.line, WIDE.head, WIDE.fields = SPACE, SPACE, 256


def traceparent(bytes value not None):
    """(trace id, parent id, flags), or None."""
    cdef TraceContext c
    if not parse_traceparent(value, len(value), &c):
        return None
    return c.trace_id[:TRACE_ID], c.parent_id[:SPAN_ID], c.flags


def context_of(bytes head not None):
    """Likewise of a request's head; ValueError if it is none."""
    cdef Head h
    cdef TraceContext c
    if parse_request(head, len(head), &WIDE, &h) < 0:
        raise ValueError("no request")
    return (c.trace_id[:TRACE_ID], c.parent_id[:SPAN_ID], c.flags) if find_context(&h, &c) else None


def trace_lines(bytes head not None, bytes trace_id not None, bytes span_id not None, int flags, bint state, cap=None):
    """The lines of write_trace for a request's head, and where its parent-id stands; None: they do not fit `cap`."""
    cdef Head h
    cdef TraceFields t
    cdef Writer w
    cdef uint8_t out[TRACE_ROOM]
    cdef int i
    if parse_request(head, len(head), &WIDE, &h) < 0 or len(trace_id) != TRACE_ID or len(span_id) != SPAN_ID:
        raise ValueError("no request, or ids of another length")
    for i in range(TRACE_ID):
        t.context.trace_id[i] = trace_id[i]
    for i in range(SPAN_ID):
        t.context.parent_id[i] = span_id[i]
    t.context.flags = <uint8_t> flags
    t.state = state
    writer_init(&w, out, min(<size_t> TRACE_ROOM, TRACE_ROOM if cap is None else <size_t> cap))
    write_trace(&w, &h, &t)
    return None if w.overflow else (out[:written(&w)], t.at)
