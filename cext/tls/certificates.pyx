"""The messages that show certificates: CertificateRequest, Certificate, CertificateVerify (RFC 8446, sections 4.3.2,
4.4.2 and 4.4.3), parsed and built as in `messages`."""

from libc.string cimport memcpy, memset

from cext.base.wire cimport (
    close_vec, left, open_vec, read_u16, read_u8, read_vec8, read_vec16, read_vec24, reader_init, write_u16, write_u8)
from cext.tls.constants cimport (
    HS_CERTIFICATE, HS_CERTIFICATE_VERIFY, STATUS_OCSP, decode_error, illegal_parameter, missing_extension)
from cext.tls.extensions cimport (
    IN_CERTIFICATE, IN_CERTIFICATE_REQUEST, X_CERTIFICATE_AUTHORITIES, X_COMPRESS_CERTIFICATE, X_SIGNATURE_ALGORITHMS,
    X_SIGNED_CERTIFICATE_TIMESTAMP, X_STATUS_REQUEST, Extensions, read_extensions)
from cext.tls.fields cimport (
    is_timestamp_list, optional_algorithms, optional_authorities, optional_u16_list, refuse, whole_vec16, write_vec)


cdef int parse_certificate_request(const uint8_t *body, size_t n, CertificateRequest *cr) noexcept nogil:
    cdef Reader r
    cdef Extensions ext
    cdef int result
    memset(cr, 0, sizeof(CertificateRequest))
    cr.reason = ""
    reader_init(&r, body, n)
    if not read_vec8(&r, &cr.request_context) or not whole_vec16(&r):
        return refuse(&cr.reason, decode_error, "CertificateRequest cannot be decoded")
    result = read_extensions(r, IN_CERTIFICATE_REQUEST, 0, &ext, &cr.reason)
    if result:
        return result
    if ext.body[X_SIGNATURE_ALGORITHMS].p == NULL:
        return refuse(&cr.reason, missing_extension, "CertificateRequest without signature_algorithms")
    if not optional_u16_list(ext.body[X_SIGNATURE_ALGORITHMS], &cr.signature_algorithms):
        return refuse(&cr.reason, decode_error, "signature_algorithms cannot be decoded")
    if not optional_authorities(ext.body[X_CERTIFICATE_AUTHORITIES], &cr.authorities):
        return refuse(&cr.reason, decode_error, "certificate_authorities cannot be decoded")
    if not optional_algorithms(ext.body[X_COMPRESS_CERTIFICATE], &cr.compress_certificate):
        return refuse(&cr.reason, decode_error, "compress_certificate cannot be decoded")
    # That they are there is all they say (section 4.4.2.1).
    cr.status_request = ext.body[X_STATUS_REQUEST].p != NULL
    cr.signed_certificate_timestamp = ext.body[X_SIGNED_CERTIFICATE_TIMESTAMP].p != NULL
    return 0


cdef int parse_certificate(const uint8_t *body, size_t n, bint from_server, uint64_t offered,
                           Certificate *c) noexcept nogil:
    cdef Reader r, walk, der, extensions
    cdef int result
    memset(c, 0, sizeof(Certificate))
    c.reason = ""
    reader_init(&r, body, n)
    if not read_vec8(&r, &c.request_context) or not read_vec24(&r, &c.entries) or left(&r):
        return refuse(&c.reason, decode_error, "Certificate cannot be decoded")
    if from_server and left(&c.request_context):    # section 4.4.2
        return refuse(&c.reason, illegal_parameter, "a server's certificate_request_context is not empty")
    if from_server and not left(&c.entries):        # section 4.4.2.4
        return refuse(&c.reason, decode_error, "the server sent no certificate")
    walk = c.entries
    while left(&walk):
        if not read_vec24(&walk, &der) or not left(&der) or not read_vec16(&walk, &extensions):
            return refuse(&c.reason, decode_error, "a CertificateEntry cannot be decoded")
        if c.leaf.p == NULL:
            c.leaf = der
        if left(&extensions):
            result = read_entry_extensions(extensions, offered, der.p == c.leaf.p, c)
            if result:
                return result
    return 0


cdef int read_entry_extensions(Reader list, uint64_t offered, bint is_leaf, Certificate *c) noexcept nogil:
    """Those of the others are checked alike, and of no use."""
    cdef Extensions ext
    cdef Reader response
    cdef int result = read_extensions(list, IN_CERTIFICATE, offered, &ext, &c.reason)
    if result:
        return result
    if ext.body[X_STATUS_REQUEST].p != NULL:        # section 4.4.2.1
        if not read_certificate_status(ext.body[X_STATUS_REQUEST], &response):
            return refuse(&c.reason, decode_error, "a CertificateStatus cannot be decoded")
        if is_leaf:
            c.ocsp_response = response
    if ext.body[X_SIGNED_CERTIFICATE_TIMESTAMP].p != NULL:
        if not is_timestamp_list(ext.body[X_SIGNED_CERTIFICATE_TIMESTAMP]):
            return refuse(&c.reason, decode_error, "a SignedCertificateTimestampList cannot be decoded")
        if is_leaf:
            c.timestamps = ext.body[X_SIGNED_CERTIFICATE_TIMESTAMP]
    return 0


cdef bint read_certificate_status(Reader body, Reader *ocsp_response) noexcept nogil:
    cdef uint8_t type = 0
    return (read_u8(&body, &type) and type == STATUS_OCSP and read_vec24(&body, ocsp_response) and left(ocsp_response) != 0
            and left(&body) == 0)


cdef bint next_certificate(Reader *entries, Reader *der) noexcept nogil:
    cdef Reader extensions
    return read_vec24(entries, der) and read_vec16(entries, &extensions)


cdef void build_certificate(Writer *w, const uint8_t *body, size_t n) noexcept nogil:
    write_u8(w, HS_CERTIFICATE)
    write_vec(w, 3, body, n)


cdef void build_empty_certificate(Writer *w, const uint8_t *context, size_t n) noexcept nogil:
    cdef uint8_t *message
    write_u8(w, HS_CERTIFICATE)
    message = open_vec(w, 3)
    write_vec(w, 1, context, n)
    write_vec(w, 3, NULL, 0)
    close_vec(w, message, 3)


cdef int parse_certificate_verify(const uint8_t *body, size_t n, CertificateVerify *cv) noexcept nogil:
    cdef Reader r
    memset(cv, 0, sizeof(CertificateVerify))
    cv.reason = ""
    reader_init(&r, body, n)
    if not read_u16(&r, &cv.algorithm) or not read_vec16(&r, &cv.signature) or left(&r):
        return refuse(&cv.reason, decode_error, "CertificateVerify cannot be decoded")
    return 0


cdef void build_certificate_verify(Writer *w, uint16_t algorithm, const uint8_t *signature, size_t n) noexcept nogil:
    cdef uint8_t *message
    write_u8(w, HS_CERTIFICATE_VERIFY)
    message = open_vec(w, 3)
    write_u16(w, algorithm)
    write_vec(w, 2, signature, n)
    close_vec(w, message, 3)


cdef const char *SERVER_CONTEXT = "TLS 1.3, server CertificateVerify"
cdef const char *CLIENT_CONTEXT = "TLS 1.3, client CertificateVerify"


cdef size_t certificate_verify_input(bint server, const uint8_t *transcript_hash, size_t n,
                                     uint8_t *out) noexcept nogil:
    memset(out, 0x20, 64)
    memcpy(out + 64, SERVER_CONTEXT if server else CLIENT_CONTEXT, 34)      # with its final 0
    memcpy(out + 98, transcript_hash, n)
    return 98 + n
