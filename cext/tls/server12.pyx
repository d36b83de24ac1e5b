"""The server's side of a TLS 1.2 handshake (see the .pxd): one do_* per state, in the order of the flights. Section
numbers are RFC 5246's unless another RFC is named."""

cimport cython
from libc.stdint cimport uint16_t
from libc.string cimport memcpy, memset

from cext.base.buffer cimport Bytes, bytes_reserve
from cext.base.wire cimport Reader, Writer, left
from cext.crypto.aead cimport AEAD_AES_128_GCM, AEAD_AES_256_GCM, AEAD_CHACHA20_POLY1305
from cext.crypto.hash_kdf cimport (
    HASH_MAX, HASH_SHA256, HASH_SHA384, cleanse, equal_constant_time, hmac_key, random_bytes)
from cext.crypto.kx cimport KX_SHARED_MAX
from cext.crypto.sign cimport SIGNATURE_MAX
from cext.tls.client_auth cimport chain_of_state
from cext.tls.config cimport Selection
from cext.tls.constants cimport (
    HANDSHAKE_HEADER, HS_CLIENT_HELLO, HS_CLIENT_KEY_EXCHANGE, HS_FINISHED, TLS12, TLS13,
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS_EMPTY_RENEGOTIATION_INFO_SCSV,
    decrypt_error, illegal_parameter, internal_error, unexpected_message)
from cext.tls.handshake cimport (
    ACTION_CCS, ACTION_READ_KEYS, ACTION_WRITE_KEYS, LEVEL_APPLICATION, LEVEL_INITIAL, STEP_DONE, STEP_NEED_MESSAGE,
    STEP_OK)
from cext.tls.key_log cimport log_secret
from cext.tls.certificates cimport build_certificate
from cext.tls.messages cimport build_finished, parse_client_hello, parse_finished
from cext.tls.messages12 cimport (
    ServerHello12Parts, build_server_hello12, build_server_hello_done, build_server_key_exchange,
    ecdhe_params, has_uncompressed, parse_client_key_exchange)
from cext.tls.negotiate cimport choose_alpn, choose_group12, list_has, name_of, protocol_of
from cext.tls.prf12 cimport extended_master_secret, finished12, key_block, master_secret
from cext.tls.session cimport SessionState, forget_state
from cext.tls.tickets12 cimport add_ticket12, find_session12, is_to_be_renewed
from cext.tls.transcript cimport transcript_add, transcript_hash, transcript_init

cdef enum:
    CLIENT_HELLO_MAX = 1 << 16          # body, bytes
    MESSAGE_MAX = 1 << 10               # of any later message
    DOWNGRADE_LENGTH = 8

# What ends a ServerHello.random of TLS 1.2 by a server that speaks 1.3 (RFC 8446, section 4.1.3).
cdef const char *DOWNGRADE = b"DOWNGRD\x01"


