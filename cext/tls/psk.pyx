"""PSKs, early data and tickets on the server's side (see the .pxd)."""

from libc.string cimport memcmp, memcpy, memset

from cext.base.buffer cimport bytes_free, bytes_reserve
from cext.base.wire cimport (
    Reader, Writer, left, read_u8, read_u32, read_vec8, read_vec16, reader_init)
from cext.crypto.hash_kdf cimport (
    HASH_SHA256, HASH_SHA384, cleanse, equal_constant_time, hash_length, hash_once, random_bytes)
from cext.tls.client_auth cimport state_of_chain
from cext.tls.config cimport TICKETS_MAX
from cext.tls.constants cimport (
    HANDSHAKE_HEADER, PSK_DHE_KE, PSK_KE, TLS13, TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256, decrypt_error,
    internal_error)
from cext.tls.handshake cimport LEVEL_APPLICATION
from cext.tls.key_schedule cimport psk_binder, resumption_psk, schedule_early, schedule_wipe
from cext.tls.messages cimport build_new_session_ticket, parse_client_hello
from cext.tls.replay cimport (
    AwaitedRegister, REGISTER_ASK, REGISTER_FRESH, REGISTER_FULL, REGISTER_LATE, REGISTER_SEEN)
from cext.tls.session cimport LIFETIME_MAX, forget_state, is_in_time, wall_clock
from cext.tls.transcript cimport transcript_add, transcript_hash

# By EarlyDataRefusal.
REFUSAL_NAMES = tuple([refusal_name(refusal).decode() for refusal in range(EARLY_REFUSALS)])

cdef enum:
    TICKET_MESSAGE_ROOM = 64            # of a NewSessionTicket, beside its ticket
    EARLY_DATA_SKIP_MAX = 1 << 14       # bytes of 0-RTT records
    SCHEDULING_MS = 1000                # by which a wait that has a limit may be longer


cdef bint mode_fits(ServerConfig config, const ClientHello *ch, bint *dhe) noexcept:
    cdef Reader modes = ch.psk_modes
    cdef uint8_t mode = 0
    cdef bint plain = 0
    dhe[0] = 0
    while read_u8(&modes, &mode):
        dhe[0] |= mode == PSK_DHE_KE
        plain |= mode == PSK_KE
    return dhe[0] or (plain and config.psk_ke)


cdef list offered_tickets(bytes client_hello):
    cdef ClientHello ch
    cdef Reader body, identities, identity
    cdef uint32_t age = 0
    cdef list tickets = []
    cdef const uint8_t *message = client_hello
    if parse_client_hello(message + HANDSHAKE_HEADER, len(client_hello) - HANDSHAKE_HEADER, &ch) < 0:
        return tickets
    body = ch.pre_shared_key
    if body.p != NULL and read_vec16(&body, &identities):
        while len(tickets) < PSK_TRIES and read_vec16(&identities, &identity) and read_u32(&identities, &age):
            tickets.append((<const char *> identity.p)[:left(&identity)])
    if left(&ch.session_ticket):
        tickets.append((<const char *> ch.session_ticket.p)[:left(&ch.session_ticket)])
    return tickets


cdef int select_psk(ServerConfig config, const ClientHello *ch, const uint8_t *message, size_t n,
                    const Transcript *before, KeySchedule *schedule, Psk *psk, const char **reason) noexcept:
    cdef Reader body = ch.pre_shared_key
    cdef Reader identities, binders, identity, binder
    cdef uint32_t obfuscated_age = 0
    cdef size_t truncated
    cdef int i
    if body.p == NULL or config.tickets is None or not mode_fits(config, ch, &psk.dhe):
        return 0
    if not read_vec16(&body, &identities):      # the shape was checked with the message
        return 0
    truncated = body.p - message                # the truncated ClientHello ends where the binders begin
    if not read_vec16(&body, &binders):
        return 0
    psk.now = wall_clock()
    for i in range(PSK_TRIES):
        if not (read_vec16(&identities, &identity) and read_u32(&identities, &obfuscated_age)
                and read_vec8(&binders, &binder)):
            return 0
        if config.tickets.open_state(message, n, identity.p, left(&identity), &psk.memory, &psk.state):
            if state_fits(&psk.state, ch, before.hash, psk.now):
                break
        forget_state(&psk.memory, &psk.state)
    else:
        return 0
    psk.identity = <uint16_t> i
    psk.age = obfuscated_age - psk.state.age_add
    schedule_early(schedule, before.hash, psk.state.secret, psk.state.secret_length)
    if not binder_verifies(schedule, before, message, truncated, &binder):
        schedule_wipe(schedule)
        psk_wipe(psk)
        reason[0] = "the PSK binder does not verify"
        return -decrypt_error
    psk.binder_length = left(&binder)
    memcpy(psk.binder, binder.p, psk.binder_length)
    psk.selected = 1
    return 1


