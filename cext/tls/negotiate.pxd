"""What server and client settle on: pure functions of a ClientHello and our preferences (RFC 8446 section 4.1.1)."""

from libc.stdint cimport uint8_t, uint16_t

from cext.base.wire cimport Reader
from cext.tls.messages cimport ClientHello, KeyShare

cdef bint list_has(Reader list, uint16_t v) noexcept nogil
"""Whether a list of u16 contains v."""

cdef bint is_among(uint16_t v, const uint16_t *values, size_t n) noexcept nogil

cdef int choose_version(const ClientHello *ch, int min_version, int max_version) noexcept nogil
"""TLS13 or TLS12, the highest both have. -protocol_version, or -inappropriate_fallback (RFC 7507)."""

cdef int choose_cipher_suite(const ClientHello *ch, const uint16_t *suites, size_t n) noexcept nogil
"""The first of suites[:n] the client offers; ChaCha20-Poly1305 (when in suites) for a client that lists it before any
AES suite. -handshake_failure when there is none."""

cdef int choose_cipher_suite12(const ClientHello *ch, const uint16_t *suites, size_t n, bint ecdsa) noexcept nogil
"""The same of TLS 1.2, among the suites for an ECDSA (or EdDSA) key, or those for an RSA key."""

cdef bint is_ecdsa_suite(uint16_t suite) noexcept nogil
"""Whether a suite of TLS 1.2 goes with ECDSA and EdDSA keys."""

cdef bint is_group12(uint16_t group) noexcept nogil
"""Whether TLS 1.2 has the group: hybrids are defined for 1.3 alone."""

cdef int choose_group12(const ClientHello *ch, const uint16_t *groups, size_t n) noexcept nogil
"""The first of groups[:n] that the client supports, of those that TLS 1.2 has, or -handshake_failure."""

cdef struct GroupChoice:
    uint16_t group
    bint retry                         # no share of it was sent: HelloRetryRequest
    KeyShare share                     # the client's, when not retry

cdef int choose_group(const ClientHello *ch, const uint16_t *groups, size_t n, GroupChoice *choice) noexcept nogil
"""The first of groups[:n] with a key share, else the first the client supports. 0, -illegal_parameter (a share whose
group is not in supported_groups), or -handshake_failure."""

cdef int choose_scheme(const uint16_t *schemes, size_t n, Reader signature_algorithms) noexcept nogil
"""The first of schemes[:n] in the client's list, or -handshake_failure."""

cdef int choose_alpn(Reader client, const uint8_t *ours, size_t n, Reader *selected) noexcept nogil
"""The first protocol of ours[:n] (encoded ProtocolNames, preferred first) in the client's list, as a Reader into ours;
.p NULL when either side has none. 0, or -no_application_protocol when both have and none is common (RFC 7301)."""

cdef bytes name_of(const Reader *name)
"""The server_name as an object that connections share; b"" when there is none."""

cdef bytes protocol_of(tuple protocols, const Reader *selected)
"""The configuration's own object of a protocol that choose_alpn selected."""
