"""The client's side of a TLS 1.2 handshake (see the .pxd): one do_* per state, in flight order. Section numbers are RFC
5246's unless another RFC is named."""

cimport cython
from libc.string cimport memcmp, memcpy, memset

from cext.base.wire cimport Reader, Writer, left, reader_init
from cext.crypto.hash_kdf cimport cleanse
from cext.crypto.kx cimport KX_SHARED_MAX, KeyExchange
from cext.crypto.sign cimport SIGNATURE_MAX
from cext.tls.certificates cimport build_certificate, build_certificate_verify, read_certificate_status
from cext.tls.client13 cimport Client13
from cext.tls.client_auth cimport ask_trust
from cext.tls.config cimport Wanted
from cext.tls.constants cimport (
    HANDSHAKE_HEADER, HS_CERTIFICATE, HS_CERTIFICATE_REQUEST, HS_CERTIFICATE_STATUS, HS_FINISHED, HS_HELLO_REQUEST,
    HS_NEW_SESSION_TICKET, HS_SERVER_HELLO, HS_SERVER_HELLO_DONE, HS_SERVER_KEY_EXCHANGE, RANDOM_LENGTH, TLS12, TLS13,
    bad_certificate, bad_certificate_status_response, decode_error, decrypt_error, handshake_failure,
    illegal_parameter, internal_error, unexpected_message)
from cext.tls.handshake cimport LEVEL_INITIAL, STEP_DONE, STEP_NEED_MESSAGE, STEP_OK, STEP_WAIT_CERTIFICATE
from cext.tls.handshake12 cimport DOWNGRADE, DOWNGRADE_LENGTH, Handshake12
from cext.tls.messages12 cimport (
    ECDHE_PARAMS_MAX, Certificate12, CertificateRequest12, NewSessionTicket12, ServerKeyExchange,
    build_client_key_exchange, parse_certificate12, parse_certificate_request12,
    parse_new_session_ticket12, parse_server_hello12, parse_server_hello_done, parse_server_key_exchange, read_chain12)
from cext.tls.negotiate cimport is_ecdsa_suite, is_group12, protocol_of, is_among
from cext.tls.prf12 cimport MASTER_SECRET_LENGTH
from cext.tls.tickets12 cimport make_session12
from cext.tls.transcript cimport transcript_select

from cext.tls.credential import CURVES

cdef enum:
    MESSAGE_MAX = 1 << 16               # bytes of a server's message, except
    CERTIFICATE_MAX = 1 << 18           # its Certificate
    HELLO_REQUESTS_MAX = 4

cdef bytes EMPTY_CERTIFICATE = bytes(3)     # section 7.4.6: an empty certificate_list


