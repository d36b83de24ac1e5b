"""Numbers with names: what they are read from, that they are JSON, and what has come between two looks."""

import json

import pytest
from cext.base.stats import Tally
from cext.tls.names import GROUP_NAMES, SUITE_NAMES

from edge.observe import figures
from edge.observe.counting import Counting
from edge.observe.figures import BOUNDS, STATUS
from edge.observe.labels import KINDS, NONE, OTHER, ROUTE, SERVER, UPSTREAM, Labels


@pytest.fixture
def counting():
    return Counting(rows=4, room=16)


def counted(counting, *, worker="a"):
    """A worker that has counted this and that -> the label's index."""
    counting.join(counting.assign(worker))
    tally = Tally(counting.table)
    tally.connection(entered=3, left=1)
    tally.handshake(SUITE_NAMES.index("TLS_AES_128_GCM_SHA256"), GROUP_NAMES.index("x25519mlkem768"), False, 1500)
    suite = SUITE_NAMES.index("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256")
    tally.handshake(suite, GROUP_NAMES.index("-"), True, 900)
    tally.alert(40, sent=True)
    tally.alert(48, sent=False)
    index = counting.labels.index(ROUTE, "example.com/*")
    for us in (1000, 2000, 3000, 100000):
        tally.request(index, 200, us)
    tally.request(index, 0, 10)
    tally.request(counting.labels.index(SERVER, "app/127.0.0.1:9000"), 502, 10)


def test_everything_has_a_name(counting):
    counted(counting)
    found = figures.read(counting.table, counting.labels)
    assert found.counters()["connections"] == 3
    assert "connections_open" not in found.counters()
    assert found.gauges()["connections_open"] == 2
    assert found.states() == {"new": 2, "active": 0, "idle": 0, "hijacked": 0}
    assert list(found.handshakes()) == [
        ("1.3", "TLS_AES_128_GCM_SHA256", "x25519mlkem768", False, 1),
        ("1.2", "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256", "-", True, 1),
    ]
    assert found.alerts("sent") == {"handshake_failure": 1}
    assert found.alerts("received") == {"unknown_ca": 1}
    assert found.handshake(resumed=True).sum == 0.0009
    route, server = found.series()
    assert (route.kind, route.label) == (ROUTE, "example.com/*")
    assert route.total.count == 5
    assert (server.kind, server.label) == (SERVER, "app/127.0.0.1:9000")
    assert [s.kind for s in found.series((SERVER,))] == [SERVER]


def test_as_a_dictionary_it_is_json_with_the_keys_that_are_documented(counting):
    counted(counting)
    found = json.loads(json.dumps(figures.read(counting.table, counting.labels).as_dict()))
    documented = figures.Figures.as_dict.__doc__
    for key in found:
        assert f"`{key}`" in documented, key
    route = found["routes"]["example.com/*"]
    assert set(route) == set(documented.partition("{label: {")[2].partition("}}")[0].replace("{none, 1xx, ...}", "")
                             .replace(" ", "").split(","))
    assert route["status"] == dict.fromkeys(STATUS, 0) | {"none": 1, "2xx": 4}
    assert route["total"]["count"] == 5
    assert 0.001 < route["total"]["p50"] < 0.0025
    assert 0.08 < route["total"]["p99"] <= 0.12
    assert found["upstreams"] == {}
    assert found["handshake"]["full"]["count"] == 1
    assert found["seconds"] is None


def test_what_has_come_since(counting):
    counted(counting)
    earlier = figures.read(counting.table, counting.labels)
    Tally(counting.table).connection(entered=1)
    Tally(counting.table).request(counting.labels.index(UPSTREAM, "app"), 200, 100)
    rest = figures.read(counting.table, counting.labels).since(earlier).as_dict()
    assert rest["counters"]["connections"] == 1
    assert rest["gauges"]["connections_open"] == 3
    assert rest["handshakes"] == []
    assert rest["alerts"] == {"sent": {}, "received": {}}
    assert rest["handshake"]["full"]["p50"] is None
    assert rest["upstreams"]["app"]["requests"] == 1
    assert rest["routes"]["example.com/*"]["requests"] == 0
    assert rest["seconds"] >= 0


def test_rows_are_assigned_and_what_they_counted_is_kept(counting):
    assert [counting.assign(worker) for worker in "abcd"] == [1, 2, 3, None]
    table = counting.join(2)
    Tally(table).connection()
    own = counting.join(None)
    assert own is not table
    Tally(own).connection()
    counting.keep(["a", "c"])
    assert table.read().counters()["connections"] == 1
    assert table.read().counters()["connections_open"] == 0
    assert counting.assign("e") == 2


def test_a_label_keeps_its_index_and_what_has_no_room_is_counted_together():
    labels = Labels(6)
    assert [labels.index(kind, OTHER) for kind in (ROUTE, UPSTREAM)] == [0, 1]
    assert labels.index(SERVER, "other/other") == 2
    assert labels.index(ROUTE, NONE) == 3
    first, second = labels.index(ROUTE, "a"), labels.index(UPSTREAM, "a")
    assert (first, second) == (4, 5)
    assert [labels.index(kind, "late") for kind in KINDS] == [0, 1, 2]
    assert labels.index(ROUTE, "a") == first
    assert list(labels)[4:] == labels.after(4) == [(ROUTE, "a"), (UPSTREAM, "a")]
    assert len(labels) == 6


def test_a_histogram_of_figures_has_a_count_for_each_bound_and_one_more(counting):
    counted(counting)
    turn = figures.read(counting.table, counting.labels).turn()
    assert len(turn.counts) == len(BOUNDS) + 1
    assert BOUNDS[0] == 0.000016
