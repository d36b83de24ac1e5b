"""Handshake messages: parse_x / build_x pairs over borrowed memory, in the order of a handshake (section numbers are
RFC 8446's unless another RFC is named).

A parser is two things: the shape, where every wrong length is a decode_error, and the values, where a wrong one is an
illegal_parameter. Nothing is kept of a message that is refused.
"""

from libc.string cimport memcmp, memset

from cext.base.wire cimport (
    close_vec, left, open_vec, read_bytes, read_u16, read_u32, read_u8, read_vec16, read_vec8, reader_init, write_bytes,
    write_u16, write_u24, write_u32, write_u8)
from cext.tls.constants cimport (
    EXT_ALPN, EXT_COOKIE, EXT_EARLY_DATA, EXT_KEY_SHARE, EXT_PRE_SHARED_KEY, EXT_RECORD_SIZE_LIMIT, EXT_SERVER_NAME,
    EXT_SESSION_TICKET, EXT_SUPPORTED_VERSIONS, HS_CLIENT_HELLO, HS_ENCRYPTED_EXTENSIONS, HS_END_OF_EARLY_DATA,
    HS_FINISHED, HS_KEY_UPDATE, HS_NEW_SESSION_TICKET, HS_SERVER_HELLO, RANDOM_LENGTH, SESSION_ID_MAX, STATUS_OCSP,
    TLS12, TLS13, UPDATE_NOT_REQUESTED, UPDATE_REQUESTED, decode_error, handshake_failure, illegal_parameter, missing_extension)
from cext.tls.extensions cimport (
    IN_CLIENT_HELLO, IN_ENCRYPTED_EXTENSIONS, IN_HELLO_RETRY_REQUEST, IN_NEW_SESSION_TICKET, IN_SERVER_HELLO, X_ALPN,
    X_CERTIFICATE_AUTHORITIES, X_COMPRESS_CERTIFICATE, X_COOKIE, X_DELEGATED_CREDENTIAL, X_EARLY_DATA, X_EC_POINT_FORMATS,
    X_EXTENDED_MASTER_SECRET, X_KEY_SHARE, X_PRE_SHARED_KEY, X_PSK_KEY_EXCHANGE_MODES, X_RENEGOTIATION_INFO,
    X_SERVER_NAME, X_SESSION_TICKET, X_SIGNATURE_ALGORITHMS, X_SIGNATURE_ALGORITHMS_CERT,
    X_SIGNED_CERTIFICATE_TIMESTAMP, X_STATUS_REQUEST, X_SUPPORTED_GROUPS, X_SUPPORTED_VERSIONS, Extensions, U16Set,
    read_extensions, read_record_size_limit, set_add, set_forget)
from cext.tls.fields cimport (
    is_u16_list, optional_algorithms, optional_authorities, optional_cookie, optional_protocol_names, optional_u16_list,
    optional_u8_list_of_u16, refuse, whole_vec16, whole_vec8, write_vec)

cdef enum:
    HOST_NAME_MAX = 255                             # octets of a domain name, RFC 1035 section 2.3.4
    TICKET_LIFETIME_MAX = 604800                    # seven days, section 4.6.1
    RECORD_SIZE_LIMIT_MAX = (1 << 14) + 1           # of a server's; a client may send more (RFC 8449 section 4)

cdef U16Set groups_seen                             # empty between calls: a worker is one thread


# --- ClientHello

