"""What both sides of a TLS 1.2 handshake share (RFC 5246, section 7): the keys and how they come about, Finished, and the
messages that a CertificateVerify signs."""

from libc.stdint cimport uint8_t

from cext.base.buffer cimport Bytes
from cext.crypto.hash_kdf cimport Hmac
from cext.crypto.sign cimport PublicKey
from cext.tls.constants cimport RANDOM_LENGTH
from cext.tls.exporter cimport Exporter12
from cext.tls.handshake cimport Handshake
from cext.tls.prf12 cimport FINISHED12_LENGTH, KEY_IV_MAX, MASTER_SECRET_LENGTH

cdef enum:
    DOWNGRADE_LENGTH = 8

# What ends a ServerHello.random by a server that could have chosen TLS 1.3 (RFC 8446, section 4.1.3).
cdef const uint8_t *DOWNGRADE

cdef class Handshake12(Handshake):
    cdef bint server
    cdef object key_log                 # the configuration's
    cdef PublicKey peer_key             # of the peer's certificate, until it has signed
    cdef bint extended_master_secret    # both ends do RFC 7627
    cdef uint8_t server_random[RANDOM_LENGTH]
    cdef uint8_t master_secret[MASTER_SECRET_LENGTH]
    cdef Hmac master                    # keyed with it
    cdef uint8_t client_keys[KEY_IV_MAX]            # write_key and write_IV of each side
    cdef uint8_t server_keys[KEY_IV_MAX]
    cdef uint8_t first_finished[FINISHED12_LENGTH]  # verify_data of whichever Finished came first
    cdef bint finished_seen
    cdef bint keeps_messages            # a CertificateVerify may come: it signs the messages, by a hash of its own
    cdef Bytes messages                 # all so far, while keeps_messages

    cdef int begin_transcript(self, const uint8_t *client_hello, size_t n) noexcept nogil
    # The hash is known: the transcript begins with the ClientHello.

    cdef int taken(self, int state) noexcept nogil
    # The message is done with and goes into the transcript; `state` reads the next. STEP_OK or -internal_error.

    cdef int keep(self, const uint8_t *message, size_t n) noexcept nogil
    cdef void forget_messages(self) noexcept nogil

    cdef void set_cipher_suite(self, int suite) noexcept nogil
    # with its hash and AEAD

    cdef size_t signed_params(self, const uint8_t *params, size_t n, uint8_t *out) noexcept nogil
    # What a ServerKeyExchange signs: its parameters behind both randoms. 2 * RANDOM_LENGTH + n bytes.

    cdef void make_master_secret(self, const uint8_t *premaster, size_t n) noexcept nogil
    # By the transcript up to and with ClientKeyExchange.

    cdef void make_keys(self) noexcept
    cdef int read_change_cipher_spec(self, bint due, int state) noexcept nogil
    cdef int send_finished(self) noexcept nogil
    # change_cipher_spec, and our Finished under the keys it changes to.

    cdef int check_finished(self) noexcept nogil
    # The peer's, which is `message`.

    cdef void note_finished(self, const uint8_t *verify_data) noexcept nogil
    cdef Exporter12 make_exporter(self)
    # What outlives the handshake of its secrets; None without the extended master secret.
