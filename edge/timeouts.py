"""Time limits as settings: the same keys for a listener, where each has a default, and for a route, which overrides.

docs/timeouts.md shows what each one measures and how it ends a request.
"""

import functools
from typing import Any, Final

from edge.errors import ConfigError
from edge.schema import Duration, Kind, Milliseconds, Place, Rate, knob, table

_LIMITS: Final[dict[str, tuple[Kind[int], str, str]]] = {
    "header": (
        Duration(none=True),
        "From the first byte of a request's head (a connection's first: from the end of the handshake) to its last; "
        "408 after it.",
        "10s",
    ),
    "body_idle": (
        Duration(none=True),
        "How long the client may send nothing of a request's body while it is waited for; 408 after it.",
        "60s",
    ),
    "min_rate": (
        Rate(),
        "At least this much of a request's body per second, on average over the time in which it is waited for; 408 "
        "below it.",
        "none",
    ),
    "connect": (Duration(none=True), "To connect to a server of the upstream; 504 after it.", "5s"),
    "first_byte": (
        Duration(none=True),
        "From the end of the request to the head of the response; 504 after it.",
        "60s",
    ),
    "response_idle": (
        Duration(none=True),
        "How long the upstream may send nothing of its response, or take nothing of the request; 504 after it, or an "
        "end of the response that shows that it is not whole.",
        "60s",
    ),
    "write_idle": (
        Duration(none=True),
        "How long the client may take nothing of what waits for it; the connection, or its stream of HTTP/2, is cut "
        "after it.",
        "60s",
    ),
    "write_min_rate": (
        Rate(),
        "At least this much must be taken by the client per second, on average while something waits for it; cut below "
        "it.",
        "none",
    ),
    "rate_grace": (Duration(), "How long either rate may be below its minimum at first.", "5s"),
    "total": (
        Duration(none=True),
        "The whole request, from its head to the last byte of the upstream's response; 504 after it, 408 where the "
        "request's body is waited for, or a cut.",
        "none",
    ),
    "keepalive": (
        Duration(none=True),
        "How long a connection may be without a request after a response; then it is closed.",
        "75s",
    ),
    "websocket_idle": (
        Duration(none=True),
        "How long a WebSocket, or another upgraded connection, may carry nothing in either direction.",
        "1h",
    ),
}

_DATA_PLANE: Final = {"min_rate": "body_rate", "write_min_rate": "write_rate", "websocket_idle": "tunnel_idle"}
"""Where the data plane's name is another than the user's."""

NAMES: Final = {name: _DATA_PLANE.get(name, name) for name in _LIMITS}
"""Every limit, with the data plane's name."""


def kind_of(name: str) -> Kind[int]:
    return _LIMITS[name][0]


def _own(name: str) -> Any:
    kind, doc, default = _LIMITS[name]
    return knob(kind, doc, default=default)


def _override(name: str) -> Any:
    kind, doc, _ = _LIMITS[name]
    return knob(kind, doc, default=None, otherwise="the listener's")


@table
class ListenerTimeouts:
    handshake: Milliseconds = knob(
        Duration(none=True), "From accepting a connection to the end of its TLS handshake.", default="5s"
    )
    header: Milliseconds = _own("header")
    body_idle: Milliseconds = _own("body_idle")
    min_rate: int = _own("min_rate")
    connect: Milliseconds = _own("connect")
    first_byte: Milliseconds = _own("first_byte")
    response_idle: Milliseconds = _own("response_idle")
    write_idle: Milliseconds = _own("write_idle")
    write_min_rate: int = _own("write_min_rate")
    rate_grace: Milliseconds = _own("rate_grace")
    total: Milliseconds = _own("total")
    keepalive: Milliseconds = _own("keepalive")
    websocket_idle: Milliseconds = _own("websocket_idle")


@table
class RouteTimeouts:
    header: Milliseconds | None = _override("header")
    body_idle: Milliseconds | None = _override("body_idle")
    min_rate: int | None = _override("min_rate")
    connect: Milliseconds | None = _override("connect")
    first_byte: Milliseconds | None = _override("first_byte")
    response_idle: Milliseconds | None = _override("response_idle")
    write_idle: Milliseconds | None = _override("write_idle")
    write_min_rate: int | None = _override("write_min_rate")
    rate_grace: Milliseconds | None = _override("rate_grace")
    total: Milliseconds | None = _override("total")
    keepalive: Milliseconds | None = _override("keepalive")
    websocket_idle: Milliseconds | None = _override("websocket_idle")


@functools.lru_cache(256)  # most routes have none of their own
def limits(timeouts: ListenerTimeouts | RouteTimeouts) -> dict[str, int]:
    """Those that are set, by the data plane's names: milliseconds, bytes per second; 0 for none. Not to be changed."""
    values = {of_plane: getattr(timeouts, name) for name, of_plane in NAMES.items()}
    return {name: value for name, value in values.items() if value is not None}


def check(listeners: tuple[ListenerTimeouts, ...], route: RouteTimeouts, at: Place) -> ConfigError | None:
    """What is wrong with a route's limits beside those of the listeners that it is reached through.

    A head is read before its route is known: there a route can only be stricter.
    """
    longest = 0 if any(t.header == 0 for t in listeners) else max(t.header for t in listeners)
    if longest == 0 or route.header is None or 0 < route.header <= longest:
        return None
    return at.key("header").error(
        "is longer than every listener's, which ends the wait before the route is known",
        "raise timeouts.header of the listener, or leave the key out",
    )
