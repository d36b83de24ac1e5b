"""A clock that is finer than the loop's own timers (see the .pxd)."""

import os

from libc.errno cimport errno
from libc.stdint cimport uint32_t, uint64_t
from libc.string cimport memset
from posix.unistd cimport read

from cext.lib.linux cimport CLOCK_MONOTONIC, EPOLLET, EPOLLIN, timespec
from cext.net.loop cimport Loop, Watcher

cdef extern from "<sys/timerfd.h>" nogil:
    enum:
        TFD_NONBLOCK
        TFD_CLOEXEC
    struct itimerspec:
        timespec it_interval
        timespec it_value
    int timerfd_create(int clock, int flags)
    int timerfd_settime(int fd, int flags, const itimerspec *value, itimerspec *old)


cdef class Clock(Watcher):
    def __init__(self, Loop loop not None, int us, tick):
        cdef itimerspec every
        memset(&every, 0, sizeof(every))
        every.it_interval.tv_nsec = every.it_value.tv_nsec = us * 1000
        self.loop = loop
        self.tick = tick
        self.fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self.fd < 0 or timerfd_settime(self.fd, 0, &every, NULL) < 0 or self.loop.register(self, EPOLLIN | <uint32_t> EPOLLET) < 0:
            raise OSError(errno, "timerfd")

    cdef void on_event(self, uint32_t events) noexcept:
        cdef uint64_t expiries
        if read(self.fd, &expiries, sizeof(expiries)) > 0:      # it goes on once it is read
            self.tick()

    def stop(self):
        if self.fd >= 0:
            self.loop.unregister(self)
            os.close(self.fd)
            self.fd = -1
