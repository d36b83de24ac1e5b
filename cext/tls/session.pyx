"""Session state, ticket keys and a client's sessions (see the .pxd)."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memcmp, memcpy, memset
from posix.time cimport CLOCK_REALTIME, clock_gettime, timespec

from cext.base.buffer cimport bytes_append, bytes_free, bytes_reserve
from cext.base.wire cimport (
    left, read_bytes, read_u8, read_u16, read_u32, read_vec8, read_vec16, read_vec24, reader_init, write_bytes, write_u8, write_u16,
    write_u24, write_u32, writer_init, written)
from cext.crypto.aead cimport AEAD_AES_256_GCM, aead_free, aead_new, aead_open, aead_seal
from cext.crypto.hash_kdf cimport HASH_SHA256, HASH_SHA384, cleanse, random_bytes
from cext.tls.constants cimport TLS_AES_256_GCM_SHA384

cdef enum:
    FIXED_SIZE = 1 + 2 + 2 + 1 + 8 + 8 + 4 + 4 + 4 + REGISTER_ID + 1 + 1 + 1 + 3
    CLOCK_SKEW_MS = 60000               # by which another host's clock may be ahead of ours
    RETRIED_MAX = 64                    # tickets whose clients were asked for another share, and may not come again

cdef int64_t clock_shift = 0            # milliseconds, of tests


cdef uint64_t wall_clock() noexcept nogil:
    cdef timespec now
    clock_gettime(CLOCK_REALTIME, &now)
    return <uint64_t> (now.tv_sec * 1000 + now.tv_nsec // 1000000 + clock_shift)


cdef bint is_in_time(const SessionState *s, uint64_t now) noexcept nogil:
    return (s.created <= now + CLOCK_SKEW_MS
            and now < s.created + min(<uint64_t> s.lifetime, <uint64_t> LIFETIME_MAX) * 1000
            and now < s.authenticated + <uint64_t> LIFETIME_MAX * 1000)


# --- the state's encoding

cdef size_t session_size(const SessionState *s) noexcept nogil:
    return FIXED_SIZE + s.secret_length + left(&s.alpn) + left(&s.server_name) + left(&s.peer_chain)


cdef void write_session(Writer *w, const SessionState *s) noexcept nogil:
    write_u8(w, SESSION_FORMAT)
    write_u16(w, s.version)
    write_u16(w, s.cipher_suite)
    write_u8(w, s.extended_master_secret)
    write_u64(w, s.created)
    write_u64(w, s.authenticated)
    write_u32(w, s.lifetime)
    write_u32(w, s.age_add)
    write_u32(w, s.max_early_data)
    write_bytes(w, s.replay_register, REGISTER_ID)
    write_u8(w, s.secret_length)
    write_bytes(w, s.secret, s.secret_length)
    # What is longer than its length field can say leaves the writer overflown: no ticket then.
    w.overflow |= left(&s.alpn) > 255 or left(&s.server_name) > 255 or left(&s.peer_chain) > 0xFFFFFF
    write_u8(w, <uint8_t> left(&s.alpn))
    write_bytes(w, s.alpn.p, left(&s.alpn))
    write_u8(w, <uint8_t> left(&s.server_name))
    write_bytes(w, s.server_name.p, left(&s.server_name))
    write_u24(w, <uint32_t> left(&s.peer_chain))
    write_bytes(w, s.peer_chain.p, left(&s.peer_chain))


cdef bint read_session(const uint8_t *p, size_t n, SessionState *s) noexcept nogil:
    cdef Reader r, secret, register_id
    cdef uint8_t format = 0
    memset(s, 0, sizeof(SessionState))
    reader_init(&r, p, n)
    if (
        not read_u8(&r, &format)
        or format != SESSION_FORMAT
        or not read_u16(&r, &s.version)
        or not read_u16(&r, &s.cipher_suite)
        or not read_u8(&r, &s.extended_master_secret)
        or not read_u64(&r, &s.created)
        or not read_u64(&r, &s.authenticated)
        or not read_u32(&r, &s.lifetime)
        or not read_u32(&r, &s.age_add)
        or not read_u32(&r, &s.max_early_data)
        or not read_bytes(&r, REGISTER_ID, &register_id)
        or not read_vec8(&r, &secret)
        or left(&secret) > RESUMPTION_SECRET_MAX
        or not read_vec8(&r, &s.alpn)
        or not read_vec8(&r, &s.server_name)
        or not read_vec24(&r, &s.peer_chain)
        or left(&r)
    ):
        return 0
    memcpy(s.replay_register, register_id.p, REGISTER_ID)
    memcpy(s.secret, secret.p, left(&secret))
    s.secret_length = <uint8_t> left(&secret)
    return 1


cdef void session_wipe(SessionState *s) noexcept nogil:
    cleanse(s, sizeof(SessionState))


cdef void forget_state(Bytes *memory, SessionState *s) noexcept nogil:
    session_wipe(s)
    if memory.data != NULL:
        cleanse(memory.data, memory.len)
    bytes_free(memory)


cdef inline void write_u64(Writer *w, uint64_t v) noexcept nogil:
    write_u32(w, <uint32_t> (v >> 32))
    write_u32(w, <uint32_t> v)


cdef inline bint read_u64(Reader *r, uint64_t *v) noexcept nogil:
    cdef uint32_t high = 0
    cdef uint32_t low = 0
    if left(r) < 8 or not read_u32(r, &high) or not read_u32(r, &low):
        return 0
    v[0] = (<uint64_t> high << 32) | low
    return 1


# --- sealing

cdef class TicketSealer:
    """What a ServerConfig's `tickets` are: TicketKeys or WrappedTickets. This base gives none."""

    cdef size_t ticket_room(self, const SessionState *s) noexcept:
        return 0

    cdef ssize_t seal_state(self, const SessionState *s, uint8_t *out, size_t room) noexcept:
        return 0

    cdef bint open_state(self, const uint8_t *client_hello, size_t hello_length, const uint8_t *ticket, size_t n,
                         Bytes *memory, SessionState *s) noexcept:
        return 0

    # Python's face, for tests and tools

    def seal(self, state):
        """A ticket of a state as read by `open`: {"version": ..., "secret": ..., ...}; None when there is none."""
        cdef SessionState s
        cdef Bytes out
        cdef ssize_t n
        keep = fill_state(&s, state)
        memset(&out, 0, sizeof(out))
        try:
            if bytes_reserve(&out, self.ticket_room(&s) + 1) < 0:
                raise MemoryError
            n = self.seal_state(&s, out.data, out.cap)
            return out.data[:n] if n > 0 else None
        finally:
            session_wipe(&s)
            bytes_free(&out)

    def open(self, bytes ticket not None, bytes client_hello=b""):
        """The state in a ticket as a dict; None when it is not ours."""
        cdef SessionState s
        cdef Bytes memory
        memset(&memory, 0, sizeof(memory))
        memset(&s, 0, sizeof(s))
        try:
            if not self.open_state(client_hello, len(client_hello), ticket, len(ticket), &memory, &s):
                return None
            return state_dict(&s)
        finally:
            forget_state(&memory, &s)


