"""What a route does with requests that arrive in early data (RFC 8470)."""

from libc.stdint cimport uint32_t

from cext.http.message cimport Head

cdef enum EarlyMode:
    EARLY_MODE_CONFIRM = 0              # they wait until the handshake is confirmed
    EARLY_MODE_REJECT = 1               # 425 Too Early
    EARLY_MODE_FORWARD = 2              # those that are safe go upstream at once, the others wait

cdef class EarlyRules:
    cdef readonly int mode              # EarlyMode
    cdef uint32_t method_mask           # bit per Method: what is safe
    cdef tuple other_methods            # those without a Method of their own
    cdef readonly bint query            # with a query, too
    cdef readonly bint content          # with content, too
    cdef bint safe(self, const Head *h) noexcept
    # Whether the backend may see this request twice.
