"""What the master tells of itself, of a running edge: workers that die and drain, reloads, and never a key."""

import json
import os
import platform
import signal

import pytest

from tests.e2e.processes import wait_until
from tests.edge.test_main import run


@pytest.fixture
def administered(edge, origin):
    edge.configure(origin, server='workers = 2\nadmin = "admin.sock"')
    return edge.start()


def state(edge):
    done = run("status", "--json", "--admin", edge.directory / "admin.sock")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)["state"]


def test_a_worker_that_was_killed_is_counted_in_its_slot(administered):
    before = state(administered)
    victim = before["workers"][1]
    os.kill(victim["pid"], signal.SIGKILL)

    def replaced():
        workers = state(administered)["workers"]
        return [w["state"] for w in workers] == ["serving"] * 2 and workers[1]["pid"] != victim["pid"]

    wait_until(replaced, 30)
    after = state(administered)
    assert [worker["restarts"] for worker in after["workers"]] == [0, 1]
    assert after["workers"][0] == before["workers"][0]
    assert after["workers"][1]["started"] >= victim["started"]
    assert after["pid"] == before["pid"] == administered.process.pid
    assert after["started"] == before["started"] <= before["now"] <= after["now"]
    assert administered.stop() == 0


def test_drains(administered, origin):
    """A worker that has no place any more finishes what it has begun."""
    connections = [administered.connect() for _ in range(12)]
    for connection in connections:
        connection.request("GET", "/slow/6000/5")
    administered.configure(origin, server='workers = 1\nadmin = "admin.sock"')
    assert run("reload", "--wait", "--config", administered.file).returncode == 0

    def drains():
        told = state(administered)
        draining = [worker for worker in told["workers"] if worker["state"] == "draining"]
        return draining and told["drains"]["workers"] == len(draining) and told["drains"]["until"] > told["now"]

    wait_until(drains, 30)
    for connection in connections:
        assert connection.getresponse().read() == b"xxxxx"
        connection.close()
    wait_until(lambda: state(administered)["drains"] == {"workers": 0, "until": None}, 30)
    assert administered.stop() == 0


def test_no_key_is_told(administered):
    told = json.dumps(state(administered))
    key = (administered.directory / "localhost.key").read_text()
    assert not any(line in told for line in key.splitlines() if len(line) > 20)
    assert administered.stop() == 0


def test_the_libraries_that_do_the_arithmetic_are_told(administered):
    told = state(administered)["libraries"]
    assert told["python"] == platform.python_version()
    assert told["libcrypto"].startswith("3.")
    assert told["x25519"] in ("libcrypto", "lib25519")
    assert told["ml_kem"] in ("libcrypto", "cryptography")  # the groups that edge serves by default have it
