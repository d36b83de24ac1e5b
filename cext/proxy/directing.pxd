"""When hooks are asked: a director before a request goes on, a response hook before its response does."""

from cext.http.message cimport Head
from cext.proxy.downstream cimport Downstream
from cext.proxy.exchange cimport Exchange

cdef bint direct(Downstream client, Exchange x, const Head *h) noexcept
# Asks the policy's director, while h is valid -> whether x is to go on as it is. If not, it is over, held, or goes on by
# sink.request_directed.

cdef bint direct_on_route(Downstream client, Exchange x, const Head *h) noexcept
# Likewise that of its route, which has some hook.
