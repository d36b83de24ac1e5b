"""The event loop (see the .pxd).

A registration carries fd and instance number; an event whose instance is not the fd's current one
belonged to a connection that is gone, and is dropped: a stale event never reaches a new connection.
"""

import os
import signal

from cpython.exc cimport PyErr_CheckSignals
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EINTR, errno
from libc.limits cimport INT_MAX
from libc.stdint cimport int64_t
from libc.stdlib cimport free, realloc

from cext.base.stats cimport LONGEST_SECONDS, observe
from cext.base.timers cimport Timer, timer_init
from cext.lib.linux cimport (
    CLOCK_MONOTONIC,
    EPOLL_CLOEXEC,
    EPOLL_CTL_ADD,
    EPOLL_CTL_DEL,
    EPOLL_CTL_MOD,
    EPOLLIN,
    clock_gettime,
    close,
    epoll_create1,
    epoll_ctl,
    epoll_event,
    epoll_wait,
    timespec,
)

cdef enum:
    EVENTS_PER_TURN = 256


cdef inline void count_turn(LoopStats *stats, uint64_t us, uint64_t now_us) noexcept nogil:
    """One that has just ended: all else had to wait that long."""
    cdef uint64_t second = now_us // 1000000
    cdef uint64_t turn = second << 32 | <uint32_t> us
    cdef uint64_t *longest = &stats.longest[second % LONGEST_SECONDS]
    observe(&stats.turn, us)
    if turn > longest[0]:
        longest[0] = turn


cdef class Watcher(TimerOwner):
    def __cinit__(self):
        self.fd = -1

    cdef void on_event(self, uint32_t events) noexcept:
        pass

    cdef void on_turn_end(self) noexcept:
        pass


