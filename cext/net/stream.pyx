"""Sockets in the loop (see the .pxd)."""

from libc.errno cimport EAGAIN, EINPROGRESS, EINTR, ENOMEM, errno

from cext.base.buffer cimport CHUNK_PAYLOAD, chunk_acquire, chunk_release, queue_clear, queue_pop
from cext.lib.linux cimport (
    AF_UNIX,
    EPOLLERR,
    EPOLLET,
    EPOLLHUP,
    EPOLLIN,
    EPOLLOUT,
    EPOLLRDHUP,
    F_GETFL,
    F_SETFL,
    IPPROTO_TCP,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    MSG_PEEK,
    O_NONBLOCK,
    SHUT_WR,
    SIOCOUTQ,
    SO_ERROR,
    SO_KEEPALIVE,
    SO_LINGER,
    SOCK_CLOEXEC,
    SOCK_NONBLOCK,
    SOCK_STREAM,
    SOL_SOCKET,
    TCP_INFO,
    TCP_KEEPCNT,
    TCP_KEEPIDLE,
    TCP_KEEPINTVL,
    TCP_NODELAY,
    TCP_QUICKACK,
    TCP_USER_TIMEOUT,
    close,
    connect,
    fcntl,
    getsockopt,
    ioctl,
    iovec,
    linger,
    msghdr,
    readv,
    recv,
    sendmsg,
    setsockopt,
    shutdown,
    sockaddr,
    socket,
    socklen_t,
    tcp_counts,
)

cdef enum:
    IOV_PER_SEND = 64

cdef TcpSettings NO_TCP_SETTINGS            # all 0
cdef uint32_t READING = EPOLLIN | EPOLLRDHUP | <uint32_t> EPOLLET


cdef int read_tcp(TcpSettings *t, dict values) except -1:
    """Those named in `values`; the others stay as the kernel has them. ValueError for a name that is none."""
    t[0] = NO_TCP_SETTINGS
    if not values.keys() <= (<dict> t[0]).keys():
        raise ValueError(f"no such settings of TCP: {sorted(values.keys() - (<dict> t[0]).keys())}")
    t[0] = <dict> t[0] | values
    return 0


cdef void set_option(int fd, int level, int name, int value) noexcept nogil:
    setsockopt(fd, level, name, &value, sizeof(value))


cdef void set_tcp(int fd, const TcpSettings *t) noexcept nogil:
    """For a socket, or for those that a listening one accepts from now on."""
    set_option(fd, SOL_SOCKET, SO_KEEPALIVE, t.keepalive_idle != 0)
    if t.keepalive_idle:
        set_option(fd, IPPROTO_TCP, TCP_KEEPIDLE, t.keepalive_idle)
        set_option(fd, IPPROTO_TCP, TCP_KEEPINTVL, t.keepalive_interval)
        set_option(fd, IPPROTO_TCP, TCP_KEEPCNT, t.keepalive_count)
    set_option(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, t.user_timeout)


cdef void set_nodelay(int fd) noexcept nogil:
    """Small writes go at once. A listening socket hands this on to those it accepts."""
    set_option(fd, IPPROTO_TCP, TCP_NODELAY, 1)


cdef int set_nonblocking(int fd) noexcept nogil:
    """For every process that has the socket open. 0 or -1."""
    cdef int flags = fcntl(fd, F_GETFL)
    return -1 if flags < 0 else fcntl(fd, F_SETFL, flags | O_NONBLOCK)


