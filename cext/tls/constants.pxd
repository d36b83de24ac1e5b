"""The numbers of TLS 1.3 by their RFC names (RFC 9846, which replaces RFC 8446 with the same values; RFC 8446's section
numbers are cited). SignatureScheme stands in cext.crypto.sign, NamedGroup in cext.crypto.kx."""

cdef enum ProtocolVersion:
    TLS10 = 0x0301
    TLS12 = 0x0303
    TLS13 = 0x0304

cdef enum ContentType:                          # section 5.1
    CONTENT_CHANGE_CIPHER_SPEC = 20
    CONTENT_ALERT = 21
    CONTENT_HANDSHAKE = 22
    CONTENT_APPLICATION_DATA = 23

cdef enum HandshakeType:                        # section 4, and RFC 5246, section 7.4
    HS_HELLO_REQUEST = 0
    HS_CLIENT_HELLO = 1
    HS_SERVER_HELLO = 2
    HS_NEW_SESSION_TICKET = 4
    HS_END_OF_EARLY_DATA = 5
    HS_ENCRYPTED_EXTENSIONS = 8
    HS_CERTIFICATE = 11
    HS_SERVER_KEY_EXCHANGE = 12
    HS_CERTIFICATE_REQUEST = 13
    HS_SERVER_HELLO_DONE = 14
    HS_CERTIFICATE_VERIFY = 15
    HS_CLIENT_KEY_EXCHANGE = 16
    HS_FINISHED = 20
    HS_CERTIFICATE_STATUS = 22
    HS_KEY_UPDATE = 24
    HS_COMPRESSED_CERTIFICATE = 25
    HS_MESSAGE_HASH = 254

cdef enum:
    HANDSHAKE_HEADER = 4                        # type, uint24 length
    RANDOM_LENGTH = 32
    SESSION_ID_MAX = 32

cdef enum:
    STATUS_OCSP = 1                             # CertificateStatusType, RFC 6066 section 8

cdef enum ExtensionType:                        # section 4.2, and RFC 5746, 6066, 7627, 8449, 8879, 9345
    EXT_SERVER_NAME = 0
    EXT_MAX_FRAGMENT_LENGTH = 1
    EXT_STATUS_REQUEST = 5
    EXT_SUPPORTED_GROUPS = 10
    EXT_EC_POINT_FORMATS = 11
    EXT_SIGNATURE_ALGORITHMS = 13
    EXT_USE_SRTP = 14
    EXT_HEARTBEAT = 15
    EXT_ALPN = 16
    EXT_SIGNED_CERTIFICATE_TIMESTAMP = 18
    EXT_CLIENT_CERTIFICATE_TYPE = 19
    EXT_SERVER_CERTIFICATE_TYPE = 20
    EXT_PADDING = 21
    EXT_EXTENDED_MASTER_SECRET = 23
    EXT_COMPRESS_CERTIFICATE = 27
    EXT_RECORD_SIZE_LIMIT = 28
    EXT_DELEGATED_CREDENTIAL = 34
    EXT_SESSION_TICKET = 35
    EXT_PRE_SHARED_KEY = 41
    EXT_EARLY_DATA = 42
    EXT_SUPPORTED_VERSIONS = 43
    EXT_COOKIE = 44
    EXT_PSK_KEY_EXCHANGE_MODES = 45
    EXT_CERTIFICATE_AUTHORITIES = 47
    EXT_OID_FILTERS = 48
    EXT_POST_HANDSHAKE_AUTH = 49
    EXT_SIGNATURE_ALGORITHMS_CERT = 50
    EXT_KEY_SHARE = 51
    EXT_RENEGOTIATION_INFO = 0xFF01

cdef enum CipherSuite:                          # appendix B.4
    TLS_AES_128_GCM_SHA256 = 0x1301
    TLS_AES_256_GCM_SHA384 = 0x1302
    TLS_CHACHA20_POLY1305_SHA256 = 0x1303
    # TLS 1.2: RFC 5289, RFC 7905
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 = 0xC02B
    TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 = 0xC02C
    TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 = 0xC02F
    TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384 = 0xC030
    TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256 = 0xCCA8
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256 = 0xCCA9
    # no suites, but said among them: RFC 5746, RFC 7507
    TLS_EMPTY_RENEGOTIATION_INFO_SCSV = 0x00FF
    TLS_FALLBACK_SCSV = 0x5600

cdef enum AlertLevel:
    ALERT_WARNING = 1
    ALERT_FATAL = 2

cdef enum AlertDescription:                     # section 6
    close_notify = 0
    unexpected_message = 10
    bad_record_mac = 20
    record_overflow = 22
    handshake_failure = 40
    bad_certificate = 42
    unsupported_certificate = 43
    certificate_revoked = 44
    certificate_expired = 45
    certificate_unknown = 46
    illegal_parameter = 47
    unknown_ca = 48
    access_denied = 49
    decode_error = 50
    decrypt_error = 51
    protocol_version = 70
    insufficient_security = 71
    internal_error = 80
    inappropriate_fallback = 86
    user_canceled = 90
    no_renegotiation = 100
    missing_extension = 109
    unsupported_extension = 110
    unrecognized_name = 112
    bad_certificate_status_response = 113
    unknown_psk_identity = 115
    certificate_required = 116
    no_application_protocol = 120

cdef enum PskKeyExchangeMode:                   # section 4.2.9
    PSK_KE = 0
    PSK_DHE_KE = 1

cdef enum KeyUpdateRequest:                     # section 4.6.3
    UPDATE_NOT_REQUESTED = 0
    UPDATE_REQUESTED = 1
