"""W3C Trace Context, Level 2: traceparent and tracestate, read strictly and written anew.

Who takes part in a trace reads the client's traceparent (or makes up a context), and sends another one, with the trace's
id and its own span for a parent. Who does not take part leaves both fields as they are.
"""

from libc.stdint cimport uint8_t, uint32_t

from cext.base.wire cimport Writer
from cext.http.message cimport Head

cdef enum:
    TRACE_ID = 16                       # bytes
    SPAN_ID = 8
    TRACE_SAMPLED = 1                   # flags: the sender has (probably) recorded its span,
    TRACE_RANDOM = 2                    # and at least the last seven bytes of the trace's id are random
    TRACEPARENT = 55                    # characters of a traceparent of version 00
    TRACESTATE_MAX = 512                # characters of a tracestate that goes on; of a longer one, whole members fall away
    TRACE_ROOM = TRACEPARENT + TRACESTATE_MAX + 32  # bytes that write_trace needs at most

cdef struct TraceContext:
    uint8_t trace_id[TRACE_ID]
    uint8_t parent_id[SPAN_ID]          # the span of who sends it
    uint8_t flags

cdef struct TraceFields:                # what a request goes on with
    TraceContext context
    bint state                          # with the tracestate that came: it belongs to the trace that goes on
    uint32_t at                         # set by write_request: where parent_id stands in the text

cdef bint parse_traceparent(const uint8_t *p, size_t n, TraceContext *c) noexcept nogil
"""Whether it is a traceparent (section 3.2): lower-case hex, no version ff, no id of zeros; of a version above 00 what
version 00 would have, whatever follows. Flags that we do not know are cleared."""

cdef bint find_context(const Head *h, TraceContext *c) noexcept nogil
"""That of a request which has exactly one traceparent, and a valid one."""

cdef void write_trace(Writer *w, const Head *h, TraceFields *t) noexcept nogil
"""traceparent, and with `state` the tracestate of h (section 3.3) as one field: without empty members, within
TRACESTATE_MAX; none if a member is malformed, a key occurs twice, or there are more than 32."""

cdef void write_hex(uint8_t *out, const uint8_t *p, size_t n) noexcept nogil
"""2 * n characters."""
