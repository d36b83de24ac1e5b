"""The pool (see the .pxd). One per worker: nothing is shared, nothing is locked."""

from cext.net.address cimport address_set
from cext.net.stream cimport out_of_descriptors
from cext.proxy.h1_upstream cimport H1Upstream

cdef enum:
    AVOID_MS = 1000


cdef class Server(UpstreamHome):
    """Server(group, ("tcp", "127.0.0.1", 9000)) or Server(group, ("unix", "/run/app.sock")); ValueError on others."""

    def __init__(self, UpstreamGroup group, tuple where, tls=None):
        kind, name = where[0], where[1]
        port = where[2] if kind == "tcp" else 0
        address_set(&self.address, kind, name, port)
        self.group = group
        self.tls = tls
        self.idle = []
        if kind == "unix":
            self.label = f"unix:{name}"
        else:
            self.label = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
        self.label_bytes = self.label.encode()

    cdef void take_back(self, UpstreamConnection c) noexcept:
        self.group.keep(c)

    cdef void on_gone(self, UpstreamConnection c) noexcept:
        if c in self.idle:
            self.idle.remove(c)
            self.group.n_idle -= 1


cdef class UpstreamGroup:
    """UpstreamGroup(name, servers, max_idle=200, idle_ms=10000): see Server for the servers' form.

    `tls`: a ClientConfig for each server; (): plain TCP to all of them.
    """

    def __init__(self, str name, servers, *, tls=(), int max_idle=200, int idle_ms=10000):
        if not servers:
            raise ValueError("an upstream needs a server")
        self.name = name
        tls = tls or [None] * len(servers)
        self.servers = [Server(self, tuple(where), config) for where, config in zip(servers, tls, strict=True)]
        self.max_idle = max_idle
        self.idle_ms = idle_ms

    cdef unsigned int start(self) noexcept nogil:
        """Where a new request begins its round."""
        self.turn += 1
        return self.turn

    cdef UpstreamRequest take(self, Context ctx, UpstreamUser user, int method, unsigned int attempt, bint fresh):
        """A request to the attempt-th server of the round, on an idle connection if there is one (never when `fresh`),
        else on a new one.

        It may still be connecting. One whose connect() fails at once comes back closed, with its error.
        An idle one is given only after a look (0.2 us) that it is open and silent: a request that can't be repeated
        must not be lost on it, and no surplus of the last response be taken for the next one.
        """
        cdef unsigned int n = <unsigned int> len(self.servers)
        cdef unsigned int i
        cdef Server server = <Server> self.servers[attempt % n]
        cdef Server other
        cdef H1Upstream c
        cdef UpstreamRequest request
        # One that refused lately gives way to the next; when all did, to the one that refused longest ago.
        for i in range(1, n):
            if server.avoid_until <= ctx.loop.now:
                break
            other = <Server> self.servers[(attempt + i) % n]
            if other.avoid_until <= ctx.loop.now or other.refused < server.refused:
                server = other
        while server.idle and not fresh:
            c = <H1Upstream> server.idle.pop()
            self.n_idle -= 1
            if c.still_open():
                ctx.counters.upstream_reuses += 1
                return c.begin(user, method)
            c.close()
        c = H1Upstream(ctx, server)
        ctx.counters.upstream_connects += 1
        if c.open(&server.address) < 0 and not (out_of_descriptors(c.error) and ctx.relief.of_descriptors()
                                                and c.open(&server.address) == 0):
            request = c.request
            c.close()
            return request
        return c.begin(user, method)

    cdef void keep(self, UpstreamConnection c) noexcept:
        """A connection that has answered and may serve again; the oldest idle one makes room."""
        cdef Server server = <Server> c.home
        if self.max_idle <= 0:
            c.close()
            return
        if self.n_idle >= self.max_idle:
            if not server.idle:
                c.close()
                return
            (<UpstreamConnection> server.idle.pop(0)).close()
            self.n_idle -= 1
        server.idle.append(c)
        self.n_idle += 1
        (<H1Upstream> c).park(c.loop.now + self.idle_ms)

    def close_idle(self):
        """Closes every idle connection (a worker that ends)."""
        cdef Server server
        cdef UpstreamConnection c
        for server in self.servers:
            for c in server.idle:
                c.close()
            server.idle.clear()
        self.n_idle = 0

    def idle_connections(self):
        """How many connections are idle."""
        return self.n_idle


cdef void avoid(UpstreamRequest u, uint64_t now) noexcept:
    """The server refused a connection: for a second, others are asked first."""
    cdef Server server = <Server> u.home
    server.avoid_until = now + AVOID_MS
    server.group.refusals += 1
    server.refused = server.group.refusals
