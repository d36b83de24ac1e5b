"""The clients' door."""

from cext.net.address cimport Peer
from cext.net.listener cimport Listener
from cext.proxy.context cimport Context
from cext.proxy.downstream cimport Downstream
from cext.proxy.listener_settings cimport ListenerSettings

cdef class Frontend(Listener):
    cdef Context ctx
    cdef readonly ListenerSettings settings
    cdef void refuse(self, int fd, const Peer *peer) noexcept

cdef Downstream new_client(Context ctx, ListenerSettings settings)
# A connection whose protocol is still to be chosen.
