"""The configuration: one TOML file, read into `edge.settings`, checked where one key depends on another.

`load` reads and checks a file; `python -m edge.config` prints docs/configuration.md, made from the declarations in
edge.settings.
"""

import dataclasses
import grp
import os
import pwd
import socket
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Final, cast

from edge import handovers, timeouts
from edge.early_data import settings as early_data
from edge.errors import ConfigError
from edge.fleet import settings as fleets
from edge.logs import settings as logsettings
from edge.schema import (
    Place,
    nearest,
    read_table,
    reference,
)
from edge.settings import (
    Address,
    Bind,
    Listener,
    Match,
    Server,
    ServerTable,
    Settings,
    Tls,
    Upstream,
    UpstreamTls,
)

SECRET_MIN: Final = 32
"""Bytes."""

_NO_SENDERS: Final = read_table(handovers.HandoffSocket, {}, Place("default"))


def load(file: Path) -> Settings:
    """The settings in a file, checked as far as that goes without opening what they name. Raises ConfigError."""
    return parse(read_text(file), str(file))


def parse(text: str, file: str) -> Settings:
    top = Place(file)
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as e:
        raise top.error(f"is no TOML: {e}", "correct the file there (https://toml.io)") from None
    settings = read_table(Settings, raw, top, file=file, addresses=(), warnings=())
    _check_listeners(settings, top)
    _check_handoffs(settings, top)
    _check_admin(settings, top)
    _check_tls(settings.tls, top.key("tls"))
    _check_fleet(settings, top)
    _check_upstreams(settings, top)
    _check_timeouts(settings, top)
    error = early_data.check([route.early_data for route in settings.route], settings.tls.early_data, top)
    if error:
        raise error
    _check_server(settings.server, top.key("server"))
    resolved = list(_resolve(settings, top))
    return dataclasses.replace(
        settings,
        addresses=tuple(tuple(found) for found in resolved),
        server_names=tuple(tuple(found.values()) for found in resolved),
        warnings=tuple(_unused(settings, top)),
    )


def read_file(path: Path, at: Place) -> bytes:
    """A file that the configuration names at `at`. Raises ConfigError."""
    try:
        return path.read_bytes()
    except OSError as e:
        reason = (e.strerror or "cannot be read").lower()
        raise at.error(
            f"{path}: {reason}", "name a file that exists and that the user who starts edge may read"
        ) from None


def read_secret(path: Path, at: Place) -> bytes:
    """A file of random bytes that the configuration names at `at`. Raises ConfigError."""
    content = read_file(path, at)
    if len(content) < SECRET_MIN:
        raise at.error(f"{path} is shorter than {SECRET_MIN} bytes", "make it with: openssl rand -out FILE 48")
    return content


def read_text(file: Path) -> str:
    """The text of a configuration. Raises ConfigError."""
    try:
        return file.read_text("utf-8")
    except OSError as e:
        raise ConfigError(
            str(file), "", (e.strerror or "cannot be read").lower(), "name a readable file with --config"
        ) from None
    except UnicodeDecodeError as e:
        raise ConfigError(str(file), "", f"is not UTF-8 (byte {e.start})", "save it as UTF-8") from None


def _check_listeners(settings: Settings, top: Place) -> None:
    seen: dict[Bind, Place] = {}
    for i, listener in enumerate(settings.listener):
        for j, bind in enumerate(listener.bind):
            at = top.key("listener").item(i).key("bind").item(j)
            if bind in seen:
                raise at.error(f'"{bind}" is bound already by {seen[bind].path}', "remove one of them")
            seen[bind] = at
            if bind.path and listener.kind != "handoff":
                raise at.error("only a listener of handed-over connections has a Unix socket", 'add kind = "handoff"')
            if listener.kind == "handoff" and not bind.path:
                raise at.error(
                    "connections are not handed over through TCP",
                    'write "unix:/run/edge/handoff.sock", or leave kind out',
                )
        _check_kind(listener, top.key("listener").item(i))