cdef int parse_client_hello(const uint8_t *body, size_t n, ClientHello *ch) noexcept nogil:
    cdef Reader r, list
    cdef Extensions ext
    cdef int result
    memset(ch, 0, sizeof(ClientHello))
    ch.reason = ""
    reader_init(&r, body, n)
    if (
        not read_u16(&r, &ch.legacy_version)
        or not read_bytes(&r, RANDOM_LENGTH, &ch.random)
        or not read_vec8(&r, &ch.legacy_session_id)
        or not read_vec16(&r, &ch.cipher_suites)
        or not read_vec8(&r, &ch.compression_methods)
    ):
        return refuse(&ch.reason, decode_error, "ClientHello is cut short")
    if left(&ch.legacy_session_id) > SESSION_ID_MAX:
        return refuse(&ch.reason, decode_error, "legacy_session_id is longer than 32 bytes")
    if not is_u16_list(&ch.cipher_suites):
        return refuse(&ch.reason, decode_error, "cipher_suites is empty or of odd length")
    if not left(&ch.compression_methods):
        return refuse(&ch.reason, decode_error, "compression_methods is empty")

    # Before TLS 1.3 a ClientHello may end without extensions.
    reader_init(&list, r.p, 0)
    if left(&r) and (not read_vec16(&r, &list) or left(&r)):
        return refuse(&ch.reason, decode_error, "the extensions' length does not fit the ClientHello")
    result = read_extensions(list, IN_CLIENT_HELLO, 0, &ext, &ch.reason)
    if result:
        return result
    if ext.body[X_PRE_SHARED_KEY].p != NULL and ext.last != EXT_PRE_SHARED_KEY:
        return refuse(&ch.reason, illegal_parameter, "pre_shared_key is not the last extension")  # section 4.2.11
    result = decode_client_hello_extensions(&ext, ch)
    if result:
        return result
    return check_client_hello(ch)


cdef int decode_client_hello_extensions(const Extensions *ext, ClientHello *ch) noexcept nogil:
    cdef int result
    if not optional_u8_list_of_u16(ext.body[X_SUPPORTED_VERSIONS], &ch.supported_versions):
        return refuse(&ch.reason, decode_error, "supported_versions cannot be decoded")
    if not optional_u16_list(ext.body[X_SUPPORTED_GROUPS], &ch.supported_groups):
        return refuse(&ch.reason, decode_error, "supported_groups cannot be decoded")
    if not optional_u16_list(ext.body[X_SIGNATURE_ALGORITHMS], &ch.signature_algorithms):
        return refuse(&ch.reason, decode_error, "signature_algorithms cannot be decoded")
    if not optional_u16_list(ext.body[X_SIGNATURE_ALGORITHMS_CERT], &ch.signature_algorithms_cert):
        return refuse(&ch.reason, decode_error, "signature_algorithms_cert cannot be decoded")
    if not optional_protocol_names(ext.body[X_ALPN], &ch.alpn):
        return refuse(&ch.reason, decode_error, "application_layer_protocol_negotiation cannot be decoded")
    if not optional_cookie(ext.body[X_COOKIE], &ch.cookie):
        return refuse(&ch.reason, decode_error, "cookie cannot be decoded")
    if not optional_authorities(ext.body[X_CERTIFICATE_AUTHORITIES], &ch.certificate_authorities):
        return refuse(&ch.reason, decode_error, "certificate_authorities cannot be decoded")
    if not optional_u16_list(ext.body[X_DELEGATED_CREDENTIAL], &ch.delegated_credential):
        return refuse(&ch.reason, decode_error, "delegated_credential cannot be decoded")
    if not optional_algorithms(ext.body[X_COMPRESS_CERTIFICATE], &ch.compress_certificate):
        return refuse(&ch.reason, decode_error, "compress_certificate cannot be decoded")
    if ext.body[X_PSK_KEY_EXCHANGE_MODES].p != NULL:
        ch.psk_modes = ext.body[X_PSK_KEY_EXCHANGE_MODES]
        if not whole_vec8(&ch.psk_modes) or not left(&ch.psk_modes):
            return refuse(&ch.reason, decode_error, "psk_key_exchange_modes cannot be decoded")
    result = read_record_size_limit(ext, 0xFFFF, &ch.record_size_limit, &ch.reason)
    if result:
        return result
    result = decode_key_shares(ext.body[X_KEY_SHARE], ch)
    if result:
        return result
    result = decode_server_name(ext.body[X_SERVER_NAME], ch)
    if result:
        return result
    result = decode_pre_shared_key(ext.body[X_PRE_SHARED_KEY], ch)
    if result:
        return result
    return decode_flags(ext, ch)


