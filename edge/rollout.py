"""Something new for all workers of a generation at once, or for none: prepared everywhere first, then put to use.

The master keeps a Rollout while one is under way, and steps it on every turn of its loop. A worker that starts in the
meantime joins; one that dies drops out. The other half is `Preparing`, in the worker.
"""

import pickle
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Protocol

from edge import channel
from edge.channel import Channel, ChannelError, numbered, split_number
from edge.errorlog import one_line
from edge.questions import Answering

if TYPE_CHECKING:
    from edge.worker import EdgeWorker

SECONDS_MOST: Final = 30.0
"""For all workers to prepare."""


class Commit(Protocol):
    """What is prepared."""

    def commit(self) -> None:
        """Puts it to use. It cannot fail any more."""


class Rollout:
    """The master's half. `kind` and `content` are what every worker prepares, `own` what the master itself has: workers
    that start later inherit it. `number` differs from that of every other rollout."""

    def __init__(self, number: int, kind: str, content: object, own: Commit) -> None:
        self.number = number
        self.fault = ""
        """Why it failed."""
        self.broken = False
        """It failed for what was to be prepared: another try would fail as well."""
        self._body = numbered(number, pickle.dumps((kind, content)))
        self._own = own
        self._until = time.monotonic() + SECONDS_MOST

    def step(self, workers: Iterable["EdgeWorker"]) -> bool:
        """Whether it is over, `fault` says how: all `workers`, those that are to have it, have prepared it and were
        told to use it; or one could not, and all were told to forget it."""
        members = list(workers)
        for worker in members:
            if worker.serving and worker.told != self.number:
                worker.told = self.number
                worker.channel.send(channel.PREPARE, self._body)
            elif worker.told == self.number and worker.answered == self.number and worker.refusal:
                self.fault = f"worker {worker.slot.index} cannot: {worker.refusal}"
                self.broken = True
        if not self.fault and time.monotonic() > self._until:
            late = [str(worker.slot.index) for worker in members if worker.answered != self.number]
            self.fault = f"no answer from worker {', '.join(late)} in {SECONDS_MOST:g} s"
        if self.fault:
            self._tell(members, channel.KEEP)
            return True
        if any(worker.answered != self.number for worker in members):
            return False
        self._own.commit()
        self._tell(members, channel.COMMIT)
        return True

    def _tell(self, workers: Iterable["EdgeWorker"], letter: bytes) -> None:
        for worker in workers:
            if worker.told == self.number:
                worker.channel.send(letter, numbered(self.number))


Prepare = Callable[[Any], Commit]


class Preparing:
    """A worker's half: `prepare` has a function for each kind of content, which raises what makes it impossible.
    What the master asks meanwhile is for `answering`."""

    def __init__(
        self,
        line: Channel,
        prepare: Mapping[str, Prepare],
        log: Callable[[str], None],
        answering: Answering | None = None,
    ) -> None:
        self._line = line
        self._answering = answering
        self._prepare = prepare
        self._log = log
        self._number = 0
        self._prepared: Commit | None = None

    @property
    def busy(self) -> bool:
        """Whether something is prepared that is not decided yet."""
        return self._prepared is not None

    def hear(self) -> bool:
        """Does what the master has said. False when it will say nothing more."""
        self._line.flush()
        for letter, body in self._line.receive():
            if letter == channel.PREPARE:
                self._begin(*split_number(body))
            elif letter == channel.COMMIT:
                self._end(split_number(body)[0])
            elif letter == channel.KEEP:
                self._prepared = None
            elif letter == channel.QUESTION and self._answering:
                self._answering.hear(body)
            else:
                raise ChannelError(f"a frame of kind {letter!r}")
        return not self._line.ended

    def _begin(self, number: int, content: bytes) -> None:
        self._number, self._prepared = number, None
        try:
            kind, what = pickle.loads(content)  # noqa: S301  # the master's, who made this process
            self._prepared = self._prepare[kind](what)
        except Exception as e:
            reason = f"{type(e).__name__}: {e}".encode(errors="replace")
            self._line.send(channel.FAILED, numbered(number, reason[: channel.REASON_MOST]))
            return
        self._line.send(channel.PREPARED, numbered(number))

    def _end(self, number: int) -> None:
        prepared, self._prepared = self._prepared, None
        if prepared is None or number != self._number:
            self._log(f"told to use number {number}, which was not prepared")
            return
        prepared.commit()


def read_answer(letter: bytes, body: bytes) -> tuple[int, str]:
    """A worker's answer: the number, and why it failed, or "". Raises ChannelError."""
    if letter not in (channel.PREPARED, channel.FAILED):
        raise ChannelError(f"a frame of kind {letter!r}")
    number, text = split_number(body)
    if letter == channel.PREPARED:
        return number, ""
    return number, one_line(text[: channel.REASON_MOST].decode(errors="replace")) or "no reason given"
