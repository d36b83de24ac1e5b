"""A connected non-blocking socket in the loop, edge-triggered: what is ready is remembered until it is used up."""

from libc.errno cimport EMFILE, ENFILE
from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.base.buffer cimport Chunk, ChunkQueue
from cext.net.address cimport Address
from cext.net.loop cimport Loop, Watcher

cdef enum:
    CHUNKS_PER_READ = 16    # 256 KiB: enough to make a system call cheap, little enough for the cache
    IO_AGAIN = -1           # nothing now; an event will tell
    IO_ERROR = -2           # the connection is broken; `error` holds errno

cdef struct TcpSettings:        # tcp(7); 0: as the kernel has it
    int keepalive_idle          # s without a packet before the first probe; 0: no probes
    int keepalive_interval      # s between probes
    int keepalive_count         # unanswered ones that end the connection
    int user_timeout            # ms that data may go unacknowledged, or a window stay shut; also bounds the probes

cdef int read_tcp(TcpSettings *t, dict values) except -1
cdef void set_tcp(int fd, const TcpSettings *t) noexcept nogil
cdef void set_nodelay(int fd) noexcept nogil
cdef int set_nonblocking(int fd) noexcept nogil

cdef inline bint out_of_descriptors(int error) noexcept nogil:
    """Whether an errno means that the process or the system has no descriptor left."""
    return error == EMFILE or error == ENFILE

cdef class Stream(Watcher):
    cdef bint readable      # recv may find something
    cdef bint writable      # send may take something
    cdef bint awaits_writable       # registered for that, too
    cdef bint hangup        # the peer has ended (or broken) the connection: read until its end shows
    cdef int error
    cdef ChunkQueue out     # to be sent, in order
    cdef int connect_to(self, const Address *a, const TcpSettings *tcp) noexcept
    cdef int connect_result(self) noexcept nogil
    cdef int attach(self) noexcept
    cdef void note_events(self, uint32_t events) noexcept nogil
    cdef ssize_t receive_into(self, uint8_t *p, size_t n) noexcept nogil
    cdef ssize_t receive_chunks(self, size_t wanted, Chunk **chunks, int *n) noexcept nogil
    cdef bint nothing_to_read(self) noexcept nogil
    cdef int send_queue(self) noexcept nogil
    cdef uint64_t acknowledged(self) noexcept nogil
    cdef size_t untaken(self) noexcept nogil
    cdef void limit_unsent(self, int ms) noexcept nogil
    cdef void shut_writing(self) noexcept nogil
    cdef void reset_on_close(self) noexcept nogil
    cdef void acknowledge_now(self) noexcept nogil
    cdef void await_writable(self) noexcept nogil
    cdef void close_stream(self) noexcept