cdef int decode_key_shares(Reader body, ClientHello *ch) noexcept nogil:
    """KeyShareClientHello (section 4.2.8); an empty list asks for a HelloRetryRequest."""
    cdef Reader walk, start
    cdef KeyShare share
    cdef bint repeated = 0
    # Two shares of one group are found in one pass, however many there are ("MUST NOT", section 4.2.8).
    if body.p == NULL:
        return 0
    ch.key_shares = body
    if not whole_vec16(&ch.key_shares):
        return refuse(&ch.reason, decode_error, "key_share cannot be decoded")
    start = walk = ch.key_shares
    while not repeated and next_key_share(&walk, &share):
        repeated = not set_add(&groups_seen, share.group)
    while start.p < walk.p and next_key_share(&start, &share):
        set_forget(&groups_seen, share.group)
    if repeated:
        return refuse(&ch.reason, illegal_parameter, "two key shares of one group")
    if left(&walk):
        return refuse(&ch.reason, decode_error, "a key share cannot be decoded")
    return 0


cdef bint next_key_share(Reader *key_shares, KeyShare *share) noexcept nogil:
    cdef Reader r = key_shares[0]
    cdef Reader key
    if not read_u16(&r, &share.group) or not read_vec16(&r, &key) or not left(&key):
        return 0
    share.data = key.p
    share.len = left(&key)
    key_shares[0] = r
    return 1


cdef int decode_server_name(Reader body, ClientHello *ch) noexcept nogil:
    """ServerNameList (RFC 6066 section 3). Names of other types than host_name are passed over."""
    cdef Reader list = body
    cdef Reader name
    cdef uint8_t type = 0
    if body.p == NULL:
        return 0
    if not whole_vec16(&list) or not left(&list):
        return refuse(&ch.reason, decode_error, "server_name cannot be decoded")
    while left(&list):
        if not read_u8(&list, &type) or not read_vec16(&list, &name) or not left(&name):
            return refuse(&ch.reason, decode_error, "server_name cannot be decoded")
        if type != 0:
            continue
        if ch.server_name.p != NULL:
            return refuse(&ch.reason, illegal_parameter, "two host names in server_name")
        if not is_host_name(name):
            return refuse(&ch.reason, illegal_parameter, "server_name is no host name")
        ch.server_name = name
    return 0


cdef bint is_host_name(Reader name) noexcept nogil:
    """Letters, digits, hyphens, underscores and dots: what may reach a log or a lookup."""
    cdef uint8_t c
    if left(&name) > HOST_NAME_MAX or name.p[0] == c'.':
        return 0
    while name.p < name.end:
        c = name.p[0]
        if not (c'a' <= c <= c'z' or c'A' <= c <= c'Z' or c'0' <= c <= c'9' or c == c'-' or c == c'.' or c == c'_'):
            return 0
        name.p += 1
    return 1


cdef int decode_pre_shared_key(Reader body, ClientHello *ch) noexcept nogil:
    """OfferedPsks (section 4.2.11): shapes, and one binder for each identity."""
    cdef Reader r = body
    cdef Reader identities, binders, one
    cdef uint32_t age = 0
    cdef size_t n_identities = 0
    cdef size_t n_binders = 0
    if body.p == NULL:
        return 0
    if (
        not read_vec16(&r, &identities)
        or not read_vec16(&r, &binders)
        or left(&r)
        or not left(&identities)
        or not left(&binders)
    ):
        return refuse(&ch.reason, decode_error, "pre_shared_key cannot be decoded")
    while left(&identities):
        if not read_vec16(&identities, &one) or not left(&one) or not read_u32(&identities, &age):
            return refuse(&ch.reason, decode_error, "a PSK identity cannot be decoded")
        n_identities += 1
    while left(&binders):
        # PskBinderEntry<32..255>; yet of what is not selected nothing is judged but its form, and a client may offer
        # what is no PSK of TLS 1.3. Of the selected PSK the length is the hash's (psk.pyx).
        if not read_vec8(&binders, &one) or not left(&one):
            return refuse(&ch.reason, decode_error, "a PSK binder cannot be decoded")
        n_binders += 1
    if n_identities != n_binders:
        return refuse(&ch.reason, illegal_parameter, "pre_shared_key has not one binder for each identity")
    ch.pre_shared_key = body
    return 0


