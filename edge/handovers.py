"""Handing over, as settings: the receivers, what goes to them, and who may hand connections to a listener."""

import grp
import os
import pwd
import re
from typing import Final, Protocol

from edge.hostport import dns_name
from edge.schema import Choice, ListOf, Named, Parsed, Place, Section, Text, knob, table

_ANYWHERE: Final = Place("")

PATH_MAX: Final = 107
"""Bytes in the path of a Unix socket."""

OFFERED: Final = {"1.0": 0x0301, "1.1": 0x0302, "1.2": 0x0303, "1.3": 0x0304}


def socket_path(text: str) -> str:
    """The path of a Unix socket, absolute. ValueError otherwise."""
    if not text.startswith("/") or "\0" in text:
        raise ValueError("the path of a Unix socket is absolute")
    if len(os.fsencode(text)) > PATH_MAX:
        raise ValueError(f"the path of a Unix socket has at most {PATH_MAX} bytes")
    return text


def _socket(text: str) -> str:
    if not text.startswith("unix:"):
        raise ValueError("is no Unix socket")
    return socket_path(text.removeprefix("unix:"))


def _mode(text: str) -> int:
    if not re.fullmatch(r"0?[0-7]{3}", text):
        raise ValueError("are no permissions")
    return int(text, 8)


PERMISSIONS: Final = Parsed("permissions", _mode, 'write them as chmod has them, such as "0660"', "{:04o}".format)


class Ownership(Protocol):
    """Whom a socket belongs to."""

    @property
    def owner(self) -> str | None: ...
    @property
    def group(self) -> str | None: ...


_JA4: Final = r"[a-z0-9_]{36}|[a-z0-9_]*\*[a-z0-9_*]*"


@table
class HandoffMatch:
    sni: tuple[str, ...] | None = knob(
        ListOf(Parsed("server name", dns_name, 'write "old.example.com" or "*.legacy.example"')),
        'The client asks for one of these names (SNI); `"*.legacy.example"` is any name below it.',
        default=None,
    )
    version: tuple[int, ...] | None = knob(
        ListOf(Named("TLS version", OFFERED)),
        'The highest version of TLS that the client offers is one of these: `["1.0", "1.1"]` is for clients that this '
        "server has no version for.",
        default=None,
    )
    alpn: tuple[str, ...] | None = knob(
        ListOf(Text("protocol", r"[!-~]{1,255}", 'write a protocol of ALPN, such as "acme-tls/1"')),
        "The client offers one of these protocols (ALPN).",
        default=None,
    )
    ja4: tuple[str, ...] | None = knob(
        ListOf(Text("JA4 fingerprint", _JA4, 'write "t13d1516h2_8daaf6152771_e5627efa2ab1", or a part of it and "*"')),
        "The client has one of these JA4 fingerprints; `*` stands for any characters. Computed in Python, for "
        "connections that the other conditions hold for.",
        default=None,
    )


@table
class Handoff:
    name: str = knob(
        Text("name", r"[A-Za-z0-9._-]{1,64}", "write up to 64 letters, digits, dots, hyphens or underscores"),
        "The name that hooks and logs call it by; the receiver is told.",
    )
    socket: str = knob(
        Parsed("Unix socket", _socket, 'write "unix:/run/legacy.sock"', "unix:{}".format),
        'Where the receiver listens, `"unix:/run/legacy.sock"`: a Unix socket, SOCK_SEQPACKET.',
    )
    match: HandoffMatch | None = knob(
        Section(HandoffMatch),
        "Which connections. All conditions hold; of several `[[handoff]]` the first one decides. Without this table it "
        "is only for a policy's `client_hello` hook.",
        default=None,
    )
    otherwise: str = knob(
        Choice("close", "serve"),
        "What comes of a connection that the receiver does not take, because it is away or too slow: closed, or served "
        "here.",
        default="close",
    )


@table
class HandoffSocket:
    mode: int = knob(
        PERMISSIONS,
        "The permissions of the sockets: who may connect.",
        default="0600",
    )
    owner: str | None = knob(
        Text("user name"),
        "Whom the sockets belong to. Needs a start as root.",
        default=None,
        otherwise="who starts edge",
    )
    group: str | None = knob(
        Text("group name"), "The group that they belong to.", default=None, otherwise="of who starts edge"
    )
    users: tuple[str, ...] = knob(
        ListOf(Text("user name"), empty=True),
        "Users whose processes may hand connections over, beside root and the user that workers run as.",
        default=[],
    )


def ownership(settings: Ownership, at: Place = _ANYWHERE) -> tuple[int, int]:
    """User and group id of the sockets, -1 for what stays. Raises ConfigError."""
    uid = user_id(settings.owner, at.key("owner")) if settings.owner is not None else -1
    gid = -1
    if settings.group is not None:
        try:
            gid = grp.getgrnam(settings.group).gr_gid
        except KeyError:
            raise at.key("group").error(
                f'there is no group "{settings.group}"', "create it (groupadd --system) or name another"
            ) from None
    if uid not in (-1, os.geteuid()) and os.geteuid() != 0:
        raise at.key("owner").error("only root can change it", "start edge as root, or remove the key")
    return uid, gid


def user_id(name: str, at: Place) -> int:
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise at.error(f'there is no user "{name}"', "create it (useradd --system) or name another") from None
