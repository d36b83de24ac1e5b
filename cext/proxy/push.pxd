"""The requests that are pushed because a response asks for it: `Link: <...>; rel=preload` without `nopush`."""

from cext.base.buffer cimport Bytes
from cext.http.links cimport Link
from cext.proxy.exchange cimport Exchange

cdef int promised_request(Exchange x, const Link *link, Bytes *out) noexcept
# The text of a GET of the link's target, as x's client would ask for it: its origin, and of its fields those on the list
# in push.pyx. 0; -1 for a link that asks for no push, a target of another origin, or without memory.
