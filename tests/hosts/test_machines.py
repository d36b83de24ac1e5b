"""The machines themselves: that they are what a fresh host is, and that nothing of them is left."""

import os
import signal
import subprocess
import sys
import time

import pytest

from tests.e2e.processes import ROOT, alive, wait_until
from tests.hosts import network, runs, trees
from tests.hosts.machines import Hosts

pytestmark = pytest.mark.machines


@pytest.fixture(scope="module")
def hosts():
    with Hosts(f"test-{os.getpid()}") as hosts:
        for name, release in zip("ab", trees.RELEASES, strict=True):
            hosts.add(name, release)
        hosts.boot()
        yield hosts


@pytest.mark.parametrize(("name", "version", "python"), [("a", "12", "3.11"), ("b", "13", "3.13")])
def test_a_fresh_host(hosts, name, version, python):
    said = hosts.ssh(name, "cat /etc/debian_version; python3 -V; systemctl is-system-running --wait; hostname").stdout
    debian, interpreter, state, host = said.splitlines()
    assert (debian.split(".")[0], state, host) == (version, "running", name)
    assert interpreter.startswith(f"Python {python}.")
    assert hosts.ssh(name, "getent passwd edge; command -v gcc; ls /opt").stdout == ""


def test_ansible_reaches_them(hosts):
    done = hosts.ansible("ansible", "all", "-m", "ping", "-o")
    assert done.stdout.count("SUCCESS") == 2, done.stdout


def test_their_network_is_their_own(hosts):
    """They see each other and the proxy, and no more; of this host nothing."""
    connect = "python3 -c \"import socket; socket.create_connection(('{}', {}), 20)\" 2>&1"
    assert hosts.ssh("a", connect.format("b", 22)).returncode == 0
    assert "unreachable" in hosts.ssh("a", connect.format("192.0.2.1", 80)).stdout
    for target in ("http://localhost/", "http://127.0.0.1:80/", f"http://{network.HUB}:22/"):
        curl = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-x", f"http://{network.HUB}:{network.PROXY_PORT}"]
        assert hosts.command(*curl, target).stdout in ("403", "502"), target


def test_apt_has_a_way_out(hosts):
    done = hosts.ssh("b", "apt-get update && apt-get install -y --no-install-recommends sl", seconds=300)
    assert done.returncode == 0, done.stdout


def test_power_fails_and_returns(hosts):
    hosts.ssh("a", "echo kept >/root/note; sync")
    hosts.kill("a")
    assert not hosts.running("a")
    assert hosts.ssh("b", "true").returncode == 0
    hosts.boot("a")
    assert hosts.ssh("a", "cat /root/note").stdout == "kept\n"


HOLDER = """\
import sys, time
from tests.hosts.machines import Hosts
hosts = Hosts(sys.argv[1])
hosts.begin()
hosts.add("x", "bookworm")
hosts.boot()
print("up", flush=True)
time.sleep(600)
"""


@pytest.fixture
def holder():
    """A run of another process."""
    name = f"held-{os.getpid()}"
    process = subprocess.Popen([sys.executable, "-c", HOLDER, name], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"up\n"
    yield name, process
    process.kill()
    process.wait(10)
    process.stdout.close()


def left_of(run: str) -> list[str]:
    found = [str(runs.directory(run)), str(runs.group_root() / runs.GROUP / run)]
    found += [f"/run/netns/{name}" for name in (network.hub(run), network.namespace(run, "x"))]
    return [path for path in found if os.path.exists(path)]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_killed_leaves_nothing(holder, number):
    name, process = holder
    assert len(left_of(name)) == 4
    process.send_signal(number)
    wait_until(lambda: not left_of(name), 30, "nothing of it left")


def test_a_run_whose_keeper_is_killed_is_removed_by_the_next(holder):
    name, process = holder
    keeper = int((runs.directory(name) / "keeper").read_text())
    os.kill(keeper, signal.SIGKILL)
    process.kill()
    process.wait(10)
    wait_until(lambda: not alive(keeper), 10, "its end")
    assert len(left_of(name)) == 4
    said = []
    following = f"next-{os.getpid()}"
    with Hosts(following, say=said.append):
        assert not left_of(name)
    assert any(name in line for line in said)
    assert not left_of(following)


def test_a_run_that_lives_is_left_alone(hosts):
    with pytest.raises(FileExistsError):
        Hosts(hosts.run).begin()
    assert hosts.ssh("a", "true").returncode == 0


def test_a_tree_is_made_once(hosts):
    began = time.monotonic()
    assert trees.tree("bookworm") == trees.tree("bookworm")
    assert time.monotonic() - began < 5
