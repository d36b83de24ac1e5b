"""What is told of a client's connection, whatever is asked on it."""

from cext.net.address cimport Peer
from cext.proxy.access_log cimport AccessLog
from cext.proxy.context cimport Context
from cext.tls.connection cimport Connection

cdef void log_client(AccessLog log, const Peer *peer, Connection tls) noexcept
# In each record of the access log.

cdef void count_early_data(Context ctx, Connection tls) noexcept
# Once for each connection that has offered some.
