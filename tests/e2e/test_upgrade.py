"""One version of the code takes another's place while clients are at work, or fails to, and nobody notices either.

A version is a directory with a copy of the control plane; `current` is the link that edge is started by.
"""

import contextlib
import os
import re
import shutil
import signal
import socket
import sys
import threading
from pathlib import Path

import pytest

from edge.change.upgrade import command
from tests.e2e.client import Client
from tests.e2e.processes import ROOT, alive, answers, descendants, free_port, run, session, wait_until
from tests.e2e.server import Edge
from tests.e2e.test_lifecycle import Load
from tests.edge.processes.test_systemd import Manager

RAW = {"match": {"path": "/raw"}, "upstream": "b", "upgrade": ["raw/1"]}


class Versions:
    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.current = directory / "current"

    def make(self, version: str, change=lambda _tree: None) -> Path:
        """A version, and `change(its directory)` made to it."""
        tree = self.directory / version
        shutil.copytree(ROOT / "edge", tree / "edge", ignore=shutil.ignore_patterns("__pycache__"))
        (tree / "cext").symlink_to(ROOT / "cext")
        init = tree / "edge/__init__.py"
        init.write_text(re.sub(r'__version__ = ".*"', f'__version__ = "{version}"', init.read_text()))
        script = tree / "edge.sh"
        script.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(tree)!r})\n"
            "from edge.__main__ import main\nmain()\n"
        )
        script.chmod(0o755)
        change(tree)
        return tree

    def link(self, version: str) -> None:
        new = self.directory / "new"
        new.symlink_to(self.directory / version)
        new.rename(self.current)


class Upgradable(Edge):
    """An edge whose master changes: it is found by its PID file."""

    def __init__(self, directory, pki, backend, versions: Versions, **settings) -> None:
        server = {"workers": 2, "drain_timeout": "20s", "admin": directory / "admin.sock"}
        more_listeners = settings.pop("more_listeners", [])
        super().__init__(
            directory,
            pki,
            {"b": [backend.server]},
            program=[versions.current / "edge.sh"],
            routes=[{"match": {}, "upstream": "b"}, RAW],
            server={**server, "pid_file": directory / "pid", **settings.pop("server", {})},
            **settings,
        )
        self.tables["listener"] += more_listeners
        self.pid_file = directory / "pid"
        self.command = [versions.directory / "1.0/edge.sh"]
        """Of a version that works."""

    @property
    def pid(self) -> int:
        return int(self.pid_file.read_text())

    def upgrade(self, *options: str, seconds: float = 60):
        return self.ask("upgrade", *options, seconds=seconds)

    def ask(self, command: str, *options: str, seconds: float = 60):
        words = [*self.command, command, "--wait", "--admin", self.directory / "admin.sock", *options]
        return run(words, seconds=seconds)

    def everything(self) -> list[int]:
        """All processes that belong to it."""
        masters = {self.process.pid, self.pid}
        return [p for m in masters for p in (m, *descendants(m)) if alive(p)]

    def end(self, health: bool = True) -> None:
        with contextlib.suppress(OSError, ValueError):
            os.kill(self.pid, signal.SIGTERM)
        wait_until(lambda: not alive(self.pid if self.pid_file.exists() else 0), 30, "the end of the master")
        assert self.process.popen.wait(30) == 0
        if health:
            self.check_health()


@pytest.fixture
def versions(tmp_path):
    versions = Versions(tmp_path / "versions")
    versions.directory.mkdir()
    versions.make("1.0")
    versions.link("1.0")
    return versions


@pytest.fixture
def make_upgradable(tmp_path, pki, backend, versions):
    started = []

    def make(**settings):
        edge = Upgradable(tmp_path / "edge", pki, backend, versions, **settings)
        edge.start()
        started.append(edge)
        return edge

    yield make
    for edge in started:
        everything = edge.everything() if edge.pid_file.exists() else []
        for pid in everything:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        edge.process.kill()


@pytest.fixture
def upgradable(make_upgradable):
    return make_upgradable()


