"""The facade of the engine: bytes in, bytes out, events. It runs in memory and knows no socket.

Inbound: the owner calls `receive` over and over on the bytes it has; each call takes at most one
record, opened in place. Outbound: handshake messages, alerts and KeyUpdates gather in `out`, which
the owner sends before anything sealed later; application data is sealed by `seal`, in place, in
memory with room for header and tag.
"""

from libc.stdint cimport uint8_t

from cext.base.buffer cimport Bytes

cdef enum TlsEvent:
    TLS_NEED_DATA = 0       # no whole record in the input; consumed is 0
    TLS_DATA = 1            # application data: data[:len], inside the input
    TLS_PROGRESS = 2        # a record was taken (handshake, CCS, KeyUpdate ...); out may hold bytes
    TLS_ESTABLISHED = 3     # as TLS_PROGRESS, and the handshake has just completed
    TLS_CLOSE_NOTIFY = 4    # the peer will send no more; our side may go on writing
    TLS_FAILED = 5          # fatal: `failure` tells; if the fault was the peer's, `out` ends with our alert

cdef enum:
    RECORD_HEADER = 5
    RECORD_OVERHEAD = 5 + 1 + 16        # header, content type, tag
    RECORD_PLAINTEXT_MAX = 16384

cdef class Connection:
    cdef Bytes out                      # to be sent first; the owner takes it with take() or in place
    cdef readonly bint established      # the handshake is confirmed
    cdef readonly bint write_open       # may seal: keys are there, no close_notify or alert sent
    cdef readonly bint read_closed      # the peer's close_notify or alert has come
    cdef readonly object failure        # None, or the TlsAlert (description, reason, sent: bool)

    # what was negotiated; 0 / None / b"" before it is known
    cdef readonly int version           # 0x0304
    cdef readonly int cipher_suite      # 0x1301 ...
    cdef readonly int group
    cdef readonly int signature_scheme
    cdef readonly bytes alpn            # the selected protocol
    cdef readonly bytes server_name     # SNI
    cdef readonly bint hello_retried

    cdef int receive(self, uint8_t *input, size_t n, size_t *consumed, uint8_t **data, size_t *data_len) noexcept
    # -> TlsEvent. Takes the first record of input[:n]. Call again with the rest while it is not TLS_NEED_DATA.

    cdef ssize_t seal(self, uint8_t *record, size_t n) noexcept nogil
    # Seals the n <= 16384 bytes at record + RECORD_HEADER as one application-data record in place, writes its
    # header to record[:5], type and tag after the data. -> whole length (n + RECORD_OVERHEAD), or -1.

    cdef void before_write(self) noexcept
    # Called once before a flight of seal()s: puts our own KeyUpdate into `out` when the AEAD limit is near or
    # the peer asked for one.

    cdef void close_notify(self) noexcept            # puts the alert in out; write_open becomes False
    cdef void park(self) noexcept nogil              # frees the AEAD contexts until the next record
