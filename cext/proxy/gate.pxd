"""What a connection passes before TLS, where a listener says so: the PROXY header of who stands in front of us, and the
choice, by the ClientHello, of who is to serve it."""

from libc.stdint cimport uint8_t, uint16_t

from cext.base.buffer cimport Bytes
from cext.net.address cimport Peer
from cext.net.networks cimport Networks
from cext.proxy.context cimport Context
from cext.proxy.downstream cimport Downstream, Opening
from cext.proxy.handover cimport HandoffTarget
from cext.proxy.listener_settings cimport ListenerSettings
from cext.tls.messages cimport ClientHello

cdef class ProxySettings:
    cdef Networks proxies               # who must send a PROXY header, and is believed
    cdef readonly bint serve_others     # without a header; else they are closed
    cdef readonly int timeout_ms        # for the header; 0: no limit

cdef class HandoffRule:
    """Which connections go to a target: all conditions hold. None: any will do."""
    cdef readonly HandoffTarget target
    cdef frozenset names        # server names, lower case
    cdef frozenset suffixes     # likewise, each with the dot before it: of names below
    cdef bint by_name
    cdef uint16_t versions      # bit n: 0x0300 + n is the highest version offered; 0: any
    cdef frozenset protocols    # one of them is offered (ALPN)
    cdef object fingerprints    # None, or called with the message: whether it is one of those
    cdef bint matches(self, Context ctx, const ClientHello *hello, const uint8_t *message, size_t n) noexcept
    cdef bint matches_name(self, const ClientHello *hello)

cdef class GateSettings:
    cdef readonly ProxySettings proxy   # None: nobody sends PROXY headers
    cdef readonly tuple rules           # HandoffRules, the first that matches decides
    cdef readonly dict targets          # by name, where a hook may hand over: what came is kept until it has decided

cdef class Gate(Opening):
    cdef GateSettings settings
    cdef bint proxy_due                 # a PROXY header must come first
    cdef bint choosing                  # until the ClientHello is whole
    cdef size_t scanned                 # bytes of raw: records that are in message
    cdef Bytes message
    cdef bint whole                     # raw begins with a whole ClientHello: a hook may hand it over, too
    cdef bint read_proxy_header(self, Downstream client) noexcept
    cdef void enter(self, Downstream client) noexcept
    cdef void refuse(self, Downstream client, const char *why) noexcept
    cdef bint choose(self, Downstream client) noexcept
    cdef int find_hello(self, size_t *n) noexcept
    cdef void release(self, Downstream client) noexcept

cdef bint must_close(ListenerSettings settings, const Peer *peer) noexcept
# Whether only those with a PROXY header are served, and this one cannot have one.
cdef Gate new_gate(ListenerSettings settings, const Peer *peer)
# For a new connection; None where it has nothing to pass.
