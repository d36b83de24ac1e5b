"""The access log: a line per request, formatted in C, handed over in batches.

A line is built value by value, as a JSON object or, by `combined`, as Apache and nginx write theirs; for systemd's
journal each value is a field as well. What a client controls is escaped and of bounded length, so that it can neither
begin a line or a field nor fill a disk.
"""

from libc.stdint cimport uint8_t, uint64_t

from cext.base.buffer cimport Bytes
from cext.base.timers cimport Timer, TimerOwner
from cext.net.loop cimport Loop

cdef enum LineForm:
    LINE_JSON = 0
    LINE_COMBINED = 1

cdef struct CombinedLine:               # what stands in a line of that form; a NULL text is "-"
    const uint8_t *client
    size_t client_len
    const uint8_t *request              # method, target and version; all of them or none
    size_t request_len
    const uint8_t *target
    size_t target_len
    const char *version
    int status
    uint64_t sent                       # bytes of content
    const uint8_t *referer
    size_t referer_len
    const uint8_t *agent
    size_t agent_len

cdef class AccessLog(TimerOwner):
    cdef Loop loop
    cdef object sink                # callable(bytes) -> how many of them it took, in whole lines
    cdef uint64_t *dropped          # counts lines; the Context's, once it has one
    cdef uint64_t own_dropped
    cdef uint64_t untold            # of these, those that `lost` has not heard of
    cdef object lost                # callable(int), or None
    cdef Bytes lines
    cdef Bytes values               # of the entry that is being made, for the journal
    cdef bytes prefix               # fields of every entry of the journal; None: no entries but lines
    cdef tuple fields               # names (bytes, lower case) of request fields that JSON has
    cdef tuple keys                 # under which keys (bytes)
    cdef LineForm form
    cdef uint64_t share             # of 2**32: chance of a line
    cdef uint64_t chance            # state of the generator
    cdef bint server_errors         # 5xx have a line in any case,
    cdef bint client_errors         # and 4xx,
    cdef bint faults                # and what has a fault
    cdef bint sampled               # the line that is open was chosen by chance
    cdef bint torn                  # something of it had no room
    cdef bint stuck                 # the sink has not taken all that it was offered
    cdef size_t begin               # where the open line begins
    cdef Timer timer
    cdef bint wants(self, int status, bint fault) noexcept nogil
    cdef void open_line(self) noexcept nogil
    cdef void text(self, const char *key, const void *p, size_t n) noexcept nogil
    cdef void number(self, const char *key, uint64_t v) noexcept nogil
    cdef void milliseconds(self, const char *key, uint64_t us) noexcept nogil
    cdef void boolean(self, const char *key, bint v) noexcept nogil
    cdef void key(self, const char *name) noexcept nogil
    cdef void combined(self, const CombinedLine *c) noexcept nogil
    cdef void request_fields(self, const uint8_t *lines, size_t n) noexcept
    cdef void close_line(self) noexcept
    cdef void flush_lines(self) noexcept
    cdef void close(self) noexcept
    cdef void drop(self, uint64_t lines) noexcept nogil
    cdef void quoted(self, const uint8_t *s, size_t n, size_t most) noexcept nogil
    cdef void plain(self, const char *key, const char *text, size_t n) noexcept nogil
    cdef void field(self, const char *key, const uint8_t *p, size_t n) noexcept nogil
    cdef void finish_entry(self) noexcept
    cdef void put(self, const void *p, size_t n) noexcept nogil
    cdef void put_value(self, const void *p, size_t n) noexcept nogil

cdef const uint8_t *find_field(const uint8_t *lines, size_t n, const char *name, size_t name_len, size_t *size) noexcept nogil
# The value of the first of these field lines (with their CRLFs) that has that name, in lower case, and its size; NULL.
