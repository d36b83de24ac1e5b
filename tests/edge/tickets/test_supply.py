"""The master's half: what the process that asks says, what it does wrong, what is told of it, and directories."""

import json
import os
import socket
import time
import types

import pytest

from edge.errors import EdgeError
from edge.processes import channel
from edge.processes.channel import Channel
from edge.processes.waiting import Waiting
from edge.tickets import directory, keeper
from edge.tickets import supply as supplies
from edge.tickets.delivered import Delivered
from edge.tickets.directory import Files
from edge.tickets.document import first
from edge.tickets.rotations import Rotations
from edge.tickets.schedule import Schedule
from edge.tickets.supply import Supply
from tests.edge.tickets.test_directory import put

START = float(round(time.time()))
ROTATE = 3_600_000


class Clock:
    """Both of the master's clocks."""

    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(supplies.time, "monotonic", lambda: self.now)
        monkeypatch.setattr(supplies.time, "time", lambda: START + self.now - 1000)


class Companion:
    def __init__(self):
        self.starts = 0
        self.pid = None
        self.channel = None
        self.work = None

    def keep(self, work):
        self.work = work
        if work is not None and self.channel is None:
            self.starts += 1
            ours, self.far = socket.socketpair()
            self.channel, self.pid = Channel(ours, channel.WORKER_SAYS_MOST), self.starts
            self.said = Channel(self.far, channel.WORKER_SAYS_MOST)
        elif work is None:
            self.stop()

    def stop(self):
        if self.channel:
            self.channel.close()
            self.said.close()
        self.channel = self.pid = None

    def say(self, letter, **said):
        self.said.send(letter, json.dumps(said).encode())

    def hear(self):
        return [json.loads(body) for _, body in self.said.receive()]


class Worker:
    def __init__(self, serving=True):
        self.serving, self.keys_told = serving, None
        ours, theirs = socket.socketpair()
        self.channel, self.far = Channel(ours, 1 << 20), Channel(theirs, 1 << 20)

    def told(self):
        return sum(letter == channel.KEYS for letter, _ in self.far.receive())


class Link:
    servers = ("redis://a:1",)

    def __str__(self):
        return "redis://a:1"


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


class Setting:
    """A Supply, with a generation whose keys are of the source that make(rotations) gives."""

    def __init__(self, make):
        self.rotations, self.companion, self.log = Rotations(), Companion(), []
        self.waiting = Waiting()
        self.supply = Supply(self.companion, self.rotations, self.waiting, lambda *said: self.log.append(said))
        source = make()
        self.rotation = self.rotations._rotate(source, source.state())
        self.source = source
        fleet = types.SimpleNamespace(
            name="edge", mode="server", redis=Link.servers, share=("tickets",), poll=5000, settle=30_000
        )
        settings = types.SimpleNamespace(fleet=fleet if isinstance(source, Delivered) else None)
        self.generation = types.SimpleNamespace(
            number=1,
            owner=(os.geteuid(), os.getegid()),
            prepared=types.SimpleNamespace(rotation=self.rotation, settings=settings, link=Link()),
        )
        self.workers = [Worker(), Worker()]
        self.step()

    def step(self):
        return self.supply.step(self.generation, self.workers)

    def hears(self, document=None, offset=0, deaf=""):
        self.companion.say(keeper.HEARD, document=document and document.to_json(), offset=offset, secret=0, deaf=deaf)
        self.step()

    def fails(self, error="it is away"):
        self.companion.say(keeper.UNHEARD, error=error)
        self.step()

    def told(self, pattern):
        return [message for _, message in self.log if pattern in message]

    def state(self):
        return self.supply.describe(self.generation)["tickets"]


@pytest.fixture
def fleet(clock):
    return Setting(lambda: Delivered("edge", ROTATE, 3, Schedule(ROTATE, 3, None, START)))


def document():
    return first(int(START * 1000), ROTATE)


def test_what_comes_is_the_masters_and_every_workers(fleet):
    found = document()
    for worker in fleet.workers:
        worker.told()
    fleet.hears(found)
    assert fleet.rotation.sealing == found.keys[0].name
    assert [worker.told() for worker in fleet.workers] == [1, 1]
    fleet.hears()
    fleet.step()
    assert [worker.told() for worker in fleet.workers] == [0, 0], "nothing new"
    later = Worker(serving=False)
    fleet.workers.append(later)
    fleet.step()
    assert later.told() == 0, "it waits for the word to serve"
    later.serving = True
    fleet.step()
    assert later.told() == 1
    assert fleet.state()["connected"] and fleet.state()["version"] == 1


