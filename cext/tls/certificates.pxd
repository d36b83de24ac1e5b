"""The messages that show certificates (RFC 8446, sections 4.3.2, 4.4.2, 4.4.3), parsed and built as in `messages`: over
borrowed memory, 0 or a negative AlertDescription with a static reason."""

from libc.stdint cimport uint8_t, uint16_t, uint64_t

from cext.base.wire cimport Reader, Writer

cdef struct CertificateRequest:
    Reader request_context
    Reader signature_algorithms        # list of u16
    Reader compress_certificate        # list of u16: algorithms of RFC 8879; .p NULL: absent
    bint status_request
    bint signed_certificate_timestamp
    Reader authorities                 # list of DistinguishedName, shape checked; .p NULL: absent
    const char *reason

cdef int parse_certificate_request(const uint8_t *body, size_t n, CertificateRequest *cr) noexcept nogil

cdef struct Certificate:
    Reader request_context
    Reader entries                     # shape and extensions checked: iterate with next_certificate
    Reader leaf                        # DER of the first; .p NULL: the list is empty
    Reader ocsp_response               # DER of the leaf's; .p NULL: none
    Reader timestamps                  # the leaf's SignedCertificateTimestampList, shape checked; .p NULL: none
    const char *reason

cdef int parse_certificate(const uint8_t *body, size_t n, bint from_server, uint64_t offered,
                           Certificate *c) noexcept nogil
"""A server's list must not be empty and its context must be (section 4.4.2)."""
cdef bint next_certificate(Reader *entries, Reader *der) noexcept nogil

cdef bint read_certificate_status(Reader body, Reader *ocsp_response) noexcept nogil
"""CertificateStatus (RFC 6066, section 8): in TLS 1.3 an extension, in TLS 1.2 a message. 0 when it holds no OCSPResponse."""

cdef void build_certificate(Writer *w, const uint8_t *body, size_t n) noexcept nogil
"""From a body encoded once (config.Credential.certificate_body): header and copy."""
cdef void build_empty_certificate(Writer *w, const uint8_t *context, size_t n) noexcept nogil
"""A client's answer to a CertificateRequest when it has none."""

cdef struct CertificateVerify:
    uint16_t algorithm
    Reader signature
    const char *reason

cdef int parse_certificate_verify(const uint8_t *body, size_t n, CertificateVerify *cv) noexcept nogil
cdef void build_certificate_verify(Writer *w, uint16_t algorithm, const uint8_t *signature, size_t n) noexcept nogil

cdef enum:
    CERTIFICATE_VERIFY_INPUT_MAX = 64 + 33 + 1 + 48

cdef size_t certificate_verify_input(bint server, const uint8_t *transcript_hash, size_t n,
                                     uint8_t *out) noexcept nogil
"""What a CertificateVerify signs: 64 spaces, the context string, 0, the transcript hash. Returns its length (at most
CERTIFICATE_VERIFY_INPUT_MAX)."""
