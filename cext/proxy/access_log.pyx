"""JSON lines (see the .pxd). A line is built key by key: text() escapes what a client controls."""

from libc.stdio cimport snprintf
from libc.string cimport strlen
from libc.time cimport gmtime_r, strftime, time_t, tm
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from cext.base.buffer cimport bytes_append, bytes_free
from cext.base.timers cimport timer_init

cdef enum:
    BATCH = 64 * 1024
    BATCH_MS = 500

cdef const char *HEX = b"0123456789abcdef"


cdef class AccessLog(TimerOwner):
    """AccessLog(loop, sink): sink(bytes) gets whole lines, at least every half second."""

    def __cinit__(self, Loop loop, sink):
        self.loop = loop
        self.sink = sink
        timer_init(&self.timer, self, 0)

    def __dealloc__(self):
        bytes_free(&self.lines)

    cdef void open_line(self) noexcept nogil:
        cdef char stamp[40]
        cdef timespec ts
        cdef tm parts
        cdef size_t n
        cdef time_t seconds
        clock_gettime(CLOCK_REALTIME, &ts)
        seconds = ts.tv_sec
        gmtime_r(&seconds, &parts)
        n = strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &parts)
        n += snprintf(stamp + n, sizeof(stamp) - n, ".%03dZ", <int> (ts.tv_nsec // 1000000))
        bytes_append(&self.lines, b'{"time":"', 9)
        bytes_append(&self.lines, stamp, n)
        bytes_append(&self.lines, b'"', 1)

    cdef void text(self, const char *key, const void *p, size_t n) noexcept nogil:
        """A string; bytes outside printable ASCII become \\u00XX (each byte as its Latin-1 character)."""
        cdef const uint8_t *s = <const uint8_t *> p
        cdef size_t i
        cdef size_t plain = 0
        cdef char escape[6]
        self.key(key)
        bytes_append(&self.lines, b'"', 1)
        for i in range(n):
            if 0x20 <= s[i] < 0x7F and s[i] != c'"' and s[i] != c'\\':
                continue
            bytes_append(&self.lines, s + plain, i - plain)
            plain = i + 1
            escape[0] = c'\\'
            escape[1] = c'u'
            escape[2] = c'0'
            escape[3] = c'0'
            escape[4] = HEX[s[i] >> 4]
            escape[5] = HEX[s[i] & 15]
            bytes_append(&self.lines, escape, 6)
        bytes_append(&self.lines, s + plain, n - plain)
        bytes_append(&self.lines, b'"', 1)

    cdef void number(self, const char *key, uint64_t v) noexcept nogil:
        cdef char text[24]
        cdef int n = snprintf(text, sizeof(text), "%llu", <unsigned long long> v)
        self.key(key)
        bytes_append(&self.lines, text, n)

    cdef void milliseconds(self, const char *key, uint64_t us) noexcept nogil:
        cdef char text[32]
        cdef int n = snprintf(text, sizeof(text), "%llu.%03llu", <unsigned long long> (us // 1000),
                              <unsigned long long> (us % 1000))
        self.key(key)
        bytes_append(&self.lines, text, n)

    cdef void boolean(self, const char *key, bint v) noexcept nogil:
        self.key(key)
        if v:
            bytes_append(&self.lines, b"true", 4)
        else:
            bytes_append(&self.lines, b"false", 5)

    cdef void key(self, const char *name) noexcept nogil:
        bytes_append(&self.lines, b',"', 2)
        bytes_append(&self.lines, name, strlen(name))
        bytes_append(&self.lines, b'":', 2)

    cdef void close_line(self) noexcept:
        bytes_append(&self.lines, b"}\n", 2)
        if self.lines.len >= BATCH:
            self.flush_lines()
        elif self.timer.deadline == 0:
            self.loop.timers.arm(&self.timer, self.loop.now + BATCH_MS)

    cdef void flush_lines(self) noexcept:
        """Hands over what is there."""
        cdef bytes batch
        self.loop.timers.disarm(&self.timer)
        if self.lines.len:
            batch = self.lines.data[:self.lines.len]
            self.lines.len = 0
            self.sink(batch)

    cdef void on_timer(self, int kind) noexcept:
        self.flush_lines()
