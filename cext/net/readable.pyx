"""A descriptor whose owner is Python code, in the loop (see the .pxd)."""

from libc.stdint cimport uint32_t

from cext.lib.linux cimport EPOLLIN
from cext.net.loop cimport Loop, Watcher


cdef class Readable(Watcher):
    """Readable(loop, fd, callback): callback() in each turn in which the descriptor has something to read, or its other
    end has gone, until close(). Level-triggered: what is left is told of again. The descriptor is somebody else's; it is
    closed after this. A callback that raises is reported by sys.unraisablehook. OSError when it cannot be watched."""

    def __init__(self, Loop loop, int fd, callback):
        self.loop = loop
        self.fd = fd
        self.callback = callback
        if loop.register(self, EPOLLIN) < 0:
            raise OSError(f"descriptor {fd} cannot be watched")

    cdef void on_event(self, uint32_t events) noexcept:
        if self.callback is not None:
            self.callback()

    def close(self):
        if self.callback is not None:
            self.callback = None
            self.loop.unregister(self)
