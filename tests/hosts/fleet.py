"""Three hosts that serve, deployed by the playbooks from the inventory that stands here; what stands behind and before
them; and what was played."""

import dataclasses
import hashlib
import json
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from tests.e2e.pki import Authority, Certificate
from tests.e2e.processes import ROOT, peer, wait_until
from tests.hosts import network, trees
from tests.hosts.machines import Hosts
from tests.hosts.progress import Progress

NAME = "edge.test"
SERVING = {"a": "bookworm", "b": "bookworm", "c": "trixie"}
BUILDERS = {"build12": "bookworm", "build13": "trixie"}
WHEELHOUSE = trees.CACHE / f"wheelhouse-{hashlib.sha256(str(ROOT).encode()).hexdigest()[:6]}"
APP_PORT, ECHO_PORT = 8080, 8081
RECAP = re.compile(r"^(\S+)\s+: ok=(\d+)\s+changed=(\d+)\s+unreachable=(\d+)\s+failed=(\d+)", re.M)
TASK = re.compile(r"(?m)^(?:TASK|RUNNING HANDLER|PLAY) \[(.*)\]")

# Nothing of it is written anywhere but below its directory.
_NGINX = """\
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log {directory}/nginx.log warn; user root;
worker_rlimit_nofile 65536;
events {{ worker_connections 32768; }}
http {{
    access_log off; keepalive_requests 1000000; default_type text/plain;
    client_body_temp_path {directory}/t1; proxy_temp_path {directory}/t2; fastcgi_temp_path {directory}/t3;
    uwsgi_temp_path {directory}/t4; scgi_temp_path {directory}/t5;
    server {{
        listen {address}:{port} backlog=4096;
        root {directory};
        location /who {{ return 200 "$http_x_forwarded_for $http_x_forwarded_proto\\n"; }}
    }}
}}
"""

_ECHO = f"""\
import asyncio, websockets

async def echo(talk):
    async for message in talk:
        await talk.send(message)

async def main():
    async with websockets.serve(echo, "{network.HUB}", {ECHO_PORT}, ping_interval=None) as server:
        await server.serve_forever()

asyncio.run(main())
"""


@dataclasses.dataclass
class Played:
    """A playbook that has ended."""

    code: int
    output: str
    seconds: float
    ok: dict[str, int]
    changed: dict[str, int]
    failed: dict[str, int]

    def fine(self) -> "Played":
        assert (self.code, sum(self.failed.values())) == (0, 0), self.faults()
        return self

    def faults(self) -> str:
        """What has failed, and the end of it all."""
        fatal = [line for line in self.output.splitlines() if line.startswith(("fatal:", "failed:"))]
        return "\n".join([*fatal, "...", self.output[-2000:]])

    def total_changed(self) -> int:
        """On the hosts; what was written here is another matter."""
        return sum(count for host, count in self.changed.items() if host != "localhost")