cdef bint state_fits(const SessionState *s, const ClientHello *ch, int hash, uint64_t now) noexcept nogil:
    """Whether this handshake may go on from that session: the hash of the PSK is the suite's (section 4.2.11), the
    server_name is the one the ticket was given for, and neither it nor the session it goes back to is too old."""
    return (
        s.version == TLS13
        and hash == suite_hash(s.cipher_suite)
        and s.secret_length == hash_length(hash)
        and same(&s.server_name, &ch.server_name)
        and is_in_time(s, now)
    )


cdef int suite_hash(int suite) noexcept nogil:
    """-1 for what is no cipher suite of TLS 1.3."""
    if suite == TLS_AES_128_GCM_SHA256 or suite == TLS_CHACHA20_POLY1305_SHA256:
        return HASH_SHA256
    return HASH_SHA384 if suite == TLS_AES_256_GCM_SHA384 else -1


cdef bint same(const Reader *a, const Reader *b) noexcept nogil:
    return left(a) == left(b) and (left(a) == 0 or memcmp(a.p, b.p, left(a)) == 0)


cdef bint binder_verifies(const KeySchedule *early, const Transcript *before, const uint8_t *truncated, size_t n,
                          const Reader *binder) noexcept nogil:
    cdef Transcript transcript = before[0]
    cdef uint8_t digest[HASH_MAX]
    cdef uint8_t expected[HASH_MAX]
    cdef size_t length = hash_length(early.hash)
    if left(binder) != length:
        return 0
    transcript_add(&transcript, truncated, n)
    transcript_hash(&transcript, digest)
    psk_binder(early, digest, expected)
    return equal_constant_time(expected, binder.p, length)


cdef int64_t age_skew(const Psk *psk) noexcept nogil:
    return <int64_t> psk.age - <int64_t> (psk.now - psk.state.created)


cdef int refuse_early_data(ServerConfig config, Psk *psk, int suite, bytes alpn) noexcept:
    cdef const SessionState *s = &psk.state
    cdef Reader protocol
    cdef int64_t window = config.early_window
    cdef int64_t skew = age_skew(psk)
    reader_init(&protocol, <const uint8_t *> <const char *> alpn, len(alpn))
    # What the client encrypted under is what the ticket's connection had (section 4.2.10), and its first PSK.
    if psk.identity != 0 or s.cipher_suite != suite or not same(&s.alpn, &protocol):
        return EARLY_OTHER_PARAMETERS
    if config.max_early_data == 0 or s.max_early_data == 0 or config.replay is None:
        return EARLY_NOT_CONFIGURED
    if memcmp(s.replay_register, config.replay.id, sizeof(config.replay.id)) != 0:
        return EARLY_OTHER_REGISTER
    # The age by the client's clock and by ours differ by the time the ClientHello took, or was held back (section 8.3).
    if not -window <= skew <= window:
        return EARLY_OUTSIDE_WINDOW
    if is_barred(config, psk):
        return EARLY_JUST_STARTED
    return refusal_by(config.replay.enter_binder(psk.binder, psk.binder_length))


cdef int settle_early_data(ServerConfig config, const Psk *psk, int answer) noexcept:
    cdef AwaitedRegister register = config.replay
    cdef int64_t waited = <int64_t> wall_clock() - <int64_t> psk.now
    # While it was waited for, the record may have turned out to have lost something; or this process stood still for so
    # long that what others had taken was forgotten before it asked.
    if answer == REGISTER_FRESH and is_barred(config, psk):
        return EARLY_JUST_STARTED
    if answer == REGISTER_FRESH and not -SCHEDULING_MS <= waited <= register.deadline + SCHEDULING_MS:
        return EARLY_REGISTER_LATE
    return refusal_by(answer) if answer != REGISTER_ASK else EARLY_REGISTER_DOWN


cdef bint is_barred(ServerConfig config, const Psk *psk) noexcept:
    """Of a ticket that is older than the register: the first moment at which this ClientHello was within the window. Had
    it been taken then, would the register know?"""
    cdef int64_t barrier = <int64_t> config.replay.barrier(psk.now)
    return (<int64_t> psk.state.created <= barrier
            and <int64_t> psk.now + age_skew(psk) - <int64_t> config.early_window <= barrier)


