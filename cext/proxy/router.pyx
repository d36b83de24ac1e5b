"""Routes (see the .pxd).

Specificity: an exact host before a wildcard, a longer wildcard before a shorter, both before no host;
then an exact path before a pattern, and the pattern with more literal characters first; then a route
with methods before one without; then the order of the configuration.
"""

from heapq import merge

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from cpython.pyport cimport PY_SSIZE_T_MAX
from libc.stdint cimport UINT32_MAX, UINT64_MAX
from libc.string cimport memchr

from cext.http.message cimport METHOD_OPTIONS, METHOD_OTHER, METHOD_TRACE
from cext.proxy.timeouts cimport read_timeouts

from cext.http.rules import METHODS


cdef enum:
    TOGETHER = 64                           # routes that are entered in one go
    SORTED_TOGETHER = 512
    SEARCHED_MOST = 16                      # routes that are looked at one after the other


cdef class Load:
    pass


@cython.no_gc
cdef class Route:
    """Route(upstream, hosts=("example.com", "*.example.com"), path="/x/*", methods=("GET",), timeouts={"total": 9000})

    A path without "*" must be equal; each "*" stands for any characters, "/" among them. `load`: that of the route whose
    place this one takes, or None.
    """

    def __init__(self, UpstreamGroup upstream, *, hosts=(), path="/*", methods=(), dict timeouts={}, bint push=False,
                 EarlyHints hints=None, EarlyRules early_data=None, upgrade=("websocket",), uint32_t max_head=0, uint64_t max_body=0,
                 uint32_t max_running=0, Load load=None, uint32_t series=0):
        if not path.startswith(("/", "*")):
            raise ValueError(f"path {path!r}: must begin with '/' or '*'")
        self.upstream = upstream
        self.hosts = tuple(h.lower() for h in hosts)
        self.path = path
        self.methods = tuple(methods)
        self.pattern = path.encode("ascii")
        self.pattern_p = <const uint8_t *> <const char *> self.pattern
        self.pattern_len = <uint32_t> len(self.pattern)
        self.method_mask = 0
        for name in methods:
            self.method_mask |= 1 << METHODS.get(name, METHOD_OTHER)
        self.other_methods = tuple(m.encode("ascii") for m in methods if m not in METHODS)
        read_timeouts(&self.timeouts, timeouts)
        self.max_head = max_head if max_head else UINT32_MAX
        self.max_body = max_body if max_body else UINT64_MAX
        self.max_running = max_running
        self.load = Load() if load is None else load
        self.push = push
        self.hints = hints
        self.early = early_data
        self.index = series
        self.upgrade = tuple(name.lower().encode("ascii") for name in upgrade)

    def specificity(self):
        """Sort key within one host: the most specific route is the smallest."""
        return "*" in self.path, -len(self.path.replace("*", "")), not self.methods

    cdef bint accepts(self, const uint8_t *path, size_t path_len, int method,
                      const uint8_t *method_name, size_t method_len) noexcept:
        return (self.accepts_method(method, method_name, method_len)
                and glob(self.pattern_p, self.pattern_len, path, path_len))

    cdef bint accepts_method(self, int method, const uint8_t *method_name, size_t method_len) noexcept:
        if not self.method_mask:
            return True
        if not self.method_mask >> method & 1:
            return False
        return method != METHOD_OTHER or PyBytes_FromStringAndSize(<const char *> method_name, method_len) in self.other_methods


cdef class HookedRoute(Route):
    @property
    def hooks(self):
        return self.own

    @hooks.setter
    def hooks(self, hooks):
        self.own = hooks
        self.hooked = hooks is not None


cdef int answered_here(Route route, const Head *h) noexcept:
    if h.method == METHOD_TRACE:
        # It sends back what a page's scripts may not read, cookies among it: only on demand, and never by ourselves.
        if route is None or not route.method_mask >> METHOD_TRACE & 1 or h.max_forwards == 0:
            return 405
    elif h.method == METHOD_OPTIONS:
        if h.max_forwards == 0 or (h.path.len == 1 and h.base[h.path.off] == c'*'):
            return 204
    return 404 if route is None else 0


cdef bint glob(const uint8_t *pattern, size_t pattern_len, const uint8_t *s, size_t n) noexcept nogil:
    """Whether s fits the pattern; linear but for restarts at the last "*"."""
    cdef size_t i = 0
    cdef size_t j = 0
    cdef size_t star = <size_t> -1
    cdef size_t resume = 0
    while j < n:
        if i < pattern_len and pattern[i] == c'*':
            star = i
            i += 1
            resume = j
            if i == pattern_len:
                return True
        elif i < pattern_len and pattern[i] == s[j]:
            i += 1
            j += 1
        elif star != <size_t> -1:
            i = star + 1
            resume += 1
            j = resume
        else:
            return False
    while i < pattern_len and pattern[i] == c'*':
        i += 1
    return i == pattern_len


cdef size_t host_key(const uint8_t *host, size_t n, uint8_t *key) noexcept nogil:
    """Lower-cased host without port and trailing dot -> length; 0 when it is empty or too long."""
    cdef const uint8_t *end
    cdef size_t i
    cdef uint8_t c
    if n and host[0] == c'[':
        end = <const uint8_t *> memchr(host, c']', n)
        n = end + 1 - host if end != NULL else n
    else:
        end = <const uint8_t *> memchr(host, c':', n)
        n = end - host if end != NULL else n
    if n and host[n - 1] == c'.':
        n -= 1
    if n >= HOST_MAX:
        return 0
    for i in range(n):
        c = host[i]
        key[i] = c | 0x20 if c'A' <= c <= c'Z' else c
    return n


