"""The server's side of a TLS 1.3 handshake, state by state (RFC 9846, sections 2 and 4).

    running                     READ_CLIENT_HELLO .. SEND_TICKETS, at once when no retry is needed
    discarding early data       the same: the consumer skips the 0-RTT records that are not accepted
                                (ACTION_SKIP_EARLY_DATA), until a record opens
    reading early data          READ_END_OF_EARLY_DATA
    waiting for the client's Finished   READ_CLIENT_CERTIFICATE .. READ_FINISHED
    confirmed                   CONFIRMED; this object is then given up
"""

from libc.stdint cimport uint8_t, uint16_t

from cext.crypto.hash_kdf cimport HASH_MAX
from cext.crypto.sign cimport PublicKey
from cext.tls.config cimport ServerConfig
from cext.tls.handshake cimport Handshake
from cext.tls.messages cimport ClientHello, KeyShare
from cext.tls.psk cimport Psk

cdef enum ServerState:                  # in flight order
    READ_CLIENT_HELLO = 0
    SEND_HELLO_RETRY_REQUEST
    READ_SECOND_CLIENT_HELLO
    SELECT_PSK
    SELECT_GROUP
    SELECT_CREDENTIAL
    SELECT_EARLY_DATA                   # where the client offers some,
    AWAIT_REGISTER                      # and this where the register has to be asked
    SEND_SERVER_HELLO
    SEND_ENCRYPTED_EXTENSIONS
    SEND_CERTIFICATE_REQUEST            # where the configuration has client_auth
    SEND_CERTIFICATE
    SEND_CERTIFICATE_VERIFY
    SEND_FINISHED
    SEND_TICKETS
    READ_END_OF_EARLY_DATA
    READ_CLIENT_CERTIFICATE             # these two only where it was asked for,
    READ_CLIENT_CERTIFICATE_VERIFY      # and this where there is one
    READ_FINISHED
    SEND_LATE_TICKETS                   # what waited for the client's certificate
    CONFIRMED

cdef class Server13(Handshake):
    cdef ServerConfig config
    cdef bytes certificate              # the message that shows it
    cdef bint acknowledge_name          # the server_name was used to choose it (RFC 6066, section 3)
    cdef Psk psk                        # until our tickets are made; .selected: the handshake is resumed by it
    cdef bint gives_tickets             # the client can use them
    cdef bytes held                     # the ClientHello, while the register is waited for
    cdef int verdict                    # its answer: Freshness
    cdef bint certificate_requested
    cdef PublicKey client_key           # of the client's leaf, until its CertificateVerify
    cdef uint8_t client_hello1[HASH_MAX]    # its hash, once a HelloRetryRequest has been sent
    cdef uint8_t server_secret[HASH_MAX]    # server_handshake_traffic_secret, until our Finished
    cdef uint8_t client_secret[HASH_MAX]    # client_handshake_traffic_secret, until our Finished or EndOfEarlyData
    cdef uint8_t client_verify_data[HASH_MAX]           # what the client's Finished must hold
    cdef uint8_t client_application_secret[HASH_MAX]    # until the client's Finished

    # valid during one advance() only: what points into its message
    cdef ClientHello hello
    cdef KeyShare share                 # the client's, of the group that was chosen

    cdef int set_cipher_suite(self, int suite) noexcept nogil
    cdef int choose_parameters(self) except -1
    cdef int choose_credential(self) except -1
    cdef int take_early_data(self, int refusal) except -1
    cdef int hold_hello(self) except -1
    cdef int regain_hello(self) except -1
    cdef int add_ccs(self) noexcept nogil
    cdef int add_early_keys(self, const uint8_t *client_hello_hash) noexcept nogil
    cdef void foresee_finished(self) noexcept nogil

    cdef int do_read_client_hello(self) except -1
    cdef int do_send_hello_retry_request(self) except -1
    cdef int do_read_second_client_hello(self) except -1
    cdef int do_select_psk(self) except -1
    cdef int do_select_group(self) noexcept nogil
    cdef int do_select_credential(self) except -1
    cdef int do_select_early_data(self) except -1
    cdef int do_await_register(self) except -1
    cdef int do_send_server_hello(self) except -1
    cdef int do_send_encrypted_extensions(self) except -1
    cdef int do_send_certificate_request(self) except -1
    cdef int do_send_certificate(self) except -1
    cdef int do_send_certificate_verify(self) except -1
    cdef int do_send_finished(self) noexcept nogil
    cdef int do_send_tickets(self) except -1
    cdef int do_read_end_of_early_data(self) noexcept nogil
    cdef int do_read_client_certificate(self) except -1
    cdef int do_read_client_certificate_verify(self) except -1
    cdef int do_read_finished(self) noexcept nogil
    cdef int do_send_late_tickets(self) except -1