@cython.no_gc
cdef class TicketKeys(TicketSealer):
    """TicketKeys(keys): `keys` are (name, key) of 16 and 32 bytes. The first one seals, all of them open, at most 16.

    A ticket is name, nonce and the state under AES-256-GCM, with the name as associated data. Nonces are random, so one
    key is good for 2^32 tickets (NIST SP 800-38D, section 8.3): keys are to be replaced long before.
    ValueError for keys that are none.
    """

    def __init__(self, keys):
        self.replace(keys)

    def __dealloc__(self):
        self.wipe()

    cdef void wipe(self) noexcept nogil:
        cdef int i
        for i in range(self.n_keys):
            aead_free(AEAD_AES_256_GCM, self.keys[i].sealing)
            aead_free(AEAD_AES_256_GCM, self.keys[i].opening)
        cleanse(self.keys, sizeof(self.keys))
        self.n_keys = 0

    def replace(self, keys):
        """Other keys from now on. ValueError, and nothing changed, when they are none."""
        keys = [(bytes(name), bytes(key)) for name, key in keys]
        if not 0 < len(keys) <= TICKET_KEYS_MAX:
            raise ValueError(f"1 to {TICKET_KEYS_MAX} ticket keys")
        if any(len(name) != TICKET_NAME or len(key) != TICKET_KEY for name, key in keys):
            raise ValueError(f"a ticket key is a name of {TICKET_NAME} bytes and a key of {TICKET_KEY}")
        if len({name for name, _ in keys}) != len(keys):
            raise ValueError("two ticket keys of one name")
        self.wipe()
        for i, (name, key) in enumerate(keys):
            memcpy(self.keys[<int> i].name, <const char *> <bytes> name, TICKET_NAME)
            memcpy(self.keys[<int> i].key, <const char *> <bytes> key, TICKET_KEY)
        self.n_keys = len(keys)

    @property
    def names(self):
        """Of the keys, the one that seals first."""
        return [self.keys[i].name[:TICKET_NAME] for i in range(self.n_keys)]

    def seal_other(self, bytes content not None, bytes purpose not None):
        """What is no ticket, but of the same form and under the same key: open_other gives it for the same purpose (not
        b"") alone. RuntimeError when it cannot be sealed."""
        cdef TicketKey *k = &self.keys[0]
        cdef Py_ssize_t n = len(content)
        cdef bytes aad = k.name[:TICKET_NAME] + purpose
        cdef bytes sealed = PyBytes_FromStringAndSize(NULL, TICKET_OVERHEAD + n)
        cdef uint8_t *out = <uint8_t *> <char *> sealed
        if k.sealing == NULL:
            k.sealing = aead_new(AEAD_AES_256_GCM, k.key, 1)
        memcpy(out, k.name, TICKET_NAME)
        memcpy(out + TICKET_NAME + TICKET_NONCE, <const char *> content, n)
        if (not purpose or k.sealing == NULL or random_bytes(out + TICKET_NAME, TICKET_NONCE) < 0
                or aead_seal(k.sealing, out + TICKET_NAME, aad, len(aad), out + TICKET_NAME + TICKET_NONCE, n) < 0):
            raise RuntimeError("cannot be sealed")
        return sealed

    def open_other(self, bytes sealed not None, bytes purpose not None):
        """What seal_other has sealed; None for anything else."""
        cdef const uint8_t *p = sealed
        cdef Py_ssize_t n = len(sealed) - TICKET_OVERHEAD
        cdef TicketKey *k = self.find_key(p, len(sealed))
        cdef bytes aad, content
        if k == NULL or not purpose:
            return None
        aad = k.name[:TICKET_NAME] + purpose
        content = PyBytes_FromStringAndSize(<const char *> p + TICKET_NAME + TICKET_NONCE, n + TICKET_OVERHEAD - TICKET_NAME - TICKET_NONCE)
        if aead_open(k.opening, p + TICKET_NAME, aad, len(aad), <uint8_t *> <char *> content, n) < 0:
            return None
        return content[:n]

    cdef TicketKey *find_key(self, const uint8_t *ticket, size_t n) noexcept nogil:
        """The key that it is under, ready to open it; NULL when that is not ours."""
        cdef TicketKey *k
        cdef int i
        if n < TICKET_OVERHEAD:
            return NULL
        for i in range(self.n_keys):    # names are public: no constant-time compare is called for
            k = &self.keys[i]
            if memcmp(k.name, ticket, TICKET_NAME) == 0:
                if k.opening == NULL:
                    k.opening = aead_new(AEAD_AES_256_GCM, k.key, 0)
                return k if k.opening != NULL else NULL
        return NULL

    cdef size_t ticket_room(self, const SessionState *s) noexcept:
        return TICKET_OVERHEAD + session_size(s)

    cdef ssize_t seal_state(self, const SessionState *s, uint8_t *out, size_t room) noexcept:
        cdef TicketKey *k = &self.keys[0]
        cdef uint8_t *content = out + TICKET_NAME + TICKET_NONCE
        cdef Writer w
        cdef size_t n
        if room < TICKET_OVERHEAD or session_size(s) > TICKET_LENGTH_MAX - TICKET_OVERHEAD:
            return 0
        if k.sealing == NULL:
            k.sealing = aead_new(AEAD_AES_256_GCM, k.key, 1)
        writer_init(&w, content, room - TICKET_OVERHEAD)
        write_session(&w, s)
        n = written(&w)
        memcpy(out, k.name, TICKET_NAME)
        if (
            w.overflow
            or k.sealing == NULL
            or random_bytes(out + TICKET_NAME, TICKET_NONCE) < 0
            or aead_seal(k.sealing, out + TICKET_NAME, out, TICKET_NAME, content, n) < 0
        ):
            cleanse(content, room - TICKET_OVERHEAD)
            return 0
        return TICKET_OVERHEAD + n

    cdef bint open_state(self, const uint8_t *client_hello, size_t hello_length, const uint8_t *ticket, size_t n,
                         Bytes *memory, SessionState *s) noexcept:
        cdef const uint8_t *nonce = ticket + TICKET_NAME
        cdef TicketKey *k = self.find_key(ticket, n)
        if k == NULL or bytes_append(memory, nonce + TICKET_NONCE, n - TICKET_NAME - TICKET_NONCE) < 0:
            return 0
        n = n - TICKET_OVERHEAD
        return (aead_open(k.opening, nonce, ticket, TICKET_NAME, memory.data, n) == 0
                and read_session(memory.data, n, s))


