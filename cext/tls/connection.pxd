"""The facade of the engine: bytes in, bytes out, events. It runs in memory and knows no socket.

Inbound: the owner calls `receive` over and over on the bytes it has; each call takes at most one
record, opened in place. Outbound: handshake messages, alerts and KeyUpdates gather in `out`, which
the owner sends before anything sealed later; application data is sealed by `seal`, in place, in
memory with room for header and tag.
"""

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from cext.base.buffer cimport Bytes
from cext.crypto.hash_kdf cimport HASH_MAX
from cext.tls.config cimport ServerConfig
from cext.tls.credential cimport Credential
from cext.tls.exporter cimport Exporter12
from cext.tls.handshake cimport Handshake
from cext.tls.record cimport Direction
from cext.tls.replay cimport AwaitedRegister
from cext.tls.session cimport Session

cdef enum TlsEvent:
    TLS_NEED_DATA = 0       # no whole record in the input; consumed is 0
    TLS_DATA = 1            # application data: data[:len], inside the input
    TLS_PROGRESS = 2        # a record was taken (handshake, CCS, KeyUpdate ...); out may hold bytes
    TLS_ESTABLISHED = 3     # as TLS_PROGRESS, and the handshake has just completed
    TLS_CLOSE_NOTIFY = 4    # the peer will send no more; our side may go on writing
    TLS_FAILED = 5          # fatal: `failure` tells; if the fault was the peer's, `out` ends with our alert
    TLS_WAIT_POLICY = 6     # a server's configuration with `policy`: choose by `client_hello`, then resume_policy
    TLS_WAIT_SIGN = 7       # as TLS_PROGRESS, and `signer` is to sign `to_sign`: then resume_sign
    TLS_WAIT_CERTIFICATE = 8    # as TLS_PROGRESS; a client's configuration with `policy`: choose by
                            # `certificate_request`, then resume_certificate
    TLS_WAIT_REGISTER = 9   # a server's: ask `asked_register` for `asked_name`, then resume_register

cdef enum EarlyData:        # where a connection's early data is (RFC 9846, section 4.2.10)
    EARLY_NONE = 0          # there is none
    EARLY_OFFERED = 1       # client: it may be written; whether the server takes it is not known yet
    EARLY_READING = 2       # server: it is taken; TLS_DATA of now may be a replay
    EARLY_DISCARDING = 3    # server: it is not taken, and what comes of it is passed over
    EARLY_ACCEPTED = 4      # it was taken, all of it; a client may write it until the handshake is done
    EARLY_REJECTED = 5      # it was not taken; a client sends it again, once the connection is established

cdef enum:
    RECORD_HEADER = 5
    RECORD_OVERHEAD = 5 + 8 + 16        # at most: header, explicit nonce (AES-GCM in TLS 1.2), tag
    RECORD_PLAINTEXT_MAX = 16384

