"""Requests for hooks (see the .pxd).

A hook runs in the middle of a connection's turn, so whatever it asks for that would end a connection or a stream is done
after it: what a hook does to its own request when it is done, anything else when the loop's turn ends.
"""

from cython cimport freelist
from libc.string cimport memchr

from cext.http.h1_reader cimport parse_request, parse_response
from cext.http.h1_writer cimport reason_phrase, request_text
from cext.http.head_copy cimport HeadCopy
from cext.http.message cimport METHOD_CONNECT, Head, Limits
from cext.http.rules cimport HTTP_TARGET, http_class, valid_authority
from cext.proxy.client_view cimport address_of, tls_state
from cext.proxy.early_data cimport EarlyRequest
from cext.proxy.header_view cimport Headers, field_name, field_value, latin1
from cext.proxy.tunnel cimport Tunnel

from cext.proxy.hooks import RequestOver

cdef enum:
    TARGET_MAX = 16384
    HEAD_MAX = 131072

cdef Limits WIDE
WIDE.line, WIDE.head, WIDE.fields = HEAD_MAX, HEAD_MAX, 256

cdef Head scratch


cdef class RequestView(HeadView):
    """A request that is about to be sent to its upstream, or has been.

    A request that is kept can be read, aborted, and given other timeouts while it runs; its head can be changed only until
    the director is done.
    """

    cdef Exchange running(self):
        if self.x.sink is None:
            raise RequestOver("the request has ended")
        return self.x

    cdef RequestText text(self) noexcept:
        cdef Exchange x = self.x
        return request_text(x.head.data, x.head.len, x.method_len, x.target_len, x.host_len)

    cdef const Head *shown(self) except NULL:
        """While the head is there, the client's; afterwards, that which goes, or would have gone, to an upstream."""
        cdef HeadCopy copy
        if self.head != NULL:
            return self.head
        if self.own is None:
            if parse_request(self.x.head.data, self.x.head.len, &WIDE, &scratch) < 0:
                raise RequestOver("the headers are gone")
            copy = HeadCopy.__new__(HeadCopy)
            if copy.copy(&scratch) < 0:
                raise MemoryError
            self.own = copy
        return self.own.head

    # ---- what it asks for

    @property
    def method(self):
        """The method, as it was sent; "GET" for the CONNECT of a WebSocket."""
        cdef RequestText t
        if self.head != NULL:
            return "GET" if self.head.method == METHOD_CONNECT else self.part(&self.head.method_name)
        t = self.text()
        return latin1(t.method, t.method_len)

    cdef const uint8_t *asked(self, size_t *n) noexcept:
        """Path and query."""
        cdef RequestText t
        if self.head != NULL:
            n[0] = self.head.path.len
            return self.head.base + self.head.path.off
        t = self.text()
        n[0] = t.target_len
        return t.target

    @property
    def target(self):
        """Path and query, not decoded."""
        cdef size_t n = 0
        cdef const uint8_t *p = self.asked(&n)
        return latin1(p, n)

    @target.setter
    def target(self, value):
        self.set_target(target_bytes("target", value))

    @property
    def path(self):
        """The path without the query, not decoded."""
        cdef size_t n = 0
        cdef const uint8_t *p = self.asked(&n)
        cdef const uint8_t *mark = <const uint8_t *> memchr(p, c"?", n)
        return latin1(p, mark - p if mark != NULL else n)

    @path.setter
    def path(self, value):
        cdef bytes path = target_bytes("path", value)
        if b"?" in path:
            raise ValueError("path: the query is set by request.query, both by request.target")
        query = self.target.partition("?")
        self.set_target(path + (query[1] + query[2]).encode("latin-1"))

    @property
    def query(self):
        """What follows the "?", not decoded; "" where there is none."""
        return self.target.partition("?")[2]

    @query.setter
    def query(self, value):
        cdef bytes query = checked_target("query", value)
        path = self.target.partition("?")[0].encode("latin-1")
        self.set_target(path + b"?" + query if query else path)

    cdef void set_target(self, bytes target) except *:
        cdef HeadCopy copy = self.change()
        cdef const uint8_t *p = <const uint8_t *> <const char *> target
        cdef const uint8_t *mark = <const uint8_t *> memchr(p, c"?", len(target))
        if len(target) > TARGET_MAX or copy.write(p, len(target), &copy.head.path) < 0:
            raise ValueError(f"the request's target has at most {TARGET_MAX} bytes, not {len(target)}")
        copy.head.target = copy.head.path
        copy.head.query.off = copy.head.query.len = 0
        if mark != NULL:
            copy.head.query.off = copy.head.path.off + <uint32_t> (mark + 1 - p)
            copy.head.query.len = <uint32_t> (p + len(target) - mark - 1)

    @property
    def host(self):
        """The host that is asked for, with its port if one was given; "" in HTTP/1.0 without one."""
        cdef RequestText t
        if self.head != NULL:
            return self.part(&self.head.host)
        t = self.text()
        return latin1(t.host, t.host_len)

    @host.setter
    def host(self, value):
        cdef HeadCopy copy
        cdef bytes host
        if not isinstance(value, str):
            raise TypeError(f"host: a str, not {type(value).__name__}")
        host = (<str> value).encode("latin-1", "replace")
        if not valid_authority(<const uint8_t *> <const char *> host, len(host), False):
            raise ValueError(f"host: {value!r} is no host with or without a port")
        copy = self.change()
        if copy.write(<const uint8_t *> <const char *> host, len(host), &copy.head.host) < 0:
            raise ValueError("host: there is no room for it in the head")

    cdef str part(self, const Span *span):
        return latin1(self.head.base + span.off, span.len)

    @property
    def http_version(self):
        """"1.0", "1.1" or "2"."""
        return "2" if self.http2 else "1.1" if self.minor else "1.0"

    @property
    def headers(self):
        """The fields of the request: Headers."""
        cdef Headers headers = Headers.__new__(Headers)
        headers.view = self
        return headers

    @property
    def pushed(self):
        """Whether nobody asked: the client was promised it with another response."""
        return bool(self.x.pushed)

    # ---- who asks

    @property
    def client(self):
        """The client's IP address."""
        return address_of(self.client)

    @property
    def client_port(self):
        return self.client.peer.port

    @property
    def tls(self):
        """TlsState of the connection. RequestOver when that has ended."""
        if self.client.tls is None:
            raise RequestOver("the connection has ended")
        return tls_state(self.client)

    @property
    def early_data(self):
        """Whether some of the request came before the handshake was confirmed: it may be a replay, as long as
        tls.handshake_confirmed says so."""
        return self.x.early is not None and (<EarlyRequest> self.x.early).connection is not None

    def confirm_first(self):
        """Has the request wait until the handshake is confirmed, when the director is done, whatever its route says of early
        data."""
        if self.head == NULL:
            raise RequestOver("too late: the request has been sent")
        if self.x.early is not None:
            (<EarlyRequest> self.x.early).safe = False

    # ---- where it goes

    @property
    def route(self):
        """The route that was found: its `path`, `hosts`, `methods`; None: there is none."""
        return self.x.route

    @property
    def upstream(self):
        """The name of the upstream that gets the request; None while there is none."""
        group = self.group if self.group is not None else self.x.group()
        return group.name if group is not None else None

    @upstream.setter
    def upstream(self, name):
        if self.head == NULL:
            raise RequestOver("too late: the request has been sent")
        group = self.client.settings.router.upstreams.get(name)
        if group is None:
            raise ValueError(f"there is no upstream {name!r}")
        self.group = group
        self.change()

    @property
    def timeouts(self):
        """RequestTimeouts: the time limits of this request, to be read and set."""
        cdef RequestTimeouts timeouts = RequestTimeouts.__new__(RequestTimeouts)
        timeouts.request = self
        return timeouts

    @property
    def notes(self):
        """A dict for whatever hooks have to say to those that come later."""
        if self.own_notes is None:
            self.own_notes = {}
        return self.own_notes

    # ---- how it ends

    @property
    def over(self):
        """Whether the request has ended."""
        return self.x.sink is None

    def respond(self, status, headers=(), body=b""):
        """Answers in place of an upstream, when the director is done. `headers`: a mapping, or (name, value) pairs; `body`:
        bytes, or str for UTF-8. ValueError or TypeError for what is no response; RequestOver when it is too late."""
        if self.head == NULL:
            raise RequestOver("too late: the request has been sent")
        self.given = make_answer(self.x, status, headers, body)

    def abort(self):
        """Ends the request without an answer: the connection is cut in HTTP/1.1, the stream reset in HTTP/2. Within a hook
        that happens when it is done. RequestOver when the request has ended."""
        cdef Exchange x = self.running()
        if self.asking:
            self.aborted = True
        else:
            x.ctx.loop.call_soon(self._cut)

    def _cut(self):
        self.x.abort(b"aborted by a hook")      # nothing happens if it has ended

    def __repr__(self):
        return f"<Request {self.method} {self.host}{self.target}>"


