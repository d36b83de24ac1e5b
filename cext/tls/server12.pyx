"""The server's side of a TLS 1.2 handshake (see the .pxd): one do_* per state, in the order of the flights. Section
numbers are RFC 5246's unless another RFC is named."""

cimport cython
from libc.stdint cimport uint16_t
from libc.string cimport memcpy, memset

from cext.base.buffer cimport Bytes, bytes_reserve
from cext.base.wire cimport Reader, Writer, left
from cext.crypto.hash_kdf cimport cleanse, random_bytes
from cext.crypto.kx cimport KX_SHARED_MAX
from cext.crypto.sign cimport SIGNATURE_MAX
from cext.tls.client_auth cimport ask_trust, chain_of_state, read_key
from cext.tls.config cimport CLIENT_AUTH_NONE, CLIENT_AUTH_REQUIRE, Selection
from cext.tls.constants cimport (
    HANDSHAKE_HEADER, HS_CERTIFICATE, HS_CERTIFICATE_VERIFY, HS_CLIENT_HELLO, HS_CLIENT_KEY_EXCHANGE, HS_FINISHED,
    RANDOM_LENGTH, TLS12, TLS13, TLS_EMPTY_RENEGOTIATION_INFO_SCSV, bad_certificate, decrypt_error, handshake_failure,
    illegal_parameter, internal_error, unexpected_message)
from cext.tls.certificates cimport CertificateVerify, build_certificate, parse_certificate_verify
from cext.tls.handshake cimport LEVEL_INITIAL, STEP_DONE, STEP_NEED_MESSAGE, STEP_OK
from cext.tls.handshake12 cimport DOWNGRADE, DOWNGRADE_LENGTH, Handshake12
from cext.tls.messages cimport parse_client_hello
from cext.tls.messages12 cimport (
    Certificate12, ServerHello12Parts, build_server_hello12, build_server_hello_done, build_server_key_exchange,
    ecdhe_params, has_uncompressed, parse_certificate12, parse_client_key_exchange, read_chain12)
from cext.tls.negotiate cimport choose_alpn, choose_group12, is_among, list_has, name_of, protocol_of
from cext.tls.prf12 cimport MASTER_SECRET_LENGTH
from cext.tls.record cimport PLAINTEXT_MAX
from cext.tls.session cimport SessionState, forget_state
from cext.tls.tickets12 cimport add_ticket12, find_session12, is_to_be_renewed

cdef enum:
    CLIENT_HELLO_MAX = 1 << 16          # body, bytes
    CERTIFICATE_MAX = 1 << 16           # of a client's Certificate
    CERTIFICATE_VERIFY_MAX = 4 + SIGNATURE_MAX
    MESSAGE_MAX = 1 << 10               # of any other message


