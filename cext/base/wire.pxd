"""Bounded readers and writers of big-endian wire formats, inline.

A Reader never passes its end: every read_* returns 1 and advances, or returns 0 and leaves the
reader as it was. A Writer that would pass its end sets `overflow` and writes nothing more, so a
builder checks once, at its end.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t
from libc.string cimport memcpy


cdef struct Reader:
    const uint8_t *p
    const uint8_t *end


cdef struct Writer:
    uint8_t *start
    uint8_t *p
    uint8_t *end
    bint overflow


cdef inline void reader_init(Reader *r, const uint8_t *p, size_t n) noexcept nogil:
    r.p = p
    r.end = p + n


cdef inline size_t left(const Reader *r) noexcept nogil:
    return r.end - r.p


cdef inline bint read_u8(Reader *r, uint8_t *v) noexcept nogil:
    if r.end - r.p < 1:
        return 0
    v[0] = r.p[0]
    r.p += 1
    return 1


cdef inline bint read_u16(Reader *r, uint16_t *v) noexcept nogil:
    if r.end - r.p < 2:
        return 0
    v[0] = <uint16_t> ((r.p[0] << 8) | r.p[1])
    r.p += 2
    return 1


cdef inline bint read_u24(Reader *r, uint32_t *v) noexcept nogil:
    if r.end - r.p < 3:
        return 0
    v[0] = (<uint32_t> r.p[0] << 16) | (<uint32_t> r.p[1] << 8) | r.p[2]
    r.p += 3
    return 1


cdef inline bint read_u32(Reader *r, uint32_t *v) noexcept nogil:
    if r.end - r.p < 4:
        return 0
    v[0] = (<uint32_t> r.p[0] << 24) | (<uint32_t> r.p[1] << 16) | (<uint32_t> r.p[2] << 8) | r.p[3]
    r.p += 4
    return 1


cdef inline bint read_bytes(Reader *r, size_t n, Reader *into) noexcept nogil:
    """The next n bytes as a reader of their own."""
    if <size_t> (r.end - r.p) < n:
        return 0
    into.p = r.p
    into.end = r.p + n
    r.p += n
    return 1


cdef inline bint read_vec8(Reader *r, Reader *into) noexcept nogil:
    """A vector with a one-byte length: opaque v<0..2^8-1>."""
    if r.end - r.p < 1 or r.end - r.p - 1 < r.p[0]:
        return 0
    into.p = r.p + 1
    into.end = into.p + r.p[0]
    r.p = into.end
    return 1


cdef inline bint read_vec16(Reader *r, Reader *into) noexcept nogil:
    """A vector with a two-byte length: opaque v<0..2^16-1>."""
    cdef size_t n
    if r.end - r.p < 2:
        return 0
    n = (r.p[0] << 8) | r.p[1]
    if <size_t> (r.end - r.p) - 2 < n:
        return 0
    into.p = r.p + 2
    into.end = into.p + n
    r.p = into.end
    return 1


cdef inline bint read_vec24(Reader *r, Reader *into) noexcept nogil:
    """A vector with a three-byte length: opaque v<0..2^24-1>."""
    cdef size_t n
    if r.end - r.p < 3:
        return 0
    n = (<size_t> r.p[0] << 16) | (<size_t> r.p[1] << 8) | r.p[2]
    if <size_t> (r.end - r.p) - 3 < n:
        return 0
    into.p = r.p + 3
    into.end = into.p + n
    r.p = into.end
    return 1


cdef inline void writer_init(Writer *w, uint8_t *p, size_t n) noexcept nogil:
    w.start = p
    w.p = p
    w.end = p + n
    w.overflow = 0


cdef inline size_t written(const Writer *w) noexcept nogil:
    return w.p - w.start


cdef inline bint write_room(Writer *w, size_t n) noexcept nogil:
    if w.overflow or <size_t> (w.end - w.p) < n:
        w.overflow = 1
        return 0
    return 1


cdef inline void write_u8(Writer *w, uint8_t v) noexcept nogil:
    if write_room(w, 1):
        w.p[0] = v
        w.p += 1


cdef inline void write_u16(Writer *w, uint16_t v) noexcept nogil:
    if write_room(w, 2):
        w.p[0] = v >> 8
        w.p[1] = v & 0xFF
        w.p += 2


cdef inline void write_u24(Writer *w, uint32_t v) noexcept nogil:
    if write_room(w, 3):
        w.p[0] = (v >> 16) & 0xFF
        w.p[1] = (v >> 8) & 0xFF
        w.p[2] = v & 0xFF
        w.p += 3


cdef inline void write_u32(Writer *w, uint32_t v) noexcept nogil:
    if write_room(w, 4):
        w.p[0] = v >> 24
        w.p[1] = (v >> 16) & 0xFF
        w.p[2] = (v >> 8) & 0xFF
        w.p[3] = v & 0xFF
        w.p += 4


cdef inline void write_bytes(Writer *w, const void *p, size_t n) noexcept nogil:
    if write_room(w, n):
        memcpy(w.p, p, n)
        w.p += n


# A length field whose value is known only after what it covers is written: open leaves room for it
# (and returns where), close fills it in.
cdef inline uint8_t *open_vec(Writer *w, size_t width) noexcept nogil:
    if not write_room(w, width):
        return NULL
    w.p += width
    return w.p - width


cdef inline void close_vec(Writer *w, uint8_t *at, size_t width) noexcept nogil:
    cdef size_t n, i
    if w.overflow or at == NULL:
        return
    n = w.p - at - width
    if width < 8 and n >> (8 * width):
        w.overflow = 1
        return
    for i in range(width):
        at[i] = (n >> (8 * (width - 1 - i))) & 0xFF