def _check_kind(listener: Listener, at: Place) -> None:
    if listener.kind == "handoff":
        handovers.ownership(listener.handoff, at.key("handoff"))
        if listener.proxy_protocol:
            raise at.key("proxy_protocol").error(
                "has been spoken when a connection is handed over", "remove it: who hands over says who the client is"
            )
    elif listener.handoff != _NO_SENDERS:
        raise at.key("handoff").error('has no meaning without kind = "handoff"', "remove it, or add that")


def _check_handoffs(settings: Settings, top: Place) -> None:
    names: dict[str, Place] = {}
    for i, handoff in enumerate(settings.handoff):
        at = top.key("handoff").item(i)
        if handoff.name in names:
            raise at.key("name").error(
                f'"{handoff.name}" is the name of {names[handoff.name].path} too', "give it another name"
            )
        names[handoff.name] = at
        for j, listener in enumerate(settings.listener):
            if any(bind.path == handoff.socket for bind in listener.bind):
                raise at.key("socket").error(
                    f"is listener[{j}]'s own", "name the socket of the process that is to have the connections"
                )


def _check_admin(settings: Settings, top: Place) -> None:
    if settings.server.admin is None:
        return
    path = str(settings.server.admin.path)
    others = [(f"listener[{i}]", [b.path for b in listener.bind]) for i, listener in enumerate(settings.listener)]
    others += [(f"handoff[{i}]", [handoff.socket]) for i, handoff in enumerate(settings.handoff)]
    for name, paths in others:
        if path in paths:
            raise top.key("server").key("admin").error(f"is the socket of {name}", "give it a path of its own")


def _check_tls(tls: Tls, at: Place) -> None:
    if tls.min_version > tls.max_version:
        raise at.key("min_version").error("is above max_version", "give both the same version, or leave one out")
    spoken = {0x0304 if suite < 0x1400 else 0x0303 for suite in tls.cipher_suites}
    if not any(tls.min_version <= version <= tls.max_version for version in spoken):
        raise at.key("cipher_suites").error(
            "has none of a version that is allowed", "add one of TLS 1.3, or widen min_version and max_version"
        )


def _check_fleet(settings: Settings, top: Place) -> None:
    tickets, at = settings.tls.tickets, top.key("tls").key("tickets")
    if tickets.directory and tickets.secret_file:
        raise at.key("directory").error("is one source of keys, and secret_file another", "remove one of the two")
    fleet = settings.fleet
    if fleet is None:
        return
    error = fleets.check(fleet, top.key("fleet"))
    if error:
        raise error
    name = "directory" if tickets.directory else "secret_file"
    delivered = tickets.directory or tickets.secret_file
    if fleet.shares(fleets.TICKETS) and delivered:
        raise at.key(name).error(
            "is one source of keys, and [fleet] another", 'remove it, or write share = ["early-data"] under [fleet]'
        )
    if not fleet.shares(fleets.TICKETS) and tickets.enabled and not delivered:
        raise top.key("fleet").key("share").error(
            "shares early data, but hosts cannot open each other's tickets",
            'add "tickets", or give all hosts tls.tickets.directory or secret_file',
        )


def _check_upstreams(settings: Settings, top: Place) -> None:
    seen: dict[str, Place] = {}
    for i, upstream in enumerate(settings.upstream):
        at = top.key("upstream").item(i).key("name")
        if upstream.name in seen:
            raise at.error(f'"{upstream.name}" is the name of {seen[upstream.name].path} too', "give it another name")
        seen[upstream.name] = at
        _check_upstream_tls(upstream, top.key("upstream").item(i))
    matches: dict[Match, Place] = {}
    for i, route in enumerate(settings.route):
        at = top.key("route").item(i)
        if route.upstream not in seen:
            raise at.key("upstream").error(
                f'there is no upstream "{route.upstream}"', nearest(route.upstream, list(seen), "name one of")
            )
        if route.match in matches:
            raise at.key("match").error(
                f"is the same as in {matches[route.match].path}", "remove one of the two routes"
            )
        matches[route.match] = at


