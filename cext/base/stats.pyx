"""Numbers in shared memory (see the .pxd).

    head | row 0: of those that have gone | row 1 | row 2 ...        a row: Row | a bit for each series | the series

Pages that nobody has counted in are not there, and reading must not bring them in: rows beyond `rows_used`, and series
without their bit, are not looked at. A row that is folded gives its pages back.
"""

import mmap
import time

cimport cython
from cpython.buffer cimport PyBUF_WRITABLE, PyBuffer_Release, PyObject_GetBuffer
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset

cdef extern from "<sys/mman.h>" nogil:
    int madvise(void *addr, size_t length, int advice)
    int MADV_REMOVE

cdef extern from *:
    """
    #include <stdint.h>
    static inline uint64_t edge_fold_load(const uint64_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
    static inline void edge_fold_store(uint64_t *p, uint64_t v) { __atomic_store_n(p, v, __ATOMIC_SEQ_CST); }
    """
    uint64_t load "edge_fold_load"(const uint64_t *p) noexcept nogil
    void store "edge_fold_store"(uint64_t *p, uint64_t v) noexcept nogil

cdef enum:
    PAGE = 4096
    MAP_NORESERVE = 0x4000
    DEPARTED = 0                        # the row

READ_SECONDS = 1.0
"""For which a reader waits until a row is folded."""

# Fields of Counters and of Series that say how many there are now: of one that has gone there are none.
GAUGES = ("connections_open", "tunnels_open", "register_up", "handshakes_waiting", "descriptors", "descriptors_limit")
SERIES_GAUGES = ("running", "open", "idle")


# Which have been nothing.
cdef Row NO_ROW
cdef Series NO_SERIES
memset(&NO_ROW, 0, sizeof(NO_ROW))
memset(&NO_SERIES, 0, sizeof(NO_SERIES))


class Unreadable(Exception):
    """A row was being folded all the time: the process that folds is stopped."""


def bounds():
    """The upper bounds of a histogram's buckets but the last, which has none: microseconds, inclusive."""
    return tuple(bound(bucket) for bucket in range(HISTOGRAM_BUCKETS - 1))


