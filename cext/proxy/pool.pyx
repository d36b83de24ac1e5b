"""The pool (see the .pxd). One per worker: nothing is shared, nothing is locked."""

from collections import OrderedDict

from libc.stdint cimport uint32_t

from cext.base.stats cimport series_of
from cext.net.address cimport address_set
from cext.net.stream cimport out_of_descriptors, read_tcp
from cext.proxy.h1_upstream cimport H1Upstream
from cext.proxy.upstream cimport LOST_CLOSED, LOST_CONNECT

cdef enum:
    AVOID_MS = 1000
    SURPLUS_MS = 250            # that idle connections beyond max_idle are kept
    STREAMS_EXPECTED = 100      # of a connection that is not there yet (what RFC 9113, section 6.5.2, advises at least)
    WAITING_MAX = 10000         # requests at one server without a stream
    CONNECT_MS = 30000          # for a connection that several wait for; each has its own limit, too


cdef class Server(UpstreamHome):
    """Server(group, ("tcp", "127.0.0.1", 9000)) or Server(group, ("unix", "/run/app.sock")); ValueError on others."""

    def __init__(self, UpstreamGroup group, tuple where, tls=None, dict tcp={}, uint32_t series=0):
        kind, name = where[0], where[1]
        port = where[2] if kind == "tcp" else 0
        address_set(&self.address, kind, name, port)
        self.group = group
        self.index = series
        self.tls = tls
        read_tcp(&self.tcp, tcp)
        self.idle = []
        if kind == "unix":
            self.label = f"unix:{name}"
        else:
            self.label = f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
        self.label_bytes = self.label.encode()

    cdef UpstreamRequest begin(self, Context ctx, UpstreamUser user, int method, bint fresh):
        """See UpstreamGroup.take."""
        cdef H1Upstream c
        cdef UpstreamRequest request
        while self.idle and not fresh:
            c = <H1Upstream> self.idle.pop()
            self.group.n_idle -= 1
            series_of(self, ctx.stats).idle -= 1
            if c.still_open():
                ctx.counters.upstream_reuses += 1
                series_of(self, ctx.stats).reuses += 1
                return c.begin(user, method)
            c.close()
        c = H1Upstream(ctx, self)
        ctx.counters.upstream_connects += 1
        series_of(self, ctx.stats).connects += 1
        if connect(c, self) < 0:
            request = c.request
            c.close()
            return request
        return c.begin(user, method)

    cdef void take_back(self, UpstreamConnection c) noexcept:
        self.group.keep(c)

    cdef void on_gone(self, UpstreamConnection c, int loss, int error) noexcept:
        if c in self.idle:
            self.idle.remove(c)
            self.group.n_idle -= 1
            series_of(self, c.ctx.stats).idle -= 1

    cdef int close_idle(self) except -1:
        cdef UpstreamConnection c
        for c in self.idle:
            c.close()
            series_of(self, c.ctx.stats).idle -= 1
        self.group.n_idle -= <int> len(self.idle)
        self.idle.clear()
        return 0


cdef int connect(UpstreamConnection c, Server server) noexcept:
    """Begins to; with descriptors short, after some were freed. 0 or -1."""
    if c.open(&server.address) == 0:
        return 0
    if not (out_of_descriptors(c.error) and c.ctx.relief.of_descriptors()):
        return -1
    return c.open(&server.address)


