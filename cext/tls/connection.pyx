"""The facade of the engine (see the .pxd): records in, events out, and one place for each way a connection ends.

The functions stand in the order of a record's way: receive -> take_record -> take_protected -> take_handshake ->
take_message -> the handshake, and back through carry_out -> write_records -> out.
"""

cimport cython
from libc.stdint cimport UINT64_MAX
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memset

from cext.base.buffer cimport bytes_append, bytes_free, bytes_reserve
from cext.base.wire cimport Writer, left, writer_init
from cext.crypto.aead cimport AEAD_CHACHA20_POLY1305, AEAD_TAG
from cext.crypto.hash_kdf cimport cleanse, hash_length
from cext.tls.alert import TlsAlert
from cext.tls.names import describe
from cext.tls.client12 cimport Client12
from cext.tls.client13 cimport Client13
from cext.tls.config cimport ClientConfig
from cext.tls.constants cimport (
    ALERT_FATAL, ALERT_WARNING, CONTENT_ALERT, CONTENT_APPLICATION_DATA, CONTENT_CHANGE_CIPHER_SPEC, CONTENT_HANDSHAKE,
    HANDSHAKE_HEADER, HS_CLIENT_HELLO, HS_HELLO_REQUEST, HS_KEY_UPDATE, HS_NEW_SESSION_TICKET, TLS10, TLS12, TLS13,
    bad_record_mac, close_notify as ALERT_CLOSE_NOTIFY, decode_error, illegal_parameter, internal_error,
    no_renegotiation, record_overflow, unexpected_message, user_canceled)
from cext.tls.handshake cimport (
    ACTION_CCS, ACTION_MESSAGE, ACTION_READ_KEYS, ACTION_SKIP_EARLY_DATA, ACTION_WRITE_KEYS, LEVEL_APPLICATION,
    LEVEL_EARLY, LEVEL_INITIAL, STEP_DONE, STEP_NEED_MESSAGE, STEP_OTHER_VERSION, STEP_WAIT_CERTIFICATE,
    STEP_WAIT_POLICY, STEP_WAIT_REGISTER, STEP_WAIT_SIGN, Action)
from cext.tls.handshake12 cimport Handshake12
from cext.tls.key_log cimport log_keys
from cext.tls.key_schedule cimport next_traffic_secret, resumption_psk
from cext.tls.messages cimport NewSessionTicket, build_key_update, parse_key_update, parse_new_session_ticket
from cext.tls.psk cimport early_data_skipped
from cext.tls.record cimport (
    PLAINTEXT_MAX, PROTECTION_MAX, RECORD_HEADER_LENGTH, RECORD_TLS12, describe_bad_header, direction_install,
    direction_install12, direction_park, direction_wipe, record_length, record_plain, record_protect, record_unprotect)
from cext.tls.replay cimport REGISTER_ASK, REGISTER_DOWN
from cext.tls.server12 cimport Server12
from cext.tls.server13 cimport Server13
from cext.tls.session cimport Session, wall_clock

cdef enum:
    EMPTY_RECORDS_MAX = 32              # application data records without content, in a row
    CCS_RECORDS_MAX = 4
    WARNINGS_MAX = 4
    TICKET_MAX = 1 << 16                # a NewSessionTicket's body
    UPDATE_COST = 1 << 14               # a KeyUpdate or ticket counts as so many bytes ...
    UPDATE_CREDIT = 32 * UPDATE_COST    # ... and this many may be outstanding: application data earns them back

# AES-GCM: 2^24.5 records under one key at most (section 5.5); our KeyUpdate goes out well before, since a flight that
# begins below the mark is sealed without another look. ChaCha20-Poly1305 has no limit within 2^64 records.
cdef uint64_t GCM_SEAL_LIMIT = 23726566
cdef uint64_t GCM_UPDATE_AFTER = 1 << 24

cdef uint8_t[6] CCS_RECORD
CCS_RECORD[:] = [CONTENT_CHANGE_CIPHER_SPEC, 3, 3, 0, 1, 1]

cdef dict UNPROTECT_REASONS = {
    bad_record_mac: "a record does not authenticate",
    record_overflow: "a record's content is too long",
    unexpected_message: "a record without content type",
    internal_error: "no AEAD context can be made",
}


