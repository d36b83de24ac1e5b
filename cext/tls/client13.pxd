"""The client's side of a TLS 1.3 handshake, state by state (RFC 9846, sections 2 and 4).

Trust in the server's certificate is the configuration's `verify`. A session is resumed by one
PSK with a key exchange (psk_dhe_ke), and early data may go out under it.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cext.base.buffer cimport Bytes
from cext.base.wire cimport Reader, Writer
from cext.crypto.hash_kdf cimport HASH_MAX
from cext.crypto.kx cimport KeyExchange
from cext.crypto.sign cimport PublicKey
from cext.tls.config cimport ClientConfig
from cext.tls.constants cimport SESSION_ID_MAX
from cext.tls.credential cimport Credential
from cext.tls.handshake cimport Handshake
from cext.tls.messages cimport ServerHello
from cext.tls.session cimport Session

cdef enum ClientState:                  # in flight order
    CLIENT_SEND_CLIENT_HELLO = 0
    CLIENT_READ_SERVER_HELLO
    CLIENT_SEND_SECOND_CLIENT_HELLO
    CLIENT_READ_SECOND_SERVER_HELLO
    CLIENT_READ_ENCRYPTED_EXTENSIONS
    CLIENT_READ_CERTIFICATE_REQUEST     # or at once the Certificate
    CLIENT_READ_CERTIFICATE
    CLIENT_READ_CERTIFICATE_VERIFY
    CLIENT_READ_FINISHED
    CLIENT_SEND_END_OF_EARLY_DATA
    CLIENT_SEND_CERTIFICATE             # these two only if asked for,
    CLIENT_SEND_CERTIFICATE_VERIFY      # and this if there is one
    CLIENT_SEND_FINISHED
    CLIENT_CONFIRMED

cdef class Client13(Handshake):
    cdef ClientConfig config
    cdef Session session                # that is offered; None: none, or not any more
    cdef Session session12              # the same of TLS 1.2
    cdef bint early_offered             # early_data stands in the ClientHello, and nothing has refused it
    cdef uint64_t offered               # extension_bit of each extension of the last ClientHello
    cdef uint8_t session_id[SESSION_ID_MAX]
    cdef size_t session_id_length       # 32 in compatibility mode, else 0
    cdef Bytes messages                 # both ClientHellos, for a CertificateVerify of TLS 1.2
    cdef list exchanges                 # KeyExchange of each share, until the ServerHello
    cdef list shares                    # what goes out of each (bytes), to be sent again after a retry
    cdef PublicKey server_key           # of the server's leaf
    cdef Credential credential          # that answers a CertificateRequest; None: we have nothing to show
    cdef bytes certificate              # our message that shows it
    cdef int client_scheme              # by which it signs
    cdef uint8_t server_secret[HASH_MAX]                # server_handshake_traffic_secret
    cdef uint8_t server_finished[HASH_MAX]              # the transcript's hash up to the server's Finished
    cdef uint8_t client_secret[HASH_MAX]                # client_handshake_traffic_secret

    # valid during one advance() only
    cdef Reader cookie                  # of the HelloRetryRequest; .p NULL: none


    cdef int do_send_client_hello(self) except -1
    cdef int do_read_server_hello(self) except -1
    cdef int do_send_second_client_hello(self) except -1
    cdef int do_read_second_server_hello(self) except -1
    cdef int do_read_encrypted_extensions(self) except -1
    cdef int do_read_certificate_request(self) except -1
    cdef int do_read_certificate(self) except -1
    cdef int do_read_certificate_verify(self) except -1
    cdef int do_read_finished(self) except -1
    cdef int do_send_end_of_early_data(self) noexcept nogil
    cdef int do_send_certificate(self) except -1
    cdef int choose_credential(self) except -1
    cdef int do_send_certificate_verify(self) except -1
    cdef int do_send_finished(self) noexcept nogil

    cdef bint may_offer(self, Session session, int version)
    cdef Session usable(self, Session session)
    cdef Session usable12(self, Session session)
    cdef bint early_data_fits(self)
    cdef void write_binder(self, Writer *w) noexcept nogil
    cdef int begin_early_data(self) noexcept nogil
    cdef void set_suite(self, int suite) noexcept nogil
    cdef int take_message(self) noexcept nogil
    cdef int make_shares(self, const uint16_t *groups, size_t n) except -1
    cdef int write_client_hello(self) except -1
    cdef int check_server_hello(self, const ServerHello *sh) noexcept nogil
    cdef int take_retry(self, const ServerHello *sh) except -1
    cdef int take_server_hello(self, const ServerHello *sh) except -1
    cdef int choose_suite(self, uint16_t suite) noexcept nogil