cdef class SharedServer(Server):
    def __init__(self, UpstreamGroup group, tuple where, tls=None, dict tcp={}, uint32_t series=0):
        Server.__init__(self, group, where, tls, tcp, series)
        self.shared = []
        self.waiting = OrderedDict()
        self.expected = STREAMS_EXPECTED

    cdef UpstreamRequest begin(self, Context ctx, UpstreamUser user, int method, bint fresh):
        """On a connection that has room, or it waits for one. A connection that is left, or broken, has none: `fresh`
        asks for nothing else."""
        cdef H2Request r = H2Request.__new__(H2Request)
        cdef H2Upstream c = None
        cdef Py_ssize_t i = 0
        r.home = self
        r.method = method
        while i < len(self.shared) and not self.waiting:            # who waits comes first
            c = <H2Upstream> self.shared[i]
            if c.takes() and c.still_open():
                r.user = user
                c.adopt(r)
                return r
            if i < len(self.shared) and self.shared[i] is c:        # else it has just gone
                i += 1
        c = self.widen(ctx) if <unsigned int> len(self.waiting) >= self.capacity() else None
        if not self.shared or len(self.waiting) >= WAITING_MAX:
            r.closed = True
            if c is not None:
                r.error = c.error
                r.reason = c.reason
            return r
        if c is not None:
            c.opener = r
        r.user = user
        r.connecting = True
        r.queued = self.connecting() == 0
        self.waiting[r] = None
        return r

    cdef H2Upstream widen(self, Context ctx):
        """A connection more, if there may be one; None, or the connection, which may have failed at once."""
        cdef H2Upstream c
        if <int> len(self.shared) >= self.group.max_connections:
            return None
        c = H2Upstream(ctx, self)
        c.begin(ctx.loop.now + CONNECT_MS)
        ctx.counters.upstream_connects += 1
        series_of(self, ctx.stats).connects += 1
        self.shared.append(c)
        if connect(c, self) < 0:
            c.over = True
            c.close()
            if c in self.shared:
                self.shared.remove(c)
        return c

    cdef unsigned int capacity(self) noexcept:
        """How many requests more the connections may take that there are, and those that are about to be."""
        cdef unsigned int n = 0
        cdef H2Upstream c
        for c in self.shared:
            n += self.expected if not c.streams.met else c.streams.room() if c.serving else 0
        return n

    cdef unsigned int connecting(self) noexcept:
        cdef unsigned int n = 0
        cdef H2Upstream c
        for c in self.shared:
            n += not c.streams.met
        return n

    cdef void on_room(self, UpstreamConnection c) noexcept:
        cdef H2Upstream own = <H2Upstream> c
        cdef H2Request r
        if own.streams.n_streams == 0 and own.streams.room():
            self.expected = own.streams.room()
        while self.waiting and own.takes():
            r = <H2Request> self.waiting.popitem(False)[0]
            own.adopt(r)
            r.user.on_connected(r)
        if self.waiting:
            if <unsigned int> len(self.waiting) > self.capacity():
                self.widen(c.ctx)
        elif own.streams.n_streams == 0 and own.fd >= 0:
            if self.group.max_idle <= 0:
                own.retire()
            else:
                own.rest(c.loop.now + self.group.idle_ms)

    cdef void on_gone(self, UpstreamConnection c, int loss, int error) noexcept:
        """Who waits goes on waiting for other connections, if there are any."""
        if c not in self.shared:
            return
        self.shared.remove(c)
        if not self.waiting:
            return
        if (<H2Upstream> c).streams.last_id:
            c = self.widen(c.ctx) if <unsigned int> len(self.waiting) > self.capacity() else None
            loss = LOST_CONNECT
        # Else it has never served, and the next one would not either.
        if not self.shared and c is not None:
            self.fail_waiting(loss, c.error or error, c.reason)

    cdef void fail_waiting(self, int loss, int error, str reason) noexcept:
        cdef list waiting = list(self.waiting)
        cdef H2Request r
        self.waiting.clear()
        for r in waiting:
            if r.connecting:                # its user has not given up meanwhile
                r.lost(loss, error, reason)

    cdef void give_up(self, UpstreamRequest u) noexcept:
        cdef H2Upstream c
        self.waiting.pop(u, None)
        for c in self.shared:
            if c.opener is u:               # it was too slow for the one who began it
                c.over = True
                c.close()
                self.shared.remove(c)
                break
        else:
            return
        if self.waiting and not self.shared:
            c = self.widen(c.ctx)
            if not self.shared:
                self.fail_waiting(LOST_CONNECT, c.error, c.reason)

    cdef int close_idle(self) except -1:
        cdef H2Upstream c
        for c in list(self.shared):
            if c.streams.n_streams == 0:
                c.lose(LOST_CLOSED, 0)
        return 0