# No cycle can form (nothing a connection refers to knows it), and a hundred thousand idle ones are no work for the
# garbage collector.
@cython.no_gc
cdef class Connection:
    """Connection(config): the server's side with a ServerConfig, the client's with a ClientConfig (its ClientHello
    then stands in the output). TypeError for anything else."""

    def __cinit__(self, config not None, Session session=None):
        self.config = config
        self.alpn = b""
        self.server_name = b""
        self.fingerprint = b""
        self.peer_certificates = ()
        self.ocsp_response = self.signed_certificate_timestamps = b""
        self.update_credit = UPDATE_CREDIT
        self.plaintext_max = PLAINTEXT_MAX
        self.server = isinstance(config, ServerConfig)
        if self.server:
            return
        if not isinstance(config, ClientConfig):
            raise TypeError(f"a ServerConfig or a ClientConfig, not {type(config).__name__}")
        self.handshake = Client13(config, session)
        self.step_handshake(NULL, 0)

    def __dealloc__(self):
        direction_wipe(&self.reading)
        direction_wipe(&self.writing)
        cleanse(self.read_secret, sizeof(self.read_secret))
        cleanse(self.write_secret, sizeof(self.write_secret))
        self.forget_session()
        cleanse(self.exporter_secret, sizeof(self.exporter_secret))
        bytes_free(&self.out)
        bytes_free(&self.pending)

    # --- inbound

    cdef int receive(self, uint8_t *input, size_t n, size_t *consumed, uint8_t **data, size_t *data_len) noexcept:
        consumed[0] = 0
        data_len[0] = 0
        try:
            return self.receive_record(input, n, consumed, data, data_len)
        except BaseException as e:
            return self.fail_unexpected(e)

    cdef int receive_record(self, uint8_t *input, size_t n, size_t *consumed, uint8_t **data,
                            size_t *data_len) except -1:
        cdef uint8_t type = 0
        cdef ssize_t length
        if self.failure is not None:
            return TLS_FAILED
        if self.read_closed:            # what follows a close_notify is ignored (section 6.1)
            consumed[0] = n
            return TLS_PROGRESS if n else TLS_NEED_DATA
        if self.waiting:
            return TLS_NEED_DATA
        length = record_length(input, n, self.reading.aead or self.skip_budget, self.reading.protocol == RECORD_TLS12,
                               &type)
        if length < 0:
            return self.refuse(-length, describe_bad_header(-length, input))
        if length == 0 or <size_t> length > n:
            return TLS_NEED_DATA
        consumed[0] = length
        if self.reading.aead and (type == CONTENT_APPLICATION_DATA or self.reading.protocol == RECORD_TLS12):
            return self.take_protected(input, length, data, data_len)
        return self.take_record(input, length, type, data, data_len)

    cdef int take_record(self, uint8_t *record, size_t length, int type, uint8_t **data, size_t *data_len) except -1:
        """A record that is not protected."""
        cdef const uint8_t *fragment = record + RECORD_HEADER_LENGTH
        cdef size_t n = length - RECORD_HEADER_LENGTH
        if type == CONTENT_CHANGE_CIPHER_SPEC:
            return self.take_change_cipher_spec(fragment, n)
        if self.reading.aead == 0:
            if type == CONTENT_HANDSHAKE:
                return self.take_handshake(fragment, n)
            if type == CONTENT_ALERT:
                return self.take_alert(fragment, n)
            if self.skip_budget and self.pending.len == 0:
                return self.skip_early_data(length)
            return self.refuse(unexpected_message, "application data before the handshake")
        # A client that gives up over our ServerHello has no keys yet to say so.
        if type == CONTENT_ALERT and self.reading.sequence == 0 and not self.established and self.server:
            return self.take_alert(fragment, n)
        return self.refuse(unexpected_message, "a record without protection")

    cdef int take_protected(self, uint8_t *record, size_t length, uint8_t **data, size_t *data_len) except -1:
        cdef uint8_t type = 0
        cdef ssize_t n = record_unprotect(&self.reading, record, length, &type)
        cdef uint8_t *content = record + RECORD_HEADER_LENGTH + self.reading.explicit_nonce
        if n == -bad_record_mac and self.skip_budget:
            return self.skip_early_data(length)
        if n < 0:
            return self.refuse(-n, UNPROTECT_REASONS.get(-n, "a record cannot be opened"))
        if self.receive_limit and length > (
                <size_t> self.receive_limit + RECORD_HEADER_LENGTH + self.reading.explicit_nonce + AEAD_TAG):
            return self.refuse(record_overflow, "a record over our record_size_limit")
        self.skip_budget = 0
        if self.early_data_state == EARLY_DISCARDING:
            self.early_data_state = EARLY_REJECTED
        if type == CONTENT_APPLICATION_DATA:
            if self.pending.len or not (self.established or self.early_data_state == EARLY_READING):
                return self.refuse(unexpected_message, "application data within the handshake or a split message")
            if not self.established and not self.take_early_data(n):
                return self.refuse(unexpected_message, "more early data than the ticket allows")
            if n == 0:
                self.empty_records += 1
                if self.empty_records > EMPTY_RECORDS_MAX:
                    return self.refuse(unexpected_message, "too many empty records")
                return TLS_PROGRESS
            self.empty_records = 0
            if n < UPDATE_CREDIT - <ssize_t> self.update_credit:
                self.update_credit += <uint32_t> n
            else:
                self.update_credit = UPDATE_CREDIT
            data[0] = content
            data_len[0] = n
            return TLS_DATA
        if type == CONTENT_HANDSHAKE:
            return self.take_handshake(content, n)
        if type == CONTENT_ALERT:
            return self.take_alert(content, n)
        return self.refuse(unexpected_message, f"a protected record of type {type}")

    cdef int skip_early_data(self, size_t length) except -1:
        """A 0-RTT record, which we have no keys for (section 4.2.10)."""
        cdef size_t fragment = max(length - RECORD_HEADER_LENGTH, <size_t> 1)
        if fragment >= self.skip_budget:
            return self.refuse(unexpected_message, "more early data than is skipped")
        self.skip_budget -= fragment
        return TLS_PROGRESS

    cdef bint take_early_data(self, size_t n) noexcept nogil:
        """Whether n more bytes keep within max_early_data_size (section 4.2.10)."""
        if n > self.early_data_left:
            return 0
        self.early_data_left -= <uint32_t> n
        return 1

    cdef int take_change_cipher_spec(self, const uint8_t *p, size_t n) except -1:
        """In TLS 1.3 the middlebox compatibility record: dropped between the first ClientHello and the peer's Finished,
        and only there (section 5). In TLS 1.2 it changes the peer's keys, and has its one place."""
        cdef int step
        if self.handshake is None or self.pending.len:
            return self.refuse(unexpected_message, "change_cipher_spec outside the handshake or within a message")
        if n != 1 or p[0] != 1:
            return self.refuse(unexpected_message, "a change_cipher_spec of another value than 1")
        step = self.handshake.change_cipher_spec()
        if step < 0:
            return self.refuse_handshake(-step)
        if step == STEP_NEED_MESSAGE:
            return self.refuse(internal_error, "the keys cannot change") if self.carry_out() < 0 else TLS_PROGRESS
        self.ccs_records += 1
        if self.ccs_records > CCS_RECORDS_MAX:
            return self.refuse(unexpected_message, "too many change_cipher_spec")
        return TLS_PROGRESS

    cdef int take_alert(self, const uint8_t *p, size_t n) except -1:
        """An alert (section 6): one per record, never split; in TLS 1.3 its level says nothing."""
        if n == 0:
            return self.refuse(unexpected_message, "an empty alert record")
        if n != 2:
            return self.refuse(decode_error, "an alert record of another length than 2")
        if p[0] != ALERT_WARNING and p[0] != ALERT_FATAL:
            return self.refuse(illegal_parameter, "an alert of unknown level")
        if p[1] != ALERT_CLOSE_NOTIFY and p[1] != user_canceled and not (p[0] == ALERT_WARNING and self.may_warn()):
            if p[0] == ALERT_WARNING and self.speaks_tls13():           # error alerts must be fatal (section 6)
                return self.refuse(decode_error, f"{TlsAlert(p[1]).name} as a warning")
            return self.end_by_peer(p[1], "")
        if self.pending.len:
            return self.refuse(unexpected_message, "an alert within a split message")
        if p[1] != ALERT_CLOSE_NOTIFY:  # a warning: of user_canceled's a close_notify follows (section 6.1)
            self.warnings += 1
            if self.warnings > WARNINGS_MAX:
                return self.refuse(unexpected_message, "too many warnings")
            return TLS_PROGRESS
        if not self.established:
            return self.end_by_peer(ALERT_CLOSE_NOTIFY, "closed during the handshake")
        self.read_closed = 1
        direction_wipe(&self.reading)
        cleanse(self.read_secret, sizeof(self.read_secret))
        return TLS_CLOSE_NOTIFY

    cdef bint may_warn(self) noexcept:
        """Whether the peer's alerts may be warnings: in TLS 1.2, and before a server has chosen its version (the
        unrecognized_name of RFC 6066, section 3)."""
        return self.is_tls12() or not self.server and not self.speaks_tls13()

    cdef bint speaks_tls13(self) noexcept:
        """Whether that is settled."""
        return (self.version if self.handshake is None else self.handshake.version) == TLS13

    cdef int take_handshake(self, const uint8_t *p, size_t n) except -1:
        """A fragment of handshake messages: whole ones are taken where they stand, the rest is gathered."""
        cdef int event = TLS_PROGRESS
        cdef ssize_t length
        cdef size_t part
        cdef Bytes whole
        if n == 0:
            return self.refuse(unexpected_message, "an empty handshake record")
        while n:
            if self.pending.len == 0 and n >= HANDSHAKE_HEADER:
                length = self.admit(p)
                if length < 0:
                    return self.refuse_handshake(-length)
                if <size_t> length <= n:
                    self.unread = <uint32_t> (n - length)
                    event = self.take_message(p, length)
                    if event == TLS_FAILED:
                        return event
                    p += length
                    n -= length
                    continue
            # Up to the end of the header first: it tells whether the rest may come at all.
            if self.pending.len < HANDSHAKE_HEADER:
                part = min(n, HANDSHAKE_HEADER - self.pending.len)
                if bytes_append(&self.pending, p, part) < 0:
                    raise MemoryError
                p += part
                n -= part
                if self.pending.len < HANDSHAKE_HEADER:
                    break
                length = self.admit(self.pending.data)
                if length < 0:
                    return self.refuse_handshake(-length)
            length = message_length(self.pending.data)
            part = min(n, length - self.pending.len)
            if bytes_append(&self.pending, p, part) < 0:
                raise MemoryError
            p += part
            n -= part
            if self.pending.len < <size_t> length:
                break
            whole = self.pending
            memset(&self.pending, 0, sizeof(self.pending))
            self.unread = <uint32_t> n
            try:
                event = self.take_message(whole.data, whole.len)
            finally:
                bytes_free(&whole)
            if event == TLS_FAILED:
                return event
        return event

    cdef ssize_t admit(self, const uint8_t *header) noexcept:
        """Length of the message whose header this is, header included, or -AlertDescription when it must not come."""
        cdef ssize_t length = message_length(header)
        cdef int code
        if self.handshake is None and not self.established:
            try:
                self.handshake = self.choose_handshake()
            except Exception:
                return -internal_error
        if self.handshake is not None:
            code = self.handshake.admit(header[0], length - HANDSHAKE_HEADER)
            return code if code < 0 else length
        # After the handshake (section 4.6) there is KeyUpdate, and for a client NewSessionTicket.
        if self.version == TLS12:
            # There is no renegotiation, and to go on as if nothing had been asked for would serve no one.
            if header[0] == HS_HELLO_REQUEST and not self.server:
                return -no_renegotiation if length == HANDSHAKE_HEADER else -decode_error
            return -no_renegotiation if header[0] == HS_CLIENT_HELLO and self.server else -unexpected_message
        if header[0] == HS_KEY_UPDATE:
            return length if length == HANDSHAKE_HEADER + 1 else -decode_error
        if header[0] == HS_NEW_SESSION_TICKET and not self.server:
            return length if length <= HANDSHAKE_HEADER + TICKET_MAX else -illegal_parameter
        return -unexpected_message

    cdef Handshake choose_handshake(self):
        """The server's side of the handshake. A ClientHello that settles on TLS 1.2 goes on to a sibling."""
        return Server13.__new__(Server13, self.config)

    cdef Handshake sibling(self, Handshake before):
        """That of TLS 1.2, to go on where the one of TLS 1.3 has found that it is not meant."""
        cdef Handshake handshake
        if not self.server:
            return Client12.__new__(Client12, self.config, before)
        handshake = Server12.__new__(Server12, self.config)
        (<Server12> handshake).key_log = self.key_log()
        handshake.decided = before.decided
        handshake.chosen = before.chosen
        return handshake

    cdef bint is_tls12(self) noexcept nogil:
        return (self.version if self.handshake is None else self.handshake.version) == TLS12

    cdef int take_message(self, const uint8_t *message, size_t n) except -1:
        if self.handshake is not None:
            return self.step_handshake(message, n)
        return self.take_post_handshake(message, n)

    cdef int step_handshake(self, const uint8_t *message, size_t n) except -1:
        cdef int step = self.handshake.advance(message, n)
        cdef int code
        if step == STEP_OTHER_VERSION:
            self.handshake = self.sibling(self.handshake)
            step = self.handshake.advance(message, n)
        if step < 0:
            return self.refuse_handshake(-step)
        if step == STEP_WAIT_POLICY:
            if self.unread:
                return self.refuse(unexpected_message, "bytes of the ClientHello's record come after it")
            self.client_hello = (<const char *> message)[:n]
            self.waiting = TLS_WAIT_POLICY
            return TLS_WAIT_POLICY
        if step == STEP_WAIT_REGISTER:
            if self.unread:
                return self.refuse(unexpected_message, "bytes of the ClientHello's record come after it")
            self.waiting = TLS_WAIT_REGISTER
            return TLS_WAIT_REGISTER
        # The message that we answer with a flight is the last of the peer's flight, and of its record.
        if (self.handshake.flight.len or step == STEP_WAIT_CERTIFICATE) and self.unread:
            return self.refuse(unexpected_message, "bytes of the message's record come after the end of a flight")
        code = self.carry_out()
        if code < 0:
            return self.refuse(-code, "bytes of the message's record come after its key change"
                               if code == -unexpected_message else "a flight cannot be written")
        if step == STEP_WAIT_SIGN or step == STEP_WAIT_CERTIFICATE:
            self.waiting = TLS_WAIT_SIGN if step == STEP_WAIT_SIGN else TLS_WAIT_CERTIFICATE
            return self.waiting
        if step != STEP_DONE:
            if self.early_data_state == EARLY_OFFERED and self.handshake.early_accepted:
                self.early_data_state = EARLY_ACCEPTED
            return TLS_PROGRESS
        if self.unread:                 # in TLS 1.2, whose keys changed before
            return self.refuse(unexpected_message, "bytes of the message's record come after the end of the handshake")
        self.confirm()
        return TLS_ESTABLISHED

    cdef int resume_policy(self, ServerConfig config, Credential credential) noexcept:
        cdef bytes hello = self.client_hello
        if self.waiting != TLS_WAIT_POLICY:
            return TLS_FAILED if self.failure is not None else TLS_NEED_DATA
        self.waiting = 0
        self.client_hello = None
        try:
            if config is not None:
                self.config = config
            # Anew: the configuration may lead to another version.
            self.handshake = self.choose_handshake()
            self.handshake.decided = 1
            self.handshake.chosen = credential
            return self.step_handshake(hello, len(hello))
        except BaseException as e:
            return self.fail_unexpected(e)

    cdef int resume_sign(self, bytes signature) noexcept:
        if self.waiting != TLS_WAIT_SIGN:
            return TLS_FAILED if self.failure is not None else TLS_NEED_DATA
        self.waiting = 0
        try:
            self.handshake.signature = signature
            return self.step_handshake(NULL, 0)
        except BaseException as e:
            return self.fail_unexpected(e)

    cdef int resume_certificate(self, Credential credential) noexcept:
        if self.waiting != TLS_WAIT_CERTIFICATE:
            return TLS_FAILED if self.failure is not None else TLS_NEED_DATA
        self.waiting = 0
        try:
            self.handshake.decided = 1
            self.handshake.chosen = credential
            return self.step_handshake(NULL, 0)
        except BaseException as e:
            return self.fail_unexpected(e)

    cdef int resume_register(self, int answer) noexcept:
        if self.waiting != TLS_WAIT_REGISTER:
            return TLS_FAILED if self.failure is not None else TLS_NEED_DATA
        self.waiting = 0
        try:
            (<Server13> self.handshake).verdict = answer if answer != REGISTER_ASK else REGISTER_DOWN
            return self.step_handshake(NULL, 0)
        except BaseException as e:
            return self.fail_unexpected(e)

    cdef int refuse_to_resume(self, int description, str reason) noexcept:
        self.waiting = 0
        self.client_hello = None
        if self.failure is not None:
            return TLS_FAILED
        try:
            return self.refuse(description, reason)
        except BaseException as e:
            return self.fail_unexpected(e)

    cdef int take_post_handshake(self, const uint8_t *message, size_t n) except -1:
        """KeyUpdate, and NewSessionTicket to a client. Each is work for nothing, so data must come in between."""
        if self.update_credit < UPDATE_COST:
            return self.refuse(unexpected_message, "too many KeyUpdates or tickets for the data between them")
        self.update_credit -= UPDATE_COST
        if message[0] == HS_KEY_UPDATE:
            return self.take_key_update(message + HANDSHAKE_HEADER, n - HANDSHAKE_HEADER)
        return self.take_ticket(message + HANDSHAKE_HEADER, n - HANDSHAKE_HEADER)

    cdef int take_ticket(self, const uint8_t *body, size_t n) except -1:
        """NewSessionTicket (section 4.6.1): a session to be resumed, unless its lifetime is 0."""
        cdef NewSessionTicket t
        cdef Session session
        cdef int code = parse_new_session_ticket(body, n, &t)
        if code < 0:
            return self.refuse(-code, text(t.reason))
        if t.lifetime == 0 or self.resumption_secret == NULL:
            return TLS_PROGRESS
        session = Session.__new__(Session)
        session.version = self.version
        session.cipher_suite = self.cipher_suite
        session.ticket = (<const char *> t.ticket.p)[:left(&t.ticket)]
        session.received = wall_clock()
        session.authenticated = self.authenticated
        session.lifetime = t.lifetime
        session.age_add = t.age_add
        session.max_early_data = t.max_early_data_size
        session.alpn = self.alpn
        session.server_name = self.server_name
        session.chain = self.peer_certificates
        session.ocsp_response = self.ocsp_response
        session.signed_certificate_timestamps = self.signed_certificate_timestamps
        session.verified = (<ClientConfig> self.config).verify is not None
        session.secret_length = <uint8_t> hash_length(self.hash)
        resumption_psk(self.hash, self.resumption_secret, t.nonce.p, left(&t.nonce), session.secret)
        self.session = session
        return TLS_PROGRESS

    cdef int take_key_update(self, const uint8_t *body, size_t n) except -1:
        """KeyUpdate (section 4.6.3)."""
        cdef bint requested = 0
        cdef const char *reason = NULL
        cdef int code = parse_key_update(body, n, &requested, &reason)
        if code < 0:
            return self.refuse(-code, text(reason))
        next_traffic_secret(self.hash, self.read_secret)
        if self.change_read_keys(self.read_secret) < 0:
            return self.refuse(unexpected_message, "bytes of the KeyUpdate's record come after it")
        if requested and self.write_open:
            self.update_requested = 1   # answered once, before the next flight, however often it is asked
        return TLS_PROGRESS

    # --- outbound

    cdef int carry_out(self) noexcept:
        """Does what the handshake's flight says. 0, or -AlertDescription."""
        cdef Handshake h = self.handshake
        cdef object key_log = self.key_log()
        cdef Action *a
        cdef int i
        cdef size_t start = 0, end = 0      # of messages at one level, not yet written: they share records
        if h.send_limit:
            # TLS 1.3 counts the type.
            self.plaintext_max = <uint16_t> min(h.send_limit - <int> (h.version != TLS12), <int> PLAINTEXT_MAX)
        self.receive_limit = self.receive_limit if self.server else h.receive_limit
        # The reading side first: where that fails, nothing of the flight must leave.
        for i in range(h.n_actions):
            a = &h.actions[i]
            if key_log is not None:
                log_keys(key_log, h, a, self.server)
            if a.kind == ACTION_READ_KEYS:
                self.hash = <uint8_t> h.hash
                if self.change_read_keys(a.secret) < 0:
                    h.clear_flight()
                    return -unexpected_message
                if a.level == LEVEL_APPLICATION and h.version != TLS12:
                    memcpy(self.read_secret, a.secret, hash_length(h.hash))
                self.note_read_keys(a.level)
            elif a.kind == ACTION_SKIP_EARLY_DATA:
                self.skip_budget = early_data_skipped(self.config) + 1      # 0 stands for none expected
                self.early_data_state = EARLY_DISCARDING
                self.early_data_refusal = h.early_refusal
        for i in range(h.n_actions):
            a = &h.actions[i]
            if a.kind == ACTION_MESSAGE:
                end = a.offset + a.length
                continue
            if a.kind == ACTION_READ_KEYS or a.kind == ACTION_SKIP_EARLY_DATA:
                continue
            if end > start and self.write_records(CONTENT_HANDSHAKE, h.flight.data + start, end - start) < 0:
                return -internal_error
            start = end
            if a.kind == ACTION_WRITE_KEYS:
                self.hash = <uint8_t> h.hash
                if a.level == LEVEL_INITIAL:
                    direction_wipe(&self.writing)
                else:
                    self.change_write_keys(a.secret)
                if a.level == LEVEL_APPLICATION and h.version != TLS12:
                    memcpy(self.write_secret, a.secret, hash_length(h.hash))
                self.note_write_keys(a.level)
            elif a.kind == ACTION_CCS:
                if not self.write_closed and bytes_append(&self.out, CCS_RECORD, sizeof(CCS_RECORD)) < 0:
                    return -internal_error
        if end > start and self.write_records(CONTENT_HANDSHAKE, h.flight.data + start, end - start) < 0:
            return -internal_error
        h.clear_flight()
        return 0

    cdef object key_log(self):
        if self.key_log_off:
            return None
        if self.server:
            return (<ServerConfig> self.config).key_log
        return (<ClientConfig> self.config).key_log

    cdef int change_read_keys(self, const uint8_t *secret) noexcept nogil:
        """The only way the reading keys change. -1 when it is not a record boundary: bytes under the old keys that
        come after the message which changes them (section 5.1)."""
        cdef int aead = self.handshake.aead if self.handshake is not None else self.reading.aead
        if self.unread or self.pending.len:
            return -1
        if self.is_tls12():
            direction_install12(&self.reading, aead, secret, 0)
        else:
            direction_install(&self.reading, self.hash, aead, secret, 0)
        self.skip_budget = 0
        return 0

    cdef void change_write_keys(self, const uint8_t *secret) noexcept nogil:
        cdef int aead = self.handshake.aead if self.handshake is not None else self.writing.aead
        if self.is_tls12():
            direction_install12(&self.writing, aead, secret, 1)
        else:
            direction_install(&self.writing, self.hash, aead, secret, 1)

    cdef int write_records(self, int type, const uint8_t *p, size_t n) noexcept nogil:
        """Puts p[:n] into `out` as records under the writing keys of now. 0 or -1."""
        cdef size_t part
        cdef uint8_t *record
        cdef ssize_t length
        if self.write_closed:           # our close_notify was the last word, even within the handshake
            return 0
        while n:
            part = min(n, <size_t> self.plaintext_max if self.writing.aead else <size_t> PLAINTEXT_MAX)
            if bytes_reserve(&self.out, RECORD_HEADER_LENGTH + part + PROTECTION_MAX) < 0:
                return -1
            record = self.out.data + self.out.len
            memcpy(record + RECORD_HEADER_LENGTH, p, part)
            if self.writing.aead:
                length = record_protect(&self.writing, record, part, type)
                if length < 0:
                    return -1
            else:
                # A client's first record says 0x0301 for the sake of old middleboxes (section 5.1).
                length = record_plain(record, part, type, TLS12 if self.hello_sent or self.server else TLS10)
                self.hello_sent = 1
            self.out.len += length
            p += part
            n -= part
        return 0

    cdef ssize_t seal(self, uint8_t *record, size_t n) noexcept nogil:
        cdef ssize_t length
        if not self.write_open or n > self.plaintext_max or self.writing.sequence >= self.seal_limit:
            return -1
        if not self.established and not self.server and not self.take_early_data(n):
            return -1
        length = record_protect(&self.writing, record, n, CONTENT_APPLICATION_DATA)
        return length if length > 0 else -1

    cdef void before_write(self) noexcept:
        cdef bint due = self.update_requested or self.writing.sequence >= self.update_after
        if due and self.write_open and self.established:
            self.send_key_update(0)

    cdef int send_key_update(self, bint request) noexcept nogil:
        cdef uint8_t message[HANDSHAKE_HEADER + 1]
        cdef Writer w
        writer_init(&w, message, sizeof(message))
        build_key_update(&w, request)
        if self.write_records(CONTENT_HANDSHAKE, message, sizeof(message)) < 0:
            return -1
        next_traffic_secret(self.hash, self.write_secret)
        self.change_write_keys(self.write_secret)
        self.update_requested = 0
        return 0

    cdef void send_alert(self, int level, int description) noexcept nogil:
        """The last record of our side: after it nothing is written (section 6.1)."""
        cdef uint8_t alert[2]
        if self.write_closed:
            return
        alert[0] = <uint8_t> level
        alert[1] = <uint8_t> description
        self.write_records(CONTENT_ALERT, alert, 2)
        self.write_closed = 1
        self.write_open = 0
        direction_wipe(&self.writing)
        cleanse(self.write_secret, sizeof(self.write_secret))

    cdef void close_notify(self) noexcept:
        self.send_alert(ALERT_WARNING, ALERT_CLOSE_NOTIFY)

    cdef void take(self, Bytes *into) noexcept nogil:
        into[0] = self.out
        memset(&self.out, 0, sizeof(self.out))

    cdef void park(self) noexcept nogil:
        direction_park(&self.reading)
        direction_park(&self.writing)
        if self.out.len == 0:
            bytes_free(&self.out)

    # --- turning points

    cdef void note_read_keys(self, int level) noexcept:
        """What a change of the reading keys says of a server's early data."""
        if self.server and level != LEVEL_EARLY:        # which was sent before the client could know
            self.receive_limit = self.handshake.receive_limit
        if level == LEVEL_EARLY:
            self.early_data_state = EARLY_READING
            self.early_data_left = self.handshake.max_early_data
        elif self.early_data_state == EARLY_READING:
            self.early_data_state = EARLY_ACCEPTED
        elif self.early_data_state == EARLY_DISCARDING:
            self.early_data_state = EARLY_REJECTED

    cdef void note_write_keys(self, int level) noexcept:
        """When application data may be written before the handshake is over: a client's early data under its own keys,
        and what a server that has taken such data writes at once (section 2.3)."""
        if level == LEVEL_EARLY:
            self.early_data_state = EARLY_OFFERED
            self.early_data_left = self.handshake.max_early_data
            self.open_writing()
        elif self.server and level == LEVEL_APPLICATION and self.handshake.early_accepted:
            self.copy_facts()
            self.open_writing()
        elif not self.server:
            self.write_open = 0
            if self.early_data_state == EARLY_OFFERED and not self.handshake.early_accepted:
                self.early_data_state = EARLY_REJECTED

    cdef void confirm(self) noexcept:
        """The handshake is over: the facts stay, its object goes."""
        self.copy_facts()
        memcpy(self.exporter_secret, self.handshake.exporter_secret, HASH_MAX)
        if not self.server:
            self.authenticated = self.handshake.authenticated
            if (<ClientConfig> self.config).tickets:
                self.resumption_secret = <uint8_t *> malloc(HASH_MAX)
            if self.resumption_secret != NULL:
                memcpy(self.resumption_secret, self.handshake.resumption_secret, HASH_MAX)
            if self.version == TLS12:
                self.session = (<Client12> self.handshake).new_session
        if self.version == TLS12:
            self.exporter12 = (<Handshake12> self.handshake).make_exporter()
        self.handshake = None
        self.established = 1
        self.open_writing()

    cdef void open_writing(self) noexcept:
        self.write_open = not self.write_closed
        if self.writing.aead == AEAD_CHACHA20_POLY1305:
            self.seal_limit = self.update_after = UINT64_MAX
        else:
            self.seal_limit = GCM_SEAL_LIMIT
            # TLS 1.2 has no KeyUpdate: at the limit the connection ends (RFC 9325, section 4.4).
            self.update_after = UINT64_MAX if self.version == TLS12 else GCM_UPDATE_AFTER

    cdef void copy_facts(self) noexcept:
        cdef Handshake h = self.handshake
        self.version = h.version
        self.cipher_suite = h.cipher_suite
        self.group = h.group
        self.signature_scheme = h.signature_scheme
        self.client_signature_scheme = h.client_signature_scheme
        self.credential = None if h.resumed else h.credential
        self.alpn = h.alpn
        self.server_name = h.server_name
        self.hello_retried = h.hello_retried
        self.resumed = h.resumed
        self.fingerprint = h.fingerprint
        self.ticket_age_skew = h.ticket_age_skew
        self.peer_certificates = h.peer_certificates
        self.ocsp_response = h.ocsp_response
        self.signed_certificate_timestamps = h.signed_certificate_timestamps

    cdef int refuse(self, int description, str reason) except -1:
        """The one place where a fault of the peer (or our own, internal_error) ends the connection with our alert."""
        self.send_alert(ALERT_FATAL, description)
        self.end(TlsAlert(description, reason, True))
        return TLS_FAILED

    cdef int refuse_handshake(self, int description) except -1:
        """As refuse, for a message that did not get past the handshake, which knows why."""
        cdef str reason = "a message that cannot come now" if description != no_renegotiation else "a renegotiation"
        if self.handshake is not None and self.handshake.error is not None:
            reason = self.handshake.error
        elif self.handshake is not None and self.handshake.reason != NULL:
            reason = text(self.handshake.reason)
        return self.refuse(description, reason)

    cdef int end_by_peer(self, int description, str reason) except -1:
        self.write_closed = 1           # no alert answers an alert (section 6.2)
        self.end(TlsAlert(description, reason, False))
        return TLS_FAILED

    cdef int fail_unexpected(self, object exception) noexcept:
        """An exception that nothing foresaw must not reach the peer, nor the loop."""
        try:
            return self.refuse(internal_error, f"{type(exception).__name__}: {exception}")
        except Exception:
            self.failure = exception
            self.read_closed = 1
            self.write_open = 0
            return TLS_FAILED

    cdef void forget_session(self) noexcept nogil:
        if self.resumption_secret != NULL:
            cleanse(self.resumption_secret, HASH_MAX)
            free(self.resumption_secret)
            self.resumption_secret = NULL

    cdef void end(self, object failure) noexcept:
        if self.handshake is not None:
            self.copy_facts()
            self.peer_certificates = ()     # shown, but not proven
            self.ocsp_response = self.signed_certificate_timestamps = b""
            self.handshake = None
        self.failure = failure
        self.waiting = 0
        self.read_closed = 1
        self.write_open = 0
        self.skip_budget = 0
        direction_wipe(&self.reading)
        direction_wipe(&self.writing)
        cleanse(self.read_secret, sizeof(self.read_secret))
        cleanse(self.write_secret, sizeof(self.write_secret))
        self.forget_session()
        bytes_free(&self.pending)

    # --- for policies and logs

    cdef AwaitedRegister register_asked(self):
        return (<Server13> self.handshake).config.replay if self.waiting == TLS_WAIT_REGISTER else None

    @property
    def asked_register(self):
        """During WAIT_REGISTER: the AwaitedRegister."""
        return self.register_asked()

    @property
    def asked_name(self):
        """During WAIT_REGISTER: what early data goes by there."""
        cdef AwaitedRegister register = self.register_asked()
        if register is None:
            return None
        return register.name_of((<Server13> self.handshake).psk.binder, (<Server13> self.handshake).psk.binder_length)

    @property
    def signer(self):
        """During WAIT_SIGN: the credential's object that is to sign."""
        return self.handshake.signer if self.waiting == TLS_WAIT_SIGN else None

    @property
    def to_sign(self):
        """During WAIT_SIGN: (message, scheme)."""
        return (self.handshake.to_sign, self.handshake.scheme) if self.waiting == TLS_WAIT_SIGN else None

    @property
    def certificate_request(self):
        """During WAIT_CERTIFICATE: (version, the CertificateRequest, whole)."""
        if self.waiting != TLS_WAIT_CERTIFICATE:
            return None
        return self.handshake.version, self.handshake.request

    @property
    def handshake_confirmed(self):
        """Whether what was read is no replay, and what is read now."""
        return self.established

    @property
    def handshaking(self):
        """Whether a handshake object is held."""
        return self.handshake is not None

    @property
    def description(self):
        """One line for a log: "TLSv1.3 TLS_AES_128_GCM_SHA256 x25519 ecdsa_secp256r1_sha256"."""
        return describe(self.version, self.cipher_suite, self.group, self.signature_scheme)


# --- helpers

cdef inline ssize_t message_length(const uint8_t *header) noexcept nogil:
    """Of a handshake message with its header, by the header."""
    return HANDSHAKE_HEADER + ((<ssize_t> header[1] << 16) | (header[2] << 8) | header[3])


cdef str text(const char *reason):
    return reason.decode("ascii") if reason != NULL else ""