@cython.no_gc
cdef class Client12(Handshake12):
    """Client12(config, client13): goes on after that one's ClientHello; made and driven by the connection."""

    def __cinit__(self, ClientConfig config not None, Client13 before not None):
        self.config = config
        self.key_log = config.key_log
        self.server_name = config.server_name
        self.transcript = before.transcript
        self.messages = before.messages
        memset(&before.messages, 0, sizeof(before.messages))
        self.keeps_messages = self.messages.len > 0
        self.state = C12_READ_SERVER_HELLO
        self.session = before.session12
        self.offered = before.offered
        self.session_id_length = before.session_id_length
        memcpy(self.client_random, before.client_random, RANDOM_LENGTH)
        memcpy(self.session_id, before.session_id, SESSION_ID_MAX)

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
        return self.read_change_cipher_spec(self.state == C12_READ_CHANGE_CIPHER_SPEC, C12_READ_FINISHED)

    cdef int advance(self, const uint8_t *message, size_t n) noexcept:
        # "This message MUST be ignored by the client if the client is currently negotiating a session", nor is it part
        # of the transcript (section 7.4.1.1).
        if message != NULL and message[0] == HS_HELLO_REQUEST:
            return STEP_NEED_MESSAGE
        return Handshake12.advance(self, message, n)

    cdef int run(self) except -1:
        cdef int step = STEP_OK
        while step == STEP_OK:
            if self.state == C12_READ_SERVER_HELLO:
                step = self.do_read_server_hello()
            elif self.state == C12_READ_CERTIFICATE:
                step = self.do_read_certificate()
            elif self.state == C12_READ_CERTIFICATE_STATUS:
                step = self.do_read_certificate_status()
            elif self.state == C12_READ_SERVER_KEY_EXCHANGE:
                step = self.do_read_server_key_exchange()
            elif self.state == C12_READ_CERTIFICATE_REQUEST:
                step = self.do_read_certificate_request()
            elif self.state == C12_READ_SERVER_HELLO_DONE:
                step = self.do_read_server_hello_done()
            elif self.state == C12_SEND_CERTIFICATE:
                step = self.do_send_certificate()
            elif self.state == C12_SEND_CLIENT_KEY_EXCHANGE:
                step = self.do_send_client_key_exchange()
            elif self.state == C12_SEND_CERTIFICATE_VERIFY:
                step = self.do_send_certificate_verify()
            elif self.state == C12_SEND_FINISHED:
                step = self.do_send_finished()
            elif self.state == C12_READ_NEW_SESSION_TICKET:
                step = self.do_read_new_session_ticket()
            elif self.state == C12_READ_CHANGE_CIPHER_SPEC:
                step = STEP_NEED_MESSAGE            # change_cipher_spec() goes on
            elif self.state == C12_READ_FINISHED:
                step = self.do_read_finished()
            else:
                self.keep_session()
                step = STEP_DONE
        return step

    cdef int take_message(self) noexcept nogil:
        """For the states that read: whether there is a message, and of the right type."""
        if self.message == NULL:
            return STEP_NEED_MESSAGE
        if not is_expected(self.state, self.message[0]):
            return self.fail(unexpected_message, "not the handshake message that comes now")
        return STEP_OK

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
        if sh.record_size_limit:                # RFC 8449, section 4
            self.send_limit = sh.record_size_limit
            self.receive_limit = self.config.record_size_limit
        if self.is_resumption(&sh):
            return self.resume(&sh)
        self.status_promised = sh.status_request
        if sh.timestamps.p != NULL:
            self.signed_certificate_timestamps = (<const char *> sh.timestamps.p)[:left(&sh.timestamps)]
        return self.taken(C12_READ_CERTIFICATE)

    cdef bint is_resumption(self, const ServerHello12 *sh) noexcept nogil:
        """The server honours a ticket by the session_id that came with it (RFC 5077, section 3.4)."""
        return (self.session_id_length and left(&sh.session_id) == self.session_id_length
                and memcmp(sh.session_id.p, self.session_id, self.session_id_length) == 0)

    cdef int resume(self, const ServerHello12 *sh) except -1:
        cdef int step
        if sh.cipher_suite != self.session.cipher_suite:
            return self.fail(illegal_parameter, "the session is resumed with another cipher suite")
        if not sh.extended_master_secret:       # RFC 7627, section 5.3
            return self.fail(handshake_failure, "the session is resumed without its extended master secret")
        self.resumed = 1
        self.authenticated = self.session.authenticated
        self.peer_certificates = self.session.chain
        # That such servers send anew of these is no answer to anything (RFC 6066, section 8; RFC 6962, section 3.3.1).
        self.ocsp_response = self.session.ocsp_response
        self.signed_certificate_timestamps = self.session.signed_certificate_timestamps
        if self.config.verify_resumed and self.config.verify is not None:
            step = ask_trust(self, self.config.verify, (list(self.peer_certificates), self.config.server_name))
            if step < 0:
                return step
        memcpy(self.master_secret, self.session.secret, MASTER_SECRET_LENGTH)
        self.make_keys()
        return self.taken(C12_READ_NEW_SESSION_TICKET if self.ticket_promised else C12_READ_CHANGE_CIPHER_SPEC)

    cdef int check_server_hello(self, const ServerHello12 *sh) noexcept nogil:
        cdef const uint8_t *sentinel = sh.random.p + RANDOM_LENGTH - DOWNGRADE_LENGTH
        # A server that can TLS 1.3 says so where an attacker cannot touch it (RFC 8446, section 4.1.3).
        if (self.config.max_version >= TLS13 and memcmp(sentinel, DOWNGRADE, DOWNGRADE_LENGTH - 1) == 0
                and sentinel[DOWNGRADE_LENGTH - 1] <= 1):
            return self.fail(illegal_parameter, "the server speaks TLS 1.3, yet 1.2 was negotiated")
        # Where nothing was offered to be resumed the session_id is random (RFC 8446, section 4.1.2).
        if self.session is None and self.is_resumption(sh):
            return self.fail(illegal_parameter, "the server resumes a session that does not exist")
        if not is_among(sh.cipher_suite, self.config.cipher_suites12, self.config.n_cipher_suites12):
            return self.fail(illegal_parameter, "the server chose a cipher suite that was not offered")
        self.set_cipher_suite(sh.cipher_suite)
        transcript_select(&self.transcript, self.hash)
        return STEP_OK

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
            self.peer_key = self.config.public_key(c.leaf)
        except ValueError as error:
            self.reason = NULL
            self.error = str(error)
            return -bad_certificate
        if self.peer_key.kind.startswith("rsa") == is_ecdsa_suite(<uint16_t> self.cipher_suite):
            return self.fail(illegal_parameter, "the certificate's key does not go with the cipher suite")
        # The curve of an ECDSA key must be one we named (RFC 8422, section 5.1).
        curve = CURVES.get(self.peer_key.kind, 0)
        if curve and not is_among(curve, self.config.groups, self.config.n_groups):
            return self.fail(illegal_parameter, "the certificate's key is on a curve that was not offered")
        self.peer_certificates = self.config.shared_chain(read_chain12(c.entries))
        if self.config.verify is not None:
            step = ask_trust(self, self.config.verify, (list(self.peer_certificates), self.config.server_name))
            if step < 0:
                return step
        return self.taken(C12_READ_CERTIFICATE_STATUS)

    cdef int do_read_certificate_status(self) except -1:
        """CertificateStatus (RFC 6066, section 8), which may be missing even where it was promised: then this is the
        ServerKeyExchange, for the next state to read."""
        cdef Reader response
        cdef int step
        if self.status_promised:
            step = self.take_message()
            if step != STEP_OK:
                return step
            if self.message[0] == HS_CERTIFICATE_STATUS:
                reader_init(&response, self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER)
                if not read_certificate_status(response, &response):
                    return self.fail(decode_error, "a CertificateStatus cannot be decoded")
                self.ocsp_response = (<const char *> response.p)[:left(&response)]
                if self.taken(C12_READ_SERVER_KEY_EXCHANGE) < 0:
                    return -internal_error
        self.state = C12_READ_SERVER_KEY_EXCHANGE
        if self.config.verify_status is None:
            return STEP_OK
        return ask_trust(self, self.config.verify_status, (list(self.peer_certificates), self.ocsp_response),
                         bad_certificate_status_response)

    cdef int do_read_server_key_exchange(self) except -1:
        """ServerKeyExchange (RFC 8422, section 5.4): the server's proof that it holds the certificate's key."""
        cdef ServerKeyExchange ske
        cdef uint8_t signed[2 * RANDOM_LENGTH + ECDHE_PARAMS_MAX]
        cdef size_t n
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
        if not self.peer_key.supports12(ske.algorithm):
            return self.fail(illegal_parameter, "ServerKeyExchange uses an algorithm that does not fit the key")
        if left(&ske.point) > KX_PUBLIC_MAX:
            return self.fail(illegal_parameter, "the server's key share is none of its group")
        n = self.signed_params(ske.params.p, left(&ske.params), signed)
        if self.peer_key.verify12(ske.algorithm, signed, n, ske.signature.p, left(&ske.signature)) != 0:
            return self.fail(decrypt_error, "ServerKeyExchange does not verify")
        self.peer_key = None
        self.group = ske.group
        self.signature_scheme = ske.algorithm
        self.server_point_length = left(&ske.point)
        memcpy(self.server_point, ske.point.p, self.server_point_length)
        return self.taken(C12_READ_CERTIFICATE_REQUEST)

    cdef int do_read_certificate_request(self) except -1:
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
        self.request = (<const char *> self.message)[:self.message_length]
        return self.taken(C12_READ_SERVER_HELLO_DONE)

    cdef int do_read_server_hello_done(self) noexcept nogil:
        cdef const char *reason = NULL
        cdef int step = self.take_message()
        if step != STEP_OK:
            return step
        step = parse_server_hello_done(self.message_length - HANDSHAKE_HEADER, &reason)
        if step < 0:
            return self.fail(-step, reason)
        return self.taken(C12_SEND_CERTIFICATE)

    # --- our flight

    cdef int do_send_certificate(self) except -1:
        """Our Certificate (section 7.4.6), without certificates when there is none that fits the request."""
        cdef Writer w
        cdef bytes body
        cdef int code
        if self.request is not None:
            if self.config.policy and not self.decided:
                return STEP_WAIT_CERTIFICATE
            code = self.choose_credential()
            if code < 0:
                return code
        self.state = C12_SEND_CLIENT_KEY_EXCHANGE
        if self.credential is None:
            self.forget_messages()
        if self.request is None:
            return STEP_OK
        body = EMPTY_CERTIFICATE if self.credential is None else self.credential.certificate_body12
        if self.open_message(&w, HANDSHAKE_HEADER + len(body)) < 0:
            return -internal_error
        build_certificate(&w, <const uint8_t *> <const char *> body, len(body))
        return self.close_message(&w, LEVEL_INITIAL)

    cdef int choose_credential(self) except -1:
        cdef CertificateRequest12 cr
        cdef Wanted wanted
        parse_certificate_request12(<const uint8_t *> <const char *> self.request + HANDSHAKE_HEADER,
                                    len(self.request) - HANDSHAKE_HEADER, &cr)
        wanted.schemes = cr.signature_algorithms
        wanted.authorities = cr.authorities
        wanted.types = cr.certificate_types
        self.credential = self.config.select_credential(self.chosen, TLS12, &wanted, &self.client_scheme)
        if self.chosen is not None and self.credential is None:
            return self.fail(internal_error, "the certificate that was chosen cannot sign as the server wants")
        return 0

    cdef int do_send_client_key_exchange(self) except -1:
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
        self.state = C12_SEND_FINISHED if self.credential is None else C12_SEND_CERTIFICATE_VERIFY
        return STEP_OK

    cdef int do_send_certificate_verify(self) except -1:
        """Our CertificateVerify (section 7.4.8): it signs all messages before it."""
        cdef Writer w
        cdef uint8_t signature[SIGNATURE_MAX]
        cdef size_t signature_length = SIGNATURE_MAX
        cdef int step = self.sign(self.credential, self.client_scheme, self.messages.data, self.messages.len,
                                  signature, &signature_length)
        if step != STEP_OK:
            return step
        self.forget_messages()
        if self.open_message(&w, HANDSHAKE_HEADER + 4 + signature_length) < 0:
            return -internal_error
        build_certificate_verify(&w, <uint16_t> self.client_scheme, signature, signature_length)
        self.state = C12_SEND_FINISHED
        return self.close_message(&w, LEVEL_INITIAL)

    cdef int do_send_finished(self) noexcept nogil:
        if self.send_finished() < 0:
            return -internal_error
        if self.resumed:
            self.state = C12_CONFIRMED
        else:
            self.state = C12_READ_NEW_SESSION_TICKET if self.ticket_promised else C12_READ_CHANGE_CIPHER_SPEC
        return STEP_OK

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
        return self.taken(C12_READ_CHANGE_CIPHER_SPEC)

    cdef int do_read_finished(self) noexcept nogil:
        cdef int step = self.take_message()
        if step != STEP_OK:
            return step
        step = self.check_finished()
        if step < 0:
            return step
        return self.taken(C12_SEND_FINISHED if self.resumed else C12_CONFIRMED)

    cdef int keep_session(self) except -1:
        if self.ticket is not None and self.extended_master_secret:
            self.new_session = make_session12(self, self.master_secret, self.ticket, self.ticket_lifetime,
                                              self.config.verify is not None)
        elif self.resumed:
            self.new_session = self.session     # its ticket may be used again
        return 0


cdef bint is_expected(int state, int type) noexcept nogil:
    if state == C12_READ_SERVER_HELLO:
        return type == HS_SERVER_HELLO
    if state == C12_READ_CERTIFICATE:
        return type == HS_CERTIFICATE
    if state == C12_READ_CERTIFICATE_STATUS:
        return type == HS_CERTIFICATE_STATUS or type == HS_SERVER_KEY_EXCHANGE
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
