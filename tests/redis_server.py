"""Real Redis servers for the tests: one, a replica, a Sentinel, a small cluster. Ended by their own process ids.

EDGE_REDIS_SERVER names another program than redis-server: `EDGE_REDIS_SERVER=valkey-server ./dev test tests/fleet`.
"""

import contextlib
import os
import shutil
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.e2e.pki import Certificate
from tests.e2e.processes import Process, free_port, peer, wait_until

SECONDS = 30


def program() -> str:
    """The server's path: that of EDGE_REDIS_SERVER, else Redis's, or Valkey's where that alone is installed."""
    installed = [name for name in ("redis-server", "valkey-server") if shutil.which(name)]
    return peer(os.environ.get("EDGE_REDIS_SERVER") or next(iter(installed), "redis-server"))


class RedisServer:
    """A redis-server on loopback, without persistence. `config` are lines of redis.conf: {"maxmemory-policy": ...}.

    With `certificate` it speaks TLS alone; with `shown` it wants clients to have one: the test shows that. `inside`:
    what its command begins with."""

    def __init__(
        self,
        directory: Path,
        *,
        password: str = "",
        certificate: Certificate | None = None,
        ca: Path | None = None,
        shown: Certificate | None = None,
        sentinel: bool = False,
        address: str = "127.0.0.1",
        config: dict[str, str] | None = None,
        inside: Sequence[object] = (),
    ) -> None:
        self._inside = inside
        self.address, self.port, self.password = address, free_port(), password
        self.directory = directory / f"redis-{self.port}"
        self.directory.mkdir(parents=True)
        self.tls = certificate is not None
        self._ca = ca
        self._shown = shown
        self._sentinel = sentinel
        self._config = {
            "bind": address,
            "dir": str(self.directory),
            "port": "0" if self.tls else str(self.port),
            "daemonize": "no",
            **({} if sentinel else {"save": '""', "appendonly": "no", "repl-diskless-sync-delay": "0"}),
        }
        if password:
            self._config |= {"requirepass": password, **({} if sentinel else {"masterauth": password})}
        if certificate is not None:
            self._config |= {
                "tls-port": str(self.port),
                "tls-cert-file": str(certificate.chain),
                "tls-key-file": str(certificate.key),
                "tls-ca-cert-file": str(ca),
                "tls-auth-clients": "yes" if shown else "no",
                "tls-replication": "yes",
                **({} if sentinel else {"tls-cluster": "yes"}),
            }
        self._config |= config or {}
        self.bus_port = 0
        if self._config.get("cluster-enabled") == "yes":
            self.bus_port = free_port()  # or 10,000 more than its own, which may be taken
            self._config["cluster-port"] = str(self.bus_port)
        self.process: Process | None = None

    @property
    def url(self) -> str:
        """As [fleet] redis has it."""
        return f"{'rediss' if self.tls else 'redis'}://{self.address}:{self.port}"

    def start(self) -> "RedisServer":
        file = self.directory / "redis.conf"
        if not file.exists() or not self._sentinel:  # a sentinel writes there
            file.write_text("".join(f"{key} {value}\n" for key, value in self._config.items()))
        command = [*self._inside, program(), file, *(["--sentinel"] if self._sentinel else [])]
        self.process = Process(command, self.directory / "output.log")
        self.process.started(self._answers, SECONDS)
        return self

    def _answers(self) -> bool:
        with contextlib.suppress(redis.RedisError), self.client() as client:
            return bool(client.ping())
        return False

    def client(self) -> redis.Redis:
        """For the test's own hands. A server whose role changes ends its connections: who asks asks again."""
        tls = {"ssl": True, "ssl_ca_certs": str(self._ca)} if self.tls else {}
        if self._shown is not None:
            tls |= {"ssl_certfile": str(self._shown.chain), "ssl_keyfile": str(self._shown.key)}
        return redis.Redis(
            host=self.address,
            port=self.port,
            password=self.password or None,
            socket_timeout=SECONDS,
            protocol=2,
            retry=Retry(NoBackoff(), 3),
            **tls,
        )

    def call(self, *command: object) -> object:
        with self.client() as client:
            return client.execute_command(*command)

    def pause(self) -> None:
        os.kill(self.process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()

    def __enter__(self) -> "RedisServer":
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()


def replicate(replica: RedisServer, master: RedisServer) -> None:
    """Makes one a replica of the other, and waits until it has all."""
    replica.call("REPLICAOF", master.address, master.port)
    wait_until(lambda: replica.call("ROLE")[3] == b"connected", SECONDS, "the replica is connected")


def sentinel(directory: Path, master: RedisServer, service: str, **options) -> RedisServer:
    """A single Sentinel that watches a master; not started. It holds it for dead after half a second."""
    lines = {
        f"sentinel monitor {service}": f"{master.address} {master.port} 1",
        f"sentinel down-after-milliseconds {service}": "500",
        f"sentinel failover-timeout {service}": "3000",
    }
    if master.password:
        lines[f"sentinel auth-pass {service}"] = master.password
    return RedisServer(directory, sentinel=True, config=lines, **options)


@contextlib.contextmanager
def cluster(
    directory: Path, number: int = 3, *, config: dict[str, str] | None = None, **options
) -> Iterator[list[RedisServer]]:
    """Nodes that run, each with its share of the slots."""
    lines = {"cluster-enabled": "yes", "cluster-node-timeout": "1000", **(config or {})}
    with contextlib.ExitStack() as stack:
        nodes = [stack.enter_context(RedisServer(directory, config=lines, **options)) for _ in range(number)]
        _join(nodes)
        yield nodes


def _join(nodes: Sequence[RedisServer]) -> None:
    number = len(nodes)
    for i, node in enumerate(nodes):
        begin, end = 16384 * i // number, 16384 * (i + 1) // number - 1
        node.call("CLUSTER", "ADDSLOTSRANGE", begin, end)
        node.call("CLUSTER", "SET-CONFIG-EPOCH", i + 1)
        if i:
            nodes[0].call("CLUSTER", "MEET", node.address, node.port, node.bus_port)

    def joined(node: RedisServer) -> bool:
        info = node.call("CLUSTER", "INFO")
        text = "\n".join(f"{k}:{v}" for k, v in info.items()) if isinstance(info, dict) else info.decode()
        return "cluster_state:ok" in text and f"cluster_known_nodes:{number}" in text

    for node in nodes:
        wait_until(lambda node=node: joined(node), SECONDS, "the cluster is one")
