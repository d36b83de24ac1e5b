"""Handshake messages of TLS 1.2, in the order of a handshake (see the .pxd; section numbers are RFC 5246's unless
another RFC is named)."""

from libc.string cimport memcpy, memset

from cext.base.wire cimport (
    close_vec, left, open_vec, read_bytes, read_u16, read_u32, read_u8, read_vec16, read_vec24, read_vec8, reader_init,
    write_bytes, write_u16, write_u32, write_u8)
from cext.tls.constants cimport (
    EXT_ALPN, EXT_EC_POINT_FORMATS, EXT_EXTENDED_MASTER_SECRET, EXT_RECORD_SIZE_LIMIT, EXT_RENEGOTIATION_INFO,
    EXT_SERVER_NAME, EXT_SESSION_TICKET, EXT_SIGNED_CERTIFICATE_TIMESTAMP, EXT_STATUS_REQUEST, HS_CLIENT_KEY_EXCHANGE,
    HS_NEW_SESSION_TICKET, HS_SERVER_HELLO, HS_SERVER_HELLO_DONE, HS_SERVER_KEY_EXCHANGE, RANDOM_LENGTH, SESSION_ID_MAX,
    TLS12, decode_error, handshake_failure, illegal_parameter, protocol_version)
from cext.tls.extensions cimport (
    IN_SERVER_HELLO_12, Extensions, X_ALPN, X_EC_POINT_FORMATS, X_EXTENDED_MASTER_SECRET, X_RENEGOTIATION_INFO,
    X_SERVER_NAME, X_SESSION_TICKET, X_SIGNED_CERTIFICATE_TIMESTAMP, X_STATUS_REQUEST, extension_bit, read_extensions,
    read_record_size_limit)
from cext.tls.fields cimport is_timestamp_list, refuse, whole_vec8, whole_vec16, write_vec

from cext.tls.alert import TlsAlert

cdef enum:
    RECORD_SIZE_LIMIT_MAX = (1 << 14) + 1           # as in TLS 1.3, which counts the type: RFC 8449, section 4
    NAMED_CURVE = 3                     # ECCurveType, RFC 8422 section 5.4
    UNCOMPRESSED = 0                    # ECPointFormat, RFC 8422 section 5.1.2


cdef int parse_server_hello12(const uint8_t *body, size_t n, uint64_t offered, ServerHello12 *sh) noexcept nogil:
    cdef Reader r, list
    cdef Extensions ext
    cdef uint16_t version = 0
    cdef uint8_t compression = 0
    cdef int result
    memset(sh, 0, sizeof(ServerHello12))
    sh.reason = ""
    reader_init(&r, body, n)
    if (
        not read_u16(&r, &version)
        or not read_bytes(&r, RANDOM_LENGTH, &sh.random)
        or not read_vec8(&r, &sh.session_id)
        or not read_u16(&r, &sh.cipher_suite)
        or not read_u8(&r, &compression)
    ):
        return refuse(&sh.reason, decode_error, "ServerHello is cut short")
    if left(&sh.session_id) > SESSION_ID_MAX:
        return refuse(&sh.reason, decode_error, "session_id is longer than 32 bytes")
    reader_init(&list, r.p, 0)
    if left(&r) and (not read_vec16(&r, &list) or left(&r)):
        return refuse(&sh.reason, decode_error, "the extensions' length does not fit the ServerHello")
    if version != TLS12:
        return refuse(&sh.reason, protocol_version, "the server speaks neither TLS 1.3 nor 1.2")
    if compression != 0:
        return refuse(&sh.reason, illegal_parameter, "compression_method is not null")
    result = read_extensions(list, IN_SERVER_HELLO_12, offered, &ext, &sh.reason)
    if result:
        return result
    result = read_record_size_limit(&ext, RECORD_SIZE_LIMIT_MAX, &sh.record_size_limit, &sh.reason)
    return result if result else decode_extensions(&ext, sh)