class Tunnel:
    """A connection that has switched to a protocol of its own, in which the backend echoes."""

    def __init__(self, edge) -> None:
        self.client = Client(edge)
        self.client.send(b"GET /raw HTTP/1.1\r\nHost: edge.test\r\nConnection: Upgrade\r\nUpgrade: raw/1\r\n\r\n")
        assert self.client.head().status == 101

    def echo(self, text: bytes) -> None:
        self.client.send(text)
        assert self.client.exactly(len(text)) == text


def echoing(connection, _request):
    connection.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: raw/1\r\n\r\n")
    with contextlib.suppress(OSError):
        while data := connection.sock.recv(65536):
            connection.send(data)
    return False


def test_versions_follow_each_other_under_load(make_upgradable, versions, backend, tmp_path):
    backend.on("/raw", echoing)
    manager = Manager(str(tmp_path / "notify"))
    edge = make_upgradable(env={"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "30000000"})
    first = edge.pid
    old_workers = edge.workers()
    manager.wait("READY")
    versions.make("2.0")
    versions.link("2.0")
    tunnel = Tunnel(edge)
    tunnel.echo(b"before")
    with Load(edge) as load:
        done = edge.upgrade()
        assert done.returncode == 0, done.stdout
        second = edge.pid
        assert re.fullmatch(rf"edge 2\.0, process {second}, serves after \d+\.\d\d s\n", done.stdout)
        assert second != first
        served = load.served
        wait_until(lambda: load.served > served + 50, 30, "load")
        tunnel.echo(b"while the old version drains")
        assert len(edge.workers()) == 2
        assert not set(edge.workers()) & set(old_workers)
        # And back again, while the first one still drains.
        versions.link("1.0")
        done = edge.upgrade()
        assert done.returncode == 0, done.stdout
        third = edge.pid
        assert "edge 1.0, process" in done.stdout
        served = load.served
        wait_until(lambda: load.served > served + 50, 30, "load")
    assert load.faults == []
    assert len({first, second, third}) == 3
    tunnel.echo(b"still there")
    assert alive(first)
    tunnel.client.close()
    assert edge.process.popen.wait(30) == 0
    wait_until(lambda: not alive(second), 30, "the end of the second")
    manager.wait("READY", count=3)
    assert [m["MAINPID"] for m in manager.heard if "MAINPID" in m] == [str(second), str(third)]
    assert manager.order() == ["READY", "MAINPID", "READY", "MAINPID", "READY"]
    assert manager.status() == f"generation 3: 2 of 2 workers serve 127.0.0.1:{edge.port}"
    edge.end()
    manager.wait("STOPPING")
    manager.socket.close()


def test_by_signal_and_what_goes_along(make_upgradable, versions, tmp_path):
    """Sessions are resumed by the new version; names in the file system stay; the number of workers may change."""
    metrics, door = free_port(), tmp_path / "edge" / "door.sock"
    edge = make_upgradable(
        tls={"early_data": {"window": "10s"}},
        server={"metrics": f"127.0.0.1:{metrics}"},
        more_listeners=[{"bind": [f"unix:{door}"], "kind": "handoff"}],
    )
    session = _session(edge)
    assert _session(edge, session).session_reused
    versions.make("2.0")
    versions.link("2.0")
    edge.tables["server"]["workers"] = 1
    edge.write()
    first = edge.pid
    os.kill(first, signal.SIGUSR2)
    wait_until(lambda: edge.pid_file.exists() and edge.pid != first, 30, "the next master")
    assert edge.process.popen.wait(30) == 0
    assert _session(edge, session).session_reused
    wait_until(lambda: len(edge.workers()) == 1, 30, "one worker")
    edge.wait_error(r"generation 2 serves")
    with Client(edge) as client:
        assert client.get("/ok").status == 200
    assert edge.ask("reload").returncode == 0
    wait_until(lambda: answers(metrics), 30, "the observer")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sender:
        sender.connect(str(door))
    edge.end()
    assert not door.exists()
    assert not (edge.directory / "admin.sock").exists()
    assert not edge.pid_file.exists()


def _session(edge, session=None):
    context = _contexts.setdefault(edge, edge.tls_context())
    with socket.create_connection(("127.0.0.1", edge.port), 10) as raw, context.wrap_socket(
        raw, server_hostname="edge.test", session=session and session.session
    ) as s:
        s.sendall(b"GET /ok HTTP/1.1\r\nHost: edge.test\r\n\r\n")
        s.recv(4096)
        return _Session(s.session, s.session_reused)


class _Session:
    def __init__(self, session, session_reused) -> None:
        self.session, self.session_reused = session, session_reused


_contexts: dict = {}


def broken_import(tree):
    (tree / "edge/routes_of_tomorrow.py").write_text("import a_module_that_nobody_has\n")
    main = tree / "edge/__main__.py"
    main.write_text("import edge.routes_of_tomorrow\n" + main.read_text())


def broken_boot(tree):
    plane = tree / "edge/plane.py"
    plane.write_text(plane.read_text() + "\n\ndef open_plane(*_, **__):\n    raise RuntimeError('broken for a test')\n")


def stuck_boot(tree):
    plane = tree / "edge/plane.py"
    plane.write_text(plane.read_text() + "\n\ndef open_plane(*_, **__):\n    import time\n    time.sleep(3600)\n")


def stuck_start(tree):
    main = tree / "edge/__main__.py"
    stuck = f"import pathlib, time\npathlib.Path({str(tree / 'stuck')!r}).touch()\ntime.sleep(3600)\nif 1:"
    main.write_text(main.read_text().replace('if __name__ == "__main__":', stuck))


def other_format(tree):
    inheritance = tree / "edge/change/inheritance.py"
    inheritance.write_text(inheritance.read_text().replace("FORMAT: Final = 1", "FORMAT: Final = 1000"))


def dies_when_let_serve(tree):
    inheritance = tree / "edge/change/inheritance.py"
    text = inheritance.read_text().replace(
        "    def serving(self) -> None:\n", "    def serving(self) -> None:\n        os.kill(os.getpid(), 9)\n"
    )
    inheritance.write_text(text)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (broken_import, "ModuleNotFoundError: No module named 'a_module_that_nobody_has'"),
        (broken_boot, "a worker did not start; the error log says why"),
        (stuck_boot, "it does not serve after 1 s"),
        (stuck_start, "it does not serve after 1 s"),
        (other_format, "edge 1.0 leaves its sockets in a form that edge 2.0 does not know; restart the service"),
        (dies_when_let_serve, "it was ended by SIGKILL"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_version_that_does_not_come_up(make_upgradable, versions, change, reason):
    stuck = change in (stuck_boot, stuck_start)
    edge = make_upgradable(server={"upgrade_timeout": "1s", "worker_timeout": "3s"} if stuck else {})
    before, workers = edge.pid, edge.workers()
    versions.make("2.0", change)
    versions.link("2.0")
    with Load(edge) as load:
        done = edge.upgrade()
        assert done.returncode == 1, done.stdout
        assert done.stdout == f"edge: the running version goes on: {reason}\n"
        served = load.served
        wait_until(lambda: load.served > served + 50, 30, "load")
    assert load.faults == []
    edge.wait_error(rf"upgrade failed, edge 1\.0 goes on: {re.escape(reason)}")
    assert edge.pid == before
    assert edge.workers() == workers
    wait_until(lambda: set(session(before)) <= {before, *edge.titled("edge: ")}, 30, "nothing left of the new version")
    edge.end(health=change is not broken_import)


def test_what_failed_can_be_tried_again(upgradable, versions):
    edge = upgradable
    versions.make("2.0", dies_when_let_serve)
    versions.link("2.0")
    assert edge.upgrade().returncode == 1
    versions.make("3.0")
    versions.link("3.0")
    done = edge.upgrade()
    assert done.returncode == 0, done.stdout
    assert edge.process.popen.wait(30) == 0
    with Client(edge) as client:
        assert client.get("/ok").status == 200
    edge.end()


def test_a_configuration_with_an_error(upgradable, versions):
    edge = upgradable
    before, workers = edge.pid, edge.workers()
    good = edge.config.read_text()
    edge.config.write_text(good.replace("drain_timeout", "drian_timeout"))
    done = edge.upgrade()
    assert done.returncode == 1
    assert "drian_timeout: unknown key" in done.stdout
    versions.current.unlink()
    done = edge.upgrade()
    assert done.returncode == 1
    assert "No such file or directory" in done.stdout
    assert (edge.pid, edge.workers()) == (before, workers)
    edge.end()


def test_one_change_at_a_time(make_upgradable, versions):
    edge = make_upgradable()
    tree = versions.make("2.0", stuck_start)
    versions.link("2.0")
    first = threading.Thread(target=edge.upgrade)
    first.start()
    started = edge.wait_error(r"upgrade: process \d+ starts", seconds=30)
    wait_until((tree / "stuck").exists, 30, "it has found its code by the link")
    versions.link("1.0")
    done = edge.upgrade()
    assert (done.returncode, "an upgrade is under way already" in done.stdout) == (1, True)
    edge.signal(signal.SIGUSR2)
    edge.wait_error("upgrade refused: an upgrade is under way already", seconds=30)
    edge.signal(signal.SIGTTIN)
    edge.wait_error("the number of workers stays 2", seconds=30)
    edge.reload()  # waits, and is done
    os.kill(int(re.search(r"process (\d+) starts", started)[1]), signal.SIGKILL)
    first.join()
    edge.wait_error("generation 2 serves|in place|generation 2", seconds=30)
    edge.end()


def test_another_interpreter(upgradable, versions, tmp_path):
    edge = upgradable
    tree = versions.make("2.0")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH={tree} exec {sys.executable} "$@"\n')
    python.chmod(0o755)
    for bad, why in (("python3", "absolute path"), (str(tmp_path), "cannot be executed")):
        done = edge.upgrade("--python", bad)
        assert (done.returncode, why in done.stdout) == (1, True), done.stdout
    done = edge.upgrade("--python", str(python))
    assert (done.returncode, "edge 2.0, process" in done.stdout) == (0, True), done.stdout
    assert edge.process.popen.wait(30) == 0
    edge.end()


def test_the_old_master_is_killed_meanwhile(make_upgradable, versions):
    """Then there is nobody to ask, and nothing to lose: the new one serves."""
    edge = make_upgradable()

    def slow_start(tree):
        main = tree / "edge/__main__.py"
        main.write_text(main.read_text().replace('if __name__ == "__main__":', "import time\ntime.sleep(1)\nif 1:"))

    versions.make("2.0", slow_start)
    versions.link("2.0")
    first = edge.pid
    with Load(edge) as load:
        os.kill(first, signal.SIGUSR2)
        started = edge.wait_error(r"upgrade: process \d+ starts", seconds=30)
        os.kill(first, signal.SIGKILL)
        edge.process.popen.wait()
        second = int(re.search(r"process (\d+)", started)[1])
        wait_until(lambda: edge.pid == second, 30, "the new master")
        served = load.served
        wait_until(lambda: load.served > served + 50, 30, "load")
    assert load.faults == []
    os.kill(second, signal.SIGTERM)
    wait_until(lambda: not alive(second), 30, "its end")


def test_command(tmp_path):
    script = tmp_path / "edge"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    arguments = ["run", "--config", "edge.toml"]
    by_script = ["/opt/a/bin/python3", str(script), *arguments]
    assert command(by_script, [str(script), *arguments]) == [str(script), *arguments]
    by_module = ["/opt/current/bin/python", "-X", "faulthandler", "-m", "edge", *arguments]
    assert command(by_module, ["/opt/a/edge/__main__.py", *arguments]) == by_module
    found = command(["python3", "-m", "edge", *arguments], ["x", *arguments])
    assert found == [shutil.which("python3") or sys.executable, "-m", "edge", *arguments]
    other = ["/opt/b/bin/python", "-P", "-m", "edge", *arguments]
    assert command(by_module, ["x", *arguments], "/opt/b/bin/python") == other
    assert command(by_script, [str(script), *arguments], "/opt/b/bin/python") == other
    script.chmod(0o644)
    assert command(by_script, [str(script), *arguments]) == by_script
