"""Ticket keys in a whole fleet, together with its register of early data: what one host seals the others open, also
those of a host that is cut off from Redis, and keys are rotated meanwhile."""

import pytest

from tests.e2e.processes import wait_until
from tests.fleet.fleet import Fleet

SECONDS = 30
QUICK = {"poll": "100ms", "settle": "500ms"}


@pytest.fixture(scope="module")
def fleet(net, redis, pki, tmp_path_factory):
    """Everything is shared."""
    directory = tmp_path_factory.mktemp("fleet")
    (directory / "secret").write_bytes(b"s" * 48)
    tables = {
        "fleet": {"secret_files": [directory / "secret"], "redis": [redis.url], "deadline": "200ms", **QUICK},
        "tls": {"early_data": {"window": "1s"}},
    }
    with Fleet(net, directory, pki, tables) as fleet:
        wait_agreed(fleet)
        for server in fleet.servers:
            server.wait_register()
        yield fleet


def state(server):
    return server.told()["state"]


def connected(server):
    fleet = state(server)["fleet"]["tickets"]
    return bool(fleet and fleet["connected"])


def sealing(server):
    return next(key["id"] for key in state(server)["tickets"]["keys"] if key["state"] == "seals")


def wait_agreed(fleet, servers=None):
    servers = servers or fleet.servers
    wait_until(lambda: all(map(connected, servers)), SECONDS, "all are connected")
    wait_until(lambda: len(set(map(sealing, servers))) == 1, SECONDS, "all seal with one key")
    return sealing(servers[0])


def resumes(fleet, server, session):
    with fleet.client(server, session, early=False) as client:
        client.confirm()
        while not client.engine.established:
            client.take()
        return client.engine.resumed


def check_resumption(fleet):
    for one in fleet.servers:
        session = fleet.session(one)
        for other in fleet.servers:
            assert resumes(fleet, other, session), f"{other.host.address} does not open what {one.host.address} sealed"


def takes(fleet, server, session):
    """Whether early data is accepted under it."""
    with fleet.client(server, session) as client:
        client.send(b"GET /taken HTTP/1.1\r\nHost: edge.test\r\n\r\n")
        return client.flight()


def test_sessions_and_early_data_go_anywhere(fleet):
    check_resumption(fleet)
    first, *others = fleet.servers
    for other in others:
        wait_until(lambda s=other: takes(fleet, s, fleet.session(first)), SECONDS, "early data is taken")


def test_a_host_that_is_cut_off(fleet, redis):
    """It goes on with the keys it knows, and opens what the others seal even after they have rotated: the next key was
    known to it. When it is back it has theirs."""
    alone, *others = fleet.servers
    before = wait_agreed(fleet)
    mark = alone.mark()
    with alone.host.cut_off(redis.host):
        alone.wait_error("is not reached: .*; the last known ticket keys go on", mark, SECONDS)
        check_resumption(fleet)
        key = others[0].ask("rotate", wait=True)["key"]
        assert wait_agreed(fleet, others) == key != before
        assert sealing(alone) == before
        check_resumption(fleet)
    alone.wait_error(r"is reached again, after [\d.]+ s", mark, SECONDS)
    assert wait_agreed(fleet) == key
    check_resumption(fleet)


def test_a_host_is_killed_and_comes_back(fleet):
    """Its tickets live on with the others, and it has their keys as soon as it is back."""
    dead, *others = fleet.servers
    wait_agreed(fleet)
    session = fleet.session(dead)
    dead.process.kill()
    for other in others:
        assert resumes(fleet, other, session)
    others[0].ask("rotate", wait=True)
    dead.start()
    wait_agreed(fleet)
    assert resumes(fleet, dead, session)
    check_resumption(fleet)
