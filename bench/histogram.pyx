"""A histogram with logarithmic buckets (see the .pxd)."""

from libc.string cimport memset


cdef extern from * nogil:
    int highest_bit "63 - __builtin_clzll"(unsigned long long v)


cdef inline int bucket_of(uint64_t value) noexcept nogil:
    """Below 2 * SUBDIVISIONS a bucket holds one value; from there on each power of two has SUBDIVISIONS of them."""
    cdef int shift
    if value >> VALUE_BITS:
        return BUCKETS - 1
    if value < 2 * SUBDIVISIONS:
        return <int> value
    shift = highest_bit(value) - PRECISION_BITS
    return shift * SUBDIVISIONS + <int> (value >> shift)


cdef inline uint64_t middle_of(int bucket) noexcept nogil:
    cdef int shift
    if bucket < 2 * SUBDIVISIONS:
        return bucket
    shift = bucket // SUBDIVISIONS - 1
    return (<uint64_t> (bucket - shift * SUBDIVISIONS) << shift) + ((<uint64_t> 1 << shift) >> 1)


cdef class Histogram:
    """Durations in microseconds (or any whole numbers): add() them, then ask for percentile()s."""

    cdef void record(self, uint64_t value) noexcept nogil:
        self.counts[bucket_of(value)] += 1
        self.total += 1
        self.sum += value
        if value > self.max:
            self.max = value

    def add(self, uint64_t value):
        self.record(value)

    def reset(self):
        memset(self.counts, 0, sizeof(self.counts))
        self.total = self.sum = self.max = 0

    def percentile(self, double percent):
        """The value that `percent` of those recorded do not exceed, within 1.6%; 0 when there are none."""
        cdef uint64_t rank = <uint64_t> (percent / 100.0 * self.total + 0.5)
        cdef uint64_t seen = 0
        cdef int i
        if self.total == 0:
            return 0
        if rank >= self.total:
            return self.max
        for i in range(BUCKETS):
            seen += self.counts[i]
            if seen >= rank and seen > 0:
                return min(middle_of(i), self.max)
        return self.max

    def mean(self):
        return <double> self.sum / self.total if self.total else 0.0

    def summary(self):
        """{"count", "mean", "p50", "p90", "p99", "p99_9", "max"}"""
        found = {"count": self.total, "mean": round(self.mean(), 1)}
        for name, percent in (("p50", 50), ("p90", 90), ("p99", 99), ("p99_9", 99.9)):
            found[name] = self.percentile(percent)
        return found | {"max": self.max}
