"""Idle connections of one worker, as many as its descriptors allow, on a host whose limit of open files is its own.

`bench scale` runs there, with what is built here, and its clients run here. EDGE_HOSTS_IDLE says how many connections;
where the processor is emulated it is but a few by default, as 100,000 take ten minutes or more for each protocol. What
was measured is in .cache/hosts/idle.json (`bench scale --vm`).
"""

import contextlib
import json
import os
import subprocess
import sys

import pytest

from tests.e2e.processes import ROOT, wait_until
from tests.hosts import network, virtual

pytestmark = pytest.mark.machines

SIZES = os.environ.get("EDGE_HOSTS_IDLE") or ("1000,10000,100000" if virtual.accelerated() else "300,3000")
RESULT = ROOT / ".cache/hosts/idle.json"
PAUSE_MS = {True: 250, False: 2500}
NEEDED = "nginx-light libnghttp2-14"
BENCH = (
    "cd /root/edge && ulimit -n 1048576 && PYTHONPATH=packages python3 -u -m bench scale connections"
    " --clients {clients} --addresses {addresses}"
    " --sizes {sizes} --seconds {seconds} --beside {beside} --json /root/idle.json"
)
PORT = 3129
CLIENTS = 10  # that hold connections, each to an address of its own
SETTINGS = {True: {"seconds": 5, "beside": 500}, False: {"seconds": 1, "beside": 50}}


@pytest.fixture(scope="module")
def points(virtual_host, progress):
    """What was measured, by protocol and number of connections."""
    hosts = virtual_host
    with progress.step("what is built here, sent"):
        hosts.send_build("v")
        hosts.ssh("v", "apt-get update", 60 * virtual.patience())
        install = f"DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {NEEDED}"
        done = hosts.ssh("v", f"{install} && systemctl disable --now nginx", 120 * virtual.patience())
        assert done.returncode == 0, done.stdout
    aside = f"{network.ASIDE}.{hosts.hosts['v'].number}"
    addresses = [f"{aside}.{number}" for number in range(2, 2 + CLIENTS)]
    card = wait_until(lambda: card_of(hosts, addresses[0]), 60, "the card's address")
    hosts.ssh("v", "; ".join(f"ip address add {address}/24 dev {card}" for address in addresses[1:]))
    command = BENCH.format(
        clients=f"{aside}.1:{PORT}", addresses=",".join(addresses), sizes=SIZES, **SETTINGS[virtual.accelerated()]
    )
    with clients(hosts, f"{aside}.1"), progress.step(f"bench scale connections --sizes {SIZES}") as step:
        said = []
        line = hosts.inside(["ssh", "-F", str(hosts.ssh_config), "v", command])
        null, pipe, together = subprocess.DEVNULL, subprocess.PIPE, subprocess.STDOUT
        with subprocess.Popen(line, stdin=null, stdout=pipe, stderr=together) as bench:
            for text in bench.stdout:
                said.append(text.decode(errors="replace").strip())
                step.now(said[-1])
        assert bench.returncode == 0, "\n".join(said[-20:])
    found = json.loads(hosts.ssh("v", "cat /root/idle.json").stdout)
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps(found, indent=1) + "\n")
    return {curve: {point["n"]: point for point in points} for curve, points in found["curves"].items()}


def card_of(hosts, address):
    """The name of the network card that has it; "" when none has yet."""
    return "".join(hosts.ssh("v", f"ip -oneline address show to {address}").stdout.split()[1:2])


@contextlib.contextmanager
def clients(hosts, address):
    """They run here, in the hosts' network."""
    command = hosts.inside([sys.executable, "-m", "bench.scale.away", "--serve", f"{address}:{PORT}"])
    null, pipe = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(command, cwd=ROOT, stdin=null, stdout=pipe, start_new_session=True) as server:
        try:
            assert server.stdout.readline() == b"serves\n"
            yield
        finally:
            server.terminate()


@pytest.mark.parametrize(("curve", "most"), [("connections_h1", 2500), ("connections_h2", 5000)])
def test_one_worker_holds_them(points, progress, curve, most):
    measured = points[curve]
    assert all(point["workers"] == 1 for point in measured.values())
    few, many = measured[min(measured)], measured[max(measured)]
    said = f"{many['connection_bytes']:,.0f} bytes each, the kernel's {many['kernel_bytes']:,.0f}"
    progress.note(f"{many['n']:,} idle, {curve[-2:]}", f"one worker: {said}", 0)
    assert many["connection_bytes"] < most
    # One that comes new does not pay for those that are there; others are at work on this machine, too.
    assert many["last_handshake_us"] < 5 * few["last_handshake_us"]
    assert max(many["list_pause_ms"], many["reload_pause_ms"]) < PAUSE_MS[virtual.accelerated()]
    assert "drain_wall_s" in many
    assert "reload_wall_s" in many
