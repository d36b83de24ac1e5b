"""asyncio as a guest of the loop, and the watch over the Python that runs in a turn."""

from cpython.pythread cimport PyThread_get_thread_ident
from libc.stdint cimport uint64_t

from cext.net.loop cimport Watcher

cdef class Watchdog:
    """Interrupts Python code of others that keeps the loop's thread for too long."""
    cdef object late                    # the exception it raises there
    cdef object thread
    cdef object ended                   # threading.Event
    cdef long ident                     # of the thread that entered
    cdef uint64_t calls                 # how often it was entered
    cdef int inside                     # how deep; 0: nothing is watched now
    cdef bint fired                     # the exception is on its way
    cdef public int limit_ms
    cdef inline void enter(self) noexcept:
        """Before a call of such code; each is followed by one leave()."""
        if self.inside == 0:
            self.calls += 1
            self.ident = PyThread_get_thread_ident()
        self.inside += 1

    cdef inline void leave(self) noexcept:
        self.inside -= 1
        if self.fired:
            self.disarm()

    cdef void disarm(self) noexcept
    cdef int pause_ms(self) noexcept
    cdef bint may_interrupt(self)

cdef class AsyncGuest(Watcher):
    """An asyncio event loop that runs inside the turns of a Loop."""
    cdef readonly object aio
    cdef object selector
    cdef Watchdog watchdog              # None: nobody watches
    cdef bint scheduled
    cdef object start(self, object coroutine)
    # -> its task. The first step has been run, unless a task is being run just now; it may be done.
    cdef void poke(self) noexcept
    # After anything was done to the guest from outside: it goes on when it has to.
    cdef void iterate(self) noexcept
    cdef void end_tasks(self, object tasks) noexcept
