"""Early data in the proxy (see the .pxd).

What goes upstream before the handshake is confirmed says so (Early-Data: 1, section 5.1), and carries a name by which
the backend can tell a replay: the fingerprint of the connection's ClientHello, and which of its early requests it is.
"""

from libc.string cimport memcpy

from cext.base.buffer cimport bytes_append, bytes_free
from cext.base.timers cimport timer_init
from cext.http.h1_reader cimport parse_request
from cext.http.h1_writer cimport DECIMAL_MAX, write_decimal
from cext.http.message cimport FIELD_EARLY_DATA, METHOD_CONNECT
from cext.proxy.downstream cimport EARLY_READ, EARLY_UNCONFIRMED
from cext.proxy.early_rules cimport EARLY_MODE_FORWARD, EARLY_MODE_REJECT, EarlyRules
from cext.proxy.upstream cimport UpstreamRequest

cdef const char *TOO_EARLY = b"The request came before the handshake was over: send it again."
cdef const char *NOT_FINISHED = b"handshake not finished"


cdef const char *fate_name(int fate) noexcept:
    if fate == FATE_FORWARDED: return b"forwarded"
    if fate == FATE_CONFIRMED: return b"confirmed"
    if fate == FATE_REFUSED: return b"refused"
    if fate == FATE_RETRIED: return b"retried"
    return b""


cdef class EarlySession(Session):
    """EarlySession(client, session)"""

    def __cinit__(self, Downstream client, Session inner, uint64_t deadline):
        self.client = client
        self.inner = inner
        self.framed = client.tls.alpn == b"h2"
        self.waiting = []
        self.callbacks = []
        timer_init(&self.handshake, self, 0)
        if deadline:
            client.loop.timers.arm(&self.handshake, deadline)

    # ---- bytes ----

    cdef bint wants_plaintext(self) noexcept:
        # Behind what the session does not want yet comes the client's Finished. Early data is bounded by its tickets.
        return not self.confirmed or self.inner.wants_plaintext()

    cdef size_t on_plaintext(self, const uint8_t *p, size_t n) noexcept:
        cdef size_t used = 0
        cdef size_t first = self.left
        if not self.inner.wants_plaintext():
            return 0
        if not self.confirmed or first == 0:
            used = self.inner.on_plaintext(p, n)
        elif self.framed:
            used = self.inner.on_plaintext(p, first)        # all of it
            self.left = 0
            self.block = self.inner.partial_head()
            if n > first and self.client.fd >= 0:
                used += self.inner.on_plaintext(p + first, n - first)
        else:
            self.edge = p + first
            used = self.inner.on_plaintext(p, n)
            self.edge = NULL
            self.left -= min(first, used)
        self.settle()
        return used

    cdef bint brought(self, const Head *h) noexcept:
        """Whether a byte of this head came before the handshake was confirmed."""
        if not self.confirmed:
            return True
        if self.framed:
            return self.left > 0 or self.block != 0 and self.inner.head_number() == self.block
        return self.edge != NULL and h.base < self.edge

    cdef void settle(self) noexcept:
        """All early bytes have been read: the session goes on alone."""
        cdef Downstream client = self.client
        if not self.confirmed or self.left or client.fd < 0:
            return
        if self.block and self.inner.partial_head() == self.block:
            return
        client.early = 0
        if client.session is self:
            client.session = self.inner
        client.loop.keep_until_turn_ends(self)

    # ---- the handshake ----

    cdef void confirm(self) noexcept:
        cdef Downstream client = self.client
        cdef Exchange x
        cdef list held = self.waiting
        self.confirmed = True
        client.early = EARLY_READ
        client.loop.timers.disarm(&self.handshake)
        self.left = client.plain.len
        client.plain_news = self.left > 0
        if self.framed and self.left == 0:
            self.block = self.inner.partial_head()
        self.waiting = None
        self.answer(True)
        for x in held:
            if x.sink is not None and x.held is x.early:
                (<EarlyRequest> x.early).release(x)
        self.settle()

    cdef void answer(self, bint yes) noexcept:
        cdef list callbacks = self.callbacks
        self.callbacks = None
        for callback in callbacks:
            self.client.loop.call_soon(later(callback, yes))

    cdef void on_timer(self, int kind) noexcept:
        self.client.ctx.counters.timeouts += 1
        self.client.fail_handshake(b"timeout: handshake")

    cdef void on_closed(self, const char *why) noexcept:
        cdef Downstream client = self.client
        client.loop.timers.disarm(&self.handshake)
        self.waiting = None
        client.early = 0
        if not self.confirmed:
            self.answer(False)
        self.inner.on_closed(NOT_FINISHED if why == NULL and not self.confirmed else why)

    # ---- what else a session is told ----

    cdef void on_drained(self) noexcept:
        self.inner.on_drained()

    cdef void on_read_timeout(self, int phase) noexcept:
        self.inner.on_read_timeout(phase)

    cdef void on_peer_finished(self) noexcept:
        self.inner.on_peer_finished()

    cdef void on_drain(self) noexcept:
        self.inner.on_drain()

    cdef void on_turn_end(self) noexcept:
        self.inner.on_turn_end()

    cdef void on_parked(self) noexcept:
        self.inner.on_parked()


