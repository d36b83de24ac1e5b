"""Tunnels on connections of HTTP/1.1 (see the .pxd).

The client ends its direction by close_notify, and so do we. Whatever else ends the connection is a break, which the
server sees as a reset: somebody on the way could have cut the stream short.
"""

from libc.stdint cimport uint8_t

from cext.base.buffer cimport Chunk, chunk_release
from cext.http.h1_reader cimport BodyReader
from cext.proxy.context cimport STATE_HIJACKED
from cext.proxy.downstream cimport READ_BODY
from cext.proxy.exchange cimport Exchange
from cext.proxy.service cimport log_exchange
from cext.proxy.timeouts cimport WriteLimits, write_limits


cdef H1Tunnel open_tunnel(Downstream client, Tunnel tunnel, uint64_t wire_in, uint64_t wire_out):
    cdef H1Tunnel session = H1Tunnel.__new__(H1Tunnel)
    session.client = client
    session.tunnel = tunnel
    session.wire_in = wire_in
    session.wire_out = wire_out
    tunnel.sink = session
    client.session = session
    client.expect(READ_BODY, 0)
    client.set_state(STATE_HIJACKED)
    return session


cdef class H1Tunnel(Session):
    # ---- from the client

    cdef bint wants_plaintext(self) noexcept:
        return self.tunnel is not None and not self.tunnel.request_done and self.tunnel.takes_request()

    cdef size_t on_plaintext(self, const uint8_t *p, size_t n) noexcept:
        cdef Tunnel tunnel = self.tunnel
        self.wire_in += n
        tunnel.request_data(p, n)
        if self.tunnel is tunnel:
            tunnel.request_flush()
        if self.client is not None and self.client.peer_finished:
            self.end_input()
        return n

    cdef void on_peer_finished(self) noexcept:
        if self.client.plain.len:
            self.client.resume()
        else:
            self.end_input()

    cdef void end_input(self) noexcept:
        if self.tunnel is not None and not self.tunnel.request_done:
            self.tunnel.request_end(NULL)

    cdef void request_wanted(self, Exchange x) noexcept:
        self.client.resume()
        if self.client is not None and self.client.peer_finished and self.client.plain.len == 0:
            self.end_input()

    cdef void retimed(self, Exchange x) noexcept:
        cdef WriteLimits writes = write_limits(&x.timeouts)
        self.client.adopt(&writes, x.timeouts.keepalive)

    # ---- to the client

    cdef void response_data(self, Exchange x, const uint8_t *p, size_t n) noexcept:
        self.wire_out += n
        if self.client is not None and self.client.write(p, n) < 0:
            self.client.abort(b"out of memory")

    cdef void response_chunk(self, Exchange x, Chunk *c) noexcept:
        self.wire_out += c.end - c.start
        if self.client is None:
            chunk_release(c)
        elif self.client.write_chunk(c) < 0:
            self.client.abort(b"sealing failed")

    cdef void response_flush(self, Exchange x) noexcept:
        if self.client is not None:
            self.client.flush()

    cdef bint response_congested(self, Exchange x) noexcept:
        return self.client is not None and self.client.congested

    cdef void on_drained(self) noexcept:
        if self.tunnel is not None:
            self.tunnel.client_drained()

    cdef void response_rests(self, Exchange x) noexcept:
        self.client.tls.park()

    cdef void response_half(self, Exchange x) noexcept:
        self.client.finish_writing()

    cdef void response_end(self, Exchange x, const BodyReader *trailers) noexcept:
        cdef Downstream client = self.client
        log_exchange(client, x, self.wire_in, self.wire_out, NULL)
        x.close()
        self.tunnel = None
        client.finish(False)

    cdef void response_abort(self, Exchange x) noexcept:
        self.client.abort(x.fault)

    cdef void on_closed(self, const char *why) noexcept:
        cdef Tunnel tunnel = self.tunnel
        self.tunnel = None
        if tunnel is not None:
            if tunnel.server_ended:
                why = NULL                      # many clients leave without a word once the server has
            elif tunnel.fault == NULL:
                tunnel.note_end(b"client")
                self.client.ctx.counters.client_aborts += 1
            log_exchange(self.client, tunnel, self.wire_in, self.wire_out, why)
            tunnel.close()
        self.client = None