cdef class WrappedTickets(TicketSealer):
    """WrappedTickets(wrapper): tickets by an object with wrap(info, content) -> bytes and unwrap(client_hello, ticket)
    -> bytes or None, which must keep content secret and unchanged. `info` is a dict of version, cipher_suite,
    server_name and alpn; `client_hello` the whole message. What they raise means that there is no ticket."""

    def __init__(self, wrapper not None):
        if not callable(getattr(wrapper, "wrap", None)) or not callable(getattr(wrapper, "unwrap", None)):
            raise TypeError("a ticket wrapper has wrap and unwrap")
        self.wrapper = wrapper

    def __dealloc__(self):
        bytes_free(&self.content)

    cdef size_t ticket_room(self, const SessionState *s) noexcept:
        # Only the wrapper knows: it is asked here, and what it gave is what seal_state copies.
        cdef Writer w
        self.content.len = 0
        try:
            if bytes_reserve(&self.content, session_size(s)) < 0:
                return 0
            writer_init(&w, self.content.data, session_size(s))
            write_session(&w, s)
            state = {} if w.overflow else state_dict(s)
            info = {key: state[key] for key in ("version", "cipher_suite", "server_name", "alpn")}
            ticket = bytes(self.wrapper.wrap(info, self.content.data[:written(&w)]))
            cleanse(self.content.data, self.content.cap)
            if bytes_append(&self.content, <const char *> ticket, len(ticket)) < 0:
                return 0
        except Exception:
            if self.content.data != NULL:
                cleanse(self.content.data, self.content.cap)
        return self.content.len

    cdef ssize_t seal_state(self, const SessionState *s, uint8_t *out, size_t room) noexcept:
        cdef size_t n = self.content.len
        if n == 0 or n > room or n > TICKET_LENGTH_MAX:
            return 0
        memcpy(out, self.content.data, n)
        bytes_free(&self.content)
        return n

    cdef bint open_state(self, const uint8_t *client_hello, size_t hello_length, const uint8_t *ticket, size_t n,
                         Bytes *memory, SessionState *s) noexcept:
        cdef bytes content
        try:
            content = self.wrapper.unwrap((<const char *> client_hello)[:hello_length], (<const char *> ticket)[:n])
            if content is None or bytes_append(memory, <const char *> content, len(content)) < 0:
                return 0
            return read_session(memory.data, memory.len, s)
        except Exception:
            return 0


