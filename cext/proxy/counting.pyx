"""Counting (see the .pxd). All of it is additions to memory that this process alone writes to."""

from cext.base.stats cimport Series, observe, series_of
from cext.proxy.pool cimport UpstreamGroup
from cext.proxy.tunnel cimport Tunnel
from cext.tls.names cimport cipher_suite_place, group_place


cdef void count_handshake(Context ctx, Connection tls, uint64_t us) noexcept:
    ctx.counters.handshakes += 1
    ctx.row.handshakes[cipher_suite_place(tls.cipher_suite)][group_place(tls.group)][tls.resumed] += 1
    observe(&ctx.row.resumed_handshake if tls.resumed else &ctx.row.full_handshake, us)


cdef void count_alert(Context ctx, object failure) noexcept:
    cdef int description = failure.description & 0xFF
    if failure.sent:
        ctx.row.alerts_sent[description] += 1
    else:
        ctx.row.alerts_received[description] += 1


cdef void count_exchange(Exchange x, uint64_t wire_in, uint64_t wire_out) noexcept:
    cdef uint64_t first_byte = x.first_byte_us - x.started_us if x.first_byte_us else 0
    cdef uint64_t total = x.ctx.loop.now_us - x.started_us
    cdef bint tunnel = isinstance(x, Tunnel) and (<Tunnel> x).switched
    cdef UpstreamGroup group
    cdef Series *s
    if x.route is None:
        s = x.ctx.stats.of(SERIES_UNROUTED)
    else:
        s = series_of(x.route, x.ctx.stats)
    count(s, x.status, wire_in, wire_out, first_byte, total, tunnel)
    if x.server is None:
        return
    group = x.group()
    s = series_of(group, x.ctx.stats)
    count(s, x.status, wire_in, wire_out, first_byte, total, tunnel)
    s = series_of(x.server, x.ctx.stats)
    count(s, x.status, wire_in, wire_out, first_byte, total, tunnel)


cdef inline void count(Series *s, int status, uint64_t wire_in, uint64_t wire_out, uint64_t first_byte, uint64_t total,
                       bint tunnel) noexcept nogil:
    s.requests += 1
    s.status[status // 100 if status < 600 else 0] += 1
    s.bytes_in += wire_in
    s.bytes_out += wire_out
    if first_byte:
        observe(&s.first_byte, first_byte)
    if not tunnel:              # which lasts for as long as its ends like
        observe(&s.total, total)


cdef void count_refusal(Context ctx, int status, uint64_t wire_out) noexcept:
    cdef Series *s = ctx.stats.of(SERIES_UNROUTED)
    s.requests += 1
    s.status[status // 100 if status < 600 else 0] += 1
    s.bytes_out += wire_out
