"""Master and workers as real processes: reload, replacement, drain, and that clients notice none of it."""

import contextlib
import os
import pwd
import re
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from edge import demo
from tests.e2e.processes import alive, free_port, open_files, wait_until
from tests.e2e.server import settled
from tests.edge.server import Load, Origin


def test_titles_name_master_slot_and_generation(edge):
    edge.start()
    assert Path(f"/proc/{edge.process.pid}/cmdline").read_bytes().rstrip(b"\0") == b"edge: master"
    assert sorted(edge.workers().values()) == ["edge: worker 0 (generation 1)", "edge: worker 1 (generation 1)"]
    assert edge.get().status == 200
    assert edge.stop() == 0


def test_hup_with_a_bad_file_changes_nothing(edge, origin):
    edge.start()
    before = edge.workers()
    good = edge.file.read_text()
    for number, (bad, why) in enumerate(
        [
            (good.replace("workers", "wrokers"), 'server.wrokers: unknown key; did you mean "workers"?'),
            (good + "[", "is no TOML"),
            (good.replace("localhost.key", "none.key"), "certificate[0].key"),
            (good.replace('upstream = "origin"', 'upstream = "orgin"'), 'did you mean "origin"?'),
            (good.replace("127.0.0.1:", "192.0.2.1:", 1), "is no address of this host"),
        ],
        1,
    ):
        edge.file.write_text(bad)
        edge.signal(signal.SIGHUP)
        edge.wait_log("reload refused, nothing has changed", count=number)
        assert why in edge.log()
        assert edge.get().status == 200
    edge.file.unlink()
    edge.signal(signal.SIGHUP)
    edge.wait_log("no such file or directory")
    assert edge.workers() == before
    assert "Traceback" not in edge.log()
    assert edge.stop() == 0


def test_hup_under_load_loses_nothing_and_serves_the_new_settings(edge):
    second = Origin("second")
    edge.start()
    with Load(edge) as load:
        for generation in range(2, 6):
            time.sleep(0.3)
            edge.signal(signal.SIGHUP)
            edge.wait_generation(generation)
        edge.configure(second)
        edge.signal(signal.SIGHUP)
        edge.wait_generation(6)
        time.sleep(0.5)
        assert edge.get().headers["Origin"] == "second"
    assert load.failures == []
    assert load.requests > 50
    assert load.origins == {"origin", "second"}
    wait_until(lambda: sorted(edge.workers().values()) == [f"edge: worker {i} (generation 6)" for i in (0, 1)])
    assert edge.stop() == 0
    second.close()


def test_a_renewed_certificate_is_served_after_hup(edge, tmp_path):
    def serial():
        connection = edge.connect()
        connection.connect()
        with contextlib.closing(connection):
            return connection.sock.getpeercert()["serialNumber"]

    edge.start()
    before = serial()
    renewed = tmp_path / "renewed"
    renewed.mkdir()
    edge.context.load_verify_locations(demo.make_certificates(renewed))
    for name in ("localhost.pem", "localhost.key"):
        (tmp_path / name).write_bytes((renewed / name).read_bytes())
    assert serial() == before
    edge.signal(signal.SIGHUP)
    edge.wait_generation(2)
    wait_until(lambda: serial() != before)
    assert edge.stop() == 0


def test_workers_may_open_as_many_files_as_the_hard_limit_allows(edge):
    edge.start()
    for pid in edge.workers():
        (line,) = [x for x in Path(f"/proc/{pid}/limits").read_text().splitlines() if x.startswith("Max open files")]
        soft, hard = line.split()[3:5]
        assert soft == hard
    assert edge.stop() == 0


def test_a_request_outlives_the_reload(edge):
    edge.start()
    workers = edge.workers()
    connection = edge.connect()
    connection.request("GET", "/slow/1500/5")
    time.sleep(0.3)
    edge.signal(signal.SIGHUP)
    edge.wait_generation(2)
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"xxxxx")
    assert response.headers["Connection"] is None
    assert edge.workers().keys() == workers.keys()
    assert edge.stop() == 0


