"""Tunnels (see the .pxd). The functions stand in the order of a tunnel's life."""

from libc.stdint cimport uint8_t
from libc.string cimport strlen

from cext.crypto.hash_kdf cimport random_bytes, sha1_once
from cext.http.h1_reader cimport BodyReader
from cext.http.h1_writer cimport Forwarding
from cext.http.message cimport METHOD_CONNECT, METHOD_GET, Head, Span
from cext.http.rules cimport next_member, same_name
from cext.http.upgrade cimport (
    WEBSOCKET_CHALLENGE,
    WEBSOCKET_NONCE,
    accepts_websocket,
    base64,
    grants,
    websocket_challenge,
    websocket_key,
)
from cext.proxy.access_log cimport AccessLog
from cext.proxy.upstream cimport UpstreamRequest

cdef enum:
    TIMER_WAIT = 0              # of the exchange
    SHA1_LENGTH = 20
    REST_MS = 500               # a tunnel without a byte for this long rests

cdef const char *BAD_SWITCH = b"The service gave an answer that cannot be understood."


cdef bytes asked_protocol(const Head *h, Route route):
    cdef Span rest = h.protocol if h.method == METHOD_CONNECT else h.upgrade
    cdef Span member, key
    cdef bytes allowed
    while next_member(h.base, &rest, &member):
        for allowed in route.upgrade:
            if member.len != len(allowed) or not same_name(h.base + member.off, <const uint8_t *> <char *> allowed, member.len):
                continue
            # A WebSocket begins with a GET that has a key (RFC 6455, section 4.2.1); without it the server could not
            # show that it has understood.
            if allowed != b"websocket" or h.method == METHOD_CONNECT or (h.method == METHOD_GET and websocket_key(h, &key)):
                return allowed
    return None


