"""Traces, as settings: what is sampled, whose context counts, and where spans go."""

import importlib.util
import ipaddress
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from edge.schema import (
    Choice,
    Duration,
    File,
    Integer,
    Kind,
    Milliseconds,
    Parsed,
    Place,
    Text,
    knob,
    show,
    table,
)

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Texts = tuple[tuple[str, str], ...]

PACKAGE: Final = "opentelemetry.exporter.otlp.proto.http"
SECRET: Final = "(not shown)"  # noqa: S105  # what stands for one
_MANY: Final = 64


class Share(Kind[float]):
    """A part of a whole: 0.01, or "1%"."""

    text = 'number from 0 to 1, or percentage such as "1%"'

    def read(self, value: object, at: Place) -> float:
        share: float = math.nan
        if isinstance(value, int | float) and not isinstance(value, bool):
            share = float(value)
        elif isinstance(value, str) and (found := re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,9})?)\s?%", value)):
            share = float(found[1]) / 100
        if not 0 <= share <= 1:
            raise at.error(f"{show(value)} is no share", 'write a number from 0 to 1, or a percentage such as "1%"')
        return share


class Trust(Kind[bool | tuple[Network, ...]]):
    """Everybody, nobody, or networks."""

    text = "boolean or array of networks"

    def write(self, value: bool | tuple[Network, ...]) -> object:
        return value if isinstance(value, bool) else list(map(str, value))

    def read(self, value: object, at: Place) -> bool | tuple[Network, ...]:
        remedy = 'write true, false, or networks: ["10.0.0.0/8", "2001:db8::/32"]'
        if isinstance(value, bool):
            return value
        if not isinstance(value, list):
            raise at.error(f"{show(value)} does not say whom to trust", remedy)
        network = Parsed("network", ipaddress.ip_network, 'write "10.0.0.0/8", "192.0.2.7" or "2001:db8::/32"')
        return tuple(network.read(one, at.item(i)) for i, one in enumerate(value))


class TextTable(Kind[Texts]):
    """Strings by their names, which match a pattern. `dotted`: names have dots, which TOML takes for tables. `secret`:
    what they say is shown to nobody."""

    text = "table of strings"

    def __init__(self, names: str, remedy: str, *, dotted: bool = False, secret: bool = False) -> None:
        self._names = re.compile(names)
        self._remedy = remedy
        self._dotted = dotted
        self._secret = secret

    def write(self, value: Texts) -> object:
        return {name: SECRET if self._secret else text for name, text in value}

    def read(self, value: object, at: Place) -> Texts:
        if not isinstance(value, dict):
            raise at.error(f"{show(value)} is not a table of strings", self._remedy)
        if self._dotted:
            value = dict(_joined(value))
        if len(value) > _MANY:
            raise at.error(f"has {len(value)} entries", f"keep to {_MANY}")
        plain = Text("string of visible characters", r"[ -~\u00a0-\U0010ffff]{0,4096}", self._remedy)
        for name in value:
            if not self._names.fullmatch(name):
                raise at.key(name).error("is no name here", self._remedy)
        return tuple((name, plain.read(one, at.key(name))) for name, one in value.items())


def _joined(tables: dict[str, object], before: str = "") -> Iterator[tuple[str, object]]:
    for name, value in tables.items():
        if isinstance(value, dict):
            yield from _joined(value, f"{before}{name}.")
        else:
            yield before + name, value


def _endpoint(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname or url.fragment:
        raise ValueError("is no URL of http or https")
    if url.username or url.password:
        raise ValueError("has credentials in it, which would show up in logs; they belong into `headers`")
    _ = url.port  # which raises ValueError for what is none
    return text


@table
class Traces:
    endpoint: str = knob(
        Parsed("URL", _endpoint, 'write the whole URL of OTLP over HTTP, such as "http://127.0.0.1:4318/v1/traces"'),
        "Where spans go: an OpenTelemetry collector that speaks OTLP over HTTP.",
    )
    sample: float = knob(
        Share(),
        "The share of requests whose spans are exported, decided by the random trace id. With a context that is "
        "trusted, its `sampled` flag decides.",
        default="1%",
    )
    trust: bool | tuple[Network, ...] = knob(
        Trust(),
        "Whose `traceparent` goes on: everybody's (`true`), nobody's (`false`: each request begins a trace, and a "
        "client's `traceparent` and `tracestate` end here), or that of clients in these networks. Who is trusted also "
        "decides what is sampled.",
        default=False,
    )
    query: str = knob(
        Choice("none", "names", "full"),
        "What of a request's query is told: nothing, its names (each value as `REDACTED`), or all.",
        default="none",
    )
    headers: Texts = knob(
        TextTable(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}", 'write { "x-api-key" = "..." }', secret=True),
        "Header fields for the collector, such as an API key.",
        default={},
    )
    service: str = knob(Text("name", r"[ -~]{1,255}"), "The `service.name` of the spans.", default="edge")
    resource: Texts = knob(
        TextTable(r"[!-~]{1,255}", 'write { deployment.environment.name = "production" }', dotted=True),
        "Further attributes of their resource.",
        default={},
    )
    ca: Path | None = knob(
        File(),
        "PEM file: the authorities of a collector that is spoken to by https.",
        default=None,
        otherwise="those of Python's certifi",
    )
    compression: str = knob(Choice("gzip", "none"), "How what is exported is compressed.", default="gzip")
    timeout: Milliseconds = knob(
        Duration("100ms", "5m"),
        "How long an export may take, with all attempts; then its spans are lost.",
        default="10s",
    )
    queue: int = knob(
        Integer(16, 1 << 20),
        "Spans that wait for the collector at most; further ones are dropped, and counted.",
        default=4096,
    )


def check(settings: Traces, at: Place) -> None:
    """Whether spans could be exported. Raises ConfigError."""
    try:
        found = importlib.util.find_spec(PACKAGE)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise at.error("needs OpenTelemetry, which is not installed", 'install it: pip install "edge[traces]"')
    if settings.ca is not None:
        try:
            settings.ca.read_bytes()
        except OSError as e:
            reason = (e.strerror or "cannot be read").lower()
            raise at.key("ca").error(f"{settings.ca}: {reason}", "name a file that exists") from None

