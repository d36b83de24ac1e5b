"""The server's side of a TLS 1.2 handshake, state by state (RFC 5246, section 7.3; ECDHE by RFC 8422).

Made when a ClientHello has turned out to settle on TLS 1.2. There is no renegotiation, so a connection has one of these
at most.
"""

from libc.stdint cimport uint8_t, uint64_t

from cext.crypto.hash_kdf cimport Hmac
from cext.crypto.kx cimport KX_PUBLIC_MAX, KeyExchange
from cext.tls.config cimport ServerConfig
from cext.tls.constants cimport RANDOM_LENGTH
from cext.tls.handshake cimport Handshake
from cext.tls.messages cimport ClientHello
from cext.tls.prf12 cimport FINISHED12_LENGTH, KEY_IV_MAX, MASTER_SECRET_LENGTH

cdef enum ServerState12:                # in flight order
    S12_READ_CLIENT_HELLO = 0
    S12_SELECT_CREDENTIAL               # or, by a ticket, at once
    S12_SEND_SERVER_HELLO
    S12_SEND_CERTIFICATE
    S12_SEND_SERVER_KEY_EXCHANGE
    S12_SEND_SERVER_HELLO_DONE
    S12_READ_CLIENT_KEY_EXCHANGE
    S12_READ_CHANGE_CIPHER_SPEC
    S12_READ_FINISHED
    S12_SEND_NEW_SESSION_TICKET
    S12_SEND_FINISHED                   # change_cipher_spec and Finished; resumed, it comes before the client's
    S12_CONFIRMED

cdef enum:
    PARAMS_MAX = 4 + KX_PUBLIC_MAX      # of a group we have

cdef class Server12(Handshake):
    cdef ServerConfig config
    cdef KeyExchange exchange           # from ServerKeyExchange to ClientKeyExchange
    cdef bint acknowledge_name          # the server_name was used to choose the credential (RFC 6066, section 3)
    cdef bint extended_master_secret    # both ends do RFC 7627
    cdef bint secure_renegotiation      # the client indicates RFC 5746
    cdef bint point_formats             # the client sent ec_point_formats
    cdef bint gives_ticket              # the ServerHello promised a NewSessionTicket
    cdef uint64_t session_began         # of a resumed one: when its full handshake was, milliseconds since 1970
    cdef uint8_t params[PARAMS_MAX]     # ServerECDHParams: our half of the key exchange
    cdef size_t params_length
    cdef uint8_t server_random[RANDOM_LENGTH]
    cdef uint8_t master_secret[MASTER_SECRET_LENGTH]
    cdef Hmac master                    # keyed with it
    cdef uint8_t client_keys[KEY_IV_MAX]                # write_key and write_IV of each side
    cdef uint8_t server_keys[KEY_IV_MAX]

    # valid during one advance() only
    cdef const uint8_t *message
    cdef size_t message_length
    cdef ClientHello hello

    cdef int run(self) except -1
    cdef int check_hello(self) noexcept nogil
    cdef void set_cipher_suite(self, int suite) noexcept nogil
    cdef int make_random(self) noexcept nogil
    cdef int make_params(self) except -1
    cdef void make_master_secret(self, const uint8_t *premaster, size_t n) noexcept nogil
    cdef void make_keys(self) noexcept

    cdef int do_read_client_hello(self) except -1
    cdef int resume(self) except -1
    cdef int choose_protocol(self) except -1
    cdef int do_select_credential(self) except -1
    cdef int do_send_server_hello(self) noexcept
    cdef int do_send_certificate(self) noexcept
    cdef int do_send_server_key_exchange(self) except -1
    cdef int do_send_server_hello_done(self) noexcept nogil
    cdef int do_read_client_key_exchange(self) noexcept
    cdef int do_read_finished(self) noexcept nogil
    cdef int do_send_new_session_ticket(self) noexcept
    cdef int do_send_finished(self) noexcept nogil
