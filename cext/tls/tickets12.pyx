"""Session tickets in TLS 1.2 (see the .pxd)."""

from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcpy, memset

from cext.base.buffer cimport bytes_free, bytes_reserve
from cext.base.wire cimport Writer, left, reader_init
from cext.crypto.hash_kdf cimport cleanse
from cext.tls.client_auth cimport admits_chain, chain_of_state, state_of_chain
from cext.tls.constants cimport TLS12, handshake_failure
from cext.tls.handshake cimport LEVEL_INITIAL
from cext.tls.messages12 cimport build_new_session_ticket12
from cext.tls.negotiate cimport is_among, list_has
from cext.tls.prf12 cimport MASTER_SECRET_LENGTH
from cext.tls.session cimport LIFETIME_MAX, forget_state, is_in_time, wall_clock

cdef enum:
    TICKET_MESSAGE_ROOM = 16
    LIFETIME_UNSPECIFIED = 7200         # seconds that a ticket is kept whose server hints at none


cdef int find_session12(ServerConfig config, const ClientHello *ch, const uint8_t *message, size_t n, bytes server_name,
                        SessionState *state, Bytes *memory, const char **reason) noexcept:
    cdef int code
    if config.tickets is None or left(&ch.session_ticket) == 0:
        return 0
    if not config.tickets.open_state(message, n, ch.session_ticket.p, left(&ch.session_ticket), memory, state):
        return 0
    code = fits(config, ch, server_name, state, reason)
    if code <= 0:
        forget_state(memory, state)
    return code


cdef int fits(ServerConfig config, const ClientHello *ch, bytes server_name, const SessionState *s,
              const char **reason) noexcept:
    if s.version != TLS12 or s.secret_length != MASTER_SECRET_LENGTH or not s.extended_master_secret:
        return 0
    if not is_in_time(s, wall_clock()):
        return 0
    if not is_among(s.cipher_suite, config.cipher_suites12, config.n_cipher_suites12) or not list_has(
            ch.cipher_suites, s.cipher_suite):
        return 0
    # A session goes on under the name it began with, or not at all (RFC 6066, section 3).
    if (<const char *> s.server_name.p)[:left(&s.server_name)] != server_name:
        return 0
    if not admits_chain(config, chain_of_state(s.peer_chain)):
        return 0
    # A MUST of RFC 7627, section 5.3: something took the extension out of the ClientHello.
    if not ch.extended_master_secret:
        reason[0] = "a session with extended master secret is to be resumed without it"
        return -handshake_failure
    return 1


cdef bint is_to_be_renewed(ServerConfig config, const SessionState *s) noexcept nogil:
    return config.ticket_count > 0 and wall_clock() >= s.created + <uint64_t> s.lifetime * 500


cdef int add_ticket12(Handshake h, ServerConfig config, const uint8_t *master_secret, uint64_t authenticated) noexcept:
    cdef SessionState s
    cdef Bytes ticket
    cdef Writer w
    cdef bytes chain = state_of_chain(h.peer_certificates)
    cdef ssize_t n = 0
    cdef int code
    memset(&s, 0, sizeof(s))
    memset(&ticket, 0, sizeof(ticket))
    s.version = TLS12
    s.cipher_suite = <uint16_t> h.cipher_suite
    s.extended_master_secret = 1
    s.created = wall_clock()
    s.authenticated = authenticated or s.created
    # Resumed over and over, a session ends seven days after its full handshake, as in TLS 1.3.
    if s.created < s.authenticated + <uint64_t> LIFETIME_MAX * 1000:
        s.lifetime = <uint32_t> min(<uint64_t> config.ticket_lifetime,
                                    (s.authenticated + <uint64_t> LIFETIME_MAX * 1000 - s.created) // 1000)
    s.secret_length = MASTER_SECRET_LENGTH
    memcpy(s.secret, master_secret, MASTER_SECRET_LENGTH)
    reader_init(&s.alpn, <const uint8_t *> <const char *> h.alpn, len(h.alpn))
    reader_init(&s.server_name, <const uint8_t *> <const char *> h.server_name, len(h.server_name))
    reader_init(&s.peer_chain, <const uint8_t *> <const char *> chain, len(chain))
    if s.lifetime and bytes_reserve(&ticket, config.tickets.ticket_room(&s)) == 0:
        n = max(config.tickets.seal_state(&s, ticket.data, ticket.cap), 0)
    cleanse(s.secret, sizeof(s.secret))
    code = h.open_message(&w, TICKET_MESSAGE_ROOM + n)
    if code == 0:
        build_new_session_ticket12(&w, s.lifetime if n else 0, ticket.data, n)
        code = h.close_message(&w, LEVEL_INITIAL)
    bytes_free(&ticket)
    return code


cdef Session make_session12(Handshake h, const uint8_t *master_secret, bytes ticket, unsigned int lifetime_hint,
                            bint verified):
    cdef Session session = Session.__new__(Session)
    session.version = TLS12
    session.cipher_suite = h.cipher_suite
    session.extended_master_secret = True
    session.ticket = ticket
    session.received = wall_clock()
    session.authenticated = h.authenticated or session.received
    session.lifetime = min(lifetime_hint or <unsigned int> LIFETIME_UNSPECIFIED, <unsigned int> LIFETIME_MAX)
    session.alpn = h.alpn
    session.server_name = h.server_name
    session.chain = h.peer_certificates
    session.ocsp_response = h.ocsp_response
    session.signed_certificate_timestamps = h.signed_certificate_timestamps
    session.verified = verified
    session.secret_length = MASTER_SECRET_LENGTH
    memcpy(session.secret, master_secret, MASTER_SECRET_LENGTH)
    return session
