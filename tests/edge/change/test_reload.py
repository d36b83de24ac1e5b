"""Who asks for reloads, which of them are one, and what is told of each."""

import pytest

from edge.change.reload import Reloads


class Master:
    def __init__(self):
        self.begun = 0
        self.may = True
        self.said = []
        self.told = []
        self.reloads = Reloads(lambda: self.may, self.begin, lambda level, message: self.said.append(message))

    def begin(self):
        self.begun += 1


@pytest.fixture
def master():
    return Master()


def test_one_begins_when_it_may_and_is_told_of(master):
    master.reloads.ask(master.told.append)
    assert (master.begun, master.reloads.pending, master.reloads.under_way) == (0, True, False)
    master.reloads.step()
    assert (master.begun, master.reloads.under_way) == (1, True)
    master.reloads.conclude(7, changed="1 route added")
    assert not master.reloads.pending
    outcome = master.told.pop()
    assert (outcome.accepted, outcome.reason, outcome.changed, outcome.generation) == (True, "", "1 route added", 7)
    assert outcome.seconds >= 0
    assert master.reloads.last is outcome
    assert (master.reloads.accepted, master.reloads.rejected) == (1, 0)


def test_those_asked_for_meanwhile_are_one(master):
    master.reloads.ask()
    master.reloads.step()
    later = []
    for n in range(5):
        master.reloads.ask(lambda outcome, n=n: later.append((n, outcome)))
        master.reloads.step()
    assert master.begun == 1
    master.reloads.conclude(1, reason="no TOML")
    assert later == [], "the file may have been another"
    master.reloads.step()
    master.reloads.step()
    assert master.begun == 2
    master.reloads.conclude(2)
    assert [n for n, _ in later] == [0, 1, 2, 3, 4]
    assert len({id(outcome) for _, outcome in later}) == 1
    assert (master.reloads.accepted, master.reloads.rejected) == (1, 1)


def test_one_waits_until_the_master_has_time(master):
    master.may = False
    master.reloads.ask()
    master.reloads.step()
    assert master.begun == 0
    assert master.said == ["the reload waits until the last change is through"]
    master.may = True
    master.reloads.step()
    assert master.begun == 1


def test_what_was_not_asked_for_is_not_told(master):
    master.reloads.conclude(1, changed="the first start")
    assert (master.reloads.accepted, master.reloads.last) == (0, None)


def test_refusals_say_why(master):
    master.reloads.ask(master.told.append)
    master.reloads.step()
    master.reloads.conclude(1, reason="a fault")
    assert (master.told[0].accepted, master.told[0].reason) == (False, "a fault")