cdef class AwaitedTickets(WrappedTickets):
    """AwaitedTickets(): tickets by a wrapper that may have to be waited for. Who owns the connection asks its unwrap, and
    says here what came of it; wrap is asked as that of WrappedTickets is. Until bind(wrapper) there are none."""

    def __init__(self):
        self.opened = {}
        self.retried = {}

    def bind(self, wrapper not None):
        WrappedTickets.__init__(self, wrapper)

    cdef void tell(self, bytes ticket, content) noexcept:
        self.opened[ticket] = content

    cdef void settle(self, bint retry) noexcept:
        if retry:
            self.retried.update(self.opened)
            while len(self.retried) > RETRIED_MAX:
                del self.retried[next(iter(self.retried))]
        self.opened.clear()

    cdef size_t ticket_room(self, const SessionState *s) noexcept:
        return 0 if self.wrapper is None else WrappedTickets.ticket_room(self, s)

    cdef bint open_state(self, const uint8_t *client_hello, size_t hello_length, const uint8_t *ticket, size_t n,
                         Bytes *memory, SessionState *s) noexcept:
        cdef bytes name = (<const char *> ticket)[:n]
        cdef bytes content = self.opened.get(name)
        if content is None:
            content = self.retried.pop(name, None)
        if content is None or bytes_append(memory, <const char *> content, len(content)) < 0:
            return 0
        return read_session(memory.data, memory.len, s)


