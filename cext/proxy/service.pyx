"""Requests of any protocol (see the .pxd)."""

from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memset, strlen

from cext.http.h1_writer cimport Forwarding, RequestText, drop_lines, request_text
from cext.http.message cimport METHOD_CONNECT, METHOD_GET
from cext.http.trace_context cimport TRACE_ID, TRACE_SAMPLED, write_hex
from cext.net.address cimport ADDRESS_TEXT, LOCAL_TEXT, authority_text, local_text, peer_text
from cext.proxy.access_log cimport LINE_COMBINED, AccessLog, CombinedLine, find_field
from cext.proxy.address_table cimport NO_PLACE
from cext.proxy.client_facts cimport log_client
from cext.proxy.counting cimport count_exchange, count_refusal
from cext.proxy.directing cimport direct, direct_on_route
from cext.proxy.early_data cimport EarlyRequest, early_gate, early_start, fate_name, note_early
from cext.proxy.early_rules cimport EARLY_MODE_REJECT
from cext.proxy.exchange cimport MISHAP_RETRIED
from cext.proxy.hints cimport parse_interim
from cext.proxy.limits cimport admit_request, refusal_cause
from cext.proxy.router cimport answered_here
from cext.proxy.timeouts cimport resolve
from cext.proxy.trace cimport Trace
from cext.proxy.tracing cimport begin_trace, end_trace
from cext.proxy.tunnel cimport Tunnel, asked_protocol

cdef const char *HEAD_LATE = b"timeout: header"
cdef const char *HEAD_LATE_TEXT = b"The request head did not arrive in time."
cdef const char *KEEPALIVE_OVER = b"timeout: keepalive"
cdef const char *REFUSED = b"request refused"
cdef const char *HTTP10 = b" HTTP/1.0"
cdef const char *HTTP11 = b" HTTP/1.1"
cdef const char *HTTP2 = b" HTTP/2.0"
cdef const char *NOTHING_HERE = b"Nothing is served under this address."


cdef Exchange new_exchange(Downstream client, ResponseSink sink, const Head *h):
    return make_exchange(client, sink, h, find_route(client, h), None, None, None)


cdef Exchange changed_exchange(Downstream client, Exchange x, const Head *h, Route route, UpstreamGroup group):
    cdef Exchange first = x.overseer.before if x.overseer.before is not None else x
    cdef Route found = route
    cdef Exchange other
    if found is None:
        found = find_route(client, h)
    if found is None and group is not None:
        found = client.settings.router.bare(group)
    other = make_exchange(client, x.sink, h, found, group, first, x.trace)
    if other is None:
        x.abort(b"out of memory")
        return None
    other.pushed = x.pushed
    other.started_us = x.started_us
    if route is not None:               # which has let it in
        other.running, other.place = x.running, x.place
        x.running, x.place = False, NO_PLACE
    x.held = None
    x.close()
    return other


cdef Exchange make_exchange(Downstream client, ResponseSink sink, const Head *h, Route route, UpstreamGroup group,
                            Exchange first, Trace trace):
    """`group`: where it goes, if not to the route's; `first`: what the client asked for, if h has been changed, and
    `trace` what that has begun."""
    cdef char address[ADDRESS_TEXT]
    cdef char local[LOCAL_TEXT]
    cdef Forwarding f
    cdef RequestText asked
    cdef Exchange x
    f.client_len = peer_text(&client.peer, address)
    f.client = <const uint8_t *> address
    f.client_is_v6 = client.peer.v6
    f.proto = b"https"
    f.x_forwarded = client.settings.x_forwarded
    f.forwarded = client.settings.forwarded
    f.default_host = NULL
    f.default_host_len = 0
    if h.host.len == 0:         # HTTP/1.0: the name of the handshake, else the address that was called
        f.default_host = <const uint8_t *> <const char *> client.tls.server_name
        f.default_host_len = len(client.tls.server_name)
        if f.default_host_len == 0:
            f.default_host = <const uint8_t *> local
            f.default_host_len = local_authority(client, local)
    f.dropped = client.settings.unique
    f.dropped_len = client.settings.unique_len
    f.asked_host = NULL
    f.asked_host_len = 0
    if first is not None and first.host_len:
        asked = request_text(first.head.data, first.head.len, first.method_len, first.target_len, first.host_len)
        f.asked_host = asked.host
        f.asked_host_len = asked.host_len
    if trace is None and client.ctx.tracer is not None:
        trace = begin_trace(client, h)
    f.trace = &trace.fields if trace is not None else NULL
    f.upgrade = f.websocket_key = NULL
    f.upgrade_len = 0
    if group is None and route is not None:
        group = route.upstream
    if route is None or not group.tunnels or h.upgrade.len == 0 and h.protocol.len == 0:
        x = Exchange(client.ctx, sink, route)
    else:
        x = new_tunnel(client, sink, route, h, &f)
    if x is None:
        return None
    if first is not None and first.early is not None:
        x.early = first.early
    elif client.early or route is not None and route.early is not None and route.early.mode == EARLY_MODE_REJECT:
        note_early(client, x, h)
    x.trace = trace
    x.minor = h.minor
    resolve(&x.timeouts, &route.timeouts if route is not None else NULL, &client.settings.timeouts)
    return x if x.prepare(h, &f) == 0 else None