cdef class Connection:
    cdef Bytes out                      # to be sent first; the owner takes it with take() or in place
    cdef readonly bint established      # the handshake is confirmed; TLS_DATA before that is early data
    cdef readonly bint write_open       # may seal: keys are there, no close_notify or alert sent
    cdef readonly bint read_closed      # the peer's close_notify or alert has come
    cdef readonly object failure        # None, or the TlsAlert (description, reason, sent: bool)

    # what was negotiated; 0 / None / b"" before it is known
    cdef readonly int version           # 0x0304, 0x0303
    cdef readonly int cipher_suite      # 0x1301 ..., 0xC02B ...
    cdef readonly int group
    cdef readonly int signature_scheme  # the server's
    cdef readonly Credential credential # of a server: whose certificate it has shown; None in a resumed session
    cdef readonly bytes alpn            # the selected protocol
    cdef readonly bytes server_name     # SNI
    cdef readonly bint hello_retried
    cdef readonly uint16_t client_signature_scheme  # of a client that has shown a certificate on this connection
    cdef readonly uint16_t plaintext_max    # bytes that seal() takes at once: what the peer lets a record hold (RFC 8449)
    cdef readonly bint resumed
    cdef readonly int early_data_state  # EarlyData
    cdef readonly uint8_t early_data_refusal    # of a server that does not take it: EarlyDataRefusal
    cdef readonly uint32_t early_data_left  # bytes that the peer may still send, or that we may write
    cdef readonly bytes fingerprint     # of early data that a server took: 64 hex digits, the same for a replay; or b""
    cdef readonly int64_t ticket_age_skew   # by which the age of the ticket that a server resumes by is greater by the
                                        # client's clock than by ours, milliseconds
    cdef readonly tuple peer_certificates   # DER, leaf first: shown, or shown when the session began
    cdef readonly bytes ocsp_response   # of a client: DER, that came with the server's certificate or with the session's
    cdef readonly bytes signed_certificate_timestamps   # likewise, the encoded list; b"": none
    cdef readonly Session session       # of a client: the newest it was given, to be resumed; else None

    cdef int receive(self, uint8_t *input, size_t n, size_t *consumed, uint8_t **data, size_t *data_len) noexcept
    # -> TlsEvent. Takes the first record of input[:n]. Call again with the rest while it is not TLS_NEED_DATA.

    cdef ssize_t seal(self, uint8_t *record, size_t n) noexcept nogil
    # Seals the n <= plaintext_max bytes at record + RECORD_HEADER as one application-data record in place, writes its
    # header to record[:5]; behind the data there is room for the rest of RECORD_OVERHEAD. -> whole length, or -1.

    # While a TLS_WAIT_* lasts, receive takes nothing (TLS_NEED_DATA). These go on, or end it:
    cdef int resume_policy(self, ServerConfig config, Credential credential) noexcept
    # -> TlsEvent. The configuration to go on with (its own `policy` is not asked again), and the credential to show;
    # None: the one at hand, and its choice.
    cdef int resume_sign(self, bytes signature) noexcept
    # -> TlsEvent. A signature that does not verify is an internal_error.
    cdef int resume_certificate(self, Credential credential) noexcept
    # -> TlsEvent. The credential to show, which must fit the request; None: the configuration's choice.
    cdef int resume_register(self, int answer) noexcept
    # -> TlsEvent. A Freshness: anything but REGISTER_FRESH means that the early data is not taken.
    cdef AwaitedRegister register_asked(self)
    # During TLS_WAIT_REGISTER; else None.
    cdef int refuse_to_resume(self, int description, str reason) noexcept
    # -> TLS_FAILED, with our alert in `out`: who was to decide cannot, or will not.

    cdef void before_write(self) noexcept
    # Called once before a flight of seal()s: puts our own KeyUpdate into `out` when the AEAD limit is near or
    # the peer asked for one.

    cdef void close_notify(self) noexcept            # puts the alert in out; write_open becomes False
    cdef void park(self) noexcept nogil              # frees the AEAD contexts until the next record

    cdef void take(self, Bytes *into) noexcept nogil
    # Moves `out` into an empty Bytes, which the caller then owns.

    # --- private -----------------------------------------------------------------------------------
    # An idle connection is this object and nothing more: the handshake is gone, no buffer is held, and
    # park() frees the AEAD contexts.
    cdef object config                  # ServerConfig or ClientConfig; it tells the role
    cdef bint server
    cdef uint8_t waiting                # the TlsEvent TLS_WAIT_* that lasts, or 0
    cdef uint16_t receive_limit         # bytes of a protected record without its tag (RFC 8449); 0: TLS's own
    cdef readonly bytes client_hello    # the whole message, while TLS_WAIT_POLICY lasts
    cdef Handshake handshake            # until it is confirmed; a server's is made by the ClientHello
    cdef Direction reading
    cdef Direction writing
    cdef uint8_t *resumption_secret         # of a client, for the tickets it is given: HASH_MAX bytes; else NULL
    cdef uint64_t authenticated             # of a client: when the full handshake was, milliseconds since 1970
    cdef uint8_t exporter_secret[HASH_MAX]  # exporter_master_secret
    cdef Exporter12 exporter12              # of TLS 1.2; None without the extended master secret
    cdef uint8_t read_secret[HASH_MAX]      # application traffic secrets, for KeyUpdate
    cdef uint8_t write_secret[HASH_MAX]
    cdef Bytes pending                  # a handshake message of which a part has come
    cdef uint32_t unread                # bytes that follow the message being taken, in its record
    cdef uint32_t skip_budget           # bytes of early data that may still be skipped; 0: none is expected
    cdef uint32_t update_credit         # how many bytes' worth of KeyUpdates and tickets the peer may still send
    cdef uint64_t update_after          # records under one key before our own KeyUpdate
    cdef uint64_t seal_limit            # records under one key, never exceeded
    cdef uint8_t hash
    cdef uint8_t empty_records          # in a row
    cdef uint8_t ccs_records
    cdef uint8_t warnings               # alerts that were passed over
    cdef uint8_t update_requested       # the peer waits for our KeyUpdate
    cdef uint8_t write_closed           # close_notify or a fatal alert went out: nothing may follow
    cdef uint8_t key_log_off            # the configuration's `key_log` gets nothing of this connection
    cdef uint8_t hello_sent             # a record went out: later ones have version 0x0303

    # in the order of a record's way
    cdef int receive_record(self, uint8_t *input, size_t n, size_t *consumed, uint8_t **data, size_t *data_len) except -1
    cdef int take_record(self, uint8_t *record, size_t length, int type, uint8_t **data, size_t *data_len) except -1
    cdef int take_protected(self, uint8_t *record, size_t length, uint8_t **data, size_t *data_len) except -1
    cdef int skip_early_data(self, size_t length) except -1
    cdef bint take_early_data(self, size_t n) noexcept nogil
    cdef int take_change_cipher_spec(self, const uint8_t *p, size_t n) except -1
    cdef int take_alert(self, const uint8_t *p, size_t n) except -1
    cdef bint may_warn(self) noexcept
    cdef bint speaks_tls13(self) noexcept
    cdef int take_handshake(self, const uint8_t *p, size_t n) except -1
    cdef ssize_t admit(self, const uint8_t *header) noexcept
    cdef Handshake choose_handshake(self)
    cdef Handshake sibling(self, Handshake before)
    cdef bint is_tls12(self) noexcept nogil
    cdef int take_message(self, const uint8_t *message, size_t n) except -1
    cdef int step_handshake(self, const uint8_t *message, size_t n) except -1
    cdef int take_post_handshake(self, const uint8_t *message, size_t n) except -1
    cdef int take_ticket(self, const uint8_t *body, size_t n) except -1
    cdef int take_key_update(self, const uint8_t *body, size_t n) except -1

    cdef int carry_out(self) noexcept
    cdef object key_log(self)
    cdef int change_read_keys(self, const uint8_t *secret) noexcept nogil
    cdef void change_write_keys(self, const uint8_t *secret) noexcept nogil
    cdef int write_records(self, int type, const uint8_t *p, size_t n) noexcept nogil
    cdef int send_key_update(self, bint request) noexcept nogil
    cdef void send_alert(self, int level, int description) noexcept nogil
    cdef void note_read_keys(self, int level) noexcept
    cdef void note_write_keys(self, int level) noexcept
    cdef void open_writing(self) noexcept
    cdef void confirm(self) noexcept
    cdef void forget_session(self) noexcept nogil
    cdef void copy_facts(self) noexcept
    cdef int refuse(self, int description, str reason) except -1
    cdef int refuse_handshake(self, int description) except -1
    cdef int end_by_peer(self, int description, str reason) except -1
    cdef int fail_unexpected(self, object exception) noexcept
    cdef void end(self, object failure) noexcept
