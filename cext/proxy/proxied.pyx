"""The PROXY header of a connection (see the .pxd), as hooks read it."""

from cext.base.wire cimport Reader, read_u8, read_vec16, reader_init
from cext.net.address cimport ADDRESS_TEXT, peer_text


cdef Proxied new_proxied(const Peer *proxy, const Peer *local, const uint8_t *tlvs, size_t n):
    cdef Proxied made = Proxied.__new__(Proxied)
    made.proxy = proxy[0]
    made.local = local[0]
    made.raw_tlvs = (<const char *> tlvs)[:n] if n else b""
    return made


cdef class Proxied:
    """What the PROXY header in front of a connection said, beside the client's address."""

    @property
    def proxy_address(self):
        """The address that connected to us: the proxy's."""
        return text(&self.proxy)

    @property
    def local_address(self):
        """The address that the client connected to; None when the header did not say."""
        return text(&self.local) if self.local.known else None

    @property
    def local_port(self):
        """Its port, or None."""
        return self.local.port if self.local.known else None

    @property
    def tlvs(self):
        """Everything else that version 2 says: a list of (type, value), in order; values are bytes."""
        cdef Reader r, value
        cdef uint8_t type = 0
        cdef const uint8_t *p = self.raw_tlvs
        found = []
        reader_init(&r, p, len(self.raw_tlvs))
        while read_u8(&r, &type) and read_vec16(&r, &value):
            found.append((type, (<const char *> value.p)[:value.end - value.p]))
        return found

    def tlv(self, int type):
        """The first value of that type, or None. 1: ALPN, 2: authority, 5: unique id, 0x20: TLS towards the proxy."""
        for known, value in self.tlvs:
            if known == type:
                return value
        return None

    def __repr__(self):
        return f"<Proxied by {self.proxy_address}>"


cdef str text(const Peer *p):
    cdef char[ADDRESS_TEXT] out
    cdef size_t n = peer_text(p, out)
    return out[:n].decode()
