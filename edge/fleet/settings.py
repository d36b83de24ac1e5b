"""A fleet as settings: where its Redis is, who may read what is kept there, and what is shared."""

import dataclasses
import ipaddress
import re
from pathlib import Path
from typing import Final

from edge.errors import ConfigError
from edge.hostport import host_and_port, join
from edge.schema import Choice, Duration, File, Integer, ListOf, Milliseconds, Parsed, Place, Text, knob, table

TICKETS: Final = "tickets"
EARLY_DATA: Final = "early-data"
CLOCKS_MS: Final = 1000
"""What the clocks of hosts may differ by where early data is shared: each by half of it from Redis's."""
DEADLINE_MS: Final = 5000
"""The longest `deadline` of any host."""
POLLS_TO_SETTLE: Final = 3
"""A host misses a poll or two, and its clock may be a little ahead."""


@dataclasses.dataclass(frozen=True, slots=True)
class RedisServer:
    """Where a Redis (or a Sentinel) answers: a host and port, in plain TCP or in TLS, or the path of a Unix socket."""

    host: str = ""
    port: int = 0
    tls: bool = False
    path: str = ""

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"{'rediss' if self.tls else 'redis'}://{join(self.host, self.port)}"


def _redis(text: str) -> RedisServer:
    if text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
        if not path.startswith("/") or "\0" in path:
            raise ValueError("is no absolute path of a socket")
        return RedisServer(path=path)
    scheme, there, address = text.partition("://")
    if not there:
        scheme, address = "redis", text
    if scheme not in ("redis", "rediss"):
        raise ValueError(f"has an unknown scheme, {scheme}")
    if "@" in address:
        raise ValueError("has a user or password in it; they go to username and password_file")
    if re.search("[/?#]", address.removesuffix("/")):
        raise ValueError("has more than host and port; all keys begin with the fleet's name and need no database")
    host, port = host_and_port(address.removesuffix("/"))
    return RedisServer(host, port, scheme == "rediss")


@table
class Fleet:
    name: str = knob(
        Text("name", r"[A-Za-z0-9._-]{1,64}", "write up to 64 letters, digits, dots, hyphens or underscores"),
        "The fleet's name, the same on all its hosts: keys in Redis begin with `edge:NAME:`.",
        default="edge",
    )
    secret_files: tuple[Path, ...] = knob(
        ListOf(File()),
        "Files of at least 32 random bytes, the same on all hosts: ticket keys are kept in Redis under the first one, "
        "and read under any of them, so that it can be replaced ([fleet.md](fleet.md#replace-the-secret)).",
    )
    redis: tuple[RedisServer, ...] = knob(
        ListOf(
            Parsed(
                "Redis address",
                _redis,
                'write "10.0.0.1:6379", "redis://10.0.0.1:6379", "rediss://redis.internal:6380" (TLS) or '
                '"unix:/run/redis/redis.sock"',
            )
        ),
        'Where Redis or Valkey is: `"rediss://redis.internal:6380"` (TLS), `"redis://10.0.0.1:6379"` or '
        '`"10.0.0.1:6379"` (plain), `"unix:/run/redis/redis.sock"`; with `mode = "sentinel"` the sentinels, with '
        '`"cluster"` some of its nodes.',
    )
    mode: str = knob(
        Choice("server", "sentinel", "cluster"),
        "One server; the one that the sentinels call master; or a cluster.",
        default="server",
    )
    service: str = knob(
        Text("name", r"[!-~]{1,128}", "write the name that the sentinels know the master by"),
        'With `mode = "sentinel"`: what sentinels call the master.',
        default="edge",
    )
    username: str | None = knob(
        Text("user name", r"[!-~]{1,128}", "write the name of a user of Redis's ACL"),
        "The user of Redis's ACL ([fleet.md](fleet.md#redis-itself) has what it must be allowed).",
        default=None,
        otherwise="`default`",
    )
    password_file: Path | None = knob(File(), "A file with its password.", default=None)
    sentinel_password_file: Path | None = knob(File(), "A file with the sentinels' password.", default=None)
    ca: Path | None = knob(
        File(),
        "PEM file: the authorities that may have issued the certificates of Redis, which are always verified, and are "
        "to be for the host that `redis` (or a sentinel, or the cluster) names.",
        default=None,
        otherwise="those of the system",
    )
    certificate: Path | None = knob(
        File(), "PEM file: a certificate that is shown to Redis, then each issuer's.", default=None
    )
    key: Path | None = knob(File(), "PEM file: its private key, not encrypted.", default=None)
    share: tuple[str, ...] = knob(
        ListOf(Choice(TICKETS, EARLY_DATA)),
        "What is shared. `tickets`: the ticket keys, so that a session is resumed on every host. `early-data`: which "
        "0-RTT data was taken, so that a ticket of one host has it on all, once.",
        default=[TICKETS, EARLY_DATA],
    )
    deadline: Milliseconds = knob(
        Duration("5ms", f"{DEADLINE_MS // 1000}s"),
        "How long a handshake waits to hear whether its 0-RTT data was taken before; then it goes on without.",
        default="50ms",
    )
    replicas: int = knob(
        Integer(0, 16),
        "How many replicas must have that it was taken before it is: as many as there are, or a master that was "
        "cut off together with the others says of the same that it is new as its successor does.",
        default=0,
    )
    poll: Milliseconds = knob(
        Duration("100ms", "10s"),
        "How often a host looks whether there are other ticket keys; it also does when another host says so.",
        default="5s",
    )
    settle: Milliseconds = knob(
        Duration("300ms", "1h"),
        "How long a ticket key is known before it seals when keys are rotated by command: all hosts have to have seen "
        "it by then, even where their clocks differ.",
        default="30s",
    )

    def shares(self, what: str) -> bool:
        return what in self.share