# --- a client's sessions

@cython.no_gc
cdef class Session:
    """A session that a client can resume: Session.from_bytes, or what Connection.session gives."""

    def __init__(self):
        raise TypeError("sessions come of connections, or of Session.from_bytes")

    def __dealloc__(self):
        cleanse(self.secret, sizeof(self.secret))

    def __repr__(self):
        return f"Session(0x{self.version:04x}, 0x{self.cipher_suite:04x}, {self.server_name!r})"

    cdef int hash(self) noexcept nogil:
        return HASH_SHA384 if self.cipher_suite == TLS_AES_256_GCM_SHA384 else HASH_SHA256

    cdef bint is_alive(self, uint64_t now) noexcept nogil:
        return self.received <= now + 1000 and now < self.received + <uint64_t> self.lifetime * 1000

    @property
    def expired(self):
        return not self.is_alive(wall_clock())

    def to_bytes(self):
        """For a store; it holds the session's secret."""
        cdef SessionState s
        cdef Bytes out
        cdef Writer w
        cdef bytes chain = b"".join(len(der).to_bytes(3, "big") + der for der in self.chain)
        memset(&s, 0, sizeof(s))
        memset(&out, 0, sizeof(out))
        s.version = <uint16_t> self.version
        s.cipher_suite = <uint16_t> self.cipher_suite
        s.extended_master_secret = self.extended_master_secret
        s.created = self.received
        s.authenticated = self.authenticated
        s.lifetime = self.lifetime
        s.age_add = self.age_add
        s.max_early_data = self.max_early_data
        s.secret_length = self.secret_length
        memcpy(s.secret, self.secret, self.secret_length)
        reader_init(&s.alpn, <const uint8_t *> <const char *> self.alpn, len(self.alpn))
        reader_init(&s.server_name, <const uint8_t *> <const char *> self.server_name, len(self.server_name))
        reader_init(&s.peer_chain, <const uint8_t *> <const char *> chain, len(chain))
        try:
            if bytes_reserve(&out, session_size(&s)) < 0:
                raise MemoryError
            writer_init(&w, out.data, out.cap)
            write_session(&w, &s)
            if w.overflow:
                raise ValueError("a session that does not fit its form")
            state = out.data[:written(&w)]
        finally:
            if out.data != NULL:
                cleanse(out.data, out.cap)
            forget_state(&out, &s)
        return b"".join((bytes([self.verified]), vector(2, self.ticket), vector(3, self.ocsp_response),
                         vector(2, self.signed_certificate_timestamps), state))

    @staticmethod
    def from_bytes(bytes data not None):
        """What to_bytes made. ValueError for anything else."""
        cdef SessionState s
        cdef Reader r
        cdef Reader der
        cdef Reader ticket, response, timestamps
        cdef Session session = Session.__new__(Session)
        cdef uint8_t verified = 0
        reader_init(&r, <const uint8_t *> <const char *> data, len(data))
        if (
            not read_u8(&r, &verified)
            or verified > 1
            or not read_vec16(&r, &ticket)
            or not left(&ticket)
            or not read_vec24(&r, &response)
            or not read_vec16(&r, &timestamps)
            or not read_session(r.p, left(&r), &s)
        ):
            raise ValueError("no session")
        session.verified = verified
        session.ticket = bytes_of(&ticket)
        session.ocsp_response = bytes_of(&response)
        session.signed_certificate_timestamps = bytes_of(&timestamps)
        session.version = s.version
        session.cipher_suite = s.cipher_suite
        session.extended_master_secret = s.extended_master_secret
        session.received = s.created
        session.authenticated = s.authenticated
        session.lifetime = s.lifetime
        session.age_add = s.age_add
        session.max_early_data = s.max_early_data
        session.alpn = bytes_of(&s.alpn)
        session.server_name = bytes_of(&s.server_name)
        session.secret_length = s.secret_length
        memcpy(session.secret, s.secret, s.secret_length)
        r = s.peer_chain
        chain = []
        while left(&r):
            if not read_vec24(&r, &der):
                raise ValueError("no session")
            chain.append(bytes_of(&der))
        session.chain = tuple(chain)
        session_wipe(&s)
        return session


