"""The place where a director is asked, in a loop of C."""

from libc.stdint cimport uint8_t
from libc.string cimport memset

from cext.http.h1_reader cimport parse_request
from cext.http.h1_writer cimport Forwarding
from cext.http.message cimport Head
from cext.proxy.context cimport Context
from cext.proxy.directing cimport direct
from cext.proxy.downstream cimport Downstream
from cext.proxy.listener_settings cimport ListenerSettings
from cext.proxy.exchange cimport Exchange, ResponseSink
from cext.proxy.hooks cimport Hooks
from cext.proxy.router cimport Route


cdef class Directed:
    """One request, asked about over and over, without a connection."""

    cdef Context ctx
    cdef Downstream client
    cdef Exchange exchange
    cdef Head head
    cdef bytes text

    def __init__(self, loop, ListenerSettings settings, Route route, bytes text, Hooks hooks=None):
        cdef Forwarding f
        self.ctx = Context(loop, None, print)
        if hooks is not None and hooks.director is not None:        # as DataPlane.hooks does
            self.ctx.watch_hooks()
            self.ctx.request_hooks = hooks
        self.client = Downstream(self.ctx, settings)
        self.text = text
        if parse_request(<const uint8_t *> <const char *> text, len(text), &settings.limits, &self.head) < 0:
            raise ValueError("no request")
        memset(&f, 0, sizeof(f))
        f.proto = b"https"
        self.exchange = Exchange(self.ctx, ResponseSink(), route)
        if self.exchange.prepare(&self.head, &f) < 0:
            raise MemoryError

    def ask(self, int times):
        """What service.launch does about hooks, `times` times -> how often the request was to go on."""
        cdef int i
        cdef int going = 0
        for i in range(times):
            self.exchange.overseer = None       # each is another request
            if self.ctx.request_hooks is not None and not direct(self.client, self.exchange, &self.head):
                continue
            going += 1
        return going