def check(fleet: Fleet, at: Place) -> ConfigError | None:
    """What does not fit together in the table."""
    return _check_redis(fleet, at) or _check_tls(fleet, at) or _check_rest(fleet, at)


def in_the_clear(fleet: Fleet) -> list[str]:
    """The addresses of Redis on other hosts that are not spoken to in TLS."""
    return [str(server) for server in fleet.redis if not (server.path or server.tls or _is_loopback(server.host))]


def each_to_himself(fleet: Fleet) -> list[str]:
    """The addresses of Redis that are another one's on each host, if nothing stands behind them that is the same."""
    return [str(server) for server in fleet.redis if server.path or _is_loopback(server.host)]


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_redis(fleet: Fleet, at: Place) -> ConfigError | None:
    redis = at.key("redis")
    if fleet.mode == "server" and len(fleet.redis) > 1:
        return redis.error(
            "names several servers, which would not know of each other",
            'name one, or write mode = "sentinel" or mode = "cluster"',
        )
    if fleet.mode != "server" and any(server.path for server in fleet.redis):
        return redis.error(f"a {fleet.mode} is not reached by a Unix socket", "write host and port")
    if len({server.tls for server in fleet.redis}) > 1:
        return redis.error("has plain TCP and TLS mixed", "write rediss:// for all of them, or for none")
    return None


def _check_tls(fleet: Fleet, at: Place) -> ConfigError | None:
    tls = any(server.tls for server in fleet.redis)
    for name in ("ca", "certificate", "key"):
        if getattr(fleet, name) is not None and not tls:
            return at.key(name).error("is for TLS, which redis does not ask for", "write rediss:// there, or remove it")
    if (fleet.certificate is None) is not (fleet.key is None):
        missing = "certificate" if fleet.certificate is None else "key"
        return at.key(missing).error("is missing", "a certificate that is shown needs both, `certificate` and `key`")
    return None


def _check_rest(fleet: Fleet, at: Place) -> ConfigError | None:
    if fleet.username is not None and fleet.password_file is None:
        return at.key("password_file").error("is missing", "a user has a password: name the file that holds it")
    if fleet.sentinel_password_file is not None and fleet.mode != "sentinel":
        return at.key("sentinel_password_file").error('is for mode = "sentinel" alone', "remove it, or add that")
    if fleet.settle < POLLS_TO_SETTLE * fleet.poll:
        return at.key("settle").error(
            "is too short for every host to look before it is over",
            f"choose at least {POLLS_TO_SETTLE} times `poll`, as a host may miss one",
        )
    return None