cdef size_t local_authority(Downstream client, char *out) noexcept:
    """What the client connected to: at the proxy in front of us, if that has said."""
    if client.opening is not None and client.opening.proxied is not None and client.opening.proxied.local.known:
        return authority_text(&client.opening.proxied.local, out)
    return local_text(client.fd, out)


cdef Exchange new_tunnel(Downstream client, ResponseSink sink, Route route, const Head *h, Forwarding *f):
    """For a request that asks for another protocol; an ordinary exchange where it may not."""
    cdef bytes protocol = asked_protocol(h, route)
    cdef Tunnel tunnel
    if protocol is None:
        return Exchange(client.ctx, sink, route)
    tunnel = Tunnel(client.ctx, sink, route)
    if tunnel.ask(protocol, h) < 0:
        return None
    f.upgrade = <const uint8_t *> <char *> tunnel.protocol
    f.upgrade_len = len(tunnel.protocol)
    if tunnel.websocket and tunnel.by_connect:
        f.websocket_key = tunnel.key
    return tunnel


cdef Route find_route(Downstream client, const Head *h):
    cdef size_t path_len = h.path.len
    cdef bint get = h.method == METHOD_CONNECT      # an extended one, which is a GET to the upstream
    if h.query.len:
        path_len = h.query.off - 1 - h.path.off
    elif path_len and h.base[h.path.off + path_len - 1] == c'?':
        path_len -= 1
    return client.settings.router.find(h.base + h.host.off, h.host.len, h.base + h.path.off, path_len,
                                       METHOD_GET if get else h.method,
                                       h.base + h.method_name.off, h.method_name.len)


cdef void launch(Downstream client, Exchange x, const Head *h) noexcept:
    if x.early is not None and not early_gate(client, x, h):
        return
    if x.ctx.request_hooks is None or admit_request(client, x, h) and direct(client, x, h):
        launch_further(client, x, h, False)


cdef void launch_further(Downstream client, Exchange x, const Head *h, bint routed) noexcept:
    if not routed and (not served(client, x, h) or x.route.hooked and not direct_on_route(client, x, h)):
        return
    if x.route.hints is not None and not x.pushed:
        try:
            x.hinted = x.route.hints.find(h, client.tls.alpn == b"h2", x.ctx.loop.now)
        except MemoryError:
            pass
    if x.early is None or early_start(client, x):
        resume_launch(client, x)


cdef bint served(Downstream client, Exchange x, const Head *h) noexcept:
    """Whether the request has a route, which lets it in."""
    cdef int status = answered_here(x.route, h)
    if status == 0 and h.method == METHOD_CONNECT and not isinstance(x, Tunnel):
        status = 501                # a protocol that its route does not let pass (RFC 9220, section 3)
    if status:
        x.status = status
        x.sink.response_error(x, status, NOTHING_HERE if status == 404 else NULL)
        return False
    return x.running or admit_request(client, x, h)


cdef void resume_launch(Downstream client, Exchange x) noexcept:
    x.held = None
    if x.hinted is not None:
        x.sink.response_interim(x, parse_interim(x.hinted))
        if x.sink is not None:
            x.sink.response_flush(x)
        if x.sink is None:          # the client has gone
            return
    x.start()


cdef void strip_trailers(ListenerSettings settings, BodyReader *body) noexcept:
    body.trailers_len = <uint32_t> drop_lines(body.trailers, body.trailers_len, settings.unique, settings.unique_len)


