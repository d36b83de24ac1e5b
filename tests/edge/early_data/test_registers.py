"""Which early data was taken: known after a reload, a restart and under another master, and never under two names."""

import json
import os

import pytest

from edge import config
from edge import settings as tables
from edge.early_data.registers import Registers
from edge.fleet import link as links
from edge.fleet.settings import Fleet
from edge.lately import MOST
from edge.schema import Place


def tickets(**values):
    return config.read_table(tables.Tickets, values, Place("/etc/edge.toml").key("tls").key("tickets"))


@pytest.fixture(params=["random", "shared"])
def registers(request, tmp_path):
    """(where [tls] tickets stands, the table): with random keys, or with a secret that hosts share."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(48)))
    at = Place(str(tmp_path / "edge.toml")).key("tls").key("tickets")
    return at, tickets(secret_file=str(secret)) if request.param == "shared" else tickets()


def early(**values):
    return config.read_table(tables.EarlyData, values, Place("edge.toml"))


def test_a_reload_keeps_the_register(registers):
    kept = Registers()
    at, keys = registers
    register = kept.of_host(early(), keys, at)
    assert register.keeps == 20_000
    assert kept.of_host(early(unique_header="none", max_bytes="1KiB"), keys, at) is register
    other = kept.of_host(early(window="1s"), keys, at)
    assert other.keeps == 2_000 and other.identity != register.identity
    assert kept.of_host(early(), keys, at) is register, "and what it knows"


def test_a_register_has_room_for_the_rate(registers):
    at, keys = registers
    for rate, window in ((1, "100ms"), (5000, "10s"), (20_000, "1m")):
        register = Registers().of_host(early(rate=rate, window=window), keys, at)
        assert register.capacity >= 4 * rate * register.keeps / 1000
        assert register.capacity <= max(8 * rate * register.keeps / 1000, 1024)


def test_a_register_lasts_over_a_restart_with_the_secret(registers):
    """The name of a secret's register; without a secret its tickets are gone, too."""
    at, keys = registers
    before = Registers()
    identity = before.of_host(early(), keys, at).identity
    assert Registers().of_host(early(), keys, at).identity != identity, "another one, while it is in use"
    del before
    assert (Registers().of_host(early(), keys, at).identity == identity) == (keys.secret_file is not None)


def test_a_fleets(tmp_path):
    """Of all configurations with the same window one register; what only says how long to wait is another's."""
    (tmp_path / "secret").write_bytes(bytes(range(48)))
    at = Place(str(tmp_path / "edge.toml")).key("fleet")
    written = {"secret_files": ["secret"], "redis": ["127.0.0.1:1"]}
    link = links.read(config.read_table(Fleet, written, at), at)
    kept = Registers()
    first = kept.of_fleet(early(), 50, link)
    assert kept.of_fleet(early(unique_header="none"), 50, link) is first
    assert (later := kept.of_fleet(early(), 100, link)) is not first and later.local is first.local
    assert kept.of_fleet(early(window="1s"), 50, link).local is not first.local
    for i in range(MOST):  # others, after which it is another one
        kept.of_fleet(early(rate=i + 1), 50, link)
    assert kept.of_fleet(early(), 50, link).local is not first.local


def handed_over(registers, *, layout=None):
    """What another master makes of them, by way of JSON."""
    lent = []
    part = json.loads(json.dumps(registers.bequeath(lambda fd: lent.append(os.dup(fd)) or lent[-1])))
    if layout is not None:
        part["layout"] = layout
    heir = Registers()
    heir.inherit(part, lambda fd: lent.remove(fd) or fd)
    for fd in lent:
        os.close(fd)
    return heir


def test_an_heir_takes_nothing_twice(registers):
    at, keys = registers
    first = Registers()
    register = first.of_host(early(), keys, at)
    assert register.enter(b"binder" * 6)
    second = handed_over(handed_over(first))  # and it can be handed on
    same = second.of_host(early(), keys, at)
    assert same.identity == register.identity
    assert not same.enter(b"binder" * 6)
    assert same.enter(b"other" * 8)
    assert not register.enter(b"other" * 8)


def test_an_heir_with_another_layout_goes_by_another_name(registers):
    """The old master's register goes on taking: two of one name would take the same twice."""
    at, keys = registers
    first = Registers()
    register = first.of_host(early(), keys, at)
    assert handed_over(first, layout=1000).of_host(early(), keys, at).identity != register.identity
