"""What a service manager is told and hands over: a socket of the test's own stands for the manager's. That a real one
understands it is tested in tests/e2e/test_systemd_host.py."""

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from edge.errors import ListenError
from edge.processes import systemd
from edge.settings import Bind
from tests.e2e.processes import wait_until
from tests.edge.server import Load


class Manager:
    """NOTIFY_SOCKET, and what has come there: dictionaries, in order."""

    def __init__(self, address):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.socket.setblocking(False)
        self.heard = []

    def listen(self):
        with contextlib.suppress(BlockingIOError):
            while True:
                lines = self.socket.recv(65536).decode().split("\n")
                self.heard.append(dict(line.split("=", 1) for line in lines))
        return self.heard

    def count(self, name):
        return sum(name in message for message in self.listen())

    def wait(self, name, value=None, *, count=1, seconds=30):
        def there():
            return sum(name in m and value in (None, m[name]) for m in self.listen()) >= count

        wait_until(there, seconds, lambda: f"{name}={value} in {self.heard}")

    def order(self):
        """The states it was told, without those of the watchdog."""
        names = ("READY", "RELOADING", "STOPPING", "MAINPID")
        return [name for message in self.listen() for name in names if name in message]

    def status(self):
        return [m["STATUS"] for m in self.listen() if "STATUS" in m][-1]


@pytest.fixture(params=["path", "abstract"])
def manager(request, tmp_path):
    name = str(tmp_path / "notify")
    manager = Manager(name if request.param == "path" else f"\0{name}")
    manager.name = name if request.param == "path" else f"@{name}"
    yield manager
    manager.socket.close()


