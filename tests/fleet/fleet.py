"""Three hosts with the same [fleet], each a real server in a namespace of its own."""

import contextlib
import socket
import sys
from pathlib import Path
from typing import Any

from tests.e2e.pki import Pki
from tests.e2e.processes import wait_until
from tests.e2e.server import Edge
from tests.early_client import EarlyClient
from tests.fleet.backend import Backend
from tests.fleet.network import Host, Network

HTTPS = 443
PYTHON = (sys.executable, "-X", "faulthandler")
SERVER = 10
"""Numbers of hosts: those of servers begin here, Redis's and sentinels' further on."""


class Server(Edge):
    """One of the fleet's."""

    def __init__(self, host: Host, directory: Path, pki: Pki, backend: Backend, tables: dict[str, Any]) -> None:
        super().__init__(
            directory,
            pki,
            {"app": [backend.server]},
            binds=[f"{host.address}:{HTTPS}"],
            routes=[{"match": {}, "upstream": "app", "early_data": "forward"}],
            server={"workers": 1, "admin": f"unix:{directory}/admin.sock"},
            tls={"early_data": {"window": "2s"}},
            program=host.program(*PYTHON, "-m", "edge"),
        )
        self.host = host
        for name, table in tables.items():
            self.tables[name] = {**self.tables.get(name, {}), **table}

    def check_health(self, said: str | None = None) -> None:
        super().check_health(said)
        said = self.everything_said() if said is None else said
        for sign in ("Task was destroyed", "was never awaited", "unforeseen"):
            assert sign not in said, said[-3000:]

    def told(self) -> dict[str, Any]:
        """Its figures, as `edge status --json` has them."""
        return self.ask("status")

    def counters(self) -> dict[str, int]:
        figures = self.told()["figures"]
        return {**figures["counters"], **figures["gauges"], "refused": figures["early_refused"]}

    def wait_register(self, up: bool = True, seconds: float = 30) -> None:
        """Until all of its workers have it so."""
        wanted = self.tables["server"]["workers"] if up else 0
        wait_until(lambda: self.counters()["register_up"] == wanted, seconds, f"register_up == {wanted}")


class Fleet:
    """Servers at hosts `first`, `first` + 1 ... of the network, with one backend and the same tables."""

    def __init__(
        self, network: Network, directory: Path, pki: Pki, tables: dict[str, Any], *, count: int = 3,
        first: int = SERVER,
    ) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.network = network
        self.backend = Backend(directory / "app.sock")
        self.servers = [
            Server(network.host(first + i), directory / f"edge{i}", pki, self.backend, tables) for i in range(count)
        ]

    def __enter__(self) -> "Fleet":
        for server in self.servers:
            server.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        for server in self.servers:
            if server.process is not None:
                if kind is None:
                    server.stop()
                else:
                    with contextlib.suppress(AssertionError):
                        server.stop()
        self.backend.close()

    def connect(self, server: Server) -> socket.socket:
        return self.network.connect(server.host.address, HTTPS)

    def client(self, server: Server, session: Any = None, **options: Any) -> EarlyClient:
        return EarlyClient(0, session, name="edge.test", sock=self.connect(server), **options)

    def session(self, server: Server) -> Any:
        """Of a full handshake there."""
        with self.client(server) as client:
            client.confirm()
            while client.engine.session is None:
                client.take()
            return client.engine.session
