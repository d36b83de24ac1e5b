"""Handshake messages: one parse_x / build_x pair each, over borrowed memory (RFC 9846, section 4).

A parsed message holds Readers into the message it came from: it is read before that memory goes. parse_* take a
message's body (what follows the four-byte handshake header) and return 0, or a negative AlertDescription
(-decode_error, -illegal_parameter, -missing_extension ...) with `reason` set to a static string; nothing raises.
build_* write a whole message with its header; a Writer without room is left with `overflow` set.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cext.base.wire cimport Reader, Writer

# --- ClientHello (section 4.1.2)

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
    Reader certificate_authorities     # list of DistinguishedName, shape checked
    Reader delegated_credential        # list of u16: SignatureSchemes (RFC 9345, section 4.1.1)
    Reader key_shares                  # list of KeyShareEntry, shape and duplicates checked
    Reader alpn                        # list of ProtocolName, shape checked
    Reader psk_modes
    Reader pre_shared_key              # whole body (identities and binders); last extension checked
    Reader cookie                      # the opaque cookie itself, without its length
    uint16_t record_size_limit         # 64 or more; 0: absent
    Reader ec_point_formats            # list of u8; TLS 1.2 only
    Reader session_ticket              # the ticket itself, which may be empty; TLS 1.2 only
    bint early_data
    Reader compress_certificate        # list of u16: algorithms of RFC 8879
    bint status_request
    bint signed_certificate_timestamp
    bint extended_master_secret
    bint renegotiation_info
    bint offers_tls13                  # supported_versions lists 0x0304
    const char *reason                 # why parsing failed

cdef int parse_client_hello(const uint8_t *body, size_t n, ClientHello *ch) noexcept nogil
"""What holds for every ClientHello is checked always; what only TLS 1.3 demands (compression methods exactly [0],
missing_extension of section 9.2, psk_key_exchange_modes with pre_shared_key) when it offers TLS 1.3."""

cdef struct KeyShare:
    uint16_t group
    const uint8_t *data
    size_t len

cdef bint next_key_share(Reader *key_shares, KeyShare *share) noexcept nogil
"""Iterates ClientHello.key_shares (a copy of the Reader is consumed); 0 at the end."""

cdef struct ClientHelloParts:
    const uint8_t *random              # 32 bytes
    const uint8_t *session_id
    size_t session_id_len
    const uint8_t *cipher_suites       # encoded list without its length
    size_t cipher_suites_len
    const uint8_t *extensions          # encoded once: all but key_share, cookie and early data's
    size_t extensions_len
    const KeyShare *shares             # NULL: no key_share, as when TLS 1.3 is not offered
    size_t n_shares
    const uint8_t *cookie              # from a HelloRetryRequest; NULL: none
    size_t cookie_len
    bint early_data
    const uint8_t *session_ticket      # of TLS 1.2, which may be empty; NULL: no session_ticket
    size_t session_ticket_len
    const uint8_t *ticket              # offered as the one PSK identity; NULL: no pre_shared_key
    size_t ticket_len
    uint32_t obfuscated_ticket_age
    size_t binder_len                  # its binder is written as zeros: the last bytes of the message

cdef void build_client_hello(Writer *w, const ClientHelloParts *parts) noexcept nogil

# --- ServerHello and HelloRetryRequest (sections 4.1.3, 4.1.4)

cdef struct ServerHello:
    uint16_t legacy_version
    Reader random
    Reader legacy_session_id_echo
    uint16_t cipher_suite
    bint retry                         # a HelloRetryRequest: random has the special value
    uint16_t selected_version          # from supported_versions; 0: absent, so TLS 1.2 or older was chosen
    uint16_t group                     # of the share, or HelloRetryRequest's selected_group; 0: none
    Reader share                       # the server's key_exchange; .p NULL: absent
    Reader cookie                      # HelloRetryRequest's, without its length; .p NULL: absent
    Reader pre_shared_key              # two bytes: selected_identity; .p NULL: absent
    const char *reason

cdef int parse_server_hello(const uint8_t *body, size_t n, uint64_t offered, ServerHello *sh) noexcept nogil
"""`offered`: extensions.extension_bit of each extension of the ClientHello; another one: unsupported_extension."""

cdef void build_server_hello(Writer *w, const uint8_t *random, const uint8_t *session_id, size_t session_id_len,
                             uint16_t cipher_suite, uint16_t group, const uint8_t *share,
                             size_t share_len) noexcept nogil
"""random: 32 bytes."""
cdef void build_resuming_server_hello(Writer *w, const uint8_t *random, const uint8_t *session_id,
                                      size_t session_id_len, uint16_t cipher_suite, uint16_t group,
                                      const uint8_t *share, size_t share_len, int selected_identity) noexcept nogil
"""group 0: no key_share (psk_ke); selected_identity -1: no pre_shared_key."""

cdef void build_hello_retry_request(Writer *w, const uint8_t *session_id, size_t session_id_len,
                                    uint16_t cipher_suite, uint16_t group, const uint8_t *cookie,
                                    size_t cookie_len) noexcept nogil
"""group 0: no key_share; cookie_len 0: no cookie."""

# --- EncryptedExtensions (section 4.3.1)

cdef struct EncryptedExtensions:
    Reader alpn                        # the selected protocol itself; .p NULL: absent
    Reader supported_groups            # list of u16; .p NULL: absent
    uint16_t record_size_limit         # 64 to 2^14 + 1; 0: absent
    bint server_name
    bint early_data
    const char *reason

cdef int parse_encrypted_extensions(const uint8_t *body, size_t n, uint64_t offered,
                                    EncryptedExtensions *ee) noexcept nogil
cdef void build_encrypted_extensions(Writer *w, const uint8_t *alpn, size_t alpn_len, bint server_name,
                                     bint early_data=*, uint16_t record_size_limit=*) noexcept nogil
"""alpn_len 0: no ALPN; server_name: acknowledge the client's (empty server_name extension, RFC 6066); early_data: it is
accepted; record_size_limit 0: not negotiated."""

# --- Finished, NewSessionTicket, KeyUpdate (sections 4.4.4, 4.6.1, 4.6.3)

cdef int parse_finished(const uint8_t *body, size_t n, size_t hash_len, Reader *verify_data,
                        const char **reason) noexcept nogil
"""-decode_error unless it is hash_len bytes."""
cdef void build_finished(Writer *w, const uint8_t *verify_data, size_t n) noexcept nogil

cdef void build_end_of_early_data(Writer *w) noexcept nogil

cdef struct NewSessionTicket:
    uint32_t lifetime                  # seconds, at most 604800
    uint32_t age_add
    Reader nonce
    Reader ticket
    uint32_t max_early_data_size       # bytes; 0: none
    const char *reason

cdef int parse_new_session_ticket(const uint8_t *body, size_t n, NewSessionTicket *t) noexcept nogil
cdef void build_new_session_ticket(Writer *w, uint32_t lifetime, uint32_t age_add, const uint8_t *nonce,
                                   size_t nonce_len, const uint8_t *ticket, size_t ticket_len,
                                   uint32_t max_early_data_size) noexcept nogil
"""max_early_data_size 0: no early_data extension."""

cdef int parse_key_update(const uint8_t *body, size_t n, bint *update_requested, const char **reason) noexcept nogil
cdef void build_key_update(Writer *w, bint update_requested) noexcept nogil
