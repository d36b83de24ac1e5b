"""Both halves of a rollout, joined by channels: all workers use what is new, or none does."""

import gc
import os
import queue
import socket
import threading
import types

import pytest

from edge.change import rollout
from edge.change.rollout import Preparing, Rollout, read_answer
from edge.processes import channel
from edge.processes.aside import Aside
from edge.processes.channel import Channel, ChannelError, numbered


class Kept:
    """Something with a commit, which counts."""

    def __init__(self, content=None):
        self.content = content
        self.commits = 0

    def commit(self):
        self.commits += 1


class Worker:
    """The master's view of a worker, and the worker's own half behind `own`."""

    def __init__(self, index):
        near, far = socket.socketpair()
        self.slot = types.SimpleNamespace(index=index)
        self.serving = True
        self.told = self.answered = 0
        self.refusal = ""
        self.channel = Channel(near, channel.WORKER_SAYS_MOST)
        self.prepared = []
        self.said = []
        self.fault = None
        self.own = Preparing(Channel(far, channel.MASTER_SAYS_MOST), {"thing": self.prepare}, self.said.append)

    def prepare(self, content):
        if self.fault:
            raise self.fault
        self.prepared.append(Kept(content))
        return self.prepared[-1]

    def turn(self):
        goes_on = self.own.hear()
        for letter, body in self.channel.receive():
            self.answered, self.refusal = read_answer(letter, body)
        return goes_on

    @property
    def used(self):
        return [kept.content for kept in self.prepared for _ in range(kept.commits)]


@pytest.fixture
def workers():
    made = [Worker(i) for i in range(3)]
    yield made
    for worker in made:
        worker.channel.close()
        worker.own._line.close()


def test_all_prepare_before_any_uses_it(workers):
    own = Kept()
    r = Rollout(1, "thing", {"a": b"1"}, own)
    assert not r.step(workers)
    for worker in workers[:2]:
        worker.turn()
    assert not r.step(workers)
    assert (own.commits, [w.used for w in workers]) == (0, [[], [], []])
    workers[2].turn()
    assert r.step(workers) and r.fault == ""
    assert own.commits == 1
    for worker in workers:
        worker.turn()
    assert [w.used for w in workers] == [[{"a": b"1"}]] * 3


def test_one_that_cannot_keeps_all_at_the_old(workers):
    workers[1].fault = ValueError("a key that is none\nof mine")
    own = Kept()
    r = Rollout(1, "thing", "new", own)
    r.step(workers)
    for worker in workers:
        worker.turn()
    assert r.step(workers) and r.broken
    assert r.fault == "worker 1 cannot: ValueError: a key that is none\\nof mine"
    for worker in workers:
        worker.turn()
    assert [w.used for w in workers] == [[], [], []]
    assert own.commits == 0
    # and the next one is as if nothing had been
    workers[1].fault = None
    r = Rollout(2, "thing", "newer", own)
    r.step(workers)
    for worker in workers:
        worker.turn()
    assert r.step(workers) and not r.fault
    for worker in workers:
        worker.turn()
    assert [w.used for w in workers] == [["newer"]] * 3


def test_a_worker_that_boots_joins_and_one_that_dies_drops_out(workers):
    workers[2].serving = False
    r = Rollout(1, "thing", "new", Kept())
    r.step(workers)
    for worker in workers:
        worker.turn()
    assert not r.step(workers)  # the third could serve any moment, with the old
    workers[2].serving = True
    gone = workers.pop(0)
    assert not r.step(workers)
    workers[1].turn()
    assert r.step(workers) and not r.fault
    for worker in workers:
        worker.turn()
    assert [w.used for w in workers] == [["new"]] * 2
    gone.channel.close()
    assert not gone.turn()


def test_one_that_says_nothing_is_not_waited_for_for_ever(workers, monkeypatch):
    monkeypatch.setattr(rollout, "SECONDS_MOST", 0.0)
    r = Rollout(1, "thing", "new", Kept())
    workers[0].turn()
    assert r.step(workers)
    assert not r.broken
    assert "no answer from worker 0, 1, 2" in r.fault
    for worker in workers:
        worker.turn()
        worker.turn()
    assert [w.used for w in workers] == [[], [], []]


def test_a_commit_of_what_was_not_prepared_is_told(workers):
    workers[0].channel.send(channel.COMMIT, numbered(5))
    workers[0].turn()
    assert workers[0].said == ["told to use number 5, which was not prepared"]


def test_an_unknown_kind_is_refused(workers):
    r = Rollout(1, "other thing", "new", Kept())
    r.step(workers)
    for worker in workers:
        worker.turn()
    assert r.step(workers)
    assert "KeyError" in r.fault


