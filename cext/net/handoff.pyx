"""The message of a hand-over, written and read (see the .pxd)."""

from libc.stdint cimport uint16_t, uint32_t
from libc.string cimport memcmp, memcpy, memset

from cext.base.wire cimport (
    Reader,
    Writer,
    left,
    read_bytes,
    read_u8,
    read_u16,
    read_u32,
    read_vec16,
    reader_init,
    write_bytes,
    write_u8,
    write_u16,
    write_u32,
    writer_init,
    written,
)
from cext.lib.linux cimport (
    SO_TYPE,
    SOCK_STREAM,
    SOL_SOCKET,
    getpeername,
    getsockopt,
    sockaddr,
    sockaddr_storage,
    socklen_t,
)
from cext.net.address cimport ADDRESS_TEXT, peer_parse, peer_set, peer_text, peer_unmap

cdef enum:
    MAGIC = 0x45444748              # "EDGH"
    VERSION = 1
    CRITICAL_FLAGS = 0xF0           # one of these that is not known: the message is refused
    CRITICAL_FIELD = 0x8000         # likewise for types of fields with this bit
    FIELD_NAME = 1
    FIELD_TLVS = 2


cdef size_t handoff_header(const Handoff *h, uint8_t *out) noexcept nogil:
    cdef Writer w
    cdef size_t n = HANDOFF_HEADER
    if h.name_len:
        n += 4 + h.name_len
    if h.tlvs_len:
        n += 4 + h.tlvs_len
    if n > HANDOFF_HEADER_MAX or h.data_len > HANDOFF_DATA_MAX or h.name_len > HANDOFF_NAME_MAX:
        return 0
    writer_init(&w, out, n)
    write_u32(&w, MAGIC)
    write_u8(&w, VERSION)
    write_u8(&w, h.flags)
    write_u16(&w, <uint16_t> n)
    write_u32(&w, <uint32_t> h.data_len)
    write_u8(&w, family(&h.client))
    write_u8(&w, 0)
    write_u16(&w, h.client.port)
    write_u16(&w, h.local.port)
    write_u16(&w, 0)
    write_bytes(&w, h.client.ip, sizeof(h.client.ip))
    write_bytes(&w, h.local.ip, sizeof(h.local.ip))
    write_field(&w, FIELD_NAME, h.name, h.name_len)
    write_field(&w, FIELD_TLVS, h.tlvs, h.tlvs_len)
    return 0 if w.overflow else written(&w)


cdef uint8_t family(const Peer *p) noexcept nogil:
    if not p.known:
        return 0
    return 6 if p.v6 else 4


cdef void write_field(Writer *w, uint16_t type, const uint8_t *p, size_t n) noexcept nogil:
    if n:
        write_u16(w, type)
        write_u16(w, <uint16_t> n)
        write_bytes(w, p, n)


cdef const char *handoff_parse(const uint8_t *p, size_t n, Handoff *h) noexcept nogil:
    cdef Reader r, client, local
    cdef uint32_t magic = 0
    cdef uint32_t data_len = 0
    cdef uint16_t header_len = 0
    cdef uint16_t unused16 = 0
    cdef uint8_t version = 0
    cdef uint8_t of = 0
    cdef uint8_t unused = 0
    memset(h, 0, sizeof(Handoff))
    reader_init(&r, p, n)
    if not read_u32(&r, &magic) or magic != MAGIC:
        return b"it is no message of a hand-over"
    if not read_u8(&r, &version) or version != VERSION:
        return b"its version is not known"
    if not (
        read_u8(&r, &h.flags)
        and read_u16(&r, &header_len)
        and read_u32(&r, &data_len)
        and read_u8(&r, &of)
        and read_u8(&r, &unused)
        and read_u16(&r, &h.client.port)
        and read_u16(&r, &h.local.port)
        and read_u16(&r, &unused16)
        and read_bytes(&r, 16, &client)
        and read_bytes(&r, 16, &local)
    ):
        return b"its header is cut short"
    if h.flags & CRITICAL_FLAGS:
        return b"it has a flag that is not known"
    if not HANDOFF_HEADER <= header_len <= HANDOFF_HEADER_MAX or data_len > HANDOFF_DATA_MAX:
        return b"its lengths are out of bounds"
    if <size_t> header_len + data_len != n:
        return b"its lengths do not add up"
    if of != 0 and of != 4 and of != 6:
        return b"its family of addresses is not known"
    read_peer(&h.client, of, client.p)
    read_peer(&h.local, of, local.p)
    h.data = p + header_len
    h.data_len = data_len
    r.end = h.data
    return read_fields(&r, h)