cdef class StatsTable:
    """StatsTable(rows=256, series=8192): made before the fork, one for all processes.

    Row 0 is that of the departed. A process that counts joins with a row that no other living process has; `fold` adds
    what one that has gone has counted to row 0. One that joins none counts in row 0: it is alone. OSError when there is
    no room for it.
    """

    def __init__(self, int rows=256, int series=8192):
        cdef Py_buffer view
        if rows < 1 or series < 1:
            raise ValueError("a table has rows, and series")
        self.rows = rows
        self.series = series
        self.words = (series + 63) // 64
        self.row_size = sizeof(Row) + self.words * sizeof(uint64_t) + series * sizeof(Series)
        self.row_size = (self.row_size + PAGE - 1) // PAGE * PAGE
        self.memory = mmap.mmap(-1, PAGE + rows * self.row_size, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
        PyObject_GetBuffer(self.memory, &view, PyBUF_WRITABLE)
        self.head = <Head *> view.buf
        PyBuffer_Release(&view)         # the mapping lives as long as `memory`, which nobody else closes
        self.head.rows_used = 1
        self.row = self.row_at(DEPARTED)

    cdef Row *row_at(self, int row) noexcept nogil:
        return <Row *> (<char *> self.head + PAGE + row * self.row_size)

    cdef uint64_t *bits_at(self, int row) noexcept nogil:
        return <uint64_t *> (self.row_at(row) + 1)

    cdef Series *series_at(self, int row, uint32_t index) noexcept nogil:
        return <Series *> (self.bits_at(row) + self.words) + index

    cdef Series *of(self, uint32_t index) noexcept nogil:
        cdef uint64_t *bits = <uint64_t *> (self.row + 1)
        if index >= <uint32_t> self.series:
            index = SERIES_OTHER
        bits[index >> 6] |= <uint64_t> 1 << (index & 63)
        return <Series *> (bits + self.words) + index

    def check(self, int row):
        if not 0 <= row < self.rows:
            raise ValueError(f"row {row}: there are {self.rows}")

    def open(self, int row):
        """Before a process is forked that is to join with this row: it is read from now on."""
        self.check(row)
        self.head.rows_used = max(self.head.rows_used, <uint64_t> row + 1)

    def join(self, int row):
        """This process counts in that row from now on."""
        self.check(row)
        self.row = self.row_at(row)

    def fold(self, int row):
        """What a process has counted that has gone becomes the departed's, without its gauges; the row is free then."""
        cdef Row *gone = self.row_at(row)
        cdef Row *departed = self.row_at(DEPARTED)
        cdef uint64_t *bits = self.bits_at(row)
        cdef uint64_t *kept = self.bits_at(DEPARTED)
        cdef uint32_t index
        self.check(row)
        if row == DEPARTED:
            raise ValueError("row 0 is nobody's")
        store(&self.head.folds, self.head.folds + 1)
        add_words(departed, gone, sizeof(Row))
        set_gauges(departed, &NO_ROW)
        for index in range(<uint32_t> self.series):
            if bits[index >> 6] >> (index & 63) & 1:
                kept[index >> 6] |= <uint64_t> 1 << (index & 63)
                add_words(self.series_at(DEPARTED, index), self.series_at(row, index), sizeof(Series))
                set_series_gauges(self.series_at(DEPARTED, index), &NO_SERIES)
        if madvise(gone, self.row_size, MADV_REMOVE) < 0:
            memset(gone, 0, self.row_size)
        store(&self.head.folds, self.head.folds + 1)

    cdef bint stable(self, uint64_t *seen) noexcept nogil:
        seen[0] = load(&self.head.folds)
        return seen[0] & 1 == 0

    def read(self, rows=None):
        """The Sums of all rows, or of those that are named. Raises Unreadable."""
        cdef uint64_t seen = 0
        cdef Sums sums
        cdef int row
        until = time.monotonic() + READ_SECONDS
        while True:
            if self.stable(&seen):
                sums = Sums()
                for row in rows if rows is not None else range(self.head.rows_used):
                    self.check(row)
                    self.add_row(row, sums)
                if load(&self.head.folds) == seen:
                    return sums
            if time.monotonic() > until:
                raise Unreadable("the numbers are being put together, and that does not end")
            time.sleep(0.001)

    cdef int add_row(self, int row, Sums into) except -1:
        cdef Row *own = self.row_at(row)
        cdef uint64_t *bits = self.bits_at(row)
        cdef uint64_t word
        cdef size_t i
        cdef int second
        cdef uint32_t index
        add_words(&into.row, own, sizeof(Row) - sizeof(own.loop.longest))
        for second in range(LONGEST_SECONDS):
            into.row.loop.longest[second] = max(into.row.loop.longest[second], own.loop.longest[second])
        for i in range(self.words):
            word = bits[i]
            while word:
                index = <uint32_t> (64 * i + ctz(word))
                word &= word - 1
                add_words(into.need(index), self.series_at(row, index), sizeof(Series))
        return 0


cdef extern from *:
    int ctz "__builtin_ctzll"(unsigned long long v) noexcept nogil


cdef void add_words(void *to, const void *what, size_t size) noexcept nogil:
    cdef uint64_t *sums = <uint64_t *> to
    cdef const uint64_t *own = <const uint64_t *> what
    cdef size_t i
    for i in range(size // sizeof(uint64_t)):
        sums[i] += own[i]


cdef void take_words(void *of, const void *what, size_t size) noexcept nogil:
    """The difference, where there is one: a count of another table, from before a start, is higher."""
    cdef uint64_t *rest = <uint64_t *> of
    cdef const uint64_t *less = <const uint64_t *> what
    cdef size_t i
    for i in range(size // sizeof(uint64_t)):
        if rest[i] >= less[i]:
            rest[i] -= less[i]


cdef void set_gauges(Row *row, const Row *of) noexcept nogil:
    """As GAUGES has them."""
    row.counters.connections_open = of.counters.connections_open
    row.counters.tunnels_open = of.counters.tunnels_open
    row.counters.register_up = of.counters.register_up
    row.counters.handshakes_waiting = of.counters.handshakes_waiting
    row.counters.descriptors = of.counters.descriptors
    row.counters.descriptors_limit = of.counters.descriptors_limit
    memcpy(row.in_state, of.in_state, sizeof(row.in_state))
    memcpy(row.loop.longest, of.loop.longest, sizeof(row.loop.longest))


cdef void set_series_gauges(Series *series, const Series *of) noexcept nogil:
    series.running = of.running
    series.open = of.open
    series.idle = of.idle


@cython.no_gc
cdef class Counted:
    pass


cdef class Sums:
    """What several rows have counted together, at one moment. Microseconds, bytes, or how often."""

    def __cinit__(self):
        self.found = {}

    def __dealloc__(self):
        free(self.series)

    cdef Series *need(self, uint32_t index) except NULL:
        cdef size_t place = len(self.found)
        cdef Series *grown
        if index in self.found:
            return self.series + <size_t> self.found[index]
        if place == self.capacity:
            self.capacity = 2 * place or 64
            grown = <Series *> realloc(self.series, self.capacity * sizeof(Series))
            if grown == NULL:
                raise MemoryError
            self.series = grown
        memset(self.series + place, 0, sizeof(Series))
        self.found[index] = place
        return self.series + place

    def counters(self):
        """Counters and gauges by name."""
        return dict(self.row.counters)

    def array(self, str name):
        """One of in_state, entered, early_refusals, alerts_sent, alerts_received: by what their names say."""
        cdef uint64_t *p
        cdef size_t n
        if name == "in_state":
            p, n = self.row.in_state, STATE_SLOTS
        elif name == "entered":
            p, n = self.row.entered, STATE_SLOTS
        elif name == "early_refusals":
            p, n = self.row.early_refusals, REFUSAL_SLOTS
        elif name == "alerts_sent":
            p, n = self.row.alerts_sent, 256
        elif name == "alerts_received":
            p, n = self.row.alerts_received, 256
        else:
            raise KeyError(name)
        return [p[i] for i in range(n)]

    def handshakes(self):
        """Those that were completed: (cipher suite, group, resumed, how many), by places in tls/names; what never
        happened is left out."""
        return [(suite, group, bool(resumed), self.row.handshakes[suite][group][resumed])
                for suite in range(SUITE_SLOTS) for group in range(GROUP_SLOTS) for resumed in range(2)
                if self.row.handshakes[suite][group][resumed]]

    def longest(self, int seconds):
        """Microseconds of the longest turn of a loop that has ended in the last `seconds` (at most 60)."""
        now = int(time.monotonic())
        return max([slot & 0xFFFFFFFF for slot in self.row.loop.longest if now - seconds < slot >> 32 <= now], default=0)

    def indices(self):
        """Of the series in which something was counted."""
        return sorted(self.found)

    def of(self, uint32_t index):
        """A series' counters and gauges by name; `status` is a list by the first digit."""
        cdef Series *s = self.series + <size_t> self.found[index]
        return {
            "requests": s.requests,
            "status": [s.status[i] for i in range(6)],
            "bytes_in": s.bytes_in,
            "bytes_out": s.bytes_out,
            "retries": s.retries,
            "failures": s.failures,
            "connects": s.connects,
            "reuses": s.reuses,
            "running": s.running,
            "open": s.open,
            "idle": s.idle,
        }

    cdef Histogram *find(self, str name, object index) except NULL:
        cdef Series *s
        if index is not None:
            s = self.series + <size_t> self.found[index]
            if name == "first_byte":
                return &s.first_byte
            if name == "total":
                return &s.total
        elif name == "full_handshake":
            return &self.row.full_handshake
        elif name == "resumed_handshake":
            return &self.row.resumed_handshake
        elif name == "register_answer":
            return &self.row.register_answer
        elif name == "turn":
            return &self.row.loop.turn
        elif name == "late":
            return &self.row.loop.late
        raise KeyError(name)

    def histogram(self, str name, index=None):
        """(counts of the buckets, sum in microseconds): of a series `first_byte` or `total`; without an index
        `full_handshake`, `resumed_handshake`, `register_answer`, `turn` or `late`."""
        cdef Histogram *h = self.find(name, index)
        return [h.counts[i] for i in range(HISTOGRAM_BUCKETS)], h.sum_us

    def cumulative(self, str name, places, index=None):
        """(how many were not above the bound of each bucket in `places`, ascending; how many there were; their sum)."""
        cdef Histogram *h = self.find(name, index)
        cdef uint64_t n = 0
        cdef int i = 0
        cdef int place
        cdef list found = []
        for place in places:
            while i <= place:
                n += h.counts[i]
                i += 1
            found.append(n)
        while i < HISTOGRAM_BUCKETS:
            n += h.counts[i]
            i += 1
        return found, n, h.sum_us

    def together(self, indices):
        """The Sums in which these series are one, with index 0."""
        cdef Sums one = Sums()
        cdef Series *s = one.need(0)
        for index in indices:
            add_words(s, self.series + <size_t> self.found[index], sizeof(Series))
        return one

    def quantiles(self, str name, wanted, index=None):
        """Microseconds that this share (0 to 1) of all did not exceed, for each share of `wanted`, as far as buckets
        tell: interpolated within them. None where nothing was counted."""
        cdef Histogram *h = self.find(name, index)
        return [quantile(h, share) for share in wanted]

    def minus(self, Sums earlier):
        """What has come since `earlier`, with the gauges of now."""
        cdef Sums rest = Sums()
        cdef Series *s
        cdef Series *own
        rest.row = self.row
        take_words(&rest.row, &earlier.row, sizeof(Row))
        set_gauges(&rest.row, &self.row)
        for index, place in self.found.items():
            own = self.series + <size_t> place
            s = rest.need(index)
            s[0] = own[0]
            if index in earlier.found:
                take_words(s, earlier.series + <size_t> earlier.found[index], sizeof(Series))
            set_series_gauges(s, own)
        return rest


cdef object quantile(Histogram *h, double share):
    cdef uint64_t n = 0
    cdef uint64_t below = 0
    cdef double rank
    cdef double low, high
    cdef int i
    for i in range(HISTOGRAM_BUCKETS):
        n += h.counts[i]
    if n == 0:
        return None
    rank = share * n
    for i in range(HISTOGRAM_BUCKETS - 1):
        if h.counts[i] and below + h.counts[i] >= rank:
            low = bound(i - 1) if i else 0
            high = bound(i)
            return low + (high - low) * max(rank - below, 0) / h.counts[i]
        below += h.counts[i]
    return float(bound(HISTOGRAM_BUCKETS - 2))


cdef uint64_t bound(int bucket) noexcept nogil:
    """The upper one, inclusive."""
    return <uint64_t> (4 + bucket % 4) << (bucket // 4 + HISTOGRAM_FIRST - 2)


# ---- Python face, for tests

cdef class Tally:
    """Tally(table): counts in this process's row, as the data plane does."""

    cdef StatsTable table

    def __init__(self, StatsTable table):
        self.table = table

    def connection(self, int entered=1, int left=0):
        self.table.row.counters.connections += entered
        self.table.row.counters.connections_open += entered - left
        self.table.row.in_state[0] += entered - left
        self.table.row.entered[0] += entered

    def handshake(self, int suite, int group, bint resumed, uint64_t us):
        self.table.row.handshakes[suite][group][resumed] += 1
        observe(&self.table.row.resumed_handshake if resumed else &self.table.row.full_handshake, us)

    def alert(self, int number, bint sent):
        if sent:
            self.table.row.alerts_sent[number] += 1
        else:
            self.table.row.alerts_received[number] += 1

    def early_refused(self, int cause):
        self.table.row.early_refusals[cause] += 1

    def turn(self, uint64_t second, uint64_t us):
        observe(&self.table.row.loop.turn, us)
        self.table.row.loop.longest[second % LONGEST_SECONDS] = second << 32 | us

    def request(self, uint32_t index, int status, uint64_t us, int running=0):
        cdef Series *s = self.table.of(index)
        s.requests += 1
        s.status[status // 100] += 1
        s.running += running
        observe(&s.total, us)
