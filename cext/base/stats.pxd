"""What goes on, in numbers: rows of counters in shared memory, one for each process that counts, and one of those that
have gone.

A process counts in its own row alone, with plain additions: nothing is locked, nobody is asked. Whoever reads adds the
rows up. What it sees of a row may be a moment apart from field to field; no single number is ever torn.

Everything is a uint64: a count that only grows, or, where it is said, a gauge: how many there are now.
"""

cimport cython
from libc.stdint cimport uint32_t, uint64_t

cdef enum:
    # A histogram: four buckets in each octave from 16 us to 134 s, and one on either side. A bucket has its upper bound.
    HISTOGRAM_FIRST = 4                 # log2 of the least bound, in microseconds
    HISTOGRAM_LAST = 27
    HISTOGRAM_BUCKETS = 2 + 4 * (HISTOGRAM_LAST - HISTOGRAM_FIRST)

    SUITE_SLOTS = 11                    # cipher suites by their place in tls/names; 0: none, the last: others
    GROUP_SLOTS = 8                     # groups likewise
    STATE_SLOTS = 8
    REFUSAL_SLOTS = 16
    LONGEST_SECONDS = 64                # a power of two

    SERIES_OTHER = 0                    # what there is no room for

cdef struct Histogram:
    uint64_t counts[HISTOGRAM_BUCKETS]
    uint64_t sum_us

cdef struct Counters:
    uint64_t connections
    uint64_t connections_open           # a gauge
    uint64_t handshakes
    uint64_t handshake_failures
    uint64_t requests
    uint64_t responses_5xx
    uint64_t client_aborts
    uint64_t timeouts
    uint64_t upstream_connects
    uint64_t upstream_reuses
    uint64_t upstream_failures
    uint64_t upstream_retries
    uint64_t accept_pauses
    uint64_t tunnels                    # requests that became one
    uint64_t tunnels_open               # a gauge
    uint64_t connections_over_limit     # closed when they were accepted, or answered in place of being served
    uint64_t requests_over_limit        # 413, 429, 431 or 503 for what `limits` says
    uint64_t idle_closed                # clients' idle connections that gave way to others
    uint64_t upstream_idle_closed
    uint64_t aborts                     # requests that a hook or a fault of ours ended by a cut
    uint64_t early_offered              # connections whose client offered early data; by what came of that:
    uint64_t early_accepted             # and, by cause, early_refusals
    uint64_t early_forwarded            # requests in early data that went upstream before the handshake was confirmed,
    uint64_t early_confirmed            # that waited for that,
    uint64_t early_answered_425         # that were answered 425,
    uint64_t early_retried              # that an upstream answered 425, and got again afterwards
    uint64_t register_asked             # connections whose early data another host's register was asked about:
    uint64_t register_taken             # by its answer, new to it,
    uint64_t register_replayed          # or known,
    uint64_t register_late              # or that there was none in time
    uint64_t register_up                # a gauge: processes to whom it answers
    uint64_t hook_failures              # hooks that raised
    uint64_t handshakes_waiting         # a gauge: for a hook, or for a remote key's signature
    uint64_t signer_failures            # handshakes that ended because there was no signature
    uint64_t handshakes_dropped         # by a hook
    uint64_t handed_over                # connections given to other processes
    uint64_t handoff_failures           # that were to be, but the receiver was away or too slow
    uint64_t handoffs_received          # connections that other processes have given us
    uint64_t handoffs_refused           # messages or senders that were none of ours
    uint64_t spans                      # of requests, that went to who exports them,
    uint64_t spans_dropped              # that he had no room for
    uint64_t log_lines_dropped          # of the access log, for which the process had no room
    uint64_t proxy_refused              # connections without the PROXY header that was due, or with a faulty one
    uint64_t descriptors                # a gauge: watched by the loop
    uint64_t descriptors_limit          # a gauge

cdef struct LoopStats:
    Histogram turn                      # how long a turn kept everything else waiting
    Histogram late                      # how much later than asked for the kernel woke the process
    uint64_t longest[LONGEST_SECONDS]   # by second: the second << 32 | microseconds of its longest turn; not a sum