cdef int decode_extensions(const Extensions *ext, ServerHello12 *sh) noexcept nogil:
    cdef Reader r, formats
    if ext.body[X_ALPN].p != NULL:                  # exactly one name, RFC 7301 section 3.1
        r = ext.body[X_ALPN]
        if not whole_vec16(&r) or not read_vec8(&r, &sh.alpn) or not left(&sh.alpn) or left(&r):
            return refuse(&sh.reason, decode_error, "application_layer_protocol_negotiation cannot be decoded")
    if ext.body[X_RENEGOTIATION_INFO].p != NULL:
        r = ext.body[X_RENEGOTIATION_INFO]
        if not whole_vec8(&r):
            return refuse(&sh.reason, decode_error, "renegotiation_info cannot be decoded")
        if left(&r):                                # RFC 5746 section 3.4
            return refuse(&sh.reason, handshake_failure, "renegotiation_info of a first handshake is not empty")
        sh.renegotiation_info = 1
    if ext.body[X_EC_POINT_FORMATS].p != NULL:
        r = ext.body[X_EC_POINT_FORMATS]
        if not read_vec8(&r, &formats) or left(&r):
            return refuse(&sh.reason, decode_error, "ec_point_formats cannot be decoded")
        if not has_uncompressed(formats):           # RFC 8422 section 5.2
            return refuse(&sh.reason, illegal_parameter, "ec_point_formats lacks uncompressed")
    sh.extended_master_secret = ext.body[X_EXTENDED_MASTER_SECRET].p != NULL
    sh.session_ticket = ext.body[X_SESSION_TICKET].p != NULL
    sh.status_request = ext.body[X_STATUS_REQUEST].p != NULL
    sh.server_name = ext.body[X_SERVER_NAME].p != NULL
    sh.timestamps = ext.body[X_SIGNED_CERTIFICATE_TIMESTAMP]
    if sh.timestamps.p != NULL and not is_timestamp_list(sh.timestamps):        # RFC 6962, section 3.3.1
        return refuse(&sh.reason, decode_error, "a SignedCertificateTimestampList cannot be decoded")
    if (left(&ext.body[X_EXTENDED_MASTER_SECRET]) or left(&ext.body[X_SESSION_TICKET])
            or left(&ext.body[X_STATUS_REQUEST]) or left(&ext.body[X_SERVER_NAME])):
        return refuse(&sh.reason, decode_error, "an extension that must be empty is not")
    return 0


cdef bint has_uncompressed(Reader formats) noexcept nogil:
    while formats.p < formats.end:
        if formats.p[0] == UNCOMPRESSED:
            return 1
        formats.p += 1
    return 0


cdef void build_server_hello12(Writer *w, const ServerHello12Parts *parts) noexcept nogil:
    cdef uint8_t *message
    cdef uint8_t *extensions
    cdef uint8_t *body
    cdef uint8_t *names
    write_u8(w, HS_SERVER_HELLO)
    message = open_vec(w, 3)
    write_u16(w, TLS12)
    write_bytes(w, parts.random, RANDOM_LENGTH)
    write_vec(w, 1, parts.session_id, parts.session_id_len)
    write_u16(w, parts.cipher_suite)
    write_u8(w, 0)
    extensions = open_vec(w, 2)
    if parts.renegotiation_info:
        write_u16(w, EXT_RENEGOTIATION_INFO)
        write_u16(w, 1)
        write_u8(w, 0)
    write_flag(w, EXT_EXTENDED_MASTER_SECRET, parts.extended_master_secret)
    write_flag(w, EXT_SERVER_NAME, parts.server_name)
    write_flag(w, EXT_SESSION_TICKET, parts.session_ticket)
    write_flag(w, EXT_STATUS_REQUEST, parts.status_request)
    if parts.record_size_limit:
        write_u16(w, EXT_RECORD_SIZE_LIMIT)
        write_u16(w, 2)
        write_u16(w, parts.record_size_limit)
    if parts.timestamps_len:
        write_u16(w, EXT_SIGNED_CERTIFICATE_TIMESTAMP)
        write_vec(w, 2, parts.timestamps, parts.timestamps_len)
    if parts.ec_point_formats:
        write_u16(w, EXT_EC_POINT_FORMATS)
        write_u16(w, 2)
        write_u8(w, 1)
        write_u8(w, UNCOMPRESSED)
    if parts.alpn_len:
        write_u16(w, EXT_ALPN)
        body = open_vec(w, 2)
        names = open_vec(w, 2)
        write_vec(w, 1, parts.alpn, parts.alpn_len)
        close_vec(w, names, 2)
        close_vec(w, body, 2)
    if w.p == extensions + 2 and not w.overflow:
        w.p = extensions                # a client that sent no extensions may not know the field
    else:
        close_vec(w, extensions, 2)
    close_vec(w, message, 3)


# --- Certificate, CertificateRequest

