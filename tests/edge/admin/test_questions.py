"""Both halves of asking workers, joined by channels: pieces, lateness, and workers that say anything."""

import socket
import struct

import pytest

from edge.admin import questions
from edge.admin.questions import Answering, Questions
from edge.processes import channel
from edge.processes.channel import Channel, ChannelError, numbered


class Clock:
    now = 1000.0

    def __call__(self):
        return self.now


class Worker:
    """The master's view, and the worker's half behind `answering`, which tells its numbers from 0 on, ten at a time."""

    def __init__(self):
        near, far = socket.socketpair()
        self.channel = Channel(near, channel.WORKER_SAYS_MOST)
        self.far = Channel(far, channel.MASTER_SAYS_MOST)
        self.said = []
        self.answering = Answering(self.far, {"numbers": self.numbers, "fault": self.fault}, self.said.append)

    def numbers(self, place, arguments):
        end = min(place + 10, arguments["most"])
        return (end if end < arguments["most"] else 0), end - place, b" ".join(b"%d" % n for n in range(place, end))

    def fault(self, place, arguments):
        raise RuntimeError("no idea")

    def turn(self):
        for letter, body in self.far.receive():
            assert letter == channel.QUESTION
            self.answering.hear(body)


class Asker:
    def __init__(self):
        self.answers = []
        self.faults = []

    def told(self, *answer):
        self.answers.append(answer)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def worker():
    worker = Worker()
    yield worker
    worker.channel.close()
    worker.far.close()


@pytest.fixture
def asked(clock):
    return Questions(clock)


def hear(asked, worker):
    for letter, body in worker.channel.receive():
        assert letter == channel.ANSWER
        asked.hear(worker, body)


def ask(asked, worker, place=0, what="numbers"):
    asker = Asker()
    asker.take_back = asked.ask(worker, {"what": what, "most": 25}, place, asker.told, asker.faults.append)
    return asker


def test_an_answer_comes_in_pieces(asked, worker):
    place, said = 0, b""
    for _ in range(3):
        asker = ask(asked, worker, place)
        worker.turn()
        hear(asked, worker)
        ((place, count, piece),) = asker.answers
        assert count == len(piece.split())
        said += piece + b" "
    assert place == 0
    assert said.split() == [b"%d" % n for n in range(25)]


def test_a_worker_has_one_question_at_a_time(asked, worker):
    first, second = ask(asked, worker), ask(asked, worker, 20)
    assert len(list(worker.far.receive())) == 1
    body = numbered(1, struct.pack(">II", 0, 1) + b"one")
    asked.hear(worker, body)
    assert (first.answers, second.answers) == ([(0, 1, b"one")], [])
    worker.turn()
    hear(asked, worker)
    assert second.answers == [(0, 5, b"20 21 22 23 24")]


def test_a_late_answer_is_nobodys(asked, worker, clock):
    first, second = ask(asked, worker), ask(asked, worker)
    clock.now += questions.ANSWER_SECONDS
    asked.step([worker])
    assert first.faults == ["no answer in 5 s"]
    assert second.faults == []
    worker.turn()
    hear(asked, worker)  # both: the first one's is passed over
    assert first.answers == []
    assert second.answers == [(10, 10, b"0 1 2 3 4 5 6 7 8 9")]


def test_when_a_worker_ends_its_askers_are_told(asked, worker):
    first, second = ask(asked, worker), ask(asked, worker)
    asked.step([])
    assert first.faults == second.faults == ["it has ended"]
    worker.far.close()
    list(worker.channel.receive())
    third = ask(asked, worker)
    asked.step([worker])
    assert third.faults == ["it has ended"]


def test_who_takes_a_question_back_is_told_nothing(asked, worker, clock):
    first, second = ask(asked, worker), ask(asked, worker)
    first.take_back()
    second.take_back()
    worker.turn()
    hear(asked, worker)
    clock.now += questions.ANSWER_SECONDS
    asked.step([worker])
    assert first.answers == first.faults == second.answers == second.faults == []


def test_a_fault_in_a_worker_is_logged_there(asked, worker):
    asker = ask(asked, worker, what="fault")
    worker.turn()
    hear(asked, worker)
    assert asker.answers == [(0, 0, b"")]
    assert worker.said == ["fault cannot be told: RuntimeError: no idea"]


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"", "without its number"),
        (b"\0\0\0\1", "without its numbers"),
        (numbered(1, struct.pack(">II", 0, 0)[:-1]), "without its numbers"),
        (numbered(1, struct.pack(">II", 7, 0)), "leads back"),
        (numbered(1, struct.pack(">II", 3, 0)), "leads back"),
    ],
)
def test_what_no_worker_says_is_a_fault(asked, worker, body, fault):
    ask(asked, worker, 7)
    with pytest.raises(ChannelError, match=fault):
        asked.hear(worker, body)


def test_what_is_said_of_no_question_is_passed_over(asked, worker):
    asker = ask(asked, worker)
    asked.hear(worker, numbered(99, struct.pack(">II", 0, 1) + b"x"))
    asked.hear(object(), numbered(1, struct.pack(">II", 0, 1) + b"x"))
    assert asker.answers == []
    asked.hear(worker, numbered(1, struct.pack(">II", 0, 0xFFFFFFFF) + b"xyz"))
    assert asker.answers == [(0, 3, b"xyz")]


def test_the_next_look_is_due_when_an_answer_is_late(asked, worker, clock):
    assert asked.step([worker]) > clock.now
    ask(asked, worker)
    assert asked.step([worker]) == clock.now + questions.ANSWER_SECONDS