def _check_timeouts(settings: Settings, top: Place) -> None:
    listeners = tuple(listener.timeouts for listener in settings.listener)
    for i, route in enumerate(settings.route):
        if route.timeouts.header is None:
            continue
        error = timeouts.check(listeners, route.timeouts, top.key("route").item(i).key("timeouts"))
        if error:
            raise error


def tls_of(upstream: Upstream) -> UpstreamTls | None:
    """What TLS is spoken with it; None: none."""
    if upstream.tls is None and upstream.protocol == "h2":
        return read_table(UpstreamTls, {}, Place("default"))
    return upstream.tls


def _check_upstream_tls(upstream: Upstream, at: Place) -> None:
    tls = tls_of(upstream)
    if upstream.protocol == "h2c" and tls is not None:
        raise at.key("tls").error(
            "has no place in h2c, which is HTTP/2 without TLS", 'remove it, or write protocol = "h2"'
        )
    if tls is None:
        return
    at = at.key("tls")
    if not tls.verify and tls.ca is not None:
        raise at.key("ca").error("is not used with verify = false", "remove one of the two")
    if (tls.chain is None) is not (tls.key is None):
        missing = "chain" if tls.chain is None else "key"
        raise at.key(missing).error("is missing", "a certificate that is shown needs both, `chain` and `key`")
    if tls.verify and tls.name is None and any(server.path for server in upstream.servers):
        raise at.key("name").error("is missing", "say whom the certificate behind a Unix socket is to be for")


def _check_server(server: ServerTable, at: Place) -> None:
    owner(server, at)
    logsettings.check(server.access_log, server.error_log, at)
    for path, key in (
        (server.pid_file, at.key("pid_file")),
        (server.access_log.path if server.access_log else None, at.key("access_log").key("path")),
        (server.error_log.path, at.key("error_log").key("path")),
    ):
        if path and path.is_dir():
            raise key.error(f"{path} is a directory", "name a file in it")
        if path and not path.parent.is_dir():
            raise key.error(f"{path.parent} is no directory", "make it, or choose another")
    if server.admin:
        at_admin = at.key("admin")
        handovers.ownership(server.admin, at_admin)
        if server.admin.path.is_dir():
            raise at_admin.error(f"{server.admin.path} is a directory", "name a socket in it")
        if not server.admin.path.parent.is_dir():
            raise at_admin.error(f"{server.admin.path.parent} is no directory", "make it, or choose another")
    if server.cache_dir and not server.cache_dir.is_dir():
        raise at.key("cache_dir").error(f"{server.cache_dir} is no directory", "make it, or choose another")


def owner(server: ServerTable, at: Place) -> tuple[int, int]:
    """The user and group id that workers run as. Raises ConfigError."""
    uid, gid = os.geteuid(), os.getegid()
    if server.user is not None:
        try:
            entry = pwd.getpwnam(server.user)
        except KeyError:
            raise at.key("user").error(
                f'there is no user "{server.user}"', "create it (useradd --system) or name another"
            ) from None
        uid, gid = entry.pw_uid, entry.pw_gid
    if server.group is not None:
        try:
            gid = grp.getgrnam(server.group).gr_gid
        except KeyError:
            raise at.key("group").error(
                f'there is no group "{server.group}"', "create it (groupadd --system) or name another"
            ) from None
    if (uid, gid) != (os.geteuid(), os.getegid()) and os.geteuid() != 0:
        key = at.key("user" if server.user is not None else "group")
        raise key.error("only root can change it", "start edge as root, or remove the key")
    return uid, gid


