"""What is remembered of a session so that it can be resumed, and the tickets that carry it (RFC 9846, section 4.6.1;
RFC 5077 for TLS 1.2).

A server keeps nothing: the state is written out, sealed into a ticket under a key that all workers share, and read again
when the ticket comes back. A client keeps a Session.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from cext.base.buffer cimport Bytes
from cext.base.wire cimport Reader, Writer
from cext.crypto.aead cimport EVP_CIPHER_CTX
from cext.crypto.hash_kdf cimport HASH_MAX

cdef enum:
    SESSION_FORMAT = 1
    REGISTER_ID = 8
    TICKET_NAME = 16                    # bytes of a key's name, in front of the ticket
    TICKET_KEY = 32
    TICKET_NONCE = 12
    TICKET_OVERHEAD = 16 + 12 + 16      # name, nonce, tag
    TICKET_KEYS_MAX = 16
    TICKET_LENGTH_MAX = 0xFFFF          # opaque ticket<1..2^16-1>
    LIFETIME_MAX = 604800               # seconds: seven days (section 4.6.1)
    RESUMPTION_SECRET_MAX = HASH_MAX

cdef struct SessionState:
    uint16_t version
    uint16_t cipher_suite
    uint8_t extended_master_secret      # TLS 1.2 (RFC 7627)
    uint64_t created                    # of the ticket, milliseconds since 1970
    uint64_t authenticated              # of the full handshake it goes back to, likewise
    uint32_t lifetime                   # of the ticket, seconds
    uint32_t age_add                    # TLS 1.3
    uint32_t max_early_data             # bytes; 0: none
    uint8_t replay_register[REGISTER_ID]    # whose entries tell whether the ticket's early data is fresh; zeros: none
    uint8_t secret[RESUMPTION_SECRET_MAX]   # TLS 1.3: the ticket's PSK; TLS 1.2: the master secret
    uint8_t secret_length
    Reader alpn                         # the protocol; empty: none
    Reader server_name                  # as the client wrote it; empty: none
    Reader peer_chain                   # the client's certificates, each with a three-byte length; empty: none

cdef void write_session(Writer *w, const SessionState *s) noexcept nogil
cdef bint read_session(const uint8_t *p, size_t n, SessionState *s) noexcept nogil
"""0 when it is none of this format; the Readers point into p[:n]."""
cdef size_t session_size(const SessionState *s) noexcept nogil
"""Bytes that write_session writes."""
cdef void session_wipe(SessionState *s) noexcept nogil

cdef uint64_t wall_clock() noexcept nogil
"""Milliseconds since 1970."""

cdef bint is_in_time(const SessionState *s, uint64_t now) noexcept nogil
"""Whether a ticket's state is still good: neither it nor the session that it goes back to is too old, and it is not of
the future."""

cdef class TicketSealer:
    """How a server's tickets are made; the base makes none and knows none."""

    cdef size_t ticket_room(self, const SessionState *s) noexcept
    # Bytes that seal_state may write.

    cdef ssize_t seal_state(self, const SessionState *s, uint8_t *out, size_t room) noexcept
    # -> length of the ticket; 0: there is none to give, or it would not fit.

    cdef bint open_state(self, const uint8_t *client_hello, size_t hello_length, const uint8_t *ticket, size_t n,
                         Bytes *memory, SessionState *s) noexcept
    # The state in a ticket, which Readers of `s` point into `memory` for: an empty Bytes, then the caller's to free
    # (and, as it holds secrets, to cleanse: forget_state). 0 when it is not ours, damaged, or under a key that is gone.
    # client_hello: the whole message that brought it.

cdef void forget_state(Bytes *memory, SessionState *s) noexcept nogil

cdef struct TicketKey:
    uint8_t name[TICKET_NAME]
    uint8_t key[TICKET_KEY]
    EVP_CIPHER_CTX *sealing             # NULL until it is used
    EVP_CIPHER_CTX *opening

cdef class TicketKeys(TicketSealer):
    cdef TicketKey keys[TICKET_KEYS_MAX]    # the first one seals, all of them open
    cdef int n_keys
    cdef void wipe(self) noexcept nogil
    cdef TicketKey *find_key(self, const uint8_t *ticket, size_t n) noexcept nogil

cdef class WrappedTickets(TicketSealer):
    cdef readonly object wrapper        # has wrap(info, content) -> bytes and unwrap(client_hello, ticket) -> bytes or None
    cdef Bytes content                  # of seal_state, between calls empty

cdef class AwaitedTickets(WrappedTickets):
    cdef dict opened                    # ticket -> content or None: what unwrap gave for the handshake that goes on
    cdef dict retried                   # likewise, for clients that were asked for another share and come again
    cdef void tell(self, bytes ticket, content) noexcept
    # Before the handshake goes on: what the wrapper's unwrap gave for a ticket of its ClientHello.
    cdef void settle(self, bint retry) noexcept
    # It has gone on; retry: to a HelloRetryRequest, behind which the same tickets come again.

cdef class Session:
    cdef readonly int version
    cdef readonly int cipher_suite
    cdef readonly bint extended_master_secret
    cdef readonly bytes ticket
    cdef readonly uint64_t received     # milliseconds since 1970
    cdef readonly uint64_t authenticated
    cdef readonly uint32_t lifetime     # seconds
    cdef readonly uint32_t age_add
    cdef readonly uint32_t max_early_data
    cdef readonly bytes alpn
    cdef readonly bytes server_name
    cdef readonly tuple chain           # the server's certificates, DER, leaf first
    cdef readonly bytes ocsp_response   # that came with them; b"": none
    cdef readonly bytes signed_certificate_timestamps   # likewise
    cdef readonly bint verified         # they were, when the session began
    cdef uint8_t secret[RESUMPTION_SECRET_MAX]
    cdef uint8_t secret_length
    cdef int hash(self) noexcept nogil  # HashId of the cipher suite, for TLS 1.3
    cdef bint is_alive(self, uint64_t now) noexcept nogil