cdef class Stream(Watcher):
    def __dealloc__(self):
        queue_clear(&self.out)
        if self.fd >= 0:
            close(self.fd)

    cdef int connect_to(self, const Address *a, const TcpSettings *tcp) noexcept:
        """Begins to connect and watches the descriptor: 0 (connected: `writable`), or -1 with `error`."""
        self.fd = socket(a.storage.ss_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0)
        if self.fd < 0:
            self.error = errno
            return -1
        if a.storage.ss_family != AF_UNIX:
            set_nodelay(self.fd)
            set_tcp(self.fd, tcp)
        self.writable = connect(self.fd, <const sockaddr *> &a.storage, a.length) == 0
        if not self.writable and errno != EINPROGRESS and errno != EINTR:
            self.error = errno
            return -1
        if self.attach() < 0:
            self.error = errno
            return -1
        return 0

    cdef int connect_result(self) noexcept nogil:
        """How a connect that had begun went: 0 or an errno."""
        cdef int error = 0
        cdef socklen_t n = sizeof(error)
        getsockopt(self.fd, SOL_SOCKET, SO_ERROR, &error, &n)
        return error

    cdef int attach(self) noexcept:
        """Watches the descriptor for reading, and for writing while that is what is waited for: a new connection
        is writable, and an event that says so would be one turn for nothing. 0 or -1."""
        self.awaits_writable = not self.writable
        return self.loop.register(self, READING | EPOLLOUT if self.awaits_writable else READING)

    cdef void note_events(self, uint32_t events) noexcept nogil:
        if events & (EPOLLRDHUP | EPOLLHUP | EPOLLERR):
            self.hangup = True
            self.readable = True
        if events & EPOLLIN:
            self.readable = True
        if events & (EPOLLOUT | EPOLLHUP | EPOLLERR):
            self.writable = True

    cdef ssize_t receive_into(self, uint8_t *p, size_t n) noexcept nogil:
        """Bytes read (0: the peer's end), IO_AGAIN or IO_ERROR. A short read means the socket is empty, and an
        edge will announce more, unless the peer's end was announced already."""
        cdef ssize_t got
        while True:
            got = recv(self.fd, p, n, 0)
            if got >= 0 or errno != EINTR:
                break
        if got < 0:
            self.readable = False
            if errno == EAGAIN:
                return IO_AGAIN
            self.error = errno
            return IO_ERROR
        if <size_t> got < n and not self.hangup:
            self.readable = False
        return got

    cdef ssize_t receive_chunks(self, size_t wanted, Chunk **chunks, int *n) noexcept nogil:
        """Reads up to `wanted` bytes into new chunks (room for CHUNKS_PER_READ), `n` of them, none empty.

        Bytes read (0: the peer's end), IO_AGAIN or IO_ERROR, as receive_into.
        """
        cdef iovec iov[CHUNKS_PER_READ]
        cdef size_t asked = 0
        cdef size_t size
        cdef ssize_t got, rest
        cdef int acquired = 0
        cdef int i
        n[0] = 0
        while acquired < CHUNKS_PER_READ and asked < wanted:
            chunks[acquired] = chunk_acquire()
            if chunks[acquired] == NULL:
                break
            size = CHUNK_PAYLOAD if wanted - asked > CHUNK_PAYLOAD else wanted - asked
            iov[acquired].iov_base = chunks[acquired].data + chunks[acquired].start
            iov[acquired].iov_len = size
            asked += size
            acquired += 1
        if acquired == 0:                       # readv of nothing would look like the peer's end
            self.readable = False
            self.error = ENOMEM
            return IO_ERROR
        while True:
            got = readv(self.fd, iov, acquired)
            if got >= 0 or errno != EINTR:
                break
        rest = got if got > 0 else 0
        for i in range(acquired):
            size = iov[i].iov_len if <ssize_t> iov[i].iov_len < rest else rest
            rest -= size
            if size == 0:
                chunk_release(chunks[i])
                continue
            chunks[i].end += <uint32_t> size
            n[0] += 1
        if got < 0:
            self.readable = False
            if errno == EAGAIN:
                return IO_AGAIN
            self.error = errno
            return IO_ERROR
        if <size_t> got < asked and not self.hangup:
            self.readable = False
        return got

    cdef bint nothing_to_read(self) noexcept nogil:
        """Whether the connection is open and silent, asked of the kernel."""
        cdef char b
        return recv(self.fd, &b, 1, MSG_PEEK | MSG_DONTWAIT) < 0 and errno == EAGAIN

    cdef int send_queue(self) noexcept nogil:
        """Sends what the socket takes of `out`. 0: all of it went; IO_AGAIN; IO_ERROR."""
        cdef iovec iov[IOV_PER_SEND]
        cdef msghdr m
        cdef Chunk *c
        cdef int n
        cdef size_t total
        cdef ssize_t sent
        cdef uint32_t part
        m.msg_name = NULL
        m.msg_namelen = 0
        m.msg_control = NULL
        m.msg_controllen = 0
        m.msg_flags = 0
        while self.out.head != NULL:
            if not self.writable:
                return IO_AGAIN
            n = 0
            total = 0
            c = self.out.head
            while c != NULL and n < IOV_PER_SEND:
                iov[n].iov_base = c.data + c.start
                iov[n].iov_len = c.end - c.start
                total += iov[n].iov_len
                n += 1
                c = c.next
            m.msg_iov = iov
            m.msg_iovlen = n
            sent = sendmsg(self.fd, &m, MSG_NOSIGNAL)
            if sent < 0:
                if errno == EINTR:
                    continue
                if errno == EAGAIN:
                    self.await_writable()
                    return IO_AGAIN
                self.writable = False
                self.error = errno
                return IO_ERROR
            if <size_t> sent < total:
                self.await_writable()
            while sent > 0:
                c = self.out.head
                part = c.end - c.start
                if <size_t> sent < part:
                    c.start += <uint32_t> sent
                    self.out.bytes -= sent
                    break
                sent -= part
                chunk_release(queue_pop(&self.out))
        return 0

    cdef uint64_t acknowledged(self) noexcept nogil:
        """Bytes that the peer's TCP has taken since the connection began (0: the kernel does not say)."""
        cdef tcp_counts counts
        cdef socklen_t n = sizeof(counts)
        counts.tcpi_bytes_acked = 0
        if getsockopt(self.fd, IPPROTO_TCP, TCP_INFO, &counts, &n) < 0:
            return 0
        return counts.tcpi_bytes_acked

    cdef size_t untaken(self) noexcept nogil:
        """Bytes that the peer has still to take: those of `out`, and those that the kernel holds."""
        cdef int held = 0
        ioctl(self.fd, SIOCOUTQ, &held)
        return self.out.bytes + <size_t> held

    cdef void reset_on_close(self) noexcept nogil:
        """The peer is to see a connection that broke, not one that ended; what the kernel still has to send is dropped."""
        cdef linger now
        now.l_onoff = 1
        now.l_linger = 0
        setsockopt(self.fd, SOL_SOCKET, SO_LINGER, &now, sizeof(now))

    cdef void limit_unsent(self, int ms) noexcept nogil:
        """How long the kernel may try to send what it has, after the descriptor is closed, to a peer that takes none."""
        set_option(self.fd, IPPROTO_TCP, TCP_USER_TIMEOUT, ms)

    cdef void shut_writing(self) noexcept nogil:
        """No more will be sent; the peer may still."""
        shutdown(self.fd, SHUT_WR)

    cdef void acknowledge_now(self) noexcept nogil:
        """Acknowledges what has come, instead of waiting (40 ms) for an answer to carry it."""
        set_option(self.fd, IPPROTO_TCP, TCP_QUICKACK, 1)

    cdef void await_writable(self) noexcept nogil:
        """The socket is full: from now on (once and for all) an edge tells when it takes more. epoll reports the state
        at the time of the change, too, so none is missed."""
        self.writable = False
        if not self.awaits_writable and self.registered:
            self.awaits_writable = True
            self.loop.change(self, READING | EPOLLOUT)

    cdef void close_stream(self) noexcept:
        """Unregisters and closes; what was not sent is dropped."""
        if self.fd < 0:
            return
        self.loop.forget(self)
        close(self.fd)
        self.fd = -1
        queue_clear(&self.out)
