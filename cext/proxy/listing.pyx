"""Listing connections (see the .pxd). Nothing is kept from one call to the next: the place to go on is a descriptor, and
what comes and goes in between is seen or not."""

from libc.stdint cimport int64_t, uint8_t, uint64_t

from cext.http.h1_writer cimport RequestText, request_text
from cext.http.h2_session cimport H2Stream
from cext.net.address cimport ADDRESS_TEXT, LOCAL_TEXT, local_text, peer_text
from cext.net.loop cimport Loop, Watcher
from cext.net.networks cimport Networks
from cext.net.tcp_facts cimport TcpFacts, tcp_facts_of
from cext.proxy.downstream cimport Downstream, Session
from cext.proxy.early_data cimport EarlySession
from cext.proxy.exchange cimport Exchange
from cext.proxy.h1_session cimport H1Session
from cext.proxy.h1_tunnel cimport H1Tunnel
from cext.proxy.h2_client cimport H2Client, H2Request
from cext.proxy.pool cimport Server, SharedServer, UpstreamGroup
from cext.proxy.router cimport Router
from cext.proxy.tunnel cimport Tunnel
from cext.tls.connection cimport EARLY_ACCEPTED, EARLY_READING, Connection
from cext.tls.names cimport cipher_suite_name, group_name, version_name

from cext.proxy.context import STATE_NAMES

cdef enum:
    TOLD_AT_ONCE = 64           # connections, about 1.5 us each, and 5 us as JSON
    SEEN_AT_ONCE = 16384        # descriptors that are looked at, at most 60 ns each
    RUNNING_TOLD = 4            # requests of a connection
    PATH_TOLD = 256             # bytes of a path


cdef class Filter:
    """Which connections are meant: all that is given holds."""
    cdef Networks networks      # None: any
    cdef str state              # "": any
    cdef str server_name        # "": any; ".example.com": any below

    cdef bint takes(self, Downstream client):
        cdef str name
        if self.networks is not None and not self.networks.has(&client.peer):
            return False
        if self.state and state_of(client) != self.state:
            return False
        if not self.server_name:
            return True
        name = server_name_of(client)
        return name.endswith(self.server_name) if self.server_name.startswith(".") else name == self.server_name


cdef Filter new_filter(object filters):
    cdef Filter made = Filter.__new__(Filter)
    networks = filters.get("networks")
    made.networks = Networks(networks) if networks else None
    made.state = filters.get("state") or ""
    made.server_name = (filters.get("server_name") or "").lower()
    return made


cdef list connections(Context ctx, int place, object filters, int *next_place):
    cdef Filter wanted = new_filter(filters)
    cdef Loop loop = ctx.loop
    cdef list found = []
    cdef Watcher w
    cdef int fd
    cdef int end = min(loop.table_size, place + SEEN_AT_ONCE)
    for fd in range(place, end):
        if len(found) == TOLD_AT_ONCE:
            next_place[0] = fd
            return found
        if loop.watchers[fd] == NULL:
            continue
        w = <Watcher> loop.watchers[fd]
        if isinstance(w, Downstream) and wanted.takes(<Downstream> w):
            found.append((fd, told(<Downstream> w)))
    next_place[0] = end if end < loop.table_size else 0
    return found


cdef str state_of(Downstream client):
    if client.closing or client.lingering:
        return "closing"
    if client.tls is None or client.session is None:
        return "handshake"
    return STATE_NAMES[client.state]


cdef str server_name_of(Downstream client):
    if client.tls is None or not client.tls.server_name:
        return ""
    return client.tls.server_name.decode("latin-1").lower()


cdef dict told(Downstream client):
    cdef char[LOCAL_TEXT] local
    cdef char[ADDRESS_TEXT] address
    cdef Connection tls = client.tls
    cdef dict facts = {
        "client": address[:peer_text(&client.peer, address)].decode("ascii"),
        "port": client.peer.port,
        "local": local[:local_text(client.fd, local)].decode("ascii"),
        "state": state_of(client),
        "age": client.age(),
        "server_name": server_name_of(client),
        "queued": client.out.bytes,
    }
    tell_tcp(client.fd, facts)
    if client.deciding:
        facts["waits"] = True
    if tls is not None and client.session is not None:
        facts["tls"] = version_name(tls.version).decode("ascii")
        facts["cipher_suite"] = cipher_suite_name(tls.cipher_suite).decode("ascii")
        facts["group"] = group_name(tls.group).decode("ascii")
        facts["protocol"] = (tls.alpn or b"http/1.1").decode("latin-1")
        facts["resumed"] = bool(tls.resumed)
        facts["early_data"] = tls.early_data_state == EARLY_ACCEPTED or tls.early_data_state == EARLY_READING
        facts["confirmed"] = bool(tls.established)
    tell_session(client, facts)
    return facts


