"""The clients' door: accepts connections, and opens the session that ALPN chose."""

import os

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from posix.unistd cimport close

from cext.net.address cimport ADDRESS_TEXT, Peer, peer_text
from cext.net.listener cimport Listener
from cext.net.stream cimport out_of_descriptors
from cext.proxy.address_table cimport NO_PLACE
from cext.proxy.context cimport Context
from cext.proxy.downstream cimport EARLY_UNCONFIRMED, READ_HANDSHAKE, Downstream
from cext.proxy.early_data cimport EarlySession, early_session
from cext.proxy.gate cimport Gate, must_close, new_gate
from cext.proxy.h1_session cimport H1Session
from cext.proxy.h2_client cimport H2Client
from cext.proxy.handshake_hooks cimport decide
from cext.proxy.limits cimport admit_connection, admit_proxied, may_answer
from cext.proxy.listener_settings cimport ListenerSettings

cdef enum:
    QUEUED_AT_ONCE = 64
    QUEUED_ROUNDS = 64          # no queue is longer; new clients may come as fast as old ones are accepted


cdef class Frontend(Listener):
    """Frontend(context, fd, settings): a listening, non-blocking socket that its caller owns."""

    def __init__(self, Context ctx, int fd, ListenerSettings settings):
        self.ctx = ctx
        self.loop = ctx.loop
        self.fd = fd
        self.settings = settings
        if self.start() < 0:
            raise OSError(f"descriptor {fd} cannot be watched")

    cdef void on_accept(self, int fd, const Peer *peer) noexcept:
        cdef Downstream client
        cdef Gate gate = None
        cdef uint32_t place = NO_PLACE
        cdef int over
        if self.settings.gate is not None:
            if must_close(self.settings, peer):
                self.refuse(fd, peer)
                return
            gate = new_gate(self.settings, peer)
        if gate is not None and gate.proxy_due:
            over = admit_proxied(self.ctx, self.settings, fd, peer)
        else:
            over = admit_connection(self.ctx, self.settings, fd, peer, &place)
        if over and not may_answer(self.ctx, self.settings, over):
            close(fd)
            return
        client = ClientConnection(self.ctx, self.settings)
        client.refused = <uint8_t> over
        client.place = place
        client.opening = gate
        client.serve(fd, peer)
        if gate is not None and gate.proxy_due and client.fd >= 0:
            client.expect(READ_HANDSHAKE, gate.settings.proxy.timeout_ms)

    cdef void refuse(self, int fd, const Peer *peer) noexcept:
        cdef char[ADDRESS_TEXT] text
        cdef size_t n = peer_text(peer, text)
        self.ctx.counters.proxy_refused += 1
        self.ctx.log("info", f"{text[:n].decode()}: connection refused: proxy_protocol.from does not have its address")
        close(fd)

    cdef bint make_room(self, int error) noexcept:
        return out_of_descriptors(error) and self.ctx.relief.of_descriptors()

    cdef void on_starved(self, int error) noexcept:
        self.ctx.counters.accept_pauses += 1
        self.ctx.log("error", f"accept: {os.strerror(error)}; accepting pauses until descriptors are free "
                              "(raise the limit of open files, or lower the idle timeouts)")

    def accept_queued(self):
        """Accepts what waits in the queue: the socket may be closed soon."""
        cdef int rounds = 0
        while rounds < QUEUED_ROUNDS and self.accept_some(QUEUED_AT_ONCE) == QUEUED_AT_ONCE:
            rounds += 1

    def close(self):
        """Stops accepting; the socket and what is queued in it stay."""
        self.stop()


cdef Downstream new_client(Context ctx, ListenerSettings settings):
    return ClientConnection(ctx, settings)


cdef class ClientConnection(Downstream):
    """A connection whose protocol is still to be chosen."""

    cdef void open_early(self) noexcept:
        cdef uint64_t deadline = self.reading.deadline if self.read_phase == READ_HANDSHAKE else 0
        self.open_session()
        if self.session is not None and self.fd >= 0:
            self.session = EarlySession(self, self.session, deadline)
            self.early = EARLY_UNCONFIRMED

    cdef void confirm_early(self) noexcept:
        cdef EarlySession session = early_session(self)
        if session is not None:
            session.confirm()

    cdef void open_session(self) noexcept:
        self.session = H2Client(self) if self.tls.alpn == b"h2" else H1Session(self)

    cdef int decide(self, int event) noexcept:
        return decide(self, event)
