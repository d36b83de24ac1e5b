"""0-RTT data as settings: whether it is taken, what a route does with requests in it, and how replays are kept out.

docs/early-data.md tells what is safe, and what a backend has to do with it.
"""

import re
from collections.abc import Sequence
from typing import Final

from edge.errors import ConfigError
from edge.schema import (
    Boolean,
    Choice,
    Duration,
    Integer,
    ListOf,
    Milliseconds,
    Parsed,
    Place,
    Section,
    Size,
    knob,
    table,
)

MODE: Final = Choice("confirm", "forward", "reject")
"""Of a route."""

_NO_NAMES: Final = re.compile(
    "accept|authorization|connection|content-.*|cookie|date|early-data|expect|forwarded|host|keep-alive|max-forwards|"
    "proxy|proxy-.*|server|te|trailer|transfer-encoding|upgrade|via|x-forwarded-.*|x-real-ip"
)
"""Fields with a meaning of their own."""


def _field(text: str) -> str:
    if text == "none":
        return ""
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9-]{0,63}", text):
        raise ValueError("is no field name of letters, digits and hyphens")
    if _NO_NAMES.fullmatch(text.lower()):
        raise ValueError("is a field with a meaning of its own")
    return text


def _method(text: str) -> str:
    if text in ("TRACE", "CONNECT"):
        raise ValueError("is never safe in early data")
    if not re.fullmatch(r"[A-Z][A-Z0-9-]*", text):
        raise ValueError("is no method")
    return text


@table
class Safe:
    methods: tuple[str, ...] = knob(
        ListOf(Parsed("method", _method, 'write a method in capitals, such as "GET"; TRACE and CONNECT always wait')),
        "The methods.",
        default=["GET", "HEAD", "OPTIONS"],
    )
    query: bool = knob(Boolean(), "Whether they may have a query.", default=False)
    content: bool = knob(Boolean(), "Whether they may have content.", default=False)


@table
class EarlyData:
    max_bytes: int = knob(
        Size("1B", "1MiB"),
        "Most 0-RTT data of a connection; it is kept in memory as far as it must wait.",
        default="14KiB",
    )
    window: Milliseconds = knob(
        Duration("100ms", "10m"),
        "How far the age of a ticket may differ between the client's clock and ours for its 0-RTT data to be taken.",
        default="10s",
    )
    replay: str = knob(
        Choice("single-use"),
        "How replays are kept out: 0-RTT data is taken once, by all workers together, or all hosts of a `fleet` that "
        "share it; only under their tickets. Those of a host alone that outlive a restart (`tickets.secret_file`) have "
        "0-RTT data again one `window` after it.",
        default="single-use",
    )
    rate: int = knob(
        Integer(1, 100_000),
        "Connections with 0-RTT data per second that there is room to remember (640 bytes of memory each, with a "
        "`window` of 10s). Beyond it clients send their data after the handshake.",
        default=5000,
    )
    safe: Safe = knob(
        Section(Safe),
        'Which requests routes with `early_data = "forward"` send to their upstream at once. WebSockets and other '
        "upgrades always wait.",
        default={},
    )
    unique_header: str = knob(
        Parsed(
            "field name", _field, 'write a name such as "Early-Data-Unique", or "none"', lambda name: name or "none"
        ),
        "The field of such a request by which a backend knows a second copy of it; `\"none\"` for none. What clients "
        "send under this name is dropped, on every route.",
        default="Early-Data-Unique",
    )


def check(modes: Sequence[str], early_data: EarlyData | None, at: Place) -> ConfigError | None:
    """What is wrong with routes' `early_data`."""
    for i, mode in enumerate(modes):
        if mode == "forward" and early_data is None:
            return at.key("route").item(i).key("early_data").error(
                "has no effect: no 0-RTT data is taken", "add [tls.early_data], or remove the key"
            )
    return None
