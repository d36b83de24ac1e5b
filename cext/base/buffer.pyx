"""The chunk pool and the growable buffer (see the .pxd)."""

from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memmove

# Chunks kept for reuse: 128 × 16.4 KiB = 2 MiB, one bulk transfer's queues. More go back to the system.
cdef enum:
    POOL_LIMIT = 128

cdef Chunk *pool = NULL
cdef size_t pool_size = 0
cdef size_t chunks_in_use = 0


cdef Chunk *chunk_acquire() noexcept nogil:
    global pool, pool_size, chunks_in_use
    cdef Chunk *c = pool
    if c != NULL:
        pool = c.next
        pool_size -= 1
    else:
        c = <Chunk *> malloc(sizeof(Chunk))
        if c == NULL:
            return NULL
    chunks_in_use += 1
    c.next = NULL
    c.start = CHUNK_HEADROOM
    c.end = CHUNK_HEADROOM
    return c


cdef void chunk_release(Chunk *c) noexcept nogil:
    global pool, pool_size, chunks_in_use
    if c == NULL:
        return
    chunks_in_use -= 1
    if pool_size >= POOL_LIMIT:
        free(c)
        return
    c.next = pool
    pool = c
    pool_size += 1


cdef void queue_clear(ChunkQueue *q) noexcept nogil:
    cdef Chunk *c = queue_pop(q)
    while c != NULL:
        chunk_release(c)
        c = queue_pop(q)


cdef int queue_append(ChunkQueue *q, const uint8_t *p, size_t n) noexcept nogil:
    cdef Chunk *c
    cdef size_t room
    while n:
        c = q.tail
        room = CHUNK_HEADROOM + CHUNK_PAYLOAD - c.end if c != NULL and c.end < CHUNK_HEADROOM + CHUNK_PAYLOAD else 0
        if room == 0:
            c = chunk_acquire()
            if c == NULL:
                return -1
            queue_push(q, c)
            room = CHUNK_PAYLOAD
        if room > n:
            room = n
        memcpy(c.data + c.end, p, room)
        c.end += <uint32_t> room
        q.bytes += room
        p += room
        n -= room
    return 0


cdef int bytes_reserve(Bytes *b, size_t more) noexcept nogil:
    cdef size_t cap
    cdef void *p
    if b.cap - b.len >= more:
        return 0
    cap = b.cap * 2 if b.cap else 256
    if cap < b.len + more:
        cap = b.len + more
    p = realloc(b.data, cap)
    if p == NULL:
        return -1
    b.data = <uint8_t *> p
    b.cap = cap
    return 0


cdef int bytes_append(Bytes *b, const void *p, size_t n) noexcept nogil:
    if bytes_reserve(b, n) < 0:
        return -1
    memcpy(b.data + b.len, p, n)
    b.len += n
    return 0


cdef void bytes_consume(Bytes *b, size_t n) noexcept nogil:
    if n >= b.len:
        bytes_free(b)
        return
    memmove(b.data, b.data + n, b.len - n)
    b.len -= n


cdef void bytes_free(Bytes *b) noexcept nogil:
    free(b.data)
    b.data = NULL
    b.len = 0
    b.cap = 0


def allocation_counters():
    """(chunks in use, chunks pooled): tests assert that the first returns to where it was."""
    return chunks_in_use, pool_size
