"""Giving connections away (see the .pxd).

One connection to the receiver is used for many messages, then another: the workers of a receiver accept them by chance, so
that each has its share. While a receiver is slow its socket holds what it can, then some connections wait here.
"""

import os

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset

from cext.base.timers cimport timer_init
from cext.net.address cimport address_set, local_peer
from cext.net.fdpass cimport FD_AGAIN, FD_ERROR, FD_SENT, Passage
from cext.net.handoff cimport HANDOFF_HEADER_MAX, HANDOFF_PROXIED, Handoff, handoff_header
from cext.proxy.proxied cimport Proxied

cdef enum:
    WAITING_MAX = 64            # connections that wait for a slow receiver
    MESSAGES = 32               # on one connection to the receiver
    TELL_MS = 10000             # between two lines in the log about one receiver

cdef uint8_t[HANDOFF_HEADER_MAX] header         # in use within one call: a worker is one thread


cdef bint hand_over(Downstream client, HandoffTarget target) noexcept:
    cdef int sent = target.offer(client)
    if sent == FD_SENT:
        return True
    if sent == FD_AGAIN:
        target.wait(client)
        return True
    if target.serve_otherwise:
        return False
    client.shut(b"the receiver does not take it")
    return True


cdef class HandoffTarget(Passage):
    """HandoffTarget(name, path, serve_otherwise, patience_ms)"""

    def __init__(self, str name, str path, bint serve_otherwise, int patience_ms=1000):
        address_set(&self.address, "unix", path, 0)
        self.name = name
        self.wire_name = name.encode()
        self.serve_otherwise = serve_otherwise
        self.patience_ms = patience_ms
        self.waiting = []
        timer_init(&self.patience, self, 0)

    cdef int offer(self, Downstream client) noexcept:
        """FD_SENT: it is gone; FD_AGAIN: the receiver is slow; FD_ERROR: it does not take it."""
        cdef int sent
        self.ctx = client.ctx
        self.loop = client.loop
        if self.waiting:
            if len(self.waiting) < WAITING_MAX:
                return FD_AGAIN
            self.fail(client, "it is too slow")
            return FD_ERROR
        sent = self.send_client(client)
        if sent == FD_ERROR:
            self.fail(client, os.strerror(self.error))
        return sent

    cdef int send_client(self, Downstream client) noexcept:
        """One message; on a new connection when the receiver has closed the one there is."""
        cdef Handoff h
        cdef Proxied proxied = client.opening.proxied
        cdef const uint8_t *tlvs
        cdef int sent = FD_ERROR
        cdef size_t n
        memset(&h, 0, sizeof(h))
        h.client = client.peer
        if proxied is not None:
            tlvs = proxied.raw_tlvs
            h.tlvs, h.tlvs_len = tlvs, len(proxied.raw_tlvs)
        if proxied is not None and proxied.local.known:
            h.flags = HANDOFF_PROXIED
            h.local = proxied.local
        else:
            local_peer(client.fd, &h.local)
        h.name, h.name_len = self.wire_name, len(self.wire_name)
        h.data, h.data_len = client.opening.raw.data, client.opening.raw.len
        n = handoff_header(&h, header)
        if self.fd >= 0 and self.sent >= MESSAGES and self.all_read():
            self.close_passage()
        if self.fd >= 0:
            sent = self.send(header, n, h.data, h.data_len, client.fd)
        if sent == FD_ERROR:
            self.close_passage()
            self.sent = 0
            if self.connect_to(&self.address) < 0:
                return FD_ERROR
            sent = self.send(header, n, h.data, h.data_len, client.fd)
        if sent == FD_SENT:
            self.sent += 1
            client.ctx.counters.handed_over += 1
            client.leave()
        return sent

    # ---- while the receiver is slow ----

    cdef void wait(self, Downstream client) noexcept:
        client.opening.waits = True
        if not self.waiting:
            self.loop.timers.arm(&self.patience, self.loop.now + self.patience_ms)
        self.waiting.append(client)
        if not self.registered:
            self.watch_room()

    cdef void on_event(self, uint32_t events) noexcept:
        self.send_waiting()

    cdef void send_waiting(self) noexcept:
        cdef Downstream client
        cdef int sent
        while self.waiting:
            client = <Downstream> self.waiting[0]
            sent = self.send_client(client) if client.fd >= 0 else FD_SENT
            if sent == FD_AGAIN:
                if not self.registered:
                    self.watch_room()
                return
            self.waiting.pop(0)
            self.loop.timers.arm(&self.patience, self.loop.now + self.patience_ms)
            if sent == FD_ERROR:
                self.fail(client, os.strerror(self.error))
                self.do_otherwise(client)
        self.loop.timers.disarm(&self.patience)
        self.loop.unregister(self)

    cdef void on_timer(self, int kind) noexcept:
        """It has not taken anything for too long. Its socket, full, stays ours: another one would take more in vain."""
        cdef Downstream client
        waited, self.waiting = self.waiting, []
        self.loop.unregister(self)
        for client in waited:
            if client.fd >= 0:
                self.fail(client, "it is too slow")
                self.do_otherwise(client)

    cdef void do_otherwise(self, Downstream client) noexcept:
        client.opening.waits = False
        if self.serve_otherwise:
            client.opening.stay(client)
        else:
            client.shut(b"the receiver does not take it")

    cdef void fail(self, Downstream client, str why) noexcept:
        """Counts one that is not taken; a line in the log at most every TELL_MS."""
        self.ctx.counters.handoff_failures += 1
        if self.told_at and self.loop.now - self.told_at < TELL_MS:
            self.untold += 1
            return
        others = f" ({self.untold} more since the last such line)" if self.untold else ""
        self.told_at = self.loop.now
        self.untold = 0
        otherwise = "served here" if self.serve_otherwise else "closed"
        self.ctx.log("warning", f'{client.peer_name()}: "{self.name}" does not take the connection: {why}; '
                                f"it is {otherwise}{others}")