def test_a_request_outlives_the_replacement_of_its_worker(edge, origin):
    edge.start()
    workers = edge.workers()
    connection = edge.connect()
    connection.request("GET", "/slow/1500/5")
    time.sleep(0.3)
    edge.configure(origin, server="workers = 3")
    edge.signal(signal.SIGHUP)
    edge.wait_generation(2)
    response = connection.getresponse()
    assert (response.status, response.read()) == (200, b"xxxxx")
    assert response.headers["Connection"] == "close"
    wait_until(lambda: len(edge.workers()) == 3)
    assert not set(edge.workers()) & set(workers)
    assert edge.stop() == 0


@pytest.mark.parametrize("before", [0, 1], ids=["after its handshake", "between two requests"])
def test_a_request_that_crosses_the_replacement_is_answered(edge, origin, before):
    edge.start()
    connections = [edge.connect() for _ in range(8)]
    for connection in connections:
        connection.connect()
        for _ in range(before):
            connection.request("GET", "/")
            assert connection.getresponse().read() == b"xx"
    edge.configure(origin, server="workers = 3")
    edge.signal(signal.SIGHUP)
    edge.wait_generation(2)
    time.sleep(0.2)  # the old workers drain
    for connection in connections:
        connection.auto_open = False
        connection.request("GET", "/")
        response = connection.getresponse()
        assert (response.status, response.headers["Connection"], response.read()) == (200, "close", b"xx")
        connection.close()
    assert edge.stop() == 0


def test_a_connection_that_asks_nothing_does_not_hold_up_the_drain(edge):
    edge.start()
    fresh, kept = edge.connect(), edge.connect()
    fresh.connect()
    kept.request("GET", "/")
    kept.getresponse().read()
    begin = time.monotonic()
    assert edge.stop() == 0
    assert time.monotonic() - begin < 4
    for connection in (fresh, kept):
        assert connection.sock.recv(1) == b""  # an orderly end: close_notify, no reset
        connection.close()


def test_a_killed_worker_loses_only_its_open_connections(edge, origin):
    # One worker: every connection that is made while it is dead has nowhere else to go.
    edge.configure(origin, server="workers = 1")
    edge.start()
    with Load(edge, clients=6) as load:
        for _ in range(3):
            time.sleep(0.5)
            (pid,) = edge.workers()
            before = len(load.failures)
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda pid=pid: edge.workers() and pid not in edge.workers())
            time.sleep(0.3)
            # Each client has one connection: it may have been open, and accepted, in the worker that died.
            assert len(load.failures) - before <= 6
        time.sleep(0.5)
        calm = len(load.failures)
        time.sleep(0.5)
        assert len(load.failures) == calm
    assert not [f for f in load.failures if "refused" in f[1]]
    assert list(edge.workers().values()) == ["edge: worker 0 (generation 1)"]
    assert edge.stop() == 0


def test_what_waits_in_the_queue_of_a_dead_worker_is_served_by_the_next(edge, origin):
    edge.configure(origin, server="workers = 1")
    edge.start()
    (pid,) = edge.workers()
    os.kill(pid, signal.SIGSTOP)
    answers = []
    threads = [threading.Thread(target=lambda: answers.append(edge.get().status)) for _ in range(8)]
    for t in threads:
        t.start()
    time.sleep(0.5)  # they are connected, and nobody accepts
    assert answers == []
    os.kill(pid, signal.SIGKILL)
    for t in threads:
        t.join(10)
    assert answers == [200] * 8
    assert edge.stop() == 0


def test_the_number_of_workers_changes_without_loss(edge, origin):
    edge.start()
    with Load(edge, clients=8) as load:
        for generation, number in enumerate((4, 1, 3, 2), 2):
            edge.configure(origin, server=f"workers = {number}")
            edge.signal(signal.SIGHUP)
            edge.wait_generation(generation)
            wait_until(lambda number=number: len(edge.workers()) == number, 15, edge.log)
            time.sleep(0.3)
        edge.signal(signal.SIGTTIN)
        wait_until(lambda: len(edge.workers()) == 3, 15, edge.log)
        assert "the number of workers changes from 2 to 3" in edge.log()
        time.sleep(0.3)
        edge.signal(signal.SIGTTOU)
        wait_until(lambda: len(edge.workers()) == 2, 15, edge.log)
    assert load.failures == []
    assert load.requests > 50
    assert edge.stop() == 0


