"""Where operators look on, as settings: each is an address that the observer (`edge.observe.observer`) answers at."""

import dataclasses
import ipaddress
import socket
from typing import TypeVar

from edge.hostport import dns_name, split_port
from edge.schema import Boolean, ListOf, Parsed, Place, Section, knob, table

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True)
class Endpoint:
    """An IP address and port, for plain HTTP."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"

    @property
    def family(self) -> socket.AddressFamily:
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET


def _endpoint(text: str) -> Endpoint:
    host, port = split_port(text)
    return Endpoint(str(ipaddress.ip_address(host)), port)


def _host_name(text: str) -> str:
    if "*" in text:
        raise ValueError("is a pattern")
    return dns_name(text)


ENDPOINT = Parsed("IP address and port", _endpoint, 'write "127.0.0.1:9145" or "[::1]:9145"')


class BindSection(Section[T]):
    """A table that may be written as its `bind` alone."""

    def __init__(self, cls: type[T]) -> None:
        super().__init__(cls)
        self.text = "table, or its `bind`"

    def read(self, value: object, at: Place) -> T:
        return super().read({"bind": value} if isinstance(value, str) else value, at)


@table
class Metrics:
    bind: Endpoint = knob(
        ENDPOINT,
        "Where `/metrics` is answered, in plain HTTP and to everybody who can connect: keep it to this host or to a "
        'network of your own. `metrics = "127.0.0.1:9145"` says the same.',
    )
    routes: bool = knob(
        Boolean(),
        "Whether routes are told apart. With thousands of them an answer is megabytes; `false` leaves upstreams and "
        "the server as a whole.",
        default=True,
    )


@table
class StatusPage:
    bind: Endpoint = knob(
        ENDPOINT,
        "Where the page is answered, in plain HTTP and to everybody who can connect: keep it to this host or to a "
        'network of your own. It shows, and changes nothing. `status_page = "127.0.0.1:9146"` says the same.',
    )
    hosts: tuple[str, ...] = knob(
        ListOf(Parsed("host name", _host_name, 'write names without a port: "status.internal"'), empty=True),
        "Names that the page may be called by, beside IP addresses and `localhost`. Any other is refused: a web site "
        "could have its name lead here, to read the page with its visitors' browsers (DNS rebinding).",
        default=[],
    )