def test_a_failure_alone_is_nothing(fleet):
    fleet.hears(document())
    fleet.fails()
    fleet.hears()
    fleet.fails()
    assert fleet.told("not reached") == [] and fleet.state()["connected"]
    assert fleet.state()["polls"] == {"answered": 2, "failed": 2}


def test_what_is_said_wakes_the_master(fleet, clock):
    """At once; and there is nothing to wake it when nobody is there any more."""

    def waits(seconds):
        begun = time.perf_counter()
        fleet.waiting.wait(clock.now + seconds)
        return time.perf_counter() - begun > 0.9 * seconds

    assert waits(0.05)
    fleet.companion.say(keeper.HEARD, document=document().to_json(), offset=0, secret=0, deaf="")
    assert not waits(30)
    fleet.step()
    assert fleet.state()["connected"] and waits(0.05)
    fleet.companion.stop()
    fleet.supply.stop()
    assert waits(0.05)


def test_a_user_who_may_not_listen(fleet):
    """It is told once, and again when it was otherwise."""
    for deaf in ("not allowed", "not allowed", "", "not allowed"):
        fleet.hears(document(), deaf=deaf)
        assert fleet.state()["told_at_once"] is not bool(deaf)
        assert fleet.state()["connected"]
    told = fleet.told("tells them nothing")
    assert len(told) == 2
    assert told[0] == (
        "fleet: of other ticket keys hosts learn up to 5 s late, as redis://a:1 tells them nothing: not allowed; "
        "see docs/fleet.md"
    )


def test_lost_and_found_are_told_once(fleet, clock):
    fleet.hears(document())
    clock.now += 10
    for _ in range(5):
        fleet.fails()
        clock.now += 1
    assert fleet.told("not reached") == [
        "fleet: redis://a:1 is not reached: it is away; the last known ticket keys go on"
    ]
    state = fleet.state()
    assert (state["connected"], state["error"]) == (False, "it is away")
    assert state["heard"] == START and state["lost"] == START + 10
    clock.now += 5
    fleet.hears()
    fleet.hears()
    assert fleet.told("again") == ["fleet: redis://a:1 is reached again, after 10.0 s"]
    assert fleet.state()["connected"] and fleet.state()["lost"] is None


def test_never_reached(fleet, clock):
    clock.now += 3
    fleet.fails()
    fleet.fails()
    assert "own until it is" in fleet.told("not reached")[0]
    assert fleet.state()["lost"] == START and fleet.state()["heard"] is None
    assert fleet.rotation.describe(START)["shared"] is False


@pytest.mark.parametrize(
    ("letter", "body"),
    [
        (b"?", b"{}"),
        (keeper.HEARD, b"no JSON"),
        (keeper.HEARD, b"[]"),
        (keeper.HEARD, b"[" * 20_000),
        (keeper.HEARD, b'{"document": null, "offset": Infinity, "secret": 0}'),
        (keeper.HEARD, b'{"document": {"version": 1}, "offset": 0, "secret": 0}'),
        (keeper.HEARD, b'{"document": {"version": 1, "epoch": 0, "keys": []}, "offset": 0, "secret": 0}'),
        (keeper.HEARD, b'{"document": null, "offset": "x", "secret": 0}'),
        (keeper.UNHEARD, b"{}"),
        (keeper.ROTATED, b"{}"),
        (keeper.ROTATED, b'{"id": []}'),
    ],
)
def test_a_process_that_says_nonsense_is_ended(fleet, letter, body):
    fleet.hears(document())
    sealing = fleet.rotation.sealing
    fleet.companion.said.send(letter, body)
    fleet.step()
    assert len(fleet.told("is ended: it said")) == 1
    fleet.step()
    assert fleet.companion.starts == 2
    assert fleet.rotation.sealing == sealing


def test_a_process_that_says_nothing_is_ended(fleet, clock):
    fleet.hears(document())
    clock.now += supplies.SILENCE_SECONDS
    fleet.step()
    assert fleet.companion.starts == 1
    clock.now += 6
    fleet.step()
    assert len(fleet.told("says nothing any more")) == 1 and not fleet.state()["connected"]
    fleet.step()
    fleet.step()
    assert fleet.companion.starts == 2
    fleet.hears()
    assert fleet.state()["connected"]