LATE = """
import time
from edge import worker
from edge.processes import sockets
whole = sockets.ListeningSocket.close
def drain(self, drain=worker.EdgeWorker._drain):
    sockets.ListeningSocket.beat = self.notify
    drain(self)
def close(self):
    if hasattr(self, "beat"):
        self.beat()
        time.sleep(0.6)
    whole(self)
worker.EdgeWorker._drain = drain
sockets.ListeningSocket.close = close
from edge.__main__ import main
main()
"""


def test_nobody_is_sent_to_a_socket_before_its_last_holder_has_closed_it(edge):
    """A worker that goes is alive and well, but late with closing its sockets."""
    edge.program = ["-c", LATE]
    edge.start()
    with Load(edge) as load:
        edge.signal(signal.SIGTTOU)
        wait_until(lambda: len(edge.workers()) == 1, 15, edge.log)
        time.sleep(0.3)
    assert load.failures == []
    assert edge.stop() == 0


def test_addresses_come_and_go(edge, origin):
    edge.start()
    other = free_port()
    edge.configure(origin, bind=[f"127.0.0.1:{edge.port}", f"127.0.0.1:{other}"])
    edge.signal(signal.SIGHUP)
    edge.wait_generation(2)
    assert edge.get(port=other).status == 200
    assert edge.get().status == 200
    edge.configure(origin, bind=[f"127.0.0.1:{other}"])
    edge.signal(signal.SIGHUP)
    edge.wait_generation(3)
    assert edge.get(port=other).status == 200

    def refused():
        with contextlib.suppress(ConnectionRefusedError):
            edge.connect(timeout=1).connect()
            return False
        return True

    wait_until(refused)
    # A wildcard over an address that is held already.
    edge.configure(origin, bind=[f"0.0.0.0:{other}"])
    edge.signal(signal.SIGHUP)
    edge.wait_generation(4)
    assert edge.get(port=other).status == 200
    assert edge.stop() == 0


def test_a_taken_address_on_reload_changes_nothing(edge, origin):
    edge.start()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        edge.configure(origin, bind=[f"127.0.0.1:{edge.port}", f"127.0.0.1:{taken.getsockname()[1]}"])
        edge.signal(signal.SIGHUP)
        edge.wait_log("reload refused, nothing has changed: .* is in use already")
    assert edge.get().status == 200
    assert edge.stop() == 0


def test_sigterm_drains(edge):
    edge.start()
    busy, idle = edge.connect(), edge.connect()
    idle.request("GET", "/")
    idle.getresponse().read()
    busy.request("GET", "/slow/1000/5")
    time.sleep(0.2)
    edge.signal(signal.SIGTERM)
    time.sleep(0.4)
    with pytest.raises(ConnectionRefusedError):
        edge.connect().connect()
    idle.sock.settimeout(2)
    assert idle.sock.recv(1) == b""  # closed at once: nothing was running
    response = busy.getresponse()
    assert (response.status, response.read()) == (200, b"xxxxx")
    assert response.headers["Connection"] == "close"
    assert edge.process.wait(5) == 0


def test_the_drain_has_a_deadline(edge, origin):
    edge.configure(origin, server='workers = 1\ndrain_timeout = "500ms"')
    edge.start()
    connection = edge.connect()
    connection.request("GET", "/slow/8000/5")
    time.sleep(0.2)
    begin = time.monotonic()
    assert edge.stop() == 0
    assert 0.4 < time.monotonic() - begin < 4


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_quick_stop_waits_for_nothing(edge, number):
    edge.start()
    connection = edge.connect()
    connection.request("GET", "/slow/8000/5")
    time.sleep(0.2)
    begin = time.monotonic()
    assert edge.stop(number) == 0
    assert time.monotonic() - begin < 4


