"""The client's side of a TLS 1.2 handshake, state by state (RFC 5246, section 7.3; ECDHE by RFC 8422).

It takes over from Client13, whose ClientHello offered both versions, when the ServerHello has chosen TLS 1.2.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cext.base.wire cimport Reader
from cext.crypto.kx cimport KX_PUBLIC_MAX
from cext.tls.config cimport ClientConfig
from cext.tls.constants cimport SESSION_ID_MAX
from cext.tls.credential cimport Credential
from cext.tls.handshake12 cimport Handshake12
from cext.tls.messages12 cimport ServerHello12
from cext.tls.session cimport Session

cdef enum ClientState12:                # in flight order
    C12_READ_SERVER_HELLO = 0
    C12_READ_CERTIFICATE
    C12_READ_CERTIFICATE_STATUS         # if the ServerHello promised one, or at once the ServerKeyExchange
    C12_READ_SERVER_KEY_EXCHANGE
    C12_READ_CERTIFICATE_REQUEST        # or at once the ServerHelloDone
    C12_READ_SERVER_HELLO_DONE
    C12_SEND_CERTIFICATE                # if one was asked for, be it empty
    C12_SEND_CLIENT_KEY_EXCHANGE
    C12_SEND_CERTIFICATE_VERIFY         # if one was shown
    C12_SEND_FINISHED                   # change_cipher_spec and Finished; resumed, it comes after the server's
    C12_READ_NEW_SESSION_TICKET         # if the ServerHello promised one; resumed, all of this comes at once
    C12_READ_CHANGE_CIPHER_SPEC
    C12_READ_FINISHED
    C12_CONFIRMED

cdef class Client12(Handshake12):
    cdef ClientConfig config
    cdef uint64_t offered               # extension_bit of each extension of the ClientHello
    cdef uint8_t session_id[SESSION_ID_MAX]             # that the ClientHello had
    cdef size_t session_id_length
    cdef Credential credential          # that answers a CertificateRequest; None: we have nothing to show
    cdef int client_scheme              # by which it signs
    cdef bint ticket_promised
    cdef bint status_promised
    cdef Session session                # that was offered; None: none
    cdef Session new_session            # by a ticket of this handshake, or the one that was resumed; None: none
    cdef bytes ticket
    cdef uint32_t ticket_lifetime       # seconds; 0: unspecified
    cdef uint8_t hello_requests         # that were passed over
    cdef uint8_t server_point[KX_PUBLIC_MAX]            # from ServerKeyExchange until our flight
    cdef size_t server_point_length

    cdef int do_read_server_hello(self) except -1
    cdef int do_read_certificate(self) except -1
    cdef int do_read_certificate_status(self) except -1
    cdef int do_read_server_key_exchange(self) except -1
    cdef int do_read_certificate_request(self) except -1
    cdef int do_read_server_hello_done(self) noexcept nogil
    cdef int do_send_certificate(self) except -1
    cdef int do_send_client_key_exchange(self) except -1
    cdef int do_send_certificate_verify(self) except -1
    cdef int do_send_finished(self) noexcept nogil
    cdef int do_read_new_session_ticket(self) except -1
    cdef int do_read_finished(self) noexcept nogil
    cdef int keep_session(self) except -1

    cdef int take_message(self) noexcept nogil
    cdef int check_server_hello(self, const ServerHello12 *sh) noexcept nogil
    cdef bint is_resumption(self, const ServerHello12 *sh) noexcept nogil
    cdef int resume(self, const ServerHello12 *sh) except -1
    cdef int choose_credential(self) except -1