cdef list in_order(routes):
    """Most specific first; as they come where they are alike. Many are sorted in parts, between which others have turns."""
    cdef list parts = []
    if len(routes) <= SORTED_TOGETHER:
        return sorted(routes, key=Route.specificity)
    for i in range(0, len(routes), SORTED_TOGETHER):
        with nogil:
            pass
        parts.append(sorted(routes[i:i + SORTED_TOGETHER], key=Route.specificity))
    return list(merge(*parts, key=Route.specificity))


@cython.no_gc
cdef class Paths:
    def __init__(self, routes):
        self.routes = tuple(in_order(routes))
        if len(self.routes) > SEARCHED_MOST:
            self.index_routes()

    def index_routes(self):
        cdef Route route
        exact, prefixes, self.others = {}, {}, []
        for ranked in enumerate(self.routes):
            route = ranked[1]
            if ranked[0] % TOGETHER == 0:
                with nogil:
                    pass
            before, star, after = route.pattern.partition(b"*")
            if not star:
                exact.setdefault(before, []).append(ranked)
            elif after:
                self.others.append(ranked)
            else:
                prefixes.setdefault(before, []).append(ranked)
        self.exact, self.prefixes = each_made(exact, tuple), each_made(prefixes, tuple)
        self.lengths = sorted({len(before) for before in self.prefixes}, reverse=True)

    cdef Route first(self, const uint8_t *path, size_t path_len, int method,
                     const uint8_t *method_name, size_t method_len):
        cdef Route route
        cdef Route found = None
        cdef Py_ssize_t place, found_at = PY_SSIZE_T_MAX
        cdef size_t length
        cdef tuple ranked
        if self.exact is None:
            for route in self.routes:
                if route.accepts(path, path_len, method, method_name, method_len):
                    return route
            return None

        ranked = self.exact.get(PyBytes_FromStringAndSize(<const char *> path, path_len))
        if ranked is not None:
            for _, route in ranked:
                if route.accepts_method(method, method_name, method_len):
                    return route
        for length in self.lengths:
            ranked = None
            if length <= path_len:
                ranked = self.prefixes.get(PyBytes_FromStringAndSize(<const char *> path, length))
            if ranked is None:
                continue
            for place, route in ranked:
                if route.accepts_method(method, method_name, method_len):
                    found, found_at = route, place
                    break
            if found is not None:
                break
        for place, route in self.others:
            if place > found_at:
                break
            if route.accepts(path, path_len, method, method_name, method_len):
                return route
        return found


cdef dict each_made(dict lists, make):
    """{key: make(the list there)}; other threads have their turn."""
    cdef dict found = {}
    for i, key in enumerate(lists):
        if i % TOGETHER == 0:
            with nogil:
                pass
        found[key] = make(lists[key])
    return found


cdef class Router:
    """Router(routes, upstreams={}): finds a request's route; None when none fits. `upstreams`: by name, those that hooks may
    choose."""

    def __init__(self, routes, upstreams={}):
        self.routes = list(routes)
        self.upstreams = dict(upstreams)
        self.bare_routes = {}
        cdef Route route
        exact, wildcard, anywhere = {}, {}, []
        for i, route in enumerate(self.routes):
            if i % TOGETHER == 0:
                with nogil:                 # other threads have their turn: there may be a loop that waits
                    pass
            self.sees_early = self.sees_early or route.early is not None
            if not route.hosts:
                anywhere.append(route)
            for host in route.hosts:
                table, name = (wildcard, host[2:]) if host.startswith("*.") else (exact, host)
                table.setdefault(name.encode("ascii"), []).append(route)
        self.exact, self.wildcard = each_made(exact, Paths), each_made(wildcard, Paths)
        self.anywhere = Paths(anywhere)
        self.by_host = bool(self.exact or self.wildcard)

    cdef Route bare(self, UpstreamGroup group):
        """A route without anything of its own, for what a hook sends there."""
        if group.name not in self.bare_routes:
            self.bare_routes[group.name] = Route(group)
        return self.bare_routes[group.name]

    cdef Route find(self, const uint8_t *host, size_t host_len, const uint8_t *path, size_t path_len, int method,
                    const uint8_t *method_name, size_t method_len):
        """The route for a host (with port, as received) and a path (without query)."""
        cdef uint8_t key[HOST_MAX]
        cdef size_t n, i
        cdef Route route
        cdef Paths paths
        if self.by_host:
            n = host_key(host, host_len, key)
            if n:
                paths = self.exact.get(key[:n])
                route = None if paths is None else paths.first(path, path_len, method, method_name, method_len)
                if route is not None:
                    return route
                if self.wildcard:
                    for i in range(n):
                        if key[i] != c'.':
                            continue
                        paths = self.wildcard.get(key[i + 1:n])
                        route = None if paths is None else paths.first(path, path_len, method, method_name, method_len)
                        if route is not None:
                            return route
        return self.anywhere.first(path, path_len, method, method_name, method_len)

    def take_apart(self):
        """Nobody looks for routes here any more -> the lists and dictionaries of what it had, to be let go of bit by bit."""
        parts = [self.routes, self.exact, self.wildcard, [self.anywhere]]
        self.routes, self.anywhere = [], Paths([])
        self.exact, self.wildcard, self.bare_routes = {}, {}, {}
        return parts

    def match(self, bytes host, bytes path, str method="GET"):
        """Python face of find."""
        cdef bytes name = method.encode("ascii")
        return self.find(<const uint8_t *> <const char *> host, len(host), <const uint8_t *> <const char *> path, len(path),
                         METHODS.get(method, METHOD_OTHER), <const uint8_t *> <const char *> name, len(name))
