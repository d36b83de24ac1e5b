"""A policy's hooks, as the data plane calls them. docs/hooks.md is the contract with who writes them."""

from cext.proxy.context cimport Context

cdef class Hooks:
    """None for each hook that the policy does not have."""
    cdef readonly object director           # (request)
    cdef readonly object response           # (request, response)
    cdef readonly object connection_state   # (connection, old, new)
    cdef readonly object handshake          # HandshakeHooks, or None
    cdef bint director_waits                # it is `async`,
    cdef bint response_waits                # or this one
    cdef dict limits                        # a timeout's name -> its place in Timeouts
    cdef object read_limit                  # (name, value) -> ms or bytes per second, 0 for none
    cdef object show_limit                  # (name, ms or bytes per second) -> value
    cdef object failed                      # (hook, exception): tells the operator
    cdef readonly dict connections          # Downstream -> ClientConnection, of those that a connection_state knows
    cdef void report(self, Context ctx, str hook, object error) noexcept