cdef bytes target_bytes(str what, value):
    cdef bytes target = checked_target(what, value)
    if not target.startswith(b"/"):
        raise ValueError(f"{what}: {value!r} does not begin with '/'")
    return target


cdef bytes checked_target(str what, value):
    """With the characters that a request line may have there."""
    cdef bytes target
    cdef Py_ssize_t i
    if not isinstance(value, str):
        raise TypeError(f"{what}: a str, not {type(value).__name__}")
    target = (<str> value).encode("latin-1", "replace")
    for i in range(len(target)):
        if not http_class[<uint8_t> target[i]] & HTTP_TARGET:
            raise ValueError(f"{what}: {value!r} has characters that must be percent-encoded")
    return target


# ---- answers ----

cdef int check_status(Exchange x, int status) except -1:
    if not 200 <= status <= 599:
        raise ValueError(f"status: {status} is not from 200 to 599")
    if status < 300 and (x.method == METHOD_CONNECT or isinstance(x, Tunnel) and (<Tunnel> x).by_connect):
        raise ValueError(f"status: {status} would tell the client that its WebSocket is open")      # RFC 8441, section 5
    return 0


cdef Answer make_answer(Exchange x, int status, headers, body):
    cdef Answer answer = Answer.__new__(Answer)
    cdef int field = 0
    cdef bytes name
    cdef list lines
    cdef bint typed = False
    check_status(x, status)
    text = isinstance(body, str)
    answer.body = (<str> body).encode() if text else bytes(memoryview(body))
    if status in (204, 205, 304) and answer.body:
        raise ValueError(f"a response with status {status} has no body")
    lines = [b"HTTP/1.1 %d %s" % (status, <bytes> reason_phrase(status))]
    for key, value in headers.items() if hasattr(headers, "items") else headers:
        name = field_name(key, False, &field)
        typed |= name.lower() == b"content-type"
        lines.append(name + b": " + field_value(name, value))
    if text and answer.body and not typed:
        lines.append(b"Content-Type: text/plain; charset=utf-8")
    if status not in (204, 304):
        lines.append(b"Content-Length: %d" % len(answer.body))
    answer.head = b"\r\n".join(lines) + b"\r\n\r\n"
    if parse_response(<const uint8_t *> <const char *> answer.head, len(answer.head), &WIDE, x.method, &scratch) < 0:
        raise ValueError(f"the head is too large: {len(answer.head)} bytes, {len(lines) - 1} fields")
    return answer


# ---- time limits ----

@freelist(16)
cdef class RequestTimeouts:
    """A request's time limits, by the names that `timeouts` has in the configuration.

    Seconds, or None for none; rates in bytes per second. They can be set to the same, or to what a configuration has: "5s",
    "1KiB/s", "none". What is waited for just now begins anew with a new limit; `total` counts from the request's head.
    """
    cdef RequestView request

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
        self.request.limits_set |= <uint32_t> 1 << place
        if self.request.head != NULL and x.held is None:
            self.request.retimed = True         # what has to follow does so when the director is done
        else:
            x.retime()

    def __dir__(self):
        return list(self.request.hooks.limits)