cdef int parse_certificate12(const uint8_t *body, size_t n, Certificate12 *c) noexcept nogil:
    cdef Reader r, walk, der
    memset(c, 0, sizeof(Certificate12))
    c.reason = ""
    reader_init(&r, body, n)
    if not read_vec24(&r, &c.entries) or left(&r):
        return refuse(&c.reason, decode_error, "Certificate cannot be decoded")
    walk = c.entries
    while left(&walk):
        if not read_vec24(&walk, &der) or not left(&der):
            return refuse(&c.reason, decode_error, "an ASN.1Cert cannot be decoded")
        if c.leaf.p == NULL:
            c.leaf = der
    return 0


cdef bint next_certificate12(Reader *entries, Reader *der) noexcept nogil:
    return read_vec24(entries, der)


cdef tuple read_chain12(Reader entries):
    cdef Reader der
    cdef list chain = []
    while next_certificate12(&entries, &der):
        chain.append(content(&der))
    return tuple(chain)


cdef int parse_certificate_request12(const uint8_t *body, size_t n, CertificateRequest12 *cr) noexcept nogil:
    cdef Reader r, walk, name
    memset(cr, 0, sizeof(CertificateRequest12))
    cr.reason = ""
    reader_init(&r, body, n)
    if (
        not read_vec8(&r, &cr.certificate_types)
        or not left(&cr.certificate_types)
        or not read_vec16(&r, &cr.signature_algorithms)
        or not left(&cr.signature_algorithms)
        or left(&cr.signature_algorithms) % 2
        or not read_vec16(&r, &cr.authorities)
        or left(&r)
    ):
        return refuse(&cr.reason, decode_error, "CertificateRequest cannot be decoded")
    walk = cr.authorities
    while left(&walk):
        if not read_vec16(&walk, &name) or not left(&name):
            return refuse(&cr.reason, decode_error, "a DistinguishedName cannot be decoded")
    return 0


# --- ServerKeyExchange, ServerHelloDone, ClientKeyExchange

cdef int parse_server_key_exchange(const uint8_t *body, size_t n, ServerKeyExchange *ske) noexcept nogil:
    cdef Reader r
    cdef uint8_t curve_type = 0
    memset(ske, 0, sizeof(ServerKeyExchange))
    ske.reason = ""
    reader_init(&r, body, n)
    if not read_u8(&r, &curve_type):
        return refuse(&ske.reason, decode_error, "ServerKeyExchange is empty")
    if curve_type != NAMED_CURVE:       # the other two are deprecated, RFC 8422 section 5.4
        return refuse(&ske.reason, illegal_parameter, "ServerKeyExchange is not of a named curve")
    if not read_u16(&r, &ske.group) or not read_vec8(&r, &ske.point) or not left(&ske.point):
        return refuse(&ske.reason, decode_error, "ServerECDHParams cannot be decoded")
    reader_init(&ske.params, body, r.p - body)
    if not read_u16(&r, &ske.algorithm) or not read_vec16(&r, &ske.signature) or left(&r):
        return refuse(&ske.reason, decode_error, "ServerKeyExchange's signature cannot be decoded")
    return 0


cdef size_t ecdhe_params(uint16_t group, const uint8_t *point, size_t n, uint8_t *out) noexcept nogil:
    out[0] = NAMED_CURVE
    out[1] = <uint8_t> (group >> 8)
    out[2] = group & 0xFF
    out[3] = <uint8_t> n
    memcpy(out + 4, point, n)
    return 4 + n


cdef void build_server_key_exchange(Writer *w, const uint8_t *params, size_t n, uint16_t algorithm,
                                    const uint8_t *signature, size_t signature_len) noexcept nogil:
    cdef uint8_t *message
    write_u8(w, HS_SERVER_KEY_EXCHANGE)
    message = open_vec(w, 3)
    write_bytes(w, params, n)
    write_u16(w, algorithm)
    write_vec(w, 2, signature, signature_len)
    close_vec(w, message, 3)


cdef int parse_server_hello_done(size_t n, const char **reason) noexcept nogil:
    return refuse(reason, decode_error, "ServerHelloDone is not empty") if n else 0


cdef void build_server_hello_done(Writer *w) noexcept nogil:
    write_u32(w, <uint32_t> HS_SERVER_HELLO_DONE << 24)


cdef int parse_client_key_exchange(const uint8_t *body, size_t n, Reader *point, const char **reason) noexcept nogil:
    cdef Reader r
    reader_init(&r, body, n)
    if not read_vec8(&r, point) or not left(point) or left(&r):
        return refuse(reason, decode_error, "ClientKeyExchange cannot be decoded")
    return 0


