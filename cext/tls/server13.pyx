"""The server's side of a TLS 1.3 handshake (see the .pxd): one do_* per state, in the order of the flight."""

cimport cython
from libc.string cimport memcpy, memset

from cext.base.buffer cimport bytes_reserve
from cext.base.wire cimport (
    Reader, Writer, left, read_bytes, read_u16, read_vec8, read_vec16, reader_init, write_bytes, write_u16, writer_init,
    written)
from cext.crypto.aead cimport AEAD_AES_128_GCM, AEAD_AES_256_GCM, AEAD_CHACHA20_POLY1305
from cext.crypto.hash_kdf cimport (
    HASH_SHA256, HASH_SHA384, Hash, cleanse, equal_constant_time, hash_final, hash_init, hash_length, hash_update,
    hmac_once, random_bytes)
from cext.crypto.kx cimport KX_REFUSED, KX_SHARE_MAX, KX_SHARED_MAX, KeyExchange
from cext.crypto.sign cimport SIGNATURE_MAX
from cext.tls.client_auth cimport admits_chain, ask_trust, chain_of_state, read_key
from cext.tls.compression cimport decompress_certificate
from cext.tls.config cimport CLIENT_AUTH_NONE, CLIENT_AUTH_REQUIRE, Selection, read_chain
from cext.tls.constants cimport (
    EXT_COOKIE, EXT_EARLY_DATA, EXT_KEY_SHARE, EXT_PADDING, EXT_PRE_SHARED_KEY, HANDSHAKE_HEADER, HS_CERTIFICATE,
    HS_CERTIFICATE_VERIFY, HS_CLIENT_HELLO, HS_COMPRESSED_CERTIFICATE, HS_END_OF_EARLY_DATA, HS_FINISHED, RANDOM_LENGTH, TLS13,
    TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256, bad_certificate,
    certificate_required, decode_error, decrypt_error, illegal_parameter, internal_error, missing_extension,
    protocol_version, unexpected_message)
from cext.tls.credential cimport variant_for
from cext.tls.handshake cimport (
    ACTION_CCS, ACTION_READ_KEYS, ACTION_SKIP_EARLY_DATA, ACTION_WRITE_KEYS, LEVEL_APPLICATION, LEVEL_EARLY,
    LEVEL_HANDSHAKE, LEVEL_INITIAL, STEP_DONE, STEP_NEED_MESSAGE, STEP_OK, STEP_OTHER_VERSION,
    STEP_WAIT_POLICY, STEP_WAIT_REGISTER)
from cext.tls.key_schedule cimport (
    LABEL_CLIENT_APPLICATION, LABEL_CLIENT_EARLY, LABEL_CLIENT_HANDSHAKE, LABEL_EXPORTER_MASTER,
    LABEL_RESUMPTION_MASTER, LABEL_SERVER_APPLICATION, LABEL_SERVER_HANDSHAKE, derive_secret, finished_verify_data, schedule_handshake,
    schedule_master, schedule_resumed, schedule_wipe)
from cext.tls.certificates cimport (
    CERTIFICATE_VERIFY_INPUT_MAX, Certificate, CertificateVerify, build_certificate_verify, certificate_verify_input, parse_certificate, parse_certificate_verify)
from cext.tls.messages cimport (
    build_encrypted_extensions, build_finished, build_hello_retry_request, build_resuming_server_hello, next_key_share,
    parse_client_hello, parse_finished)
from cext.tls.negotiate cimport (
    GroupChoice, choose_alpn, choose_cipher_suite, choose_group, choose_version, is_among, name_of, protocol_of)
from cext.tls.psk cimport (
    EARLY_ASKED, EARLY_NOT_RESUMED, EARLY_RETRIED, EARLY_TAKEN, add_tickets, age_skew, mode_fits, psk_fingerprint, psk_wipe,
    refuse_early_data, select_psk, settle_early_data)
from cext.tls.replay cimport REGISTER_ASK
from cext.tls.transcript cimport transcript_add, transcript_hash, transcript_init, transcript_restart

cdef enum:
    CLIENT_HELLO_MAX = 1 << 16          # body, bytes: with post-quantum shares and tickets a few KiB are usual
    CERTIFICATE_MAX = 1 << 16           # body of a client's Certificate
    CERTIFICATE_VERIFY_MAX = 4 + SIGNATURE_MAX
    FINISHED_MAX = HASH_MAX
    COOKIE_MAX = 2 + 2 + HASH_MAX + 32

cdef uint8_t[HANDSHAKE_HEADER] END_OF_EARLY_DATA
END_OF_EARLY_DATA[:] = [HS_END_OF_EARLY_DATA, 0, 0, 0]