cdef int decode_flags(const Extensions *ext, ClientHello *ch) noexcept nogil:
    """Extensions of which all that matters is that they are there, and TLS 1.2's own."""
    cdef Reader r
    cdef Reader responders, request
    cdef uint8_t type = 0
    if ext.body[X_EARLY_DATA].p != NULL:
        if left(&ext.body[X_EARLY_DATA]):
            return refuse(&ch.reason, decode_error, "early_data is not empty")
        ch.early_data = 1
    if ext.body[X_EXTENDED_MASTER_SECRET].p != NULL:     # RFC 7627 section 5.1
        if left(&ext.body[X_EXTENDED_MASTER_SECRET]):
            return refuse(&ch.reason, decode_error, "extended_master_secret is not empty")
        ch.extended_master_secret = 1
    if ext.body[X_RENEGOTIATION_INFO].p != NULL:     # RFC 5746 section 3.6
        r = ext.body[X_RENEGOTIATION_INFO]
        if not whole_vec8(&r):
            return refuse(&ch.reason, decode_error, "renegotiation_info cannot be decoded")
        if left(&r):
            return refuse(&ch.reason, handshake_failure, "renegotiation_info of a first handshake is not empty")
        ch.renegotiation_info = 1
    if ext.body[X_EC_POINT_FORMATS].p != NULL:       # RFC 8422 section 5.1.2
        ch.ec_point_formats = ext.body[X_EC_POINT_FORMATS]
        if not whole_vec8(&ch.ec_point_formats):
            return refuse(&ch.reason, decode_error, "ec_point_formats cannot be decoded")
    ch.session_ticket = ext.body[X_SESSION_TICKET]
    if ext.body[X_SIGNED_CERTIFICATE_TIMESTAMP].p != NULL:       # RFC 6962 section 3.3.1
        if left(&ext.body[X_SIGNED_CERTIFICATE_TIMESTAMP]):
            return refuse(&ch.reason, decode_error, "signed_certificate_timestamp is not empty")
        ch.signed_certificate_timestamp = 1
    if ext.body[X_STATUS_REQUEST].p != NULL:         # RFC 6066 section 8
        r = ext.body[X_STATUS_REQUEST]
        if not read_u8(&r, &type):
            return refuse(&ch.reason, decode_error, "status_request cannot be decoded")
        if type == STATUS_OCSP:
            if not read_vec16(&r, &responders) or not read_vec16(&r, &request) or left(&r):
                return refuse(&ch.reason, decode_error, "status_request cannot be decoded")
            ch.status_request = 1
    return 0


cdef int check_client_hello(ClientHello *ch) noexcept nogil:
    """What the extensions must be to each other; only TLS 1.3 demands it all."""
    cdef Reader versions = ch.supported_versions
    cdef Reader methods = ch.compression_methods
    cdef uint16_t version = 0
    cdef bint has_null = 0
    while not ch.offers_tls13 and read_u16(&versions, &version):
        ch.offers_tls13 = version == TLS13
    while methods.p < methods.end:
        has_null |= methods.p[0] == 0
        methods.p += 1
    if not has_null:
        return refuse(&ch.reason, illegal_parameter, "compression_methods lacks null")  # RFC 5246 section 7.4.1.2
    if not ch.offers_tls13:
        return 0
    if left(&ch.compression_methods) != 1:
        return refuse(&ch.reason, illegal_parameter, "compression_methods is not just null")  # section 4.1.2
    if ch.pre_shared_key.p != NULL and ch.psk_modes.p == NULL:
        return refuse(&ch.reason, missing_extension, "pre_shared_key without psk_key_exchange_modes")  # section 4.2.9
    # The rest is section 9.2.
    if ch.pre_shared_key.p == NULL and ch.signature_algorithms.p == NULL:
        return refuse(&ch.reason, missing_extension, "neither signature_algorithms nor pre_shared_key")
    if ch.pre_shared_key.p == NULL and ch.supported_groups.p == NULL:
        return refuse(&ch.reason, missing_extension, "neither supported_groups nor pre_shared_key")
    if (ch.supported_groups.p == NULL) != (ch.key_shares.p == NULL):
        return refuse(&ch.reason, missing_extension, "supported_groups and key_share, one without the other")
    return 0


