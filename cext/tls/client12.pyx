"""The client's side of a TLS 1.2 handshake (see the .pxd): one do_* per state, in flight order. Section numbers are RFC
5246's unless another RFC is named."""

cimport cython
from libc.string cimport memcmp, memcpy

from cext.base.wire cimport Writer, left
from cext.crypto.aead cimport AEAD_AES_128_GCM, AEAD_AES_256_GCM, AEAD_CHACHA20_POLY1305
from cext.crypto.hash_kdf cimport HASH_MAX, HASH_SHA256, HASH_SHA384, cleanse, equal_constant_time, hmac_key
from cext.crypto.kx cimport KX_SHARED_MAX, KeyExchange
from cext.tls.client13 cimport Client13
from cext.tls.constants cimport (
    HANDSHAKE_HEADER, HS_CERTIFICATE, HS_CERTIFICATE_REQUEST, HS_FINISHED, HS_HELLO_REQUEST,
    HS_NEW_SESSION_TICKET, HS_SERVER_HELLO, HS_SERVER_HELLO_DONE, HS_SERVER_KEY_EXCHANGE, TLS12, TLS13,
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, bad_certificate, decode_error,
    decrypt_error, handshake_failure, illegal_parameter,
    internal_error, unexpected_message)
from cext.tls.handshake cimport (
    ACTION_CCS, ACTION_READ_KEYS, ACTION_WRITE_KEYS, LEVEL_APPLICATION, LEVEL_INITIAL, STEP_DONE, STEP_NEED_MESSAGE,
    STEP_OK)
from cext.tls.messages cimport build_finished, parse_finished
from cext.tls.key_log cimport log_secret
from cext.tls.messages12 cimport (
    ECDHE_PARAMS_MAX, Certificate12, CertificateRequest12, NewSessionTicket12, ServerKeyExchange,
    build_client_key_exchange, build_empty_certificate12, next_certificate12, parse_certificate12,
    parse_certificate_request12, parse_new_session_ticket12, parse_server_hello12, parse_server_hello_done,
    parse_server_key_exchange)
from cext.tls.negotiate cimport is_ecdsa_suite, is_group12, protocol_of, is_among
from cext.tls.prf12 cimport FINISHED12_LENGTH, extended_master_secret, finished12, key_block, master_secret
from cext.tls.tickets12 cimport make_session12
from cext.tls.transcript cimport transcript_add, transcript_hash, transcript_select

from cext.tls.alert import TlsAlert
from cext.tls.credential import CURVES

cdef enum:
    MESSAGE_MAX = 1 << 16               # bytes of a server's message, except
    CERTIFICATE_MAX = 1 << 18           # its Certificate
    HELLO_REQUESTS_MAX = 4
    DOWNGRADE_LENGTH = 8

# RFC 8446, section 4.1.3; its last byte tells the version: 1 for TLS 1.2, 0 for what is older.
cdef const char *DOWNGRADE = b"DOWNGRD"


