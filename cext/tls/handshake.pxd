"""What every handshake is to its consumer: messages in, and out of each step a flight to be carried
out in order: messages at an encryption level, keys to change, the compatibility CCS.

The consumer (the record layer's connection; QUIC could be another) calls `advance` with one whole
message at a time and carries out `actions[:n_actions]` only when the step did not fail: a failed
flight never leaves, so nothing is sent before the alert but what earlier steps sent.

The life of a handshake object ends with STEP_DONE or a failure; what the connection keeps it copies.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from cext.base.buffer cimport Bytes
from cext.base.wire cimport Writer
from cext.tls.credential cimport Credential
from cext.crypto.hash_kdf cimport HASH_MAX
from cext.tls.constants cimport RANDOM_LENGTH
from cext.tls.key_schedule cimport KeySchedule
from cext.tls.transcript cimport Transcript

cdef enum Step:                 # what advance and every do_* return, or -AlertDescription
    STEP_OK = 0                 # do_* only: go on with the next state
    STEP_NEED_MESSAGE = 1       # waits for the peer's next handshake message
    STEP_DONE = 2               # confirmed: both Finished have been seen to be right
    STEP_WAIT_POLICY = 3        # a server has read the ClientHello, and who made the configuration wants to choose by
                                # it: a new handshake with `decided` set is then given the same message
    STEP_WAIT_SIGN = 4          # `to_sign` is to be signed by `signer`: advance(NULL, 0) goes on with `signature`
    STEP_WAIT_CERTIFICATE = 6   # a server asks for a certificate, and who made a client's configuration wants to choose by
                                # `request`: advance(NULL, 0) goes on, with `decided` set
    STEP_WAIT_REGISTER = 7      # a server's register of early data is to be asked whether `psk.binder` is new to it:
                                # advance(NULL, 0) goes on, with `verdict` set
    STEP_OTHER_VERSION = 5      # the message settles on TLS 1.2: a sibling's handshake is to take it

cdef enum Level:                # encryption level a message travels at (RFC 9846, section 7)
    LEVEL_INITIAL = 0           # plaintext
    LEVEL_HANDSHAKE = 1
    LEVEL_APPLICATION = 2
    LEVEL_EARLY = 3             # 0-RTT, from the client alone

cdef enum ActionKind:
    ACTION_MESSAGE = 0          # send flight.data[offset:offset+length] at `level`
    ACTION_READ_KEYS = 1        # from now on the peer's records are under `secret`
    ACTION_WRITE_KEYS = 2       # from now on ours are
    ACTION_CCS = 3              # a record layer sends change_cipher_spec (RFC 9846, appendix D.4; RFC 5246,
                                # section 7.1); others skip it
    ACTION_SKIP_EARLY_DATA = 4  # the peer may be sending 0-RTT records that we do not read; `level` is the one
                                # its next message comes at

cdef struct Action:
    uint8_t kind                # ActionKind
    uint8_t level               # Level
    uint32_t offset             # into flight
    uint32_t length
    uint8_t secret[48]          # traffic secret, hash_length(hash) bytes, or in TLS 1.2 the direction's write_key and
                                # write_IV (at most KEY_IV_MAX); cleansed by the consumer and on failure

cdef enum:
    ACTIONS_MAX = 16

cdef class Handshake:
    cdef int state              # the subclass's enum of states, in flight order
    cdef Transcript transcript
    cdef KeySchedule schedule
    cdef int hash               # HashId of the cipher suite; 0 before it is chosen
    cdef int aead               # AeadId of the cipher suite

    # the flight of the last step
    cdef Bytes flight
    cdef Action actions[ACTIONS_MAX]
    cdef int n_actions

    # what the owner has decided
    cdef bint decided           # STEP_WAIT_POLICY, or STEP_WAIT_CERTIFICATE, has been
    cdef Credential chosen      # to be used instead of the configuration's choice; None: that
    cdef bytes request          # a client's: the CertificateRequest, whole; None when none has come
    cdef object signer          # of STEP_WAIT_SIGN
    cdef bytes to_sign
    cdef int scheme             # by which
    cdef bytes signature        # what came of it, until it is used

    # why the last step failed
    cdef const char *reason     # static; NULL: `error` has the text
    cdef str error              # an unexpected exception, for internal_error

    # what was negotiated; the connection copies these when they are known
    cdef int version
    cdef int cipher_suite
    cdef int group
    cdef int signature_scheme
    cdef uint16_t client_signature_scheme   # of a server: what the client's CertificateVerify is signed by; 0 without
    cdef Credential credential  # of a server: whose certificate it shows; None in a resumed session
    cdef bytes alpn             # b"" when none; the configuration's own object, not a copy
    cdef bytes server_name      # b"" when none
    cdef bint hello_retried
    cdef uint8_t client_random[RANDOM_LENGTH]
    cdef uint8_t exporter_secret[HASH_MAX]  # exporter_master_secret, once the server's Finished is there
    # RFC 8449, 0 when not negotiated: bytes of a protected record's content, and in TLS 1.3 its type and padding
    cdef uint16_t send_limit    # that the peer takes
    cdef uint16_t receive_limit # that we have said we take
    cdef bint resumed           # by a PSK
    cdef bint early_accepted    # the server takes, or took, early data
    cdef uint8_t early_refusal  # of a server: EarlyDataRefusal
    cdef uint32_t max_early_data            # bytes of it, by the ticket
    cdef uint8_t resumption_secret[HASH_MAX]    # resumption_master_secret: a server's until its tickets are made
    cdef uint64_t authenticated             # a client's: when the full handshake was, milliseconds since 1970
    cdef tuple peer_certificates            # DER, leaf first; () when the peer has shown none
    cdef int64_t ticket_age_skew            # of the session's ticket, the client's age minus ours, milliseconds
    cdef bytes ocsp_response    # of a server's certificate, that the client has been shown; b"" without
    cdef bytes signed_certificate_timestamps    # likewise; the encoded list
    cdef bytes fingerprint      # of early data that a server takes: hex, the same for a replay alone; b"" without

    # valid during one advance() only: the message given to it
    cdef const uint8_t *message
    cdef size_t message_length

    # --- for the consumer; overridden by each handshake -------------------------------------------
    cdef int advance(self, const uint8_t *message, size_t n) noexcept
    # One whole message, header included (NULL, 0: begin; a client then makes its ClientHello).
    # -> STEP_NEED_MESSAGE, STEP_DONE or -AlertDescription. Never raises.

    cdef int admit(self, int type, size_t length) noexcept nogil
    # Asked as soon as the 4-byte header of a message stands: may a message of this type and body length come
    # now? 0, -unexpected_message, or -illegal_parameter when it is larger than its type may be.

    cdef int change_cipher_spec(self) noexcept nogil
    # A change_cipher_spec record has come, well-formed and at a record boundary. STEP_OK: it means nothing (TLS 1.3);
    # STEP_NEED_MESSAGE: there are keys to change (TLS 1.2); -unexpected_message.

    # --- for the subclasses ----------------------------------------------------------------------
    cdef int run(self) except -1
    # The subclass's loop over its states; what advance calls.

    cdef int fail(self, int description, const char *reason) noexcept nogil
    # Notes the reason and returns -description: `return self.fail(illegal_parameter, "…")`.

    cdef int fail_exception(self, object exception) noexcept
    # -internal_error with the exception's type and text in `error`.

    cdef int sign(self, Credential credential, int scheme, const uint8_t *message, size_t n, uint8_t *signature,
                  size_t *length) except -1
    # STEP_OK with the signature (SIGNATURE_MAX bytes at most), STEP_WAIT_SIGN when a remote signer must be asked, or
    # -internal_error. A state that gets STEP_WAIT_SIGN returns it and changes nothing: it is entered again.

    cdef bint vouches(self, Credential credential, int scheme, const uint8_t *message, size_t n, bytes remote) except -1

    cdef int open_message(self, Writer *w, size_t room) noexcept nogil
    # A writer for one whole message (header included, as build_* write it) of at most `room` bytes, in the
    # flight. 0 or -internal_error.

    cdef int close_message(self, Writer *w, int level) noexcept nogil
    # What was written since open_message goes into the transcript and the flight. An overflown writer is
    # -internal_error. One message is open at a time.

    cdef int add_message(self, const uint8_t *message, size_t n, int level) noexcept nogil
    # A message that is built already (header included), e.g. a configuration's Certificate.

    cdef int append_message(self, size_t n, int level) noexcept nogil
    # What close_message and add_message end in.

    cdef int add_keys(self, int kind, int level, const uint8_t *secret) noexcept nogil
    cdef int add_action(self, int kind, int level) noexcept nogil
    # 0 or -internal_error

    cdef void clear_flight(self) noexcept nogil
    # Empties the flight and cleanses the secrets in it; the consumer calls it when it has carried it out.
