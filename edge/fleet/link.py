"""The connection to a fleet's Redis, and the keys that follow from the fleet's secret.

The master reads all files once and makes a Link, which can be pickled; who talks to Redis makes a client of it: the
companion that keeps ticket keys, and each worker. Nothing here retries by itself beyond what it is told, so that a
deadline is one.

The redis package is imported when a client is made: only who has [fleet] in the configuration needs it.
"""

import dataclasses
import hashlib
import hmac
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from edge.config import read_file, read_secret
from edge.fleet.settings import Fleet, RedisServer
from edge.schema import Place

if TYPE_CHECKING:
    from redis.asyncio import Redis, RedisCluster
    from redis.asyncio.sentinel import Sentinel

PASSWORD_MOST: Final = 4096
IDENTITY: Final = 8
"""Bytes that a register of early data goes by."""


@dataclasses.dataclass(frozen=True, slots=True)
class Secret:
    """The fleet's secret, of which only derived keys are used. Hosts with the same file have the same."""

    _secret: bytes = dataclasses.field(repr=False)

    @classmethod
    def of(cls, path: Path, at: Place) -> "Secret":
        """A file's. Raises ConfigError."""
        return cls(hmac.digest(b"edge fleet", read_secret(path, at), "sha256"))

    @property
    def name(self) -> bytes:
        """8 bytes that tell it from others, and nothing more."""
        return self._derive(b"name")[:8]

    @property
    def wrap_key(self) -> bytes:
        """AES-256: ticket keys are in Redis under it."""
        return self._derive(b"wrap ticket keys")

    @property
    def fingerprint_key(self) -> bytes:
        """32 bytes: what early data goes by in Redis is made with it, so that Redis learns nothing of ClientHellos."""
        return self._derive(b"early data fingerprints")

    def register_identity(self, *of: int) -> bytes:
        """The name of the fleet's register of early data, the same on all hosts for the same secret and numbers. It
        changes with the secret, as fingerprints do: what was entered under one is not asked for under another."""
        return self._derive(b"early data register " + b" ".join(b"%d" % n for n in of))[:IDENTITY]

    def _derive(self, label: bytes) -> bytes:
        """HKDF-Expand (RFC 5869, section 2.3) of one block; `_secret` is what HKDF-Extract gave."""
        return hmac.digest(self._secret, b"edge fleet: " + label + b"\x01", "sha256")


@dataclasses.dataclass(frozen=True, slots=True)
class Tls:
    """PEM: whom to trust (None: the system's authorities), and what to show."""

    ca: str | None
    certificate: bytes | None
    key: bytes | None = dataclasses.field(repr=False)


@dataclasses.dataclass(slots=True)
class Client:
    """A client in an asyncio loop. `redis`: what commands are given to; of sentinels and clusters, too."""

    redis: "Redis | RedisCluster"
    sentinel: "Sentinel | None" = None

    async def close(self) -> None:
        await self.redis.aclose()
        for one in self.sentinel.sentinels if self.sentinel else ():
            await one.aclose()