cdef void build_client_key_exchange(Writer *w, const uint8_t *point, size_t n) noexcept nogil:
    cdef uint8_t *message
    write_u8(w, HS_CLIENT_KEY_EXCHANGE)
    message = open_vec(w, 3)
    write_vec(w, 1, point, n)
    close_vec(w, message, 3)


# --- NewSessionTicket

cdef int parse_new_session_ticket12(const uint8_t *body, size_t n, NewSessionTicket12 *t) noexcept nogil:
    cdef Reader r
    memset(t, 0, sizeof(NewSessionTicket12))
    t.reason = ""
    reader_init(&r, body, n)
    if not read_u32(&r, &t.lifetime_hint) or not read_vec16(&r, &t.ticket) or left(&r):
        return refuse(&t.reason, decode_error, "NewSessionTicket cannot be decoded")
    return 0


cdef void build_new_session_ticket12(Writer *w, uint32_t lifetime_hint, const uint8_t *ticket, size_t n) noexcept nogil:
    cdef uint8_t *message
    write_u8(w, HS_NEW_SESSION_TICKET)
    message = open_vec(w, 3)
    write_u32(w, lifetime_hint)
    write_vec(w, 2, ticket, n)
    close_vec(w, message, 3)


# --- pieces shared by several messages

cdef inline void write_flag(Writer *w, uint16_t type, bint present) noexcept nogil:
    if present:
        write_u16(w, type)
        write_u16(w, 0)


# --- Python's face, for tests, fuzzing and tools

def parse(str kind, bytes body not None, offered=()):
    """A message's fields from its body (without the handshake header) as a dict; TlsAlert when it is faulty.

    `kind` is "server_hello", "certificate", "certificate_request", "server_key_exchange", "client_key_exchange",
    "server_hello_done" or "new_session_ticket". `offered` are the extension types of the ClientHello that a ServerHello
    answers."""
    cdef ServerHello12 sh
    cdef Certificate12 c
    cdef CertificateRequest12 cr
    cdef ServerKeyExchange ske
    cdef NewSessionTicket12 t
    cdef Reader r
    cdef const char *reason = ""
    cdef uint64_t bits = 0
    cdef size_t n = len(body)
    cdef int result
    reader_init(&r, NULL, 0)
    if kind == "server_hello":
        for type in offered:
            bits |= extension_bit(<uint16_t> type)
        result = parse_server_hello12(body, n, bits, &sh)
        check(result, sh.reason)
        return {
            "random": content(&sh.random), "session_id": content(&sh.session_id), "cipher_suite": sh.cipher_suite,
            "alpn": content(&sh.alpn), "extended_master_secret": bool(sh.extended_master_secret),
            "renegotiation_info": bool(sh.renegotiation_info), "session_ticket": bool(sh.session_ticket),
            "status_request": bool(sh.status_request), "server_name": bool(sh.server_name),
            "record_size_limit": sh.record_size_limit or None,
            "timestamps": content(&sh.timestamps),
        }
    if kind == "certificate":
        result = parse_certificate12(body, n, &c)
        check(result, c.reason)
        return {"chain": list(read_chain12(c.entries)), "leaf": content(&c.leaf)}
    if kind == "certificate_request":
        result = parse_certificate_request12(body, n, &cr)
        check(result, cr.reason)
        return {"certificate_types": content(&cr.certificate_types), "authorities": content(&cr.authorities),
                "signature_algorithms": content(&cr.signature_algorithms)}
    if kind == "server_key_exchange":
        result = parse_server_key_exchange(body, n, &ske)
        check(result, ske.reason)
        return {"params": content(&ske.params), "group": ske.group, "point": content(&ske.point),
                "algorithm": ske.algorithm, "signature": content(&ske.signature)}
    if kind == "client_key_exchange":
        result = parse_client_key_exchange(body, n, &r, &reason)
        check(result, reason)
        return {"point": content(&r)}
    if kind == "server_hello_done":
        result = parse_server_hello_done(n, &reason)
        check(result, reason)
        return {}
    if kind == "new_session_ticket":
        result = parse_new_session_ticket12(body, n, &t)
        check(result, t.reason)
        return {"lifetime_hint": t.lifetime_hint, "ticket": content(&t.ticket)}
    raise ValueError(f"no handshake message is called {kind!r}")


cdef check(int result, const char *reason):
    if result:
        raise TlsAlert(-result, reason.decode())


cdef content(const Reader *r):
    return None if r.p == NULL else (<const char *> r.p)[:r.end - r.p]