cdef struct Row:
    Counters counters
    uint64_t in_state[STATE_SLOTS]      # gauges: clients' connections by state
    uint64_t entered[STATE_SLOTS]       # how often connections have come to each
    uint64_t early_refusals[REFUSAL_SLOTS]          # early data that was not taken, by EarlyDataRefusal
    uint64_t handshakes[SUITE_SLOTS][GROUP_SLOTS][2]    # completed; the last index: resumed
    uint64_t alerts_sent[256]           # fatal ones, by AlertDescription
    uint64_t alerts_received[256]
    Histogram full_handshake            # from the accepted connection to the client's Finished
    Histogram resumed_handshake
    Histogram register_answer           # of a register elsewhere, from the question to the answer
    LoopStats loop

cdef struct Series:                     # what a route, an upstream or one server of an upstream counts
    uint64_t requests                   # that are over,
    uint64_t status[6]                  # by the first digit of what the client got; 0: nothing
    uint64_t bytes_in                   # HTTP as the client sent it, as the access log has it,
    uint64_t bytes_out                  # and as it got it
    uint64_t retries
    uint64_t failures                   # of the upstream's: requests that ended so; at a server: whenever it was at fault
    uint64_t connects
    uint64_t reuses
    uint64_t running                    # a gauge: requests
    uint64_t open                       # a gauge: connections,
    uint64_t idle                       # a gauge: and of those (HTTP/1.1) without a request
    Histogram first_byte                # from the request's head to the head of the response
    Histogram total                     # to its last byte

cdef extern from *:
    int clz "__builtin_clzll"(unsigned long long v) noexcept nogil

cdef inline void observe(Histogram *h, uint64_t us) noexcept nogil:
    h.counts[bucket_of(us)] += 1
    h.sum_us += us

cdef inline int bucket_of(uint64_t us) noexcept nogil:
    """The first bucket whose bound is not below it."""
    cdef int octave
    if us <= 1 << HISTOGRAM_FIRST:
        return 0
    us -= 1
    if us >> HISTOGRAM_LAST:
        return HISTOGRAM_BUCKETS - 1
    octave = 63 - clz(us)
    return 1 + 4 * (octave - HISTOGRAM_FIRST) + <int> (us >> (octave - 2) & 3)

cdef struct Head:
    uint64_t folds                      # odd while a row is being folded
    uint64_t rows_used                  # rows from here on have never been counted in

cdef class Sums

cdef class StatsTable:
    cdef readonly int rows
    cdef readonly int series
    cdef readonly object memory         # mmap, shared with the processes that are forked later
    cdef Head *head
    cdef size_t row_size
    cdef size_t words                   # of a row's bits: series that it has counted in
    cdef Row *row                       # this process's
    cdef Row *row_at(self, int row) noexcept nogil
    cdef uint64_t *bits_at(self, int row) noexcept nogil
    cdef Series *series_at(self, int row, uint32_t index) noexcept nogil
    cdef Series *of(self, uint32_t index) noexcept nogil
    # Where this process counts for that index. To be asked once, and kept: it notes that there is something to read.
    cdef bint stable(self, uint64_t *seen) noexcept nogil
    cdef int add_row(self, int row, Sums into) except -1

@cython.no_gc                           # its subclasses could not be without, else
cdef class Counted:
    """What has a series to count in."""
    cdef readonly uint32_t index        # of the series
    cdef StatsTable table               # of which there is a pointer already
    cdef Series *place

cdef inline Series *series_of(Counted c, StatsTable table) noexcept:
    if c.table is not table:
        c.table = table
        c.place = table.of(c.index)
    return c.place

cdef class Sums:
    cdef Row row
    cdef dict found                     # index of a series -> its place in `series`
    cdef Series *series
    cdef size_t capacity
    cdef Series *need(self, uint32_t index) except NULL
    cdef Histogram *find(self, str name, object index) except NULL