def test_workers_follow_a_killed_master(edge):
    edge.start()
    workers = list(edge.workers())
    edge.signal(signal.SIGKILL)
    edge.process.wait()
    wait_until(lambda: not any(map(alive, workers)), 5)
    assert "the master is gone" in edge.log()


def test_a_worker_that_hangs_is_replaced(edge, origin):
    edge.configure(origin, server='workers = 1\nworker_timeout = "2s"')
    edge.start()
    (pid,) = edge.workers()
    os.kill(pid, signal.SIGSTOP)
    wait_until(lambda: edge.workers() and pid not in edge.workers(), 10, edge.log)
    assert edge.get().status == 200
    assert edge.stop() == 0


BREAKABLE = """
import os
from edge import plane
whole = plane.open_plane
def open_plane(*a, **named):
    if os.path.exists(os.environ["BROKEN"]):
        raise RuntimeError("broken for a test")
    return whole(*a, **named)
plane.open_plane = open_plane
from edge.__main__ import main
main()
"""


@pytest.fixture
def breakable(edge, tmp_path):
    """An Edge whose workers cannot start while the file `broken` exists."""
    edge.program = ["-c", BREAKABLE]
    edge.broken = tmp_path / "broken"
    edge.environment = {"BROKEN": str(edge.broken)}
    return edge


def test_a_worker_that_cannot_start_ends_the_first_start(breakable):
    breakable.broken.touch()
    breakable.start(generation=0)
    assert breakable.process.wait(10) == 1
    assert "worker 0 cannot start: RuntimeError: broken for a test" in breakable.log()
    assert "a worker did not start" in breakable.log()
    assert "Traceback" not in breakable.log()


def test_a_worker_that_cannot_start_takes_a_reload_back(breakable, origin):
    breakable.start()
    before = breakable.workers()
    breakable.broken.touch()
    other = free_port()
    breakable.configure(origin, server="workers = 3", bind=[f"127.0.0.1:{breakable.port}", f"127.0.0.1:{other}"])
    with Load(breakable) as load:
        breakable.signal(signal.SIGHUP)
        breakable.wait_log("reload taken back")
        time.sleep(0.3)
    assert load.failures == []
    wait_until(lambda: breakable.workers() == before)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", other))
    breakable.broken.unlink()
    breakable.signal(signal.SIGHUP)
    breakable.wait_log("generation 3 serves: 3 workers")
    assert breakable.get(port=other).status == 200
    assert breakable.stop() == 0


def test_workers_that_die_again_and_again_come_slower(breakable, origin):
    breakable.configure(origin, server="workers = 1")
    breakable.start()
    (pid,) = breakable.workers()
    breakable.broken.touch()
    os.kill(pid, signal.SIGKILL)
    breakable.wait_log(r"slot 0: [45] workers died in a row; the next starts in [13]\.[26] s")
    breakable.broken.unlink()
    wait_until(breakable.workers, 10)
    assert breakable.get().status == 200
    assert breakable.stop() == 0


def test_a_worker_inherits_nothing_of_one_that_is_dead(edge):
    def of(slot):
        return next((pid for pid, title in edge.workers().items() if title.startswith(f"edge: worker {slot} ")), 0)

    edge.start()
    before = settled(lambda: open_files(of(0)))  # it is told to serve, and opens what it needs for that
    for _ in range(3):
        victim = of(1)
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda victim=victim: of(1) not in (0, victim), 15, edge.log)
    os.kill(of(1), signal.SIGKILL)  # the next one there has to wait
    wait_until(lambda: not of(1), 15, edge.log)
    first = of(0)
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: of(0) not in (0, first), 15, edge.log)
    assert not of(1)
    wait_until(lambda: open_files(of(0)) == before, 10, lambda: f"{open_files(of(0))} files, not {before}")
    assert edge.stop() == 0


