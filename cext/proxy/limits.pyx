"""Limits (see the .pxd). What a limit costs where it is not set is one comparison."""

from libc.stdint cimport uint64_t

from cext.http.message cimport FRAMING_LENGTH
from cext.net.address cimport ADDRESS_TEXT, peer_text
from cext.proxy.address_table cimport NO_PLACE, NO_ROOM
from cext.proxy.context cimport OVER_ADDRESS, OVER_DESCRIPTORS, OVER_LISTENER, OVER_NONE
from cext.proxy.router cimport Route

cdef enum:
    ANSWERS_MAX = 64            # connections over a limit that are told so, at a time: the others are closed
    TELL_MS = 10000             # between two lines in the log about one limit

cdef const char *BUSY = b"The service is overloaded at the moment."
cdef const char *TOO_MANY_HERE = b"There are too many connections or requests from this address."


cdef int admit_connection(Context ctx, ListenerSettings settings, int fd, const Peer *peer, uint32_t *place) noexcept:
    cdef int over = admit_address(ctx, settings, peer, place)
    if over:
        return over
    over = admit_proxied(ctx, settings, fd, peer)
    if over and place[0] != NO_PLACE:
        ctx.addresses.leave(place[0])
        place[0] = NO_PLACE
    return over


cdef int admit_address(Context ctx, ListenerSettings settings, const Peer *peer, uint32_t *place) noexcept:
    place[0] = NO_PLACE
    if not (settings.per_address or settings.requests_per_address) or ctx.addresses is None:
        return OVER_NONE
    place[0] = ctx.addresses.enter(peer, settings.per_address)
    if place[0] != NO_ROOM:
        return OVER_NONE
    place[0] = NO_PLACE
    tell(ctx, OVER_ADDRESS, peer)
    return OVER_ADDRESS


cdef int admit_proxied(Context ctx, ListenerSettings settings, int fd, const Peer *peer) noexcept:
    cdef int over = OVER_NONE
    if settings.max_connections and settings.quota.open >= settings.max_connections and not ctx.relief.of_listener(settings):
        over = OVER_LISTENER
    elif fd >= ctx.high_fd and not ctx.relief.of_descriptors():
        over = OVER_DESCRIPTORS
    if over:
        tell(ctx, over, peer)
    return over


cdef bint may_answer(Context ctx, ListenerSettings settings, int over) noexcept:
    return settings.answer_over and over != OVER_DESCRIPTORS and ctx.answering < ANSWERS_MAX


cdef void tell(Context ctx, int over, const Peer *peer) noexcept:
    """Counts one that is refused; a line in the log at most every TELL_MS, however many there are."""
    cdef char text[ADDRESS_TEXT]
    cdef size_t n
    ctx.counters.connections_over_limit += 1
    if ctx.told_at[over] and ctx.loop.now - ctx.told_at[over] < TELL_MS:
        ctx.untold[over] += 1
        return
    n = peer_text(peer, text)
    others = f" ({ctx.untold[over]} more since the last such line)" if ctx.untold[over] else ""
    ctx.told_at[over] = ctx.loop.now
    ctx.untold[over] = 0
    ctx.log("warning", f"{text[:n].decode()}: connection refused: {refusal_cause(over).decode()}{others}")


cdef int refusal_status(int over) noexcept:
    return 429 if over == OVER_ADDRESS else 503


cdef const char *refusal_text(int over) noexcept:
    return TOO_MANY_HERE if over == OVER_ADDRESS else BUSY


cdef const char *refusal_cause(int over) noexcept:
    if over == OVER_ADDRESS:
        return b"limits.per_address"
    return b"limits.connections" if over == OVER_LISTENER else b"no descriptors to spare"


cdef bint admit_request(Downstream client, Exchange x, const Head *h) noexcept:
    cdef Route route = x.route
    if route is None:
        return True
    if h.length > route.max_head and (x.overseer is None or x.overseer.before is None):     # as the client has sent it
        refuse(x, 431, NULL, b"limits.head")
    elif h.framing == FRAMING_LENGTH and <uint64_t> h.content_length > route.max_body:
        x.refuse_body()
    elif route.max_running and route.load.running >= route.max_running:
        refuse(x, 503, BUSY, b"limits.requests")
    elif client.place != NO_PLACE and not begin(client, x):
        refuse(x, 429, TOO_MANY_HERE, b"limits.requests_per_address")
    else:
        route.load.running += 1
        x.running = True
        return True
    return False


cdef bint begin(Downstream client, Exchange x) noexcept:
    if client.settings.requests_per_address == 0:
        return True
    if not client.ctx.addresses.begin(client.place, client.settings.requests_per_address):
        return False
    x.place = client.place
    return True


cdef void refuse(Exchange x, int status, const char *text, const char *limit) noexcept:
    x.ctx.counters.requests_over_limit += 1
    x.refuse(status, text, limit)
