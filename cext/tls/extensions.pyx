"""Which extension may stand in which message, and the one loop that walks an extension list by it."""

from cext.base.wire cimport left, read_u16, read_vec16, reader_init
from cext.tls cimport constants
from cext.tls.constants cimport decode_error, illegal_parameter, unsupported_extension

from cext.tls.alert import TlsAlert

cdef enum:
    CH = IN_CLIENT_HELLO
    SH = IN_SERVER_HELLO
    HRR = IN_HELLO_RETRY_REQUEST
    EE = IN_ENCRYPTED_EXTENSIONS
    CT = IN_CERTIFICATE
    CR = IN_CERTIFICATE_REQUEST
    NST = IN_NEW_SESSION_TICKET
    SH12 = IN_SERVER_HELLO_12
    ANSWERS = SH | HRR | EE | CT | SH12         # only what the peer offered may stand in them (section 4.2)

# RFC 8446 section 4.2, in its order; then RFC 8879, RFC 8449, what only TLS 1.2 answers, and RFC 9345.
TABLE = (
    (constants.EXT_SERVER_NAME, X_SERVER_NAME, CH | EE | SH12),
    (constants.EXT_MAX_FRAGMENT_LENGTH, X_MAX_FRAGMENT_LENGTH, CH | EE | SH12),
    (constants.EXT_STATUS_REQUEST, X_STATUS_REQUEST, CH | CR | CT | SH12),
    (constants.EXT_SUPPORTED_GROUPS, X_SUPPORTED_GROUPS, CH | EE | SH12),
    (constants.EXT_SIGNATURE_ALGORITHMS, X_SIGNATURE_ALGORITHMS, CH | CR),
    (constants.EXT_USE_SRTP, X_USE_SRTP, CH | EE),
    (constants.EXT_HEARTBEAT, X_HEARTBEAT, CH | EE),
    (constants.EXT_ALPN, X_ALPN, CH | EE | SH12),
    (constants.EXT_SIGNED_CERTIFICATE_TIMESTAMP, X_SIGNED_CERTIFICATE_TIMESTAMP, CH | CR | CT | SH12),
    (constants.EXT_CLIENT_CERTIFICATE_TYPE, X_CLIENT_CERTIFICATE_TYPE, CH | EE),
    (constants.EXT_SERVER_CERTIFICATE_TYPE, X_SERVER_CERTIFICATE_TYPE, CH | EE),
    (constants.EXT_PADDING, X_PADDING, CH),
    (constants.EXT_KEY_SHARE, X_KEY_SHARE, CH | SH | HRR),
    (constants.EXT_PRE_SHARED_KEY, X_PRE_SHARED_KEY, CH | SH),
    (constants.EXT_PSK_KEY_EXCHANGE_MODES, X_PSK_KEY_EXCHANGE_MODES, CH),
    (constants.EXT_EARLY_DATA, X_EARLY_DATA, CH | EE | NST),
    (constants.EXT_COOKIE, X_COOKIE, CH | HRR),
    (constants.EXT_SUPPORTED_VERSIONS, X_SUPPORTED_VERSIONS, CH | SH | HRR),
    (constants.EXT_CERTIFICATE_AUTHORITIES, X_CERTIFICATE_AUTHORITIES, CH | CR),
    (constants.EXT_OID_FILTERS, X_OID_FILTERS, CR),
    (constants.EXT_POST_HANDSHAKE_AUTH, X_POST_HANDSHAKE_AUTH, CH),
    (constants.EXT_SIGNATURE_ALGORITHMS_CERT, X_SIGNATURE_ALGORITHMS_CERT, CH | CR),
    (constants.EXT_COMPRESS_CERTIFICATE, X_COMPRESS_CERTIFICATE, CH | CR),
    (constants.EXT_RECORD_SIZE_LIMIT, X_RECORD_SIZE_LIMIT, CH | EE | SH12),
    (constants.EXT_EC_POINT_FORMATS, X_EC_POINT_FORMATS, CH | SH12),
    (constants.EXT_EXTENDED_MASTER_SECRET, X_EXTENDED_MASTER_SECRET, CH | SH12),
    (constants.EXT_SESSION_TICKET, X_SESSION_TICKET, CH | SH12),
    (constants.EXT_RENEGOTIATION_INFO, X_RENEGOTIATION_INFO, CH | SH12),
    (constants.EXT_DELEGATED_CREDENTIAL, X_DELEGATED_CREDENTIAL, CH | CR | CT),
)

cdef enum:
    RECORD_SIZE_LIMIT_MIN = 64

cdef uint8_t index_of[64]                       # KnownExtension by type; EXT_RENEGOTIATION_INFO stands apart
cdef int allowed_in[X_COUNT]                    # MessageBits by KnownExtension
cdef U16Set unknown_seen                        # empty between calls: a worker is one thread