def test_a_process_that_dies_again_and_again(fleet, clock):
    fleet.hears(document())
    for _ in range(int(supplies.SILENCE_SECONDS) + 10):
        fleet.companion.stop()
        clock.now += 1
        fleet.step()
    assert not fleet.state()["connected"] and len(fleet.told("not reached")) == 1


def test_a_clock_that_is_off_is_told_once(fleet):
    fleet.hears(document(), offset=-7000)
    fleet.hears(offset=-7300)
    assert fleet.told("clock") == ["fleet: the clock here is +7.0 s off that of Redis, which ticket keys go by"]


# Rotation.


def rotate(fleet, **options):
    outcomes = []
    fleet.supply.rotate(outcomes.append, **{"revoke": False, "wait": False, **options})
    return outcomes


def test_a_rotation(fleet, clock):
    found = document()
    fleet.hears(found)
    fleet.companion.hear()
    at_once, waited = rotate(fleet), rotate(fleet, wait=True)
    asked = fleet.companion.hear()
    assert [one["revoke"] for one in asked] == [False, False]
    changed, key = found.rotated(int(START * 1000), ROTATE, 30_000)
    for one in asked:
        fleet.companion.say(keeper.ROTATED, id=one["id"], key=key.name.hex(), seals_from=key.seals_from)
    fleet.hears(changed)
    assert [(o.reason, o.key, o.seals) for o in at_once] == [("", key.name.hex()[:8], START + 30)]
    assert waited == []
    clock.now += 31
    fleet.step()
    assert waited == [], "workers look once in a second"
    clock.now += 1
    fleet.step()
    assert [o.reason for o in waited] == [""]


def test_a_rotation_that_fails(fleet, clock):
    with pytest.raises(EdgeError, match="not yet; nothing has changed"):
        rotate(fleet)
    fleet.hears(document())
    fleet.companion.hear()
    refused = rotate(fleet)
    [asked] = fleet.companion.hear()
    fleet.companion.say(keeper.ROTATED, id=asked["id"], error="it is away")
    fleet.step()
    assert [o.reason for o in refused] == ["it is away"]
    late = rotate(fleet)
    clock.now += supplies.ASKED_SECONDS + 1
    fleet.step()
    assert "no answer in time" in late[0].reason
    stopped = rotate(fleet)
    fleet.supply.stop()
    assert "stopped" in stopped[0].reason
    fleet.fails()
    fleet.fails()
    with pytest.raises(EdgeError, match="not reached: it is away"):
        rotate(fleet)


def test_tickets_are_switched_off_while_somebody_waits(fleet, clock):
    fleet.hears(document())
    waited = rotate(fleet, wait=True)
    fleet.generation.number, fleet.generation.prepared.rotation = 2, None
    clock.now += supplies.ASKED_SECONDS + 1
    fleet.step()
    assert "no answer in time" in waited[0].reason
    assert fleet.companion.starts == 1 and fleet.companion.channel is None


def test_there_is_no_fleet(tmp_path, clock):
    put(tmp_path, 1)
    setting = Setting(lambda: files(tmp_path))
    with pytest.raises(EdgeError, match="not a fleet's here"):
        rotate(setting)
    assert setting.supply.describe(setting.generation) is None
    assert setting.companion.starts == 0


# Directories.


def files(path):
    return Files(path, ROTATE, 3, (0, directory.read(path)))


def test_a_directory(tmp_path, clock):
    put(tmp_path, 1, 2)
    setting = Setting(lambda: files(tmp_path))

    def look(times=1):
        for _ in range(times):
            clock.now += supplies.LOOK_SECONDS
            setting.step()

    look(3)
    for worker in setting.workers:
        worker.told()
    before = setting.rotation.sealing
    put(tmp_path, 3)
    look()
    assert setting.rotation.sealing == before, "files may be on their way"
    look()
    assert setting.rotation.sealing != before
    assert [worker.told() for worker in setting.workers] == [1, 1]
    assert len(setting.told("seals")) == 1

    (tmp_path / "0004").write_bytes(b"half")
    sealing = setting.rotation.sealing
    look(4)
    assert setting.rotation.sealing == sealing
    assert len(setting.told("0004 is shorter than 48 bytes")) == 1, "told once"
    assert "the ticket keys before go on" in setting.log[-1][1]
    put(tmp_path, 4)
    look(2)
    assert setting.rotation.sealing != sealing
    for file in tmp_path.iterdir():
        file.unlink()
    look(3)
    assert len(setting.told("has no keys")) == 1
    tmp_path.rmdir()
    look(3)
    assert len(setting.told("no such file")) == 1
    assert setting.rotation.keys
