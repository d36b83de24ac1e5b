"""Where logs go: files that are rotated or hang, pipes that nobody reads, daemons; and that no client notices."""

import contextlib
import fcntl
import gzip
import json
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import pytest

from tests.e2e.client import Client
from tests.e2e.processes import ROOT, Process, children, peer, run, title, wait_until

SECONDS = 20


def writer(edge) -> int:
    """The process that writes the logs."""
    (pid,) = edge.titled("edge: logs")
    return pid


def ask(edge, count: int, path: str = "/ok") -> float:
    """Requests on one connection -> the longest time that one took."""
    longest = 0.0
    with Client(edge) as client:
        for i in range(count):
            begin = time.monotonic()
            assert client.get(f"{path}?{i}").status == 200
            longest = max(longest, time.monotonic() - begin)
    return longest


class Daemon:
    """A Unix socket that takes what a syslog daemon would."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.socket.settimeout(SECONDS)
        self.messages: list[str] = []
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self.messages.append(self.socket.recv(65536).decode())

    def wait(self, pattern: str) -> str:
        return wait_until(lambda: next((m for m in list(self.messages) if re.search(pattern, m)), ""), SECONDS, pattern)


def test_syslog(make_edge, backend, tmp_path):
    daemon = Daemon(tmp_path / "log")
    to = {"target": "syslog", "syslog": {"address": f"unix:{tmp_path}/log", "facility": "local1", "tag": "edge-1"}}
    edge = make_edge({"b": [backend.server]}, server={"access_log": {**to, "format": "combined"}})
    ask(edge, 1)
    message = daemon.wait("/ok")
    head = rf"<{17 * 8 + 6}>[A-Z][a-z]{{2}} [ \d]\d \d\d:\d\d:\d\d edge-1\[\d+\]: "
    assert re.match(rf"{head}127\.0\.0\.1 - - \[", message)
    assert ' "GET /ok?0 HTTP/1.1" 200 ' in message
    edge.tables["server"]["error_log"] = to
    edge.write()
    edge.reload()
    assert daemon.wait("generation 2").startswith(f"<{17 * 8 + 6}>")
    edge.config.write_text("broken")
    edge.reload()
    assert daemon.wait("is no TOML").startswith(f"<{17 * 8 + 3}>")


@pytest.mark.parametrize("hangs", ["stdout", "a file"])
def test_a_target_that_hangs_holds_up_nobody(make_edge, nginx, tmp_path, hangs):
    """A full pipe stands for a disk that takes nothing: requests go on, lines are dropped and counted."""
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.mkfifo(tmp_path / "fifo")
    fifo = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    access = {"target": "stdout"} if hangs == "stdout" else {"path": tmp_path / "fifo"}
    edge = make_edge({"b": [nginx.server]}, server={"access_log": access}, preexec=lambda: os.dup2(write, 1))
    (pid,) = edge.workers()
    with contextlib.suppress(OSError):  # it is full
        os.set_blocking(write, False)
        while True:
            os.write(write, b"x" * 4096)
    url = f"https://127.0.0.1:{edge.port}/1k?" + "x" * 7500
    load = Process([peer("wrk"), "-t", 1, "-c", 8, "-d", SECONDS, url], tmp_path / "wrk.log")
    edge.wait_error(r"access log .*: .* lines dropped so far", seconds=SECONDS)
    os.kill(writer(edge), signal.SIGSTOP)  # nor does the one who writes go on
    assert ask(edge, 500, "/1k") < 1
    os.kill(writer(edge), signal.SIGCONT)
    load.kill()
    assert edge.workers() == [pid]
    begin = time.monotonic()
    edge.process.popen.terminate()
    assert edge.process.popen.wait(SECONDS) == 0
    assert time.monotonic() - begin < 10
    for fd in (read, write, fifo):
        os.close(fd)


def file_size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def test_logrotate(make_edge, backend, tmp_path):
    """The file that is shipped, with the real logrotate: no line is lost, compressed or twice there."""
    program = peer("logrotate")
    logs = tmp_path / "logs"
    logs.mkdir(mode=0o755)
    pid_file = tmp_path / "edge.pid"
    log = {"pid_file": pid_file, "access_log": {"path": logs / "access.log"}}
    edge = make_edge({"b": [backend.server]}, server=log)
    shipped = (ROOT / "ansible/roles/edge/files/logrotate").read_text()
    assert "/run/edge/edge.pid" in shipped
    config = tmp_path / "logrotate.conf"
    config.write_text(shipped.replace("/var/log/edge", str(logs)).replace("/run/edge/edge.pid", str(pid_file)))
    config.chmod(0o644)
    rotated = threading.Event()
    counts: list[int] = []

    def load() -> None:
        with Client(edge) as client:
            while not rotated.is_set() or len(counts) % 100:
                counts.append(client.get(f"/ok?{len(counts)}").status)

    thread = threading.Thread(target=load)
    thread.start()
    wait_until(lambda: file_size(logs / "access.log"), SECONDS, "lines")
    for i in range(3):
        before = len(counts)
        done = run([program, "--force", "--state", tmp_path / "state", config])
        assert done.returncode == 0, done.stdout
        wait_until(lambda: file_size(logs / "access.log"), SECONDS, f"lines in a new file, {i}")
        wait_until(lambda before=before: len(counts) > before + 200, SECONDS, "more requests")
    rotated.set()
    thread.join()
    edge.stop()
    files = sorted(logs.glob("access.log*"), key=lambda path: path.stat().st_mtime)
    assert len(files) == 4
    lines = b"".join(gzip.decompress(f.read_bytes()) if f.suffix == ".gz" else f.read_bytes() for f in files)
    assert [json.loads(line)["path"] for line in lines.splitlines()] == [f"/ok?{i}" for i in range(len(counts))]
    assert set(counts) == {200}
    assert (logs / "access.log").stat().st_mode & 0o777 == 0o640


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can start workers as another user")
def test_a_directory_that_workers_cannot_even_enter(make_edge, backend, tmp_path):
    """The master opens the files: they belong to it, and workers need no right to them."""
    logs = tmp_path / "logs"
    logs.mkdir(mode=0o700)
    log = logs / "access.log"
    for directory in (tmp_path, *tmp_path.parents[:3]):
        directory.chmod(0o755)
    edge = make_edge({"b": [backend.server]}, server={"user": "nobody", "access_log": {"path": log, "group": "adm"}})
    ask(edge, 1)
    wait_until(lambda: "/ok" in log.read_text(), SECONDS, "a line")
    log.rename(logs / "old")
    edge.signal(signal.SIGUSR1)
    wait_until(log.exists, SECONDS, "a new file")
    ask(edge, 1, "/ok?after")
    wait_until(lambda: "after" in log.read_text(), SECONDS, "a line")
    assert (log.owner(), log.group(), log.stat().st_mode & 0o777) == ("root", "adm", 0o640)
    (worker,) = edge.workers()
    held = [os.readlink(f"/proc/{worker}/fd/{fd}") for fd in os.listdir(f"/proc/{worker}/fd")]
    assert not [name for name in held if name.startswith(str(logs))]


def test_the_environment_alone_logs_no_keys(make_edge, backend, tmp_path):
    edge = make_edge({"b": [backend.server]}, env={"SSLKEYLOGFILE": str(tmp_path / "keys")})
    ask(edge, 2)
    edge.stop()
    assert not (tmp_path / "keys").exists()


def test_the_writing_process_dies(make_edge, backend):
    edge = make_edge({"b": [backend.server]})
    ask(edge, 10)
    before = writer(edge)
    os.kill(before, signal.SIGKILL)
    ask(edge, 10, "/ok?between")
    edge.wait_error("the process that writes the logs has ended", seconds=SECONDS)
    wait_until(lambda: [p for p in children(edge.pid) if title(p) == "edge: logs" and p != before], SECONDS, "another")
    ask(edge, 10, "/ok?after")
    edge.stop()
    said = [r["path"] for r in edge.requests()]
    assert sum("between" in path for path in said) == 10
    assert sum("after" in path for path in said) == 10


def test_a_reload_changes_what_is_logged_and_where(make_edge, backend, tmp_path):
    """On a connection that stays: the next line has the new form, and stands in the new file; then there is none."""
    edge = make_edge({"b": [backend.server]}, server={"access_log": {"path": tmp_path / "1.log"}})
    pid = edge.workers()
    server = edge.tables["server"]
    with Client(edge) as client:
        assert client.get("/ok?1").status == 200
        wait_until(lambda: file_size(tmp_path / "1.log"), SECONDS, "the first line")
        server["access_log"] = {"path": tmp_path / "2.log", "format": "combined"}
        reloaded(edge)
        assert client.get("/ok?2").status == 200
        wait_until(lambda: file_size(tmp_path / "2.log"), SECONDS, "the second line")
        server["access_log"] = {"path": tmp_path / "3.log", "fields": ["user-agent"]}
        reloaded(edge)
        assert client.get("/ok?3", "User-Agent: me").status == 200
        wait_until(lambda: file_size(tmp_path / "3.log"), SECONDS, "the third line")
        del server["access_log"]
        reloaded(edge)
        assert client.get("/ok?4").status == 200
    assert edge.workers() == pid
    edge.stop()
    (first,) = (json.loads(line) for line in (tmp_path / "1.log").read_text().splitlines())
    (second,) = (tmp_path / "2.log").read_text().splitlines()
    (third,) = (json.loads(line) for line in (tmp_path / "3.log").read_text().splitlines())
    assert (first["path"], third["path"], third["request_user_agent"]) == ("/ok?1", "/ok?3", "me")
    assert ' "GET /ok?2 HTTP/1.1" 200 ' in second


def reloaded(edge) -> None:
    since = edge.mark()
    edge.write()
    edge.reload()
    edge.wait_error(r"generation \d+ serves", since, SECONDS)