@cython.no_gc
cdef class Server12(Handshake):
    """Server12(config): made when a ClientHello settles on TLS 1.2, given up when the handshake is confirmed."""

    def __cinit__(self, ServerConfig config not None):
        self.config = config
        self.state = S12_READ_CLIENT_HELLO

    def __dealloc__(self):
        cleanse(self.master_secret, sizeof(self.master_secret))
        cleanse(&self.master, sizeof(self.master))
        cleanse(self.client_keys, sizeof(self.client_keys))
        cleanse(self.server_keys, sizeof(self.server_keys))

    cdef int admit(self, int type, size_t length) noexcept nogil:
        if self.state == S12_READ_CLIENT_HELLO:
            if type != HS_CLIENT_HELLO:
                return self.fail(unexpected_message, "not a ClientHello")
            return self.fail(illegal_parameter, "a ClientHello too large") if length > CLIENT_HELLO_MAX else 0
        if self.state == S12_READ_CLIENT_KEY_EXCHANGE:
            if type != HS_CLIENT_KEY_EXCHANGE:
                return self.fail(unexpected_message, "not the handshake message that comes now")
        elif self.state == S12_READ_CHANGE_CIPHER_SPEC:
            return self.fail(unexpected_message, "a message instead of the change_cipher_spec")
        elif self.state != S12_READ_FINISHED or type != HS_FINISHED:
            return self.fail(unexpected_message, "not the client's Finished")
        return self.fail(illegal_parameter, "a handshake message too large") if length > MESSAGE_MAX else 0

    cdef int change_cipher_spec(self) noexcept nogil:
        """Section 7.1: once, between ClientKeyExchange and Finished; at no other place is it passed over."""
        if self.state != S12_READ_CHANGE_CIPHER_SPEC:
            return self.fail(unexpected_message, "a change_cipher_spec that cannot come now")
        if self.add_keys(ACTION_READ_KEYS, LEVEL_APPLICATION, self.client_keys) < 0:
            return -internal_error
        cleanse(self.client_keys, sizeof(self.client_keys))
        self.state = S12_READ_FINISHED
        return STEP_NEED_MESSAGE

    cdef int advance(self, const uint8_t *message, size_t n) noexcept:
        cdef int step
        self.message = message
        self.message_length = n
        try:
            step = self.run()
        except Exception as e:
            step = self.fail_exception(e)
        self.message = NULL
        memset(&self.hello, 0, sizeof(self.hello))
        if step < 0:
            self.clear_flight()
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
            elif self.state == S12_SEND_SERVER_HELLO_DONE:
                step = self.do_send_server_hello_done()
            elif self.state == S12_READ_CLIENT_KEY_EXCHANGE:
                step = self.do_read_client_key_exchange()
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
        cdef const char *reason = NULL
        cdef int code
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
        transcript_init(&self.transcript, self.hash)
        transcript_add(&self.transcript, self.message, self.message_length)
        return 0

    cdef void set_cipher_suite(self, int suite) noexcept nogil:
        self.cipher_suite = suite
        self.hash = HASH_SHA256
        if suite == TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 or suite == TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:
            self.aead = AEAD_AES_128_GCM
        elif suite == TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 or suite == TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384:
            self.aead = AEAD_AES_256_GCM
            self.hash = HASH_SHA384
        else:
            self.aead = AEAD_CHACHA20_POLY1305

    cdef int do_send_server_hello(self) noexcept:
        """ServerHello (section 7.4.1.3). Its session_id is empty, since nothing is kept to resume by it; where a ticket
        is honoured it is the client's (RFC 5077, section 3.4)."""
        cdef Writer w
        cdef ServerHello12Parts parts
        cdef const uint8_t *alpn = self.alpn
        if self.make_random() < 0:
            return self.fail(internal_error, "no randomness")
        # Room for the whole flight at once: the messages below only fill it.
        if not self.resumed and bytes_reserve(
                &self.flight, 1024 + SIGNATURE_MAX + len(self.credential.certificate_body12)) < 0:
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
        if self.resumed:
            parts.session_id = self.hello.legacy_session_id.p
            parts.session_id_len = left(&self.hello.legacy_session_id)
        if self.open_message(&w, 512) < 0:
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

    cdef int do_send_certificate(self) noexcept:
        """Certificate (section 7.4.2): encoded once, when the configuration was made."""
        cdef Writer w
        cdef const uint8_t *body = self.credential.certificate_body12
        cdef size_t n = len(self.credential.certificate_body12)
        if self.open_message(&w, HANDSHAKE_HEADER + n) < 0:
            return -internal_error
        build_certificate(&w, body, n)
        if self.close_message(&w, LEVEL_INITIAL) < 0:
            return -internal_error
        self.state = S12_SEND_SERVER_KEY_EXCHANGE
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
        memcpy(signed, self.client_random, RANDOM_LENGTH)
        memcpy(signed + RANDOM_LENGTH, self.server_random, RANDOM_LENGTH)
        memcpy(signed + 2 * RANDOM_LENGTH, self.params, self.params_length)
        n = 2 * RANDOM_LENGTH + self.params_length
        step = self.sign(self.credential, self.signature_scheme, signed, n, signature, &signature_length)
        if step != STEP_OK:
            return step
        if self.open_message(&w, HANDSHAKE_HEADER + self.params_length + 4 + signature_length) < 0:
            return -internal_error
        build_server_key_exchange(&w, self.params, self.params_length, <uint16_t> self.signature_scheme, signature,
                                  signature_length)
        if self.close_message(&w, LEVEL_INITIAL) < 0:
            return -internal_error
        self.state = S12_SEND_SERVER_HELLO_DONE
        return STEP_OK

    cdef int make_params(self) except -1:
        cdef uint8_t public[KX_PUBLIC_MAX]
        cdef size_t n = 0
        self.exchange = KeyExchange.__new__(KeyExchange)
        if self.exchange.generate(self.group, public, &n) < 0:
            return self.fail(internal_error, "no key pair")
        self.params_length = ecdhe_params(<uint16_t> self.group, public, n, self.params)
        return 0

    cdef int do_send_server_hello_done(self) noexcept nogil:
        cdef Writer w
        if self.open_message(&w, HANDSHAKE_HEADER) < 0:
            return -internal_error
        build_server_hello_done(&w)
        if self.close_message(&w, LEVEL_INITIAL) < 0:
            return -internal_error
        self.message = NULL
        self.state = S12_READ_CLIENT_KEY_EXCHANGE
        return STEP_OK

    cdef int do_read_client_key_exchange(self) noexcept:
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
        transcript_add(&self.transcript, self.message, self.message_length)
        self.make_master_secret(premaster, n)
        cleanse(premaster, sizeof(premaster))
        self.make_keys()
        self.message = NULL
        self.state = S12_READ_CHANGE_CIPHER_SPEC
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

    cdef int do_read_finished(self) noexcept nogil:
        """The client's Finished (section 7.4.9): compared in constant time."""
        cdef Reader verify_data
        cdef uint8_t digest[HASH_MAX]
        cdef uint8_t expected[FINISHED12_LENGTH]
        cdef const char *reason = NULL
        cdef int code
        if self.message == NULL:
            return STEP_NEED_MESSAGE
        code = parse_finished(self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER,
                              FINISHED12_LENGTH, &verify_data, &reason)
        if code < 0:
            return self.fail(decrypt_error, reason)      # incorrect, be it by its length
        transcript_hash(&self.transcript, digest)
        finished12(&self.master, 0, digest, expected)
        if not equal_constant_time(verify_data.p, expected, FINISHED12_LENGTH):
            return self.fail(decrypt_error, "the client's Finished does not verify")
        transcript_add(&self.transcript, self.message, self.message_length)
        self.state = S12_CONFIRMED if self.resumed else S12_SEND_NEW_SESSION_TICKET
        return STEP_OK

    cdef int do_send_new_session_ticket(self) noexcept:
        """NewSessionTicket (RFC 5077, section 3.3), when the ServerHello promised it."""
        if self.gives_ticket and add_ticket12(self, self.config, self.master_secret, self.session_began) < 0:
            return -internal_error
        self.state = S12_SEND_FINISHED
        return STEP_OK

    cdef int do_send_finished(self) noexcept nogil:
        """change_cipher_spec, and Finished under the keys it changes to (sections 7.1 and 7.4.9)."""
        cdef Writer w
        cdef uint8_t digest[HASH_MAX]
        cdef uint8_t verify_data[FINISHED12_LENGTH]
        if (self.add_action(ACTION_CCS, LEVEL_INITIAL) < 0
                or self.add_keys(ACTION_WRITE_KEYS, LEVEL_APPLICATION, self.server_keys) < 0):
            return -internal_error
        cleanse(self.server_keys, sizeof(self.server_keys))
        transcript_hash(&self.transcript, digest)
        finished12(&self.master, 1, digest, verify_data)
        if self.open_message(&w, HANDSHAKE_HEADER + FINISHED12_LENGTH) < 0:
            return -internal_error
        build_finished(&w, verify_data, FINISHED12_LENGTH)
        if self.close_message(&w, LEVEL_APPLICATION) < 0:
            return -internal_error
        self.message = NULL
        self.state = S12_READ_CHANGE_CIPHER_SPEC if self.resumed else S12_CONFIRMED
        return STEP_OK