@cython.no_gc
cdef class Server13(Handshake):
    """Server13(config): made when the first ClientHello has come, given up when the handshake is confirmed."""

    def __cinit__(self, ServerConfig config not None):
        self.config = config
        self.state = READ_CLIENT_HELLO

    def __dealloc__(self):
        psk_wipe(&self.psk)
        cleanse(self.server_secret, sizeof(self.server_secret))
        cleanse(self.client_secret, sizeof(self.client_secret))
        cleanse(self.client_verify_data, sizeof(self.client_verify_data))
        cleanse(self.client_application_secret, sizeof(self.client_application_secret))

    cdef int admit(self, int type, size_t length) noexcept nogil:
        if self.state == READ_CLIENT_HELLO or self.state == READ_SECOND_CLIENT_HELLO:
            if type != HS_CLIENT_HELLO:
                return self.fail(unexpected_message, "not a ClientHello")
            if length > CLIENT_HELLO_MAX:
                return self.fail(illegal_parameter, "a ClientHello too large")
            return 0
        if self.state == READ_END_OF_EARLY_DATA:
            if type != HS_END_OF_EARLY_DATA:
                return self.fail(unexpected_message, "not the handshake message that comes now")
            if length:
                return self.fail(decode_error, "EndOfEarlyData is not empty")
            return 0
        if self.state == READ_CLIENT_CERTIFICATE:
            if type != HS_CERTIFICATE and not (type == HS_COMPRESSED_CERTIFICATE and self.config.decompresses):
                return self.fail(unexpected_message, "not the client's Certificate")
            if length > CERTIFICATE_MAX:
                return self.fail(illegal_parameter, "a Certificate too large")
            return 0
        if self.state == READ_CLIENT_CERTIFICATE_VERIFY:
            if type != HS_CERTIFICATE_VERIFY:
                return self.fail(unexpected_message, "not the client's CertificateVerify")
            if length > CERTIFICATE_VERIFY_MAX:
                return self.fail(illegal_parameter, "a CertificateVerify too large")
            return 0
        if self.state != READ_FINISHED or type != HS_FINISHED:
            return self.fail(unexpected_message, "not the client's Finished")
        if length > FINISHED_MAX:
            return self.fail(illegal_parameter, "a Finished too large")
        return 0

    cdef int advance(self, const uint8_t *message, size_t n) noexcept:
        cdef int step = Handshake.advance(self, message, n)
        memset(&self.hello, 0, sizeof(self.hello))
        memset(&self.share, 0, sizeof(self.share))
        return step

    cdef int run(self) except -1:
        cdef int step = STEP_OK
        while step == STEP_OK:
            if self.state == READ_CLIENT_HELLO:
                step = self.do_read_client_hello()
            elif self.state == SEND_HELLO_RETRY_REQUEST:
                step = self.do_send_hello_retry_request()
            elif self.state == READ_SECOND_CLIENT_HELLO:
                step = self.do_read_second_client_hello()
            elif self.state == SELECT_PSK:
                step = self.do_select_psk()
            elif self.state == SELECT_GROUP:
                step = self.do_select_group()
            elif self.state == SELECT_CREDENTIAL:
                step = self.do_select_credential()
            elif self.state == SELECT_EARLY_DATA:
                step = self.do_select_early_data()
            elif self.state == AWAIT_REGISTER:
                step = self.do_await_register()
            elif self.state == SEND_SERVER_HELLO:
                step = self.do_send_server_hello()
            elif self.state == SEND_ENCRYPTED_EXTENSIONS:
                step = self.do_send_encrypted_extensions()
            elif self.state == SEND_CERTIFICATE_REQUEST:
                step = self.do_send_certificate_request()
            elif self.state == SEND_CERTIFICATE:
                step = self.do_send_certificate()
            elif self.state == SEND_CERTIFICATE_VERIFY:
                step = self.do_send_certificate_verify()
            elif self.state == SEND_FINISHED:
                step = self.do_send_finished()
            elif self.state == SEND_TICKETS:
                step = self.do_send_tickets()
            elif self.state == READ_END_OF_EARLY_DATA:
                step = self.do_read_end_of_early_data()
            elif self.state == READ_CLIENT_CERTIFICATE:
                step = self.do_read_client_certificate()
            elif self.state == READ_CLIENT_CERTIFICATE_VERIFY:
                step = self.do_read_client_certificate_verify()
            elif self.state == READ_FINISHED:
                step = self.do_read_finished()
            elif self.state == SEND_LATE_TICKETS:
                step = self.do_send_late_tickets()
            else:
                step = STEP_DONE
        return step

    # --- the states, in flight order

    cdef int do_read_client_hello(self) except -1:
        """ClientHello (section 4.1.2): what both ends can do."""
        cdef int code
        if self.message == NULL:
            return STEP_NEED_MESSAGE
        code = parse_client_hello(self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER, &self.hello)
        if code < 0:
            return self.fail(-code, self.hello.reason)
        self.server_name = name_of(&self.hello.server_name)
        memcpy(self.client_random, self.hello.random.p, RANDOM_LENGTH)
        if self.hello.record_size_limit:        # answered in EncryptedExtensions (RFC 8449, section 4)
            self.send_limit = self.hello.record_size_limit
            self.receive_limit = self.config.record_size_limit
        if self.config.policy and not self.decided:
            return STEP_WAIT_POLICY
        code = self.choose_parameters()
        if code != 0:
            return code
        transcript_init(&self.transcript, self.hash)
        self.state = SELECT_PSK
        return STEP_OK

    cdef int choose_parameters(self) except -1:
        """Version and cipher suite: what both ClientHellos must lead to alike."""
        cdef int code = choose_version(&self.hello, self.config.min_version, self.config.max_version)
        if code < 0:
            return self.fail(-code, "no version in common" if code == -protocol_version else "a needless fallback")
        if code != TLS13:
            if self.hello_retried:      # section 4.1.4
                return self.fail(illegal_parameter, "the second ClientHello does not offer TLS 1.3")
            return STEP_OTHER_VERSION
        self.version = code
        code = choose_cipher_suite(&self.hello, self.config.cipher_suites, self.config.n_cipher_suites)
        if code < 0:
            return self.fail(-code, "no cipher suite in common")
        return self.set_cipher_suite(code)

    cdef int set_cipher_suite(self, int suite) noexcept nogil:
        self.cipher_suite = suite
        if suite == TLS_AES_128_GCM_SHA256:
            self.aead = AEAD_AES_128_GCM
            self.hash = HASH_SHA256
        elif suite == TLS_AES_256_GCM_SHA384:
            self.aead = AEAD_AES_256_GCM
            self.hash = HASH_SHA384
        elif suite == TLS_CHACHA20_POLY1305_SHA256:
            self.aead = AEAD_CHACHA20_POLY1305
            self.hash = HASH_SHA256
        else:
            return self.fail(internal_error, "a cipher suite without an AEAD")
        return 0

    cdef int do_send_hello_retry_request(self) except -1:
        """HelloRetryRequest (section 4.1.4). All that the next ClientHello is checked against goes into the cookie:
        the suite, the group and the hash of ClientHello1, under a MAC that also covers what must not change."""
        cdef Writer w
        cdef uint8_t cookie[COOKIE_MAX]
        cdef size_t cookie_length
        transcript_hash(&self.transcript, self.client_hello1)
        cookie_length = make_cookie(self.config.cookie_secret, self.cipher_suite, self.group, self.hash,
                                    self.client_hello1, self.message, self.message_length, cookie)
        transcript_restart(&self.transcript, self.hash, self.client_hello1)
        if self.open_message(&w, 256) < 0:
            return -internal_error
        build_hello_retry_request(&w, self.hello.legacy_session_id.p, left(&self.hello.legacy_session_id),
                                  self.cipher_suite, self.group, cookie, cookie_length)
        if self.close_message(&w, LEVEL_INITIAL) < 0 or self.add_ccs() < 0:
            return -internal_error
        self.early_refusal = EARLY_RETRIED
        if self.hello.early_data and self.add_action(ACTION_SKIP_EARLY_DATA, LEVEL_INITIAL) < 0:
            return -internal_error
        self.hello_retried = 1
        self.message = NULL
        self.state = READ_SECOND_CLIENT_HELLO
        return STEP_OK

    cdef int do_read_second_client_hello(self) except -1:
        """ClientHello2: the first one again, save for what section 4.1.2 lets a client change."""
        cdef uint8_t expected[COOKIE_MAX]
        cdef size_t n
        cdef Reader shares
        cdef KeyShare second
        cdef int code
        cdef int suite = self.cipher_suite
        if self.message == NULL:
            return STEP_NEED_MESSAGE
        code = parse_client_hello(self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER, &self.hello)
        if code < 0:
            return self.fail(-code, self.hello.reason)
        if self.hello.cookie.p == NULL:
            return self.fail(missing_extension, "the second ClientHello has no cookie")
        # The MAC is made anew over this ClientHello: it is right only if what must not change did not.
        n = make_cookie(self.config.cookie_secret, suite, self.group, self.hash, self.client_hello1,
                        self.message, self.message_length, expected)
        if left(&self.hello.cookie) != n or not equal_constant_time(expected, self.hello.cookie.p, n):
            return self.fail(illegal_parameter, "not our cookie, or the second ClientHello differs from the first")
        code = self.choose_parameters()
        if code < 0:
            return code
        if self.cipher_suite != suite:
            return self.fail(illegal_parameter, "the second ClientHello leads to another cipher suite")
        shares = self.hello.key_shares
        if not next_key_share(&shares, &self.share) or self.share.group != self.group or next_key_share(&shares, &second):
            return self.fail(illegal_parameter, "the second ClientHello has not the one share that was asked for")
        if self.hello.early_data:
            return self.fail(illegal_parameter, "early data after a HelloRetryRequest")
        self.state = SELECT_PSK
        return STEP_OK

    cdef int do_select_psk(self) except -1:
        """A session to go on from, if the client has a ticket of ours (section 4.2.11)."""
        cdef const char *reason = NULL
        cdef bint dhe = 0
        cdef int code = select_psk(self.config, &self.hello, self.message, self.message_length, &self.transcript,
                                   &self.schedule, &self.psk, &reason)
        if code < 0:
            return self.fail(-code, reason)
        if self.hello_retried and not self.psk.dhe:     # the share was asked for to be used
            psk_wipe(&self.psk)
        self.peer_certificates = ()                     # anew after a HelloRetryRequest
        if self.psk.selected:
            self.peer_certificates = chain_of_state(self.psk.state.peer_chain)
            if not admits_chain(self.config, self.peer_certificates):
                self.peer_certificates = ()
                psk_wipe(&self.psk)
        self.resumed = self.psk.selected
        self.ticket_age_skew = age_skew(&self.psk) if self.resumed else 0
        self.gives_tickets = self.config.tickets is not None and mode_fits(self.config, &self.hello, &dhe)
        transcript_add(&self.transcript, self.message, self.message_length)
        self.state = SELECT_CREDENTIAL if self.hello_retried else SELECT_GROUP
        return STEP_OK

    cdef int do_select_group(self) noexcept nogil:
        """The group of the key exchange (section 4.2.7), and whether its share is there."""
        cdef GroupChoice choice
        cdef int code
        self.state = SELECT_CREDENTIAL
        if self.psk.selected and not self.psk.dhe:
            return STEP_OK
        if self.hello.supported_groups.p == NULL:       # which a client with a PSK may leave out (section 9.2)
            return self.fail(missing_extension, "neither supported_groups nor a PSK of ours")
        code = choose_group(&self.hello, self.config.groups, self.config.n_groups, &choice)
        if code < 0:
            return self.fail(-code, "no group in common, or a share of a group that supported_groups lacks")
        self.group = choice.group
        self.share = choice.share
        if choice.retry:
            psk_wipe(&self.psk)                         # chosen anew, by the second ClientHello
            self.resumed = 0
            self.state = SEND_HELLO_RETRY_REQUEST
        return STEP_OK

    cdef int do_select_credential(self) except -1:
        """The certificate, if one is to be shown, and the application protocol."""
        cdef Reader protocol
        cdef int code
        # A resumed session has its name already; that it may still be asked for is looked up where names must be known.
        if not self.resumed or self.config.require_sni:
            code = self.choose_credential()
            if code < 0:
                return code
        code = choose_alpn(self.hello.alpn, self.config.alpn_list, len(self.config.alpn_list), &protocol)
        if code < 0:
            return self.fail(-code, "no application protocol in common")
        if protocol.p != NULL:
            self.alpn = protocol_of(self.config.alpn, &protocol)
        self.state = SELECT_EARLY_DATA if self.hello.early_data else SEND_SERVER_HELLO
        return STEP_OK

    cdef int do_select_early_data(self) except -1:
        """Whether early data that is offered is taken (section 8). After a HelloRetryRequest there is none."""
        cdef int refusal = EARLY_NOT_RESUMED
        if self.resumed:
            refusal = refuse_early_data(self.config, &self.psk, self.cipher_suite, self.alpn)
        if refusal == EARLY_ASKED:
            self.hold_hello()
            self.verdict = REGISTER_ASK
            self.state = AWAIT_REGISTER
            return STEP_WAIT_REGISTER
        return self.take_early_data(refusal)

    cdef int do_await_register(self) except -1:
        """The same, by the answer of a register that had to be asked."""
        if self.verdict == REGISTER_ASK:
            return STEP_WAIT_REGISTER
        if self.regain_hello() < 0:
            return -internal_error
        return self.take_early_data(settle_early_data(self.config, &self.psk, self.verdict))

    cdef int take_early_data(self, int refusal) except -1:
        cdef uint8_t fingerprint[HASH_MAX]
        self.early_refusal = <uint8_t> refusal
        self.early_accepted = refusal == EARLY_TAKEN
        if self.early_accepted:
            psk_fingerprint(&self.psk, fingerprint)
            self.max_early_data = self.psk.state.max_early_data
            self.fingerprint = fingerprint[:32].hex().encode()
        self.state = SEND_SERVER_HELLO
        return STEP_OK

    cdef int hold_hello(self) except -1:
        """The rest of the flight needs the ClientHello, which is its owner's until advance() returns."""
        self.held = (<const char *> self.message)[:self.message_length]
        return 0

    cdef int regain_hello(self) except -1:
        """As it was when it was held: what it leads to has been chosen already."""
        cdef GroupChoice choice
        self.message, self.message_length = self.held, len(self.held)
        if parse_client_hello(self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER, &self.hello) < 0:
            return self.fail(internal_error, self.hello.reason)
        if self.group:
            if choose_group(&self.hello, self.config.groups, self.config.n_groups, &choice) < 0:
                return self.fail(internal_error, "the group cannot be chosen again")
            self.share = choice.share
        return 0

    cdef int choose_credential(self) except -1:
        """By server_name and the client's signature algorithms."""
        cdef Selection selection
        if self.hello.signature_algorithms.p == NULL:   # as supported_groups
            return self.fail(missing_extension, "neither signature_algorithms nor a PSK of ours")
        memset(&selection, 0, sizeof(selection))
        if self.chosen is None:
            self.credential = self.config.select_credential(&self.hello, TLS13, &selection)
        else:
            self.credential = self.config.first_fit((self.chosen,), &self.hello, TLS13, &selection)
            selection.matched = self.hello.server_name.p != NULL
        if self.credential is None:
            return self.fail(selection.alert, selection.reason)
        self.certificate = self.credential.certificate_message(
            variant_for(self.hello.status_request and self.credential.shows_status(),
                        self.hello.signed_certificate_timestamp),
            self.hello.compress_certificate)
        self.signature_scheme = selection.scheme
        self.acknowledge_name = selection.matched
        return STEP_OK

    cdef int do_send_server_hello(self) except -1:
        """ServerHello (section 4.1.3), and with it the handshake traffic secrets."""
        cdef Writer w
        cdef KeyExchange exchange
        cdef uint8_t random[RANDOM_LENGTH]
        cdef uint8_t public[KX_SHARE_MAX]
        cdef uint8_t shared[KX_SHARED_MAX]
        cdef uint8_t client_hello_hash[HASH_MAX]
        cdef uint8_t digest[HASH_MAX]
        cdef size_t public_length = 0, shared_length = 0
        cdef size_t room
        cdef int code
        if random_bytes(random, RANDOM_LENGTH) < 0:
            return self.fail(internal_error, "no randomness")
        if self.group:
            exchange = KeyExchange.__new__(KeyExchange)
            code = exchange.respond(self.group, self.share.data, self.share.len, public, &public_length, shared,
                                    &shared_length)
            if code == KX_REFUSED:
                return self.fail(illegal_parameter, "the client's key share is none of its group")
            if code < 0:
                return self.fail(internal_error, "no key pair")
        # Room for the whole flight at once: the messages below only fill it.
        room = 1024 + public_length
        if not self.resumed:
            room += SIGNATURE_MAX + len(self.certificate)
        if bytes_reserve(&self.flight, room) < 0:
            return self.fail(internal_error, "out of memory")
        transcript_hash(&self.transcript, client_hello_hash)
        if self.open_message(&w, 256 + public_length) < 0:
            return -internal_error
        build_resuming_server_hello(&w, random, self.hello.legacy_session_id.p, left(&self.hello.legacy_session_id),
                                    self.cipher_suite, self.group, public, public_length,
                                    self.psk.identity if self.resumed else -1)
        if self.close_message(&w, LEVEL_INITIAL) < 0:
            return -internal_error
        if not self.hello_retried and self.add_ccs() < 0:
            return -internal_error

        if self.early_accepted and self.add_early_keys(client_hello_hash) < 0:
            return -internal_error
        if self.resumed:
            schedule_resumed(&self.schedule, shared if self.group else NULL, shared_length)
        else:
            schedule_handshake(&self.schedule, self.hash, shared, shared_length)
        cleanse(shared, sizeof(shared))
        transcript_hash(&self.transcript, digest)
        derive_secret(&self.schedule, LABEL_CLIENT_HANDSHAKE, digest, self.client_secret)
        derive_secret(&self.schedule, LABEL_SERVER_HANDSHAKE, digest, self.server_secret)
        # Early data comes before anything under the handshake keys: it is read first, or passed over (section 4.2.10).
        if not self.early_accepted and self.add_keys(ACTION_READ_KEYS, LEVEL_HANDSHAKE, self.client_secret) < 0:
            return -internal_error
        if self.add_keys(ACTION_WRITE_KEYS, LEVEL_HANDSHAKE, self.server_secret) < 0:
            return -internal_error
        if (self.hello.early_data and not self.early_accepted
                and self.add_action(ACTION_SKIP_EARLY_DATA, LEVEL_HANDSHAKE) < 0):
            return -internal_error
        self.state = SEND_ENCRYPTED_EXTENSIONS
        return STEP_OK

    cdef int add_early_keys(self, const uint8_t *client_hello_hash) noexcept nogil:
        cdef uint8_t secret[HASH_MAX]
        cdef int code
        derive_secret(&self.schedule, LABEL_CLIENT_EARLY, client_hello_hash, secret)
        code = self.add_keys(ACTION_READ_KEYS, LEVEL_EARLY, secret)
        cleanse(secret, sizeof(secret))
        return code

    cdef int add_ccs(self) noexcept nogil:
        """After our first message, for a client in middlebox compatibility mode (appendix D.4)."""
        if left(&self.hello.legacy_session_id) == 0:
            return 0
        return self.add_action(ACTION_CCS, LEVEL_INITIAL)

    cdef int do_send_encrypted_extensions(self) except -1:
        """EncryptedExtensions (section 4.3.1)."""
        cdef Writer w
        cdef const uint8_t *alpn = self.alpn
        if self.open_message(&w, 512) < 0:
            return -internal_error
        build_encrypted_extensions(&w, alpn, len(self.alpn), self.acknowledge_name, self.early_accepted,
                                   self.receive_limit)
        if self.close_message(&w, LEVEL_HANDSHAKE) < 0:
            return -internal_error
        self.state = SEND_FINISHED if self.resumed else SEND_CERTIFICATE_REQUEST
        return STEP_OK

    cdef int do_send_certificate_request(self) except -1:
        """CertificateRequest (section 4.3.2): encoded once, when the configuration was made."""
        cdef const uint8_t *message
        self.state = SEND_CERTIFICATE
        if self.config.client_auth == CLIENT_AUTH_NONE:
            return STEP_OK
        self.certificate_requested = 1
        message = self.config.certificate_request
        return self.add_message(message, len(self.config.certificate_request), LEVEL_HANDSHAKE)

    cdef int do_send_certificate(self) except -1:
        """Certificate (section 4.4.2), or CompressedCertificate: encoded when the configuration was made."""
        cdef const uint8_t *message = self.certificate
        self.state = SEND_CERTIFICATE_VERIFY
        return self.add_message(message, len(self.certificate), LEVEL_HANDSHAKE)

    cdef int do_send_certificate_verify(self) except -1:
        """CertificateVerify (section 4.4.3)."""
        cdef Writer w
        cdef uint8_t digest[HASH_MAX]
        cdef uint8_t signed[CERTIFICATE_VERIFY_INPUT_MAX]
        cdef uint8_t signature[SIGNATURE_MAX]
        cdef size_t n, signature_length = SIGNATURE_MAX
        cdef int step
        transcript_hash(&self.transcript, digest)
        n = certificate_verify_input(1, digest, hash_length(self.hash), signed)
        step = self.sign(self.credential, self.signature_scheme, signed, n, signature, &signature_length)
        if step != STEP_OK:
            return step
        if self.open_message(&w, HANDSHAKE_HEADER + 4 + signature_length) < 0:
            return -internal_error
        build_certificate_verify(&w, <uint16_t> self.signature_scheme, signature, signature_length)
        if self.close_message(&w, LEVEL_HANDSHAKE) < 0:
            return -internal_error
        self.state = SEND_FINISHED
        return STEP_OK

    cdef int do_send_finished(self) noexcept nogil:
        """Finished (section 4.4.4), and with it the application traffic secrets."""
        cdef Writer w
        cdef uint8_t digest[HASH_MAX]
        cdef uint8_t verify_data[HASH_MAX]
        cdef uint8_t server_application_secret[HASH_MAX]
        transcript_hash(&self.transcript, digest)
        finished_verify_data(self.hash, self.server_secret, digest, verify_data)
        cleanse(self.server_secret, sizeof(self.server_secret))
        if self.open_message(&w, HANDSHAKE_HEADER + HASH_MAX) < 0:
            return -internal_error
        build_finished(&w, verify_data, hash_length(self.hash))
        if self.close_message(&w, LEVEL_HANDSHAKE) < 0:
            return -internal_error

        transcript_hash(&self.transcript, digest)
        schedule_master(&self.schedule)
        derive_secret(&self.schedule, LABEL_CLIENT_APPLICATION, digest, self.client_application_secret)
        derive_secret(&self.schedule, LABEL_SERVER_APPLICATION, digest, server_application_secret)
        derive_secret(&self.schedule, LABEL_EXPORTER_MASTER, digest, self.exporter_secret)
        if self.add_keys(ACTION_WRITE_KEYS, LEVEL_APPLICATION, server_application_secret) < 0:
            return -internal_error
        cleanse(server_application_secret, sizeof(server_application_secret))
        self.message = NULL
        if self.certificate_requested:
            self.state = READ_CLIENT_CERTIFICATE
            return STEP_OK
        self.foresee_finished()
        self.state = SEND_TICKETS
        return STEP_OK

    cdef void foresee_finished(self) noexcept nogil:
        """Once nothing that we do not know comes before the client's Finished, what it must hold is known, and so is the
        resumption_master_secret, which covers it (sections 4.4.4 and 4.6.1)."""
        cdef Writer w
        cdef uint8_t digest[HASH_MAX]
        cdef uint8_t finished[HANDSHAKE_HEADER + HASH_MAX]
        if self.early_accepted:
            transcript_add(&self.transcript, END_OF_EARLY_DATA, HANDSHAKE_HEADER)
        transcript_hash(&self.transcript, digest)
        finished_verify_data(self.hash, self.client_secret, digest, self.client_verify_data)
        if not self.early_accepted:
            cleanse(self.client_secret, sizeof(self.client_secret))
        if self.gives_tickets:
            writer_init(&w, finished, sizeof(finished))
            build_finished(&w, self.client_verify_data, hash_length(self.hash))
            transcript_add(&self.transcript, finished, written(&w))
            transcript_hash(&self.transcript, digest)
            derive_secret(&self.schedule, LABEL_RESUMPTION_MASTER, digest, self.resumption_secret)
        schedule_wipe(&self.schedule)

    cdef int do_send_tickets(self) except -1:
        """NewSessionTickets, in the same flight as our Finished: they cost the connection no packet of their own
        (section 4.6.1 allows it where the client's Finished can be foreseen)."""
        if self.gives_tickets and add_tickets(self, self.config, &self.psk, self.resumption_secret) < 0:
            return -internal_error
        psk_wipe(&self.psk)
        self.held = None
        cleanse(self.resumption_secret, sizeof(self.resumption_secret))
        self.state = READ_END_OF_EARLY_DATA if self.early_accepted else READ_FINISHED
        return STEP_OK

    cdef int do_read_end_of_early_data(self) noexcept nogil:
        """EndOfEarlyData (section 4.5): admitted by type and length, it has no content."""
        if self.message == NULL:
            return STEP_NEED_MESSAGE
        if self.add_keys(ACTION_READ_KEYS, LEVEL_HANDSHAKE, self.client_secret) < 0:
            return -internal_error
        cleanse(self.client_secret, sizeof(self.client_secret))
        self.message = NULL
        self.state = READ_FINISHED
        return STEP_OK

    cdef int do_read_client_certificate(self) except -1:
        """The client's Certificate (section 4.4.2): its chain, or that it has none."""
        cdef Certificate c
        cdef const uint8_t *body
        cdef size_t n
        cdef bytes decompressed         # what `body` may point into
        cdef int code = 0
        if self.message == NULL:
            return STEP_NEED_MESSAGE
        body, n = self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER
        if self.message[0] == HS_COMPRESSED_CERTIFICATE:
            decompressed = decompress_certificate(self.config.certificate_compression, body, n, CERTIFICATE_MAX, &code,
                                                  &self.reason)
            if decompressed is None:
                return code
            body, n = decompressed, len(decompressed)
        code = parse_certificate(body, n, 0, 0, &c)
        if code < 0:
            return self.fail(-code, c.reason)
        if left(&c.request_context):
            return self.fail(illegal_parameter, "certificate_request_context is not ours")
        transcript_add(&self.transcript, self.message, self.message_length)
        if c.leaf.p == NULL:
            if self.config.client_auth == CLIENT_AUTH_REQUIRE:      # section 4.4.2.4
                return self.fail(certificate_required, "the client has no certificate")
            self.foresee_finished()
            self.message = NULL
            self.state = READ_FINISHED
            return STEP_OK
        chain = read_chain(c.entries)
        self.message = NULL
        self.client_key = read_key(self, chain[0])
        if self.client_key is None:
            return -bad_certificate
        if self.config.verify_client is not None:
            code = ask_trust(self, self.config.verify_client, (list(chain),))
            if code < 0:
                return code
        self.peer_certificates = chain
        self.state = READ_CLIENT_CERTIFICATE_VERIFY
        return STEP_OK

    cdef int do_read_client_certificate_verify(self) except -1:
        """The client's CertificateVerify (section 4.4.3): that the certificate is its own."""
        cdef CertificateVerify cv
        cdef uint8_t digest[HASH_MAX]
        cdef uint8_t signed[CERTIFICATE_VERIFY_INPUT_MAX]
        cdef size_t n
        cdef int code
        if self.message == NULL:
            return STEP_NEED_MESSAGE
        code = parse_certificate_verify(self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER, &cv)
        if code < 0:
            return self.fail(-code, cv.reason)
        if not is_among(cv.algorithm, self.config.schemes, self.config.n_schemes):
            return self.fail(illegal_parameter, "CertificateVerify uses an algorithm that was not offered")
        if not self.client_key.supports(cv.algorithm):
            return self.fail(illegal_parameter, "CertificateVerify uses an algorithm that does not fit the key")
        transcript_hash(&self.transcript, digest)
        n = certificate_verify_input(0, digest, hash_length(self.hash), signed)
        if self.client_key.verify(cv.algorithm, signed, n, cv.signature.p, left(&cv.signature)) != 0:
            return self.fail(decrypt_error, "the client's CertificateVerify does not verify")
        self.client_signature_scheme = cv.algorithm
        transcript_add(&self.transcript, self.message, self.message_length)
        self.message = NULL
        self.client_key = None
        self.foresee_finished()
        self.state = READ_FINISHED
        return STEP_OK

    cdef int do_read_finished(self) noexcept nogil:
        """The client's Finished: compared in constant time."""
        cdef Reader verify_data
        cdef const char *reason = NULL
        cdef size_t n = hash_length(self.hash)
        cdef int code
        if self.message == NULL:
            return STEP_NEED_MESSAGE
        code = parse_finished(self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER, n, &verify_data,
                              &reason)
        if code < 0:
            return self.fail(decrypt_error, reason)      # incorrect, be it by its length: section 4.4.4
        if not equal_constant_time(verify_data.p, self.client_verify_data, n):
            return self.fail(decrypt_error, "the client's Finished does not verify")
        if self.add_keys(ACTION_READ_KEYS, LEVEL_APPLICATION, self.client_application_secret) < 0:
            return -internal_error
        cleanse(self.client_application_secret, sizeof(self.client_application_secret))
        self.state = SEND_LATE_TICKETS if self.certificate_requested else CONFIRMED
        return STEP_OK

    cdef int do_send_late_tickets(self) except -1:
        """NewSessionTickets that say who the client is (section 4.6.1)."""
        if self.gives_tickets and add_tickets(self, self.config, &self.psk, self.resumption_secret) < 0:
            return -internal_error
        cleanse(self.resumption_secret, sizeof(self.resumption_secret))
        self.state = CONFIRMED
        return STEP_OK


