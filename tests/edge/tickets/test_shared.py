"""Ticket keys over time: the same everywhere, known before they are used, and gone when their time is."""

import json
import multiprocessing
import os

import pytest

from edge import config
from edge import settings as tables
from edge.errors import ConfigError
from edge.schema import Place
from edge.tickets.schedule import Schedule
from edge.tickets.shared import Rotation, Shared, lifetime

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
    shared = Shared()
    at = Place("edge.toml").key("tls").key("tickets")
    ticket = shared.rotation(tickets(), at).keys.seal(STATE)
    assert shared.rotation(tickets(rotate="1h"), at).keys.open(ticket) is None
    assert shared.rotation(tickets(lifetime="1h", count=1), at).keys.open(ticket)


@pytest.fixture(params=["random", "shared"])
def registers(request, tmp_path):
    """(where the configuration stands, [tls] tickets): with random keys, or with a secret that hosts share."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(48)))
    at = Place(str(tmp_path / "edge.toml"))
    return at, tickets(secret_file=str(secret)) if request.param == "shared" else tickets()


def early(**values):
    return config.read_table(tables.EarlyData, values, Place("edge.toml"))


def test_a_reload_keeps_the_register(registers):
    shared = Shared()
    at, keys = registers
    register = shared.register(early(), keys, at)
    assert register.keeps == 20_000
    assert shared.register(early(unique_header="none", max_bytes="1KiB"), keys, at) is register
    other = shared.register(early(window="1s"), keys, at)
    assert other.keeps == 2_000 and other.identity != register.identity
    assert shared.register(early(), keys, at) is register, "and what it knows"


def test_a_register_has_room_for_the_rate(registers):
    at, keys = registers
    for rate, window in ((1, "100ms"), (5000, "10s"), (20_000, "1m")):
        register = Shared().register(early(rate=rate, window=window), keys, at)
        assert register.capacity >= 4 * rate * register.keeps / 1000
        assert register.capacity <= max(8 * rate * register.keeps / 1000, 1024)


def test_a_register_lasts_over_a_restart_with_the_secret(registers):
    """The name of a secret's register; without a secret its tickets are gone, too."""
    at, keys = registers
    before = Shared()
    identity = before.register(early(), keys, at).identity
    assert Shared().register(early(), keys, at).identity != identity, "another one, while it is in use"
    del before
    assert (Shared().register(early(), keys, at).identity == identity) == (keys.secret_file is not None)


def test_a_secret_file(tmp_path):
    file = tmp_path / "secret"
    at = Place(str(tmp_path / "edge.toml")).key("tls").key("tickets")
    file.write_bytes(b"x" * 48)
    settings = tickets(secret_file=str(file))
    ticket = Shared().rotation(settings, at).keys.seal(STATE)
    assert Shared().rotation(settings, at).keys.open(ticket), "another host's"
    file.write_bytes(b"y" * 48)
    assert Shared().rotation(settings, at).keys.open(ticket) is None
    file.write_bytes(b"short")
    with pytest.raises(ConfigError, match=r"tickets\.secret_file.*shorter than 32"):
        Shared().rotation(settings, at)
    file.unlink()
    with pytest.raises(ConfigError, match="no such file"):
        Shared().rotation(settings, at)


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


def handed_over(shared, *, layout=None):
    """What another master makes of it, by way of JSON."""
    lent = []
    part = json.loads(json.dumps(shared.bequeath(lambda fd: lent.append(os.dup(fd)) or lent[-1])))
    if layout is not None:
        part["layout"] = layout
    heir = Shared()
    heir.inherit(part, lambda fd: lent.remove(fd) or fd)
    for fd in lent:
        os.close(fd)
    return heir


def early_data_and_tickets(tmp_path, secret):
    line = f'tickets = {{ secret_file = "{secret}" }}\n' if secret else ""
    settings = config.parse(
        f'[tls]\nearly_data = {{ window = "10s" }}\n{line}[[listener]]\nbind = ["127.0.0.1:1"]\n'
        '[[certificate]]\nchain = "c"\nkey = "k"\n[[upstream]]\nname = "u"\nservers = ["127.0.0.1:2"]\n'
        '[[route]]\nupstream = "u"\n',
        str(tmp_path / "edge.toml"),
    )
    return settings.tls.early_data, settings.tls.tickets, Place(settings.file)


@pytest.mark.parametrize("file", [False, True], ids=["random keys", "keys of a file"])
def test_an_heir_has_the_keys_and_takes_nothing_twice(tmp_path, file):
    secret = tmp_path / "secret"
    secret.write_bytes(os.urandom(48))
    early_data, tickets, at = early_data_and_tickets(tmp_path, secret if file else None)
    first = Shared()
    keys = first.rotation(tickets, at)
    register = first.register(early_data, tickets, at)
    assert register.enter(b"binder" * 6)
    second = handed_over(handed_over(first))  # and it can be handed on
    assert second.rotation(tickets, at).source.keys(0) == keys.source.keys(0)
    same = second.register(early_data, tickets, at)
    assert same.identity == register.identity
    assert not same.enter(b"binder" * 6)
    assert same.enter(b"other" * 8)
    assert not register.enter(b"other" * 8)


@pytest.mark.parametrize("file", [False, True], ids=["random keys", "keys of a file"])
def test_an_heir_with_another_layout_goes_by_another_name(tmp_path, file):
    """The old master's register goes on taking: two of one name would take the same twice."""
    secret = tmp_path / "secret"
    secret.write_bytes(os.urandom(48))
    early_data, tickets, at = early_data_and_tickets(tmp_path, secret if file else None)
    first = Shared()
    register = first.register(early_data, tickets, at)
    first.rotation(tickets, at)
    heir = handed_over(first, layout=1000)
    assert heir.register(early_data, tickets, at).identity != register.identity