cdef void build_client_hello(Writer *w, const ClientHelloParts *parts) noexcept nogil:
    cdef uint8_t *message
    cdef uint8_t *extensions
    cdef uint8_t *key_share
    cdef uint8_t *shares
    cdef size_t i
    write_u8(w, HS_CLIENT_HELLO)
    message = open_vec(w, 3)
    write_u16(w, TLS12)
    write_bytes(w, parts.random, RANDOM_LENGTH)
    write_vec(w, 1, parts.session_id, parts.session_id_len)
    write_vec(w, 2, parts.cipher_suites, parts.cipher_suites_len)
    write_u8(w, 1)
    write_u8(w, 0)                      # legacy_compression_methods: null alone
    extensions = open_vec(w, 2)
    write_bytes(w, parts.extensions, parts.extensions_len)
    if parts.cookie_len:
        write_cookie(w, parts.cookie, parts.cookie_len)
    if parts.session_ticket != NULL:
        write_u16(w, EXT_SESSION_TICKET)
        write_vec(w, 2, parts.session_ticket, parts.session_ticket_len)
    if parts.shares != NULL:
        write_u16(w, EXT_KEY_SHARE)
        key_share = open_vec(w, 2)
        shares = open_vec(w, 2)
        for i in range(parts.n_shares):
            write_u16(w, parts.shares[i].group)
            write_vec(w, 2, parts.shares[i].data, parts.shares[i].len)
        close_vec(w, shares, 2)
        close_vec(w, key_share, 2)
    if parts.early_data:
        write_u16(w, EXT_EARLY_DATA)
        write_u16(w, 0)
    if parts.ticket != NULL:
        write_offered_psk(w, parts)     # the last extension (section 4.2.11)
    close_vec(w, extensions, 2)
    close_vec(w, message, 3)


cdef void write_offered_psk(Writer *w, const ClientHelloParts *parts) noexcept nogil:
    cdef uint8_t *body
    cdef size_t i
    write_u16(w, EXT_PRE_SHARED_KEY)
    body = open_vec(w, 2)
    write_u16(w, <uint16_t> (2 + parts.ticket_len + 4))
    write_vec(w, 2, parts.ticket, parts.ticket_len)
    write_u32(w, parts.obfuscated_ticket_age)
    write_u16(w, <uint16_t> (1 + parts.binder_len))
    write_u8(w, <uint8_t> parts.binder_len)
    for i in range(parts.binder_len):
        write_u8(w, 0)
    close_vec(w, body, 2)


# --- ServerHello and HelloRetryRequest

# Section 4.1.3: SHA-256 of "HelloRetryRequest".
cdef const char *RETRY_RANDOM = (
    b"\xcf\x21\xad\x74\xe5\x9a\x61\x11\xbe\x1d\x8c\x02\x1e\x65\xb8\x91"
    b"\xc2\xa2\x11\x16\x7a\xbb\x8c\x5e\x07\x9e\x09\xe2\xc8\xa8\x33\x9c"
)


cdef int parse_server_hello(const uint8_t *body, size_t n, uint64_t offered, ServerHello *sh) noexcept nogil:
    cdef Reader r, list
    cdef Extensions ext
    cdef uint8_t compression = 0
    cdef int result
    memset(sh, 0, sizeof(ServerHello))
    sh.reason = ""
    reader_init(&r, body, n)
    if (
        not read_u16(&r, &sh.legacy_version)
        or not read_bytes(&r, RANDOM_LENGTH, &sh.random)
        or not read_vec8(&r, &sh.legacy_session_id_echo)
        or not read_u16(&r, &sh.cipher_suite)
        or not read_u8(&r, &compression)
    ):
        return refuse(&sh.reason, decode_error, "ServerHello is cut short")
    if left(&sh.legacy_session_id_echo) > SESSION_ID_MAX:
        return refuse(&sh.reason, decode_error, "legacy_session_id_echo is longer than 32 bytes")
    reader_init(&list, r.p, 0)
    if left(&r) and (not read_vec16(&r, &list) or left(&r)):
        return refuse(&sh.reason, decode_error, "the extensions' length does not fit the ServerHello")
    # Public values both: no constant-time compare is called for.
    sh.retry = memcmp(sh.random.p, RETRY_RANDOM, RANDOM_LENGTH) == 0
    result = find_supported_versions(list, sh)
    # An older version was chosen: what else stands here is not for TLS 1.3's table to judge.
    if result or sh.selected_version == 0:
        return result
    if sh.legacy_version != TLS12:
        return refuse(&sh.reason, illegal_parameter, "legacy_version is not 0x0303")
    if compression != 0:
        return refuse(&sh.reason, decode_error, "legacy_compression_method is not 0")
    result = read_extensions(list, IN_HELLO_RETRY_REQUEST if sh.retry else IN_SERVER_HELLO, offered, &ext, &sh.reason)
    if result:
        return result
    return decode_server_hello_extensions(&ext, sh)


