"""A client's connection: socket and TLS. What is spoken inside is its Session's business."""

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from cext.base.buffer cimport Bytes, Chunk
from cext.base.timers cimport Timer
from cext.net.address cimport Peer
from cext.net.stream cimport Stream
from cext.proxy.context cimport Context
from cext.proxy.exchange cimport ResponseSink
from cext.proxy.hook_call cimport HookCall
from cext.proxy.listener_settings cimport ListenerSettings
from cext.proxy.proxied cimport Proxied
from cext.proxy.timeouts cimport Outflow, WriteLimits
from cext.tls.connection cimport Connection

cdef enum ReadPhase:                    # what the read timer is for
    READ_HANDSHAKE = 0
    READ_HEAD = 1
    READ_KEEPALIVE = 2
    READ_BODY = 3
    READ_LINGER = 4

cdef enum EarlyPhase:                   # of a connection whose session was opened by early data, or has some to read
    EARLY_UNCONFIRMED = 1       # it may be a replay
    EARLY_READ = 2              # the handshake is confirmed

cdef struct Sending:
    Timer timer
    Outflow flow                        # what the client's TCP has taken

cdef class Session(ResponseSink):
    """A protocol on a connection: takes plaintext, and answers through the connection's write functions."""
    cdef size_t on_plaintext(self, const uint8_t *p, size_t n) noexcept
    cdef bint wants_plaintext(self) noexcept
    cdef void on_drained(self) noexcept
    cdef void on_read_timeout(self, int phase) noexcept
    cdef void on_peer_finished(self) noexcept
    cdef void on_drain(self) noexcept
    cdef void on_turn_end(self) noexcept
    cdef void on_parked(self) noexcept
    cdef uint32_t head_number(self) noexcept
    cdef uint32_t partial_head(self) noexcept
    cdef void on_closed(self, const char *why) noexcept

cdef class Downstream(Stream)

cdef class Opening:
    """What stands before TLS on some connections (proxy/gate): a PROXY header, a choice of who is to serve them."""
    cdef bint pending                   # what comes from the client is its business, not yet that of TLS
    cdef bint waits                     # for a receiver to take the connection: nothing is read meanwhile
    cdef Bytes raw                      # all that has come from the client, while it may still be handed over
    cdef readonly Proxied proxied       # what the PROXY header said, for as long as the connection lasts; or None
    cdef ssize_t on_bytes(self, Downstream client, const uint8_t *p, size_t n) noexcept
    cdef void stay(self, Downstream client) noexcept

cdef class Downstream(Stream):
    cdef Context ctx
    cdef ListenerSettings settings
    cdef Opening opening                # None on most
    cdef Connection tls
    cdef Session session                # None until the handshake is done
    cdef Bytes stash                    # ciphertext: part of a record, or records not yet wanted
    cdef Bytes plain                    # plaintext the session has not taken yet
    cdef Chunk *filling                 # plaintext of the next record
    cdef uint64_t last_sealed           # when, by the loop's clock
    cdef Timer reading                  # see ReadPhase
    cdef Sending *sending               # while something is queued and the client has limits
    cdef uint32_t ramp                  # bytes sent since the connection began or was idle, up to first_bytes
    # small fields share words: an idle connection is this object
    cdef uint8_t state                  # STATE_*; only set_state changes it
    cdef uint8_t deciding               # the handshake waits for a hook or a signer: ctx.deciding has the call
    cdef uint8_t early                  # EarlyPhase: `session` is an EarlySession; 0 from the last early byte on
    cdef uint32_t place                 # of the client's address in ctx.addresses
    cdef uint8_t refused                # OVER_*: its first request is answered with that
    cdef uint8_t read_phase
    cdef uint8_t parked
    cdef uint8_t heard                  # a byte has come from the client
    cdef uint8_t pumping
    cdef uint8_t stash_news             # stash holds records that were not wanted when they came
    cdef uint8_t plain_news             # plain holds something the session has not declined yet
    cdef uint8_t closing                # close when `out` has gone
    cdef uint8_t lingering              # our side is shut; the client's bytes are discarded for a moment
    cdef uint8_t congested              # `out` went over HIGH_WATER
    cdef uint8_t peer_finished          # no more will come from the client
    cdef uint8_t half_closing           # our direction ends when `out` has gone
    cdef Peer peer
    cdef WriteLimits writes             # of the request that came last,
    cdef int keepalive_ms               # and the wait after it
    cdef uint32_t began                 # when it was accepted, by the loop's clock: microseconds (modulo 2**32) until the
                                        # handshake is done, then seconds
    # for the session
    cdef int write(self, const uint8_t *p, size_t n) noexcept
    cdef uint8_t *reserve(self, size_t n, size_t *room) noexcept
    cdef void commit(self, size_t n) noexcept
    cdef int write_chunk(self, Chunk *c) noexcept
    cdef void flush(self) noexcept
    cdef void finish(self, bint linger) noexcept
    cdef void finish_writing(self) noexcept
    cdef void abort(self, const char *why) noexcept
    cdef void resume(self) noexcept
    cdef void tell(self, const char *what) noexcept
    cdef void expect(self, int phase, int ms) noexcept
    cdef void expect_by(self, int phase, uint64_t deadline) noexcept
    cdef void adopt(self, const WriteLimits *writes, int keepalive_ms) noexcept
    # its own
    cdef void serve(self, int fd, const Peer *peer) noexcept
    cdef void choose_key_log(self) noexcept
    cdef void open_session(self) noexcept
    cdef int decide(self, int event) noexcept
    cdef void begin_deciding(self, HookCall call) noexcept
    cdef void handshake_went_on(self, int event) noexcept
    cdef void open_early(self) noexcept
    cdef void confirm_early(self) noexcept
    cdef void set_state(self, int new) noexcept
    cdef void tell_state(self, str old) noexcept
    cdef void drain(self) noexcept
    cdef void give_way(self) noexcept
    cdef bint wants_input(self) noexcept
    cdef void pump(self) noexcept
    cdef ssize_t read_records(self) noexcept
    cdef size_t open_records(self, uint8_t *p, size_t n) noexcept
    cdef void deliver(self, uint8_t *p, size_t n) noexcept
    cdef void feed_plain(self) noexcept
    cdef int watch_sending(self) noexcept
    cdef void look_at_sending(self) noexcept
    cdef void end_sending(self) noexcept
    cdef int seal_filling(self) noexcept
    cdef size_t record_room(self) noexcept
    cdef int write_records(self, Chunk *c, size_t size) noexcept
    cdef bint handshaking(self) noexcept
    cdef uint64_t age(self) noexcept
    cdef void fail_handshake(self, const char *why) noexcept
    cdef void handshake_failed(self) noexcept
    cdef void discard_input(self) noexcept
    cdef void leave(self) noexcept
    cdef void shut(self, const char *why) noexcept
    cdef void peer_gone(self, bint orderly) noexcept
    cdef void close_when_sent(self, bint linger) noexcept
    cdef void close_after_flush(self) noexcept
    cdef str peer_name(self)