cdef void read_peer(Peer *peer, int of, const uint8_t *ip) noexcept nogil:
    peer.known = of != 0
    peer.v6 = of == 6
    if of:
        memcpy(peer.ip, ip, 16 if of == 6 else 4)
    peer_unmap(peer)


cdef const char *read_fields(Reader *r, Handoff *h) noexcept nogil:
    cdef Reader value
    cdef uint16_t type = 0
    while left(r):
        if not read_u16(r, &type) or not read_vec16(r, &value):
            return b"a field is cut short"
        if type == FIELD_NAME:
            if h.name != NULL or left(&value) > HANDOFF_NAME_MAX:
                return b"its name stands there twice or is too long"
            h.name = value.p
            h.name_len = left(&value)
        elif type == FIELD_TLVS:
            if h.tlvs != NULL:
                return b"its TLVs stand there twice"
            h.tlvs = value.p
            h.tlvs_len = left(&value)
        elif type & CRITICAL_FIELD:
            return b"it has a field that is not known"
    return NULL


cdef const char *handoff_check(int fd, const Handoff *h, Peer *peer) noexcept nogil:
    cdef sockaddr_storage address
    cdef socklen_t n = sizeof(address)
    cdef int type = 0
    cdef socklen_t type_len = sizeof(type)
    if getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &type_len) < 0 or type != SOCK_STREAM:
        return b"the descriptor is no stream socket"
    if getpeername(fd, <sockaddr *> &address, &n) < 0:
        return b"the client has gone"
    peer_set(peer, &address)
    if not peer.known:
        return b"the descriptor is no TCP connection"
    peer_unmap(peer)
    if not h.client.known:
        return b"it has no address"
    if not h.flags & HANDOFF_PROXIED and memcmp(peer, &h.client, sizeof(Peer)) != 0:
        return b"its address is not that of the connection"
    return NULL


# For tests and tools.


def build(tuple client, tuple local, bytes data, *, bint proxied=False, bytes name=b"", bytes tlvs=b""):
    """A whole message. Addresses are (IP as text, port), or None. ValueError when it is too much."""
    cdef uint8_t[HANDOFF_HEADER_MAX] header
    cdef Handoff h
    cdef size_t n
    memset(&h, 0, sizeof(h))
    h.flags = HANDOFF_PROXIED if proxied else 0
    for peer, address in ((0, client), (1, local)):
        if address is not None and not peer_parse(&h.local if peer else &h.client, address[0].encode(), address[1]):
            raise ValueError(f"{address[0]} is no IP address")
    h.name, h.name_len = name, len(name)
    h.tlvs, h.tlvs_len = tlvs, len(tlvs)
    h.data, h.data_len = data, len(data)
    n = handoff_header(&h, header)
    if n == 0:
        raise ValueError("too much for a message")
    return (<char *> header)[:n] + data


def parse(bytes message):
    """The fields of a whole message as a dict. ValueError with what is wrong."""
    cdef Handoff h
    cdef const char *fault = handoff_parse(message, len(message), &h)
    if fault != NULL:
        raise ValueError(fault.decode())
    return {
        "client": shown(&h.client),
        "local": shown(&h.local),
        "proxied": bool(h.flags & HANDOFF_PROXIED),
        "name": (<const char *> h.name)[:h.name_len] if h.name_len else b"",
        "tlvs": (<const char *> h.tlvs)[:h.tlvs_len] if h.tlvs_len else b"",
        "data": (<const char *> h.data)[:h.data_len],
    }


cdef shown(const Peer *p):
    cdef char text[ADDRESS_TEXT]
    cdef size_t n = peer_text(p, text)
    return (text[:n].decode(), p.port) if n else None
