"""What the master asks its workers for others: what each knows of its connections and its upstreams.

An answer comes in pieces, each as large as a frame and as quick to make as not to be felt; the next one is asked for
when whoever wants to know has taken the last. So nothing gathers anywhere, however much there is to tell. The master
does not look at what a worker says, beyond three numbers: where the worker is to go on (0: that was all), how many it
has told of, and which question that was.
"""

import collections
import dataclasses
import json
import struct
import time
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from edge.processes import channel
from edge.processes.channel import Channel, ChannelError, numbered, split_number

if TYPE_CHECKING:
    from edge.worker import EdgeWorker

ANSWER_SECONDS: Final = 5.0
"""For one piece."""

_HEAD: Final = struct.Struct(">II")
PIECE_MOST: Final = channel.WORKER_SAYS_MOST - 4 - _HEAD.size
"""Bytes of a piece."""

Told = Callable[[int, int, bytes], None]
"""Where to go on, how many, and what was said."""
Failed = Callable[[str], None]
"""Why nothing will be said."""


@dataclasses.dataclass(slots=True, eq=False)
class _Question:
    number: int
    worker: "EdgeWorker"
    place: int
    body: bytes
    told: Told
    failed: Failed
    until: float = 0.0
    """When the answer is late; 0: it was not asked yet."""


class Questions:
    """The master's half. A worker has one question at a time."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._number = 0
        self._waiting: dict[EdgeWorker, collections.deque[_Question]] = {}

    def ask(
        self, worker: "EdgeWorker", arguments: Mapping[str, object], place: int, told: Told, failed: Failed
    ) -> Callable[[], None]:
        """Asks for the piece that begins at `place` -> what takes that back. `arguments` say `what` is asked for."""
        self._number = self._number % 0xFFFFFFFF + 1
        body = numbered(self._number, json.dumps({**arguments, "place": place}).encode())
        question = _Question(self._number, worker, place, body, told, failed)
        queue = self._waiting.setdefault(worker, collections.deque())
        queue.append(question)
        self._go_on(worker)

        def take_back() -> None:
            question.told, question.failed = (lambda *_: None), (lambda _: None)

        return take_back

    def hear(self, worker: "EdgeWorker", body: bytes) -> None:
        """An answer. Raises ChannelError."""
        number, rest = split_number(body)
        if len(rest) < _HEAD.size:
            raise ChannelError("an answer without its numbers")
        place, count = _HEAD.unpack_from(rest)
        queue = self._waiting.get(worker)
        if not queue or queue[0].number != number:
            return  # it comes too late
        question = queue.popleft()
        self._go_on(worker)
        if place and place <= question.place:
            raise ChannelError("an answer that leads back")
        said = rest[_HEAD.size :]
        question.told(place, min(count, len(said)), said)

    def step(self, living: Collection["EdgeWorker"]) -> float:
        """Gives up what nobody will answer, and returns when that may be so next (monotonic)."""
        now = self._clock()
        for worker, queue in list(self._waiting.items()):
            if worker not in living or worker.channel.ended:
                del self._waiting[worker]
                for question in queue:
                    question.failed("it has ended")
            elif queue[0].until <= now:
                late = queue.popleft()
                self._go_on(worker)
                late.failed(f"no answer in {ANSWER_SECONDS:g} s")
        return min((queue[0].until for queue in self._waiting.values()), default=now + 60.0)

    def _go_on(self, worker: "EdgeWorker") -> None:
        queue = self._waiting[worker]
        if not queue:
            del self._waiting[worker]
        elif not queue[0].until:
            queue[0].until = self._clock() + ANSWER_SECONDS
            worker.channel.send(channel.QUESTION, queue[0].body)


Answerer = Callable[[int, Mapping[str, Any]], tuple[int, int, bytes]]
"""From where on, and the arguments -> where to go on, or 0; how many; at most PIECE_MOST bytes."""


class Answering:
    """A worker's half: `answers` has a function for each thing that may be asked for."""

    def __init__(self, line: Channel, answers: Mapping[str, Answerer], log: Callable[[str], None]) -> None:
        self._line = line
        self._answers = answers
        self._log = log

    def hear(self, body: bytes) -> None:
        """Answers a question of the master's. Raises ChannelError."""
        number, text = split_number(body)
        asked = json.loads(text)
        what, place = asked.pop("what"), asked.pop("place")
        try:
            place, count, said = self._answers[what](place, asked)
        except Exception as e:
            self._log(f"{what} cannot be told: {type(e).__name__}: {e}")
            place, count, said = 0, 0, b""
        self._line.send(channel.ANSWER, numbered(number, _HEAD.pack(place, count) + said[:PIECE_MOST]))
