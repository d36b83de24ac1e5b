"""What both sides of a TLS 1.2 handshake share (see the .pxd). Section numbers are RFC 5246's unless another RFC is
named."""

cimport cython
from libc.string cimport memcpy

from cext.base.buffer cimport bytes_append, bytes_free
from cext.base.wire cimport Reader, Writer
from cext.crypto.aead cimport AEAD_AES_128_GCM, AEAD_AES_256_GCM, AEAD_CHACHA20_POLY1305
from cext.crypto.hash_kdf cimport HASH_MAX, HASH_SHA256, HASH_SHA384, cleanse, equal_constant_time, hmac_key
from cext.tls.constants cimport (
    HANDSHAKE_HEADER, TLS12, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, decrypt_error, internal_error,
    unexpected_message)
from cext.tls.handshake cimport (
    ACTION_CCS, ACTION_READ_KEYS, ACTION_WRITE_KEYS, LEVEL_APPLICATION, LEVEL_INITIAL, STEP_NEED_MESSAGE, STEP_OK)
from cext.tls.key_log cimport log_secret
from cext.tls.messages cimport build_finished, parse_finished
from cext.tls.prf12 cimport extended_master_secret, finished12, key_block, master_secret
from cext.tls.transcript cimport transcript_add, transcript_hash, transcript_init

DOWNGRADE = <const uint8_t *> b"DOWNGRD\x01"    # the last byte: TLS 1.2; 0 for what is older


