"""What server and client settle on: pure functions of a ClientHello and our preferences (RFC 8446 section 4.1.1)."""

from libc.stdint cimport uint8_t, uint16_t

from cext.base.wire cimport Reader
from cext.tls.messages cimport ClientHello, KeyShare

cdef bint list_has(Reader list, uint16_t v) noexcept nogil
"""Whether a list of u16 contains v."""

cdef int choose_version(const ClientHello *ch) noexcept nogil
"""TLS13, or -protocol_version."""

cdef int choose_cipher_suite(const ClientHello *ch, const uint16_t *suites, size_t n) noexcept nogil
"""The first of suites[:n] the client offers; ChaCha20-Poly1305 (when in suites) for a client that lists it before any
AES suite. -handshake_failure when there is none."""

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
