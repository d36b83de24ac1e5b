"""Exchanges in traces (see the .pxd)."""

from libc.stdint cimport uint8_t, uint16_t
from libc.string cimport memchr, memcpy, strlen
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from cext.base.wire cimport Writer, write_bytes, write_u8, write_u16, writer_init, written
from cext.http.h1_writer cimport RequestText, request_text
from cext.http.trace_context cimport (
    SPAN_ID,
    TRACE_ID,
    TRACE_RANDOM,
    TRACE_SAMPLED,
    TraceContext,
    find_context,
)
from cext.net.address cimport ADDRESS_TEXT, peer_text
from cext.proxy.trace cimport (
    RECORD_EARLY,
    RECORD_MAX,
    RECORD_PARENT,
    RECORD_PUSHED,
    RECORD_RESUMED,
    RECORD_VERSION,
    Tracer,
    write_text,
    write_u64,
)
from cext.tls.psk cimport EARLY_TAKEN
from cext.tls.connection cimport EARLY_NONE

cdef enum:
    PATH_MAX = 1024             # of a path, and of a query


cdef Trace begin_trace(Downstream client, const Head *h):
    cdef Tracer tracer = client.ctx.tracer
    cdef Trace trace = Trace.__new__(Trace)
    cdef TraceContext *ours = &trace.fields.context
    trace.tracer = tracer
    if tracer.trusts(&client.peer) and find_context(h, ours):
        memcpy(trace.parent_id, ours.parent_id, SPAN_ID)
        trace.has_parent = True
        trace.fields.state = True
        trace.sampled = ours.flags & TRACE_SAMPLED
    else:
        # Nobody whose word counts has begun it: a new trace, and no tracestate (section 3.4, "Restart trace").
        if tracer.random_id(ours.trace_id, TRACE_ID) < 0:
            return None
        trace.sampled = tracer.samples(ours.trace_id)
        ours.flags = TRACE_RANDOM | trace.sampled
    if tracer.random_id(ours.parent_id, SPAN_ID) < 0:
        return None
    if trace.sampled and tracer.random_id(trace.span_id, SPAN_ID) < 0:
        return None
    trace.http = 20 if client.tls.alpn == b"h2" else 10 + h.minor
    return trace


cdef void end_trace(Downstream client, Exchange x, uint64_t wire_in, uint64_t wire_out, const char *fault) noexcept:
    cdef uint8_t out[RECORD_MAX]
    cdef Writer w
    cdef size_t n
    if not x.trace.sampled:
        return
    x.end_attempt(fault)
    writer_init(&w, out, sizeof(out))
    write_u16(&w, 0)
    write_facts(&w, client, x, wire_in, wire_out)
    write_names(&w, client, x, fault)
    write_u8(&w, x.trace.n_attempts)
    write_bytes(&w, x.trace.attempts.data, x.trace.attempts.len)
    x.trace.sampled = False                 # it is told once
    if w.overflow:
        return
    n = written(&w)
    out[0] = <uint8_t> ((n - 2) >> 8)
    out[1] = <uint8_t> (n - 2)
    x.trace.tracer.add(out, n)


cdef void write_facts(Writer *w, Downstream client, Exchange x, uint64_t wire_in, uint64_t wire_out) noexcept:
    cdef Trace trace = x.trace
    cdef uint64_t lasted = x.ctx.loop.now_us - x.started_us
    cdef uint8_t flags = RECORD_PARENT if trace.has_parent else 0
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    if x.pushed:
        flags |= RECORD_PUSHED
    if client is not None and client.tls.resumed:
        flags |= RECORD_RESUMED
    if client is not None and client.tls.early_data_state != EARLY_NONE and client.tls.early_data_refusal == EARLY_TAKEN:
        flags |= RECORD_EARLY
    write_u8(w, RECORD_VERSION)
    write_u8(w, flags)
    write_u8(w, trace.fields.context.flags)
    write_bytes(w, trace.fields.context.trace_id, TRACE_ID)
    write_bytes(w, trace.span_id, SPAN_ID)
    write_bytes(w, trace.parent_id, SPAN_ID)
    write_u64(w, <uint64_t> now.tv_sec * 1000000000 + now.tv_nsec - lasted * 1000)
    write_u64(w, lasted)
    write_u64(w, x.first_byte_us - x.started_us if x.first_byte_us else 0)
    write_u64(w, wire_in)
    write_u64(w, wire_out)
    write_u16(w, x.status)
    write_u16(w, <uint16_t> client.tls.version if client is not None else 0)
    write_u8(w, trace.http)


cdef void write_names(Writer *w, Downstream client, Exchange x, const char *fault) noexcept:
    """What was asked for, by whom, and what came of it: texts."""
    cdef char address[ADDRESS_TEXT]
    cdef Exchange first = x if x.overseer is None or x.overseer.before is None else x.overseer.before
    cdef RequestText asked = request_text(first.head.data, first.head.len, first.method_len, first.target_len, first.host_len)
    cdef const uint8_t *query = <const uint8_t *> memchr(asked.target, c"?", asked.target_len)
    cdef size_t path_len = query - asked.target if query != NULL else asked.target_len
    cdef size_t query_len = asked.target_len - path_len - 1 if query != NULL else 0
    cdef size_t address_len = peer_text(&client.peer, address) if client is not None else 0
    cdef bytes name = client.tls.server_name if client is not None else b""
    cdef bytes upstream
    write_u16(w, client.peer.port if client is not None else 0)
    write_text(w, address, address_len, 255)
    write_text(w, asked.method, asked.method_len, 255)
    write_text(w, asked.host, asked.host_len, 255)
    write_text(w, asked.target, path_len, PATH_MAX)
    write_text(w, asked.target + path_len + 1 if query_len else asked.target,
               query_len if x.trace.tracer.settings.query else 0, PATH_MAX)
    write_text(w, <const char *> name, len(name), 255)
    if x.route is not None:
        write_text(w, x.route.pattern_p, x.route.pattern_len, 255)
    else:
        write_u8(w, 0)
    if x.server is not None:
        upstream = x.group().name.encode()
        write_text(w, <const char *> upstream, len(upstream), 255)
    else:
        write_u8(w, 0)
    write_text(w, fault, strlen(fault) if fault != NULL else 0, 255)
