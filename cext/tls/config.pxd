"""What both ends are configured with: built once, in Python, to arrays and encoded bytes the handshake only reads."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cext.base.wire cimport Reader
from cext.crypto.sign cimport PublicKey
from cext.tls.credential cimport CONFIG_LIST_MAX, Credential
from cext.tls.messages cimport ClientHello
from cext.tls.replay cimport ReplayRegister
from cext.tls.session cimport Session, TicketSealer

cdef enum:
    TICKETS_MAX = 4                                 # that a server gives after one handshake
    KEY_SHARES_MAX = 4                              # that a client sends

cdef enum ClientAuth:                               # what a server asks of its clients
    CLIENT_AUTH_NONE = 0
    CLIENT_AUTH_REQUEST                             # a certificate that comes is verified, none is as good
    CLIENT_AUTH_REQUIRE

cdef struct Selection:
    uint16_t scheme                                 # SignatureScheme
    uint16_t cipher_suite                           # in TLS 1.2, where it depends on the key; else 0
    bint matched                                    # by the client's server_name
    int alert                                       # AlertDescription, when there is no credential
    const char *reason

cdef class ServerConfig:
    cdef readonly tuple credentials
    cdef readonly tuple alpn                        # bytes, preferred first
    cdef readonly bint require_sni
    cdef readonly bint policy                       # each handshake stops at its ClientHello with TLS_WAIT_POLICY
    cdef readonly bytes cookie_secret               # 32 bytes or more: signs HelloRetryRequest's cookie
    cdef readonly TicketSealer tickets              # None: none are given or taken
    cdef readonly int ticket_count                  # after a full handshake; after a resumed one it is one
    cdef readonly uint32_t ticket_lifetime          # seconds
    cdef readonly bint psk_ke                       # resumption without (EC)DHE, for clients that want nothing else
    cdef readonly uint32_t max_early_data           # bytes; 0: no early data is taken
    cdef readonly uint32_t early_window             # milliseconds: how far a ticket's age may be off for it
    cdef readonly ReplayRegister replay
    cdef readonly int min_version                   # TLS12 or TLS13, of those there are suites for
    cdef readonly int max_version
    cdef bytes alpn_list                            # encoded ProtocolNames
    cdef uint16_t cipher_suites[CONFIG_LIST_MAX]    # of TLS 1.3
    cdef size_t n_cipher_suites
    cdef uint16_t cipher_suites12[CONFIG_LIST_MAX]
    cdef size_t n_cipher_suites12
    cdef uint16_t groups[CONFIG_LIST_MAX]
    cdef size_t n_groups
    cdef readonly int client_auth                   # ClientAuth
    cdef readonly object verify_client              # callable(chain: list[bytes]) or None
    cdef bytes certificate_request                  # the whole message, header included
    cdef bytes certificate_request12                # the same of TLS 1.2
    cdef uint16_t schemes[CONFIG_LIST_MAX]          # of its signature_algorithms those a CertificateVerify may have
    cdef size_t n_schemes
    cdef uint16_t schemes12[CONFIG_LIST_MAX]        # likewise
    cdef size_t n_schemes12
    cdef dict exact                                 # bytes name -> tuple of Credential
    cdef dict wildcard                              # bytes "example.com" of "*.example.com" -> tuple of Credential
    cdef tuple default
    cdef readonly object key_log                    # callable(line: str), or None
    cdef readonly uint16_t record_size_limit        # that we answer a client's with (RFC 8449)
    cdef readonly tuple certificate_compression     # algorithms that clients may compress their certificates by
    cdef bint decompresses                          # there are such
    cdef int set_client_auth(self, str mode, object verify, object authorities, object schemes) except -1
    cdef int set_resumption(self, TicketSealer tickets, int count, int lifetime, bint psk_ke) except -1
    cdef int set_early_data(self, int max_early_data, int window, ReplayRegister replay) except -1
    cdef Credential select_credential(self, const ClientHello *ch, int version, Selection *selection)
    # None, with selection.alert set, when no credential fits. Raises nothing but MemoryError.
    cdef Credential first_fit(self, tuple candidates, const ClientHello *ch, int version, Selection *selection)
    # the first of the candidates that can sign as the client wants; as select_credential
    cdef int fit12(self, Credential credential, const ClientHello *ch, Selection *selection) noexcept nogil

cdef tuple read_chain(Reader entries)
# The DER certificates of a Certificate message's entries, which are well-formed: leaf first.

cdef struct Wanted:                                 # of a client's certificate, by a CertificateRequest
    Reader schemes                                  # list of u16
    Reader authorities                              # list of DistinguishedName; none: any
    Reader types                                    # list of ClientCertificateType; TLS 1.2 only

cdef class ClientConfig:
    cdef readonly bytes server_name                 # b"": no SNI
    cdef readonly tuple alpn
    cdef readonly object verify                     # callable(chain: list[bytes], server_name: bytes) or None
    cdef readonly object key_log                    # callable(line: str), or None
    cdef readonly uint16_t record_size_limit        # that is offered (RFC 8449); 0: none
    cdef readonly object verify_status              # callable(chain: list[bytes], ocsp_response: bytes) or None
    cdef readonly tuple certificate_compression     # algorithms that the server may compress its certificates by
    cdef readonly bint tickets                      # sessions are offered and taken
    cdef readonly bint verify_resumed               # `verify` is asked of a session's chain, too
    cdef readonly tuple credentials                 # the first that fits is shown to a server that asks
    cdef readonly bint policy                       # each such server stops the handshake with TLS_WAIT_CERTIFICATE
    cdef readonly Session session                   # to resume, for connections that are given none; or None
    cdef readonly bint early_data                   # may be written under a session that allows it
    cdef readonly bint middlebox_compatibility      # session id of 32 bytes and a CCS (RFC 8446 appendix D.4)
    cdef bytes alpn_list
    cdef readonly int min_version                   # TLS12 or TLS13, of those there are suites for
    cdef readonly int max_version
    cdef bytes cipher_suite_list                    # encoded, of every version
    cdef bytes extensions                           # encoded: all but key_share and cookie
    cdef uint64_t offered                           # extension_bit of each extension we send
    cdef uint16_t cipher_suites[CONFIG_LIST_MAX]    # of TLS 1.3
    cdef size_t n_cipher_suites
    cdef uint16_t cipher_suites12[CONFIG_LIST_MAX]
    cdef size_t n_cipher_suites12
    cdef uint16_t groups[CONFIG_LIST_MAX]
    cdef size_t n_groups
    cdef uint16_t key_share_groups[CONFIG_LIST_MAX]
    cdef size_t n_key_share_groups
    cdef uint16_t schemes[CONFIG_LIST_MAX]          # signature_algorithms
    cdef size_t n_schemes
    cdef uint16_t schemes12[CONFIG_LIST_MAX]        # what a ServerKeyExchange may be signed by
    cdef size_t n_schemes12
    cdef bytes leaf_der                             # the last leaf read, and its key: a load generator sees one
    cdef PublicKey leaf_key
    cdef bytes entries                              # the last Certificate's, and its chain: likewise
    cdef tuple chain
    cdef Credential select_credential(self, Credential chosen, int version, const Wanted *wanted, int *scheme)
    # The one to show, and what it signs by; None when none fits. `chosen`: that one or none; None: ours.
    cdef PublicKey public_key(self, Reader leaf)
    # Raises ValueError when the certificate cannot be read.
    cdef tuple chain_of(self, Reader entries)       # read_chain, remembered
    cdef tuple shared_chain(self, tuple chain)      # the equal one that is remembered, or this one from now on
