"""edge.service under a real systemd, on a machine of its own (tests/e2e/machine.py): EDGE_SLOW=1, and only for root."""

import contextlib
import re
import time

import pytest

from tests.e2e.machine import Machine, skip_without
from tests.e2e.processes import ROOT, wait_until

CONFIGURATION = """\
[server]
workers = 2
admin = "/run/edge/admin.sock"
pid_file = "/run/edge/edge.pid"
cache_dir = "/var/lib/edge"
drain_timeout = "5s"
access_log = { path = "/var/log/edge/access.log" }
metrics = "127.0.0.1:9145"
hooks = "hooks:Policy"

[[listener]]
bind = ["0.0.0.0:443", "[::]:443"]

[[certificate]]
chain = "/etc/edge/edge.pem"
key = "/etc/edge/edge.key"

[[upstream]]
name = "app"
servers = ["127.0.0.1:8080"]

[[route]]
upstream = "app"
"""

# What hooks are likely to do that a hardened unit could forbid.
HOOKS = """\
import ctypes, hashlib, socket, subprocess, tempfile, threading

class Policy:
    def director(self, request):
        callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)(lambda x: x + 1)
        assert callback(1) == 2
        assert socket.getaddrinfo("localhost", 80)
        with tempfile.TemporaryFile() as f:
            f.write(b"x")
        thread = threading.Thread(target=hashlib.sha256, args=(b"x",))
        thread.start()
        thread.join()
        assert subprocess.run(["/bin/true"]).returncode == 0
"""

WEB = "[Service]\nExecStart=/usr/bin/python3 -m http.server -b 127.0.0.1 8080\nWorkingDirectory=/srv\n"


@pytest.fixture(scope="module")
def machine(pki):
    skip_without()
    with Machine() as machine:
        machine.install("1")
        machine.link("1")
        machine.run("useradd", "--system", "--home-dir", "/var/lib/edge", "edge", check=True)
        machine.write("/etc/systemd/system/edge.service", (ROOT / "ansible/roles/edge/files/edge.service").read_text())
        machine.write("/etc/systemd/system/web.service", WEB)
        machine.write("/srv/index.html", "hello\n")
        machine.write("/etc/edge/edge.toml", CONFIGURATION)
        machine.write("/etc/edge/hooks.py", HOOKS)
        machine.write("/etc/edge/edge.pem", pki.default.chain.read_bytes())
        machine.write("/etc/edge/edge.key", pki.default.key.read_bytes(), 0o640)
        machine.run("chgrp", "edge", "/etc/edge/edge.key", check=True)
        machine.write("/etc/edge/ca.pem", pki.ca.file.read_bytes())
        machine.run("systemctl", "daemon-reload", check=True)
        started = machine.run("systemctl", "start", "web", "edge")
        assert started.returncode == 0, machine.journal("edge")
        yield machine
        stopped = machine.run("systemctl", "stop", "edge")
        said = machine.journal("edge")
        assert stopped.returncode == 0, said
        own = [line for line in said.splitlines() if "upgrade: process" not in line]  # what a bad version has said
        assert not any("Traceback" in line for line in own), said


def fetch(machine):
    curl = ("curl", "--silent", "--show-error", "--cacert", "/etc/edge/ca.pem", "--max-time", "10")
    return machine.run(*curl, "--resolve", "edge.test:443:127.0.0.1", "https://edge.test/index.html")


def serves(machine):
    done = fetch(machine)
    return (done.returncode, done.stdout) == (0, "hello\n")


def main_pid(machine):
    return int(machine.property("edge", "MainPID"))


def test_it_serves_when_it_is_started(machine):
    done = fetch(machine)
    assert done.stdout == "hello\n", machine.journal("edge")
    assert machine.property("edge", "StatusText") == "generation 1: 2 of 2 workers serve 0.0.0.0:443, [::]:443"
    metrics = machine.run("curl", "--silent", "--fail", "http://127.0.0.1:9145/metrics")
    assert metrics.returncode == 0
    assert "edge_" in metrics.stdout
    status = machine.run("/opt/edge/current/bin/edge", "status", "--json")
    assert status.returncode == 0, status.stdout


def test_processes_are_confined(machine):
    pids = machine.run("systemctl", "show", "--value", "-p", "MainPID", "edge").stdout.split()
    pids += machine.run("pgrep", "-u", "edge").stdout.split()
    assert len(set(pids)) >= 4  # master, two workers, the logs' writer, the observer
    for pid in set(pids):
        status = machine.run("cat", f"/proc/{pid}/status").stdout
        facts = dict(re.split(r":\s*", line, maxsplit=1) for line in status.splitlines() if ":" in line)
        assert (facts["NoNewPrivs"], facts["Seccomp"]) == ("1", "2")
        allowed = 1 << 10 if facts["Name"] == "edge: master" else 0  # CAP_NET_BIND_SERVICE
        for kind in ("CapPrm", "CapEff", "CapAmb"):
            assert int(facts[kind], 16) == allowed, (facts["Name"], kind)


def test_the_exposure_is_low(machine):
    said = machine.run("systemd-analyze", "security", "--no-pager", "edge").stdout
    score = float(re.search(r"Overall exposure level for edge.service: ([\d.]+)", said)[1])
    assert score <= 1.6, said


def test_reload(machine):
    before = main_pid(machine)
    done = machine.run("systemctl", "reload", "edge")
    assert done.returncode == 0, machine.journal("edge")
    assert "generation 2" in machine.property("edge", "StatusText")
    machine.write("/etc/edge/edge.toml", CONFIGURATION.replace("workers", "wrokers"))
    done = machine.run("systemctl", "reload", "edge")
    assert done.returncode != 0
    assert "server.wrokers: unknown key" in machine.journal("edge")
    machine.write("/etc/edge/edge.toml", CONFIGURATION)
    assert machine.property("edge", "ActiveState") == "active"
    assert main_pid(machine) == before
    assert serves(machine)


