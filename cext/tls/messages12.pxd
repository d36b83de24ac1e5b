"""Handshake messages of TLS 1.2 where they differ from 1.3's: one parse_x / build_x pair each, by the same contract as
cext.tls.messages (RFC 5246, section 7.4; RFC 8422, section 5). ClientHello and Finished are the same in both."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cext.base.wire cimport Reader, Writer

# --- ServerHello (RFC 5246, section 7.4.1.3)

cdef struct ServerHello12:
    Reader random
    Reader session_id                  # 0..32 bytes
    uint16_t cipher_suite
    Reader alpn                        # the selected protocol itself; .p NULL: absent
    bint extended_master_secret
    bint renegotiation_info            # present, and empty as a first handshake's must be
    bint session_ticket                # a NewSessionTicket will come
    bint status_request                # a CertificateStatus may come
    Reader timestamps                  # SignedCertificateTimestampList, shape checked; .p NULL: absent
    bint server_name
    uint16_t record_size_limit         # 64 or more; 0: absent
    const char *reason

cdef int parse_server_hello12(const uint8_t *body, size_t n, uint64_t offered, ServerHello12 *sh) noexcept nogil
"""`offered` as in parse_server_hello."""

cdef struct ServerHello12Parts:
    const uint8_t *random              # 32 bytes
    const uint8_t *session_id
    size_t session_id_len
    uint16_t cipher_suite
    const uint8_t *alpn                # the selected protocol; alpn_len 0: none
    size_t alpn_len
    bint extended_master_secret        # these answer the client's; each is an empty extension, or its one value
    bint renegotiation_info
    bint ec_point_formats
    bint server_name
    bint session_ticket
    bint status_request
    uint16_t record_size_limit         # 0: absent
    const uint8_t *timestamps          # SignedCertificateTimestampList; timestamps_len 0: none
    size_t timestamps_len

cdef void build_server_hello12(Writer *w, const ServerHello12Parts *parts) noexcept nogil

cdef bint has_uncompressed(Reader formats) noexcept nogil
"""Whether a list of ECPointFormat has the one that matters (RFC 8422, section 5.1.2)."""

# --- Certificate, CertificateRequest (sections 7.4.2, 7.4.4), CertificateStatus (RFC 6066, section 8)

cdef struct Certificate12:
    Reader entries                     # shape checked: iterate with next_certificate12
    Reader leaf                        # DER of the first; .p NULL: the list is empty
    const char *reason

cdef int parse_certificate12(const uint8_t *body, size_t n, Certificate12 *c) noexcept nogil
"""build_certificate of cext.tls.messages writes it, from config.Credential.certificate_body12."""
cdef bint next_certificate12(Reader *entries, Reader *der) noexcept nogil
cdef tuple read_chain12(Reader entries)
"""The DER certificates, leaf first."""

cdef enum ClientCertificateType:        # section 7.4.4
    RSA_SIGN = 1
    ECDSA_SIGN = 64                     # EdDSA keys too (RFC 8422, section 5.5)

cdef struct CertificateRequest12:
    Reader certificate_types           # list of u8
    Reader signature_algorithms        # list of u16
    Reader authorities                 # list of DistinguishedName, shape checked
    const char *reason

cdef int parse_certificate_request12(const uint8_t *body, size_t n, CertificateRequest12 *cr) noexcept nogil
# --- ServerKeyExchange, ServerHelloDone, ClientKeyExchange (RFC 8422, sections 5.4 and 5.7)

cdef enum:
    ECDHE_PARAMS_MAX = 1 + 2 + 1 + 255

cdef struct ServerKeyExchange:
    Reader params                      # ServerECDHParams, as they are signed
    uint16_t group
    Reader point
    uint16_t algorithm                 # SignatureScheme
    Reader signature
    const char *reason

cdef int parse_server_key_exchange(const uint8_t *body, size_t n, ServerKeyExchange *ske) noexcept nogil
cdef size_t ecdhe_params(uint16_t group, const uint8_t *point, size_t n, uint8_t *out) noexcept nogil
"""ServerECDHParams of a named curve (n <= 255): its length, at most ECDHE_PARAMS_MAX."""
cdef void build_server_key_exchange(Writer *w, const uint8_t *params, size_t n, uint16_t algorithm,
                                    const uint8_t *signature, size_t signature_len) noexcept nogil

cdef int parse_server_hello_done(size_t n, const char **reason) noexcept nogil
cdef void build_server_hello_done(Writer *w) noexcept nogil

cdef int parse_client_key_exchange(const uint8_t *body, size_t n, Reader *point, const char **reason) noexcept nogil
cdef void build_client_key_exchange(Writer *w, const uint8_t *point, size_t n) noexcept nogil

# --- NewSessionTicket (RFC 5077, section 3.3)

cdef struct NewSessionTicket12:
    uint32_t lifetime_hint             # seconds; 0: unspecified
    Reader ticket                      # empty: none after all
    const char *reason

cdef int parse_new_session_ticket12(const uint8_t *body, size_t n, NewSessionTicket12 *t) noexcept nogil
cdef void build_new_session_ticket12(Writer *w, uint32_t lifetime_hint, const uint8_t *ticket, size_t n) noexcept nogil
