"""What the handshakes share: the flight a step leaves behind, and the way a step fails (see the .pxd)."""

cimport cython
from libc.string cimport memcpy

from cext.base.buffer cimport bytes_free, bytes_reserve
from cext.base.wire cimport writer_init, written
from cext.crypto.hash_kdf cimport HASH_MAX, cleanse, hash_length
from cext.crypto.sign cimport SIGNATURE_MAX
from cext.tls.constants cimport TLS12, internal_error
from cext.tls.key_schedule cimport schedule_wipe
from cext.tls.prf12 cimport KEY_IV_MAX
from cext.tls.transcript cimport transcript_add


cdef enum:
    VOUCHED_MIN = 16                    # right signatures of a signer's in a row, until only some are verified:
    VOUCHED_SAMPLE = 16                 # one of so many


@cython.no_gc
cdef class Handshake:
    """The base of Server13 and Client13; made and driven by the connection."""

    def __cinit__(self, *args):
        self.alpn = b""
        self.server_name = b""
        self.fingerprint = b""
        self.ocsp_response = b""
        self.signed_certificate_timestamps = b""
        self.peer_certificates = ()

    def __dealloc__(self):
        self.clear_flight()
        bytes_free(&self.flight)
        schedule_wipe(&self.schedule)
        cleanse(self.resumption_secret, sizeof(self.resumption_secret))
        cleanse(self.exporter_secret, sizeof(self.exporter_secret))

    cdef int advance(self, const uint8_t *message, size_t n) noexcept:
        cdef int step
        self.message = message
        self.message_length = n
        try:
            step = self.run()
        except BaseException as e:      # an interrupt, too: what it stopped has not been done
            step = self.fail_exception(e)
        self.message = NULL
        if step < 0:
            self.clear_flight()         # nothing of a failed step leaves
        return step

    cdef int run(self) except -1:
        return self.fail(internal_error, "run is not overridden")

    cdef int admit(self, int type, size_t length) noexcept nogil:
        return self.fail(internal_error, "admit is not overridden")

    cdef int change_cipher_spec(self) noexcept nogil:
        return STEP_OK

    cdef int fail(self, int description, const char *reason) noexcept nogil:
        self.reason = reason
        return -description

    cdef int fail_exception(self, object exception) noexcept:
        self.reason = NULL
        try:
            self.error = f"{type(exception).__name__}: {exception}"
        except Exception:               # an exception whose text cannot be made
            self.error = "an exception without text"
        return -internal_error

    cdef int sign(self, Credential credential, int scheme, const uint8_t *message, size_t n, uint8_t *signature,
                  size_t *length) except -1:
        cdef bytes remote = self.signature
        cdef int code
        if credential.key is not None:
            if self.version == TLS12:
                code = credential.key.sign12(scheme, message, n, signature, length)
            else:
                code = credential.key.sign(scheme, message, n, signature, length)
            if code < 0:
                return self.fail(internal_error, "the private key does not sign")
            return STEP_OK
        if remote is None:
            self.signer = credential.signer
            self.to_sign = (<const char *> message)[:n]
            self.scheme = scheme
            return STEP_WAIT_SIGN
        if not 0 < len(remote) <= SIGNATURE_MAX or not self.vouches(credential, scheme, message, n, remote):
            return self.fail(internal_error, "the signer's signature does not verify")
        memcpy(signature, <const char *> remote, len(remote))
        length[0] = len(remote)
        self.signer = self.to_sign = self.signature = None
        return STEP_OK

    cdef bint vouches(self, Credential credential, int scheme, const uint8_t *message, size_t n, bytes remote) except -1:
        """Whether the signer's signature is as it should be. Checked here, where it can be said whose fault it is. A wrong
        one of RSA may tell the key to whoever sees it (Boneh, DeMillo, Lipton), one of another kind costs this client
        its handshake and no more: to verify those takes longer than to sign, and a sample is enough."""
        cdef int code
        if credential.ecdsa and credential.vouched >= VOUCHED_MIN and credential.vouched % VOUCHED_SAMPLE:
            credential.vouched += 1
            return True
        if self.version == TLS12:
            code = credential.public_key.verify12(scheme, message, n, remote, len(remote))
        else:
            code = credential.public_key.verify(scheme, message, n, remote, len(remote))
        credential.vouched = 0 if code < 0 else credential.vouched + 1
        return code >= 0

    cdef int open_message(self, Writer *w, size_t room) noexcept nogil:
        if bytes_reserve(&self.flight, room) < 0:
            return self.fail(internal_error, "out of memory")
        writer_init(w, self.flight.data + self.flight.len, room)
        return 0

    cdef int close_message(self, Writer *w, int level) noexcept nogil:
        if w.overflow:
            return self.fail(internal_error, "a message larger than its room")
        return self.append_message(written(w), level)

    cdef int add_message(self, const uint8_t *message, size_t n, int level) noexcept nogil:
        if bytes_reserve(&self.flight, n) < 0:
            return self.fail(internal_error, "out of memory")
        memcpy(self.flight.data + self.flight.len, message, n)
        return self.append_message(n, level)

    cdef int append_message(self, size_t n, int level) noexcept nogil:
        """The n bytes after the flight's end become its last message."""
        cdef size_t offset = self.flight.len
        # What follows a handshake of TLS 1.3 is in no transcript; under these keys TLS 1.2's Finished comes.
        if level != LEVEL_APPLICATION or self.version == TLS12:
            transcript_add(&self.transcript, self.flight.data + offset, n)
        self.flight.len += n
        if self.add_action(ACTION_MESSAGE, level) < 0:
            return -internal_error
        self.actions[self.n_actions - 1].offset = <uint32_t> offset
        self.actions[self.n_actions - 1].length = <uint32_t> n
        return 0

    cdef int add_keys(self, int kind, int level, const uint8_t *secret) noexcept nogil:
        if self.add_action(kind, level) < 0:
            return -internal_error
        memcpy(self.actions[self.n_actions - 1].secret, secret,
               KEY_IV_MAX if self.version == TLS12 else hash_length(self.hash))
        return 0

    cdef int add_action(self, int kind, int level) noexcept nogil:
        cdef Action *a
        if self.n_actions == ACTIONS_MAX:
            return self.fail(internal_error, "a flight of too many actions")
        a = &self.actions[self.n_actions]
        a.kind = <uint8_t> kind
        a.level = <uint8_t> level
        self.n_actions += 1
        return 0

    cdef void clear_flight(self) noexcept nogil:
        cdef int i
        for i in range(self.n_actions):
            if self.actions[i].kind in (ACTION_READ_KEYS, ACTION_WRITE_KEYS):
                cleanse(self.actions[i].secret, HASH_MAX)
        self.n_actions = 0
        self.flight.len = 0