def _resolve(settings: Settings, top: Place) -> Iterator[dict[Address, str]]:
    """For each upstream, its addresses, and whom the certificate there is to be for."""
    for i, upstream in enumerate(settings.upstream):
        found: dict[Address, str] = {}
        for j, server in enumerate(upstream.servers):
            at = top.key("upstream").item(i).key("servers").item(j)
            tls = tls_of(upstream)
            name = (tls and tls.name) or server.host
            for address in addresses(server, at):
                found.setdefault(address, name)
        yield found


def addresses(server: Server, at: Place) -> list[Address]:
    """What a server's name leads to now. Raises ConfigError."""
    if server.path:
        return [("unix", server.path)]
    try:
        infos = socket.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM)
    except OSError as e:
        raise at.error(
            f'"{server.host}" cannot be resolved: {e.strerror}', "correct the name, or write an IP address"
        ) from None
    return [("tcp", cast(str, info[4][0]), server.port) for info in infos]


def _unused(settings: Settings, top: Place) -> Iterator[str]:
    used = {route.upstream for route in settings.route}
    chosen_by_hook = settings.server.hooks or any(route.hooks for route in settings.route)
    for i, upstream in enumerate(settings.upstream):
        if upstream.name not in used and not chosen_by_hook:
            yield f'{top.file}: upstream[{i}]: no route uses "{upstream.name}"'
    tunnels = {upstream.name for upstream in settings.upstream if upstream.protocol == "http/1.1"}
    for i, route in enumerate(settings.route):
        if route.timeouts.websocket_idle is not None and route.upstream not in tunnels:
            yield (
                f"{top.file}: route[{i}].timeouts.websocket_idle: servers of HTTP/2 get no WebSockets; "
                'send them to an upstream with protocol = "http/1.1"'
            )


def page() -> str:
    """docs/configuration.md."""
    return "\n".join([_INTRODUCTION.strip(), *reference(Settings), ""])


_INTRODUCTION = """
# Configuration

<!-- Made by `python -m edge.config`; do not edit. -->

`edge` reads one [TOML](https://toml.io) file: `edge run --config edge.toml`. `edge check --config edge.toml`
says whether it would run, without running it; `edge reload --config edge.toml` (or SIGHUP to the master)
puts a changed file to work without losing a connection, and a file with an error changes nothing.

```toml
[server]
workers = "auto"
user = "edge"
pid_file = "/run/edge/edge.pid"
admin = "unix:/run/edge/admin.sock"
access_log = { path = "/var/log/edge/access.log" }

[[listener]]
bind = ["0.0.0.0:443", "[::]:443"]
timeouts = { handshake = "5s", header = "10s", keepalive = "75s" }

[[certificate]]
chain = "/etc/edge/example.pem"
key = "/etc/edge/example.key"

[[upstream]]
name = "app"
servers = ["unix:/run/app.sock", "10.0.0.7:8080"]
pool = { max_idle = 200, idle = "10s" }

[[route]]
match = {}
upstream = "app"

[[route]]
match = { host = ["example.com"], path = "/upload/*", method = ["POST"] }
upstream = "app"
timeouts = { body_idle = "15s", first_byte = "2m" }
```

- An unknown key is an error, and so is a value of the wrong kind: the message names the file, the key and a remedy.
- A **duration** is a number with a unit, `"250ms"`, `"5s"`, `"2m"`, `"1h"`, `"7d"`; where it says so, `"none"`
  switches the limit off.
- A **size** is a number with a unit: `"512B"`, `"14KiB"`, `"1MiB"`; a **rate** is a size per second, `"1KiB/s"`, or
  `"none"`.
- [timeouts.md](timeouts.md) shows what each of the **timeouts** measures, and how it ends a request.
- [limits.md](limits.md) shows what each of the **limits** counts, and what becomes of what is over it.
- A relative **path** starts at the directory of the configuration file.
- A key with a dot, such as `timeouts.header`, stands in a table of its own: `timeouts = { header = "10s" }`.
"""


if __name__ == "__main__":
    sys.stdout.write(page())