def test_a_storm_of_hups_ends_in_one_generation(edge):
    edge.start()
    with Load(edge, clients=4) as load:
        for _ in range(40):
            edge.signal(signal.SIGHUP)
            time.sleep(0.02)
        time.sleep(1)
        wait_until(
            lambda: len(edge.workers()) == 2 and len(set(re.findall(r"\d+\)", str(edge.workers())))) == 1, 20, edge.log
        )
    assert load.failures == []
    assert edge.stop() == 0


def test_pid_file(edge, origin, tmp_path):
    edge.configure(origin, server='workers = 1\npid_file = "one.pid"')
    edge.start()
    assert int((tmp_path / "one.pid").read_text()) == edge.process.pid
    edge.configure(origin, server='workers = 1\npid_file = "two.pid"')
    edge.signal(signal.SIGHUP)
    edge.wait_generation(2)
    assert int((tmp_path / "two.pid").read_text()) == edge.process.pid
    assert not (tmp_path / "one.pid").exists()
    assert edge.stop() == 0
    assert not (tmp_path / "two.pid").exists()


def test_logs_are_reopened(edge, origin, tmp_path):
    edge.configure(
        origin, server='workers = 1\naccess_log = { path = "a.log" }\nerror_log = { path = "e.log", level = "debug" }'
    )
    edge.start(generation=0)
    error_log, access_log = tmp_path / "e.log", tmp_path / "a.log"
    wait_until(lambda: error_log.exists() and "generation 1 serves" in error_log.read_text())
    edge.get("/first/0/1")
    wait_until(lambda: "/first/0/1" in access_log.read_text())
    access_log.rename(tmp_path / "a.old")
    error_log.rename(tmp_path / "e.old")
    edge.signal(signal.SIGUSR1)
    wait_until(lambda: access_log.exists() and error_log.exists())
    wait_until(lambda: edge.get("/second/0/1") and "/second/0/1" in access_log.read_text())
    assert "/second/" not in (tmp_path / "a.old").read_text().split("/first/0/1")[0]
    assert edge.stop() == 0
    assert "edge stops" in error_log.read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change to another user")
def test_workers_run_as_the_user(edge, origin, tmp_path):
    nobody = pwd.getpwnam("nobody")
    (tmp_path / "localhost.key").chmod(0o600)
    edge.configure(origin, server='workers = 1\nuser = "nobody"\naccess_log = { path = "a.log" }')
    for directory in (tmp_path, *tmp_path.parents[:3]):
        directory.chmod(0o755)  # the worker reopens its log
    edge.start()
    (pid,) = edge.workers()
    status = dict(
        line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
    )
    assert status["Uid"].split() == [str(nobody.pw_uid)] * 4
    assert status["Gid"].split() == [str(nobody.pw_gid)] * 4
    assert set(status["Groups"].split()) <= {str(g) for g in os.getgrouplist("nobody", nobody.pw_gid)}
    assert edge.get("/one/0/1").status == 200
    (tmp_path / "a.log").rename(tmp_path / "a.old")
    edge.signal(signal.SIGUSR1)
    wait_until(
        lambda: edge.get("/two/0/1") and (tmp_path / "a.log").exists() and "/two/" in (tmp_path / "a.log").read_text()
    )
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: edge.workers() and pid not in edge.workers())
    assert edge.get().status == 200
    assert edge.stop() == 0


def test_workers_hold_no_sockets_but_their_own(edge, origin):
    edge.configure(origin, server="workers = 3")
    edge.start()

    def listening(pid):
        """Inodes of the listening sockets that a process holds."""
        port = f":{edge.port:04X}"
        rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        inodes = {row[9] for row in rows if row[1].endswith(port) and row[3] == "0A"}
        held = set()
        for fd in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                held |= set(re.findall(r"socket:\[(\d+)\]", str(fd.readlink())))
        return inodes & held

    own = [listening(pid) for pid in edge.workers()]
    assert [len(s) for s in own] == [1, 1, 1]
    assert len(set.union(*own)) == 3
    assert listening(edge.process.pid) == set.union(*own)
    assert edge.stop() == 0