def test_upgrade(machine):
    def version(tree):
        (tree / "edge/__init__.py").write_text('__version__ = "2"\n')

    def broken(tree):
        (tree / "edge/plane.py").write_text("import nothing_of_that_name\n")

    before = main_pid(machine)
    machine.install("bad", broken)
    machine.link("bad")
    done = machine.run("/opt/edge/1/bin/edge", "upgrade", "--wait")
    assert (done.returncode, "nothing_of_that_name" in done.stdout) == (1, True), done.stdout
    assert main_pid(machine) == before
    machine.install("2", version)
    machine.link("2")
    done = machine.run("/opt/edge/1/bin/edge", "upgrade", "--wait")
    assert done.returncode == 0, done.stdout + machine.journal("edge")
    after = int(re.search(r"edge 2, process (\d+), serves", done.stdout)[1])
    wait_until(lambda: main_pid(machine) == after, 30, "the new main process")
    wait_until(lambda: machine.property("edge", "StatusText").startswith("generation"), 30, "its status")
    assert serves(machine)
    wait_until(lambda: machine.run("test", "-e", f"/proc/{before}").returncode, 30, "the end of the old master")
    assert machine.property("edge", "ActiveState") == "active"
    assert machine.property("edge", "NRestarts") == "0"
    # It is the service still: reloaded, and watched.
    assert machine.run("systemctl", "reload", "edge").returncode == 0
    assert main_pid(machine) == after


def test_a_killed_master_is_started_again(machine):
    before = main_pid(machine)
    machine.run("kill", "-KILL", str(before), check=True)
    # Whoever asks meanwhile is served, by the workers that are left or by the new ones.
    until = time.monotonic() + 30
    while main_pid(machine) in (0, before) or machine.property("edge", "ActiveState") != "active":
        assert serves(machine), machine.journal("edge")
        assert time.monotonic() < until
    assert serves(machine)
    assert machine.property("edge", "NRestarts") == "1"


def test_a_master_that_hangs_is_started_again_by_the_watchdog(machine):
    machine.write("/run/systemd/system/edge.service.d/quick.conf", "[Service]\nWatchdogSec=2s\n")
    machine.run("systemctl", "daemon-reload", check=True)
    machine.run("systemctl", "restart", "edge", check=True)
    before = main_pid(machine)
    time.sleep(3)  # longer than the watchdog: it is fed
    assert main_pid(machine) == before
    machine.run("kill", "-STOP", str(before), check=True)
    wait_until(lambda: main_pid(machine) not in (0, before), 60, "another master")
    wait_until(lambda: serves(machine), 30, "service")
    assert "Watchdog timeout" in machine.journal("edge")


CERTIFICATES = 14
SLOW = """\
import time
from edge.certificates import certs
from edge.processes import systemd

load = certs.load_entry

def load_slowly(settings, index):
    time.sleep(0.5 if index != HANGS_AT else 3600)
    return load(settings, index)

certs.load_entry = load_slowly
systemd._EXTEND_SECONDS = 6  # or the test of one that hangs would take minutes
from edge.__main__ import main
main()
"""
SLOW_UNIT = """\
[Service]
ExecStart=
ExecStart=/opt/edge/current/bin/python /etc/edge/slow.py run --config /etc/edge/slow.toml
TimeoutStartSec=3s
WatchdogSec=30s
Restart=no
"""


@contextlib.contextmanager
def starting_slowly(machine, hangs_at=-1):
    """With certificates that are slow to read, one of which never is if its place is given."""
    head, table, rest = re.split(r"(\[\[certificate\]\].*?\n\n)", CONFIGURATION, flags=re.DOTALL)
    machine.write("/etc/edge/slow.toml", head + CERTIFICATES * table + rest)
    machine.write("/etc/edge/slow.py", f"HANGS_AT = {hangs_at}\n{SLOW}")
    unit = machine.write("/run/systemd/system/edge.service.d/slow.conf", SLOW_UNIT)
    machine.run("systemctl", "daemon-reload", check=True)
    try:
        machine.run("systemctl", "stop", "edge", check=True)
        machine.run("systemctl", "start", "--no-block", "edge", check=True)
        seen = rf"starts: reads certificates, \d+ of {CERTIFICATES}"
        wait_until(lambda: re.fullmatch(seen, machine.property("edge", "StatusText")), 30, "how far it is")
        yield
    finally:
        unit.unlink()
        machine.run("systemctl", "daemon-reload", check=True)
        machine.run("systemctl", "restart", "edge", check=True)


def begins(machine):
    return machine.property("edge", "ActiveState") == "activating"


def test_a_start_that_goes_on_is_not_ended_for_being_late(machine):
    """Twice as long as TimeoutStartSec; how far it is can be seen."""
    begun = time.monotonic()
    with starting_slowly(machine):
        wait_until(lambda: not begins(machine), 60, "an end of the start")
        assert machine.property("edge", "ActiveState") == "active", machine.journal("edge")
        assert time.monotonic() - begun > CERTIFICATES * 0.5
        assert machine.property("edge", "NRestarts") == "0"
        assert serves(machine)


def test_a_start_that_hangs_is_ended_though_it_has_gone_on(machine):
    with starting_slowly(machine, hangs_at=4):
        wait_until(lambda: not begins(machine), 60, "an end of the start")
        assert machine.property("edge", "ActiveState") != "active"
        assert machine.property("edge", "Result") == "timeout", machine.journal("edge")
