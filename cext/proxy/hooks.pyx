"""Hooks (see the .pxd).

A hook runs in the middle of a connection's turn, so whatever it asks for that would end a connection or a stream is done
after it: what a director does to its own request when it returns, anything else when the loop's turn ends.
"""

from cpython.bytes cimport PyBytes_FromStringAndSize
from cython cimport freelist
from libc.stdint cimport uint8_t, uint32_t
from libc.string cimport memchr

from cext.http.h1_writer cimport RequestText, request_text
from cext.http.message cimport Field
from cext.http.rules cimport same_name
from cext.net.address cimport ADDRESS_TEXT, peer_text
from cext.tls.connection cimport EARLY_ACCEPTED, Connection
from cext.tls.names cimport cipher_suite_name, group_name, version_name

from cext.proxy.timeouts import NAMES


class AbortRequest(Exception):
    """For a director to raise: ends the request without an answer, as request.abort() does."""


class RequestOver(RuntimeError):
    """A request, or a part of it, is not there any more."""


cdef class Hooks:
    """Hooks(director=None, connection_state=None, *, names={}, read_limit, show_limit, failed, handshake=None): see the .pxd.

    `names`: those of the timeouts, each with that of the data plane.
    """

    def __init__(self, director=None, connection_state=None, *, names, read_limit, show_limit, failed, handshake=None):
        self.handshake = handshake
        self.director = director
        self.connection_state = connection_state
        self.limits = {name: NAMES.index(of_plane) for name, of_plane in names.items()}
        self.read_limit = read_limit
        self.show_limit = show_limit
        self.failed = failed
        self.connections = {}

    def observe(self, Downstream client, old, str new):
        """A connection's step from state to state, for Context.state_observer."""
        cdef ClientConnection connection = self.connections.get(client)
        if connection is None:
            connection = ClientConnection.__new__(ClientConnection)
            connection.downstream = client
            self.connections[client] = connection
        connection.state = new
        if new == "closed":
            connection.close()
            del self.connections[client]
        client.ctx.watchdog.enter()
        try:
            self.connection_state(connection, old, new)
        except BaseException as e:
            self.report(client.ctx, "connection_state", e)
        finally:
            client.ctx.watchdog.leave()

    cdef void report(self, Context ctx, str hook, object error) noexcept:
        ctx.counters.hook_failures += 1
        try:
            self.failed(hook, error)
        except BaseException as e:
            ctx.log("error", f"hook {hook}: {type(error).__name__}, and its report failed: {type(e).__name__}")


cdef bint direct(Downstream client, Exchange x, const Head *h) noexcept:
    cdef Hooks hooks = <Hooks> x.ctx.director
    cdef Request request = Request.__new__(Request)
    cdef bint failed = False
    request.hooks = hooks
    request.x = x
    request.client = client
    request.head = h
    request.http2 = client.tls.alpn == b"h2"
    request.minor = h.minor
    x.ctx.watchdog.enter()
    try:
        hooks.director(request)
    except AbortRequest:
        request.aborted = True
    except BaseException as e:
        hooks.report(x.ctx, "director", e)
        failed = True
    finally:
        x.ctx.watchdog.leave()
    request.head = NULL
    if x.sink is None:
        return False
    if request.aborted:
        x.abort(b"aborted by the director")
        return False
    if failed:
        x.status = 500
        x.fault = b"the director failed"
        x.ctx.counters.responses_5xx += 1
        x.sink.response_error(x, 500, b"The request could not be served.")
        return False
    if request.retimed:
        x.sink.retimed(x)
    return x.sink is not None


# ---- requests ----

cdef str latin1(const void *p, size_t n):
    return PyBytes_FromStringAndSize(<const char *> p, n).decode("latin-1")


