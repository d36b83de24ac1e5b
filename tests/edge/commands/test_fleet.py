"""`edge fleet`: what it prints and how it ends, whatever the running edge says."""

import json
import time

import pytest
from click.testing import CliRunner

from edge.commands import render
from edge.commands.fleet import fleet
from tests.edge.commands.test_reload import somebody
from tests.edge.commands.test_render import NOW, shown

KEYS = {
    "connected": True,
    "heard": NOW - 2,
    "lost": None,
    "error": "",
    "polls": {"answered": 1200, "failed": 3},
    "version": 7,
    "secret": 0,
    "clock_offset": 0.0,
    "told_at_once": True,
}
FLEET = {"name": "west", "mode": "sentinel", "redis": ["redis://a:1"], "share": ["tickets"], "tickets": KEYS}


def told(**keys):
    return shown(render.fleet({**FLEET, "tickets": {**KEYS, **keys}}, NOW))


def test_what_is_shown():
    text = told()
    counts = f"{render.number(1200)} times with, 3"
    for part in ("west", "sentinel, redis://a:1", "shared with all hosts", f"{render.duration(2)} ago", counts):
        assert part in text
    assert "version 7" in text and "the first of secret_files" in text and "as Redis's" in text


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"connected": False, "lost": NOW - 90, "error": "no answer"}, "not reached for 1m 30s: no answer"),
        ({"connected": False, "heard": None}, "asked for the first time"),
        ({"heard": None}, "never"),
        ({"secret": 1}, "number 2 of secret_files still"),
        ({"secret": None, "version": None}, "secret       –"),
        ({"clock_offset": -3.2}, "Redis's is -3.2 s off"),
        ({"told_at_once": False}, "found when it is asked"),
        ({"connected": False, "lost": NOW, "error": "a\x1b[31mb\nc"}, "not reached"),
    ],
)
def test_what_else_is_shown(keys, said):
    text = told(**keys)
    assert said in text
    assert "\x1b" not in text


def test_a_fleet_that_shares_no_ticket_keys():
    text = shown(render.fleet({**FLEET, "share": ["early-data"], "tickets": None}, NOW))
    assert "early-data" in text and "ticket keys" not in text


def call(tmp_path, answer, *words):
    path = tmp_path / "admin.sock"
    with somebody(path, json.dumps(answer).encode() + b"\n"):
        return CliRunner().invoke(fleet, [*words, "--admin", str(path)])


def test_rotate(tmp_path):
    done = call(tmp_path, {"ok": True, "key": "0011aabb", "seals": time.time() + 29.8}, "rotate")
    assert (done.exit_code, done.output) == (0, "ticket key 0011aabb seals in 30 s\n")


def test_rotate_and_wait(tmp_path):
    done = call(tmp_path, {"ok": True, "key": "0011aabb", "seals": time.time()}, "rotate", "--wait", "--revoke")
    assert (done.exit_code, done.output) == (0, "ticket key 0011aabb seals\n")


def test_a_refusal(tmp_path):
    done = call(tmp_path, {"ok": False, "error": "redis://a:1 is not reached"}, "rotate", "--wait")
    assert done.exception.exit_code == 1
    assert str(done.exception) == "the ticket keys stay as they are: redis://a:1 is not reached"


def test_no_answer_in_time(tmp_path):
    path = tmp_path / "admin.sock"
    with somebody(path, then=lambda connection: connection.recv(1)):
        done = CliRunner().invoke(fleet, ["rotate", "--wait", "--timeout", "1s", "--admin", str(path)])
    assert done.exception.exit_code == 4
    assert CliRunner().invoke(fleet, ["rotate", "--admin", str(tmp_path / "none")]).exception.exit_code == 3


TICKETS = {"source": "fleet", "shared": True, "rotate": 60.0, "keep": 1, "keys": []}
STATE = {"now": NOW, "fleet": FLEET, "tickets": TICKETS}


def test_status(tmp_path):
    done = call(tmp_path, {"ok": True, "state": STATE, "figures": {}}, "status")
    assert done.exit_code == 0 and "west" in done.output and "Ticket keys: the fleet's" in done.output


def test_status_as_json(tmp_path):
    done = call(tmp_path, {"ok": True, "state": STATE, "figures": {}}, "status", "--json")
    assert json.loads(done.output) == {"fleet": FLEET, "tickets": STATE["tickets"]}


def test_there_is_no_fleet(tmp_path):
    done = call(tmp_path, {"ok": True, "state": {**STATE, "fleet": None}, "figures": {}}, "status")
    assert done.exception.exit_code == 1 and "no fleet" in str(done.exception)
