"""redis-server and its kin, in namespaces."""

import os
import signal
import socket
from pathlib import Path

from tests.e2e.processes import Process, peer, wait_until
from tests.fleet.network import Host, Network

PORT = 6379
SENTINEL_PORT = 26379


class Redis:
    """A server on a host, whose data are gone when it is; `options` as on its command line."""

    def __init__(self, network: Network, host: Host, directory: Path, *options: str, port: int = PORT) -> None:
        self.network, self.host, self.port = network, host, port
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.options = options
        self.process: Process | None = None
        self.start()

    @property
    def address(self) -> str:
        return f"{self.host.address}:{self.port}"

    def start(self) -> None:
        command = self.host.program(
            peer("redis-server"), *("--bind", "0.0.0.0", "--port", self.port, "--protected-mode", "no"),
            *("--save", "", "--dir", self.directory), *self.options,
        )  # fmt: skip
        self.process = Process(command, self.directory / "redis.log")
        self.process.started(lambda: self.ask("PING") == b"PONG")

    def ask(self, *words: object, seconds: float = 10) -> object:
        """One command -> its answer: bytes, int, None or list; an error is raised."""
        try:
            with self.network.inside(self.host.namespace):
                sock = socket.create_connection(("127.0.0.1", self.port), timeout=seconds)
        except OSError:
            return None
        with sock, sock.makefile("rwb") as stream:
            encoded = [str(word).encode() for word in words]
            stream.write(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in encoded))
            stream.flush()
            return _answer(stream)

    def info(self, name: str) -> str:
        for line in self.ask("INFO").decode().splitlines():
            if line.startswith(f"{name}:"):
                return line.partition(":")[2]
        raise KeyError(name)

    def pause(self) -> None:
        """It holds its connections, and says nothing."""
        os.kill(self.process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        os.kill(self.process.pid, signal.SIGCONT)

    def kill(self) -> None:
        self.process.kill()

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()


class Sentinel(Redis):
    """One of those that call `master` by the name of edge, and put another in its place a second after it has gone."""

    def __init__(self, network: Network, host: Host, directory: Path, master: Redis, quorum: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.file = directory / "sentinel.conf"
        self.file.write_text(
            f"sentinel monitor edge {master.host.address} {master.port} {quorum}\n"
            "sentinel down-after-milliseconds edge 1000\n"
            "sentinel failover-timeout edge 3000\n"
        )
        super().__init__(network, host, directory, port=SENTINEL_PORT)

    def start(self) -> None:
        command = self.host.program(
            peer("redis-server"), self.file, "--sentinel",
            *("--bind", "0.0.0.0", "--port", self.port, "--protected-mode", "no", "--dir", self.directory),
        )  # fmt: skip
        self.process = Process(command, self.directory / "sentinel.log")
        self.process.started(lambda: self.ask("PING") == b"PONG")

    def knows(self, *, replicas: int, sentinels: int) -> bool:
        facts = self.ask("SENTINEL", "MASTER", "edge")
        named = dict(zip(facts[::2], facts[1::2], strict=True))
        return int(named[b"num-slaves"]) >= replicas and int(named[b"num-other-sentinels"]) >= sentinels - 1


def settle(master: Redis, replicas: list[Redis], sentinels: list[Sentinel]) -> None:
    """Waits until all know of each other."""
    wait_until(lambda: int(master.info("connected_slaves")) == len(replicas), 30, "replicas")
    for replica in replicas:
        wait_until(lambda one=replica: one.info("master_link_status") == "up", 30, "a replica's link")
    for sentinel in sentinels:
        wait_until(
            lambda one=sentinel: one.knows(replicas=len(replicas), sentinels=len(sentinels)), 30, "what sentinels know"
        )


def _answer(stream) -> object:
    line = stream.readline()
    if not line:
        raise EOFError("redis has closed the connection")
    kind, rest = line[:1], line[1:-2]
    if kind == b"-":
        raise RuntimeError(rest.decode())
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == b"-1" else stream.read(int(rest) + 2)[:-2]
    if kind == b"*":
        return None if rest == b"-1" else [_answer(stream) for _ in range(int(rest))]
    return rest


