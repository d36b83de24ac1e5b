"""Machines with a kernel of their own: that they are such hosts, and that nothing of them is left."""

import os
import platform
import signal
import subprocess
import sys

import pytest

from tests.e2e.processes import ROOT, wait_until
from tests.hosts import network, runs, virtual

pytestmark = pytest.mark.machines


def test_a_fresh_host_with_its_own_kernel(virtual_host):
    said = virtual_host.ssh("v", "systemctl is-system-running --wait; hostname; uname -r; nproc").stdout.split()
    assert (said[0], said[1], said[3]) == ("running", "v", str(virtual.CPUS))
    assert said[2] != platform.release()
    # What is this host's on machines of systemd-nspawn is its own.
    raised = virtual_host.ssh("v", "echo 1048577 >/proc/sys/fs/nr_open && cat /proc/sys/fs/nr_open").stdout
    assert raised == "1048577\n"
    queues = virtual_host.ssh("v", "cd /sys/class/net; echo enp*/queues/*").stdout.split()
    cards = sorted({queue.partition("/")[0] for queue in queues})
    counts = [sorted(queue.rpartition("/")[2] for queue in queues if queue.startswith(card)) for card in cards]
    assert counts == [["rx-0", "rx-1", "tx-0", "tx-1"], ["rx-0", "tx-0"]]


def test_ansible_reaches_it(virtual_host):
    done = virtual_host.ansible("ansible", "all", "-m", "ping", "-o")
    assert done.stdout.count("SUCCESS") == 1, done.stdout


def test_its_network_has_no_way_out_but_the_proxy(virtual_host):
    connect = "python3 -c \"import socket; socket.create_connection(('192.0.2.1', 80), 20)\" 2>&1"
    assert "unreachable" in virtual_host.ssh("v", connect).stdout
    assert virtual_host.ssh("v", "apt-get update", seconds=60 * virtual.patience()).returncode == 0


def test_power_fails_and_returns(virtual_host):
    virtual_host.ssh("v", "echo kept >/root/note; sync")
    virtual_host.kill("v")
    assert not virtual_host.running("v")
    virtual_host.boot("v")
    assert virtual_host.ssh("v", "cat /root/note").stdout == "kept\n"


HOLDER = """\
import sys, time
from tests.hosts.conftest import this_release
from tests.hosts.machines import Hosts
hosts = Hosts(sys.argv[1])
hosts.begin()
hosts.add("x", this_release(), own_kernel=True)
machine = hosts.machines["x"]
machine.boot()
print(machine.pid, flush=True)
time.sleep(600)
"""


def test_a_run_that_is_killed_leaves_nothing(virtual_host):
    name = f"held-{os.getpid()}"
    with subprocess.Popen([sys.executable, "-c", HOLDER, name], cwd=ROOT, stdout=subprocess.PIPE) as process:
        pid = int(process.stdout.readline())
        wait_until(lambda: _command(pid), 30, "QEMU")
        process.send_signal(signal.SIGKILL)
    wait_until(lambda: not runs.directory(name).exists(), 60, "nothing of it left")
    assert not _command(pid)
    assert not os.path.exists(f"/run/netns/{network.hub(name)}")
    assert not (runs.group_root() / runs.GROUP / name).exists()


def _command(pid: int) -> bytes:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as f:
            said = f.read()
    except OSError:
        return b""
    return said if virtual.QEMU.encode() in said.partition(b"\0")[0] else b""