class Fleet:
    def __init__(self, hosts: Hosts, progress: Progress) -> None:
        self.hosts = hosts
        self.progress = progress
        self.directory = hosts.directory / "fleet"
        self.directory.mkdir()
        self.authority = Authority(self.directory)
        self.certificate = self.authority.issue("first", "p256", NAME)
        self.variables = self._variables()
        self.logs = ROOT / ".cache/hosts"
        shutil.rmtree(self.logs, ignore_errors=True)
        self.logs.mkdir(parents=True)
        self._number = 0
        self._backends: list[subprocess.Popen] = []

    def _variables(self) -> dict:
        return {
            "edge_wheelhouse": str(WHEELHOUSE),
            "edge_source": str(ROOT),
            "edge_extras": ["fleet"],
            "edge_config": {
                "server": {
                    "workers": 2,
                    "admin": "unix:/run/edge/admin.sock",
                    "pid_file": "/run/edge/edge.pid",
                    "cache_dir": "/var/lib/edge",
                    "access_log": {"path": "/var/log/edge/access.log"},
                    "metrics": "127.0.0.1:9145",
                    "drain_timeout": "10s",
                },
                "listener": [{"bind": ["0.0.0.0:443", "[::]:443"]}],
                "certificate": [pair("edge.test")],
                "upstream": [
                    {"name": "app", "servers": [f"{network.HUB}:{APP_PORT}"]},
                    {"name": "echo", "servers": [f"{network.HUB}:{ECHO_PORT}"]},
                ],
                "route": [
                    {"upstream": "app"},
                    {"match": {"path": "/ws"}, "upstream": "echo", "upgrade": ["websocket"]},
                ],
            },
            "edge_certificates": [delivered("edge.test", self.certificate)],
            "edge_files": [{"path": "authorities/test.pem", "content": self.authority.file.read_text()}],
            "edge_health_requests": [{"url": f"https://{NAME}/1k", "ca": "/etc/edge/authorities/test.pem"}],
        }

    @property
    def addresses(self) -> list[str]:
        return [self.hosts.hosts[name].address for name in SERVING]

    # What stands behind the hosts.

    def start_backends(self) -> None:
        www = self.directory / "www"
        www.mkdir()
        www.chmod(0o755)
        (www / "1k").write_bytes(b"k" * 1024)
        config = self.directory / "nginx.conf"
        config.write_text(_NGINX.format(directory=www, address=network.HUB, port=APP_PORT))
        for command in ([peer("nginx"), "-p", www, "-c", config], [sys.executable, "-c", _ECHO]):
            self._backends.append(self.start(command, self.directory / f"backend{len(self._backends)}.log"))
        for port in (APP_PORT, ECHO_PORT):
            probe = f"import socket; socket.create_connection(('{network.HUB}', {port}), 5)"
            wait_until(
                lambda p=probe: self.hosts.command(sys.executable, "-c", p).returncode == 0, 30, f"a backend at {port}"
            )

    def start(self, command: list, log: Path, **options) -> subprocess.Popen:
        """A command in the hosts' network; it ends with the run at the latest."""
        options.setdefault("stdin", subprocess.DEVNULL)
        with open(log, "ab") as out:
            options.setdefault("stdout", out)
            return subprocess.Popen(
                self.hosts.inside(command), stderr=out, cwd=ROOT, start_new_session=True, **options
            )

    def stop(self) -> None:
        for backend in self._backends:
            backend.terminate()
            backend.wait(20)

    # Playbooks.

    def play(self, name: str, *options: str, seconds: float = 900, **variables) -> Played:
        """A playbook, with variables of the inventory otherwise than they stand there."""
        self._number += 1
        number = f"{self._number:02d}-{name}"
        values = self.directory / f"{number}.json"
        values.write_text(json.dumps({**self.variables, **variables}))
        log = self.logs / f"{number}.log"
        command = ["ansible-playbook", f"playbooks/{name}.yml", "-e", f"@{values}", *options]
        with self.progress.step(f"playbook {' '.join([name, *options])}") as step:
            begin = time.monotonic()
            code, output = self._played(command, log, seconds, step)
        recap = RECAP.findall(output.rpartition("PLAY RECAP")[2])
        counts = [{host: int(numbers[at]) for host, *numbers in recap} for at in (0, 1, 3)]
        unreachable = {host: int(numbers[2]) for host, *numbers in recap if int(numbers[2])}
        assert not unreachable, output[-4000:]
        return Played(code, output, time.monotonic() - begin, *counts)

    def _played(self, command: list[str], log: Path, seconds: float, step) -> tuple[int, str]:
        end = time.monotonic() + seconds
        process = subprocess.Popen(
            self.hosts.inside(command),
            env=self.hosts.environment(),
            cwd=ROOT / "ansible",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        output = bytearray()
        with open(log, "wb", buffering=0) as out, selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while True:
                if time.monotonic() > end:
                    os.killpg(process.pid, signal.SIGKILL)
                    raise AssertionError(f"{command}: not within {seconds} s:\n{output[-3000:].decode()}")
                if selector.select(1):
                    piece = os.read(process.stdout.fileno(), 65536)
                    if not piece:
                        break
                    out.write(piece)
                    output += piece
                tasks = TASK.findall(output[-4000:].decode(errors="replace"))
                step.now(tasks[-1] if tasks else "begins")
        process.stdout.close()
        return process.wait(30), output.decode(errors="replace")

    # What stands before them.

    def curl(self, host: str, path: str, *options: str) -> subprocess.CompletedProcess:
        to = f"{NAME}:443:{self.hosts.hosts[host].address}"
        base = ["curl", "--silent", "--show-error", "--fail", "--max-time", "20", "--cacert", self.authority.file]
        return self.hosts.command(*base, "--resolve", to, *options, f"https://{NAME}{path}")

    def serves(self, host: str) -> bool:
        done = self.curl(host, "/1k")
        return (done.returncode, len(done.stdout)) == (0, 1024)

    def crowd(self, *names: str) -> "Crowd":
        return Crowd(self, [self.hosts.hosts[name].address for name in names or SERVING])

    def edge(self, host: str, command: str, seconds: float = 60) -> str:
        """What `edge COMMAND` says on the host."""
        done = self.hosts.ssh(host, f"edge {command} --config /etc/edge/edge.toml", seconds)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def main_pid(self, host: str) -> int:
        return int(self.hosts.ssh(host, "systemctl show --value --property MainPID edge").stdout)


class Crowd:
    """tests/hosts/crowd.py at work, and beside it h2load and wrk, again and again."""

    def __init__(self, fleet: Fleet, addresses: list[str]) -> None:
        self.fleet = fleet
        self.addresses = addresses
        self.last: dict = {}
        self.runs = {"h2load": 0, "wrk": 0}
        self._log = fleet.directory / f"crowd-{time.monotonic_ns()}.log"
        self._stop = self._log.with_suffix(".stop")
        self._others: list[subprocess.Popen] = []

    def __enter__(self) -> "Crowd":
        command = [sys.executable, "-m", "tests.hosts.crowd", self.fleet.authority.file, *self.addresses]
        self._own = self.fleet.start(command, self._log, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for address in self.addresses:
            loop = f'while [ ! -e "{self._stop}" ]; do "$@"; sleep 2; done'
            for words in h2load(address), wrk(address):
                self._others.append(self.fleet.start(["sh", "-c", loop, "sh", *words], self._log_of(words[0], address)))
        wait_until(lambda: self.report()["served"].get("websocket", 0) >= len(self.addresses), 60, "load")
        return self

    def _log_of(self, program: str, address: str) -> Path:
        return self._log.with_suffix(f".{Path(program).name}.{address}")

    def report(self) -> dict:
        self._own.stdin.write("\n")
        self._own.stdin.flush()
        self.last = json.loads(self._own.stdout.readline())
        return self.last

    def served(self) -> int:
        return sum(self.report()["served"].values())

    def wait(self, more: int, seconds: float = 60) -> None:
        goal = self.served() + more
        wait_until(lambda: self.served() >= goal, seconds, f"{more} answers more: {self.last}")

    def __exit__(self, *_: object) -> None:
        self._stop.touch()
        self._own.stdin.close()
        self.last = json.loads(self._own.stdout.readlines()[-1])
        self._own.wait(60)
        for other in self._others:
            other.wait(60)

    def expect_no_failure(self) -> str:
        """That nobody saw any; how many there were, in words."""
        assert not self.last["failed"], (self.last["failed"], self.last["failures"])
        assert set(self.last["served"]) == {"handshakes", "http/1.1", "http/2", "websocket"}, self.last
        assert set(self.last["by_host"]) == set(self.addresses)
        counts = [f"{number:,} {kind}" for kind, number in sorted(self.last["served"].items())]
        requests = {"h2load": 0, "wrk": 0}
        for address in self.addresses:
            requests["h2load"] += h2load_requests(self._log_of("h2load", address).read_text())
            requests["wrk"] += wrk_requests(self._log_of("wrk", address).read_text())
        assert all(requests.values()), requests
        counts += [f"{number:,} by {program}" for program, number in requests.items()]
        total = sum(self.last["served"].values()) + sum(requests.values())
        again, longest = sum(self.last["again"].values()), self.last["longest"]
        self.fleet.progress.say(f"    {', '.join(counts)}; {again} asked again; the longest took {longest} s")
        return f"0 of {total:,} requests failed"


def h2load(address: str, requests: int = 400) -> list[str]:
    """New connections of HTTP/2, ten streams on each."""
    options = ["-n", str(requests), "-c", str(requests // 10), "-m", "10", "--connect-to", f"{address}:443"]
    return [peer("h2load"), *options, f"https://{NAME}/1k"]


def wrk(address: str) -> list[str]:
    """Kept connections of HTTP/1.1 that are never idle; for a second, or nobody else had any of this machine."""
    return [peer("wrk"), "-t", "1", "-c", "2", "-d", "1s", f"https://{address}/1k"]


def h2load_requests(said: str) -> int:
    """How many there were in all runs, and none that failed."""
    counts = ("total", "started", "done", "succeeded", "failed", "errored", "timeout")
    pattern = "requests: " + ", ".join(rf"(\d+) {name}" for name in counts)
    runs = [list(map(int, run)) for run in re.findall(pattern, said)]
    for total, *good, failed, errored, late in runs:
        assert (good, failed, errored, late) == ([total] * 3, 0, 0, 0), said
    assert said.count("status codes: ") == len(re.findall(r"status codes: \d+ 2xx, 0 3xx, 0 4xx, 0 5xx", said)), said
    return sum(run[0] for run in runs)


def wrk_requests(said: str) -> int:
    assert "Socket errors" not in said, said
    assert "Non-2xx" not in said, said
    return sum(map(int, re.findall(r"(\d+) requests in", said)))


def pair(name: str) -> Mapping[str, str]:
    """A certificate, as edge's configuration names it when Ansible has delivered it."""
    return {"chain": f"/etc/edge/certificates/{name}/chain.pem", "key": f"/etc/edge/certificates/{name}/key.pem"}


def delivered(name: str, certificate: Certificate) -> Mapping[str, str]:
    return {"name": name, "chain": certificate.chain.read_text(), "key": certificate.key.read_text()}
