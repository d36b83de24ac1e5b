"""Requests that arrive in early data (RFC 8470): on a connection whose handshake is not confirmed they may be a replay.

Where a route may want to know of them at once, the connection's session is opened by the first of them, within an
EarlySession that stays around it until the handshake is confirmed and all early bytes are read. Each of their exchanges
has an EarlyRequest. Elsewhere the bytes wait, as they came, for the end of the handshake.

Both are gone before a connection is idle: nothing of them is part of its memory.
"""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.base.buffer cimport Bytes
from cext.base.timers cimport Timer
from cext.http.message cimport Head
from cext.proxy.downstream cimport Downstream, Session
from cext.proxy.early_rules cimport EarlyRules
from cext.proxy.exchange cimport Early, Exchange

cdef enum EarlyFate:                    # what became of an early request
    FATE_NONE = 0
    FATE_FORWARDED = 1                  # it went upstream before the handshake was confirmed
    FATE_CONFIRMED = 2                  # afterwards
    FATE_REFUSED = 3                    # it was answered 425
    FATE_RETRIED = 4                    # forwarded, answered 425 by the upstream, and sent again afterwards
    FATES = 5

cdef class EarlySession(Session):
    """Stands for the session of a connection: client.session, while client.early."""
    cdef Downstream client
    cdef Session inner
    cdef Timer handshake                # until it must be confirmed
    cdef list waiting                   # exchanges that are held until then
    cdef list callbacks                 # see when_confirmed
    cdef uint32_t heads                 # early ones so far
    cdef bint confirmed
    cdef bint framed                    # HTTP/2
    cdef size_t left                    # early bytes that the session has not taken, at the front of client.plain
    cdef const uint8_t *edge            # while it takes some: where they end
    cdef uint32_t block                 # of HTTP/2: the header block that began in early data and has not ended; 0: none
    cdef void confirm(self) noexcept
    cdef void settle(self) noexcept
    cdef void answer(self, bint yes) noexcept
    cdef bint brought(self, const Head *h) noexcept

cdef class EarlyRequest(Early):
    cdef EarlySession connection        # None: the request says itself that it was early data of somebody else's
    cdef EarlyRules rules               # of the route that was found for it; None: it waits
    cdef Bytes text                     # the head as it came, while it waits to be launched,
    cdef uint32_t head_len              # and how much of that it is
    cdef uint32_t number                # among the early ones of its connection, from 1; 0: not launched, or promised
    cdef uint32_t added                 # bytes of the fields that the head has now for the upstream
    cdef bint safe                      # by its route's rules
    cdef bint claimed                   # it has an Early-Data field of its own
    cdef bint again                     # it waits to be sent a second time
    cdef uint8_t fate                   # EarlyFate
    cdef void wait(self, Exchange x) noexcept
    cdef void release(self, Exchange x) noexcept
    cdef void settle(self, Exchange x, int fate) noexcept

cdef EarlySession early_session(Downstream client)
# None where there is none (any more).

cdef int note_early(Downstream client, Exchange x, const Head *h) except -1
# Before an exchange is launched: sets x.early if it arrived, or says it did, in early data. MemoryError.

cdef bint early_gate(Downstream client, Exchange x, const Head *h) noexcept
# Whether x, which has an x.early, may be launched. If not, it was answered, or is held, and its sink's
# request_admitted follows once the handshake is confirmed.

cdef bint early_start(Downstream client, Exchange x) noexcept
# Likewise before its upstream is asked: by the route that it has now.

cdef int when_confirmed(Downstream client, object callback) except -1
# callback(True) once the handshake is confirmed, callback(False) if the connection ends before: from the loop, at the end
# of a turn, once.

cdef bint unconfirmed(Downstream client) noexcept
# Whether what the client has sent so far may be a replay.

cdef const char *fate_name(int fate) noexcept
