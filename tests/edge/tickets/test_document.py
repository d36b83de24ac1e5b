"""A fleet's ticket keys: what each is for, how documents merge, and that hosts which come and go, and a Redis that
forgets, never make a host seal with a key that another one lacks."""

import dataclasses
import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.tickets import document as documents
from edge.tickets.agreement import Agreement
from edge.tickets.document import EVER, DeliveredKey, Document, first, merge

ROTATE, KEEP, SETTLE, POLL = 120_000, 3, 30_000, 10_000
START = 1_800_000_000_000


def names(keys):
    return [key.name for key in keys]


def roles(document, now, keep=KEEP):
    return document.roles(now, ROTATE, keep)


def at(hours_of_periods):
    return START + int(hours_of_periods * ROTATE)


# Roles.


def test_the_first_key_seals_at_once_and_the_next_one_a_period_later():
    document = first(START, ROTATE)
    one, two = document.keys
    assert (one.seals_from, two.seals_from) == (EVER, START + ROTATE)
    assert roles(document, START).keys == (one, two)
    assert roles(document, at(1) - 1).current == one
    assert roles(document, at(1)).keys == (two, one)
    assert one.since == START and two.since == START + ROTATE


def grown(periods):
    """Of a fleet that looks all the time."""
    document = first(START, ROTATE)
    for half in range(2 * periods):
        document = document.ready(at(half / 2), ROTATE, SETTLE).alive(at(half / 2), ROTATE, KEEP)
    return document


def test_keys_come_and_go_as_time_does():
    document = grown(10)
    found = roles(document, at(9.5))
    assert len(found.following) == 1 and len(found.previous) == KEEP
    assert [key.seals_from for key in found.keys] == [at(9), at(10), at(8), at(7), at(6)]
    assert len(document.keys) == 5, "nothing is kept for nothing"


def test_a_key_opens_for_as_many_periods_as_are_kept():
    document = grown(10)
    key = roles(document, at(9.5)).current
    for period in (10.5, 11.5, 12.5):
        document = document.ready(at(period), ROTATE, SETTLE)
        assert key in roles(document, at(period)).previous
    assert key not in roles(document.ready(at(13.5), ROTATE, SETTLE), at(13.5)).keys


def test_nobody_looks_for_long():
    """The next key seals as soon as its moment has come, and the one after it is known before it seals."""
    document = grown(2)
    now = at(50)
    later = document.ready(now, ROTATE, SETTLE)
    assert roles(later, now).current == document.keys[-1]
    assert roles(later, now).following[0].seals_from == now + SETTLE


def test_ready_changes_nothing_twice():
    document = grown(3)
    assert document.ready(at(2.6), ROTATE, SETTLE) is document


def test_a_forced_rotation_takes_the_next_key_which_all_know():
    document = grown(3)
    now = at(2.6)
    following = roles(document, now).following[0]
    changed, key = document.rotated(now, ROTATE, SETTLE)
    assert key.name == following.name and key.seals_from == now + SETTLE
    assert roles(changed, now).current == roles(document, now).current
    assert roles(changed, now + SETTLE).current == key
    assert changed.version == document.version + 1
    assert changed.rotated(now + 1, ROTATE, SETTLE) == (changed, key), "it is under way already"
    ready = changed.ready(now + SETTLE, ROTATE, SETTLE)
    assert roles(ready, now + SETTLE).following[0].seals_from == now + SETTLE + ROTATE
    assert set(names(document.keys)) < set(names(ready.keys)), "no ticket is lost"


def test_tickets_outlive_many_forced_rotations():
    document, now = grown(3), at(3)
    key = roles(document, now).current
    for _ in range(10):
        document, _ = document.rotated(now, ROTATE, SETTLE)
        now += 2000
        document = document.ready(now, ROTATE, 1000).alive(now, ROTATE, KEEP)
    assert key in roles(document, now).keys


def test_as_many_keys_as_the_engine_takes():
    document, now = grown(3), at(3)
    for _ in range(40):
        now += 2
        document, _ = document.ready(now, ROTATE, 1).rotated(now, ROTATE, 1)
    found = roles(document, now + 1, keep=14)
    assert len(found.keys) == documents.OPENED_MOST and found.keys[0] == found.current
    assert len(document.keys) <= documents.KEYS_MOST


def test_a_revocation_leaves_no_key():
    document = grown(5)
    changed, key = document.revoked(at(5), ROTATE)
    assert not set(names(document.keys)) & set(names(changed.keys))
    assert roles(changed, at(5)).current.name == key.name
    for merged in (merge(document, changed), merge(changed, document)):
        assert merged.content == changed.content, "and none comes back"


