"""Pieces of which messages are made: vectors, lists of numbers, and the way a parser refuses."""

from libc.stdint cimport uint8_t, uint16_t

from cext.base.wire cimport Reader, Writer, left, read_vec8, read_vec16


cdef inline int refuse(const char **reason, int description, const char *text) noexcept nogil:
    reason[0] = text
    return -description


cdef inline bint whole_vec8(Reader *r) noexcept nogil:
    """Narrows r to the content of the one vector it must consist of."""
    cdef Reader outer = r[0]
    return read_vec8(&outer, r) and not left(&outer)


cdef inline bint whole_vec16(Reader *r) noexcept nogil:
    cdef Reader outer = r[0]
    return read_vec16(&outer, r) and not left(&outer)


cdef inline bint is_u16_list(const Reader *r) noexcept nogil:
    return left(r) != 0 and left(r) % 2 == 0


cdef bint optional_u16_list(Reader body, Reader *out) noexcept nogil
cdef bint optional_u8_list_of_u16(Reader body, Reader *out) noexcept nogil
"""As optional_u16_list, behind a one-byte length."""
cdef bint optional_protocol_names(Reader body, Reader *out) noexcept nogil
"""ProtocolNameList, RFC 7301 section 3.1: no name is empty, nor the list."""
cdef bint optional_cookie(Reader body, Reader *out) noexcept nogil
cdef bint optional_algorithms(Reader body, Reader *out) noexcept nogil
"""CertificateCompressionAlgorithms (RFC 8879 section 3), none of them twice."""
cdef bint optional_authorities(Reader body, Reader *out) noexcept nogil
"""CertificateAuthoritiesExtension (section 4.2.4): at least one name, and none empty."""
cdef bint holds_vec16s(Reader list) noexcept nogil
cdef bint is_timestamp_list(Reader body) noexcept nogil
"""SignedCertificateTimestampList (RFC 6962, section 3.3): neither the list nor a timestamp in it is empty."""
cdef void write_vec(Writer *w, size_t width, const uint8_t *p, size_t n) noexcept nogil
