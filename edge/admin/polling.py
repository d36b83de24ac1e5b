"""Asking all workers, one after the other, for as long as somebody wants to hear: the source of an answer."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from edge.admin.control import Answer

if TYPE_CHECKING:
    from edge.master import Master
    from edge.worker import EdgeWorker


class Poll:
    """Each line of the answer is what a worker says: `slot`, `pid`, and `said`, the text of lines of JSON, which the
    master has not read. Or it has an `error`, which tells why the worker says no more. The last line has the `count`,
    and in `more` whether there may be more than `most`."""

    def __init__(self, master: "Master", what: Mapping[str, Any], answer: Answer, most: int) -> None:
        self._master = master
        self._what = what
        self._answer = answer
        self._most = most
        self._count = 0
        self._place = 0
        self._workers = sorted(
            (w for w in master.WORKERS.values() if w.serving), key=lambda w: (w.slot.index, w.generation.number)
        )
        self._take_back: Callable[[], None] = lambda: None
        answer.draw_from(self)

    def more(self) -> bool:
        if not self._workers or self._count >= self._most:
            self._answer.done(count=self._count, more=bool(self._workers))
            return False
        worker = self._workers[0]
        self._take_back = self._master.administration.questions.ask(
            worker,
            {**self._what, "most": self._most - self._count},
            self._place,
            lambda place, count, said: self._told(worker, place, count, said),
            lambda why: self._failed(worker, why),
        )
        return False

    def gone(self) -> None:
        self._take_back()

    def _told(self, worker: "EdgeWorker", place: int, count: int, said: bytes) -> None:
        self._place = place
        self._count += count
        if not place:
            self._workers.pop(0)
        if said:
            self._answer.line(slot=worker.slot.index, pid=worker.pid, said=said.decode(errors="replace"))
        self._answer.again()

    def _failed(self, worker: "EdgeWorker", why: str) -> None:
        self._place = 0
        self._workers.pop(0)
        self._answer.line(slot=worker.slot.index, pid=worker.pid, error=why)
        self._answer.again()
