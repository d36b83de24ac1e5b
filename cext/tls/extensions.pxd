"""Which extension may stand in which message (RFC 9846; the table of RFC 8446 section 4.2), and the one loop that walks
an extension list by it."""

from libc.stdint cimport uint8_t, uint16_t, uint64_t

from cext.base.wire cimport Reader

cdef enum MessageBit:
    IN_CLIENT_HELLO = 1
    IN_SERVER_HELLO = 2
    IN_HELLO_RETRY_REQUEST = 4
    IN_ENCRYPTED_EXTENSIONS = 8
    IN_CERTIFICATE = 16
    IN_CERTIFICATE_REQUEST = 32
    IN_NEW_SESSION_TICKET = 64
    IN_SERVER_HELLO_12 = 128                    # TLS 1.2's

cdef enum:                                      # KnownExtension: index into Extensions.body, bit of a uint64_t
    X_SERVER_NAME = 0
    X_MAX_FRAGMENT_LENGTH
    X_STATUS_REQUEST
    X_SUPPORTED_GROUPS
    X_EC_POINT_FORMATS
    X_SIGNATURE_ALGORITHMS
    X_USE_SRTP
    X_HEARTBEAT
    X_ALPN
    X_SIGNED_CERTIFICATE_TIMESTAMP
    X_CLIENT_CERTIFICATE_TYPE
    X_SERVER_CERTIFICATE_TYPE
    X_PADDING
    X_EXTENDED_MASTER_SECRET
    X_COMPRESS_CERTIFICATE
    X_RECORD_SIZE_LIMIT
    X_SESSION_TICKET
    X_PRE_SHARED_KEY
    X_EARLY_DATA
    X_SUPPORTED_VERSIONS
    X_COOKIE
    X_PSK_KEY_EXCHANGE_MODES
    X_CERTIFICATE_AUTHORITIES
    X_OID_FILTERS
    X_POST_HANDSHAKE_AUTH
    X_SIGNATURE_ALGORITHMS_CERT
    X_KEY_SHARE
    X_RENEGOTIATION_INFO
    X_DELEGATED_CREDENTIAL
    X_COUNT
    X_UNKNOWN = 255

cdef struct Extensions:
    Reader body[X_COUNT]                        # .p NULL: absent
    uint64_t present                            # bit per KnownExtension
    uint16_t last                               # type of the last one in the list

cdef struct U16Set:                             # numbers of a peer's list, for duplicates in linear time
    uint64_t bits[1024]


cdef inline bint set_add(U16Set *s, uint16_t v) noexcept nogil:
    """1 when v was not in it before."""
    cdef uint64_t bit = <uint64_t> 1 << (v & 63)
    if s.bits[v >> 6] & bit:
        return 0
    s.bits[v >> 6] |= bit
    return 1


cdef inline bint set_has(const U16Set *s, uint16_t v) noexcept nogil:
    return (s.bits[v >> 6] >> (v & 63)) & 1


cdef inline void set_forget(U16Set *s, uint16_t v) noexcept nogil:
    """Clears v's word: a set is emptied by forgetting what was added, not by writing 8 KiB."""
    s.bits[v >> 6] = 0


cdef int known_extension(uint16_t type) noexcept nogil
"""KnownExtension, or X_UNKNOWN."""

cdef inline uint64_t extension_bit(uint16_t type) noexcept nogil:
    cdef int known = known_extension(type)
    return 0 if known == X_UNKNOWN else <uint64_t> 1 << known


cdef int read_extensions(Reader list, int message, uint64_t offered, Extensions *out,
                         const char **reason) noexcept nogil
"""Walks `list` (what follows the two-byte length) as one of `message` (a MessageBit). In the messages that answer
a ClientHello (either ServerHello, HelloRetryRequest, EncryptedExtensions, a server's Certificate) only `offered` ones may be.
0, or -decode_error, -illegal_parameter (a duplicate, or known but not of this message), -unsupported_extension."""

cdef int read_record_size_limit(const Extensions *found, int most, uint16_t *limit, const char **reason) noexcept nogil
"""The value of record_size_limit (RFC 8449, section 4), 0 when it is absent. 0, -decode_error, or -illegal_parameter for
one below 64 or over `most`."""
