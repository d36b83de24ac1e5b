"""What a server stands on gives way: disks, directories, its upstream, its configuration, memory."""

import ctypes
import os
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.e2e.client import Client
from tests.e2e.processes import SANITIZED, wait_until
from tests.e2e.scripted import Backend
from tests.faults.watching import SECONDS, Crowd, Watch, ends_whole, upstreams

PR_CAPBSET_DROP = 24
ROOT_ONLY = pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a disk of its own")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one mebibyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=755", "edge-test", disk], check=False)
    if done.returncode:
        pytest.skip("no disk can be mounted here")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True)


@ROOT_ONLY
def test_the_disk_is_full(make_edge, nginx, small_disk):
    """Access log, error log and key log stand on it: no client notices, what is lost is counted and said (on standard
    error, if the error log has no room either), and when there is room again lines are whole."""
    server = {name: {"path": small_disk / f"{name}.log"} for name in ("access_log", "error_log")}
    tls = {"key_log": {"path": small_disk / "keys.log", "clients": ["127.0.0.0/8"]}}
    edge = make_edge(upstreams(nginx), server=server, tls=tls)
    with Watch(edge):
        with Crowd(edge, 8, "/1k?" + "x" * 2000) as crowd:
            wait_until(lambda: shutil.disk_usage(small_disk).free == 0, SECONDS, "a full disk")
            crowd.wait(500)
            wait_until(lambda: complaints(edge), SECONDS, "a complaint")
            size = edge.access_log.stat().st_size
            edge.access_log.rename(small_disk / "old")
            os.kill(edge.pid, signal.SIGUSR1)
            wait_until(edge.access_log.exists, SECONDS, "a new file")
            (small_disk / "old").unlink()  # room
            wait_until(lambda: edge.access_log.stat().st_size > 10_000, SECONDS, "lines again")
        crowd.expect(least=500)
    said = complaints(edge)
    print(f"    the logs said: {said[0]}")
    assert "lines dropped so far" in said[0]
    assert len(said) <= 6  # one for each log, and again after new files were opened; not one for each line
    assert size > 200_000
    whole = edge.access_log.read_bytes().splitlines()
    assert all(line.startswith(b'{"time"') and line.endswith(b"}") for line in whole)
    ends_whole(edge)


def complaints(edge) -> list[str]:
    return [line for line in edge.everything_said().splitlines() if "No space left on device" in line]


def test_the_log_directory_is_gone(make_edge, nginx, tmp_path):
    """Removed while it serves: lines go on into files that nobody sees any more, until there is a directory again."""
    logs = tmp_path / "logs"
    logs.mkdir()
    edge = make_edge(upstreams(nginx), server={"access_log": {"path": logs / "access.log"}})
    edge.access_log = logs / "access.log"
    with Watch(edge) as watch, Crowd(edge, 4) as crowd:
        shutil.rmtree(logs)
        os.kill(edge.pid, signal.SIGUSR1)
        watch.expect("server.access_log: .*cannot be opened: No such file or directory; the old file stays in use")
        crowd.wait(100)
        edge.reload()  # which is refused: the configuration names a directory that is not there
        watch.expect(r"logs is no directory")
        logs.mkdir()
        os.kill(edge.pid, signal.SIGUSR1)
        wait_until(edge.access_log.exists, SECONDS, "a new file")
        crowd.wait(100)
        wait_until(lambda: edge.access_log.stat().st_size, SECONDS, "lines")
    crowd.expect()
    ends_whole(edge)


def obey_permissions() -> None:
    """For a server that root starts: without CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (capabilities(7))."""
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, capability, 0, 0, 0)


def test_the_log_directory_cannot_be_written(make_edge, nginx, tmp_path):
    """Its permissions are taken away while it serves: the file that was moved is written on, until a new one can be."""
    logs = tmp_path / "logs"
    logs.mkdir()
    edge = make_edge(
        upstreams(nginx), server={"access_log": {"path": logs / "access.log"}}, preexec=obey_permissions
    )
    old = logs / "access.log.1"
    with Watch(edge) as watch, Crowd(edge, 4) as crowd:
        (logs / "access.log").rename(old)
        logs.chmod(0o555)
        os.kill(edge.pid, signal.SIGUSR1)
        watch.expect("server.access_log: .*cannot be opened: Permission denied; the old file stays in use")
        size = old.stat().st_size
        crowd.wait(100)
        wait_until(lambda: old.stat().st_size > size, SECONDS, "lines in the old file")
        edge.reload()  # which is refused
        watch.expect(r"reload refused, nothing has changed: .*access\.log: Permission denied")
        logs.chmod(0o755)
        os.kill(edge.pid, signal.SIGUSR1)
        wait_until((logs / "access.log").exists, SECONDS, "a new file")
        crowd.wait(100)
        wait_until(lambda: (logs / "access.log").stat().st_size, SECONDS, "lines")
    crowd.expect()
    ends_whole(edge)


