"""The timer wheel (see the .pxd)."""


cdef class TimerOwner:
    """Something with timers. A subclass holds Timer structs and hears of each that expires."""

    cdef void on_timer(self, int kind) noexcept:
        pass


cdef inline void unlink(Timer *t) noexcept nogil:
    t.prev.next = t.next
    t.next.prev = t.prev
    t.next = NULL
    t.prev = NULL


cdef inline void link(Timer *head, Timer *t) noexcept nogil:
    t.next = head
    t.prev = head.prev
    head.prev.next = t
    head.prev = t


cdef class TimerWheel:
    """Timers by the tick of their deadline, modulo one turn of the wheel."""

    def __cinit__(self):
        cdef int i
        for i in range(WHEEL_SLOTS):
            self.slots[i].next = &self.slots[i]
            self.slots[i].prev = &self.slots[i]
        for i in range(WHEEL_SLOTS >> 6):
            self.occupied[i] = 0
        self.tick = 0

    cdef void start(self, uint64_t now) noexcept nogil:
        """The clock's first value, before anything is armed."""
        self.tick = now >> WHEEL_TICK_SHIFT

    cdef void arm(self, Timer *t, uint64_t deadline) noexcept nogil:
        """Expire at `deadline` (ms). A linked timer that moves later stays where it is: expire() moves it."""
        cdef uint64_t tick = (deadline >> WHEEL_TICK_SHIFT) + 1
        cdef uint64_t slot
        if tick <= self.tick:
            tick = self.tick + 1
        t.deadline = deadline
        if t.next != NULL:
            if tick >= t.tick:
                return
            unlink(t)
        t.tick = tick
        slot = tick & (WHEEL_SLOTS - 1)
        link(&self.slots[slot], t)
        self.occupied[slot >> 6] |= <uint64_t> 1 << (slot & 63)

    cdef void disarm(self, Timer *t) noexcept nogil:
        t.deadline = 0
        if t.next != NULL:
            unlink(t)

    cdef int wait_ms(self, uint64_t now) noexcept nogil:
        """How long to sleep at most: until the next slot that may hold a timer; -1 when there is none."""
        cdef uint64_t ahead = 1
        cdef uint64_t slot, at
        while ahead <= WHEEL_SLOTS:
            slot = (self.tick + ahead) & (WHEEL_SLOTS - 1)
            if slot & 63 == 0 and self.occupied[slot >> 6] == 0:
                ahead += 64
                continue
            if self.occupied[slot >> 6] >> (slot & 63) & 1:
                at = (self.tick + ahead) << WHEEL_TICK_SHIFT
                return <int> (at - now) if at > now else 0
            ahead += 1
        return -1

    cdef void expire(self, uint64_t now) noexcept:
        """Runs on_timer of every timer whose deadline has passed."""
        cdef uint64_t last = now >> WHEEL_TICK_SHIFT
        cdef uint64_t slot, tick
        cdef Timer due
        cdef Timer *head
        cdef Timer *t
        cdef TimerOwner owner
        if last > self.tick + WHEEL_SLOTS:       # asleep for over a turn: every slot once is enough
            self.tick = last - WHEEL_SLOTS
        while self.tick < last:
            self.tick += 1
            tick = self.tick
            slot = tick & (WHEEL_SLOTS - 1)
            head = &self.slots[slot]
            self.occupied[slot >> 6] &= ~(<uint64_t> 1 << (slot & 63))
            if head.next == head:
                continue
            # The slot's list becomes a local one: callbacks may arm and disarm what they like meanwhile.
            due.next = head.next
            due.prev = head.prev
            due.next.prev = &due
            due.prev.next = &due
            head.next = head
            head.prev = head
            while due.next != &due:
                t = due.next
                unlink(t)
                if t.deadline > now:
                    self.arm(t, t.deadline)
                elif t.deadline:
                    t.deadline = 0
                    owner = <TimerOwner> t.owner            # a reference: the callback may close its owner
                    owner.on_timer(t.kind)


cdef class _Recorder(TimerOwner):
    """Python face for tests: one timer that notes when it expired."""

    cdef Timer timer
    cdef readonly list fired
    cdef TimerWheel wheel
    cdef uint64_t now

    def __init__(self, TimerWheel wheel, int kind=0):
        self.wheel = wheel
        self.fired = []
        timer_init(&self.timer, self, kind)

    def arm(self, uint64_t deadline):
        self.wheel.arm(&self.timer, deadline)

    def disarm(self):
        self.wheel.disarm(&self.timer)

    cdef void on_timer(self, int kind) noexcept:
        self.fired.append(kind)

    def __dealloc__(self):
        if self.timer.next != NULL:
            unlink(&self.timer)


def recorder(TimerWheel wheel, int kind=0):
    """A timer for tests: .arm(deadline), .disarm(), .fired."""
    return _Recorder(wheel, kind)


def advance(TimerWheel wheel, uint64_t now):
    """Expires what is due at `now` (ms) -> how long the wheel would sleep after it (ms, -1 for ever)."""
    wheel.expire(now)
    return wheel.wait_ms(now)
