"""A certificate chain and its key, encoded once for every handshake that shows it."""

from libc.stdint cimport uint8_t, uint16_t, uint32_t, uint64_t

from cext.base.wire cimport Reader
from cext.crypto.sign cimport PrivateKey, PublicKey
from cext.tls.delegated cimport DelegatedCredential

cdef enum:
    CONFIG_LIST_MAX = 16                            # of suites, groups, schemes
    NAME_MAX = 255                                  # bytes of a host name
    COMPRESSIONS_MAX = 8

cdef enum CertificateVariant:                       # what stands beside the leaf: bits of an index
    WITH_STATUS = 1
    WITH_TIMESTAMPS = 2
    VARIANTS = 4

cdef inline int variant_for(bint status_request, bint signed_certificate_timestamp) noexcept nogil:
    """The CertificateVariant for a peer that asks, or does not, for either."""
    return (WITH_STATUS if status_request else 0) | (WITH_TIMESTAMPS if signed_certificate_timestamp else 0)


cdef class Credential:
    cdef readonly tuple chain                       # DER, leaf first
    cdef readonly PrivateKey key                    # None: `signer` signs
    cdef readonly object signer                     # remote: has sign(message, scheme), which the owner calls
    cdef uint32_t vouched                           # signatures of `signer` in a row that were right
    cdef readonly PublicKey public_key              # of the leaf or delegated, for what `signer` signs; None beside a key
    cdef readonly DelegatedCredential delegated     # None: the leaf's key signs
    cdef readonly bint match_issuer                 # only for peers that name one of `issuers`
    cdef readonly tuple issuers                     # DistinguishedName (DER) of each certificate's issuer; then alone
    cdef readonly tuple names                       # lower-case str, "*.example.com" for one label
    cdef readonly bytes ocsp_response               # DER; b"": none
    cdef readonly uint64_t ocsp_expires             # milliseconds since 1970: it is not shown any more; 0: never
    cdef readonly bytes signed_certificate_timestamps   # the encoded list; b"": none
    cdef tuple certificates                         # whole Certificate messages, by CertificateVariant
    cdef uint8_t form[VARIANTS]                     # for each variant the first with the same message
    cdef tuple algorithms                           # that they are compressed by (cext.tls.compression), preferred first
    cdef list compressed                            # for each of them CompressedCertificates; None: nobody has asked. See compress()
    cdef uint16_t compressions[COMPRESSIONS_MAX]    # the algorithms' numbers
    cdef size_t n_compressions
    cdef bytes certificate_status                   # TLS 1.2's whole message; b"": none
    cdef bint has_status
    cdef uint16_t schemes[CONFIG_LIST_MAX]          # what its key signs by, preferred first
    cdef size_t n_schemes
    cdef uint16_t schemes12[CONFIG_LIST_MAX]        # key.schemes12
    cdef size_t n_schemes12
    cdef bint ecdsa                                 # goes with TLS 1.2's ECDHE_ECDSA suites, else with ECDHE_RSA
    cdef uint16_t curve                             # NamedGroup of an ECDSA key, else 0
    cdef PublicKey shown_key(self)
    cdef int use_key(self, PrivateKey key) except -1
    # ValueError when it is not the one that peers verify by.
    cdef int encode(self, tuple algorithms) except -1
    cdef bytes compress(self, size_t algorithm, int variant)
    # What the message becomes, whole; None where nothing is gained. Done once, for the first who asks.
    cdef bint shows_status(self) noexcept nogil
    # Whether there is an OCSP response that has not expired.
    cdef bytes certificate_message(self, int variant, Reader algorithms)
    # The message of TLS 1.3 for a peer that asked for what `variant` says and takes these algorithms (a list of u16),
    # whole: Certificate or CompressedCertificate. Encoded before, but for what nobody has asked for yet.
    cdef bint is_issued_by(self, Reader authorities) noexcept
    # Whether a list of DistinguishedNames (shape checked; .p NULL: none) has one of `issuers`.

# --- what configurations are checked and encoded by

cdef str normal_name(name)
# A name as it is looked up: lower case, no final dot. ValueError when it can be no server's.
cdef size_t fill(uint16_t *out, values, what) except? 0
# The values' number; ValueError for more than CONFIG_LIST_MAX.