cdef int find_supported_versions(Reader list, ServerHello *sh) noexcept nogil:
    """The version before anything else: it tells by which rules the rest is read (section 4.2.1)."""
    cdef Reader body
    cdef uint16_t type = 0
    while left(&list):
        if not read_u16(&list, &type) or not read_vec16(&list, &body):
            return refuse(&sh.reason, decode_error, "an extension is cut short")
        if type != EXT_SUPPORTED_VERSIONS:
            continue
        if not read_u16(&body, &sh.selected_version) or left(&body):
            return refuse(&sh.reason, decode_error, "supported_versions cannot be decoded")
        if sh.selected_version != TLS13:            # section 4.2.1
            return refuse(&sh.reason, illegal_parameter, "supported_versions selects a version that was not offered")
    if sh.retry and sh.selected_version == 0:
        return refuse(&sh.reason, missing_extension, "HelloRetryRequest without supported_versions")
    return 0


cdef int decode_server_hello_extensions(const Extensions *ext, ServerHello *sh) noexcept nogil:
    """A HelloRetryRequest's key_share is a group alone, a ServerHello's has the key as well (section 4.2.8)."""
    cdef Reader r = ext.body[X_KEY_SHARE]
    if r.p != NULL:
        if not read_u16(&r, &sh.group):
            return refuse(&sh.reason, decode_error, "key_share cannot be decoded")
        if not sh.retry and (not read_vec16(&r, &sh.share) or not left(&sh.share)):
            return refuse(&sh.reason, decode_error, "key_share cannot be decoded")
        if left(&r):
            return refuse(&sh.reason, decode_error, "key_share cannot be decoded")
    if not optional_cookie(ext.body[X_COOKIE], &sh.cookie):
        return refuse(&sh.reason, decode_error, "cookie cannot be decoded")
    if ext.body[X_PRE_SHARED_KEY].p != NULL:
        if left(&ext.body[X_PRE_SHARED_KEY]) != 2:
            return refuse(&sh.reason, decode_error, "pre_shared_key cannot be decoded")
        sh.pre_shared_key = ext.body[X_PRE_SHARED_KEY]
    return 0


cdef void build_server_hello(Writer *w, const uint8_t *random, const uint8_t *session_id, size_t session_id_len,
                             uint16_t cipher_suite, uint16_t group, const uint8_t *share,
                             size_t share_len) noexcept nogil:
    build_resuming_server_hello(w, random, session_id, session_id_len, cipher_suite, group, share, share_len, -1)


cdef void build_resuming_server_hello(Writer *w, const uint8_t *random, const uint8_t *session_id,
                                      size_t session_id_len, uint16_t cipher_suite, uint16_t group,
                                      const uint8_t *share, size_t share_len, int selected_identity) noexcept nogil:
    cdef uint8_t *message
    cdef uint8_t *extensions
    message = open_server_hello(w, random, session_id, session_id_len, cipher_suite)
    extensions = open_vec(w, 2)
    write_selected_version(w)
    if group:
        write_u16(w, EXT_KEY_SHARE)
        write_u16(w, <uint16_t> (4 + share_len))
        write_u16(w, group)
        write_vec(w, 2, share, share_len)
    if selected_identity >= 0:
        write_u16(w, EXT_PRE_SHARED_KEY)
        write_u16(w, 2)
        write_u16(w, <uint16_t> selected_identity)
    close_vec(w, extensions, 2)
    close_vec(w, message, 3)