@dataclasses.dataclass(frozen=True, slots=True)
class Link:
    """A fleet's Redis, and its secrets, the first of which is used for what is new."""

    name: str
    servers: tuple[RedisServer, ...]
    mode: str
    service: str
    username: str | None
    password: str | None = dataclasses.field(repr=False)
    sentinel_password: str | None = dataclasses.field(repr=False)
    tls: Tls | None
    secrets: tuple[Secret, ...]

    def key(self, what: str) -> str:
        """The key in Redis of one of the fleet's things."""
        return f"edge:{self.name}:{what}"

    @property
    def whereabouts(self) -> int:
        """The same for hosts that keep things in the same place."""
        text = "\0".join([self.name, self.mode, self.service if self.mode == "sentinel" else "", *self._addresses()])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8])

    def _addresses(self) -> list[str]:
        """Of a server. Sentinels and nodes of a cluster may be any."""
        return [str(server) for server in self.servers] if self.mode == "server" else []

    def __str__(self) -> str:
        servers = ", ".join(map(str, self.servers))
        return servers if self.mode == "server" else f"{self.mode} {servers}"

    def asyncio(self, *, connections: int, seconds: float, retries: int = 0) -> Client:
        """At most so many `connections` (to each node). Each may take `seconds` to be made, and again for each answer;
        what has failed is tried again `retries` times. Nothing is sent yet. Addresses and answers are bytes."""
        from redis.asyncio.retry import Retry  # noqa: PLC0415  # see the module's docstring
        from redis.backoff import NoBackoff  # noqa: PLC0415

        from edge.fleet.connection import Bounded  # noqa: PLC0415

        common: dict[str, Any] = {
            "username": self.username,
            "password": self.password,
            "socket_timeout": seconds,
            "socket_connect_timeout": seconds,
            "max_connections": connections,
            "retry": Retry(NoBackoff(), retries),
            "parser_class": Bounded,
            "protocol": 2,  # nothing is pushed, and nothing more than AUTH asked for, at a connection's beginning
        }
        made = {"server": self._server, "sentinel": self._sentinel, "cluster": self._cluster}
        return made[self.mode](common, seconds)

    def _server(self, common: dict[str, Any], seconds: float) -> Client:
        from redis.asyncio import BlockingConnectionPool, Redis, UnixDomainSocketConnection  # noqa: PLC0415

        [server] = self.servers
        where: dict[str, Any] = {"host": server.host, "port": server.port, **self._connection()}
        if server.path:
            where = {"path": server.path, "connection_class": UnixDomainSocketConnection}
        return Client(Redis.from_pool(BlockingConnectionPool(timeout=seconds, **where, **common)))

    def _sentinel(self, common: dict[str, Any], _seconds: float) -> Client:
        from redis.asyncio import ConnectionPool, Redis, sentinel  # noqa: PLC0415

        made: Any = sentinel  # part of it has no types
        own = {**common, "username": None, "password": self.sentinel_password}
        asked = made.Sentinel([])
        asked.sentinels = [
            Redis.from_pool(ConnectionPool(host=one.host, port=one.port, **self._connection(), **own))
            for one in self.servers
        ]
        there = self._connection(made.SentinelManagedConnection)
        there.setdefault("connection_class", made.SentinelManagedConnection)
        return Client(Redis.from_pool(made.SentinelConnectionPool(self.service, asked, **there, **common)), asked)

    def _cluster(self, common: dict[str, Any], _seconds: float) -> Client:
        from redis.asyncio.cluster import ClusterNode, RedisCluster  # noqa: PLC0415

        # The package does not hand this on; and its own connections of TLS trust the system's authorities in addition.
        own = {"parser_class": common.pop("parser_class"), **self._connection()}
        nodes = [ClusterNode(server.host, server.port) for server in self.servers]
        cluster = RedisCluster(startup_nodes=nodes, require_full_coverage=False, ssl=self.tls is not None, **common)
        cluster.nodes_manager.connection_kwargs |= own
        for node in cluster.nodes_manager.startup_nodes.values():
            node.connection_class = own.get("connection_class", node.connection_class)
            node.connection_kwargs |= {name: value for name, value in own.items() if name != "connection_class"}
        return Client(cluster)

    def _connection(self, *also: type) -> dict[str, Any]:
        """How connections are made of TLS, and of a class that they are to be `also`; {} without TLS."""
        if self.tls is None:
            return {}
        from edge.fleet.connection import context, verified  # noqa: PLC0415

        made = context(self.tls.ca, self.tls.certificate, self.tls.key)
        return {"connection_class": verified(*also), "context": made}


def read(fleet: Fleet, at: Place) -> Link:
    """All that `[fleet]` names. Raises ConfigError."""
    if importlib.util.find_spec("redis") is None:
        raise at.error("needs the Python package redis", "install edge with it: pip install 'edge[fleet]'")
    secrets = tuple(Secret.of(path, at.key("secret_files").item(i)) for i, path in enumerate(fleet.secret_files))
    if len({secret.name for secret in secrets}) < len(secrets):
        raise at.key("secret_files").error("names two files with the same content", "remove one of them")
    return Link(
        name=fleet.name,
        servers=fleet.redis,
        mode=fleet.mode,
        service=fleet.service,
        username=fleet.username,
        password=_password(fleet.password_file, at.key("password_file")),
        sentinel_password=_password(fleet.sentinel_password_file, at.key("sentinel_password_file")),
        tls=_tls(fleet, at) if fleet.redis[0].tls else None,
        secrets=secrets,
    )


def _password(path: Path | None, at: Place) -> str | None:
    if path is None:
        return None
    try:
        password = read_file(path, at).decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        password = ""
    if not 0 < len(password) <= PASSWORD_MOST or "\n" in password:
        raise at.error(f"{path} holds no password", "write it there, as text on one line")
    return password


def _tls(fleet: Fleet, at: Place) -> Tls:
    """Read, and tried."""
    from edge.fleet.connection import context  # noqa: PLC0415

    ca = certificate = key = None
    if fleet.ca:
        try:
            ca = read_file(fleet.ca, at.key("ca")).decode("ascii")
            context(ca, None, None)
        except ValueError:
            raise at.key("ca").error(f"{fleet.ca} has no certificates", "name a PEM file with authorities") from None
    if fleet.certificate and fleet.key:
        certificate, key = read_file(fleet.certificate, at.key("certificate")), read_file(fleet.key, at.key("key"))
    try:
        context(ca, certificate, key)
    except ValueError as e:
        raise at.key("certificate").error(
            f"{fleet.certificate} and {fleet.key} cannot be used: {e}",
            "name a certificate and its private key, in PEM and not encrypted",
        ) from None
    return Tls(ca, certificate, key)
