"""Lines (see the .pxd)."""

cimport cython
from libc.stdio cimport snprintf
from libc.string cimport memchr, strlen
from libc.time cimport gmtime_r, strftime, time_t, tm
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from cext.base.buffer cimport bytes_append, bytes_consume, bytes_free
from cext.base.timers cimport timer_init

from os import urandom

cdef enum:
    BATCH = 48 * 1024
    BATCH_MS = 500
    BACKLOG = 1024 * 1024       # of lines that nobody takes; what comes then is dropped
    BACKLOG_MS = 20
    VALUE_MOST = 8 * 1024       # of a value as it is written; a longer one ends in "..."
    FIELD_MOST = 2 * 1024       # of a request's field

cdef const char *HEX = b"0123456789abcdef"
cdef const char *CUT = b"..."

SHARE_ONE = 1 << 32


cdef inline bint is_plain(uint8_t c) noexcept nogil:
    """Whether it stands for itself between quotes."""
    return 0x20 <= c < 0x7F and c != c'"' and c != c'\\'


cdef size_t fitting(const uint8_t *s, size_t n, size_t most, size_t escaped) noexcept nogil:
    """How many bytes of a value have room for in `most`, where one that is not plain takes `escaped`."""
    cdef size_t i
    if n * escaped <= most:
        return n
    for i in range(n):
        if most < escaped:
            return i
        most -= 1 if is_plain(s[i]) else escaped
    return n