def test_reasons_are_bounded(workers):
    workers[0].fault = ValueError("\N{SNOWMAN}" * 1000)
    r = Rollout(1, "thing", "new", Kept())
    r.step(workers)
    for worker in workers:
        worker.turn()
    assert r.step(workers)
    assert len(r.fault) < 600


@pytest.mark.parametrize(
    ("letter", "body"), [(b"C", numbered(1)), (b"p", b""), (b"f", b"\0"), (b"\0", b""), (b"P", numbered(1))]
)
def test_answers_that_are_none(letter, body):
    with pytest.raises(ChannelError):
        read_answer(letter, body)


def test_answers():
    assert read_answer(b"p", numbered(3)) == (3, "")
    assert read_answer(b"f", numbered(3, b"why")) == (3, "why")
    assert read_answer(b"f", numbered(3)) == (3, "no reason given")
    assert read_answer(b"f", numbered(3, b"\xff\x1b[31m")) == (3, "\ufffd\\x1b[31m")


# ---- what is prepared beside the loop


class Loop:
    """What runs callbacks of other threads, when it is told to."""

    def __init__(self):
        self.callbacks = queue.Queue()

    def call_soon_from_thread(self, callback):
        self.callbacks.put(callback)

    def run(self):
        self.callbacks.get(timeout=10)()


class Aloof(Worker):
    """A worker that prepares in a thread."""

    def __init__(self, index):
        super().__init__(index)
        self.loop = Loop()
        self.go_on = threading.Event()
        self.go_on.set()
        self.parcels = []
        line = self.own._line
        line.close()
        near, far = socket.socketpair()
        self.channel.close()
        self.channel = Channel(near, channel.WORKER_SAYS_MOST)
        self.own = Preparing(
            Channel(far, channel.MASTER_SAYS_MOST, descriptors=True),
            {},
            self.said.append,
            aside=Aside(self.loop),
            prepare_aside={"thing": self.prepare_aside},
        )

    def prepare_aside(self, content, parcel):
        assert threading.current_thread() is not threading.main_thread()
        assert self.go_on.wait(10)
        self.parcels.append([*parcel.pieces, *(os.fstat(fd).st_ino for fd in parcel.descriptors)])
        return self.prepare(content)


@pytest.fixture
def aloof():
    made = [Aloof(i) for i in range(2)]
    yield made
    for worker in made:
        worker.go_on.set()
        worker.channel.close()
        worker.own._line.close()


def test_pieces_and_descriptors_come_along(aloof):
    own, pipe = Kept(), os.pipe()
    r = Rollout(1, "thing", "new", own, pieces=[b"one", b"two"], descriptors=lambda worker: [pipe[worker.slot.index]])
    gc.collect()  # what others have left open is not to be closed meanwhile
    before = len(os.listdir("/proc/self/fd"))
    assert not r.step(aloof)
    for worker in aloof:
        worker.turn()
        worker.loop.run()
        worker.turn()
    assert r.step(aloof) and r.fault == ""
    for worker in aloof:
        worker.turn()
    assert [w.used for w in aloof] == [["new"]] * 2
    assert [w.parcels for w in aloof] == [[[b"one", b"two", os.fstat(fd).st_ino]] for fd in pipe]
    assert len(os.listdir("/proc/self/fd")) == before, "those in the parcel are closed"
    for fd in pipe:
        os.close(fd)


def test_a_fault_beside_the_loop_is_told(aloof):
    aloof[1].fault = ImportError("no such hook")
    r = Rollout(1, "thing", "new", Kept())
    r.step(aloof)
    for worker in aloof:
        worker.turn()
        worker.loop.run()
        worker.turn()
    assert r.step(aloof)
    assert r.fault == "worker 1 cannot: ImportError: no such hook"
    for worker in aloof:
        worker.turn()
    assert [w.used for w in aloof] == [[], []]


def test_what_is_late_is_not_used(aloof, monkeypatch):
    """The master has thought better of it while a worker was at it; the next one is refused as long as it is."""
    slow = aloof[0]
    slow.go_on.clear()
    r = Rollout(1, "thing", "late", Kept())
    r.step(aloof)
    for worker in aloof:
        worker.turn()
    monkeypatch.setattr(rollout.time, "monotonic", lambda: r.until + 1)
    assert r.step(aloof)
    assert "no answer from worker" in r.fault
    monkeypatch.undo()
    slow.turn()
    assert slow.own.busy
    second = Rollout(2, "thing", "next", Kept())
    second.step([slow])
    slow.turn()
    assert second.step([slow])
    assert second.fault == "worker 0 cannot: RuntimeError: it is still at what it was to prepare before"
    slow.go_on.set()
    slow.loop.run()
    slow.turn()
    assert not slow.own.busy
    third = Rollout(3, "thing", "last", Kept())
    third.step([slow])
    slow.turn()
    slow.loop.run()
    slow.turn()
    assert third.step([slow])
    slow.turn()
    assert slow.used == ["last"]
