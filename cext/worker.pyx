"""The composition root: one worker's data plane, built from objects that the control plane hands in."""

from libc.stdint cimport uint64_t

from cext.base.stats cimport StatsTable
from cext.net.loop cimport Loop, Watcher
from cext.net.readable cimport Readable
from cext.net.stream cimport set_nodelay, set_tcp
from cext.proxy.access_log cimport AccessLog
from cext.proxy.address_table cimport AddressTable
from cext.proxy.context cimport Context
from cext.proxy.downstream cimport Downstream
from cext.proxy.frontend cimport Frontend
from cext.proxy.handshake_hooks cimport HandshakeHooks
from cext.proxy.hooks cimport Hooks
from cext.proxy.listing cimport connections, servers
from cext.proxy.listener_settings cimport ListenerSettings
from cext.proxy.pressure cimport Pressure
from cext.proxy.trace cimport Tracer, TraceSettings
from cext.proxy.upstream cimport LOST_CLOSED, UpstreamConnection

from cext.proxy.handoff_door import HandoffDoor

cdef enum:
    DRAIN_CHECK_MS = 50
    DRAIN_AT_ONCE = 256     # some 10 ms of work, for connections of HTTP/2
    DRAIN_PARTS = 128       # at most, so that it takes 2 s with however many
    DRAIN_EVERY_MS = 1      # the next tick of the timers
    PRESSURE_CHECK_MS = 1000