@cython.no_gc
cdef class Server12(Handshake12):
    """Server12(config): made when a ClientHello settles on TLS 1.2, given up when the handshake is confirmed."""

    def __cinit__(self, ServerConfig config not None):
        self.config = config
        self.server = 1
        self.state = S12_READ_CLIENT_HELLO

    cdef int admit(self, int type, size_t length) noexcept nogil:
        cdef size_t most = MESSAGE_MAX
        if self.state == S12_READ_CLIENT_HELLO:
            if type != HS_CLIENT_HELLO:
                return self.fail(unexpected_message, "not a ClientHello")
            return self.fail(illegal_parameter, "a ClientHello too large") if length > CLIENT_HELLO_MAX else 0
        if self.state == S12_READ_CHANGE_CIPHER_SPEC:
            return self.fail(unexpected_message, "a message instead of the change_cipher_spec")
        if self.state == S12_READ_CLIENT_CERTIFICATE:
            if type != HS_CERTIFICATE:
                return self.fail(unexpected_message, "not the client's Certificate")
            most = CERTIFICATE_MAX
        elif self.state == S12_READ_CERTIFICATE_VERIFY:
            if type != HS_CERTIFICATE_VERIFY:
                return self.fail(unexpected_message, "not the client's CertificateVerify")
            most = CERTIFICATE_VERIFY_MAX
        elif self.state == S12_READ_CLIENT_KEY_EXCHANGE:
            if type != HS_CLIENT_KEY_EXCHANGE:
                return self.fail(unexpected_message, "not the handshake message that comes now")
        elif self.state != S12_READ_FINISHED or type != HS_FINISHED:
            return self.fail(unexpected_message, "not the client's Finished")
        return self.fail(illegal_parameter, "a handshake message too large") if length > most else 0

    cdef int change_cipher_spec(self) noexcept nogil:
        return self.read_change_cipher_spec(self.state == S12_READ_CHANGE_CIPHER_SPEC, S12_READ_FINISHED)

    cdef int advance(self, const uint8_t *message, size_t n) noexcept:
        cdef int step = Handshake12.advance(self, message, n)
        memset(&self.hello, 0, sizeof(self.hello))
        return step

    cdef int run(self) except -1:
        cdef int step = STEP_OK
        while step == STEP_OK:
            if self.state == S12_READ_CLIENT_HELLO:
                step = self.do_read_client_hello()
            elif self.state == S12_SELECT_CREDENTIAL:
                step = self.do_select_credential()
            elif self.state == S12_SEND_SERVER_HELLO:
                step = self.do_send_server_hello()
            elif self.state == S12_SEND_CERTIFICATE:
                step = self.do_send_certificate()
            elif self.state == S12_SEND_SERVER_KEY_EXCHANGE:
                step = self.do_send_server_key_exchange()
            elif self.state == S12_SEND_CERTIFICATE_REQUEST:
                step = self.do_send_certificate_request()
            elif self.state == S12_SEND_SERVER_HELLO_DONE:
                step = self.do_send_server_hello_done()
            elif self.state == S12_READ_CLIENT_CERTIFICATE:
                step = self.do_read_client_certificate()
            elif self.state == S12_READ_CLIENT_KEY_EXCHANGE:
                step = self.do_read_client_key_exchange()
            elif self.state == S12_READ_CERTIFICATE_VERIFY:
                step = self.do_read_certificate_verify()
            elif self.state == S12_READ_CHANGE_CIPHER_SPEC:
                step = STEP_NEED_MESSAGE            # change_cipher_spec() goes on
            elif self.state == S12_READ_FINISHED:
                step = self.do_read_finished()
            elif self.state == S12_SEND_NEW_SESSION_TICKET:
                step = self.do_send_new_session_ticket()
            elif self.state == S12_SEND_FINISHED:
                step = self.do_send_finished()
            else:
                step = STEP_DONE
        return step

    # --- the states, in flight order

    cdef int do_read_client_hello(self) except -1:
        """ClientHello (section 7.4.1.2): what both ends can do."""
        cdef int code
        if self.message == NULL:
            return STEP_NEED_MESSAGE
        code = parse_client_hello(self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER, &self.hello)
        if code < 0:
            return self.fail(-code, self.hello.reason)
        self.server_name = name_of(&self.hello.server_name)
        code = self.check_hello()
        if code < 0:
            return code
        memcpy(self.client_random, self.hello.random.p, RANDOM_LENGTH)
        code = self.resume()
        if code:
            return code if code < 0 else STEP_OK
        code = choose_group12(&self.hello, self.config.groups, self.config.n_groups)
        if code < 0:
            return self.fail(-code, "no group in common")
        self.group = code
        self.state = S12_SELECT_CREDENTIAL
        return STEP_OK

    cdef int resume(self) except -1:
        """By a ticket (RFC 5077, section 3.4): 1 when the handshake is abbreviated, 0 when it is not."""
        cdef SessionState state
        cdef Bytes memory
        cdef Selection selection
        cdef const char *reason = NULL
        cdef int code
        # A session has its name already; whether it may still be asked for the full handshake says.
        if (self.config.require_sni and self.chosen is None
                and self.config.select_credential(&self.hello, TLS12, &selection) is None):
            return 0
        memset(&memory, 0, sizeof(memory))
        code = find_session12(self.config, &self.hello, self.message, self.message_length, self.server_name, &state,
                              &memory, &reason)
        if code <= 0:
            return self.fail(-code, reason) if code else 0
        self.resumed = 1
        self.session_began = state.authenticated
        self.gives_ticket = is_to_be_renewed(self.config, &state) and self.hello.session_ticket.p != NULL
        self.peer_certificates = chain_of_state(state.peer_chain)
        memcpy(self.master_secret, state.secret, MASTER_SECRET_LENGTH)
        self.set_cipher_suite(state.cipher_suite)
        forget_state(&memory, &state)
        code = self.choose_protocol()
        if code < 0:
            return code
        self.state = S12_SEND_SERVER_HELLO
        return 1

    cdef int check_hello(self) noexcept nogil:
        # Server13 has chosen it; what it does not, or refuses, has not come here.
        self.version = TLS12
        if self.hello.ec_point_formats.p != NULL and not has_uncompressed(self.hello.ec_point_formats):
            return self.fail(illegal_parameter, "ec_point_formats lacks uncompressed")      # RFC 8422, section 5.1.2
        self.extended_master_secret = self.hello.extended_master_secret
        if self.hello.record_size_limit:        # RFC 8449, section 4: without a type to count, at most 2^14
            self.send_limit = self.hello.record_size_limit
            self.receive_limit = <uint16_t> min(<int> self.config.record_size_limit, <int> PLAINTEXT_MAX)
        self.point_formats = self.hello.ec_point_formats.p != NULL
        self.secure_renegotiation = self.hello.renegotiation_info or list_has(      # RFC 5746, section 3.6
            self.hello.cipher_suites, TLS_EMPTY_RENEGOTIATION_INFO_SCSV)
        return 0

    cdef int do_select_credential(self) except -1:
        """The certificate by server_name, curves and signature algorithms, the cipher suite that goes with it, and the
        application protocol."""
        cdef Selection selection
        cdef int code
        memset(&selection, 0, sizeof(selection))
        if self.chosen is None:
            self.credential = self.config.select_credential(&self.hello, TLS12, &selection)
        else:
            self.credential = self.config.first_fit((self.chosen,), &self.hello, TLS12, &selection)
            selection.matched = self.hello.server_name.p != NULL
        if self.credential is None:
            return self.fail(selection.alert, selection.reason)
        self.signature_scheme = selection.scheme
        self.acknowledge_name = selection.matched
        self.set_cipher_suite(selection.cipher_suite)
        self.gives_ticket = (self.hello.session_ticket.p != NULL and self.extended_master_secret
                             and self.config.tickets is not None and self.config.ticket_count > 0)
        code = self.choose_protocol()
        if code < 0:
            return code
        self.state = S12_SEND_SERVER_HELLO
        return STEP_OK

    cdef int choose_protocol(self) except -1:
        """The application protocol, which is no part of a session; with the suite known, the transcript begins."""
        cdef Reader protocol
        cdef int code
        code = choose_alpn(self.hello.alpn, self.config.alpn_list, len(self.config.alpn_list), &protocol)
        if code < 0:
            return self.fail(-code, "no application protocol in common")
        if protocol.p != NULL:
            self.alpn = protocol_of(self.config.alpn, &protocol)
        self.keeps_messages = self.config.client_auth != CLIENT_AUTH_NONE and not self.resumed
        return self.begin_transcript(self.message, self.message_length)

    cdef int do_send_server_hello(self) except -1:
        """ServerHello (section 7.4.1.3). Its session_id is empty, since nothing is kept to resume by it; where a ticket
        is honoured it is the client's (RFC 5077, section 3.4)."""
        cdef Writer w
        cdef ServerHello12Parts parts
        cdef const uint8_t *alpn = self.alpn
        cdef const uint8_t *timestamps = NULL
        cdef size_t timestamps_length = 0
        cdef bint status = 0
        if self.make_random() < 0:
            return self.fail(internal_error, "no randomness")
        # Room for the whole flight at once: the messages below only fill it.
        if not self.resumed:
            status = self.hello.status_request and self.credential.shows_status()
            if self.hello.signed_certificate_timestamp:
                timestamps = self.credential.signed_certificate_timestamps
                timestamps_length = len(self.credential.signed_certificate_timestamps)
            if bytes_reserve(&self.flight, 1024 + SIGNATURE_MAX + timestamps_length
                             + len(self.credential.certificates[0]) + len(self.credential.certificate_status)) < 0:
                return self.fail(internal_error, "out of memory")
        memset(&parts, 0, sizeof(parts))
        parts.random = self.server_random
        parts.cipher_suite = <uint16_t> self.cipher_suite
        parts.alpn = alpn
        parts.alpn_len = len(self.alpn)
        parts.extended_master_secret = self.extended_master_secret
        parts.renegotiation_info = self.secure_renegotiation
        parts.ec_point_formats = self.point_formats
        parts.server_name = self.acknowledge_name
        parts.session_ticket = self.gives_ticket
        parts.record_size_limit = self.receive_limit
        parts.status_request = self.sends_status = status
        parts.timestamps = timestamps
        parts.timestamps_len = timestamps_length
        if self.resumed:
            parts.session_id = self.hello.legacy_session_id.p
            parts.session_id_len = left(&self.hello.legacy_session_id)
        if self.open_message(&w, 512 + timestamps_length) < 0:
            return -internal_error
        build_server_hello12(&w, &parts)
        if self.close_message(&w, LEVEL_INITIAL) < 0:
            return -internal_error
        if not self.resumed:
            self.state = S12_SEND_CERTIFICATE
            return STEP_OK
        self.make_keys()
        self.state = S12_SEND_NEW_SESSION_TICKET
        return STEP_OK

    cdef int make_random(self) noexcept nogil:
        if random_bytes(self.server_random, RANDOM_LENGTH) < 0:
            return -1
        if self.config.max_version >= TLS13:
            memcpy(self.server_random + RANDOM_LENGTH - DOWNGRADE_LENGTH, DOWNGRADE, DOWNGRADE_LENGTH)
        return 0

    cdef int do_send_certificate(self) except -1:
        """Certificate (section 7.4.2), and CertificateStatus (RFC 6066, section 8) for a client that asked: encoded once,
        when the configuration was made."""
        cdef Writer w
        cdef const uint8_t *status = self.credential.certificate_status
        cdef bytes body = self.credential.certificate_body12
        if self.open_message(&w, HANDSHAKE_HEADER + len(body)) < 0:
            return -internal_error
        build_certificate(&w, <const uint8_t *> <const char *> body, len(body))
        if self.close_message(&w, LEVEL_INITIAL) < 0:
            return -internal_error
        self.state = S12_SEND_SERVER_KEY_EXCHANGE
        if self.sends_status:
            return self.add_message(status, len(self.credential.certificate_status), LEVEL_INITIAL)
        return STEP_OK

    cdef int do_send_server_key_exchange(self) except -1:
        """ServerKeyExchange (RFC 8422, section 5.4): our half of the key exchange, signed with both randoms."""
        cdef Writer w
        cdef uint8_t signed[2 * RANDOM_LENGTH + PARAMS_MAX]
        cdef uint8_t signature[SIGNATURE_MAX]
        cdef size_t signature_length = SIGNATURE_MAX
        cdef size_t n
        cdef int step
        if self.exchange is None:       # entered anew when a remote signer has signed
            step = self.make_params()
            if step < 0:
                return step
        n = self.signed_params(self.params, self.params_length, signed)
        step = self.sign(self.credential, self.signature_scheme, signed, n, signature, &signature_length)
        if step != STEP_OK:
            return step
        if self.open_message(&w, HANDSHAKE_HEADER + self.params_length + 4 + signature_length) < 0:
            return -internal_error
        build_server_key_exchange(&w, self.params, self.params_length, <uint16_t> self.signature_scheme, signature,
                                  signature_length)
        if self.close_message(&w, LEVEL_INITIAL) < 0:
            return -internal_error
        self.state = S12_SEND_CERTIFICATE_REQUEST
        return STEP_OK

    cdef int make_params(self) except -1:
        cdef uint8_t public[KX_PUBLIC_MAX]
        cdef size_t n = 0
        self.exchange = KeyExchange.__new__(KeyExchange)
        if self.exchange.generate(self.group, public, &n) < 0:
            return self.fail(internal_error, "no key pair")
        self.params_length = ecdhe_params(<uint16_t> self.group, public, n, self.params)
        return 0

    cdef int do_send_certificate_request(self) except -1:
        """CertificateRequest (section 7.4.4): encoded once, when the configuration was made."""
        cdef const uint8_t *message
        self.state = S12_SEND_SERVER_HELLO_DONE
        if self.config.client_auth == CLIENT_AUTH_NONE:
            return STEP_OK
        message = self.config.certificate_request12
        return self.add_message(message, len(self.config.certificate_request12), LEVEL_INITIAL)

    cdef int do_send_server_hello_done(self) noexcept nogil:
        cdef Writer w
        if self.open_message(&w, HANDSHAKE_HEADER) < 0:
            return -internal_error
        build_server_hello_done(&w)
        if self.close_message(&w, LEVEL_INITIAL) < 0:
            return -internal_error
        self.message = NULL
        self.state = S12_READ_CLIENT_CERTIFICATE if self.keeps_messages else S12_READ_CLIENT_KEY_EXCHANGE
        return STEP_OK

    cdef int do_read_client_certificate(self) except -1:
        """The client's Certificate (section 7.4.6): its chain, or that it has none."""
        cdef Certificate12 c
        cdef int code
        if self.message == NULL:
            return STEP_NEED_MESSAGE
        code = parse_certificate12(self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER, &c)
        if code < 0:
            return self.fail(-code, c.reason)
        if c.leaf.p == NULL:
            if self.config.client_auth == CLIENT_AUTH_REQUIRE:
                return self.fail(handshake_failure, "the client has no certificate")
            self.forget_messages()
            return self.taken(S12_READ_CLIENT_KEY_EXCHANGE)
        chain = read_chain12(c.entries)
        self.peer_key = read_key(self, chain[0])
        if self.peer_key is None:
            return -bad_certificate
        if self.config.verify_client is not None:
            code = ask_trust(self, self.config.verify_client, (list(chain),))
            if code < 0:
                return code
        self.peer_certificates = chain
        return self.taken(S12_READ_CLIENT_KEY_EXCHANGE)

    cdef int do_read_client_key_exchange(self) except -1:
        """ClientKeyExchange (RFC 8422, section 5.7), and with it all keys."""
        cdef Reader point
        cdef uint8_t premaster[KX_SHARED_MAX]
        cdef size_t n = 0
        cdef const char *reason = NULL
        cdef int code
        if self.message == NULL:
            return STEP_NEED_MESSAGE
        code = parse_client_key_exchange(self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER,
                                         &point, &reason)
        if code < 0:
            return self.fail(-code, reason)
        if self.exchange.derive(point.p, left(&point), premaster, &n) < 0:
            return self.fail(illegal_parameter, "the client's key share is no point of its group")
        self.exchange = None
        code = self.taken(S12_READ_CHANGE_CIPHER_SPEC if self.peer_key is None else S12_READ_CERTIFICATE_VERIFY)
        self.make_master_secret(premaster, n)
        cleanse(premaster, sizeof(premaster))
        self.make_keys()
        return code

    cdef int do_read_certificate_verify(self) noexcept nogil:
        """The client's CertificateVerify (section 7.4.8): it signs all messages before it, by a hash of its own."""
        cdef CertificateVerify cv
        cdef int code
        if self.message == NULL:
            return STEP_NEED_MESSAGE
        code = parse_certificate_verify(self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER, &cv)
        if code < 0:
            return self.fail(-code, cv.reason)
        if not is_among(cv.algorithm, self.config.schemes12, self.config.n_schemes12):
            return self.fail(illegal_parameter, "CertificateVerify uses an algorithm that was not offered")
        if not self.peer_key.supports12(cv.algorithm):
            return self.fail(illegal_parameter, "CertificateVerify uses an algorithm that does not fit the key")
        if self.peer_key.verify12(cv.algorithm, self.messages.data, self.messages.len, cv.signature.p,
                                  left(&cv.signature)) != 0:
            return self.fail(decrypt_error, "the client's CertificateVerify does not verify")
        self.client_signature_scheme = cv.algorithm
        self.forget_messages()
        return self.taken(S12_READ_CHANGE_CIPHER_SPEC)

    cdef int do_read_finished(self) noexcept nogil:
        cdef int step
        if self.message == NULL:
            return STEP_NEED_MESSAGE
        step = self.check_finished()
        if step < 0:
            return step
        return self.taken(S12_CONFIRMED if self.resumed else S12_SEND_NEW_SESSION_TICKET)

    cdef int do_send_new_session_ticket(self) except -1:
        """NewSessionTicket (RFC 5077, section 3.3), when the ServerHello promised it."""
        if self.gives_ticket and add_ticket12(self, self.config, self.master_secret, self.session_began) < 0:
            return -internal_error
        self.state = S12_SEND_FINISHED
        return STEP_OK

    cdef int do_send_finished(self) noexcept nogil:
        if self.send_finished() < 0:
            return -internal_error
        self.message = NULL
        self.state = S12_READ_CHANGE_CIPHER_SPEC if self.resumed else S12_CONFIRMED
        return STEP_OK
