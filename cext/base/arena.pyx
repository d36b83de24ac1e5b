"""Arenas (see the .pxd): slots of mapped regions, given out again and again."""

from libc.stdint cimport uint16_t, uint64_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcpy, memset
from posix.mman cimport (
    MADV_DONTNEED,
    MADV_NOHUGEPAGE,
    MAP_ANONYMOUS,
    MAP_FAILED,
    MAP_NORESERVE,
    MAP_PRIVATE,
    PROT_READ,
    PROT_WRITE,
    madvise,
    mmap,
)

cdef enum:
    ALIGNMENT = 16
    SLOTS_PER_REGION = 64
    WARM = 64                       # free slots that keep their pages for the next
    WORDS = ARENA_BYTES // 8
    LITTLE_GAIN = ARENA_BYTES // 2  # an image larger than this is not worth it

cdef struct Run:                    # in an image: words of zeros, then words that stand behind this
    uint16_t zeros
    uint16_t others

cdef uint8_t drawn[LITTLE_GAIN]     # an image while it is made
cdef uint8_t **free_slots = NULL    # a stack; the last freed is the next given out
cdef size_t n_free = 0
cdef size_t n_slots = 0             # of all regions: the stack has room for them
cdef size_t n_asleep = 0


cdef int map_region() noexcept nogil:
    """Adds SLOTS_PER_REGION slots to the stack; -1 when out of memory."""
    global free_slots, n_free, n_slots
    cdef uint8_t *region
    cdef uint8_t *slot
    cdef uint8_t **stack = <uint8_t **> realloc(free_slots, (n_slots + SLOTS_PER_REGION) * sizeof(uint8_t *))
    if stack == NULL:
        return -1
    free_slots = stack
    region = <uint8_t *> mmap(NULL, SLOTS_PER_REGION * ARENA_BYTES, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)
    if region == <uint8_t *> MAP_FAILED:
        return -1
    madvise(region, SLOTS_PER_REGION * ARENA_BYTES, MADV_NOHUGEPAGE)    # a huge page would not be given back in parts
    slot = region + SLOTS_PER_REGION * ARENA_BYTES
    while slot != region:
        slot -= ARENA_BYTES
        free_slots[n_free] = slot
        n_free += 1
    n_slots += SLOTS_PER_REGION
    return 0


cdef int arena_open(Arena *a) noexcept nogil:
    global n_free
    if n_free == 0 and map_region() < 0:
        return -1
    n_free -= 1
    a.memory = free_slots[n_free]
    a.image = NULL
    a.used = 0
    a.sealed = False
    return 0


cdef void *arena_take(Arena *a, size_t n) noexcept nogil:
    cdef uint8_t *p
    if a.memory == NULL or a.sealed or n > ARENA_BYTES - a.used:
        return NULL
    p = a.memory + a.used
    a.used = min(<uint32_t> ((a.used + n + ALIGNMENT - 1) & ~<size_t> (ALIGNMENT - 1)), <uint32_t> ARENA_BYTES)
    memset(p, 0, n)
    return p


cdef void arena_sleep(Arena *a) noexcept nogil:
    global n_asleep
    cdef const uint64_t *words = <const uint64_t *> a.memory
    cdef size_t end = (a.used + 7) // 8
    cdef size_t at = 0
    cdef size_t start
    cdef uint32_t n = 0
    cdef uint8_t *image
    cdef Run run
    if a.memory == NULL or a.image != NULL:
        return
    while at < end:
        start = at
        while at < end and words[at] == 0:
            at += 1
        run.zeros = <uint16_t> (at - start)
        start = at
        while at < end and words[at] != 0:
            at += 1
        run.others = <uint16_t> (at - start)
        if n + sizeof(Run) + run.others * 8 > LITTLE_GAIN:
            return
        memcpy(drawn + n, &run, sizeof(Run))
        n += sizeof(Run)
        memcpy(drawn + n, words + start, run.others * 8)
        n += run.others * 8
    image = <uint8_t *> malloc(n if n else 1)
    if image == NULL:
        return
    if madvise(a.memory, ARENA_BYTES, MADV_DONTNEED) != 0:      # locked in memory: what is there would stay
        free(image)
        return
    memcpy(image, drawn, n)
    a.image = image
    a.image_len = <uint16_t> n
    n_asleep += 1


cdef void arena_wake(Arena *a) noexcept nogil:
    global n_asleep
    cdef uint8_t *to = a.memory
    cdef uint32_t at = 0
    cdef Run run
    if a.image == NULL:
        return
    while at < a.image_len:                     # the pages come back full of zeros
        memcpy(&run, a.image + at, sizeof(Run))
        at += sizeof(Run)
        to += run.zeros * 8
        memcpy(to, a.image + at, run.others * 8)
        to += run.others * 8
        at += run.others * 8
    free(a.image)
    a.image = NULL
    n_asleep -= 1


cdef void arena_close(Arena *a) noexcept nogil:
    global n_free, n_asleep
    if a.memory == NULL:
        return
    if a.image != NULL:
        free(a.image)
        n_asleep -= 1
    elif n_free >= WARM:
        madvise(a.memory, ARENA_BYTES, MADV_DONTNEED)
    free_slots[n_free] = a.memory
    n_free += 1
    a.memory = NULL
    a.image = NULL


cdef class Sleeper:
    """Python face for tests: one arena."""

    cdef Arena arena

    def __init__(self):
        if arena_open(&self.arena) < 0:
            raise MemoryError

    def __dealloc__(self):
        arena_close(&self.arena)

    def take(self, size_t n):
        """Offset of n bytes; None when there is no room."""
        cdef uint8_t *p = <uint8_t *> arena_take(&self.arena, n)
        return None if p == NULL else p - self.arena.memory

    def sleep(self):
        """The image's size; None when it stays awake."""
        arena_sleep(&self.arena)
        return None if self.arena.image == NULL else self.arena.image_len

    def wake(self):
        arena_wake(&self.arena)

    def write(self, size_t at, bytes data):
        """At an offset that take() gave."""
        if self.arena.image != NULL or at + len(data) > self.arena.used:
            raise ValueError
        memcpy(self.arena.memory + at, <const char *> data, len(data))

    def read(self):
        """All that was taken."""
        if self.arena.image != NULL:
            raise ValueError
        return self.arena.memory[:self.arena.used]


def slots():
    """(in use, all, asleep): tests assert that every slot comes back."""
    return n_slots - n_free, n_slots, n_asleep