def test_a_clock_that_was_wrong_stops_no_rotation():
    """One that is years ahead adds a key that would be next for years."""
    document = grown(2).ready(at(100_000), ROTATE, SETTLE)
    now = at(1.5)
    ready = document.ready(now, ROTATE, SETTLE)
    assert roles(ready, now).following[0].seals_from <= at(2)
    later = ready.ready(at(2.2), ROTATE, SETTLE)
    assert roles(later, at(2.2)).following[0].seals_from == at(3)
    assert len(later.alive(at(2.2), ROTATE, KEEP).keys) < len(later.keys), "it is dropped"


def test_a_clock_before_all_keys_has_one_seal():
    document = dataclasses.replace(grown(3), keys=grown(3).keys[1:])
    assert roles(document, 0).current == document.keys[0]


# As JSON.


def test_json():
    document = grown(4)
    assert Document.of_json(json.loads(json.dumps(document.to_json()))) == document


KEY = ["00" * 16, "11" * 32, 1, 2]


@pytest.mark.parametrize(
    "written",
    [
        None,
        [],
        {},
        {"version": 1, "epoch": 0},
        {"version": 1, "epoch": 0, "keys": []},
        {"version": 1, "epoch": 0, "keys": [KEY] * 2},
        {"version": 1, "epoch": 0, "keys": [[f"{i:032x}", *KEY[1:]] for i in range(65)]},
        {"version": -1, "epoch": 0, "keys": [KEY]},
        {"version": True, "epoch": 0, "keys": [KEY]},
        {"version": 1, "epoch": 1 << 60, "keys": [KEY]},
        {"version": 1, "epoch": 0, "keys": [KEY[:3]]},
        {"version": 1, "epoch": 0, "keys": [["zz" * 16, *KEY[1:]]]},
        {"version": 1, "epoch": 0, "keys": [["00" * 15, *KEY[1:]]]},
        {"version": 1, "epoch": 0, "keys": [[KEY[0], "11" * 31, 1, 2]]},
        {"version": 1, "epoch": 0, "keys": [[*KEY[:3], "2"]]},
        {"version": 1, "epoch": 0, "keys": [[*KEY[:3], 2.5]]},
        {"version": 1, "epoch": 0, "keys": {"a": KEY}},
    ],
)
def test_what_is_no_document(written):
    with pytest.raises(ValueError, match=r"ticket key|document|hexadecimal"):
        Document.of_json(written)


def test_keys_show_nowhere():
    document = grown(2)
    assert not any(repr(key.key)[2:-1] in repr(document) for key in document.keys)


# Merging.

keys = st.builds(
    lambda number, made, seals_from, epoch: DeliveredKey(bytes([number]) * 16, bytes(32), made, seals_from, epoch),
    st.integers(0, 9),
    st.integers(0, 3),
    st.integers(0, 5),
    st.integers(0, 1),
)


@st.composite
def some(draw):
    epoch = draw(st.integers(0, 1))
    found = {key.name: key for key in draw(st.lists(keys, min_size=1, max_size=6))}
    listed = [dataclasses.replace(key, epoch=epoch) for key in found.values()]
    return Document(draw(st.integers(1, 3)), epoch, tuple(sorted(listed, key=lambda key: key.rank)))


@given(some(), some(), some())
def test_documents_merge_to_the_same_in_whatever_order(a, b, c):
    assert merge(a, b) == merge(b, a)
    assert merge(a, a) == a
    assert merge(merge(a, b), c).content == merge(a, merge(b, c)).content
    merged = merge(a, b)
    assert merge(merged, a) == merge(merged, b) == merged, "and that is the end of it"
    assert merged.version >= max(a.version, b.version)
    for one in (a, b):
        if one.version == merged.version:
            assert one.content == merged.content, "a version is one document"


# Hosts, and a Redis that has its days.


class Host:
    def __init__(self, skew):
        self.agreement = Agreement(ROTATE, KEEP, SETTLE)
        self.skew = skew
        self.polled = -POLL
        self.connected = None
        """Since when."""

    def sealing(self, now):
        return roles(self.agreement.known, now + self.skew).current

    def opens(self, now):
        return roles(self.agreement.known, now + self.skew).keys


