"""The client's side of a TLS 1.3 handshake (see the .pxd): one do_* per state, in flight order, and one loop."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memcmp, memset

from cext.base.buffer cimport bytes_append, bytes_free
from cext.base.wire cimport Reader, Writer, left, written
from cext.crypto.aead cimport AEAD_AES_128_GCM, AEAD_AES_256_GCM, AEAD_CHACHA20_POLY1305
from cext.crypto.hash_kdf cimport (
    HASH_SHA256,
    HASH_SHA384,
    cleanse,
    equal_constant_time,
    hash_length,
    random_bytes,
)
from cext.crypto.kx cimport KX_SHARE_MAX, KX_SHARED_MAX
from cext.crypto.sign cimport SIGNATURE_MAX
from cext.tls.client_auth cimport ask_trust
from cext.tls.compression cimport decompress_certificate
from cext.tls.config cimport KEY_SHARES_MAX, Wanted
from cext.tls.credential cimport variant_for
from cext.tls.constants cimport (
    HANDSHAKE_HEADER,
    HS_CERTIFICATE,
    HS_CERTIFICATE_REQUEST,
    HS_CERTIFICATE_VERIFY,
    HS_COMPRESSED_CERTIFICATE,
    HS_ENCRYPTED_EXTENSIONS,
    HS_FINISHED,
    HS_SERVER_HELLO,
    RANDOM_LENGTH,
    TLS12,
    TLS13,
    TLS_AES_128_GCM_SHA256,
    TLS_AES_256_GCM_SHA384,
    bad_certificate,
    bad_certificate_status_response,
    decrypt_error,
    illegal_parameter,
    internal_error,
    missing_extension,
    protocol_version,
    unexpected_message,
)
from cext.tls.extensions cimport X_COMPRESS_CERTIFICATE, X_EARLY_DATA, X_PRE_SHARED_KEY, X_SESSION_TICKET
from cext.tls.handshake cimport (
    ACTION_CCS,
    ACTION_READ_KEYS,
    ACTION_WRITE_KEYS,
    LEVEL_APPLICATION,
    LEVEL_EARLY,
    LEVEL_HANDSHAKE,
    LEVEL_INITIAL,
    STEP_DONE,
    STEP_NEED_MESSAGE,
    STEP_OK,
    STEP_OTHER_VERSION,
    STEP_WAIT_CERTIFICATE,
)
from cext.tls.key_schedule cimport (
    LABEL_CLIENT_APPLICATION,
    LABEL_CLIENT_EARLY,
    LABEL_CLIENT_HANDSHAKE,
    LABEL_EXPORTER_MASTER,
    LABEL_RESUMPTION_MASTER,
    LABEL_SERVER_APPLICATION,
    LABEL_SERVER_HANDSHAKE,
    derive_secret,
    finished_verify_data,
    psk_binder,
    schedule_early,
    schedule_handshake,
    schedule_master,
    schedule_resumed,
    schedule_wipe,
)
from cext.tls.certificates cimport (
    CERTIFICATE_VERIFY_INPUT_MAX, Certificate, CertificateRequest, CertificateVerify, build_certificate_verify,
    build_empty_certificate, certificate_verify_input, parse_certificate,
    parse_certificate_request, parse_certificate_verify)
from cext.tls.messages cimport (
    ClientHelloParts, EncryptedExtensions, KeyShare, build_client_hello, build_end_of_early_data, build_finished,
    parse_encrypted_extensions, parse_finished, parse_server_hello)
from cext.tls.negotiate cimport is_among
from cext.tls.session cimport wall_clock
from cext.tls.transcript cimport Transcript, transcript_add, transcript_hash, transcript_init, transcript_retry, transcript_select

cdef enum:
    HELLO_ROOM = 256                    # of a ClientHello, beside its lists, shares and cookie
    TICKET_OFFERED_MAX = 1 << 15        # bytes: all extensions of a ClientHello together have 2^16
    MESSAGE_MAX = 1 << 16               # bytes of a server's message, except
    CERTIFICATE_MAX = 1 << 18           # its Certificate


cdef class Client13(Handshake):
    """The client's handshake for one connection; made and driven by it."""

    def __init__(self, ClientConfig config not None, Session session=None):
        self.config = config
        session = config.session if session is None else session
        self.session = self.usable(session)
        self.session12 = self.usable12(session)
        self.authenticated = wall_clock()
        self.server_name = config.server_name
        self.exchanges = []
        transcript_init(&self.transcript, 0)

    def __dealloc__(self):
        cleanse(self.server_secret, HASH_MAX)
        cleanse(self.client_secret, HASH_MAX)
        bytes_free(&self.messages)

    cdef int advance(self, const uint8_t *message, size_t n) noexcept:
        cdef int step
        if message != NULL and n < HANDSHAKE_HEADER or (
            message == NULL and self.state != CLIENT_SEND_CLIENT_HELLO and self.signature is None
            and not self.decided
        ):
            return self.fail(internal_error, "advance without a whole message")
        step = Handshake.advance(self, message, n)
        self.cookie.p = NULL
        if step < 0:
            self.exchanges = None
        return step

    cdef int run(self) except -1:
        cdef int step = STEP_OK
        while step == STEP_OK:
            if self.state == CLIENT_SEND_CLIENT_HELLO:
                step = self.do_send_client_hello()
            elif self.state == CLIENT_READ_SERVER_HELLO:
                step = self.do_read_server_hello()
            elif self.state == CLIENT_SEND_SECOND_CLIENT_HELLO:
                step = self.do_send_second_client_hello()
            elif self.state == CLIENT_READ_SECOND_SERVER_HELLO:
                step = self.do_read_second_server_hello()
            elif self.state == CLIENT_READ_ENCRYPTED_EXTENSIONS:
                step = self.do_read_encrypted_extensions()
            elif self.state == CLIENT_READ_CERTIFICATE_REQUEST:
                step = self.do_read_certificate_request()
            elif self.state == CLIENT_READ_CERTIFICATE:
                step = self.do_read_certificate()
            elif self.state == CLIENT_READ_CERTIFICATE_VERIFY:
                step = self.do_read_certificate_verify()
            elif self.state == CLIENT_READ_FINISHED:
                step = self.do_read_finished()
            elif self.state == CLIENT_SEND_END_OF_EARLY_DATA:
                step = self.do_send_end_of_early_data()
            elif self.state == CLIENT_SEND_CERTIFICATE:
                step = self.do_send_certificate()
            elif self.state == CLIENT_SEND_CERTIFICATE_VERIFY:
                step = self.do_send_certificate_verify()
            elif self.state == CLIENT_SEND_FINISHED:
                step = self.do_send_finished()
            else:
                return self.fail(unexpected_message, "a handshake message after the handshake")
        return step

    cdef int admit(self, int type, size_t length) noexcept nogil:
        cdef bint certificate = type == HS_CERTIFICATE
        if type == HS_COMPRESSED_CERTIFICATE and self.offered >> <int> X_COMPRESS_CERTIFICATE & 1:
            certificate = 1             # it stands for one (RFC 8879, section 4)
        if not is_expected(self.state, HS_CERTIFICATE if certificate else type):
            return self.fail(unexpected_message, "not the handshake message that comes now")
        if length > <size_t> (CERTIFICATE_MAX if certificate else MESSAGE_MAX):
            return self.fail(illegal_parameter, "a handshake message is too large")
        return 0

    cdef int take_message(self) noexcept nogil:
        """For the states that read: whether there is a message, and of the right type."""
        if self.message == NULL:
            return STEP_NEED_MESSAGE
        return self.admit(self.message[0], self.message_length - HANDSHAKE_HEADER)

    # --- ClientHello ---------------------------------------------------------------------------------------------

    cdef int do_send_client_hello(self) except -1:
        cdef int step
        if random_bytes(self.client_random, RANDOM_LENGTH) < 0:
            return self.fail(internal_error, "no randomness")
        # With a ticket of TLS 1.2 the session_id tells whether it is honoured (RFC 5077, section 3.4).
        if self.session12 is not None or (self.config.middlebox_compatibility and self.config.max_version == TLS13):
            self.session_id_length = SESSION_ID_MAX
            if random_bytes(self.session_id, SESSION_ID_MAX) < 0:
                return self.fail(internal_error, "no randomness")
        # Made once: a second ClientHello repeats random and session id, and what shares the server does not replace.
        step = self.make_shares(self.config.key_share_groups, self.config.n_key_share_groups)
        self.early_offered = self.session is not None and self.early_data_fits()
        if step == STEP_OK:
            step = self.write_client_hello()
        if step == STEP_OK and self.early_offered:
            step = self.begin_early_data()
        self.state = CLIENT_READ_SERVER_HELLO
        return step

    cdef bint may_offer(self, Session session, int version):
        """Whether it may be offered at all: to the same name, in its time, where a ClientHello has room for its ticket,
        and not to a server whose certificate is to be verified and never was."""
        return (session is not None and self.config.tickets and session.version == version
                and session.is_alive(wall_clock()) and len(session.ticket) <= TICKET_OFFERED_MAX
                and session.server_name == self.config.server_name
                and (self.config.verify is None or session.verified))

    cdef Session usable(self, Session session):
        """The session, if it may be offered, with a hash that a suite of ours has."""
        cdef size_t i
        if not self.may_offer(session, TLS13):
            return None
        for i in range(self.config.n_cipher_suites):
            if suite_hash(self.config.cipher_suites[i]) == session.hash():
                return session
        return None

    cdef Session usable12(self, Session session):
        """Likewise a session of TLS 1.2, by its ticket; never one without the extended master secret (RFC 7627, section
        5.3)."""
        if not self.may_offer(session, TLS12):
            return None
        if not session.extended_master_secret or not is_among(
                <uint16_t> session.cipher_suite, self.config.cipher_suites12, self.config.n_cipher_suites12):
            return None
        return session

    cdef bint early_data_fits(self):
        """Early data goes out under the session's own suite and protocol (section 4.2.10)."""
        return (self.config.early_data and self.session.max_early_data > 0
                and is_among(<uint16_t> self.session.cipher_suite, self.config.cipher_suites,
                             self.config.n_cipher_suites)
                and (self.session.alpn in self.config.alpn if self.session.alpn else not self.config.alpn))

    cdef int begin_early_data(self) noexcept nogil:
        """From here on application data may follow the ClientHello."""
        cdef Transcript transcript = self.transcript
        cdef uint8_t digest[HASH_MAX]
        cdef uint8_t secret[HASH_MAX]
        cdef int code
        self.set_suite(self.session.cipher_suite)
        self.max_early_data = self.session.max_early_data
        transcript_select(&transcript, self.hash)
        transcript_hash(&transcript, digest)
        derive_secret(&self.schedule, LABEL_CLIENT_EARLY, digest, secret)
        # In front of the early data, not of the second flight (appendix D.4).
        if self.config.middlebox_compatibility and self.add_action(ACTION_CCS, LEVEL_INITIAL) < 0:
            return -internal_error
        code = self.add_keys(ACTION_WRITE_KEYS, LEVEL_EARLY, secret)
        cleanse(secret, HASH_MAX)
        return code

    cdef int make_shares(self, const uint16_t *groups, size_t n) except -1:
        cdef KeyExchange exchange
        cdef uint8_t share[KX_SHARE_MAX]
        cdef size_t i, length = 0
        self.exchanges = []
        self.shares = []
        for i in range(n):
            exchange = KeyExchange()
            if exchange.generate(groups[i], share, &length) < 0:
                return self.fail(internal_error, "a key share could not be made")
            self.exchanges.append(exchange)
            self.shares.append(PyBytes_FromStringAndSize(<const char *> share, length))
        return STEP_OK

    cdef int write_client_hello(self) except -1:
        cdef ClientConfig config = self.config
        cdef ClientHelloParts parts
        cdef KeyShare shares[KEY_SHARES_MAX]
        cdef bytes share
        cdef Writer w
        cdef size_t i
        cdef size_t room = HELLO_ROOM + len(config.cipher_suite_list) + len(config.extensions) + left(&self.cookie)
        memset(&parts, 0, sizeof(parts))
        self.offered = config.offered
        if self.session is not None:
            parts.ticket = <const uint8_t *> <const char *> self.session.ticket
            parts.ticket_len = len(self.session.ticket)
            parts.obfuscated_ticket_age = <uint32_t> (wall_clock() - self.session.received) + self.session.age_add
            parts.binder_len = hash_length(self.session.hash())
            parts.early_data = self.early_offered
            self.offered |= <uint64_t> 1 << <int> X_PRE_SHARED_KEY
            self.offered |= <uint64_t> self.early_offered << <int> X_EARLY_DATA
            room += parts.ticket_len
        if config.min_version == TLS12 and config.tickets:
            parts.session_ticket = <const uint8_t *> b""
            if self.session12 is not None:
                parts.session_ticket = <const uint8_t *> <const char *> self.session12.ticket
                parts.session_ticket_len = len(self.session12.ticket)
            self.offered |= <uint64_t> 1 << <int> X_SESSION_TICKET
            room += 4 + parts.session_ticket_len
        for i in range(<size_t> len(self.exchanges)):
            shares[i].group = <uint16_t> (<KeyExchange> self.exchanges[i]).group
            share = self.shares[i]
            shares[i].data = share
            shares[i].len = len(share)
            room += 4 + len(share)
        parts.random = self.client_random
        parts.session_id = self.session_id
        parts.session_id_len = self.session_id_length
        parts.cipher_suites = config.cipher_suite_list
        parts.cipher_suites_len = len(config.cipher_suite_list)
        parts.extensions = config.extensions
        parts.extensions_len = len(config.extensions)
        parts.shares = shares if self.config.max_version == TLS13 else NULL
        parts.n_shares = len(self.exchanges)
        parts.cookie = self.cookie.p
        parts.cookie_len = left(&self.cookie)
        if self.open_message(&w, room) < 0:
            return -internal_error
        build_client_hello(&w, &parts)
        if self.session is not None and not w.overflow:
            self.write_binder(&w)
        # A CertificateVerify of TLS 1.2 signs the messages themselves (RFC 5246, section 7.4.8).
        if config.min_version == TLS12 and (config.credentials or config.policy) and bytes_append(
                &self.messages, w.start, written(&w)) < 0:
            return self.fail(internal_error, "out of memory")
        return self.close_message(&w, LEVEL_INITIAL)

    cdef void write_binder(self, Writer *w) noexcept nogil:
        """Over the transcript with this ClientHello, up to its binders (section 4.2.11.2)."""
        cdef Transcript transcript = self.transcript
        cdef uint8_t digest[HASH_MAX]
        cdef int hash = self.session.hash()
        cdef size_t n = hash_length(hash)
        schedule_early(&self.schedule, hash, self.session.secret, self.session.secret_length)
        transcript_select(&transcript, hash)
        transcript_add(&transcript, w.start, written(w) - 3 - n)
        transcript_hash(&transcript, digest)
        psk_binder(&self.schedule, digest, w.p - n)

    # --- ServerHello, HelloRetryRequest --------------------------------------------------------------------------

    cdef int do_read_server_hello(self) except -1:
        cdef ServerHello sh
        cdef int step = self.take_message()
        if step != STEP_OK:
            return step
        step = parse_server_hello(self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER,
                                  self.offered, &sh)
        if step < 0:
            return self.fail(-step, sh.reason)
        # After early data there is no way back to TLS 1.2 (RFC 8446 appendix D.3).
        if sh.selected_version == 0 and self.config.min_version == TLS12 and not (
            self.hello_retried or self.early_offered
        ):
            return STEP_OTHER_VERSION
        step = self.check_server_hello(&sh)
        if step != STEP_OK:
            return step
        return self.take_retry(&sh) if sh.retry else self.take_server_hello(&sh)

    cdef int check_server_hello(self, const ServerHello *sh) noexcept nogil:
        """What ServerHello and HelloRetryRequest must both be to our ClientHello (section 4.1.3)."""
        if sh.selected_version != TLS13:
            return self.fail(protocol_version, "the server does not speak TLS 1.3")
        if (
            left(&sh.legacy_session_id_echo) != self.session_id_length
            or memcmp(sh.legacy_session_id_echo.p, self.session_id, self.session_id_length) != 0
        ):
            return self.fail(illegal_parameter, "legacy_session_id_echo is not what was sent")
        if self.hello_retried:
            if sh.retry:                        # section 4.1.4
                return self.fail(unexpected_message, "a second HelloRetryRequest")
            if sh.cipher_suite != self.cipher_suite:
                return self.fail(illegal_parameter, "ServerHello changes HelloRetryRequest's cipher suite")
            return STEP_OK
        return self.choose_suite(sh.cipher_suite)

    cdef int choose_suite(self, uint16_t suite) noexcept nogil:
        if not is_among(suite, self.config.cipher_suites, self.config.n_cipher_suites):
            return self.fail(illegal_parameter, "the server chose a cipher suite that was not offered")
        self.set_suite(suite)
        self.cipher_suite = suite
        transcript_select(&self.transcript, self.hash)
        return STEP_OK

    cdef void set_suite(self, int suite) noexcept nogil:
        self.hash = suite_hash(suite)
        if suite == TLS_AES_128_GCM_SHA256:
            self.aead = AEAD_AES_128_GCM
        elif suite == TLS_AES_256_GCM_SHA384:
            self.aead = AEAD_AES_256_GCM
        else:
            self.aead = AEAD_CHACHA20_POLY1305

    cdef int take_retry(self, const ServerHello *sh) except -1:
        cdef int step
        if sh.group == 0 and sh.cookie.p == NULL:   # section 4.1.4
            return self.fail(illegal_parameter, "HelloRetryRequest changes nothing")
        if sh.group != 0:
            # Section 4.2.8: a group we offered, and of which no share was sent.
            if (
                not is_among(sh.group, self.config.groups, self.config.n_groups)
                or is_among(sh.group, self.config.key_share_groups, self.config.n_key_share_groups)
            ):
                return self.fail(illegal_parameter, "HelloRetryRequest selects a group it may not")
            step = self.make_shares(&sh.group, 1)
            if step != STEP_OK:
                return step
        self.hello_retried = 1
        self.cookie = sh.cookie
        transcript_retry(&self.transcript)
        transcript_add(&self.transcript, self.message, self.message_length)
        self.state = CLIENT_SEND_SECOND_CLIENT_HELLO
        return STEP_OK

    cdef int do_send_second_client_hello(self) except -1:
        cdef int step
        if self.session is not None and self.session.hash() != self.hash:   # section 4.1.2
            self.session = None
        if self.early_offered:                  # a retry refuses early data: the second ClientHello goes in plaintext
            self.early_offered = 0
            if self.add_action(ACTION_WRITE_KEYS, LEVEL_INITIAL) < 0:
                return -internal_error
        elif self.config.middlebox_compatibility:
            if self.add_action(ACTION_CCS, LEVEL_INITIAL) < 0:
                return -internal_error
        step = self.write_client_hello()
        self.message = NULL                     # until now the cookie was read from it
        self.state = CLIENT_READ_SECOND_SERVER_HELLO
        return step

    cdef int do_read_second_server_hello(self) except -1:
        return self.do_read_server_hello()

    cdef int take_server_hello(self, const ServerHello *sh) except -1:
        cdef KeyExchange exchange
        cdef uint8_t shared[KX_SHARED_MAX]
        cdef uint8_t digest[HASH_MAX]
        cdef size_t n = KX_SHARED_MAX
        cdef int derived
        cdef bint early = self.early_offered
        if sh.share.p == NULL:
            return self.fail(missing_extension, "ServerHello without key_share")
        if sh.pre_shared_key.p != NULL:         # section 4.2.11: one of those offered, with its hash
            if sh.pre_shared_key.p[0] != 0 or sh.pre_shared_key.p[1] != 0:
                return self.fail(illegal_parameter, "selected_identity is none that was offered")
            if self.session.hash() != self.hash:
                return self.fail(illegal_parameter, "the cipher suite has another hash than the PSK")
            self.resumed = 1
        else:                                   # early data goes with the PSK: it cannot be accepted any more
            self.offered &= ~(<uint64_t> 1 << <int> X_EARLY_DATA)
        # After a HelloRetryRequest that chose a group the one share is of it (section 4.2.8).
        for exchange in self.exchanges:
            if exchange.group == sh.group:
                break
        else:
            return self.fail(illegal_parameter, "the server's key share is of a group without one of ours")
        derived = exchange.derive(sh.share.p, left(&sh.share), shared, &n)
        self.exchanges = self.shares = None
        if derived < 0:
            return self.fail(illegal_parameter, "the server's key share is none of its group")
        self.group = sh.group
        self.version = TLS13
        transcript_add(&self.transcript, self.message, self.message_length)
        transcript_hash(&self.transcript, digest)
        if self.resumed:
            schedule_resumed(&self.schedule, shared, n)
        else:
            schedule_handshake(&self.schedule, self.hash, shared, n)
        cleanse(shared, KX_SHARED_MAX)
        derive_secret(&self.schedule, LABEL_SERVER_HANDSHAKE, digest, self.server_secret)
        derive_secret(&self.schedule, LABEL_CLIENT_HANDSHAKE, digest, self.client_secret)
        # Before our second flight (appendix D.4), and already here: that flight may become an alert under the new keys.
        if self.config.middlebox_compatibility and not self.hello_retried and not early:
            if self.add_action(ACTION_CCS, LEVEL_INITIAL) < 0:
                return -internal_error
        if self.add_keys(ACTION_READ_KEYS, LEVEL_HANDSHAKE, self.server_secret) < 0:
            return -internal_error
        # Early data goes on until EncryptedExtensions refuses it, or to the end of the server's flight.
        if not early and self.add_keys(ACTION_WRITE_KEYS, LEVEL_HANDSHAKE, self.client_secret) < 0:
            return -internal_error
        self.message = NULL
        self.state = CLIENT_READ_ENCRYPTED_EXTENSIONS
        return STEP_OK

    # --- the server's encrypted flight ---------------------------------------------------------------------------

    cdef int do_read_encrypted_extensions(self) except -1:
        cdef EncryptedExtensions ee
        cdef bytes chosen, protocol
        cdef int step = self.take_message()
        if step != STEP_OK:
            return step
        step = parse_encrypted_extensions(self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER,
                                          self.offered, &ee)
        if step < 0:
            return self.fail(-step, ee.reason)
        if ee.alpn.p != NULL:
            chosen = (<const char *> ee.alpn.p)[:left(&ee.alpn)]
            for protocol in self.config.alpn:
                if protocol == chosen:
                    self.alpn = protocol
                    break
            else:                               # RFC 7301 section 3.2
                return self.fail(illegal_parameter, "the server chose a protocol that was not offered")
        if ee.record_size_limit:
            self.send_limit = ee.record_size_limit
            self.receive_limit = self.config.record_size_limit
        if ee.early_data:                       # section 4.2.10
            if not self.resumed or self.cipher_suite != self.session.cipher_suite or self.alpn != self.session.alpn:
                return self.fail(illegal_parameter, "early data is accepted under other parameters than the session's")
            self.early_accepted = 1
        elif self.early_offered and self.add_keys(ACTION_WRITE_KEYS, LEVEL_HANDSHAKE, self.client_secret) < 0:
            return -internal_error
        transcript_add(&self.transcript, self.message, self.message_length)
        self.message = NULL
        self.state = CLIENT_READ_CERTIFICATE_REQUEST
        if self.resumed:
            self.peer_certificates = self.session.chain
            self.ocsp_response = self.session.ocsp_response
            self.signed_certificate_timestamps = self.session.signed_certificate_timestamps
            self.authenticated = self.session.authenticated
            self.state = CLIENT_READ_FINISHED
        return STEP_OK

    cdef int do_read_certificate_request(self) except -1:
        cdef CertificateRequest cr
        cdef int step = self.take_message()
        if step != STEP_OK:
            return step
        # The one optional message of the flight: without it this is the Certificate, for the next state to read.
        self.state = CLIENT_READ_CERTIFICATE
        if self.message[0] != HS_CERTIFICATE_REQUEST:
            return STEP_OK
        step = parse_certificate_request(self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER, &cr)
        if step < 0:
            return self.fail(-step, cr.reason)
        if left(&cr.request_context):           # section 4.3.2
            return self.fail(illegal_parameter, "certificate_request_context is not empty in the handshake")
        self.request = (<const char *> self.message)[:self.message_length]
        transcript_add(&self.transcript, self.message, self.message_length)
        self.message = NULL
        return STEP_OK

    cdef int do_read_certificate(self) except -1:
        cdef Certificate c
        cdef const uint8_t *body
        cdef size_t n
        cdef bytes decompressed         # what `body` may point into
        cdef int step = self.take_message()
        if step != STEP_OK:
            return step
        body, n = self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER
        if self.message[0] == HS_COMPRESSED_CERTIFICATE:
            decompressed = decompress_certificate(self.config.certificate_compression, body, n, CERTIFICATE_MAX, &step,
                                                  &self.reason)
            if decompressed is None:
                return step
            body, n = decompressed, len(decompressed)
        step = parse_certificate(body, n, True, self.offered, &c)
        if step < 0:
            return self.fail(-step, c.reason)
        try:
            self.server_key = self.config.public_key(c.leaf)
        except ValueError as error:
            self.reason = NULL
            self.error = str(error)
            return -bad_certificate
        self.peer_certificates = self.config.chain_of(c.entries)
        if self.config.verify is not None:
            step = ask_trust(self, self.config.verify, (list(self.peer_certificates), self.config.server_name))
            if step < 0:
                return step
        self.ocsp_response = content(&c.ocsp_response)
        self.signed_certificate_timestamps = content(&c.timestamps)
        if self.config.verify_status is not None:
            step = ask_trust(self, self.config.verify_status, (list(self.peer_certificates), self.ocsp_response),
                             bad_certificate_status_response)
            if step < 0:
                return step
        transcript_add(&self.transcript, self.message, self.message_length)
        self.message = NULL
        self.state = CLIENT_READ_CERTIFICATE_VERIFY
        return STEP_OK

    cdef int do_read_certificate_verify(self) except -1:
        cdef CertificateVerify cv
        cdef uint8_t digest[HASH_MAX]
        cdef uint8_t signed[CERTIFICATE_VERIFY_INPUT_MAX]
        cdef size_t n
        cdef int step = self.take_message()
        if step != STEP_OK:
            return step
        step = parse_certificate_verify(self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER, &cv)
        if step < 0:
            return self.fail(-step, cv.reason)
        if not is_among(cv.algorithm, self.config.schemes, self.config.n_schemes):      # section 4.4.3
            return self.fail(illegal_parameter, "CertificateVerify uses an algorithm that was not offered")
        if not self.server_key.supports(cv.algorithm):
            return self.fail(illegal_parameter, "CertificateVerify uses an algorithm that does not fit the key")
        # Signed is the transcript up to the Certificate: this message is not in it yet.
        transcript_hash(&self.transcript, digest)
        n = certificate_verify_input(True, digest, hash_length(self.hash), signed)
        if self.server_key.verify(cv.algorithm, signed, n, cv.signature.p, left(&cv.signature)) != 0:
            return self.fail(decrypt_error, "CertificateVerify does not verify")
        self.signature_scheme = cv.algorithm
        self.server_key = None
        transcript_add(&self.transcript, self.message, self.message_length)
        self.message = NULL
        self.state = CLIENT_READ_FINISHED
        return STEP_OK

    cdef int do_read_finished(self) except -1:
        cdef Reader verify_data
        cdef uint8_t digest[HASH_MAX]
        cdef uint8_t expected[HASH_MAX]
        cdef const char *reason = ""
        cdef int step = self.take_message()
        if step != STEP_OK:
            return step
        step = parse_finished(self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER,
                              hash_length(self.hash), &verify_data, &reason)
        if step < 0:
            return self.fail(decrypt_error, reason)      # incorrect, be it by its length: section 4.4.4
        transcript_hash(&self.transcript, digest)
        finished_verify_data(self.hash, self.server_secret, digest, expected)
        if not equal_constant_time(expected, verify_data.p, hash_length(self.hash)):    # section 4.4.4
            return self.fail(decrypt_error, "the server's Finished does not verify")
        # Only here: an alert under the keys of early data would not reach a server that passes that over.
        if self.resumed and self.config.verify_resumed and self.config.verify is not None:
            step = ask_trust(self, self.config.verify, (list(self.peer_certificates), self.config.server_name))
            if step < 0:
                return step
        transcript_add(&self.transcript, self.message, self.message_length)
        self.state = CLIENT_SEND_END_OF_EARLY_DATA
        return STEP_OK

    # --- our flight ----------------------------------------------------------------------------------------------

    cdef int do_send_end_of_early_data(self) noexcept nogil:
        """The last record under the early keys, if they are in use (section 4.5)."""
        cdef Writer w
        # The application secrets cover the messages up to the server's Finished (section 7.1), not our flight.
        transcript_hash(&self.transcript, self.server_finished)
        self.state = CLIENT_SEND_CERTIFICATE
        if not self.early_accepted:
            return STEP_OK
        if self.open_message(&w, HANDSHAKE_HEADER) < 0:
            return -internal_error
        build_end_of_early_data(&w)
        if self.close_message(&w, LEVEL_EARLY) < 0:
            return -internal_error
        return self.add_keys(ACTION_WRITE_KEYS, LEVEL_HANDSHAKE, self.client_secret)

    cdef int do_send_certificate(self) except -1:
        """Our Certificate (section 4.4.2), without certificates when ours cannot sign as the server wants."""
        cdef Writer w
        cdef const uint8_t *message
        cdef int code
        if self.request is not None:
            if self.config.policy and not self.decided:
                return STEP_WAIT_CERTIFICATE
            code = self.choose_credential()
            if code < 0:
                return code
        self.state = CLIENT_SEND_FINISHED
        if self.request is None:
            return STEP_OK
        if self.credential is None:
            if self.open_message(&w, 2 * HANDSHAKE_HEADER) < 0:
                return -internal_error
            build_empty_certificate(&w, NULL, 0)
            return self.close_message(&w, LEVEL_HANDSHAKE)
        message = self.certificate
        self.state = CLIENT_SEND_CERTIFICATE_VERIFY
        return self.add_message(message, len(self.certificate), LEVEL_HANDSHAKE)

    cdef int choose_credential(self) except -1:
        cdef CertificateRequest cr
        cdef Wanted wanted
        parse_certificate_request(<const uint8_t *> <const char *> self.request + HANDSHAKE_HEADER,
                                  len(self.request) - HANDSHAKE_HEADER, &cr)
        memset(&wanted, 0, sizeof(wanted))
        wanted.schemes = cr.signature_algorithms
        wanted.authorities = cr.authorities
        self.credential = self.config.select_credential(self.chosen, TLS13, &wanted, &self.client_scheme)
        if self.chosen is not None and self.credential is None:
            return self.fail(internal_error, "the certificate that was chosen cannot sign as the server wants")
        if self.credential is not None:
            self.certificate = self.credential.certificate_message(
                variant_for(cr.status_request, cr.signed_certificate_timestamp), cr.compress_certificate)
        return 0

    cdef int do_send_certificate_verify(self) except -1:
        """Our CertificateVerify (section 4.4.3)."""
        cdef Writer w
        cdef uint8_t digest[HASH_MAX]
        cdef uint8_t signed[CERTIFICATE_VERIFY_INPUT_MAX]
        cdef uint8_t signature[SIGNATURE_MAX]
        cdef size_t n, signature_length = SIGNATURE_MAX
        cdef int step
        transcript_hash(&self.transcript, digest)
        n = certificate_verify_input(False, digest, hash_length(self.hash), signed)
        step = self.sign(self.credential, self.client_scheme, signed, n, signature, &signature_length)
        if step != STEP_OK:
            return step
        if self.open_message(&w, HANDSHAKE_HEADER + 4 + signature_length) < 0:
            return -internal_error
        build_certificate_verify(&w, <uint16_t> self.client_scheme, signature, signature_length)
        self.state = CLIENT_SEND_FINISHED
        return self.close_message(&w, LEVEL_HANDSHAKE)

    cdef int do_send_finished(self) noexcept nogil:
        """Our Finished (section 4.4.4), and with it all that is still needed of the key schedule."""
        cdef Writer w
        cdef size_t n = hash_length(self.hash)
        cdef uint8_t digest[HASH_MAX]
        cdef uint8_t verify_data[HASH_MAX]
        cdef uint8_t client[HASH_MAX]
        cdef uint8_t server[HASH_MAX]
        cdef int step
        transcript_hash(&self.transcript, digest)
        finished_verify_data(self.hash, self.client_secret, digest, verify_data)
        if self.open_message(&w, HANDSHAKE_HEADER + n) < 0:
            return -internal_error
        build_finished(&w, verify_data, n)
        step = self.close_message(&w, LEVEL_HANDSHAKE)
        schedule_master(&self.schedule)
        derive_secret(&self.schedule, LABEL_CLIENT_APPLICATION, self.server_finished, client)
        derive_secret(&self.schedule, LABEL_SERVER_APPLICATION, self.server_finished, server)
        derive_secret(&self.schedule, LABEL_EXPORTER_MASTER, self.server_finished, self.exporter_secret)
        if step == STEP_OK and (
            self.add_keys(ACTION_WRITE_KEYS, LEVEL_APPLICATION, client) < 0
            or self.add_keys(ACTION_READ_KEYS, LEVEL_APPLICATION, server) < 0
        ):
            step = -internal_error
        transcript_hash(&self.transcript, digest)
        derive_secret(&self.schedule, LABEL_RESUMPTION_MASTER, digest, self.resumption_secret)
        cleanse(client, HASH_MAX)
        cleanse(server, HASH_MAX)
        cleanse(self.server_secret, HASH_MAX)
        cleanse(self.client_secret, HASH_MAX)
        schedule_wipe(&self.schedule)
        self.state = CLIENT_CONFIRMED
        return STEP_DONE if step == STEP_OK else step


cdef bytes content(const Reader *r):
    return (<const char *> r.p)[:left(r)] if r.p != NULL else b""


cdef int suite_hash(int suite) noexcept nogil:
    return HASH_SHA384 if suite == TLS_AES_256_GCM_SHA384 else HASH_SHA256


cdef bint is_expected(int state, int type) noexcept nogil:
    if state == CLIENT_READ_SERVER_HELLO or state == CLIENT_READ_SECOND_SERVER_HELLO:
        return type == HS_SERVER_HELLO
    if state == CLIENT_READ_ENCRYPTED_EXTENSIONS:
        return type == HS_ENCRYPTED_EXTENSIONS
    if state == CLIENT_READ_CERTIFICATE_REQUEST:
        return type == HS_CERTIFICATE_REQUEST or type == HS_CERTIFICATE
    if state == CLIENT_READ_CERTIFICATE:
        return type == HS_CERTIFICATE
    if state == CLIENT_READ_CERTIFICATE_VERIFY:
        return type == HS_CERTIFICATE_VERIFY
    if state == CLIENT_READ_FINISHED:
        return type == HS_FINISHED
    return 0
