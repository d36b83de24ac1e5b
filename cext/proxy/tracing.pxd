"""Exchanges in traces: where one begins, and what is told of it when it is over."""

from libc.stdint cimport uint64_t

from cext.http.message cimport Head
from cext.proxy.downstream cimport Downstream
from cext.proxy.exchange cimport Exchange
from cext.proxy.trace cimport Trace

cdef Trace begin_trace(Downstream client, const Head *h)
# For a new request, where ctx.tracer is set. None: there is no randomness.

cdef void end_trace(Downstream client, Exchange x, uint64_t wire_in, uint64_t wire_out, const char *fault) noexcept
# The exchange, which has a trace, is over. `client` may be None, `fault` NULL.
