"""Time limits of a connection and of a request: what can expire, and which of route and listener has the word.

A limit is in ms, a rate in bytes per second; 0 is none, UNSET leaves it to who comes next: a route's limits override
its listener's. An Exchange has its own copy in `x.timeouts`, all set, which may be changed at any time, before x.start()
or while it runs; x.retime() follows each change, and what is waited for counts by the new limits: `total` from the
request's beginning, all others from then on. docs/timeouts.md says what each one measures.

Two meters measure a client: Intake what it sends, told of every byte; Outflow what it takes, looked at from time to time
(the kernel counts for it). Neither costs more per byte than the addition that is made anyway.
"""

from libc.stdint cimport uint64_t

cdef enum:
    UNSET = -1
    LOOKS = 4                   # at an Outflow within the shortest of its limits
    LOOK_MS = 16                # least between two

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


cdef struct Intake:             # of a request's content
    uint64_t since              # ms: when the wait began that lasts; 0: none does
    uint64_t moved_at           # ms: when content came last, or that wait began
    uint64_t bytes              # of content by then
    uint64_t waited             # ms, in waits that are over

cdef inline uint64_t intake_due(Intake *w, const Timeouts *t, uint64_t bytes, uint64_t now) noexcept nogil:
    """The client is waited for, and has sent so much so far -> when that is too long (ms); 0: never."""
    cdef uint64_t due = 0
    cdef uint64_t by_rate
    if w.since == 0:
        w.since = now
        w.moved_at = now
        w.bytes = bytes
    elif bytes != w.bytes:
        w.moved_at = now
        w.bytes = bytes
    if t.body_idle:
        due = w.moved_at + t.body_idle
    if t.body_rate:
        by_rate = bytes * 1000 // <uint64_t> t.body_rate
        by_rate = w.since + max(by_rate, <uint64_t> t.rate_grace) - w.waited
        if due == 0 or by_rate < due:
            due = by_rate
    return due

cdef inline void intake_pause(Intake *w, uint64_t now) noexcept nogil:
    """The client is not waited for."""
    if w.since:
        w.waited += now - w.since
        w.since = 0

cdef inline const char *intake_fault(const Intake *w, const Timeouts *t, uint64_t now) noexcept nogil:
    """Which limit intake_due spoke of."""
    return b"timeout: body_idle" if t.body_idle and now - w.moved_at >= <uint64_t> t.body_idle else b"timeout: min_rate"

cdef struct WriteLimits:        # as in Timeouts
    int idle
    int rate
    int grace

cdef inline WriteLimits write_limits(const Timeouts *t) noexcept nogil:
    cdef WriteLimits w
    w.idle = t.write_idle
    w.rate = t.write_rate
    w.grace = t.rate_grace
    return w

cdef struct Outflow:            # of what waits for a client
    uint64_t looked_at          # ms
    uint64_t moved_at           # ms: when a look found that it had taken something
    uint64_t bytes              # it had taken at the last look,
    uint64_t first              # and at the first one
    uint64_t waited             # ms in which it could have taken more

cdef inline void outflow_begin(Outflow *o, uint64_t bytes, uint64_t now) noexcept nogil:
    o.looked_at = o.moved_at = now
    o.bytes = o.first = bytes
    o.waited = 0

cdef inline const char *outflow_look(Outflow *o, const WriteLimits *w, uint64_t bytes, bint moves, bint waits,
                                     uint64_t now) noexcept nogil:
    """The client has taken so much so far. It `moves` when others of its streams do, and only when it `waits` is it to
    blame. The limit that has expired, or NULL."""
    if moves or not waits or bytes != o.bytes:
        o.moved_at = now
        o.bytes = bytes
    if waits:
        o.waited += now - o.looked_at
    o.looked_at = now
    if w.idle and now - o.moved_at >= <uint64_t> w.idle:
        return b"timeout: write_idle"
    if w.rate and o.waited >= <uint64_t> w.grace and (bytes - o.first) * 1000 < <uint64_t> w.rate * o.waited:
        return b"timeout: write_min_rate"
    return NULL

cdef inline uint64_t outflow_next(const Outflow *o, const WriteLimits *w, uint64_t now) noexcept nogil:
    """When to look again (ms). What moved between two looks is taken to have moved at the second."""
    cdef uint64_t step = w.grace if w.rate and (w.idle == 0 or w.grace < w.idle) else w.idle
    cdef uint64_t due = now + max(step // LOOKS, <uint64_t> LOOK_MS)
    if w.idle and o.moved_at + w.idle < due:
        due = max(o.moved_at + w.idle, now + 1)
    return due