# --- Python's view of a state

cdef bytes vector(size_t width, bytes content):
    return len(content).to_bytes(width, "big") + content


cdef bytes bytes_of(const Reader *r):
    return (<const char *> r.p)[:left(r)] if left(r) else b""


cdef dict state_dict(const SessionState *s):
    return {
        "version": s.version, "cipher_suite": s.cipher_suite, "extended_master_secret": bool(s.extended_master_secret),
        "created": s.created, "authenticated": s.authenticated, "lifetime": s.lifetime, "age_add": s.age_add,
        "max_early_data": s.max_early_data, "replay_register": s.replay_register[:REGISTER_ID],
        "secret": s.secret[:s.secret_length], "alpn": bytes_of(&s.alpn), "server_name": bytes_of(&s.server_name),
        "peer_chain": bytes_of(&s.peer_chain),
    }


cdef tuple fill_state(SessionState *s, state):
    """The objects that the state's Readers point into."""
    cdef bytes secret = state["secret"]
    cdef bytes alpn = state.get("alpn", b"")
    cdef bytes name = state.get("server_name", b"")
    cdef bytes chain = state.get("peer_chain", b"")
    cdef bytes register_id = state.get("replay_register", bytes(REGISTER_ID))
    if len(secret) > RESUMPTION_SECRET_MAX or len(register_id) != REGISTER_ID:
        raise ValueError("no such state")
    memset(s, 0, sizeof(SessionState))
    s.version = state["version"]
    s.cipher_suite = state["cipher_suite"]
    s.extended_master_secret = state.get("extended_master_secret", False)
    s.created = state.get("created", 0)
    s.authenticated = state.get("authenticated", 0)
    s.lifetime = state.get("lifetime", 0)
    s.age_add = state.get("age_add", 0)
    s.max_early_data = state.get("max_early_data", 0)
    memcpy(s.replay_register, <const char *> register_id, REGISTER_ID)
    s.secret_length = <uint8_t> len(secret)
    memcpy(s.secret, <const char *> secret, s.secret_length)
    reader_init(&s.alpn, <const uint8_t *> <const char *> alpn, len(alpn))
    reader_init(&s.server_name, <const uint8_t *> <const char *> name, len(name))
    reader_init(&s.peer_chain, <const uint8_t *> <const char *> chain, len(chain))
    return secret, alpn, name, chain


def encode_state(state):
    """A state's bytes, as tickets hold them."""
    cdef SessionState s
    cdef Bytes out
    cdef Writer w
    keep = fill_state(&s, state)
    memset(&out, 0, sizeof(out))
    try:
        if bytes_reserve(&out, session_size(&s)) < 0:
            raise MemoryError
        writer_init(&w, out.data, session_size(&s))
        write_session(&w, &s)
        if w.overflow:
            raise ValueError("a state that does not fit its form")
        return out.data[:written(&w)]
    finally:
        forget_state(&out, &s)


def decode_state(bytes data not None):
    """The state in `data`; None when it holds none."""
    cdef SessionState s
    if not read_session(<const uint8_t *> <const char *> data, len(data), &s):
        return None
    return state_dict(&s)


def shift_clock(int64_t milliseconds):
    """Moves the clock of tickets and sessions, for tests; 0: as it is."""
    global clock_shift
    clock_shift = milliseconds


def now():
    """Milliseconds since 1970 by that clock."""
    return wall_clock()
