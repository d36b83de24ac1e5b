"""Hosts and ports as they stand in a configuration."""

import ipaddress
import re
from typing import Final

_LABEL: Final = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
NAME: Final = re.compile(rf"(\*\.)?{_LABEL}(\.{_LABEL})*")
"""A DNS name in lower case, or a pattern of one."""


def split_port(text: str) -> tuple[str, int]:
    """Host and port; an IPv6 address stands in brackets. ValueError otherwise."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        raise ValueError("has no port between 1 and 65535")
    if host.startswith("[") and host.endswith("]"):
        return str(ipaddress.IPv6Address(host[1:-1])), int(port)
    if ":" in host:
        raise ValueError("an IPv6 address stands in brackets")
    return host, int(port)


def host_and_port(text: str) -> tuple[str, int]:
    """The same of a server: an address or a name, in lower case."""
    if "://" in text:
        raise ValueError("is a URL")
    host, port = split_port(text)
    host = host.lower()
    if (not text.startswith("[") and not NAME.fullmatch(host)) or host.startswith("*"):
        raise ValueError("is no address or host name")
    return host, port


def dns_name(text: str) -> str:
    """A DNS name or a pattern of one, in lower case. ValueError otherwise."""
    name = text.lower().removesuffix(".")
    if len(name) > 253 or not NAME.fullmatch(name):
        raise ValueError("is no DNS name")
    return name


def peer_name(text: str) -> str:
    """What a certificate may be for: an address or a name. ValueError otherwise."""
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        name = dns_name(text)
    if name.startswith("*"):
        raise ValueError("is a pattern, not a name")
    return name


def join(host: str, port: int) -> str:
    """What `host_and_port` takes apart."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
