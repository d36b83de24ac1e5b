"""The command: what it prints, and how it ends."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import edge as package
from tests.e2e.processes import ROOT, free_port, wait_until
from tests.edge.server import Edge

SANITIZER = {name: os.environ[name] for name in ("LD_PRELOAD", "ASAN_OPTIONS") if name in os.environ}


def run(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "edge", *map(str, arguments)],
        cwd=ROOT,
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
        env={"PATH": "/usr/bin:/bin", **SANITIZER, **environment},
    )


def one_line(done, words):
    """It failed with one clear line on standard error."""
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("edge: ")
    assert words in done.stderr


def test_version():
    assert run("--version").stdout == f"edge, version {package.__version__}\n"


@pytest.mark.parametrize("command", [[], ["run"], ["check"], ["reload"], ["delegate"], ["example"]])
def test_help(command):
    done = run(*command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: edge")
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_installed_command_is_the_same():
    script = Path(sys.executable).parent / "edge"
    text = (ROOT / "pyproject.toml").read_text()
    assert 'edge = "edge.__main__:main"' in text
    if script.exists():
        done = subprocess.run([script, "--version"], check=False, capture_output=True, text=True, timeout=30)
        assert done.stdout == run("--version").stdout


def test_check_says_what_would_serve(edge, origin):
    edge.configure(origin, extra='[[route]]\nmatch = { host = ["a.de"], method = ["PUT"] }\nupstream = "origin"')
    done = run("check", "--config", edge.file)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{edge.file}: ok, for 2 workers\n")
    for words in (
        f"127.0.0.1:{edge.port}",
        "localhost ECDSA P-256 20",
        f"file {edge.directory}/localhost.key",
        f"origin http/1.1 {origin.address}",
        "any * /* origin",
        "PUT a.de /* origin",
    ):
        assert words in " ".join(done.stdout.split())


def test_check_shows_the_first_of_many(edge, origin):
    route = '[[route]]\nmatch = {{ host = ["{:03}.de"] }}\nupstream = "origin"\n'
    edge.configure(origin, extra="".join(map(route.format, range(300))))
    done = run("check", "--config", edge.file)
    assert (done.returncode, done.stderr) == (0, "")
    assert "150.de" in done.stdout
    assert "250.de" not in done.stdout
    assert "and 101 routes more" in done.stdout
    assert "certificates more" not in done.stdout


def test_check_warns(edge, origin):
    edge.configure(origin, extra='[[upstream]]\nname = "spare"\nservers = ["127.0.0.1:1"]')
    done = run("check", "--config", edge.file)
    assert done.returncode == 0
    assert done.stderr == f'warning: {edge.file}: upstream[1]: no route uses "spare"\n'


def test_check_of_a_file_that_is_to_stand_elsewhere(edge, tmp_path):
    """Its paths and policies are those of the place; where it lies now there is neither."""
    (edge.directory / "rules.py").write_text("class Policy:\n    def director(self, request):\n        pass\n")
    text = edge.file.read_text().replace("[server]", '[server]\nhooks = "rules:Policy"', 1)
    text = text.replace(f"{edge.directory}/", "")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "new.toml").write_text(text)
    assert run("check", "--config", elsewhere / "new.toml").returncode == 1
    done = run("check", "--config", elsewhere / "new.toml", "--as", edge.file)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{edge.file}: ok")
    arguments = [sys.executable, "-m", "edge", "check", "--config", "-", "--as", edge.file]
    done = subprocess.run(arguments, check=False, input=text, capture_output=True, text=True, timeout=30, cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")
    wrong = text.replace("workers", "wrokers")
    done = subprocess.run(arguments, check=False, input=wrong, capture_output=True, text=True, timeout=30, cwd=ROOT)
    one_line(done, f"{edge.file}: server.wrokers: unknown key")


def test_faults_are_one_line(edge, tmp_path):
    one_line(run("check", "--config", tmp_path / "none.toml"), "none.toml: no such file or directory; name a readable")
    one_line(run("run", "--config", tmp_path / "none.toml"), "none.toml: no such file or directory; name a readable")
    good = edge.file.read_text()
    for command in ("check", "run", "reload"):
        edge.file.write_text(good.replace("workers", "wrokers"))
        one_line(
            run(command, "--config", edge.file), f'{edge.file}: server.wrokers: unknown key; did you mean "workers"?'
        )
    edge.file.write_text(good.replace("localhost.key", "ca.key"))
    one_line(run("check", "--config", edge.file), f"certificate[0].key: {tmp_path}/ca.key: no such file")


def test_check_needs_a_file():
    done = run("check")
    assert done.returncode == 2
    assert "Missing option '--config'" in done.stderr


def test_a_taken_port_is_one_line(edge):
    with socket.create_server(("127.0.0.1", edge.port)):
        one_line(run("run", "--config", edge.file), f"127.0.0.1:{edge.port}: the address is in use already; stop what")
    edge.start()
    one_line(run("run", "--config", edge.file), f"127.0.0.1:{edge.port}: the address is in use already; stop what")
    assert edge.get().status == 200
    assert edge.stop() == 0


def test_an_address_of_another_host_is_one_line(edge, origin):
    edge.configure(origin, bind=["192.0.2.1:8443"])
    one_line(run("run", "--config", edge.file), "192.0.2.1:8443: the address is no address of this host")


def test_a_second_master_with_the_pid_file_is_one_line(edge, origin):
    edge.configure(origin, server='workers = 1\npid_file = "edge.pid"')
    edge.start()
    second = edge.file.with_name("second.toml")
    second.write_text(edge.file.read_text().replace(str(edge.port), str(free_port())))
    one_line(run("run", "--config", second), f"running on PID {edge.process.pid}")
    assert edge.stop() == 0


def test_reload(edge, origin):
    one_line(run("reload", "--config", edge.file), "server.admin: is missing, and so is pid_file; add one")
    edge.configure(origin, server='workers = 1\npid_file = "edge.pid"')
    one_line(run("reload", "--config", edge.file), "edge.pid: no edge to signal there")
    edge.start()
    done = run("reload", "--config", edge.file)
    assert (done.returncode, done.stdout) == (0, f"process {edge.process.pid} reloads {edge.file}\n")
    edge.wait_generation(2)
    assert edge.stop() == 0


def test_port_is_for_the_demo(edge):
    done = run("run", "--config", edge.file, "--port", "9000")
    assert done.returncode == 2
    assert "--port is for the demo" in done.stderr


@pytest.fixture
def demo(tmp_path):
    """The demo, running, with its state in a directory of the test; its welcome is in `welcome`."""
    port = free_port()
    environment = {"XDG_STATE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    # The CA is made by the process itself: it cannot be loaded before.
    demo = Edge(tmp_path, None, environment=environment)
    demo.port = port
    demo.start("run", "--port", str(port), generation=0)
    said = demo.process.output
    wait_until(lambda: re.search(r"^ *Configuration: .*\n", said(), re.MULTILINE), 30, said)
    demo.welcome = said()
    yield demo
    demo.close()


def test_the_demo(demo, tmp_path):
    (command,) = re.findall(r"curl --cacert .*", demo.welcome)
    done = subprocess.run(command.split(), check=False, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0
    assert "<title>edge</title>" in done.stdout
    assert f"Browser: https://localhost:{demo.port}/" in demo.welcome

    demo.context.load_verify_locations(tmp_path / "edge/ca.pem")
    resources = re.findall(r'(?:src|href)="(/[^"]+)"', done.stdout)
    assert set(resources) == {"/edge.svg", "/style.css", "/page.js"}
    for path in resources:
        response = demo.get(path)
        assert (response.status, len(response.body) > 100) == (200, True)
    assert b'"X-Forwarded-For": "127.0.0.1"' in demo.get("/request").body
    assert demo.get("/nothing").status == 404
    connection = demo.connect()
    connection.request("POST", "/echo", body=b"x" * 300_000)
    assert connection.getresponse().read() == b"x" * 300_000
    connection.close()

    (file,) = re.findall(r"Configuration: (.*)", demo.welcome)
    assert run("check", "--config", file).returncode == 0
    demo.signal(signal.SIGHUP)
    demo.wait_generation(2)
    assert demo.get().status == 200
    assert demo.stop(signal.SIGINT) == 0
    wait_until(lambda: not list(tmp_path.glob("edge-demo-*")), 10, lambda: "the origin to end")


def test_the_demo_keeps_its_ca(demo, tmp_path):
    ca = (tmp_path / "edge/ca.pem").read_bytes()
    assert (tmp_path / "edge").stat().st_mode & 0o777 == 0o700
    for key in ("ca.key", "localhost.key"):
        assert (tmp_path / "edge" / key).stat().st_mode & 0o777 == 0o600
    assert demo.stop() == 0
    again = Edge(tmp_path, tmp_path / "edge/ca.pem", environment=demo.environment)
    again.start("run", "--port", str(demo.port))
    assert (tmp_path / "edge/ca.pem").read_bytes() == ca
    assert again.get(port=demo.port).status == 200
    assert again.stop() == 0


def test_the_demo_without_a_place_for_its_state():
    one_line(run("run", XDG_STATE_HOME="/proc/none"), "/proc/none/edge: ")
