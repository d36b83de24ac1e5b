"""PROXY headers (see the .pxd). Section numbers are those of proxy-protocol.txt."""

from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from cext.base.wire cimport Reader, left, read_bytes, read_u8, read_u16, read_u32, read_vec16, reader_init
from cext.net.address cimport ADDRESS_TEXT, peer_parse, peer_text

cdef enum:
    COMMAND_LOCAL = 0x0
    COMMAND_PROXY = 0x1
    FAMILY_UNSPEC = 0x0
    FAMILY_INET = 0x1
    FAMILY_INET6 = 0x2
    FAMILY_UNIX = 0x3
    TRANSPORT_STREAM = 0x1
    TRANSPORT_DGRAM = 0x2
    TLV_CRC32C = 0x03

cdef const uint8_t *V1_START = b"PROXY "
cdef const uint8_t *V2_START = b"\r\n\r\n\x00\r\nQUIT\n"
cdef size_t V1_START_LEN = 6
cdef size_t V2_START_LEN = 12

cdef uint32_t[256] CRC32C


cdef void make_crc_table() noexcept:
    """RFC 9260, appendix A: Castagnoli's polynomial, reflected."""
    cdef uint32_t i, bit, value
    for i in range(256):
        value = i
        for bit in range(8):
            value = (value >> 1) ^ (0x82F63B78 if value & 1 else 0)
        CRC32C[i] = value


make_crc_table()


cdef uint32_t crc32c(uint32_t crc, const uint8_t *p, size_t n) noexcept nogil:
    cdef size_t i
    for i in range(n):
        crc = (crc >> 8) ^ CRC32C[(crc ^ p[i]) & 0xFF]
    return crc


cdef ssize_t proxy_parse(const uint8_t *p, size_t n, ProxyHeader *h, const char **fault) noexcept nogil:
    memset(h, 0, sizeof(ProxyHeader))
    fault[0] = b"there is no PROXY header"
    if memcmp(p, V1_START, min(n, V1_START_LEN)) == 0:
        return parse_v1(p, n, h, fault) if n > V1_START_LEN else 0
    if memcmp(p, V2_START, min(n, V2_START_LEN)) == 0:
        return parse_v2(p, n, h, fault) if n >= PROXY_V2_HEADER else 0
    return -1


# Version 1: a line of text (section 2.1).

cdef ssize_t parse_v1(const uint8_t *p, size_t n, ProxyHeader *h, const char **fault) noexcept nogil:
    cdef Reader line
    cdef size_t i = V1_START_LEN
    cdef size_t end = min(n, <size_t> PROXY_V1_MAX)
    while i + 1 < end and not (p[i] == c"\r" and p[i + 1] == c"\n"):
        i += 1
    if i + 1 >= end:
        fault[0] = b"the line of the PROXY header does not end"
        return 0 if n < PROXY_V1_MAX else -1
    h.version = 1
    reader_init(&line, p + V1_START_LEN, i - V1_START_LEN)
    fault[0] = b"the line of the PROXY header cannot be read"
    if not is_unknown(&line) and not parse_v1_addresses(&line, h):
        return -1
    return i + 2


cdef bint is_unknown(const Reader *line) noexcept nogil:
    """What follows it is to be ignored."""
    return left(line) >= 7 and memcmp(line.p, b"UNKNOWN", 7) == 0 and (left(line) == 7 or line.p[7] == c" ")


cdef bint parse_v1_addresses(Reader *line, ProxyHeader *h) noexcept nogil:
    cdef char[ADDRESS_TEXT] protocol
    cdef char[ADDRESS_TEXT] client
    cdef char[ADDRESS_TEXT] local
    cdef uint16_t client_port = 0
    cdef uint16_t local_port = 0
    if not (
        next_word(line, protocol)
        and next_word(line, client)
        and next_word(line, local)
        and next_port(line, &client_port)
        and next_port(line, &local_port)
        and line.p == line.end + 1              # the last word is behind the last space
        and peer_parse(&h.client, client, client_port)
        and peer_parse(&h.local, local, local_port)
        and h.client.v6 == h.local.v6
        and memcmp(protocol, b"TCP6" if h.client.v6 else b"TCP4", 5) == 0
    ):
        return False
    h.known = True
    return True


cdef bint next_word(Reader *line, char *out) noexcept nogil:
    """The bytes up to a space or the end, as a string of less than ADDRESS_TEXT; the reader is then behind the space."""
    cdef size_t n = 0
    if line.p > line.end:
        return False
    while line.p < line.end and line.p[0] != c" ":
        if n + 1 == ADDRESS_TEXT or not 0x21 <= line.p[0] <= 0x7E:
            return False
        out[n] = <char> line.p[0]
        n += 1
        line.p += 1
    out[n] = 0
    line.p += 1
    return n > 0


