"""Client connections (see the .pxd).

Reading: ciphertext is received into the worker's scratch memory and opened there record by record; the
session takes the plaintext where it stands. Only what is left over (part of a record, or input the session
does not want yet) is copied into the connection's own memory, so an idle connection holds none.

Writing: plaintext gathers in one chunk, is sealed in place and queued; chunks of a large body are sealed
where the upstream's bytes arrived. One sendmsg per flight.
"""

from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

from cext.base.buffer cimport (
    CHUNK_HEADROOM,
    CHUNK_PAYLOAD,
    CHUNK_SPACE,
    bytes_append,
    bytes_consume,
    bytes_free,
    chunk_acquire,
    chunk_release,
    queue_push,
)
from cext.base.timers cimport timer_init
from cext.net.address cimport ADDRESS_TEXT, peer_text
from cext.net.stream cimport IO_AGAIN, IO_ERROR
from cext.proxy.address_table cimport NO_PLACE
from cext.proxy.client_facts cimport count_early_data
from cext.proxy.context cimport (
    BYTES_PER_TURN,
    HIGH_WATER,
    LOW_WATER,
    SCRATCH,
    STATE_ACTIVE,
    STATE_CLOSED,
    STATE_HIJACKED,
    STATE_IDLE,
    STATE_NEW,
    STATES,
)
from cext.proxy.counting cimport count_alert, count_handshake
from cext.proxy.sealing cimport queue_tls_output, seal_chunk
from cext.proxy.timeouts cimport outflow_begin, outflow_look, outflow_next
from cext.tls.connection cimport (
    EARLY_NONE,
    RECORD_HEADER,
    RECORD_OVERHEAD,
    TLS_CLOSE_NOTIFY,
    TLS_DATA,
    TLS_ESTABLISHED,
    TLS_FAILED,
    TLS_NEED_DATA,
    TLS_WAIT_POLICY,
    TLS_WAIT_REGISTER,
    TLS_WAIT_SIGN,
)
from cext.tls.constants cimport internal_error

from cext.proxy.context import STATE_NAMES

cdef enum:
    TIMER_READ = 0
    TIMER_WRITE = 1
    CLOSING_MS = 30000          # to take what is queued when no write timeout was configured
    PARK_MS = 500               # an idle connection keeps its AEAD contexts this long
    LINGER_MS = 2000
    LINGER_BYTES = 256 * 1024   # in one turn
    RECEIVE = 64 * 1024
    PLAIN_MAX = 64 * 1024       # pipelined requests kept while one is answered

# The states that may follow each one, as bits.
cdef uint8_t[STATES] FOLLOWERS
FOLLOWERS[STATE_NEW] = 1 << STATE_ACTIVE | 1 << STATE_CLOSED
FOLLOWERS[STATE_ACTIVE] = 1 << STATE_IDLE | 1 << STATE_HIJACKED | 1 << STATE_CLOSED
FOLLOWERS[STATE_IDLE] = 1 << STATE_ACTIVE | 1 << STATE_CLOSED
FOLLOWERS[STATE_HIJACKED] = 1 << STATE_CLOSED
FOLLOWERS[STATE_CLOSED] = 0


cdef class Session(ResponseSink):
    cdef size_t on_plaintext(self, const uint8_t *p, size_t n) noexcept:
        """Takes what it can use of p[:n] -> how much. The rest comes again with what follows it."""
        return n

    cdef bint wants_plaintext(self) noexcept:
        """Whether more may come now; if not, the client's bytes wait in the kernel."""
        return True

    cdef void on_drained(self) noexcept:
        """The client has taken most of what was queued."""

    cdef void on_read_timeout(self, int phase) noexcept:
        """The client did not send what it should have in time."""

    cdef void on_peer_finished(self) noexcept:
        """The client will send no more (close_notify): what is under way may still be answered."""

    cdef void on_drain(self) noexcept:
        """The worker is about to end: finish what is under way and close."""

    cdef void on_turn_end(self) noexcept:
        """Asked for by loop.at_turn_end(connection): the time to send what was gathered."""

    cdef void on_parked(self) noexcept:
        """Idle for a moment: memory that can be made again is worth giving back."""

    cdef uint32_t head_number(self) noexcept:
        """Of HTTP/2: the number of the header block that began last, from 1."""
        return 0

    cdef uint32_t partial_head(self) noexcept:
        """Likewise: of the one of which a byte has come, and not all; 0: there is none."""
        return 0

    cdef void on_closed(self, const char *why) noexcept:
        """The connection is gone; `why` is NULL when it ended as it should."""