cdef class UpstreamGroup:
    """UpstreamGroup(name, servers, max_idle=200, idle_ms=10000): see Server for the servers' form.

    `protocol`: "http/1.1", "h2" or "h2c". `tls`: a ClientConfig for each server, whose ALPN fits; (): plain TCP to all of
    them. `tcp`: see TcpSettings. `series`: where the group counts, `server_series`: where each server does.
    """

    def __init__(self, str name, servers, *, str protocol="http/1.1", tls=(), dict tcp={}, int max_idle=200,
                 int idle_ms=10000, int max_connections=16, uint32_t series=0, server_series=()):
        if not servers:
            raise ValueError("an upstream needs a server")
        if protocol not in ("http/1.1", "h2", "h2c") or protocol == "h2" and not tls or protocol == "h2c" and tls:
            raise ValueError("no such protocol, or none without TLS (h2c) or with it (h2)")
        self.name = name
        self.protocol = protocol
        self.tunnels = protocol == "http/1.1"
        kind = Server if protocol == "http/1.1" else SharedServer
        tls = tls or [None] * len(servers)
        server_series = server_series or [0] * len(servers)
        self.index = series
        self.servers = [kind(self, tuple(where), config, tcp, index)
                        for where, config, index in zip(servers, tls, server_series, strict=True)]
        self.max_idle = max_idle
        self.idle_ms = idle_ms
        self.max_connections = max_connections

    cdef unsigned int start(self) noexcept nogil:
        """Where a new request begins its round."""
        self.turn += 1
        return self.turn

    cdef UpstreamRequest take(self, Context ctx, UpstreamUser user, int method, unsigned int attempt, bint fresh):
        """A request to the attempt-th server of the round, on an idle connection (HTTP/1.1) if there is one (never when
        `fresh`), else on a new one; on one that has room (HTTP/2), else it waits for that.

        It may still be connecting. One whose connect() fails at once comes back closed, with its error.
        An idle one is given only after a look (0.2 us) that it is open and silent: a request that can't be repeated
        must not be lost on it, and no surplus of the last response be taken for the next one.
        """
        cdef unsigned int n = <unsigned int> len(self.servers)
        cdef unsigned int i
        cdef Server server = <Server> self.servers[attempt % n]
        cdef Server other
        # One that refused lately gives way to the next; when all did, to the one that refused longest ago.
        for i in range(1, n):
            if server.avoid_until <= ctx.loop.now:
                break
            other = <Server> self.servers[(attempt + i) % n]
            if other.avoid_until <= ctx.loop.now or other.refused < server.refused:
                server = other
        return server.begin(ctx, user, method, fresh)

    cdef void keep(self, UpstreamConnection c) noexcept:
        """A connection that has answered and may serve again. What is beyond the limit stays for a moment: requests come
        in bursts, and to close so many and connect again for the next would cost more than the requests."""
        cdef int ms = self.idle_ms
        if self.max_idle <= 0:
            c.close()
            return
        if self.n_idle >= self.max_idle:
            ms = min(ms, <int> SURPLUS_MS)
        (<Server> c.home).idle.append(c)
        self.n_idle += 1
        series_of(c.home, c.ctx.stats).idle += 1
        (<H1Upstream> c).park(c.loop.now + ms)

    def close_idle(self):
        """Closes every idle connection (a worker that ends)."""
        cdef Server server
        for server in self.servers:
            server.close_idle()

    def retire(self):
        """Nobody will choose it any more: connections are closed when they become idle."""
        self.max_idle = 0
        self.close_idle()

    def idle_connections(self):
        """How many connections are idle; of HTTP/2, how many there are."""
        return self.n_idle + sum([len((<SharedServer> s).shared) for s in self.servers if isinstance(s, SharedServer)])


cdef void avoid(UpstreamRequest u, uint64_t now) noexcept:
    """The server refused a connection: for a second, others are asked first."""
    cdef Server server = <Server> u.home
    server.avoid_until = now + AVOID_MS
    server.group.refusals += 1
    server.refused = server.group.refusals
