"""A server's choice among the PSKs a client offers, its early data, and the tickets it gives (RFC 9846, sections 4.2.9
to 4.2.11, 4.6.1 and 8)."""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from cext.base.buffer cimport Bytes
from cext.crypto.hash_kdf cimport HASH_MAX
from cext.tls.config cimport ServerConfig
from cext.tls.handshake cimport Handshake
from cext.tls.key_schedule cimport KeySchedule
from cext.tls.messages cimport ClientHello
from cext.tls.session cimport SessionState
from cext.tls.transcript cimport Transcript

cdef enum:
    PSK_TRIES = 4                       # identities of a ClientHello that are looked at: each costs a decryption

cdef enum EarlyDataRefusal:             # why early data that was offered is not taken
    EARLY_TAKEN = 0
    EARLY_NOT_RESUMED = 1               # no ticket of ours that still holds
    EARLY_RETRIED = 2                   # a HelloRetryRequest was needed
    EARLY_OTHER_PARAMETERS = 3          # not the client's first PSK, or not the cipher suite or ALPN of its session
    EARLY_NOT_CONFIGURED = 4            # neither here nor by the ticket
    EARLY_OTHER_REGISTER = 5            # of a ticket whose early data another register knows, or one that is gone
    EARLY_JUST_STARTED = 6              # it may have been taken before the register was there
    EARLY_OUTSIDE_WINDOW = 7            # the ticket's age is not what it should be
    EARLY_REPLAYED = 8
    EARLY_REGISTER_FULL = 9
    EARLY_REGISTER_LATE = 10            # it takes too long to find out
    EARLY_REGISTER_DOWN = 11            # nobody can be asked
    EARLY_REFUSALS = 12
    EARLY_ASKED = 12                    # not known yet: all that can be told here speaks for it

cdef struct Psk:
    bint selected
    bint dhe                            # with (EC)DHE (psk_dhe_ke)
    uint16_t identity                   # selected_identity
    uint32_t age                        # of the ticket by the client's clock, milliseconds
    uint64_t now                        # when it came, by ours, milliseconds since 1970
    SessionState state
    Bytes memory                        # which the state's Readers point into
    uint8_t binder[HASH_MAX]
    size_t binder_length

cdef list offered_tickets(bytes client_hello)
"""The tickets (bytes) that a server of either version would look at, of a whole ClientHello that was taken."""

cdef bint mode_fits(ServerConfig config, const ClientHello *ch, bint *dhe) noexcept
"""Whether client and configuration have a PskKeyExchangeMode in common."""

cdef int select_psk(ServerConfig config, const ClientHello *ch, const uint8_t *message, size_t n,
                    const Transcript *before, KeySchedule *schedule, Psk *psk, const char **reason) noexcept
"""Looks for a ticket of ours that fits the ClientHello in `message`, under the hash of `before`, the transcript in front
of it. 1: psk is set and the schedule holds its Early Secret; 0: none; -decrypt_error: its binder does not verify."""

cdef int64_t age_skew(const Psk *psk) noexcept nogil
"""Milliseconds by which the ticket is older by the client's clock than by ours; its network delay makes that negative."""

cdef int refuse_early_data(ServerConfig config, Psk *psk, int suite, bytes alpn) noexcept
"""Whether the early data that came with the selected PSK may be read (EARLY_TAKEN): as the ticket was issued for, soon,
and once. EARLY_ASKED: the register is one that has to be asked, with the PSK's binder."""

cdef int settle_early_data(ServerConfig config, const Psk *psk, int answer) noexcept
"""The same after EARLY_ASKED, by the Freshness that was the answer."""

cdef const char *refusal_name(int refusal) noexcept

cdef uint32_t early_data_skipped(object config)
"""Bytes of 0-RTT records that are passed over: what any client may have sent, or what our tickets allow with the
records around it."""

cdef void psk_fingerprint(const Psk *psk, uint8_t *out) noexcept nogil
"""32 bytes by which one ClientHello's early data can be told from any other's, but not a replay of it."""

cdef void psk_wipe(Psk *psk) noexcept nogil

cdef int add_tickets(Handshake h, ServerConfig config, const Psk *psk, const uint8_t *resumption_secret) noexcept
"""Puts NewSessionTickets at the end of the handshake's flight: all that the configuration gives after a full handshake,
one after a resumed one. 0 or -internal_error; a ticket that cannot be made is left out."""
