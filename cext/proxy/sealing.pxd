"""What a TLS connection sends, into a stream's queue: the same towards clients and servers."""

from libc.stdint cimport uint32_t

from cext.base.buffer cimport Chunk, ChunkQueue, bytes_free, chunk_release, queue_append, queue_push
from cext.tls.connection cimport RECORD_HEADER, Connection


cdef inline int queue_tls_output(Connection tls, ChunkQueue *out) noexcept:
    """Handshake messages, alerts and KeyUpdates, in their place among the records; 0, or -1 when out of memory."""
    cdef int r = 0
    if tls.out.len:
        r = queue_append(out, tls.out.data, tls.out.len)
        bytes_free(&tls.out)
    return r


cdef inline int seal_chunk(Connection tls, ChunkQueue *out, Chunk *c) noexcept:
    """A chunk of plaintext, at most plaintext_max of it, becomes a record where it stands. It is the queue's, or gone
    when that fails: 0 or -1."""
    cdef ssize_t n = tls.seal(c.data + c.start - RECORD_HEADER, c.end - c.start)
    if n < 0:
        chunk_release(c)
        return -1
    c.start -= RECORD_HEADER
    c.end = c.start + <uint32_t> n
    queue_push(out, c)
    return 0
