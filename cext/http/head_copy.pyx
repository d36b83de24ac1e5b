"""Heads that are kept and changed (see the .pxd)."""

from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy

from cext.base.buffer cimport bytes_append, bytes_free
from cext.http.message cimport FIELD_DATE, FIELD_SERVER, MAX_FIELDS, Field

cdef enum:
    SPARE = 8                   # fields that a copy has room for beyond those it was made of


cdef class HeadCopy:
    def __dealloc__(self):
        free(self.head)
        bytes_free(&self.text)

    cdef int copy(self, const Head *h) noexcept:
        # The protocol of an extended CONNECT stands behind the head, as its method does.
        cdef size_t n = max(h.length, h.protocol.off + h.protocol.len)
        self.room = min(h.n_fields + SPARE, <uint32_t> MAX_FIELDS)
        self.head = <Head *> calloc(1, head_size(self.room))
        if self.head == NULL or bytes_append(&self.text, h.base, n) < 0:
            return -1
        memcpy(self.head, h, head_size(h.n_fields))
        self.head.base = self.text.data
        return 0

    cdef int write(self, const uint8_t *p, size_t n, Span *where) noexcept:
        if n > ADDED_MAX - self.added or bytes_append(&self.text, p, n) < 0:
            return -1
        where.off = <uint32_t> (self.text.len - n)
        where.len = <uint32_t> n
        self.added += n
        self.head.base = self.text.data
        # Whoever serialises it makes room by this: it may be more than is used.
        self.head.length = <uint32_t> self.text.len
        return 0

    cdef int add(self, const uint8_t *name, size_t n, const uint8_t *value, size_t m, int field) noexcept:
        cdef Head *larger
        cdef Field *f
        if self.head.n_fields == self.room:
            if self.room == MAX_FIELDS:
                return -1
            larger = <Head *> realloc(self.head, head_size(min(2 * self.room, <uint32_t> MAX_FIELDS)))
            if larger == NULL:
                return -1
            self.head = larger
            self.room = min(2 * self.room, <uint32_t> MAX_FIELDS)
        f = &self.head.fields[self.head.n_fields]
        f.id = <uint8_t> field
        f.hop_by_hop = False
        if self.write(name, n, &f.name) < 0 or self.write(value, m, &f.value) < 0:
            return -1
        self.head.n_fields += 1
        self.look_at_own()
        return 0

    cdef uint32_t remove(self, const uint8_t *name, size_t n) noexcept:
        cdef uint32_t kept = 0
        cdef uint32_t i
        cdef uint32_t before = self.head.n_fields
        cdef Field *f
        for i in range(before):
            f = &self.head.fields[i]
            if f.name.len == n and alike(self.head.base + f.name.off, name, n):
                continue
            self.head.fields[kept] = f[0]
            kept += 1
        self.head.n_fields = kept
        self.look_at_own()
        return before - kept

    cdef void look_at_own(self) noexcept:
        """The fields that whoever writes a response adds when they are not there."""
        cdef uint32_t i
        self.head.has_date = self.head.has_server = False
        for i in range(self.head.n_fields):
            self.head.has_date |= self.head.fields[i].id == FIELD_DATE
            self.head.has_server |= self.head.fields[i].id == FIELD_SERVER


cdef size_t head_size(uint32_t fields) noexcept nogil:
    return sizeof(Head) - (MAX_FIELDS - fields) * sizeof(Field)


cdef bint alike(const uint8_t *a, const uint8_t *b, size_t n) noexcept nogil:
    """Equal without regard to the case of letters, and "_" being "-"."""
    cdef size_t i
    for i in range(n):
        if plain(a[i]) != plain(b[i]):
            return False
    return True


cdef uint8_t plain(uint8_t c) noexcept nogil:
    if c == c"_":
        return c"-"
    return c | 0x20 if c"A" <= c <= c"Z" else c