@freelist(16)
cdef class Request:
    """A request that is about to be sent to its upstream, or has been.

    A request that is kept can be read, aborted, and given other timeouts while it runs; its headers can be read only
    until the director returns.
    """

    cdef Exchange running(self):
        if self.x.sink is None:
            raise RequestOver("the request has ended")
        return self.x

    cdef RequestText text(self) noexcept:
        cdef Exchange x = self.x
        return request_text(x.head.data, x.head.len, x.method_len, x.target_len, x.host_len)

    @property
    def method(self):
        """The method, as it was sent."""
        cdef RequestText t = self.text()
        return latin1(t.method, t.method_len)

    @property
    def target(self):
        """Path and query, as they were sent."""
        cdef RequestText t = self.text()
        return latin1(t.target, t.target_len)

    @property
    def path(self):
        """The path without the query, not decoded."""
        cdef RequestText t = self.text()
        cdef const uint8_t *query = <const uint8_t *> memchr(t.target, c"?", t.target_len)
        return latin1(t.target, query - t.target if query != NULL else t.target_len)

    @property
    def query(self):
        """What follows the "?", not decoded; "" where there is none."""
        cdef RequestText t = self.text()
        cdef const uint8_t *query = <const uint8_t *> memchr(t.target, c"?", t.target_len)
        return latin1(query + 1, t.target + t.target_len - query - 1) if query != NULL else ""

    @property
    def host(self):
        """The host that is asked for, with its port if one was given; "" in HTTP/1.0 without one."""
        cdef RequestText t = self.text()
        return latin1(t.host, t.host_len)

    @property
    def http_version(self):
        """"1.0", "1.1" or "2"."""
        return "2" if self.http2 else "1.1" if self.minor else "1.0"

    @property
    def pushed(self):
        """Whether nobody asked: the client was promised it with another response."""
        return bool(self.x.pushed)

    @property
    def client(self):
        """The client's IP address."""
        return address_of(self.client)

    @property
    def client_port(self):
        return self.client.peer.port

    @property
    def route(self):
        """The route that was found: its `path`, `hosts`, `methods`; None: there is none."""
        return self.x.route

    @property
    def upstream(self):
        """The name of the upstream that gets the request; None while there is none."""
        return self.x.group.name if self.x.group is not None else None

    @property
    def headers(self):
        """The fields of the request: Headers. RequestOver once the director has returned."""
        cdef Headers headers
        if self.head == NULL:
            raise RequestOver("the headers are gone: read or copy them, dict(request.headers), before the director returns")
        headers = Headers.__new__(Headers)
        headers.request = self
        return headers

    @property
    def tls(self):
        """TlsState of the connection. RequestOver when that has ended."""
        if self.client.tls is None:
            raise RequestOver("the connection has ended")
        return tls_state(self.client.tls)

    @property
    def timeouts(self):
        """RequestTimeouts: the time limits of this request, to be read and set."""
        cdef RequestTimeouts timeouts = RequestTimeouts.__new__(RequestTimeouts)
        timeouts.request = self
        return timeouts

    @property
    def over(self):
        """Whether the request has ended."""
        return self.x.sink is None

    def abort(self):
        """Ends the request without an answer: the connection is cut in HTTP/1.1, the stream reset in HTTP/2. Within the
        director that happens when it returns. RequestOver when the request has ended."""
        cdef Exchange x = self.running()
        if self.head != NULL:
            self.aborted = True
        else:
            x.ctx.loop.call_soon(self._cut)

    def _cut(self):
        self.x.abort(b"aborted by a hook")      # nothing happens if it has ended

    def __repr__(self):
        return f"<Request {self.method} {self.host}{self.target}>"


@freelist(16)
cdef class Headers:
    """A request's fields, as the client sent them: names in whatever case, values as str (Latin-1).

    headers["name"] joins the values of fields with that name by ", " (RFC 9110, section 5.3); dict(headers) copies all.
    """
    cdef Request request

    cdef const Head *head(self) except NULL:
        if self.request.head == NULL:
            raise RequestOver("the headers are gone: the director has returned")
        return self.request.head

    cdef list values_of(self, name):
        cdef const Head *h = self.head()
        cdef const Field *field
        cdef bytes wanted
        cdef uint32_t i
        cdef list found = []
        if not isinstance(name, str):
            raise TypeError(f"a header's name is a str, not {type(name).__name__}")
        wanted = (<str> name).encode("latin-1", "replace")
        for i in range(h.n_fields):
            field = &h.fields[i]
            if field.name.len == <uint32_t> len(wanted) and same_name(
                    h.base + field.name.off, <const uint8_t *> <const char *> wanted, field.name.len):
                found.append(latin1(h.base + field.value.off, field.value.len))
        return found

    def __getitem__(self, name):
        found = self.values_of(name)
        if not found:
            raise KeyError(name)
        return joined(name, found)

    def get(self, name, default=None):
        found = self.values_of(name)
        return joined(name, found) if found else default

    def get_all(self, name):
        """The value of each field with that name, in order."""
        return self.values_of(name)

    def __contains__(self, name):
        return bool(self.values_of(name))

    def keys(self):
        """The names in lower case, each once, in order."""
        return list(dict.fromkeys(name for name, _ in self.lines()))

    def lines(self):
        """(name in lower case, value) of each field, in order."""
        cdef const Head *h = self.head()
        cdef const Field *field
        cdef uint32_t i
        cdef list found = []
        for i in range(h.n_fields):
            field = &h.fields[i]
            found.append((latin1(h.base + field.name.off, field.name.len).lower(),
                          latin1(h.base + field.value.off, field.value.len)))
        return found

    def __iter__(self):
        return iter(self.keys())

    def __len__(self):
        return len(self.keys())

    def items(self):
        return [(name, self[name]) for name in self.keys()]


