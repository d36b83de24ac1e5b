"""One element of DER at a time (X.690), inline: for structures whose shape is known and of which a part is wanted."""

from libc.stdint cimport uint8_t

from cext.base.wire cimport Reader, left, read_bytes

cdef enum DerTag:
    DER_BOOLEAN = 0x01
    DER_INTEGER = 0x02
    DER_BIT_STRING = 0x03
    DER_OCTET_STRING = 0x04
    DER_OID = 0x06
    DER_SEQUENCE = 0x30
    DER_VERSION = 0xA0                  # TBSCertificate's [0]
    DER_EXTENSIONS = 0xA3               # and its [3]


cdef inline bint read_der(Reader *r, int *tag, Reader *content) noexcept nogil:
    """The next element, whatever it is; its length is definite, in as few bytes as it needs, and below 2^24."""
    cdef Reader at = r[0]
    cdef size_t n, i, width
    if left(&at) < 2 or at.p[0] & 0x1F == 0x1F:
        return 0
    tag[0] = at.p[0]
    n = at.p[1]
    at.p += 2
    if n >= 0x80:
        width = n & 0x7F
        if width == 0 or width > 3 or left(&at) < width or at.p[0] == 0:
            return 0
        n = 0
        for i in range(width):
            n = n << 8 | at.p[i]
        at.p += width
        if n < 0x80:
            return 0
    if not read_bytes(&at, n, content):
        return 0
    r[0] = at
    return 1


cdef inline bint read_der_of(Reader *r, int wanted, Reader *content) noexcept nogil:
    """The next element, which is of this tag; else `r` stays where it was."""
    cdef Reader at = r[0]
    cdef int tag
    if not read_der(&at, &tag, content) or tag != wanted:
        return 0
    r[0] = at
    return 1
