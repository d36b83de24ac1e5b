"""Memory for bytes in flight: pooled chunks, queues of them, and a plain growable buffer.

A Chunk has headroom for a record header and tailroom for content type and tag, so a full TLS record
is read, opened, parsed, sealed and sent in one place. Chunks come from one pool of the process (a
worker is one thread); an idle connection holds none.
"""

from libc.stdint cimport uint8_t, uint32_t

cdef enum:
    CHUNK_HEADROOM = 64     # in front of the payload: record header, chunked-coding size line
    CHUNK_PAYLOAD = 16384   # TLSPlaintext.fragment's limit (RFC 9846, section 5.1)
    CHUNK_TAILROOM = 320    # content type, tag and padding of a peer's largest record (+256)
    CHUNK_SPACE = CHUNK_HEADROOM + CHUNK_PAYLOAD + CHUNK_TAILROOM


cdef struct Chunk:
    Chunk *next
    uint32_t start              # data[start:end] is what the chunk holds
    uint32_t end
    uint8_t data[CHUNK_SPACE]


cdef struct ChunkQueue:
    Chunk *head
    Chunk *tail
    size_t bytes                # sum of end - start


cdef struct Bytes:              # zero-initialised is empty; freed with bytes_free
    uint8_t *data
    size_t len
    size_t cap


cdef Chunk *chunk_acquire() noexcept nogil
"""An empty chunk with start = end = CHUNK_HEADROOM; NULL when the system has no memory."""
cdef void chunk_release(Chunk *c) noexcept nogil

cdef inline void queue_push(ChunkQueue *q, Chunk *c) noexcept nogil:
    c.next = NULL
    if q.tail != NULL:
        q.tail.next = c
    else:
        q.head = c
    q.tail = c
    q.bytes += c.end - c.start


cdef inline Chunk *queue_pop(ChunkQueue *q) noexcept nogil:
    cdef Chunk *c = q.head
    if c != NULL:
        q.head = c.next
        if q.head == NULL:
            q.tail = NULL
        q.bytes -= c.end - c.start
        c.next = NULL
    return c


cdef void queue_clear(ChunkQueue *q) noexcept nogil
cdef int queue_append(ChunkQueue *q, const uint8_t *p, size_t n) noexcept nogil
"""Copies p[:n] to the end of the queue, filling the last chunk first; -1 when out of memory."""

cdef int bytes_reserve(Bytes *b, size_t more) noexcept nogil
"""Room for `more` bytes after data[len]; -1 when out of memory."""
cdef int bytes_append(Bytes *b, const void *p, size_t n) noexcept nogil
cdef void bytes_consume(Bytes *b, size_t n) noexcept nogil
"""Drops the first n bytes; memory is given back when nothing is left."""
cdef void bytes_free(Bytes *b) noexcept nogil