cdef class Draining:
    """Clients that are to leave, a part of them in each tick of the timers: whoever is served meanwhile does not wait for
    all, nor when what was drained together ends together."""

    cdef list clients
    cdef Py_ssize_t at_once
    cdef object timer

    def __init__(self, Loop loop, list clients):
        self.clients = clients
        self.at_once = max(<Py_ssize_t> DRAIN_AT_ONCE, len(clients) // DRAIN_PARTS + 1)
        self.timer = loop.every(DRAIN_EVERY_MS, self.go_on)
        self.go_on()

    def go_on(self):
        for client in self.clients[-self.at_once:]:
            (<Downstream> client).drain()
        del self.clients[-self.at_once:]
        if not self.clients:
            self.timer.cancel()


cdef class DataPlane:
    """DataPlane(access_log=callable(bytes) -> int or None, error_log=callable(level, message), ...)

    `addresses`: the AddressTable of all workers, which this process has joined; without it nothing is limited by address.
    `memory_limit`: bytes of memory of its own above which idle connections are closed; 0: none. `hook_timeout_ms`: for
    which a hook may think, or wait. `stats`: the StatsTable of all workers, in which this process has a row.

    listen() on sockets that somebody else owns, then run(). Everything happens in the thread that runs; other settings come
    by become(), leave() and the properties.
    """

    cdef readonly Loop loop
    cdef Context ctx
    cdef AccessLog access_log
    cdef Tracer tracer              # None: there never was one
    cdef Hooks _hooks
    cdef list frontends
    cdef Pressure pressure
    cdef uint64_t drain_until
    cdef object drain_check

    def __init__(self, *, access_log=None, error_log, AddressTable addresses=None, uint64_t memory_limit=0,
                 int hook_timeout_ms=5000, StatsTable stats=None):
        self.loop = Loop()
        self.ctx = Context(self.loop, None, error_log)
        if stats is not None:
            self.ctx.count_in(stats)
        self.log_to(access_log)
        self.ctx.addresses = addresses
        self.ctx.hook_timeout_ms = hook_timeout_ms
        self.ctx.relief = self.pressure = Pressure(self.ctx, memory_limit)
        self.frontends = []

    def listen(self, int fd, ListenerSettings settings):
        """Accepts from a listening, non-blocking socket: clients, or with `senders` what others hand over. It is never
        closed here. -> what leave() takes. No other socket has the same ListenerSettings."""
        if settings.senders is None:
            set_nodelay(fd)
            set_tcp(fd, &settings.tcp)
        frontend = (Frontend if settings.senders is None else HandoffDoor)(self.ctx, fd, settings)
        self.frontends.append(frontend)
        return frontend

    def become(self, Frontend frontend, ListenerSettings settings):
        """Serves with other settings there, from the next connection and the next request on."""
        frontend.settings.become(settings)
        if settings.senders is None:
            set_tcp(frontend.fd, &settings.tcp)

    def leave(self, Frontend frontend):
        """Accepts what is queued there, and nothing more. Running requests are finished, with `Connection: close`; what
        became a tunnel goes on."""
        frontend.accept_queued()
        frontend.close()
        self.frontends.remove(frontend)
        frontend.settings.retire()
        clients = self.watched(Downstream)
        Draining(self.loop, [client for client in clients if (<Downstream> client).settings is frontend.settings])

    def log_to(self, sink, **form):
        """From now on requests are logged there (None: not at all), in this form: see AccessLog."""
        log = AccessLog(self.loop, sink, **form) if sink is not None else None
        if log is not None:
            (<AccessLog> log).dropped = &self.ctx.counters.log_lines_dropped
        if self.access_log is not None:
            self.access_log.close()
        self.access_log = self.ctx.access_log = log

    def every(self, int ms, callback):
        """callback() every `ms` milliseconds while run() runs."""
        return self.loop.every(ms, callback)

    def watch(self, int fd, callback):
        """callback() in each turn of run() in which the descriptor has something to read -> an object whose close()
        ends it. The descriptor is its caller's."""
        return Readable(self.loop, fd, callback)

    def run(self):
        """Serves until drained or stopped, then closes what is left. Exceptions of signal handlers leave through here."""
        check = self.loop.every(PRESSURE_CHECK_MS, self.pressure.check)
        try:
            self.loop.run()
        finally:
            check.cancel()
            self.pressure.close()
            self.stop_accepting()
            self.close_clients()
            self.close_idle()
            self.ctx.end_hooks()
            self.loop.close()
            self.log_to(None)
            if self.tracer is not None:
                self.tracer.flush_records()

    def drain(self, int deadline_ms):
        """Stops accepting; running requests are finished, with `Connection: close`, for at most deadline_ms."""
        if self.ctx.draining:
            return
        self.ctx.draining = True
        for frontend in self.frontends:
            frontend.accept_queued()
        self.stop_accepting()
        self.drain_until = self.loop.now + deadline_ms
        Draining(self.loop, self.watched(Downstream))
        self.drain_check = self.loop.every(DRAIN_CHECK_MS, self.check_drained)

    def check_drained(self):
        """Ends run() once no client is left or the time is up."""
        if self.ctx.counters.connections_open == 0 or self.loop.now >= self.drain_until:
            self.drain_check.cancel()
            self.loop.stop()

    def stop(self):
        """run() returns at the end of this turn; connections are cut."""
        self.loop.stop()

    def connections(self, int place, filters):
        """Some of the clients' connections from `place` on (0 at first) -> (where to go on, 0 at the end; list of
        (descriptor, dict)). `filters`: `networks`, a list of (IP, bits); `state`; `server_name`, which as ".example.com"
        is every name below. docs/admin.md has the keys of each."""
        cdef int next_place = 0
        cdef list found = connections(self.ctx, max(place, 0), filters, &next_place)
        return next_place, found

    def upstreams(self):
        """What this worker has open to each server: a list of dicts."""
        cdef Frontend frontend
        return servers(self.ctx, [frontend.settings.router for frontend in self.frontends])

    def counters(self):
        """Counts since the start (and connections_open), by name."""
        return self.ctx.counter_values()

    @property
    def memory_limit(self):
        """Bytes of memory of its own above which idle connections are closed; 0: none."""
        return self.pressure.memory_limit

    @memory_limit.setter
    def memory_limit(self, uint64_t limit):
        self.pressure.limit_memory(limit)

    @property
    def hook_timeout(self):
        """Milliseconds for which a hook may think, or wait."""
        return self.ctx.hook_timeout_ms

    @hook_timeout.setter
    def hook_timeout(self, int ms):
        self.ctx.hook_timeout_ms = ms
        if self.ctx.watchdog is not None:
            self.ctx.watchdog.limit_ms = ms

    @property
    def failed(self):
        """None, or callable(what, exception) that tells the operator why there was no signature."""
        return self.ctx.failed

    @failed.setter
    def failed(self, failed):
        self.ctx.failed = failed

    @property
    def state_observer(self):
        """None, or called at each step of a client's connection with (connection, old, new): names of states, `old` None
        for a new one. It looks on: the connection must not be touched within it."""
        return self.ctx.state_observer

    @state_observer.setter
    def state_observer(self, observer):
        self.ctx.state_observer = observer

    @property
    def register_up(self):
        """Whether a register of early data elsewhere answers this process: what metrics say."""
        return self.ctx.counters.register_up > 0

    @register_up.setter
    def register_up(self, bint up):
        self.ctx.counters.register_up = up

    @property
    def guest(self):
        """The AsyncGuest in which hooks wait, and what else a worker does in asyncio; made when it is asked for."""
        return self.ctx.need_guest()

    @property
    def hooks(self):
        """The policy's Hooks, or None."""
        return self._hooks

    @hooks.setter
    def hooks(self, Hooks hooks):
        if hooks is not None:
            self.ctx.watch_hooks()
        if hooks is None or hooks.handshake is None:
            self.ctx.handshake = None
        else:
            (<HandshakeHooks> hooks.handshake).join(self.ctx)
        asked = hooks is not None and (hooks.director is not None or hooks.response is not None)
        self.ctx.request_hooks = hooks if asked else None
        if hooks is not None and self._hooks is not None:
            hooks.follow(self._hooks)
        self.ctx.state_observer = hooks.observe if hooks is not None and hooks.connection_state is not None else None
        self._hooks = hooks

    def trace(self, TraceSettings settings, sink=None):
        """From the next request on: traces with these settings, whose records (see proxy/trace) go to sink(bytes), which
        says whether it has taken them, and is what it was the first time; None: none are made. Requests that are under way
        stay in theirs."""
        if self.tracer is None:
            self.tracer = Tracer(self.loop, sink)
            self.tracer.sent, self.tracer.dropped = &self.ctx.counters.spans, &self.ctx.counters.spans_dropped
        if settings is not None:
            self.tracer.settings = settings
        self.ctx.tracer = self.tracer if settings is not None else None

    def stop_accepting(self):
        """The sockets stay open, with what is queued in them, for their owner."""
        for frontend in self.frontends:
            frontend.close()
        self.frontends.clear()

    cdef list watched(self, type kind):
        cdef list found = []
        cdef Watcher w
        cdef int fd
        for fd in range(self.loop.table_size):
            if self.loop.watchers[fd] != NULL:
                w = <Watcher> self.loop.watchers[fd]
                if isinstance(w, kind):
                    found.append(w)
        return found

    def close_clients(self):
        """Cuts every client's connection."""
        for client in self.watched(Downstream):
            (<Downstream> client).abort(b"worker stopped")

    def close_idle(self):
        """Closes the upstream connections, of which none is in use any more, and takes them out of their pools."""
        for upstream in self.watched(UpstreamConnection):
            (<UpstreamConnection> upstream).lose(LOST_CLOSED, 0)