cdef int refusal_by(int freshness) noexcept nogil:
    if freshness == REGISTER_FRESH: return EARLY_TAKEN
    if freshness == REGISTER_SEEN: return EARLY_REPLAYED
    if freshness == REGISTER_FULL: return EARLY_REGISTER_FULL
    if freshness == REGISTER_ASK: return EARLY_ASKED
    return EARLY_REGISTER_LATE if freshness == REGISTER_LATE else EARLY_REGISTER_DOWN


cdef const char *refusal_name(int refusal) noexcept:
    if refusal == EARLY_NOT_RESUMED: return b"not resumed"
    if refusal == EARLY_RETRIED: return b"hello retry"
    if refusal == EARLY_OTHER_PARAMETERS: return b"other parameters"
    if refusal == EARLY_NOT_CONFIGURED: return b"not configured"
    if refusal == EARLY_OTHER_REGISTER: return b"other register"
    if refusal == EARLY_JUST_STARTED: return b"just started"
    if refusal == EARLY_OUTSIDE_WINDOW: return b"outside window"
    if refusal == EARLY_REPLAYED: return b"replayed"
    if refusal == EARLY_REGISTER_FULL: return b"register full"
    if refusal == EARLY_REGISTER_LATE: return b"register late"
    if refusal == EARLY_REGISTER_DOWN: return b"register down"
    return b""


cdef uint32_t early_data_skipped(config):
    cdef uint32_t most = (<ServerConfig> config).max_early_data if isinstance(config, ServerConfig) else 0
    return max(<uint32_t> EARLY_DATA_SKIP_MAX, most + most // 16)


cdef void psk_fingerprint(const Psk *psk, uint8_t *out) noexcept nogil:
    hash_once(HASH_SHA256, psk.binder, psk.binder_length, out)


cdef void psk_wipe(Psk *psk) noexcept nogil:
    forget_state(&psk.memory, &psk.state)
    cleanse(psk, sizeof(Psk))


cdef int add_tickets(Handshake h, ServerConfig config, const Psk *psk, const uint8_t *resumption_secret) noexcept:
    cdef SessionState s
    cdef Bytes ticket
    cdef bytes chain
    cdef uint32_t age_add[TICKETS_MAX]
    cdef uint64_t left_ms
    cdef int count = min(config.ticket_count, 1) if psk.selected else config.ticket_count
    cdef int i, code = 0
    memset(&s, 0, sizeof(s))
    memset(&ticket, 0, sizeof(ticket))
    s.version = TLS13
    s.cipher_suite = <uint16_t> h.cipher_suite
    s.created = psk.now if psk.selected else wall_clock()
    s.authenticated = psk.state.authenticated if psk.selected else s.created
    # Resumed over and over, a session ends seven days after its full handshake (section 4.6.1).
    left_ms = s.authenticated + <uint64_t> LIFETIME_MAX * 1000 - s.created
    s.lifetime = <uint32_t> min(<uint64_t> config.ticket_lifetime, left_ms // 1000)
    s.secret_length = <uint8_t> hash_length(h.hash)
    reader_init(&s.alpn, <const uint8_t *> <const char *> h.alpn, len(h.alpn))
    reader_init(&s.server_name, <const uint8_t *> <const char *> h.server_name, len(h.server_name))
    chain = state_of_chain(h.peer_certificates)
    reader_init(&s.peer_chain, <const uint8_t *> <const char *> chain, len(chain))
    if config.max_early_data and config.replay is not None:
        s.max_early_data = config.max_early_data
        memcpy(s.replay_register, config.replay.id, sizeof(s.replay_register))
    if s.lifetime == 0 or random_bytes(<uint8_t *> age_add, sizeof(age_add)) < 0:
        return 0
    for i in range(count):
        s.age_add = age_add[i]
        code = add_ticket(h, config, &s, resumption_secret, <uint8_t> i, &ticket)
        if code < 0:
            break
    cleanse(s.secret, sizeof(s.secret))
    bytes_free(&ticket)
    return code


cdef int add_ticket(Handshake h, ServerConfig config, SessionState *s, const uint8_t *resumption_secret, uint8_t nonce,
                    Bytes *ticket) noexcept:
    cdef Writer w
    cdef ssize_t n
    resumption_psk(h.hash, resumption_secret, &nonce, 1, s.secret)
    if bytes_reserve(ticket, config.tickets.ticket_room(s)) < 0:
        return 0
    n = config.tickets.seal_state(s, ticket.data, ticket.cap)
    if n <= 0:
        return 0
    if h.open_message(&w, TICKET_MESSAGE_ROOM + n) < 0:
        return -internal_error
    build_new_session_ticket(&w, s.lifetime, s.age_add, &nonce, 1, ticket.data, n, s.max_early_data)
    return h.close_message(&w, LEVEL_APPLICATION)