# --- the cookie of HelloRetryRequest (section 4.2.2)

cdef size_t make_cookie(bytes secret, int suite, int group, int hash, const uint8_t *client_hello1,
                        const uint8_t *message, size_t n, uint8_t *cookie) noexcept:
    """suite, group, Hash(ClientHello1), HMAC(secret, all these and what of the ClientHello in `message` must not
    change). Returns its length, at most COOKIE_MAX."""
    cdef Writer w
    cdef uint8_t signed[COOKIE_MAX]
    cdef size_t length
    writer_init(&w, cookie, COOKIE_MAX)
    write_u16(&w, <uint16_t> suite)
    write_u16(&w, <uint16_t> group)
    write_bytes(&w, client_hello1, hash_length(hash))
    length = written(&w)
    memcpy(signed, cookie, length)
    hash_unchanging(message + HANDSHAKE_HEADER, n - HANDSHAKE_HEADER, signed + length)
    hmac_once(HASH_SHA256, secret, len(secret), signed, length + 32, cookie + length)
    return length + 32


cdef void hash_unchanging(const uint8_t *body, size_t n, uint8_t *digest) noexcept nogil:
    """SHA-256 of a parsed ClientHello without the extensions that a client may change, add or drop after a
    HelloRetryRequest (section 4.1.2): key_share, early_data, cookie, pre_shared_key, padding."""
    cdef Hash h
    cdef Reader r, part, extension
    cdef uint16_t type = 0
    reader_init(&r, body, n)
    hash_init(&h, HASH_SHA256)
    # legacy_version, random, legacy_session_id, cipher_suites, legacy_compression_methods: all as they were
    if not (read_bytes(&r, 2 + RANDOM_LENGTH, &part) and read_vec8(&r, &part) and read_vec16(&r, &part)
            and read_vec8(&r, &part)):
        r.p = r.end
    hash_update(&h, body, r.p - body)
    if read_vec16(&r, &extension):
        r = extension
        while read_u16(&r, &type) and read_vec16(&r, &extension):
            if type in (EXT_KEY_SHARE, EXT_EARLY_DATA, EXT_COOKIE, EXT_PRE_SHARED_KEY, EXT_PADDING):
                continue
            hash_update(&h, extension.p - 4, extension.end - extension.p + 4)
    hash_final(&h, digest)