cdef class Tunnel(Exchange):
    cdef int ask(self, bytes protocol, const Head *h) noexcept:
        """Before prepare(). 0, or -1: there is no randomness."""
        cdef uint8_t nonce[WEBSOCKET_NONCE]
        cdef uint8_t challenge[WEBSOCKET_CHALLENGE]
        cdef uint8_t digest[SHA1_LENGTH]
        cdef Span key
        self.protocol = protocol
        self.by_connect = h.method == METHOD_CONNECT
        self.websocket = protocol == b"websocket"
        if not self.websocket:
            return 0
        if self.by_connect:
            if random_bytes(nonce, WEBSOCKET_NONCE) < 0:
                return -1
            base64(nonce, WEBSOCKET_NONCE, self.key)
            websocket_challenge(self.key, challenge)
        else:
            websocket_key(h, &key)
            websocket_challenge(h.base + key.off, challenge)
        sha1_once(challenge, WEBSOCKET_CHALLENGE, digest)
        base64(digest, SHA1_LENGTH, self.accept)
        return 0

    cdef int prepare(self, const Head *h, const Forwarding *f) noexcept:
        if Exchange.prepare(self, h, f) < 0:
            return -1
        if self.by_connect:
            self.method = METHOD_GET
            self.method_len = 3
        self.request_done = True                # what follows the head is for the server's new protocol
        return 0

    cdef void send_head(self) noexcept:
        self.upstream.switching = True
        Exchange.send_head(self)

    cdef bint takes_request(self) noexcept nogil:
        return self.switched and Exchange.takes_request(self)

    # ---- the answer

    cdef void on_head(self, UpstreamRequest u, const Head *h) noexcept:
        if self.by_connect and h.status < 300:
            # To a CONNECT it would mean that the tunnel is there: the server would read what follows as requests.
            self.refuse_switch(u, "did not switch protocols")
            return
        Exchange.on_head(self, u, h)

    cdef void on_switched(self, UpstreamRequest u, const Head *h) noexcept:
        if not self.agreed(h) or u.begin_tunnel() < 0:
            self.refuse_switch(u, "switched to another protocol than was asked for")
            return
        self.switched = True
        self.responding = True
        self.request_done = False
        self.status = 101
        self.first_byte_us = self.ctx.loop.now_us
        # The limits of a request have been kept; those of a tunnel are its own, and write_idle.
        self.timeouts.total = self.timeouts.body_idle = self.timeouts.body_rate = 0
        self.ctx.loop.timers.disarm(&self.total)
        self.ctx.counters.tunnels += 1
        self.ctx.counters.tunnels_open += 1
        self.await_bytes()
        self.sink.response_switched(self, h)
        if self.upstream is u:
            self.sink.request_wanted(self)

    cdef bint agreed(self, const Head *h) noexcept:
        return (grants(h, <const uint8_t *> <char *> self.protocol, len(self.protocol))
                and (not self.websocket or accepts_websocket(h, self.accept)))

    cdef void refuse_switch(self, UpstreamRequest u, str what) noexcept:
        self.upstream = None
        u.drop()
        self.report(what, 0, None)
        self.fail(502, BAD_SWITCH, b"bad response")

    # ---- the relay

    cdef void await_bytes(self) noexcept:
        """Something moves: the tunnel is idle from now on."""
        cdef int ms = self.timeouts.tunnel_idle
        self.resting = 0 < ms <= REST_MS
        self.ctx.loop.timers.arm(&self.wait, self.ctx.loop.now + (ms if self.resting else REST_MS))

    cdef void retime(self) noexcept:
        Exchange.retime(self)
        if self.switched and self.sink is not None:
            self.await_bytes()

    cdef void request_data(self, const uint8_t *p, size_t n) noexcept:
        self.bytes_in += n                      # without a limit: it is no content of the request
        if n and self.upstream is not None and self.upstream.send(p, n) < 0:
            self.fail(503, NULL, b"out of memory")

    cdef void request_flush(self) noexcept:
        if self.upstream is not None:
            self.upstream.flush()
        if self.upstream is not None:
            self.await_bytes()

    cdef void on_drained(self, UpstreamRequest u) noexcept:
        if not self.switched:
            Exchange.on_drained(self, u)
            return
        self.await_bytes()
        if not self.request_done:
            self.sink.request_wanted(self)
        else:
            self.end_when_sent()

    cdef void on_batch(self, UpstreamRequest u) noexcept:
        if not self.switched:
            Exchange.on_batch(self, u)
            return
        self.sink.response_flush(self)
        if self.upstream is not u:
            return
        if self.sink.response_congested(self):
            u.pause()
        self.await_bytes()

    cdef void client_drained(self) noexcept:
        if not self.switched:
            Exchange.client_drained(self)
        elif self.upstream is not None and self.upstream.paused:
            self.await_bytes()
            self.upstream.resume()

    # ---- the end

    cdef void request_end(self, const BodyReader *trailers) noexcept:
        """The client will send no more."""
        cdef UpstreamRequest u = self.upstream
        self.request_done = True
        if u is None:
            return
        self.note_end(b"client")
        self.await_bytes()
        u.shut_writing()
        u.flush()
        if self.upstream is u:
            self.end_when_sent()

    cdef void on_end(self, UpstreamRequest u, const BodyReader *trailers) noexcept:
        if not self.switched:
            Exchange.on_end(self, u, trailers)
            return
        self.server_ended = True
        self.note_end(b"upstream")
        self.await_bytes()
        if self.request_done:
            self.end_when_sent()
        else:
            self.sink.response_half(self)

    cdef void note_end(self, const char *who) noexcept:
        if self.ended_by == NULL:
            self.ended_by = who

    cdef void end_when_sent(self) noexcept:
        """Both ends have ended: what the server has not taken yet still goes out."""
        cdef UpstreamRequest u = self.upstream
        if not self.server_ended or u is None or not u.all_sent():
            return
        self.upstream = None
        u.drop()
        self.sink.response_end(self, NULL)

    cdef void on_lost(self, UpstreamRequest u, int loss, int error) noexcept:
        if not self.switched:
            Exchange.on_lost(self, u, loss, error)
            return
        self.upstream = None
        self.note_end(b"upstream")
        self.fail(502, NULL, b"upstream closed")

    cdef void on_timer(self, int kind) noexcept:
        if not self.switched or kind != TIMER_WAIT:
            Exchange.on_timer(self, kind)
            return
        if not self.resting:
            self.resting = True
            if self.timeouts.tunnel_idle:
                self.ctx.loop.timers.arm(&self.wait, self.ctx.loop.now + self.timeouts.tunnel_idle - REST_MS)
            self.sink.response_rests(self)
            return
        self.ctx.counters.timeouts += 1
        self.fault = b"timeout: websocket_idle"
        self.sink.response_abort(self)

    cdef void close(self) noexcept:
        cdef UpstreamRequest u = self.upstream
        if self.sink is not None and self.switched:
            self.ctx.counters.tunnels_open -= 1
        if u is not None and self.switched:
            self.upstream = None
            u.cut()
        Exchange.close(self)

    cdef void log_more(self, AccessLog log) noexcept:
        log.text(b"upgrade", <const char *> self.protocol, len(self.protocol))
        if self.ended_by != NULL:
            log.text(b"ended_by", self.ended_by, strlen(self.ended_by))