cdef void build_hello_retry_request(Writer *w, const uint8_t *session_id, size_t session_id_len,
                                    uint16_t cipher_suite, uint16_t group, const uint8_t *cookie,
                                    size_t cookie_len) noexcept nogil:
    cdef uint8_t *message
    cdef uint8_t *extensions
    message = open_server_hello(w, <const uint8_t *> RETRY_RANDOM, session_id, session_id_len, cipher_suite)
    extensions = open_vec(w, 2)
    write_selected_version(w)
    if group:
        write_u16(w, EXT_KEY_SHARE)
        write_u16(w, 2)
        write_u16(w, group)
    if cookie_len:
        write_cookie(w, cookie, cookie_len)
    close_vec(w, extensions, 2)
    close_vec(w, message, 3)


cdef uint8_t *open_server_hello(Writer *w, const uint8_t *random, const uint8_t *session_id, size_t session_id_len,
                                uint16_t cipher_suite) noexcept nogil:
    cdef uint8_t *message
    write_u8(w, HS_SERVER_HELLO)
    message = open_vec(w, 3)
    write_u16(w, TLS12)
    write_bytes(w, random, RANDOM_LENGTH)
    write_vec(w, 1, session_id, session_id_len)
    write_u16(w, cipher_suite)
    write_u8(w, 0)
    return message


cdef void write_selected_version(Writer *w) noexcept nogil:
    write_u16(w, EXT_SUPPORTED_VERSIONS)
    write_u16(w, 2)
    write_u16(w, TLS13)


# --- EncryptedExtensions

cdef int parse_encrypted_extensions(const uint8_t *body, size_t n, uint64_t offered,
                                    EncryptedExtensions *ee) noexcept nogil:
    cdef Reader list, r
    cdef Extensions ext
    cdef int result
    memset(ee, 0, sizeof(EncryptedExtensions))
    ee.reason = ""
    reader_init(&list, body, n)
    if not whole_vec16(&list):
        return refuse(&ee.reason, decode_error, "EncryptedExtensions cannot be decoded")
    result = read_extensions(list, IN_ENCRYPTED_EXTENSIONS, offered, &ext, &ee.reason)
    if result:
        return result
    if ext.body[X_ALPN].p != NULL:                  # exactly one name, RFC 7301 section 3.1
        r = ext.body[X_ALPN]
        if not whole_vec16(&r) or not read_vec8(&r, &ee.alpn) or not left(&ee.alpn) or left(&r):
            return refuse(&ee.reason, decode_error, "application_layer_protocol_negotiation cannot be decoded")
    if not optional_u16_list(ext.body[X_SUPPORTED_GROUPS], &ee.supported_groups):
        return refuse(&ee.reason, decode_error, "supported_groups cannot be decoded")
    ee.server_name = ext.body[X_SERVER_NAME].p != NULL
    ee.early_data = ext.body[X_EARLY_DATA].p != NULL
    if left(&ext.body[X_SERVER_NAME]) or left(&ext.body[X_EARLY_DATA]):
        return refuse(&ee.reason, decode_error, "server_name or early_data is not empty")
    return read_record_size_limit(&ext, RECORD_SIZE_LIMIT_MAX, &ee.record_size_limit, &ee.reason)


cdef void build_encrypted_extensions(Writer *w, const uint8_t *alpn, size_t alpn_len, bint server_name,
                                     bint early_data=0, uint16_t record_size_limit=0) noexcept nogil:
    cdef uint8_t *message
    cdef uint8_t *extensions
    cdef uint8_t *body
    cdef uint8_t *names
    write_u8(w, HS_ENCRYPTED_EXTENSIONS)
    message = open_vec(w, 3)
    extensions = open_vec(w, 2)
    if server_name:
        write_u16(w, EXT_SERVER_NAME)
        write_u16(w, 0)
    if alpn_len:
        write_u16(w, EXT_ALPN)
        body = open_vec(w, 2)
        names = open_vec(w, 2)
        write_vec(w, 1, alpn, alpn_len)
        close_vec(w, names, 2)
        close_vec(w, body, 2)
    if early_data:
        write_u16(w, EXT_EARLY_DATA)
        write_u16(w, 0)
    if record_size_limit:
        write_u16(w, EXT_RECORD_SIZE_LIMIT)
        write_u16(w, 2)
        write_u16(w, record_size_limit)
    close_vec(w, extensions, 2)
    close_vec(w, message, 3)