cdef str joined(str name, list values):
    return values[0] if len(values) == 1 else ("; " if name.lower() == "cookie" else ", ").join(values)


@freelist(16)
cdef class RequestTimeouts:
    """A request's time limits, by the names that `timeouts` has in the configuration.

    Seconds, or None for none; rates in bytes per second. They can be set to the same, or to what a configuration has: "5s",
    "1KiB/s", "none". What is waited for just now begins anew with a new limit; `total` counts from the request's head.
    """
    cdef Request request

    cdef int place(self, name) except -1:
        place = self.request.hooks.limits.get(name)
        if place is None:
            raise AttributeError(f"no timeout {name!r}: there are {', '.join(self.request.hooks.limits)}")
        return place

    def __getattr__(self, name):
        cdef Exchange x = self.request.x
        cdef int place = self.place(name)
        return self.request.hooks.show_limit(name, (<int *> &x.timeouts)[place])

    def __setattr__(self, name, value):
        cdef Exchange x = self.request.running()
        cdef int place = self.place(name)
        (<int *> &x.timeouts)[place] = self.request.hooks.read_limit(name, value)
        if self.request.head != NULL:
            self.request.retimed = True         # what has to follow does so when the director returns
        else:
            x.retime()

    def __dir__(self):
        return list(self.request.hooks.limits)


# ---- connections ----

cdef str address_of(Downstream client):
    cdef char text[ADDRESS_TEXT]
    return latin1(text, peer_text(&client.peer, text))


cdef class TlsState:
    """What a connection's handshake came to; "" and False where something is not there."""
    cdef readonly str version               # "TLSv1.3" or "TLSv1.2"
    cdef readonly str cipher_suite
    cdef readonly str group
    cdef readonly str server_name           # what the client asked for (SNI)
    cdef readonly str alpn
    cdef readonly bint resumed
    cdef readonly bint early_data_used

    def __repr__(self):
        return f"<TlsState {self.version} {self.cipher_suite}>"


cdef TlsState tls_state(Connection tls):
    cdef TlsState state = TlsState.__new__(TlsState)
    state.version = version_name(tls.version).decode("ascii")
    state.cipher_suite = cipher_suite_name(tls.cipher_suite).decode("ascii")
    state.group = group_name(tls.group).decode("ascii")
    state.server_name = (tls.server_name or b"").decode("latin-1")
    state.alpn = (tls.alpn or b"").decode("latin-1")
    state.resumed = bool(tls.resumed)
    state.early_data_used = tls.early_data_state == EARLY_ACCEPTED
    return state


cdef class ClientConnection:
    """A client's connection, the same object from its first state to its last."""
    cdef Downstream downstream              # None once it is closed
    cdef readonly str state
    cdef str address
    cdef int port
    cdef TlsState facts

    @property
    def client(self):
        """The client's IP address."""
        return address_of(self.downstream) if self.downstream is not None else self.address

    @property
    def client_port(self):
        return self.downstream.peer.port if self.downstream is not None else self.port

    @property
    def tls(self):
        """TlsState, of a closed connection too; None before the handshake is done."""
        cdef Downstream downstream = self.downstream
        if self.facts is None and downstream is not None and downstream.tls is not None and downstream.tls.established:
            self.facts = tls_state(downstream.tls)
        return self.facts

    cdef void close(self):
        """Keeps what can be asked for, and lets go of the connection."""
        self.tls
        self.address = self.client
        self.port = self.client_port
        self.downstream = None

    def __repr__(self):
        return f"<ClientConnection {self.client}:{self.client_port} {self.state}>"