@cython.no_gc
cdef class Client12(Handshake):
    """Client12(config, client13): goes on after that one's ClientHello; made and driven by the connection."""

    def __cinit__(self, ClientConfig config not None, Client13 before not None):
        self.config = config
        self.server_name = config.server_name
        self.transcript = before.transcript
        self.state = C12_READ_SERVER_HELLO
        self.version = TLS12
        self.session = before.session12
        self.offered = before.offered
        self.session_id_length = before.session_id_length
        memcpy(self.client_random, before.client_random, RANDOM_LENGTH)
        memcpy(self.session_id, before.session_id, SESSION_ID_MAX)

    def __dealloc__(self):
        cleanse(self.master_secret, sizeof(self.master_secret))
        cleanse(&self.master, sizeof(self.master))
        cleanse(self.client_keys, sizeof(self.client_keys))
        cleanse(self.server_keys, sizeof(self.server_keys))

    cdef int admit(self, int type, size_t length) noexcept nogil:
        if type == HS_HELLO_REQUEST and self.state < C12_READ_NEW_SESSION_TICKET:
            if length:
                return self.fail(decode_error, "HelloRequest is not empty")
            self.hello_requests += 1
            if self.hello_requests > HELLO_REQUESTS_MAX:
                return self.fail(unexpected_message, "too many HelloRequests")
            return 0
        if not is_expected(self.state, type):
            return self.fail(unexpected_message, "not the handshake message that comes now")
        if length > <size_t> (CERTIFICATE_MAX if type == HS_CERTIFICATE else MESSAGE_MAX):
            return self.fail(illegal_parameter, "a handshake message is too large")
        return 0

    cdef int change_cipher_spec(self) noexcept nogil:
        """Section 7.1: once, before the server's Finished; at no other place is it passed over."""
        if self.state != C12_READ_CHANGE_CIPHER_SPEC:
            return self.fail(unexpected_message, "a change_cipher_spec that cannot come now")
        if self.add_keys(ACTION_READ_KEYS, LEVEL_APPLICATION, self.server_keys) < 0:
            return -internal_error
        cleanse(self.server_keys, sizeof(self.server_keys))
        self.state = C12_READ_FINISHED
        return STEP_NEED_MESSAGE

    cdef int advance(self, const uint8_t *message, size_t n) noexcept:
        cdef int step
        # "This message MUST be ignored by the client if the client is currently negotiating a session", nor is it part
        # of the transcript (section 7.4.1.1).
        if message[0] == HS_HELLO_REQUEST:
            return STEP_NEED_MESSAGE
        self.message = message
        self.message_length = n
        try:
            step = self.run()
        except Exception as e:
            step = self.fail_exception(e)
        self.message = NULL
        if step < 0:
            self.clear_flight()
        return step

    cdef int run(self) except -1:
        cdef int step = STEP_OK
        while step == STEP_OK:
            if self.state == C12_READ_SERVER_HELLO:
                step = self.do_read_server_hello()
            elif self.state == C12_READ_CERTIFICATE:
                step = self.do_read_certificate()
            elif self.state == C12_READ_SERVER_KEY_EXCHANGE:
                step = self.do_read_server_key_exchange()
            elif self.state == C12_READ_CERTIFICATE_REQUEST:
                step = self.do_read_certificate_request()
            elif self.state == C12_READ_SERVER_HELLO_DONE:
                step = self.do_read_server_hello_done()
            elif self.state == C12_SEND_FLIGHT:
                step = self.do_send_flight()
            elif self.state == C12_READ_NEW_SESSION_TICKET:
                step = self.do_read_new_session_ticket()
            elif self.state == C12_READ_CHANGE_CIPHER_SPEC:
                step = STEP_NEED_MESSAGE            # change_cipher_spec() goes on
            elif self.state == C12_READ_FINISHED:
                step = self.do_read_finished()
            elif self.state == C12_SEND_FINISHED:
                step = self.do_send_finished()
            else:
                step = STEP_DONE
        return step

    cdef int take_message(self) noexcept nogil:
        """For the states that read: whether there is a message, and of the right type."""
        if self.message == NULL:
            return STEP_NEED_MESSAGE
        if not is_expected(self.state, self.message[0]):
            return self.fail(unexpected_message, "not the handshake message that comes now")
        return STEP_OK

    cdef void taken(self, int state) noexcept nogil:
        """The message is done with, and `state` reads the next."""
        transcript_add(&self.transcript, self.message, self.message_length)
        self.message = NULL
        self.state = state

    # --- the server's flight

    cdef int do_read_server_hello(self) except -1:
        """ServerHello (section 7.4.1.3)."""
        cdef ServerHello12 sh
        cdef int step = self.take_message()
        if step != STEP_OK:
            return step
        step = parse_server_hello12(self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER,
                                    self.offered, &sh)
        if step < 0:
            return self.fail(-step, sh.reason)
        step = self.check_server_hello(&sh)
        if step < 0:
            return step
        if sh.alpn.p != NULL:
            self.alpn = protocol_of(self.config.alpn, &sh.alpn)
            if self.alpn not in self.config.alpn:           # RFC 7301, section 3.2
                return self.fail(illegal_parameter, "the server chose a protocol that was not offered")
        memcpy(self.server_random, sh.random.p, RANDOM_LENGTH)
        self.extended_master_secret = sh.extended_master_secret
        self.ticket_promised = sh.session_ticket
        if self.is_resumption(&sh):
            return self.resume(&sh)
        self.taken(C12_READ_CERTIFICATE)
        return STEP_OK

    cdef bint is_resumption(self, const ServerHello12 *sh) noexcept nogil:
        """The server honours a ticket by the session_id that came with it (RFC 5077, section 3.4)."""
        return (self.session_id_length and left(&sh.session_id) == self.session_id_length
                and memcmp(sh.session_id.p, self.session_id, self.session_id_length) == 0)

    cdef int resume(self, const ServerHello12 *sh) except -1:
        if sh.cipher_suite != self.session.cipher_suite:
            return self.fail(illegal_parameter, "the session is resumed with another cipher suite")
        if not sh.extended_master_secret:       # RFC 7627, section 5.3
            return self.fail(handshake_failure, "the session is resumed without its extended master secret")
        self.resumed = 1
        self.authenticated = self.session.authenticated
        self.peer_certificates = self.session.chain
        memcpy(self.master_secret, self.session.secret, MASTER_SECRET_LENGTH)
        self.make_keys()
        self.taken(C12_READ_NEW_SESSION_TICKET if self.ticket_promised else C12_READ_CHANGE_CIPHER_SPEC)
        return STEP_OK

    cdef int check_server_hello(self, const ServerHello12 *sh) noexcept nogil:
        cdef const uint8_t *sentinel = sh.random.p + RANDOM_LENGTH - DOWNGRADE_LENGTH
        # A server that can TLS 1.3 says so where an attacker cannot touch it (RFC 8446, section 4.1.3).
        if (self.config.max_version >= TLS13 and memcmp(sentinel, DOWNGRADE, DOWNGRADE_LENGTH - 1) == 0
                and sentinel[DOWNGRADE_LENGTH - 1] <= 1):
            return self.fail(illegal_parameter, "the server speaks TLS 1.3, yet 1.2 was negotiated")
        # Where nothing was offered to be resumed the session_id is random (RFC 8446, section 4.1.2).
        if self.session is None and self.is_resumption(sh):
            return self.fail(illegal_parameter, "the server resumes a session that does not exist")
        return self.choose_suite(sh.cipher_suite)

    cdef int choose_suite(self, uint16_t suite) noexcept nogil:
        if not is_among(suite, self.config.cipher_suites12, self.config.n_cipher_suites12):
            return self.fail(illegal_parameter, "the server chose a cipher suite that was not offered")
        self.cipher_suite = suite
        self.hash = HASH_SHA256
        if suite == TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 or suite == TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:
            self.aead = AEAD_AES_128_GCM
        elif suite == TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 or suite == TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:
            self.aead = AEAD_AES_256_GCM
            self.hash = HASH_SHA384
        else:
            self.aead = AEAD_CHACHA20_POLY1305
        transcript_select(&self.transcript, self.hash)
        return 0

    cdef int do_read_certificate(self) except -1:
        """Certificate (section 7.4.2)."""
        cdef Certificate12 c
        cdef uint16_t curve
        cdef int step = self.take_message()
        if step != STEP_OK:
            return step
        step = parse_certificate12(self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER, &c)
        if step < 0:
            return self.fail(-step, c.reason)
        if c.leaf.p == NULL:
            return self.fail(decode_error, "the server sent no certificate")
        try:
            self.server_key = self.config.public_key(c.leaf)
        except ValueError as error:
            self.reason = NULL
            self.error = str(error)
            return -bad_certificate
        if self.server_key.kind.startswith("rsa") == is_ecdsa_suite(<uint16_t> self.cipher_suite):
            return self.fail(illegal_parameter, "the certificate's key does not go with the cipher suite")
        # The curve of an ECDSA key must be one we named (RFC 8422, section 5.1).
        curve = CURVES.get(self.server_key.kind, 0)
        if curve and not is_among(curve, self.config.groups, self.config.n_groups):
            return self.fail(illegal_parameter, "the certificate's key is on a curve that was not offered")
        self.peer_certificates = self.config.shared_chain(chain_of(c.entries))
        if self.config.verify is not None:
            step = self.verify_trust()
            if step < 0:
                return step
        self.taken(C12_READ_SERVER_KEY_EXCHANGE)
        return STEP_OK

    cdef int verify_trust(self) except -1:
        """Asks the configuration's `verify`; what it raises is the alert, if it is one, else bad_certificate."""
        cdef int description = bad_certificate
        try:
            self.config.verify(list(self.peer_certificates), self.config.server_name)
        except Exception as error:
            self.reason = NULL
            self.error = f"the certificate is not trusted: {error}"
            if isinstance(error, TlsAlert):
                description = error.description
            return -description if 0 < description < 256 else -bad_certificate
        return STEP_OK

    cdef int do_read_server_key_exchange(self) noexcept:
        """ServerKeyExchange (RFC 8422, section 5.4): the server's proof that it holds the certificate's key."""
        cdef ServerKeyExchange ske
        cdef uint8_t signed[2 * RANDOM_LENGTH + ECDHE_PARAMS_MAX]
        cdef int step = self.take_message()
        if step != STEP_OK:
            return step
        step = parse_server_key_exchange(self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER, &ske)
        if step < 0:
            return self.fail(-step, ske.reason)
        if not is_group12(ske.group) or not is_among(ske.group, self.config.groups, self.config.n_groups):
            return self.fail(illegal_parameter, "the server chose a group that was not offered")
        if not is_among(ske.algorithm, self.config.schemes12, self.config.n_schemes12):
            return self.fail(illegal_parameter, "ServerKeyExchange uses an algorithm that was not offered")
        if not self.server_key.supports12(ske.algorithm):
            return self.fail(illegal_parameter, "ServerKeyExchange uses an algorithm that does not fit the key")
        if left(&ske.point) > KX_PUBLIC_MAX:
            return self.fail(illegal_parameter, "the server's key share is none of its group")
        memcpy(signed, self.client_random, RANDOM_LENGTH)
        memcpy(signed + RANDOM_LENGTH, self.server_random, RANDOM_LENGTH)
        memcpy(signed + 2 * RANDOM_LENGTH, ske.params.p, left(&ske.params))
        if self.server_key.verify12(ske.algorithm, signed, 2 * RANDOM_LENGTH + left(&ske.params), ske.signature.p,
                                    left(&ske.signature)) != 0:
            return self.fail(decrypt_error, "ServerKeyExchange does not verify")
        self.server_key = None
        self.group = ske.group
        self.signature_scheme = ske.algorithm
        self.server_point_length = left(&ske.point)
        memcpy(self.server_point, ske.point.p, self.server_point_length)
        self.taken(C12_READ_CERTIFICATE_REQUEST)
        return STEP_OK

    cdef int do_read_certificate_request(self) noexcept nogil:
        """CertificateRequest (section 7.4.4), the one optional message of the flight: without it this is the
        ServerHelloDone, for the next state to read."""
        cdef CertificateRequest12 cr
        cdef int step = self.take_message()
        if step != STEP_OK:
            return step
        if self.message[0] == HS_SERVER_HELLO_DONE:
            self.state = C12_READ_SERVER_HELLO_DONE
            return STEP_OK
        step = parse_certificate_request12(self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER, &cr)
        if step < 0:
            return self.fail(-step, cr.reason)
        self.certificate_requested = 1
        self.taken(C12_READ_SERVER_HELLO_DONE)
        return STEP_OK

    cdef int do_read_server_hello_done(self) noexcept nogil:
        cdef const char *reason = NULL
        cdef int step = self.take_message()
        if step != STEP_OK:
            return step
        step = parse_server_hello_done(self.message_length - HANDSHAKE_HEADER, &reason)
        if step < 0:
            return self.fail(-step, reason)
        self.taken(C12_SEND_FLIGHT)
        return STEP_OK

    # --- our flight

    cdef int do_send_flight(self) except -1:
        cdef Writer w
        cdef int step
        if self.certificate_requested:
            if self.open_message(&w, HANDSHAKE_HEADER + 3) < 0:
                return -internal_error
            build_empty_certificate12(&w)           # section 7.4.6
            if self.close_message(&w, LEVEL_INITIAL) < 0:
                return -internal_error
        step = self.send_key_exchange()
        if step == STEP_OK:
            step = self.send_finished()
        self.state = C12_READ_NEW_SESSION_TICKET if self.ticket_promised else C12_READ_CHANGE_CIPHER_SPEC
        return step

    cdef int send_key_exchange(self) except -1:
        """ClientKeyExchange (RFC 8422, section 5.7), and with it all keys."""
        cdef KeyExchange exchange = KeyExchange.__new__(KeyExchange)
        cdef Writer w
        cdef uint8_t public[KX_PUBLIC_MAX]
        cdef uint8_t premaster[KX_SHARED_MAX]
        cdef size_t public_length = 0, n = 0
        if exchange.generate(self.group, public, &public_length) < 0:
            return self.fail(internal_error, "no key pair")
        if exchange.derive(self.server_point, self.server_point_length, premaster, &n) < 0:
            return self.fail(illegal_parameter, "the server's key share is none of its group")
        if self.open_message(&w, HANDSHAKE_HEADER + 1 + public_length) < 0:
            return -internal_error
        build_client_key_exchange(&w, public, public_length)
        if self.close_message(&w, LEVEL_INITIAL) < 0:
            return -internal_error
        self.make_master_secret(premaster, n)
        cleanse(premaster, sizeof(premaster))
        self.make_keys()
        return STEP_OK

    cdef void make_master_secret(self, const uint8_t *premaster, size_t n) noexcept nogil:
        cdef uint8_t digest[HASH_MAX]
        if self.extended_master_secret:
            transcript_hash(&self.transcript, digest)
            extended_master_secret(self.hash, premaster, n, digest, self.master_secret)
        else:
            master_secret(self.hash, premaster, n, self.client_random, self.server_random, self.master_secret)

    cdef void make_keys(self) noexcept:
        if self.config.key_log is not None:
            log_secret(self.config.key_log, "CLIENT_RANDOM", self.client_random, self.master_secret,
                       MASTER_SECRET_LENGTH)
        hmac_key(&self.master, self.hash, self.master_secret, MASTER_SECRET_LENGTH)
        key_block(&self.master, self.aead, self.client_random, self.server_random, self.client_keys, self.server_keys)

    cdef int send_finished(self) noexcept nogil:
        """change_cipher_spec, and Finished under the keys it changes to (sections 7.1 and 7.4.9)."""
        cdef Writer w
        cdef uint8_t digest[HASH_MAX]
        cdef uint8_t verify_data[FINISHED12_LENGTH]
        if (self.add_action(ACTION_CCS, LEVEL_INITIAL) < 0
                or self.add_keys(ACTION_WRITE_KEYS, LEVEL_APPLICATION, self.client_keys) < 0):
            return -internal_error
        cleanse(self.client_keys, sizeof(self.client_keys))
        transcript_hash(&self.transcript, digest)
        finished12(&self.master, 0, digest, verify_data)
        if self.open_message(&w, HANDSHAKE_HEADER + FINISHED12_LENGTH) < 0:
            return -internal_error
        build_finished(&w, verify_data, FINISHED12_LENGTH)
        return self.close_message(&w, LEVEL_APPLICATION)

    # --- the server's last flight

    cdef int do_read_new_session_ticket(self) except -1:
        """NewSessionTicket (RFC 5077, section 3.3)."""
        cdef NewSessionTicket12 t
        cdef int step = self.take_message()
        if step != STEP_OK:
            return step
        step = parse_new_session_ticket12(self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER, &t)
        if step < 0:
            return self.fail(-step, t.reason)
        if left(&t.ticket):
            self.ticket = (<const char *> t.ticket.p)[:left(&t.ticket)]
            self.ticket_lifetime = t.lifetime_hint
        self.taken(C12_READ_CHANGE_CIPHER_SPEC)
        return STEP_OK

    cdef int do_read_finished(self) noexcept nogil:
        """The server's Finished (section 7.4.9): compared in constant time."""
        cdef Reader verify_data
        cdef uint8_t digest[HASH_MAX]
        cdef uint8_t expected[FINISHED12_LENGTH]
        cdef const char *reason = NULL
        cdef int step = self.take_message()
        if step != STEP_OK:
            return step
        step = parse_finished(self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER,
                              FINISHED12_LENGTH, &verify_data, &reason)
        if step < 0:
            return self.fail(decrypt_error, reason)      # incorrect, be it by its length
        transcript_hash(&self.transcript, digest)
        finished12(&self.master, 1, digest, expected)
        if not equal_constant_time(verify_data.p, expected, FINISHED12_LENGTH):
            return self.fail(decrypt_error, "the server's Finished does not verify")
        self.taken(C12_SEND_FINISHED)
        return STEP_OK

    cdef int do_send_finished(self) noexcept:
        """Where a session was resumed ours comes last; then the handshake is done."""
        if self.resumed and self.send_finished() < 0:
            return -internal_error
        self.state = C12_CONFIRMED
        try:
            self.keep_session()
        except Exception as e:
            return self.fail_exception(e)
        return STEP_OK

    cdef int keep_session(self) except -1:
        if self.ticket is not None and self.extended_master_secret:
            self.new_session = make_session12(self, self.master_secret, self.ticket, self.ticket_lifetime,
                                              self.config.verify is not None)
        elif self.resumed:
            self.new_session = self.session     # its ticket may be used again
        return 0


cdef tuple chain_of(Reader entries):
    cdef Reader der
    cdef list chain = []
    while next_certificate12(&entries, &der):
        chain.append((<const char *> der.p)[:left(&der)])
    return tuple(chain)


cdef bint is_expected(int state, int type) noexcept nogil:
    if state == C12_READ_SERVER_HELLO:
        return type == HS_SERVER_HELLO
    if state == C12_READ_CERTIFICATE:
        return type == HS_CERTIFICATE
    if state == C12_READ_SERVER_KEY_EXCHANGE:
        return type == HS_SERVER_KEY_EXCHANGE
    if state == C12_READ_CERTIFICATE_REQUEST:
        return type == HS_CERTIFICATE_REQUEST or type == HS_SERVER_HELLO_DONE
    if state == C12_READ_SERVER_HELLO_DONE:
        return type == HS_SERVER_HELLO_DONE
    if state == C12_READ_NEW_SESSION_TICKET:
        return type == HS_NEW_SESSION_TICKET
    if state == C12_READ_FINISHED:
        return type == HS_FINISHED
    return 0
