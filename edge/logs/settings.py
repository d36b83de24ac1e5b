"""The logs, as settings: where they go and what a line looks like."""

import dataclasses
import ipaddress
import os
import re
from pathlib import Path
from typing import Final

from edge.hostport import split_port
from edge.schema import Choice, File, Kind, ListOf, Parsed, Place, Section, Text, knob, show, table

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

SHARE_ONE: Final = 1 << 32
"""A share of everything, as `Share` reads it."""
FIELDS_MOST: Final = 16
FACILITIES: Final = {
    "kern": 0, "user": 1, "mail": 2, "daemon": 3, "auth": 4, "syslog": 5, "lpr": 6, "news": 7, "uucp": 8, "cron": 9,
    "authpriv": 10, "ftp": 11, **{f"local{i}": 16 + i for i in range(8)},
}  # fmt: skip
"""RFC 5424, section 6.2.1."""
_CREDENTIALS: Final = frozenset({"authorization", "cookie", "proxy-authorization", "set-cookie"})


@dataclasses.dataclass(frozen=True, slots=True)
class SyslogAddress:
    """Where datagrams for a syslog daemon go: a Unix socket, or a host's UDP port."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.path:
            return f"unix:{self.path}"
        return f"udp:[{self.host}]:{self.port}" if ":" in self.host else f"udp:{self.host}:{self.port}"


def _syslog_address(text: str) -> SyslogAddress:
    kind, _, rest = text.partition(":")
    if kind == "unix" and rest.startswith("/") and len(os.fsencode(rest)) < 108:
        return SyslogAddress(path=rest)
    if kind != "udp":
        raise ValueError("is no address of a syslog daemon")
    host, port = split_port(rest)
    # A name would have to be looked up again and again, by a process that must not wait for that.
    return SyslogAddress(host=str(ipaddress.ip_address(host)), port=port)


def _field_name(text: str) -> str:
    name = text.lower()
    if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9a-z-]{1,64}", name):
        raise ValueError("is no name of a field")
    if name in _CREDENTIALS:
        raise ValueError("holds credentials, which have no place in a log")
    return name


class Share(Kind[int]):
    """A number above 0 and at most 1, as parts of SHARE_ONE."""

    text = "number"

    def write(self, value: int) -> object:
        return value / SHARE_ONE

    def read(self, value: object, at: Place) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1:
            raise at.error(f"{show(value)} is no share", "write a number above 0 and at most 1, such as 0.01")
        return max(1, round(value * SHARE_ONE))


@table
class Syslog:
    address: SyslogAddress = knob(
        Parsed("address", _syslog_address, 'write "unix:/dev/log" or "udp:192.0.2.1:514"'),
        "The daemon's Unix socket, or an IP address and its UDP port. To a socket the form of syslog(3) is spoken, "
        "over UDP that of RFC 5424.",
        default="unix:/dev/log",
    )
    facility: str = knob(Choice(*FACILITIES), "The facility of the messages.", default="daemon")
    tag: str = knob(
        Text("tag", r"[A-Za-z0-9_.-]{1,32}", "write at most 32 letters, digits, dots, dashes and underscores"),
        "What the messages are from; the identifier in the journal, too.",
        default="edge",
    )


@table
class AccessLog:
    target: str | None = knob(
        Choice("file", "stdout", "syslog", "journald"),
        "Where lines go: a file, standard output, a syslog daemon, or systemd's journal with a field for each value.",
        default=None,
        otherwise='`"file"`',
    )
    path: Path | None = knob(
        File(), "The file; one line is appended per request. Reopened on SIGUSR1.", default=None, otherwise="required"
    )
    group: str | None = knob(
        Text("group name"), "The group that may read the file, when edge makes it.", default=None, otherwise="master's"
    )
    format: str = knob(
        Choice("json", "combined"),
        "The form of a line: a JSON object, or what Apache and nginx call `combined`.",
        default="json",
    )
    sample: int = knob(
        Share(), "The share of requests that get a line, chosen by chance; beside those of `always`.", default=1
    )
    always: tuple[str, ...] = knob(
        ListOf(Choice("4xx", "5xx", "faults"), empty=True),
        "What gets a line whatever `sample` says: responses of these classes; `faults`: requests that a limit, a "
        "timeout or a broken connection ended.",
        default=["5xx", "faults"],
    )
    fields: tuple[str, ...] = knob(
        ListOf(Parsed("field name", _field_name, 'write names of request fields, such as "user-agent"'), empty=True),
        f"With `json`: fields of the request that stand in a line; at most {FIELDS_MOST}.",
        default=[],
    )
    syslog: Syslog = knob(Section(Syslog), 'With `target = "syslog"`: which, and as what.', default={})


@table
class ErrorLog:
    target: str | None = knob(
        Choice("file", "stderr", "syslog", "journald"),
        "Where messages go. Without it: to the file, if there is a `path`, else to standard error.",
        default=None,
        otherwise="see there",
    )
    path: Path | None = knob(File(), "The file. Reopened on SIGUSR1.", default=None)
    group: str | None = knob(
        Text("group name"), "The group that may read the file, when edge makes it.", default=None, otherwise="master's"
    )
    level: str = knob(
        Choice("debug", "info", "warning", "error"), "The least severe message that is written.", default="info"
    )
    format: str = knob(
        Choice("text", "json"), "The form of a line in a file or on standard error.", default="text"
    )
    syslog: Syslog = knob(Section(Syslog), 'With `target = "syslog"`: which, and as what.', default={})


@table
class KeyLog:
    path: Path = knob(File(), "The file, which its owner alone may read. Reopened on SIGUSR1.")
    clients: tuple[Network, ...] = knob(
        ListOf(Parsed("network", ipaddress.ip_network, 'write "192.0.2.0/24", "192.0.2.7" or "2001:db8::/32"')),
        'The networks of the clients whose secrets are logged; `"0.0.0.0/0"` and `"::/0"` are all.',
    )


class KeyLogTable(Section[KeyLog]):
    """The table; a plain path, which named no clients, is refused with what to write."""

    def __init__(self) -> None:
        super().__init__(KeyLog)

    def read(self, value: object, at: Place) -> KeyLog:
        if isinstance(value, str):
            raise at.error(
                "says nothing of whose secrets are logged",
                f'write {{ path = {show(value)}, clients = ["192.0.2.0/24"] }} with the networks of your own clients',
            )
        return super().read(value, at)


def access_target(log: AccessLog) -> str:
    return log.target or "file"


def error_target(log: ErrorLog) -> str:
    return log.target or ("file" if log.path else "stderr")


def check(access: AccessLog | None, error: ErrorLog, at: Place) -> None:
    """What the tables alone cannot see. Raises ConfigError."""
    if access:
        _check_file(access_target(access), access, at.key("access_log"))
        if access.fields and access.format != "json":
            raise at.key("access_log").key("fields").error(
                "combined has fields of its own", 'remove it, or write format = "json"'
            )
        if len(access.fields) > FIELDS_MOST:
            raise at.key("access_log").key("fields").error("are too many", f"keep to {FIELDS_MOST}")
    _check_file(error_target(error), error, at.key("error_log"))


def _check_file(target: str, log: AccessLog | ErrorLog, at: Place) -> None:
    if target == "file" and log.path is None:
        raise at.key("path").error("is missing", "add it (path), or name another target")
    if target != "file" and log.path is not None:
        raise at.key("path").error(f"is not used with target = {show(target)}", "remove one of the two")
    if target != "syslog" and log.syslog != Syslog():
        raise at.key("syslog").error('has no meaning without target = "syslog"', "remove it, or add that")