class World:
    """`there`: what Redis has, of what it ever had (`past`: moment, document). Its clock is the right one."""

    def __init__(self, skews):
        self.now = START
        self.there = None
        self.past = [(START, None)]
        self.up = True
        self.failed_over = START - SETTLE
        self.hosts = [Host(skew) for skew in skews]

    def write(self, document):
        self.there = document
        self.past.append((self.now, document))

    def poll(self, host, *, change=None, lost=False):
        """`lost`: Redis has written, and the host does not learn it."""
        host.polled = self.now
        if not self.up:
            host.connected = None
            return
        host.agreement.hear(self.there, self.now)
        wanted = change(self.now)[0] if change else host.agreement.wanted(self.there, self.now)
        if wanted is not None:
            self.write(wanted)
            if lost:
                return
            host.agreement.written(wanted, self.now)
        if host.connected is None:
            host.connected = self.now

    def go_on(self, seconds, order):
        until = self.now + int(seconds * 1000)
        while self.now < until:
            self.now += 500
            late = [host for host in self.hosts if host.polled + POLL <= self.now]
            order.shuffle(late)
            for host in late:
                self.poll(host)
            self.check()

    def check(self):
        """Those who have heard of the fleet long enough open what each of them seals."""
        there = [h for h in self.hosts if h.connected is not None and h.connected + SETTLE <= self.now]
        for one in there:
            for other in there:
                assert one.sealing(self.now) in other.opens(self.now), "a ticket that another host does not open"


skews = st.integers(-2000, 2000)
actions = st.one_of(
    st.tuples(st.just("wait"), st.floats(1, 60)),
    st.tuples(st.just("poll"), st.integers(0, 3)),
    st.tuples(st.just("rotate"), st.integers(0, 3)),
    st.tuples(st.just("lost reply"), st.integers(0, 3)),
    st.tuples(st.just("lost rotation"), st.integers(0, 3)),
    st.tuples(st.just("restart"), st.integers(0, 3)),
    st.tuples(st.just("failover"), st.integers(0, 20)),
    st.tuples(st.just("flush"), st.none()),
    st.tuples(st.just("down"), st.floats(1, 300)),
)


@settings(max_examples=60, deadline=None, report_multiple_bugs=False)
@given(st.lists(skews, min_size=3, max_size=4), st.lists(actions, max_size=25), st.integers(0, 1 << 30))
def test_no_host_seals_with_a_key_that_another_lacks(skews, actions, seed):
    world, order = World(skews), random.Random(seed)
    world.go_on(SETTLE / 1000 + 12, order)
    for action, value in actions:
        if action == "wait":
            world.go_on(value, order)
        elif action == "flush":
            world.write(None)
        elif action == "failover":
            if world.failed_over + SETTLE <= world.now:
                world.failed_over = world.now
                world.write([d for moment, d in world.past if moment <= world.now - value * 1000][-1])
        elif action == "down":
            world.up = False
            world.go_on(value, order)
            world.up = True
        else:
            host = world.hosts[value % len(world.hosts)]
            if action == "restart":
                host.agreement, host.connected = Agreement(ROTATE, KEEP, SETTLE), None
                world.poll(host)
            elif action in ("rotate", "lost rotation"):
                world.poll(host, change=lambda now, h=host: h.agreement.rotated(now), lost=action != "rotate")
            else:
                world.poll(host, lost=action == "lost reply")
        world.go_on(order.choice((0, 1, 3)), order)
    world.go_on(2 * POLL / 1000 + 5, order)
    there = [roles(host.agreement.known, world.now) for host in world.hosts if host.connected]
    assert len({found.current for found in there}) <= 1, "and all agree"


def test_a_document_that_is_missing_is_published_by_whoever_knows_one():
    one, other = Agreement(ROTATE, KEEP, SETTLE), Agreement(ROTATE, KEEP, SETTLE)
    document = one.wanted(None, START)
    one.written(document, START)
    other.hear(document, START)
    for host in (one, other):
        host.hear(None, START + 1)
        assert host.wanted(None, START + 1).content == document.content
        assert host.wanted(document, START + 1) is None


def test_a_host_that_knew_nothing_has_no_say():
    """Redis has lost all, and the first to ask is a new host: its key opens everywhere, and seals nowhere else."""
    for _ in range(20):  # names are random
        known, found = first(START, ROTATE), first(START + 1000, ROTATE)
        merged = merge(known, found)
        assert roles(merged, START + 1000).current == roles(known, START).current
        assert set(roles(found, START + 1000).keys) <= set(roles(merged, START + 1000).keys)


def test_hosts_that_keep_keys_for_another_time_do_not_write_again_and_again():
    """One is told of an old key by the other, and each is content with what is there."""
    short, long = Agreement(ROTATE, 1, SETTLE), Agreement(ROTATE, 10, SETTLE)
    there, writes = None, 0
    for half in range(40):
        for _ in range(3):
            for host in (short, long):
                host.hear(there, at(half / 2))
                if (wanted := host.wanted(there, at(half / 2))) is not None:
                    there, writes = wanted, writes + 1
                    host.written(wanted, at(half / 2))
    assert writes <= 2 * 20 + 1
