"""The worker's shared state (see the .pxd)."""

import collections

from libc.limits cimport INT_MAX
from libc.stdlib cimport free, malloc
from libc.time cimport gmtime_r, strftime, time, time_t, tm

from cext.tls.psk cimport EARLY_TAKEN

from cext.tls.psk import REFUSAL_NAMES

cdef enum:
    SERIES_ALONE = 64           # of a table of one's own

# By STATE_*.
STATE_NAMES = ("new", "active", "idle", "hijacked", "closed")


class HookTimeout(Exception):
    """A hook took longer than it may."""


cdef class Relief:
    cdef bint of_descriptors(self) noexcept:
        """File descriptors are needed."""
        return False

    cdef bint of_listener(self, object settings) noexcept:
        """One more connection with these ListenerSettings."""
        return False


cdef class Context:
    def __cinit__(self, Loop loop, access_log, error_log):
        self.loop = loop
        self.count_in(StatsTable(rows=1, series=SERIES_ALONE))
        self.deciding = {}
        self.access_log = access_log
        self.error_log = error_log
        self.relief = Relief()
        self.high_fd = INT_MAX
        self.hook_timeout_ms = 5000
        self.outcomes = collections.deque()
        self.client_scratch = <uint8_t *> malloc(SCRATCH)
        self.upstream_scratch = <uint8_t *> malloc(SCRATCH)
        if self.client_scratch == NULL or self.upstream_scratch == NULL:
            raise MemoryError

    def __dealloc__(self):
        free(self.client_scratch)
        free(self.upstream_scratch)

    cdef void count_in(self, StatsTable stats) noexcept:
        """From now on: before there is anything to count."""
        self.stats = stats
        self.row = stats.row
        self.counters = &self.row.counters
        self.in_state = self.row.in_state
        self.loop.stats = &self.row.loop
        self.loop.stats_owner = stats

    cdef const char *date(self) noexcept:
        """The current Date, made anew once a second."""
        cdef time_t now
        cdef tm parts
        if self.loop.now >= self.date_until:
            now = time(NULL)
            gmtime_r(&now, &parts)
            strftime(self.date_text, sizeof(self.date_text), "%a, %d %b %Y %H:%M:%S GMT", &parts)
            self.date_until = self.loop.now + 500
        return self.date_text

    cdef void watch_hooks(self) noexcept:
        """The first hook is about to be called."""
        if self.watchdog is None:
            self.watchdog = Watchdog(self.hook_timeout_ms, HookTimeout)

    cdef AsyncGuest need_guest(self):
        if self.guest is None:
            self.watch_hooks()
            self.guest = AsyncGuest(self.loop, self.watchdog)
        return self.guest

    cdef void end_hooks(self) noexcept:
        """No hook will be called any more; what waits is cancelled."""
        if self.guest is not None:
            self.guest.close()
            self.guest = None
        if self.watchdog is not None:
            self.watchdog.close()
            self.watchdog = None

    cdef void log(self, str level, str message) noexcept:
        """One line to the error log: level is "debug", "info", "warning" or "error"."""
        self.error_log(level, message)

    def counter_values(self):
        """The counters by name: of connections' states how many are in each now, and how often each was entered."""
        values = dict(self.counters[0])
        for state, name in enumerate(STATE_NAMES[:STATE_CLOSED]):
            values[f"connections_{name}"] = self.in_state[state]
        for refusal, name in enumerate(REFUSAL_NAMES):
            if refusal != EARLY_TAKEN:
                values[f"early_refused_{name}".replace(" ", "_")] = self.row.early_refusals[refusal]
        for state, name in enumerate(STATE_NAMES):
            values[f"became_{name}"] = self.row.entered[state]
        return values