def later(callback, bint yes):
    return lambda: callback(yes)


cdef class EarlyRequest(Early):
    def __cinit__(self):
        self.name = b"handshake"

    def __dealloc__(self):
        bytes_free(&self.text)

    cdef void wait(self, Exchange x) noexcept:
        self.connection.waiting.append(x)
        x.hold(self)

    cdef void release(self, Exchange x) noexcept:
        """The handshake is confirmed: on from where it was held."""
        cdef Head *h = &x.ctx.request
        cdef Bytes text = self.text
        x.held = None
        if self.again:
            x.connect(False)
            return
        if text.len == 0:
            x.sink.request_admitted(x, NULL)
            return
        self.text.data = NULL
        bytes_free(&self.text)
        if read_again(&text, self.head_len, self.connection.client, h):
            x.sink.request_admitted(x, h)
        else:
            x.abort(b"the head cannot be read again")
        bytes_free(&text)

    cdef void settle(self, Exchange x, int fate) noexcept:
        if self.fate == FATE_NONE and fate == FATE_CONFIRMED:
            x.ctx.counters.early_confirmed += 1
        elif fate == FATE_FORWARDED and self.fate != FATE_FORWARDED:
            x.ctx.counters.early_forwarded += 1
        elif fate == FATE_REFUSED:
            x.ctx.counters.early_answered_425 += 1
        elif fate == FATE_RETRIED:
            x.ctx.counters.early_retried += 1
        else:
            return
        self.fate = <uint8_t> fate

    cdef int dress(self, Exchange x) noexcept:
        """The head is about to go upstream, the first time or once more. 0, or -1: out of memory."""
        cdef Bytes *head = &x.head
        cdef Downstream client
        cdef uint8_t digits[DECIMAL_MAX]
        cdef size_t n, before
        cdef int r = 0
        if self.added:
            head.len -= self.added
            self.added = 0
            memcpy(head.data + head.len - 2, b"\r\n", 2)
        if self.connection is None:
            return 0
        if self.connection.confirmed:
            self.settle(x, FATE_CONFIRMED)
            return 0
        client = self.connection.client
        before = head.len
        head.len -= 2                       # the empty line
        if not self.claimed:                # or it says so already
            r |= bytes_append(head, b"Early-Data: 1\r\n", 15)
        if client.settings.unique_len:
            n = write_decimal(digits + DECIMAL_MAX, self.number)
            r |= bytes_append(head, client.settings.unique, client.settings.unique_len)
            r |= bytes_append(head, b": ", 2)
            r |= bytes_append(head, <const char *> client.tls.fingerprint, len(client.tls.fingerprint))
            r |= bytes_append(head, b"-", 1)
            r |= bytes_append(head, digits + DECIMAL_MAX - n, n)
            r |= bytes_append(head, b"\r\n", 2)
        r |= bytes_append(head, b"\r\n", 2)
        if r < 0:
            return -1
        self.added = <uint32_t> (head.len - before)
        self.settle(x, FATE_FORWARDED)
        return 0

    cdef bint takes_back(self, Exchange x) noexcept:
        """The upstream has answered 425 (Too Early): whether the request is sent again, once the handshake is confirmed
        (section 5.2). Not where the client has said itself that it was early: it is to know then. It has happened when this
        returns."""
        cdef UpstreamRequest u = x.upstream
        if self.fate != FATE_FORWARDED or self.claimed or x.body_begun:
            return False
        self.settle(x, FATE_RETRIED)
        x.upstream = None
        x.connected_us = 0
        x.attempts = 0
        u.drop()
        if self.connection.confirmed:
            x.connect(False)
        else:
            self.again = True
            self.wait(x)
        return True


