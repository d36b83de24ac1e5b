"""What clients may have and send, as settings of a listener, and of a route, which narrows it."""

from edge.schema import Choice, Integer, Size, knob, table


@table
class Limits:
    line: int = knob(
        Size("64B", "48KiB"),
        "Longest line of a request's head; 414 for a longer request line, 431 for a field.",
        default="8KiB",
    )
    head: int = knob(
        Size("256B", "48KiB"), "Largest head of a request, request line included; 431 beyond it.", default="32KiB"
    )
    fields: int = knob(Integer(1, 1024), "Most header fields of a request; 431 beyond it.", default=128)
    connections: int = knob(
        Integer(1, 1 << 24, none=True),
        "Connections of this listener that each worker serves at a time. Beyond it idle ones are closed to make room, "
        "those that have been idle longest first; if there are none, see `over_limit`.",
        default=65536,
    )
    per_address: int = knob(
        Integer(1, 65535, none=True),
        "Connections that a client address may have at a time, in all workers together, at all listeners that limit "
        "what an address may have. An IPv6 address counts by its /64. Who serves clients behind large NATs, or stands "
        "behind another proxy, sets it high or not at all.",
        default="none",
    )
    over_limit: str = knob(
        Choice("close", "answer"),
        "What comes of a connection over `connections` or `per_address`: it is closed before its handshake; or it is "
        "shaken hands with, and its first request answered with 503 or 429. Of those at most 64 at a time in each "
        "worker; the others are closed.",
        default="close",
    )
    requests_per_connection: int = knob(
        Integer(1, 1 << 31, none=True),
        "How many requests a connection may bring: the response to the last one says `Connection: close`, in HTTP/2 "
        "a GOAWAY asks for no further ones.",
        default="none",
    )
    requests_per_address: int = knob(
        Integer(1, 65535, none=True),
        "Requests of a client address that may be under way at a time, counted as for `per_address`; 429 beyond it.",
        default="none",
    )


@table
class RouteLimits:
    head: int = knob(
        Size("256B", "48KiB", none=True),
        "Largest head of a request for this route, where the listener's `limits.head` is too much; 431 beyond it.",
        default="none",
    )
    body: int = knob(
        Size("1B", "1048576GiB", none=True),
        "Largest content of a request. 413 beyond it: before anything goes to the upstream if the request says how "
        "much there is, else when so much has come. If a response has begun by then, it is cut.",
        default="none",
    )
    requests: int = knob(
        Integer(1, 1 << 24, none=True),
        "Requests for this route that each worker has under way at a time; 503 beyond it.",
        default="none",
    )