cdef class Opening:
    def __dealloc__(self):
        bytes_free(&self.raw)

    cdef ssize_t on_bytes(self, Downstream client, const uint8_t *p, size_t n) noexcept:
        """Takes p[:n] while `pending` -> n, or -1 when there is no going on for now."""
        return n

    cdef void stay(self, Downstream client) noexcept:
        """The receiver that `waits` is for does not take the connection: it is served here."""


cdef class Downstream(Stream):
    def __cinit__(self, Context ctx, ListenerSettings settings):
        self.ctx = ctx
        self.loop = ctx.loop
        self.settings = settings
        timer_init(&self.reading, self, TIMER_READ)
        self.place = NO_PLACE

    def __dealloc__(self):
        free(self.sending)
        bytes_free(&self.stash)
        bytes_free(&self.plain)
        chunk_release(self.filling)

    # ---- life ----

    cdef void serve(self, int fd, const Peer *peer) noexcept:
        """Takes over an accepted descriptor. Its ClientHello is mostly there already: it is read before the
        descriptor is watched, which saves an event."""
        self.fd = fd
        self.peer = peer[0]
        self.ctx.counters.connections += 1
        self.ctx.counters.connections_open += 1
        if self.refused:
            self.ctx.answering += 1
        else:
            self.settings.enter()
        self.ctx.in_state[STATE_NEW] += 1
        self.ctx.row.entered[STATE_NEW] += 1
        if self.ctx.state_observer is not None:
            self.tell_state(None)
        self.readable = True
        self.writable = True
        self.writes.idle = CLOSING_MS
        self.keepalive_ms = self.settings.timeouts.keepalive
        self.began = <uint32_t> self.loop.now_us
        try:
            self.tls = Connection(self.settings.tls)
        except Exception as e:
            self.ctx.log("error", f"connection not served: {e!r}")
            self.shut(NULL)
            return
        self.choose_key_log()
        self.expect(READ_HANDSHAKE, self.settings.handshake_ms)
        self.pump()
        if self.fd >= 0 and self.attach() < 0:
            self.shut(b"not watched")

    cdef void choose_key_log(self) noexcept:
        """Before the handshake, as soon as it is known who the client is."""
        if self.settings.key_logged is not None:
            self.tls.key_log_off = not self.settings.key_logged.has(&self.peer)

    cdef void open_session(self) noexcept:
        """The protocol that ALPN chose begins: the handshake is done, or early data has come that is to be seen at once."""

    cdef void open_early(self) noexcept:
        """Likewise, for early data."""

    cdef void confirm_early(self) noexcept:
        """The handshake is done, after open_early."""

    cdef int decide(self, int event) noexcept:
        """The engine waits, by its TLS_WAIT_* -> the TlsEvent that came of the decision; TLS_PROGRESS while `deciding`."""
        return self.tls.refuse_to_resume(internal_error, "nobody is there to decide")

    cdef void begin_deciding(self, HookCall call) noexcept:
        """The handshake waits for the call, or, None, does not wait any more."""
        cdef HookCall before = self.ctx.deciding.pop(self, None)
        if before is not None:
            before.cancel()
        self.deciding = call is not None
        if call is not None:
            self.ctx.deciding[self] = call
        self.ctx.counters.handshakes_waiting = len(self.ctx.deciding)

    cdef void handshake_went_on(self, int event) noexcept:
        """A decision was waited for, and `event` has come of it: what the client sent meanwhile is read."""
        if self.fd < 0:
            return
        if event == TLS_FAILED:
            self.handshake_failed()
            return
        self.flush()
        if self.fd >= 0:
            self.stash_news = self.stash.len > 0
            self.pump()

    cdef void set_state(self, int new) noexcept:
        """The only way from state to state. Where `new` may not follow, as on itself, nothing happens."""
        cdef int old = self.state
        if not FOLLOWERS[old] >> new & 1:
            return
        self.state = <uint8_t> new
        self.ctx.in_state[old] -= 1
        self.ctx.in_state[new] += 1
        self.ctx.row.entered[new] += 1
        if self.ctx.state_observer is not None:
            self.tell_state(STATE_NAMES[old])

    cdef void tell_state(self, str old) noexcept:
        try:
            self.ctx.state_observer(self, old, STATE_NAMES[self.state])
        except Exception as e:
            self.ctx.log("error", f"connection_state: {e!r}")

    cdef void drain(self) noexcept:
        """One in its handshake is served: its session is opened draining, and closes after the first response."""
        if self.session is not None:
            self.session.on_drain()

    cdef void give_way(self) noexcept:
        """Idle, while its place is needed: what is owed to the client goes out if the socket takes it, and no more."""
        if self.session is not None and not self.closing:
            self.session.on_read_timeout(READ_KEEPALIVE)
        self.shut(NULL)

    cdef void finish(self, bint linger) noexcept:
        """Orderly end: close_notify after what is queued, then the socket is closed. With `linger` the client may
        still be sending (and would lose our answer to a reset): its bytes are discarded for a moment."""
        if self.fd < 0 or self.closing:
            return
        self.seal_filling()
        self.tls.close_notify()
        queue_tls_output(self.tls, &self.out)
        self.close_when_sent(linger)

    cdef void finish_writing(self) noexcept:
        """The orderly end of our direction alone, after what is queued: the client may go on sending."""
        if self.fd < 0 or self.closing:
            return
        self.seal_filling()
        self.tls.close_notify()
        queue_tls_output(self.tls, &self.out)
        self.half_closing = True
        self.flush()

    cdef void close_when_sent(self, bint linger) noexcept:
        self.closing = True
        self.lingering = linger or self.early == EARLY_UNCONFIRMED      # its Finished is still to come
        self.expect(READ_BODY, 0)
        if self.writes.idle == 0:
            self.writes.idle = CLOSING_MS
        self.flush()

    cdef void abort(self, const char *why) noexcept:
        """Ends without close_notify: the client sees a cut."""
        self.shut(why)

    cdef void leave(self) noexcept:
        """Another process has the connection. While the descriptor is open there, epoll would go on watching it."""
        self.loop.unregister(self)
        self.shut(NULL)

    cdef void shut(self, const char *why) noexcept:
        """The end, however it came about."""
        cdef Session session = self.session
        if self.fd < 0:
            return
        self.session = None
        if self.deciding:
            self.begin_deciding(None)
        if self.ctx.fingerprints is not None:
            self.ctx.fingerprints.pop(self, None)
        if self.tls is not None and not self.tls.established and self.tls.early_data_state != EARLY_NONE:
            count_early_data(self.ctx, self.tls)
        self.ctx.counters.connections_open -= 1
        self.loop.timers.disarm(&self.reading)
        self.end_sending()
        self.close_stream()
        chunk_release(self.filling)
        self.filling = NULL
        bytes_free(&self.stash)
        bytes_free(&self.plain)
        if session is not None:
            self.loop.keep_until_turn_ends(session)
            session.on_closed(why)
        if self.refused:
            self.ctx.answering -= 1
        else:
            self.settings.leave()
        if self.place != NO_PLACE:
            self.ctx.addresses.leave(self.place)
        self.set_state(STATE_CLOSED)
        self.tls = None

    cdef void on_event(self, uint32_t events) noexcept:
        self.note_events(events)
        if self.out.bytes and self.writable:
            self.flush()
        if self.fd >= 0 and self.readable:
            self.pump()

    cdef void on_turn_end(self) noexcept:
        if self.session is not None:
            self.session.on_turn_end()

    cdef void on_timer(self, int kind) noexcept:
        if kind == TIMER_WRITE:
            self.look_at_sending()
            return
        if self.read_phase == READ_KEEPALIVE and not self.parked:
            # Idle for a moment: now it is worth giving the AEAD contexts back.
            self.parked = True
            self.tls.park()
            if self.session is not None:
                self.session.on_parked()
            if self.keepalive_ms:
                self.loop.timers.arm(&self.reading, self.loop.now + max(self.keepalive_ms - PARK_MS, 1))
            return
        if self.read_phase == READ_LINGER:
            self.shut(NULL)
            return
        if self.read_phase != READ_KEEPALIVE and self.read_phase != READ_BODY:
            self.ctx.counters.timeouts += 1
        if self.session is not None:
            self.session.on_read_timeout(self.read_phase)
            return
        self.fail_handshake(b"timeout: handshake")

    cdef void tell(self, const char *what) noexcept:
        """One line to the error log, of what happens to clients all day."""
        self.ctx.log("debug", f"{self.peer_name()}: {what.decode()}")

    cdef void expect(self, int phase, int ms) noexcept:
        """What the client is to send next, and until when (0: no limit)."""
        self.read_phase = phase
        self.parked = False
        if phase == READ_KEEPALIVE and (ms == 0 or ms > PARK_MS):
            ms = PARK_MS
        if ms:
            self.loop.timers.arm(&self.reading, self.loop.now + ms)
        else:
            self.loop.timers.disarm(&self.reading)

    cdef void expect_by(self, int phase, uint64_t deadline) noexcept:
        """The same until a time of the loop's clock; 0: no limit."""
        self.read_phase = phase
        self.parked = False
        if deadline:
            self.loop.timers.arm(&self.reading, deadline)
        else:
            self.loop.timers.disarm(&self.reading)

    cdef void adopt(self, const WriteLimits *writes, int keepalive_ms) noexcept:
        """What holds for the response to come, for what is queued already (from when that began: a client could ask
        for more instead of taking it), and for the wait after both."""
        self.writes = writes[0]
        self.keepalive_ms = keepalive_ms
        if writes.idle == 0 and writes.rate == 0:
            self.end_sending()
        elif self.sending != NULL:
            self.loop.timers.arm(&self.sending.timer, outflow_next(&self.sending.flow, &self.writes, self.loop.now))
        elif self.out.bytes:
            self.watch_sending()

    # ---- reading ----

    cdef bint wants_input(self) noexcept:
        if self.closing or self.deciding:
            return False
        if self.session is None:
            return self.opening is None or not self.opening.waits
        if self.session.wants_plaintext():
            return True
        # Not wanted, but the client has gone or half-closed: read on (a little) to learn which.
        return self.hangup and not self.peer_finished and self.plain.len < PLAIN_MAX

    cdef void pump(self) noexcept:
        """Reads, opens and delivers until the socket is empty or the session has enough."""
        cdef size_t budget = BYTES_PER_TURN
        cdef ssize_t got
        if self.pumping:
            return
        self.pumping = True
        while self.fd >= 0:
            if self.closing:
                if self.lingering and self.out.bytes == 0:
                    self.discard_input()
                break
            if self.deciding and self.hangup:
                self.peer_gone(True)            # its bytes wait in the kernel: nothing else tells of its end
                break
            if self.plain.len and self.plain_news and self.session is not None and self.session.wants_plaintext():
                self.feed_plain()
                continue
            if not self.wants_input() or not (self.readable or (self.stash.len and self.stash_news)):
                break
            got = self.read_records()
            if got < 0:
                break
            if <size_t> got >= budget:
                self.loop.again(self)
                break
            budget -= got
        self.pumping = False

    cdef ssize_t read_records(self) noexcept:
        """One receive, and the records it completes -> bytes received; -1 when there is no going on."""
        cdef uint8_t *p = self.ctx.client_scratch
        cdef size_t have = self.stash.len
        cdef size_t room = SCRATCH - have
        cdef size_t used
        cdef ssize_t got = 0
        if self.stash_news or have > SCRATCH - RECEIVE:
            room = 0                            # whole records wait there: they come before what follows, or its end
        self.stash_news = False
        if room > RECEIVE:
            room = RECEIVE
        if self.readable and room:
            got = self.receive_into(p + have, room)
            if got == IO_ERROR or got == 0:
                self.peer_gone(got == 0)
                return -1
            if got == IO_AGAIN:
                got = 0
            else:
                self.heard = True
        if got == 0 and have == 0:
            return -1
        if self.opening is not None and self.opening.pending:
            return self.opening.on_bytes(self, p, got)
        if have:
            memcpy(p, self.stash.data, have)
            bytes_free(&self.stash)
        used = self.open_records(p, have + got)
        if self.fd < 0:
            return -1
        if used < have + got and bytes_append(&self.stash, p + used, have + got - used) < 0:
            self.shut(b"out of memory")
            return -1
        return got

    cdef size_t open_records(self, uint8_t *p, size_t n) noexcept:
        """Opens the records in p[:n] and delivers them, as long as they are wanted -> bytes used."""
        cdef size_t pos = 0
        cdef size_t used = 0
        cdef size_t size = 0
        cdef uint8_t *data = NULL
        cdef int event
        cdef uint32_t took_us
        while pos < n:
            if not self.wants_input():
                self.stash_news = True
                break
            event = self.tls.receive(p + pos, n - pos, &used, &data, &size)
            pos += used
            if event == TLS_DATA:
                self.deliver(data, size)
                if self.fd < 0:
                    return n
                continue
            if event == TLS_NEED_DATA:
                break
            if event == TLS_WAIT_SIGN or event == TLS_WAIT_POLICY or event == TLS_WAIT_REGISTER:
                event = self.decide(event)
                if self.fd < 0:
                    return n
            if event == TLS_FAILED:
                self.handshake_failed()
                return n
            if self.tls.out.len:
                self.flush()
                if self.fd < 0:
                    return n
            if event == TLS_ESTABLISHED:
                took_us = <uint32_t> self.loop.now_us - self.began
                self.began = <uint32_t> ((self.loop.now_us - took_us) // 1000000)
                count_handshake(self.ctx, self.tls, took_us)
                if self.tls.early_data_state != EARLY_NONE:
                    count_early_data(self.ctx, self.tls)
                if self.plain.len and self.session is None:
                    self.open_early()
                elif self.session is None:
                    self.open_session()
                if self.session is None:
                    self.shut(b"out of memory")
                if self.fd < 0:
                    return n
                if self.early:
                    self.confirm_early()        # what has come is now known to be no replay
                    if self.fd < 0:
                        return n
                if pos == n and self.plain.len == 0:
                    # Nothing of ours will carry the acknowledgement, and a client without TCP_NODELAY holds its
                    # request back until it comes.
                    self.acknowledge_now()
            elif event == TLS_CLOSE_NOTIFY:
                self.peer_finished = True
                if self.handshaking():
                    self.finish(False)
                else:
                    self.session.on_peer_finished()
                return n
        return pos

    cdef void deliver(self, uint8_t *p, size_t n) noexcept:
        """Plaintext to the session; what it leaves is kept in front of what follows."""
        cdef size_t taken = 0
        cdef bint more = self.plain.len > 0
        # Early data may be a replay: where no route is to know, it waits for the end of the handshake. It is never more
        # than the tickets allow.
        if self.session is None and self.settings.early and not self.refused:
            self.open_early()
            if self.fd < 0:
                return
        if not more and self.session is not None and self.session.wants_plaintext():
            taken = self.session.on_plaintext(p, n)
            if self.fd < 0 or taken == n:
                return
        if bytes_append(&self.plain, p + taken, n - taken) < 0:
            self.shut(b"out of memory")
            return
        # What on_plaintext has just declined need not be shown again until more follows it, or resume().
        self.plain_news = more or taken > 0

    cdef void feed_plain(self) noexcept:
        """Shows the session what was kept; the memory is ours alone meanwhile, should the connection end."""
        cdef Bytes kept = self.plain
        cdef size_t taken
        self.plain.data = NULL
        bytes_free(&self.plain)
        self.plain_news = False
        taken = self.session.on_plaintext(kept.data, kept.len)
        if self.fd < 0:
            bytes_free(&kept)
            return
        if taken:
            self.plain_news = True
            bytes_consume(&kept, taken)
        self.plain = kept

    cdef void resume(self) noexcept:
        """The session wants input again."""
        self.plain_news = True
        if not self.pumping and self.fd >= 0:
            self.pump()

    cdef void peer_gone(self, bint orderly) noexcept:
        """The client's end of the TCP connection: an end in good order only after close_notify."""
        if self.handshaking():
            # A bare connect and close is somebody's health check.
            self.ctx.log("info" if self.heard else "debug", f"{self.peer_name()}: handshake failed: closed by the client")
            self.ctx.counters.handshake_failures += 1
            self.shut(b"closed during the handshake")
            return
        self.readable = False
        if orderly and self.peer_finished:
            return                              # half-closed: the response goes on
        self.shut(b"client closed" if orderly else b"client reset")

    cdef bint handshaking(self) noexcept:
        return self.session is None or self.early == EARLY_UNCONFIRMED

    cdef uint64_t age(self) noexcept:
        """Seconds since it was accepted."""
        if self.tls.established:
            return self.loop.now_us // 1000000 - self.began
        return <uint32_t> (<uint32_t> self.loop.now_us - self.began) // 1000000

    cdef void fail_handshake(self, const char *why) noexcept:
        """The handshake has not come to its end, whoever's fault that is (static)."""
        self.ctx.counters.handshake_failures += 1
        self.ctx.log("info", f"{self.peer_name()}: handshake failed: {why.decode()}")
        self.shut(why)

    cdef void handshake_failed(self) noexcept:
        """A fatal TLS fault: our alert goes out, the log learns the cause."""
        failure = self.tls.failure
        count_alert(self.ctx, failure)
        if self.handshaking():
            self.ctx.counters.handshake_failures += 1
            self.ctx.log("info", f"{self.peer_name()}: handshake failed: {failure}")
        else:
            self.ctx.log("info", f"{self.peer_name()}: TLS failure: {failure}")
        chunk_release(self.filling)     # there are no keys left for it, and the alert must go out
        self.filling = NULL
        queue_tls_output(self.tls, &self.out)
        self.close_when_sent(True)

    cdef void discard_input(self) noexcept:
        """Lingering: reads and drops, so that the kernel does not answer the client's bytes with a reset, which would
        take our last words from it. LINGER_MS bounds it."""
        cdef ssize_t got
        cdef size_t budget = LINGER_BYTES
        while self.readable:
            got = self.receive_into(self.ctx.client_scratch, RECEIVE)
            if got == IO_AGAIN:
                return
            if got <= 0:
                self.shut(NULL)
                return
            if <size_t> got >= budget:
                self.loop.again(self)
                return
            budget -= got

    # ---- writing ----

    cdef uint8_t *reserve(self, size_t n, size_t *room) noexcept:
        """Memory for n <= CHUNK_PAYLOAD bytes of plaintext at least (room: how much there is), or NULL."""
        if self.filling != NULL and CHUNK_HEADROOM + CHUNK_PAYLOAD - self.filling.end < n and self.seal_filling() < 0:
            return NULL
        if self.filling == NULL:
            self.filling = chunk_acquire()
            if self.filling == NULL:
                return NULL
        room[0] = CHUNK_HEADROOM + CHUNK_PAYLOAD - self.filling.end
        return self.filling.data + self.filling.end

    cdef void commit(self, size_t n) noexcept:
        """n bytes were written to what reserve gave."""
        self.filling.end += <uint32_t> n

    cdef int write(self, const uint8_t *p, size_t n) noexcept:
        """Queues a copy of plaintext; 0 or -1."""
        cdef size_t room = 0
        cdef uint8_t *to
        while n:
            to = self.reserve(1, &room)
            if to == NULL:
                return -1
            if room > n:
                room = n
            memcpy(to, p, room)
            self.commit(room)
            p += room
            n -= room
        return 0

    cdef int write_chunk(self, Chunk *c) noexcept:
        """Queues a chunk of plaintext, sealed where it stands; it becomes ours. 0 or -1."""
        cdef size_t room
        if self.seal_filling() < 0:
            chunk_release(c)
            return -1
        self.tls.before_write()
        if queue_tls_output(self.tls, &self.out) < 0:
            chunk_release(c)
            return -1
        room = self.record_room()
        if c.end - c.start > room:
            return self.write_records(c, room)
        if self.ramp < self.settings.first_bytes:
            self.ramp += c.end - c.start
        return seal_chunk(self.tls, &self.out, c)

    cdef size_t record_room(self) noexcept:
        """How much the next record may hold. At first little: a client can open a record that came in one packet, but
        waits for all packets of a large one while TCP is still slow. After a pause TCP is slow again."""
        if self.loop.now - self.last_sealed >= <uint64_t> self.settings.record_idle_ms:
            self.ramp = 0
        self.last_sealed = self.loop.now
        if self.ramp >= self.settings.first_bytes or self.settings.first_record >= self.tls.plaintext_max:
            return self.tls.plaintext_max
        return self.settings.first_record

    cdef int write_records(self, Chunk *c, size_t size) noexcept:
        """Queues a chunk of plaintext as records of `size` bytes, copied: there is no room between them."""
        cdef const uint8_t *p = c.data + c.start
        cdef size_t left = c.end - c.start
        cdef size_t part
        cdef ssize_t n = 0
        cdef Chunk *to = NULL
        while left and n >= 0:
            if self.ramp >= self.settings.first_bytes:
                size = self.tls.plaintext_max
            part = min(left, size)
            if to != NULL and CHUNK_SPACE - to.end < part + RECORD_OVERHEAD:
                queue_push(&self.out, to)
                to = NULL
            if to == NULL:
                to = chunk_acquire()
                if to == NULL:
                    break
            memcpy(to.data + to.end + RECORD_HEADER, p, part)
            n = self.tls.seal(to.data + to.end, part)
            if n > 0:
                to.end += <uint32_t> n
                p += part
                left -= part
                if self.ramp < self.settings.first_bytes:
                    self.ramp += <uint32_t> part
        if to != NULL:
            queue_push(&self.out, to)
        chunk_release(c)
        return 0 if left == 0 else -1

    cdef int seal_filling(self) noexcept:
        cdef Chunk *c = self.filling
        if c == NULL:
            return 0
        self.filling = NULL
        if c.end == c.start:
            chunk_release(c)
            return 0
        return self.write_chunk(c)

    cdef void flush(self) noexcept:
        """Seals what gathers and sends what the socket takes."""
        cdef int r
        if self.fd < 0:
            return
        if self.seal_filling() < 0 or queue_tls_output(self.tls, &self.out) < 0:
            self.shut(b"sealing failed")
            return
        r = self.send_queue()
        if r == IO_ERROR:
            if self.closing:
                self.shut(b"client reset")
            else:
                self.peer_gone(False)
            return
        if self.out.bytes == 0:
            self.end_sending()
            if self.closing:
                self.close_after_flush()
                return
            if self.half_closing:
                self.half_closing = False
                self.shut_writing()
        elif self.sending == NULL and self.watch_sending() < 0:
            self.shut(b"out of memory")
            return
        if self.out.bytes > HIGH_WATER:
            self.congested = True
        elif self.congested and self.out.bytes <= LOW_WATER:
            self.congested = False
            if self.session is not None:
                self.session.on_drained()

    cdef int watch_sending(self) noexcept:
        """The socket is full: from now on the client is to take something, in time and at its rate. 0, or -1."""
        if self.writes.idle == 0 and self.writes.rate == 0:
            return 0
        self.sending = <Sending *> malloc(sizeof(Sending))
        if self.sending == NULL:
            return -1
        timer_init(&self.sending.timer, self, TIMER_WRITE)
        outflow_begin(&self.sending.flow, self.acknowledged(), self.loop.now)
        self.loop.timers.arm(&self.sending.timer, outflow_next(&self.sending.flow, &self.writes, self.loop.now))
        return 0

    cdef void look_at_sending(self) noexcept:
        cdef Outflow *flow = &self.sending.flow
        cdef const char *fault = outflow_look(flow, &self.writes, self.acknowledged(), False, True, self.loop.now)
        if fault != NULL:
            self.ctx.counters.timeouts += 1
            self.reset_on_close()       # the kernel would go on holding what it has for this client
            self.shut(fault)
            return
        self.loop.timers.arm(&self.sending.timer, outflow_next(flow, &self.writes, self.loop.now))

    cdef void end_sending(self) noexcept:
        if self.sending != NULL:
            self.loop.timers.disarm(&self.sending.timer)
            free(self.sending)
            self.sending = NULL

    cdef void close_after_flush(self) noexcept:
        self.limit_unsent(self.writes.idle)
        if not self.lingering:
            self.shut(NULL)
            return
        if self.read_phase != READ_LINGER:
            self.shut_writing()
            self.expect(READ_LINGER, LINGER_MS)
            if not self.pumping:
                self.discard_input()

    # ---- who the client is ----

    cdef str peer_name(self):
        cdef char text[ADDRESS_TEXT]
        cdef size_t n = peer_text(&self.peer, text)
        address = text[:n].decode()
        return f"[{address}]:{self.peer.port}" if self.peer.v6 else f"{address}:{self.peer.port}"