def test_states_of_a_life(edge, origin, manager):
    edge.environment = {"NOTIFY_SOCKET": manager.name}
    edge.start()
    manager.wait("READY")
    assert edge.get().status == 200
    assert manager.status() == f"generation 1: 2 of 2 workers serve 127.0.0.1:{edge.port}"
    edge.signal(signal.SIGHUP)
    manager.wait("READY", count=2)
    good = edge.file.read_text()
    edge.file.write_text("nonsense")
    edge.signal(signal.SIGHUP)
    manager.wait("READY", count=3)
    edge.file.write_text(good)
    assert edge.stop() == 0
    assert manager.order() == ["READY", "RELOADING", "READY", "RELOADING", "READY", "STOPPING"]
    for message in manager.heard:
        if "RELOADING" in message:
            assert 0 < int(message["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        assert "Gunicorn" not in message.get("STATUS", "")


def test_ready_waits_for_workers(edge, manager):
    """Nothing is said of a start that fails but that it ends."""
    edge.environment = {"NOTIFY_SOCKET": manager.name, "BROKEN": "1"}
    edge.program = ["-c", _BROKEN]
    edge.start(generation=0)
    assert edge.process.wait(30) == 1
    assert manager.order() == ["STOPPING"]


_BROKEN = """
from edge import plane
def open_plane(*a, **named):
    raise RuntimeError("broken for a test")
plane.open_plane = open_plane
from edge.__main__ import main
main()
"""


@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_the_watchdog_hears_of_workers_that_live(edge, origin, manager):
    edge.configure(origin, server='workers = 1\nworker_timeout = "2s"')
    edge.environment = {"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "600000"}
    edge.start()
    manager.wait("WATCHDOG", "1", count=3)
    (worker,) = edge.workers()
    os.kill(worker, signal.SIGSTOP)
    # It is late after worker_timeout; until it is replaced nothing vouches for the service.
    edge.wait_log(rf"worker 0 \(pid {worker}\) has shown no sign of life", seconds=30)
    wait_until(lambda: edge.workers() and worker not in edge.workers(), 30)
    before = manager.count("WATCHDOG")
    wait_until(lambda: manager.count("WATCHDOG") > before + 2, 30)
    assert edge.stop() == 0


def test_the_watchdog_hears_nothing_where_no_worker_lives(tmp_path):
    manager = Manager(str(tmp_path / "notify"))
    service = systemd.Service(systemd.Notifier(str(tmp_path / "notify"), watchdog=0.03))

    def turns(healthy):
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            at = service.step(serving=True, reloading=False, status="", healthy=healthy)
            assert at <= time.monotonic() + 0.03
            manager.listen()
            time.sleep(0.002)
        return manager.count("WATCHDOG")

    first = turns(True)
    assert first > 5
    assert turns(False) <= first + 2  # one may be on its way
    assert turns(True) > first + 5
    manager.socket.close()


def test_the_watchdog_hears_of_a_master_that_reads_for_long(tmp_path):
    manager = Manager(str(tmp_path / "notify"))
    service = systemd.Service(systemd.Notifier(str(tmp_path / "notify"), watchdog=0.03))
    end = time.monotonic() + 0.2
    while time.monotonic() < end:
        service.at_work("reads", 1, 2)
    assert 4 <= manager.count("WATCHDOG") <= 21
    systemd.Service(systemd.Notifier(str(tmp_path / "notify"))).at_work("reads", 1, 2)
    assert manager.count("WATCHDOG") <= 21, "nobody watches"


def test_work_that_takes_long_is_told_and_not_ended_for_it(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(systemd.time, "monotonic", lambda: now)
    manager = Manager(str(tmp_path / "notify"))
    service = systemd.Service(systemd.Notifier(str(tmp_path / "notify")))
    for done in range(20_000):
        service.at_work("reads certificates", done, 20_000)
        now += 0.0005
    extended = {"EXTEND_TIMEOUT_USEC": "60000000"}
    starts = [m["STATUS"] for m in manager.listen()]
    assert manager.heard == [{"STATUS": status} | extended for status in starts]
    assert len(starts) == 9, "one a second, and none of a start that is quick"
    assert starts[1].startswith("starts: reads certificates, 4,00")
    assert starts[1].endswith(" of 20,000")

    service.step(serving=True, reloading=False, status="1 worker", healthy=True)
    assert manager.listen()[-1] == {"READY": "1", "STATUS": "1 worker"}
    service.reload_asked()
    service.at_work("reads certificates", 1, 2)
    assert "RELOADING" in manager.listen()[-1]
    now += 1.0
    service.at_work("reads certificates", 1, 2)
    assert manager.listen()[-1] == {"STATUS": "reloads: reads certificates, 1 of 2"} | extended
    service.step(serving=True, reloading=False, status="1 worker", healthy=True)
    assert manager.listen()[-1] == {"READY": "1", "STATUS": "1 worker"}

    service.stopping()
    told = len(manager.listen())
    now += 10
    service.at_work("reads certificates", 1, 2)
    assert len(manager.listen()) == told
    manager.socket.close()


@pytest.mark.parametrize("manager", ["path"], indirect=True)
def test_a_start_that_reads_for_long_says_how_far_it_is(edge, manager):
    edge.environment = {"NOTIFY_SOCKET": manager.name}
    edge.program = ["-c", _SLOW]
    edge.start()
    manager.wait("READY")
    assert manager.heard[0] == {
        "STATUS": "starts: reads certificates, 0 of 1", "EXTEND_TIMEOUT_USEC": "60000000"
    }  # fmt: skip
    assert manager.heard[-1]["STATUS"] == f"generation 1: 2 of 2 workers serve 127.0.0.1:{edge.port}"


_SLOW = """
from edge.processes import systemd
systemd.WORK_SECONDS = 0.0
from edge.__main__ import main
main()
"""


def test_a_watchdog_for_somebody_else_is_not_ours():
    mine = {"NOTIFY_SOCKET": "/x", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": str(os.getpid())}
    assert systemd.Notifier.from_environment(mine).watchdog == 1
    assert mine == {}
    other = {"NOTIFY_SOCKET": "vsock:2:1234", "WATCHDOG_USEC": "1000000", "WATCHDOG_PID": "1"}
    notifier = systemd.Notifier.from_environment(other)
    assert (notifier.address, notifier.watchdog, other) == ("", 0, {})


def test_a_manager_that_does_not_read_is_told_later(tmp_path):
    manager = Manager(str(tmp_path / "notify"))
    notifier = systemd.Notifier(str(tmp_path / "notify"))
    told = 0
    while notifier.flush():
        notifier.tell(STATUS=told)
        told += 1
    notifier.tell(READY=1)
    assert not notifier.flush()
    manager.listen()
    assert notifier.flush()
    assert manager.listen()[-1] == {"READY": "1"}
    manager.socket.close()
    notifier.tell(STATUS="nobody hears this")
    assert notifier.flush()


def test_a_status_is_one_line():
    service_line = "a\nREADY=1\n" + "x" * 1000
    notifier = systemd.Notifier("/nowhere/at/all")
    notifier.flush = lambda: False
    notifier.tell(STATUS=service_line)
    (sent,) = notifier._unsent
    assert b"\n" not in sent
    assert len(sent) < 450


# Sockets that are given.

_LAUNCH = """
import os, sys
given = [int(fd) for fd in os.environ.pop("GIVEN").split(",")]
for i, fd in enumerate(given):
    os.dup2(fd, 3 + i, inheritable=True)
os.environ |= {"LISTEN_FDS": str(len(given)), "LISTEN_PID": str(os.getpid()), "LISTEN_FDNAMES": "web:web:web:web"}
os.execv(sys.executable, [sys.executable, "-m", "edge", *sys.argv[1:]])
"""


@pytest.fixture
def give(edge):
    """give(socket, ...): edge is to be started with them."""
    opened = []

    def give(*sockets):
        copies = [fcntl.fcntl(s.fileno(), fcntl.F_DUPFD, 50) for s in sockets]
        opened.extend(copies)
        edge.descriptors = copies
        edge.program = ["-c", _LAUNCH]
        edge.environment = {**edge.environment, "GIVEN": ",".join(map(str, copies))}

    yield give
    for fd in opened:
        os.close(fd)


def listening(port=0, *, group=False, family=socket.AF_INET):
    s = socket.socket(family, socket.SOCK_STREAM)
    if group:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    if family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    s.bind(("127.0.0.1" if family == socket.AF_INET else "::", port))
    s.listen(512)
    return s


@pytest.mark.parametrize("sockets", [1, 2], ids=["one for all workers", "one for each"])
def test_given_sockets_are_served_and_outlive_edge(edge, origin, give, sockets):
    first = listening(group=sockets > 1)
    edge.port = first.getsockname()[1]
    group = [first, *(listening(edge.port, group=True) for _ in range(sockets - 1))]
    give(*group)
    edge.configure(origin, server="workers = 2")
    edge.start()
    with Load(edge) as load:
        wait_until(lambda: load.requests > 100)
        edge.signal(signal.SIGHUP)
        edge.wait_generation(2)
        if sockets == 1:
            edge.signal(signal.SIGTTIN)
            wait_until(lambda: len(edge.workers()) == 3)
            edge.signal(signal.SIGTTOU)
            wait_until(lambda: len(edge.workers()) == 2, 30)
        before = load.requests
        wait_until(lambda: load.requests > before + 100)
    assert load.failures == []
    # The manager's sockets stay: who connects while edge is away is served by the next.
    assert edge.stop() == 0
    waiting = socket.create_connection(("127.0.0.1", edge.port), 5)
    waiting.close()
    edge.start()
    assert edge.get().status == 200
    assert edge.stop() == 0
    for s in group:
        s.close()


def test_more_given_sockets_than_workers_are_refused(edge, origin, give):
    first = listening(group=True)
    edge.port = first.getsockname()[1]
    second = listening(edge.port, group=True)
    give(first, second)
    edge.configure(origin, server="workers = 1")
    edge.start(generation=0)
    assert edge.process.wait(30) == 1
    assert "the socket unit opens 2 sockets, but there are 1 workers" in edge.log()
    edge.close()
    edge.configure(origin, server="workers = 2")
    edge.start()
    edge.signal(signal.SIGTTOU)
    edge.wait_log("the number of workers stays 2")
    assert edge.stop() == 0
    first.close()
    second.close()


def test_a_given_socket_that_nobody_listens_on_is_told(edge, origin, give):
    idle = listening()
    give(idle)
    edge.configure(origin)
    edge.start()
    edge.wait_log(rf"https://127.0.0.1:{idle.getsockname()[1]}: the service manager listens there, but no listener")
    assert edge.get().status == 200
    assert edge.stop() == 0
    idle.close()


def _adopted(s):
    """What given_sockets makes of a socket, in a process of its own: it is at descriptor 3 there."""
    code = (
        "import os\nfrom edge.processes import systemd\nfrom edge.errors import ListenError\n"
        "try:\n print(*map(str, systemd.given_sockets(os.environ)))\n"
        "except ListenError as e:\n print(e)"
    )
    launch = (
        "import os, sys\nos.dup2(int(sys.argv[1]), 3, inheritable=True)\n"
        "os.environ |= {'LISTEN_FDS': '1', 'LISTEN_PID': str(os.getpid()), 'LISTEN_FDNAMES': 'web'}\n"
        "os.execv(sys.executable, [sys.executable, '-c', sys.argv[2]])"
    )
    fd = fcntl.fcntl(s.fileno(), fcntl.F_DUPFD, 50)
    try:
        command = [sys.executable, "-c", launch, str(fd), code]
        return subprocess.run(command, pass_fds=(fd,), capture_output=True, text=True, timeout=30, check=True).stdout
    finally:
        os.close(fd)


def test_what_cannot_be_accepted_from_is_refused(tmp_path):
    with open(tmp_path / "file", "w") as file:
        assert "is no socket" in _adopted(file)
    with socket.socket() as s:
        assert "descriptor 3 (web) cannot be accepted from" in _adopted(s)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        s.bind(("127.0.0.1", 0))
        assert "cannot be accepted from" in _adopted(s)
    with listening() as s:
        assert _adopted(s) == f"127.0.0.1:{s.getsockname()[1]}\n"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as s:
        s.bind(str(tmp_path / "socket"))
        s.listen()
        assert _adopted(s) == f"unix:{tmp_path / 'socket'}\n"


@pytest.mark.skipif(not socket.has_ipv6, reason="there is no IPv6")
def test_a_socket_for_both_families_is_refused():
    try:
        s = listening(family=socket.AF_INET6)
    except OSError:
        pytest.skip("there is no IPv6")
    with s:
        assert "BindIPv6Only=ipv6-only" in _adopted(s)


def test_descriptors_for_another_process_are_not_taken():
    environ = {"LISTEN_FDS": "1", "LISTEN_PID": "1", "LISTEN_FDNAMES": "web", "OTHER": "x"}
    assert systemd.given_sockets(environ) == {}
    assert environ == {"OTHER": "x"}


def test_check_given():
    bind = Bind("127.0.0.1", 443)
    systemd.check_given([None], bind, 4)
    systemd.check_given([None] * 4, bind, 4)
    with pytest.raises(ListenError, match="write the ListenStream= once"):
        systemd.check_given([None] * 5, bind, 4)
