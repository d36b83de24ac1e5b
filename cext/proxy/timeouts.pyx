"""Limits from a configuration (see the .pxd)."""


cdef int read_timeouts(Timeouts *t, dict values) except -1:
    cdef dict unset = dict.fromkeys(NAMES, UNSET)
    if not values.keys() <= unset.keys():
        raise ValueError(f"no such timeouts: {sorted(values.keys() - unset.keys())}")
    t[0] = unset | values
    return 0


cdef Timeouts _any
NAMES = tuple(_any)

# Those of a listener that names none: ms, bytes per second.
DEFAULTS = {
    "header": 10_000,
    "body_idle": 60_000,
    "body_rate": 0,
    "connect": 5_000,
    "first_byte": 60_000,
    "response_idle": 60_000,
    "write_idle": 60_000,
    "write_rate": 0,
    "rate_grace": 5_000,
    "total": 0,
    "keepalive": 75_000,
    "tunnel_idle": 3_600_000,
}
