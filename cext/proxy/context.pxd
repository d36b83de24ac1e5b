"""What all connections of a worker share: the loop, scratch memory, the date, counters, logs."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.base.stats cimport Counters, Row, StatsTable
from cext.http.message cimport Head
from cext.net.guest cimport AsyncGuest, Watchdog
from cext.net.loop cimport Loop
from cext.proxy.address_table cimport AddressTable
from cext.proxy.trace cimport Tracer

cdef enum:
    # A receive takes up to 64 KiB, behind a partial record (at most 16 KiB + 256 + 5) of the one before.
    SCRATCH = 96 * 1024
    # Plaintext queued towards a peer: above HIGH its source is no longer read, below LOW it is again.
    HIGH_WATER = 256 * 1024
    LOW_WATER = 64 * 1024
    # One connection reads this much in a turn; then the others have theirs.
    BYTES_PER_TURN = 1024 * 1024

cdef enum:                              # states of a client's connection, as Go's http.ConnState has them
    STATE_NEW = 0               # accepted: until the first byte of a request
    STATE_ACTIVE = 1            # until the response is written; in HTTP/2 while there are streams
    STATE_IDLE = 2              # kept for the next request
    STATE_HIJACKED = 3          # a tunnel (HTTP/1.1): no request will come any more
    STATE_CLOSED = 4
    STATES = 5

cdef enum:                              # why a connection is not served
    OVER_NONE = 0
    OVER_ADDRESS = 1            # limits.per_address
    OVER_LISTENER = 2           # limits.connections
    OVER_DESCRIPTORS = 3        # no descriptors would be left for what is being served
    OVERS = 4

cdef class Relief:
    """Makes room when something runs short: by closing what is idle, the oldest first. 0 when nothing was."""
    cdef bint of_descriptors(self) noexcept
    cdef bint of_listener(self, object settings) noexcept

cdef class Context:
    cdef readonly Loop loop
    cdef StatsTable stats               # in which this process has a row
    cdef Row *row
    cdef Counters *counters             # the row's
    cdef uint64_t *in_state             # likewise, by STATE_*; of STATE_CLOSED, those since the start
    cdef object state_observer          # None, or called with (Downstream, old state or None, new state) by name
    cdef object handshake               # None, or the HandshakeHooks
    cdef dict fingerprints              # Downstream -> (JA3, JA4), of a policy that wants them; else None
    cdef dict deciding                  # Downstream -> HookCall that its handshake waits for
    cdef object failed                  # None, or callable(what, exception): tells the operator of a signer's failure
    cdef object request_hooks           # None, or the Hooks that are asked about each request
    cdef uint8_t *client_scratch        # SCRATCH bytes: what is being read from a client, for one turn
    cdef uint8_t *upstream_scratch      # likewise from an upstream
    cdef bint upstream_reading          # it is in use
    cdef Head request                   # the head being read; its spans point into the reader's memory
    cdef Head response
    cdef char date_text[30]             # IMF-fixdate, NUL-terminated
    cdef uint64_t date_until            # loop ms until which date_text holds
    cdef int hook_timeout_ms            # for which a hook may think
    cdef AsyncGuest guest               # None: nobody has needed it; then need_guest()
    cdef object outcomes                # deque of HookCalls that are over, and to be settled
    cdef Watchdog watchdog              # over hooks; None: there has been none; then watch_hooks()
    cdef object access_log              # AccessLog or None
    cdef Tracer tracer                  # None: no traces are made, and none of a client's changed
    cdef object error_log
    cdef Relief relief
    cdef AddressTable addresses         # of all workers; None: nobody counts
    cdef int high_fd                    # a client's descriptor from here on means that few are left
    cdef uint32_t answering             # connections over a limit that are told so
    cdef uint64_t told_at[OVERS]        # loop ms of the last line in the log, by OVER_*
    cdef uint32_t untold[OVERS]         # refused since
    cdef bint draining
    cdef void count_in(self, StatsTable stats) noexcept
    cdef void watch_hooks(self) noexcept
    cdef AsyncGuest need_guest(self)
    cdef void end_hooks(self) noexcept
    cdef const char *date(self) noexcept
    cdef void log(self, str level, str message) noexcept