cdef class Loop:
    """run() serves registered watchers, timers and Python's signal handlers until stop()."""

    def __cinit__(self):
        self.epfd = epoll_create1(EPOLL_CLOEXEC)
        if self.epfd < 0:
            raise OSError(errno, "epoll_create1: " + os.strerror(errno))
        self.timers = TimerWheel()
        self.deferred = []
        self.unfinished = []
        self.ending = []
        self.ended = []
        self.read_clock()
        self.timers.start(self.now)

    def __dealloc__(self):
        cdef int fd
        for fd in range(self.table_size):
            if self.watchers[fd] != NULL:
                Py_DECREF(<object> self.watchers[fd])
        free(self.watchers)
        free(self.instances)
        if self.epfd >= 0:
            close(self.epfd)

    cdef void read_clock(self) noexcept nogil:
        cdef timespec ts
        clock_gettime(CLOCK_MONOTONIC, &ts)
        self.now_us = <uint64_t> ts.tv_sec * 1000000 + <uint64_t> ts.tv_nsec // 1000
        self.now = self.now_us // 1000

    cdef int register(self, Watcher w, uint32_t events) noexcept:
        """Watches w.fd; 0, or -1 when the kernel or the allocator refuses."""
        cdef epoll_event ev
        cdef int fd = w.fd
        if fd >= self.table_size and self.grow(fd) < 0:
            return -1
        self.instances[fd] += 1
        ev.events = events
        ev.data.u64 = (<uint64_t> self.instances[fd] << 32) | <uint32_t> fd
        if epoll_ctl(self.epfd, EPOLL_CTL_ADD, fd, &ev) < 0:
            return -1
        self.watchers[fd] = <PyObject *> w
        Py_INCREF(w)
        self.watching += 1
        w.registered = True
        return 0

    cdef void unregister(self, Watcher w) noexcept:
        """Stops watching w.fd, which stays open."""
        cdef epoll_event ev
        if not w.registered:
            return
        ev.events = 0
        epoll_ctl(self.epfd, EPOLL_CTL_DEL, w.fd, &ev)
        self.forget(w)

    cdef void forget(self, Watcher w) noexcept:
        """The owner closes w.fd at once, which takes it out of the epoll without a call of its own."""
        if not w.registered:
            return
        w.registered = False
        self.watching -= 1
        self.instances[w.fd] += 1
        self.watchers[w.fd] = NULL
        self.keep_until_turn_ends(w)
        Py_DECREF(w)

    cdef int change(self, Watcher w, uint32_t events) noexcept nogil:
        """Watches a registered descriptor for other events; 0 or -1."""
        cdef epoll_event ev
        ev.events = events
        ev.data.u64 = (<uint64_t> self.instances[w.fd] << 32) | <uint32_t> w.fd
        return epoll_ctl(self.epfd, EPOLL_CTL_MOD, w.fd, &ev)

    cdef void keep_until_turn_ends(self, object o) noexcept:
        """An object is often closed by what one of its own methods calls: it lives on until nothing of it runs."""
        self.ended.append(o)

    cdef void again(self, Watcher w) noexcept:
        """on_event(0) in the next turn: w has more to do, but others are to have their turn first."""
        self.unfinished.append(w)

    cdef void at_turn_end(self, Watcher w) noexcept:
        """on_turn_end() once, when everything that happened in this turn has been told."""
        if not w.turn_end_due:
            w.turn_end_due = True
            self.ending.append(w)

    cdef int grow(self, int fd) noexcept:
        cdef int size = self.table_size if self.table_size else 64
        cdef int i
        cdef PyObject **watchers
        cdef uint32_t *instances
        while size <= fd:
            size *= 2
        watchers = <PyObject **> realloc(self.watchers, size * sizeof(PyObject *))
        if watchers == NULL:
            return -1
        self.watchers = watchers
        instances = <uint32_t *> realloc(self.instances, size * sizeof(uint32_t))
        if instances == NULL:
            return -1
        self.instances = instances
        for i in range(self.table_size, size):
            watchers[i] = NULL
            instances[i] = 0
        self.table_size = size
        return 0

    def run(self):
        """Serves until stop(). Exceptions of Python signal handlers leave through here."""
        self.stopping = False
        wakeup = self._open_wakeup()
        try:
            while not self.stopping:
                self.turn()
        finally:
            if wakeup is not None:
                signal.set_wakeup_fd(-1)

    def stop(self):
        """run() returns at the end of this turn."""
        self.stopping = True

    def call_soon(self, callback):
        """callback() at the end of this turn (or of the next, from outside)."""
        self.deferred.append(callback)

    def call_soon_from_thread(self, callback):
        """The same for other threads, while run() runs: it is woken."""
        self.deferred.append(callback)
        if self.wake_write is not None:
            try:
                os.write(self.wake_write, b"\0")
            except BlockingIOError:         # full: it wakes anyway
                pass

    def every(self, int ms, callback):
        """callback() every `ms` milliseconds -> an object whose cancel() ends it."""
        return Periodic(self, ms, callback)

    cdef int turn(self) except -1:
        cdef epoll_event events[EVENTS_PER_TURN]
        cdef int n, i, fd, error
        cdef uint32_t instance
        cdef Watcher w
        cdef int wait
        cdef uint64_t asked_us
        cdef int64_t late_us
        self.read_clock()
        if self.stats != NULL and self.woken_us:
            count_turn(self.stats, self.now_us - self.woken_us, self.now_us)
        wait = 0 if self.deferred or self.unfinished or self.ending else self.wait_ms()
        with nogil:
            n = epoll_wait(self.epfd, events, EVENTS_PER_TURN, wait)
            error = errno
        asked_us = self.now_us
        self.read_clock()
        self.woken_us = self.now_us
        if n == 0 and wait > 0 and self.stats != NULL:
            late_us = <int64_t> (self.now_us - asked_us) - 1000 * wait
            observe(&self.stats.late, late_us if late_us > 0 else 0)
        if n < 0:
            if error != EINTR:
                raise OSError(error, "epoll_wait: " + os.strerror(error))
            n = 0
            PyErr_CheckSignals()
        if self.unfinished:
            unfinished, self.unfinished = self.unfinished, []
            for w in unfinished:
                if w.registered:
                    w.on_event(0)
        for i in range(n):
            fd = <int> (events[i].data.u64 & 0xFFFFFFFF)
            instance = <uint32_t> (events[i].data.u64 >> 32)
            if self.watchers[fd] == NULL or self.instances[fd] != instance:
                continue
            w = <Watcher> self.watchers[fd]
            w.on_event(events[i].events)
        self.timers.expire(self.now)
        if self.exact_due and self.exact_due <= self.now:
            self.exact_due = 0
            self.exact.on_timer(0)
        if self.ending:
            ending, self.ending = self.ending, []
            for w in ending:
                w.turn_end_due = False
                w.on_turn_end()
        if self.deferred:
            callbacks, self.deferred = self.deferred, []
            for callback in callbacks:
                callback()
        if self.ended:
            self.ended.clear()
        PyErr_CheckSignals()
        return 0

    cdef int wait_ms(self) noexcept nogil:
        """How long to sleep at most; -1: until something happens."""
        cdef int wait = self.timers.wait_ms(self.now)
        cdef int exact
        if self.exact_due == 0:
            return wait
        exact = <int> min(max(<int64_t> (self.exact_due - self.now), 0), INT_MAX)
        return exact if wait < 0 or exact < wait else wait

    def _open_wakeup(self):
        """A pipe that a signal writes to, so that one arriving just before epoll_wait still wakes it."""
        if self.wake_read is None:
            self.wake_read, self.wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
            WakeupReader(self, self.wake_read)
        try:
            signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        except ValueError:              # not the main thread: signals are not ours
            return None
        return self.wake_write

    def close(self):
        """Gives back the wake-up pipe and what waits for the turn's end; registered watchers are their owners' to close."""
        if self.wake_read is not None:
            if self.wake_read < self.table_size and self.watchers[<int> self.wake_read] != NULL:
                self.unregister(<Watcher> self.watchers[<int> self.wake_read])
            os.close(self.wake_read)
            os.close(self.wake_write)
            self.wake_read = self.wake_write = None
        self.ending.clear()
        self.unfinished.clear()
        self.ended.clear()


cdef class WakeupReader(Watcher):
    """Empties the wake-up pipe; the signal's handler itself runs at the end of the turn."""

    def __init__(self, Loop loop, int fd):
        self.loop = loop
        self.fd = fd
        if loop.register(self, EPOLLIN) < 0:
            raise OSError("the wake-up pipe cannot be watched")

    cdef void on_event(self, uint32_t events) noexcept:
        try:
            os.read(self.fd, 4096)
        except BlockingIOError:
            pass


cdef class Periodic(TimerOwner):
    """A repeated callback; one that raises is reported by sys.unraisablehook and goes on."""

    cdef Timer timer
    cdef Loop loop
    cdef int ms
    cdef object callback

    def __init__(self, Loop loop, int ms, callback):
        self.loop = loop
        self.ms = ms
        self.callback = callback
        timer_init(&self.timer, self, 0)
        Py_INCREF(self)                 # held by the wheel until cancel()
        loop.timers.arm(&self.timer, loop.now + ms)

    cdef void on_timer(self, int kind) noexcept:
        self.loop.timers.arm(&self.timer, self.loop.now + self.ms)
        self.callback()

    def cancel(self):
        if self.callback is not None:
            self.callback = None
            self.loop.timers.disarm(&self.timer)
            Py_DECREF(self)
