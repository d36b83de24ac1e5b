"""Rules for early data (see the .pxd)."""

from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.string cimport memchr

from cext.http.message cimport FRAMING_LENGTH, FRAMING_NONE, METHOD_OTHER

from cext.http.rules import METHODS

MODES = {"confirm": EARLY_MODE_CONFIRM, "reject": EARLY_MODE_REJECT, "forward": EARLY_MODE_FORWARD}


cdef class EarlyRules:
    """EarlyRules(mode, methods=("GET", "HEAD", "OPTIONS"), query=False, content=False)

    `mode`: "confirm", "reject" or "forward"; the others say what is safe for the last of these. ValueError for a method
    that never is.
    """

    def __init__(self, str mode, *, methods=("GET", "HEAD", "OPTIONS"), bint query=False, bint content=False):
        # TRACE has no use for it, and CONNECT opens a tunnel.
        if "TRACE" in methods or "CONNECT" in methods:
            raise ValueError("TRACE and CONNECT are never safe in early data")
        self.mode = MODES[mode]
        for name in methods:
            self.method_mask |= 1 << METHODS.get(name, METHOD_OTHER)
        self.other_methods = tuple(m.encode("ascii") for m in methods if m not in METHODS)
        self.query = query
        self.content = content

    cdef bint safe(self, const Head *h) noexcept:
        if not self.method_mask >> h.method & 1 or h.upgrade.len or h.protocol.len:
            return False
        if h.method == METHOD_OTHER:
            name = PyBytes_FromStringAndSize(<const char *> h.base + h.method_name.off, h.method_name.len)
            if name not in self.other_methods:
                return False
        if not self.query and memchr(h.base + h.path.off, c"?", h.path.len) != NULL:
            return False
        return self.content or h.framing == FRAMING_NONE or h.framing == FRAMING_LENGTH and h.content_length == 0
