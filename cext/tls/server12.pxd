"""The server's side of a TLS 1.2 handshake, state by state (RFC 5246, section 7.3; ECDHE by RFC 8422).

Made when a ClientHello has turned out to settle on TLS 1.2. There is no renegotiation, so a connection has one of these
at most.
"""

from libc.stdint cimport uint8_t, uint64_t

from cext.crypto.kx cimport KX_PUBLIC_MAX, KeyExchange
from cext.tls.config cimport ServerConfig
from cext.tls.handshake12 cimport Handshake12
from cext.tls.messages cimport ClientHello

cdef enum ServerState12:                # in flight order
    S12_READ_CLIENT_HELLO = 0
    S12_SELECT_CREDENTIAL               # or, by a ticket, at once
    S12_SEND_SERVER_HELLO
    S12_SEND_CERTIFICATE
    S12_SEND_SERVER_KEY_EXCHANGE
    S12_SEND_CERTIFICATE_REQUEST        # if the configuration asks for one
    S12_SEND_SERVER_HELLO_DONE
    S12_READ_CLIENT_CERTIFICATE         # if one was asked for
    S12_READ_CLIENT_KEY_EXCHANGE
    S12_READ_CERTIFICATE_VERIFY         # if one was shown
    S12_READ_CHANGE_CIPHER_SPEC
    S12_READ_FINISHED
    S12_SEND_NEW_SESSION_TICKET
    S12_SEND_FINISHED                   # change_cipher_spec and Finished; resumed, it comes before the client's
    S12_CONFIRMED

cdef enum:
    PARAMS_MAX = 4 + KX_PUBLIC_MAX      # of a group we have

cdef class Server12(Handshake12):
    cdef ServerConfig config
    cdef KeyExchange exchange           # from ServerKeyExchange to ClientKeyExchange
    cdef bint acknowledge_name          # the server_name was used to choose the credential (RFC 6066, section 3)
    cdef bint secure_renegotiation      # the client indicates RFC 5746
    cdef bint point_formats             # the client sent ec_point_formats
    cdef bint sends_status              # the ServerHello promised a CertificateStatus
    cdef bint gives_ticket              # the ServerHello promised a NewSessionTicket
    cdef uint64_t session_began         # of a resumed one: when its full handshake was, milliseconds since 1970
    cdef uint8_t params[PARAMS_MAX]     # ServerECDHParams: our half of the key exchange
    cdef size_t params_length

    # valid during one advance() only
    cdef ClientHello hello

    cdef int check_hello(self) noexcept nogil
    cdef int make_random(self) noexcept nogil
    cdef int make_params(self) except -1

    cdef int do_read_client_hello(self) except -1
    cdef int resume(self) except -1
    cdef int choose_protocol(self) except -1
    cdef int do_select_credential(self) except -1
    cdef int do_send_server_hello(self) except -1
    cdef int do_send_certificate(self) except -1
    cdef int do_send_server_key_exchange(self) except -1
    cdef int do_send_certificate_request(self) except -1
    cdef int do_send_server_hello_done(self) noexcept nogil
    cdef int do_read_client_certificate(self) except -1
    cdef int do_read_client_key_exchange(self) except -1
    cdef int do_read_certificate_verify(self) noexcept nogil
    cdef int do_read_finished(self) noexcept nogil
    cdef int do_send_new_session_ticket(self) except -1
    cdef int do_send_finished(self) noexcept nogil