cdef int tell_tcp(int fd, dict facts) except -1:
    """As the kernel counts: TLS and what was sent again is within."""
    cdef TcpFacts tcp
    if tcp_facts_of(fd, &tcp):
        facts["bytes_in"] = tcp.received
        facts["bytes_out"] = tcp.acknowledged
        facts["rtt"] = tcp.rtt_us / 1e6
        facts["quiet"] = tcp.quiet_ms / 1e3
    return 0


cdef int tell_session(Downstream client, dict facts) except -1:
    cdef Session session = client.session
    cdef H2Client h2
    cdef H2Stream *s
    cdef list running = []
    if isinstance(session, EarlySession):
        session = (<EarlySession> session).inner
    if isinstance(session, H2Client):
        h2 = <H2Client> session
        facts["requests"] = h2.requests
        facts["streams"] = h2.streams.n_streams
        s = h2.streams.streams
        while s != NULL and len(running) < RUNNING_TOLD:
            if s.owner != NULL:
                tell_running(running, (<H2Request> s.owner).exchange)
            s = s.next
    elif isinstance(session, H1Session):
        facts["requests"] = (<H1Session> session).requests
        tell_running(running, (<H1Session> session).exchange)
    elif isinstance(session, H1Tunnel):
        tell_running(running, (<H1Tunnel> session).tunnel)
    facts["running"] = running
    return 0


cdef int tell_running(list running, Exchange x) except -1:
    """A request that is under way. Of its path what is before the query: that may hold what nobody is to see."""
    cdef Exchange first
    cdef RequestText asked
    cdef UpstreamGroup group
    if x is None:
        return 0
    first = x if x.overseer is None or x.overseer.before is None else x.overseer.before
    if first.head.len == 0:
        return 0
    asked = request_text(first.head.data, first.head.len, first.method_len, first.target_len, first.host_len)
    group = x.group()
    request = {
        "method": asked.method[:min(asked.method_len, <size_t> PATH_TOLD)].decode("latin-1"),
        "host": asked.host[:min(asked.host_len, <size_t> PATH_TOLD)].decode("latin-1"),
        "path": path_of(asked.target, asked.target_len),
        "age": (x.ctx.loop.now_us - x.started_us) / 1e6,
        "status": x.status or None,
        "upstream": group.name if group is not None else None,
        "server": x.server.label if x.server is not None else None,
        "bytes_in": x.bytes_in,
        "bytes_out": x.bytes_out,
    }
    if isinstance(x, Tunnel) and (<Tunnel> x).switched:
        request["tunnel"] = (<Tunnel> x).protocol.decode("latin-1")
    if x.held is not None:
        request["held"] = x.held.name.decode("ascii") if x.held.name != NULL else "held"
    running.append(request)
    return 0


cdef str path_of(const uint8_t *target, size_t n):
    cdef size_t i = 0
    cdef size_t most = min(n, <size_t> PATH_TOLD)
    while i < most and target[i] != c'?':
        i += 1
    return target[:i].decode("latin-1")


cdef list servers(Context ctx, object routers):
    cdef Router router
    cdef UpstreamGroup group
    cdef Server server
    cdef dict seen = {}
    cdef uint64_t now = ctx.loop.now
    for router in routers:
        for group in router.upstreams.values():
            seen[group.name] = group
    return [
        {
            "upstream": group.name,
            "server": server.label,
            "avoided": max(<int64_t> server.avoid_until - <int64_t> now, 0) / 1e3,
            "idle": len(server.idle),
            "shared": len((<SharedServer> server).shared) if isinstance(server, SharedServer) else 0,
            "waiting": len((<SharedServer> server).waiting) if isinstance(server, SharedServer) else 0,
        }
        for group in seen.values()
        for server in group.servers
    ]