@cython.final
cdef class AccessLog(TimerOwner):
    """AccessLog(loop, sink, *, form="json", share=SHARE_ONE, always=("5xx", "faults"), fields=(), prefix=None)

    sink(bytes) gets whole lines, at least every half second, and says how many bytes of them (whole lines) it took; the
    rest is offered again. `share`: chance of a line, in parts of SHARE_ONE; `always`: what has one in any case. `fields`:
    names of request fields that stand in a line of JSON. `prefix`: lines become entries of the journal, which begin so.
    lost(number) is told, before the next lines, how many there was no room for.
    """

    def __cinit__(self, Loop loop, sink, *, str form="json", uint64_t share=SHARE_ONE, always=("5xx", "faults"), fields=(),
                  bytes prefix=None, lost=None):
        self.loop = loop
        self.sink = sink
        self.lost = lost
        self.form = {"json": LINE_JSON, "combined": LINE_COMBINED}[form]
        self.share = share
        self.chance = int.from_bytes(urandom(8), "big") | 1
        self.server_errors = "5xx" in always
        self.client_errors = "4xx" in always
        self.faults = "faults" in always
        self.fields = tuple(name.lower().encode("ascii") for name in fields)
        self.keys = tuple(b"request_" + name.replace(b"-", b"_") for name in self.fields)
        self.prefix = prefix
        self.dropped = &self.own_dropped
        timer_init(&self.timer, self, 0)

    def __dealloc__(self):
        bytes_free(&self.lines)
        bytes_free(&self.values)

    cdef bint wants(self, int status, bint fault) noexcept nogil:
        """Whether a request gets a line."""
        self.sampled = False
        if self.share == <uint64_t> 1 << 32:
            return True
        if (status >= 500 and self.server_errors or 400 <= status < 500 and self.client_errors
                or fault and self.faults):
            return True
        self.sampled = True
        # xorshift64*: nobody gains from guessing what is logged next.
        self.chance ^= self.chance >> 12
        self.chance ^= self.chance << 25
        self.chance ^= self.chance >> 27
        return (self.chance * <uint64_t> 0x2545F4914F6CDD1D) >> 32 < self.share

    cdef void put(self, const void *p, size_t n) noexcept nogil:
        if bytes_append(&self.lines, p, n) < 0:
            self.torn = True

    cdef void put_value(self, const void *p, size_t n) noexcept nogil:
        if bytes_append(&self.values, p, n) < 0:
            self.torn = True

    cdef void open_line(self) noexcept nogil:
        cdef char stamp[40]
        cdef timespec ts
        cdef tm parts
        cdef size_t n
        cdef time_t seconds
        self.begin = self.lines.len
        if self.prefix is not None:
            self.put(b"MESSAGE=", 8)
        if self.form == LINE_COMBINED:
            return
        clock_gettime(CLOCK_REALTIME, &ts)
        seconds = ts.tv_sec
        gmtime_r(&seconds, &parts)
        n = strftime(stamp, sizeof(stamp), "%Y-%m-%dT%H:%M:%S", &parts)
        n += snprintf(stamp + n, sizeof(stamp) - n, ".%03dZ", <int> (ts.tv_nsec // 1000000))
        self.put(b'{"time":"', 9)
        self.put(stamp, n)
        self.put(b'"', 1)
        if self.sampled:
            n = snprintf(stamp, sizeof(stamp), "%.9g", <double> self.share / 4294967296.0)
            self.plain(b"sample", stamp, n)

    cdef void text(self, const char *key, const void *p, size_t n) noexcept nogil:
        """A string; in JSON bytes outside printable ASCII become \\u00XX (each byte as its Latin-1 character)."""
        cdef const uint8_t *s = <const uint8_t *> p
        cdef size_t i
        cdef size_t plain = 0
        cdef size_t fits = fitting(s, n, VALUE_MOST, 6)
        cdef char escape[6]
        if self.prefix is not None:
            self.field(key, s, n)
        if self.form != LINE_JSON:
            return
        self.key(key)
        self.put(b'"', 1)
        for i in range(fits):
            if is_plain(s[i]):
                continue
            self.put(s + plain, i - plain)
            plain = i + 1
            escape[0] = c'\\'
            escape[1] = c'u'
            escape[2] = c'0'
            escape[3] = c'0'
            escape[4] = HEX[s[i] >> 4]
            escape[5] = HEX[s[i] & 15]
            self.put(escape, 6)
        self.put(s + plain, fits - plain)
        if fits < n:
            self.put(CUT, 3)
        self.put(b'"', 1)

    cdef void number(self, const char *key, uint64_t v) noexcept nogil:
        cdef char text[24]
        self.plain(key, text, snprintf(text, sizeof(text), "%llu", <unsigned long long> v))

    cdef void milliseconds(self, const char *key, uint64_t us) noexcept nogil:
        cdef char text[32]
        self.plain(key, text, snprintf(text, sizeof(text), "%llu.%03llu", <unsigned long long> (us // 1000),
                                       <unsigned long long> (us % 1000)))

    cdef void boolean(self, const char *key, bint v) noexcept nogil:
        if v:
            self.plain(key, b"true", 4)
        else:
            self.plain(key, b"false", 5)

    cdef void plain(self, const char *key, const char *text, size_t n) noexcept nogil:
        """A value of ours that needs no quotes."""
        if self.prefix is not None:
            self.field(key, <const uint8_t *> text, n)
        if self.form == LINE_JSON:
            self.key(key)
            self.put(text, n)

    cdef void key(self, const char *name) noexcept nogil:
        self.put(b',"', 2)
        self.put(name, strlen(name))
        self.put(b'":', 2)

    cdef void request_fields(self, const uint8_t *lines, size_t n) noexcept:
        """Those of a request that are asked for, by its field lines."""
        cdef const uint8_t *value
        cdef size_t i, size
        cdef bytes name, key
        for i in range(<size_t> len(self.fields)):
            name = self.fields[i]
            value = find_field(lines, n, <const char *> name, len(name), &size)
            if value != NULL:
                key = self.keys[i]
                self.text(<const char *> key, value, min(size, <size_t> FIELD_MOST))

    cdef void combined(self, const CombinedLine *c) noexcept nogil:
        """The line, where the form is that; its time is now."""
        cdef char stamp[40]
        cdef char numbers[40]
        cdef tm parts
        cdef timespec ts
        cdef time_t seconds
        cdef size_t n
        clock_gettime(CLOCK_REALTIME, &ts)
        seconds = ts.tv_sec
        gmtime_r(&seconds, &parts)
        n = strftime(stamp, sizeof(stamp), " - - [%d/%b/%Y:%H:%M:%S +0000] \"", &parts)
        self.put(c.client, c.client_len)
        self.put(stamp, n)
        if c.request_len:
            self.quoted(c.request, c.request_len, VALUE_MOST)
            self.put(b" ", 1)
            self.quoted(c.target, c.target_len, VALUE_MOST)
            self.put(c.version, strlen(c.version))
        else:
            self.put(b"-", 1)
        n = snprintf(numbers, sizeof(numbers), "\" %03d %llu \"", c.status, <unsigned long long> c.sent)
        self.put(numbers, n)
        self.quoted(c.referer, c.referer_len, FIELD_MOST)
        self.put(b'" "', 3)
        self.quoted(c.agent, c.agent_len, FIELD_MOST)
        self.put(b'"', 1)

    cdef void quoted(self, const uint8_t *s, size_t n, size_t most) noexcept nogil:
        """Between quotes of a combined line: as nginx does, what is not plain becomes \\xHH."""
        cdef size_t i
        cdef size_t plain = 0
        cdef size_t fits = fitting(s, n, most, 4)
        cdef char escape[4]
        if n == 0:
            self.put(b"-", 1)
            return
        for i in range(fits):
            if is_plain(s[i]):
                continue
            self.put(s + plain, i - plain)
            plain = i + 1
            escape_hex(escape, s[i])
            self.put(escape, 4)
        self.put(s + plain, fits - plain)
        if fits < n:
            self.put(CUT, 3)

    cdef void field(self, const char *key, const uint8_t *p, size_t n) noexcept nogil:
        """Of an entry of the journal: EDGE_KEY=value; control characters become \\xHH."""
        cdef size_t i
        cdef size_t plain = 0
        cdef char upper
        cdef char escape[4]
        self.put_value(b"EDGE_", 5)
        for i in range(strlen(key)):
            upper = key[i]
            if c'a' <= upper <= c'z':
                upper -= 32
            elif not (c'0' <= upper <= c'9' or c'A' <= upper <= c'Z'):
                upper = c'_'            # the journal knows no other characters
            self.put_value(&upper, 1)
        self.put_value(b"=", 1)
        n = min(n, <size_t> VALUE_MOST)
        for i in range(n):
            if p[i] >= 0x20 and p[i] != 0x7F:
                continue
            self.put_value(p + plain, i - plain)
            plain = i + 1
            escape_hex(escape, p[i])
            self.put_value(escape, 4)
        self.put_value(p + plain, n - plain)
        self.put_value(b"\n", 1)

    cdef void close_line(self) noexcept:
        if self.form == LINE_JSON:
            self.put(b"}\n", 2)
        else:
            self.put(b"\n", 1)
        if self.prefix is not None:
            self.finish_entry()
        if self.torn or self.lines.len > BACKLOG:
            self.torn = False
            self.lines.len = self.begin
            self.drop(1)
        elif self.lines.len >= BATCH and not self.stuck:
            self.flush_lines()
        elif self.timer.deadline == 0:
            self.loop.timers.arm(&self.timer, self.loop.now + BATCH_MS)

    cdef void finish_entry(self) noexcept:
        """Behind the message its fields and an empty line."""
        self.put(self.values.data, self.values.len)
        self.values.len = 0
        self.put(<const char *> self.prefix, len(self.prefix))
        self.put(b"\n", 1)

    cdef void flush_lines(self) noexcept:
        """Hands over what is there; what is not taken is offered again soon."""
        cdef size_t taken = 0
        self.loop.timers.disarm(&self.timer)
        if self.lines.len == 0:
            return
        try:
            if self.untold and self.lost is not None:
                self.lost(self.untold)
                self.untold = 0
            taken = self.sink(self.lines.data[:self.lines.len])
        except MemoryError:
            pass
        self.stuck = taken < self.lines.len
        if not self.stuck:
            self.lines.len = 0
        else:
            bytes_consume(&self.lines, taken)
            self.loop.timers.arm(&self.timer, self.loop.now + BACKLOG_MS)

    cdef void drop(self, uint64_t lines) noexcept nogil:
        self.dropped[0] += lines
        self.untold += lines

    cdef void close(self) noexcept:
        """The last lines go, as far as they are taken."""
        self.flush_lines()
        self.loop.timers.disarm(&self.timer)
        self.drop(count_lines(self.lines.data, self.lines.len, self.prefix is not None))
        self.lines.len = 0

    cdef void on_timer(self, int kind) noexcept:
        self.flush_lines()


cdef uint64_t count_lines(const uint8_t *p, size_t n, bint entries) noexcept nogil:
    """Lines; or entries, behind each of which there is an empty one."""
    cdef uint64_t found = 0
    cdef size_t i
    for i in range(n):
        if p[i] == c'\n' and (not entries or (i > 0 and p[i - 1] == c'\n')):
            found += 1
    return found


cdef inline void escape_hex(char *out, uint8_t c) noexcept nogil:
    out[0] = c'\\'
    out[1] = c'x'
    out[2] = HEX[c >> 4]
    out[3] = HEX[c & 15]


cdef const uint8_t *find_field(const uint8_t *lines, size_t n, const char *name, size_t name_len, size_t *size) noexcept nogil:
    cdef const uint8_t *end = lines + n
    cdef const uint8_t *stop
    cdef size_t i
    while lines < end:
        stop = <const uint8_t *> memchr(lines, c'\r', end - lines)
        if stop == NULL:
            return NULL
        if <size_t> (stop - lines) >= name_len + 2 and lines[name_len] == c':':
            for i in range(name_len):
                # Names are tokens: among those, only letters differ in this bit alone.
                if (lines[i] | 0x20 if c'A' <= lines[i] <= c'Z' else lines[i]) != <uint8_t> name[i]:
                    break
            else:
                size[0] = stop - lines - name_len - 2
                return lines + name_len + 2
        lines = stop + 2
    return NULL
