"""Redis servers on hosts of the fleet's network."""

from pathlib import Path

from tests.e2e.processes import wait_until
from tests.fleet.network import Host, Network
from tests.redis_server import RedisServer

SECONDS = 30

REDIS = 30
"""The first one's place in the network."""


class Redis(RedisServer):
    """One that runs, on a host; its data are gone when it is. `config` as lines of its file."""

    def __init__(self, network: Network, host: Host, directory: Path, *, sentinel: bool = False, **config: str) -> None:
        lines = {name.replace("_", "-"): value for name, value in config.items()}
        super().__init__(
            directory,
            address=host.address,
            sentinel=sentinel,
            config={"protected-mode": "no", **lines},
            inside=host.program(),
        )
        self.network, self.host = network, host
        self.start()

    def _answers(self) -> bool:
        with self.network.inside(self.host.namespace):
            return super()._answers()

    def ask(self, *words: object) -> object:
        """One command, by a client beside it -> its answer."""
        with self.network.inside(self.host.namespace):
            return self.call(*words)

    def info(self, name: str) -> object:
        return self.ask("INFO")[name]


class Sentinel(Redis):
    """One of those that call `master` by the name of edge, and put another in its place a second after it has gone."""

    def __init__(self, network: Network, host: Host, directory: Path, master: Redis, quorum: int) -> None:
        lines = {
            "sentinel monitor edge": f"{master.address} {master.port} {quorum}",
            "sentinel down-after-milliseconds edge": "1000",
            "sentinel failover-timeout edge": "3000",
        }
        super().__init__(network, host, directory, sentinel=True, **lines)

    def knows(self, *, replicas: int, sentinels: int) -> bool:
        words = iter(self.ask("SENTINEL", "MASTER", "edge"))
        facts = dict(zip(words, words, strict=True))
        return int(facts[b"num-slaves"]) >= replicas and int(facts[b"num-other-sentinels"]) >= sentinels - 1


def settle(master: Redis, replicas: list[Redis], sentinels: list[Sentinel]) -> None:
    """Waits until all know of each other."""
    wait_until(lambda: master.info("connected_slaves") == len(replicas), SECONDS, "replicas")
    for replica in replicas:
        wait_until(lambda one=replica: one.info("master_link_status") == "up", SECONDS, "a replica's link")
    for sentinel in sentinels:
        known = {"replicas": len(replicas), "sentinels": len(sentinels)}
        wait_until(lambda one=sentinel, of=known: one.knows(**of), SECONDS, "what sentinels know")