@cython.no_gc
cdef class Handshake12(Handshake):
    """The base of Server12 and Client12."""

    def __cinit__(self, *args):
        self.version = TLS12

    def __dealloc__(self):
        cleanse(self.master_secret, sizeof(self.master_secret))
        cleanse(&self.master, sizeof(self.master))
        cleanse(self.client_keys, sizeof(self.client_keys))
        cleanse(self.server_keys, sizeof(self.server_keys))
        bytes_free(&self.messages)

    # --- the transcript

    cdef int begin_transcript(self, const uint8_t *client_hello, size_t n) noexcept nogil:
        transcript_init(&self.transcript, self.hash)
        transcript_add(&self.transcript, client_hello, n)
        return self.keep(client_hello, n)

    cdef int taken(self, int state) noexcept nogil:
        transcript_add(&self.transcript, self.message, self.message_length)
        if self.keep(self.message, self.message_length) < 0:
            return -internal_error
        self.message = NULL
        self.state = state
        return STEP_OK

    cdef int append_message(self, size_t n, int level) noexcept nogil:
        if self.keep(self.flight.data + self.flight.len, n) < 0:
            return -internal_error
        return Handshake.append_message(self, n, level)

    cdef int keep(self, const uint8_t *message, size_t n) noexcept nogil:
        if self.keeps_messages and bytes_append(&self.messages, message, n) < 0:
            return self.fail(internal_error, "out of memory")
        return STEP_OK

    cdef void forget_messages(self) noexcept nogil:
        """No CertificateVerify comes, or it has come."""
        self.keeps_messages = 0
        bytes_free(&self.messages)

    # --- keys

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

    cdef size_t signed_params(self, const uint8_t *params, size_t n, uint8_t *out) noexcept nogil:
        memcpy(out, self.client_random, RANDOM_LENGTH)
        memcpy(out + RANDOM_LENGTH, self.server_random, RANDOM_LENGTH)
        memcpy(out + 2 * RANDOM_LENGTH, params, n)
        return 2 * RANDOM_LENGTH + n

    cdef void make_master_secret(self, const uint8_t *premaster, size_t n) noexcept nogil:
        cdef uint8_t digest[HASH_MAX]
        if self.extended_master_secret:
            transcript_hash(&self.transcript, digest)
            extended_master_secret(self.hash, premaster, n, digest, self.master_secret)
        else:
            master_secret(self.hash, premaster, n, self.client_random, self.server_random, self.master_secret)

    cdef void make_keys(self) noexcept:
        if self.key_log is not None:
            log_secret(self.key_log, "CLIENT_RANDOM", self.client_random, self.master_secret, MASTER_SECRET_LENGTH)
        hmac_key(&self.master, self.hash, self.master_secret, MASTER_SECRET_LENGTH)
        key_block(&self.master, self.aead, self.client_random, self.server_random, self.client_keys, self.server_keys)

    # --- the end of a flight

    cdef int read_change_cipher_spec(self, bint due, int state) noexcept nogil:
        """Section 7.1: once, before the peer's Finished; at no other place is it passed over."""
        cdef uint8_t *keys = &self.client_keys[0] if self.server else &self.server_keys[0]
        if not due:
            return self.fail(unexpected_message, "a change_cipher_spec that cannot come now")
        if self.add_keys(ACTION_READ_KEYS, LEVEL_APPLICATION, keys) < 0:
            return -internal_error
        cleanse(keys, KEY_IV_MAX)
        self.state = state
        return STEP_NEED_MESSAGE

    cdef int send_finished(self) noexcept nogil:
        """Sections 7.1 and 7.4.9."""
        cdef Writer w
        cdef uint8_t digest[HASH_MAX]
        cdef uint8_t verify_data[FINISHED12_LENGTH]
        cdef uint8_t *keys = &self.server_keys[0] if self.server else &self.client_keys[0]
        if (self.add_action(ACTION_CCS, LEVEL_INITIAL) < 0
                or self.add_keys(ACTION_WRITE_KEYS, LEVEL_APPLICATION, keys) < 0):
            return -internal_error
        cleanse(keys, KEY_IV_MAX)
        transcript_hash(&self.transcript, digest)
        finished12(&self.master, self.server, digest, verify_data)
        self.note_finished(verify_data)
        if self.open_message(&w, HANDSHAKE_HEADER + FINISHED12_LENGTH) < 0:
            return -internal_error
        build_finished(&w, verify_data, FINISHED12_LENGTH)
        return self.close_message(&w, LEVEL_APPLICATION)

    cdef int check_finished(self) noexcept nogil:
        """Section 7.4.9: compared in constant time."""
        cdef Reader verify_data
        cdef uint8_t digest[HASH_MAX]
        cdef uint8_t expected[FINISHED12_LENGTH]
        cdef const char *reason = NULL
        if parse_finished(self.message + HANDSHAKE_HEADER, self.message_length - HANDSHAKE_HEADER, FINISHED12_LENGTH,
                          &verify_data, &reason) < 0:
            return self.fail(decrypt_error, reason)      # incorrect, be it by its length
        transcript_hash(&self.transcript, digest)
        finished12(&self.master, not self.server, digest, expected)
        if not equal_constant_time(verify_data.p, expected, FINISHED12_LENGTH):
            return self.fail(decrypt_error, "the client's Finished does not verify" if self.server
                             else "the server's Finished does not verify")
        self.note_finished(expected)
        return STEP_OK

    cdef void note_finished(self, const uint8_t *verify_data) noexcept nogil:
        if not self.finished_seen:
            memcpy(self.first_finished, verify_data, FINISHED12_LENGTH)
        self.finished_seen = 1

    cdef Exporter12 make_exporter(self):
        """Without the extended master secret nothing of a connection is its own (RFC 7627, section 5.4)."""
        cdef Exporter12 exporter
        if not self.extended_master_secret:
            return None
        exporter = Exporter12.__new__(Exporter12)
        exporter.hash = self.hash
        memcpy(exporter.master_secret, self.master_secret, MASTER_SECRET_LENGTH)
        memcpy(exporter.randoms, self.client_random, RANDOM_LENGTH)
        memcpy(exporter.randoms + RANDOM_LENGTH, self.server_random, RANDOM_LENGTH)
        memcpy(exporter.unique, self.first_finished, FINISHED12_LENGTH)
        return exporter
