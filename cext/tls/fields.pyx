"""Pieces of which messages are made (see the .pxd); optional_* leave `out` as it is and answer 1 where body.p is NULL."""

from cext.base.wire cimport close_vec, left, open_vec, read_u16, read_vec8, read_vec16, write_bytes


cdef bint optional_u16_list(Reader body, Reader *out) noexcept nogil:
    if body.p == NULL:
        return 1
    out[0] = body
    return whole_vec16(out) and is_u16_list(out)


cdef bint optional_u8_list_of_u16(Reader body, Reader *out) noexcept nogil:
    """As optional_u16_list, behind a one-byte length."""
    if body.p == NULL:
        return 1
    out[0] = body
    return whole_vec8(out) and is_u16_list(out)


cdef bint optional_protocol_names(Reader body, Reader *out) noexcept nogil:
    """ProtocolNameList, RFC 7301 section 3.1: no name is empty, nor the list."""
    cdef Reader walk, name
    if body.p == NULL:
        return 1
    out[0] = body
    if not whole_vec16(out) or not left(out):
        return 0
    walk = out[0]
    while left(&walk):
        if not read_vec8(&walk, &name) or not left(&name):
            return 0
    return 1


cdef bint optional_cookie(Reader body, Reader *out) noexcept nogil:
    if body.p == NULL:
        return 1
    out[0] = body
    return whole_vec16(out) and left(out) != 0


cdef bint optional_algorithms(Reader body, Reader *out) noexcept nogil:
    """CertificateCompressionAlgorithms (RFC 8879 section 3), none of them twice."""
    cdef Reader list, rest
    cdef uint16_t one = 0, other = 0
    if not optional_u8_list_of_u16(body, out):
        return 0
    list = out[0]
    while body.p != NULL and read_u16(&list, &one):
        rest = list                     # at most 127
        while read_u16(&rest, &other):
            if one == other:
                return 0
    return 1


cdef bint optional_authorities(Reader body, Reader *out) noexcept nogil:
    """CertificateAuthoritiesExtension (section 4.2.4): at least one name, and none empty."""
    if body.p == NULL:
        return 1
    out[0] = body
    return whole_vec16(out) and holds_vec16s(out[0])


cdef bint is_timestamp_list(Reader body) noexcept nogil:
    return whole_vec16(&body) and holds_vec16s(body)


cdef bint holds_vec16s(Reader list) noexcept nogil:
    """Whether a list is of one vector at least, and of none that is empty."""
    cdef Reader one
    if not left(&list):
        return 0
    while left(&list):
        if not read_vec16(&list, &one) or not left(&one):
            return 0
    return 1


cdef void write_vec(Writer *w, size_t width, const uint8_t *p, size_t n) noexcept nogil:
    cdef uint8_t *at = open_vec(w, width)
    if n:
        write_bytes(w, p, n)
    close_vec(w, at, width)
