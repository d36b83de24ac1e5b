"""Something new for all workers of a generation at once, or for none: prepared everywhere first, then put to use.

The master keeps a Rollout while one is under way, and steps it on every turn of its loop. A worker that starts in the
meantime joins; one that dies drops out. The other half is `Preparing`, in the worker.
"""

import dataclasses
import os
import pickle
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from edge.admin.questions import Answering
from edge.logs.errorlog import one_line
from edge.processes import channel
from edge.processes.aside import Aside
from edge.processes.channel import Channel, ChannelError, numbered, split_number

if TYPE_CHECKING:
    from edge.worker import EdgeWorker

T = TypeVar("T")

SENDING_SECONDS: Final = 0.005
"""Until the workers are sent more of what did not fit."""
SECONDS_MOST: Final = 30.0
"""For all workers to prepare."""


class Commit(Protocol):
    """What is prepared."""

    def commit(self) -> None:
        """Puts it to use. It cannot fail any more."""


class Rollout:
    """The master's half. `kind` and `content` are what every worker prepares, `own` what the master itself has: workers
    that start later inherit it. `number` differs from that of every other rollout. What is large goes in `pieces`,
    which are pickled already; `descriptors(worker)` go along."""

    def __init__(
        self,
        number: int,
        kind: str,
        content: object,
        own: Commit,
        *,
        pieces: Sequence[bytes] = (),
        descriptors: "Callable[[EdgeWorker], Sequence[int]]" = lambda _: (),
    ) -> None:
        self.number = number
        self.fault = ""
        """Why it failed."""
        self.broken = False
        """It failed for what was to be prepared: another try would fail as well."""
        self.sending = True
        """A worker has not read all yet: the next step is due soon."""
        self._body = numbered(number, pickle.dumps((kind, content)))
        self._pieces = [numbered(number, piece) for piece in pieces]
        self._descriptors = descriptors
        self._own = own
        self.until = time.monotonic() + SECONDS_MOST

    def step(self, workers: Iterable["EdgeWorker"]) -> bool:
        """Whether it is over, `fault` says how: all `workers`, those that are to have it, have prepared it and were
        told to use it; or one could not, and all were told to forget it."""
        members = list(workers)
        self.sending = any(worker.channel.sending for worker in members)
        for worker in members:
            if worker.serving and worker.told != self.number:
                self._hand_out(worker)
            elif worker.told == self.number and worker.answered == self.number and worker.refusal:
                self.fault = f"worker {worker.slot.index} cannot: {worker.refusal}"
                self.broken = True
        if not self.fault and time.monotonic() > self.until:
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

    def _hand_out(self, worker: "EdgeWorker") -> None:
        worker.told = self.number
        try:
            for some in batched(self._descriptors(worker), channel.DESCRIPTORS_MOST):
                worker.channel.send(channel.DESCRIPTORS, numbered(len(some)), some)
        except OSError as e:
            self.fault = f"no descriptor for worker {worker.slot.index}: {e.strerror}"
            return
        for piece in self._pieces:
            worker.channel.send(channel.PIECE, piece)
        worker.channel.send(channel.PREPARE, self._body)

    def _tell(self, workers: Iterable["EdgeWorker"], letter: bytes) -> None:
        for worker in workers:
            if worker.told == self.number:
                worker.channel.send(letter, numbered(self.number))


def batched(items: Sequence[T], most: int) -> Iterator[Sequence[T]]:
    return (items[i : i + most] for i in range(0, len(items), most))


Prepare = Callable[[Any], Commit]


@dataclasses.dataclass(slots=True)
class Parcel:
    """What comes along with a rollout's content."""

    pieces: list[bytes] = dataclasses.field(default_factory=list)
    descriptors: list[int] = dataclasses.field(default_factory=list)
    """To be closed by who has the parcel."""

    def close(self) -> None:
        for fd in self.descriptors:
            os.close(fd)
        self.descriptors = []


PrepareAside = Callable[[Any, Parcel], Commit]


class Preparing:
    """A worker's half: `prepare` has a function for each kind of content, which raises what makes it impossible; those
    of `prepare_aside` run beside the loop. What the master asks meanwhile is for `answering`; ticket keys that come
    are for `keys`, which raises nothing."""

    def __init__(
        self,
        line: Channel,
        prepare: Mapping[str, Prepare],
        log: Callable[[str], None],
        answering: Answering | None = None,
        *,
        aside: Aside | None = None,
        prepare_aside: Mapping[str, PrepareAside] | None = None,
        keys: Callable[[bytes], None] | None = None,
    ) -> None:
        self._line = line
        self._aside = aside
        self._prepare_aside = prepare_aside or {}
        self._parcel = Parcel()
        self._answering = answering
        self._keys = keys
        self._prepare = prepare
        self._log = log
        self._number = 0
        self._prepared: Commit | None = None

    @property
    def busy(self) -> bool:
        """Whether something is being prepared, or is prepared and not decided yet."""
        return self._prepared is not None or (self._aside is not None and self._aside.busy)

    def hear(self) -> bool:
        """Does what the master has said. False when it will say nothing more."""
        self._line.flush()
        for letter, body in self._line.receive():
            if letter == channel.PIECE:
                self._parcel.pieces.append(split_number(body)[1])
            elif letter == channel.DESCRIPTORS:
                self._parcel.descriptors += self._line.take(split_number(body)[0])
            elif letter == channel.PREPARE:
                self._begin(*split_number(body))
            elif letter == channel.COMMIT:
                self._end(split_number(body)[0])
            elif letter == channel.KEEP:
                self._number, self._prepared = 0, None
            elif letter == channel.QUESTION and self._answering:
                self._answering.hear(body)
            elif letter == channel.KEYS and self._keys:
                self._keys(body)
            else:
                raise ChannelError(f"a frame of kind {letter!r}")
        return not self._line.ended

    def _begin(self, number: int, content: bytes) -> None:
        self._number, self._prepared = number, None
        parcel, self._parcel = self._parcel, Parcel()
        try:
            kind, what = pickle.loads(content)  # noqa: S301  # the master's, who made this process
            if kind in self._prepare_aside and self._aside is not None:
                self._begin_aside(number, self._prepare_aside[kind], what, parcel)
                return
            prepared = self._prepare[kind](what)
        except Exception as e:
            parcel.close()
            self._answer(number, None, e)
        else:
            self._answer(number, prepared, None)

    def _begin_aside(self, number: int, prepare: PrepareAside, what: object, parcel: Parcel) -> None:
        if self._aside is None or self._aside.busy:
            raise RuntimeError("it is still at what it was to prepare before")

        def job() -> Commit:
            try:
                return prepare(what, parcel)
            finally:
                parcel.close()

        self._aside.start(job, lambda prepared, error: self._answer(number, prepared, error))

    def _answer(self, number: int, prepared: Commit | None, error: BaseException | None) -> None:
        if number != self._number:
            return  # the master has thought better of it
        self._prepared = prepared
        if prepared is None:
            reason = f"{type(error).__name__}: {error}".encode(errors="replace")
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
