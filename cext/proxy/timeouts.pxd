"""Time limits of a connection and of a request: what can expire, and which of route and listener has the word.

A limit is in ms, a rate in bytes per second; 0 is none, UNSET leaves it to who comes next: a route's limits override
its listener's. An Exchange has its own copy in `x.timeouts`, all set, which may be changed at any time, before x.start()
or while it runs; x.retime() follows each change, and what is waited for counts by the new limits: `total` from the
request's beginning, all others from then on. docs/timeouts.md says what each one measures.
"""

cdef enum:
    UNSET = -1

cdef struct Timeouts:
    int header                  # a request's head, from its first byte to its last
    int body_idle               # without a byte of the request's content, while it is waited for
    int body_rate               # of the request's content while it is waited for, on average
    int connect                 # to one server of the upstream
    int first_byte              # from the end of the request to the response's head
    int response_idle           # the upstream neither sends of its response nor takes of the request
    int write_idle              # the client takes nothing of what waits for it
    int write_rate              # at which the client takes it, on average
    int rate_grace              # before either rate is looked at
    int total                   # from the request's head to the end of the exchange
    int keepalive               # without a request, after a response
    int tunnel_idle             # without a byte in either direction

cdef int read_timeouts(Timeouts *t, dict values) except -1
# Those named in `values`; all others are UNSET. ValueError for a name that is none of the above.

cdef inline int _first(int a, int b) noexcept nogil:
    return a if a != UNSET else b

cdef inline void resolve(Timeouts *t, const Timeouts *route, const Timeouts *listener) noexcept nogil:
    """The route's (NULL: there is none), where set, else the listener's."""
    t[0] = listener[0]
    if route == NULL:
        return
    t.header = _first(route.header, t.header)
    t.body_idle = _first(route.body_idle, t.body_idle)
    t.body_rate = _first(route.body_rate, t.body_rate)
    t.connect = _first(route.connect, t.connect)
    t.first_byte = _first(route.first_byte, t.first_byte)
    t.response_idle = _first(route.response_idle, t.response_idle)
    t.write_idle = _first(route.write_idle, t.write_idle)
    t.write_rate = _first(route.write_rate, t.write_rate)
    t.rate_grace = _first(route.rate_grace, t.rate_grace)
    t.total = _first(route.total, t.total)
    t.keepalive = _first(route.keepalive, t.keepalive)
    t.tunnel_idle = _first(route.tunnel_idle, t.tunnel_idle)