def test_the_upstream_goes_and_comes_back(make_edge, tmp_path, pki):
    """503 while it is away, at once; 200 when it is there again, without a word from anybody."""
    app = Backend()
    edge = make_edge({"app": {"servers": [app.server], "pool": {"idle": "300ms"}}})
    with Watch(edge) as watch, Crowd(edge, 4, "/ok") as crowd:
        for _ in range(2):
            before = crowd.seen["503"]
            app.close()
            wait_until(lambda before=before: crowd.seen["503"] > before + 50, SECONDS, "refusals")
            app = Backend(port=int(app.server.rpartition(":")[2]))
            crowd.wait(100)
    app.close()
    # One that was under way, on each connection.
    crowd.expect({"503": 1 << 30, "502": 16}, least=200)
    assert crowd.longest < 5
    watch.expect(r"upstream app .*: connect \(Connection refused\)")
    ends_whole(edge)


STORMS = [pytest.param(30, id="30"), pytest.param(500, id="500", marks=pytest.mark.slow)]


@pytest.mark.parametrize("times", STORMS)
def test_a_storm_of_reloads(make_edge, nginx, times):
    """Good ones and bad ones, as fast as they can be sent: nobody notices, and nothing is left over."""
    edge = make_edge(upstreams(nginx), server={"workers": 2, "drain_timeout": "2s"})
    good = edge.config.read_text()
    with Watch(edge) as watch, Crowd(edge, 6) as crowd:
        for i in range(times):
            text = good if i % 3 else ("[server]\nworkers = 0\n", "no TOML at all", good + "[nonsense]\n")[i // 3 % 3]
            edge.config.write_text(text)
            for _ in range(1 + i % 4):
                edge.reload()
            time.sleep(0.02)
        edge.config.write_text(good)
        since = edge.mark()
        edge.reload()
        watch.expect(r"reload refused|refused")
        edge.wait_error(r"generation \d+ serves|accepted|took over|is served", since, SECONDS)
        crowd.wait(200)
    crowd.expect()
    ends_whole(edge)


def test_memory_runs_short_under_load(make_edge, nginx):
    """Over `memory_limit` idle connections are closed; who is busy is served."""
    edge = make_edge(upstreams(nginx), server={"memory_limit": "16MiB"})
    with Watch(edge) as watch, Crowd(edge, 4) as crowd:
        watch.expect("memory runs short")
        crowd.wait(200)
    crowd.expect({"closed": 1 << 30})
    ends_whole(edge)


@pytest.mark.skipif(SANITIZED, reason="AddressSanitizer takes all address space there is")
def test_there_is_no_more_memory(make_edge, nginx):
    """malloc fails: connections end for it, the worker does not, and serves all others when there is some again."""
    edge = make_edge(upstreams(nginx))
    (worker,) = edge.workers()
    with Watch(edge):
        before = resource.prlimit(worker, resource.RLIMIT_AS)
        resource.prlimit(worker, resource.RLIMIT_AS, (address_space(worker) + (4 << 20), before[1]))
        slow = []
        lost = 0
        for _ in range(80):  # who reads nothing: a quarter of a mebibyte each
            try:
                client = Client(edge, receive_buffer=4096, seconds=3)
                client.send(b"GET /10m HTTP/1.1\r\nHost: edge.test\r\n\r\n")
                slow.append(client)
            except OSError:
                lost += 1
        ended = sum(has_ended(client) for client in slow)
        print(f"    of 80 slow clients {lost} could not connect, {ended} were cut")
        for client in slow:
            client.close()
        resource.prlimit(worker, resource.RLIMIT_AS, before)
        with Crowd(edge, 4) as crowd:
            crowd.wait(100)
    crowd.expect()
    assert lost + ended > 0
    assert edge.workers() == [worker]
    ends_whole(edge)


def address_space(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()


def has_ended(client: Client) -> bool:
    """Whether the server has given the connection up: what is queued for it comes to an end before the body does."""
    client.sock.settimeout(2)
    taken = 0
    try:
        while taken < 10 << 20:
            piece = client.sock.recv(1 << 20)
            if not piece:
                return True
            taken += len(piece)
    except OSError:
        return True
    return False