cdef bint next_port(Reader *line, uint16_t *port) noexcept nogil:
    """Decimal without leading zeros."""
    cdef char[ADDRESS_TEXT] word
    cdef uint32_t value = 0
    cdef size_t i = 0
    if not next_word(line, word):
        return False
    while word[i]:
        if not c"0" <= word[i] <= c"9" or i == 5 or (word[0] == c"0" and i):
            return False
        value = value * 10 + <uint32_t> (word[i] - c"0")
        i += 1
    port[0] = <uint16_t> value
    return value <= 0xFFFF


# Version 2: binary (section 2.2).

cdef ssize_t parse_v2(const uint8_t *p, size_t n, ProxyHeader *h, const char **fault) noexcept nogil:
    cdef size_t body = (<size_t> p[14] << 8) | p[15]
    cdef int family = p[13] >> 4
    cdef Reader r
    if p[12] >> 4 != 2 or p[12] & 0xF > COMMAND_PROXY:
        fault[0] = b"the PROXY header has a version or command that is not known"
        return -1
    if family > FAMILY_UNIX or p[13] & 0xF > TRANSPORT_DGRAM:
        fault[0] = b"the PROXY header has a family or transport that is not known"
        return -1
    if body > PROXY_V2_BODY_MAX:
        fault[0] = b"the PROXY header is too long"
        return -1
    if n < PROXY_V2_HEADER + body:
        return 0
    h.version = 2
    reader_init(&r, p + PROXY_V2_HEADER, body)
    if p[12] & 0xF == COMMAND_PROXY:
        if not parse_v2_addresses(&r, family, p[13] & 0xF, h):
            fault[0] = b"the addresses of the PROXY header are cut short"
            return -1
        if not parse_tlvs(&r, p, PROXY_V2_HEADER + body, h, fault):
            return -1
    return PROXY_V2_HEADER + body


cdef bint parse_v2_addresses(Reader *r, int family, int transport, ProxyHeader *h) noexcept nogil:
    cdef Reader client, local
    cdef size_t size
    if family == FAMILY_UNSPEC:
        return True
    if family == FAMILY_UNIX:
        return read_bytes(r, 216, &client)
    size = 16 if family == FAMILY_INET6 else 4
    if not (
        read_bytes(r, size, &client)
        and read_bytes(r, size, &local)
        and read_u16(r, &h.client.port)
        and read_u16(r, &h.local.port)
    ):
        return False
    memcpy(h.client.ip, client.p, size)
    memcpy(h.local.ip, local.p, size)
    h.client.v6 = h.local.v6 = family == FAMILY_INET6
    h.client.known = h.local.known = True
    # A TCP connection is no relayed datagram; without a transport nothing is said (section 2.2).
    h.known = transport == TRANSPORT_STREAM
    return True


cdef bint parse_tlvs(Reader *r, const uint8_t *header, size_t n, ProxyHeader *h, const char **fault) noexcept nogil:
    cdef Reader value
    cdef uint8_t type = 0
    h.tlvs = r.p
    h.tlvs_len = left(r)
    while left(r):
        if not read_u8(r, &type) or not read_vec16(r, &value):
            fault[0] = b"a TLV of the PROXY header is cut short"
            return False
        if type == TLV_CRC32C and not matches_crc(&value, header, n):
            fault[0] = b"the checksum of the PROXY header is wrong"
            return False
    return True


cdef bint matches_crc(const Reader *value, const uint8_t *header, size_t n) noexcept nogil:
    """Section 2.2.3: of the whole header, with zeros in the checksum's place."""
    cdef uint8_t[4] zeros
    cdef uint32_t stated = 0
    cdef uint32_t crc
    cdef Reader r = value[0]
    if left(&r) != 4:
        return False
    memset(zeros, 0, 4)
    crc = crc32c(0xFFFFFFFF, header, value.p - header)
    crc = crc32c(crc, zeros, 4)
    crc = crc32c(crc, value.end, header + n - value.end)
    read_u32(&r, &stated)
    return stated == crc ^ <uint32_t> 0xFFFFFFFF


# For tests and tools.


def parse(bytes data):
    """(length, dict) of the header at the beginning; None while more must come. ValueError with what is wrong."""
    cdef ProxyHeader h
    cdef const char *fault = NULL
    cdef ssize_t n = proxy_parse(data, len(data), &h, &fault)
    if n < 0:
        raise ValueError(fault.decode())
    if n == 0:
        return None
    return n, {
        "version": h.version,
        "client": shown(&h.client) if h.known else None,
        "local": shown(&h.local) if h.known else None,
        "tlvs": (<const char *> h.tlvs)[:h.tlvs_len] if h.tlvs_len else b"",
    }


cdef shown(const Peer *p):
    cdef char text[ADDRESS_TEXT]
    cdef size_t n = peer_text(p, text)
    return text[:n].decode(), p.port