cdef void log_exchange(Downstream client, Exchange x, uint64_t wire_in, uint64_t wire_out, const char *why) noexcept:
    cdef AccessLog log = x.ctx.access_log
    cdef const char *fault = x.fault if x.fault != NULL else why
    cdef Exchange first
    cdef RequestText asked, sent
    cdef uint8_t trace_id[2 * TRACE_ID]
    cdef uint64_t now = x.ctx.loop.now_us
    count_exchange(x, wire_in, wire_out)
    if x.trace is not None:
        end_trace(client, x, wire_in, wire_out, fault)
    if log is None or not log.wants(x.status, fault != NULL):
        return
    first = x if x.overseer is None or x.overseer.before is None else x.overseer.before
    asked = request_text(first.head.data, first.head.len, first.method_len, first.target_len, first.host_len)
    log.open_line()
    if log.form == LINE_COMBINED:
        log_combined(log, client, x, &asked)
        if log.prefix is None:
            log.close_line()
            return
    if client is not None:
        log_client(log, &client.peer, client.tls)
    log.text(b"method", asked.method, asked.method_len)
    log.text(b"host", asked.host, asked.host_len)
    log.text(b"path", asked.target, asked.target_len)
    if first is not x:                  # by a hook
        sent = request_text(x.head.data, x.head.len, x.method_len, x.target_len, x.host_len)
        log.text(b"sent_host", sent.host, sent.host_len)
        log.text(b"sent_path", sent.target, sent.target_len)
    log.number(b"status", x.status)
    if x.pushed:
        log.boolean(b"pushed", True)
    log.number(b"bytes_in", wire_in)
    log.number(b"bytes_out", wire_out)
    log.milliseconds(b"duration_ms", now - x.started_us)
    if x.first_byte_us:
        log.milliseconds(b"first_byte_ms", x.first_byte_us - x.started_us)
    if x.server is not None:
        log.text(b"upstream", <const char *> x.server.label_bytes, len(x.server.label_bytes))
        if x.connected_us:
            log.milliseconds(b"connect_ms", x.connected_us - x.started_us)
        log.boolean(b"reused", x.reused)
        if x.mishaps & MISHAP_RETRIED:
            log.boolean(b"retried", True)
    if x.early is not None:
        log_early(log, <EarlyRequest> x.early)
    if x.held is not None:
        log.text(b"held", x.held.name, strlen(x.held.name))
    if x.trace is not None and x.trace.fields.context.flags & TRACE_SAMPLED:
        write_hex(trace_id, x.trace.fields.context.trace_id, TRACE_ID)
        log.text(b"trace", trace_id, sizeof(trace_id))
    if log.fields:
        log.request_fields(asked.lines, asked.lines_len)
    x.log_more(log)
    if fault != NULL:
        log.text(b"error", fault, strlen(fault))
    log.close_line()


cdef void log_combined(AccessLog log, Downstream client, Exchange x, const RequestText *asked) noexcept:
    cdef char address[ADDRESS_TEXT]
    cdef CombinedLine line
    line.client = <const uint8_t *> address
    line.client_len = client_text(client, address)
    line.request = asked.method
    line.request_len = asked.method_len
    line.target = asked.target
    line.target_len = asked.target_len
    line.version = HTTP2 if client is not None and client.tls.alpn == b"h2" else HTTP11 if x.minor else HTTP10
    line.status = x.status
    line.sent = x.bytes_out
    line.referer_len = line.agent_len = 0
    line.referer = find_field(asked.lines, asked.lines_len, b"referer", 7, &line.referer_len)
    line.agent = find_field(asked.lines, asked.lines_len, b"user-agent", 10, &line.agent_len)
    log.combined(&line)


cdef size_t client_text(Downstream client, char *out) noexcept:
    """Its address; "-": it has none."""
    cdef size_t n = peer_text(&client.peer, out) if client is not None else 0
    if n == 0:
        out[0] = c"-"
        n = 1
    return n


cdef void log_early(AccessLog log, EarlyRequest early) noexcept:
    cdef const char *fate = fate_name(early.fate)
    if early.fate:
        log.text(b"early_request", fate, strlen(fate))


cdef void log_refusal(Downstream client, int status, uint64_t wire_out, const char *why) noexcept:
    cdef AccessLog log
    cdef char address[ADDRESS_TEXT]
    cdef CombinedLine line
    if client is None:
        return
    count_refusal(client.ctx, status, wire_out)
    log = client.ctx.access_log
    if log is None or not log.wants(status, True):
        return
    log.open_line()
    if log.form == LINE_COMBINED:
        memset(&line, 0, sizeof(line))
        line.client = <const uint8_t *> address
        line.client_len = client_text(client, address)
        line.status = status
        line.sent = wire_out
        log.combined(&line)
    log_client(log, &client.peer, client.tls)
    log.number(b"status", status)
    log.number(b"bytes_out", wire_out)
    if client.refused:
        why = refusal_cause(client.refused)
    log.text(b"error", why, strlen(why))
    log.close_line()
