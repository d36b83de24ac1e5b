"""Ticket keys over time: the same everywhere, known before they are used, and gone when their time is."""

import json
import multiprocessing

import pytest

from edge import config
from edge import settings as tables
from edge.errors import ConfigError
from edge.schema import Place
from edge.tickets.rotations import Rotation, Rotations, lifetime
from edge.tickets.schedule import Schedule

HOUR = 3600.0
START = 1_800_000_000.0
STATE = {"version": 0x0304, "cipher_suite": 0x1301, "secret": bytes(32)}


@pytest.fixture(params=["random", "shared"])
def schedule(request):
    return Schedule(3_600_000, 3, None if request.param == "random" else bytes(32), START)


def test_a_key_is_known_a_period_before_it_seals(schedule):
    for hour in range(10):
        sealing, following, *_ = schedule.keys(START + hour * HOUR)
        assert schedule.keys(START + (hour + 1) * HOUR)[0] == following != sealing


def test_a_key_opens_for_as_many_periods_as_are_kept(schedule):
    sealing = schedule.keys(START)[0]
    for hour in range(1, 4):
        assert sealing in schedule.keys(START + hour * HOUR)
    assert sealing not in schedule.keys(START + 4 * HOUR)


def test_names_and_keys_all_differ(schedule):
    keys = schedule.keys(START + 8 * HOUR)
    assert len({name for name, _ in keys}) == len({key for _, key in keys}) == 5
    assert all(len(name) == 16 and len(key) == 32 for name, key in keys)


def test_processes_agree_however_often_they_look(schedule):
    """One looks every minute, the other once, hours later."""

    def ask(pipe):
        pipe.send(schedule.keys(START + 7 * HOUR))

    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=ask, args=(theirs,))
    process.start()
    for minute in range(7 * 60 + 1):
        last = schedule.keys(START + minute * 60)
    assert ours.recv() == last
    process.join()


def test_a_random_secret_is_forgotten():
    """What is held in memory leads to no earlier key."""
    schedule = Schedule(3_600_000, 1, None, START)
    old = schedule.keys(START)[0]
    schedule.keys(START + 5 * HOUR)
    assert old not in schedule.keys(START)


def test_a_clock_that_is_set_back_brings_no_error():
    schedule = Schedule(3_600_000, 1, None, START)
    later = schedule.keys(START + 5 * HOUR)
    assert schedule.keys(START - 100 * HOUR)[0] in later


def test_hosts_with_one_secret_agree():
    ours, theirs = Schedule(3_600_000, 3, b"s" * 32, START), Schedule(3_600_000, 3, b"s" * 32, START + 90 * HOUR)
    assert ours.keys(START + 100 * HOUR) == theirs.keys(START + 100 * HOUR)
    other = Schedule(3_600_000, 3, b"t" * 32, START)
    assert not {name for name, _ in ours.keys(START)} & {name for name, _ in other.keys(START)}


def test_rotation_loses_no_ticket():
    """Of two processes one turns later than the other: each opens what either seals."""
    time = [START]
    schedule = Schedule(3_600_000, 2, None, START)
    ours, theirs = (Rotation(schedule, lambda: time[0]) for _ in range(2))
    for _ in range(6):
        tickets = [ours.keys.seal(STATE), theirs.keys.seal(STATE)]
        time[0] += HOUR
        ours.turn()
        tickets.append(ours.keys.seal(STATE))
        assert all(theirs.keys.open(t) for t in tickets), "not yet turned"
        theirs.turn()
        assert all(r.keys.open(t) for t in tickets for r in (ours, theirs))


def test_rotation_ends_old_tickets():
    time = [START]
    rotation = Rotation(Schedule(3_600_000, 1, None, START), lambda: time[0])
    ticket = rotation.keys.seal(STATE)
    time[0] += 2 * HOUR
    rotation.turn()
    assert rotation.keys.open(ticket) is None


# Over reloads.


def tickets(**values):
    return config.read_table(tables.Tickets, values, Place("/etc/edge.toml").key("tls").key("tickets"))


def test_a_reload_keeps_the_keys():
    rotations = Rotations()
    at = Place("edge.toml").key("tls").key("tickets")
    ticket = rotations.rotation(tickets(), at).keys.seal(STATE)
    assert rotations.rotation(tickets(rotate="1h"), at).keys.open(ticket) is None
    assert rotations.rotation(tickets(lifetime="1h", count=1), at).keys.open(ticket)


def test_a_secret_file(tmp_path):
    file = tmp_path / "secret"
    at = Place(str(tmp_path / "edge.toml")).key("tls").key("tickets")
    file.write_bytes(b"x" * 48)
    settings = tickets(secret_file=str(file))
    ticket = Rotations().rotation(settings, at).keys.seal(STATE)
    assert Rotations().rotation(settings, at).keys.open(ticket), "another host's"
    file.write_bytes(b"y" * 48)
    assert Rotations().rotation(settings, at).keys.open(ticket) is None
    file.write_bytes(b"short")
    with pytest.raises(ConfigError, match=r"tickets\.secret_file.*shorter than 32"):
        Rotations().rotation(settings, at)
    file.unlink()
    with pytest.raises(ConfigError, match="no such file"):
        Rotations().rotation(settings, at)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [({}, 86_400), ({"rotate": "1h"}, 10_800), ({"lifetime": "7d", "rotate": "7d"}, 604_800), ({"lifetime": "1s"}, 1)],
)
def test_no_ticket_outlives_its_key(written, seconds):
    assert lifetime(tickets(**written)) == seconds


def test_what_is_told_of_keys(schedule):
    now = START + 5 * HOUR
    told = schedule.describe(now)
    assert [key["state"] for key in told] == ["seals", "next", "opens", "opens", "opens"]
    assert [key["id"] for key in told] == [name.hex()[:8] for name, _ in schedule.keys(now)]
    assert told[0]["since"] <= now < told[0]["since"] + HOUR
    assert told[1]["since"] == told[0]["since"] + HOUR
    for key in told:
        assert key["until"] == key["since"] + 4 * HOUR  # its own period, and three in which it opens
        assert not any(secret.hex() in str(told) for pair in schedule.keys(now) for secret in pair)


@pytest.mark.parametrize("file", [False, True], ids=["random keys", "keys of a file"])
def test_an_heir_has_the_keys(tmp_path, file):
    """Another master, by way of JSON; and it can hand them on."""
    if file:
        (tmp_path / "secret").write_bytes(bytes(range(48)))
    settings = tickets(secret_file=str(tmp_path / "secret")) if file else tickets()
    at = Place(str(tmp_path / "edge.toml")).key("tls").key("tickets")
    first = Rotations()
    keys = first.rotation(settings, at)
    heir = first
    for _ in range(2):
        part = json.loads(json.dumps(heir.bequeath()))
        heir = Rotations()
        heir.inherit(part)
    assert heir.rotation(settings, at).source.keys(0) == keys.source.keys(0)
