"""Receiving connections from other processes (see the .pxd): from the message on they are as those that were accepted."""

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport free, malloc
from posix.unistd cimport close

from cext.base.buffer cimport bytes_append
from cext.net.address cimport Peer
from cext.net.fdpass cimport FD_AGAIN, FD_ERROR, Passage, fd_receive
from cext.net.handoff cimport HANDOFF_MAX, HANDOFF_PROXIED, handoff_check, handoff_parse
from cext.net.stream cimport set_nodelay, set_nonblocking, set_tcp
from cext.proxy.address_table cimport NO_PLACE
from cext.proxy.downstream cimport Downstream, Opening
from cext.proxy.frontend cimport new_client
from cext.proxy.limits cimport admit_connection, may_answer
from cext.proxy.proxied cimport new_proxied

cdef enum:
    MESSAGES_PER_TURN = 16      # of one sender; then the others have theirs
    SOURCES_MAX = 256           # senders connected at a time: each worker of a sender has one


cdef class Senders:
    """Senders(uids): user ids whose processes may hand connections over, beside root's and our own."""

    def __init__(self, uids):
        self.uids = frozenset(uids)


cdef class HandoffDoor(Frontend):
    """HandoffDoor(context, fd, settings): a listening, non-blocking Unix socket (SOCK_SEQPACKET) that its caller owns."""

    def __cinit__(self):
        self.sources = set()
        self.message = <uint8_t *> malloc(HANDOFF_MAX)
        if self.message == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.message)

    cdef void on_accept(self, int fd, const Peer *peer) noexcept:
        cdef HandoffSource source = HandoffSource(self, fd)
        cdef int uid = source.user()
        if uid not in (<Senders> self.settings.senders).uids:
            self.turn_away(f"listener.handoff.users does not have the user of its process (id {uid})")
        elif len(self.sources) >= SOURCES_MAX:
            self.turn_away("there are too many")
        elif source.watch_messages() == 0:
            self.sources.add(source)

    cdef void turn_away(self, str why) noexcept:
        """A sender, whose connection ends with the object."""
        self.ctx.counters.handoffs_refused += 1
        self.ctx.log("warning", f"one who hands connections over is refused: {why}")

    def accept_queued(self):
        """Takes what waits in the queue, and what its senders have sent: they are told to send no more here."""
        Frontend.accept_queued(self)
        for source in list(self.sources):
            (<HandoffSource> source).take_no_more()
            while (<HandoffSource> source).read_some(MESSAGES_PER_TURN) > 0:
                pass

    def close(self):
        Frontend.close(self)
        for source in list(self.sources):
            (<HandoffSource> source).end()

    cdef void read_message(self, ssize_t got, int fd) noexcept:
        cdef Handoff h
        cdef Peer peer
        cdef const char *fault = b"it is cut off, or has not exactly one descriptor"
        if got > 0:
            fault = handoff_parse(self.message, got, &h)
            if fault == NULL:
                fault = handoff_check(fd, &h, &peer)
            if fault == NULL:
                self.ctx.counters.handoffs_received += 1
                self.serve_handoff(fd, &h, &peer)
                return
            close(fd)
        self.ctx.counters.handoffs_refused += 1
        self.ctx.log("warning", f"a handed-over connection is refused: {fault.decode()}")

    cdef void serve_handoff(self, int fd, const Handoff *h, const Peer *peer) noexcept:
        cdef Downstream client
        cdef uint32_t place = NO_PLACE
        cdef int over = admit_connection(self.ctx, self.settings, fd, &h.client, &place)
        if over and not may_answer(self.ctx, self.settings, over):
            close(fd)
            return
        set_nonblocking(fd)         # the sender's are most often; but it is not ours to count on
        set_nodelay(fd)
        set_tcp(fd, &self.settings.tcp)
        client = new_client(self.ctx, self.settings)
        client.refused = <uint8_t> over
        client.place = place
        if h.flags & HANDOFF_PROXIED or h.tlvs_len:
            client.opening = Opening.__new__(Opening)
            client.opening.proxied = new_proxied(peer, &h.local, h.tlvs, h.tlvs_len)
        client.heard = h.data_len > 0
        client.stash_news = client.heard
        if bytes_append(&client.stash, h.data, h.data_len) < 0:
            client.stash_news = False       # the rest is not TLS
        client.serve(fd, &h.client)


cdef class HandoffSource(Passage):
    def __init__(self, HandoffDoor door, int fd):
        self.door = door
        self.loop = door.loop
        self.fd = fd

    cdef void on_event(self, uint32_t events) noexcept:
        self.read_some(MESSAGES_PER_TURN)

    cdef int read_some(self, int most) noexcept:
        """-> how many messages were read; the connection is closed at its end."""
        cdef int fd = -1
        cdef int n = 0
        cdef ssize_t got
        while n < most and self.fd >= 0:
            got = fd_receive(self.fd, self.door.message, HANDOFF_MAX, &fd)
            if got == FD_AGAIN:
                break
            if got == 0 or got == FD_ERROR:
                self.end()
                break
            self.door.read_message(got, fd)
            n += 1
        return n

    cdef void end(self) noexcept:
        self.close_passage()
        self.door.sources.discard(self)