cdef bint read_again(const Bytes *text, size_t n, Downstream client, Head *h) noexcept:
    """Parses a head of n bytes that was kept. An extended CONNECT is read as a GET, as it was first: behind it stand its
    method and protocol (see H2Server.finish_head)."""
    if parse_request(text.data, n, &client.settings.limits, h) < 0:
        return False
    if text.len > n:
        h.method = METHOD_CONNECT
        h.method_name.off, h.method_name.len = <uint32_t> n, 7
        h.protocol.off, h.protocol.len = <uint32_t> n + 7, <uint32_t> (text.len - n - 7)
    return True


cdef EarlySession early_session(Downstream client):
    return <EarlySession> client.session if client.early and isinstance(client.session, EarlySession) else None


cdef bint unconfirmed(Downstream client) noexcept:
    return client.early == EARLY_UNCONFIRMED


cdef int when_confirmed(Downstream client, object callback) except -1:
    if unconfirmed(client):
        early_session(client).callbacks.append(callback)
    else:
        client.loop.call_soon(later(callback, client.tls is not None and client.tls.established))
    return 0


cdef int note_early(Downstream client, Exchange x, const Head *h) except -1:
    cdef EarlySession connection = early_session(client)
    cdef EarlyRequest early
    cdef bint claimed = False
    cdef uint32_t i
    for i in range(h.n_fields):
        if h.fields[i].id == FIELD_EARLY_DATA:
            claimed = True
    if connection is not None and not connection.brought(h):
        connection = None
    if connection is None and not claimed:
        return 0
    early = EarlyRequest.__new__(EarlyRequest)
    early.claimed = claimed
    early.connection = connection
    if connection is not None:
        early.rules = x.route.early if x.route is not None else None
        early.safe = early.rules is not None and early.rules.safe(h)
    x.early = early
    return 0


cdef bint early_gate(Downstream client, Exchange x, const Head *h) noexcept:
    cdef EarlyRequest early = <EarlyRequest> x.early
    cdef size_t n = h.protocol.off + h.protocol.len if h.protocol.len else h.length
    if early.connection is not None and early.number == 0 and not x.pushed:     # a replay need not bring on a promise
        early.connection.heads += 1
        early.number = early.connection.heads
    if may_go(x, early):
        return True
    if x.sink is None or early.fate == FATE_REFUSED:
        return False
    # What comes next needs the head, which is gone when this returns.
    early.head_len = h.length
    if bytes_append(&early.text, h.base, n) < 0:
        x.fail(503, b"The service is overloaded at the moment.", b"out of memory")
    else:
        early.wait(x)
    return False


cdef bint early_start(Downstream client, Exchange x) noexcept:
    cdef EarlyRequest early = <EarlyRequest> x.early
    if may_go(x, early):
        return True
    if x.sink is not None and early.fate != FATE_REFUSED:
        early.wait(x)
    return False


cdef bint may_go(Exchange x, EarlyRequest early) noexcept:
    """Whether x may go on now. It may have been answered if not."""
    cdef EarlyRules rules = x.route.early if x.route is not None else None
    if rules is not None and rules.mode == EARLY_MODE_REJECT:
        early.settle(x, FATE_REFUSED)
        x.status = 425
        x.sink.response_error(x, 425, TOO_EARLY)
        return False
    if early.connection is None or early.connection.confirmed:
        return True
    # What a director has sent elsewhere is safe by the rules it was judged by, or not at all.
    return early.safe and rules is early.rules and rules.mode == EARLY_MODE_FORWARD and not x.pushed
