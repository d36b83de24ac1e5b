"""Reloads: who asks for one, what becomes of it, and who is told.

One is under way at a time. Those that are asked for meanwhile are folded into one that follows: the file that it reads
is newer than all of them.

A new configuration is taken over in place, by the workers that there are (`InPlace`), unless it needs other processes.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from edge.change import changes, succession
from edge.change.generation import Generation
from edge.change.material import Material
from edge.change.rollout import SENDING_SECONDS, Rollout
from edge.change.succession import CONFIGURATION
from edge.logs.logline import Log
from edge.processes.slots import Staged
from edge.worker import EdgeWorker

if TYPE_CHECKING:
    from edge.master import Master

@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a reload."""

    at: float
    """When that was decided, seconds since 1970."""
    accepted: bool
    reason: str
    """Why not; "" when it was accepted."""
    seconds: float
    """From its beginning until then."""
    changed: str
    """What is different now, in words; "" when it was not accepted."""
    generation: int
    """The number of the configuration that holds now."""


AskedBy = Callable[[Outcome], None]


class Reloads:
    """The asked-for ones, and the one that is under way. `may_begin()` tells whether the master has time for one,
    `begin()` reads and validates; whoever decides calls `conclude`."""

    def __init__(
        self, may_begin: Callable[[], bool], begin: Callable[[], None], log: Log
    ) -> None:
        self._may_begin = may_begin
        self._begin = begin
        self._log = log
        self._asked = False
        self._waiting: list[AskedBy] = []
        """Who asked for the next one,"""
        self._told: list[AskedBy] = []
        """and for the one that is under way."""
        self._started: float | None = None
        self.accepted = 0
        self.rejected = 0
        self.last: Outcome | None = None

    @property
    def under_way(self) -> bool:
        return self._started is not None

    @property
    def pending(self) -> bool:
        """Whether one is under way, or asked for."""
        return self._asked or self.under_way

    def ask(self, asked_by: AskedBy | None = None) -> None:
        """One begins as soon as it can; asked_by(outcome) is called in the master when it is decided."""
        self._asked = True
        if asked_by is not None:
            self._waiting.append(asked_by)
        if self.under_way or not self._may_begin():
            self._log("info", "the reload waits until the last change is through")

    def step(self) -> None:
        """To be called on every turn."""
        if not self._asked or self.under_way or not self._may_begin():
            return
        self._asked = False
        self._told, self._waiting = self._waiting, []
        self._started = time.monotonic()
        self._begin()

    def conclude(self, generation: int, *, changed: str = "", reason: str = "") -> None:
        """The one under way is over: refused for a reason, or accepted."""
        if self._started is None:
            return
        seconds, self._started = time.monotonic() - self._started, None
        accepted = not reason
        self.accepted += accepted
        self.rejected += not accepted
        self.last = Outcome(time.time(), accepted, reason, seconds, changed, generation)
        told, self._told = self._told, []
        for asked_by in told:
            asked_by(self.last)


class InPlace:
    """A configuration on its way to the workers: all of them take it over while they serve, or none does."""

    def __init__(
        self, master: "Master", number: int, generation: Generation, material: Material, staged: Staged
    ) -> None:
        """`number` is the rollout's, `staged` the sockets that were made for the configuration."""
        self._master = master
        self.generation = generation
        self.staged = staged
        added = list(dict.fromkeys(bind for _, bind in staged.added))
        labels = master.app.generations.counting.labels
        pieces, descriptors = succession.announce(generation, labels, material, added)
        self._rollout = Rollout(number, CONFIGURATION, None, self, pieces=pieces, descriptors=descriptors)

    def step(self, members: Iterable[EdgeWorker]) -> bool:
        """Whether it is over: with a `fault`, or all members were told to use it."""
        if self._rollout.step(members):
            return True
        if self._rollout.sending:
            self._master.due(time.monotonic() + SENDING_SECONDS)
        self._master.due(self._rollout.until)
        return False

    @property
    def fault(self) -> str:
        """Why not."""
        return self._rollout.fault

    def commit(self) -> None:
        """All have prepared it: the master has it first, then they are told."""
        self._master.adopt(self.generation)


def changed(before: Generation, after: Generation) -> str:
    """What a generation that was made beside another has else than that one, in words."""
    old, new = before.prepared, after.prepared
    policies = (old.modules.content if old.modules else None) != (new.modules.content if new.modules else None)
    return changes.describe(old.settings, new.settings, new.serving.new, policies=policies)