# --- Finished, NewSessionTicket, KeyUpdate

cdef int parse_finished(const uint8_t *body, size_t n, size_t hash_len, Reader *verify_data,
                        const char **reason) noexcept nogil:
    if n != hash_len:
        return refuse(reason, decode_error, "Finished is not as long as the hash")
    reader_init(verify_data, body, n)
    return 0


cdef void build_finished(Writer *w, const uint8_t *verify_data, size_t n) noexcept nogil:
    write_u8(w, HS_FINISHED)
    write_vec(w, 3, verify_data, n)


cdef void build_end_of_early_data(Writer *w) noexcept nogil:
    write_u8(w, HS_END_OF_EARLY_DATA)
    write_u24(w, 0)


cdef int parse_new_session_ticket(const uint8_t *body, size_t n, NewSessionTicket *t) noexcept nogil:
    cdef Reader r
    cdef Extensions ext
    cdef int result
    memset(t, 0, sizeof(NewSessionTicket))
    t.reason = ""
    reader_init(&r, body, n)
    if (
        not read_u32(&r, &t.lifetime)
        or not read_u32(&r, &t.age_add)
        or not read_vec8(&r, &t.nonce)
        or not read_vec16(&r, &t.ticket)
        or not left(&t.ticket)
        or not whole_vec16(&r)
    ):
        return refuse(&t.reason, decode_error, "NewSessionTicket cannot be decoded")
    # "Servers MUST NOT use any value greater than 604800 seconds" (section 4.6.1).
    if t.lifetime > TICKET_LIFETIME_MAX:
        return refuse(&t.reason, illegal_parameter, "ticket_lifetime is over seven days")
    result = read_extensions(r, IN_NEW_SESSION_TICKET, 0, &ext, &t.reason)
    if result:
        return result
    if ext.body[X_EARLY_DATA].p != NULL:
        r = ext.body[X_EARLY_DATA]
        if not read_u32(&r, &t.max_early_data_size) or left(&r):
            return refuse(&t.reason, decode_error, "early_data cannot be decoded")
    return 0


cdef void build_new_session_ticket(Writer *w, uint32_t lifetime, uint32_t age_add, const uint8_t *nonce,
                                   size_t nonce_len, const uint8_t *ticket, size_t ticket_len,
                                   uint32_t max_early_data_size) noexcept nogil:
    cdef uint8_t *message
    cdef uint8_t *extensions
    write_u8(w, HS_NEW_SESSION_TICKET)
    message = open_vec(w, 3)
    write_u32(w, lifetime)
    write_u32(w, age_add)
    write_vec(w, 1, nonce, nonce_len)
    write_vec(w, 2, ticket, ticket_len)
    extensions = open_vec(w, 2)
    if max_early_data_size:
        write_u16(w, EXT_EARLY_DATA)
        write_u16(w, 4)
        write_u32(w, max_early_data_size)
    close_vec(w, extensions, 2)
    close_vec(w, message, 3)


cdef int parse_key_update(const uint8_t *body, size_t n, bint *update_requested, const char **reason) noexcept nogil:
    # Any other value than the two is an illegal_parameter (section 4.6.3).
    if n != 1:
        return refuse(reason, decode_error, "KeyUpdate is not one byte")
    if body[0] != UPDATE_NOT_REQUESTED and body[0] != UPDATE_REQUESTED:
        return refuse(reason, illegal_parameter, "request_update is neither 0 nor 1")
    update_requested[0] = body[0] == UPDATE_REQUESTED
    return 0


cdef void build_key_update(Writer *w, bint update_requested) noexcept nogil:
    write_u8(w, HS_KEY_UPDATE)
    write_u8(w, 0)
    write_u16(w, 1)
    write_u8(w, UPDATE_REQUESTED if update_requested else UPDATE_NOT_REQUESTED)


cdef void write_cookie(Writer *w, const uint8_t *cookie, size_t n) noexcept nogil:
    cdef uint8_t *body
    write_u16(w, EXT_COOKIE)
    body = open_vec(w, 2)
    write_vec(w, 2, cookie, n)
    close_vec(w, body, 2)
