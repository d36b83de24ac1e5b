"""Handshake messages: one parse_x / build_x pair each, over borrowed memory (RFC 9846, section 4).

A parsed message holds Readers into the message it came from: it is read before that memory goes.
parse_* return 0, or a negative AlertDescription (-decode_error, -illegal_parameter,
-missing_extension …) with `reason` set to a static string; nothing raises.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

from cext.base.wire cimport Reader, Writer

cdef struct Extension:                 # present: body.p != NULL
    Reader body

cdef struct ClientHello:
    uint16_t legacy_version
    Reader random                      # 32 bytes
    Reader legacy_session_id           # 0..32 bytes
    Reader cipher_suites               # even number of bytes
    Reader compression_methods
    # extensions, decoded to the point where iterating needs no further checks; .p NULL: absent
    Reader server_name                 # host_name, ASCII, validated, no trailing dot handling here
    Reader supported_versions          # list of u16
    Reader supported_groups            # list of u16
    Reader signature_algorithms        # list of u16
    Reader signature_algorithms_cert
    Reader key_shares                  # list of KeyShareEntry, shape and duplicates checked
    Reader alpn                        # list of ProtocolName, shape checked
    Reader psk_modes
    Reader pre_shared_key              # whole body (identities and binders); last extension checked
    Reader cookie
    Reader record_size_limit
    bint early_data
    bint status_request
    bint extended_master_secret
    bint renegotiation_info
    const char *reason                 # why parsing failed

cdef int parse_client_hello(const uint8_t *body, size_t n, ClientHello *ch) noexcept nogil