cdef int known_extension(uint16_t type) noexcept nogil:
    if type < 64:
        return index_of[type]
    return X_RENEGOTIATION_INFO if type == constants.EXT_RENEGOTIATION_INFO else X_UNKNOWN


cdef int read_extensions(Reader list, int message, uint64_t offered, Extensions *out,
                         const char **reason) noexcept nogil:
    cdef Reader walk = list
    cdef Reader body
    cdef uint16_t type = 0
    cdef int i, result
    for i in range(<int> X_COUNT):
        out.body[i].p = NULL
        out.body[i].end = NULL
    out.present = 0
    out.last = 0
    result = walk_extensions(&walk, message, offered, out, reason)
    # Forget exactly what the walk may have added: every type up to where it stopped.
    while list.p < walk.p and read_u16(&list, &type):
        set_forget(&unknown_seen, type)
        if not read_vec16(&list, &body):
            break
    return result


cdef int walk_extensions(Reader *walk, int message, uint64_t offered, Extensions *out,
                         const char **reason) noexcept nogil:
    cdef Reader body
    cdef uint64_t bit
    cdef uint16_t type = 0
    cdef int known
    cdef bint unoffered = 0
    while left(walk):
        if not read_u16(walk, &type) or not read_vec16(walk, &body):
            reason[0] = "an extension is cut short"
            return -decode_error
        out.last = type
        known = known_extension(type)
        if known == X_UNKNOWN:
            if not set_add(&unknown_seen, type):
                return refuse_repeated(message, reason)
            unoffered |= message & ANSWERS != 0
            continue
        bit = <uint64_t> 1 << known
        if out.present & bit:
            return refuse_repeated(message, reason)
        if not allowed_in[known] & message and not unoffered:
            reason[0] = "an extension stands in a message it does not belong to"
            return -illegal_parameter
        # A HelloRetryRequest's cookie answers nothing (section 4.2).
        if message & ANSWERS and not offered & bit and not (known == X_COOKIE and message == IN_HELLO_RETRY_REQUEST):
            unoffered = 1
        out.present |= bit
        out.body[known] = body
    if unoffered:                       # only now: a list that repeats one is no list at all
        reason[0] = "an extension was not offered"
        return -unsupported_extension
    return 0


cdef int refuse_repeated(int message, const char **reason) noexcept nogil:
    """"There MUST NOT be more than one extension of the same type" (section 4.2), by which alert is not said: the
    hellos and EncryptedExtensions are refused as lists that cannot be decoded, as BoringSSL does."""
    reason[0] = "an extension appears twice"
    return -decode_error if message & (CH | SH | EE | SH12) else -illegal_parameter


cdef int read_record_size_limit(const Extensions *found, int most, uint16_t *limit,
                                const char **reason) noexcept nogil:
    cdef Reader body = found.body[X_RECORD_SIZE_LIMIT]
    limit[0] = 0
    if body.p == NULL:
        return 0
    if not read_u16(&body, limit) or left(&body):
        reason[0] = "record_size_limit cannot be decoded"
        return -decode_error
    if not RECORD_SIZE_LIMIT_MIN <= limit[0] <= most:
        reason[0] = "record_size_limit is out of range"
        return -illegal_parameter
    return 0


def _fill():
    cdef int i
    for i in range(64):
        index_of[i] = X_UNKNOWN
    for type, index, messages in TABLE:
        allowed_in[<int> index] = messages
        if type < 64:
            index_of[<int> type] = index


_fill()


# --- the Python face, for tests and tools

MESSAGES = {
    "client_hello": CH,
    "server_hello": SH,
    "hello_retry_request": HRR,
    "encrypted_extensions": EE,
    "certificate": CT,
    "certificate_request": CR,
    "new_session_ticket": NST,
    "server_hello_12": SH12,
}


def read(bytes data, str message, offered=()):
    """The known extensions of an encoded list (without its length) as {type: body}; TlsAlert when it is faulty.
    `message` is a key of MESSAGES, `offered` the types the ClientHello had."""
    cdef Extensions found
    cdef Reader list
    cdef const char *reason = b""
    cdef uint64_t bits = 0
    cdef int result
    for type in offered:
        bits |= extension_bit(<uint16_t> type)
    reader_init(&list, data, len(data))
    result = read_extensions(list, MESSAGES[message], bits, &found, &reason)
    if result:
        raise TlsAlert(-result, reason.decode())
    return {
        type: found.body[<int> index].p[:left(&found.body[<int> index])]
        for type, index, _ in TABLE
        if found.present >> <int> index & 1
    }
