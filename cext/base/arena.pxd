"""Memory of something that is idle most of its life: while that sleeps, its pages are the system's.

An arena gives out what is allocated once, at the beginning, and for good; all of it stays at its address. Asleep, it is
kept as an image without the zeros, which most of it is, and a page is there again when it is touched.
"""

from libc.stdint cimport uint8_t, uint16_t, uint32_t

cdef enum:
    ARENA_BYTES = 7 * 4096


cdef struct Arena:                  # zero-initialised is none
    uint8_t *memory                 # ARENA_BYTES, page-aligned; NULL: not open
    uint8_t *image                  # NULL: awake
    uint32_t used
    uint16_t image_len
    bint sealed                     # nothing more is given out


cdef int arena_open(Arena *a) noexcept nogil
"""-1 when out of memory."""
cdef void *arena_take(Arena *a, size_t n) noexcept nogil
"""n bytes, zeroed and aligned for anything; NULL when there is no room for them or the arena is sealed. They are given back with the arena."""
cdef inline bint arena_owns(const Arena *a, const void *p) noexcept nogil:
    return a.memory != NULL and a.memory <= <const uint8_t *> p < a.memory + ARENA_BYTES


cdef void arena_sleep(Arena *a) noexcept nogil
"""Until arena_wake nothing in it may be touched. It stays awake where there is little to gain, or no memory."""
cdef void arena_wake(Arena *a) noexcept nogil
cdef void arena_close(Arena *a) noexcept nogil
